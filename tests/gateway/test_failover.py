"""Two endpoints in order, the first one broken in every way before content."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.gateway.upstreams import (
    Call,
    Part,
    answer,
    cut,
    dead_port,
    openai_endpoint,
    refusal,
    reset,
    silence,
    upstream,
)
from tests.gateway_harness import Clock, Gateway, fake, model, running, settings, until

pytestmark = pytest.mark.anyio

SECOND = ("from ", "the ", "second ")
USD = 10**9


def ordered(*endpoints: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A model whose endpoints are tried in this order."""
    return model(*endpoints, id="m", strategy="ordered", **more)


async def answered_by_the_second(gateway: Gateway, tries: list[tuple[str, str]]) -> None:
    """One clean stream from the second endpoint, charged once, and the record tells why."""
    streamed = await gateway.stream(model="m", max_tokens=10)
    assert streamed.answer.status_code == 200, streamed.answer.text
    assert (streamed.text, streamed.errors, streamed.done) == ("".join(SECOND), [], True)
    assert {chunk["provider"] for chunk in streamed.chunks} == {"second"}
    balance = await gateway.audited()
    (line,) = await gateway.journal()
    # 7 prompt tokens at 1 and 3 output tokens at 2 micro-dollars.
    assert line.charge_nanodollars == 13_000 == balance.spent_nanodollars
    assert streamed.chunks[-1]["usage"]["cost"] == 0.000013
    assert line.endpoint == "m@second"
    record = await gateway.generation(streamed.answer.headers["x-generation-id"])
    attempts = [(a["provider_name"], a["outcome"]) for a in record["provider_responses"]]
    assert attempts == [*tries, ("second", "ok")]
    assert record["provider_name"] == "second"
    assert all(a["latency"] >= 0 for a in record["provider_responses"])


FAULTS: dict[str, tuple[Part, int, str]] = {
    "500": (refusal(500), 3, "UpstreamFailed"),
    "503": (refusal(503), 3, "UpstreamFailed"),
    "408": (refusal(408), 3, "UpstreamFailed"),
    "429 without a wait": (refusal(429), 3, "RateLimited"),
    "429 with a short wait": (refusal(429, Retry_After="0"), 3, "RateLimited"),
    "429 with a long wait": (refusal(429, Retry_After="60"), 1, "RateLimited"),
    "401": (refusal(401), 1, "EndpointRejected"),
    "402": (refusal(402), 1, "EndpointRejected"),
    "403": (refusal(403), 1, "EndpointRejected"),
    "404": (refusal(404), 1, "EndpointRejected"),
    "reset": (reset, 3, "ConnectionFailed"),
    "200 and the end": (cut(in_order=True), 3, "StreamTruncated"),
    "200 and a break": (cut(), 3, "StreamTruncated"),
    "empty stop": (answer([]), 3, "EmptyAnswer"),
    "empty stop that counts its end token": (
        answer([], usage={"prompt_tokens": 7, "completion_tokens": 1}),
        3,
        "EmptyAnswer",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_before_content_is_answered_by_the_second(redis_url: str, name: str) -> None:
    """Retried where that may help, at most twice; never where it cannot; then the next one."""
    part, tries, outcome = FAULTS[name]
    async with upstream(part) as first, upstream(answer(SECOND)) as second:
        given = settings(ordered(first.endpoint("first"), second.endpoint("second")))
        async with running(redis_url, given) as gateway:
            await answered_by_the_second(gateway, [("first", outcome)] * tries)
        assert len(first.calls) == tries
        assert len(second.calls) == 1


async def test_a_dead_port_is_answered_by_the_second(redis_url: str) -> None:
    """No listener at all."""
    async with upstream(answer(SECOND)) as second:
        dead = openai_endpoint(dead_port(), "first", retries=1)
        async with running(
            redis_url, settings(ordered(dead, second.endpoint("second")))
        ) as gateway:
            await answered_by_the_second(gateway, [("first", "ConnectionFailed")] * 2)


@pytest.mark.parametrize("headers", [False, True], ids=["no headers", "200 then silence"])
async def test_silence_is_left_at_the_first_token_limit(redis_url: str, headers: bool) -> None:
    """The limit runs until the first content, not until the headers; silence is not retried."""
    clock = Clock()
    async with upstream(silence(headers=headers)) as first, upstream(answer(SECOND)) as second:
        given = settings(ordered(first.endpoint("first"), second.endpoint("second")))
        async with running(redis_url, given, times=clock.times) as gateway:
            asking = asyncio.create_task(
                answered_by_the_second(gateway, [("first", "DeadlineExceeded")])
            )
            await until(lambda: first.calls)
            await until(lambda: gateway.worker.table.endpoint("m@first").in_flight)
            clock.advance(9.9)
            await gateway.worker.ticker.tick()
            assert not first.calls[0].gone.is_set()
            clock.advance(0.2)
            await gateway.worker.ticker.tick()
            await first.calls[0].gone.wait()  # the upstream is closed at once
            await asking
        assert len(first.calls) == 1


async def test_a_role_is_not_content(redis_url: str) -> None:
    """A first event without content does not stop the first-token clock, nor commit."""
    clock = Clock()

    async def role_then_silence(call: Call) -> None:
        await call.start()
        await call.event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
        await call.gone.wait()

    async with upstream(role_then_silence) as first, upstream(answer(SECOND)) as second:
        given = settings(ordered(first.endpoint("first"), second.endpoint("second")))
        async with running(redis_url, given, times=clock.times) as gateway:
            asking = asyncio.create_task(
                answered_by_the_second(gateway, [("first", "DeadlineExceeded")])
            )
            await until(lambda: first.calls)
            await until(lambda: gateway.worker.table.endpoint("m@first").in_flight)
            clock.advance(10.1)
            await gateway.worker.ticker.tick()
            await asking


REFUSALS: dict[str, tuple[Part, str]] = {
    "400": (refusal(400), "invalid_request"),
    "413": (refusal(413), "invalid_request"),
    "422": (refusal(422), "invalid_request"),
    "content filter": (refusal(400, "content_policy_violation"), "content_policy_violation"),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_a_refused_request_ends_without_a_second_try(redis_url: str, name: str) -> None:
    """The request is at fault: neither the next endpoint nor the next model is asked."""
    part, error_type = REFUSALS[name]
    async with upstream(part) as first, upstream(answer(SECOND)) as second:
        given = settings(
            ordered(first.endpoint("first"), second.endpoint("second")),
            model(second.endpoint("other"), id="other"),
        )
        async with running(redis_url, given) as gateway:
            reply = await gateway.chat(model="m", models=["other"])
            assert reply.status_code == 400
            error = reply.json()["error"]
            assert error["message"] == "first: said no"
            assert error["metadata"]["error_type"] == error_type
            assert (await gateway.audited()).spent_nanodollars == 0
        assert (len(first.calls), len(second.calls)) == (1, 0)


@pytest.mark.parametrize(
    ("windows", "served"),
    [
        ((1000, 4000), 1),
        ((1000, 1000), 1),
        ((4000, 1000), None),
        ((4000, None), 1),
        ((None, 1000), 1),
        ((4000, 1000, 8000), 2),
    ],
)
async def test_a_context_error_moves_on_to_a_window_that_is_not_smaller(
    redis_url: str, windows: tuple[int | None, ...], served: int | None
) -> None:
    """The refusal has disproved the refuser's own figure, so an equal one may still do."""
    async with upstream(refusal(400, "context_length_exceeded")) as full, upstream(answer()) as ok:
        endpoints = [full.endpoint("e0", context_tokens=windows[0], max_output_tokens=100)]
        for number, window in enumerate(windows[1:], 1):
            endpoints.append(
                ok.endpoint(f"e{number}", context_tokens=window, max_output_tokens=100)
            )
        async with running(redis_url, settings(ordered(*endpoints))) as gateway:
            reply = await gateway.chat(model="m", max_tokens=90)
            if served is None:
                assert reply.status_code == 400
                error = reply.json()["error"]
                assert error["metadata"]["error_type"] == "context_length_exceeded"
            else:
                assert reply.json()["provider"] == f"e{served}"
        assert len(full.calls) == 1


async def test_the_models_list_is_tried_in_its_order(redis_url: str) -> None:
    """``models`` falls back to other models; the reply names the one that answered."""
    given = settings(
        model(fake(fail={"status": 500}), id="a"),
        model(fake(fail={"status": 503}), id="b"),
        model(fake(tokens=2), id="c", aliases=["sea"]),
    )
    async with running(redis_url, given) as gateway:
        reply = (await gateway.chat(model="a", models=["b", "sea"], max_tokens=5)).json()
        assert reply["model"] == "c"
        assert (await gateway.audited()).spent_nanodollars == 2_000
        headers = {"Authorization": f"Bearer {gateway.key}"}
        body = {"models": ["b", "c"], "messages": [{"role": "user", "content": "x"}]}
        only = await gateway.client.post("/v1/chat/completions", json=body, headers=headers)
        assert only.json()["model"] == "c"  # `models` without `model` is valid


async def test_when_all_fail_the_last_error_is_passed_on_with_those_before(redis_url: str) -> None:
    """Status and reason of the last one, the others in ``previous_errors``; nothing is charged."""
    given = settings(
        ordered(
            fake(fail={"status": 500}) | {"retries": 0, "provider": "a"},
            fake(fail={"status": 429, "retry_after_s": 30}) | {"provider": "b"},
        )
    )
    async with running(redis_url, given) as gateway:
        reply = await gateway.chat(model="m")
        assert reply.status_code == 429
        assert reply.headers["retry-after"] == "30"
        metadata = reply.json()["error"]["metadata"]
        assert metadata["provider_name"] == "b"
        (before,) = metadata["previous_errors"]
        assert (before["provider_name"], before["code"]) == ("a", 502)
        balance = await gateway.audited()
        assert (balance.spent_nanodollars, await gateway.journal()) == (0, [])
        record = await gateway.generation(reply.headers["x-generation-id"])
        assert (record["outcome"], record["charge_nanodollars"]) == ("failed", 0)


async def test_an_upstreams_words_about_our_credential_stay_with_us(redis_url: str) -> None:
    """What an upstream says about the platform's key may quote it; callers see only the status."""
    leak = refusal(401, "invalid_api_key", "Incorrect API key provided: sk-platform-canary")
    async with (
        upstream(leak) as up,
        running(redis_url, settings(model(up.endpoint("up"), id="m"))) as gateway,
    ):
        for stream in (False, True):
            reply = await gateway.chat(model="m", stream=stream)
            assert reply.status_code == 502
            assert "canary" not in reply.text
            assert "401" in reply.text
            record = await gateway.generation(reply.headers["x-generation-id"])
            assert "canary" not in str(record)


async def test_a_stream_cut_after_ten_tokens_ends_with_one_error_chunk(redis_url: str) -> None:
    """Text so far, one error chunk, no end marker; the delivered part is charged, no fallback."""
    words = [f"word{n:04} " for n in range(10)]
    async with upstream(cut(*words)) as first, upstream(answer(SECOND)) as second:
        given = settings(ordered(first.endpoint("first"), second.endpoint("second")))
        async with running(redis_url, given) as gateway:
            streamed = await gateway.stream(model="m", max_tokens=100)
            assert (streamed.text, streamed.done) == ("".join(words), False)
            (error,) = streamed.errors
            assert error["code"] == 502
            assert error["metadata"]["error_type"] == "provider_unavailable"
            last = streamed.chunks[-1]
            assert last["choices"][0]["finish_reason"] == "error"
            assert [c["choices"][0]["finish_reason"] for c in streamed.chunks[:-1]] == [None] * 10
            balance = await gateway.audited()
            (line,) = await gateway.journal()
            assert line.charge_nanodollars == balance.spent_nanodollars
            assert last["usage"]["cost"] * USD == pytest.approx(line.charge_nanodollars)
            # 90 bytes delivered are 22 tokens by our own count.
            assert line.tokens["completion"] == 90 // 4
            assert {"cut", "own_count"} <= set(line.flags)
            record = await gateway.generation(streamed.answer.headers["x-generation-id"])
            assert (record["outcome"], record["cancelled"]) == ("broken", False)
        assert (len(first.calls), len(second.calls)) == (1, 0)


async def test_a_cut_stream_costs_nothing_where_the_model_says_so(redis_url: str) -> None:
    """``charge_broken: false``: the void is complete, and the worker's checkpoints say 0 too."""
    async with upstream(silence("some ")) as up:
        clock = Clock()
        given = settings(ordered(up.endpoint("up"), charge_broken=False))
        async with running(redis_url, given, times=clock.times) as gateway:
            reading = asyncio.create_task(gateway.stream(model="m"))
            endpoint = gateway.worker.table.endpoint("m@up")
            await until(lambda: endpoint.first_token_ms is not None)
            (exchange,) = gateway.worker.dispatcher._parts.cashier._open.values()
            checkpoint = exchange.checkpoint()
            assert checkpoint is not None
            assert (exchange.delivered.events, checkpoint.charge_nanodollars) == (1, 0)
            clock.advance(15.1)
            await gateway.worker.ticker.tick()
            streamed = await reading
            assert streamed.errors[0]["code"] == 504
            assert streamed.chunks[-1]["usage"]["cost"] == 0
            assert (await gateway.audited()).spent_nanodollars == 0
            assert await gateway.journal() == []


async def test_a_stall_after_content_is_an_error_chunk_and_closes_the_upstream(
    redis_url: str,
) -> None:
    """Silence between tokens ends at the stall limit: 504 in-band, upstream left, part charged."""
    clock = Clock()
    async with (
        upstream(silence("some ")) as up,
        running(redis_url, settings(ordered(up.endpoint("up"))), times=clock.times) as gateway,
    ):
        reading = asyncio.create_task(gateway.stream(model="m"))
        endpoint = gateway.worker.table.endpoint("m@up")
        await until(lambda: endpoint.first_token_ms is not None)
        clock.advance(15.1)
        await gateway.worker.ticker.tick()
        streamed = await reading
        await up.calls[0].gone.wait()
        assert (streamed.text, streamed.done) == ("some ", False)
        assert [error["metadata"]["error_type"] for error in streamed.errors] == ["timeout"]
        assert (await gateway.audited()).spent_nanodollars > 0


async def test_an_error_event_after_content_is_passed_on_in_band(redis_url: str) -> None:
    """An upstream's own in-band error ends the answer the same way, with its words."""

    async def part(call: Call) -> None:
        await call.start()
        await call.word("half ")
        await call.event({"error": {"message": "the GPU fell off", "code": 500}})
        await call.end()

    async with (
        upstream(part) as up,
        running(redis_url, settings(model(up.endpoint("up"), id="m"))) as gateway,
    ):
        streamed = await gateway.stream(model="m")
        (error,) = streamed.errors
        assert "the GPU fell off" in error["message"]
        assert not streamed.done
        whole = await gateway.chat(model="m")
        assert whole.status_code == 502
        _ = await gateway.audited()


async def test_garbage_is_dropped_and_the_answer_stands_flagged(redis_url: str) -> None:
    """An event that is no JSON is left out; text and finish are whole; the line says so."""

    async def part(call: Call) -> None:
        await call.start()
        await call.word("one ")
        await call.event('{"choices": [{"index": 0, "del')
        await call.word("two ")
        await call.finish(usage={"prompt_tokens": 7, "completion_tokens": 2})
        await call.end()

    async with (
        upstream(part) as up,
        running(redis_url, settings(model(up.endpoint("up"), id="m"))) as gateway,
    ):
        streamed = await gateway.stream(model="m")
        assert (streamed.text, streamed.done) == ("one two ", True)
        _ = await gateway.audited()
        (line,) = await gateway.journal()
        assert "upstream_garbage" in line.flags


async def test_no_end_marker_but_a_clean_end_is_a_finished_answer(redis_url: str) -> None:
    """Without [DONE] the answer is complete, and our own [DONE] goes out at once."""

    async def part(call: Call) -> None:
        await call.start()
        await call.word("all ")
        await call.event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        await call.event({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 1}})
        await call.end()

    async with (
        upstream(part) as up,
        running(redis_url, settings(model(up.endpoint("up"), id="m"))) as gateway,
    ):
        streamed = await gateway.stream(model="m")
        assert streamed.done
        assert streamed.chunks[-1]["usage"]["completion_tokens"] == 1
        assert len(up.calls) == 1


async def test_what_a_wire_cannot_say_is_asked_of_the_next_endpoint(
    redis_url: str,
) -> None:
    """An image by address: one endpoint's wire takes only bytes, the other's takes it."""
    body = {"role": "user", "content": [{"type": "text", "text": "What is this?"}]}
    image = {"type": "image_url", "image_url": {"url": "https://a.example/b.png"}}
    body["content"] = [*body["content"], image]
    async with upstream(answer(("A cat.",))) as takes:
        price = {"prompt": "0", "completion": "0"}
        cannot = {"backend": "ollama", "model": "m", "price": price, "provider": "first"}
        cannot["base_url"] = "http://127.0.0.1:9"  # never asked
        models = model(cannot, takes.endpoint("second"), strategy="ordered")
        async with running(redis_url, settings(models)) as gateway:
            got = await gateway.chat(messages=[body])
            assert got.status_code == 200
            assert got.json()["provider"] == "second"
            record = await gateway.generation(got.headers["x-generation-id"])
            assert [a["provider_name"] for a in record["provider_responses"]] == ["first", "second"]
        alone = model(cannot, strategy="ordered")
        async with running(redis_url, settings(alone)) as gateway:
            got = await gateway.chat(messages=[body])
            assert got.status_code == 400
            assert "data:" in got.json()["error"]["message"]

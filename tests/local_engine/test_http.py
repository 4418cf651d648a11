"""The HTTP side over a real Unix socket, with a model whose steps the test decides."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from local_engine.app import Host, create_app
from local_engine.loader import LoadedModel
from local_engine.params import decode_chat
from local_engine.prompt import PromptReader
from local_engine.scheduler import Limits
from local_engine.service import Caller, Service, ServiceParts

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]
Make = Callable[..., Any]
MESSAGES = [{"role": "user", "content": "hi"}]
BODY = {"model": "tiny", "messages": MESSAGES, "temperature": 0}
USAGE = {"include_usage": True, "continuous_usage_stats": True}


async def until(holds: Callable[[], bool]) -> None:
    """Let the event loop turn until something holds; the test's timeout bounds it."""
    while not holds():  # noqa: ASYNC110  there is no event to wait for
        await asyncio.sleep(0)


class Served:
    """A running app, its parts, and a client for it."""

    def __init__(
        self, host: Host, runner: Any, client: httpx.AsyncClient, broken: asyncio.Event
    ) -> None:
        """Take what the test may look at."""
        self.host = host
        self.runner = runner
        self.client = client
        self.broken = broken

    def post(self, **fields: object) -> Any:
        """Ask for an answer; await it, or enter it for a stream."""
        return self.client.post("/v1/chat/completions", json={**BODY, **fields})

    @contextlib.asynccontextmanager
    async def stream(self, **fields: object) -> AsyncIterator[AsyncIterator[str]]:
        """Ask for a stream; gives its data lines."""
        body = {**BODY, "stream": True, **fields}
        async with self.client.stream("POST", "/v1/chat/completions", json=body) as response:
            assert response.status_code == 200
            assert response.headers["content-type"].startswith("text/event-stream")
            lines = response.aiter_lines()
            yield (line.removeprefix("data: ") async for line in lines if line)

    async def entered(self) -> None:
        """Wait until the engine is inside another forward."""
        assert await asyncio.to_thread(self.runner.entered.acquire, timeout=30)

    async def idle(self) -> None:
        """Wait until no request is held."""
        assert self.host.service is not None
        await self.host.service.wait_idle()


Serve = Callable[..., contextlib.AbstractAsyncContextManager[Served]]


@pytest.fixture
def serve(tmp_path: Path, tiny: LoadedModel, make_engine: Make) -> Serve:
    """Serve an engine around a runner, until the block is left."""

    @contextlib.asynccontextmanager
    async def serving(runner: Any, limits: Limits | None = None) -> AsyncIterator[Served]:
        limits = limits or Limits()
        host = Host("tiny")
        service = Service(
            ServiceParts(
                engine=make_engine(runner, limits),
                prompts=PromptReader(tiny.tokenizer, tiny.window_tokens),
                metrics=host.metrics,
                max_held_requests=limits.max_held_requests,
                clock=time.monotonic,
                draw_seed=lambda: 4,
            )
        )
        broken = asyncio.Event()
        service.start(broken.set)
        host.ready(service, tiny.window_tokens)
        path = str(tmp_path / "engine.sock")
        config = uvicorn.Config(
            create_app(host), uds=path, lifespan="off", log_config=None, loop="asyncio"
        )
        server = uvicorn.Server(config)
        server.capture_signals = contextlib.nullcontext  # type: ignore[assignment]
        task = asyncio.create_task(server.serve())
        await until(lambda: server.started)
        transport = httpx.AsyncHTTPTransport(uds=path)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://engine", timeout=30
        ) as client:
            yield Served(host, runner, client, broken)
        if runner.gate is not None:
            runner.gate.release(10_000)
        await service.stop()
        server.should_exit = True
        await task

    return serving


def say(make_scripted: Make, tokenizer: Any, text: str, **more: Any) -> Any:
    """Make a runner that says a text."""
    return make_scripted(tokenizer.encode(text).ids, **more)


async def test_a_whole_answer_has_openai_s_shape(
    serve: Serve, make_scripted: Make, byte_tokenizer: Any
) -> None:
    """Text, reason and usage in one body; the request's id comes back."""
    async with serve(say(make_scripted, byte_tokenizer, "Hello 🙂")) as served:
        answer = await served.client.post(
            "/v1/chat/completions", json=BODY, headers={"x-request-id": "mine"}
        )
        body = answer.json()
        assert answer.status_code == 200
        assert answer.headers["x-request-id"] == "mine"
        assert body["object"] == "chat.completion"
        assert body["model"] == "tiny"
        assert body["id"].startswith("chatcmpl-")
        [choice] = body["choices"]
        assert choice["message"] == {"role": "assistant", "content": "Hello 🙂"}
        assert choice["finish_reason"] == "stop"
        usage = body["usage"]
        assert usage["completion_tokens"] == len("Hello 🙂".encode())
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


async def test_a_stream_tells_role_text_end_and_usage(
    serve: Serve, make_scripted: Make, byte_tokenizer: Any
) -> None:
    """Every chunk has the running usage, the last has no choice, and [DONE] ends it."""
    async with (
        serve(say(make_scripted, byte_tokenizer, "a🙂b")) as served,
        served.stream(stream_options=USAGE) as lines,
    ):
        data = [line async for line in lines]
    assert data[-1] == "[DONE]"
    chunks = [json.loads(line) for line in data[:-1]]
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert chunks[0]["usage"]["completion_tokens"] == 0
    assert chunks[0]["usage"]["prompt_tokens"] > 0
    assert all(chunk["usage"] for chunk in chunks)
    counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert counts == sorted(counts)
    assert counts[-1] == 6
    assert chunks[-1]["choices"] == []
    assert chunks[-2]["choices"][0] == {
        "index": 0,
        "delta": {},
        "logprobs": None,
        "finish_reason": "stop",
    }
    texts = [chunk["choices"][0]["delta"]["content"] for chunk in chunks[1:-2]]
    assert "".join(texts) == "a🙂b"
    assert all(texts), "a chunk without visible text"
    assert len({chunk["id"] for chunk in chunks}) == 1


async def test_usage_is_told_only_when_asked_for(
    serve: Serve, make_scripted: Make, byte_tokenizer: Any
) -> None:
    """Without the option no chunk names it; with include_usage alone only the last has it."""
    async with serve(say(make_scripted, byte_tokenizer, "ab")) as served:
        async with served.stream() as lines:
            plain = [json.loads(line) async for line in lines if line != "[DONE]"]
        async with served.stream(stream_options={"include_usage": True}) as lines:
            asked = [json.loads(line) async for line in lines if line != "[DONE]"]
    assert not any("usage" in chunk for chunk in plain)
    assert all(chunk["usage"] is None for chunk in asked[:-1])
    assert asked[-1]["usage"]["completion_tokens"] == 2


async def test_tokens_are_merged_for_a_reader_who_comes_late(
    serve: Serve, make_scripted: Make, byte_tokenizer: Any
) -> None:
    """What came while nobody fetched it is one output with the count of all."""
    runner = say(make_scripted, byte_tokenizer, "abcdef", gate=threading.Semaphore(0))
    async with serve(runner) as served:
        service = served.host.service
        assert service is not None
        chat = decode_chat(json.dumps(BODY).encode())
        async with service.open(chat, Caller()) as answer:
            runner.gate.release(100)
            await served.idle()
            output = await answer.next()
        assert (output.text, output.completion_tokens) == ("abcdef", 6)
        assert output.end is not None


async def test_a_client_that_leaves_frees_its_place(
    serve: Serve, make_scripted: Make, byte_tokenizer: Any
) -> None:
    """At the next step, in the middle of a stream."""
    runner = say(make_scripted, byte_tokenizer, "x" * 200, gate=threading.Semaphore(3))
    async with serve(runner) as served:
        async with served.stream(max_tokens=200) as lines:
            assert "assistant" in await anext(lines)
            assert "x" in await anext(lines)
        # The socket is closed; the forward under way is the last one.
        await served_abort(served)
        before = len(runner.forwards)
        runner.gate.release(1)
        await served.idle()
        assert len(runner.forwards) == before
        assert runner.held == set()
        metrics = (await served.client.get("/metrics")).text
    assert 'vllm:request_success_total{finished_reason="abort",model_name="tiny"} 1.0' in metrics
    assert 'vllm:num_requests_running{model_name="tiny"} 0.0' in metrics


async def served_abort(served: Served) -> None:
    """Wait until a departure has put its command into the engine's inbox."""
    service = served.host.service
    assert service is not None
    await until(lambda: not service._parts.engine._inbox.empty())


async def test_a_client_that_leaves_before_a_whole_answer_frees_its_place(
    serve: Serve, make_scripted: Make, byte_tokenizer: Any
) -> None:
    """Nothing was sent to it yet, and still it is noticed."""
    runner = say(make_scripted, byte_tokenizer, "x" * 200, gate=threading.Semaphore(0))
    async with serve(runner) as served:
        asking = asyncio.create_task(served.post(max_tokens=200))
        await served.entered()
        asking.cancel()
        await served_abort(served)
        runner.gate.release(1)
        await served.idle()
        assert len(runner.forwards) == 1


async def test_a_full_queue_is_a_429_that_says_when_to_come_back(
    serve: Serve, make_scripted: Make, byte_tokenizer: Any
) -> None:
    """At once, while the model is busy."""
    runner = say(make_scripted, byte_tokenizer, "ab", gate=threading.Semaphore(0))
    limits = Limits(max_running_requests=1, max_queued_requests=1)
    async with serve(runner, limits) as served:
        held = [asyncio.create_task(served.post()) for _ in range(2)]
        await served.entered()
        service = served.host.service
        assert service is not None
        await until(lambda: service.num_held == 2)
        refused = await served.post(stream=True)
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "queue_full"
        assert int(refused.headers["retry-after"]) >= 1
        runner.gate.release(100)
        assert [answer.status_code for answer in await asyncio.gather(*held)] == [200, 200]


async def test_a_deadline_in_the_queue_is_a_504(
    serve: Serve, make_scripted: Make, byte_tokenizer: Any
) -> None:
    """With its own status, also for a stream, since nothing was sent."""
    async with serve(say(make_scripted, byte_tokenizer, "ab")) as served:
        answer = await served.client.post(
            "/v1/chat/completions",
            json={**BODY, "stream": True},
            headers={"x-tollway-deadline-ms": "0", "x-tollway-account": "a"},
        )
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")


async def test_a_stream_that_fails_says_so_and_is_not_done(
    serve: Serve, make_scripted: Make, byte_tokenizer: Any
) -> None:
    """An error line is the last."""
    runner = say(make_scripted, byte_tokenizer, "abcd", gate=threading.Semaphore(2))

    def fail(batch: Any) -> None:
        if len(runner.forwards) == 3:
            raise RuntimeError("a fault of the model")

    runner.fail = fail
    async with serve(runner) as served, served.stream() as lines:
        data = [json.loads(await anext(lines)) for _ in range(2)]
        runner.gate.release(1)
        data += [json.loads(line) async for line in lines]
    assert data[-1]["error"]["code"] == "forward_failed"
    assert not any(chunk.get("choices", [{}])[0].get("finish_reason") for chunk in data[:-1])


@pytest.mark.parametrize(
    ("fields", "status", "param", "code"),
    [
        ({"n": 2}, 400, "n", "unsupported_parameter"),
        ({"model": "other"}, 404, "model", "model_not_found"),
        ({"max_tokens": 250}, 400, "max_tokens", "context_length_exceeded"),
        (
            {"messages": [{"role": "user", "content": "x" * 300}]},
            400,
            "messages",
            "context_length_exceeded",
        ),
    ],
)
async def test_refusals_have_openai_s_shape(
    serve: Serve,
    make_scripted: Make,
    fields: dict[str, object],
    status: int,
    param: str,
    code: str,
) -> None:
    """An error object with message, type, param and code, and the place is free again."""
    async with serve(make_scripted()) as served:
        answer = await served.post(**fields)
        await served.idle()
    error = answer.json()["error"]
    assert answer.status_code == status
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code)
    assert error["message"]


async def test_a_model_without_a_chat_template_is_a_clear_400(
    serve: Serve, make_scripted: Make, tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cannot know how to ask."""
    monkeypatch.setattr(tiny.tokenizer, "chat_template", None)
    async with serve(make_scripted()) as served:
        answer = await served.post()
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "no_chat_template")


async def test_bad_paths_methods_and_headers_are_errors_of_the_same_shape(
    serve: Serve, make_scripted: Make
) -> None:
    """No reply is without an error object."""
    async with serve(make_scripted()) as served:
        missing = await served.client.get("/nothing")
        wrong = await served.client.get("/v1/chat/completions")
        header = await served.client.post(
            "/v1/chat/completions", json=BODY, headers={"x-tollway-priority": "soon"}
        )
    assert [answer.status_code for answer in (missing, wrong, header)] == [404, 405, 400]
    assert all(answer.json()["error"]["message"] for answer in (missing, wrong, header))
    assert header.json()["error"]["param"] == "x-tollway-priority"


@pytest.mark.parametrize(
    ("header", "fields", "most"),
    [
        ("3", {}, 3),
        ("9999", {}, None),
        ("3", {"max_tokens": 5}, 3),
        ("9", {"max_completion_tokens": 5}, 5),
    ],
)
async def test_the_caller_s_bound_ends_an_answer_that_asked_for_none(
    serve: Serve,
    make_scripted: Make,
    byte_tokenizer: Any,
    header: str,
    fields: dict[str, object],
    most: int | None,
) -> None:
    """With the reason `length`, at the window's end at the latest; it need not fit the window."""
    async with serve(say(make_scripted, byte_tokenizer, "x" * 400)) as served:
        answer = await served.client.post(
            "/v1/chat/completions",
            json=BODY | fields,
            headers={"x-tollway-max-output": header},
        )
    assert answer.status_code == 200
    usage = answer.json()["usage"]
    assert usage["completion_tokens"] == (most or 256 - usage["prompt_tokens"])
    assert answer.json()["choices"][0]["finish_reason"] == "length"


async def test_a_limit_of_the_body_must_fit_whatever_the_caller_s_bound(
    serve: Serve, make_scripted: Make
) -> None:
    """The one is asked for, the other is only a cap."""
    async with serve(make_scripted()) as served:
        answer = await served.client.post(
            "/v1/chat/completions",
            json=BODY | {"max_tokens": 250},
            headers={"x-tollway-max-output": "3"},
        )
    assert answer.json()["error"]["code"] == "context_length_exceeded"


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5", ""])
async def test_a_bound_that_is_no_number_of_tokens_is_a_400(
    serve: Serve, make_scripted: Make, value: str
) -> None:
    """A bound that was misread would be no bound."""
    async with serve(make_scripted()) as served:
        answer = await served.client.post(
            "/v1/chat/completions", json=BODY, headers={"x-tollway-max-output": value}
        )
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "x-tollway-max-output"


async def test_an_account_s_long_prompts_do_not_hold_up_another_s_short_one(
    serve: Serve, make_scripted: Make, byte_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many prompts of one account are read one after the other, others' beside them."""
    held, reading = threading.Event(), []
    read = PromptReader.read

    def slow(self: PromptReader, messages: Any) -> Any:
        if messages[0].content == "long":
            reading.append(messages)
            assert held.wait(30)
        return read(self, messages)

    monkeypatch.setattr(PromptReader, "read", slow)
    long = BODY | {"messages": [{"role": "user", "content": "long"}]}
    async with serve(say(make_scripted, byte_tokenizer, "ab")) as served:

        def ask(account: str, body: dict[str, object]) -> Any:
            headers = {"x-tollway-account": account}
            return served.client.post("/v1/chat/completions", json=body, headers=headers)

        greedy = [asyncio.create_task(ask("greedy", long)) for _ in range(6)]
        service = served.host.service
        assert service is not None
        try:
            await until(lambda: service.num_held == 6 and bool(reading))
            other = await asyncio.wait_for(ask("other", BODY), 20)
            at_once = len(reading)
        finally:
            held.set()
        answers = [other, *await asyncio.gather(*greedy)]
    assert at_once == 1
    assert [answer.status_code for answer in answers] == [200] * 7


async def test_draining_refuses_new_requests_and_finishes_old_ones(
    serve: Serve, make_scripted: Make, byte_tokenizer: Any
) -> None:
    """503 with Retry-After for the one, a whole answer for the other."""
    runner = say(make_scripted, byte_tokenizer, "ab", gate=threading.Semaphore(0))
    async with serve(runner) as served:
        held = asyncio.create_task(served.post())
        await served.entered()
        served.host.drain()
        refused = await served.post()
        health = await served.client.get("/health")
        runner.gate.release(100)
        assert (await held).json()["choices"][0]["message"]["content"] == "ab"
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
    assert int(refused.headers["retry-after"]) >= 1
    assert (health.status_code, health.json()) == (503, {"status": "draining"})


async def test_health_sees_an_engine_that_makes_no_progress(
    serve: Serve, make_scripted: Make, byte_tokenizer: Any
) -> None:
    """Idle is healthy for ever; busy without a step is not."""
    runner = say(make_scripted, byte_tokenizer, "ab", gate=threading.Semaphore(0))
    async with serve(runner) as served:
        service = served.host.service
        assert service is not None
        assert not service.is_stalled(-1.0)
        assert (await served.client.get("/health")).json() == {"status": "ok"}
        held = asyncio.create_task(served.post())
        await served.entered()
        assert not service.is_stalled(60.0)
        assert service.is_stalled(-1.0)
        runner.gate.release(100)
        await held


async def test_metrics_have_vllm_s_names(
    serve: Serve, make_scripted: Make, byte_tokenizer: Any
) -> None:
    """So that dashboards made for it fit."""
    async with serve(say(make_scripted, byte_tokenizer, "abc")) as served:
        usage = (await served.post()).json()["usage"]
        text = (await served.client.get("/metrics")).text
    label = '{model_name="tiny"}'
    assert f"vllm:prompt_tokens_total{label} {usage['prompt_tokens']}.0" in text
    assert f"vllm:generation_tokens_total{label} 3.0" in text
    assert f"vllm:time_to_first_token_seconds_count{label} 1.0" in text
    assert f"vllm:time_per_output_token_seconds_count{label} 2.0" in text
    assert f"vllm:e2e_request_latency_seconds_count{label} 1.0" in text
    assert f"vllm:num_requests_waiting{label} 0.0" in text
    assert 'vllm:request_success_total{finished_reason="stop",model_name="tiny"} 1.0' in text


async def test_an_engine_that_gives_up_tells_the_process(serve: Serve, make_scripted: Make) -> None:
    """After every request has had its error; the process then ends."""

    def fail(batch: Any) -> None:
        raise RuntimeError("a fault of the device")

    async with serve(make_scripted(fail=fail)) as served:
        answers = [await served.post() for _ in range(3)]
        await asyncio.wait_for(served.broken.wait(), 30)
    assert [answer.status_code for answer in answers] == [500, 500, 500]

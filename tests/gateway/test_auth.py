"""Who may ask: keys that work, keys that do not, and that no key is ever shown."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import httpx
import openai
import pytest

from gateway.log import JSONFormatter
from policies.ledger.keys import _checksum, parse_key
from tests.gateway.upstreams import refusal, silence, upstream
from tests.gateway_harness import Clock, Gateway, fake, model, running, settings, until
from tests.valkey_server import ValkeyServer

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock() -> Clock:
    """The worker's clock."""
    return Clock()


@pytest.fixture
async def gateway(redis_url: str, clock: Clock) -> AsyncIterator[Gateway]:
    """A worker whose clock stands still."""
    given = settings(model(fake(tokens=2)), ledger={"key_ttl_s": 5})
    async with running(redis_url, given, times=clock.times) as gateway:
        yield gateway


async def post(gateway: Gateway, header: str | bytes | None) -> httpx.Response:
    """Ask with an Authorization header."""
    headers = {} if header is None else {"Authorization": header}
    body = {"model": "demo/fake", "messages": [{"role": "user", "content": "hi"}]}
    return await gateway.client.post("/v1/chat/completions", json=body, headers=headers)


def key_id(key: str) -> str:
    """Return the public part of a key."""
    parsed = parse_key(key)
    assert parsed is not None
    return parsed.key_id


async def test_headers_that_carry_no_working_key_are_401_and_say_what_to_do(
    gateway: Gateway,
) -> None:
    """No key, another scheme, a typing error, and a key that nobody made."""
    key = gateway.key
    swapped = key[:20] + ("a" if key[20] != "a" else "b") + key[21:]
    stranger = "tw_000000000000_" + "0" * 43 + "_"
    stranger += _checksum(stranger[:-1])
    cases: list[tuple[str | bytes | None, str]] = [
        (None, "send the header"),
        ("", "send the header"),
        (f"Basic {key}", "must be 'Bearer <key>'"),
        (key, "must be 'Bearer <key>'"),
        ("Bearer", "look for a typing error"),
        ("Bearer sk-something", "look for a typing error"),
        (f"Bearer {swapped}", "look for a typing error"),
        (f"Bearer {key} {key}", "look for a typing error"),
        ("Bearer " + "x" * 10_000, "look for a typing error"),
        ("Bearer kéy".encode("latin-1"), "look for a typing error"),
        (f"Bearer {stranger}", "not known here"),
    ]
    for header, words in cases:
        reply = await post(gateway, header)
        assert reply.status_code == 401, header
        assert reply.headers["www-authenticate"] == "Bearer"
        error = reply.json()["error"]
        assert words in error["message"], header
        assert (error["type"], error["code"]) == ("authentication_error", 401)
        assert error["metadata"]["error_type"] == "authentication"
    for header in (f"bearer {key}", f"BEARER   {key}"):
        assert (await post(gateway, header)).status_code == 200
    async with gateway.openai("tw_nonsense") as client:
        with pytest.raises(openai.AuthenticationError, match="typing error"):
            await client.chat.completions.create(
                model="demo/fake", messages=[{"role": "user", "content": "x"}]
            )


async def test_a_secret_of_another_key_does_not_open_this_one(gateway: Gateway) -> None:
    """The id finds the record; the secret has to match it."""
    other = await gateway.fund()
    mixed = f"tw_{key_id(gateway.key)}_{other.split('_')[2]}"
    reply = await post(gateway, f"Bearer {mixed}_{_checksum(mixed)}")
    assert reply.status_code == 401
    assert "not known here" in reply.json()["error"]["message"]


async def test_a_revoked_key_works_at_most_key_ttl_s_longer(gateway: Gateway, clock: Clock) -> None:
    """Remembered for 5 s; refreshed in the background from half of that."""
    assert (await gateway.chat()).status_code == 200
    assert await gateway.keys.revoke(key_id(gateway.key))
    assert (await gateway.chat()).status_code == 200
    clock.advance(2.4)
    assert (await gateway.chat()).status_code == 200
    clock.advance(2.6)
    reply = await gateway.chat()
    assert reply.status_code == 401
    assert reply.json()["error"]["message"] == "this API key was revoked"


async def test_a_key_in_use_is_looked_up_in_the_background(gateway: Gateway, clock: Clock) -> None:
    """From half its time on, one request starts the look-up and none waits for it."""
    assert (await gateway.chat()).status_code == 200
    assert await gateway.keys.revoke(key_id(gateway.key))
    clock.advance(2.6)
    assert (await gateway.chat()).status_code == 200
    known = gateway.worker.auth._known
    await until(lambda: (record := known[key_id(gateway.key)].record) and record.disabled)
    assert (await gateway.chat()).status_code == 401


async def test_an_expired_key_is_refused_to_the_microsecond(gateway: Gateway, clock: Clock) -> None:
    """Also one that is remembered."""
    at_us = gateway.worker.times.wall_us()
    key = await gateway.fund(expires_us=at_us + 1_000_000)
    assert (await gateway.chat(key)).status_code == 200
    clock.advance(0.999)
    assert (await gateway.chat(key)).status_code == 200
    clock.advance(0.001)
    reply = await gateway.chat(key)
    assert reply.status_code == 401
    assert reply.json()["error"]["message"] == "this API key has expired"


async def test_a_key_made_after_it_was_refused_works_soon(gateway: Gateway, clock: Clock) -> None:
    """Not knowing a key is remembered no longer than knowing it."""
    name = key_id(gateway.key)
    record = await gateway.keys.get(name)
    assert record is not None
    await gateway.keys._remove(name)
    assert (await gateway.chat()).status_code == 401
    calls = gateway.keys._calls
    await calls.command("HSET", f"key:{name}", "account", "acct", "digest", record.digest)
    clock.advance(5)
    assert (await gateway.chat()).status_code == 200


async def test_redis_away_within_the_keys_time_is_not_the_keys_fault(
    own_valkey: ValkeyServer, clock: Clock
) -> None:
    """A failed refresh in the background changes nothing and logs no fault."""
    given = settings(model(fake(tokens=2)))
    async with running(own_valkey.url, given, times=clock.times) as gateway:
        auth = gateway.worker.auth
        header = f"Bearer {gateway.key}"
        caller = await auth.authenticate(header)
        own_valkey.kill()
        clock.advance(2.6)
        assert await auth.authenticate(header) == caller
        await gateway.worker.background.finish()
        assert not auth._known[caller.key_id].refreshing
        own_valkey.start()


async def test_generation_records_are_for_their_own_account_only(gateway: Gateway) -> None:
    """Another account's id is as unknown as one that never was; a key is needed."""
    made = (await gateway.chat()).json()["id"]
    record = await gateway.generation(made)
    assert (record["id"], record["model"], record["account"]) == (made, "demo/fake", "acct")
    sibling = await gateway.fund()
    assert (await gateway.generation(made, sibling))["id"] == made
    stranger = await gateway.fund(account="other")
    url = "/api/v1/generation"
    for key, wanted in ((stranger, made), (gateway.key, "gen-0-nothing")):
        headers = {"Authorization": f"Bearer {key}"}
        reply = await gateway.client.get(url, params={"id": wanted}, headers=headers)
        assert reply.status_code == 404
        assert reply.json()["error"]["metadata"]["error_type"] == "not_found"
    assert (await gateway.client.get(url, params={"id": made})).status_code == 401
    headers = {"Authorization": f"Bearer {gateway.key}"}
    for query in ("", "?id=", "?id=" + "x" * 129):
        reply = await gateway.client.get(url + query, headers=headers)
        assert reply.status_code == 400, query
        assert reply.json()["error"]["param"] == "id"
    for odd in ("%FF", "%00", "a%0Ab", "{}", "%F0%9F%92%B8", "*"):
        reply = await gateway.client.get(f"{url}?id={odd}", headers=headers)
        assert reply.status_code == 404, odd


async def test_no_key_and_no_text_is_in_any_log_answer_metric_or_record(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Canaries: the key's secret, the upstream's key, the prompt and the answer, on every path."""
    caplog.set_level(logging.DEBUG)
    prompt, said = "canary-of-the-prompt", "canary-of-the-answer"
    seen: list[str] = []
    async with (
        upstream(silence("partial ")) as stalled,
        upstream(refusal(401, "invalid_api_key", "bad key sk-canary-upstream")) as refusing,
    ):
        given = settings(
            model(fake(text=said)),
            model(fake(text=said, fail={"how": "cut", "after_tokens": 1}), id="cut"),
            model(refusing.endpoint("refusing"), id="refusing"),
            model(stalled.endpoint("stalled"), id="stalled"),
        )
        async with running(redis_url, given) as gateway:
            key, secret = gateway.key, gateway.key.split("_")[2]
            poor = await gateway.fund("0", account="poor")
            messages = [{"role": "user", "content": prompt}]
            bodies = [
                {},
                {"stream": True},
                {"model": "cut", "stream": True},
                {"model": "refusing"},
                {"model": prompt},
                {"temperature": 9},
                {prompt: 1},
            ]
            for body in bodies:
                reply = await gateway.chat(**{"messages": messages} | body)
                seen.append(str(reply.headers))
                if prompt not in body and body.get("model") != prompt:
                    seen.append(reply.text.replace(said, ""))
                assert secret not in reply.text
            seen.append((await gateway.chat(poor, messages=messages)).text)
            seen.append((await post(gateway, f"Bearer {key[:-1]}!")).text)
            seen.append((await post(gateway, f"Basic {key}")).text)
            wire = await gateway.connect()
            wire.writer.write(gateway.request(model="stalled", stream=True, messages=messages))
            await wire.read_until(b"partial")
            await wire.close()
            _ = await gateway.audited()
            seen.append((await gateway.client.get("/metrics")).text)
            metrics = seen[-1]
            for line in await gateway.journal():
                seen.append(str(line))
                seen.append(str(await gateway.generation(line.id)))
            wrong = f"/v1/generation?id={key}"
            assert (await gateway.client.get(wrong)).status_code == 401
    written = [
        line for record in caplog.records for line in JSONFormatter().format(record).splitlines()
    ]
    own = [line for line in written if '"logger":"tollway' in line or '"logger":"uvicorn' in line]
    assert sum('"message":"request"' in line for line in own) >= len(bodies) - 2
    for text in [*seen, *own]:
        for canary in (secret, poor.split("_")[2], prompt, said, "sk-canary"):
            assert canary not in text, text
    assert "acct" not in metrics
    assert key_id(key) not in metrics


async def test_a_thousand_unknown_keys_cost_a_bounded_memory(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is remembered is bounded; the newest stay."""
    monkeypatch.setattr("gateway.auth.MAX_REMEMBERED", 10)

    def made_up(number: int) -> str:
        body = f"tw_{number:012}_" + "0" * 43
        return f"Bearer {body}_{_checksum(body)}"

    replies = await asyncio.gather(*(post(gateway, made_up(number)) for number in range(50)))
    assert {reply.status_code for reply in replies} == {401}
    assert len(gateway.worker.auth._known) == 10
    assert (await gateway.chat()).status_code == 200

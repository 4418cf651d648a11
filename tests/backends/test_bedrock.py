"""The Bedrock adapter keeps the contract over binary frames, and AWS's own client reads them."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import boto3
import pytest
from botocore.exceptions import EventStreamError

import backends
from backends.base import Backend, BackendConfig
from backends.bedrock import build, check
from backends.errors import EndpointRejected, RateLimited, RequestRejected
from backends.types import Finish, Usage
from tests.aws import (
    ACCESS_KEY,
    EVENT_STREAM,
    SECRET_KEY,
    TOKEN,
    aws_account,
    chunk,
    converse,
    event,
    exception,
    metadata,
    no_account,
    signed_well,
    stop,
    text,
)
from tests.contracts.backend_contract import (
    BackendContract,
    Case,
    Rig,
    everything,
    into,
    replace_request,
    texts,
)
from tests.upstream import Exchange, Script, Upstream, replies, serving

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("aws_account")]
__all__ = ["aws_account"]

MODEL = "us.anthropic.claude-haiku-4-5-20251001-v1:0"


def address(upstream: Upstream) -> str:
    """Return where a scripted Bedrock is."""
    return f"http://127.0.0.1:{upstream.port}"


def config(base_url: str = "", model: str = MODEL, **options: Any) -> BackendConfig:
    """Return the settings of an endpoint in a region."""
    given = {"region": "us-east-1", **options}
    return BackendConfig("bedrock", model, base_url, options_key="acme", options=given)


def streams(*frames: bytes) -> Script:
    """Return a script that sends frames, one by one, and ends cleanly."""

    async def script(exchange: Exchange) -> None:
        await exchange.head(headers=EVENT_STREAM)
        await exchange.send(*frames)
        await exchange.end()

    return script


async def play(case: Case, exchange: Exchange) -> None:
    """Play a case of the contract in Converse's frames."""
    if case.fail == "status":
        wait = {} if case.retry_after_s is None else {"Retry-After": f"{case.retry_after_s:g}"}
        await replies(case.status, {"message": "as scripted"}, wait)(exchange)
        return
    if case.after == 0 and case.fail == "reset":
        exchange.reset()
        return
    if case.after == 0 and case.fail == "stall":
        await exchange.hang()
        return
    await exchange.head(headers=EVENT_STREAM)
    for number, piece in enumerate((*case.pieces, None)):
        if case.fail is not None and case.after == number:
            if case.fail == "garbage":
                await exchange.send(event("contentBlockDelta", b"[garbage, not JSON"))
            elif case.fail == "stall":
                await exchange.hang()
                return
            else:
                await (exchange.end() if case.fail == "cut" else _reset(exchange))
                return
        if piece is not None:
            await exchange.send(text(piece))
    await exchange.send(stop("stop"))
    counts = metadata(7, len(case.pieces))
    await exchange.send(counts if case.counted else event("metadata", {"metrics": {}}))
    await exchange.end()


async def _reset(exchange: Exchange) -> None:
    exchange.reset()


@asynccontextmanager
async def asking(*scripts: Script, **options: Any) -> AsyncIterator[tuple[Backend, Upstream]]:
    """Give a backend before a scripted Bedrock."""
    async with serving(*scripts) as upstream:
        backend = build(config(address(upstream), **options))
        try:
            yield backend, upstream
        finally:
            await backend.aclose()


class TestBedrock(BackendContract):
    """Converse, in frames over TCP."""

    @asynccontextmanager
    async def upstream(self, case: Case) -> AsyncIterator[Rig]:
        """Play the case in frames."""
        async with asking(lambda exchange: play(case, exchange)) as (backend, upstream):

            async def left() -> None:
                await (await upstream.exchange()).gone.wait()

            yield Rig(backend, left)

    async def test_every_choice_speaks_and_ends(self) -> None:
        """Converse gives one answer: ``n`` is no field of it."""
        async with self.upstream(Case()) as rig:
            assert rig.backend.capabilities.fields is not None
            assert "n" not in rig.backend.capabilities.fields


async def test_the_request_is_of_the_wire() -> None:
    """The URL names the model, the body the messages and the output bound."""
    async with asking(streams(*converse("ok"))) as (backend, upstream):
        await everything(backend)
    [request] = upstream.requests
    path = "/model/us.anthropic.claude-haiku-4-5-20251001-v1%3A0/converse-stream"
    assert (request.method, request.path) == ("POST", path)
    assert request.json() == {
        "messages": [{"role": "user", "content": [{"text": "Grüß Gott"}]}],
        "inferenceConfig": {"maxTokens": 64},
    }
    assert request.headers["x-request-id"] == "req-1"


@pytest.mark.parametrize(
    "model",
    [MODEL, "amazon.nova-lite-v1:0", "arn:aws:bedrock:us-east-1:1:inference-profile/a.b-v1:0"],
)
async def test_a_request_is_signed_over_what_was_sent(model: str) -> None:
    """Recomputed from the bytes that arrived: method, path, headers, body, host and port."""
    async with asking(streams(*converse("ok")), model=model) as (backend, upstream):
        await everything(backend)
    [request] = upstream.requests
    assert signed_well(request, "bedrock")
    assert request.headers["x-amz-security-token"] == TOKEN
    assert not signed_well(_changed(request.body + b" ", request), "bedrock")


def _changed(body: bytes, request: Any) -> Any:
    return type(request)(request.method, request.path, request.headers, body)


async def test_another_region_signs_otherwise() -> None:
    """It stands in the signature's scope."""
    async with asking(streams(*converse("ok")), region="eu-central-1") as (backend, upstream):
        await everything(backend)
    assert signed_well(upstream.requests[0], "bedrock", "eu-central-1")


async def test_a_bedrock_key_is_a_bearer_token() -> None:
    """Then nothing is signed."""
    async with serving(streams(*converse("ok"))) as upstream:
        given = BackendConfig("bedrock", MODEL, address(upstream), api_keys=(lambda: "key",))
        backend = build(given)
        await everything(backend)
        await backend.aclose()
    headers = upstream.requests[0].headers
    assert headers["authorization"] == "Bearer key"
    assert "x-amz-date" not in headers


def test_without_credentials_it_is_not_built(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """The error says what to set; a check without secrets passes."""
    no_account(monkeypatch, str(tmp_path))
    check(config())
    with pytest.raises(ValueError, match=r"AWS_ACCESS_KEY_ID.*AWS_PROFILE.*api_key_env"):
        build(config())
    with pytest.raises(ValueError, match="AWS_ACCESS_KEY_ID"):
        build(config("https://vpce.bedrock-runtime.us-east-1.vpce.amazonaws.com"))


def test_without_the_extra_it_is_not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even with a key of its own: the frames need it."""
    monkeypatch.setitem(sys.modules, "botocore.eventstream", None)
    keyed = BackendConfig("bedrock", MODEL, "http://localhost", api_keys=(lambda: "key",))
    with pytest.raises(ValueError, match=r"tollway\[aws\]"):
        build(keyed)


async def test_a_private_server_on_plain_http_may_want_no_credentials(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """AWS itself is never there."""
    no_account(monkeypatch, str(tmp_path))
    async with asking(streams(*converse("ok"))) as (backend, upstream):
        await everything(backend)
    assert "authorization" not in upstream.requests[0].headers


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (config(region=""), "'region'"),
        (config(model=""), "'model'"),
        (config(model="amazon.nova-lite-v1:0", api="invoke"), "'api'.*maker: anthropic"),
        (config(api="chat"), "api"),
        (config(maker="acme"), "maker"),
        (config(regoin="us-east-1"), "regoin"),
    ],
)
def test_wrong_settings_are_found_before_secrets_are_known(
    given: BackendConfig, words: str
) -> None:
    """With the key's name."""
    with pytest.raises(ValueError, match=words):
        backends.check(given)


def test_a_base_url_needs_no_region() -> None:
    """It says where to ask."""
    backends.check(config("https://bedrock.example.com", region=""))


def test_what_only_anthropics_models_take_is_claimed_for_them_alone() -> None:
    """By the id, or where the id says nothing by the setting."""
    extra = {"top_k", "reasoning", "reasoning_effort"}
    profile = "arn:aws:bedrock:us-east-1:1:application-inference-profile/abc"
    for given, anthropics in [
        (config(), True),
        (config(model="amazon.nova-lite-v1:0"), False),
        (config(model="meta.llama3-2-1b-instruct-v1:0"), False),
        (config(model=profile), False),
        (config(model=profile, maker="anthropic"), True),
    ]:
        fields = build(given).capabilities.fields
        assert fields is not None
        assert (extra <= fields) is anthropics
        assert anthropics or not extra & fields


async def test_an_exception_in_the_stream_comes_after_what_was_said() -> None:
    """With its own class and words."""
    frames = [*converse("half")[:2], exception("throttlingException", "too fast")]
    events: list[Any] = []
    async with asking(streams(*frames)) as (backend, _):
        with pytest.raises(RateLimited, match="too fast"):
            await into(events, backend)
    assert texts(events) == ["half"]


async def test_an_answer_that_came_whole_is_understood() -> None:
    """As a proxy before Bedrock may send it."""
    message = {"role": "assistant", "content": [{"text": "whole"}]}
    counts = {"inputTokens": 3, "outputTokens": 1, "totalTokens": 4}
    body = {"output": {"message": message}, "stopReason": "end_turn", "usage": counts}
    async with asking(replies(200, body)) as (backend, _):
        events = await everything(backend)
    assert texts(events) == ["whole"]
    assert isinstance(events[-1], Finish)
    assert events[-1].usage == Usage(3, 1)


async def test_media_by_url_are_refused_before_anything_is_sent() -> None:
    """Converse takes bytes; the gateway fetches nothing."""
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    request = replace_request(messages=({"role": "user", "content": [image]},))
    async with asking(streams(*converse("ok"))) as (backend, upstream):
        with pytest.raises(RequestRejected, match="data:"):
            await everything(backend, request)
    assert upstream.requests == []


# Credentials that expire.


class Expiring:
    """Credentials like botocore's that renew themselves."""

    def __init__(self, left_s: float, *, broken: bool = False) -> None:
        """``left_s`` is how long the first ones last."""
        self.left_s = left_s
        self.broken = broken
        self.renewed = 0

    def refresh_needed(self, refresh_in: float | None = None) -> bool:
        """Whether less time is left than that, by default 15 minutes."""
        return self.left_s < (900 if refresh_in is None else refresh_in)

    def get_frozen_credentials(self) -> Any:
        """Return the newest ones."""
        from botocore.credentials import ReadOnlyCredentials

        if self.broken:
            raise OSError("no network")
        if self.refresh_needed():
            self.renewed += 1
            self.left_s = 3600
        return ReadOnlyCredentials(f"AK{self.renewed}", SECRET_KEY, None)


def signer(credentials: Expiring) -> Any:
    """Return what signs with them."""
    from backends.aws_auth import SignedAuth

    return SignedAuth(credentials, service="bedrock", region="us-east-1")


def key_of(auth: Any) -> str:
    """Return the access key that signs now."""
    given: str = auth.headers("https://example.com/model/a", b"{}")["Authorization"]
    return given.partition("Credential=")[2].partition("/")[0]


async def test_credentials_are_renewed_ahead_of_time_beside_the_requests() -> None:
    """While they still last nobody waits, and many requests cause one renewal."""
    credentials = Expiring(3600)
    auth = signer(credentials)
    await auth.ready()
    assert (key_of(auth), credentials.renewed) == ("AK0", 0)
    credentials.left_s = 600
    for _ in range(5):
        await auth.ready()
    assert key_of(auth) == "AK0"
    await auth._renewal
    assert (key_of(auth), credentials.renewed) == ("AK1", 1)


async def test_credentials_about_to_end_are_waited_for() -> None:
    """Together, once."""
    credentials = Expiring(30)
    auth = signer(credentials)
    await asyncio.gather(*(auth.ready() for _ in range(5)))
    assert (key_of(auth), credentials.renewed) == ("AK1", 1)


async def test_without_new_credentials_the_old_serve_to_their_end() -> None:
    """And then the endpoint is refused, in words of our own."""
    credentials = Expiring(3600)
    auth = signer(credentials)
    await auth.ready()
    credentials.broken, credentials.left_s = True, 30
    await auth.ready()
    assert key_of(auth) == "AK0"
    credentials.left_s = -1
    with pytest.raises(EndpointRejected, match="AWS credentials"):
        await auth.ready()


# AWS's own client before the same frames.


@asynccontextmanager
async def amazon(
    service: str, *scripts: Script
) -> AsyncIterator[tuple[Callable[..., Any], Upstream]]:
    """Give a function that asks a scripted AWS with boto3, in a thread."""
    async with serving(*scripts) as upstream:
        client = boto3.client(
            service,
            endpoint_url=address(upstream),
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            aws_session_token=TOKEN,
        )

        async def ask(operation: str, read: Callable[[Any], Any], **given: Any) -> Any:
            return await asyncio.to_thread(lambda: read(getattr(client, operation)(**given)))

        try:
            yield ask, upstream
        finally:
            client.close()


def whole(stream: Any) -> list[Any]:
    """Return what a stream of botocore's holds, and close it, also where it breaks."""
    try:
        return list(stream)
    finally:
        stream.close()


MESSAGES = [{"role": "user", "content": [{"text": "hi"}]}]


async def test_boto3_reads_our_frames_of_converse_as_we_do() -> None:
    """And the check of signatures that tests ours takes the one it makes."""
    frames = converse("Grüße, ", "🌍")
    async with amazon("bedrock-runtime", streams(*frames)) as (ask, upstream):
        found = await ask(
            "converse_stream", lambda r: whole(r["stream"]), modelId=MODEL, messages=MESSAGES
        )
    assert [next(iter(one)) for one in found] == [
        "messageStart", "contentBlockDelta", "contentBlockDelta", "contentBlockStop",
        "messageStop", "metadata",
    ]  # fmt: skip
    said = [one["contentBlockDelta"]["delta"]["text"] for one in found[1:3]]
    assert said == ["Grüße, ", "🌍"]
    assert found[-1]["metadata"]["usage"]["totalTokens"] == 9
    assert signed_well(upstream.requests[0], "bedrock")
    async with asking(streams(*frames)) as (backend, ours):
        assert texts(await everything(backend)) == said
    assert ours.requests[0].path == upstream.requests[0].path


async def test_boto3_reads_our_exceptions() -> None:
    """It raises them from the stream."""
    frames = [*converse("half")[:2], exception("throttlingException", "too fast")]
    async with amazon("bedrock-runtime", streams(*frames)) as (ask, _):
        with pytest.raises(EventStreamError, match="too fast"):
            await ask(
                "converse_stream", lambda r: whole(r["stream"]), modelId=MODEL, messages=MESSAGES
            )


async def test_boto3_reads_our_whole_answer() -> None:
    """Of Converse without a stream."""
    message = {"role": "assistant", "content": [{"text": "whole"}]}
    counts = {"inputTokens": 3, "outputTokens": 1, "totalTokens": 4}
    body = {"output": {"message": message}, "stopReason": "end_turn", "usage": counts}
    async with amazon("bedrock-runtime", replies(200, body)) as (ask, _):
        found = await ask("converse", dict, modelId=MODEL, messages=MESSAGES)
    assert found["output"]["message"] == message
    assert found["usage"] == counts


async def test_boto3_reads_our_chunks_of_invoke() -> None:
    """The model's own events come out of the base64."""
    frames = [chunk(document) for document in anthropic("ok")]
    async with amazon("bedrock-runtime", streams(*frames)) as (ask, _):
        found = await ask(
            "invoke_model_with_response_stream",
            lambda r: [json.loads(one["chunk"]["bytes"]) for one in whole(r["body"])],
            modelId=MODEL,
            body=b"{}",
        )
    assert found == anthropic("ok")


# Anthropic's models by their own wire.


def anthropic(*pieces: str) -> list[dict[str, Any]]:
    """Return the events of an answer of Anthropic's, as Bedrock sends them."""
    start = {"input_tokens": 7, "output_tokens": 1}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude"}
    deltas = [{"type": "text_delta", "text": piece} for piece in pieces]
    counts = {"inputTokenCount": 7, "outputTokenCount": len(pieces)}
    return [
        {"type": "message_start", "message": {**message, "content": [], "usage": start}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn"},
            "usage": {"output_tokens": len(pieces)},
        },
        {"type": "message_stop", "amazon-bedrock-invocationMetrics": counts},
    ]


async def test_invoke_speaks_anthropics_wire_in_frames() -> None:
    """The version stands in the body; model and stream are said by the URL."""
    frames = [chunk(document) for document in anthropic("eins ", "zwei")]
    async with asking(streams(*frames), api="invoke") as (backend, upstream):
        events = await everything(backend)
    [request] = upstream.requests
    assert request.path.endswith("-v1%3A0/invoke-with-response-stream")
    body = request.json()
    assert body["anthropic_version"] == "bedrock-2023-05-31"
    assert body["max_tokens"] == 64
    assert not {"model", "stream"} & set(body)
    assert signed_well(request, "bedrock")
    assert texts(events) == ["eins ", "zwei"]
    assert isinstance(events[-1], Finish)
    assert events[-1].usage == Usage(7, 2)


async def test_invoke_takes_no_media_by_url() -> None:
    """Bedrock fetches nothing for these models."""
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    request = replace_request(messages=({"role": "user", "content": [image]},))
    async with asking(streams(), api="invoke") as (backend, upstream):
        with pytest.raises(RequestRejected, match="data:"):
            await everything(backend, request)
    assert upstream.requests == []

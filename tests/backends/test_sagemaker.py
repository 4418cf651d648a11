"""The SageMaker adapter keeps OpenAI's contract within binary frames."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import backends
from backends.base import Backend, BackendConfig
from backends.errors import EndpointRejected, UpstreamFailed
from backends.sagemaker import build
from backends.types import Finish, Usage
from tests.aws import EVENT_STREAM, aws_account, exception, part, signed_well
from tests.backends.test_bedrock import amazon, whole
from tests.contracts.backend_contract import OpenAIWireContract, everything, into, texts
from tests.upstream import (
    Exchange,
    Script,
    Upstream,
    answer,
    choice,
    replies,
    serving,
    streams,
    usage,
)

RECORDINGS = Path(__file__).resolve().parents[2].parent / "shared" / "recordings" / "sagemaker"

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("aws_account")]
__all__ = ["aws_account"]


def config(base_url: str = "", model: str = "my-llama", **options: Any) -> BackendConfig:
    """Return the settings of an endpoint in a region."""
    given = {"region": "us-east-1", **options}
    return BackendConfig("sagemaker", model, base_url, options_key="acme", options=given)


def framed(script: Script) -> Script:
    """Return the script with each of its pieces in a frame."""

    async def run(exchange: Exchange) -> None:
        send = exchange.send

        async def parts(*pieces: bytes) -> None:
            await send(*(part(piece) for piece in pieces))

        exchange.send = parts  # type: ignore[method-assign]
        await script(exchange)

    return run


@asynccontextmanager
async def asking(*scripts: Script, **options: Any) -> AsyncIterator[tuple[Backend, Upstream]]:
    """Give a backend before a scripted SageMaker."""
    async with serving(*scripts) as upstream:
        backend = build(config(f"http://127.0.0.1:{upstream.port}", **options))
        try:
            yield backend, upstream
        finally:
            await backend.aclose()


class TestSageMaker(OpenAIWireContract):
    """OpenAI's chat within frames."""

    def build(self, upstream: Upstream) -> Backend:
        """Point it at the server."""
        return build(config(f"http://127.0.0.1:{upstream.port}"))

    def serve(self, *scripts: Script) -> AbstractAsyncContextManager[Upstream]:
        """Put the pieces of the scripts into frames."""
        return serving(*(framed(script) for script in scripts))

    async def test_the_request_is_of_the_wire(self) -> None:
        """The URL names the endpoint; its container knows its one model."""
        async with self.asking(streams(*answer("ok"))) as (backend, upstream):
            await everything(backend)
        [request] = upstream.requests
        body = request.json()
        path = "/endpoints/my-llama/invocations-response-stream"
        assert (request.method, request.path) == ("POST", path)
        assert "model" not in body
        assert body["messages"] == [{"role": "user", "content": "Grüß Gott"}]
        assert body["max_tokens"] == 64
        assert body["stream"] is True
        assert body["stream_options"]["include_usage"] is True
        assert request.headers["x-request-id"] == "req-1"
        assert signed_well(request, "sagemaker")

    async def test_a_redirect_is_refused_and_not_followed(self) -> None:
        """A signature is for the configured address only."""
        redirect = replies(307, b"", {"Location": "/elsewhere"})
        async with self.asking(redirect, streams(*answer("ok"))) as (backend, upstream):
            with pytest.raises(EndpointRejected):
                await everything(backend)
        assert len(upstream.requests) == 1


async def test_events_may_be_cut_across_parts() -> None:
    """A part is any piece of the container's answer, also half a character."""
    body = b"".join(answer("Grüße ", "🌍"))
    pieces = [body[start : start + 7] for start in range(0, len(body), 7)]
    async with asking(framed(streams(*pieces))) as (backend, _):
        events = await everything(backend)
    assert "".join(texts(events)) == "Grüße 🌍"


async def test_a_container_may_answer_whole_within_frames_or_without() -> None:
    """Containers that cannot stream do, and so does a server without SageMaker before it."""
    message = {"role": "assistant", "content": "whole"}
    body = {"choices": [{**choice(0, "stop"), "message": message}], "usage": usage(3, 1)}

    async def parts(exchange: Exchange) -> None:
        data = json.dumps(body).encode()
        await exchange.head(headers=EVENT_STREAM)
        await exchange.send(part(data[:20]), part(data[20:]))
        await exchange.end()

    for script in (parts, replies(200, body)):
        async with asking(script) as (backend, _):
            events = await everything(backend)
        assert texts(events) == ["whole"]
        assert isinstance(events[-1], Finish)
        assert events[-1].usage == Usage(3, 1)


async def test_frames_may_be_missing() -> None:
    """A container's own ``/invocations`` streams without them."""
    async with asking(streams(*answer("bare"))) as (backend, _):
        assert texts(await everything(backend)) == ["bare"]


async def test_an_exception_in_the_stream_comes_after_what_was_said() -> None:
    """A container that dies."""

    async def script(exchange: Exchange) -> None:
        await exchange.head(headers=EVENT_STREAM)
        await exchange.send(part(answer("half")[0]), exception("ModelStreamError", "it died"))
        await exchange.end()

    events: list[Any] = []
    async with asking(script) as (backend, _):
        with pytest.raises(UpstreamFailed, match="it died"):
            await into(events, backend)
    assert texts(events) == ["half"]


async def test_a_container_may_speak_tgis_own_wire() -> None:
    """A prompt goes in, tokens come out; its usage is in the last event."""
    details = {"finish_reason": "eos_token", "generated_tokens": 2, "input_length": 7}
    body = b"".join(
        b"data:" + json.dumps(document).encode() + b"\n\n"
        for document in (
            {"index": 1, "token": {"id": 1, "text": "Grüß", "special": False}},
            {
                "index": 2,
                "token": {"id": 2, "text": "</s>", "special": True},
                "generated_text": "Grüß",
                "details": details,
            },
        )
    )
    pieces = [body[start : start + 11] for start in range(0, len(body), 11)]
    async with asking(framed(streams(*pieces)), payload="tgi") as (backend, upstream):
        events = await everything(backend)
        assert backend.capabilities.fields is not None
        assert "tools" not in backend.capabilities.fields
    asked = upstream.requests[0].json()
    assert asked["stream"] is True
    assert asked["parameters"]["max_new_tokens"] == 64
    assert texts(events) == ["Grüß"]
    assert isinstance(events[-1], Finish)
    assert events[-1].usage == Usage(7, 2)


async def test_an_older_container_answers_with_a_list() -> None:
    """Without saying why it ended, or what it counted."""
    answered = replies(200, [{"generated_text": "Thank you for asking!"}])
    async with asking(answered, payload="tgi") as (backend, _):
        events = await everything(backend)
    assert texts(events) == ["Thank you for asking!"]
    assert isinstance(events[-1], Finish)
    assert events[-1].usage is None


@pytest.mark.parametrize("folder", sorted(RECORDINGS.glob("*")) or [None])
async def test_a_recorded_answer_is_read(folder: Path | None) -> None:
    """As it was, and as parts of any size."""
    if folder is None:
        pytest.skip("the recordings are not beside this checkout (../shared/recordings)")
    body = (folder / "response.body").read_bytes()
    pieces = [body[start : start + 100] for start in range(0, len(body), 100)]
    for script in (replies(200, body), framed(streams(*pieces)), framed(streams(body))):
        async with asking(script, payload="tgi") as (backend, _):
            events = await everything(backend)
        assert "".join(texts(events)) == json.loads(body)[0]["generated_text"]


async def test_boto3_reads_our_parts() -> None:
    """And the check of signatures takes the one it makes."""
    script = framed(streams(*answer("ok")))
    async with amazon("sagemaker-runtime", script) as (ask, upstream):
        found = await ask(
            "invoke_endpoint_with_response_stream",
            lambda r: b"".join(one["PayloadPart"]["Bytes"] for one in whole(r["Body"])),
            EndpointName="my-llama",
            Body=b"{}",
        )
    assert found == b"".join(answer("ok"))
    assert signed_well(upstream.requests[0], "sagemaker")
    assert upstream.requests[0].path == "/endpoints/my-llama/invocations-response-stream"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (config(region=""), "'region'"),
        (config(model=""), "'model'"),
        (config(payload="chat"), "payload"),
    ],
)
def test_wrong_settings_are_found_before_secrets_are_known(
    given: BackendConfig, words: str
) -> None:
    """With the key's name."""
    with pytest.raises(ValueError, match=words):
        backends.check(given)

"""Cohere's v2 API keeps the contract."""

from __future__ import annotations

import pytest

from backends import cohere
from backends.base import Backend, BackendConfig
from backends.types import ChoiceEnd, Finish, Usage, VectorDelta
from tests.backends.foreign import ForeignContract
from tests.contracts.backend_contract import Case, everything, replace_request
from tests.upstream import Upstream, data, replies, serving, streams

pytestmark = pytest.mark.anyio


def backend(upstream: Upstream) -> Backend:
    """Point the adapter at a server."""
    url = f"http://127.0.0.1:{upstream.port}"
    return cohere.build(BackendConfig("cohere", "command-x", url, api_keys=(lambda: "ck",)))


END = data({"type": "message-end", "delta": {"finish_reason": "COMPLETE"}})


class TestCohere(ForeignContract):
    """Server-sent events with a type in each."""

    word = "COMPLETE"

    def build(self, upstream: Upstream) -> Backend:
        """Point it at the server."""
        return backend(upstream)

    def piece(self, text: str) -> bytes:
        """Write a content delta."""
        delta = {"message": {"content": {"text": text}}}
        return b"event: content-delta\n" + data(
            {"type": "content-delta", "index": 0, "delta": delta}
        )

    def closing(self, case: Case) -> list[bytes]:
        """Write the message's end."""
        counts = {"input_tokens": 7, "output_tokens": len(case.pieces)}
        usage = {"usage": {"tokens": counts}} if case.counted else {}
        end = {"type": "message-end", "delta": {"finish_reason": "COMPLETE", **usage}}
        return [data(end), b"data: [DONE]\n\n"]

    def garbage(self) -> bytes:
        """Write what is not JSON."""
        return b"data: [garbage, not JSON\n\n"


async def test_the_request_goes_where_the_vendor_has_it() -> None:
    """Path, key and body."""
    async with serving(streams(END)) as upstream:
        it = backend(upstream)
        await everything(it)
        await it.aclose()
    [request] = upstream.requests
    assert request.path == "/v2/chat"
    assert request.headers["authorization"] == "Bearer ck"
    assert request.json() == {
        "model": "command-x",
        "messages": [{"role": "user", "content": "Grüß Gott"}],
        "stream": True,
        "max_tokens": 64,
    }


async def test_embeddings_are_asked_for_and_read() -> None:
    """One vector for each text; the count is what was billed."""
    answer = {
        "id": "e-1",
        "embeddings": {"float": [[1.0, 0.5], [0.25, 0.0]]},
        "meta": {"billed_units": {"input_tokens": 4.0}},
    }
    request = replace_request(
        operation="embeddings", inputs=("a", "b"), messages=(), output_bound=None
    )
    async with serving(replies(200, answer)) as upstream:
        it = backend(upstream)
        events = await everything(it, request)
        await it.aclose()
    assert upstream.requests[0].path == "/v2/embed"
    assert upstream.requests[0].json() == {
        "model": "command-x",
        "texts": ["a", "b"],
        "input_type": "search_document",
        "embedding_types": ["float"],
        "truncate": "NONE",
    }
    assert events[1:] == [
        VectorDelta(0, [1.0, 0.5]),
        VectorDelta(1, [0.25, 0.0]),
        Finish((ChoiceEnd(0, "stop", "stop"),), Usage(4, 0)),
    ]


def test_without_an_address_it_is_the_vendors() -> None:
    """And without a model it is an error that names the key."""
    cohere.build(BackendConfig("cohere", "m"))
    with pytest.raises(ValueError, match="'model'"):
        cohere.check(BackendConfig("cohere", ""))

"""Ollama's own API keeps the contract."""

from __future__ import annotations

from typing import Any

import pytest

from backends import ollama
from backends.base import Backend, BackendConfig
from backends.types import ChoiceEnd, Finish, Native, Usage, VectorDelta
from tests.backends.foreign import ForeignContract, line
from tests.contracts.backend_contract import Case, everything, replace_request
from tests.upstream import Upstream, replies, serving, streams

pytestmark = pytest.mark.anyio


def backend(upstream: Upstream, **options: Any) -> Backend:
    """Point the adapter at a server."""
    url = f"http://127.0.0.1:{upstream.port}"
    return ollama.build(BackendConfig("ollama", "gemma", url, options=options))


END = line({"model": "gemma", "message": {"role": "assistant", "content": ""}, "done": True})


class TestOllama(ForeignContract):
    """A JSON document a line."""

    word = "stop"

    def build(self, upstream: Upstream) -> Backend:
        """Point it at the server."""
        return backend(upstream)

    def piece(self, text: str) -> bytes:
        """Write a line with text."""
        return line({"model": "gemma", "message": {"content": text}, "done": False})

    def closing(self, case: Case) -> list[bytes]:
        """Write the last line with its counts."""
        counts = {"prompt_eval_count": 7, "eval_count": len(case.pieces)} if case.counted else {}
        return [line({"message": {"content": ""}, "done": True, "done_reason": "stop", **counts})]

    def garbage(self) -> bytes:
        """Write what is not JSON."""
        return b"[garbage, not JSON\n"


async def test_the_request_goes_where_the_server_has_it() -> None:
    """Options in their own object, the window that configuration names among them."""
    async with serving(streams(END)) as upstream:
        it = backend(upstream, num_ctx=8192)
        await everything(it)
        await it.aclose()
    [request] = upstream.requests
    assert request.path == "/api/chat"
    assert request.json() == {
        "model": "gemma",
        "messages": [{"role": "user", "content": "Grüß Gott"}],
        "stream": True,
        "options": {"num_predict": 64, "num_ctx": 8192},
    }


async def test_embeddings_are_asked_for_and_read() -> None:
    """A text that does not fit is an error, never cut in silence."""
    answer = {"model": "gemma", "embeddings": [[1.0], [2.0]], "prompt_eval_count": 3}
    request = replace_request(
        operation="embeddings",
        inputs=("a", "b"),
        messages=(),
        output_bound=None,
        native=Native("embeddings", {"input": ["a", "b"], "dimensions": 1}),
    )
    async with serving(replies(200, answer)) as upstream:
        it = backend(upstream)
        events = await everything(it, request)
        await it.aclose()
    assert upstream.requests[0].path == "/api/embed"
    assert upstream.requests[0].json() == {
        "model": "gemma",
        "input": ["a", "b"],
        "truncate": False,
        "dimensions": 1,
    }
    assert events[1:] == [
        VectorDelta(0, [1.0]),
        VectorDelta(1, [2.0]),
        Finish((ChoiceEnd(0, "stop", "stop"),), Usage(3, 0)),
    ]


def test_a_window_is_at_least_a_token() -> None:
    """And a model is named."""
    with pytest.raises(ValueError, match="'num_ctx'"):
        ollama.check(BackendConfig("ollama", "m", options={"num_ctx": 0}))
    with pytest.raises(ValueError, match="'model'"):
        ollama.check(BackendConfig("ollama", ""))

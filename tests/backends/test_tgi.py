"""Text Generation Inference's own API keeps the contract."""

from __future__ import annotations

import json
from typing import Any

import pytest

from backends import tgi
from backends.base import Backend, BackendConfig
from tests.backends.foreign import ForeignContract
from tests.contracts.backend_contract import Case, everything
from tests.upstream import Upstream, serving, streams

pytestmark = pytest.mark.anyio


def event(document: Any) -> bytes:
    """Return an event as this server writes it: without a space."""
    return b"data:" + json.dumps(document, ensure_ascii=False).encode() + b"\n\n"


def ending(**details: Any) -> bytes:
    """Return the last event of a stream."""
    token = {"id": 2, "text": "</s>", "logprob": 0.0, "special": True}
    return event({"index": 9, "token": token, "generated_text": "all", "details": details})


def backend(upstream: Upstream) -> Backend:
    """Point the adapter at a server."""
    return tgi.build(BackendConfig("tgi", "", f"http://127.0.0.1:{upstream.port}"))


class TestTGI(ForeignContract):
    """Server-sent events, a token each."""

    word = "eos_token"

    def build(self, upstream: Upstream) -> Backend:
        """Point it at the server."""
        return backend(upstream)

    def piece(self, text: str) -> bytes:
        """Write a token."""
        token = {"id": 1, "text": text, "logprob": -0.5, "special": False}
        return event({"index": 1, "token": token, "generated_text": None, "details": None})

    def closing(self, case: Case) -> list[bytes]:
        """Write the end mark with the details."""
        details: dict[str, Any] = {"finish_reason": "eos_token", "seed": None}
        if case.counted:
            details |= {"generated_tokens": len(case.pieces), "input_length": 7}
        return [ending(**details)]

    def garbage(self) -> bytes:
        """Write what is not JSON."""
        return b"data:[garbage, not JSON\n\n"


async def test_the_request_is_one_text() -> None:
    """The prompt as it is, with the bound that was held."""
    async with serving(streams(ending(finish_reason="eos_token"))) as upstream:
        it = backend(upstream)
        await everything(it)
        await it.aclose()
    [request] = upstream.requests
    assert request.path == "/generate_stream"
    assert request.json() == {
        "inputs": "Grüß Gott",
        "parameters": {"details": True, "return_full_text": False, "max_new_tokens": 64},
        "stream": True,
    }


def test_an_address_is_needed() -> None:
    """There is no public one."""
    with pytest.raises(ValueError, match="'base_url'"):
        tgi.check(BackendConfig("tgi", "m"))

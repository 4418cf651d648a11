"""The adapter of the built-in engine keeps the contract, over a Unix socket."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from backends.base import Backend, BackendConfig
from backends.errors import ConnectionFailed
from backends.local import build
from tests.contracts.backend_contract import (
    OpenAIWireContract,
    everything,
    replace_request,
)
from tests.upstream import Script, Upstream, answer, serving, streams

pytestmark = pytest.mark.anyio


@pytest.fixture
def socket_path() -> Iterator[str]:
    """A path short enough for a socket."""
    with TemporaryDirectory() as folder:
        yield str(Path(folder) / "engine.sock")


class TestLocal(OpenAIWireContract):
    """An engine behind its socket."""

    @pytest.fixture(autouse=True)
    def _socket(self, socket_path: str) -> None:
        self.socket_path = socket_path

    def build(self, upstream: Upstream) -> Backend:
        """Point it at the server."""
        return build(BackendConfig("local", "up-model", socket_path=upstream.socket_path))

    def serve(self, *scripts: Script) -> AbstractAsyncContextManager[Upstream]:
        """Listen on a Unix socket."""
        return serving(*scripts, socket_path=self.socket_path)

    async def test_a_bound_that_the_caller_did_not_ask_for_goes_as_a_header(self) -> None:
        """What was held is always sent; in the body the engine would refuse it where too large."""
        async with self.asking(streams(*answer("ok"))) as (backend, upstream):
            await everything(backend, replace_request(output_bound=64, max_tokens=None))
        [request] = upstream.requests
        assert request.headers["x-tollway-max-output"] == "64"
        assert not {"max_tokens", "max_completion_tokens"} & set(request.json())


async def test_an_engine_that_is_not_there_is_a_failed_connection(socket_path: str) -> None:
    """It may be starting again: another try may help."""
    backend = build(BackendConfig("local", "up-model", socket_path=socket_path))
    with pytest.raises(ConnectionFailed) as caught:
        await everything(backend)
    await backend.aclose()
    assert caught.value.retry_here


async def test_the_engine_is_told_account_and_deadline(socket_path: str) -> None:
    """It shares itself fairly among accounts, and gives up what nobody waits for."""
    async with serving(streams(*answer("ok")), socket_path=socket_path) as upstream:
        backend = build(BackendConfig("local", "up-model", socket_path=socket_path))
        deadline = asyncio.get_running_loop().time() + 60
        request = replace_request(account="Müller & Söhne\n")
        async with backend.stream(request, deadline=deadline) as batches:
            async for _ in batches:
                pass
        await backend.aclose()
    headers = upstream.requests[0].headers
    assert headers["x-tollway-account"] == "M%C3%BCller%20%26%20S%C3%B6hne%0A"
    assert 0 < int(headers["x-tollway-deadline-ms"]) <= 60_000


async def test_running_counts_are_asked_for(socket_path: str) -> None:
    """What a cut answer delivered is then counted exactly."""
    async with serving(streams(*answer("ok")), socket_path=socket_path) as upstream:
        backend = build(BackendConfig("local", "up-model", socket_path=socket_path))
        await everything(backend)
        await backend.aclose()
    options = upstream.requests[0].json()["stream_options"]
    assert options == {"include_usage": True, "continuous_usage_stats": True}


def test_it_needs_a_socket() -> None:
    """The message says who makes one."""
    with pytest.raises(ValueError, match="tollway serve"):
        build(BackendConfig("local", "up-model"))

"""vLLM: running counts, and prefixes that accounts do not share."""

from __future__ import annotations

from typing import Any

import pytest

from backends.base import Backend, BackendConfig
from backends.types import UsageUpdate
from backends.vllm import build
from tests.contracts.backend_contract import OpenAIWireContract, everything, replace_request
from tests.upstream import Upstream, answer, data, delta, serving, streams, usage

pytestmark = pytest.mark.anyio


def config(base_url: str, **options: Any) -> BackendConfig:
    """Return the settings of an endpoint."""
    keys = (lambda: "vllm-key",)
    return BackendConfig("vllm", "up-model", base_url, api_keys=keys, options=options)


class TestVLLM(OpenAIWireContract):
    """A server of one's own."""

    def build(self, upstream: Upstream) -> Backend:
        """Point it at the server."""
        return build(config(upstream.base_url))


async def salt(account: str) -> str:
    """Return the salt of an account's prefixes."""
    async with serving(streams(*answer("ok"))) as upstream:
        backend = build(config(upstream.base_url))
        await everything(backend, replace_request(account=account))
        await backend.aclose()
    return str(upstream.requests[0].json()["cache_salt"])


async def test_accounts_do_not_share_prefixes_and_are_not_named() -> None:
    """The salt is the same for one account, another for others, and no name is in it."""
    one, again, other = [await salt(account) for account in ("acme", "acme", "corp")]
    assert one == again != other
    assert "acme" not in one


async def test_the_running_count_is_asked_for_and_read() -> None:
    """What a cut answer delivered is then known exactly."""
    body = data(delta("a", usage=usage(7, 1))), *answer("b")
    async with serving(streams(*body)) as upstream:
        backend = build(config(upstream.base_url))
        events = await everything(backend)
        await backend.aclose()
    assert UsageUpdate(7, 1) in events
    assert upstream.requests[0].json()["stream_options"]["continuous_usage_stats"] is True

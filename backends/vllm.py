"""vLLM's own server: chat or plain completions, with counts in every chunk, and its health.

Source: docs.vllm.ai, "OpenAI-Compatible Server".
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac

import msgspec

from backends.base import BackendConfig, Probe
from backends.openai_like import Call, OpenAILike, need_address
from backends.probing import asked
from backends.transport import Transport
from backends.types import ChatRequest
from backends.vendors import API, vendor


class Options(msgspec.Struct, forbid_unknown_fields=True):
    """What only this kind knows."""

    api: API | None = None
    """What to speak: ``chat`` (if absent), ``responses`` or ``completions``."""


def check(config: BackendConfig) -> None:
    """Check what can be checked without secrets.

    Raises:
        ValueError: there is no base URL or no model.
    """
    need_address(config, "http://127.0.0.1:8000/v1")


def build(config: BackendConfig) -> VLLM:
    """Build a backend for ``base_url`` (up to and including ``/v1``)."""
    return VLLM(config, vendor("vllm"), msgspec.convert(dict(config.options), Options).api)


class VLLM(OpenAILike):
    """One model of one server."""

    def call(self, request: ChatRequest) -> Call:
        """See ``OpenAILike``; running counts make what a cut answer delivered exact."""
        call = super().call(request)
        if request.operation == "embeddings":
            return call
        if "stream_options" in call.body:
            call.body["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
        if request.account:
            call.body["cache_salt"] = self._salt(request.account)
        return call

    async def probe(self, *, deadline: float) -> Probe:
        """See ``OpenAILike``; its health, which stands beside the API, comes first."""
        root = self.config.base_url.rstrip("/").removesuffix("/v1")
        beside = Transport(dataclasses.replace(self.config, base_url=root))
        try:
            health = await asked(beside, self._auth, "/health", read=None, deadline=deadline)
        finally:
            await beside.aclose()
        return await super().probe(deadline=deadline) if health.ok else health

    def _salt(self, account: str) -> str:
        """Return what keeps an account's cached prefixes apart from those of others.

        Names of accounts can be guessed, so that a plain hash would tell them: it is keyed with
        the endpoint's key, which the server knows already, and which all workers share.
        """
        key = (self.config.api_keys[0]() if self.config.api_keys else None) or "cache_salt"
        return hmac.new(key.encode(), account.encode(), hashlib.sha256).hexdigest()[:32]

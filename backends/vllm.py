"""vLLM's own server: chat or plain completions, counts in every chunk and before any; its health.

Source: docs.vllm.ai, "OpenAI-Compatible Server" and "Metrics"; ``/tokenize`` as of vLLM 0.32.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import hmac
from typing import Annotated, Final

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from backends.base import BackendConfig, Probe
from backends.errors import BackendError, ProtocolError
from backends.openai_like import Call, OpenAILike, need_address
from backends.probing import asked
from backends.transport import Post, Transport
from backends.types import ChatRequest
from backends.vendors import API, Vendor, vendor

_TEMPLATE: Final = frozenset(
    {"add_generation_prompt", "add_special_tokens", "chat_template", "chat_template_kwargs"}
    | {"continue_final_message"}
)
"""Fields of a caller's own that change how a prompt is written, and that ``/tokenize`` takes."""

_PROMPT: Final = frozenset({"model", "messages", "prompt", "tools"}) | _TEMPLATE
_HEADERS: Final = {"Content-Type": "application/json", "Accept-Encoding": "identity"}


class _Counted(msgspec.Struct):
    """What ``/tokenize`` answers, without the tokens."""

    count: Annotated[int, msgspec.Meta(ge=1)]


_LOAD: Final = {
    "vllm:num_requests_running": "running",
    "vllm:num_requests_waiting": "waiting",
    "vllm:gpu_cache_usage_perc": "full",  # what it was called before
    "vllm:kv_cache_usage_perc": "full",
}
"""Gauges of its metrics, one for each engine."""

MAX_METRICS_BYTES: Final = 1024 * 1024
"""More is not read: it is parsed in Python, line by line."""

_decode = msgspec.json.Decoder(_Counted).decode


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


def load_of(page: str) -> str:
    """Say how busy a server is by the page of its metrics: all its engines, the fullest cache.

    Raises:
        ValueError: it is no such page.
    """
    values: dict[str, list[float]] = {}
    for family in text_string_to_metric_families(page):
        if family.samples and (name := _LOAD.get(family.name)):
            values[name] = [sample.value for sample in family.samples]
    words = [f"{sum(values[name]):.0f} {name}" for name in ("running", "waiting") if name in values]
    if "full" in values:
        words.append(f"KV cache {max(values['full']):.0%} full")
    return ", ".join(words)


class VLLM(OpenAILike):
    """One model of one server."""

    def __init__(self, config: BackendConfig, row: Vendor, api: API | None = None) -> None:
        """See ``OpenAILike``; the server's own pages stand beside its API."""
        super().__init__(config, row, api)
        root = config.base_url.rstrip("/").removesuffix("/v1")
        self._beside = Transport(dataclasses.replace(config, base_url=root))

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
        """See ``OpenAILike``; first its health, and last its load, which stand beside the API."""
        found = await asked(self._beside, self._auth, "/health", read=None, deadline=deadline)
        if found.ok:
            found = await super().probe(deadline=deadline)
        if found.ok and (load := await self._load(deadline)):
            found = dataclasses.replace(found, detail=f"{found.detail}: {load}")
        return found

    async def count(self, request: ChatRequest) -> int | None:
        """Ask ``/tokenize``; see ``backends.base.Counting``.

        It knows nothing of other fields that change a prompt: tools that are not to be called,
        which some servers leave out, and most that a caller sends to this server alone.
        """
        own = request.provider.options.get(self.config.options_key, {})
        if own.keys() - _TEMPLATE or request.params.get("tool_choice") == "none":
            return None
        prompt = {k: v for k, v in self.call(request).body.items() if k in _PROMPT}
        if "messages" in prompt:
            prompt.setdefault("add_generation_prompt", True)
        elif not isinstance(prompt.get("prompt"), str):
            return None
        body = msgspec.json.encode(prompt)
        await self._auth.ready()
        headers = {**_HEADERS, **self._auth.headers(self._beside.url("/tokenize"), body)}
        answer = await self._beside.post(Post("/tokenize", headers, body))
        try:
            return _decode(await answer.whole()).count
        except msgspec.DecodeError as error:
            raise ProtocolError("what the server's /tokenize answers is no count") from error

    async def _load(self, deadline: float) -> str:
        """Return what its metrics say of its load; nothing where they cannot be read in time."""
        try:
            async with asyncio.timeout_at(deadline):
                headers = self._auth.headers(self._beside.url("/metrics"), b"")
                page = await self._beside.get("/metrics", headers, MAX_METRICS_BYTES)
            return load_of(page.decode())
        except (BackendError, TimeoutError, ValueError):
            return ""

    async def aclose(self) -> None:
        """See ``OpenAILike``."""
        await self._beside.aclose()
        await super().aclose()

    def _salt(self, account: str) -> str:
        """Return what keeps an account's cached prefixes apart from those of others.

        Names of accounts can be guessed, so that a plain hash would tell them: it is keyed with
        the endpoint's key, which the server knows already, and which all workers share.
        """
        key = (self.config.api_keys[0]() if self.config.api_keys else None) or "cache_salt"
        return hmac.new(key.encode(), account.encode(), hashlib.sha256).hexdigest()[:32]

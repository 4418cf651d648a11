"""What can be asked for, and what it costs, as OpenRouter's catalogue shows it.

Its generated SDKs check every key and type of these objects (openrouter 1.3.84, read 2026-11).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from backends.wire.openai_request import CHAT_FIELDS
from gateway.endpoint_settings import CAPABILITIES
from gateway.endpoints import Endpoint, EndpointTable
from gateway.settings import ModelSettings
from policies.pricing import FULL_BP, PICO_PER_USD, Price, Tier

SAMPLING = ("max_tokens", "temperature", "top_p", "top_k", "min_p", "seed", "stop")
MODALITIES = {
    "image": "image_url",
    "audio": "input_audio",
    "video": "video_url",
    "file": "file",
}
"""What a prompt may hold beside text, and the part that holds it."""

UP = 0
DOWN = -2
"""The status of an endpoint whose breaker is open."""


class Shown:
    """A model in the catalogue: its document, and what filters ask of it."""

    __slots__ = ("document", "endpoints", "model")

    def __init__(self, model: ModelSettings, endpoints: Sequence[Endpoint]) -> None:
        """Write the document."""
        self.model = model
        self.endpoints = endpoints
        self.document = _model(model, endpoints)

    @property
    def author(self) -> str:
        """What stands before the first slash of its name."""
        return self.model.id.partition("/")[0]

    def usd_per_million(self, kind: str) -> Decimal:
        """Return what a million tokens of a kind (``prompt``, ``completion``) cost a caller."""
        return Decimal(self.document["pricing"][kind]) * 10**6

    @property
    def first_token_ms(self) -> float | None:
        """The best of its endpoints' measured first-token latencies in this worker."""
        known = (endpoint.first_token_ms for endpoint in self.endpoints)
        return min((value for value in known if value is not None), default=None)


class Catalogue:
    """The models of one worker; written when they are first asked for."""

    def __init__(self, table: EndpointTable) -> None:
        """Write nothing yet."""
        self._table = table
        self._shown: list[Shown] = []

    def models(self) -> list[Shown]:
        """Return every model that is served today."""
        if not self._shown:
            self._shown = [Shown(*entry) for entry in self._table.listed()]
        return [shown for shown in self._shown if not self._table.expired(shown.model)]

    def embedding_models(self) -> list[dict[str, Any]]:
        """Return the documents of the models that can be asked for vectors."""
        able = (shown for shown in self.models() if _any(shown.endpoints, "embeddings"))
        return [_embedding(shown.document) for shown in able]

    def model(self, name: str) -> Shown | None:
        """Return the model of a name or alias, or None."""
        found = self._table.described(name)
        return None if found is None or self._table.expired(found[0]) else Shown(*found)

    def names(self) -> list[str]:
        """Return every name in it."""
        return [shown.model.id for shown in self.models()]

    def providers(self) -> list[dict[str, Any]]:
        """Return where answers come from, by slug."""
        slugs = sorted({endpoint.settings.slug for endpoint in self._table.endpoints})
        unknown = ("privacy_policy_url", "terms_of_service_url", "status_page_url")
        return [{"name": slug, "slug": slug, **dict.fromkeys(unknown)} for slug in slugs]


def with_endpoints(shown: Shown) -> dict[str, Any]:
    """Return a model with each place that serves it."""
    document = shown.document
    kept = ("id", "name", "created", "description", "architecture")
    return {
        **{name: document[name] for name in kept},
        "endpoints": [_endpoint(shown.model, endpoint) for endpoint in shown.endpoints],
    }


def _model(model: ModelSettings, endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    first = endpoints[0]
    window = first.settings.window()
    inputs = ["text", *(name for name, part in MODALITIES.items() if _any(endpoints, part))]
    return {
        "id": model.id,
        "object": "model",
        "created": 0,
        "owned_by": first.settings.slug,
        "canonical_slug": model.id,
        "name": model.id,
        "description": "",
        "context_length": window,
        "architecture": {
            "modality": f"{'+'.join(inputs)}->text",
            "input_modalities": inputs,
            "output_modalities": ["text"],
            "tokenizer": "Other",
            "instruct_type": None,
        },
        "pricing": _pricing(first.price, first.markup_bp),
        "top_provider": {
            "context_length": window,
            "max_completion_tokens": first.settings.max_output_tokens,
            "is_moderated": False,
        },
        "per_request_limits": None,
        "supported_parameters": _parameters(endpoints),
        "default_parameters": None,
        "supported_voices": None,
        "expiration_date": model.expires.isoformat() if model.expires else None,
        "links": {"details": f"/api/v1/models/{model.id}/endpoints"},
    }


def _embedding(document: dict[str, Any]) -> dict[str, Any]:
    outputs = {"modality": "text->embeddings", "output_modalities": ["embeddings"]}
    architecture = {**document["architecture"], **outputs}
    return {**document, "architecture": architecture, "supported_parameters": []}


def _endpoint(model: ModelSettings, endpoint: Endpoint) -> dict[str, Any]:
    settings = endpoint.settings
    choice = _takes(endpoint, "tool_choice")
    measured = ("latency_last_30m", "throughput_last_30m")
    uptime = ("uptime_last_5m", "uptime_last_30m", "uptime_last_1d")
    return {
        "name": f"{settings.slug} | {model.id}",
        "model_id": model.id,
        "model_name": model.id,
        "provider_name": settings.slug,
        "tag": settings.slug,
        "quantization": None,
        "context_length": settings.window() or 0,  # an SDK takes no null here
        "max_prompt_tokens": None,
        "max_completion_tokens": settings.max_output_tokens,
        "pricing": _pricing(endpoint.price, endpoint.markup_bp),
        "supported_parameters": _parameters([endpoint]),
        "supports_tool_choice": dict.fromkeys(("auto", "none", "required", "function"), choice),
        "supports_implicit_caching": False,
        "supports_diarization": False,
        "native_tools": {},
        "service_tier": None,
        "status": DOWN if endpoint.breaker.is_open else UP,
        **dict.fromkeys((*measured, *uptime)),
    }


def _pricing(price: Price, markup_bp: int) -> dict[str, Any]:
    """Write what a caller pays, in USD per token, as catalogues do: strings."""
    fees = {"request": price.request, "image": price.image}
    pricing: dict[str, Any] = _usd({**_rates(price), **fees}, markup_bp)
    if price.tiers:
        pricing["overrides"] = [_override(price, tier, markup_bp) for tier in price.tiers]
    return pricing


def _override(price: Price, tier: Tier, markup_bp: int) -> dict[str, Any]:
    """Write a tier; a kind that it leaves out would be read as the base price's."""
    rates = _rates(tier)
    for name in ("input_cache_read", "input_cache_write"):
        if rates[name] is None and _rates(price)[name] is not None:
            rates[name] = tier.prompt
    del rates["internal_reasoning"]  # not a key of overrides
    return {"min_prompt_tokens": tier.above_prompt_tokens, **_usd(rates, markup_bp)}


def _rates(level: Price | Tier) -> dict[str, int | None]:
    return {
        "prompt": level.prompt,
        "completion": level.completion,
        "input_cache_read": level.cached,
        "input_cache_write": level.cache_write,
        "internal_reasoning": level.reasoning,
    }


def _usd(rates: Mapping[str, int | None], markup_bp: int) -> dict[str, str]:
    """Write pico-dollars with the markup as dollars with at most 12 decimals, rounded up."""
    written = {}
    for name, rate in rates.items():
        if rate is not None:
            picodollars = -(-rate * (FULL_BP + markup_bp) // FULL_BP)
            text = f"{Decimal(picodollars) / PICO_PER_USD:f}"
            written[name] = text.rstrip("0").rstrip(".") if "." in text else text
    return written


def _parameters(endpoints: Sequence[Endpoint]) -> list[str]:
    names = {*SAMPLING, *(field for fields in CAPABILITIES.values() for field in fields)}
    names &= CHAT_FIELDS - set(MODALITIES.values())
    return sorted(name for name in names if _any(endpoints, name))


def _any(endpoints: Sequence[Endpoint], field: str) -> bool:
    return any(_takes(endpoint, field) for endpoint in endpoints)


def _takes(endpoint: Endpoint, field: str) -> bool:
    fields = endpoint.backend.capabilities.fields
    return field not in endpoint.refused and (fields is None or field in fields)

"""``GET /v1/models``: what can be asked for, and what it costs."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from litestar import Request, get

from backends.wire.openai_request import CHAT_FIELDS
from gateway.endpoints import Endpoint
from gateway.settings import CAPABILITIES, ModelSettings
from gateway.worker import Worker
from policies.pricing import FULL_BP, PICO_PER_USD, Price

SAMPLING = ("max_tokens", "temperature", "top_p", "top_k", "min_p", "seed", "stop")


@get(["/v1/models", "/api/v1/models"], summary="Models", sync_to_thread=False)
def models(request: Request[Any, Any, Any]) -> dict[str, Any]:
    """List the models, with or without a key, in OpenAI's and OpenRouter's shape."""
    worker: Worker = request.app.state.worker
    data = [_model(worker, model) for model in worker.table.models]
    return {"object": "list", "data": data, "total_count": len(data), "links": {"next": None}}


@get(
    ["/v1/embeddings/models", "/api/v1/embeddings/models"],
    summary="Embedding models",
    sync_to_thread=False,
)
def embedding_models(request: Request[Any, Any, Any]) -> dict[str, Any]:
    """List the models that can be asked for embeddings, in the same shape."""
    worker: Worker = request.app.state.worker
    data = [
        {
            **entry,
            "architecture": {
                **entry["architecture"],
                "modality": "text->embeddings",
                "output_modalities": ["embeddings"],
            },
            "supported_parameters": [],
        }
        for model in worker.table.models
        if any(_takes(endpoint, "embeddings") for endpoint in worker.table.of_model(model))
        for entry in (_model(worker, model),)
    ]
    return {"object": "list", "data": data, "total_count": len(data), "links": {"next": None}}


def _model(worker: Worker, model: ModelSettings) -> dict[str, Any]:
    endpoints = worker.table.of_model(model)
    first = endpoints[0]
    inputs = ["text", *(["image"] if any(_takes(e, "image_url") for e in endpoints) else [])]
    return {
        "id": model.id,
        "object": "model",
        "created": 0,
        "owned_by": first.settings.slug,
        "canonical_slug": model.id,
        "name": model.id,
        "description": "",
        "context_length": first.settings.context_tokens,
        "architecture": {
            "modality": f"{'+'.join(inputs)}->text",
            "input_modalities": inputs,
            "output_modalities": ["text"],
            "tokenizer": "Other",
            "instruct_type": None,
        },
        "pricing": _pricing(first.price, worker.settings.markup_bp(model)),
        "top_provider": {
            "context_length": first.settings.context_tokens,
            "max_completion_tokens": first.settings.max_output_tokens,
            "is_moderated": False,
        },
        "per_request_limits": None,
        "supported_parameters": _parameters(endpoints),
        "default_parameters": None,
        "supported_voices": None,
        "links": {"details": "/api/v1/models"},
    }


def _pricing(price: Price, markup_bp: int) -> dict[str, str]:
    """Write what a caller pays, in USD per token, as catalogues do: strings."""
    rates = {
        "prompt": price.prompt,
        "completion": price.completion,
        "request": price.request,
        "image": price.image,
        "input_cache_read": price.cached,
        "input_cache_write": price.cache_write,
        "internal_reasoning": price.reasoning,
    }
    return {
        name: _usd(rate * (FULL_BP + markup_bp)) for name, rate in rates.items() if rate is not None
    }


def _usd(pico_bp: int) -> str:
    """Write pico-dollars times basis points as dollars with at most 12 decimals, rounded up."""
    picodollars = -(-pico_bp // FULL_BP)
    text = f"{Decimal(picodollars) / PICO_PER_USD:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _parameters(endpoints: tuple[Endpoint, ...]) -> list[str]:
    names = {*SAMPLING, *(field for fields in CAPABILITIES.values() for field in fields)}
    names &= CHAT_FIELDS - {"image_url", "input_audio", "video_url", "file"}
    return sorted(name for name in names if any(_takes(e, name) for e in endpoints))


def _takes(endpoint: Endpoint, field: str) -> bool:
    fields = endpoint.backend.capabilities.fields
    return field not in endpoint.refused and (fields is None or field in fields)

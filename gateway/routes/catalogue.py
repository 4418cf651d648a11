"""What is served: ``/v1/models`` and what OpenRouter has beside it. All with or without a key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final
from urllib.parse import urlencode

from litestar import Request, get
from litestar.params import FromPath

from backends.wire.checks import InvalidRequest, closest
from gateway.catalogue import Catalogue, Shown, with_endpoints
from gateway.errors import ErrorReply, GatewayError

LIMIT: Final = 1000
"""The most models of one page."""

_ENDPOINTS: Final = "/endpoints"

Anything = Request[Any, Any, Any]
Test = Callable[[Shown], bool]


@get(["/v1/models", "/api/v1/models"], summary="Models", sync_to_thread=False)
def models(request: Anything) -> dict[str, Any]:
    """List the models, filtered, sorted and by page, in OpenAI's and OpenRouter's shape."""
    query = dict(request.query_params)
    found = _sorted(_filtered(request, {**_FILTERS, **_PAGES}), query.get("sort"))
    offset = _whole(query, "offset", 0, 10**9)
    limit = _whole(query, "limit", len(found), LIMIT)
    page = found[offset : offset + limit]
    following = None
    if page and offset + limit < len(found):
        query |= {"offset": str(offset + limit), "limit": str(limit)}
        following = f"{request.scope['path']}?{urlencode(query)}"
    return {
        "object": "list",
        "data": [shown.document for shown in page],
        "total_count": len(found),
        "links": {"next": following},
    }


@get(["/v1/models/count", "/api/v1/models/count"], summary="Count", sync_to_thread=False)
def count(request: Anything) -> dict[str, Any]:
    """Say how many models there are; the same filters hold."""
    return {"data": {"count": len(_filtered(request, _FILTERS))}}


@get(
    ["/v1/embeddings/models", "/api/v1/embeddings/models"],
    summary="Embedding models",
    sync_to_thread=False,
)
def embedding_models(request: Anything) -> dict[str, Any]:
    """List the models that can be asked for embeddings, in the same shape."""
    data = _catalogue(request).embedding_models()
    return {"object": "list", "data": data, "total_count": len(data), "links": {"next": None}}


@get(
    ["/v1/models/{name:path}", "/api/v1/models/{name:path}"],
    summary="A model, or with /endpoints behind its name where it is served",
    sync_to_thread=False,
)
def model(request: Anything, name: FromPath[str]) -> dict[str, Any]:
    """Describe one model as OpenAI does, or its endpoints as OpenRouter does."""
    catalogue, name = _catalogue(request), name.strip("/")
    if name.endswith(_ENDPOINTS):
        return {"data": with_endpoints(_found(catalogue, name.removesuffix(_ENDPOINTS)))}
    return _found(catalogue, name).document


@get(
    ["/v1/model/{name:path}", "/api/v1/model/{name:path}"],
    summary="A model in an envelope",
    sync_to_thread=False,
)
def single(request: Anything, name: FromPath[str]) -> dict[str, Any]:
    """Describe one model by name or alias."""
    return {"data": _found(_catalogue(request), name.strip("/")).document}


@get(["/v1/providers", "/api/v1/providers"], summary="Providers", sync_to_thread=False)
def providers(request: Anything) -> dict[str, Any]:
    """List where answers come from."""
    return {"data": _catalogue(request).providers()}


def _catalogue(request: Anything) -> Catalogue:
    catalogue: Catalogue = request.app.state.worker.catalogue
    return catalogue


def _found(catalogue: Catalogue, name: str) -> Shown:
    shown = catalogue.model(name)
    if shown is None:
        hint = closest(name, catalogue.names())
        message = f"no model {name!r}{hint}; GET /v1/models lists the names"
        raise GatewayError(ErrorReply(404, message, "model", "model_not_found"))
    return shown


def _filtered(request: Anything, known: Mapping[str, Any]) -> list[Shown]:
    """Return the models that pass every filter of the query.

    Raises:
        InvalidRequest: a filter is not known, or its value makes no sense.
    """
    query = dict(request.query_params)
    tests: list[Test] = []
    for name, value in query.items():
        if name not in known:
            offered = ", ".join(sorted(known))
            raise InvalidRequest(f"no filter {name!r}; known are {offered}", name)
        if (make := _FILTERS.get(name)) is not None and value:
            tests.append(make(name, value))
    return [shown for shown in _catalogue(request).models() if all(t(shown) for t in tests)]


def _words(value: str) -> set[str]:
    return {word.strip().lower() for word in value.split(",") if word.strip()}


def _has_parameters(name: str, value: str) -> Test:
    wanted = _words(value)
    return lambda shown: wanted <= set(shown.document["supported_parameters"])


def _takes(name: str, value: str) -> Test:
    wanted = _words(value)
    return lambda shown: wanted <= set(shown.document["architecture"]["input_modalities"])


def _gives(name: str, value: str) -> Test:
    wanted = _words(value)
    known = wanted | {"text"} if "all" in wanted else wanted
    return lambda shown: bool(known & set(shown.document["architecture"]["output_modalities"]))


def _called(name: str, value: str) -> Test:
    text = value.lower()
    return lambda shown: any(text in n.lower() for n in (shown.model.id, *shown.model.aliases))


def _by_author(name: str, value: str) -> Test:
    wanted = _words(value)
    return lambda shown: shown.author.lower() in wanted


def _by_provider(name: str, value: str) -> Test:
    wanted = _words(value)
    return lambda shown: any(e.settings.slug.lower() in wanted for e in shown.endpoints)


def _at_least(name: str, value: str) -> Test:
    least = _number(name, value)
    return lambda shown: (shown.document["context_length"] or 0) >= least


def _price(kind: str, sign: int) -> Callable[[str, str], Test]:
    """Return a filter by USD per million tokens: at least for 1, at most for -1."""

    def make(name: str, value: str) -> Test:
        bound = _number(name, value)
        return lambda shown: (shown.usd_per_million(kind) - bound) * sign >= 0

    return make


_FILTERS: Final[Mapping[str, Callable[[str, str], Test]]] = {
    "supported_parameters": _has_parameters,
    "input_modalities": _takes,
    "output_modalities": _gives,
    "q": _called,
    "context": _at_least,
    "min_price": _price("prompt", 1),
    "max_price": _price("prompt", -1),
    "min_output_price": _price("completion", 1),
    "max_output_price": _price("completion", -1),
    "model_authors": _by_author,
    "providers": _by_provider,
}
_PAGES: Final = dict.fromkeys(("sort", "offset", "limit"))

_ORDERS: Final[Mapping[str, Callable[[Shown], Any]]] = {
    "pricing-low-to-high": lambda shown: _average(shown),
    "pricing-high-to-low": lambda shown: -_average(shown),
    "context-high-to-low": lambda shown: -(shown.document["context_length"] or 0),
    "latency-low-to-high": lambda shown: (shown.first_token_ms is None, shown.first_token_ms or 0),
}


def _average(shown: Shown) -> Decimal:
    return shown.usd_per_million("prompt") + shown.usd_per_million("completion")


def _sorted(found: list[Shown], order: str | None) -> list[Shown]:
    if not order:
        return found
    if order not in _ORDERS:
        raise InvalidRequest(f"no order {order!r}; known are {', '.join(_ORDERS)}", "sort")
    return sorted(found, key=_ORDERS[order])


def _number(name: str, value: str) -> Decimal:
    try:
        number = Decimal(value)
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite() or number < 0:
        raise InvalidRequest(f"{name!r} must be a number from 0 on, not {value!r}", name)
    return number


def _whole(query: Mapping[str, str], name: str, default: int, most: int) -> int:
    value = query.get(name) or ""
    if not value:
        return default
    if not (value.isascii() and value.isdigit() and len(value) < 12 and int(value) <= most):
        raise InvalidRequest(f"{name!r} must be a whole number from 0 to {most}", name)
    return int(value)

"""``provider.options.<slug>``: a vendor's own fields, and the one rule for them on every wire.

They add to a body and never replace anything in it: what the gateway sets, checks and charges
for (who is asked what, how much may come back, what costs a fee) is refused, under any vendor's
name for it. ``check`` is for the edge, ``add`` for the encoders of requests.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final

from backends.errors import Unsupported
from backends.types import ChatRequest
from backends.wire.checks import InvalidRequest

_ANYWHERE: Final = (
    # How much may come back,
    "maxtokens maxcompletiontokens maxoutputtokens maxnewtokens maxtokenstosample maxgenlen "
    "maxtokencount maxlength numpredict "
    # how often,
    "bestof candidatecount numreturnsequences numgenerations numresults "
    # and in what other form.
    "responsemodalities speechconfig imageconfig"
)
"""Names, in small letters only, that no hold covers, at any depth."""

_ON_TOP: Final = (
    # What is asked, and whom,
    "modelid input inputs prompt texts contents content system systeminstruction instructions "
    "anthropicversion "
    # what has a fee of its own,
    "websearch websearchoptions searchparameters searchoptions searchsettings enablesearch "
    "compoundcustom connectors mcpservers functions toolconfig audio speed inferencegeo "
    "performanceconfig thinkingbudget reasoningbudget promptembeds preset "
    # what a server would look up,
    "container cachedcontent conversation previousresponseid background datasources "
    # and where a proxy asks, and with which key.
    "apibase baseurl apikey fallbacks extrabody extraheaders"
)
_REFUSED: Final = frozenset(_ANYWHERE.split())
_REFUSED_ON_TOP: Final = frozenset(_ON_TOP.split())


def check(path: str, fields: Mapping[str, Any], known: Iterable[str]) -> None:
    """Check a caller's fields for one provider; ``known`` are those of the gateway itself.

    Raises:
        InvalidRequest: one would set what the gateway sets, or cost what it does not charge.
    """
    own = {_plain(name): name for name in known}
    for name in fields:
        where = f"{path}.{name}"
        if (ours := own.get(_plain(name))) is not None:
            raise InvalidRequest(f"{where!r}: send {ours!r} at the top level instead", where)
        if _plain(name) in _REFUSED_ON_TOP:
            raise _refused(where)
    for where, name in _names(path, fields):
        if _plain(name) in _REFUSED:
            raise _refused(where)


def add(
    body: dict[str, Any], request: ChatRequest, slug: str, *, only: Collection[str] | None = None
) -> None:
    """Add a caller's fields for this provider to a body, in place.

    Args:
        body: all that the gateway says.
        request: with the fields of all providers, checked.
        slug: the provider; empty for none.
        only: the fields that this wire takes; None for any.

    Raises:
        Unsupported: a field is not among them, or stands in the body already.
    """
    fields = request.provider.options.get(slug, {}) if slug else {}
    path = f"provider.options.{slug}"
    for name in fields.keys() - (fields if only is None else only):
        known = ", ".join(sorted(only or ()))
        raise Unsupported(f"'{path}.{name}' is not offered here; known are {known}")
    _merge(path, body, fields)


def _merge(path: str, body: dict[str, Any], fields: Mapping[str, Any]) -> None:
    for name, value in fields.items():
        if name not in body:
            body[name] = value
        elif isinstance(body[name], dict) and isinstance(value, Mapping):
            body[name] = dict(body[name])  # it may be the client's own
            _merge(f"{path}.{name}", body[name], value)
        else:
            raise Unsupported(f"'{path}.{name}' is set by the gateway itself; leave it out")


def _names(path: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield every name within a value, with its path."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield f"{path}.{name}", name
            yield from _names(f"{path}.{name}", inner)
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            yield from _names(f"{path}[{position}]", inner)


def _plain(name: str) -> str:
    """Return what all spellings share: ``max_tokens``, ``maxTokens``, ``max-tokens``."""
    return name.replace("_", "").replace("-", "").lower()


def _refused(where: str) -> InvalidRequest:
    return InvalidRequest(
        f"{where!r} changes what an answer can cost or is asked, and is not offered",
        where,
        "unsupported",
    )

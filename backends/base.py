"""The seam to every upstream: one verb, and what a backend declares of itself.

Knows nothing of routing, money or the client's dialect.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, runtime_checkable

from backends.auth import Secret
from backends.types import ChatRequest, StreamEvent

EventBatches: TypeAlias = AsyncIterator[Sequence[StreamEvent]]
"""The events of a stream, in order, grouped by what arrived in one read."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an endpoint of this kind can honor, before configuration narrows it."""

    fields: frozenset[str] | None
    """Request fields and part types honored; None means every known one."""

    caps_output: bool = False
    """It takes a bound beside the caller's own limit, and stops at its window before that."""


@dataclass(frozen=True, slots=True)
class BackendConfig:
    """What ``build`` of an adapter gets: one endpoint's settings, secrets resolved.

    Secrets are functions, so that they are in no repr and can rotate.
    """

    kind: str
    model: str
    """The upstream's name of the model."""

    base_url: str = ""
    socket_path: str = ""
    api_keys: tuple[Secret, ...] = ()
    connect_ms: int = 3000
    options_key: str = ""
    """The slug under which callers send vendor-specific fields to this endpoint."""

    options: Mapping[str, Any] = field(default_factory=dict)
    """What only this kind knows, by the fields of its module's ``Options``."""


class Backend(Protocol):
    """One endpoint's upstream.

    Laws of the stream, proved for every backend by ``tests/contracts/backend_contract.py``:
    one ``ResponseStart`` first; one ``Finish`` last, or a ``BackendError`` raised from the
    iteration; an end without a finish reason is ``StreamTruncated``; leaving the context
    closes the upstream at once.
    """

    capabilities: Capabilities

    def stream(
        self, request: ChatRequest, *, deadline: float
    ) -> AbstractAsyncContextManager[EventBatches]:
        """Ask the upstream; entering the context means that it accepted the request.

        Args:
            request: what to ask, with ``output_bound`` set for this attempt.
            deadline: the event loop's time by which everything must be over, seconds.

        Raises:
            BackendError: refused, unreachable, or (from the iteration) broken off.
        """
        ...

    async def aclose(self) -> None:
        """Close pooled connections. No stream may be open."""
        ...


@dataclass(frozen=True, slots=True)
class Probe:
    """What an upstream said to a question without a prompt."""

    ok: bool
    """It answered, is well as far as it says, and did not refuse the endpoint's credential."""

    detail: str
    """The same for people."""

    models: frozenset[str] | None = None
    """The names that it serves models under; None where it does not say."""


@runtime_checkable
class Probing(Protocol):
    """What a backend may have beside ``stream``: a way to ask whether its upstream is there."""

    async def probe(self, *, deadline: float) -> Probe:
        """Ask, without a prompt and without cost; every failure is in what is returned.

        Args:
            deadline: the event loop's time by which it returns, seconds.
        """
        ...


@runtime_checkable
class Counting(Protocol):
    """What a backend may have beside ``stream``: an upstream that counts a prompt for nothing."""

    async def count(self, request: ChatRequest) -> int | None:
        """Return a prompt's tokens as its upstream reads it, with what its template adds.

        None where what the upstream would say is no count of this prompt. Who has waited long
        enough cancels it.

        Args:
            request: what ``stream`` would be asked; texts only.

        Raises:
            BackendError: refused, unreachable, or what came is no count.
        """
        ...

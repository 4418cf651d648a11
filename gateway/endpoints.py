"""The live table of endpoints: what they are, and how they have been doing in this worker.

``snapshot`` gives the planner immutable views; the dispatcher reports back what happened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from backends.base import Backend
from backends.errors import BackendError, EndpointRejected, RateLimited, RequestRejected
from gateway.settings import BreakerSettings, EndpointSettings, ModelSettings
from policies.pricing import Price, tariff
from policies.types import EndpointView

MAX_VIEWS = 64
"""Markups whose views are kept; there are few."""

LATENCY_WEIGHT = 0.2
"""Share of the newest sample in the moving average of the first-token latency."""


@dataclass(slots=True)
class Breaker:
    """Takes an endpoint out after failures in a row; one probe per open period."""

    settings: BreakerSettings
    failures: int = 0
    open_until: float = 0.0
    open_s: float = 0.0
    probing: bool = False

    def available(self, now: float) -> bool:
        """Whether a request may go there: closed, or time for a probe."""
        return not self.open_s or (now >= self.open_until and not self.probing)

    @property
    def is_open(self) -> bool:
        """Whether it has opened and no probe has succeeded since."""
        return self.open_s > 0

    def begin(self, now: float) -> bool:
        """Note that a request goes there; True if it is the probe of this open period."""
        probe = self.is_open and self.available(now)
        self.probing |= probe
        return probe

    def succeeded(self) -> None:
        """Close it."""
        self.failures, self.open_s, self.probing = 0, 0.0, False

    def abandoned(self, *, probe: bool) -> None:
        """Note that the request ended without a word about the endpoint's health."""
        self.probing &= not probe

    def failed(self, now: float, *, probe: bool, at_once: bool) -> None:
        """Count a failure; open when there were enough, for twice as long after each probe.

        While open, only the probe counts: what was under way when the endpoint broke says
        nothing new, however much of it there is.
        """
        self.failures += 1
        settings = self.settings
        if probe:
            self._open(now, min(self.open_s * 2, settings.max_open_ms / 1000))
        elif not self.is_open and (at_once or self.failures >= settings.failures):
            self._open(now, settings.open_ms / 1000)

    def _open(self, now: float, seconds: float) -> None:
        self.open_s, self.open_until, self.probing = seconds, now + seconds, False


@dataclass(slots=True)
class Endpoint:
    """One endpoint: configuration, adapter, price, and its state in this worker."""

    id: str
    model: ModelSettings
    settings: EndpointSettings
    position: int
    backend: Backend
    price: Price
    refused: frozenset[str]
    breaker: Breaker
    first_token_ms: float | None = None
    in_flight: int = 0
    views: dict[int, EndpointView] = field(default_factory=dict)
    """The last view of each markup."""

    first_token_s: float = field(init=False)
    """The first-token, stall and total limits, in seconds."""

    whole_s: float = field(init=False)
    """The first of them where an answer comes whole."""

    stall_s: float = field(init=False)
    total_s: float = field(init=False)

    def __post_init__(self) -> None:
        """Keep what every request asks of the settings."""
        self.first_token_s = self.settings.first_token_s
        self.whole_s = self.settings.whole_s
        self.stall_s = self.settings.stall_s
        self.total_s = self.settings.timeouts.total_ms / 1000

    def measured(self, first_token_ms: float) -> None:
        """Take a sample of the first-token latency."""
        old = self.first_token_ms
        self.first_token_ms = (
            first_token_ms if old is None else old + LATENCY_WEIGHT * (first_token_ms - old)
        )

    def failed(self, error: BackendError, now: float, *, probe: bool) -> None:
        """Take a failure: some open the breaker at once, some say nothing about health."""
        if isinstance(error, RequestRejected | RateLimited):
            self.breaker.abandoned(probe=probe)
        else:
            at_once = isinstance(error, EndpointRejected)
            self.breaker.failed(now, probe=probe, at_once=at_once)


class EndpointTable:
    """All models by public name and alias."""

    def __init__(
        self,
        models: Sequence[ModelSettings],
        endpoints: Sequence[Endpoint],
        now: Callable[[], float],
    ) -> None:
        """Index what wiring built."""
        self.models = tuple(models)
        self.endpoints = tuple(endpoints)
        self._now = now
        self._names: Mapping[str, ModelSettings] = {
            name: model for model in models for name in (model.id, *model.aliases)
        }
        self._by_id: Mapping[str, Endpoint] = {endpoint.id: endpoint for endpoint in endpoints}
        self._by_model: Mapping[str, tuple[Endpoint, ...]] = {
            model.id: tuple(e for e in endpoints if e.model is model) for model in models
        }

    def model(self, name: str) -> ModelSettings | None:
        """Return the model of a public name or alias."""
        return self._names.get(name)

    def names(self) -> list[str]:
        """Return every name a client may ask for."""
        return list(self._names)

    def endpoint(self, endpoint_id: str) -> Endpoint:
        """Return an endpoint of a plan."""
        return self._by_id[endpoint_id]

    def of_model(self, model: ModelSettings) -> tuple[Endpoint, ...]:
        """Return a model's endpoints in configured order."""
        return self._by_model[model.id]

    def snapshot(self, model: ModelSettings, markup_bp: int) -> tuple[EndpointView, ...]:
        """Return how a model's endpoints are now, priced for one caller."""
        now = self._now()
        return tuple(_view(endpoint, markup_bp, now) for endpoint in self._by_model[model.id])


def _view(endpoint: Endpoint, markup_bp: int, now: float) -> EndpointView:
    """Return how an endpoint is now: the last view again where nothing has changed."""
    available = endpoint.breaker.available(now)
    view = endpoint.views.get(markup_bp)
    if (
        view is not None
        and view.available is available
        and view.first_token_ms == endpoint.first_token_ms
    ):
        return view
    if view is None:
        view = _first_view(endpoint, markup_bp)
    view = msgspec.structs.replace(
        view, available=available, first_token_ms=endpoint.first_token_ms
    )
    if len(endpoint.views) >= MAX_VIEWS:
        endpoint.views.clear()
    endpoint.views[markup_bp] = view
    return view


def _first_view(endpoint: Endpoint, markup_bp: int) -> EndpointView:
    settings = endpoint.settings
    capabilities = endpoint.backend.capabilities
    return EndpointView(
        id=endpoint.id,
        model=endpoint.model.id,
        provider=settings.slug,
        position=endpoint.position,
        tariff=tariff(endpoint.price, markup_bp),
        fields=capabilities.fields,
        refused=endpoint.refused,
        context_tokens=settings.context_tokens,
        max_output_tokens=settings.max_output_tokens,
        caps_output=capabilities.caps_output,
        max_image_tokens=settings.max_image_tokens,
    )

"""The live table of endpoints: what they are, and how they have been doing in this worker.

``snapshot`` gives the planner immutable views; the dispatcher reports back what happened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import msgspec

from backends.base import Backend
from backends.errors import BackendError, EndpointRejected, RateLimited, RequestRejected
from gateway.clock import Times
from gateway.endpoint_settings import BreakerSettings, EndpointSettings
from gateway.errors import ModelExpired, Overloaded
from gateway.settings import ModelSettings
from policies.pricing import Price, tariff
from policies.types import EndpointView

MAX_VIEWS = 64
"""Markups whose views are kept; there are few."""

MAX_LIVE = 256
"""Models of wildcards that are built at once; each may keep connections."""

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
    markup_bp: int
    """The house's, for callers without one of their own."""

    refused: frozenset[str]
    breaker: Breaker
    tokenizer: str = ""
    """As the tokenizer process is asked for it."""

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
        """Take a failure: some open the breaker at once, some say nothing about health.

        What one of several credentials is told is no word about the endpoint.
        """
        if isinstance(error, RequestRejected | RateLimited) or error.other_credential:
            self.breaker.abandoned(probe=probe)
        else:
            at_once = isinstance(error, EndpointRejected)
            self.breaker.failed(now, probe=probe, at_once=at_once)


class EndpointTable:
    """All models by public name and alias; those that a wildcard stands for as they are asked."""

    def __init__(
        self,
        models: Sequence[ModelSettings],
        build: Callable[[ModelSettings], tuple[Endpoint, ...]],
        times: Times,
    ) -> None:
        """Build what is written out; ``build`` makes the endpoints of a model.

        Raises:
            ConfigError: an endpoint cannot be built.
        """
        self.models = tuple(models)
        self._build = build
        self._times = times
        self._names: Mapping[str, ModelSettings] = {
            name: model for model in models for name in (model.id, *model.aliases)
        }
        self._wildcards = sorted(
            (model for model in models if model.is_wildcard), key=lambda m: len(m.id), reverse=True
        )
        self._built = {model.id: build(model) for model in models}
        self._live: dict[str, tuple[ModelSettings, tuple[Endpoint, ...]]] = {}
        """Of wildcards; what was asked last stands last."""
        self._by_id = {endpoint.id: endpoint for endpoint in self.endpoints}
        self._labels = frozenset(self._built).union(*(m.names() for m in self._wildcards))
        self._closing: list[Endpoint] = []

    @property
    def endpoints(self) -> list[Endpoint]:
        """Everything that is built now."""
        built = [*self._built.values(), *(endpoints for _, endpoints in self._live.values())]
        return [endpoint for endpoints in built for endpoint in endpoints]

    def model(self, name: str) -> ModelSettings | None:
        """Return the model of a public name or alias; else that of the longest wildcard.

        Raises:
            ModelExpired: it has been withdrawn.
            Overloaded: too many models of wildcards are in use at once.
        """
        model = self._names.get(name)
        if model is None or model.is_wildcard:
            model = self._instance(name)
        if model is not None and model.expires is not None and self.expired(model):
            raise ModelExpired(name, model.expires.isoformat(), model.replacement)
        return model

    def names(self) -> list[str]:
        """Return every name that is written out for clients to ask for."""
        return list(self._names)

    def described(self, name: str) -> tuple[ModelSettings, tuple[Endpoint, ...]] | None:
        """Return a model and its endpoints to look at; of a wildcard nothing is built for it."""
        model = self._names.get(name)
        if model is not None and not model.is_wildcard:
            return model, self._built[model.id]
        if (live := self._live.get(name)) is not None:
            return live
        wildcard = self._wildcard(name)
        model = wildcard.named(name) if wildcard else None
        if wildcard is None or model is None:
            return None
        rest = wildcard.covers(name) or ""
        return model, tuple(
            replace(one, model=model, settings=own, price=own.rates(), views={})
            for one in self._built[wildcard.id]
            if (own := one.settings.named(rest)) is not None
        )

    def listed(self) -> list[tuple[ModelSettings, tuple[Endpoint, ...]]]:
        """Return every model with a name of its own, those that the price table knows, too."""
        names = [m.id for m in self.models if not m.is_wildcard]
        names += [name for wildcard in self._wildcards for name in wildcard.names()]
        found = (self.described(name) for name in dict.fromkeys(names))
        return [entry for entry in found if entry is not None]

    def expired(self, model: ModelSettings) -> bool:
        """Whether a model's last day has passed."""
        today = datetime.fromtimestamp(self._times.wall_us() / 1e6, UTC).date()
        return model.expires is not None and today > model.expires

    def label(self, name: str) -> str:
        """Return what stands for a model in metrics: a name of ours, never a caller's own."""
        if name in self._labels or not name:
            return name
        wildcard = self._wildcard(name)
        return wildcard.id if wildcard else ""

    def endpoint(self, endpoint_id: str) -> Endpoint:
        """Return an endpoint of a plan; one that was let go meanwhile is built again."""
        name = endpoint_id
        while endpoint_id not in self._by_id and name:
            name = name.rpartition("@")[0]
            self._instance(name)
        return self._by_id[endpoint_id]

    def of_model(self, model: ModelSettings) -> tuple[Endpoint, ...]:
        """Return a model's endpoints in configured order."""
        built = self._built.get(model.id)
        return self._live[model.id][1] if built is None else built

    def snapshot(self, model: ModelSettings, markup_bp: int | None) -> tuple[EndpointView, ...]:
        """Return how a model's endpoints are now, priced for one caller; None: as for most."""
        now = self._times.now()
        return tuple(_view(endpoint, markup_bp, now) for endpoint in self.of_model(model))

    async def aclose(self) -> None:
        """Close every backend, those let go earlier, too."""
        for endpoint in (*self.endpoints, *self._closing):
            await endpoint.backend.aclose()

    async def close_unused(self) -> None:
        """Close the backends that were let go."""
        while self._closing:
            await self._closing.pop().backend.aclose()

    def _wildcard(self, name: str) -> ModelSettings | None:
        return next((w for w in self._wildcards if name.startswith(w.id[:-1])), None)

    def _instance(self, name: str) -> ModelSettings | None:
        """Return what a wildcard stands for under a name, built at the first question."""
        wildcard = self._wildcard(name)
        if wildcard is None:
            return None
        if (found := self._live.pop(name, None)) is None:
            if (model := wildcard.named(name)) is None:
                return None
            self._make_room()
            found = model, self._build(model)
            self._by_id.update({endpoint.id: endpoint for endpoint in found[1]})
        self._live[name] = found
        return found[0]

    def _make_room(self) -> None:
        """Let go of what was not asked for longest and is not in use.

        Raises:
            Overloaded: everything is.
        """
        if len(self._live) < MAX_LIVE:
            return
        idle = (
            name for name, (_, used) in self._live.items() if not any(e.in_flight for e in used)
        )
        name = next(idle, None)
        if name is None:
            raise Overloaded(f"{MAX_LIVE} models of wildcards are in use at once; try again")
        for endpoint in self._live.pop(name)[1]:
            del self._by_id[endpoint.id]
            self._closing.append(endpoint)


def _view(endpoint: Endpoint, markup_bp: int | None, now: float) -> EndpointView:
    """Return how an endpoint is now: the last view again where nothing has changed."""
    if markup_bp is None:
        markup_bp = endpoint.markup_bp
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
        context_tokens=settings.window(),
        max_output_tokens=settings.max_output_tokens,
        caps_output=capabilities.caps_output,
        max_image_tokens=settings.image_tokens(),
    )

"""One request from hop 2 to hop 10: its state, its bill, and the record that is kept of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from backends.types import AnswerHead, ChatRequest, ChoiceEnd, Cost, HalfUsage, Usage
from backends.wire.dialect import Dialect
from gateway.auth import Caller
from policies.charging import Bill, Bounds, Delivered, Outcome, bill
from policies.ledger.base import Checkpoint, LineMeta
from policies.types import Candidate, RoutePlan

_NO_META = LineMeta()


@dataclass(slots=True)
class Attempt:
    """One try of one endpoint."""

    endpoint: str
    provider: str
    started: float
    ended: float = 0.0
    outcome: str = ""
    status: int | None = None

    def end(self, outcome: str, now: float, status: int | None = None) -> None:
        """Note how it went."""
        self.outcome, self.ended, self.status = outcome, now, status


@dataclass(slots=True)
class Exchange:
    """Everything that is known about one request while it runs."""

    id: str
    """The generation id, and the id of its reservation."""

    request: ChatRequest
    dialect: Dialect
    """How the client speaks."""

    caller: Caller
    streamed: bool
    created_s: int
    opened: float
    """Monotonic seconds, as all times here but ``created_s``."""

    plan: RoutePlan = field(default_factory=lambda: RoutePlan((), ()))
    hold_nanodollars: int = 0
    reserved: bool = False
    candidate: Candidate | None = None
    """The candidate being tried, or the one that answered."""

    accepted: bool = False
    content_at: float | None = None
    """When the current attempt's first content came."""

    committed_at: float | None = None
    """When the answer was bound to its endpoint: a stream's first content went out, or a
    whole answer was complete."""

    finished_at: float | None = None
    client_gone: bool = False
    delivered: Delivered = field(default_factory=Delivered)
    attempts: list[Attempt] = field(default_factory=list)
    report: Usage | HalfUsage | None = None
    ends: tuple[ChoiceEnd, ...] = ()
    dropped_events: int = 0
    outcome: Outcome = Outcome.FAILED
    bill: Bill | None = None
    meta: LineMeta = _NO_META
    """What journal, record and metrics say beside the money; with the bill."""

    status: int = 200
    error: str | None = None
    charge_broken: bool = True
    """Whether the model that answers charges for answers that broke."""

    @property
    def plan_model(self) -> str:
        """The public name of the model planned first; never the client's own text."""
        return self.plan.candidates[0].view.model if self.plan.candidates else ""

    @property
    def head(self) -> AnswerHead:
        """What every chunk of the answer repeats."""
        assert self.candidate is not None
        view = self.candidate.view
        return AnswerHead(self.id, view.model, view.provider, self.created_s)

    @property
    def bounds(self) -> Bounds:
        """What was held for the candidate that answers."""
        assert self.candidate is not None
        request = self.request
        tools_bytes = 0 if "tools" in self.candidate.dropped else request.tools_bytes
        return Bounds(
            hold_nanodollars=self.hold_nanodollars,
            prompt_tokens=self.candidate.prompt_bound,
            output_tokens=self.candidate.output_bound * request.n,
            content_bytes=request.content_bytes + tools_bytes,
            images=request.images,
            stop_bytes=max((len(text.encode()) for text in request.stop), default=0) * request.n,
            copies=request.n,
        )

    def begin(self, endpoint: str, provider: str, now: float) -> Attempt:
        """Note another attempt. Nothing was delivered yet, whatever the last one reported."""
        attempt = Attempt(endpoint, provider, now)
        self.attempts.append(attempt)
        self.delivered = Delivered()
        self.content_at = None
        return attempt

    def close(self, outcome: Outcome) -> Bill:
        """Fix how it ended and what it costs; once."""
        self.outcome = outcome
        self.bill = self.bill_of(outcome)
        self.meta = self._meta(self.bill)
        return self.bill

    def checkpoint(self) -> Checkpoint | None:
        """Return what it would be charged if this worker died now; None if unreserved."""
        if not self.reserved:
            return None
        sent = self.delivered.events > 0 and self.charge_broken
        now = self.bill_of(Outcome.BROKEN if sent else Outcome.FAILED)
        charge = now.cost.charge_nanodollars
        return Checkpoint(
            self.id, self.caller.account, charge, now.cost_picodollars, self._meta(now)
        )

    def _meta(self, bill: Bill) -> LineMeta:
        if self.candidate is None:
            return LineMeta()
        view = self.candidate.view
        flags = bill.flags + (("upstream_garbage",) if self.dropped_events else ())
        return LineMeta(
            model=view.model,
            endpoint=view.id,
            tokens=tokens_by_kind(bill.usage),
            markup_bp=view.tariff.markup_bp,
            price_version=view.tariff.price_version,
            flags=flags,
        )

    def bill_of(self, outcome: Outcome) -> Bill:
        """Return what it costs if it ends like this now."""
        if self.candidate is None:
            return Bill(Usage(0, 0), Cost(0), 0)
        return bill(outcome, self.report, self.delivered, self.bounds, self.candidate.view.tariff)


def narrowed(request: ChatRequest, candidate: Candidate) -> ChatRequest:
    """Return a request as a candidate gets it: only fields that it honors, bounded."""
    view, params = candidate.view, request.params
    # A window is no limit to send: it holds the prompt as well.
    windowed = view.max_output_tokens is None and candidate.output_bound == view.context_tokens
    bounded = request.max_tokens is not None or view.caps_output or not windowed
    bounded &= request.operation != "embeddings"
    if lacking := view.lacks(params.keys()):
        params = {name: value for name, value in params.items() if name not in lacking}
    return msgspec.structs.replace(
        request, params=params, output_bound=candidate.output_bound if bounded else None
    )


def tokens_by_kind(usage: Usage) -> dict[str, int]:
    """Return the token counts that are known, by kind."""
    kinds = {
        "prompt": usage.prompt_tokens,
        "completion": usage.completion_tokens,
        "cached": usage.cached_tokens,
        "cache_write": usage.cache_write_tokens,
        "reasoning": usage.reasoning_tokens,
    }
    return {kind: count for kind, count in kinds.items() if count is not None}

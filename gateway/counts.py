"""Counts prompts exactly where that decides something (design decision 11).

An endpoint's prompts are counted by the tokenizer that it names, else by its upstream where that
offers it. Where nobody can say, the bound by bytes stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from backends.base import Counting
from backends.types import ChatRequest
from gateway.endpoints import Endpoint, EndpointTable
from gateway.errors import NoRoute
from gateway.exchange import Exchange, narrowed
from gateway.tokenizer.wire import Question
from gateway.tokens import (
    NO_TEXT,
    AtUpstream,
    Tokens,
    least_text,
    plain_text,
    slack_tokens,
    whole_text,
)
from policies.charging import Outcome
from policies.feasible import too_long
from policies.planner import overhead_tokens, recounted
from policies.types import Candidate

WINDOW_S: Final = 2.0
"""How long counts may take that only spare an upstream a refusal."""

CREDIT_S: Final = 2.0
"""How long counts may take that may save a request from a 402, over all endpoints."""

ANSWER_S: Final = 2.0
"""How long the count of an answer may keep its bill, and the end of a stream, waiting."""

SHORTENING: Final = frozenset({"responses.truncation"})
"""Fields by which a prompt is made to fit at the upstream; a caller's own fields may do it, too."""


class PromptCounts:
    """What is known of prompts beyond their bytes."""

    def __init__(self, tokens: Tokens, table: EndpointTable) -> None:
        """Keep who counts, and for which endpoints."""
        self._tokens = tokens
        self._table = table

    async def of_texts(self, account: str, endpoint: Endpoint, request: ChatRequest) -> int | None:
        """Return the count of a request's texts and tools; None where nobody says it.

        An upstream's own has what its template adds, too.
        """
        if request.required & NO_TEXT:
            return None
        if endpoint.tokenizer:
            return await self._tokens.count(account, endpoint.tokenizer, plain_text(request))
        if isinstance(endpoint.backend, Counting):
            return await self._tokens.count_at(account, endpoint.backend, request)
        return None

    async def fit_credit(self, exchange: Exchange, available: int) -> bool:
        """Hold candidates by count where that may make them affordable; False if for none.

        It may where the prompt has a price there and the output alone fits the credit. What is not
        known in time stays as it is.
        """
        request, plan = exchange.request, exchange.plan
        if request.required & NO_TEXT:
            return False
        overhead = overhead_tokens(request.required)
        wanted = [
            candidate
            for candidate in plan.candidates
            if recounted(candidate, overhead, request.n).hold_nanodollars <= available
            and available < candidate.hold_nanodollars
        ]
        text = whole_text if request.operation == "chat" else None
        counts = await self._counted(exchange, wanted, text, CREDIT_S)
        candidates = tuple(
            recounted(candidate, counts[candidate.view.id] + overhead, request.n)
            if candidate.view.id in counts
            else candidate
            for candidate in plan.candidates
        )
        exchange.plan = msgspec.structs.replace(plan, candidates=candidates)
        return bool(counts)

    async def fit_window(self, exchange: Exchange) -> None:
        """Leave out candidates whose window surely has no room for prompt and output.

        Sure is the least that the model gets, by a tokenizer, and an upstream's own count. Where
        nobody says it in time a candidate stays, and its upstream decides.

        Raises:
            NoRoute: no candidate is left.
        """
        request, plan = exchange.request, exchange.plan
        if request.required & SHORTENING:
            return
        options = request.provider.options
        tight = [c for c in plan.candidates if c.tight and not options.get(c.view.provider)]
        counts = await self._counted(exchange, tight, least_text, WINDOW_S)
        for name in counts:
            if self._table.endpoint(name).tokenizer:
                counts[name] = max(0, counts[name] - slack_tokens(request))
        full = {
            candidate.view.id: rejection
            for candidate in tight
            if (count := counts.get(candidate.view.id)) is not None
            and (rejection := too_long(candidate.view, count, request.max_tokens))
        }
        kept = tuple(c for c in plan.candidates if c.view.id not in full)
        plan = plan.keeping(kept, lambda candidate: full[candidate.view.id])
        if not kept:
            raise NoRoute(plan.rejections)
        exchange.plan = plan

    async def of_answer(self, exchange: Exchange, outcome: Outcome) -> None:
        """Let the endpoint's tokenizer count what no report and no wire has counted.

        For answers whose text was kept. Without its count in time bytes / 4 stand in.
        """
        delivered, candidate = exchange.delivered, exchange.candidate
        if delivered.texts is None or delivered.running is not None or candidate is None:
            return
        if exchange.bill is not None or "own_count" not in exchange.bill_of(outcome).flags:
            return
        name = self._table.endpoint(candidate.view.id).tokenizer
        asked = {
            "prompt": Question(name, plain_text(narrowed(exchange.request, candidate))),
            "answer": Question(name, "".join(delivered.texts)),
        }
        counts = await self._tokens.at_once(exchange.caller.account, asked, ANSWER_S)
        if len(counts) == len(asked):
            delivered.counted(counts["prompt"], counts["answer"])

    async def _counted(
        self,
        exchange: Exchange,
        candidates: Iterable[Candidate],
        text: Callable[[ChatRequest], str] | None,
        within_s: float,
    ) -> dict[str, int]:
        """Return the counts that can be had in time, by endpoint; each tokenizer is asked once.

        Args:
            exchange: whose prompt it is.
            candidates: where it may go.
            text: what tokenizers are to count; None where no text would do.
            within_s: how long all of it may take.
        """
        request = exchange.request
        texts_only = not request.required & NO_TEXT
        asked: dict[str, Question | AtUpstream] = {}
        names: dict[str, str] = {}  # in ``asked``, by endpoint
        for candidate in candidates:
            endpoint = self._table.endpoint(candidate.view.id)
            if encoding := endpoint.tokenizer:
                if text is not None:
                    names[endpoint.id] = encoding
                    if encoding not in asked:
                        asked[encoding] = Question(encoding, text(request))
            elif texts_only and isinstance(endpoint.backend, Counting):
                names[endpoint.id] = endpoint.id
                asked[endpoint.id] = AtUpstream(endpoint.backend, narrowed(request, candidate))
        if not asked:
            return {}
        counts = await self._tokens.at_once(exchange.caller.account, asked, within_s)
        return {endpoint: counts[name] for endpoint, name in names.items() if name in counts}

"""Who waits, who runs, and what the next step computes.

Every running sequence is some tokens behind; a step takes those whose turn it is and gives each as
many tokens as the chunk cap allows. That one rule covers reading a prompt in pieces and going on
token by token. Nothing here knows about tensors, text or threads.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from local_engine.errors import RequestRefused
from local_engine.types import Request


class Sequence:
    """A request and how far it has come.

    Attributes:
        request: What was asked.
        tokens: The prompt and everything sampled since.
        num_computed: How many of them the model has seen.
    """

    __slots__ = ("num_computed", "request", "tokens")

    def __init__(self, request: Request) -> None:
        """Start with a prompt of which nothing is computed."""
        self.request = request
        self.tokens = list(request.prompt_tokens)
        self.num_computed = 0

    @property
    def completion_tokens(self) -> int:
        """Tokens sampled so far."""
        return len(self.tokens) - len(self.request.prompt_tokens)


@dataclass(frozen=True, slots=True)
class Work:
    """A sequence's share of one step: its next `count` tokens that the model has not seen."""

    sequence: Sequence
    count: int

    @property
    def token_ids(self) -> list[int]:
        """The tokens to compute."""
        start = self.sequence.num_computed
        return self.sequence.tokens[start : start + self.count]

    @property
    def catches_up(self) -> bool:
        """Whether the model has then seen all tokens, so that the next one can be sampled."""
        return self.sequence.num_computed + self.count == len(self.sequence.tokens)


@dataclass(frozen=True, slots=True)
class Limits:
    """The scheduler's bounds.

    Attributes:
        max_running_requests: How many requests hold a cache at once.
        max_queued_requests: How many more may wait for that.
        max_batch_sequences: How many of the running ones a step computes.
        max_chunk_tokens: How many tokens of one prompt a step computes, so that a long one does not
            hold up the rest.
    """

    max_running_requests: int = 16
    max_queued_requests: int = 64
    max_batch_sequences: int = 1
    max_chunk_tokens: int = 128

    @property
    def max_held_requests(self) -> int:
        """How many requests may be in the engine, waiting and running."""
        return self.max_running_requests + self.max_queued_requests


class Scheduler:
    """A bounded queue and a bounded running set, served in turn. Not for use by several threads."""

    def __init__(self, limits: Limits) -> None:
        """Start empty."""
        self.limits = limits
        self._waiting: OrderedDict[str, Sequence] = OrderedDict()
        self._running: OrderedDict[str, Sequence] = OrderedDict()

    @property
    def num_waiting(self) -> int:
        """Requests in the queue; may be read from any thread."""
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        """Requests that hold a cache; may be read from any thread."""
        return len(self._running)

    def __contains__(self, request_id: str) -> bool:
        """Say whether a request waits or runs."""
        return request_id in self._waiting or request_id in self._running

    def __iter__(self) -> Iterator[Sequence]:
        """Go through all sequences held, running ones first; a snapshot."""
        return iter([*self._running.values(), *self._waiting.values()])

    def add(self, request: Request) -> None:
        """Put a request at the end of the queue.

        Raises:
            RequestRefused: The queue is full (429).
            ValueError: A request of this id is here already; ids are the caller's to keep apart.
        """
        if request.request_id in self:
            raise ValueError(f"request {request.request_id!r} is already here")
        if self.num_waiting + self.num_running >= self.limits.max_held_requests:
            raise RequestRefused("the engine's queue is full", code="queue_full", status=429)
        self._waiting[request.request_id] = Sequence(request)

    def remove(self, request_id: str) -> Sequence | None:
        """Forget a request wherever it is; its place is free at once. None if it was not here."""
        return self._running.pop(request_id, None) or self._waiting.pop(request_id, None)

    def expire(self, now_s: float) -> list[Sequence]:
        """Remove and return the queued requests whose deadline has come; running ones go on."""
        late = [
            sequence
            for sequence in self._waiting.values()
            if sequence.request.deadline_s is not None and sequence.request.deadline_s <= now_s
        ]
        for sequence in late:
            del self._waiting[sequence.request.request_id]
        return late

    def admit(self) -> list[Sequence]:
        """Move queued requests, oldest first, into the free running places; returns them."""
        admitted = []
        while self._waiting and self.num_running < self.limits.max_running_requests:
            request_id, sequence = self._waiting.popitem(last=False)
            self._running[request_id] = sequence
            admitted.append(sequence)
        return admitted

    def schedule(self) -> list[Work]:
        """Choose the next step's work, and move those chosen to the end of the turn.

        Empty only when nothing runs.
        """
        turn = list(self._running)[: self.limits.max_batch_sequences]
        batch = []
        for request_id in turn:
            self._running.move_to_end(request_id)
            sequence = self._running[request_id]
            behind = len(sequence.tokens) - sequence.num_computed
            batch.append(Work(sequence, min(behind, self.limits.max_chunk_tokens)))
        return batch

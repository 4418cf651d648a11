"""The step loop: commands in, one step of the model, outputs out.

A plain synchronous class. One thread calls `run` (or a test calls `step`); every other thread
reaches it through `submit`, `abort` and `stop`, which only put a command into its inbox.
"""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from local_engine.errors import EngineBroken, RequestRefused
from local_engine.scheduler import Scheduler, Work
from local_engine.text import Piece
from local_engine.types import End, Failure, Finish, Output, Request, SamplingParams

if TYPE_CHECKING:
    import torch

    from local_engine.runner import Runner

_logger = logging.getLogger(__name__)


class TokenSampler(Protocol):
    """What the engine wants of a sampler."""

    def sample(self, logits: torch.Tensor, params: SamplingParams, position: int) -> int:
        """Return the token that follows, given how many were sampled before."""


class Text(Protocol):
    """What the engine wants of a request's text."""

    def push(self, token_id: int) -> Piece:
        """Take a token, return what may be shown."""

    def flush(self) -> Piece:
        """Return what was held, at the end."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What an engine is made of, beside its scheduler.

    Attributes:
        runner: Computes logits.
        sampler: Chooses tokens.
        make_text: Gives each request its text, from its stop strings.
        eos_token_ids: The tokens that end an answer; they are neither shown nor counted.
        clock: Seconds, never going back; deadlines and the heartbeat are read on it.
        max_failed_steps: How many forwards in a row may fail before the engine gives up.
    """

    runner: Runner
    sampler: TokenSampler
    make_text: Callable[[tuple[str, ...]], Text]
    eos_token_ids: frozenset[int]
    clock: Callable[[], float] = time.monotonic
    max_failed_steps: int = 3


@dataclass(frozen=True, slots=True)
class _Add:
    request: Request


@dataclass(frozen=True, slots=True)
class _Abort:
    request_id: str


@dataclass(frozen=True, slots=True)
class _Stop:
    pass


_Command = _Add | _Abort | _Stop


class Engine:
    """Takes requests and steps them, each to exactly one end."""

    def __init__(self, scheduler: Scheduler, parts: Parts) -> None:
        """Start with nothing to do."""
        self._scheduler = scheduler
        self._parts = parts
        self._inbox: queue.SimpleQueue[_Command] = queue.SimpleQueue()
        self._texts: dict[str, Text] = {}
        self._outputs: list[Output] = []
        self._failed_steps = 0
        self._stopping = False
        self.heartbeat_s = parts.clock()

    # Called from any thread.

    def submit(self, request: Request) -> None:
        """Ask for a request to be taken up; its outputs say what became of it."""
        self._inbox.put(_Add(request))

    def abort(self, request_id: str) -> None:
        """Ask for a request to end; takes effect within the step under way.

        A request that is unknown or has ended is left alone.
        """
        self._inbox.put(_Abort(request_id))

    def stop(self) -> None:
        """Ask `run` to return, after ending every request it still holds."""
        self._inbox.put(_Stop())

    @property
    def num_waiting(self) -> int:
        """Requests in the queue."""
        return self._scheduler.num_waiting

    @property
    def num_running(self) -> int:
        """Requests being computed."""
        return self._scheduler.num_running

    # Called from the engine's thread.

    def run(self, deliver: Callable[[list[Output]], None]) -> None:
        """Step until told to stop; blocks, without spinning, while there is nothing to do.

        Args:
            deliver: Called once after each step that has outputs; must not block.

        Raises:
            EngineBroken: Too many forwards failed in a row. Every request has had its end before.
        """
        last = Failure(500, "engine_failed", "the engine failed and is being restarted")
        try:
            while not self._stopping:
                if not self._texts and self._inbox.empty():
                    self._obey(self._inbox.get())
                    self._beat()
                outputs = self.step()
                if outputs:
                    deliver(outputs)
            last = Failure(503, "shutting_down", "the engine is shutting down")
        finally:
            self._drain_inbox()
            for request_id in list(self._texts):
                self._end(request_id, last)
            deliver(self._take_outputs())

    def step(self) -> list[Output]:
        """Do one round: commands, deadlines, one forward, its tokens; returns what came of it.

        Raises:
            EngineBroken: This forward was the last of too many in a row that failed.
        """
        self._drain_inbox()
        for sequence in self._scheduler.expire(self._parts.clock()):
            self._end(
                sequence.request.request_id,
                Failure(504, "deadline_exceeded", "the deadline came while the request was queued"),
            )
        for sequence in self._scheduler.admit():
            self._outputs.append(Output(sequence.request.request_id, "", 0))
        batch = self._scheduler.schedule()
        if batch:
            self._compute(batch)
        self._beat()
        return self._take_outputs()

    def _compute(self, batch: Sequence[Work]) -> None:
        try:
            rows = self._parts.runner.forward(batch)
        except Exception as error:  # noqa: BLE001  whatever a model raises must not end the others
            self._fail_batch(batch, error)
            return
        self._failed_steps = 0
        # A caller that left during the forward gets no more tokens.
        self._drain_inbox()
        for work, logits in zip(batch, rows, strict=True):
            sequence = work.sequence
            if sequence.request.request_id not in self._scheduler:
                continue
            catches_up = work.catches_up
            sequence.num_computed += work.count
            if not catches_up:
                continue
            try:
                self._extend(work, logits)
            except Exception:
                _logger.exception("sampling or decoding failed for one request")
                self._end(
                    sequence.request.request_id,
                    Failure(500, "request_failed", "the engine failed on this request"),
                )

    def _extend(self, work: Work, logits: torch.Tensor) -> None:
        """Sample the sequence's next token, and end it where that ends it."""
        sequence = work.sequence
        request_id, params = sequence.request.request_id, sequence.request.sampling
        token_id = self._parts.sampler.sample(logits, params, sequence.completion_tokens)
        if token_id in self._parts.eos_token_ids:
            self._finish(request_id, self._texts[request_id].flush(), Finish("stop"))
            return
        sequence.tokens.append(token_id)
        piece = self._texts[request_id].push(token_id)
        if piece.stopped:
            self._finish(request_id, piece, Finish("stop"))
        elif sequence.completion_tokens >= params.max_tokens:
            tail = self._texts[request_id].flush()
            whole = Piece(piece.text + tail.text, tail.stopped)
            self._finish(request_id, whole, Finish("stop" if tail.stopped else "length"))
        else:
            self._outputs.append(Output(request_id, piece.text, sequence.completion_tokens))

    def _fail_batch(self, batch: Sequence[Work], error: Exception) -> None:
        self._failed_steps += 1
        _logger.error("the forward failed (%d in a row)", self._failed_steps, exc_info=error)
        for work in batch:
            self._end(
                work.sequence.request.request_id,
                Failure(500, "forward_failed", "the model failed on this request"),
            )
        if self._failed_steps >= self._parts.max_failed_steps:
            raise EngineBroken(f"{self._failed_steps} forwards in a row failed") from error

    def _finish(self, request_id: str, piece: Piece, finish: Finish) -> None:
        self._end(request_id, finish, piece.text)

    def _end(self, request_id: str, end: End, text: str = "") -> None:
        """Give a request its one end and free all that it holds."""
        sequence = self._scheduler.remove(request_id)
        completion_tokens = sequence.completion_tokens if sequence else 0
        self._texts.pop(request_id, None)
        self._parts.runner.release(request_id)
        self._outputs.append(Output(request_id, text, completion_tokens, end))

    def _drain_inbox(self) -> None:
        while True:
            try:
                command = self._inbox.get_nowait()
            except queue.Empty:
                return
            self._obey(command)

    def _obey(self, command: _Command) -> None:
        match command:
            case _Add(request):
                self._add(request)
            case _Abort(request_id):
                if request_id in self._texts:
                    self._end(request_id, Failure(499, "aborted", "the caller left"))
            case _Stop():
                self._stopping = True

    def _add(self, request: Request) -> None:
        try:
            text = self._parts.make_text(request.sampling.stop)
            self._scheduler.add(request)
        except RequestRefused as refused:
            failure = Failure(refused.status, refused.code, refused.message, retry_after_s=1)
            self._outputs.append(Output(request.request_id, "", 0, failure))
        else:
            self._texts[request.request_id] = text

    def _beat(self) -> None:
        self.heartbeat_s = self._parts.clock()

    def _take_outputs(self) -> list[Output]:
        outputs, self._outputs = self._outputs, []
        return outputs

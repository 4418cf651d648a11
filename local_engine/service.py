"""The engine's thread and the event loop, joined.

Everything but the thread's own function runs on the event loop. A step's outputs cross over in one
call; commands go the other way through the engine's inbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial

from local_engine.engine import Engine
from local_engine.errors import RequestRefused
from local_engine.metrics import EngineMetrics
from local_engine.params import ChatParams
from local_engine.prompt import PromptReader
from local_engine.turns import Turns
from local_engine.types import Failure, Output, Request

_logger = logging.getLogger(__name__)
_MAX_RETRY_AFTER_S = 60
_TOKENIZER_THREADS = 4


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and what the request's body does not say.

    Attributes:
        account: Whose request it is.
        priority: How urgent; lower is sooner.
        deadline_s: Until when it is worth starting, on the engine's clock.
        max_output: The most tokens to answer with; unlike the body's limit it need not fit the
            window.
    """

    account: str = ""
    priority: int = 0
    deadline_s: float | None = None
    max_output: int | None = None


@dataclass(frozen=True, slots=True)
class ServiceParts:
    """What a service joins.

    Attributes:
        engine: Not yet running.
        prompts: Reads messages, on several threads at once.
        metrics: Where to count.
        max_held_requests: How many requests may be inside, those still being tokenized included.
        clock: The engine's.
        draw_seed: Gives a seed to a request that names none.
    """

    engine: Engine
    prompts: PromptReader
    metrics: EngineMetrics
    max_held_requests: int
    clock: Callable[[], float]
    draw_seed: Callable[[], int]


class Answer:
    """One request's outputs. Those that were not fetched in time are merged, so nothing piles up.

    Attributes:
        request: What the engine was given.
    """

    def __init__(self, request: Request, arrived_s: float) -> None:
        """Start without an output."""
        self.request = request
        self.arrived_s = arrived_s
        self.last_token_s: float | None = None
        self.completion_tokens = 0
        self._pending: Output | None = None
        self._ready = asyncio.Event()

    def put(self, output: Output) -> None:
        """Add an output behind those not yet fetched."""
        self._pending = self._pending.then(output) if self._pending else output
        self._ready.set()

    async def next(self) -> Output:
        """Wait for and return all since the last call; nothing more comes after an end."""
        await self._ready.wait()
        self._ready.clear()
        output, self._pending = self._pending, None
        if output is None:
            raise RuntimeError("woken without an output")
        return output


class Service:
    """Lets many coroutines use one engine."""

    def __init__(self, parts: ServiceParts) -> None:
        """Join the parts; `start` sets them going."""
        self._parts = parts
        self._answers: dict[str, Answer] = {}
        self._num_held = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._busy_since_s = parts.clock()
        self._last_end_s = 0.0
        self._seconds_per_end = 1.0
        self._tokenizing = Turns(_TOKENIZER_THREADS, "tokenize")
        self._thread: threading.Thread | None = None
        parts.metrics.watch(
            "num_requests_running", "Requests computed", lambda: parts.engine.num_running
        )
        parts.metrics.watch(
            "num_requests_waiting", "Requests queued", lambda: parts.engine.num_waiting
        )

    def start(self, on_broken: Callable[[], None]) -> None:
        """Start the engine's thread.

        Args:
            on_broken: Called on the event loop if the engine gives up; every request has had its
                end then.
        """
        loop = asyncio.get_running_loop()

        def deliver(outputs: list[Output]) -> None:
            loop.call_soon_threadsafe(self._deliver, outputs)

        def work() -> None:
            try:
                self._parts.engine.run(deliver)
            except Exception:
                _logger.exception("the engine gave up")
                loop.call_soon_threadsafe(on_broken)

        self._thread = threading.Thread(target=work, name="engine", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """End what is still held, with an error each, and wait for the engine's thread."""
        self._parts.engine.stop()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
        self._tokenizing.close()

    async def wait_idle(self) -> None:
        """Wait until no request is held."""
        await self._idle.wait()

    @property
    def num_held(self) -> int:
        """Requests inside, from being tokenized to having ended."""
        return self._num_held

    def is_stalled(self, stale_s: float) -> bool:
        """Say whether the engine has work and has not finished a step for `stale_s` seconds."""
        last_s = max(self._parts.engine.heartbeat_s, self._busy_since_s)
        return bool(self._answers) and self._parts.clock() - last_s > stale_s

    @contextlib.asynccontextmanager
    async def open(self, chat: ChatParams, caller: Caller) -> AsyncIterator[Answer]:
        """Borrow a place in the engine for one request; leaving early aborts it within a step.

        Raises:
            RequestRefused: 429 when full; 400 when the messages do not fit the model.
        """
        arrived_s = self._parts.clock()
        self._take_place()
        try:
            request = await self._make_request(chat, caller)
        except BaseException:
            self._free_place()
            raise
        answer = Answer(request, arrived_s)
        if not self._answers:
            self._busy_since_s = self._parts.clock()
        self._answers[request.request_id] = answer
        self._parts.engine.submit(request)
        try:
            yield answer
        finally:
            # The place is freed when the engine says that the request has ended.
            if request.request_id in self._answers:
                self._parts.engine.abort(request.request_id)

    async def _make_request(self, chat: ChatParams, caller: Caller) -> Request:
        prompts = self._parts.prompts
        prompts.check_size(chat.messages)
        # The places taken bound the queue.
        prompt_tokens = await self._tokenizing.run(
            caller.account, partial(prompts.read, chat.messages)
        )
        sampling = prompts.fit(
            chat, len(prompt_tokens), self._parts.draw_seed, max_output=caller.max_output
        )
        return Request(
            request_id=uuid.uuid4().hex,
            prompt_tokens=prompt_tokens,
            sampling=sampling,
            account=caller.account,
            priority=caller.priority,
            deadline_s=caller.deadline_s,
        )

    def _take_place(self) -> None:
        if self._num_held >= self._parts.max_held_requests:
            raise RequestRefused(
                "the engine's queue is full; try again later",
                code="queue_full",
                status=429,
                retry_after_s=min(max(1, math.ceil(self._seconds_per_end)), _MAX_RETRY_AFTER_S),
            )
        self._num_held += 1
        self._idle.clear()

    def _free_place(self) -> None:
        self._num_held -= 1
        if self._num_held == 0:
            self._idle.set()

    def _deliver(self, outputs: list[Output]) -> None:
        now_s = self._parts.clock()
        for output in outputs:
            answer = self._answers[output.request_id]
            self._count(answer, output, now_s)
            answer.put(output)
            if output.end is not None:
                del self._answers[output.request_id]
                self._free_place()

    def _count(self, answer: Answer, output: Output, now_s: float) -> None:
        metrics = self._parts.metrics
        new_tokens = output.completion_tokens - answer.completion_tokens
        answer.completion_tokens = output.completion_tokens
        if new_tokens:
            metrics.generation_tokens.inc(new_tokens)
            if answer.last_token_s is None:
                metrics.first_token_s.observe(now_s - answer.arrived_s)
            else:
                metrics.per_token_s.observe((now_s - answer.last_token_s) / new_tokens)
            answer.last_token_s = now_s
        if output.end is None:
            if not output.completion_tokens and not output.text:
                metrics.prompt_tokens.inc(len(answer.request.prompt_tokens))
            return
        if isinstance(output.end, Failure):
            metrics.count_finished("abort" if output.end.code == "aborted" else "error")
        else:
            metrics.count_finished(output.end.reason)
        metrics.request_s.observe(now_s - answer.arrived_s)
        # How often a place becomes free, for Retry-After.
        gap_s = now_s - max(self._last_end_s, self._busy_since_s)
        self._seconds_per_end += 0.2 * (gap_s - self._seconds_per_end)
        self._last_end_s = now_s

"""The step loop: every request comes to exactly one end, and one that fails fails alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local_engine.engine import Engine
from local_engine.errors import EngineBroken
from local_engine.scheduler import Limits, Work
from local_engine.types import Output, Request

Make = Callable[..., Any]


def test_an_answer_is_the_script(
    make_scripted: Make, make_engine: Make, make_request: Make, run_all: Make
) -> None:
    """Text, count and reason of an answer that the model ends; the end token is not counted."""
    engine = make_engine(make_scripted([65, 66, 67]))
    told = run_all(engine, make_request(request_id="a"))["a"]
    assert (len(told.text), told.completion_tokens, told.reason) == (3, 3, "stop")


def test_the_first_output_says_that_the_prompt_is_being_read(
    make_scripted: Make, make_engine: Make, make_request: Make
) -> None:
    """It has no text yet and comes when the request is taken up."""
    engine = make_engine(make_scripted([65]))
    engine.submit(make_request(request_id="a"))
    assert engine.step()[0] == Output("a", "", 0)


def test_the_token_limit_ends_with_length(
    make_scripted: Make, make_engine: Make, make_request: Make, run_all: Make
) -> None:
    """Exactly as many tokens as asked for."""
    engine = make_engine(make_scripted([65] * 50))
    told = run_all(engine, make_request(request_id="a", max_tokens=5))["a"]
    assert (told.completion_tokens, told.reason) == (5, "length")


def test_a_stop_string_ends_with_stop_and_is_not_shown(
    make_scripted: Make, make_engine: Make, make_request: Make, run_all: Make, byte_tokenizer: Any
) -> None:
    """Tokens up to the one that completed it are counted."""
    engine = make_engine(make_scripted(byte_tokenizer.encode("one, two, three").ids))
    told = run_all(engine, make_request(request_id="a", stop=("two",), max_tokens=40))["a"]
    assert (told.text, told.completion_tokens, told.reason) == ("one, ", 8, "stop")


def test_an_abort_frees_its_place_within_one_step(
    make_scripted: Make, make_engine: Make, make_request: Make, gather_outputs: Make
) -> None:
    """The next request runs at once, and what the aborted one held is released."""
    runner = make_scripted([65] * 100)
    engine = make_engine(runner, Limits(max_running_requests=1))
    engine.submit(make_request(request_id="a", max_tokens=90))
    engine.submit(make_request(request_id="b", max_tokens=90))
    told = gather_outputs({}, engine.step())
    assert runner.held == {"a"}
    engine.abort("a")
    gather_outputs(told, engine.step())
    assert told["a"].reason == "aborted"
    assert runner.held == {"b"}
    assert (engine.num_running, engine.num_waiting) == (1, 0)


def test_an_abort_during_the_forward_gets_no_more_tokens(
    make_scripted: Make, make_engine: Make, make_request: Make, gather_outputs: Make
) -> None:
    """Commands are looked at again between the forward and its tokens."""
    runner = make_scripted([65] * 100)
    engine = make_engine(runner)
    runner.fail = lambda batch: engine.abort("a")
    engine.submit(make_request(request_id="a"))
    told = gather_outputs({}, engine.step())["a"]
    assert (told.reason, told.completion_tokens, runner.held) == ("aborted", 0, set())


def test_an_abort_of_an_unknown_request_is_nothing(
    make_scripted: Make, make_engine: Make, make_request: Make, run_all: Make
) -> None:
    """Nor of one that has ended."""
    engine = make_engine(make_scripted([65]))
    run_all(engine, make_request(request_id="a"))
    engine.abort("a")
    engine.abort("nobody")
    assert engine.step() == []


def test_a_deadline_in_the_queue_is_an_error_and_no_finish(
    make_scripted: Make, make_engine: Make, make_request: Make, gather_outputs: Make
) -> None:
    """It is never reported as length."""
    now = [10.0]
    engine = make_engine(
        make_scripted([65] * 9), Limits(max_running_requests=1), clock=lambda: now[0]
    )
    engine.submit(make_request(request_id="a", deadline_s=11.0, max_tokens=9))
    engine.submit(make_request(request_id="b", deadline_s=11.0))
    told = gather_outputs({}, engine.step())
    assert "b" not in told
    now[0] = 11.0
    gather_outputs(told, engine.step())
    assert (told["b"].reason, told["b"].ends[0].status) == ("deadline_exceeded", 504)
    assert not told["a"].ends


def test_a_failed_forward_ends_only_its_request(
    make_scripted: Make, make_engine: Make, make_request: Make, run_all: Make
) -> None:
    """The others go on to their own ends."""
    runner = make_scripted([65] * 20)

    def fail(batch: Sequence[Work]) -> None:
        if batch[0].sequence.request.request_id == "bad":
            raise RuntimeError("a fault of the model")

    runner.fail = fail
    requests = [make_request(request_id=name, max_tokens=4) for name in ("a", "bad", "b")]
    told = run_all(make_engine(runner), *requests)
    assert [told[r.request_id].reason for r in requests] == ["length", "forward_failed", "length"]
    assert runner.held == set()


def test_a_failure_in_one_request_s_part_ends_only_that_one(
    make_scripted: Make, make_engine: Make, make_request: Make, run_all: Make
) -> None:
    """Here its text cannot be made; the forward was fine."""

    class BadText:
        def push(self, token_id: int) -> None:
            raise RuntimeError("a fault of the text")

        def flush(self) -> None:
            raise AssertionError("not reached")

    engine = make_engine(make_scripted([65] * 20))
    good = engine._parts.make_text
    object.__setattr__(
        engine._parts, "make_text", lambda stop: BadText() if "bad" in stop else good(stop)
    )
    told = run_all(
        engine, make_request(request_id="a"), make_request(request_id="x", stop=("bad",))
    )
    assert (told["a"].reason, told["x"].reason) == ("length", "request_failed")


def test_repeated_failures_end_the_engine_after_ending_every_request(
    make_scripted: Make, make_engine: Make, make_request: Make, gather_outputs: Make
) -> None:
    """Three in a row; what waits is told too."""

    def fail(batch: Sequence[Work]) -> None:
        raise RuntimeError("a fault of the device")

    engine = make_engine(make_scripted(fail=fail))
    for name in "abcde":
        engine.submit(make_request(request_id=name))
    told: dict[str, Any] = {}
    with pytest.raises(EngineBroken):
        engine.run(lambda outputs: gather_outputs(told, outputs))
    reasons = [told[name].reason for name in "abcde"]
    assert reasons == ["forward_failed"] * 3 + ["engine_failed"] * 2


def test_a_good_forward_resets_the_count_of_failures(
    make_scripted: Make, make_engine: Make, make_request: Make, run_all: Make
) -> None:
    """Only failures in a row count."""
    runner = make_scripted([65])

    def fail(batch: Sequence[Work]) -> None:
        if batch[0].sequence.request.request_id.startswith("bad"):
            raise RuntimeError("a fault of the model")

    runner.fail = fail
    engine = make_engine(runner)
    for name in ("bad1", "bad2", "good", "bad3", "bad4"):
        run_all(engine, make_request(request_id=name))


def test_the_queue_s_bound_is_told_to_the_request(
    make_scripted: Make, make_engine: Make, make_request: Make, gather_outputs: Make
) -> None:
    """The one too many ends at once, with a time to come back."""
    limits = Limits(max_running_requests=1, max_queued_requests=1)
    engine = make_engine(make_scripted([65] * 9), limits)
    for name in "abc":
        engine.submit(make_request(request_id=name))
    [end] = gather_outputs({}, engine.step())["c"].ends
    assert (end.status, end.code, end.retry_after_s) == (429, "queue_full", 1)


def test_an_idle_engine_blocks_until_it_is_asked(
    make_scripted: Make, make_engine: Make, make_request: Make
) -> None:
    """The thread steps only for commands, and ends what it holds when stopped."""
    runner = make_scripted([65, 66])
    engine = make_engine(runner)
    outputs: list[Output] = []
    ended = threading.Event()

    def deliver(batch: list[Output]) -> None:
        outputs.extend(batch)
        if batch and batch[-1].end is not None:
            ended.set()

    thread = threading.Thread(target=engine.run, args=(deliver,))
    thread.start()
    engine.submit(make_request(request_id="a"))
    assert ended.wait(30)
    engine.stop()
    thread.join(30)
    assert not thread.is_alive()
    assert len(runner.forwards) == 3


_MOVES = st.lists(
    st.tuples(
        st.sampled_from(["add", "add", "abort", "step", "step"]),
        st.integers(0, 12),
        st.integers(1, 6),
    ),
    max_size=40,
)


@settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(case=st.tuples(_MOVES, st.integers(1, 3), st.sets(st.integers(0, 12), max_size=2)))
def test_every_request_ends_exactly_once_whatever_happens(
    make_scripted: Make,
    make_engine: Make,
    make_request: Make,
    gather_outputs: Make,
    case: tuple[list[tuple[str, int, int]], int, set[int]],
) -> None:
    """Adds, aborts, full queues and failing forwards in any order; at the end nothing is held."""
    moves, batch, failing = case

    def fail(work: Sequence[Work]) -> None:
        if any(int(w.sequence.request.request_id) in failing for w in work):
            raise RuntimeError("a fault of the model")

    runner = make_scripted([65, 66, 67, 68], fail=fail)
    limits = Limits(
        max_running_requests=3,
        max_queued_requests=2,
        max_batch_sequences=batch,
        max_chunk_tokens=2,
    )
    engine: Engine = make_engine(runner, limits, max_failed_steps=1000)
    told: dict[str, Any] = {}
    added: set[str] = set()
    for move, number, size in moves:
        if move == "add" and str(number) not in added:
            added.add(str(number))
            request: Request = make_request(range(size), str(number), max_tokens=size)
            engine.submit(request)
        elif move == "abort":
            engine.abort(str(number))
        elif move == "step":
            gather_outputs(told, engine.step())
    for _ in range(200):
        gather_outputs(told, engine.step())
    assert told.keys() == added
    assert all(len(mine.ends) == 1 for mine in told.values())
    assert runner.held == set()
    assert (engine.num_running, engine.num_waiting) == (0, 0)

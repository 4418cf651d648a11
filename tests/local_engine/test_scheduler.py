"""Who waits, who runs, and whose turn it is."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from local_engine.errors import RequestRefused
from local_engine.scheduler import Limits, Scheduler, Work
from local_engine.types import Request

MakeRequest = Callable[..., Request]


def compute(batch: list[Work]) -> list[tuple[str, int]]:
    """Pretend to run a batch; say which sequence got how many tokens."""
    done = []
    for work in batch:
        catches_up = work.catches_up
        work.sequence.num_computed += work.count
        if catches_up:
            work.sequence.tokens.append(0)
        done.append((work.sequence.request.request_id, work.count))
    return done


def test_a_full_queue_refuses(make_request: MakeRequest) -> None:
    """One running and two queued are all that fit."""
    scheduler = Scheduler(Limits(max_running_requests=1, max_queued_requests=2))
    for _ in range(3):
        scheduler.add(make_request())
    with pytest.raises(RequestRefused) as caught:
        scheduler.add(make_request())
    assert (caught.value.status, caught.value.code) == (429, "queue_full")


def test_queued_requests_run_in_order_of_arrival(make_request: MakeRequest) -> None:
    """A place that becomes free goes to the oldest."""
    scheduler = Scheduler(Limits(max_running_requests=2))
    for name in "abc":
        scheduler.add(make_request(request_id=name))
    assert [s.request.request_id for s in scheduler.admit()] == ["a", "b"]
    assert scheduler.admit() == []
    scheduler.remove("a")
    assert [s.request.request_id for s in scheduler.admit()] == ["c"]
    assert (scheduler.num_running, scheduler.num_waiting) == (2, 0)


def test_a_long_prompt_does_not_hold_up_the_others(make_request: MakeRequest) -> None:
    """Between two pieces of it, every other request gets its turn."""
    scheduler = Scheduler(Limits(max_chunk_tokens=4))
    scheduler.add(make_request(range(10), request_id="long"))
    scheduler.add(make_request(range(2), request_id="short"))
    scheduler.admit()
    steps = [compute(scheduler.schedule()) for _ in range(7)]
    assert [step[0] for step in steps] == [
        ("long", 4),
        ("short", 2),
        ("long", 4),
        ("short", 1),
        ("long", 2),
        ("short", 1),
        ("long", 1),
    ]


def test_a_step_takes_as_many_as_the_batch_allows(make_request: MakeRequest) -> None:
    """With room for two of three, each is left out every third time."""
    scheduler = Scheduler(Limits(max_batch_sequences=2))
    for name in "abc":
        scheduler.add(make_request([1], request_id=name))
    scheduler.admit()
    names = ["".join(name for name, _ in compute(scheduler.schedule())) for _ in range(3)]
    assert names == ["ab", "ca", "bc"]


def test_only_queued_requests_expire(make_request: MakeRequest) -> None:
    """A deadline is for starting; at the very moment it counts as passed."""
    scheduler = Scheduler(Limits(max_running_requests=1))
    for name, deadline_s in (("runs", 1.0), ("late", 5.0), ("early", 6.0), ("never", None)):
        scheduler.add(make_request(request_id=name, deadline_s=deadline_s))
        scheduler.admit()
    assert [s.request.request_id for s in scheduler.expire(5.0)] == ["late"]
    assert "runs" in scheduler
    assert scheduler.num_waiting == 2

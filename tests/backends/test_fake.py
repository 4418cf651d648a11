"""The fake keeps the contract and its script."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from backends.base import Backend, BackendConfig
from backends.errors import BackendError, StreamTruncated, UpstreamFailed
from backends.fake import build
from backends.types import ChoiceEnd, Finish, StreamEvent, Usage
from tests.contracts.backend_contract import (
    BackendContract,
    Case,
    Rig,
    everything,
    into,
    replace_request,
    texts,
)

pytestmark = pytest.mark.anyio


def fake(**script: Any) -> Backend:
    """Build one from a script."""
    return build(BackendConfig("fake", "fake", options={"script": script}))


class TestFake(BackendContract):
    """A scripted upstream without a network."""

    running_usage = True

    @asynccontextmanager
    async def upstream(self, case: Case) -> AsyncIterator[Rig]:
        """Write the case as a script."""
        script: dict[str, Any] = {"text": "".join(case.pieces)}
        if not case.counted:
            script["usage"] = "missing"
        if case.fail is not None:
            script["fail"] = {
                "how": case.fail,
                "status": case.status,
                "retry_after_s": case.retry_after_s,
                "after_tokens": case.after,
            }

        async def left() -> None:
            """It has no connection: the contract sees by its iterator that it is closed."""

        yield Rig(fake(**script), left)


def finish_of(events: list[StreamEvent]) -> Finish:
    """Return the last event of a complete answer."""
    assert isinstance(events[-1], Finish)
    return events[-1]


async def test_it_says_as_many_tokens_as_it_is_told() -> None:
    """`tokens` is the length of the answer and of its usage."""
    events = await everything(fake(tokens=5))
    assert len(texts(events)) == 5
    assert finish_of(events).usage == Usage(7, 5)


async def test_double_usage_is_twice_what_was_said() -> None:
    """For tests of what happens to a report that cannot be right."""
    assert finish_of(await everything(fake(tokens=5, usage="double"))).usage == Usage(14, 10)


async def test_the_output_limit_ends_the_answer_with_length() -> None:
    """Each choice has at most the bound of this attempt."""
    events = await everything(fake(tokens=5), replace_request(output_bound=3))
    assert len(texts(events)) == 3
    assert finish_of(events).choices == (ChoiceEnd(0, "length", "length"),)
    assert finish_of(events).usage == Usage(7, 3)


async def test_a_limit_that_is_just_enough_is_no_limit() -> None:
    """The reason is `stop` if the answer had come to its end."""
    events = await everything(fake(tokens=5), replace_request(output_bound=5))
    assert finish_of(events).choices == (ChoiceEnd(0, "stop", "stop"),)


@pytest.mark.parametrize(
    ("stop", "left"), [(("two",), "one "), (("ne",), "o"), (("three", "two"), "one "), (("x",), "")]
)
async def test_a_stop_text_and_what_follows_are_not_said(stop: tuple[str, ...], left: str) -> None:
    """The first of the stop texts counts; none found, none cut."""
    events = await everything(fake(text="one two three"), replace_request(stop=stop))
    assert "".join(texts(events)) == (left or "one two three")


async def test_it_fails_as_often_as_it_is_told() -> None:
    """`times` failures, then it answers."""
    backend = fake(tokens=2, fail={"status": 503, "times": 2})
    for _ in range(2):
        with pytest.raises(UpstreamFailed):
            await everything(backend)
    assert len(texts(await everything(backend))) == 2


async def test_it_can_fail_after_its_last_token() -> None:
    """A cut between the last token and the finish is still a cut."""
    events: list[StreamEvent] = []
    with pytest.raises(StreamTruncated):
        await into(events, fake(tokens=2, fail={"how": "cut", "after_tokens": 2}))
    assert len(texts(events)) == 2


async def test_a_status_in_the_middle_is_an_error_of_the_stream() -> None:
    """As an error event is on a real wire."""
    events: list[StreamEvent] = []
    with pytest.raises(BackendError) as caught:
        await into(events, fake(tokens=2, fail={"status": 529, "after_tokens": 1}))
    assert caught.value.upstream_status == 529
    assert len(texts(events)) == 1


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ({"token": 5}, "token"),
        ({"tokens": "many"}, "tokens"),
        ({"usage": "some"}, "usage"),
        ({"fail": {"how": "explode"}}, "explode"),
        ({"fail": {"after": 5}}, "after"),
    ],
)
def test_a_script_that_is_not_known_is_refused_by_name(script: dict[str, Any], words: str) -> None:
    """A typing error must not make a test pass."""
    with pytest.raises(ValueError, match=f"the fake's script.*{words}"):
        fake(**script)

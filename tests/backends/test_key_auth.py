"""Several credentials of one endpoint: in turn, and one that was turned away rests."""

from __future__ import annotations

import pytest

from backends.auth import LIMITED_S, MOST_S, REFUSED_S, KeyAuth
from backends.errors import BackendError, EndpointRejected, RateLimited, UpstreamFailed


class Keys:
    """An auth over named keys, with a clock of its own."""

    def __init__(self, *keys: str) -> None:
        """Start in the middle of time."""
        self.at = 100.0
        self.keys = list(keys)
        secrets = [lambda at=at: self.keys[at] for at in range(len(keys))]
        self.auth = KeyAuth(secrets, "x-api-key", "", lambda: self.at)

    def next(self) -> str:
        """The key of the next request."""
        return self.auth.headers("https://up", b"")["x-api-key"]

    def fail(self, key: str, error: BackendError) -> bool:
        """Say that a key's request failed; whether another may do."""
        self.auth.failed({"x-api-key": key}, error)
        return error.other_credential


def refused(status: int = 401) -> EndpointRejected:
    """A refusal with a status."""
    return EndpointRejected("no", upstream_status=status)


def test_requests_take_the_keys_in_turn() -> None:
    """One after another, round and round."""
    keys = Keys("a", "b", "c")
    assert [keys.next() for _ in range(7)] == list("abcabca")


@pytest.mark.parametrize(
    ("error", "rest_s"),
    [
        (refused(401), REFUSED_S),
        (refused(402), REFUSED_S),
        (refused(403), REFUSED_S),
        (RateLimited("slow down"), LIMITED_S),
        (RateLimited("slow down", retry_after_s=33), 33),
        (RateLimited("slow down", retry_after_s=0), 1),
        (RateLimited("slow down", retry_after_s=10**9), MOST_S),
    ],
)
def test_a_key_that_was_turned_away_rests_and_the_others_work(
    error: BackendError, rest_s: float
) -> None:
    """For as long as the upstream said, within bounds, or for a while."""
    keys = Keys("a", "b")
    assert keys.next() == "a"
    assert keys.fail("a", error)
    assert [keys.next() for _ in range(3)] == ["b", "b", "b"]
    keys.at += rest_s - 0.5
    assert keys.next() == "b"
    keys.at += 0.5
    assert {keys.next(), keys.next()} == {"a", "b"}


def test_when_all_rest_the_one_that_is_free_first_is_taken() -> None:
    """And nobody is told that another may do."""
    keys = Keys("a", "b")
    assert keys.fail("a", RateLimited("x", retry_after_s=20))
    assert not keys.fail("b", RateLimited("x", retry_after_s=5))
    assert keys.next() == "b"


def test_a_key_that_was_replaced_does_not_rest() -> None:
    """What was refused is the secret, not its place."""
    keys = Keys("a", "b")
    keys.fail("a", refused())
    keys.keys[0] = "new"
    assert {keys.next(), keys.next()} == {"new", "b"}


@pytest.mark.parametrize("error", [refused(404), UpstreamFailed("500", upstream_status=500)])
def test_what_is_not_about_the_key_rests_nobody(error: BackendError) -> None:
    """A wrong address or a broken server is the same with any key."""
    keys = Keys("a", "b")
    assert not keys.fail("a", error)
    assert [keys.next(), keys.next()] == ["a", "b"]


def test_a_single_key_is_always_used() -> None:
    """The breaker decides about its endpoint; without a key there is no header."""
    keys = Keys("a")
    assert not keys.fail("a", refused())
    assert [keys.next(), keys.next()] == ["a", "a"]
    assert KeyAuth(()).headers("https://up", b"") == {}


def test_no_secret_is_in_a_repr() -> None:
    """Nor in what a key that cannot travel is refused with."""
    keys = Keys("sk-canary\n", "b")
    assert "canary" not in repr(keys.auth)
    with pytest.raises(EndpointRejected) as caught:
        keys.next()
    assert "canary" not in str(caught.value)

"""From a URL to a Redis client that never repeats a command by itself."""

from __future__ import annotations

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

COMMAND_TIMEOUT_S = 2.0
SCHEMES = ("unix://", "redis://", "rediss://")


def connect(url: str, *, timeout_s: float = COMMAND_TIMEOUT_S) -> Redis:
    """A client for `unix://`, `redis://` or `rediss://`.

    Opens nothing yet; close it with `aclose()`. The client's own retries are off: it counts a time-
    out as retryable, and a command that was late and not lost would then run twice (seen with
    redis-py 8.1.0). Connecting, sending and reading are each bounded by `timeout_s` seconds.

    Raises:
        ValueError: the URL has another scheme.
    """
    if not url.startswith(SCHEMES):
        raise ValueError(f"the Redis URL must start with one of {', '.join(SCHEMES)}")
    return Redis.from_url(
        url,
        retry=Retry(NoBackoff(), 0),
        retry_on_timeout=False,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        decode_responses=False,
    )

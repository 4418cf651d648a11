"""Threads for blocking work, shared fairly: an account has one job at a time in them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar
from weakref import WeakValueDictionary

_Result = TypeVar("_Result")


class Turns:
    """Runs jobs on a few threads; who sends many waits behind himself, not others behind him."""

    def __init__(self, num_threads: int, name: str) -> None:
        """Start without a job; threads start when they are needed."""
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix=name)
        # A lock lives as long as a job of its account waits for it or runs.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @property
    def num_accounts(self) -> int:
        """Accounts that have a job waiting or running."""
        return len(self._locks)

    async def run(self, account: str, job: Callable[[], _Result]) -> _Result:
        """Return what a job returns, or raise what it raises.

        A caller that leaves gives its account's turn on only when the thread is free again: a
        thread cannot be stopped, and leaving early must not win a second one.
        """
        lock = self._locks.setdefault(account, asyncio.Lock())
        await lock.acquire()
        try:
            work = asyncio.get_running_loop().run_in_executor(self._threads, job)
        except BaseException:
            lock.release()
            raise
        work.add_done_callback(lambda _: lock.release())
        try:
            return await asyncio.shield(work)
        finally:
            # Its error would hold this frame, and the frame the error, until the next collection.
            del work

    def close(self) -> None:
        """Drop the jobs that have not begun."""
        self._threads.shutdown(wait=False, cancel_futures=True)

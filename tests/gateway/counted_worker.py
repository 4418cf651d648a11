"""A worker that counts what it does: ``python -m tests.gateway.counted_worker`` (a child process).

It is the harness's worker, on the standard library's event loop instead of uvloop, because that
one can be looked into; how often a request wakes the loop and writes is the same on both.

Three things make the counts repeat exactly. Time stands still once the parent says so, so that no
timer ever fires: neither ours nor uvicorn's. The kernel is asked for events only when the loop has
nothing else to do, so that a peer which answers early changes nothing. And the parent's words come
on a socket of their own that the loop does not know: they are read in ``select`` when nothing else
is left to do, which is also how the parent knows that a request is over.
"""

from __future__ import annotations

import asyncio
import cProfile
import gc
import json
import selectors
import socket
import sys
from collections import Counter
from typing import Any

from gateway import config as configuration
from tests.gateway_harness import Clock, running

BEGIN, END, STOP = b"b", b"e", b"s"


class Counts:
    """What was counted since the last ``begin``."""

    def __init__(self) -> None:
        """Nothing is counted yet."""
        self._tally: Counter[str] = Counter()
        self._profile: cProfile.Profile | None = None

    def add(self, what: str) -> None:
        """Count one."""
        self._tally[what] += 1

    def begin(self) -> None:
        """Start anew; Python calls are counted while `resume` lets them."""
        self._tally.clear()
        self._profile = cProfile.Profile()

    def end(self) -> dict[str, int]:
        """Return the counts."""
        assert self._profile is not None
        # This file's own functions are left out: they are not there in production.
        entries = [e for e in self._profile.getstats() if not _is_here(e.code)]
        self._profile = None
        return {**self._tally, "python_calls": sum(entry.callcount for entry in entries)}

    def pause(self) -> None:
        """Stop counting Python calls."""
        if self._profile is not None:
            self._profile.disable()

    def resume(self) -> None:
        """Count Python calls in this thread."""
        if self._profile is not None:
            self._profile.enable()


def _is_here(code: Any) -> bool:
    return getattr(code, "co_filename", "") == __file__


class CountingSelector(selectors.DefaultSelector):
    """Counts how often it wakes the loop, and takes the parent's words while the loop is idle."""

    def __init__(self, parent: socket.socket, counts: Counts) -> None:
        """Listen to the parent, too."""
        super().__init__()
        self._parent, self._counts = parent, counts
        self.stopped = asyncio.Event()
        self.still = False
        """Whether time stands still."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready; in still time only when the loop has nothing else to do."""
        if not self.still:
            return super().select(timeout)
        if timeout == 0:
            return []
        self._counts.pause()
        while True:
            ready = super().select(None)
            others = [event for event in ready if event[0].fileobj is not self._parent]
            if others:
                self._counts.add("wake_ups")
                self._counts.resume()
                return others
            word = self._parent.recv(1)
            if word in (STOP, b""):
                self.still = False
                self.stopped.set()
                return []
            if word == BEGIN:
                gc.collect()
                self._counts.begin()
                say(self._parent, {})
            else:
                say(self._parent, self._counts.end())


class CountingSocket(socket.socket):
    """Counts what is sent; a Unix socket leads to Redis, our port to a client."""

    def __init__(self, taken: socket.socket, port: int, counts: Counts) -> None:
        """Take over a socket."""
        super().__init__(fileno=taken.detach())
        self.setblocking(False)
        self._counts = counts
        self._to = "upstream"
        if self.family == socket.AF_UNIX:
            self._to = "redis"
        elif self.getsockname()[1] == port:
            self._to = "client"

    def send(self, *given: Any) -> int:
        """Send and count."""
        self._counts.add(f"writes_to_{self._to}")
        return socket.socket.send(self, *given)

    def sendmsg(self, *given: Any) -> int:
        """Send and count."""
        self._counts.add(f"writes_to_{self._to}")
        return socket.socket.sendmsg(self, *given)


class Loop(asyncio.SelectorEventLoop):
    """An event loop whose sockets count, and whose time can stand still."""

    def __init__(self, selector: CountingSelector, counts: Counts) -> None:
        """The port of our own is not known yet."""
        super().__init__(selector)
        self.port = 0
        self._counting, self._counts = selector, counts
        self._stood_at = super().time()

    def time(self) -> float:
        """Return the time, or the time at which it stopped."""
        if not self._counting.still:
            self._stood_at = super().time()
        return self._stood_at

    def _make_socket_transport(self, sock: socket.socket, *rest: Any, **more: Any) -> Any:
        counting = CountingSocket(sock, self.port, self._counts)
        return super()._make_socket_transport(counting, *rest, **more)  # type: ignore[misc]


def say(parent: socket.socket, document: dict[str, Any]) -> None:
    """Tell the parent something, in one line."""
    parent.sendall(json.dumps(document).encode() + b"\n")


async def work(parent: socket.socket, selector: CountingSelector, given: dict[str, Any]) -> None:
    """Serve; time stands still once it is ready."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Loop)
    settings = configuration.parse(given["settings"], "guard")
    async with running(given["redis_url"], settings, times=Clock().times) as gateway:
        loop.port = gateway.port
        selector.register(parent, selectors.EVENT_READ)
        say(parent, {"port": gateway.port, "key": gateway.key})
        gc.disable()
        selector.still = True
        await selector.stopped.wait()


def main() -> None:
    """Serve until the parent says stop or is gone; its socket is the argument."""
    with socket.socket(fileno=int(sys.argv[1])) as parent:
        with parent.makefile("r") as words:
            given = json.loads(words.readline())
        counts = Counts()
        selector = CountingSelector(parent, counts)
        with asyncio.Runner(loop_factory=lambda: Loop(selector, counts)) as runner:
            runner.run(work(parent, selector, given))


if __name__ == "__main__":
    main()

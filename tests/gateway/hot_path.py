"""What a request costs, counted: ``python -m tests.gateway.hot_path --write`` renews the table.

Per whole answer, stream, streamed chunk and burst of 64 chunks: wake-ups of the event loop, socket
writes, Redis commands, Python calls. The worker is a child process that counts
(`tests/gateway/counted_worker.py`, on asyncio's own loop: production runs uvloop, where these
counts are the same); client, upstream and Redis are real sockets. The upstream sends a chunk only
after the client got the last, and a request is over when its settle is answered and the worker has
nothing left to do. Each count is the smallest of 20 requests.

A change that costs more, or less, fails `tests/gateway/test_hot_path.py` until the table is
renewed, so that it shows in the diff.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from gateway.bench.upstream import END as END_OF_STREAM
from gateway.bench.upstream import PIECES
from tests.gateway.counted_worker import BEGIN, END, STOP
from tests.gateway.upstreams import openai_endpoint
from tests.valkey_server import ValkeyServer

TABLE = Path(__file__).with_suffix(".json")
ROOT = Path(__file__).resolve().parents[2]
MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"
REQUESTS = 20
WARM_UP = 3
MANY, FEW = 64, 32
CALLS = "python_calls"
COUNTS = (
    "wake_ups",
    "writes_to_client",
    "writes_to_upstream",
    "writes_to_redis",
    "redis_commands",
)
BOUND_S = 20.0

Tally = dict[str, float]
LAST_PIECE = b"\r\n0\r\n\r\n"


class Peer:
    """A blocking connection that is read up to words that must come."""

    def __init__(self, sock: socket.socket) -> None:
        """Take a connected socket."""
        self.sock = sock
        sock.settimeout(BOUND_S)
        self._read = b""

    def take(self, until: bytes) -> bytes:
        """Return all up to and with ``until``."""
        while until not in self._read:
            data = self.sock.recv(65536)
            assert data, f"closed before {until!r}; so far {self._read[-2000:]!r}"
            self._read += data
        taken, _, self._read = self._read.partition(until)
        return taken + until

    def message(self) -> None:
        """Read one request or answer whose body has a stated length."""
        head = self.take(b"\r\n\r\n").lower()
        length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
        while len(self._read) < length:
            self._read += self.sock.recv(65536)
        self._read = self._read[length:]


Part = Callable[[Peer, Peer], None]
"""What upstream and client do for one answer."""


class Bench:
    """A counting worker, and the three who talk with it, in one thread."""

    def __init__(self, redis_url: str, stack: ExitStack) -> None:
        """Start it."""
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener.settimeout(BOUND_S)
        ours, its = socket.socketpair()
        stack.enter_context(ours)
        with its:
            words = (sys.executable, "-m", "tests.gateway.counted_worker", str(its.fileno()))
            self._child = subprocess.Popen(words, pass_fds=[its.fileno()], cwd=ROOT)
        stack.callback(self._stop)
        self._worker = Peer(ours)
        endpoint = openai_endpoint(listener.getsockname()[1], "up")
        settings = {"models": [{"id": "m", "endpoints": [endpoint]}]}
        ours.sendall(json.dumps({"redis_url": redis_url, "settings": settings}).encode() + b"\n")
        ready = json.loads(self._worker.take(b"\n"))
        client = socket.create_connection(("127.0.0.1", ready["port"]))
        self._client = Peer(stack.enter_context(client))
        self._key = ready["key"]
        self._monitor = Peer(stack.enter_context(_redis(redis_url)))
        self._redis = Peer(stack.enter_context(_redis(redis_url)))
        self._monitor.sock.sendall(b"MONITOR\r\n")
        self._monitor.take(b"+OK\r\n")
        self._listener, self._stack = listener, stack
        self._upstream: Peer | None = None

    def _stop(self) -> None:
        try:
            self._worker.sock.sendall(STOP)
        except OSError:
            pass  # it is gone already
        try:
            self._child.wait(BOUND_S)
        finally:
            self._child.kill()
            self._child.wait()

    def smallest(self, play: Part, *, stream: bool) -> Tally:
        """Ask often; return the smallest of each count."""
        seen = [self._ask(play, stream) for _ in range(WARM_UP + REQUESTS)][WARM_UP:]
        return {name: min(tally.get(name, 0) for tally in seen) for name in (*COUNTS, CALLS)}

    def _ask(self, play: Part, stream: bool) -> Tally:
        self._tell(BEGIN)
        self._client.sock.sendall(_request(self._key, stream))
        if self._upstream is None:
            connection, _ = self._listener.accept()
            self._upstream = Peer(self._stack.enter_context(connection))
        upstream = self._upstream
        upstream.message()
        play(upstream, self._client)
        commands = self._commands_up_to_settle()
        return self._tell(END) | {"redis_commands": commands}

    def _tell(self, word: bytes) -> Tally:
        """Say a word to the worker; it answers once it has nothing else to do."""
        self._worker.sock.sendall(word)
        tally: Tally = json.loads(self._worker.take(b"\n"))
        return tally

    def _commands_up_to_settle(self) -> int:
        """Wait for the settle and for Redis to have answered it; count what the worker sent.

        What Redis's functions do inside is marked `lua` and not counted. Redis writes its
        answers before it reads again, so that our echo's comes after the settle's.
        """
        seen = self._monitor.take(b"settle")
        self._redis.sock.sendall(b"ECHO over\r\n")
        self._redis.take(b"over\r\n")
        seen += self._monitor.take(b'"over"\r\n')
        sent = [line for line in seen.split(b"\r\n") if line and b" lua] " not in line]
        return len(sent) - 1


def _redis(url: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(url.removeprefix("unix://"))
    return sock


def _request(key: str, stream: bool) -> bytes:
    body: dict[str, Any] = {
        "model": "m",
        "messages": [{"role": "user", "content": "a" * 1000}],
        "max_tokens": MANY,
    }
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    content = json.dumps(body).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\n"
        f"Authorization: Bearer {key}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_BURST = _HEAD + b"".join(PIECES) + END_OF_STREAM


def _play_whole(upstream: Peer, client: Peer) -> None:
    upstream.sock.sendall(_BURST)  # the gateway asks for a stream whatever the client asked for
    client.message()


def _play_burst(upstream: Peer, client: Peer) -> None:
    upstream.sock.sendall(_BURST)
    client.take(b"[DONE]")
    client.take(LAST_PIECE)


def _play_chunks(chunks: int) -> Part:
    def play(upstream: Peer, client: Peer) -> None:
        for number in range(chunks):
            upstream.sock.sendall(PIECES[number] if number else _HEAD + PIECES[0])
            client.take(b'"word%d "' % number)
        upstream.sock.sendall(END_OF_STREAM)
        client.take(b"[DONE]")
        client.take(LAST_PIECE)

    return play


@contextmanager
def bench() -> Iterator[Bench]:
    """A worker with a Valkey of its own."""
    server = ValkeyServer()
    with ExitStack() as stack:
        stack.callback(server.remove)
        server.start()
        yield Bench(server.url, stack)


def measure() -> dict[str, Tally]:
    """Count every shape; what a stream costs is told apart from what its chunks cost."""
    with bench() as given:
        whole = given.smallest(_play_whole, stream=False)
        many = given.smallest(_play_chunks(MANY), stream=True)
        few = given.smallest(_play_chunks(FEW), stream=True)
        burst = given.smallest(_play_burst, stream=True)
    chunk = {name: (many[name] - few[name]) / (MANY - FEW) for name in many}
    stream = {name: many[name] - MANY * chunk[name] for name in many}
    return {"whole": whole, "stream": stream, "chunk": chunk, "burst": burst}


def read() -> dict[str, Any]:
    """Return the table."""
    table: dict[str, Any] = json.loads(TABLE.read_text(encoding="utf-8"))
    return table


def write(measured: dict[str, Tally]) -> None:
    """Renew the table; the Python calls of other Pythons stay."""
    calls = read()[CALLS] if TABLE.exists() else {}
    calls[MINOR] = {shape: tally[CALLS] for shape, tally in measured.items()}
    exact = {shape: {name: tally[name] for name in COUNTS} for shape, tally in measured.items()}
    table = exact | {CALLS: dict(sorted(calls.items()))}
    TABLE.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    found = measure()
    if "--write" in sys.argv[1:]:
        write(found)
    print(json.dumps(found, indent=2))

"""The tokenizer process's server: one question after another on each connection."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec

from gateway.tokenizer.encodings import load
from gateway.tokenizer.wire import Question, Reply, frame, read_frame

log = logging.getLogger("tollway")

_decode = msgspec.msgpack.Decoder(Question).decode


def answer(question: Question) -> Reply:
    """Count; what goes wrong is said, and no text with it."""
    try:
        return Reply(load(question.encoding)(question.text))
    except (ValueError, OSError, ImportError) as error:
        log.warning("encoding %s: %s", question.encoding, error)
        return Reply(None, f"{question.encoding}: {type(error).__name__}")


@asynccontextmanager
async def serve(path: str) -> AsyncIterator[None]:
    """Serve a Unix socket for its owner only."""
    _make_room(Path(path))
    server = await asyncio.start_unix_server(_converse, path)
    os.chmod(path, 0o600)  # noqa: PTH101 - nobody waits for it
    try:
        yield
    finally:
        server.close()


def _make_room(path: Path) -> None:
    """Remove what a process that was killed has left."""
    path.unlink(missing_ok=True)


async def _converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    # Counting holds up this process's loop, which is what the process is for.
    try:
        with suppress(EOFError, OSError, ValueError, msgspec.DecodeError):
            while True:
                reply = answer(_decode(await read_frame(reader)))
                writer.write(frame(reply))
                await writer.drain()
    finally:
        writer.close()

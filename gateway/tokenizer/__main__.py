"""``python -m gateway.tokenizer SOCKET``: counts tokens for the workers."""

from __future__ import annotations

import asyncio
import signal
import sys

from gateway.tokenizer.server import serve


async def main(path: str) -> None:
    """Serve a Unix socket until SIGTERM."""
    done = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, done.set)
    async with serve(path):
        await done.wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))

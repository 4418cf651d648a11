"""``tollway worker``: one worker process, started by ``serve``."""

from __future__ import annotations

import socket
from pathlib import Path

import click

from gateway import config, garbage, server, shared_metrics
from gateway.app import create_app
from gateway.cli.common import Options, common, pepper, redis_url, tokenizer_socket
from gateway.log import configure_logging
from gateway.supervisor.lockfile import lock_path, read_lock
from gateway.wiring import WorkerConfig


@click.command(hidden=True)
@click.option("--name", required=True, help="The worker's own, among those that share a port.")
@click.option(
    "--fd", "fds", type=int, required=True, multiple=True, help="A listening socket, inherited."
)
@click.option(
    "--other-fd", "other_fds", type=int, multiple=True, help="Another worker's, inherited."
)
@click.option(
    "--engine", "engines", multiple=True, metavar="MODEL=SOCKET", help="A built-in engine."
)
@click.option("--copy", type=click.Path(path_type=Path), help="What the configuration was.")
@common
def worker(
    options: Options,
    name: str,
    copy: Path | None,
    fds: tuple[int, ...],
    other_fds: tuple[int, ...],
    engines: tuple[str, ...],
) -> None:
    """Serve requests on inherited sockets until SIGTERM."""
    configure_logging()
    metrics = config.metrics_dir()
    if metrics is not None:
        shared_metrics.share(name)
    settings = config.load(options.config, copy.read_bytes() if copy else None)
    lock = lock_path(Path(options.data).absolute())

    def announced() -> bool:
        state = read_lock(lock)
        return state is not None and state.announced

    app = create_app(
        WorkerConfig(
            settings=settings,
            source=options.config,
            redis_url=redis_url(settings, options.data),
            pepper=pepper(options.data),
            engines=dict(_pair(engine) for engine in engines),
            tokenizer=str(tokenizer_socket(settings, options.data) or ""),
            announced=announced,
            metrics=metrics,
        )
    )
    garbage.take_over()
    listeners = [socket.socket(fileno=fd) for fd in fds]
    others = [socket.socket(fileno=fd) for fd in other_fds]
    server.serve(app, listeners, settings.server, others)


def _pair(text: str) -> tuple[str, str]:
    model, _, path = text.rpartition("=")
    return model, path

"""``tollway serve``: everything under one supervisor."""

from __future__ import annotations

import asyncio
import logging
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import click
import httpx

from gateway import __version__, config
from gateway.cli.common import (
    CommandFailed,
    Options,
    common,
    opened,
    pepper,
    redis_url,
    run,
    tokenizer_socket,
)
from gateway.cli.crew import Crew, listening
from gateway.log import configure_logging
from gateway.settings import ModelSettings, Settings
from gateway.supervisor.child import ChildSpec
from gateway.supervisor.claim import claim_data_folder
from gateway.supervisor.errors import StartFailed, SupervisorError
from gateway.supervisor.groups import valkey_group
from gateway.supervisor.living import Group, IsFailing
from gateway.supervisor.lockfile import LockFile, prepare_data_dir
from gateway.supervisor.settings import SupervisorSettings
from gateway.supervisor.sockets import engine_socket_name, short_socket_path
from gateway.supervisor.tree import Hooks, Supervisor
from policies.ledger.keys import NewKey

log = logging.getLogger("tollway")

POLL_S = 0.1
PROGRESS_S = 2.0
TOKENIZER = "tokenizer"


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    help="The port to listen on; 0 takes any that is free.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Worker processes that share the port; a good number is that of the cores.",
)
@common
def serve(options: Options, host: str, port: int, workers: int) -> None:
    """Start Valkey, the engines and the gateway, and keep them running.

    The first start prints an API key with one dollar of credit, once. Ctrl-C drains: open
    streams finish, money settles, everything stops; a second Ctrl-C ends at once.
    """
    configure_logging()
    raise SystemExit(run(_serve(options, host, port, workers)))


async def _serve(options: Options, host: str, port: int, workers: int) -> int:
    text = config.read(options.config) if options.config is not None else None
    settings = config.load(options.config, text)
    _check(settings, options.config)
    data = prepare_data_dir(options.data)
    async with claim_data_folder(data) as lock:
        with listening(host, port, workers, data) as crew:
            house = House(options, settings, text, data, crew, lock)
            lock.update(host=host, port=crew.port)
            return await house.run()


def _check(settings: Settings, source: Path | None) -> None:
    """Find what would keep a child from starting, before anything starts.

    Raises:
        ConfigError: a secret is missing, or a URL cannot be used.
        CommandFailed: a model's weights are missing.
    """
    config.check_endpoints(settings, source)
    for model in settings.models:
        if model.expires is not None:
            log.warning("model %r is served until %s", model.id, model.expires)
        for endpoint in model.endpoints:
            if endpoint.backend == "local":
                folder = config.weights_dir(endpoint, source)
                if not (folder / "config.json").is_file():
                    raise CommandFailed(
                        f"model {model.id!r}: no weights in {folder}; run 'make setup', or set "
                        "TOLLWAY_MODELS to the folder that has them"
                    )


def _never() -> bool:
    return False


@dataclass(slots=True)
class House:
    """One running server: what it starts, and how it says that it is ready."""

    options: Options
    settings: Settings
    text: bytes | None
    """What the configuration file held; workers get it as it was."""

    data: Path
    crew: Crew
    lock: LockFile
    env: dict[str, str] = field(default_factory=config.child_environment)
    versions: dict[str, str] = field(default_factory=dict)
    """Of the configuration, by worker; of both generations while there are two."""

    _tree: Supervisor = field(init=False)

    @property
    def redis_url(self) -> str:
        """Where the ledger is."""
        return redis_url(self.settings, self.data)

    async def run(self) -> int:
        """Run the tree of children until it is told to drain; return the exit code."""
        self._tree = self._supervisor()
        return await self._tree.run()

    def _supervisor(self) -> Supervisor:
        """Return the tree of children: Valkey, engines and tokenizer, workers."""
        groups = [valkey_group(self.data, self.env)] if self._embedded else []
        if helpers := self._helpers():
            groups.append(Group("helpers", helpers))
        bounds = SupervisorSettings(drain_seconds=self.settings.server.drain_seconds)
        groups.append(Group("workers", self._workers(), on_ready=self._announce))
        hooks = Hooks(
            on_drain=lambda: self.crew.close(), on_hangup=self.reload, on_end=self.crew.ended
        )
        return Supervisor(groups, self.lock, settings=bounds, hooks=hooks)

    def _workers(self) -> tuple[ChildSpec, ...]:
        """Return how to start the workers of this configuration, and say which it is."""
        words, version = self._worker_words(), config.version(self.text)
        if self.text is not None:
            copy = self.data / f"config{self.crew.generation}.yaml"
            copy.write_bytes(self.text)
            words += ["--copy", str(copy)]
        self.versions.update(dict.fromkeys(self.crew.names(), version))
        self.lock.update(versions={"tollway": __version__, **self.versions})
        bounds = SupervisorSettings(drain_seconds=self.settings.server.drain_seconds)
        return self.crew.specs(words, self.env, bounds.worker_stop_grace_s)

    async def reload(self) -> None:
        """Read the configuration again; whatever is wrong with it, the old one is kept."""
        try:
            await self._reload()
        except (CommandFailed, config.ConfigError, SupervisorError, OSError) as error:
            log.error("SIGHUP: the old configuration is kept: %s", error)
        else:
            log.info("SIGHUP: configuration %s is served", config.version(self.text))

    async def _reload(self) -> None:
        path = self.options.config
        text = config.read(path) if path is not None else None
        settings = config.load(path, text)
        _check(settings, path)
        if settings.redis != self.settings.redis:
            raise CommandFailed("'redis' has changed, which needs a restart")
        new = replace(self, settings=settings, text=text, crew=self.crew.successor(self.data))
        mine = {spec.name: spec.argv for spec in self._helpers()}
        theirs = {spec.name: spec for spec in new._helpers()}
        added = tuple(spec for name, spec in theirs.items() if name not in mine)
        try:
            for name, spec in theirs.items():
                if mine.get(name, spec.argv) != spec.argv:
                    raise CommandFailed(f"{name!r} is to run otherwise, which needs a restart")
            ended = await self._tree.living.add(Group("helpers", added)) if added else _never
            workers = Group(
                "workers",
                new._workers(),
                ready=lambda failing: new._ready_in_time(lambda: ended() or failing()),
            )
            await self._tree.living.replace(workers, settings.server.reload_drain_seconds)
        except BaseException:
            new.crew.close_own()
            self._tree.living.remove_later([spec.name for spec in added])
            raise
        self.crew.close_own()
        self.settings, self.text, self.crew = settings, text, new.crew
        self._tree.living.remove_later(mine.keys() - theirs.keys())

    @property
    def _embedded(self) -> bool:
        return self.settings.redis.url == "embedded"

    def _local_models(self) -> list[ModelSettings]:
        local = (m for m in self.settings.models if any(e.backend == "local" for e in m.endpoints))
        return list(local)

    def _helpers(self) -> tuple[ChildSpec, ...]:
        """Return what the workers ask on this machine: an engine per local model, a tokenizer."""
        helpers = [self._engine(model) for model in self._local_models()]
        if (path := tokenizer_socket(self.settings, self.data)) is not None:
            helpers.append(
                ChildSpec(
                    name=TOKENIZER,
                    role=TOKENIZER,
                    argv=(sys.executable, "-m", "gateway.tokenizer", str(path)),
                    env=self.env,
                    stop_grace_s=SupervisorSettings().tokenizer_stop_grace_s,
                    socket=path,
                )
            )
        return tuple(helpers)

    def _engine(self, model: ModelSettings) -> ChildSpec:
        endpoint = next(e for e in model.endpoints if e.backend == "local")
        path = self._engine_socket(model)
        bounds = self.settings.engine
        argv = (
            *(sys.executable, "-m", "local_engine"),
            *("--weights", str(config.weights_dir(endpoint, self.options.config))),
            *("--name", model.id, "--socket", str(path)),
            *("--max-running", str(bounds.max_running), "--max-queued", str(bounds.max_queued)),
        )
        return ChildSpec(
            name=f"engine:{model.id}",
            role="engine",
            argv=argv,
            env=self.env,
            stop_grace_s=SupervisorSettings().engine_stop_grace_s,
            socket=path,
        )

    def _engine_socket(self, model: ModelSettings) -> Path:
        return short_socket_path(self.data, engine_socket_name(model.id))

    def _worker_words(self) -> list[str]:
        source = self.options.config
        words = ["--data", str(self.data)]
        words += ["--config", str(source.absolute())] if source is not None else []
        for model in self._local_models():
            words += ["--engine", f"{model.id}={self._engine_socket(model)}"]
        return words

    async def _announce(self) -> None:
        """Wait until everything serves, print the first key once, then be ready."""
        await self._until_ready()
        secret = pepper(self.options.data)
        async with opened(self.redis_url, secret, self.settings.redis.timeout_s) as books:
            key = await books.keys.first_start(books.ledger)
        self.options.say(*self._greeting(key))
        sys.stdout.flush()
        self.lock.update(announced=True)

    async def _ready_in_time(self, is_failing: IsFailing) -> None:
        """Wait for what a reload has started.

        Raises:
            StartFailed: it ends at once, or takes too long.
        """
        limit_s = self.settings.server.reload_ready_seconds
        try:
            async with asyncio.timeout(limit_s):
                await self._until_ready(is_failing)
        except TimeoutError:
            raise StartFailed(
                f"what is started is not ready after {limit_s:g} s (server.reload_ready_seconds)"
            ) from None

    async def _until_ready(self, is_failing: IsFailing = _never) -> None:
        loop = asyncio.get_running_loop()
        next_word = loop.time() + PROGRESS_S
        async with AsyncExitStack() as stack:
            for name, client in await self.crew.probes(stack):
                while waiting := await self._waiting_for(name, client):
                    if is_failing():
                        raise StartFailed(f"what is started ends at once ({waiting}); see the log")
                    if loop.time() >= next_word:
                        next_word = loop.time() + PROGRESS_S
                        click.echo(f"starting: {waiting}", err=True)
                    await asyncio.sleep(POLL_S)

    async def _waiting_for(self, name: str, client: httpx.AsyncClient) -> str:
        try:
            answer = await client.get("/health/ready")
            checks = answer.json()["checks"]
        except (httpx.HTTPError, ValueError, KeyError):
            return name
        late = [f"{name} is {state}" for name, state in checks.items() if state != "ok"]
        return ", ".join(word for word in late if not word.startswith("supervisor "))

    def _greeting(self, key: NewKey | None) -> tuple[dict[str, object], str]:
        """Return what the operator is told, for programs and for people."""
        lines = [f"Tollway {__version__} serves {self.crew.url}/v1 (Ctrl-C stops it)"]
        if key is None:
            lines.append("Make a key with: tollway keys create --account NAME --credit USD")
            return {"url": self.crew.url}, "\n".join(lines)
        local = self._local_models() or list(self.settings.models)
        body = (
            f'{{"model":"{local[0].id}","stream":true,"temperature":0,'
            '"messages":[{"role":"user","content":"What is the capital of France?"}]}'
        )
        command = (
            f"curl -N {self.crew.url}/v1/chat/completions -H 'Authorization: Bearer {key.text}' "
            f"-H 'Content-Type: application/json' -d '{body}'"
        )
        lines += [
            "This is the first start. Account 'default' has one dollar, and this key, shown once:",
            "",
            f"  {key.text}",
            "",
            "Try it:",
            command,
        ]
        document = {"url": self.crew.url, "account": key.record.account, "key": key.text}
        return {**document, "try": command}, "\n".join(lines)

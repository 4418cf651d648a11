"""``tollway config check``, ``status`` and ``doctor``: what is, and what is wrong."""

from __future__ import annotations

import asyncio
import difflib
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from backends.base import Probe, Probing
from gateway import __version__, config
from gateway.cli.common import CommandFailed, Options, books, common, run
from gateway.endpoint_settings import EVERY, EndpointSettings
from gateway.settings import ModelSettings
from gateway.supervisor.errors import SupervisorError
from gateway.supervisor.lockfile import lock_path, prepare_data_dir, read_lock
from gateway.supervisor.valkey import server_binary
from policies.ledger.base import LedgerError

SPACE_BYTES = 1_000_000_000

PROBE_S = 5.0
"""How long an upstream may take to say that it is there."""

PROBES_AT_ONCE = 16


@click.group("config")
def config_group() -> None:
    """Check the configuration."""


@config_group.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@common
def check(options: Options, file: Path) -> None:
    """Check FILE: shape, names, prices, and that each secret can be read."""
    settings = replace(options, config=file).settings()
    config.check_endpoints(settings, file)
    endpoints = sum(len(model.endpoints) for model in settings.models)
    document = {"ok": True, "models": len(settings.models), "endpoints": endpoints}
    options.say(document, f"ok: {len(settings.models)} models, {endpoints} endpoints")


@click.command()
@common
def status(options: Options) -> None:
    """Show the running server: pids, port, sockets, versions."""
    state = read_lock(lock_path(options.data.absolute()))
    if state is None or not state.is_live() or state.kind != "serve":
        raise CommandFailed(f"no server runs on {options.data}; start one with 'tollway serve'")
    document: dict[str, Any] = {
        "pid": state.pid,
        "host": state.host,
        "port": state.port,
        "ready": state.announced,
        "versions": dict(state.versions),
        "children": [
            {
                "name": child.name,
                "role": child.role,
                "pid": child.pid,
                "socket": child.socket,
                "configuration": state.versions.get(child.name),
            }
            for child in state.children
        ],
    }
    lines = [f"tollway {__version__}, pid {state.pid}, http://{state.host}:{state.port}"]
    lines += [
        f"  {child['name']}: pid {child['pid']}"
        + (f", {child['socket']}" if child["socket"] else "")
        + (f", configuration {child['configuration']}" if child["configuration"] else "")
        for child in document["children"]
    ]
    options.say(document, "\n".join(lines))


@click.command()
@common
def doctor(options: Options) -> None:
    """Look for what would keep the server from working, and say what to do."""
    checks: list[tuple[str, Callable[[Options], str]]] = [
        ("python", _python),
        ("configuration", _configuration),
        ("data folder", _data_folder),
        ("valkey", _valkey),
        ("weights", _weights),
        ("ledger", _ledger),
    ]
    results = []
    for name, look in checks:
        try:
            results.append({"check": name, "ok": True, "detail": look(options)})
        except (CommandFailed, config.ConfigError, SupervisorError, LedgerError) as error:
            results.append({"check": name, "ok": False, "detail": str(error)})
    results += run(_endpoints(options))
    ok = all(result["ok"] for result in results)
    lines = [f"{'ok  ' if r['ok'] else 'FAIL'} {r['check']}: {r['detail']}" for r in results]
    options.say({"ok": ok, "checks": results}, "\n".join(lines))
    if not ok:
        raise SystemExit(1)


def _python(options: Options) -> str:
    del options
    return sys.version.split()[0]


def _configuration(options: Options) -> str:
    settings = options.settings()
    config.check_endpoints(settings, options.config)
    return f"{len(settings.models)} models"


def _data_folder(options: Options) -> str:
    folder = prepare_data_dir(options.data)
    free = shutil.disk_usage(folder).free
    if free < SPACE_BYTES:
        raise CommandFailed(f"{folder}: only {free // 1_000_000} MB free; the journal needs room")
    return f"{folder}, {free // 1_000_000_000} GB free"


def _valkey(options: Options) -> str:
    redis = options.redis()
    return str(server_binary()) if redis.url == "embedded" else "a server of your own"


def _weights(options: Options) -> str:
    settings = options.settings()
    found = []
    for model in settings.models:
        for endpoint in model.endpoints:
            if endpoint.backend != "local":
                continue
            folder = config.weights_dir(endpoint, options.config)
            if not (folder / "config.json").is_file():
                raise CommandFailed(f"none in {folder}; run 'make setup'")
            found.append(str(folder))
    if found and find_spec("torch") is None:
        raise CommandFailed(
            "torch is not installed; run 'make setup' or pip install 'tollway[local]'"
        )
    return ", ".join(found) or "no local model is configured"


def _ledger(options: Options) -> str:
    return run(_verified(options))


async def _verified(options: Options) -> str:
    async with books(options) as found:
        report = await found.ledger.verify()
    if not report.ok:
        raise CommandFailed("; ".join(report.problems))
    return f"adds up, {report.accounts} accounts"


async def _endpoints(options: Options) -> list[dict[str, Any]]:
    """Ask every endpoint's upstream whether it is there, without a prompt."""
    try:
        models = options.settings().models
    except config.ConfigError:
        return []  # the check of the configuration says why
    turns = asyncio.Semaphore(PROBES_AT_ONCE)

    async def look(model: ModelSettings, endpoint: EndpointSettings) -> dict[str, Any]:
        async with turns:
            ok, detail = await _probed(options, model, endpoint)
        return {"check": f"endpoint {model.id} at {endpoint.slug}", "ok": ok, "detail": detail}

    pairs = [(model, endpoint) for model in models for endpoint in model.endpoints]
    return await asyncio.gather(*(look(*pair) for pair in pairs))


async def _probed(
    options: Options, model: ModelSettings, endpoint: EndpointSettings
) -> tuple[bool, str]:
    try:
        backend = config.build_backend(model, endpoint, options.config, {model.id: "engine.sock"})
    except config.ConfigError as error:
        return False, str(error)
    try:
        if not isinstance(backend, Probing):
            return True, "not asked: its kind has no question without a prompt"
        deadline = asyncio.get_running_loop().time() + PROBE_S
        return _judged(await backend.probe(deadline=deadline), endpoint.model or model.id)
    finally:
        await backend.aclose()


def _judged(probe: Probe, name: str) -> tuple[bool, str]:
    """Say whether an upstream is well, and serves what it will be asked for."""
    if not probe.ok or probe.models is None or EVERY in name or name in probe.models:
        return probe.ok, probe.detail
    near = difflib.get_close_matches(name, probe.models, n=1, cutoff=0)
    hint = f"the nearest is {near[0]!r}" if near else "it serves none"
    return False, f"{probe.detail}, but {name!r} is not among the models that it serves; {hint}"

"""Image and compose file say what the code expects; no registry is needed to see it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click
import yaml

from gateway import config
from gateway.cli import main
from gateway.settings import ServerSettings
from gateway.supervisor.settings import SupervisorSettings

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text(encoding="utf-8"))


def serves(argv: list[str]) -> dict[str, object]:
    """Return the options of a ``tollway serve`` command line."""
    assert argv[0] == "serve"
    command = main.get_command(click.Context(main), "serve")
    assert command is not None
    return command.make_context("serve", argv[1:]).params


def test_the_image_copies_only_what_is_there() -> None:
    """Each source exists and is let in by the ignore file."""
    let_in = re.findall(r"^!(\S+)$", (ROOT / "deploy/Dockerfile.dockerignore").read_text(), re.M)
    for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.M):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert source.rstrip("/") in let_in, source
    packages = re.findall(r"^COPY (\w+)/ \1/$", DOCKERFILE, re.M)
    assert {"gateway", "policies", "backends", "local_engine"} <= set(packages)
    for lock in re.findall(r"-r ([\w./-]+)", DOCKERFILE):
        assert (ROOT / lock).is_file(), lock


def test_the_image_serves_as_a_user_without_rights_and_drains() -> None:
    """The last stage's user, signal, data folder and health check."""
    last = DOCKERFILE.rpartition("\nFROM ")[2]
    assert re.search(r"^USER [1-9]\d*$", last, re.M)
    assert re.search(r"^STOPSIGNAL SIGTERM$", last, re.M)
    assert "/health/live" in last
    command = re.search(r"^CMD (\[.+\])$", last, re.M)
    assert command
    options = serves(json.loads(command[1]))
    assert (options["host"], str(options["data"]), options["port"]) == ("0.0.0.0", "/data", 8080)


def test_hashes_are_checked_wherever_they_are_known() -> None:
    """Only the engine's requirements are installed without hashes, and only when asked for."""
    for line in re.findall(r"^.*pip install .*-r .+$", DOCKERFILE, re.M):
        assert ("--require-hashes" in line) != ("requirements/local.lock" in line), line


def test_compose_mounts_an_example_that_reaches_its_valkey() -> None:
    """The configuration exists, loads, and names the other service."""
    gateway = COMPOSE["services"]["gateway"]
    options = serves(gateway["command"])
    (mounted,) = [v for v in gateway["volumes"] if v.startswith("./")]
    source, target, mode = mounted.split(":")
    assert (target, mode) == (str(options["config_file"]), "ro")
    settings = config.load(ROOT / "deploy" / source)
    host = re.match(r"redis://([\w.-]+):\d+", settings.redis.url)
    assert host
    assert host[1] in COMPOSE["services"]
    assert host[1] in gateway["depends_on"]


def test_compose_keeps_the_money_and_gives_time_to_drain() -> None:
    """Valkey writes everything and evicts nothing; the grace time covers a drain."""
    words = COMPOSE["services"]["valkey"]["command"]
    given = dict(zip(words[1::2], words[2::2], strict=True))
    assert given["--appendonly"] == "yes"
    assert given["--maxmemory-policy"] == "noeviction"
    bounds = SupervisorSettings(drain_seconds=ServerSettings().drain_seconds)
    wanted_s = bounds.worker_stop_grace_s + bounds.engine_stop_grace_s + bounds.valkey_stop_grace_s
    assert int(COMPOSE["services"]["gateway"]["stop_grace_period"].rstrip("s")) >= wanted_s

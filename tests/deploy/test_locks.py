"""What is installed is locked, and what is locked is hashed."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
HASHED = {
    "base": ["embedded", "build"],
    "aws": ["aws"],
    "gcp": ["gcp"],
    "dev": ["embedded", "build", "aws", "gcp", "dev"],
}
"""Locks, and the extras that each has beside what every installation needs."""


def lock(name: str) -> dict[str, str]:
    """Return the entries of a lock by package, each with its hashes."""
    text = (ROOT / f"requirements/{name}.lock").read_text(encoding="utf-8")
    entries = re.split(r"(?m)^(?=[a-zA-Z])", text)[1:]
    return {entry.partition("==")[0]: entry for entry in entries}


def needed(extras: list[str]) -> set[str]:
    """Return the packages that the project names."""
    named = [*PROJECT["dependencies"], *(line for extra in extras for line in EXTRAS[extra])]
    return {re.split(r"[\[<>=~!; ]", line)[0].lower() for line in named}


@pytest.mark.parametrize("name", HASHED)
def test_a_lock_has_what_is_needed_and_a_hash_for_each_entry(name: str) -> None:
    """Pip checks all hashes or none."""
    entries = lock(name)
    assert needed(HASHED[name]) <= set(entries), "run make locks"
    for package, entry in entries.items():
        assert "--hash=sha256:" in entry, package


def test_locks_agree_with_each_other() -> None:
    """They are installed side by side."""
    versions: dict[str, set[str]] = {}
    for name in (*HASHED, "local"):
        for package, entry in lock(name).items():
            version = re.match(r"[^=]+==([^\s;]+)", entry)
            assert version
            versions.setdefault(package.replace("_", "-"), set()).add(version[1])
    assert {package: found for package, found in versions.items() if len(found) > 1} == {}


@pytest.mark.parametrize("extra", ["aws", "gcp"])
def test_an_extra_can_be_asked_for(extra: str) -> None:
    """Of make and of the image."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^\$\(VENV\)/.*\.{extra}\b.*:.*requirements/%\.lock", makefile, re.M)
    dockerfile = (ROOT / "deploy/Dockerfile").read_text(encoding="utf-8")
    install = f"pip install --no-deps --require-hashes -r requirements/{extra}.lock"
    assert f"*,{extra},*) {install}" in dockerfile


@pytest.mark.parametrize("file", ["Makefile", "deploy/Dockerfile"])
def test_an_installation_from_a_lock_looks_for_nothing_else(file: str) -> None:
    """A release of tomorrow must not stop it: pip would want a hash for what it finds newer."""
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    checking = [line for line in lines if "--require-hashes" in line]
    assert checking
    assert all("--no-deps" in line for line in checking)

"""Imports point down, and a worker starts without what only the engine needs."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import backends
from tests.architecture.house import PACKAGES, ROOT, sources

HEAVY = {"torch", "transformers", "safetensors", "tokenizers", "numpy", "local_engine", "botocore"}


def test_the_import_contracts_hold() -> None:
    """All of those that stand in pyproject.toml."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout


def test_adapters_do_not_know_each_other() -> None:
    """A kind of backend is one file: what two of them need lies beside them."""
    adapters = {f"backends.{kind}" for kind in backends.kinds()}
    for source in sources():
        name = source.path.removesuffix(".py").replace("/", ".")
        if name not in adapters:
            continue
        imported = {
            node.module for node in ast.walk(source.tree) if isinstance(node, ast.ImportFrom)
        }
        assert imported & adapters == set(), source.path


def test_a_worker_starts_without_torch() -> None:
    """Nothing that the gateway imports loads the engine or its libraries."""
    code = "import gateway.app, json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = {name.split(".")[0] for name in json.loads(done.stdout)}
    assert "litestar" in loaded
    assert loaded & HEAVY == set()


def test_importing_the_gateway_prints_nothing() -> None:
    """No work, no words and no warnings at import."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "import gateway.app"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_is_the_one_of_this_checkout(name: str) -> None:
    """The names are plain words: another distribution could own them, too."""
    file = importlib.import_module(name).__file__
    assert file is not None
    assert Path(file).resolve().is_relative_to(ROOT)

"""What the pages show works: every sample runs, every path that they name is there."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from gateway import config
from gateway.cli import main
from tests.docs.pages import PAGES, ROOT, Sample, of_kind, prose, read, samples
from tests.served import Served, tollway

KINDS = ("yaml", "json", "python", "sh", "toml", "text")
"""``text`` is the only kind that is not run."""

ADDRESS = "http://127.0.0.1:8080"
FRESH_DEBIAN = {"python3", "python3-venv", "make", "git", "curl"}
SAMPLE_S = 60
GUIDE = "docs/add-a-backend.md"
"""Its samples are files of this repository, which its own test writes and runs."""


def fake(name: str, **script: Any) -> dict[str, Any]:
    """A scripted model under a name that the pages use."""
    price = {"prompt": "0.01", "completion": "0.02"}
    return {"id": name, "endpoints": [{"backend": "fake", "script": script, "price": price}]}


MODELS = [
    fake("local/smollm2-135m", text="The capital of France is Paris."),
    fake("demo/fake", tokens=5),
    fake("demo/broken", tokens=5, fail={"how": "cut", "after_tokens": 3}),
]


@dataclass(frozen=True, slots=True)
class House:
    """A running server, and what a reader's shell has."""

    folder: Path
    url: str
    env: dict[str, str]

    def run(self, *argv: str) -> None:
        """Run a program as a reader would; it must succeed."""
        done = subprocess.run(
            argv,
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=SAMPLE_S,
            check=False,
        )
        assert done.returncode == 0, f"{argv[-1]}\n{done.stdout}\n{done.stderr}"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One real server on a folder of its own, with scripted models behind the pages' names."""
    folder = tmp_path_factory.mktemp("docs")
    served = Served.of(folder, {"models": MODELS})
    try:
        printed = asyncio.run(served.start())
        key = re.search(r"tw_\w+", printed)
        assert key, printed
        made = tollway("keys", "create", "--account", "of-no-page", data=served.data)
        env = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "ACME_KEY": "a-key-of-no-one",
            "TOLLWAY_API_KEY": key[0],
            "KEY_ID": made["id"],
        }
        yield House(folder, served.url, env)
        assert asyncio.run(served.stop()) == 0
    finally:
        served.kill_everything()


@pytest.mark.parametrize("page", PAGES)
def test_every_sample_is_of_a_known_kind(page: str) -> None:
    """A sample that nothing runs has to say so: its kind is ``text``."""
    for sample in samples(page):
        assert sample.info in KINDS, f"{sample}: {sample.info!r} is none of {', '.join(KINDS)}"
    assert read(page).count("```") == 2 * len(samples(page)), f"{page}: a fence is not closed"


@pytest.mark.parametrize("sample", of_kind("yaml"), ids=str)
def test_every_configuration_in_the_pages_loads(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader may copy it as it is."""
    monkeypatch.setenv("ACME_KEY", "a-key-of-no-one")
    settings = config.parse(yaml.safe_load(sample.text), str(sample))
    for model in settings.models:
        for endpoint in model.endpoints:
            config.resolve_key(endpoint, None)


@pytest.mark.parametrize("sample", of_kind("json"), ids=str)
def test_every_json_sample_is_json(sample: Sample) -> None:
    """No comments, no dots for what was left out."""
    assert json.loads(sample.text)


@pytest.mark.parametrize("sample", [s for s in of_kind("python") if s.page != GUIDE], ids=str)
def test_every_python_sample_runs(sample: Sample, house: House) -> None:
    """Against a real server, with a real key, in a process of its own."""
    house.run(sys.executable, "-c", sample.text.replace(ADDRESS, house.url))


@pytest.mark.parametrize("page", [page for page in PAGES if "```sh" in read(page)])
def test_every_shell_sample_runs(page: str, house: House) -> None:
    """In the page's order, each line as it stands; starting and installing are only checked."""
    for sample in samples(page):
        if sample.info != "sh":
            continue
        for line in commands(sample.text):
            run_line(line, house)


def commands(text: str) -> list[str]:
    """Return the commands of a shell sample, each on one line."""
    joined = text.replace("\\\n", " ")
    return [line for line in joined.splitlines() if line.strip() and not line.startswith("#")]


def run_line(line: str, house: House) -> None:
    """Run one line, or check what no test can run."""
    argv = shlex.split(line, comments=True)
    if argv[0] == "make":
        target = next(word for word in argv[1:] if "=" not in word)
        assert re.search(rf"^{re.escape(target)}:", read("Makefile"), re.M), f"no target: {line}"
    elif argv[:2] == ["sudo", "apt-get"]:
        assert set(argv[4:]) == FRESH_DEBIAN
    elif argv[:2] == ["tollway", "serve"]:
        command = main.get_command(click.Context(main), "serve")
        assert command is not None
        command.make_context("serve", argv[2:])
    elif argv[0] == "docker":
        for word in argv:
            assert not word.startswith("deploy/") or (ROOT / word).is_file(), f"no file: {line}"
    else:
        if argv[0] == "curl" and shutil.which("curl") is None:
            return
        house.run("/bin/sh", "-euc", line.replace(ADDRESS, house.url))


@pytest.mark.parametrize("page", PAGES)
def test_every_path_in_the_pages_exists(page: str) -> None:
    """In backticks, from the repository's root or from the page's folder; and every link."""
    text = prose(page)
    folder = (ROOT / page).parent
    for word in re.findall(r"`([\w.*/-]+)`", text):
        if names_a_file(word):
            found = [*ROOT.glob(word.rstrip("/")), *folder.glob(word.rstrip("/"))]
            assert found, f"{page} names {word!r}, which is not there"
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        target, _, anchor = link.partition("#")
        if "://" in target:
            continue
        path = folder / target if target else ROOT / page
        assert path.exists(), f"{page} links to {link!r}, which is not there"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.M)
            assert anchor in map(anchor_of, headings), f"{page} links to {link!r}: no such heading"


def names_a_file(word: str) -> bool:
    """Tell a path of this repository from a route, a model, an option or a path at run time."""
    if word.startswith(("/", "-", "data/", ".venv")) or "NAME" in word or word == "tollway.yaml":
        return False
    first, slash, _ = word.partition("/")
    ours = slash and (ROOT / first).is_dir() and first != "local"
    return bool(ours) or word.endswith((".md", ".py", ".lua", ".lock", ".toml", ".yaml"))


def anchor_of(heading: str) -> str:
    """Return the anchor that a heading gets where Markdown is shown."""
    kept = re.sub(r"[^\w\- ]", "", heading.lower())
    return kept.replace(" ", "-")


def test_the_license_is_apache_2() -> None:
    """Whole, with the appendix, as the foundation publishes it."""
    text = read("LICENSE")
    assert text.lstrip().startswith("Apache License\n                           Version 2.0")
    assert "END OF TERMS AND CONDITIONS" in text
    assert "APPENDIX: How to apply the Apache License to your work." in text

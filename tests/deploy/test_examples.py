"""Every example configuration loads as it is, with the secrets that it names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import backends
from backends.base import BackendConfig
from gateway import config

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
EXAMPLES = sorted((DEPLOY / "examples").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_loads_and_its_endpoints_can_be_built(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Copied to where its secrets lie, it is valid, and each endpoint has a backend."""
    text = path.read_text(encoding="utf-8")
    for variable in re.findall(r"api_key_env: (\w+)", text):
        monkeypatch.setenv(variable, "a-secret")
        assert variable in text.partition("models:")[0], (
            f"{path.name}: say that {variable} is needed"
        )
    for name in re.findall(r"api_key_file: (\S+)", text):
        (tmp_path / name).write_text("a-secret\n")
    copy = tmp_path / path.name
    copy.write_text(text)
    settings = config.load(copy)
    for model in settings.models:
        for endpoint in model.endpoints:
            api_keys = config.resolve_keys(endpoint, copy)
            assert {api_key() for api_key in api_keys} <= {"a-secret"}
            assert len(api_keys) == len(endpoint.secrets)
            backends.load(
                BackendConfig(
                    kind=endpoint.backend,
                    model=endpoint.model or model.id,
                    base_url=endpoint.base_url,
                    socket_path="/nowhere.sock" if endpoint.backend == "local" else "",
                    api_keys=api_keys,
                    options=endpoint.options,
                )
            )


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_says_what_it_is_for(path: Path) -> None:
    """A comment at its top, and a row in the folder's README."""
    assert path.read_text(encoding="utf-8").startswith("# ")
    assert f"`deploy/examples/{path.name}`" in (DEPLOY / "README.md").read_text(encoding="utf-8")


def test_the_failover_example_has_two_endpoints_in_order() -> None:
    """What its name says."""
    document = yaml.safe_load((DEPLOY / "examples/failover.yaml").read_text(encoding="utf-8"))
    (model,) = document["models"]
    assert model["strategy"] == "ordered"
    assert len(model["endpoints"]) == 2

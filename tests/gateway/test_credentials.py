"""Credentials in real use: files that change, keys that are turned away."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from backends.base import BackendConfig
from gateway import config
from gateway.endpoint_settings import EndpointSettings
from gateway.secret_file import LOOK_S, SecretFile
from gateway.settings import ModelSettings
from tests.gateway.upstreams import answer, refusal, upstream
from tests.gateway_harness import model, running, settings

PRICE = {"prompt": "0", "completion": "1"}


class Clock:
    """A clock that moves when told."""

    at = 0.0

    def __call__(self) -> float:
        """What it shows."""
        return self.at


def put(path: Path, text: str, mtime: int) -> None:
    """Write a file with a time of its own."""
    path.write_text(text)
    os.utime(path, (mtime, mtime))


def test_a_file_is_read_again_when_it_has_changed(tmp_path: Path) -> None:
    """It is looked at once a second at most, and read only when it is another."""
    path, clock = tmp_path / "key", Clock()
    put(path, "one\n", 1)
    secret = SecretFile(path, clock)
    put(path, "two\n", 2)
    assert secret() == "one", "no look within the second"
    clock.at += LOOK_S
    assert secret() == "two"
    assert "two" not in repr(secret)


@pytest.mark.parametrize("broken", ["", "sk-canary two\n", None])
def test_what_cannot_be_used_leaves_the_old_key(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, broken: str | None
) -> None:
    """Half-written, wrong or gone: a warning that quotes nothing, and another look later."""
    path, clock = tmp_path / "key", Clock()
    put(path, "one", 1)
    secret = SecretFile(path, clock)
    path.unlink() if broken is None else put(path, broken, 2)
    clock.at += LOOK_S
    with caplog.at_level(logging.WARNING, "tollway"):
        assert secret() == "one"
    assert "the old key is kept" in caplog.text
    assert "canary" not in caplog.text
    put(path, "three", 3)
    clock.at += LOOK_S
    assert secret() == "three"


def test_credentials_come_from_variables_and_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the order of the list; one that is missing is named."""
    monkeypatch.setenv("FIRST_KEY", "sk-1")
    (tmp_path / "second").write_text("sk-2\n")
    given = EndpointSettings.model_validate(
        {
            "backend": "fake",
            "price": PRICE,
            "credentials": [{"api_key_env": "FIRST_KEY"}, {"api_key_file": "second"}],
        }
    )
    resolved = config.resolve_keys(given, tmp_path / "c.yaml")
    assert [secret() for secret in resolved] == ["sk-1", "sk-2"]
    monkeypatch.delenv("FIRST_KEY")
    with pytest.raises(config.ConfigError, match="the variable FIRST_KEY is not set"):
        config.resolve_keys(given, tmp_path / "c.yaml")


def test_a_kinds_own_files_lie_beside_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As all paths do, unless they are written in full."""
    found: list[str] = []

    def load(given: BackendConfig) -> None:
        found.append(given.options["credentials_file"])

    monkeypatch.setattr("backends.load", load)
    monkeypatch.setattr("backends.check", lambda _: None)
    absolute = str(tmp_path / "full.json")
    for written in ("account.json", "keys/account.json", absolute, ""):
        document = {"backend": "vertex", "price": PRICE, "credentials_file": written}
        endpoint = EndpointSettings.model_validate(document)
        served = ModelSettings.model_validate({"id": "a/b", "endpoints": [endpoint]})
        config.build_backend(served, endpoint, tmp_path / "c.yaml", {})
    here = [str(tmp_path / name) for name in ("account.json", "keys/account.json")]
    assert found == [*here, absolute, ""]


def test_an_access_token_is_a_key_where_no_kind_has_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another word for ``api_key_env``."""
    monkeypatch.setattr("backends.option_owners", lambda: {"script": ("fake",)})
    document = {"backend": "fake", "price": PRICE, "access_token_env": "A_TOKEN"}
    assert EndpointSettings.model_validate(document).api_key_env == "A_TOKEN"
    either = {**document, "api_key_env": "ANOTHER", "access_token_env": None}
    assert EndpointSettings.model_validate(either).api_key_env == "ANOTHER"
    with pytest.raises(ValueError, match=r"'access_token_env'.*give one"):
        EndpointSettings.model_validate({**document, "api_key_env": "ANOTHER"})


@pytest.mark.anyio
@pytest.mark.parametrize("status", [401, 429])
async def test_a_request_goes_on_with_another_credential(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """At once, at the same endpoint, whose breaker stays closed; the first key rests."""
    for name in ("FIRST_KEY", "SECOND_KEY"):
        monkeypatch.setenv(name, f"sk-{name.lower()}")
    async with upstream(refusal(status), answer(["hello "])) as up:
        credentials = [{"api_key_env": "FIRST_KEY"}, {"api_key_env": "SECOND_KEY"}]
        endpoint = up.endpoint("up", credentials=credentials, retries=0)
        async with running(redis_url, settings(model(endpoint, id="m"))) as gateway:
            for _ in range(3):
                assert (await gateway.chat(model="m")).status_code == 200
            assert not gateway.worker.table.endpoint("m@up").breaker.is_open
    keys = [call.headers["authorization"] for call in up.calls]
    assert keys == ["Bearer sk-first_key", *["Bearer sk-second_key"] * 3]

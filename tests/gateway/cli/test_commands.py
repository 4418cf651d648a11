"""The command line on an empty folder, without a server: JSON shapes and exit codes."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.served import TOLLWAY, tollway

KEY = r"tw_[0-9A-Za-z]{12}_[0-9A-Za-z]{43}_[0-9A-Za-z]{6}"


def plain(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a command as people do."""
    return subprocess.run([*TOLLWAY, *words], capture_output=True, text=True, timeout=60)


def test_keys_create_makes_account_key_and_credit_on_an_empty_folder(tmp_path: Path) -> None:
    """The grant's id is the key's, so the credit is given once."""
    data = tmp_path / "new" / "data"
    made = tollway("keys", "create", "--account", "acme", "--credit", "2.5", data=data)
    assert set(made) == {"key", "id", "account"}
    assert made["account"] == "acme"
    assert tollway("credits", "show", "acme", data=data) == {
        "account": "acme",
        "available_nanodollars": 2_500_000_000,
        "held_nanodollars": 0,
        "spent_nanodollars": 0,
    }
    line = tollway("journal", "tail", "--account", "acme", data=data)[0]
    assert (line["type"], line["id"]) == ("G", made["id"])
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    assert stat.S_IMODE((data / "pepper").stat().st_mode) == 0o600
    assert made["key"] not in (data / "lock").read_text()
    listed = tollway("keys", "list", data=data)
    assert [record["id"] for record in listed] == [made["id"]]
    assert made["key"] not in str(listed)


def test_a_grant_counts_once_per_id(tmp_path: Path) -> None:
    """The same id again changes nothing; for another amount it is an error."""
    tollway("keys", "create", "--account", "acme", data=tmp_path)
    first = tollway("credits", "grant", "acme", "1", "--id", "invoice-1", data=tmp_path)
    again = tollway("credits", "grant", "acme", "1", "--id", "invoice-1", data=tmp_path)
    assert not first["duplicate"]
    assert again["duplicate"]
    assert again["available_nanodollars"] == 10**9
    wrong = tollway("credits", "grant", "acme", "2", "--id", "invoice-1", data=tmp_path, expect=1)
    assert "invoice-1" in wrong["error"]["message"]
    assert tollway("ledger", "verify", data=tmp_path)["ok"]


def test_failures_are_one_json_line_and_exit_1(tmp_path: Path) -> None:
    """An unknown account, an unknown key, no server."""
    for words in (
        ("credits", "show", "nobody"),
        ("credits", "grant", "nobody", "1", "--id", "x"),
        ("keys", "revoke", "nope"),
        ("status",),
    ):
        failed = tollway(*words, data=tmp_path, expect=1)
        assert set(failed) == {"error"}
        assert failed["error"]["message"]


@pytest.mark.parametrize(
    "words",
    [
        ("credits", "grant", "acme", "one", "--id", "x"),
        ("credits", "grant", "acme", "1"),
        ("keys", "create"),
        ("keys", "create", "--account", "a", "--rpm", "0"),
        ("keys", "create", "--account", "a", "--expires", "2001-01-01"),
        ("keys", "create", "--account", "a", "--credit", "0.0000000001"),
        ("serve", "--workers", "0"),
        ("serve", "--workers", "65"),
        ("nonsense",),
    ],
)
def test_wrong_usage_is_exit_2_and_says_what_is_wrong(words: tuple[str, ...]) -> None:
    """Nothing runs, nothing is on stdout."""
    done = plain(*words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Error" in done.stderr


def test_a_revoked_key_is_listed_as_such(tmp_path: Path) -> None:
    """Revoking is for good."""
    made = tollway("keys", "create", "--account", "acme", "--limit-usd", "1", data=tmp_path)
    assert tollway("keys", "revoke", made["id"], data=tmp_path) == {
        "id": made["id"],
        "revoked": True,
    }
    record = tollway("keys", "list", "--account", "acme", data=tmp_path)[0]
    assert record["disabled"]
    assert record["limit_nanodollars"] == 10**9


def test_config_check_names_file_path_and_remedy(tmp_path: Path) -> None:
    """Shape first, then secrets."""
    file = tmp_path / "t.yaml"
    model = {
        "id": "acme/x",
        "endpoints": [
            {
                "backend": "openai",
                "base_url": "https://api.example.com/v1",
                "model": "x",
                "prise": {"prompt": "1"},
                "price": {"prompt": "1", "completion": "2"},
                "api_key_env": "TOLLWAY_TEST_NO_SUCH_KEY",
            }
        ],
    }
    file.write_text(yaml.safe_dump({"models": [model]}))
    wrong = tollway("config", "check", str(file), data=tmp_path, expect=1)["error"]["message"]
    assert str(file) in wrong
    assert "models.0.endpoints.0.prise" in wrong
    assert "price" in wrong
    del model["endpoints"][0]["prise"]  # type: ignore[attr-defined]
    file.write_text(yaml.safe_dump({"models": [model]}))
    secret = tollway("config", "check", str(file), data=tmp_path, expect=1)["error"]["message"]
    assert "TOLLWAY_TEST_NO_SUCH_KEY" in secret
    right = tollway(
        "config", "check", str(file), data=tmp_path, env={"TOLLWAY_TEST_NO_SUCH_KEY": "k"}
    )
    assert right == {"ok": True, "models": 1, "endpoints": 1}
    listed = tollway("models", "--config", str(file), data=tmp_path)
    assert listed[0]["endpoints"][0]["price"] == {"prompt": "1", "completion": "2"}


def test_serve_refuses_before_it_starts_anything(tmp_path: Path) -> None:
    """A missing secret, missing weights, a broken file: exit 1, one clear message."""
    file = tmp_path / "t.yaml"
    file.write_text("models: [")
    done = plain("serve", "--config", str(file), "--data", str(tmp_path / "d"))
    assert done.returncode == 1
    assert "is not YAML" in done.stderr
    env = {**os.environ, "TOLLWAY_MODELS": str(tmp_path / "none")}
    done = subprocess.run(
        [*TOLLWAY, "serve", "--data", str(tmp_path / "d")],
        capture_output=True,
        text=True,
        timeout=60,
        env=env,
    )
    assert done.returncode == 1
    assert "make setup" in done.stderr


def test_every_command_has_help_and_takes_the_common_options() -> None:
    """``--json``, ``--config`` and ``--data`` everywhere."""
    for words in (
        ("serve",),
        ("keys", "create"),
        ("keys", "list"),
        ("keys", "revoke"),
        ("credits", "grant"),
        ("credits", "show"),
        ("journal", "tail"),
        ("ledger", "verify"),
        ("models",),
        ("chat",),
        ("bench",),
        ("config", "check"),
        ("status",),
        ("doctor",),
    ):
        text = plain(*words, "--help").stdout
        assert all(option in text for option in ("--json", "--config", "--data")), words


def test_doctor_finds_an_empty_folder_healthy(tmp_path: Path) -> None:
    """With a fake model nothing is missing."""
    file = tmp_path / "t.yaml"
    endpoint = {"backend": "fake", "price": {"prompt": "0", "completion": "1"}}
    file.write_text(yaml.safe_dump({"models": [{"id": "demo/fake", "endpoints": [endpoint]}]}))
    report = tollway("doctor", "--config", str(file), data=tmp_path / "d")
    assert report["ok"]
    assert {check["check"] for check in report["checks"]} >= {"valkey", "ledger", "weights"}

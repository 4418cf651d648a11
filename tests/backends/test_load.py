"""A kind of backend is a module with `build`; nothing else registers it."""

from __future__ import annotations

import importlib

import pytest

import backends
from backends.base import BackendConfig
from backends.fake import FakeBackend
from tests.contracts.backend_contract import BackendContract


def test_the_kinds_are_the_adapters() -> None:
    """Shared modules are no kinds."""
    assert {"fake", "local", "openai"} <= set(backends.kinds())
    assert not {"transport", "auth", "types", "openai_like", "vendors"} & set(backends.kinds())


@pytest.mark.parametrize("kind", backends.kinds())
def test_every_kind_is_proved_by_the_contract(kind: str) -> None:
    """A new adapter needs a `tests/backends/test_<kind>.py` that inherits the contract."""
    module = importlib.import_module(f"tests.backends.test_{kind}")
    suites = [value for name, value in vars(module).items() if name.startswith("Test")]
    assert any(issubclass(suite, BackendContract) for suite in suites)


def test_a_kind_is_loaded_by_its_name() -> None:
    """Through its `build`."""
    assert isinstance(backends.load(BackendConfig("fake", "fake")), FakeBackend)


@pytest.mark.parametrize("kind", ["transport", "wire", "os", "../fake", "", "openai_stream"])
def test_configuration_can_name_no_other_module(kind: str) -> None:
    """The error lists what there is."""
    with pytest.raises(ValueError, match=r"known are .*fake, .*local, .*openai"):
        backends.load(BackendConfig(kind, "m"))

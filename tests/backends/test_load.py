"""A kind of backend is a module with `build`; nothing else registers it."""

from __future__ import annotations

from importlib import import_module

import pytest

import backends
from backends.base import BackendConfig
from backends.fake import FakeBackend
from tests.contracts.backend_contract import BackendContract


def test_the_kinds_are_the_adapters() -> None:
    """Shared modules are no kinds."""
    assert {"fake", "local", "openai", "cohere", "tgi", "ollama"} <= set(backends.kinds())
    assert not {"auth", "base", "collect", "defaults", "transport", "wire"} & set(backends.kinds())


def test_every_kind_is_proved_by_the_contract() -> None:
    """A new adapter needs a `tests/backends/test_<kind>.py` that inherits the contract."""
    for kind in backends.kinds():
        module = import_module(f"tests.backends.test_{kind}")
        suites = [value for name, value in vars(module).items() if name.startswith("Test")]
        assert any(issubclass(suite, BackendContract) for suite in suites)


def test_a_kind_is_loaded_by_its_name() -> None:
    """Through its `build`."""
    assert isinstance(backends.load(BackendConfig("fake", "fake")), FakeBackend)


@pytest.mark.parametrize("kind", ["transport", "wire", "os", "../fake", "", "openai_stream"])
def test_configuration_can_name_no_other_module(kind: str) -> None:
    """The error lists what there is."""
    with pytest.raises(ValueError, match=f"known are {', '.join(backends.kinds())}"):
        backends.load(BackendConfig(kind, "m"))

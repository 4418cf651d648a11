"""Adapters to every kind of upstream, behind one streaming verb.

A kind of backend is a module of this package with a function ``build(config)``; nothing
else registers it. It may have a function ``check(config)``, which finds what is wrong with an
endpoint before its secrets are known, and a msgspec struct ``Options`` with the keys that only
endpoints of this kind have. Two constants are for use without any configuration: ``KEY_ENV``, the
variable that usually holds a key, and ``PRICES``, the section of the price table. What an adapter
needs beyond the base requirements it imports in ``build``.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import msgspec

from backends.base import Backend, BackendConfig
from backends.vendors import names as vendor_names
from backends.vendors import vendor


@cache
def kinds() -> tuple[str, ...]:
    """Return the kinds that configuration may name: modules here that define ``build``."""
    names = (module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg)
    return tuple(sorted(name for name in names if _defines_build(name)))


@cache
def option_owners() -> Mapping[str, tuple[str, ...]]:
    """Return the keys that only endpoints of some kinds have, each with those kinds."""
    owners: dict[str, tuple[str, ...]] = {}
    for kind in kinds():
        if options := getattr(_module(kind), "Options", None):
            for field in msgspec.structs.fields(options):
                owners[field.name] = (*owners.get(field.name, ()), kind)
    return owners


def check(config: BackendConfig) -> None:
    """Find what is wrong with an endpoint, as far as it can be said without its secrets.

    Raises:
        ValueError: naming the key, and what to write instead.
    """
    module = _module(config.kind)
    if options := getattr(module, "Options", None):
        try:
            msgspec.convert(dict(config.options), options)
        except msgspec.ValidationError as error:
            raise ValueError(f"{error}") from None
    if checked := getattr(module, "check", None):
        checked(config)


class Usual(NamedTuple):
    """A vendor that can be used with nothing but its key."""

    name: str
    kind: str
    key_env: str
    options: Mapping[str, str]


@cache
def usual() -> tuple[Usual, ...]:
    """Return the vendors whose address, key variable and prices are known, by name."""
    found = [
        Usual(kind, kind, key_env, {})
        for kind in kinds()
        if (key_env := _constant(kind, "KEY_ENV")) and _constant(kind, "PRICES")
    ]
    named = {entry.name for entry in found}
    rows = ((name, vendor(name)) for name in vendor_names() if name not in named)
    found += [
        Usual(name, "openai", row.key_env, {"vendor": name})
        for name, row in rows
        if row.base_url and row.key_env and row.prices
    ]
    return tuple(sorted(found))


def price_list(kind: str, options: Mapping[str, Any]) -> str:
    """Return the section of the price table for an endpoint of this kind; empty for none."""
    name = options.get("vendor")
    return vendor(name).prices if name else _constant(kind, "PRICES")


def load(config: BackendConfig) -> Backend:
    """Import the adapter of ``config.kind`` and build one backend.

    Raises:
        ValueError: the kind is not one of ``kinds()``.
    """
    backend: Backend = _module(config.kind).build(config)
    return backend


def _constant(kind: str, name: str) -> str:
    return str(getattr(_module(kind), name, ""))


def _module(kind: str) -> ModuleType:
    if kind not in kinds():
        raise ValueError(f"'backend': no kind {kind!r}; known are {', '.join(kinds())}")
    return importlib.import_module(f"{__name__}.{kind}")


def _defines_build(name: str) -> bool:
    """Look at the source instead of importing: an adapter may need an extra that is absent."""
    spec = find_spec(f"{__name__}.{name}")
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    return any(isinstance(node, ast.FunctionDef) and node.name == "build" for node in tree.body)

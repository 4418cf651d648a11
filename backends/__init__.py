"""Adapters to every kind of upstream, behind one streaming verb.

A kind of backend is a module of this package with a function ``build(config)``; nothing
else registers it.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from backends.base import Backend, BackendConfig


@cache
def kinds() -> tuple[str, ...]:
    """Return the kinds that configuration may name: modules here that define ``build``."""
    names = (module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg)
    return tuple(sorted(name for name in names if _defines_build(name)))


def load(config: BackendConfig) -> Backend:
    """Import the adapter of ``config.kind`` and build one backend.

    Raises:
        ValueError: the kind is not one of ``kinds()``.
    """
    if config.kind not in kinds():
        raise ValueError(f"no backend {config.kind!r}; the kinds are {', '.join(kinds())}")
    module = importlib.import_module(f"{__name__}.{config.kind}")
    backend: Backend = module.build(config)
    return backend


def _defines_build(name: str) -> bool:
    """Look at the source instead of importing: an adapter may need an extra that is absent."""
    spec = find_spec(f"{__name__}.{name}")
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    return any(isinstance(node, ast.FunctionDef) and node.name == "build" for node in tree.body)

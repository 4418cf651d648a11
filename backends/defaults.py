"""What adapters of plain HTTP APIs share: headers, and what an endpoint must say of itself."""

from __future__ import annotations

import dataclasses

from backends.base import BackendConfig
from backends.types import ChatRequest


def headers(request: ChatRequest, accept: str = "text/event-stream") -> dict[str, str]:
    """Return the headers of a JSON request, without credentials."""
    return {
        "Content-Type": "application/json",
        "Accept": accept,
        "Accept-Encoding": "identity",
        "X-Request-Id": request.request_id,
    }


def needs_model(config: BackendConfig) -> None:
    """Check that the endpoint names a model.

    Raises:
        ValueError: it names none.
    """
    if not config.model:
        raise ValueError("'model': needed here: the upstream's name of the model")


def with_base(config: BackendConfig, base_url: str) -> BackendConfig:
    """Return the settings with the vendor's own address where none was configured."""
    return config if config.base_url else dataclasses.replace(config, base_url=base_url)

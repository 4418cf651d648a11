"""Azure OpenAI: deployments under an ``api_version``, and the newer surface without one.

Source: learn.microsoft.com, "Azure OpenAI in Foundry Models REST API reference", and recorded
exchanges of both forms.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

import msgspec

from backends.base import BackendConfig
from backends.openai_like import OpenAILike, need_address
from backends.vendors import API, Vendor, vendor

_MODERN: Final = "2024-09-01"
"""From this version on it knows ``max_completion_tokens`` and reports usage in streams."""

_V1: Final = "/openai/v1"
PRICES = "azure"
"""Its section in the table of list prices."""


class Options(msgspec.Struct, forbid_unknown_fields=True):
    """What only this kind knows."""

    api: API | None = None
    """What to speak: ``chat`` (if absent), ``responses`` or ``completions``."""

    api_version: str = ""
    """Such as ``2024-12-01-preview``: then ``model`` names a deployment. Empty: ``/openai/v1``."""


def check(config: BackendConfig) -> None:
    """Check what can be checked without secrets.

    Raises:
        ValueError: there is no base URL or no model.
    """
    need_address(config, "https://RESOURCE.openai.azure.com")


def build(config: BackendConfig) -> Azure:
    """Build a backend for a resource; its key travels as ``api-key``."""
    return Azure(config, msgspec.convert(dict(config.options), Options))


class Azure(OpenAILike):
    """One deployment of one resource."""

    def __init__(self, config: BackendConfig, options: Options) -> None:
        """Prepare; nothing connects yet."""
        super().__init__(config, _row(options.api_version), options.api)
        self._version = options.api_version

    def path(self, path: str) -> str:
        """See ``OpenAILike``."""
        base = self.config.base_url.rstrip("/")
        if not self._version:
            return path if base.endswith("/v1") else _V1 + path
        root = "" if base.endswith("/openai") else "/openai"
        if path != "/responses":
            root += f"/deployments/{quote(self.config.model, safe='')}"
        return f"{root}{path}?api-version={quote(self._version, safe='')}"


def _row(version: str) -> Vendor:
    row = vendor("azure")
    if version and version < _MODERN:
        return msgspec.structs.replace(row, output_field="max_tokens", usage="always")
    return row

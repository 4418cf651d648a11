"""Azure OpenAI: deployments under an ``api_version``, and the newer surface without one.

The key is the resource's, or with a tenant and an application the latter's client secret.
Source: learn.microsoft.com, "Azure OpenAI in Foundry Models REST API reference", and recorded
exchanges of both forms.
"""

from __future__ import annotations

import dataclasses
from typing import Final
from urllib.parse import quote

import msgspec

from backends.base import BackendConfig, Probe
from backends.entra_auth import AUTHORITY, SCOPE, Application, application
from backends.openai_like import MODELS, OpenAILike, need_address
from backends.token_auth import TokenAuth
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

    tenant_id: str = ""
    """The Microsoft Entra tenant that gives tokens; empty: the key is the resource's own."""

    client_id: str = ""
    """The application in it, whose client secret the endpoint's key is."""

    authority: str = AUTHORITY
    """Where tokens are asked for; national clouds have their own."""

    scope: str = SCOPE
    """What they are for."""


def check(config: BackendConfig) -> None:
    """Check what can be checked without secrets.

    Raises:
        ValueError: there is no base URL or no model, or half of an application.
    """
    need_address(config, "https://RESOURCE.openai.azure.com")
    options = _options(config)
    if bool(options.tenant_id) is not bool(options.client_id):
        raise ValueError("'tenant_id' and 'client_id': give both, or neither")


def build(config: BackendConfig) -> Azure:
    """Build a backend for a resource: its key travels as ``api-key``, a token as a bearer's.

    Raises:
        ValueError: there is an application without a key, or its authority is no address.
    """
    return Azure(config, _options(config))


class Azure(OpenAILike):
    """One deployment of one resource."""

    def __init__(self, config: BackendConfig, options: Options) -> None:
        """Prepare; nothing connects yet."""
        super().__init__(config, _row(options.api_version), options.api)
        self._version = options.api_version
        if options.tenant_id:
            who = Application(
                options.tenant_id, options.client_id, options.authority, options.scope
            )
            self._auth = TokenAuth(application(config, who))

    def path(self, path: str) -> str:
        """See ``OpenAILike``."""
        base = self.config.base_url.rstrip("/")
        if not self._version:
            return path if base.endswith("/v1") else _V1 + path
        root = "" if base.endswith("/openai") else "/openai"
        if path not in ("/responses", MODELS):
            root += f"/deployments/{quote(self.config.model, safe='')}"
        return f"{root}{path}?api-version={quote(self._version, safe='')}"

    async def probe(self, *, deadline: float) -> Probe:
        """See ``OpenAILike``; its list is of models, and endpoints may name deployments."""
        return dataclasses.replace(await super().probe(deadline=deadline), models=None)


def _options(config: BackendConfig) -> Options:
    return msgspec.convert(dict(config.options), Options)


def _row(version: str) -> Vendor:
    row = vendor("azure")
    if version and version < _MODERN:
        return msgspec.structs.replace(row, output_field="max_tokens", usage="always")
    return row

"""Access tokens of Microsoft Entra: OAuth 2.0's client credentials, with a client secret.

Source: learn.microsoft.com, "Microsoft identity platform and the OAuth 2.0 client credentials
flow" (read 2026-11); RFC 6749, 4.4 and 5.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import quote, urlencode

import msgspec

from backends.base import BackendConfig
from backends.errors import (
    BackendError,
    EndpointRejected,
    ProtocolError,
    RequestRejected,
    UpstreamFailed,
)
from backends.token_auth import Fetch, Token
from backends.transport import Post, Transport

AUTHORITY: Final = "https://login.microsoftonline.com"
SCOPE: Final = "https://cognitiveservices.azure.com/.default"

PATIENCE_S: Final = 30.0
"""How long the token server may take."""

_FAILED: Final = "the endpoint's token server was not reached, or failed"
_HEADERS: Final = {
    "Content-Type": "application/x-www-form-urlencoded",
    "Accept": "application/json",
    "Accept-Encoding": "identity",
}


class Application(msgspec.Struct, frozen=True):
    """Who asks for a token, where, and for what."""

    tenant_id: str
    client_id: str
    authority: str = AUTHORITY
    scope: str = SCOPE


class _Grant(msgspec.Struct):
    access_token: str
    expires_in: float


_grant = msgspec.json.Decoder(_Grant, strict=False).decode


def application(
    config: BackendConfig, who: Application, clock: Callable[[], float] = time.time
) -> Fetch:
    """Return how tokens are had for an application whose secret is the endpoint's key.

    Of several keys the first that is accepted counts, so that a secret can be replaced.

    Args:
        config: the endpoint's settings.
        who: the application.
        clock: tells Unix time.

    Raises:
        ValueError: the endpoint has no key, or the authority is no address.
    """
    if not config.api_keys:
        raise ValueError("'api_key_env': needed here: the variable that holds the client secret")
    server = dataclasses.replace(config, base_url=who.authority, socket_path="")
    try:
        Transport(server)
    except ValueError:
        raise ValueError(f"'authority': must be an address such as {AUTHORITY}") from None

    async def fetch() -> Token:
        transport = Transport(server)  # for one request an hour no connection is kept
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await _first(transport, who, [key() or "" for key in config.api_keys], clock)
        except TimeoutError:
            raise UpstreamFailed(_FAILED) from None
        finally:
            await transport.aclose()

    return fetch


async def _first(
    transport: Transport, who: Application, secrets: list[str], clock: Callable[[], float]
) -> Token:
    """Return the token that the first accepted secret gets."""
    refused: EndpointRejected | None = None
    for secret in secrets:
        form = {
            "grant_type": "client_credentials",
            "client_id": who.client_id,
            "client_secret": secret,
            "scope": who.scope,
        }
        path = f"/{quote(who.tenant_id, safe='')}/oauth2/v2.0/token"
        asked_s = clock()
        try:
            body = await _answer(transport, Post(path, _HEADERS, urlencode(form).encode()))
        except EndpointRejected as error:
            refused = error
            continue
        grant = _read(body)
        return Token(grant.access_token, asked_s + grant.expires_in)
    assert refused is not None
    raise refused


async def _answer(transport: Transport, call: Post) -> bytes:
    """Return the answer's body.

    Raises:
        EndpointRejected: the server gives this application no token.
        UpstreamFailed: it was not reached, or failed.
    """
    try:
        return await (await transport.post(call)).whole()
    except (RequestRejected, EndpointRejected) as error:
        # Its words name tenant and application: they stay in the cause.
        raise EndpointRejected(
            "no access token for the endpoint's application: "
            "look at tenant_id, client_id and the client secret"
        ) from error
    except BackendError as error:
        raise UpstreamFailed(_FAILED) from error


def _read(body: bytes) -> _Grant:
    try:
        grant = _grant(body)
    except msgspec.DecodeError as error:
        raise ProtocolError("the token server's answer is no token") from error
    text = grant.access_token
    if not (text and text.isascii() and text.isprintable() and grant.expires_in > 0):
        raise ProtocolError("the token server's answer is no token")
    return grant

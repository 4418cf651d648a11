"""Credentials for AWS: requests signed by botocore (extra ``aws``), or a Bedrock API key.

Source: "AWS Signature Version 4 for API requests" in the IAM user guide, and botocore 1.44.5
(read 2026-11). botocore is imported where a signer is built, never with this module.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any, Final

from backends.auth import Auth, KeyAuth
from backends.base import BackendConfig
from backends.errors import BackendError, EndpointRejected

DEFAULT_REGION: Final = "us-east-1"
_REGION: Final = re.compile(r"\b[a-z]{2}(?:-[a-z]+)+-\d\b", re.ASCII)
_CONTENT_TYPE: Final = "application/json"
_NEEDED_S: Final = 60
"""With less time left than this a credential is renewed before the request, not beside it."""


def aws_auth(config: BackendConfig, *, service: str, region: str) -> Auth:
    """Return what authenticates the requests of an endpoint; its secrets are looked up now.

    A key of the endpoint's own goes into a header. Without one requests are signed, with what
    AWS's usual chain finds: variables, profile, container, machine role. A private server on
    plain http is asked without, if nothing is found.

    Args:
        config: the endpoint.
        service: the name that is signed, such as ``bedrock``.
        region: the region that is signed; empty means the one that the base URL names, or the
            profile, or us-east-1.

    Raises:
        ValueError: there are no credentials, or the extra ``aws`` is not installed.
    """
    if any(key() for key in config.api_keys):
        return KeyAuth(config.api_keys)
    try:
        from botocore.exceptions import BotoCoreError
        from botocore.session import Session
    except ImportError:
        raise ValueError(f"'backend': {config.kind!r} needs the extra 'tollway[aws]'") from None
    try:
        session = Session()
        found = session.get_credentials()
        named = _REGION.search(config.base_url)
        region = region or (named[0] if named else "") or session.get_config_variable("region")
    except BotoCoreError as error:
        raise ValueError(f"AWS credentials: {error}") from None
    if found is not None:
        return SignedAuth(found, service=service, region=region or DEFAULT_REGION)
    if config.base_url.startswith("http://"):
        return KeyAuth(())
    raise ValueError(
        "no AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, "
        "or run under a role"
        + ("; or give 'api_key_env' with a Bedrock API key" if service == "bedrock" else "")
    )


def aws_url(host: str, region: str) -> str:
    """Return the public address of a service in a region."""
    return f"https://{host}.{region}.amazonaws.com{'.cn' if region.startswith('cn-') else ''}"


class SignedAuth:
    """Signs each request over its URL and body (``auth.Auth``).

    The headers that it returns are all that it signs, beside the host: they must be sent as
    they are. Credentials that expire are renewed in a thread, ahead of time.
    """

    def __init__(self, credentials: Any, *, service: str, region: str) -> None:
        """Sign with botocore's ``Credentials``, or a kind of them that renews itself."""
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest

        self._credentials = credentials
        self._signer = SigV4Auth(None, service, region)
        self._request = AWSRequest
        self._renewal: asyncio.Task[None] | None = None
        if not hasattr(credentials, "refresh_needed"):
            self._signer.credentials = credentials.get_frozen_credentials()

    async def ready(self) -> None:
        """Have credentials that last; only where they would not, it waits for new ones.

        Raises:
            EndpointRejected: they are over and there are no new ones.
        """
        credentials = self._credentials
        known = self._signer.credentials is not None
        if not hasattr(credentials, "refresh_needed"):
            return
        if known and not credentials.refresh_needed():
            return
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self._renew())
        if known and not credentials.refresh_needed(_NEEDED_S):
            return
        await asyncio.shield(self._renewal)  # others wait for it too
        if self._signer.credentials is None or credentials.refresh_needed(0):
            raise EndpointRejected("the endpoint's AWS credentials are over; none came instead")

    def headers(self, url: str, body: bytes) -> Mapping[str, str]:
        """See ``Auth``."""
        request = self._request("POST", url, {"Content-Type": _CONTENT_TYPE}, body)
        self._signer.add_auth(request)
        return dict(request.headers.items())

    def failed(self, headers: Mapping[str, str], error: BackendError) -> None:
        """Nothing is remembered: there is one identity."""

    async def _renew(self) -> None:
        try:
            self._signer.credentials = await asyncio.to_thread(
                self._credentials.get_frozen_credentials
            )
        except Exception:  # noqa: BLE001 - a chain of plugins; ``ready`` sees what is missing
            return

"""Names for requests and generations."""

from __future__ import annotations

import re
import secrets
from typing import Final

from litestar.types import Scope

REQUEST_ID: Final = "tollway_request_id"
"""Where the id lies in an ASGI scope's state."""

REQUEST_ID_HEADER: Final = b"x-request-id"

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def generation_id(created_s: int) -> str:
    """Return a new generation id; also the id of the reservation."""
    return f"gen-{created_s}-{_random(20)}"


def request_id(given: str | None) -> str:
    """Return the client's request id if it may go into a header and a log, else a new one."""
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given
    return f"req-{_random(20)}"


def request_id_of(scope: Scope) -> str:
    """Return the id that the application gave a request."""
    return str(scope["state"].get(REQUEST_ID, ""))


def _random(length: int) -> str:
    return secrets.token_hex(length // 2)  # one look at the system's randomness

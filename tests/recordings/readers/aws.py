"""boto3's Bedrock client, given recorded bytes instead of a network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
from botocore.awsrequest import AWSResponse


class Raw:
    """A body as urllib3 would hand it over."""

    def __init__(self, body: bytes) -> None:
        """Keep the bytes."""
        self._body = body

    def stream(self, amt: int = 1024, **_: Any) -> Iterator[bytes]:
        """Yield the body in small reads."""
        for start in range(0, len(self._body), amt):
            yield self._body[start : start + amt]

    def read(self, *_: Any) -> bytes:
        """Return all of it, once."""
        body, self._body = self._body, b""
        return body

    def close(self) -> None:
        """Nothing is open."""


def client(body: bytes, *, stream: bool) -> Any:
    """Return a client whose every request is answered by these bytes."""
    kind = "application/vnd.amazon.eventstream" if stream else "application/json"
    made = boto3.client(
        "bedrock-runtime",
        region_name="us-east-1",
        aws_access_key_id="none",
        aws_secret_access_key="none",
    )

    def answer(**_: Any) -> AWSResponse:
        return AWSResponse("http://recorded", 200, {"content-type": kind}, Raw(body))

    made.meta.events.register("before-send.bedrock-runtime", answer)
    return made

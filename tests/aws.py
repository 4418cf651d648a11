"""AWS as tests play it: frames of its event streams, and a look at the signatures it gets.

botocore reads frames and makes signatures, but has no writer of the one and no check of the
other. ``tests/backends/test_bedrock.py`` shows that boto3 itself accepts what is written here.
"""

from __future__ import annotations

import base64
import json
from struct import pack
from typing import Any
from urllib.parse import urlsplit
from zlib import crc32

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.upstream import Request

ACCESS_KEY = "AKIDEXAMPLE"
SECRET_KEY = "a secret that signs"
TOKEN = "a session's token"
EVENT_STREAM = {"Content-Type": "application/vnd.amazon.eventstream"}


def frame(headers: dict[str, str], payload: bytes) -> bytes:
    """Return one frame: prelude, its checksum, headers, payload, the checksum of all."""
    head = b"".join(_header(name, value) for name, value in headers.items())
    prelude = pack(">II", 16 + len(head) + len(payload), len(head))
    message = prelude + pack(">I", crc32(prelude)) + head + payload
    return message + pack(">I", crc32(message))


def event(kind: str, payload: Any, content: str = "") -> bytes:
    """Return the frame of an event; a payload that is not bytes becomes JSON."""
    content = content or (
        "application/octet-stream" if isinstance(payload, bytes) else "application/json"
    )
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    headers = {":message-type": "event", ":event-type": kind, ":content-type": content}
    return frame(headers, body)


def exception(kind: str, message: str) -> bytes:
    """Return the frame with which a stream breaks."""
    headers = {":message-type": "exception", ":exception-type": kind}
    return frame(
        {**headers, ":content-type": "application/json"}, json.dumps({"message": message}).encode()
    )


def chunk(document: Any) -> bytes:
    """Return the frame that ``invoke-with-response-stream`` puts around a model's event."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return event("chunk", {"bytes": base64.b64encode(body).decode(), "p": "abc"})


def part(data: bytes) -> bytes:
    """Return the frame that SageMaker puts around a piece of a container's answer."""
    return event("PayloadPart", data)


def text(piece: str, index: int = 0) -> bytes:
    """Return a piece of text of Converse."""
    return event(
        "contentBlockDelta", {"contentBlockIndex": index, "delta": {"text": piece}, "p": "abcd"}
    )


def stop(reason: str = "end_turn") -> bytes:
    """Return the end of a message of Converse."""
    return event("messageStop", {"stopReason": reason, "p": "ab"})


def metadata(prompt: int = 7, completion: int = 3, **more: Any) -> bytes:
    """Return the counts that follow it."""
    counts = {"inputTokens": prompt, "outputTokens": completion}
    usage = {**counts, "totalTokens": prompt + completion, **more}
    return event("metadata", {"usage": usage, "metrics": {"latencyMs": 1}, "p": "abc"})


def converse(*pieces: str, reason: str = "end_turn", counted: bool = True) -> list[bytes]:
    """Return the frames of an answer of Converse."""
    frames = [event("messageStart", {"role": "assistant", "p": "a"})]
    frames += [text(piece) for piece in pieces]
    frames += [event("contentBlockStop", {"contentBlockIndex": 0}), stop(reason)]
    told = metadata(completion=len(pieces)) if counted else event("metadata", {"metrics": {}})
    return [*frames, told]


def signed_well(request: Request, service: str, region: str = "us-east-1") -> bool:
    """Compute the signature again from what arrived, and compare."""
    given = request.headers["authorization"]
    scheme, _, rest = given.partition(" ")
    fields = dict(item.strip().split("=", 1) for item in rest.split(","))
    token = request.headers.get("x-amz-security-token")
    signer = SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY, token), service, region)
    names = fields["SignedHeaders"].split(";")
    url = f"http://{request.headers['host']}{request.path}"
    again = AWSRequest(
        request.method, url, {name: request.headers[name] for name in names}, request.body
    )
    again.context["timestamp"] = request.headers["x-amz-date"]
    signature = signer.signature(
        signer.string_to_sign(again, signer.canonical_request(again)), again
    )
    assert urlsplit(url).port is None or str(urlsplit(url).port) in request.headers["host"]
    return (
        scheme == "AWS4-HMAC-SHA256"
        and fields["Credential"] == signer.scope(again)
        and {"host", "x-amz-date"} <= set(names)
        and all(name in names for name in request.headers if name.startswith("x-amz-"))
        and fields["Signature"] == signature
    )


@pytest.fixture
def aws_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """Credentials in the usual variables, and none from anywhere else."""
    no_account(monkeypatch, str(tmp_path))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)


def no_account(monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    """Take away all that botocore could find on this machine."""
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "PROFILE", "REGION"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", f"{folder}/config")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", f"{folder}/credentials")


def _header(name: str, value: str) -> bytes:
    data = value.encode()
    return bytes([len(name)]) + name.encode() + b"\x07" + pack(">H", len(data)) + data

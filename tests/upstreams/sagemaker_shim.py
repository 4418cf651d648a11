"""What stands before a container in SageMaker: a signed request in, its answer framed as events.

The signature is checked with botocore, by signing again what arrived. The container's own route is
``/invocations``, as SageMaker's contract for containers says (AWS, read 2026-11).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from tests.aws_frames import frame

from tests.upstream import Exchange, Upstream, serving

ACCESS_KEY, SECRET_KEY, REGION = "AKIDEXAMPLE", "a-secret-for-tests", "us-east-1"


def signed_rightly(exchange: Exchange, address: str) -> bool:
    """Whether the request carries the signature that botocore makes of it."""
    request = exchange.request
    given = request.headers["authorization"]
    names = given.partition("SignedHeaders=")[2].partition(",")[0].split(";")
    again = AWSRequest("POST", f"http://{address}{request.path}", data=request.body)
    for name in names:
        again.headers[name] = request.headers[name]
    again.context["timestamp"] = request.headers["x-amz-date"]
    auth = SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY), "sagemaker", REGION)
    text = auth.string_to_sign(again, auth.canonical_request(again))
    return given.endswith(f"Signature={auth.signature(text, again)}")


@asynccontextmanager
async def shim(container: str) -> AsyncIterator[Upstream]:
    """Serve SageMaker's streaming route before a container's address."""

    async def invoke(exchange: Exchange) -> None:
        assert exchange.request.path == "/endpoints/smol/invocations-response-stream"
        if not signed_rightly(exchange, exchange.request.headers["host"]):
            await exchange.reply(403, b'{"message": "the signature does not match"}')
            return
        async with (
            httpx.AsyncClient(timeout=120) as client,
            client.stream(
                "POST",
                f"{container}/invocations",
                content=exchange.request.body,
                headers={"Content-Type": "application/json"},
            ) as answer,
        ):
            await exchange.head(
                answer.status_code, {"Content-Type": "application/vnd.amazon.eventstream"}
            )
            async for piece in answer.aiter_raw():
                await exchange.send(frame("PayloadPart", piece))
            await exchange.end()

    async with serving(invoke) as upstream:
        yield upstream

"""What stands before a container in SageMaker: a signed request in, its answer framed as events.

The signature is checked with botocore, by signing again what arrived (`tests/aws.py`). The
container's own route is ``/invocations``, as SageMaker's contract for containers says (AWS, read
2026-11).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from tests import aws
from tests.upstream import Exchange, Upstream, serving

REGION = "us-east-1"


@asynccontextmanager
async def shim(container: str) -> AsyncIterator[Upstream]:
    """Serve SageMaker's streaming route before a container's address."""

    async def invoke(exchange: Exchange) -> None:
        assert exchange.request.path == "/endpoints/smol/invocations-response-stream"
        if not aws.signed_well(exchange.request, "sagemaker", REGION):
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
                await exchange.send(aws.part(piece))
            await exchange.end()

    async with serving(invoke) as upstream:
        yield upstream

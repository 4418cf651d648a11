"""Health and metrics."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, get

from gateway.worker import Worker

PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


@get("/health/live", summary="Liveness", sync_to_thread=False)
def live() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@get("/health/ready", summary="Readiness")
async def ready(request: Request[Any, Any, Any]) -> Response[dict[str, Any]]:
    """The worker can serve."""
    worker: Worker = request.app.state.worker
    is_ready, checks = await worker.health.checks()
    status = "ok" if is_ready else "unavailable"
    return Response({"status": status, "checks": checks}, status_code=200 if is_ready else 503)


@get("/metrics", summary="Prometheus metrics", media_type="text/plain")
async def metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
    """The workers' metrics, whichever is asked, and the engines'."""
    worker: Worker = request.app.state.worker
    worker.metrics.open_streams.set(len(worker.ticker))
    text = worker.metrics.text() + await worker.health.engine_metrics()
    return Response(text, headers={"content-type": PROMETHEUS})

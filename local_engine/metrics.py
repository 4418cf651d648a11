"""What the engine counts, under the names that vLLM uses, so that its dashboards fit."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

_FIRST_TOKEN_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_PER_TOKEN_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2.5, 5)
_REQUEST_S = (0.1, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300, 600)


class EngineMetrics:
    """One model's metrics in a registry of their own."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, model: str) -> None:
        """Start every metric at zero, labeled with the public model name."""
        self._model = model
        self._registry = CollectorRegistry()
        self.prompt_tokens = self._counter("prompt_tokens", "Prompt tokens taken up")
        self.generation_tokens = self._counter("generation_tokens", "Tokens sampled")
        self.first_token_s = self._histogram(
            "time_to_first_token_seconds", "From arrival to the first token", _FIRST_TOKEN_S
        )
        self.per_token_s = self._histogram(
            "time_per_output_token_seconds", "Between tokens of one request", _PER_TOKEN_S
        )
        self.request_s = self._histogram(
            "e2e_request_latency_seconds", "From arrival to the end", _REQUEST_S
        )
        self._finished = Counter(
            "vllm:request_success",
            "Requests that ended, by how",
            ("model_name", "finished_reason"),
            registry=self._registry,
        )

    def watch(self, name: str, text: str, read: Callable[[], int]) -> None:
        """Show a number that is read anew whenever metrics are asked for."""
        gauge = Gauge(f"vllm:{name}", text, ("model_name",), registry=self._registry)
        gauge.labels(self._model).set_function(read)

    def count_finished(self, reason: str) -> None:
        """Count a request that ended; `reason` is `stop`, `length`, `abort` or `error`."""
        self._finished.labels(self._model, reason).inc()

    def render(self) -> bytes:
        """Return all metrics in Prometheus's text format."""
        return generate_latest(self._registry)

    def _counter(self, name: str, text: str) -> Counter:
        counter = Counter(f"vllm:{name}", text, ("model_name",), registry=self._registry)
        return counter.labels(self._model)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        histogram = Histogram(
            f"vllm:{name}", text, ("model_name",), buckets=buckets, registry=self._registry
        )
        return histogram.labels(self._model)

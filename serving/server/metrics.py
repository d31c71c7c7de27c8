"""The numbers that `/metrics` shows to Prometheus."""

from typing import Any

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from .worker_pool import REASONS

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60)


class Metrics:
    """What `/metrics` shows, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        prometheus_client.ProcessCollector(registry=self.registry)
        prometheus_client.PlatformCollector(registry=self.registry)
        prometheus_client.GCCollector(registry=self.registry)
        self.requests = Counter(
            "musical_requests",
            "Requests by route, status and error code",
            ["route", "status", "code"],
            registry=self.registry,
        )
        self.request_seconds = self._histogram(
            "musical_request_seconds",
            "Seconds from a request's headers to the end of its answer",
            labelnames=["route"],
        )
        self.queue_seconds = self._histogram(
            "musical_queue_seconds", "Seconds a filled image waited, for a thread and the model"
        )
        self.run_seconds = self._histogram(
            "musical_run_seconds",
            "Seconds a filled image was worked on: decoding, filling, encoding",
        )
        self.model_seconds = self._histogram(
            "musical_model_seconds", "Seconds of one run of the model"
        )
        self.batch_size = self._histogram(
            "musical_model_batch_size", "Windows in one run of the model", (1, 2, 4, 8, 16, 32, 64)
        )
        self.in_flight = Gauge(
            "musical_requests_in_flight", "Requests without an answer", registry=self.registry
        )
        self.queue_depth = Gauge(
            "musical_queue_depth", "Requests that wait for a thread", registry=self.registry
        )
        self.workers_ended = Counter(
            "musical_workers_ended",
            "Worker processes that were ended, by reason",
            ["reason"],
            registry=self.registry,
        )
        for reason in REASONS:
            self.workers_ended.labels(reason)
        self.workers = Gauge(
            "musical_workers", "Worker processes that are alive", registry=self.registry
        )

    def observe_batch(self, size: int, seconds: float) -> None:
        """Notes one run of the model."""
        self.batch_size.observe(size)
        self.model_seconds.observe(seconds)

    def _histogram(
        self, name: str, text: str, buckets: tuple[float, ...] = _SECONDS, **options: Any
    ) -> Histogram:
        return Histogram(name, text, buckets=buckets, registry=self.registry, **options)

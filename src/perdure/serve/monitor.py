"""Metrics of the server for Prometheus: requests, batches, lessons, the model."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)
_IMAGES = (1, 2, 4, 8, 16, 32, 64)


class Monitor:
    """Counts what a server does.

    Attributes:
        images: images that were answered.
        batches: images of a forward, and its seconds.
        lessons: lessons by outcome.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "perdure_requests", "Requests.", ("route", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "perdure_request_seconds",
            "Seconds from a request to the end of its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.images = Counter(
            "perdure_images", "Images that were answered.", registry=self._registry
        )
        self._batch_images = Histogram(
            "perdure_batch_images",
            "Images that shared a forward.",
            buckets=_IMAGES,
            registry=self._registry,
        )
        self._batch_seconds = Histogram(
            "perdure_batch_seconds",
            "Seconds of a forward.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.lessons = Counter(
            "perdure_lessons", "Lessons, by outcome.", ("outcome",), registry=self._registry
        )

    def watch(self, name: str, about: str, value: Callable[[], float]) -> None:
        """Add a figure that is asked for whenever metrics are."""
        Gauge(f"perdure_{name}", about, registry=self._registry).set_function(value)

    def batch(self, images: int, seconds: float) -> None:
        """Count a forward."""
        self._batch_images.observe(images)
        self._batch_seconds.observe(seconds)

    def text(self) -> bytes:
        """All metrics in the format of Prometheus."""
        return generate_latest(self._registry)

    def wrap(self, app: ASGIApp) -> ASGIApp:
        """Return the application with its requests counted."""

        async def counting(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            began, status = time.monotonic(), 500

            async def noting(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                await send(message)

            try:
                await app(scope, receive, noting)
            finally:
                route = getattr(scope.get("route"), "path", "other")
                self._requests.labels(route, status).inc()
                self._seconds.labels(route).observe(time.monotonic() - began)

        return counting

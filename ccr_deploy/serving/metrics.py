"""Prometheus metrics, in addition to the request durations that KServe's SDK measures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram

if TYPE_CHECKING:
    from collections.abc import Callable

_LABELS = ("model_name",)
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)

IMAGES = Counter("ccr_deploy_images", "Images or codes processed by an engine", _LABELS)
REFUSED = Counter("ccr_deploy_refused", "Requests that were rejected or failed", (*_LABELS, "reason"))
WAITING = Gauge("ccr_deploy_waiting_images", "Images or codes waiting for an engine", _LABELS)
RUN_IMAGES = Histogram(
    "ccr_deploy_run_images",
    "Images or codes per run of an engine",
    _LABELS,
    buckets=(1, 2, 4, 8, 16, 32, 64, 128),
)
RUN_SECONDS = Histogram(
    "ccr_deploy_run_seconds", "Duration of one run of an engine, in seconds", _LABELS, buckets=_SECONDS
)


class EngineMetrics:
    """The metrics of one engine. Its labels are looked up once, not in each run."""

    def __init__(self, model_name: str, waiting: Callable[[], int]) -> None:
        """Start the metrics of an engine.

        Args:
            model_name: the name of its model.
            waiting: a function that returns the number of images that wait; called when metrics are read.
        """
        self._images = IMAGES.labels(model_name)
        self._run_images = RUN_IMAGES.labels(model_name)
        self._run_seconds = RUN_SECONDS.labels(model_name)
        WAITING.labels(model_name).set_function(waiting)

    def count_run(self, images: int, seconds: float) -> None:
        """Count a run of the engine."""
        self._images.inc(images)
        self._run_images.observe(images)
        self._run_seconds.observe(seconds)

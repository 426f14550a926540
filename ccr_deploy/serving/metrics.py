"""Prometheus metrics, in addition to the request durations that KServe's SDK measures."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

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

"""What Prometheus is told, beside the seconds of each request, which KServe's SDK counts."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

_LABELS = ("model_name",)
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)

IMAGES = Counter("ccr_deploy_images", "Images or codes that an engine answered", _LABELS)
REFUSED = Counter("ccr_deploy_refused", "Requests that were not answered", (*_LABELS, "reason"))
WAITING = Gauge("ccr_deploy_waiting_images", "Images or codes that wait for an engine", _LABELS)
RUN_IMAGES = Histogram(
    "ccr_deploy_run_images",
    "Images or codes in one run of an engine",
    _LABELS,
    buckets=(1, 2, 4, 8, 16, 32, 64, 128),
)
RUN_SECONDS = Histogram(
    "ccr_deploy_run_seconds", "Seconds of one run of an engine", _LABELS, buckets=_SECONDS
)

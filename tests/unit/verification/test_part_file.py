"""Part files: what a run compares, as its header has it."""

from __future__ import annotations

from ccr_deploy.core.records import canonical_json, convert
from ccr_deploy.core.untrusted import parse_json
from ccr_deploy.verification.gates import GateLimits
from ccr_deploy.verification.part_file import RecordedLimits


def test_recorded_limits_keep_their_reasons() -> None:
    limits = GateLimits({"max-flipped-percent": 1.5, "min-cosine": 0.98}, {"max-flipped-percent": "--gate"})
    stored = parse_json(canonical_json(RecordedLimits.of(limits)))
    assert convert(RecordedLimits, stored).limits() == limits

"""Comparison of the results of several devices for one golden file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ccr_deploy.core.records import parse_versioned_json
from ccr_deploy.core.untrusted import MAX_RESULT_BYTES, read_bytes, reading
from ccr_deploy.errors import GoldenError
from ccr_deploy.verification.results import SCHEMA_VERSION, VerificationReport

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ccr_deploy.verification.results import GoldenAnswers

REMEDY = "write it on the device with ccr-deploy verify BUNDLE --golden FILE --json"


@dataclass(frozen=True)
class DeviceResult:
    """Agreement of one device with the first.

    `same_top1` counts the images with the first device's class, `other_class` names the others.
    `max_probability_difference` is that of the top-1 classes. `passed` is whether the device's own gates
    passed. The first device agrees with itself.
    """

    path: Path
    target: str
    engines: str
    images: int
    equal_payloads: int
    same_top1: int
    max_probability_difference: float
    passed: bool
    other_class: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        """Whether the device answers every image as the first does, within its own gates."""
        return self.passed and not self.other_class


def compare_devices(paths: Sequence[Path]) -> list[DeviceResult]:
    """Compare the results of ``verify --golden --json`` of several devices with those of the first.

    Args:
        paths: JSON files, at least one, all of the same golden file.

    Raises:
        GoldenError: if a file cannot be read, is not such a result, or is of another golden file.
    """
    results = [(path, *_read(path)) for path in paths]
    first_path, _, first = results[0]
    compared = []
    for path, report, golden in results:
        if golden.sha256 != first.sha256:
            raise GoldenError(
                f"{path}: result of another golden file: its SHA-256 begins {golden.sha256[:12]}, that of "
                f"{first_path} {first.sha256[:12]}: verify both with the same file"
            )
        if [answer.image for answer in golden.answers] != [answer.image for answer in first.answers]:
            raise GoldenError(f"{path}: damaged: its images are not those of {first_path}: {REMEDY}")
        pairs = list(zip(golden.answers, first.answers, strict=True))
        differences = [abs(own.probability - other.probability) for own, other in pairs]
        compared.append(
            DeviceResult(
                path=path,
                target=report.target,
                engines=", ".join(
                    f"{engine.stage} {engine.precision.upper()} {engine.backend} {engine.backend_version}"
                    for engine in report.engines
                ),
                images=len(pairs),
                equal_payloads=sum(own.payload_sha256 == other.payload_sha256 for own, other in pairs),
                same_top1=sum(own.top1 == other.top1 for own, other in pairs),
                max_probability_difference=float(np.max(differences)),
                passed=report.passed,
                other_class=tuple(own.image for own, other in pairs if own.top1 != other.top1),
            )
        )
    return compared


def _read(path: Path) -> tuple[VerificationReport, GoldenAnswers]:
    with reading(path, GoldenError, f": {REMEDY}"):
        text = read_bytes(path, MAX_RESULT_BYTES)
    report = parse_versioned_json(
        VerificationReport, text, path, version=SCHEMA_VERSION, error=GoldenError, remedy=REMEDY, nan=True
    )
    if report.golden is None:
        raise GoldenError(f"{path}: result of verify without --golden: {REMEDY}")
    return report, report.golden

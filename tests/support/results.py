"""Records of verifications, with usual values for what a test does not care about."""

from __future__ import annotations

from ccr_deploy.core.metrics import Interval
from ccr_deploy.verification.results import (
    ChainAccuracy,
    CodeParity,
    GateResult,
    LogitParity,
    MarginCount,
    VerificationReport,
)


def code_parity(level: str = "engine", against: str = "pytorch", **values) -> CodeParity:
    usual = {
        "images": 10,
        "bits": 10_000,
        "flipped_bits": 0,
        "unexplained_flips": 0,
        "equal_payloads": 10,
        "channel_flips": (0, 0),
        "channel_ones": (2_500, 2_500),
        "margins": (MarginCount(0.0, 10_000, 0),),
        "median_margin": 0.7,
        "median_flipped_margin": None,
        "far_flips": 0,
    }
    return CodeParity(level=level, against=against, **{**usual, **values})


def logit_parity(
    stage: str = "classifier", level: str = "engine", against: str = "pytorch", **values
) -> LogitParity:
    usual = {
        "images": 200,
        "max_difference": 1e-6,
        "mean_difference": 1e-7,
        "min_cosine": 1.0,
        "mean_kl_divergence": 0.0,
        "max_kl_divergence": 0.0,
        "same_top1": 200,
        "same_top5_percent": 100.0,
    }
    return LogitParity(stage=stage, level=level, against=against, **{**usual, **values})


def chain_accuracy(chain: str, top1_percent: float, **values) -> ChainAccuracy:
    usual = {
        "images": 100,
        "groups": 10,
        "top1_interval_percent": Interval(0, 100),
        "top5_percent": 100.0,
        "top5_interval_percent": Interval(90, 100),
    }
    return ChainAccuracy(chain=chain, top1_percent=top1_percent, **{**usual, **values})


def gate_result(gate: str, level: str, limit: float, found: float, *, passed: bool, **values) -> GateResult:
    usual = {"name": "max-flipped-percent", "direction": "at most", "protects_from": "anything"}
    return GateResult(gate=gate, level=level, limit=limit, found=found, passed=passed, **{**usual, **values})


def verification_report(**values) -> VerificationReport:
    usual = {
        "schema_version": 4,
        "created_by": "test",
        "bundle": "bundle",
        "contract_id": "0123456789abcdef",
        "weights_sha256": "0" * 64,
        "iterations": 8,
        "trained_iterations": (8,),
        "warnings": (),
        "target": "cpu",
        "images": "40 images",
        "images_sha256": "1" * 64,
        "image_count": 40,
        "codes": (),
        "logits": (),
        "accuracies": (),
        "accuracy_changes": (),
        "non_finite": (),
        "gates": (),
        "engines": (),
        "samples": (),
        "changed_answers": (),
        "calibration": None,
    }
    return VerificationReport(**{**usual, **values})

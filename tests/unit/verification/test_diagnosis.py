"""The step that introduces a fault is the first that differs from the one before."""

from __future__ import annotations

import pytest

from ccr_deploy.verification.diagnosis import FEWEST_FLIPS, Suspect, other_findings, suspects
from ccr_deploy.verification.gates import GateLimits
from ccr_deploy.verification.results import NonFinite
from tests.support.results import code_parity, gate_result, logit_parity, verification_report

FP32 = GateLimits({"max-unexplained-flips": 0, "max-flipped-percent": 0.1, "min-cosine": 0.9999})
INT8 = GateLimits({"max-flipped-percent": 2, "min-cosine": 0.98})
LIMITS = {"fp32-graph": FP32, "graph": INT8, "engine": INT8}
STEPS = [("fp32-graph", "pytorch"), ("graph", "pytorch"), ("engine", "pytorch")]
STEPS_BEFORE = [("graph", "fp32-graph"), ("engine", "graph")]
MANY = {"flipped_bits": 500, "median_flipped_margin": 0.01}


def codes(different: set[tuple[str, str]], **flips):
    return tuple(
        code_parity(*pair, **(flips or MANY) if pair in different else {}) for pair in (*STEPS, *STEPS_BEFORE)
    )


@pytest.mark.parametrize(
    ("different", "step", "before"),
    [
        ({("fp32-graph", "pytorch"), ("graph", "pytorch"), ("engine", "pytorch")}, "fp32-graph", "pytorch"),
        # The graph was made from a healthy one: the step after differs from the faulty one too.
        ({("fp32-graph", "pytorch"), ("graph", "fp32-graph")}, "fp32-graph", "pytorch"),
        ({("graph", "pytorch"), ("engine", "pytorch"), ("graph", "fp32-graph")}, "graph", "fp32-graph"),
        ({("engine", "pytorch"), ("engine", "graph")}, "engine", "graph"),
        # Each step adds a difference within its limits.
        ({("engine", "pytorch")}, "engine", "graph"),
    ],
)
def test_first_step_that_differs_is_suspected(
    different: set[tuple[str, str]], step: str, before: str
) -> None:
    report = verification_report(codes=codes(different))
    assert suspects(report, LIMITS) == [Suspect("encoder", step, before)]


def test_difference_between_two_steps_alone_is_no_fault() -> None:
    assert suspects(verification_report(codes=codes({("engine", "graph")})), LIMITS) == []


def test_flips_far_from_zero_are_suspected_if_they_are_many() -> None:
    pairs = {("engine", "pytorch"), ("engine", "graph")}
    few = codes(pairs, flipped_bits=FEWEST_FLIPS - 1, median_flipped_margin=0.7)
    many = codes(pairs, flipped_bits=FEWEST_FLIPS, median_flipped_margin=0.7)
    assert suspects(verification_report(codes=few), LIMITS) == []
    assert suspects(verification_report(codes=many), LIMITS) == [Suspect("encoder", "engine", "graph")]


def test_classifier_is_suspected_by_its_own_logits_not_by_the_chain() -> None:
    def logits(stage: str):
        return tuple(
            logit_parity(stage, *pair, min_cosine=0.5 if pair[0] != "fp32-graph" else 1.0)
            for pair in (*STEPS, ("graph", "fp32-graph"))
        )

    assert suspects(verification_report(logits=logits("chain")), LIMITS) == []
    found = suspects(verification_report(logits=logits("classifier")), LIMITS)
    assert found == [Suspect("classifier", "graph", "fp32-graph")]


def test_nan_of_the_checkpoint_is_found() -> None:
    report = verification_report(non_finite=(NonFinite("pytorch", "activations", 3, 1, "a.png"),))
    (finding,) = other_findings(report, [])
    assert (finding.step, finding.stage, finding.cause) == ("pytorch", "encoder", "non-finite")


def test_failed_gate_without_a_suspect_is_reported() -> None:
    gates = (gate_result("top-1 loss (points)", "engine", 1, 3.5, passed=False),)
    (finding,) = other_findings(verification_report(gates=gates), [])
    assert (finding.step, finding.stage, finding.cause) == ("engine", "chain", "unknown")
    assert "3.5, limit 1" in finding.evidence
    assert list(other_findings(verification_report(), [])) == []

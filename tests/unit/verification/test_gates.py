"""Gates: what passes, what fails, and that nothing undefined passes."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from ccr_deploy.core.precisions import PRECISIONS
from ccr_deploy.errors import WrongUsageError
from ccr_deploy.verification import gates
from ccr_deploy.verification.flip_limits import ModelLimit
from ccr_deploy.verification.gates import CODE_GATES, GATES, GateLimits, check_gates
from ccr_deploy.verification.results import GateResult, NonFinite
from tests.support.results import chain_accuracy, code_parity, logit_parity

CODE = code_parity()
LOGITS = logit_parity()
NAN = float("nan")
BUNDLE: Any = SimpleNamespace(manifest=SimpleNamespace(tolerance=None))  # has only the fixed limits
FP32 = GateLimits.of(["fp32"], BUNDLE)


def check(limits: GateLimits, codes=(), logits=(), accuracies=(), non_finite=()) -> tuple[GateResult, ...]:
    return check_gates({"engine": limits}, codes, logits, accuracies, non_finite)


def named(results: tuple[GateResult, ...], gate: str) -> GateResult:
    (found,) = [result for result in results if result.gate == gate]
    return found


def judge_code(limits: GateLimits = FP32, **changes) -> tuple[GateResult, ...]:
    return check(limits, [replace(CODE, **changes)])


def judge_logits(limits: GateLimits = FP32, **changes) -> tuple[GateResult, ...]:
    return check(limits, [], [replace(LOGITS, **changes)])


def judge_accuracy(reference: float, engine: float) -> GateResult:
    results = check(FP32, [], [], [chain_accuracy("pytorch", reference), chain_accuracy("engine", engine)])
    return named(results, "top-1 loss (points)")


def test_equal_codes_and_logits_pass_every_gate():
    assert all(result.passed for result in check(FP32, [CODE], [LOGITS]))


def test_one_unexplained_flip_fails():
    result = named(judge_code(flipped_bits=1, unexplained_flips=1), "unexplained flips")
    assert (result.passed, result.limit, result.found) == (False, 0, 1)


def test_explained_flips_pass_the_gate_of_unexplained_ones():
    assert named(judge_code(flipped_bits=5), "unexplained flips").passed


@pytest.mark.parametrize(("flipped", "passed"), [(10, True), (11, False)])
def test_a_tenth_of_a_percent_of_the_bits_may_flip(flipped, passed):
    result = named(judge_code(flipped_bits=flipped), "flipped bits (%)")
    assert result.found == pytest.approx(flipped / 100)
    assert result.passed is passed


@pytest.mark.parametrize(("cosine", "passed"), [(1.0, True), (0.9999, True), (0.99989, False), (-1.0, False)])
def test_the_cosine_must_reach_its_limit(cosine, passed):
    assert named(judge_logits(min_cosine=cosine), "classifier cosine").passed is passed


def test_a_nan_cosine_fails():
    assert not named(judge_logits(min_cosine=NAN), "classifier cosine").passed


def test_a_nan_accuracy_fails():
    assert not judge_accuracy(NAN, 50.0).passed


@pytest.mark.parametrize(("same", "passed"), [(200, True), (198, True), (197, False)])
def test_99_percent_of_the_top1_classes_must_be_equal(same, passed):
    assert named(judge_logits(same_top1=same), "classifier same top-1 (%)").passed is passed


def test_a_chain_has_a_top1_gate_but_no_cosine_gate():
    results = judge_logits(stage="chain", min_cosine=0.1)
    assert [result.gate for result in results] == ["chain same top-1 (%)", "NaN or infinity"]


def test_a_baseline_has_a_cosine_gate():
    assert not named(judge_logits(stage="baseline", min_cosine=0.1), "baseline cosine").passed


@pytest.mark.parametrize(("engine", "passed"), [(70.0, True), (69.5, True), (69.25, False), (75.0, True)])
def test_half_a_point_of_accuracy_may_be_lost(engine, passed):
    assert judge_accuracy(70.0, engine).passed is passed


def test_the_loss_is_the_reference_s_accuracy_less_the_engine_s():
    assert judge_accuracy(70.0, 60.0).found == pytest.approx(10.0)


def test_without_labels_there_is_no_gate_of_accuracy():
    assert [result.gate for result in check(FP32)] == ["NaN or infinity"]


def test_graph_and_engine_have_separate_gates():
    bad_engine = replace(CODE, unexplained_flips=1)
    results = check_gates(
        {"graph": FP32, "engine": FP32}, [replace(CODE, level="graph"), bad_engine], [], [], []
    )
    verdicts = {result.level: result.passed for result in results if result.gate == "unexplained flips"}
    assert verdicts == {"graph": True, "engine": False}


def test_graph_and_engine_have_separate_accuracy_gates():
    accuracies = [chain_accuracy("pytorch", 70), chain_accuracy("graph", 70), chain_accuracy("engine", 60)]
    results = check_gates({"graph": FP32, "engine": FP32}, [], [], accuracies, [])
    verdicts = {result.level: result.passed for result in results if result.gate == "top-1 loss (points)"}
    assert verdicts == {"graph": True, "engine": False}


def test_each_way_has_limits_of_its_own():
    limits = {"graph": FP32, "engine": FP32.changed(["max-flipped-percent=50"])}
    flips = [replace(CODE, level=level, flipped_bits=1_000) for level in ("graph", "engine")]
    results = check_gates(limits, flips, [], [], [])
    verdicts = {result.level: result.passed for result in results if result.gate == "flipped bits (%)"}
    assert verdicts == {"graph": False, "engine": True}


@pytest.mark.parametrize("name", [gate.name.replace("-", "_") for gate in GATES])
def test_every_gate_can_be_changed_by_its_name_with_dashes(name):
    changed = FP32.changed([f"{name.replace('_', '-')}=0.25"])
    assert changed.by_name == {**FP32.by_name, name.replace("_", "-"): 0.25}


def test_several_gates_can_be_changed():
    changed = FP32.changed(["min-cosine=0.5", "max_top1_loss_points=2"])
    assert changed.by_name == {**FP32.by_name, "min-cosine": 0.5, "max-top1-loss-points": 2}


def test_a_changed_limit_replaces_the_default():
    limits = FP32.changed(["max-unexplained-flips=3"])
    assert named(judge_code(limits, unexplained_flips=3), "unexplained flips").passed
    assert not named(judge_code(limits, unexplained_flips=4), "unexplained flips").passed


def test_without_changes_the_gates_stay():
    changed = FP32.changed(["min-cosine=0.5"])
    assert changed.changed([]) == changed


def test_an_unknown_gate_is_refused_and_the_known_ones_listed():
    with pytest.raises(WrongUsageError, match=r"unknown gate 'cosine': did you mean min-cosine\?"):
        FP32.changed(["cosine=0.5"])


@pytest.mark.parametrize("value", ["", "=", "=high"])
def test_a_limit_that_is_not_a_number_is_refused(value):
    with pytest.raises(WrongUsageError, match="is not a number: use --gate min-cosine=NUMBER"):
        FP32.changed([f"min-cosine{value}"])


def test_a_chain_has_the_limits_of_its_lowest_precision() -> None:
    def of(*precisions):
        return GateLimits.of(precisions, BUNDLE).by_name

    assert of("fp32", "fp32") == FP32.by_name
    assert of("int8", "fp32") == of("fp16", "int8") == of("int8")
    assert of("fp16", "fp32")["max-top1-loss-points"] == 0.3
    assert of("int8")["max-top1-loss-points"] == of("bf16")["max-top1-loss-points"] == 1


def test_unexplained_flips_are_a_gate_in_fp32_only() -> None:
    flips = replace(CODE, unexplained_flips=1)
    assert not all(result.passed for result in check(FP32, [flips]))
    results = check(GateLimits.of(["int8"], BUNDLE), [flips])
    gates_of_flips = ["flipped bits (%)", "flipped bits far from 0 (%)"]
    assert [result.gate for result in results] == [*gates_of_flips, "NaN or infinity"]
    strict = GateLimits.of(["int8"], BUNDLE).changed(["max-unexplained-flips=0"])
    assert not all(result.passed for result in check(strict, [flips]))


def test_a_limit_may_come_from_the_bundle(monkeypatch) -> None:
    gate = dataclasses.replace(CODE_GATES[1], limits={"fp32": lambda bundle: ModelLimit(bundle / 2, "half")})
    monkeypatch.setattr(gates, "GATES", (gate,))
    bundle: Any = 3
    limits = GateLimits.of(["fp32"], bundle)
    assert limits == GateLimits({"max-flipped-percent": 1.5}, {"max-flipped-percent": "half"})
    assert check(limits, [CODE])[0].limit_reason == "half"
    changed = limits.changed(["max-flipped-percent=7"])
    assert changed == GateLimits({"max-flipped-percent": 7}, {"max-flipped-percent": "--gate"})
    assert gate.limit_text("fp32") == "by model"


@pytest.mark.parametrize("gate", GATES, ids=lambda gate: gate.name)
def test_nan_is_within_no_limit(gate) -> None:
    assert not gate.holds(NAN, 0)


def test_every_precision_has_every_gate_but_that_of_unexplained_flips() -> None:
    for gate in GATES[1:]:
        assert "-" not in map(gate.limit_text, PRECISIONS)
    assert [name for name in PRECISIONS if GATES[0].limit_text(name) != "-"] == ["fp32"]


@pytest.mark.parametrize(("way", "passed"), [("engine", False), ("pytorch", False), ("graph", True)])
def test_nan_in_a_way_or_in_the_reference_fails(way, passed) -> None:
    found = [NonFinite(way, "chain", values=3, images=1, first_image="a.png")]
    result = named(check(FP32, non_finite=found), "NaN or infinity")
    assert (result.passed, result.found) == (passed, 0 if passed else 3)


@pytest.mark.parametrize(
    ("precision", "far", "passed"),
    [("fp32", 1, False), ("fp16", 1, True), ("fp16", 2, False), ("int8", 10, True), ("int8", 11, False)],
)
def test_hardly_any_flip_may_be_far_from_zero(precision, far, passed) -> None:
    limits = GateLimits.of([precision], BUNDLE)
    result = named(judge_code(limits, flipped_bits=20, far_flips=far), "flipped bits far from 0 (%)")
    assert result.found == pytest.approx(far / 100)
    assert result.passed is passed


def test_a_report_without_far_flips_has_no_gate_of_them() -> None:
    assert "flipped bits far from 0 (%)" not in [result.gate for result in judge_code(far_flips=None)]


def test_only_comparisons_with_the_reference_are_gates() -> None:
    broken = [code_parity("engine", "graph", flipped_bits=5_000)]
    assert all(result.passed for result in check(FP32, [CODE, *broken]))

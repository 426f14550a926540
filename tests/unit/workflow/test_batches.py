"""The batch size of commands, for every kind of target."""

from __future__ import annotations

import pytest

from ccr_deploy.backends.options import Batch
from ccr_deploy.backends.tensorrt.options import TensorRtOptions
from ccr_deploy.errors import WrongUsageError
from ccr_deploy.targets.resolved import ResolvedTarget
from ccr_deploy.targets.schema import load_target, resolve, target_files
from ccr_deploy.workflow.batches import UNBOUND_BATCH, batch_size


def built(name: str) -> dict:
    target = load_target(name)
    return {stage: resolve(target, stage) for stage in ("encoder", "classifier")}


def of_profile(profile: Batch | None) -> ResolvedTarget:
    return ResolvedTarget("fp16", None, profile, TensorRtOptions())


@pytest.mark.parametrize("name", sorted(target_files()))
def test_every_shipped_target_has_a_small_default_that_its_engines_take(name: str) -> None:
    engines = built(name)
    size = batch_size(None, engines, ["encoder", "classifier"])
    assert 1 <= size <= 8
    assert all(engine.batch is None or size <= engine.batch.largest for engine in engines.values())
    if "jetson" in name:
        assert size == 1


@pytest.mark.parametrize(
    ("batch", "default"),
    [
        (Batch((1, 8, 32, 64)), 8),
        (Batch((1, 2, 16)), 2),
        (Batch((16, 32)), 16),
        (Batch((64,), dynamic=True), 8),
        (Batch((4,), dynamic=True), 4),
    ],
)
def test_the_default_is_the_largest_size_up_to_8(batch: Batch, default: int) -> None:
    assert batch_size(None, {"encoder": of_profile(batch)}, ["encoder"]) == default


def test_the_default_of_two_engines_is_the_smaller_one() -> None:
    profiles = {"encoder": of_profile(Batch((1, 2, 16))), "classifier": of_profile(Batch((1, 8, 32)))}
    assert batch_size(None, profiles, ["encoder", "classifier"]) == 2


def test_without_a_profile_it_is_bounded_all_the_same() -> None:
    assert batch_size(None, built("cpu"), ["encoder"]) == UNBOUND_BATCH
    assert batch_size(None, {}, ["encoder"]) == UNBOUND_BATCH  # loading it will say that it was not built
    assert batch_size(64, built("cpu"), ["encoder"]) == 64


def test_a_batch_up_to_the_maximum_is_accepted() -> None:
    profiles = {"encoder": of_profile(Batch((1, 2, 16))), "classifier": of_profile(Batch((1, 8, 32)))}
    assert batch_size(16, profiles, ["encoder", "classifier"]) == 16
    assert batch_size(32, profiles, ["classifier"]) == 32
    with pytest.raises(WrongUsageError, match=r"--batch 17: the maximum batch of the encoder engine is 16"):
        batch_size(17, profiles, ["encoder", "classifier"])

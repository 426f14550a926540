"""Evaluation of untrained models with known answers, and comparisons of planted results."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from msgspec import structs

from ccr_deploy.codec.contract import CodeContract, pack_code
from ccr_deploy.codec.payload import encode_payload
from ccr_deploy.core.metrics import Interval
from ccr_deploy.errors import CcrDeployError, WrongUsageError
from ccr_deploy.export.description import describe_model
from ccr_deploy.models.chain import normalise
from ccr_deploy.models.checkpoint import build_model, encoder_digest, untrained_checkpoint
from tests.support.bundles import TINY, TINY_BASELINE
from training.data.open import TestImages
from training.evaluation.accuracy import evaluate, logits_at
from training.evaluation.comparison import compare
from training.evaluation.results import (
    Evaluation,
    IterationAccuracy,
    IterationQuality,
    Restoration,
    read_result,
    write_result,
)

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.models.checkpoint import Checkpoint

COUNT = 12


class Noise(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """Images of random pixels; `labels` are theirs."""

    def __init__(self, labels: list[int], seed: int = 3) -> None:
        shape = len(labels), TINY.image_height, TINY.image_width, 3
        self.pixels = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.pixels[index], self.labels[index]


@pytest.fixture(params=["chain", "baseline"])
def checkpoint(request: pytest.FixtureRequest) -> Checkpoint:
    found = untrained_checkpoint(TINY if request.param == "chain" else TINY_BASELINE)
    return replace(found, trained_iterations=(2, 3))


def noise_images(labels: list[int], groups: list[str] | None = None, seed: int = 3) -> TestImages:
    return TestImages("noise", Noise(labels, seed), groups or [str(number) for number in range(len(labels))])


def logits(checkpoint: Checkpoint, iterations: int) -> torch.Tensor:
    """What the chain itself computes, configured with this T."""
    config = structs.replace(checkpoint.config, iterations=iterations)
    model = build_model(replace(checkpoint, config=config))
    with torch.inference_mode():
        return model(normalise(Noise([0] * COUNT).pixels, checkpoint.preprocessing))


def test_one_run_of_the_encoder_gives_the_logits_of_every_t(checkpoint: Checkpoint) -> None:
    model = build_model(checkpoint)
    with torch.inference_mode():
        found = logits_at(model, normalise(Noise([0] * COUNT).pixels, checkpoint.preprocessing), (1, 3, 4))
    assert list(found) == [1, 3, 4]
    for iterations, values in found.items():
        torch.testing.assert_close(values, logits(checkpoint, iterations), rtol=1e-5, atol=1e-6)


def test_accuracy_of_each_trained_t(checkpoint: Checkpoint) -> None:
    best = logits(checkpoint, 3).argsort(dim=1, descending=True, stable=True)
    # The best class for nine images, the second best for three.
    labels = [int(best[number, 0 if number < 9 else 1]) for number in range(COUNT)]
    found = evaluate(checkpoint, noise_images(labels), batch=5)
    assert [entry.iterations for entry in found.per_iteration] == [2, 3]
    entry = found.at(3)
    assert entry
    assert entry.top1_percent == 75
    assert entry.top5_percent == 100
    assert entry.top1_hits == (1,) * 9 + (0,) * 3
    assert entry.top1_interval_percent.low < 75 < entry.top1_interval_percent.high
    assert entry.is_trained
    assert entry.latency_ms_p50 is None
    assert found.latency is None
    assert (found.images, found.groups) == (COUNT, COUNT)


def test_a_t_that_was_not_trained_can_be_evaluated(checkpoint: Checkpoint) -> None:
    found = evaluate(checkpoint, noise_images([0] * COUNT), (4, 2, 4))
    assert [(entry.iterations, entry.is_trained) for entry in found.per_iteration] == [(2, True), (4, False)]
    assert found.at(3) is None


def test_images_of_a_group_are_resampled_together(checkpoint: Checkpoint) -> None:
    labels = logits(checkpoint, 3).argmax(dim=1).tolist()
    labels[6:] = [(label + 1) % checkpoint.config.classifier.classes for label in labels[6:]]
    alone = evaluate(checkpoint, noise_images(labels), (3,)).per_iteration[0]
    grouped = evaluate(checkpoint, noise_images(labels, ["a"] * 6 + ["b"] * 6), (3,))
    assert alone.top1_percent == grouped.per_iteration[0].top1_percent == 50
    assert grouped.per_iteration[0].top1_interval_percent == Interval(0, 100)
    assert alone.top1_interval_percent.low > 0
    assert grouped.groups == 2


def test_payload_bytes_and_counts() -> None:
    chain = replace(untrained_checkpoint(TINY), trained_iterations=(3,))
    contract = CodeContract(
        image_height=TINY.image_height,
        image_width=TINY.image_width,
        preprocessing=chain.preprocessing,
        iterations=3,
        code_channels=16,
        encoder_digest=encoder_digest(chain.state_dict),
    )
    payload = encode_payload(pack_code(np.ones((1, *TINY.code_shape)))[0], contract)
    found = evaluate(chain, noise_images([0, 1]), (1, 3))
    described = describe_model("", TINY)
    assert [entry.payload_bytes for entry in found.per_iteration] == [len(payload)] * 2
    assert found.parameters == described.parameters
    assert found.per_iteration[1].encoder_macs == described.encoder_macs
    assert found.per_iteration[0].encoder_macs < described.encoder_macs
    assert found.per_iteration[0].classifier_macs == described.classifier_macs


def test_a_baseline_sends_a_code_in_each_iteration() -> None:
    found = evaluate(untrained_checkpoint(TINY_BASELINE), noise_images([0, 1]), (1, 3))
    one, three = (entry.payload_bytes for entry in found.per_iteration)
    assert three - one == 2 * TINY_BASELINE.code_bytes
    assert found.per_iteration[1].classifier_macs > found.per_iteration[0].classifier_macs


def test_latencies_have_intervals_and_name_the_machine(checkpoint: Checkpoint) -> None:
    found = evaluate(checkpoint, noise_images([0, 1]), (1, 3), rounds=2)
    for entry in found.per_iteration:
        assert entry.latency_ms_p50
        assert entry.latency_ms_p50_interval
        assert 0 < entry.latency_ms_p50_interval.low <= entry.latency_ms_p50_interval.high
    assert found.latency
    assert found.latency.device == found.latency.machine.processor
    assert found.latency.threads == torch.get_num_threads()
    assert found.latency.rounds == 2


def test_no_images_are_refused(checkpoint: Checkpoint) -> None:
    with pytest.raises(WrongUsageError, match="noise: has no images"):
        evaluate(checkpoint, noise_images([]))


def test_results_are_read_back(tmp_path: Path, checkpoint: Checkpoint) -> None:
    found = evaluate(checkpoint, noise_images([0, 1]))
    path = tmp_path / "new" / "evaluation.json"
    write_result(found, path)
    assert read_result(Evaluation, path) == found
    quality = IterationQuality(iteration=1, l1=0.1, psnr_db=20, ms_ssim=0.9)
    restoration = Restoration(
        created_by="test",
        data="noise",
        images=2,
        image_height=32,
        image_width=48,
        code_bytes=12,
        ms_ssim_scales=2,
        per_iteration=(quality,),
    )
    write_result(restoration, path)
    assert read_result(Restoration, path) == restoration


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "not JSON, perhaps truncated"),
        ('{"schema_version": 2}', "schema version 2 is not supported, expected 1"),
        ('{"schema_version": 1}', "field created_by: missing"),
        (None, "no such file"),
    ],
)
def test_a_damaged_result_is_refused(tmp_path: Path, content: str | None, problem: str) -> None:
    path = tmp_path / "evaluation.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(CcrDeployError, match=f"{problem}.*: run python -m training evaluate again"):
        read_result(Evaluation, path)


def planted(hits: list[int], groups: list[int], images: str = "same") -> Evaluation:
    entry = IterationAccuracy(
        iterations=3,
        is_trained=True,
        top1_percent=100 * sum(hits) / len(hits),
        top1_interval_percent=Interval(0, 100),
        top5_percent=100,
        payload_bytes=38,
        encoder_macs=1,
        classifier_macs=1,
        latency_ms_p50=None,
        latency_ms_p50_interval=None,
        top1_hits=tuple(hits),
    )
    return Evaluation(
        created_by="test",
        weights_sha256="",
        config=TINY,
        trained_iterations=(3,),
        parameters=1,
        data="noise",
        images=len(hits),
        images_sha256=images,
        image_groups=tuple(groups),
        per_iteration=(entry,),
        latency=None,
    )


GROUPS = [0, 0, 1, 1, 2, 2]


def test_a_difference_is_paired_by_image() -> None:
    """Both are right for half of the images; that they are the same images makes the difference certain."""
    same = compare("a", "b", [(planted([1, 1, 0, 0, 1, 0], GROUPS),) * 2], 3)
    assert same.difference_points == 0
    assert same.difference_interval_points == Interval(0, 0)
    other = compare("a", "b", [(planted([1, 1, 0, 0, 1, 0], GROUPS), planted([0, 0, 1, 1, 0, 1], GROUPS))], 3)
    assert other.difference_points == 0
    assert other.difference_interval_points.low < 0 < other.difference_interval_points.high


def test_the_images_of_all_seeds_are_pooled_by_group() -> None:
    first = (planted([1, 1, 1, 1, 0, 0], GROUPS), planted([1, 1, 0, 0, 0, 0], GROUPS))
    second = (planted([1, 0, 1, 1, 0, 0], GROUPS), planted([1, 0, 0, 0, 0, 0], GROUPS))
    found = compare("all T", "T=3", [first, second], 3)
    assert found.pair_differences_points == pytest.approx((100 / 3, 100 / 3))
    assert found.difference_points == pytest.approx(100 / 3)
    assert (found.images, found.groups) == (12, 3)
    # Only group 1 differs, in both pairs: a resample has it never up to three times.
    assert found.difference_interval_points == Interval(0, 100)
    alone = compare("all T", "T=3", [first], 3)
    assert alone.difference_interval_points == found.difference_interval_points


def test_evaluations_of_other_images_or_another_t_are_not_compared() -> None:
    one = planted([1, 0], [0, 1])
    with pytest.raises(WrongUsageError, match="a and b: were evaluated on other images"):
        compare("a", "b", [(one, planted([1, 0], [0, 1], "other"))], 3)
    with pytest.raises(WrongUsageError, match="a: was not evaluated with T=2"):
        compare("a", "b", [(one, one)], 2)


def test_hits_and_groups_must_be_those_of_the_images() -> None:
    with pytest.raises(ValueError, match="2 images need as many groups and hits"):
        planted([1, 0], [0])


def test_images_are_told_apart_by_pixels_and_labels(checkpoint: Checkpoint) -> None:
    digests = {
        evaluate(checkpoint, images, (1,), batch=batch).images_sha256
        for images, batch in [
            (noise_images([0, 1]), 1),
            (noise_images([0, 1]), 2),
            (noise_images([1, 0]), 2),
            (noise_images([0, 1], seed=4), 2),
        ]
    }
    assert len(digests) == 3

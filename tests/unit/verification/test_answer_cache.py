"""The cache of answers: found again, bounded, and never the reason why a run fails."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ccr_deploy.backends.runner import Arrays, Outputs, Runner, TensorSpec
from ccr_deploy.verification import answer_cache
from ccr_deploy.verification.answer_cache import AnswerCache, CachedRunner

if TYPE_CHECKING:
    from pathlib import Path

IMAGES = np.arange(24, dtype=np.uint8).reshape(4, 6)


class Doubler(Runner):
    """Doubles its input, and counts the batches."""

    inputs = (TensorSpec("image", "uint8", (None, 6)),)

    def __init__(self) -> None:
        self.batches = 0
        self.is_closed = False

    def _run(self, feeds: Arrays) -> Outputs:
        self.batches += 1
        return {"code": feeds["image"] * 2, "margins": feeds["image"].astype(np.float16) - np.float16("nan")}

    def _close(self) -> None:
        self.is_closed = True


def cached(store: Path | None, runner: Doubler, made_by: str = "a", limit: int = 1 << 20) -> CachedRunner:
    return CachedRunner(AnswerCache(store, limit), made_by, lambda: runner)


def files(store: Path) -> list[Path]:
    return sorted((store / "answers").glob("*/*"))


def test_a_batch_is_run_once_and_its_outputs_keep_type_and_value(tmp_path) -> None:
    first, second = Doubler(), Doubler()
    outputs = cached(tmp_path, first).infer({"image": IMAGES})
    found = cached(tmp_path, second).infer({"image": IMAGES})
    assert (first.batches, second.batches) == (1, 0)
    for name, array in outputs.items():
        assert found[name].dtype == array.dtype
        assert np.array_equal(found[name], array, equal_nan=True)


def test_without_a_store_every_batch_is_run() -> None:
    runner = Doubler()
    for _ in range(2):
        outputs = cached(None, runner).infer({"image": IMAGES})
        assert np.array_equal(outputs["code"], IMAGES * 2)
    assert runner.batches == 2


@pytest.mark.parametrize(
    ("images", "made_by"), [(IMAGES + 1, "a"), (IMAGES[:2], "a"), (IMAGES.reshape(8, 3), "a"), (IMAGES, "b")]
)
def test_other_inputs_and_other_runners_are_run(tmp_path, images, made_by) -> None:
    cached(tmp_path, Doubler()).infer({"image": IMAGES})
    runner = Doubler()
    runner.inputs = (TensorSpec("image", "uint8", (None, None)),)
    cached(tmp_path, runner, made_by).infer({"image": images})
    assert runner.batches == 1


def test_answers_of_another_version_are_not_used(tmp_path, monkeypatch) -> None:
    cached(tmp_path, Doubler()).infer({"image": IMAGES})
    monkeypatch.setattr(answer_cache, "ANSWERS_VERSION", answer_cache.ANSWERS_VERSION + 1)
    runner = Doubler()
    cached(tmp_path, runner).infer({"image": IMAGES})
    assert runner.batches == 1


def test_the_runner_is_loaded_for_the_first_miss_and_closed(tmp_path) -> None:
    runner = Doubler()
    with cached(tmp_path, runner) as first:
        first.infer({"image": IMAGES})
    assert runner.is_closed

    def load() -> Runner:
        raise AssertionError

    with CachedRunner(AnswerCache(tmp_path), "a", load) as second:
        second.infer({"image": IMAGES})


def test_the_longest_unused_answers_are_removed(tmp_path) -> None:
    for number in range(10):
        cached(tmp_path, Doubler()).infer({"image": IMAGES + number})
    size = files(tmp_path)[0].stat().st_size
    for age, path in enumerate(sorted(files(tmp_path), key=lambda path: path.stat().st_mtime_ns)):
        os.utime(path, (age, age))
    cached(tmp_path, Doubler()).infer({"image": IMAGES})  # the oldest is used again
    cached(tmp_path, Doubler(), limit=10 * size).infer({"image": IMAGES + 50})
    assert len(files(tmp_path)) <= 10
    kept, removed = Doubler(), Doubler()
    cached(tmp_path, kept).infer({"image": IMAGES})
    cached(tmp_path, removed).infer({"image": IMAGES + 1})
    assert (kept.batches, removed.batches) == (0, 1)


def test_a_set_that_exceeds_the_limit_does_not_remove_its_own_answers(tmp_path) -> None:
    cached(tmp_path, Doubler(), "other").infer({"image": IMAGES})
    size = files(tmp_path)[0].stat().st_size
    files(tmp_path)[0].unlink()
    for runner in (Doubler(), Doubler()):
        own = cached(tmp_path, runner, limit=3 * size)
        for number in range(8):
            own.infer({"image": IMAGES + number})
        assert len(files(tmp_path)) == 3
    assert runner.batches == 5


def test_a_store_that_cannot_be_written_only_disables_the_cache(tmp_path) -> None:
    (tmp_path / "answers").write_text("in the way")
    runner = Doubler()
    own = cached(tmp_path, runner)
    for _ in range(2):
        assert np.array_equal(own.infer({"image": IMAGES})["code"], IMAGES * 2)
    assert runner.batches == 2

"""Planted faults that the timing of a real engine in its own process has to find."""

from __future__ import annotations

import hashlib
import json
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from ccr_deploy.benchmarking.answers import Expected
from ccr_deploy.benchmarking.interleaving import run_interleaved, timings
from ccr_deploy.benchmarking.reliability import unreliable_reasons
from ccr_deploy.benchmarking.scenarios.process import ScenarioProcess
from ccr_deploy.benchmarking.worker import Candidate, Worker
from ccr_deploy.engines.factory import EngineFactory
from ccr_deploy.engines.sidecar import sidecar_path
from ccr_deploy.errors import EngineError
from ccr_deploy.workflow.scenarios import run_bundle_scenario
from ccr_deploy.workflow.soak import soak_bundle
from tests.support.faulty_runners import VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from ccr_deploy.benchmarking.results import Timing
    from ccr_deploy.benchmarking.scenario_results import ScenarioResult, SoakResult
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.progress import Advance
    from ccr_deploy.engines.store import Engine, EngineStore

IMAGES = 5
"""An odd number, so that the images of the rounds do not repeat with their order."""
BATCH = 16


@dataclass(frozen=True)
class Encoder:
    """The tiny encoder, images, and its right codes for them."""

    candidate: Candidate
    images: npt.NDArray[np.uint8]
    codes: npt.NDArray[np.uint8]

    def timed(self) -> Timing:
        name = self.candidate.name
        run = run_interleaved("encoder", [self.candidate], batch=BATCH, rounds=5, items={name: self.images})
        expected = {name: Expected((self.codes,), 0.1, None)}
        return timings("encoder", run.samples, BATCH, expected)[0]


@pytest.fixture(scope="module")
def encoder(tiny_bundle: Bundle, built_store: EngineStore) -> Encoder:
    factory = EngineFactory(tiny_bundle, "cpu", built_store)
    engine = factory.find("encoder")
    model = tiny_bundle.manifest.model
    shape = (IMAGES, model.image_height, model.image_width, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    with factory.load(engine) as runner:
        codes = runner.infer({"image": images})["code"]
    return Encoder(candidate_of(engine, factory), images, codes.astype(np.uint8))


def candidate_of(engine: Engine, factory: EngineFactory) -> Candidate:
    return Candidate("cpu", True, factory.target.options, ((engine.path, "fp32"),))


def plant(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, fault)
    monkeypatch.setattr(Worker, "module", "tests.support.faulty_process")
    monkeypatch.setattr(ScenarioProcess, "module", "tests.support.faulty_scenario_process")


def reasons(timed: Timing, words: str) -> Sequence[str]:
    return [reason for reason in unreliable_reasons(2, [], [timed]) if words in reason]


def test_a_faultless_engine_passes(encoder: Encoder) -> None:
    timed = encoder.timed()
    assert timed.answers
    assert timed.answers.passed
    assert (timed.answers.flipped_percent, timed.answers.varying_images) == (0, 0)
    assert timed.answers.images == IMAGES
    assert timed.fresh_input_ratio is not None
    assert not reasons(timed, "wrong answers")


@pytest.mark.parametrize("fault", ["caching", "last-answer"])
def test_an_engine_that_caches_its_answers_is_found(
    fault: str, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(fault, monkeypatch)
    (reason,) = reasons(encoder.timed(), "answers")
    assert reason.startswith("encoder: cpu: may cache its answers: fresh inputs took ")


@pytest.mark.parametrize("fault", ["stale", "tiring"])
def test_wrong_answers_while_timing_are_found(
    fault: str, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(fault, monkeypatch)
    timed = encoder.timed()
    assert timed.answers
    assert not timed.answers.passed
    (reason,) = reasons(timed, "wrong answers")
    assert "of the bits differ from PyTorch's (limit 0.1 %)" in reason
    assert reason.endswith(": run ccr-deploy verify")


def test_answers_that_become_wrong_differ_from_the_first_ones(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant("tiring", monkeypatch)
    timed = encoder.timed()
    assert timed.answers
    assert (timed.answers.varying_images, timed.answers.repeats_flipped_percent) == (IMAGES, 100)
    (reason,) = reasons(timed, "wrong answers")
    assert "100 % of the bits of an image differ from its own first ones" in reason


RUNS: dict[str, Callable[[Bundle, EngineStore], ScenarioResult | SoakResult]] = {
    "server": lambda bundle, store: run_bundle_scenario(
        bundle, "cpu", store, "server", rate=50.0, min_duration=0.3, by_loadgen=False
    ),
    "offline by LoadGen": lambda bundle, store: run_bundle_scenario(
        bundle, "cpu", store, "offline", batch=BATCH, min_duration=0.3
    ),
    "encoder, paced": lambda bundle, store: run_bundle_scenario(
        bundle, "cpu", store, "paced", subject="encoder", rate=50.0, min_duration=0.3
    ),
    "soak": lambda bundle, store: soak_bundle(bundle, "cpu", store, 0.01, batch=BATCH),
}
"""Scenarios and a soak, with the chain unless another subject is named; LoadGen if it is installed."""


@pytest.mark.parametrize("run", RUNS)
def test_a_faultless_run_passes(run: str, tiny_bundle: Bundle, built_store: EngineStore) -> None:
    found = RUNS[run](tiny_bundle, built_store)
    assert found.answers
    assert (found.answers.passed, found.answers.flipped_percent) == (True, None)
    assert found.answers.runs > found.answers.images == len(tiny_bundle.manifest.samples)
    assert found.fresh_input_ratio is not None
    assert not [reason for reason in found.unreliable_reasons if "wrong answers" in reason]


@pytest.mark.parametrize("fault", ["caching", "last-answer"])
@pytest.mark.parametrize("run", ["server", "soak"])
def test_a_run_of_an_engine_that_caches_its_answers_is_unreliable(
    fault: str, run: str, tiny_bundle: Bundle, built_store: EngineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(fault, monkeypatch)
    found = RUNS[run](tiny_bundle, built_store)
    (reason,) = (reason for reason in found.unreliable_reasons if "answers" in reason)
    assert reason.startswith("chain: cpu: may cache its answers: fresh inputs took ")


@pytest.mark.parametrize(
    ("fault", "run"), [("stale", "server"), ("stale", "encoder, paced"), *(("tiring", run) for run in RUNS)]
)
def test_a_run_whose_answers_are_others_than_before_is_unreliable(
    fault: str, run: str, tiny_bundle: Bundle, built_store: EngineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(fault, monkeypatch)
    found = RUNS[run](tiny_bundle, built_store)
    assert found.answers
    assert not found.answers.passed
    (reason,) = (reason for reason in found.unreliable_reasons if "wrong answers" in reason)
    assert " of the bits of an image differ from its own first ones " in reason


def test_answers_for_another_number_of_images_are_an_error(
    tiny_bundle: Bundle, built_store: EngineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant("stale", monkeypatch)
    with pytest.raises(EngineError, match="the engines: engine 1 of 2 returned 8 items for 16"):
        RUNS["soak"](tiny_bundle, built_store)


@pytest.mark.parametrize("run", RUNS)
def test_a_run_that_fails_names_the_error_and_leaves_no_files(
    run: str, tiny_bundle: Bundle, built_store: EngineStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant("failing", monkeypatch)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # of the engines' process
    with pytest.raises(EngineError, match=r"^the engines: MemoryError$"):
        RUNS[run](tiny_bundle, built_store)
    assert list(tmp_path.iterdir()) == []


class SwappingProgress:
    """Replaces an engine and its sidecar after each round."""

    def __init__(self, engine: Engine, content: bytes) -> None:
        self._engine, self._content = engine, content

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[Advance]:  # noqa: ARG002
        def swap(_: int) -> None:
            self._engine.path.write_bytes(self._content)
            sidecar = sidecar_path(self._engine.path)
            found = json.loads(sidecar.read_text())
            sidecar.write_text(
                json.dumps({**found, "engine_sha256": hashlib.sha256(self._content).hexdigest()})
            )

        yield swap


def test_an_engine_swapped_while_it_is_timed_is_an_error(tiny_bundle: Bundle, tmp_path: Path) -> None:
    from ccr_deploy.engines.store import EngineStore

    factory = EngineFactory(tiny_bundle, "cpu", EngineStore(tmp_path / "engines"))
    engine = factory.build("encoder")[0]
    model = onnx.load(engine.path)
    model.doc_string = "another build"
    content = model.SerializeToString()
    with pytest.raises(EngineError) as raised:
        run_interleaved(
            "encoder",
            [candidate_of(engine, factory)],
            batch=1,
            rounds=2,
            progress=SwappingProgress(engine, content),
        )
    new = hashlib.sha256(content).hexdigest()
    assert str(raised.value) == (
        f"cpu: {engine.path}: replaced or changed while it was timed: its SHA-256 was "
        f"{engine.sidecar.engine_sha256[:12]}…, is now {new[:12]}…: run the command again"
    )

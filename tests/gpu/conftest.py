"""Fixtures of the tests on a GPU, which are skipped if there is none.

Bundles and images come from a kit that `make gpu-kit` prepared: nothing is trained or calibrated here. A run
with ``-m gpu`` fails if no engine ran, and says at its end which backend ran what.
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from ccr_deploy.engines.factory import EngineFactory
from ccr_deploy.engines.store import EngineStore
from ccr_deploy.errors import EngineError
from tests.support.engine_runs import GpuEngine, counted_runs, exit_status, selects_gpu_tests, summary
from tests.support.gpu import gpu_obstacle
from tests.support.gpu_kit import GpuKit, kit_folder, kit_obstacle

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from tests.support.workers import Shared

BATCH = """
[batch]
encoder = [1, 8, 32]
classifier = [2, 8, 32]
"""
TARGETS = {
    "tensorrt-rtx": f"""
description = "this GPU"
backend = "tensorrt-rtx"
{BATCH}
[options]
compute_capabilities = ["current"]
""",
    "tensorrt": f"""
description = "this GPU"
backend = "tensorrt"
[machine]
gpus = ["*"]
from_version = "8.6"
below_version = "12"
{BATCH}
""",
}
PACKAGES = {"tensorrt-rtx": "tensorrt_rtx", "tensorrt": "tensorrt"}


HERE = Path(__file__).parent
RUNS: Counter[GpuEngine] = Counter()
"""The number of runs of each kind of engine in this session."""


def obstacle() -> str | None:
    """Return the reason why these tests cannot run; None if they can."""
    return gpu_obstacle() or kit_obstacle(kit_folder())


def pytest_configure(config: pytest.Config) -> None:
    if selects_gpu_tests(config.option.markexpr) and getattr(config.option, "numprocesses", None):
        raise pytest.UsageError("-m gpu: the tests share one GPU, and their runs are counted: omit -n")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.gpu)
            if reason := obstacle():
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.exitstatus = exit_status(session.config.option.markexpr, exitstatus, RUNS)


@pytest.hookimpl(wrapper=True, tryfirst=True)  # after the reasons of skipped and failed tests
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> Iterator[None]:
    yield
    if selects_gpu_tests(config.option.markexpr):
        for line in summary(RUNS, obstacle()):
            terminalreporter.write_line(line)


@pytest.fixture(scope="session", autouse=True)
def _counted() -> Iterator[None]:
    with counted_runs(RUNS):
        yield


@pytest.fixture(autouse=True)
def alone_on_the_gpu(shared: Shared) -> Iterator[None]:
    """Run these tests one at a time: parallel workers share one GPU."""
    with shared.locked_folder("gpu"):
        yield


@pytest.fixture(scope="session")
def kit() -> GpuKit:
    """The prepared kit: the demo in every precision and schedule, and the paper's model."""
    return GpuKit(kit_folder())


@pytest.fixture(scope="session")
def real_crops(kit: GpuKit) -> npt.NDArray[np.uint8]:
    """1,280 crops of real photos, ``uint8 [1280, 48, 48, 3]``."""
    return np.stack([np.asarray(Image.open(path)) for path in sorted(kit.images.rglob("*.png"))])


@pytest.fixture(scope="session", params=[*TARGETS])
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, kit: GpuKit) -> Path:
    """A target for this GPU, for each flavour that is installed and supports it."""
    if importlib.util.find_spec(PACKAGES[request.param]) is None:
        pytest.skip(f"{PACKAGES[request.param]} is not installed")
    path = tmp_path_factory.mktemp("target") / f"{request.param}.toml"
    path.write_text(TARGETS[request.param])
    trial = EngineFactory(kit.bundle(), str(path), EngineStore(path.parent / "trial"))
    try:
        with trial.load(trial.build("classifier")[0]):
            return path
    except EngineError as error:
        if request.param == "tensorrt-rtx":  # TensorRT-RTX does not support every GPU
            pytest.skip(f"TensorRT-RTX does not run on this GPU: {error}")
        raise


@pytest.fixture(scope="session")
def engines(tmp_path_factory: pytest.TempPathFactory) -> EngineStore:
    return EngineStore(tmp_path_factory.mktemp("engines"))


@pytest.fixture(scope="session")
def factory(kit: GpuKit, target: Path, engines: EngineStore) -> EngineFactory:
    """The factory of the demo, with encoder and classifier in FP16."""
    precisions = {"encoder": "fp16", "classifier": "fp16"}
    return EngineFactory(kit.bundle(), str(target), engines, precisions)

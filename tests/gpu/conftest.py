"""Fixtures of the tests on a GPU, which are skipped if there is none."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import pytest

from ccr_deploy.engines.factory import EngineFactory
from ccr_deploy.engines.store import EngineStore
from ccr_deploy.errors import EngineError
from tests.support.gpu import gpu_obstacle

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.demo import CalibratedDemo
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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "/gpu/" in str(item.path):
            item.add_marker(pytest.mark.gpu)
            if obstacle := gpu_obstacle():
                item.add_marker(pytest.mark.skip(reason=obstacle))


@pytest.fixture(autouse=True)
def alone_on_the_gpu(shared: Shared) -> Iterator[None]:
    """Run these tests one at a time: parallel workers share one GPU."""
    with shared.locked_folder("gpu"):
        yield


@pytest.fixture(scope="session", params=[*TARGETS])
def target(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, calibrated_demo: CalibratedDemo
) -> Path:
    """A target for this GPU, for each flavour that is installed and supports it."""
    if importlib.util.find_spec(PACKAGES[request.param]) is None:
        pytest.skip(f"{PACKAGES[request.param]} is not installed")
    path = tmp_path_factory.mktemp("target") / f"{request.param}.toml"
    path.write_text(TARGETS[request.param])
    trial = EngineFactory(calibrated_demo.bundle, str(path), EngineStore(path.parent / "trial"))
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
def factory(calibrated_demo: CalibratedDemo, target: Path, engines: EngineStore) -> EngineFactory:
    """The factory of the briefly trained demo, with encoder and classifier in FP16."""
    precisions = {"encoder": "fp16", "classifier": "fp16"}
    return EngineFactory(calibrated_demo.bundle, str(target), engines, precisions)

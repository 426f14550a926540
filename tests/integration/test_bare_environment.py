"""A product on a device: Python 3.10 if this machine has it, the wheel, one backend, and nothing else.

The wheel installs NumPy, Pillow, msgspec, click and rich. ``ccr-deploy build-engine`` builds the engine
first, in another environment of the same Python, because an engine is bound to its library's version.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ccr_deploy.codec.payload import decode_payload
from ccr_deploy.runtime import Encoder
from tests.support.bare_environment import make_environment, oldest_python, run

if TYPE_CHECKING:
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.engines.store import EngineStore

ROOT = Path(__file__).parents[2]
NOT_NEEDED = ("pydantic", "platformdirs", "onnx", "onnx_ir", "torch", "safetensors")
BACKENDS = {"cpu": "onnxruntime", "cpu-openvino": "openvino"}
PRODUCT = f"""
import importlib.util, json, sys
from pathlib import Path
import numpy as np
from ccr_deploy.engines.store import EngineStore
from ccr_deploy.runtime import Classifier, Encoder

found = [name for name in {NOT_NEEDED} if importlib.util.find_spec(name)]
bundle, target, store, images = sys.argv[1:]
with (
    Encoder.load(bundle, target, EngineStore(Path(store))) as encoder,
    Classifier.load(Path(bundle), target, EngineStore(Path(store))) as classifier,
):
    payloads = encoder.encode(np.load(images))
    predictions = classifier.classify(payloads)
print(json.dumps({{
    "found": found,
    "python": list(sys.version_info[:2]),
    "payloads": [payload.hex() for payload in payloads],
    "names": [prediction.name for prediction in predictions],
}}))
"""


@dataclass(frozen=True)
class Device:
    """The environment that built the engines, and what a second environment is created from."""

    python: str
    folder: Path
    store: Path
    wheel: Path

    def version(self, package: str) -> str:
        program = f"from importlib.metadata import version; print(version({package!r}))"
        return run(str(self.folder / "whole" / "bin" / "python"), "-c", program).stdout.strip()


@pytest.fixture(scope="module")
def device(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Device:
    folder = tmp_path_factory.mktemp("device")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    found = Device(oldest_python(), folder, folder / "engines", wheel)
    make_environment(found.python, folder / "whole", f"{found.wheel}[cpu,openvino]")
    for target in BACKENDS:
        built = run(
            str(folder / "whole" / "bin" / "ccr-deploy"), "build-engine", str(tiny_bundle.path),
            "--target", target, "--engines", str(found.store),
        )  # fmt: skip
        assert built.returncode == 0, built.stderr
    return found


@pytest.mark.parametrize("target", BACKENDS)
def test_product_needs_only_numpy_pillow_and_its_backend(
    target: str, device: Device, tiny_bundle: Bundle, built_store: EngineStore, tmp_path: Path
) -> None:
    backend = BACKENDS[target]
    images = np.random.default_rng(5).integers(0, 256, (8, 32, 48, 3), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    packages = (str(device.wheel), f"{backend}=={device.version(backend)}")
    make_environment(device.python, tmp_path / "bare", *packages)
    # A product needs only the manifest of the bundle.
    (tmp_path / "bundle").mkdir()
    shutil.copy(tiny_bundle.path / "manifest.json", tmp_path / "bundle")
    (tmp_path / "main.py").write_text(PRODUCT)
    done = run(
        str(tmp_path / "bare" / "bin" / "python"), str(tmp_path / "main.py"),
        str(tmp_path / "bundle"), target, str(device.store), str(tmp_path / "images.npy"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["found"] == []
    assert answer["python"] == ([3, 10] if "3.10" in device.python else list(sys.version_info[:2]))
    assert set(answer["names"]) <= set(tiny_bundle.manifest.class_names)
    with Encoder.load(tiny_bundle, "cpu", built_store) as encoder:
        expected = encoder.encode(images)
    contract = tiny_bundle.manifest.contract
    codes, other = (
        np.stack([decode_payload(payload, contract) for payload in payloads])
        for payloads in ([bytes.fromhex(text) for text in answer["payloads"]], expected)
    )
    # Two versions of a library may round a value near zero to different sides.
    assert np.unpackbits(codes ^ other).mean() < 0.01

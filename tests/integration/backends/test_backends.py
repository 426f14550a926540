"""Properties of every backend, tested on those that run on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from ccr_deploy.backends.base import EngineFile
from ccr_deploy.backends.onnxruntime.cpu import OnnxRuntimeOptions
from ccr_deploy.backends.onnxruntime.cuda import CudaOptions
from ccr_deploy.backends.openvino.cpu import OpenVinoOptions
from ccr_deploy.backends.options import BackendOptions
from ccr_deploy.backends.pytorch.options import PyTorchOptions
from ccr_deploy.backends.registry import make_backend
from ccr_deploy.core.field_errors import FieldError
from ccr_deploy.core.records import convert
from ccr_deploy.engines.factory import EngineFactory
from ccr_deploy.errors import EngineError
from ccr_deploy.export.exporter import export_bundle, resized
from tests.support.gpu import gpu_is_there

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.backends.runner import Runner
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.engines.store import EngineStore
    from ccr_deploy.models.checkpoint import Checkpoint

TARGETS = ("cpu", "cpu-openvino", "pytorch")


@pytest.fixture(params=TARGETS)
def encoder(request: pytest.FixtureRequest, tiny_bundle: Bundle, store: EngineStore) -> Runner:
    factory = EngineFactory(tiny_bundle, request.param, store)
    return factory.load(factory.build("encoder")[0])


def images(count: int) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (count, 32, 48, 3), dtype=np.uint8)


def test_backends_agree_on_every_stage(tiny_bundle: Bundle, store: EngineStore) -> None:
    factories = [EngineFactory(tiny_bundle, target, store) for target in TARGETS]
    feed = {"image": images(3)}
    codes, logits, baseline_logits = (
        [
            next(iter(runner.infer(inputs).values()))
            for factory in factories
            for runner in (factory.load(factory.build(stage)[0]),)
        ]
        for stage, inputs in (
            ("encoder", feed),
            ("classifier", {"code": np.random.default_rng(6).integers(0, 256, (3, 12), dtype=np.uint8)}),
            ("baseline", feed),
        )
    )
    assert codes[0].dtype == np.uint8
    assert codes[0].shape == (3, 12)
    for other in (1, 2):
        np.testing.assert_array_equal(codes[0], codes[other])
        np.testing.assert_allclose(logits[0], logits[other], atol=1e-5)
        np.testing.assert_allclose(baseline_logits[0], baseline_logits[other], atol=1e-5)


def test_any_batch_runs_and_batching_changes_no_result(encoder: Runner) -> None:
    with encoder:
        whole = encoder.infer({"image": images(32)})["code"]
        np.testing.assert_array_equal(encoder.infer({"image": images(32)[:1]})["code"], whole[:1])
        np.testing.assert_array_equal(encoder.infer({"image": images(32)[:3]})["code"], whole[:3])


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, "expected the inputs image, found none"),
        ({"photo": images(1)}, "expected the inputs image, found photo"),
        ({"image": images(1)[0]}, r"expected uint8 \[N, 32, 48, 3\], found uint8 \[32, 48, 3\]"),
        ({"image": images(1)[:, :31]}, r"found uint8 \[1, 31, 48, 3\]"),
        ({"image": images(1).astype(np.float32)}, "found float32"),
        ({"image": images(1)[:0]}, r"found uint8 \[0, 32, 48, 3\]"),
    ],
)
def test_wrong_inputs_are_refused(encoder: Runner, feeds: dict[str, np.ndarray], message: str) -> None:
    with encoder, pytest.raises(EngineError, match=message):
        encoder.infer(feeds)


def test_a_closed_runner_raises(encoder: Runner) -> None:
    with encoder:
        pass
    with pytest.raises(EngineError, match="closed"):
        encoder.infer({"image": images(1)})


@pytest.mark.parametrize(
    ("name", "options"),
    [("onnxruntime", OnnxRuntimeOptions()), ("openvino", OpenVinoOptions()), ("pytorch", PyTorchOptions())],
)
@pytest.mark.parametrize("content", [b"", b"no engine", bytes(1000)])
def test_a_file_that_is_not_an_engine_is_refused(
    name: str, options: BackendOptions, content: bytes, tmp_path: Path
) -> None:
    library = make_backend(options)
    assert library.name == name
    path = tmp_path / f"encoder{library.suffix}"
    path.write_bytes(content)
    with pytest.raises(EngineError, match="encoder"):
        library.load(EngineFile(path, "fp32"))


def test_an_engine_is_optimized_and_differs_from_its_graph(tiny_bundle: Bundle, store: EngineStore) -> None:
    factory = EngineFactory(tiny_bundle, "cpu", store)
    engine, _ = factory.build("classifier")
    graph = tiny_bundle.file(factory.graph_record("classifier").file)
    assert engine.path.read_bytes() != graph.read_bytes()
    assert engine.sidecar.key.device == factory.backend.device


def test_the_reference_of_other_iterations_is_another_engine(
    tiny_checkpoint: Checkpoint, store: EngineStore, tmp_path: Path
) -> None:
    """The same weights at another T, image size or preprocessing, in one store."""
    bundles = [
        export_bundle(
            resized(tiny_checkpoint, iterations, size),
            tmp_path / name,
            schedules=["layer-major"],
            untrained_iterations=True,
        )
        for name, iterations, size in (("a", 3, None), ("b", 2, None), ("c", 3, (48, 32)))
    ]
    engines = [EngineFactory(bundle, "pytorch", store).build("encoder")[0] for bundle in bundles]
    assert len({engine.path for engine in engines}) == 3
    for bundle in bundles:
        factory = EngineFactory(bundle, "pytorch", store)
        with factory.load(factory.find("encoder")) as runner:
            contract = bundle.manifest.contract
            assert runner.inputs[0].shape == (None, contract.image_height, contract.image_width, 3)


def test_a_cuda_provider_that_does_not_load_raises_an_error(tiny_bundle: Bundle) -> None:
    """ONNX Runtime itself would silently use the CPU."""
    if gpu_is_there():
        pytest.skip("this machine has a GPU, on which the provider may load")
    graph = tiny_bundle.file(tiny_bundle.graph("encoder", "fp32", "iteration-major").file)
    with pytest.raises(
        EngineError, match=r"could not load its CUDA provider|was built without CUDA"
    ) as caught:
        make_backend(CudaOptions()).load(EngineFile(graph, "fp32"))
    assert "pip install 'ccr-deploy[cuda]'" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow  # half a minute of a C++ compiler
def test_pytorch_compiles_to_the_same_codes(tiny_bundle: Bundle, store: EngineStore) -> None:
    """The benchmark does so on a GPU; this test does it on the CPU."""
    engine, _ = EngineFactory(tiny_bundle, "pytorch", store).build("encoder")
    codes = []
    for mode in (None, "default"):
        backend = make_backend(PyTorchOptions(compile_mode=mode))
        with backend.load(EngineFile(engine.path, "fp32")) as runner:
            codes.append(runner.infer({"image": images(2)})["code"])
    assert np.unpackbits(codes[0] ^ codes[1]).mean() < 0.01


def test_options_of_another_backend_are_refused() -> None:
    with pytest.raises(FieldError, match="field tf32: unknown field"):
        convert(BackendOptions, {"backend": "openvino", "tf32": True})

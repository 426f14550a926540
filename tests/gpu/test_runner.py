"""Running engines: batches, buffers, arrays on the GPU, threads, memory."""

from __future__ import annotations

import gc
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ccr_deploy.core.child_process import peak_memory_mib
from ccr_deploy.core.gpu import checked, cuda_runtime
from ccr_deploy.engines.factory import EngineFactory
from ccr_deploy.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from ccr_deploy.backends.runner import Runner

LARGEST_BATCH = 32


@pytest.fixture
def encoder(factory: EngineFactory) -> Iterator[Runner]:
    with factory.load(factory.build("encoder")[0]) as runner:
        yield runner


@pytest.fixture
def classifier(factory: EngineFactory) -> Iterator[Runner]:
    with factory.load(factory.build("classifier")[0]) as runner:
        yield runner


def free_bytes() -> int:
    return int(checked(cuda_runtime().cudaMemGetInfo())[0])


def test_engine_inputs_and_outputs_are_bytes(encoder: Runner, classifier: Runner) -> None:
    assert [(spec.name, spec.dtype, spec.shape) for spec in encoder.inputs] == [
        ("image", "uint8", (None, 48, 48, 3))
    ]
    assert [(spec.name, spec.dtype) for spec in classifier.inputs] == [("code", "uint8")]


def test_batches_of_any_size_give_the_same_results(
    encoder: Runner, classifier: Runner, real_crops: npt.NDArray[np.uint8]
) -> None:
    """One image, some, the largest batch, and more, in parts. The classifier's smallest size is 2."""
    images = real_crops[:70]
    codes = encoder.infer({"image": images})["code"]
    logits = classifier.infer({"code": codes})["logits"]
    assert codes.shape[0] == logits.shape[0] == 70
    assert (codes.dtype, logits.dtype) == (np.uint8, np.float32)
    for size in (1, 3, LARGEST_BATCH, LARGEST_BATCH + 1):
        part = encoder.infer({"image": images[:size]})["code"]
        differing = np.unpackbits(part ^ codes[:size]).mean()
        assert differing < 0.002  # other batch sizes may run other kernels, which round differently
        np.testing.assert_allclose(
            classifier.infer({"code": codes[:size]})["logits"], logits[:size], atol=0.1
        )


def test_a_captured_graph_gives_the_same_results_again(
    encoder: Runner, real_crops: npt.NDArray[np.uint8]
) -> None:
    """The first run of a profile captures, later runs replay, also after runs of other profiles."""
    first = {size: encoder.infer({"image": real_crops[:size]})["code"] for size in (1, 5, 32)}
    assert encoder.captured_batch_sizes == {1, 8, 32}
    gc.collect()
    torch = pytest.importorskip("torch")
    torch.full(
        (64 << 20,), 255, dtype=torch.uint8, device="cuda"
    )  # overwrites memory that was freed meanwhile, if any
    for _ in range(3):
        for size, code in first.items():
            np.testing.assert_array_equal(encoder.infer({"image": real_crops[:size]})["code"], code)


def test_overlapping_parts_give_the_results_of_single_ones(
    encoder: Runner, real_crops: npt.NDArray[np.uint8]
) -> None:
    """Parts of the same profile run the same kernels, so that every bit is equal."""
    images = real_crops[: 6 * LARGEST_BATCH]
    single = [encoder.infer({"image": images[start : start + 32]})["code"] for start in range(0, 192, 32)]
    for _ in range(20):
        np.testing.assert_array_equal(encoder.infer({"image": images})["code"], np.concatenate(single))


def test_a_plan_for_triton_gives_the_same_codes(
    factory: EngineFactory, encoder: Runner, real_crops: npt.NDArray[np.uint8], tmp_path: Path
) -> None:
    """It has one profile for all batch sizes, and runs without padding."""
    fixed = Path(factory.target_name).read_text()
    target = tmp_path / "dynamic.toml"
    target.write_text(
        re.sub(r"= \[\d.*, 32\]", "= [32]", fixed).replace("[batch]", "[batch]\ndynamic = true")
    )
    own = EngineFactory(factory.bundle, str(target), factory.store, {"encoder": "fp16"})
    images = {"image": real_crops[:37]}
    with own.load(own.build("encoder")[0]) as runner:
        found = runner.infer(images)["code"]
        assert runner.captured_batch_sizes == {32, 5}
    assert np.unpackbits(found ^ encoder.infer(images)["code"]).mean() < 0.002


def test_later_calls_do_not_overwrite_outputs(encoder: Runner, real_crops: npt.NDArray[np.uint8]) -> None:
    first = encoder.infer({"image": real_crops[:1]})["code"]
    kept = first.copy()
    encoder.infer({"image": real_crops[500:501]})
    np.testing.assert_array_equal(first, kept)


def test_an_array_on_the_gpu_is_accepted(encoder: Runner, real_crops: npt.NDArray[np.uint8]) -> None:
    torch = pytest.importorskip("torch")
    images = real_crops[:40]
    expected = encoder.infer({"image": images})["code"]
    on_gpu = torch.from_numpy(images).cuda()
    np.testing.assert_array_equal(encoder.infer({"image": on_gpu})["code"], expected)
    np.testing.assert_array_equal(encoder.infer({"image": OnlyCudaInterface(on_gpu)})["code"], expected)
    unaligned = torch.empty(images.nbytes + 1, dtype=torch.uint8, device="cuda")[1:].view(images.shape)
    unaligned.copy_(on_gpu)
    np.testing.assert_array_equal(encoder.infer({"image": unaligned})["code"], expected)
    every_other = on_gpu[::2][:1]  # contiguous, because its only item makes the first stride irrelevant
    assert np.unpackbits(encoder.infer({"image": every_other})["code"] ^ expected[:1]).mean() < 0.002


def test_a_batch_below_the_smallest_is_accepted_on_the_gpu(
    encoder: Runner, classifier: Runner, real_crops: npt.NDArray[np.uint8]
) -> None:
    """The classifier's smallest size is 2."""
    torch = pytest.importorskip("torch")
    codes = encoder.infer({"image": real_crops[:3]})["code"]
    expected = classifier.infer({"code": codes})["logits"]
    for size in (1, 3):
        found = classifier.infer({"code": torch.from_numpy(codes[:size]).cuda()})["logits"]
        np.testing.assert_allclose(found, expected[:size], atol=0.1)


class OnlyCudaInterface:
    """An array of a library without DLPack."""

    def __init__(self, tensor) -> None:
        self._tensor = tensor
        self.__cuda_array_interface__ = {**tensor.__cuda_array_interface__, "version": 3, "stream": None}


def test_pending_writes_to_an_array_on_the_gpu_finish_first(
    encoder: Runner, real_crops: npt.NDArray[np.uint8]
) -> None:
    """Another stream is still writing the array when the engine gets it."""
    torch = pytest.importorskip("torch")
    expected = encoder.infer({"image": real_crops[:8]})["code"]
    source = torch.from_numpy(real_crops[:8]).cuda()
    with torch.cuda.stream(torch.cuda.Stream()):
        target = torch.zeros_like(source)
        torch.cuda._sleep(100_000_000)
        target.copy_(source)
        found = encoder.infer({"image": target})["code"]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda images: images.float(), r"expected uint8 \[N, 48, 48, 3\], found float32"),
        (lambda images: images[:, :40].contiguous(), r"found uint8 \[4, 40, 48, 3\]"),
        (lambda images: images.transpose(1, 2), "not contiguous"),
        (lambda images: images.float().requires_grad_(), "cannot be used"),
    ],
)
def test_a_wrong_array_on_the_gpu_is_refused(
    encoder: Runner, real_crops: npt.NDArray[np.uint8], change, message: str
) -> None:
    torch = pytest.importorskip("torch")
    images = torch.from_numpy(real_crops[:4]).cuda()
    with pytest.raises(EngineError, match=message):
        encoder.infer({"image": change(images)})


def test_a_wrong_input_is_refused_without_side_effects(
    encoder: Runner, real_crops: npt.NDArray[np.uint8]
) -> None:
    expected = encoder.infer({"image": real_crops[:2]})["code"]
    for feeds in ({}, {"photo": real_crops[:2]}, {"image": real_crops[:0]}, {"image": real_crops[0]}):
        with pytest.raises(EngineError):
            encoder.infer(feeds)
    np.testing.assert_array_equal(encoder.infer({"image": real_crops[:2]})["code"], expected)


def test_a_closed_runner_raises_an_error_and_frees_its_memory(
    factory: EngineFactory, real_crops: npt.NDArray[np.uint8]
) -> None:
    engine, _ = factory.build("encoder")
    free = []
    for _ in range(6):
        with factory.load(engine) as runner:
            runner.infer({"image": real_crops[:32]})
            assert 0 < runner.device_memory_mib < 4096
        free.append(free_bytes())
    assert free[-1] >= free[1] - (2 << 20)  # the first ones load libraries, which stay in memory
    with pytest.raises(EngineError, match="closed"):
        runner.infer({"image": real_crops[:1]})


def test_two_threads_cannot_share_a_runner(encoder: Runner, real_crops: npt.NDArray[np.uint8]) -> None:
    rejections: list[EngineError] = []
    others: list[Exception] = []
    start = threading.Barrier(4)

    def use() -> None:
        start.wait()
        for _ in range(50):
            try:
                encoder.infer({"image": real_crops})
            except EngineError as error:  # noqa: PERF203
                rejections.append(error)
            except Exception as error:
                others.append(error)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert others == []
    assert rejections
    assert all("another thread uses this runner" in str(error) for error in rejections)


def test_a_thousand_inferences_do_not_increase_memory(
    encoder: Runner, real_crops: npt.NDArray[np.uint8]
) -> None:
    sizes = (1, 8, 32, 5)
    for size in sizes:
        encoder.infer({"image": real_crops[:size]})
    device, host = free_bytes(), peak_memory_mib()
    for number in range(1000):
        encoder.infer({"image": real_crops[: sizes[number % len(sizes)]]})
    assert free_bytes() >= device - (2 << 20)
    assert peak_memory_mib() < host + 32

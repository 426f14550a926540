"""Activation ranges over all the images given, by ONNX Runtime's calibrators, in bounded memory."""

from __future__ import annotations

import tempfile
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from ccr_deploy.errors import CalibrationError, MissingExtraError
from ccr_deploy.quantization.model_optimizer import quiet
from ccr_deploy.quantization.quantizers import quantized_activations
from ccr_deploy.quantization.table import has_scale

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

    from ccr_deploy.quantization.recipe import Method

HISTOGRAM_BINS = 2048
"""ONNX Runtime's default of 128 leaves its entropy search nothing to choose from."""

QUANTIZED_BINS = 128


@dataclass(frozen=True)
class Range:
    """What one tensor's values were found to be, outliers aside where the method leaves them out."""

    low: float
    high: float


class RangeCollector(AbstractContextManager["RangeCollector"]):
    """Runs a graph on batch after batch and keeps minima and maxima, or one histogram a tensor.

    A context manager: the graph with its extra outputs lies in a temporary folder.
    """

    def __init__(self, model: ir.Model, method: Method, percentile: float) -> None:
        try:
            from onnxruntime.quantization import calibrate
        except ImportError:
            raise MissingExtraError("onnxruntime", "onnx", "calibrating") from None
        self._folder = tempfile.TemporaryDirectory(prefix="ccr-deploy-")
        folder = Path(self._folder.name)
        ir.save(model, folder / "graph.onnx")
        paths: dict[str, Any] = {
            "model_path": folder / "graph.onnx",
            "augmented_model_path": str(folder / "augmented.onnx"),
        }
        self._names = list(quantized_activations(model))
        self._input = str(model.graph.inputs[0].name)
        with quiet():
            if method == "minmax":
                calibrator = calibrate.MinMaxCalibrater(**paths)
            elif method == "entropy":
                bins = {"num_bins": HISTOGRAM_BINS, "num_quantized_bins": QUANTIZED_BINS}
                calibrator = calibrate.EntropyCalibrater(**paths, **bins)
            else:
                # Symmetric, so that the percentile is of absolute values: INT8 has no zero point here.
                calibrator = calibrate.PercentileCalibrater(
                    **paths, num_bins=HISTOGRAM_BINS, percentile=percentile, symmetric=True
                )
            _select_tensors(calibrator, self._names)
            calibrator.augment_graph()
            calibrator.create_inference_session()
        calibrator.infer_session = _FiniteSession(calibrator.infer_session, self._names)
        self._calibrator: Any = calibrator

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def add(self, batch: npt.NDArray[np.uint8]) -> None:
        """Takes one batch of the graph's input into account.

        Raises:
            CalibrationError: a tensor's values are NaN or infinite on it.
        """
        with quiet():
            # It reads batches until there is none, and forgets them after the call.
            one_batch = iter(({self._input: batch}, None))
            self._calibrator.collect_data(SimpleNamespace(get_next=one_batch.__next__))

    def ranges(self) -> dict[str, Range]:
        """The ranges found, by tensor.

        Raises:
            CalibrationError: a tensor's values were the same for all images.
        """
        with quiet():
            found = self._calibrator.compute_data()
        ranges = {}
        for name in self._names:
            low, high = (float(np.asarray(value).item()) for value in found[name].range_value)
            if low == high or not has_scale(max(abs(low), abs(high))):
                raise CalibrationError(
                    f"tensor {name}: {low + 0.0:g} everywhere on these images, which gives no range to "
                    "quantize: give other images, or check the checkpoint"
                )
            ranges[name] = Range(low, high)
        return ranges


class _FiniteSession:
    """A session whose outputs must be finite: ONNX Runtime's calibrators leave NaN out without a word."""

    def __init__(self, session: Any, names: Iterable[str]) -> None:  # noqa: ANN401 -- the library has no types
        self._session = session
        self._names = list(names)
        self.get_inputs, self.get_outputs = session.get_inputs, session.get_outputs

    def run(self, outputs: None, feeds: dict[str, npt.NDArray[np.uint8]]) -> list[npt.NDArray[np.generic]]:
        results: list[npt.NDArray[np.generic]] = self._session.run(outputs, feeds)
        damaged = {
            output.name.removesuffix("_ReduceMin").removesuffix("_ReduceMax")
            for output, array in zip(self.get_outputs(), results, strict=True)
            if not np.isfinite(array.astype(np.float32)).all()
        }
        if first := next((name for name in self._names if name in damaged), None):
            raise CalibrationError(
                f"tensor {first}: NaN or infinite on these images: the checkpoint is damaged or diverged"
            )
        return results


def _select_tensors(calibrator: Any, names: Iterable[str]) -> None:  # noqa: ANN401 -- the library has no types
    """Makes a calibrator watch these tensors; by itself it watches all inputs and outputs of an operator."""
    infos = {info.name: info for info in calibrator.model.graph.value_info}
    calibrator.select_tensors_to_calibrate = lambda _: (set(names), infos)

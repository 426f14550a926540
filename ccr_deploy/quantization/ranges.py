"""Collect activation ranges with ONNX Runtime's calibrators, batch by batch, in bounded memory."""

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
    from collections.abc import Iterable, Mapping

    import numpy.typing as npt

    from ccr_deploy.quantization.recipe import Method

HISTOGRAM_BINS = 2048
"""The bins of a histogram. ONNX Runtime's default, 128, leaves the entropy method no choice of a range."""

QUANTIZED_BINS = 128
"""The bins after quantization, for the entropy method: the positive values of INT8."""


@dataclass(frozen=True)
class Range:
    """The range of one tensor's values, without outliers if the method excludes them."""

    low: float
    high: float


class RangeCollector(AbstractContextManager["RangeCollector"]):
    """Run a graph on batches, and keep minima and maxima, or one histogram, per tensor.

    A context manager: the graph with its additional outputs is in a temporary folder.
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
                # Symmetric, so that the percentile is that of absolute values: the INT8 zero point is 0.
                calibrator = calibrate.PercentileCalibrater(
                    **paths, num_bins=HISTOGRAM_BINS, percentile=percentile, symmetric=True
                )
            _select_tensors(calibrator, self._names)
            calibrator.augment_graph()
            calibrator.create_inference_session()
        calibrator.infer_session = _FiniteSession(calibrator.infer_session, self._names)
        self._calibrator: Any = calibrator
        self._with_histograms = calibrate.HistogramCalibrater

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def add(self, batch: npt.NDArray[np.uint8]) -> None:
        """Add the values on one batch of the graph's input.

        Args:
            batch: ``uint8 [N, …]``, the input of the graph.

        Raises:
            CalibrationError: if a tensor has values that are NaN or infinite.
        """
        with quiet():
            # `collect_data` reads batches from `get_next` until it returns None, and keeps no batch.
            one_batch = iter(({self._input: batch}, None))
            self._calibrator.collect_data(SimpleNamespace(get_next=one_batch.__next__))

    def ranges(self) -> dict[str, Range]:
        """Return the range of each tensor.

        Raises:
            CalibrationError: if all values of a tensor are the same.
        """
        with quiet():
            found = self._calibrator.compute_data()
        ranges = {}
        for name in self._names:
            low, high = (float(np.asarray(value).item()) for value in found[name].range_value)
            if low == high or not has_scale(max(abs(low), abs(high))):
                raise CalibrationError(
                    f"tensor {name}: all values are {low + 0.0:g} on these images, so it has no range: "
                    "calibrate on other images, or check the checkpoint"
                )
            ranges[name] = Range(low, high)
        return ranges

    def clipped_percent(self, limits: Mapping[str, float]) -> dict[str, float]:
        """Return the share of each tensor's values with an absolute value above a limit, in percent.

        It is read from the histograms, linearly within a bin. Ranges of the method minmax clip nothing.

        Args:
            limits: the largest absolute value that is not clipped, by tensor.
        """
        if not isinstance(self._calibrator, self._with_histograms):
            return dict.fromkeys(limits, 0.0)
        histograms = self._calibrator.collector.get_histogram_dict()
        return {
            name: _percent_outside(histograms[name][0], histograms[name][1], limit)
            for name, limit in limits.items()
        }


def _percent_outside(
    counts: npt.NDArray[np.int64], edges: npt.NDArray[np.floating[Any]], limit: float
) -> float:
    """Return the share of a histogram's values below -limit and above limit, in percent."""
    below = np.concatenate([[0], np.cumsum(counts)])  # the number of values below each edge
    low, high = np.interp([-limit, limit], edges, below)
    return float(max(0.0, 100 * (1 - (high - low) / below[-1])))


class _FiniteSession:
    """A session that rejects outputs that are not finite: ONNX Runtime's calibrators silently ignore NaN."""

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
    """Make a calibrator collect only some tensors, instead of all inputs and outputs of operators."""
    infos = {info.name: info for info in calibrator.model.graph.value_info}
    calibrator.select_tensors_to_calibrate = lambda _: (set(names), infos)

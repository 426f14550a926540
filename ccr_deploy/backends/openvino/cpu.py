"""OpenVINO on a CPU. An engine is OpenVINO's own export of the compiled graph.

OpenVINO takes BF16 by itself where the processor has it, so every engine names the precision that it
computes in. In an INT8 engine that is FP32 between the quantized convolutions.
"""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING, Any, Literal

from ccr_deploy.backends.base import Backend, BuildSource, EngineFile
from ccr_deploy.backends.build_facts import BuildFacts
from ccr_deploy.backends.int8_agreement import CheckedRunners, check_agreement
from ccr_deploy.backends.int8_weights import MAX_ISA_VARIABLE, int8_weights_here
from ccr_deploy.backends.openvino.int8 import int8_model, separate_shared_scales, show_activations
from ccr_deploy.backends.options import BackendOptions, Threads
from ccr_deploy.backends.runner import Arrays, Outputs, Runner, TensorSpec
from ccr_deploy.backends.threads import thread_count
from ccr_deploy.core.printable import reason_of
from ccr_deploy.core.processor import processor_device
from ccr_deploy.core.records import Record
from ccr_deploy.errors import EngineError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path
    from types import ModuleType

    from ccr_deploy.core.precisions import EnginePrecision

_DEVICE = "CPU"
_HINTS: dict[EnginePrecision, str] = {"fp32": "f32", "fp16": "f16", "bf16": "bf16", "int8": "f32"}
_AS_WRITTEN = {"LP_TRANSFORMS_MODE": "NO"}
"""Computes Q/DQ pairs as rounding, and the convolutions between them in floating point."""
_NUMPY_TYPES = {"u8": "uint8", "f32": "float32"}


class OpenVinoOptions(Record, BackendOptions, frozen=True, tag_field="backend", tag="openvino"):
    """How OpenVINO runs on a CPU."""

    threads: Threads = 0


class OpenVinoBackend(Backend):
    """Builds and runs engines by OpenVINO's CPU plugin."""

    title = "OpenVINO"
    suffix = ".blob"
    options_class = OpenVinoOptions
    packages = ("openvino",)
    options: OpenVinoOptions

    def __init__(self, options: OpenVinoOptions | None = None) -> None:
        self.options = options or OpenVinoOptions()
        openvino = import_openvino()
        self._core: Any = openvino.Core()
        self.version = str(openvino.__version__)
        self._int8_weights = int8_weights_here(os.environ.get(MAX_ISA_VARIABLE))

    @property
    def device(self) -> str:
        """The processor: a compiled graph fits the instruction sets that oneDNN may use of it."""
        max_isa = os.environ.get(MAX_ISA_VARIABLE)
        return f"{processor_device()}{f', {MAX_ISA_VARIABLE}={max_isa}' if max_isa else ''}"

    @property
    def int8_weight_bits(self) -> Literal[7, 8]:
        """8, or 7 if this CPU's sums of INT8 products would saturate otherwise."""
        return self._int8_weights.bits

    def check_precision(self, precision: EnginePrecision) -> None:
        """Does nothing where OpenVINO says that this processor computes so.

        Raises:
            EngineError: the processor lacks the instructions.
        """
        check_capability(precision, self._capabilities(), self.device)

    def native_precisions(self) -> tuple[EnginePrecision, ...]:
        """FP32, then what this processor has instructions for."""
        found = self._capabilities()
        faster: tuple[EnginePrecision, ...] = ("fp16", "bf16", "int8")
        return ("fp32", *(precision for precision in faster if precision.upper() in found))

    def build(self, source: BuildSource, engine: Path) -> BuildFacts:
        """Compiles the graph for this processor and writes the result.

        An INT8 engine is compared with the same graph computed as it is written, since OpenVINO's
        low-precision transformations are known to change what some graphs compute.

        Raises:
            EngineError: OpenVINO refuses the graph, or its INT8 engine answers differently.
        """
        assert source.graph is not None
        try:
            if source.precision == "int8":
                compiled = self._build_int8(source)
            else:
                compiled = self._compile(self._core.read_model(source.graph), source.precision)
            exported = io.BytesIO()
            compiled.export_model(exported)
        except RuntimeError as error:
            raise EngineError(
                f"{source.graph}: OpenVINO {self.version} cannot build it ({reason_of(error)})"
            ) from error
        engine.write_bytes(exported.getvalue())
        return BuildFacts(int8_weights=str(self._int8_weights) if source.precision == "int8" else None)

    def load(self, engine: EngineFile) -> OpenVinoRunner:
        """Loads an engine that `build` wrote.

        Raises:
            EngineError: the file is no such engine.
        """
        try:
            content = engine.read(engine.path)
            return OpenVinoRunner(self._core.import_model(content, _DEVICE, self._config(engine.precision)))
        except (RuntimeError, OSError) as error:
            raise EngineError(
                f"{engine.path}: OpenVINO {self.version} cannot load it ({reason_of(error)})"
            ) from error

    def _build_int8(self, source: BuildSource) -> Any:  # noqa: ANN401
        """The compiled INT8 graph, after it was compared with the graph as it is written."""
        engine = int8_model(self._core, source.graph, self.int8_weight_bits)
        observed, as_written = engine.clone(), engine.clone()
        fp32 = self._core.read_model(source.graph_in("fp32"))
        for model in (observed, as_written, fp32):
            show_activations(model)
        for model in (engine, observed):
            separate_shared_scales(model)
        compiled = self._compile(engine, "int8")
        runners = CheckedRunners(
            engine=OpenVinoRunner(compiled),
            observed=OpenVinoRunner(self._compile(observed, "int8")),
            as_written=OpenVinoRunner(self._compile(as_written, "int8", **_AS_WRITTEN)),
            unquantized=OpenVinoRunner(self._compile(fp32, "fp32")),
        )
        check_agreement(source, runners, self.title, self.version)
        return compiled

    def _compile(self, model: object, precision: EnginePrecision, **changes: str) -> Any:  # noqa: ANN401
        return self._core.compile_model(model, _DEVICE, {**self._config(precision), **changes})

    def _config(self, precision: EnginePrecision) -> dict[str, object]:
        return {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "INFERENCE_NUM_THREADS": thread_count(self.options.threads),
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
        }

    def _capabilities(self) -> list[str]:
        return list(self._core.get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES"))


def import_openvino() -> ModuleType:
    """Import OpenVINO without its telemetry, which sends a message each time that OpenVINO is imported.

    `openvino_telemetry` writes an id into the user's home folder and knows no other switch than a file there.
    OpenVINO works without that package, so it is hidden from it.

    Raises:
        MissingExtraError: OpenVINO is not installed.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # Python's way to hide one
    try:
        import openvino
    except ImportError:
        raise MissingExtraError("openvino", "openvino", "the backend openvino") from None
    return openvino


def check_capability(precision: EnginePrecision, capabilities: Collection[str], processor: str) -> None:
    """Raises an EngineError where a precision is not among what OpenVINO says that a processor can do."""
    if precision.upper() not in capabilities:
        known = [name for name in ("FP32", "BF16", "FP16", "INT8") if name in capabilities]
        raise EngineError(
            f"{processor} has no instructions for {precision.upper()}: choose {' or '.join(known)}"
        )


class OpenVinoRunner(Runner):
    """A compiled graph with one request, which is used again for every batch."""

    def __init__(self, compiled: Any) -> None:  # noqa: ANN401 -- the library has no types
        self._request: Any = compiled.create_infer_request()
        self.inputs = tuple(_spec(port) for port in compiled.inputs)
        self._outputs = [port.any_name for port in compiled.outputs]

    def _close(self) -> None:
        self._request = None

    def _run(self, feeds: Arrays) -> Outputs:
        results = self._request.infer(dict(feeds), share_inputs=True)
        return {name: results[number] for number, name in enumerate(self._outputs)}


def _spec(port: Any) -> TensorSpec:  # noqa: ANN401
    shape = tuple(None if size.is_dynamic else size.get_length() for size in port.partial_shape)
    type_name = port.element_type.get_type_name()
    return TensorSpec(port.any_name, _NUMPY_TYPES.get(type_name, type_name), shape)

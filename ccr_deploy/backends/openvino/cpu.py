"""OpenVINO on a CPU. An engine is OpenVINO's export of the compiled graph.

OpenVINO computes in BF16 by default if the processor supports it. Every engine is therefore compiled for an
explicit precision; an INT8 engine computes in FP32 between the quantized convolutions.
"""

from __future__ import annotations

import io
import os
import sys
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from ccr_deploy.backends.base import Backend, BuildSource, EngineFile, Standalone
from ccr_deploy.backends.build_facts import BuildFacts
from ccr_deploy.backends.int8_agreement import CheckedRunners, check_agreement
from ccr_deploy.backends.int8_weights import MAX_ISA_VARIABLE, int8_weights_here
from ccr_deploy.backends.openvino.gates import separate_gates
from ccr_deploy.backends.openvino.int8 import expose_activations, read_int8_model, separate_shared_scales
from ccr_deploy.backends.openvino.standalone import compile_source
from ccr_deploy.backends.options import BackendOptions, Threads
from ccr_deploy.backends.runner import Arrays, Outputs, Runner, TensorSpec
from ccr_deploy.backends.threads import thread_count
from ccr_deploy.core.printable import reason_of
from ccr_deploy.core.processor import processor_device
from ccr_deploy.core.records import Record
from ccr_deploy.errors import EngineError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path
    from types import ModuleType

    from ccr_deploy.core.precisions import EnginePrecision

_DEVICE = "CPU"
_HINTS: dict[EnginePrecision, str] = {"fp32": "f32", "fp16": "f16", "bf16": "bf16", "int8": "f32"}
_AS_WRITTEN = {"LP_TRANSFORMS_MODE": "NO"}
"""Disables the low-precision transformations: Q/DQ pairs round, convolutions compute in floating point."""
_FORBIDDEN_BY_MAX_ISA = {
    **dict.fromkeys(
        ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI"),
        frozenset({"BF16", "FP16"}),
    ),
    "AVX512_CORE_BF16": frozenset({"FP16"}),
}
"""Capabilities whose instructions a value of ``ONEDNN_MAX_CPU_ISA`` forbids; none if it is not listed.

AVX2_VNNI_2 has instructions that convert BF16 and FP16, but a processor with AVX-512 may lack them."""
_NUMPY_TYPES = {"u8": "uint8", "f32": "float32", "f16": "float16"}


class OpenVinoOptions(Record, BackendOptions, frozen=True, tag_field="backend", tag="openvino"):
    """The options of OpenVINO on a CPU."""

    threads: Threads = 0


class OpenVinoBackend(Backend):
    """Build and run engines with OpenVINO's CPU plugin."""

    title = "OpenVINO"
    suffix = ".blob"
    options_class = OpenVinoOptions
    packages = ("openvino",)
    # Revision 1 split the gates' output.
    revisions = MappingProxyType({"fp32": 2, "fp16": 2, "bf16": 2, "int8": 2})
    options: OpenVinoOptions

    def __init__(self, options: OpenVinoOptions | None = None) -> None:
        self.options = options or OpenVinoOptions()
        openvino = import_openvino()
        self._core: Any = openvino.Core()
        self.version = str(openvino.__version__)
        self._int8_weights = int8_weights_here(os.environ.get(MAX_ISA_VARIABLE))

    @property
    def device(self) -> str:
        """The processor, and the limit of instruction sets if one is set: graphs are compiled for both."""
        max_isa = os.environ.get(MAX_ISA_VARIABLE)
        return f"{processor_device()}{f', {MAX_ISA_VARIABLE}={max_isa}' if max_isa else ''}"

    @property
    def int8_weight_bits(self) -> Literal[7, 8]:
        """8, or 7 if sums of 8-bit INT8 products would saturate on this CPU."""
        return self._int8_weights.bits

    def check_precision(self, precision: EnginePrecision) -> None:
        """Raise an error if OpenVINO does not support a precision on this processor.

        Raises:
            EngineError: if the processor has no instructions for it.
        """
        check_capability(precision, self._capabilities(), self.device)

    def native_precisions(self) -> tuple[EnginePrecision, ...]:
        """Return FP32, then the precisions that this processor has instructions for."""
        found = self._capabilities()
        faster: tuple[EnginePrecision, ...] = ("fp16", "bf16", "int8")
        return ("fp32", *(precision for precision in faster if precision.upper() in found))

    def build(self, source: BuildSource, engine: Path) -> BuildFacts:
        """Compile the graph for this processor and write the result.

        An INT8 engine is compared with the graph executed without OpenVINO's low-precision transformations,
        which are known to change the results of some graphs.

        Raises:
            EngineError: if OpenVINO rejects the graph, or the results of its INT8 engine differ.
        """
        assert source.graph is not None
        try:
            if source.precision == "int8":
                compiled = self._build_int8(source)
            else:
                model = self._core.read_model(source.graph)
                change_before_compilation(model, source.precision)
                compiled = self._compile(model, source.precision)
            exported = io.BytesIO()
            compiled.export_model(exported)
        except RuntimeError as error:
            raise EngineError(
                f"{source.graph}: OpenVINO {self.version} cannot build it ({reason_of(error)})"
            ) from error
        engine.write_bytes(exported.getvalue())
        return BuildFacts(int8_weights=str(self._int8_weights) if source.precision == "int8" else None)

    def compile(self, source: BuildSource, folder: Path) -> OpenVinoRunner:  # noqa: ARG002
        """Compile a graph in memory, without comparing an INT8 engine with its graph.

        Raises:
            EngineError: if OpenVINO rejects the graph.
        """
        try:
            if source.precision == "int8":
                model = read_int8_model(self._core, source.graph, self.int8_weight_bits)
            else:
                model = self._core.read_model(source.graph)
            change_before_compilation(model, source.precision)
            return OpenVinoRunner(self._compile(model, source.precision))
        except RuntimeError as error:
            raise EngineError(
                f"{source.graph}: OpenVINO {self.version} cannot compile it ({reason_of(error)})"
            ) from error

    def standalone(self, graph: Path, precision: EnginePrecision) -> Standalone:
        """Return a graph and the Python source that runs it with OpenVINO alone."""
        config = self._config(precision)
        bits = self.int8_weight_bits if precision == "int8" else None
        return Standalone(graph.read_bytes(), compile_source(config, bits), ("openvino",))

    def load(self, engine: EngineFile) -> OpenVinoRunner:
        """Load an engine that `build` wrote.

        Raises:
            EngineError: if the file is not an engine of this backend.
        """
        try:
            content = engine.read(engine.path)
            return OpenVinoRunner(self._core.import_model(content, _DEVICE, self._config(engine.precision)))
        except (RuntimeError, OSError) as error:
            raise EngineError(
                f"{engine.path}: OpenVINO {self.version} cannot load it ({reason_of(error)})"
            ) from error

    def compile_model(self, model: object, precision: EnginePrecision) -> Any:  # noqa: ANN401
        """Compile a model of OpenVINO's own API."""
        return self._compile(model, precision)

    def _build_int8(self, source: BuildSource) -> Any:  # noqa: ANN401
        """Compile the INT8 graph, and compare it with the graph executed without transformations."""
        engine = read_int8_model(self._core, source.graph, self.int8_weight_bits)
        observed, as_written = engine.clone(), engine.clone()
        fp32 = self._core.read_model(source.graph_in("fp32"))
        for model in (observed, as_written, fp32):
            expose_activations(model)
        for model in (engine, observed):
            change_before_compilation(model, "int8")
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
            "NUM_STREAMS": 1,  # one request at a time uses all threads
        }

    def _capabilities(self) -> list[str]:
        listed = self._core.get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES")
        return usable_capabilities(listed, os.environ.get(MAX_ISA_VARIABLE))


def import_openvino() -> ModuleType:
    """Import OpenVINO without its telemetry, which sends a message on every import of OpenVINO.

    `openvino_telemetry` writes an id to the user's home folder, and only a file there disables it. OpenVINO
    works without that package, so this function makes its import fail.

    Raises:
        MissingExtraError: if OpenVINO is not installed.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # makes the import fail
    try:
        import openvino
    except ImportError:
        raise MissingExtraError("openvino", "openvino", "the backend openvino") from None
    return openvino


def change_before_compilation(model: Any, precision: EnginePrecision) -> None:  # noqa: ANN401
    """Change a model of OpenVINO's own API in place, so that it is compiled correctly and runs faster."""
    separate_gates(model)
    if precision == "int8":
        separate_shared_scales(model)


def usable_capabilities(listed: Iterable[str], max_isa: str | None) -> list[str]:
    """Return the capabilities that ``ONEDNN_MAX_CPU_ISA`` leaves.

    OpenVINO 2026.4 lists BF16 even if the variable forbids its instructions, and then a BF16 engine cannot be
    built, or ends its process by SIGSEGV.

    Args:
        listed: the processor's ``OPTIMIZATION_CAPABILITIES``, as OpenVINO lists them.
        max_isa: the value of the variable; None if it is not set.
    """
    forbidden = _FORBIDDEN_BY_MAX_ISA.get((max_isa or "").upper(), frozenset())
    return [name for name in listed if name not in forbidden]


def check_capability(precision: EnginePrecision, capabilities: Collection[str], processor: str) -> None:
    """Raise an error if a precision is not among a processor's capabilities.

    Args:
        precision: the precision.
        capabilities: the processor's ``OPTIMIZATION_CAPABILITIES``, as OpenVINO lists them.
        processor: the name of the processor, for the message.

    Raises:
        EngineError: if the processor has no instructions for the precision.
    """
    if precision.upper() not in capabilities:
        known = [name for name in ("FP32", "BF16", "FP16", "INT8") if name in capabilities]
        raise EngineError(
            f"OpenVINO does not support {precision.upper()} on {processor}: choose {' or '.join(known)}"
        )


class OpenVinoRunner(Runner):
    """A compiled graph with one inference request, which is reused for every batch."""

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

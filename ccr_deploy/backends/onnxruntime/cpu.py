"""ONNX Runtime on a CPU. An engine is the graph after ONNX Runtime's optimizations for this processor."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ccr_deploy.backends.base import Backend, BuildSource, EngineFile, Standalone
from ccr_deploy.backends.build_facts import BuildFacts
from ccr_deploy.backends.int8_agreement import CheckedRunners, check_agreement
from ccr_deploy.backends.onnxruntime.activations import expose_activations
from ccr_deploy.backends.onnxruntime.int8 import broken_optimizers, read_rounding_graph
from ccr_deploy.backends.onnxruntime.standalone import session_source
from ccr_deploy.backends.options import BackendOptions, Threads
from ccr_deploy.backends.runner import Arrays, Outputs, Runner, TensorSpec
from ccr_deploy.backends.threads import thread_count
from ccr_deploy.core.printable import reason_of
from ccr_deploy.core.records import Record
from ccr_deploy.errors import EngineError, MissingExtraError

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.core.precisions import EnginePrecision

_NUMPY_TYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32", "tensor(float16)": "float16"}
FATAL = 4
"""ONNX Runtime's severity that silences its log: its errors are raised as exceptions."""


class OnnxRuntimeOptions(Record, BackendOptions, frozen=True, tag_field="backend", tag="onnxruntime"):
    """The options of ONNX Runtime on a CPU."""

    threads: Threads = 0


class OnnxRuntimeBackend(Backend):
    """Build and run engines with ONNX Runtime's CPU provider.

    INT8 weights have 8 bits on every CPU: see `_session_options`.
    """

    title = "ONNX Runtime"
    suffix = ".onnx"
    options_class = OnnxRuntimeOptions
    packages = ("onnxruntime", "onnxruntime-gpu")
    revisions = MappingProxyType({"int8": 2})  # revision 1 was not compared with the graph
    options: OnnxRuntimeOptions

    def __init__(self, options: OnnxRuntimeOptions | None = None) -> None:
        self.options = options or OnnxRuntimeOptions()
        self._onnxruntime = import_onnxruntime("onnx")
        self.version = str(self._onnxruntime.__version__)

    def check_precision(self, precision: EnginePrecision) -> None:
        """Accept FP16 too: ONNX Runtime computes it in FP32 between casts, which is slower but correct.

        Raises:
            EngineError: if ONNX Runtime does not support the precision on a CPU.
        """
        if precision not in {*self.native_precisions(), "fp16"}:
            raise EngineError(
                f"ONNX Runtime does not support {precision.upper()} on a CPU: choose FP32, or the target "
                "cpu-openvino"
            )

    def native_precisions(self) -> tuple[EnginePrecision, ...]:
        """Return FP32 and INT8."""
        return ("fp32", "int8")

    def build(self, source: BuildSource, engine: Path) -> BuildFacts:
        """Optimize the graph for this processor and write the result.

        An INT8 engine is compared with the graph executed without optimizations, because ONNX Runtime's
        optimizers are known to change the results of some graphs.

        Raises:
            EngineError: if ONNX Runtime rejects the graph, or the results of its INT8 engine differ.
        """
        assert source.graph is not None
        if source.precision == "int8":
            graph = read_rounding_graph(source.graph, self.version)
            try:
                self.optimize_int8(graph, engine)
            except EngineError as error:  # its message names no file, because the graph was given as bytes
                raise EngineError(f"{source.graph}: {error}") from error
            self._check_int8(source, graph, engine)
        else:
            self._start(source.graph, self._session_options(), engine)
        return BuildFacts()

    def optimize_int8(self, graph: bytes, engine: Path | None = None) -> OnnxRuntimeRunner:
        """Load an INT8 graph with the defective optimizers disabled; write the result if a path is given.

        Args:
            graph: the content of an ONNX file.
            engine: the path of the file to write.

        Raises:
            EngineError: if ONNX Runtime rejects the graph.
        """
        options = self._session_options()
        broken = ";".join(broken_optimizers(self.version))
        options.add_session_config_entry("optimization.disable_specified_optimizers", broken)
        return self._start(graph, options, engine)

    def compile(self, source: BuildSource, folder: Path) -> OnnxRuntimeRunner:  # noqa: ARG002
        """Optimize a graph in memory, without comparing an INT8 engine with its graph."""
        assert source.graph is not None
        if source.precision == "int8":
            return self.optimize_int8(read_rounding_graph(source.graph, self.version))
        return self._start(source.graph, self._session_options())

    def standalone(self, graph: Path, precision: EnginePrecision) -> Standalone:
        """Return a graph and the Python source that runs it with ONNX Runtime alone."""
        is_int8 = precision == "int8"
        content = read_rounding_graph(graph, self.version) if is_int8 else graph.read_bytes()
        source = session_source(disabled_optimizers=broken_optimizers(self.version) if is_int8 else ())
        return Standalone(content, source, ("onnxruntime",))

    def load(self, engine: EngineFile) -> OnnxRuntimeRunner:
        """Load an engine without optimizing it again; its precision is in the graph.

        Raises:
            EngineError: if ONNX Runtime cannot run the file.
        """
        return self.load_graph(engine.path)

    def load_graph(self, graph: Path | bytes) -> OnnxRuntimeRunner:
        """Load a graph, from a file or as bytes, to be executed node by node without optimizations.

        Raises:
            EngineError: if ONNX Runtime cannot run the graph.
        """
        options = self._session_options()
        options.graph_optimization_level = self._onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        return self._start(graph, options)

    def _check_int8(self, source: BuildSource, graph: bytes, engine: Path) -> None:
        """Raise an EngineError if an INT8 engine does not agree with its graph."""
        # The INT8 graph computes in FP16 between its quantized convolutions, as the FP16 graph does.
        fp16 = source.graph_in("fp16").read_bytes()
        built, exposed = self.load_graph(engine), expose_activations(graph)
        runners = CheckedRunners(
            engine=built,
            observed=self.optimize_int8(exposed) if source.stage == "encoder" else built,
            as_written=self.load_graph(exposed),
            unquantized=self.load_graph(expose_activations(fp16)),
        )
        check_agreement(source, runners, self.title, self.version)

    def _start(
        self,
        graph: Path | bytes,
        options: Any,  # noqa: ANN401 -- the library has no types
        engine: Path | None = None,
    ) -> OnnxRuntimeRunner:
        """Start a session of a graph; write the optimized graph if a path is given."""
        if engine:
            options.optimized_model_filepath = str(engine)
        return OnnxRuntimeRunner(start_session(self._onnxruntime, graph, options, ["CPUExecutionProvider"]))

    def _session_options(self) -> Any:  # noqa: ANN401 -- the library has no types
        options = self._onnxruntime.SessionOptions()
        options.intra_op_num_threads = thread_count(self.options.threads)
        options.inter_op_num_threads = 1
        options.log_severity_level = FATAL
        # With memory patterns, ONNX Runtime allocates one more block for every batch size that occurs twice,
        # as large as the activations, and runs no faster (measured with ccr-layer1: 196 MiB instead of 94).
        options.enable_mem_pattern = False
        # Idle threads would keep spinning after a run and slow down the engine of the next stage.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        # Without this, sums of INT8 products saturate on an x86 CPU without VNNI (see int8_weights). With it,
        # ONNX Runtime uses exact, slower kernels on such CPUs; on all others it makes no difference.
        options.add_session_config_entry("session.x64quantprecision", "1")
        return options


def import_onnxruntime(extra: str) -> Any:  # noqa: ANN401
    """Import ONNX Runtime.

    Raises:
        MissingExtraError: if it is not installed; `extra` is the extra to install.
    """
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError("onnxruntime", extra, "the backend onnxruntime") from None
    return onnxruntime


def start_session(onnxruntime: Any, graph: Path | bytes, options: Any, providers: list[Any]) -> Any:  # noqa: ANN401
    """Start a session of a graph.

    Args:
        onnxruntime: the library.
        graph: an ONNX file, or the content of one.
        options: the library's session options.
        providers: the execution providers, in order of preference, in the form that the library accepts.

    Raises:
        EngineError: if ONNX Runtime cannot run the graph.
    """
    try:
        content = graph if isinstance(graph, bytes) else str(graph)
        # The library's own fallback would silently use the CPU if the provider of a GPU fails.
        return onnxruntime.InferenceSession(content, options, providers=providers, enable_fallback=False)
    except Exception as error:  # the library's own exceptions share no base class
        file = "" if isinstance(graph, bytes) else f"{graph}: "
        raise EngineError(
            f"{file}ONNX Runtime {onnxruntime.__version__} cannot load it ({reason_of(error)})"
        ) from error


class OnnxRuntimeRunner(Runner):
    """An ONNX Runtime session."""

    def __init__(self, session: Any) -> None:  # noqa: ANN401
        self._session = session
        self.inputs = tuple(_spec(argument) for argument in session.get_inputs())
        self._outputs = [argument.name for argument in session.get_outputs()]

    def _close(self) -> None:
        self._session = None

    def _run(self, feeds: Arrays) -> Outputs:
        return dict(zip(self._outputs, self._session.run(self._outputs, dict(feeds)), strict=True))


def _spec(argument: Any) -> TensorSpec:  # noqa: ANN401
    shape = tuple(size if isinstance(size, int) else None for size in argument.shape)
    return TensorSpec(argument.name, _NUMPY_TYPES.get(argument.type, argument.type), shape)

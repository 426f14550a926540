"""ONNX Runtime on a CPU. An engine is the graph after its optimisations for this processor."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ccr_deploy.backends.base import Backend
from ccr_deploy.backends.build_facts import BuildFacts
from ccr_deploy.backends.int8_agreement import CheckedRunners, check_agreement
from ccr_deploy.backends.onnxruntime.activations import show_activations
from ccr_deploy.backends.onnxruntime.int8 import broken_optimizers, graph_that_rounds
from ccr_deploy.backends.options import BackendOptions, Threads
from ccr_deploy.backends.runner import Runner, TensorSpec
from ccr_deploy.backends.threads import thread_count
from ccr_deploy.core.records import Record
from ccr_deploy.errors import EngineError, MissingExtraError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from ccr_deploy.backends.base import BuildSource, EngineFile
    from ccr_deploy.backends.runner import Arrays
    from ccr_deploy.core.precisions import EnginePrecision

_NUMPY_TYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}
FATAL = 4
"""The level at which ONNX Runtime logs nothing: its errors come as exceptions."""


class OnnxRuntimeOptions(Record, BackendOptions, frozen=True, tag_field="backend", tag="onnxruntime"):
    """How ONNX Runtime runs on a CPU."""

    threads: Threads = 0


class OnnxRuntimeBackend(Backend):
    """Builds and runs engines by ONNX Runtime's CPU provider.

    INT8 weights have 8 bits on every CPU: see `_session_options`.
    """

    title = "ONNX Runtime"
    suffix = ".onnx"
    options_class = OnnxRuntimeOptions
    packages = ("onnxruntime", "onnxruntime-gpu")
    revisions = MappingProxyType({"int8": 2})  # the first were not compared with their graphs
    options: OnnxRuntimeOptions

    def __init__(self, options: OnnxRuntimeOptions | None = None) -> None:
        self.options = options or OnnxRuntimeOptions()
        self._onnxruntime = import_onnxruntime("onnx")

    @property
    def version(self) -> str:
        """ONNX Runtime's version."""
        return str(self._onnxruntime.__version__)

    def check_precision(self, precision: EnginePrecision) -> None:
        """FP32 and INT8; FP16 is taken, though computed in FP32 between casts.

        Raises:
            EngineError: another was asked for.
        """
        if precision == "bf16":
            raise EngineError("ONNX Runtime has no BF16 on a CPU: use --target cpu-openvino, or FP32")
        if precision != "fp16":
            super().check_precision(precision)

    def native_precisions(self) -> tuple[EnginePrecision, ...]:
        """FP32 and INT8."""
        return ("fp32", "int8")

    def build(self, source: BuildSource, engine: Path) -> BuildFacts:
        """Optimises the graph for this processor and writes the result.

        An INT8 engine is compared with the same graph computed as it is written, since ONNX Runtime's
        optimizers are known to change what some graphs compute.

        Raises:
            EngineError: ONNX Runtime refuses the graph, or its INT8 engine answers differently.
        """
        assert source.graph is not None
        if source.precision == "int8":
            graph = graph_that_rounds(source.graph, self.version)
            try:
                self.optimize_int8(graph, engine)
            except EngineError as error:  # which names no file
                raise EngineError(f"{source.graph}: {error}") from error
            self._check_int8(source, graph, engine)
        else:
            self._optimize(source.graph, self._session_options(), engine)
        return BuildFacts()

    def optimize_int8(self, graph: bytes, engine: Path | None = None) -> OnnxRuntimeRunner:
        """Load an INT8 graph without the optimizers that break it, and write the result if a path is given.

        Raises:
            EngineError: ONNX Runtime refuses the graph.
        """
        options = self._session_options()
        broken = ";".join(broken_optimizers(self.version))
        options.add_session_config_entry("optimization.disable_specified_optimizers", broken)
        return self._optimize(graph, options, engine)

    def load(self, engine: EngineFile) -> OnnxRuntimeRunner:
        """Loads an engine; it was optimised when it was built, and its precision is in the graph.

        Raises:
            EngineError: the file is no graph that ONNX Runtime runs.
        """
        return self.load_graph(engine.path)

    def load_graph(self, graph: Path | bytes) -> OnnxRuntimeRunner:
        """Loads a graph, a file or the bytes of one, to be run node by node as it is written.

        Raises:
            EngineError: the file is no graph that ONNX Runtime runs.
        """
        options = self._session_options()
        options.graph_optimization_level = self._onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        return OnnxRuntimeRunner(self._session(graph, options))

    def _check_int8(self, source: BuildSource, graph: bytes, engine: Path) -> None:
        """Raise an EngineError if an INT8 engine does not agree with its graph.

        The graph that was quantized is the FP16 one; so INT8 can be built where FP32 is refused.
        """
        fp16 = source.graph_in("fp16").read_bytes()
        built, shown = self.load_graph(engine), show_activations(graph)
        runners = CheckedRunners(
            engine=built,
            observed=self.optimize_int8(shown) if source.stage == "encoder" else built,
            as_written=self.load_graph(shown),
            unquantized=self.load_graph(show_activations(fp16)),
        )
        check_agreement(source, runners, self.title, self.version)

    def _optimize(self, graph: Path | bytes, options: Any, engine: Path | None) -> OnnxRuntimeRunner:  # noqa: ANN401
        if engine:
            options.optimized_model_filepath = str(engine)
        return OnnxRuntimeRunner(self._session(graph, options))

    def _session_options(self) -> Any:  # noqa: ANN401 -- the library has no types
        options = self._onnxruntime.SessionOptions()
        options.intra_op_num_threads = thread_count(self.options.threads)
        options.inter_op_num_threads = 1
        options.log_severity_level = FATAL
        # A pattern is one more block for every batch size that was met twice: as much memory again as the
        # activations take, for no speed (measured: ccr-layer1, 94 MiB against 196).
        options.enable_mem_pattern = False
        # Idle threads would spin on after a run and slow the next stage's engine in the same process.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        # Or sums of INT8 products saturate on an x86 CPU without VNNI (see int8_weights). ONNX Runtime takes
        # exact and slower kernels there, and the same ones as before on every other CPU.
        options.add_session_config_entry("session.x64quantprecision", "1")
        return options

    def _session(self, graph: Path | bytes, options: Any) -> Any:  # noqa: ANN401
        return start_session(self._onnxruntime, graph, options, ["CPUExecutionProvider"])


def import_onnxruntime(extra: str) -> Any:  # noqa: ANN401
    """The library.

    Raises:
        MissingExtraError: it is not installed; `extra` brings it.
    """
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError("onnxruntime", extra, "the backend onnxruntime") from None
    return onnxruntime


def start_session(onnxruntime: Any, graph: Path | bytes, options: Any, providers: list[Any]) -> Any:  # noqa: ANN401
    """A session of a graph, a file or the bytes of one, with some of the library's providers.

    Raises:
        EngineError: the file is no graph that ONNX Runtime runs.
    """
    try:
        content = graph if isinstance(graph, bytes) else str(graph)
        # Its own fallback would take the CPU where a GPU's provider fails, when it loads or when it runs.
        return onnxruntime.InferenceSession(content, options, providers=providers, enable_fallback=False)
    except Exception as error:  # the library's own exceptions share no base class
        reason = " ".join(str(error).split())[:300]
        file = "" if isinstance(graph, bytes) else f"{graph}: "
        raise EngineError(
            f"{file}ONNX Runtime {onnxruntime.__version__} cannot load it ({reason})"
        ) from error


class OnnxRuntimeRunner(Runner):
    """An ONNX Runtime session with one input and output, or more."""

    def __init__(self, session: Any) -> None:  # noqa: ANN401
        self._session = session
        self.inputs = tuple(_spec(argument) for argument in session.get_inputs())
        self._outputs = [argument.name for argument in session.get_outputs()]

    def _close(self) -> None:
        self._session = None

    def _run(self, feeds: Arrays) -> dict[str, npt.NDArray[np.generic]]:
        return dict(zip(self._outputs, self._session.run(self._outputs, dict(feeds)), strict=True))


def _spec(argument: Any) -> TensorSpec:  # noqa: ANN401
    shape = tuple(size if isinstance(size, int) else None for size in argument.shape)
    return TensorSpec(argument.name, _NUMPY_TYPES.get(argument.type, argument.type), shape)

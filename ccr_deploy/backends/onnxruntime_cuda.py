"""ONNX Runtime's CUDA provider. An engine is the graph as it is; it is optimised when it is loaded.

ONNX Runtime falls back to the CPU without an exception where the provider cannot be loaded, because CUDA's
or cuDNN's libraries are missing or of another version. Here that is an error.
"""

from __future__ import annotations

import contextlib
import io
import shutil
from typing import TYPE_CHECKING, Any, Literal

from ccr_deploy.backends.onnxruntime import FATAL, OnnxRuntimeRunner, import_onnxruntime, start_session
from ccr_deploy.engine_sidecar import BuildFacts
from ccr_deploy.errors import EngineError
from ccr_deploy.gpu import find_gpu

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.backends.base import BuildSource
    from ccr_deploy.engine_options import CudaOptions
    from ccr_deploy.precisions import EnginePrecision

_PROVIDER = "CUDAExecutionProvider"
_SMALLEST_GRAPH = (
    b'\x08\t:7\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01'
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\x12"
)
"""An ONNX file that hands on one number: loading it shows whether the provider loads."""


class OnnxRuntimeCudaBackend:
    """Runs graphs by ONNX Runtime's CUDA provider."""

    name = "onnxruntime-cuda"
    suffix = ".onnx"
    int8_weight_bits: Literal[7, 8] = 8

    def __init__(self, options: CudaOptions) -> None:
        self._options = options
        self._onnxruntime: Any = import_onnxruntime("cuda")

    @property
    def version(self) -> str:
        """ONNX Runtime's version."""
        return str(self._onnxruntime.__version__)

    @property
    def device(self) -> str:
        """The GPU.

        Raises:
            EngineError, MissingExtraError: there is none, or nobody can look for one.
        """
        return str(find_gpu())

    def check_builds_here(self) -> None:
        """Does nothing where there is a GPU and the provider really loads.

        Raises:
            EngineError, MissingExtraError: what is missing.
        """
        self.check_runs_here()

    def check_runs_here(self) -> None:
        """Does nothing where there is a GPU and the provider really loads.

        Raises:
            EngineError, MissingExtraError: what is missing.
        """
        find_gpu()
        self._session(_SMALLEST_GRAPH)

    def check_precision(self, precision: EnginePrecision) -> None:
        """FP32 and FP16.

        Raises:
            EngineError: another one was asked for.
        """
        if precision not in self.native_precisions():
            raise EngineError(f"ONNX Runtime's CUDA provider has no {precision.upper()}: choose FP16 or FP32")

    def native_precisions(self) -> tuple[EnginePrecision, ...]:
        """FP32 and FP16."""
        return ("fp32", "fp16")

    def build(self, source: BuildSource, engine: Path) -> BuildFacts:
        """Loads the graph to see that it runs, and copies it.

        Raises:
            EngineError: there is no GPU, ONNX Runtime refuses the graph, or the provider does not load.
        """
        assert source.graph is not None
        self._session(source.graph)
        shutil.copyfile(source.graph, engine)
        return BuildFacts(driver=find_gpu().driver)

    def load(self, engine: Path, precision: EnginePrecision) -> OnnxRuntimeRunner:  # noqa: ARG002
        """Loads an engine; its precision is in the graph.

        Raises:
            EngineError: the file is no graph that ONNX Runtime runs, or the provider does not load.
        """
        return OnnxRuntimeRunner(self._session(engine))

    def _session(self, graph: Path | bytes) -> Any:  # noqa: ANN401 -- the library has no types
        self._onnxruntime.set_default_logger_severity(FATAL)  # what it would print is told by the error below
        complaints = io.StringIO()
        if _PROVIDER not in self._onnxruntime.get_available_providers():
            raise EngineError(
                f"this ONNX Runtime {self.version} was built without CUDA: replace it by "
                "pip install 'ccr-deploy[cuda]'"
            )
        if hasattr(self._onnxruntime, "preload_dlls"):
            with contextlib.redirect_stdout(complaints):
                self._onnxruntime.preload_dlls()  # finds CUDA and cuDNN where pip put them
        options = self._onnxruntime.SessionOptions()
        options.log_severity_level = FATAL
        provider = (_PROVIDER, {"use_tf32": str(int(self._options.tf32))})
        session = start_session(self._onnxruntime, graph, options, [provider])
        if _PROVIDER not in session.get_providers():
            reason = next(iter(complaints.getvalue().splitlines()), "it does not say why")
            raise EngineError(
                f"ONNX Runtime {self.version} could not load its CUDA provider ({reason}): it needs its own "
                "version of CUDA and cuDNN: pip install 'ccr-deploy[cuda]'"
            )
        return session

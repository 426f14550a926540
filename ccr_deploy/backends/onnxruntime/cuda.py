"""ONNX Runtime's CUDA provider. An engine is the graph as it is; it is optimised when it is loaded.

ONNX Runtime falls back to the CPU without an exception where the provider cannot be loaded, because CUDA's
or cuDNN's libraries are missing or of another version, and for single operators that the provider does not
take. Here both are errors.
"""

from __future__ import annotations

import contextlib
import io
import shutil
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ccr_deploy.backends.base import Backend, BuildSource, EngineFile
from ccr_deploy.backends.build_facts import BuildFacts
from ccr_deploy.backends.onnxruntime.cpu import FATAL, OnnxRuntimeRunner, import_onnxruntime, start_session
from ccr_deploy.backends.options import GpuOptions
from ccr_deploy.core.gpu import find_gpu
from ccr_deploy.core.gpu_driver import GpuExtras, extras_here
from ccr_deploy.core.records import Record
from ccr_deploy.errors import EngineError, pip_install

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.core.precisions import EnginePrecision

_PROVIDER = "CUDAExecutionProvider"
_CUDA_OF = {"cuda": 13, "cuda12": 12}
"""The CUDA whose libraries an extra brings."""
_SMALLEST_GRAPH = (
    b'\x08\t:7\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01'
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\x12"
)
"""An ONNX file that hands on one number: loading it shows whether the provider loads."""


class CudaOptions(Record, GpuOptions, frozen=True, tag_field="backend", tag="onnxruntime-cuda"):
    """How ONNX Runtime's CUDA provider computes FP32: with TF32's 10 bits of mantissa, or exactly."""

    tf32: bool = False


class OnnxRuntimeCudaBackend(Backend):
    """Runs graphs by ONNX Runtime's CUDA provider."""

    title = "ONNX Runtime's CUDA provider"
    suffix = ".onnx"
    options_class = CudaOptions
    packages = ("onnxruntime-gpu", "cuda-bindings")
    options: CudaOptions

    def __init__(self, options: CudaOptions) -> None:
        self.options = options
        self._onnxruntime: Any = import_onnxruntime(extras_here().onnxruntime or "cuda")
        self.version = str(self._onnxruntime.__version__)

    @property
    def device(self) -> str:
        """The GPU.

        Raises:
            EngineError, MissingExtraError: there is none, or nobody can look for one.
        """
        return str(find_gpu())

    def check_runs_here(self) -> None:
        """Does nothing where there is a GPU and the provider really loads.

        Raises:
            EngineError, MissingExtraError: what is missing.
        """
        find_gpu()
        self._provider  # noqa: B018 -- raises where it does not load

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

    def load(self, engine: EngineFile) -> OnnxRuntimeRunner:
        """Loads an engine; its precision is in the graph.

        Raises:
            EngineError: the file is no graph that ONNX Runtime runs, or the provider does not load.
        """
        return OnnxRuntimeRunner(self._session(engine.path))

    def _session(self, graph: Path | bytes) -> Any:  # noqa: ANN401 -- the library has no types
        return start_session(self._onnxruntime, graph, gpu_only(self._onnxruntime), [self._provider])

    @cached_property
    def _provider(self) -> tuple[str, dict[str, str]]:
        """The provider with its options, once it was seen to load.

        Seen with a graph that may run on the CPU: without the provider ONNX Runtime then says so by the
        session's providers, where otherwise it would complain of operators on the CPU.
        """
        library = self._onnxruntime
        library.set_default_logger_severity(FATAL)  # what it would print is told by the error below
        if _PROVIDER not in library.get_available_providers():
            raise EngineError(without_cuda(self.version, extras_here()))
        complaints = io.StringIO()
        if hasattr(library, "preload_dlls"):
            with contextlib.redirect_stdout(complaints):
                library.preload_dlls()  # finds CUDA and cuDNN where pip put them
        provider = (_PROVIDER, {"use_tf32": str(int(self.options.tf32))})
        options = library.SessionOptions()
        options.log_severity_level = FATAL
        try:
            loads = _PROVIDER in start_session(library, _SMALLEST_GRAPH, options, [provider]).get_providers()
            reason = next(iter(complaints.getvalue().splitlines()), "it does not say why")
        except EngineError as error:
            loads, reason = False, " ".join(str(error.__cause__).split())[:300]
        if not loads:
            built_for = getattr(library, "cuda_version", "")
            raise EngineError(not_loaded(self.version, built_for, reason, extras_here()))
        return provider


def gpu_only(onnxruntime: Any) -> Any:  # noqa: ANN401
    """Return session options with which a graph is refused if one of its operators would run on the CPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = FATAL
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return options


def without_cuda(version: str, extras: GpuExtras) -> str:
    """Return what to say, and what to do, if the installed ONNX Runtime has no CUDA provider."""
    text = f"this ONNX Runtime {version} was built without CUDA"
    if extras.onnxruntime is None:
        return f"{text}: {extras.reason}"
    # The two packages own one module: beside the other one neither works.
    return f"{text}: pip uninstall onnxruntime, then {pip_install(extras.onnxruntime)}"


def not_loaded(version: str, built_for: str, reason: str, extras: GpuExtras) -> str:
    """Return what to say, and what to do, if the provider of an installed ONNX Runtime does not load.

    Args:
        version: ONNX Runtime's.
        built_for: the CUDA that it was built for, ``"12.8"``; empty where it does not tell.
        reason: what it complains of.
        extras: the extras that this machine takes.
    """
    text = f"ONNX Runtime {version} could not load its CUDA provider ({reason}): "
    extra = extras.onnxruntime
    if extra is None:
        return f"{text}{extras.reason}"
    needs = f"it needs the libraries of {f'CUDA {built_for}' if built_for else 'its own CUDA and cuDNN'}"
    if built_for and int(built_for.partition(".")[0]) != _CUDA_OF[extra]:
        # A package that holds ONNX Runtime back, as Model Optimizer does, would refuse the other one.
        return (
            f"{text}{needs}; in an environment of its own {pip_install(extra)} brings CUDA {_CUDA_OF[extra]}"
        )
    return f"{text}{needs}: {pip_install(extra)}"

"""ONNX Runtime's CUDA provider. An engine is a copy of the graph, which is optimized when it is loaded.

ONNX Runtime silently falls back to the CPU if the provider cannot be loaded because CUDA's or cuDNN's
libraries are missing or have another version, and for single operators that the provider does not support.
This backend raises an error in both cases.
"""

from __future__ import annotations

import contextlib
import io
import shutil
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ccr_deploy.backends.base import Backend, BuildSource, EngineFile
from ccr_deploy.backends.build_facts import BuildFacts
from ccr_deploy.backends.onnxruntime.bound_run import bound_run
from ccr_deploy.backends.onnxruntime.cpu import FATAL, OnnxRuntimeRunner, import_onnxruntime, start_session
from ccr_deploy.backends.options import GpuOptions
from ccr_deploy.backends.runner import check_feeds
from ccr_deploy.core.gpu import find_gpu
from ccr_deploy.core.gpu_driver import GpuExtras, extras_here
from ccr_deploy.core.records import Record
from ccr_deploy.errors import EngineError, pip_install

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ccr_deploy.backends.runner import Arrays
    from ccr_deploy.core.precisions import EnginePrecision

_PROVIDER = "CUDAExecutionProvider"
_CUDA_OF = {"cuda": 13, "cuda12": 12}
"""The major version of the CUDA libraries that an extra installs."""
_SMALLEST_GRAPH = (
    b'\x08\t:7\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01'
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\x12"
)
"""An ONNX file of one Identity operator, which is loaded to find out whether the provider loads."""


class CudaOptions(Record, GpuOptions, frozen=True, tag_field="backend", tag="onnxruntime-cuda"):
    """The options of ONNX Runtime's CUDA provider.

    With `tf32`, FP32 convolutions and matrix products use TF32, which has 10 bits of mantissa instead of 23.
    """

    tf32: bool = False


class OnnxRuntimeCudaBackend(Backend):
    """Run graphs with ONNX Runtime's CUDA provider."""

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
            EngineError: if there is no GPU.
            MissingExtraError: if cuda-python is not installed.
        """
        return str(find_gpu())

    def check_runs_here(self) -> None:
        """Raise an error if there is no GPU or the provider does not load.

        Raises:
            EngineError: if there is no GPU, or the provider does not load.
            MissingExtraError: if cuda-python is not installed.
        """
        find_gpu()
        self._provider  # noqa: B018 -- raises if the provider does not load

    def native_precisions(self) -> tuple[EnginePrecision, ...]:
        """Return FP32 and FP16."""
        return ("fp32", "fp16")

    def build(self, source: BuildSource, engine: Path) -> BuildFacts:
        """Load the graph to check that it runs, and copy it.

        Raises:
            EngineError: if there is no GPU, the provider does not load, or ONNX Runtime rejects the graph.
        """
        assert source.graph is not None
        self._session(source.graph)
        shutil.copyfile(source.graph, engine)
        return BuildFacts(driver=find_gpu().driver)

    def load(self, engine: EngineFile) -> OnnxRuntimeRunner:
        """Load an engine; its precision is in the graph.

        Raises:
            EngineError: if ONNX Runtime cannot run the file, or the provider does not load.
        """
        return OnnxRuntimeCudaRunner(self._session(engine.path))

    def _session(self, graph: Path | bytes) -> Any:  # noqa: ANN401 -- the library has no types
        return start_session(self._onnxruntime, graph, gpu_only_options(self._onnxruntime), [self._provider])

    @cached_property
    def _provider(self) -> tuple[str, dict[str, str]]:
        """The provider with its options, after a check that it loads.

        The check allows the CPU: if the provider does not load, the session then starts and lists the
            providers
        that it has. Without the CPU, ONNX Runtime would only report an operator that the CPU must not run.
        """
        library = self._onnxruntime
        library.set_default_logger_severity(FATAL)  # the errors below contain what it would print
        if _PROVIDER not in library.get_available_providers():
            raise EngineError(no_cuda_message(self.version, extras_here()))
        printed = io.StringIO()
        if hasattr(library, "preload_dlls"):
            with contextlib.redirect_stdout(printed):
                # Finds CUDA and cuDNN in site-packages, where pip installs them. It prints failures to
                # stdout.
                library.preload_dlls()
        provider = (_PROVIDER, {"use_tf32": str(int(self.options.tf32))})
        options = library.SessionOptions()
        options.log_severity_level = FATAL
        try:
            loads = _PROVIDER in start_session(library, _SMALLEST_GRAPH, options, [provider]).get_providers()
            reason = next(iter(printed.getvalue().splitlines()), "no reason given")
        except EngineError as error:
            loads, reason = False, " ".join(str(error.__cause__).split())[:300]
        if not loads:
            built_for = getattr(library, "cuda_version", "")
            raise EngineError(provider_failure_message(self.version, built_for, reason, extras_here()))
        return provider


class OnnxRuntimeCudaRunner(OnnxRuntimeRunner):
    """A session of the CUDA provider."""

    def on_device(self, feeds: Arrays) -> Callable[[], None]:
        """Copy one batch of inputs to the GPU, and return a function that runs it there and waits.

        A `device_timer` cannot measure it, because ONNX Runtime does not give its stream.
        """
        check_feeds(feeds, self.inputs)
        return bound_run(self._session, feeds, self._outputs, "cuda")


def gpu_only_options(onnxruntime: Any) -> Any:  # noqa: ANN401
    """Return session options that reject a graph if one of its operators would run on the CPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = FATAL
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return options


def no_cuda_message(version: str, extras: GpuExtras) -> str:
    """Return the error message for an ONNX Runtime without the CUDA provider, with the command to run."""
    text = f"this ONNX Runtime {version} was built without CUDA"
    if extras.onnxruntime is None:
        return f"{text}: {extras.reason}"
    # onnxruntime and onnxruntime-gpu install the same module, and overwrite each other's files.
    return f"{text}: pip uninstall onnxruntime, then {pip_install(extras.onnxruntime)}"


def provider_failure_message(version: str, built_for: str, reason: str, extras: GpuExtras) -> str:
    """Return the error message for a CUDA provider that does not load, with the command to run.

    Args:
        version: the version of ONNX Runtime.
        built_for: the CUDA version that it was built for, ``"12.8"``; empty if it is not known.
        reason: the reason that ONNX Runtime gives.
        extras: the extras for this machine's driver.
    """
    text = f"ONNX Runtime {version} could not load its CUDA provider ({reason}): "
    extra = extras.onnxruntime
    if extra is None:
        return f"{text}{extras.reason}"
    needs = f"it needs the libraries of {f'CUDA {built_for}' if built_for else 'its own CUDA and cuDNN'}"
    if built_for and int(built_for.partition(".")[0]) != _CUDA_OF[extra]:
        # Another environment, because a package in this one may require the older ONNX Runtime, as Model
        # Optimizer does.
        return (
            f"{text}{needs}; in a separate environment {pip_install(extra)} installs CUDA {_CUDA_OF[extra]}"
        )
    return f"{text}{needs}: {pip_install(extra)}"

"""The backend of the PyTorch reference. An engine is a stage's weights, with the model as metadata."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ccr_deploy.backends.base import Backend, BuildSource, EngineFile
from ccr_deploy.backends.build_facts import BuildFacts
from ccr_deploy.backends.pytorch.options import PyTorchOptions
from ccr_deploy.backends.threads import thread_count
from ccr_deploy.core.processor import processor_name
from ccr_deploy.errors import EngineError, MissingExtraError

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.backends.runner import Runner
    from ccr_deploy.core.precisions import EnginePrecision


class PyTorchBackend(Backend):
    """Build and run the PyTorch reference."""

    title = "PyTorch"
    suffix = ".safetensors"
    options_class = PyTorchOptions
    packages = ("torch",)
    is_reference = True
    options: PyTorchOptions

    def __init__(self, options: PyTorchOptions) -> None:
        self.options = options
        self._torch = import_torch()
        self.version = str(self._torch.__version__)

    @property
    def device(self) -> str:
        """The processor or GPU.

        Raises:
            EngineError: if the options name a GPU and PyTorch finds none.
        """
        if self.options.device == "cpu":
            return processor_name()
        self.check_runs_here()
        return str(self._torch.cuda.get_device_name(0))

    def check_runs_here(self) -> None:
        """Raise an error if the options name a GPU and PyTorch finds none.

        Raises:
            EngineError: if PyTorch finds no GPU.
        """
        if self.options.device == "cuda" and not self._torch.cuda.is_available():
            raise EngineError(
                f"PyTorch {self.version} found no GPU on this machine: "
                "choose the target pytorch, which uses the CPU"
            )

    def check_precision(self, precision: EnginePrecision) -> None:
        """Raise an error for every precision except FP32.

        Raises:
            EngineError: if the precision is not FP32.
        """
        if precision != "fp32":
            raise EngineError(f"the PyTorch reference does not support {precision.upper()}: choose FP32")

    def build(self, source: BuildSource, engine: Path) -> BuildFacts:
        """Copy the stage's weights from the bundle's weights."""
        from ccr_deploy.backends.pytorch.engine_file import engine_bytes

        engine.write_bytes(engine_bytes(source.stage, source.weights()))
        return BuildFacts()

    def load(self, engine: EngineFile) -> Runner:
        """Load the stage's weights into its network.

        Raises:
            EngineError: if the file is not an engine of this backend, the options do not support its stage,
                or PyTorch finds no GPU.
        """
        from ccr_deploy.backends.pytorch.engine_file import read_engine
        from ccr_deploy.backends.pytorch.graph_runner import graph_runner
        from ccr_deploy.backends.pytorch.runner import PyTorchRunner

        self.check_runs_here()
        self._torch.set_num_threads(thread_count(self.options.threads))
        backends = self._torch.backends
        backends.cudnn.allow_tf32 = backends.cuda.matmul.allow_tf32 = self.options.tf32
        # Lets cuDNN time its algorithms for each shape and choose the fastest.
        backends.cudnn.benchmark = self.options.fp16_cuda_graph is not None
        network = read_engine(engine.path)
        if self.options.fp16_cuda_graph:
            return graph_runner(network, self.options)
        return PyTorchRunner(network, self.options)


def import_torch() -> Any:  # noqa: ANN401
    """Import PyTorch, and check that torchvision and safetensors are installed too.

    Raises:
        MissingExtraError: if one of the three is not installed.
    """
    try:
        import safetensors  # noqa: F401
        import torch
        import torchvision  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(error.name or "torch", "export", "the PyTorch reference") from None
    return torch

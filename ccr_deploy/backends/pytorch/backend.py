"""The reference's backend. Its engine is the stage's own weights, with the model in the file's metadata."""

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

    from ccr_deploy.backends.pytorch.runner import PyTorchRunner
    from ccr_deploy.core.precisions import EnginePrecision


class PyTorchBackend(Backend):
    """Builds and runs the reference."""

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
            EngineError: the options ask for a GPU that PyTorch does not see.
        """
        if self.options.device == "cpu":
            return processor_name()
        self.check_runs_here()
        return str(self._torch.cuda.get_device_name(0))

    def check_runs_here(self) -> None:
        """Raise an error if PyTorch does not see the device, which engines are named for.

        Raises:
            EngineError: it does not.
        """
        if self.options.device == "cuda" and not self._torch.cuda.is_available():
            raise EngineError(f"PyTorch {self.version} sees no GPU here")

    def check_precision(self, precision: EnginePrecision) -> None:
        """Raise an error for anything but FP32.

        Raises:
            EngineError: another precision was asked for.
        """
        if precision != "fp32":
            raise EngineError(f"the PyTorch reference computes in FP32 alone, not in {precision.upper()}")

    def build(self, source: BuildSource, engine: Path) -> BuildFacts:
        """Take the stage's weights out of the bundle's."""
        from ccr_deploy.backends.pytorch.runner import engine_bytes

        engine.write_bytes(engine_bytes(source.stage, source.weights()))
        return BuildFacts()

    def load(self, engine: EngineFile) -> PyTorchRunner:
        """Load the stage's weights into its network.

        Raises:
            EngineError: the file is not what `build` writes, or PyTorch does not see the device.
        """
        from ccr_deploy.backends.pytorch.runner import load_runner

        self.check_runs_here()
        self._torch.set_num_threads(thread_count(self.options.threads))
        backends = self._torch.backends
        backends.cudnn.allow_tf32 = backends.cuda.matmul.allow_tf32 = self.options.tf32
        return load_runner(engine.path, self.options)


def import_torch() -> Any:  # noqa: ANN401
    """Import PyTorch, with what reads and writes its weights.

    Raises:
        MissingExtraError: one of the two is not installed.
    """
    try:
        import safetensors  # noqa: F401
        import torch
        import torchvision  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(error.name or "torch", "export", "the PyTorch reference") from None
    return torch

"""The PyTorch reference of a bundle."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from ccr_deploy.core.processor import processor_device
from ccr_deploy.engines.factory import EngineFactory
from ccr_deploy.errors import MissingExtraError
from ccr_deploy.targets.schema import REFERENCE_TARGET
from ccr_deploy.verification.answer_cache import CachedRunner
from ccr_deploy.verification.reference import MarginRunner, PyTorchReference
from ccr_deploy.workflow.engines import bundle_stages

if TYPE_CHECKING:
    from ccr_deploy.backends.pytorch.runner import PyTorchRunner
    from ccr_deploy.backends.runner import Runner
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.stages import Stage
    from ccr_deploy.engines.store import EngineStore
    from ccr_deploy.verification.answer_cache import AnswerCache


def reference_computed_by() -> tuple[str, ...]:
    """Return what the reference depends on besides the checkpoint: library, its version, and processor.

    Raises:
        MissingExtraError: if PyTorch is not installed.
    """
    try:
        return "pytorch", version("torch"), processor_device()
    except PackageNotFoundError:
        raise MissingExtraError("torch", "export", "the PyTorch reference") from None


def pytorch_reference(bundle: Bundle, cache: AnswerCache, store: EngineStore) -> PyTorchReference:
    """Return the reference that runs the networks of a bundle's checkpoint in PyTorch.

    PyTorch is imported, and a network loaded, for the first images whose answers are not in the cache: this
    raises BundleError if the weights are damaged.

    Args:
        bundle: bundle of the checkpoint.
        cache: cache of the answers.
        store: engine store, for the files of the networks.

    Raises:
        MissingExtraError: if PyTorch is not installed.
    """
    computed_by = reference_computed_by()

    def network(stage: Stage) -> CachedRunner:
        made_by = [*computed_by, stage, bundle.manifest.reference_hash(stage)]
        return CachedRunner(cache, made_by, lambda: _as_reference(pytorch_network(bundle, store, stage)))

    return PyTorchReference({stage: network(stage) for stage in bundle_stages(bundle)})


def pytorch_reference_and_encoder(
    bundle: Bundle, store: EngineStore
) -> tuple[PyTorchReference, PyTorchRunner]:
    """Load the networks of a bundle's checkpoint in PyTorch; return the reference, and its encoder.

    Raises:
        BundleError: if the weights are damaged.
        MissingExtraError: if PyTorch is not installed.
    """
    networks = {stage: pytorch_network(bundle, store, stage) for stage in bundle_stages(bundle)}
    reference = {stage: _as_reference(network) for stage, network in networks.items()}
    return PyTorchReference(reference), networks["encoder"]


def pytorch_network(bundle: Bundle, store: EngineStore, stage: Stage) -> PyTorchRunner:
    """Load a network of a bundle's checkpoint in PyTorch.

    Args:
        bundle: bundle of the checkpoint.
        store: engine store, for the file of the network.
        stage: the stage that the network runs.

    Raises:
        BundleError: if the weights are damaged.
        MissingExtraError: if PyTorch is not installed.
    """
    from ccr_deploy.backends.pytorch.runner import PyTorchRunner

    factory = EngineFactory(bundle, REFERENCE_TARGET, store)
    network = factory.load(factory.build(stage)[0])
    assert isinstance(network, PyTorchRunner)
    return network


def _as_reference(network: PyTorchRunner) -> Runner:
    """Return a network with the reference's outputs: an encoder's are margins too."""
    return MarginRunner(network, network.pre_binarization) if network.stage == "encoder" else network

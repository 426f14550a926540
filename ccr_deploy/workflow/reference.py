"""The PyTorch reference of a bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.engines.factory import EngineFactory
from ccr_deploy.targets.schema import REFERENCE_TARGET
from ccr_deploy.workflow.engines import bundle_stages

if TYPE_CHECKING:
    from ccr_deploy.backends.pytorch.runner import PyTorchRunner
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.engines.store import EngineStore
    from ccr_deploy.verification.reference import PyTorchReference


def pytorch_reference(bundle: Bundle, store: EngineStore) -> PyTorchReference:
    """Load the networks of a bundle's checkpoint in PyTorch.

    Raises:
        BundleError: if the weights are damaged.
        MissingExtraError: if PyTorch is not installed.
    """
    reference, _ = pytorch_reference_and_encoder(bundle, store)
    return reference


def pytorch_reference_and_encoder(
    bundle: Bundle, store: EngineStore
) -> tuple[PyTorchReference, PyTorchRunner]:
    """Load the networks of a bundle's checkpoint in PyTorch; return the reference, and its encoder.

    Raises:
        BundleError: if the weights are damaged.
        MissingExtraError: if PyTorch is not installed.
    """
    from ccr_deploy.backends.pytorch.runner import PyTorchRunner
    from ccr_deploy.verification.reference import PyTorchReference

    factory = EngineFactory(bundle, REFERENCE_TARGET, store)
    networks = {stage: factory.load(factory.build(stage)[0]) for stage in bundle_stages(bundle)}
    encoder = networks["encoder"]
    assert isinstance(encoder, PyTorchRunner)
    return PyTorchReference(networks, encoder.pre_binarization), encoder

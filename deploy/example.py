"""Write the examples in ``deploy/kubernetes/``: ``python -m deploy.example``."""

from __future__ import annotations

from pathlib import Path

from ccr_deploy import __version__
from ccr_deploy.packaging.kubernetes.folder import manifest_texts, publish
from ccr_deploy.packaging.kubernetes.settings import DeploymentSettings

FOLDER = Path(__file__).parent / "kubernetes"
CONTRACT_ID = "0123456789abcdef"
"""A placeholder for the contract id of a bundle."""
EXAMPLES = {
    "cpu": DeploymentSettings(
        name="ccr",
        image=f"registry.example.com/ccr-deploy:{__version__}-cpu",
        target="cpu",
    ),
    "gpu": DeploymentSettings(
        name="ccr",
        image=f"registry.example.com/ccr-deploy:{__version__}-tensorrt",
        target="l4",
        memory_mib=8192,
        node_labels={"nvidia.com/gpu.product": "NVIDIA-L4"},
    ),
    "gpu-with-claim": DeploymentSettings(
        name="ccr",
        image=f"registry.example.com/ccr-deploy:{__version__}-tensorrt",
        target="l4",
        replicas_min=1,
        replicas_max=1,
        memory_mib=8192,
        engine_store="claim",
        node_labels={"nvidia.com/gpu.product": "NVIDIA-L4"},
    ),
}
"""The settings of each example, by its folder."""


def main() -> None:
    """Write all examples."""
    for name, settings in EXAMPLES.items():
        publish(FOLDER / name, manifest_texts(settings, CONTRACT_ID))


if __name__ == "__main__":
    main()

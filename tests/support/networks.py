"""Networks with random weights, whose codes and logits depend on their inputs, for tests of PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ccr_deploy.codec.contract import Preprocessing
from tests.support.bundles import TINY, TINY_BASELINE

if TYPE_CHECKING:
    import numpy.typing as npt

    from ccr_deploy.backends.pytorch.engine_file import StageNetwork
    from ccr_deploy.core.stages import Stage

PREPROCESSING = Preprocessing(resize_to_cover=(64, 96), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def stage_network(stage: Stage) -> StageNetwork:
    """A network whose random weights keep the size of a signal, with batch norms that change it."""
    import torch

    from ccr_deploy.backends.pytorch.engine_file import StageNetwork
    from ccr_deploy.models.chain import build_network

    torch.manual_seed(3)
    model = TINY_BASELINE if stage == "baseline" else TINY
    network = build_network(stage, model, PREPROCESSING).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
        if isinstance(module, torch.nn.BatchNorm2d):
            for values in (module.weight, module.running_var):
                torch.nn.init.uniform_(values, 0.5, 2.0)
            for values in (module.bias, module.running_mean):
                torch.nn.init.normal_(values)
    return StageNetwork(network, stage, model, PREPROCESSING)


def images(count: int, seed: int = 5) -> dict[str, npt.NDArray[np.uint8]]:
    return {"image": np.random.default_rng(seed).integers(0, 256, (count, 32, 48, 3), dtype=np.uint8)}


def codes(count: int) -> dict[str, npt.NDArray[np.uint8]]:
    return {"code": np.random.default_rng(6).integers(0, 256, (count, 12), dtype=np.uint8)}

"""How a training uses the machine.

Nothing here changes what is learned, apart from rounding and the images over which a process computes the
statistics of batch norm.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ccr_deploy.errors import WrongUsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from training.recipe import Phase

Precision = Literal["fp32", "bf16"]
LIGHTNING_PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed"}


@dataclass(frozen=True)
class MachineOptions:
    """Devices, precision and speed.

    Attributes:
        devices: processes on this node, one per GPU; on a CPU any number.
        nodes: number of nodes; more than one only under torchrun.
        precision: ``fp32``, or ``bf16`` for convolutions and matrix products (autocast).
        micro_batch: images that a process takes at once; None for as many as its part of the batch. A smaller
            number accumulates gradients.
        workers: loader processes for each training process.
        compiled: whether `torch.compile` compiles the networks.
        channels_last: whether the networks use the memory layout NHWC.
        save_every: steps between two saved states of the training.
        log_every: steps between two log entries.
    """

    devices: int = 1
    nodes: int = 1
    precision: Precision = "fp32"
    micro_batch: int | None = None
    workers: int = 0
    compiled: bool = False
    channels_last: bool = False
    save_every: int = 500
    log_every: int = 10

    @property
    def processes(self) -> int:
        """The number of training processes on all nodes."""
        return self.devices * self.nodes

    def accumulation(self, phase: Phase) -> int:
        """Return the number of micro-batches in one step of the optimizer.

        Raises:
            WrongUsageError: if the recipe's batch cannot be divided.
        """
        micro_batch = self.micro_batch_of(phase)
        if phase.batch % (micro_batch * self.processes):
            raise WrongUsageError(
                f"the recipe's batch of {phase.batch} images cannot be divided into micro-batches of "
                f"{micro_batch} for each of {self.processes} processes: change --micro-batch or --devices"
            )
        return phase.batch // (micro_batch * self.processes)

    def micro_batch_of(self, phase: Phase) -> int:
        """Return the number of images that a process takes at once."""
        return self.micro_batch or max(1, phase.batch // self.processes)


def best_device() -> str:
    """Return PyTorch's name of the device to evaluate on: a GPU if there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def process_number(environment: Mapping[str, str] = os.environ) -> int:
    """Return the number of this training process: that of torchrun or Lightning's launcher, otherwise 0.

    Args:
        environment: the environment variables.
    """
    return int(environment.get("RANK", environment.get("LOCAL_RANK", "0")))


def processes_of_torchrun(environment: Mapping[str, str] = os.environ) -> tuple[int, int] | None:
    """Return the devices for each node and the nodes that torchrun started; None if it did not.

    Args:
        environment: the environment variables.

    Raises:
        WrongUsageError: if the nodes have different numbers of processes.
    """
    if "TORCHELASTIC_RUN_ID" not in environment:
        return None
    world, local = int(environment["WORLD_SIZE"]), int(environment["LOCAL_WORLD_SIZE"])
    if world % local:
        raise WrongUsageError(
            f"torchrun started {world} processes, {local} of them on this node: give every node the same "
            "--nproc-per-node"
        )
    return local, world // local

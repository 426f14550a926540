from __future__ import annotations

import pytest

from ccr_deploy.errors import WrongUsageError
from training.loop.options import MachineOptions, process_number, processes_of_torchrun
from training.recipe import Phase

PHASE = Phase(epochs=1, batch=32, learning_rate=1.0)


@pytest.mark.parametrize(
    ("options", "micro_batch", "accumulation"),
    [
        (MachineOptions(), 32, 1),
        (MachineOptions(devices=4), 8, 1),
        (MachineOptions(devices=2, nodes=4), 4, 1),
        (MachineOptions(micro_batch=8), 8, 4),
        (MachineOptions(devices=2, micro_batch=4), 4, 4),
    ],
)
def test_the_batch_of_the_recipe_is_divided(
    options: MachineOptions, micro_batch: int, accumulation: int
) -> None:
    assert options.micro_batch_of(PHASE) == micro_batch
    assert options.accumulation(PHASE) == accumulation
    assert micro_batch * accumulation * options.processes == PHASE.batch


@pytest.mark.parametrize(
    "options", [MachineOptions(devices=3), MachineOptions(micro_batch=5), MachineOptions(devices=64)]
)
def test_a_batch_that_cannot_be_divided_is_refused(options: MachineOptions) -> None:
    with pytest.raises(WrongUsageError, match=r"batch of 32 images cannot be divided.*--micro-batch"):
        options.accumulation(PHASE)


def test_torchrun_says_how_many_processes_it_started() -> None:
    assert processes_of_torchrun({}) is None
    started = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "16", "LOCAL_WORLD_SIZE": "8"}
    assert processes_of_torchrun(started) == (8, 2)
    with pytest.raises(WrongUsageError, match="same --nproc-per-node"):
        processes_of_torchrun({**started, "WORLD_SIZE": "13"})


@pytest.mark.parametrize(
    ("environment", "number"),
    [({}, 0), ({"LOCAL_RANK": "1"}, 1), ({"LOCAL_RANK": "0", "RANK": "2"}, 2)],
)
def test_the_number_of_a_process_is_that_of_its_launcher(environment: dict[str, str], number: int) -> None:
    assert process_number(environment) == number

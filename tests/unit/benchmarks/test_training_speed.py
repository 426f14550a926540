"""The candidates of the training benchmark compute the same, and its table says what disturbed it."""

from __future__ import annotations

import pytest
import torch

from benchmarks.training_speed import (
    CANDIDATES,
    USERS_LOOP,
    ModelSpeed,
    StepSpeed,
    TrainingSpeed,
    training_speed_table,
)
from ccr_deploy.benchmarking.results import MachineState
from ccr_deploy.core.metrics import Interval
from ccr_deploy.models.config import EncoderConfig
from ccr_deploy.models.encoder import RecurrentEncoder

EAGER = [name for name, candidate in CANDIDATES.items() if not candidate.is_compiled]


@pytest.mark.parametrize("name", EAGER)
def test_every_candidate_has_the_codes_and_gradients_of_the_users_loop(name: str) -> None:
    torch.manual_seed(0)
    encoder = RecurrentEncoder(EncoderConfig(stem_channels=6, cell_channels=(4, 10, 12), code_channels=16))
    encoder.double().train()
    encoder.binarizer.draw = lambda like: torch.full_like(like, 0.5)
    image = torch.randn(3, 3, 32, 48, dtype=torch.float64)

    def results(candidate: str) -> tuple[torch.Tensor, ...]:
        code = CANDIDATES[candidate].encode(encoder, image, 4)
        weights = torch.linspace(-1, 2, code.numel(), dtype=torch.float64).view_as(code)
        return code, *torch.autograd.grad((code * weights).sum(), list(encoder.parameters()))

    for found, expected in zip(results(name), results(USERS_LOOP), strict=True):
        assert expected.abs().max() > 0
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


def result(*reasons: str) -> TrainingSpeed:
    return TrainingSpeed(
        schema_version=1,
        machine=MachineState("CPU", 2, 8.0, "Linux", "3.11", 1.0, None),
        models=(
            ModelSpeed(
                model="tiny, 32x32, T=2",
                batch=4,
                threads=2,
                rounds=3,
                steps=(
                    StepSpeed("finetune step", USERS_LOOP, 10.0, 1.0, Interval(1.0, 1.0)),
                    StepSpeed("finetune step", "forward", 12.5, 1.25, Interval(1.2, 1.31)),
                ),
                unreliable_reasons=reasons,
            ),
        ),
    )


def test_the_table_has_a_row_for_each_candidate() -> None:
    table = training_speed_table(result())
    assert table.rows == (
        ("tiny, 32x32, T=2", "finetune step", USERS_LOOP, "10.0", "1.00", "1.00 – 1.00"),
        ("tiny, 32x32, T=2", "finetune step", "forward", "12.5", "1.25", "1.20 – 1.31"),
    )
    assert "batch 4, 2 threads, 3 rounds" in table.note
    assert not table.warning


def test_the_table_warns_of_a_disturbed_measurement() -> None:
    warning = training_speed_table(result("other processes used 1.0 of 2 cores")).warning
    assert warning.startswith("UNRELIABLE: tiny, 32x32, T=2: other processes used 1.0 of 2 cores")

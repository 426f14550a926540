"""Estimate what trainings cost: multiply-accumulates per image, and hours at a rate.

All of it is arithmetic: the hours are as good as the rate, and nothing here was measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from msgspec.structs import replace

from ccr_deploy.export.description import describe_model
from ccr_deploy.models.config import ClassifierConfig
from ccr_deploy.models.family import parameter_prefix
from ccr_deploy.reporting.table import Table, significant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ccr_deploy.backends.roofline import GpuLimits
    from ccr_deploy.models.config import DecoderConfig, ModelConfig

TrainingPhase = Literal["pretrain", "finetune", "baseline"]

FORWARD_PASSES = 3
"""The work of forward and backward pass, relative to the forward pass.

The backward pass of a layer computes the gradients of its weights and of its input, and each takes the
multiply-accumulates of the forward pass. Not exactly: the first layer needs no gradient of its input, and a
frozen encoder no backward pass.
"""


@dataclass(frozen=True)
class TrainingCost:
    """The work of one phase: multiply-accumulates to train with one image once, and how many images."""

    model: str
    phase: TrainingPhase
    macs: int
    images: int
    epochs: int

    def hours(self, rate: TrainingRate) -> float:
        """Return the hours of all epochs at a rate."""
        return self.images * self.epochs / rate.images_per_second(self.macs) / 3600


@dataclass(frozen=True)
class TrainingRate:
    """The multiply-accumulates per second that training reaches on a machine, and how that is known."""

    machine: str
    macs_per_second: float
    source: str

    @classmethod
    def measured(cls, machine: str, images_per_second: float, macs: int) -> TrainingRate:
        """Return the rate of a measured throughput.

        Args:
            machine: the machine, as tables name it.
            images_per_second: the throughput of a phase.
            macs: multiply-accumulates to train with one image in that phase.
        """
        source = f"measured: {significant(images_per_second)} images/s at {_giga(macs)} GMAC per image"
        return cls(machine, images_per_second * macs, source)

    @classmethod
    def assumed(cls, gpu: GpuLimits, share: float) -> TrainingRate:
        """Return the rate of a GPU if training reaches a share, in 0..1, of its BF16 peak; an assumption."""
        # BF16 has the rate of FP16. A multiply-accumulate is two operations.
        peak = gpu.fp16 * 1e12 / 2
        source = f"assumed: {share:.0%} of the BF16 peak, {_giga(peak)} GMAC/s ({gpu.source})"
        return cls(gpu.title, share * peak, source)

    def images_per_second(self, macs: int) -> float:
        """Return the throughput if training with one image takes a number of multiply-accumulates."""
        return self.macs_per_second / macs


def training_macs(phase: TrainingPhase, config: ModelConfig, decoder: DecoderConfig | None = None) -> int:
    """Count the multiply-accumulates to train with one image once, forward and backward.

    Args:
        phase: the phase. `pretrain` runs encoder and decoder in a residual loop, `finetune` the encoder, with
            the work that does not depend on the iteration done once, and the classifier, `baseline` the
            whole conventional chain.
        config: the model, a baseline for `baseline`.
        decoder: the decoder of `pretrain`; a baseline has its own.
    """
    if phase == "pretrain":
        conventional = replace(
            config, decoder=decoder or config.decoder, classifier=ClassifierConfig(cut=None)
        )
        layers = describe_model("", conventional).layers
        compressor = (parameter_prefix("encoder"), "decoder.")
        forward = sum(layer.macs for layer in layers if layer.name.startswith(compressor))
    else:
        assert config.is_baseline == (phase == "baseline")
        model = describe_model("", config)
        forward = model.encoder_macs + model.classifier_macs
    return FORWARD_PASSES * forward


def cost_table(costs: Sequence[TrainingCost], rates: Sequence[TrainingRate]) -> Table:
    """Return the table of estimated hours: a row for each phase of a model, a column for each rate."""
    images = sorted({cost.images for cost in costs})
    return Table.of(
        "Cost of the trainings: an estimate",
        costs,
        [
            ("model", lambda cost: cost.model),
            ("phase", lambda cost: cost.phase),
            ("GMAC per image", lambda cost: _giga(cost.macs)),
            ("epochs", lambda cost: str(cost.epochs)),
            *(
                (f"hours, {rate.machine}", lambda cost, rate=rate: significant(cost.hours(rate)))
                for rate in rates
            ),
        ],
        note=f"estimated, not measured: hours = {' or '.join(map(str, images))} images x epochs x "
        f"multiply-accumulates of forward and backward pass / rate; "
        + "; ".join(f"{rate.machine}, {rate.source}" for rate in rates),
    )


def _giga(count: float) -> str:
    return significant(count / 1e9)

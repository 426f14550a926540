"""Training recipes: the model and the hyperparameters of every training of it. One TOML file each.

A recipe has nothing that depends on the machine: the number of GPUs, the precision and the images that one of
them takes at once are options of the commands. Those shipped are in ``training/recipes``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, structs

from ccr_deploy.core.records import Record, read_toml
from ccr_deploy.core.suggestions import choose_from
from ccr_deploy.errors import WrongUsageError
from ccr_deploy.models.config import Cut, DecoderConfig, ModelConfig
from ccr_deploy.models.iterations import checked_iterations
from ccr_deploy.models.presets import preset

Step = Literal["pretrain", "finetune", "baseline", "qat"]
"""A training, named after its command."""
DataSource = Literal["images", "photos"]

RECIPES = Path(__file__).parent / "recipes"

Positive = Annotated[float, Meta(gt=0)]
Share = Annotated[float, Meta(ge=0, le=1)]


class Phase(Record, frozen=True, kw_only=True):
    """The hyperparameters of one training.

    Attributes:
        epochs: how often every image is seen; may be a fraction.
        batch: images in one step of the optimizer, of all processes together.
        learning_rate: the highest one, after the warm-up.
        warmup_share: share of the steps in which the learning rate rises; it falls in the rest.
        weight_decay: of AdamW.
        gradient_clip: limit for the norm of all gradients.
        label_smoothing: share of a label's probability that is spread over all classes.
        crop_scale: smallest and largest share of an image's area that a random crop covers.
        mirror: whether images are mirrored with probability 0.5; false for text, traffic signs and the like.
        color_jitter: largest relative change of brightness, contrast and saturation; 0 in pretraining, which
            restores images.
        frozen_share: share of the steps, at the end, in which the encoder is frozen and its bits are no
            longer drawn at random, so that the classifier adapts to the codes of production.
        validations: how often the test images are measured during the training, at most.
    """

    epochs: Positive
    batch: Annotated[int, Meta(ge=1)]
    learning_rate: Positive
    warmup_share: Annotated[float, Meta(gt=0, lt=1)] = 0.3
    weight_decay: Annotated[float, Meta(ge=0)] = 0.01
    gradient_clip: Positive = 1.0
    label_smoothing: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    crop_scale: tuple[Share, Share] = (0.08, 1.0)
    mirror: bool = True
    color_jitter: Share = 0.0
    frozen_share: Share = 0.0
    validations: Annotated[int, Meta(ge=1)] = 10

    def __post_init__(self) -> None:
        if not 0 < self.crop_scale[0] <= self.crop_scale[1]:
            raise ValueError(f"crop_scale is {list(self.crop_scale)}: give a smaller and a larger share")

    @property
    def has_augmentation(self) -> bool:
        """Whether it names an augmentation other than the default."""
        return (self.crop_scale, self.mirror, self.color_jitter) != ((0.08, 1.0), True, 0.0)

    def steps(self, images: int) -> int:
        """Return the number of the optimizer's steps for a data set of `images`."""
        return max(1, round(self.epochs * images / self.batch))


class TrainingRecipe(Record, frozen=True, kw_only=True):
    """The training of one model.

    Attributes:
        description: one line for the reader.
        preset: the model, without its number of classes, which is the data's.
        cut: replaces the preset's cut.
        iterations: every T that is trained; each batch draws one of them.
        data: ``images`` of a folder, or scikit-image's ``photos``.
        seed: seed of weights, order, augmentation and random bits.
        decoder: the decoder of pretraining and of the baseline.
        pretrain: the hyperparameters of the compressor's training.
        finetune: those of the training of encoder and truncated classifier.
        baseline: those of the conventional chain's training.
        qat: those of the training with fake quantization.
    """

    description: str
    preset: str
    cut: Cut | None = None
    iterations: tuple[int, ...] = (8,)
    data: DataSource = "images"
    seed: Annotated[int, Meta(ge=0)] = 0
    decoder: DecoderConfig = DecoderConfig()
    pretrain: Phase | None = None
    finetune: Phase | None = None
    baseline: Phase | None = None
    qat: Phase | None = None

    def __post_init__(self) -> None:
        if not checked_iterations(self.iterations):
            raise ValueError("iterations is empty: give at least one T")
        try:
            preset(self.preset)
        except WrongUsageError as error:
            raise ValueError(str(error)) from error

    def phase(self, step: Step) -> Phase:
        """Return the hyperparameters of one training.

        Raises:
            WrongUsageError: if the recipe has none.
        """
        phase: Phase | None = getattr(self, step)
        if phase is None:
            raise WrongUsageError(f"the recipe has no section [{step}]: choose another recipe, or add it")
        return phase

    def chain(self, classes: int) -> ModelConfig:
        """Return the configuration of the CCR chain for data with `classes` classes.

        Raises:
            WrongUsageError: if the recipe is one of the baseline alone.
        """
        config = preset(self.preset)
        cut = self.cut or config.classifier.cut
        if cut is None:
            raise WrongUsageError(f'the preset {self.preset} is a baseline without a cut: add cut = "layer1"')
        classifier = structs.replace(config.classifier, cut=cut, classes=classes)
        return structs.replace(
            config, iterations=self.deployed_iterations, decoder=None, classifier=classifier
        )

    def baseline_chain(self, classes: int) -> ModelConfig:
        """Return the configuration of the conventional chain for data with `classes` classes."""
        config = preset(self.preset)
        classifier = structs.replace(config.classifier, cut=None, classes=classes)
        return structs.replace(
            config, iterations=self.deployed_iterations, decoder=self.decoder, classifier=classifier
        )

    @property
    def deployed_iterations(self) -> int:
        """The T of the checkpoint: the preset's if it is trained, otherwise the largest."""
        usual = preset(self.preset).iterations
        return usual if usual in self.iterations else max(self.iterations)


def read_recipe(name: str) -> TrainingRecipe:
    """Read a recipe from a TOML file, or a shipped one by its name.

    Raises:
        WrongUsageError: if there is none, or a field is unknown or wrong.
    """
    shipped = {path.stem: path for path in sorted(RECIPES.glob("*.toml"))}
    path = shipped.get(name, Path(name))
    if path.suffix != ".toml" and not path.exists():
        raise WrongUsageError(f"unknown recipe {name!r}: give a TOML file, or {choose_from(name, shipped)}")
    return read_toml(TrainingRecipe, path, error=WrongUsageError)

"""Check the data of a training before it starts: load every image as training does."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.utils import make_grid

from ccr_deploy.core.atomic import atomic_file, writing
from ccr_deploy.core.progress import SILENT
from ccr_deploy.core.records import Record
from ccr_deploy.errors import ImageError, WrongUsageError
from training.data.batches import Sample
from training.data.labelled_images import LabelledImages

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.core.progress import Progress
    from training.data.open import TrainingData

SHOWN = 10
"""Files that are named of each kind; reports of ten thousand lines are not read."""

PICTURED = 64
"""Images in the picture, in rows of 8."""

_CHUNK = 32
"""Images per step of the progress."""


class SplitCheck(Record, frozen=True):
    """The images of one folder, `train` or `val`.

    Attributes:
        folder: the folder's name.
        images: the number of images.
        classes: the number of classes that have images.
        fewest_class: the class with the fewest images, of those that have any.
        fewest: the number of its images.
        most_class: the class with the most images.
        most: the number of its images.
        unusable: one message for each image that cannot be used, with its path.
    """

    folder: str
    images: int
    classes: int
    fewest_class: str
    fewest: int
    most_class: str
    most: int
    unusable: tuple[str, ...]


class DataCheck(Record, frozen=True):
    """What a check found.

    Attributes:
        training: the training images.
        test: the test images.
        untested_classes: classes of the training images that have no test images.
        in_both: pairs of a training and a test image whose files have the same content.
        picture: the picture of training images; None if none of them can be used.
    """

    training: SplitCheck
    test: SplitCheck
    untested_classes: tuple[str, ...]
    in_both: tuple[tuple[str, str], ...]
    picture: str | None

    @property
    def passed(self) -> bool:
        """Whether every image can be used."""
        return not (self.training.unusable or self.test.unusable)


def check_data(data: TrainingData, picture: Path, workers: int, progress: Progress = SILENT) -> DataCheck:
    """Load every image, and write a picture of augmented training images.

    Args:
        data: the data of a training.
        picture: where to write the picture, as PNG.
        workers: processes that load images; 0 loads them in this process.
        progress: advances by one for each image.

    Raises:
        WrongUsageError: if the data are not image files.
        ImageError: if the picture cannot be written.
    """
    training, test = data.training, data.test.dataset
    if not (isinstance(training, LabelledImages) and isinstance(test, LabelledImages)):
        raise WrongUsageError(
            "--check checks the image files in --data: the recipe's data are not image files"
        )
    training_findings = _load_all(
        _Probe(training, is_training=True), "Check training images", workers, progress
    )
    test_findings = _load_all(_Probe(test, is_training=False), "Check test images", workers, progress)
    usable = [number for number, finding in enumerate(training_findings) if not finding.problem]
    if usable:
        write_picture(training, usable, picture)
    places = {finding.digest: number for number, finding in enumerate(training_findings) if finding.digest}
    return DataCheck(
        training=_split_check(training, training_findings),
        test=_split_check(test, test_findings),
        untested_classes=tuple(
            name
            for name, images, tested in zip(training.class_names, training.counts, test.counts, strict=True)
            if images and not tested
        ),
        in_both=tuple(
            (str(training.path(places[finding.digest])), str(test.path(number)))
            for number, finding in enumerate(test_findings)
            if finding.digest in places
        ),
        picture=str(picture) if usable else None,
    )


def write_picture(images: LabelledImages, usable: list[int], picture: Path) -> None:
    """Write 64 training images, chosen and augmented at random, as one picture in rows of 8.

    Args:
        images: the images.
        usable: the numbers of the images to choose from.
        picture: where to write it, as PNG.

    Raises:
        ImageError: if it cannot be written.
    """
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randint(len(usable), (PICTURED,), generator=generator).tolist()
    batch = torch.stack([images[Sample(usable[place], seed)][0] for seed, place in enumerate(chosen)])
    grid = make_grid(batch.permute(0, 3, 1, 2), nrow=8, pad_value=255).permute(1, 2, 0)
    with writing(picture, ImageError):
        picture.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(picture) as temporary:
            Image.fromarray(grid.numpy()).save(temporary, format="PNG")


def render(check: DataCheck) -> list[str]:
    """Return the lines of a check, for the terminal."""
    lines = [_counts(split) for split in (check.training, check.test)]
    if names := check.untested_classes:
        listed = ", ".join(_shortened(names))
        lines.append(f"Classes without images in {check.test.folder}: {len(names)} ({listed})")
    if pairs := check.in_both:
        lines.append(f"Images of {check.test.folder} that are in {check.training.folder} too: {len(pairs)}")
        lines += [f"  {line}" for line in _shortened([f"{test} = {training}" for training, test in pairs])]
    for split in (check.training, check.test):
        if split.unusable:
            lines.append(f"Images of {split.folder} that cannot be used: {len(split.unusable)}")
            lines += [f"  {line}" for line in _shortened(split.unusable)]
            lines.append("  Replace or remove them.")
    if check.picture:
        lines.append(f"{check.picture}: {PICTURED} training images, augmented as in training")
    return lines


class _Finding(Record, frozen=True):
    """The digest of an image's file, empty if it cannot be read, and why the image cannot be used."""

    digest: bytes
    problem: str


class _Probe(Dataset[_Finding]):
    """Loads images as training or evaluation does, and returns what it found."""

    def __init__(self, images: LabelledImages, *, is_training: bool) -> None:
        self._images = images
        self._is_training = is_training

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> _Finding:
        digest = b""
        try:
            with self._images.open(index) as file:
                digest = hashlib.blake2b(file.read(), digest_size=16).digest()
            self._images.load(Sample(index, index) if self._is_training else index)
        except ImageError as error:
            return _Finding(digest, str(error))
        return _Finding(digest, "")


def _load_all(probe: _Probe, description: str, workers: int, progress: Progress) -> list[_Finding]:
    """Load every image in the processes of a `DataLoader`, as training does."""
    findings: list[_Finding] = []
    loader = DataLoader(probe, batch_size=_CHUNK, num_workers=workers, collate_fn=list)
    with progress.task(description, len(probe)) as advance:
        for found in loader:
            findings += found
            advance(len(found))
    return findings


def _split_check(images: LabelledImages, findings: list[_Finding]) -> SplitCheck:
    counts = {
        name: int(count) for name, count in zip(images.class_names, images.counts, strict=True) if count
    }
    fewest, most = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    return SplitCheck(
        folder=images.folder.name,
        images=len(images),
        classes=len(counts),
        fewest_class=fewest,
        fewest=counts[fewest],
        most_class=most,
        most=counts[most],
        unusable=tuple(finding.problem for finding in findings if finding.problem),
    )


def _counts(split: SplitCheck) -> str:
    """Return the line with the number of images and classes of a folder."""
    per_class = f"{split.fewest:,}"
    if split.most != split.fewest:
        per_class = f"{split.fewest:,} ({split.fewest_class}) to {split.most:,} ({split.most_class})"
    return f"{split.folder}: {split.images:,} images, {split.classes:,} classes, {per_class} per class"


def _shortened(lines: tuple[str, ...] | list[str]) -> list[str]:
    """Return the first ten lines, and how many there are more."""
    more = [f"… and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return [*lines[:SHOWN], *more]

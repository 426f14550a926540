"""Calibration recipes: number of images, method, and layers to keep in high precision. One TOML file each.

::

    description = "ccr-layer1, trained on ImageNet-100"
    images = "five training images of each class"       # for the reader; --images gives the folder
    samples = 256
    method = "percentile"                                 # or minmax, entropy
    percentile = 99.99
    keep_high_precision = ["stem", "binarizer"]           # or "auto"
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, get_args

from msgspec import Meta

from ccr_deploy.core.records import Record, read_toml
from ccr_deploy.errors import WrongUsageError

if TYPE_CHECKING:
    from pathlib import Path

Method = Literal["minmax", "entropy", "percentile"]
"""The method that computes a tensor's range from its values."""
METHODS: tuple[Method, ...] = get_args(Method)


class CalibrationRecipe(Record, frozen=True):
    """The settings of a calibration.

    `samples` images are selected evenly over the folder, `held_out_samples` for the measurement of accuracy.
    `keep_high_precision` lists the layers that are not quantized; None keeps those of the calibration table,
    or the default layers for a new table.
    """

    description: str = ""
    images: str = ""
    samples: Annotated[int, Meta(ge=1)] = 256
    held_out_samples: Annotated[int, Meta(ge=1)] = 500
    method: Method = "percentile"
    percentile: Annotated[float, Meta(gt=50, le=100)] = 99.99
    keep_high_precision: tuple[str, ...] | Literal["auto"] | None = None

    @property
    def method_name(self) -> str:
        """The method with its parameter, if it has one."""
        return f"percentile {self.percentile:g}" if self.method == "percentile" else self.method


def read_recipe(path: Path) -> CalibrationRecipe:
    """Read a recipe from a TOML file.

    Raises:
        WrongUsageError: if there is no such file, or a field is unknown or wrong.
    """
    return read_toml(CalibrationRecipe, path, error=WrongUsageError)

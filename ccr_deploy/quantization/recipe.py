"""Calibration recipes: how many images, which method, what stays in high precision. One TOML file each.

::

    description = "ccr-layer1, trained on ImageNet-100"
    images = "five training images of each class"       # for people; --images names the folder
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
"""How a tensor's range is found from all its values."""
METHODS: tuple[Method, ...] = get_args(Method)


class CalibrationRecipe(Record, frozen=True):
    """How to calibrate. Where `images` are many, `samples` of them are spread evenly over the folder.

    Without `keep_high_precision` a table's own layers are kept, and for a new table the default ones.
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
        """The method with its parameter."""
        return f"percentile {self.percentile:g}" if self.method == "percentile" else self.method


def read_recipe(path: Path) -> CalibrationRecipe:
    """The recipe in a TOML file.

    Raises:
        WrongUsageError: there is none, or a field is unknown or wrong.
    """
    return read_toml(CalibrationRecipe, path, error=WrongUsageError)

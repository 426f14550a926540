"""Exceptions of this package. Each message is one line that says what is wrong and what to do."""

from __future__ import annotations

from typing import ClassVar


class CcrDeployError(Exception):
    """Base class: a damaged file, a missing package, a folder that cannot be written.

    The message names the file and what to do next. `exit_status` is the exit status of a command that fails
    with this error.
    """

    exit_status: ClassVar[int] = 3


class WrongUsageError(CcrDeployError):
    """Wrong or inconsistent arguments: an unknown target, a missing file, T = 0."""

    exit_status: ClassVar[int] = 2


class CheckpointError(CcrDeployError):
    """A checkpoint cannot be read or does not fit its configuration."""


class BundleError(CcrDeployError):
    """A bundle is damaged, has another schema version, or cannot be written."""


class ImageError(CcrDeployError):
    """A file is not an image, an image is too small or too large, or a folder has no images."""


class PayloadError(CcrDeployError):
    """Bytes are not a payload, are damaged, or have another contract."""


class GoldenError(CcrDeployError):
    """A golden file that is damaged, of another schema version or of another model."""


class TargetError(WrongUsageError):
    """A target does not exist, or its TOML file is invalid."""


class TrainingError(CcrDeployError):
    """A training cannot go on: its loss is not a number, or its state cannot be read or written."""


class CalibrationError(CcrDeployError):
    """Calibration failed, or a calibration table does not fit its graph."""


class PrecisionError(CcrDeployError):
    """A graph cannot be converted to a lower precision."""


class EngineError(CcrDeployError):
    """An engine cannot be built, does not match its sidecar, or cannot run on this machine."""


class MachineBusyError(CcrDeployError):
    """A benchmark required an idle machine, but other processes were running."""

    exit_status: ClassVar[int] = 1


class RepositoryError(CcrDeployError):
    """A model repository is damaged or cannot be written."""


class ServingError(CcrDeployError):
    """A server cannot be started."""


class MissingExtraError(CcrDeployError):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str | tuple[str, ...], purpose: str, elsewhere: str = "") -> None:
        """Write the message, with the command that installs the package.

        Args:
            package: the package that could not be imported.
            extra: the extra that installs it, or several alternatives.
            purpose: the feature that needs the package, as the subject of the message.
            elsewhere: appended to the message: how to get the package on machines without such an extra.
        """
        extras = (extra,) if isinstance(extra, str) else extra
        super().__init__(
            f"{purpose} needs the package {package}, which is not installed: "
            f"{pip_install(*extras)}{elsewhere}"
        )


def pip_install(*extras: str) -> str:
    """Return the command that installs one of several alternative extras."""
    return "pip install " + " or ".join(f"'ccr-deploy[{extra}]'" for extra in extras)

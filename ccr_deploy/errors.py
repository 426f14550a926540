"""What can go wrong, as typed exceptions whose message is one line a person can act on."""

from __future__ import annotations

from typing import ClassVar


class CcrDeployError(Exception):
    """Something broke: a damaged file, a missing package, a folder that cannot be written.

    The message says what happened, to which file, and what to do. `exit_status` is what a command
    that stops on this error returns to the shell.
    """

    exit_status: ClassVar[int] = 3


class WrongUsageError(CcrDeployError):
    """What was asked for does not exist or does not fit: an unknown target, a missing file, T = 0."""

    exit_status: ClassVar[int] = 2


class CheckpointError(CcrDeployError):
    """A checkpoint that cannot be read or does not fit its configuration."""


class BundleError(CcrDeployError):
    """A bundle that is missing, damaged, of another schema version or not writable."""


class ImageError(CcrDeployError):
    """A file that is no image, an image that is too small or too large, or a folder without images."""


class PayloadError(CcrDeployError):
    """Bytes that are no payload, are damaged, or speak another contract's language."""


class TargetError(WrongUsageError):
    """A target that does not exist or whose TOML is wrong."""


class CalibrationError(CcrDeployError):
    """Ranges that cannot be found or used: images that fail, a table that does not fit its graph."""


class PrecisionError(CcrDeployError):
    """A graph that cannot be converted to a lower precision."""


class EngineError(CcrDeployError):
    """An engine that cannot be built, does not match its sidecar or cannot be run here."""


class MachineBusyError(CcrDeployError):
    """A benchmark that was to be run on an idle machine alone, and was not."""

    exit_status: ClassVar[int] = 1


class RepositoryError(CcrDeployError):
    """A model repository that is damaged or cannot be written."""


class ServingError(CcrDeployError):
    """A server that cannot be started."""


class MissingExtraError(CcrDeployError):
    """An optional package that a command needs is not installed."""

    def __init__(self, package: str, extra: str | tuple[str, ...], purpose: str, elsewhere: str = "") -> None:
        """Name what is missing and what brings it.

        Args:
            package: what failed to import.
            extra: the extra that brings it, or several of which each does.
            purpose: what needs the package.
            elsewhere: where the package comes from on machines where the extra is not what brings it.
        """
        extras = (extra,) if isinstance(extra, str) else extra
        super().__init__(
            f"{purpose} needs the package {package}, which is not installed: "
            f"{pip_install(*extras)}{elsewhere}"
        )


def pip_install(*extras: str) -> str:
    """Return the command that installs one of the extras."""
    return "pip install " + " or ".join(f"'ccr-deploy[{extra}]'" for extra in extras)

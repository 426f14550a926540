"""The settings by which this machine's pip reaches an index, for builds in another root file system."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

CERTIFICATES = Path("/etc/ssl/certs")


@dataclass(frozen=True)
class PipSettings:
    """One configuration file, and the files and folders of this machine that it names."""

    configuration: str
    paths: tuple[Path, ...]

    @classmethod
    def of_this_machine(cls) -> PipSettings:
        """Return what pip takes from its files and from the environment here."""
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"]
        listed = subprocess.run(command, capture_output=True, text=True, check=True)
        settings = dict(line.split("=", 1) for line in listed.stdout.splitlines())
        values = {name.partition(".")[2]: value.strip("'\"") for name, value in settings.items()}
        # `pip config list` prints a value of several lines with its line breaks escaped.
        words = [word for value in values.values() for word in value.replace("\\n", " ").split()]
        # An index that is a folder names files beside it.
        named = [
            Path(word.removeprefix("file://")).parent if word.startswith("file://") else Path(word)
            for word in words
        ]
        lines = [f"{name} = {value.replace(chr(92) + 'n', ' ')}" for name, value in values.items()]
        return cls(
            configuration="\n".join(["[global]", *lines, ""]),
            paths=tuple(dict.fromkeys(path for path in named if path.is_absolute() and path.exists())),
        )

    def mounts(self, configuration: Path) -> list[tuple[Path, Path]]:
        """Write the configuration to a file, and return what to mount read-only: here, and in the root.

        Args:
            configuration: The file to write.
        """
        configuration.write_text(self.configuration, encoding="utf-8")
        shared = [path for path in (CERTIFICATES, *self.paths) if path.exists()]
        outermost = [path for path in shared if not any(other in path.parents for other in shared)]
        return [(configuration, Path("/etc/pip.conf")), *((path, path) for path in outermost)]

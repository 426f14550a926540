"""The pip settings of this machine, for a pip in a container or another root folder."""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True)
class PipSettings:
    """The settings as environment variables, and the files and folders that they name."""

    environment: dict[str, str]
    paths: tuple[Path, ...]

    @classmethod
    def of_this_machine(cls) -> PipSettings:
        """Return the settings that pip uses on this machine."""
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"]
        return pip_settings(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    @property
    def configuration(self) -> str:
        """The settings as the text of a pip configuration file."""
        names = {name.removeprefix("PIP_").lower().replace("_", "-"): name for name in self.environment}
        lines = [f"{option} = {self.environment[name]}" for option, name in names.items()]
        return "\n".join(["[global]", *lines, ""])


def pip_settings(config_list: str) -> PipSettings:
    """Parse the output of ``pip config list``.

    The settings for all commands and for ``pip install`` are used. An environment variable overrides both, as
    in pip itself.
    """
    ranked = sorted(filter(None, map(_entry, config_list.splitlines())))
    environment = {f"PIP_{name.upper().replace('-', '_')}": value for _, name, value in ranked}
    words = [word for value in environment.values() for word in value.split()]
    return PipSettings(environment, tuple(dict.fromkeys(filter(None, map(_path, words)))))


def _entry(line: str) -> tuple[int, str, str] | None:
    key, _, value = line.partition("=")
    section, _, name = key.rpartition(".")
    sections = ("global", "install", ":env:")
    if section not in sections:
        return None
    return sections.index(section), name, " ".join(ast.literal_eval(value).split())


def _path(word: str) -> Path | None:
    """Return the path in a setting if it exists; for an index, its parent, which has the linked files."""
    url = urlsplit(word)
    path = Path(unquote(url.path)).parent if url.scheme == "file" else Path(word)
    return path if path.is_absolute() and path != Path("/") and path.exists() else None

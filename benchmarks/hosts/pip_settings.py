"""This machine's settings of pip, for a pip in another root folder."""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True)
class PipSettings:
    """Environment variables that tell them, and the files and folders that they name."""

    environment: dict[str, str]
    paths: tuple[Path, ...]

    @classmethod
    def of_this_machine(cls) -> PipSettings:
        """Ask pip."""
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"]
        return pip_settings(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    @property
    def configuration(self) -> str:
        """The same as the text of pip's configuration file."""
        names = {name.removeprefix("PIP_").lower().replace("_", "-"): name for name in self.environment}
        lines = [f"{option} = {self.environment[name]}" for option, name in names.items()]
        return "\n".join(["[global]", *lines, ""])


def pip_settings(config_list: str) -> PipSettings:
    """Read what ``pip config list`` prints.

    Settings of all commands and of ``pip install`` count; an environment variable wins, as with pip itself.
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
    """Name what is there; of an index the folder around it, since its pages link to files beside it."""
    url = urlsplit(word)
    path = Path(unquote(url.path)).parent if url.scheme == "file" else Path(word)
    return path if path.is_absolute() and path != Path("/") and path.exists() else None

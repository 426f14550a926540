"""The bundle's commands on this machine and on an emulated Arm, and their results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tests.arm.root_folder import PREFIX, Mount

if TYPE_CHECKING:
    import numpy.typing as npt

    from tests.arm.processors import Processor
    from tests.arm.root_folder import RootFolder

    Precision = Literal["fp32", "int8"]

_LOGITS = Path(__file__).parent / "logits.py"
_BATCH = 16


class Here:
    """This machine, with the demo's folder, `results` and this folder's `logits.py` at their own paths."""

    def __init__(self, demo: Path, results: Path) -> None:
        self.demo = demo
        self.results = self.inside = results
        self.logits = _LOGITS

    def command(self, *words: object) -> list[str]:
        """Build the command line of a Python with ccr-deploy and these arguments."""
        return [sys.executable, *map(str, words)]

    def environment(self) -> dict[str, str]:
        """Return the environment of such a command."""
        return {**os.environ, "CCR_DEPLOY_ENGINES": str(self.results / "engines")}


class Arm:
    """An emulated Arm processor in a root folder, with the same files mounted, for example at ``/demo``."""

    def __init__(self, root: RootFolder, processor: Processor, demo: Path, results: Path) -> None:
        """Set the paths of the emulated side.

        Args:
            root: the root folder.
            processor: the processor.
            demo: the demo's folder on this machine, mounted read-only.
            results: a folder on this machine for engines and results.
        """
        self.demo, self.inside, self.logits = Path("/demo"), Path("/results"), Path("/logits.py")
        self.results = results
        self._root, self._processor = root, processor
        self._mounts = [
            Mount(demo, self.demo),
            Mount(results, self.inside, "rw"),
            Mount(_LOGITS, self.logits),
        ]

    def command(self, *words: object) -> list[str]:
        """Build the command line of the root folder's Python with these arguments."""
        return self._root.command([PREFIX / "bin" / "python", *words], self._mounts, self._processor)

    def environment(self) -> dict[str, str]:
        """Return the environment of such a command."""
        changes = {"CCR_DEPLOY_ENGINES": str(self.inside / "engines")}
        return self._root.environment(changes, self._processor)


def run(side: Here | Arm, *words: object) -> subprocess.CompletedProcess[str]:
    """Run Python on a side until it exits."""
    return subprocess.run(
        side.command(*words), env=side.environment(), capture_output=True, text=True, check=False
    )


def ccr_deploy(side: Here | Arm, *words: object) -> Any:
    """Run a command of ccr-deploy with ``--json`` and return its result."""
    return json.loads(succeed(run(side, "-m", "ccr_deploy", *words, "--json")))


def succeed(done: subprocess.CompletedProcess[str]) -> str:
    """Return the output of a command, which must succeed."""
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Chain:
    """The results of one side for the demo's images, in the same order on both sides.

    Attributes:
        images: the image files' names below the demo's folder of images, without their suffix.
        payloads: the folder with the payload files.
        codes: ``uint8 [N, bytes]``, from these files.
        answers: the class names of the classified payloads.
        logits: ``float32 [N, classes]`` of the same payloads.
    """

    images: list[str]
    payloads: Path
    codes: npt.NDArray[np.uint8]
    answers: list[str]
    logits: npt.NDArray[np.float32]


def run_chain(side: Here | Arm, target: str, precision: Precision, asked: Path | None = None) -> Chain:
    """Build engines, encode the demo's images, and classify.

    Args:
        side: the side to run on.
        target: the target's name.
        precision: the precision of both engines.
        asked: a folder of another side's payloads to classify; None for those that this call encodes.
    """
    from ccr_deploy.codec.payload import read_payload

    name = f"{target}-{precision}"
    bundle, options = side.demo / "bundle", ("--target", target, "--batch", _BATCH)
    ccr_deploy(side, "build-engine", bundle, "--target", target, f"--{precision}")
    encoded = side.results / name
    ccr_deploy(side, "encode", "--bundle", bundle, *options, side.demo / "images", "-o", side.inside / name)
    sent = name
    if asked:
        sent = f"{name}-asked"
        _copy(asked, side.results / sent)
    classified = ccr_deploy(side, "classify", "--bundle", bundle, *options, side.inside / sent)
    succeed(run(side, side.logits, bundle, target, side.inside / sent, side.inside / f"{name}.npy"))
    files = sorted(encoded.rglob("*.ccr"))
    return Chain(
        images=[str(file.relative_to(encoded).with_suffix("")) for file in files],
        payloads=encoded,
        codes=np.stack([read_payload(file.read_bytes())[1] for file in files]),
        answers=[entry["answer"] for entry in classified],
        logits=np.load(side.results / f"{name}.npy"),
    )


def _copy(payloads: Path, folder: Path) -> None:
    for file in payloads.rglob("*.ccr"):
        copied = folder / file.relative_to(payloads)
        copied.parent.mkdir(parents=True, exist_ok=True)
        copied.write_bytes(file.read_bytes())

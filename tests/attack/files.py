"""Hostile and damaged files, read by every command that reads such files; killed exports; full disks.

    python -m tests.attack.files --seconds 60 --seed 0

Prints a table. The exit status is 1 if one of these properties does not hold:

- no command ends in an unexpected error, in more than one line, in control characters, or takes more than
  the seconds and memory in `tests.attack.tally`, and none waits;
- a damaged payload is refused, or is the payload that it was;
- a killed or failing command leaves the old bundle or the new one, whole.

It writes only to a temporary folder.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ccr_deploy.bundle.manifest import MANIFEST
from ccr_deploy.codec.payload import decode_payload, encode_payload
from ccr_deploy.engines.sidecar import sidecar_path
from ccr_deploy.errors import PayloadError
from tests.attack.crashes import attack_by_full_disk, attack_by_kills
from tests.attack.fixtures import Files, export_arguments, make_files
from tests.attack.mutations import damaged, hostile_checkpoint, hostile_json, hostile_toml
from tests.attack.tally import Tally, attempt, too_long

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ccr_deploy.bundle.reader import Bundle
    from tests.attack.tally import Attack

    Mutate = Callable[[random.Random, bytes], bytes]
    Command = Sequence[object]

WEIGHTS = {"exports killed": 15, "full disk: export": 5, "reports": 3, "targets": 3, "checkpoints": 3}
"""Slower attacks get a larger share of the time."""


def attack_file(path: Path, mutate: Mutate, *commands: Command) -> Attack:
    """Return the attack that puts mutations of a file in its place and runs commands that read it."""

    def attack(tally: Tally, chance: random.Random, seconds: float) -> None:
        content, until = path.read_bytes(), time.monotonic() + seconds
        while time.monotonic() < until:
            path.write_bytes(mutate(chance, content))
            for command in commands:
                outcome, failure = attempt(*command)
                tally.add(refused=outcome.status != 0, failure=failure)
        path.write_bytes(content)

    return attack


def attack_places(tally: Tally, path: Path, command: Command) -> None:
    """Put a FIFO, folder or device in a file's place: it must be refused without waiting."""
    kept = path.rename(path.with_name(f"{path.name}.kept"))
    puts = (
        lambda: os.mkfifo(path),
        lambda: path.symlink_to("/dev/zero"),
        lambda: path.symlink_to(path.name),
        lambda: path.symlink_to("nowhere"),
        path.mkdir,
    )
    for put in puts:
        put()
        outcome, failure = attempt(*command)
        accepted = f"{command[0]} took {path} for a file" if outcome.status == 0 else None
        tally.add(refused=outcome.status != 0, failure=failure or accepted)
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink()
    kept.rename(path)


def attack_payloads(bundle: Bundle) -> Attack:
    """Return the attack that decodes mutations of payloads."""
    contract = bundle.manifest.contract

    def attack(tally: Tally, chance: random.Random, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            code = np.frombuffer(chance.randbytes(contract.code_bytes), np.uint8)
            payload = encode_payload(code, contract)
            for _ in range(200):
                changed = damaged(chance, payload)
                try:
                    decode_payload(changed, contract)
                except PayloadError:
                    tally.add(refused=True, failure=None)
                else:
                    wrong = f"decoded {changed.hex()}" if changed != payload else None
                    tally.add(refused=False, failure=wrong)

    return attack


def attacks(files: Files) -> dict[str, Attack]:
    """The attacks that run for a given time, by name."""
    bundle, store, engine = files.bundle.path, files.store, files.engine
    use = ("--bundle", bundle, "--target", "cpu", "--engines", store)
    build = ("build-engine", bundle, "--target", "cpu", "--engines", store)
    describe = ("describe", "--checkpoint", files.checkpoint)
    classify = ("classify", files.payload, *use)
    recipe = ("calibrate", bundle, "--recipe", files.recipe, "--images", files.folder / "none")
    target = (
        "build-engine",
        bundle,
        "--target",
        files.target,
        "--engines",
        files.folder / "engines-of-target",
    )
    report = ("verify", bundle, "--target", "cpu", "--engines", store, "--report", files.report.parent)
    return {
        "payloads, decoded": attack_payloads(files.bundle),
        "payload files": attack_file(files.payload, damaged, ("inspect", files.payload), classify),
        "manifests": attack_file(bundle / MANIFEST, hostile_json, classify, build),
        "sidecars": attack_file(sidecar_path(engine), hostile_json, ("inspect", engine)),
        "notes of the last build": attack_file(files.choice, hostile_json, classify),
        "calibration tables": attack_file(
            files.table, hostile_json, ("calibrate", "--compare", files.table, files.table)
        ),
        "targets": attack_file(files.target, hostile_toml, target),
        "recipes": attack_file(files.recipe, hostile_toml, recipe),
        "reports": attack_file(files.report, hostile_json, report),
        "checkpoints": attack_file(files.checkpoint, hostile_checkpoint, describe),
        **{
            f"images: {path.suffix[1:]}": attack_file(
                path, damaged, ("encode", path, "-o", files.folder / "out.ccr", *use)
            )
            for path in files.images
        },
        "exports killed": attack_by_kills(files),
        "full disk: export": attack_by_full_disk(files, "export"),
        "full disk: build-engine": attack_by_full_disk(files, "build-engine"),
    }


def places(files: Files) -> list[tuple[Path, Command]]:
    """A file, and a command that reads it."""
    bundle, use = (
        files.bundle.path,
        ("--bundle", files.bundle.path, "--target", "cpu", "--engines", files.store),
    )
    sample = bundle / files.bundle.manifest.samples[0].file.name
    return [
        (files.checkpoint, ("describe", "--checkpoint", files.checkpoint)),
        (bundle / MANIFEST, ("classify", files.payload, *use)),
        (bundle / MANIFEST, export_arguments(files, bundle, 3)),
        (sample, ("verify", bundle, "--target", "cpu", "--engines", files.store)),
        (files.engine, ("inspect", files.engine)),
        (sidecar_path(files.engine), ("inspect", files.engine)),
        (files.payload, ("inspect", files.payload)),
        (files.payload, ("classify", files.payload, *use)),
        (files.images[0], ("encode", files.images[0], "-o", files.folder / "out.ccr", *use)),
        (files.table, ("calibrate", "--compare", files.table, files.table)),
        (files.target, ("build-engine", bundle, "--target", files.target)),
        (files.recipe, ("calibrate", bundle, "--recipe", files.recipe, "--images", files.folder)),
    ]


def main() -> int:
    """Attack, print the table, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=60, help="for all attacks together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="the attacks whose name begins so")
    options = parser.parse_args()
    signal.signal(signal.SIGALRM, too_long)
    with tempfile.TemporaryDirectory() as folder:
        files = make_files(Path(folder))
        tallies = [Tally("no file in a file's place")]
        for path, command in places(files):
            attack_places(tallies[0], path, command)
        chosen = {name: attack for name, attack in attacks(files).items() if name.startswith(options.only)}
        weights = sum(WEIGHTS.get(name, 1) for name in chosen)
        for name, attack in chosen.items():
            tally = Tally(name)
            share = options.seconds * WEIGHTS.get(name, 1) / weights
            chance = random.Random(f"{options.seed} {name}")  # noqa: S311 -- to be drawn again
            attack(tally, chance, share)
            tallies.append(tally)
    print("| attack | tried | refused | failed |\n|---|---:|---:|---:|")
    for tally in tallies:
        print(f"| {tally.name} | {tally.tried:,} | {tally.refused:,} | {len(tally.failures)} |")
    for tally in tallies:
        for failure in list(dict.fromkeys(tally.failures))[:5]:
            print(f"{tally.name}: {failure}")
    return 1 if any(tally.failures for tally in tallies) else 0


if __name__ == "__main__":
    sys.exit(main())

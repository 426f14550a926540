"""Hostile and damaged files against everything that reads one; killed exports; full disks.

    python -m tests.attack.files --seconds 60 --seed 0

Prints a table, and exits with 1 if anything did not hold:

- no command ends in an unexpected error, in more than one line, in control characters, after more than
  `MOST_SECONDS`, or with `MOST_MEBIBYTES` more memory;
- a damaged payload is refused, or is the payload that it was;
- a killed or failing command leaves the old bundle or the new one, whole.

It writes to a temporary folder alone.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ccr_deploy.bundle import MANIFEST, Bundle
from ccr_deploy.engine_sidecar import sidecar_path
from ccr_deploy.errors import CcrDeployError, PayloadError
from ccr_deploy.payload import decode_payload, encode_payload
from tests.attack.fixtures import Files, export_arguments, make_files, must
from tests.attack.mutations import damaged, hostile_checkpoint, hostile_json, hostile_toml
from tests.cli_runner import Outcome, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Mutate = Callable[[random.Random, bytes], bytes]
    Command = Sequence[object]

MOST_SECONDS = 20
MOST_MEBIBYTES = 600
WEIGHTS = {"exports killed": 8, "full disk: export": 5, "reports": 3, "targets": 3, "checkpoints": 3}
"""What takes longer gets a larger share of the time."""

ROOM = 4 << 20
"""Bytes of the disk that is filled."""


@dataclass
class Tally:
    """What came of one kind of attack."""

    name: str
    tried: int = 0
    refused: int = 0
    failures: list[str] = field(default_factory=list)

    def add(self, *, refused: bool, failure: str | None) -> None:
        """Count one try."""
        self.tried += 1
        self.refused += refused
        if failure:
            self.failures.append(failure)


class TookTooLongError(BaseException):
    """Raised by the alarm; nothing in the program may take it for an error of its own."""


def too_long(*_: object) -> None:
    """Handle SIGALRM."""
    raise TookTooLongError


def attempt(*arguments: object) -> tuple[Outcome, str | None]:
    """Run a command in this process, and say what did not hold."""
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    signal.alarm(MOST_SECONDS)
    try:
        outcome = run(*arguments)
    except TookTooLongError:
        return Outcome(-1, "", ""), f"took more than {MOST_SECONDS} s: {arguments}"
    finally:
        signal.alarm(0)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) >> 10
    too_much = f"took {grown} MiB: {outcome.stderr}" if grown > MOST_MEBIBYTES else None
    return outcome, too_much or problem(outcome)


def problem(outcome: Outcome) -> str | None:
    """What is wrong with how a command ended."""
    lines = outcome.stderr.splitlines()
    if "error: unexpected" in outcome.stderr:
        return outcome.stderr[:300]
    if outcome.status not in {0, 1} and len(lines) != 1:
        return f"{len(lines)} lines on stderr: {outcome.stderr[:300]}"
    shown = (outcome.stdout + outcome.stderr).replace("\n", "")
    return None if shown.isprintable() else f"control characters: {shown[:300]!r}"


def attack_file(
    path: Path, mutate: Mutate, *commands: Command
) -> Callable[[Tally, random.Random, float], None]:
    """Return the attack that puts mutations of a file in its place and runs commands that read it."""

    def attack(tally: Tally, chance: random.Random, until: float) -> None:
        content = path.read_bytes()
        while time.monotonic() < until:
            path.write_bytes(mutate(chance, content))
            for command in commands:
                outcome, failure = attempt(*command)
                tally.add(refused=outcome.status != 0, failure=failure)
        path.write_bytes(content)

    return attack


def attack_places(tally: Tally, path: Path, command: Command) -> None:
    """Put what is no file in a file's place: it must be refused at once."""
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


def attack_payloads(bundle: Bundle) -> Callable[[Tally, random.Random, float], None]:
    """Return the attack that decodes mutations of payloads."""
    contract = bundle.manifest.contract

    def attack(tally: Tally, chance: random.Random, until: float) -> None:
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


def broken_bundle(path: Path) -> str | None:
    """Why a bundle is not whole."""
    try:
        bundle = Bundle.open(path)
        for record in bundle.manifest.files():
            bundle.file(record)
    except CcrDeployError as error:
        return str(error)
    return None


def attack_by_kills(files: Files) -> Callable[[Tally, random.Random, float], None]:
    """Return the attack that kills exports at random moments; a try is refused if it was killed in time."""

    def attack(tally: Tally, chance: random.Random, until: float) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["ccr_deploy.export.exporter", "tests.cli_runner"])
        bundle = files.folder / "killed"
        must(*export_arguments(files, bundle, 3))
        started = time.monotonic()
        must(*export_arguments(files, bundle, 2))
        longest = 2 * (time.monotonic() - started)
        while time.monotonic() < until:
            arguments = export_arguments(files, bundle, 2 + tally.tried % 2)
            process = context.Process(target=run, args=arguments)
            process.start()
            process.join(chance.uniform(0, longest))
            killed = process.exitcode is None
            process.kill()
            process.join()
            tally.add(refused=killed, failure=broken_bundle(bundle))

    return attack


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Callable[[int], None]]:
    """Yield what leaves so many bytes free: on a tmpfs, or by a limit on file sizes without one."""
    folder.mkdir()
    unmount = ["umount", str(folder)]
    mount = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode == 0:
        filler = folder / "filler"

        def leave(room: int) -> None:
            filler.unlink(missing_ok=True)
            free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
            filler.write_bytes(bytes(max(0, free - room)))

        try:
            yield leave
        finally:
            subprocess.run(unmount, check=True)
        return
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield lambda room: resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def attack_by_full_disk(files: Files, command: str) -> Callable[[Tally, random.Random, float], None]:
    """Return the attack that runs a command with little room, then runs it again with enough."""

    def attack(tally: Tally, chance: random.Random, until: float) -> None:
        with small_disk(files.folder / f"full-{command}") as leave:
            bundle, store = (files.folder / f"full-{command}" / name for name in ("bundle", "engines"))
            build = ("build-engine", files.bundle.path, "--target", "cpu", "--no-cache", "--engines", store)
            while time.monotonic() < until:
                arguments = build if command == "build-engine" else export_arguments(files, bundle, 2)
                leave(chance.randrange(150_000))
                outcome, failure = attempt(*arguments)
                leave(ROOM)
                if command == "export" and bundle.exists() and not failure:
                    failure = broken_bundle(bundle)
                if outcome.status != 0:
                    again, _ = attempt(*arguments)
                    failure = failure or (again.stderr if again.status else None)
                tally.add(refused=outcome.status != 0, failure=failure)

    return attack


def attacks(files: Files) -> dict[str, Callable[[Tally, random.Random, float], None]]:
    """Every attack that lasts as long as it is given, by name."""
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
            attack(tally, chance, time.monotonic() + share)
            tallies.append(tally)
    print("| attack | tried | refused | did not hold |\n|---|---:|---:|---:|")
    for tally in tallies:
        print(f"| {tally.name} | {tally.tried:,} | {tally.refused:,} | {len(tally.failures)} |")
    for tally in tallies:
        for failure in list(dict.fromkeys(tally.failures))[:5]:
            print(f"{tally.name}: {failure}")
    return 1 if any(tally.failures for tally in tallies) else 0


if __name__ == "__main__":
    sys.exit(main())

"""Commands that are killed, or whose disk becomes full, while they write."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from ccr_deploy.bundle.reader import Bundle
from ccr_deploy.errors import CcrDeployError
from tests.attack.fixtures import Files, export_arguments, must
from tests.attack.tally import Tally, attempt
from tests.support.cli_runner import run

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.attack.tally import Attack

ROOM = 4 << 20
"""The size of the disk that is filled, in bytes."""


def broken_bundle(path: Path) -> str | None:
    """Return why a bundle is not complete; None if it is."""
    try:
        bundle = Bundle.open(path)
        for record in bundle.manifest.files():
            bundle.file(record)
    except CcrDeployError as error:
        return str(error)
    return None


def attack_by_kills(files: Files) -> Attack:
    """Return the attack that kills exports at random moments; a try is refused if it was killed in time."""

    def attack(tally: Tally, chance: random.Random, seconds: float) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["ccr_deploy.export.exporter", "tests.support.cli_runner"])
        bundle = files.folder / "killed"
        must(*export_arguments(files, bundle, 3))
        started = time.monotonic()
        must(*export_arguments(files, bundle, 2))
        longest = 2 * (time.monotonic() - started)
        until = time.monotonic() + seconds
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
    sys.dont_write_bytecode = True  # or it stays behind, cut short
    try:
        yield lambda room: resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def attack_by_full_disk(files: Files, command: str) -> Attack:
    """Return the attack that runs a command with little room, then runs it again with enough."""

    def attack(tally: Tally, chance: random.Random, seconds: float) -> None:
        with small_disk(files.folder / f"full-{command}") as leave:
            bundle, store = (files.folder / f"full-{command}" / name for name in ("bundle", "engines"))
            build = ("build-engine", files.bundle.path, "--target", "cpu", "--no-cache", "--engines", store)
            until = time.monotonic() + seconds
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

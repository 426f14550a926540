"""Attacks of hostile clients on the local server: ``python -m tests.attack.server``.

It exports and builds a tiny model, starts servers on free ports of 127.0.0.1 with the limit of 1,024 open
files that containers have, and prints the table of ``docs/reference/reliability.md``. It is bounded in
number and time, takes about three minutes, and its exit status is 1 if something did not hold. `--seed`
chooses other random bytes; `--write` puts the table into the document.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ccr_deploy.engines.factory import EngineFactory
from ccr_deploy.engines.store import EngineStore
from ccr_deploy.export.exporter import export_bundle
from ccr_deploy.models.checkpoint import untrained_checkpoint
from tests.attack.server_attacks import ATTACKS, Tried, is_well
from tests.support.bundles import TINY
from tests.support.raw_http import BODY, INFER, attempt, classifier_answers, connect
from tests.support.server_process import ROOT, ServerProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ccr_deploy.bundle.reader import Bundle

    Start = Callable[[], ServerProcess]

DOCUMENT = ROOT / "docs" / "reference" / "reliability.md"
OPEN_FILES = 1024
MOST_SECONDS = 600
TIMES = {"head": 5, "request": 6, "idle": 20}
GRACE_SECONDS = 3
KILLS = 5


def main() -> int:
    """Run every attack and print the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    signal.alarm(MOST_SECONDS)
    with tempfile.TemporaryDirectory() as folder:
        rows = list(_rows(Path(folder), arguments.seed))
    table = "\n".join(["| attack | times | passed |", "| --- | ---: | --- |", *map(str, rows)])
    print(table)
    if arguments.write:
        before, begin, rest = DOCUMENT.read_text(encoding="utf-8").partition("<!-- server -->")
        _, end, after = rest.partition("<!-- /server -->")
        DOCUMENT.write_text(f"{before}{begin}\n\n{table}\n\n{end}{after}", encoding="utf-8")
    return int(not all(row.held for row in rows))


def _rows(folder: Path, seed: int) -> Iterator[Tried]:
    bundle, store = _built(folder)
    for gate in ("load", "run"):
        (folder / gate).touch()
    settings = {"times": TIMES, "grace_seconds": GRACE_SECONDS}

    def start() -> ServerProcess:
        return ServerProcess(bundle, store, gates=folder, settings=settings, open_files=OPEN_FILES)

    with _ready(start) as server:
        before = _open_files(server)
        for attack in ATTACKS:
            yield _told(attack(server, bundle, seed))
        yield _told(_leaves_nothing_open(server, before))
    yield _told(_stalled_at_the_end(start))
    yield _told(_killed(start))


def _told(row: Tried) -> Tried:
    print(row, file=sys.stderr)
    return row


def _built(folder: Path) -> tuple[Bundle, EngineStore]:
    bundle = export_bundle(untrained_checkpoint(TINY), folder / "bundle", schedules=("iteration-major",))
    store = EngineStore(folder / "engines")
    factory = EngineFactory(bundle, "cpu", store)
    for stage in ("encoder", "classifier"):
        factory.build(stage)
    return bundle, store


@contextmanager
def _ready(start: Start) -> Iterator[ServerProcess]:
    with start() as server:
        server.wait_for("ready")
        yield server


def _open_files(server: ServerProcess) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


def _leaves_nothing_open(server: ServerProcess, before: int) -> Tried:
    deadline = time.monotonic() + 2 * TIMES["idle"]
    while _open_files(server) > before + 10 and time.monotonic() < deadline:
        time.sleep(0.2)
    left = _open_files(server) - before
    held = left <= 10 and server.errors == "" and is_well(server)
    return Tried("after all of these: files left open, lines on stderr, inference", 1, held)


def _stalled_at_the_end(start: Start) -> Tried:
    """SIGTERM while bodies, heads and gRPC's handshakes stall."""
    with _ready(start) as server:
        crowd = [connect(server.http_address) for _ in range(50)]
        crowd += [connect(server.grpc_address) for _ in range(50)]
        for stalled in crowd[:30]:
            stalled.sendall(INFER + b"Content-Length: %d\r\n\r\n" % len(BODY))
        while attempt(server.http_address, b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n") != 200:
            time.sleep(0.05)
        server.process.send_signal(signal.SIGTERM)
        stopped = server.wait_for("stopped")
        ended = server.process.wait(60) == 0
        for connection in crowd:
            connection.close()
    held = ended and stopped["cut"] == 30 and server.errors == ""
    what = "SIGTERM with 30 stalled bodies and 70 silent connections: cut at the grace time, status 0"
    return Tried(what, 1, held)


def _killed(start: Start) -> Tried:
    """SIGKILL amid requests; the next server takes over."""
    outcomes: Counter[bool] = Counter()
    for _ in range(KILLS):
        with _ready(start) as server, connect(server.http_address) as connection:
            connection.sendall(INFER + b"Content-Length: %d\r\n\r\n" % len(BODY))
            outcomes[classifier_answers(server.http_address)] += 1
            os.kill(server.process.pid, signal.SIGKILL)
            server.process.wait(60)
    return Tried("SIGKILL during a request; a new server answers", KILLS, outcomes == {True: KILLS})


if __name__ == "__main__":
    sys.exit(main())

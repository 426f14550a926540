"""A local server whose engines wait until files exist, so that tests control their timing.

``python -m tests.support.gated_server BUNDLE STORE GATES SETTINGS``

Engines load when ``GATES/load`` exists, and run while ``GATES/run`` exists; ``GATES/held`` is created when a
run waits for it. The limits are 4 images in a run and 8 waiting ones. The settings are JSON with
`grace_seconds`, `allowed_hosts`, and `times` as in `Times`.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ccr_deploy.bundle.reader import Bundle
from ccr_deploy.cli.serve import tell_json
from ccr_deploy.engines.factory import EngineFactory
from ccr_deploy.engines.store import EngineStore
from ccr_deploy.serving.client_limits import Times
from ccr_deploy.serving.limits import Limits
from ccr_deploy.serving.server import LocalServer, serve_until_stopped

if TYPE_CHECKING:
    from ccr_deploy.backends.runner import Arrays, Runner
    from ccr_deploy.engines.store import Engine

LIMITS = Limits(max_batch=4, max_waiting=8)


def wait_for(gate: Path) -> None:
    while not gate.exists():
        time.sleep(0.005)


class GatedRunner:
    """A runner that waits for the gate in every run."""

    def __init__(self, runner: Runner, gate: Path) -> None:
        self._runner = runner
        self._gate = gate
        self.inputs = runner.inputs

    def __enter__(self) -> GatedRunner:
        return self

    def __exit__(self, *error: Any) -> None:
        self._runner.__exit__(*error)

    def infer(self, feeds: Arrays) -> Any:
        if not self._gate.exists():
            self._gate.with_name("held").touch()
            wait_for(self._gate)
        return self._runner.infer(feeds)


class GatedFactory(EngineFactory):
    """A factory that waits for the gate before it loads an engine."""

    gates: Path

    def load(self, engine: Engine) -> Any:
        wait_for(self.gates / "load")
        return GatedRunner(super().load(engine), self.gates / "run")


if __name__ == "__main__":
    bundle, store, gates = map(Path, sys.argv[1:4])
    settings = json.loads(sys.argv[4])
    times = Times(**settings.pop("times", {}))
    factory = GatedFactory(Bundle.open(bundle), "cpu", EngineStore(store))
    factory.gates = gates
    server = LocalServer(factory, LIMITS, "127.0.0.1", 0, 0, times=times, **settings)
    serve_until_stopped(server, tell_json)

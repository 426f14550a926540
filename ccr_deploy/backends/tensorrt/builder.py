"""The parent's side of a build: start its process, report its progress, and end it in every case."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from msgspec import structs

from ccr_deploy.backends.build_facts import BuildFacts, log_path
from ccr_deploy.backends.tensorrt.flavour import RTX, flavour_of
from ccr_deploy.backends.tensorrt.messages import Answer, BuildRequest, Built, Compared, Progressed
from ccr_deploy.core.child_process import ChildProcess, ProcessEndedError
from ccr_deploy.errors import EngineError

if TYPE_CHECKING:
    from ccr_deploy.core.progress import Advance

_MODULE = "ccr_deploy.backends.tensorrt"
_RTX_SWITCH = "POLYGRAPHY_USE_TENSORRT_RTX"
"""Polygraphy reads this variable on import, so that a process can use only one flavour."""


def build(request: BuildRequest, advance: Advance) -> BuildFacts:
    """Build an engine in a separate process, whose output is written to a log beside the engine.

    Args:
        request: the build.
        advance: called with the number of units, of 100 in all, that were completed since the last call.

    Raises:
        EngineError: if the graph cannot be built, or the builder's process crashed.
    """
    flavour = flavour_of(request.options)
    environment = {_RTX_SWITCH: "1" if flavour is RTX else "0"}
    log = log_path(request.engine)
    # Kill the process at once on Ctrl-C: a builder has nothing to save.
    with ChildProcess(_MODULE, environment=environment, log=log, patience_seconds=0) as process:
        try:
            process.send(request)
            facts = _built(process, request, flavour.title, advance)
        except ProcessEndedError as error:
            raise EngineError(f"{request.graph}: {flavour.title}'s builder failed: {error}") from None
        return facts if request.fp16_graph is None else _with_comparison(facts, process)


def _built(process: ChildProcess, request: BuildRequest, title: str, advance: Advance) -> BuildFacts:
    percent = 0
    while True:
        message: Answer = process.receive(Answer)
        if isinstance(message, Progressed):
            advance(message.percent - percent)
            percent = message.percent
        elif isinstance(message, Built):
            return message.facts
        else:
            raise EngineError(f"{request.graph}: {title} cannot build it: {message.reason}")


def _with_comparison(facts: BuildFacts, process: ChildProcess) -> BuildFacts:
    """Add the kernels of the FP16 graph, or why they are not known: the engine is built in either case."""
    started = time.perf_counter()
    try:
        found: Compared = process.receive(Compared)
    except ProcessEndedError as error:
        found = Compared(error=f"the builder failed: {error}")
    return structs.replace(
        facts,
        fp16_kernels=found.kernels,
        fp16_error=found.error,
        fp16_seconds=round(time.perf_counter() - started, 3),
    )

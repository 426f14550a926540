"""The owner's side of a build: starts its process, shows its progress, and ends it whatever happens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.backends.build_facts import BuildFacts, log_path
from ccr_deploy.backends.tensorrt.flavour import RTX, flavour_of
from ccr_deploy.backends.tensorrt.messages import Answer, BuildRequest, Built, Progressed
from ccr_deploy.core.child_process import ChildProcess, ProcessEndedError
from ccr_deploy.errors import EngineError

if TYPE_CHECKING:
    from ccr_deploy.core.progress import Advance

_MODULE = "ccr_deploy.backends.tensorrt"
_RTX_SWITCH = "POLYGRAPHY_USE_TENSORRT_RTX"
"""Polygraphy reads it when it is imported, so that a process has one flavour."""


def build(request: BuildRequest, advance: Advance) -> BuildFacts:
    """Builds an engine in a process of its own; what that prints is kept beside the engine.

    `advance` is told how many more of 100 units are done.

    Raises:
        EngineError: the graph cannot be built, or the builder's process ended.
    """
    flavour = flavour_of(request.options)
    environment = {_RTX_SWITCH: "1" if flavour is RTX else "0"}
    log = log_path(request.engine)
    # Without patience: nothing that a builder could still tell is of use when Ctrl-C is pressed.
    with ChildProcess(_MODULE, environment=environment, log=log, patience_seconds=0) as process:
        percent = 0
        try:
            process.send(request)
            while True:
                message: Answer = process.receive(Answer)
                if isinstance(message, Progressed):
                    advance(message.percent - percent)
                    percent = message.percent
                elif isinstance(message, Built):
                    return message.facts
                else:
                    raise EngineError(f"{request.graph}: {flavour.title} cannot build it: {message.reason}")
        except ProcessEndedError as error:
            raise EngineError(f"{request.graph}: {flavour.title}'s builder failed: {error}") from None

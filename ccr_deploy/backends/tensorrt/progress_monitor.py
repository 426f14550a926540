"""Report the progress of a build, as TensorRT's progress monitor."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from ccr_deploy.backends.tensorrt.messages import Progressed
from ccr_deploy.backends.tensorrt.phases import BuildPhases

if TYPE_CHECKING:
    from ccr_deploy.core.child_process import Owner


def progress_monitor(library: Any, owner: Owner) -> Any:  # noqa: ANN401
    """Return a monitor that reports TensorRT's progress; None if TensorRT has no monitors, as in 8.6.

    The monitor and Polygraphy's logger are written in Python. The builder's threads can call them without
    waiting forever, because TensorRT's `build_serialized_network` releases Python's global lock.
    """
    if not hasattr(library, "IProgressMonitor"):
        return None
    phases = BuildPhases()
    lock = threading.Lock()  # TensorRT calls from several threads

    class Monitor(library.IProgressMonitor):  # type: ignore[misc] # imported above, by name
        def __init__(self) -> None:
            library.IProgressMonitor.__init__(self)
            self._sent_percent = 0

        # The names of methods and parameters are TensorRT's.
        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            """Start a phase.

            Args:
                phase_name: the phase.
                parent_phase: the phase that it is part of; None for an outermost one.
                num_steps: the number of its steps.
            """
            with lock:
                phases.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            with lock:
                phases.step(phase_name, step)
                if phases.percent > self._sent_percent:
                    self._sent_percent = phases.percent
                    owner.send(Progressed(self._sent_percent))
            return True  # False would cancel the build

        def phase_finish(self, phase_name: str) -> None:
            with lock:
                phases.finish(phase_name)

    return Monitor()

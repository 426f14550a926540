"""A build's process: Polygraphy's loaders, from a graph to an engine's file.

Nothing here is imported by the command line's own process: a builder that crashes, or takes all memory, takes
only this one with it.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
import traceback
from contextlib import suppress
from typing import Any

from ccr_deploy.backends.build_facts import BuildFacts, ExecutedConvolutions, in_words
from ccr_deploy.backends.tensorrt.flavour import (
    Flavour,
    extra_of,
    flavour_of,
    import_library,
    is_strongly_typed,
)
from ccr_deploy.backends.tensorrt.inspector import executed_convolutions, inspect
from ccr_deploy.backends.tensorrt.messages import BuildRequest, Built, Failed, Progressed
from ccr_deploy.backends.tensorrt.options import RtxOptions
from ccr_deploy.backends.tensorrt.phases import BuildPhases
from ccr_deploy.core.child_process import Owner, peak_memory_mib
from ccr_deploy.core.gpu import find_gpu
from ccr_deploy.core.precisions import PRECISIONS
from ccr_deploy.core.printable import printable
from ccr_deploy.errors import CcrDeployError, EngineError, MissingExtraError

_PEAK = re.compile(r"Peak memory usage of TRT CPU/GPU memory allocators: CPU \d+ MiB, GPU (\d+) MiB")


def serve(owner: Owner) -> None:
    """Builds the engine that is asked for, and says how far it is and how it ended."""
    request: BuildRequest = owner.receive(BuildRequest)
    owner.exit_with_owner()
    log = _BuildLog()
    try:
        facts = _build(request, owner, log)
    except CcrDeployError as error:
        owner.send(Failed(printable(str(error))))
    except Exception as error:  # Polygraphy's own exception says less than what it logged before
        traceback.print_exc()
        owner.send(Failed(printable(log.complaint or f"{type(error).__name__}: {error}")))
    else:
        owner.send(Built(facts))


def _build(request: BuildRequest, owner: Owner, log: _BuildLog) -> BuildFacts:
    flavour = flavour_of(request.options)
    library = import_library(flavour)
    try:
        from polygraphy.backend.trt import EngineBytesFromNetwork, NetworkFromOnnxPath
        from polygraphy.logger import G_LOGGER
    except ImportError:
        raise MissingExtraError("polygraphy", extra_of(flavour), f"building with {flavour.title}") from None
    G_LOGGER.use_python_logging_system = True
    G_LOGGER.module_severity = G_LOGGER.VERBOSE
    network = NetworkFromOnnxPath(
        str(request.graph), strongly_typed=is_strongly_typed(flavour, library.__version__)
    )
    names: list[str] = []

    def network_with_names() -> Any:  # noqa: ANN401 -- the library has no types
        parsed = network()
        names.extend(layer.name for layer in parsed[1] if layer.type == library.LayerType.CONVOLUTION)
        return parsed

    cache = request.timing_cache
    if cache:
        cache.parent.mkdir(parents=True, exist_ok=True)
    monitor = _progress_monitor(library, owner)
    engine = EngineBytesFromNetwork(
        network_with_names,
        _configuration(request, flavour, library, monitor),
        save_timing_cache=str(cache) if cache else None,
    )()
    with request.engine.open("wb") as file:
        file.write(memoryview(engine))
    executed = _inspected(request, library, engine, names) if request.can_run else None
    return BuildFacts(
        library_version=str(library.__version__),
        driver=_driver(),
        peak_host_memory_mib=round(peak_memory_mib(), 1),
        peak_device_memory_mib=log.peak_device_memory_mib,
        executed_convolutions=executed,
    )


def _configuration(request: BuildRequest, flavour: Flavour, library: Any, monitor: Any) -> Any:  # noqa: ANN401
    """Polygraphy's loader of the builder's configuration."""
    from polygraphy.backend.trt import CreateConfig, PostprocessConfig, Profile

    options, batch = request.options, request.batch
    profile = Profile()
    for name, shape in request.input_shapes.items():
        profile.add(name, (batch.min, *shape), (batch.opt, *shape), (batch.max, *shape))
    common: dict[str, Any] = {"profiles": [profile], "progress_monitor": monitor}
    if options.workspace_mib:
        common["memory_pool_limits"] = {library.MemoryPoolType.WORKSPACE: options.workspace_mib << 20}
    if isinstance(options, RtxOptions):
        from polygraphy.backend.tensorrt_rtx import CreateConfigRTX

        if options.compute_capabilities == ("current",):
            common["use_gpu"] = True
        else:
            numbers = (capability.split(".") for capability in options.compute_capabilities)
            common["compute_capabilities"] = [(int(major), int(minor)) for major, minor in numbers]

        def set_what_polygraphy_has_no_switch_for(builder: Any, network: Any, config: Any) -> None:  # noqa: ANN401, ARG001
            flags = library.BuilderFlag
            config.set_flag(flags.TF32) if options.tf32 else config.clear_flag(flags.TF32)
            if hasattr(flags, "REQUIRE_USER_ALLOCATION"):
                config.set_flag(flags.REQUIRE_USER_ALLOCATION)  # or runs may not be capturable as CUDA graphs

        return PostprocessConfig(CreateConfigRTX(**common), set_what_polygraphy_has_no_switch_for)
    if not is_strongly_typed(flavour, library.__version__):
        common |= {"fp16": request.precision != "fp32", "int8": request.precision == "int8"}
    if options.hardware_compatibility != "none":
        level = options.hardware_compatibility.upper().replace("-", "_")
        if not hasattr(library.HardwareCompatibilityLevel, level):
            raise EngineError(
                f"TensorRT {library.__version__} has no hardware compatibility "
                f"{options.hardware_compatibility}"
            )
        common["hardware_compatibility_level"] = getattr(library.HardwareCompatibilityLevel, level)
    timing_cache = request.timing_cache
    return CreateConfig(
        tf32=options.tf32,
        builder_optimization_level=options.optimization_level,
        version_compatible=options.version_compatible,
        load_timing_cache=str(timing_cache) if timing_cache and timing_cache.exists() else None,
        **common,
    )


def _inspected(
    request: BuildRequest,
    library: Any,  # noqa: ANN401
    engine: Any,  # noqa: ANN401
    convolutions: list[str],
) -> ExecutedConvolutions | None:
    """What the built engine executes; the inspector's own text is kept beside the engine.

    Raises:
        EngineError: a quantized engine was asked for, and cannot be read, or every convolution is known to
            be executed in another precision.
    """
    row = PRECISIONS[request.precision]
    try:
        layers = inspect(library, engine)
        request.engine.with_name(request.engine.name + ".layers.json").write_text(layers, encoding="utf-8")
        executed = executed_convolutions(layers, convolutions)
    except EngineError as error:
        if row.is_calibrated:
            raise
        logging.warning("%s: what it executes is not known", error)
        return None
    if row.is_calibrated and not executed[row.graph] and not executed["unknown"]:
        raise EngineError(
            f"{row.label} was asked for, but the engine executes none of {len(convolutions)} convolutions in "
            f"it: {in_words(executed, without=row.graph)}"
        )
    return executed


def _driver() -> str | None:
    with suppress(CcrDeployError):
        return find_gpu().driver
    return None


def _progress_monitor(library: Any, owner: Owner) -> Any:  # noqa: ANN401
    """TensorRT's monitor, where it has one (8.6 has none)."""
    if not hasattr(library, "IProgressMonitor"):
        return None
    phases = BuildPhases()
    lock = threading.Lock()  # TensorRT calls from several threads

    class Monitor(library.IProgressMonitor):  # type: ignore[misc] # imported above, by name
        def __init__(self) -> None:
            library.IProgressMonitor.__init__(self)
            self._told = 0

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with lock:
                phases.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            with lock:
                phases.step(phase_name, step)
                if phases.percent > self._told:
                    self._told = phases.percent
                    owner.send(Progressed(self._told))
            return True

        def phase_finish(self, phase_name: str) -> None:
            with lock:
                phases.finish(phase_name)

    return Monitor()


class _BuildLog(logging.Handler):
    """Prints what is logged, and remembers the errors and TensorRT's memory."""

    def __init__(self) -> None:
        super().__init__()
        self._errors: list[str] = []
        self.peak_device_memory_mib: float | None = None
        handlers = [logging.StreamHandler(sys.stdout), self]
        logging.basicConfig(level=logging.DEBUG, handlers=handlers, format="%(message)s")

    @property
    def complaint(self) -> str | None:
        """The parser's own summary, which names the node; else the first error, which others follow from."""
        summaries = [error for error in self._errors if error.startswith("In node")]
        return next(iter(summaries + self._errors), None)

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if record.levelno == logging.ERROR:
            self._errors.append(_one_line(message))
        if found := _PEAK.search(message):
            self.peak_device_memory_mib = float(found.group(1))


def _one_line(message: str) -> str:
    """A logged error without colours, mark and line breaks."""
    plain = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", message).split())
    return plain.removeprefix("[E]").lstrip()[:500]

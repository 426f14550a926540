"""The process of a build: from a graph to an engine's file, with Polygraphy's loaders.

The build runs in a separate process, so that a builder that crashes or runs out of memory does not end the
command. The command's process does not import this module.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
import traceback
from contextlib import suppress
from typing import Any

from msgspec import structs

from ccr_deploy.backends.build_facts import BuildFacts, ExecutedConvolutions, in_words
from ccr_deploy.backends.kernels import KernelListing
from ccr_deploy.backends.kernels import executed_convolutions as executed_by
from ccr_deploy.backends.tensorrt.flavour import (
    RTX,
    Flavour,
    extra_of,
    flavour_of,
    import_library,
    is_strongly_typed,
)
from ccr_deploy.backends.tensorrt.inspector import executed_convolutions, inspect
from ccr_deploy.backends.tensorrt.kernel_log import LISTING, read_kernels
from ccr_deploy.backends.tensorrt.messages import BuildRequest, Built, Failed, Progressed
from ccr_deploy.backends.tensorrt.options import RtxOptions
from ccr_deploy.backends.tensorrt.phases import BuildPhases
from ccr_deploy.core.child_process import Owner, peak_memory_mib
from ccr_deploy.core.gpu import find_gpu
from ccr_deploy.core.precisions import PRECISIONS, EnginePrecision
from ccr_deploy.core.printable import printable
from ccr_deploy.errors import CcrDeployError, EngineError, MissingExtraError

_PEAK = re.compile(r"Peak memory usage of TRT CPU/GPU memory allocators: CPU \d+ MiB, GPU (\d+) MiB")


def serve(owner: Owner) -> None:
    """Build the requested engine, and send the parent process the progress and the result."""
    request: BuildRequest = owner.receive(BuildRequest)
    owner.exit_with_owner()
    log = _BuildLog()
    try:
        facts = _build(request, owner, log)
    except CcrDeployError as error:
        owner.send(Failed(printable(str(error))))
    except Exception as error:  # Polygraphy's exception has less detail than the errors that it logged
        traceback.print_exc()
        owner.send(Failed(printable(log.error_summary or f"{type(error).__name__}: {error}")))
    else:
        owner.send(Built(facts))


def _build(request: BuildRequest, owner: Owner, log: _BuildLog) -> BuildFacts:
    flavour = flavour_of(request.options)
    library = import_library(flavour)
    cache = request.timing_cache
    if cache:
        cache.parent.mkdir(parents=True, exist_ok=True)
    engine, names = _compile(request, flavour, library, _progress_monitor(library, owner))
    with request.engine.open("wb") as file:
        file.write(memoryview(engine))
    kernels = _kernels(request, log, names)
    executed: ExecutedConvolutions | None
    if kernels:
        executed = executed_by(kernels, names)
    else:
        executed = _inspect(request, library, engine, names) if request.can_run else None
    if executed:
        _check_executed(request.precision, executed, names)
    facts = BuildFacts(
        library_version=str(library.__version__),
        driver=_driver(),
        peak_host_memory_mib=round(peak_memory_mib(), 1),
        peak_device_memory_mib=log.peak_device_memory_mib,
        executed_convolutions=executed,
        kernels=kernels,
    )
    if request.fp16_graph is None:
        return facts
    in_fp16 = structs.replace(request, graph=request.fp16_graph, precision="fp16")
    _, names = _compile(in_fp16, flavour, library, monitor=None)
    return structs.replace(facts, fp16_kernels=_kernels(in_fp16, log, names))


def _compile(request: BuildRequest, flavour: Flavour, library: Any, monitor: Any) -> tuple[Any, list[str]]:  # noqa: ANN401
    """Compile the graph of a request; return the serialized engine, and the graph's convolutions."""
    try:
        from polygraphy.backend.trt import EngineBytesFromNetwork, NetworkFromOnnxPath
        from polygraphy.logger import G_LOGGER
    except ImportError:
        raise MissingExtraError("polygraphy", extra_of(flavour), f"building with {flavour.title}") from None
    G_LOGGER.use_python_logging_system = True  # so that _BuildLog receives TensorRT's messages
    # TensorRT-RTX lists its kernels at its own VERBOSE, at which TensorRT logs every tactic that it times.
    G_LOGGER.module_severity = G_LOGGER.EXTRA_VERBOSE if flavour is RTX else G_LOGGER.VERBOSE
    network = NetworkFromOnnxPath(
        str(request.graph), strongly_typed=is_strongly_typed(flavour, library.__version__)
    )
    names: list[str] = []

    def network_with_names() -> Any:  # noqa: ANN401 -- the library has no types
        parsed = network()
        # The builder fuses layers, so that the convolutions of the graph have to be listed before it runs.
        names.extend(layer.name for layer in parsed[1] if layer.type == library.LayerType.CONVOLUTION)
        return parsed

    cache = request.timing_cache
    engine = EngineBytesFromNetwork(
        network_with_names,
        _configuration(request, flavour, library, monitor),
        save_timing_cache=str(cache) if cache else None,
    )()
    return engine, names


def _kernels(request: BuildRequest, log: _BuildLog, convolutions: list[str]) -> tuple[KernelListing, ...]:
    """Return the kernels that the log lists; empty if it lists none, or in a format that is not known."""
    message, log.kernels = log.kernels, None
    if message is None or not isinstance(request.options, RtxOptions):
        return ()
    sizes = [profile.min if profile.min == profile.max else None for profile in request.batch.profiles]
    try:
        return read_kernels(
            message,
            convolutions,
            devices=_capabilities(request.options),
            batches=sizes,
        )
    except EngineError as error:
        logging.warning("%s: the kernels are not known", error)
        return ()


def _configuration(request: BuildRequest, flavour: Flavour, library: Any, monitor: Any) -> Any:  # noqa: ANN401
    """Return Polygraphy's loader of the builder's configuration."""
    from polygraphy.backend.trt import CreateConfig, PostprocessConfig, Profile

    options = request.options
    profiles = []
    for sizes in request.batch.profiles:
        profiles.append(Profile())
        for name, shape in request.input_shapes.items():
            profiles[-1].add(name, (sizes.min, *shape), (sizes.opt, *shape), (sizes.max, *shape))
    common: dict[str, Any] = {"profiles": profiles, "progress_monitor": monitor}
    if options.workspace_mib:
        common["memory_pool_limits"] = {library.MemoryPoolType.WORKSPACE: options.workspace_mib << 20}
    if isinstance(options, RtxOptions):
        from polygraphy.backend.tensorrt_rtx import CreateConfigRTX

        if options.compute_capabilities == ("current",):
            common["use_gpu"] = True
        else:
            numbers = (capability.split(".") for capability in options.compute_capabilities)
            common["compute_capabilities"] = [(int(major), int(minor)) for major, minor in numbers]

        # CreateConfigRTX has no arguments for these flags.
        def _set_flags(builder: Any, network: Any, config: Any) -> None:  # noqa: ANN401, ARG001
            flags = library.BuilderFlag
            config.set_flag(flags.TF32) if options.tf32 else config.clear_flag(flags.TF32)
            if hasattr(flags, "REQUIRE_USER_ALLOCATION"):
                # Otherwise a run may allocate memory, and then cannot be captured as a CUDA graph.
                config.set_flag(flags.REQUIRE_USER_ALLOCATION)

        return PostprocessConfig(CreateConfigRTX(**common), _set_flags)
    if not is_strongly_typed(flavour, library.__version__):
        common |= {"fp16": request.precision != "fp32", "int8": request.precision == "int8"}
    if options.hardware_compatibility != "none":
        level = options.hardware_compatibility.upper().replace("-", "_")
        if not hasattr(library.HardwareCompatibilityLevel, level):
            raise EngineError(
                f"TensorRT {library.__version__} does not support hardware_compatibility = "
                f'"{options.hardware_compatibility}": choose another value in the target'
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


def _inspect(
    request: BuildRequest,
    library: Any,  # noqa: ANN401
    engine: Any,  # noqa: ANN401
    convolutions: list[str],
) -> ExecutedConvolutions | None:
    """Count the executed convolutions by precision; write the inspector's output beside the engine.

    Raises:
        EngineError: if the engine should be quantized and cannot be read, or if it is known that no
            convolution is executed in the requested precision.
    """
    row = PRECISIONS[request.precision]
    try:
        layers = inspect(library, engine)
        request.engine.with_name(request.engine.name + ".layers.json").write_text(layers, encoding="utf-8")
        executed = executed_convolutions(layers, convolutions)
    except EngineError as error:
        if row.is_calibrated:
            raise
        logging.warning("%s: the executed precisions are not known", error)
        return None
    return executed


def _check_executed(
    precision: EnginePrecision, executed: ExecutedConvolutions, convolutions: list[str]
) -> None:
    """Raise an error if it is known that no convolution is executed in a calibrated precision."""
    row = PRECISIONS[precision]
    if row.is_calibrated and not executed[row.graph] and not executed["unknown"]:
        raise EngineError(
            f"{row.label} was requested, but the engine executes none of {len(convolutions)} convolutions in "
            f"{row.label}: {in_words(executed, without=row.graph)}"
        )


def _capabilities(options: RtxOptions) -> tuple[str, ...]:
    """Return the compute capabilities that kernels are compiled for."""
    is_current = options.compute_capabilities == ("current",)
    return (find_gpu().compute_capability,) if is_current else options.compute_capabilities


def _driver() -> str | None:
    with suppress(CcrDeployError):
        return find_gpu().driver
    return None


def _progress_monitor(library: Any, owner: Owner) -> Any:  # noqa: ANN401
    """Return a monitor that reports TensorRT's progress; None if TensorRT has no monitors, as in 8.6."""
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


class _BuildLog(logging.Handler):
    """Print log messages, and keep the errors, TensorRT's peak memory and the list of kernels.

    Of the messages below DEBUG, only the list of kernels is printed.
    """

    def __init__(self) -> None:
        super().__init__()
        self._errors: list[str] = []
        self.peak_device_memory_mib: float | None = None
        self.kernels: str | None = None
        printed = logging.StreamHandler(sys.stdout)
        printed.addFilter(lambda record: record.levelno >= logging.DEBUG or LISTING in record.getMessage())
        logging.basicConfig(level=logging.NOTSET + 1, handlers=[printed, self], format="%(message)s")

    @property
    def error_summary(self) -> str | None:
        """The parser's summary, which names the node; otherwise the first error, which causes the others."""
        summaries = [error for error in self._errors if error.startswith("In node")]
        return next(iter(summaries + self._errors), None)

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if record.levelno == logging.ERROR:
            self._errors.append(_one_line(message))
        if LISTING in message:
            self.kernels = message
        if found := _PEAK.search(message):
            self.peak_device_memory_mib = float(found.group(1))


def _one_line(message: str) -> str:
    """Return a logged error without colours, TensorRT's mark ``[E]`` and line breaks."""
    plain = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", message).split())
    return plain.removeprefix("[E]").lstrip()[:500]

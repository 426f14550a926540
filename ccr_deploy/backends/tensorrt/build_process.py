"""The process of a build: from a graph to an engine's file, with Polygraphy's loaders.

The build runs in a separate process, so that a builder that crashes or runs out of memory does not end the
command. The command's process does not import this module.
"""

from __future__ import annotations

import logging
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from msgspec import structs

from ccr_deploy.backends.build_facts import BuildFacts, in_words
from ccr_deploy.backends.kernels import ExecutedConvolutions, KernelListing, executed_convolutions
from ccr_deploy.backends.tensorrt.build_log import BuildLog
from ccr_deploy.backends.tensorrt.flavour import (
    RTX,
    Flavour,
    extra_of,
    flavour_of,
    import_library,
    is_strongly_typed,
)
from ccr_deploy.backends.tensorrt.inspector import inspect, read_layers
from ccr_deploy.backends.tensorrt.kernel_log import read_kernels
from ccr_deploy.backends.tensorrt.messages import BuildRequest, Built, Compared, Failed
from ccr_deploy.backends.tensorrt.options import RtxOptions
from ccr_deploy.backends.tensorrt.progress_monitor import progress_monitor
from ccr_deploy.core.child_process import Owner, peak_memory_mib
from ccr_deploy.core.gpu import find_gpu
from ccr_deploy.core.precisions import PRECISIONS, EnginePrecision
from ccr_deploy.core.printable import printable
from ccr_deploy.errors import CcrDeployError, EngineError, MissingExtraError

if TYPE_CHECKING:
    from pathlib import Path


def serve(owner: Owner) -> None:
    """Build the requested engine, and send the parent process the progress and the result.

    The engine is written and reported before the FP16 graph is compiled, so that a failure of the comparison,
    even a crash of this process, leaves the engine.
    """
    request: BuildRequest = owner.receive(BuildRequest)
    owner.exit_with_owner()
    log = BuildLog()
    try:
        facts = _build(request, owner, log)
    except Exception as error:
        owner.send(Failed(_reason(error, log)))
        return
    owner.send(Built(facts))
    if request.fp16_graph is not None:
        owner.send(_compare(request, request.fp16_graph, log))


def _build(request: BuildRequest, owner: Owner, log: BuildLog) -> BuildFacts:
    flavour = flavour_of(request.options)
    library = import_library(flavour)
    cache = request.timing_cache
    if cache:
        cache.parent.mkdir(parents=True, exist_ok=True)
    log.begin(f"{request.graph}: the engine, {PRECISIONS[request.precision].label}, {request.batch}")
    engine, names = _compile(request, flavour, library, progress_monitor(library, owner))
    with request.engine.open("wb") as file:
        file.write(memoryview(engine))
    kernels: tuple[KernelListing, ...] | None = _kernels(request, log, names)
    if not kernels:
        kernels = _inspected(request, library, engine, names) if request.can_run else None
    executed = None if kernels is None else executed_convolutions(kernels, names)
    if executed:
        _check_executed(request.precision, executed, names)
    return BuildFacts(
        library_version=str(library.__version__),
        driver=_driver(),
        peak_host_memory_mib=round(peak_memory_mib(), 1),
        peak_device_memory_mib=log.peak_device_memory_mib,
        executed_convolutions=executed,
        kernels=kernels or (),
    )


def _compare(request: BuildRequest, fp16_graph: Path, log: BuildLog) -> Compared:
    """Compile the FP16 graph at the smallest and the largest batch, and list its kernels."""
    sizes = request.batch.sizes
    outermost = structs.replace(request.batch, sizes=tuple(dict.fromkeys((sizes[0], sizes[-1]))))
    in_fp16 = structs.replace(request, graph=fp16_graph, precision="fp16", batch=outermost)
    flavour = flavour_of(request.options)
    log.begin(f"{fp16_graph}: FP16 for comparison, without an engine, {outermost}")
    try:
        _, names = _compile(in_fp16, flavour, import_library(flavour), monitor=None)
        return Compared(_kernels(in_fp16, log, names))
    except Exception as error:
        reason = _reason(error, log)
        logging.warning("the comparison with FP16 is not known: %s", reason)
        return Compared(error=reason)


def _reason(error: Exception, log: BuildLog) -> str:
    """Return why a compilation failed, as one line; print where, if it is not an error of ours."""
    if isinstance(error, CcrDeployError):
        return printable(str(error))
    traceback.print_exception(error)
    # Polygraphy's exception has less detail than the errors that it logged.
    return printable(log.error_summary or f"{type(error).__name__}: {' '.join(str(error).split())}")


def _compile(request: BuildRequest, flavour: Flavour, library: Any, monitor: Any) -> tuple[Any, list[str]]:  # noqa: ANN401
    """Compile the graph of a request; return the serialized engine, and the graph's convolutions."""
    try:
        from polygraphy.backend.trt import EngineBytesFromNetwork, NetworkFromOnnxPath
        from polygraphy.logger import G_LOGGER
    except ImportError:
        raise MissingExtraError("polygraphy", extra_of(flavour), f"building with {flavour.title}") from None
    G_LOGGER.use_python_logging_system = True  # so that BuildLog receives TensorRT's messages
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


def _kernels(request: BuildRequest, log: BuildLog, convolutions: list[str]) -> tuple[KernelListing, ...]:
    """Return the kernels that the log lists; empty if it lists none, or in a format that is not known."""
    message, log.kernels = log.kernels, None
    if message is None or not isinstance(request.options, RtxOptions):
        return ()
    try:
        return read_kernels(
            message, convolutions, devices=_capabilities(request.options), batches=_batches(request)
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


def _inspected(
    request: BuildRequest,
    library: Any,  # noqa: ANN401
    engine: Any,  # noqa: ANN401
    convolutions: list[str],
) -> tuple[KernelListing, ...] | None:
    """Return the kernels that the engine inspector lists; write its output beside the engine.

    Returns:
        None if the engine cannot be read.

    Raises:
        EngineError: if the engine should be quantized and cannot be read.
    """
    try:
        layers = inspect(library, engine)
        request.engine.with_name(request.engine.name + ".layers.json").write_text(layers, encoding="utf-8")
        return read_layers(layers, convolutions, str(find_gpu()), _batches(request))
    except EngineError as error:
        if PRECISIONS[request.precision].is_calibrated:
            raise
        logging.warning("%s: the executed precisions are not known", error)
        return None


def _batches(request: BuildRequest) -> list[int | None]:
    """Return the batch of each profile; None for a profile with a dynamic batch."""
    return [sizes.min if sizes.min == sizes.max else None for sizes in request.batch.profiles]


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

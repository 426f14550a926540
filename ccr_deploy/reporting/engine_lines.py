"""Lines of text about an engine, from its sidecar."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.backends.build_facts import in_words
from ccr_deploy.core.records import to_json

if TYPE_CHECKING:
    from ccr_deploy.backends.build_facts import BuildFacts
    from ccr_deploy.engines.sidecar import Sidecar

_NOT_KNOWN = "unknown"


def engine_lines(sidecar: Sidecar) -> list[str]:
    """Return lines about an engine: stage, target, options, build, convolutions, graph, hash."""
    key, batch = sidecar.key, sidecar.origin.resolved_target.batch
    what = " ".join(filter(None, (key.stage, key.precision.upper(), key.schedule)))
    library = f"{key.backend} {sidecar.build.library_version or key.backend_version}"
    sizes = str(batch) if batch else "any batch"
    return [
        f"{what}: {library}, {sidecar.engine_bytes / 1e6:.2f} MB",
        f"built for: target {sidecar.origin.target}, {key.device}, {sizes}",
        f"options: {to_json(sidecar.origin.resolved_target.options, indent=None)}",
        f"build: {build_line(sidecar.build_seconds, sidecar.build)}, by {sidecar.origin.created_by}",
        *convolution_lines(sidecar),
        *([sidecar.build.int8_weights] if sidecar.build.int8_weights else []),
        f"graph: {sidecar.origin.graph_file or 'none (PyTorch weights)'}, hash {key.source_hash[:12]}",
        f"engine: SHA-256 {sidecar.engine_sha256}, matches the sidecar",
        f"verification: {verification_line(sidecar)}",
    ]


def verification_line(sidecar: Sidecar) -> str:
    """Return when, with what and with which outcome an engine was last verified, as text."""
    found = sidecar.verification
    if found is None:
        return "none"
    reference = "a golden file" if found.reference == "golden" else "PyTorch"
    parts = [
        f"{'passed' if found.passed else 'FAILED'} at {found.verified_at}",
        f"{found.image_count} images ({found.images}; digest {found.images_sha256[:12]}) against {reference}",
        f"contract {found.contract_id}",
        f"by {found.created_by}",
    ]
    if found.changed_gates:
        parts.append(f"CHANGED GATES: {', '.join(found.changed_gates)}")
    if found.engine_sha256 != sidecar.engine_sha256:
        parts.append(f"OF OTHER BYTES: SHA-256 {found.engine_sha256[:12]}…")
    return ", ".join(parts)


def build_line(seconds: float, facts: BuildFacts) -> str:
    """Return the time and memory of a build, and the GPU driver, as text."""
    parts = [f"{seconds:.2f} s"]
    if facts.peak_host_memory_mib is not None:
        parts.append(f"peak {facts.peak_host_memory_mib:.0f} MiB on the host")
    if facts.peak_device_memory_mib is not None:
        parts.append(f"{facts.peak_device_memory_mib:.0f} MiB on the GPU")
    if facts.driver:
        parts.append(f"driver {facts.driver}")
    return ", ".join(parts)


def convolution_lines(sidecar: Sidecar) -> list[str]:
    """Return two lines: convolutions quantized in the graph, and precisions that the engine executes.

    The two may differ: a backend may execute a quantized convolution in a higher precision.
    """
    origin, executed = sidecar.origin, sidecar.build.executed_convolutions
    if origin.convolutions is None:
        return []
    found = _NOT_KNOWN
    if executed:
        found = in_words(executed)
        if unknown := executed.get("unknown"):
            found += f", {unknown} {_NOT_KNOWN}"
    return [
        f"convolutions quantized in the graph: {origin.quantized_convolutions} of {origin.convolutions}",
        f"convolutions executed by the engine: {found}",
    ]

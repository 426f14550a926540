"""``ccr-deploy verify --layers`` and ``--reduce``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.cli.common import TerminalProgress, echo_json, echo_line, stdout_console

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.precisions import EnginePrecision
    from ccr_deploy.engines.store import EngineStore
    from ccr_deploy.verification.layers import LayerReport


def show_layers(
    bundle: Bundle,
    target: str,
    store: EngineStore,
    precision: EnginePrecision | None,
    images: Path | None,
    samples: int | None,
    reduce: Path | None,
    random_weights: bool,
    *,
    as_json: bool,
) -> bool:
    """Compare layers, print the result, and write the reduced graph; return whether all are equal.

    Args:
        bundle: opened bundle.
        target: name or TOML file of the target.
        store: engine store.
        precision: precision of encoder and classifier; None for the engines that were built last.
        images: folder of images; None for the bundle's sample images.
        samples: number of images; None for the default.
        reduce: folder to write the smallest failing graph to, or None.
        random_weights: whether its weights are random.
        as_json: whether to print JSON.
    """
    from msgspec.structs import replace

    from ccr_deploy.errors import MissingExtraError

    try:
        from ccr_deploy.workflow.layers import compare_layers
        from ccr_deploy.workflow.reduce import reduce_failure
        from ccr_deploy.workflow.reproduction import check_reproduction_folder
    except ImportError as error:  # on a device, which needs no graphs
        raise MissingExtraError(error.name or "onnx-ir", "export", "comparing layers") from error

    if reduce:
        check_reproduction_folder(reduce)
    report = compare_layers(
        bundle,
        target,
        store,
        precision=precision,
        images=images,
        samples=samples,
        progress=TerminalProgress(),
    )
    if not as_json:
        _print_report(report)
    if reduce:
        reduced = reduce_failure(
            bundle,
            target,
            store,
            report,
            reduce,
            precision=precision,
            images=images,
            samples=samples,
            random_weights=random_weights,
        )
        report = replace(report, reduced=reduced)
        if not as_json:
            _print_reduced(report)
    if as_json:
        echo_json(report)
    return report.passed


def _print_report(report: LayerReport) -> None:
    from ccr_deploy.reporting.layer_tables import layer_lines, layer_tables
    from ccr_deploy.reporting.terminal import print_table

    console = stdout_console()
    for table in layer_tables(report):
        print_table(console, table)
    for line in layer_lines(report):
        console.print(line)


def _print_reduced(report: LayerReport) -> None:
    found = report.reduced
    if found is None:
        echo_line("nothing was written: no tensor of one step differs from the step before")
        return
    weights = (
        "random weights and inputs" if found.has_random_weights else "trained weights and an image's tensors"
    )
    operators = f"{found.nodes} operator{'s' if found.nodes > 1 else ''}"
    echo_line(
        f"{found.folder}: {operators} up to {found.tensor}, {weights}; to show the difference, "
        f"run python {found.folder}/reproduce.py"
    )

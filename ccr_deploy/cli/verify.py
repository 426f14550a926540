"""``ccr-deploy verify``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import click
from click.core import ParameterSource

from ccr_deploy.cli.common import (
    PATH,
    TerminalProgress,
    bundle_argument,
    echo_json,
    echo_line,
    engines_option,
    open_bundle,
    opened,
    output_options,
    path_option,
    precision_options,
    report_option,
    shard_option,
    show_tables,
    stdout_console,
    target_option,
)

if TYPE_CHECKING:
    from collections.abc import Collection

    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.precisions import EnginePrecision
    from ccr_deploy.core.shards import Shard
    from ccr_deploy.engines.store import EngineStore
    from ccr_deploy.verification.results import VerificationReport

GATE_FAILED = 1
LIST_GATES = "list"
"""The value of --gate that prints the gates."""


@click.command(short_help="Compare the engines of a target with the checkpoint.")
@bundle_argument
@click.argument("results", type=PATH, nargs=-1, metavar="")
@target_option
@precision_options
@path_option("--images", "DIR", "Images; sub-folders are classes.  [default: the bundle's sample images]")
@click.option(
    "--gate",
    "gates",
    multiple=True,
    metavar="NAME=LIMIT",
    help="Set the limit of a gate; repeatable.  list: print the gates and their limits.",
)
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    metavar="N",
    help="Number of images.  [default: all; 64 for --export-golden]",
)
@path_option("--golden", "FILE", "Compare with a golden file instead; needs no PyTorch and no images.")
@path_option("--export-golden", "FILE", "Only write a golden file; needs no engines.")
@click.option("--compare", is_flag=True, help="Only compare the --golden --json results of several devices.")
@click.option(
    "--matrix", is_flag=True, help="Also run every encoder precision with every classifier precision."
)
@shard_option("Only run shard I of N, from 0/N, and write its part file to the --report folder.")
@click.option("--merge", is_flag=True, help="Only join the part files in the --report folder.")
@engines_option
@report_option
@output_options
@click.pass_context
def verify(
    ctx: click.Context,
    bundle: Path,
    results: tuple[Path, ...],
    target: str | None,
    precision: EnginePrecision | None,
    images: Path | None,
    gates: tuple[str, ...],
    samples: int | None,
    golden: Path | None,
    export_golden: Path | None,
    compare: bool,
    matrix: bool,
    shard: Shard | None,
    merge: bool,
    engines: Path | None,
    report: Path | None,
    as_json: bool,
) -> None:
    """Compare the engines of a target with the checkpoint.

    PyTorch, the ONNX graphs and the engines run on the same images. Codes, logits and top-1 classes are
    compared, and accuracies if the images have labels. Without a precision option, the engines are those
    that build-engine built last. BUNDLE defaults to $CCR_DEPLOY_BUNDLE, then ./bundle. The exit status is
    1 if a gate fails.

    \b
    Examples:
      ccr-deploy verify bundle --images val/ --report report/ --gate max-top1-loss-points=1
      ccr-deploy verify bundle --images val/ --export-golden model.golden    on the workstation
      ccr-deploy verify bundle --golden model.golden                         on the device
      ccr-deploy verify --compare orin-1.json orin-2.json server.json
      ccr-deploy verify bundle --images val/ --report report/ --shard 0/3    on each machine
    """
    from ccr_deploy.workflow.report_folder import check_report_folder

    if gates == (LIST_GATES,):
        _print_gates()
        return
    if compare:
        # With --compare, the first argument is a result instead of the bundle.
        if not _compare(ctx, (bundle, *results), as_json=as_json):
            ctx.exit(GATE_FAILED)
        return
    if results:
        raise click.UsageError(f"got {1 + len(results)} bundles, expected one")
    if golden and (images or samples or export_golden):
        raise click.UsageError("--golden has its own images: omit --images, --samples and --export-golden")
    if golden and matrix:
        raise click.UsageError("--matrix runs the bundle's graphs: omit --golden")
    if export_golden:
        if target or precision or report or matrix:
            raise click.UsageError(
                "--export-golden runs no engines: omit --target, precision, --report and --matrix"
            )
        _export_golden(bundle, export_golden, images, samples, gates, engines, as_json=as_json)
        return
    if merge:
        _merge(ctx, bundle, as_json=as_json)
        return
    if shard:
        report = _check_parts_options(ctx, "--shard", {"golden", "export_golden"})
    elif report:
        check_report_folder(report)
    chosen = opened(bundle, target, engines, as_json=as_json, whole=not golden)
    if golden:
        from ccr_deploy.workflow.golden import verify_golden

        result = verify_golden(
            *chosen, golden, precision=precision, changed_gates=gates, progress=TerminalProgress()
        )
        _show(ctx, result, report, as_json=as_json)
        return
    asked: _Asked = {
        "precision": precision,
        "images": images,
        "samples": samples,
        "changed_gates": gates,
        "with_matrix": matrix,
    }
    _verify(ctx, chosen, shard, report, asked, as_json=as_json)


class _Asked(TypedDict):
    """The options that a whole run and that of a shard share."""

    precision: EnginePrecision | None
    images: Path | None
    samples: int | None
    changed_gates: tuple[str, ...]
    with_matrix: bool


def _show(ctx: click.Context, result: VerificationReport, report: Path | None, *, as_json: bool) -> None:
    """Print a result and add it to the report folder; exit with `GATE_FAILED` if a gate failed."""
    from ccr_deploy.reporting.verification_tables import verification_tables

    show_tables(result, verification_tables(result), report, as_json=as_json)
    if not result.passed:
        failed = [f"{gate.level} {gate.gate}" for gate in result.gates if not gate.passed]
        echo_line(
            f"ccr-deploy: {len(failed)} of {len(result.gates)} gates failed: {', '.join(failed)}", err=True
        )
        ctx.exit(GATE_FAILED)


def _check_parts_options(ctx: click.Context, option: str, unused: Collection[str]) -> Path:
    """Return the report folder; raise UsageError if there is none, or an unused option was given."""
    for parameter in ctx.command.params:
        source = ctx.get_parameter_source(str(parameter.name))
        if parameter.name in unused and source is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{option} does not use {parameter.opts[0]}: omit it")
    report: Path | None = ctx.params["report"]
    if report is None:
        raise click.UsageError(f"{option} needs --report DIR, the folder of the part files")
    return report


def _verify(
    ctx: click.Context,
    chosen: tuple[Bundle, str, EngineStore],
    shard: Shard | None,
    report: Path | None,
    asked: _Asked,
    *,
    as_json: bool,
) -> None:
    """Run all images and show the result, or run a shard and print its part file."""
    from ccr_deploy.workflow.verify import verify_bundle
    from ccr_deploy.workflow.verify_shards import verify_shard

    if not (shard and report):
        _show(ctx, verify_bundle(*chosen, **asked, progress=TerminalProgress()), report, as_json=as_json)
        return
    part = verify_shard(*chosen, shard, report, **asked, progress=TerminalProgress())
    if as_json:
        echo_json({**vars(part), "path": str(part.path), "shard": str(shard)})
        return
    echo_line(
        f"{part.path}: {part.images} of {part.image_count} images; after all {shard.shards} shards, run "
        f"ccr-deploy verify {chosen[0].path} --merge --report {report}"
    )


def _merge(ctx: click.Context, bundle: Path, *, as_json: bool) -> None:
    """Join the part files in the report folder, and show the result as that of one run."""
    from ccr_deploy.verification.shards import merge_parts
    from ccr_deploy.workflow.report_folder import check_report_folder

    report = _check_parts_options(ctx, "--merge", {*ctx.params} - {"bundle", "merge", "report", "as_json"})
    check_report_folder(report)
    _show(ctx, merge_parts(open_bundle(bundle, whole=False), report), report, as_json=as_json)


def _compare(ctx: click.Context, paths: tuple[Path, ...], *, as_json: bool) -> bool:
    """Print how the results of several devices agree; return whether they do."""
    from ccr_deploy.reporting.terminal import print_table
    from ccr_deploy.reporting.verification_tables import devices_table
    from ccr_deploy.verification.devices import compare_devices

    typed = {name for name in ctx.params if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    if typed - {"compare", "bundle", "results", "as_json"} or len(paths) < 2:
        raise click.UsageError("--compare accepts only two or more results of verify --golden FILE --json")
    devices = compare_devices(paths)
    if as_json:
        echo_json([{**vars(device), "path": str(device.path), "agrees": device.agrees} for device in devices])
    else:
        print_table(stdout_console(), devices_table(devices))
    different = [str(device.path) for device in devices if not device.agrees]
    if different:
        names = ", ".join(different)
        echo_line(f"ccr-deploy: {len(different)} of {len(devices)} results do not agree: {names}", err=True)
    return not different


def _export_golden(
    bundle: Path,
    path: Path,
    images: Path | None,
    samples: int | None,
    gates: tuple[str, ...],
    engines: Path | None,
    *,
    as_json: bool,
) -> None:
    from ccr_deploy.engines.store import EngineStore
    from ccr_deploy.workflow.golden import export_golden

    record = export_golden(
        open_bundle(bundle),
        path,
        EngineStore.default(engines),
        images=images,
        samples=samples,
        changed_gates=gates,
        progress=TerminalProgress(),
    )
    if as_json:
        echo_json(record)
        return
    mib = path.stat().st_size / 2**20
    echo_line(
        f"{path}: {len(record.image_names)} images of {record.images}, contract {record.contract_id}, "
        f"{mib:.1f} MiB; on a device, run ccr-deploy verify BUNDLE --golden {path.name}"
    )


def _print_gates() -> None:
    """Print the gates with their limits for each precision."""
    from ccr_deploy.reporting.terminal import print_table
    from ccr_deploy.reporting.verification_tables import gate_table
    from ccr_deploy.verification.gates import GATES

    print_table(stdout_console(), gate_table(GATES))

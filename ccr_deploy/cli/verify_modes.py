"""The modes of ``ccr-deploy verify``: the option that selects each, and the options that it accepts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from ccr_deploy.cli.common import (
    TerminalProgress,
    echo_json,
    echo_line,
    open_bundle,
    opened,
    stdout_console,
)
from ccr_deploy.cli.layers import show_layers
from ccr_deploy.cli.modes import Mode
from ccr_deploy.cli.results import check_report, show_result

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.precisions import EnginePrecision
    from ccr_deploy.core.shards import Shard
    from ccr_deploy.engines.store import EngineStore
    from ccr_deploy.reporting.table import Table
    from ccr_deploy.verification.results import VerificationReport

GATE_FAILED = 1
LIST_GATES = "list"
"""The value of --gate that prints the gates."""


@dataclass(frozen=True)
class VerifyOptions:
    """The values of all arguments and options of the command, by their names."""

    bundle: Path
    results: tuple[Path, ...]
    target: str | None
    precision: EnginePrecision | None
    images: Path | None
    gates: tuple[str, ...]
    samples: int | None
    matrix: bool
    golden: Path | None
    export_golden: Path | None
    compare: bool
    tolerance: bool
    layers: bool
    reduce: Path | None
    random_weights: bool
    rebuild: int | None
    shard: Shard | None
    merge: bool
    engines: Path | None
    report: Path | None
    as_json: bool

    def opened(self, *, whole: bool = True) -> tuple[Bundle, str, EngineStore]:
        """Return the bundle, the target and the engine store; `whole` checks all files of the bundle."""
        return opened(self.bundle, self.target, self.engines, as_json=self.as_json, whole=whole)

    def part_folder(self, option: str) -> Path:
        """Return the report folder, for `option`; raise UsageError if none was given."""
        if self.report is None:
            raise click.UsageError(f"{option} needs --report DIR, the folder of the part files")
        return self.report


def print_gates() -> None:
    """Print the gates with their limits for each precision."""
    from ccr_deploy.reporting.terminal import print_table
    from ccr_deploy.reporting.verification_tables import gate_table
    from ccr_deploy.verification.gates import GATES

    print_table(stdout_console(), gate_table(GATES))


def _verify(options: VerifyOptions) -> bool:
    from ccr_deploy.workflow.verify import verify_bundle

    _check_random_weights(options)
    check_report(options.report)
    report = verify_bundle(
        *options.opened(),
        precision=options.precision,
        images=options.images,
        samples=options.samples,
        changed_gates=options.gates,
        with_matrix=options.matrix,
        progress=TerminalProgress(),
    )
    return _shown(report, options)


def _check_random_weights(options: VerifyOptions) -> None:
    if options.random_weights and not options.reduce:
        raise click.UsageError("--random-weights needs --reduce DIR")


def _verify_golden(options: VerifyOptions) -> bool:
    from ccr_deploy.workflow.golden import verify_golden

    assert options.golden
    check_report(options.report)
    report = verify_golden(
        *options.opened(whole=False),
        options.golden,
        precision=options.precision,
        changed_gates=options.gates,
        progress=TerminalProgress(),
    )
    return _shown(report, options)


def _shown(report: VerificationReport, options: VerifyOptions) -> bool:
    """Print a report and add it to the report folder; return whether every gate passed."""
    from ccr_deploy.reporting.verification_tables import verification_tables

    show_result(
        report,
        verification_tables(report),
        options.report,
        as_json=options.as_json,
        warnings=report.warnings,
    )
    if not report.passed:
        failed = [f"{gate.level} {gate.gate}" for gate in report.gates if not gate.passed]
        echo_line(
            f"ccr-deploy: {len(failed)} of {len(report.gates)} gates failed: {', '.join(failed)}", err=True
        )
    return report.passed


def _verify_shard(options: VerifyOptions) -> bool:
    from ccr_deploy.workflow.verify_shards import verify_shard

    assert options.shard
    folder = options.part_folder("--shard")
    part = verify_shard(
        *options.opened(),
        options.shard,
        folder,
        precision=options.precision,
        images=options.images,
        samples=options.samples,
        changed_gates=options.gates,
        with_matrix=options.matrix,
        progress=TerminalProgress(),
    )
    if options.as_json:
        echo_json({**vars(part), "path": str(part.path), "shard": str(options.shard)})
        return True
    echo_line(
        f"{part.path}: {part.images} of {part.image_count} images; after all {options.shard.shards} shards, "
        f"run ccr-deploy verify {options.bundle} --merge --report {folder}"
    )
    return True


def _merge(options: VerifyOptions) -> bool:
    from ccr_deploy.verification.shards import merge_parts

    folder = options.part_folder("--merge")
    check_report(folder)
    return _shown(merge_parts(open_bundle(options.bundle, whole=False), folder), options)


def _compare(options: VerifyOptions) -> bool:
    from ccr_deploy.reporting.verification_tables import devices_table
    from ccr_deploy.verification.devices import compare_devices

    # With --compare, the first argument is a result instead of the bundle.
    paths = (options.bundle, *options.results)
    if len(paths) < 2:
        raise click.UsageError("--compare accepts only two or more results of verify --golden FILE --json")
    devices = compare_devices(paths)
    content = [{**vars(device), "path": str(device.path), "agrees": device.agrees} for device in devices]
    _print(options, content, devices_table(devices))
    different = [str(device.path) for device in devices if not device.agrees]
    if different:
        names = ", ".join(different)
        echo_line(f"ccr-deploy: {len(different)} of {len(devices)} results do not agree: {names}", err=True)
    return not different


def _print(options: VerifyOptions, content: object, table: Table) -> None:
    """Print a result: `content` with --json, else `table`."""
    from ccr_deploy.reporting.terminal import print_table

    if options.as_json:
        echo_json(content)
    else:
        print_table(stdout_console(), table)


def _export_golden(options: VerifyOptions) -> bool:
    from ccr_deploy.engines.store import EngineStore
    from ccr_deploy.workflow.golden import export_golden

    path = options.export_golden
    assert path
    record = export_golden(
        open_bundle(options.bundle),
        path,
        EngineStore.default(options.engines),
        images=options.images,
        samples=options.samples,
        changed_gates=options.gates,
        progress=TerminalProgress(),
    )
    if options.as_json:
        echo_json(record)
        return True
    mib = path.stat().st_size / 2**20
    echo_line(
        f"{path}: {len(record.image_names)} images of {record.images}, contract {record.contract_id}, "
        f"{mib:.1f} MiB; on a device, run ccr-deploy verify BUNDLE --golden {path.name}"
    )
    return True


def _measure_tolerance(options: VerifyOptions) -> bool:
    from ccr_deploy.engines.store import EngineStore
    from ccr_deploy.reporting.tolerance_tables import tolerance_table
    from ccr_deploy.workflow.flip_tolerance import add_flip_tolerance

    if not options.images:
        raise click.UsageError("--tolerance needs labelled images: add --images DIR")
    measured = add_flip_tolerance(
        open_bundle(options.bundle),
        EngineStore.default(options.engines),
        options.images,
        samples=options.samples,
        progress=TerminalProgress(),
    )
    _print(options, measured, tolerance_table(measured))
    return True


def _compare_layers(options: VerifyOptions) -> bool:
    _check_random_weights(options)
    return show_layers(
        *options.opened(),
        options.precision,
        options.images,
        options.samples,
        options.reduce,
        options.random_weights,
        as_json=options.as_json,
    )


def _rebuild(options: VerifyOptions) -> bool:
    from ccr_deploy.reporting.rebuild_table import rebuild_table
    from ccr_deploy.workflow.rebuild import rebuild_and_compare

    assert options.rebuild
    if options.golden and (options.images or options.samples):
        raise click.UsageError("--golden has its own images: omit --images and --samples")
    result = rebuild_and_compare(
        *options.opened(),
        options.rebuild,
        precision=options.precision,
        images=options.images,
        samples=options.samples,
        golden=options.golden,
        progress=TerminalProgress(),
    )
    _print(options, result, rebuild_table(result))
    return True


_ENGINES = frozenset({"target", "precision", "engines"})
_IMAGES = frozenset({"images", "samples"})

VERIFY = Mode("bundle", _ENGINES | _IMAGES | {"gates", "matrix", "report", "random_weights"}, _verify)
MODES = (
    Mode("compare", frozenset({"results"}), _compare),
    Mode("merge", frozenset({"report"}), _merge),
    Mode("export_golden", _IMAGES | {"gates", "engines"}, _export_golden),
    Mode("layers", _ENGINES | _IMAGES | {"reduce", "random_weights"}, _compare_layers),
    Mode("reduce", _ENGINES | _IMAGES | {"random_weights"}, _compare_layers),
    Mode("tolerance", _IMAGES | {"engines"}, _measure_tolerance),
    Mode("rebuild", _ENGINES | _IMAGES | {"golden"}, _rebuild),
    Mode("golden", _ENGINES | {"gates", "report"}, _verify_golden),
    Mode("shard", _ENGINES | _IMAGES | {"gates", "matrix", "report"}, _verify_shard),
)
"""The modes that an option selects, the first of them if there are several; else `VERIFY`."""

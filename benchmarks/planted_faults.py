"""Plant faults into bundles and engines, and record what `verify` finds.

``python -m benchmarks.planted_faults`` trains the demo's model for some seconds, calibrates it, plants each
fault and writes the findings to ``benchmarks/results/planted-faults.json``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from benchmarks.planting import verify_planted, verify_saturated, write_answered_images
from benchmarks.plants import PLANTS
from benchmarks.scaffold import publish, temporary_folder
from ccr_deploy.cli.common import TerminalProgress
from ccr_deploy.core.records import Record
from ccr_deploy.core.stages import DEFAULT_SCHEDULE
from ccr_deploy.export.exporter import export_bundle
from ccr_deploy.quantization.converters import CONVERTERS
from ccr_deploy.quantization.recipe import CalibrationRecipe
from ccr_deploy.reporting.table import Table
from ccr_deploy.reporting.verification_tables import CAUSES, way_label
from ccr_deploy.verification.results import Finding
from ccr_deploy.workflow.calibrate import calibrate_bundle
from training.data.photos import load_photos, write_calibration_images, write_test_images
from training.demo import train_briefly

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.verification.results import VerificationReport


class FoundFault(Record, frozen=True):
    """A planted fault, where it was planted, and what the report said."""

    fault: str
    planted_in: str
    findings: tuple[Finding, ...]


class PlantedFaults(Record, frozen=True):
    """All planted faults of one model."""

    schema_version: int
    model: str
    faults: tuple[FoundFault, ...]


@click.command()
def main() -> None:
    """Plant each fault, and write what `verify` finds."""
    with temporary_folder() as folder:
        bundle = _demo_bundle(folder)
        write_answered_images(bundle, folder / "images", folder / "answered")
        found = []
        with TerminalProgress().task("planting faults", len(PLANTS) + 1) as advance:
            for number, plant in enumerate(PLANTS):
                images = folder / "images" if plant.edit else folder / "answered" / "images"
                report = verify_planted(bundle, plant, images, folder / str(number))
                found.append(_found(plant.fault, plant.where, report))
                advance(1)
            report = verify_saturated(bundle, folder / "images", folder / "saturated")
            found.append(_found("saturated INT8", "INT8 engine, OpenVINO without VNNI", report))
            advance(1)
    result = PlantedFaults(1, "the demo's model, briefly trained", tuple(found))
    publish("planted-faults", result, faults_table(result))


def faults_table(result: PlantedFaults) -> Table:
    """Return the table, one row per planted fault."""
    findings = [(fault, finding) for fault in result.faults for finding in fault.findings]
    return Table.of(
        "Planted faults",
        findings,
        [
            ("fault", lambda row: row[0].fault),
            ("planted in", lambda row: row[0].planted_in),
            ("step", lambda row: way_label(row[1].step)),
            ("stage", lambda row: row[1].stage),
            ("cause", lambda row: CAUSES[row[1].cause]),
            ("evidence", lambda row: row[1].evidence),
        ],
        note=f"{result.model}; the columns from step on are what verify reports",
    )


def _found(fault: str, planted_in: str, report: VerificationReport) -> FoundFault:
    return FoundFault(fault, planted_in, report.findings)


def _demo_bundle(folder: Path) -> Bundle:
    photos = load_photos()
    checkpoint = train_briefly(pretrain_epochs=0.125, finetune_epochs=1)
    write_test_images(photos, 48, folder / "images")
    write_calibration_images(photos, 48, folder / "calibration")
    exported = export_bundle(
        checkpoint,
        folder / "healthy",
        schedules=(DEFAULT_SCHEDULE,),
        images=folder / "images",
        converters=CONVERTERS,
    )
    recipe_of_ranges = CalibrationRecipe(samples=64, held_out_samples=64)
    return calibrate_bundle(
        exported, folder / "calibration", recipe_of_ranges, held_out=folder / "images"
    ).bundle


if __name__ == "__main__":
    main()

"""``ccr-deploy classify``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ccr_deploy.cli.common import (
    batch_option,
    bundle_option,
    chosen_target,
    engines_option,
    json_option,
    stdout_console,
    target_option,
    verbose_option,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from ccr_deploy.codec.contract import CodeContract
    from ccr_deploy.workflow.classify import Answer


@click.command()
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PAYLOAD|IMAGE|DIR..."
)
@batch_option
@bundle_option
@target_option
@engines_option
@json_option
@verbose_option
def classify(
    files: tuple[Path, ...],
    batch: int | None,
    bundle: Path,
    target: str | None,
    engines: Path | None,
    as_json: bool,
) -> None:
    """Show what payloads, or pictures, are of.

    Pictures are sent through encoder and payload to the classifier; payload files go straight to it. Beside
    each answer stands what crossed the wire, the payload, and for a picture what a JPEG of quality 75 of the
    same pixels would have taken. Of a folder all pictures and payloads count.

    \b
    Examples:
      ccr-deploy classify photo.jpg --bundle bundle
      ccr-deploy classify payloads/
    """
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.engines.store import EngineStore
    from ccr_deploy.workflow.classify import classify_files
    from ccr_deploy.workflow.sources import list_pictures_and_payloads

    console = stdout_console()
    name = chosen_target(target, None if as_json else console)
    opened = Bundle.read(bundle)
    sources = list_pictures_and_payloads(files)
    answers = classify_files(opened, name, EngineStore.default(engines), sources, batch)
    if as_json:
        click.echo(json.dumps([_content(answer) for answer in answers], indent=2))
    else:
        _print_table(console, answers, opened.manifest.contract)


def _content(answer: Answer) -> dict[str, object]:
    from ccr_deploy.data.images import jpeg_bytes

    is_payload = answer.image is None
    return {
        "image": None if is_payload else str(answer.path),
        "payload": str(answer.path) if is_payload else None,
        "answer": answer.prediction.name,
        "label": answer.prediction.label,
        "probability": answer.prediction.probability,
        "payload_bytes": answer.payload_bytes,
        "jpeg_bytes": None if answer.image is None else jpeg_bytes(answer.image),
    }


def _print_table(console: Console, answers: Iterator[Answer], contract: CodeContract) -> None:
    from ccr_deploy.data.images import jpeg_bytes
    from ccr_deploy.reporting.table import Table
    from ccr_deploy.reporting.terminal import half_block_picture, print_table

    rows = []
    for answer in answers:
        if console.is_terminal and answer.image is not None:
            console.print(half_block_picture(answer.image))
        rows.append(
            (
                str(answer.path),
                answer.prediction.name,
                f"{answer.prediction.probability:.0%}",
                str(answer.payload_bytes),
                "–" if answer.image is None else str(jpeg_bytes(answer.image)),
            )
        )
    columns = ("picture or payload", "answer", "probability", "payload bytes", "JPEG bytes")
    note = f"JPEG: quality 75, the same {contract.image_width}x{contract.image_height} pixels"
    print_table(console, Table("What crossed the wire, and the answer", columns, tuple(rows), note))

"""``ccr-deploy classify``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ccr_deploy.cli.common import PATH, echo_json, on_files_options, opened, stdout_console

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ccr_deploy.codec.contract import CodeContract
    from ccr_deploy.workflow.classify import Answer


@click.command(short_help="Classify payloads or images.")
@click.argument("files", nargs=-1, required=True, type=PATH, metavar="PAYLOAD|IMAGE|DIR...")
@on_files_options
def classify(
    files: tuple[Path, ...],
    batch: int | None,
    bundle: Path,
    target: str | None,
    engines: Path | None,
    require_verified: bool,
    as_json: bool,
) -> None:
    """Classify payloads or images.

    Images are encoded to payloads first; payload files go directly to the classifier. The result of each
    file is its class, the probability and the payload's size, for an image also the size of a JPEG of
    quality 75 with the same pixels. A folder means all images and payloads in it.

    \b
    Examples:
      ccr-deploy classify photo.jpg --bundle bundle
      ccr-deploy classify payloads/
    """
    from ccr_deploy.workflow.classify import classify_files
    from ccr_deploy.workflow.sources import list_sources

    read, name, store = opened(bundle, target, engines, as_json=as_json, whole=False)
    sources = list_sources(files, with_payloads=True)
    answers = classify_files(read, name, store, sources, batch, require_verified=require_verified)
    if as_json:
        echo_json([_content(answer) for answer in answers])
    else:
        _print_table(answers, read.manifest.contract)


def _content(answer: Answer) -> dict[str, object]:
    is_payload = answer.image is None
    return {
        "image": None if is_payload else str(answer.path),
        "payload": str(answer.path) if is_payload else None,
        "answer": answer.prediction.name,
        "label": answer.prediction.label,
        "probability": answer.prediction.probability,
        "payload_bytes": answer.payload_bytes,
        "jpeg_bytes": answer.jpeg_bytes,
    }


def _print_table(answers: Iterator[Answer], contract: CodeContract) -> None:
    from ccr_deploy.reporting.table import Table
    from ccr_deploy.reporting.terminal import half_block_image, print_table, shows_images

    console, rows = stdout_console(), []
    for answer in answers:
        if shows_images(console) and answer.image is not None:
            console.print(half_block_image(answer.image))
        name, probability = answer.prediction.name, f"{answer.prediction.probability:.0%}"
        jpeg = "–" if answer.image is None else str(answer.jpeg_bytes)
        rows.append((str(answer.path), name, probability, str(answer.payload_bytes), jpeg))
    columns = ("file", "class", "probability", "payload bytes", "JPEG bytes")
    note = (
        f"JPEG bytes: the same {contract.image_width}x{contract.image_height} pixels as a JPEG of quality 75"
    )
    print_table(console, Table("Classification", columns, tuple(rows), note))

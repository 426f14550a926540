"""``ccr-deploy classify``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ccr_deploy.cli.common import (
    chosen_target,
    engines_option,
    json_option,
    stdout_console,
    target_option,
    verbose_option,
)


@click.command()
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="IMAGE...")
@click.option(
    "--bundle",
    type=click.Path(path_type=Path),
    default="bundle",
    envvar="CCR_DEPLOY_BUNDLE",
    metavar="DIR",
    help="Bundle.  [default: $CCR_DEPLOY_BUNDLE, then ./bundle]",
)
@target_option
@engines_option
@json_option
@verbose_option
def classify(
    images: tuple[Path, ...],
    bundle: Path,
    target: str | None,
    engines: Path | None,
    as_json: bool,
) -> None:
    """Send pictures through encoder, payload and classifier, and show the answers.

    Beside each answer stands what crossed the wire, the payload, and what a JPEG of quality 75 of the
    same pixels would have taken.

    \b
    Example:
      ccr-deploy classify photo.jpg --bundle bundle
    """
    from ccr_deploy.bundle import Bundle
    from ccr_deploy.engine_store import EngineStore
    from ccr_deploy.images import jpeg_bytes, load_image
    from ccr_deploy.reporting.table import Table
    from ccr_deploy.reporting.terminal import half_block_picture, print_table
    from ccr_deploy.runtime import Classifier, Encoder

    console = stdout_console()
    name = chosen_target(target, None if as_json else console)
    opened = Bundle.open(bundle)
    contract = opened.manifest.contract
    store = EngineStore.default(engines)
    results = []
    with Encoder.load(opened, name, store) as encoder, Classifier.load(opened, name, store) as classifier:
        for path in images:
            pixels = load_image(path, contract.preprocessing, contract.image_height, contract.image_width)
            (payload,) = encoder.encode(pixels[None])
            (prediction,) = classifier.classify([payload])
            if console.is_terminal and not as_json:
                console.print(half_block_picture(pixels))
            results.append(
                {
                    "image": str(path),
                    "answer": prediction.name,
                    "label": prediction.label,
                    "probability": prediction.probability,
                    "payload_bytes": len(payload),
                    "jpeg_bytes": jpeg_bytes(pixels),
                }
            )
    if as_json:
        click.echo(json.dumps(results, indent=2))
        return
    rows = tuple(
        (
            str(result["image"]),
            str(result["answer"]),
            f"{result['probability']:.0%}",
            str(result["payload_bytes"]),
            str(result["jpeg_bytes"]),
        )
        for result in results
    )
    columns = ("image", "answer", "probability", "payload bytes", "JPEG bytes")
    note = f"JPEG: quality 75, the same {contract.image_width}x{contract.image_height} pixels"
    print_table(console, Table("What crossed the wire, and the answer", columns, rows, note))

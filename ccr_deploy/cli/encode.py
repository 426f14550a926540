"""``ccr-deploy encode``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ccr_deploy.cli.common import PATH, echo_json, on_files_options, opened, stdout_console

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@click.argument("images", nargs=-1, type=PATH, metavar="IMAGE|DIR...")
@click.option(
    "-o",
    "--output",
    required=True,
    type=PATH,
    metavar="FILE|DIR",
    help="Where to: a file for one image, else a folder.",
)
@click.option("--video", metavar="FILE|N", help="Frames of a video, or of camera number N, by OpenCV.")
@click.option(
    "--every",
    type=click.IntRange(min=1),
    default=1,
    metavar="N",
    help="Of a video, every N-th frame alone.",
)
@click.option(
    "--frames",
    type=click.IntRange(min=1),
    metavar="N",
    help="Of a video, at most N frames; a camera goes on until Ctrl-C without it.",
)
@on_files_options
def encode(
    images: tuple[Path, ...],
    output: Path,
    video: str | None,
    every: int,
    frames: int | None,
    batch: int | None,
    bundle: Path,
    target: str | None,
    engines: Path | None,
    as_json: bool,
) -> None:
    """Compress images to payloads, the bytes that cross the network.

    One image becomes the file that --output names. Several, those of a folder, and the frames of a video
    become files of their own names, ending in .ccr, in the folder that it names. Each file appears whole or
    not at all. Memory grows with --batch, not with the number of images; a camera's frames are encoded one
    by one as they come, unless --batch says otherwise.

    \b
    Examples:
      ccr-deploy encode photo.jpg -o photo.ccr
      ccr-deploy encode images/ -o payloads/ --batch 1
      ccr-deploy encode --video 0 --every 30 --frames 100 -o payloads/
    """
    from ccr_deploy.data.video import Video
    from ccr_deploy.runtime import Encoder
    from ccr_deploy.workflow.batches import batch_size
    from ccr_deploy.workflow.encode import encode_images, encode_video, payload_paths
    from ccr_deploy.workflow.sources import list_sources

    if bool(images) == bool(video):
        raise click.UsageError("name images and folders, or a video with --video: one of the two")
    read, name, store = opened(bundle, target, engines, as_json=as_json, whole=False)
    files = list_sources(images)
    into_folder = len(files) != 1 or images[0].is_dir() or output.is_dir()
    paths = payload_paths(files, output, into_folder=into_folder)
    source = Video(video, every, frames) if video else None
    asked = batch or (1 if source and source.is_camera else None)
    at_once = batch_size(asked, store.chosen(read, name), ["encoder"])
    with Encoder.load(read, name, store) as encoder:
        if source:
            written = encode_video(encoder, source, output, at_once)
        else:
            written = encode_images(encoder, files, paths, at_once)
        if as_json:
            echo_json([{**vars(entry), "payload": str(entry.payload)} for entry in written])
            return
        console = stdout_console()
        for entry in written:  # at once: a camera's go on
            console.print(f"{entry.source}: {entry.payload}, {entry.payload_bytes} bytes")

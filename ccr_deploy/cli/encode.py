"""``ccr-deploy encode``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ccr_deploy.cli.common import PATH, echo_json, on_files_options, opened, shard_option, stdout_console
from ccr_deploy.core.shards import WHOLE

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.core.shards import Shard


@click.command(short_help="Compress images or video frames to payload files.")
@click.argument("images", nargs=-1, type=PATH, metavar="IMAGE|DIR...")
@click.option(
    "-o",
    "--output",
    required=True,
    type=PATH,
    metavar="FILE|DIR",
    help="Payload file for one image; folder for several images or a video.",
)
@click.option("--video", metavar="FILE|N", help="Encode the frames of a video file or of camera number N.")
@click.option(
    "--every",
    type=click.IntRange(min=1),
    default=1,
    metavar="N",
    help="Encode only every N-th frame of the video.  [default: 1]",
)
@click.option(
    "--frames",
    type=click.IntRange(min=1),
    metavar="N",
    help="Stop after N frames.  [default: the whole video; a camera runs until Ctrl-C]",
)
@shard_option("Encode only shard I of N: every N-th batch of the images, from batch I, counted from 0.")
@on_files_options
def encode(
    images: tuple[Path, ...],
    output: Path,
    video: str | None,
    every: int,
    frames: int | None,
    shard: Shard | None,
    batch: int | None,
    bundle: Path,
    target: str | None,
    engines: Path | None,
    require_verified: bool,
    as_json: bool,
) -> None:
    """Compress images or video frames to payload files.

    For one image, --output is the payload file. For several images, a folder of images or a video, it is a
    folder, and each payload gets the name of its image with the suffix .ccr. Payload files are written
    atomically. Memory use depends on --batch, not on the number of images. Frames of a camera are encoded
    one at a time, unless --batch is given.

    \b
    Examples:
      ccr-deploy encode photo.jpg -o photo.ccr
      ccr-deploy encode images/ -o payloads/ --batch 1
      ccr-deploy encode images/ -o payloads/ --shard 0/3
      ccr-deploy encode --video 0 --every 30 --frames 100 -o payloads/
    """
    from ccr_deploy.codec.payload import SUFFIX
    from ccr_deploy.data.video import Video
    from ccr_deploy.runtime import Encoder
    from ccr_deploy.workflow.batches import batch_size
    from ccr_deploy.workflow.encode import encode_images, encode_video, payload_paths
    from ccr_deploy.workflow.sources import list_sources

    if bool(images) == bool(video):
        raise click.UsageError("pass either images and folders, or a video with --video FILE|N")
    if shard and video:
        raise click.UsageError("--shard divides images: omit --video")
    read, name, store = opened(bundle, target, engines, as_json=as_json, whole=False)
    files = list_sources(images)
    into_folder = len(files) != 1 or images[0].is_dir() or output.is_dir()
    if into_folder and (output.is_file() or (output.suffix == SUFFIX and not output.is_dir())):
        raise click.UsageError(f"--output {output}: is one file: several images or a video need a folder")
    paths = payload_paths(files, output, into_folder=into_folder)
    source = Video(video, every, frames) if video else None
    asked = batch or (1 if source and source.is_camera else None)
    at_once = batch_size(asked, store.chosen(read, name), ["encoder"])
    with Encoder.load(read, name, store, require_verified=require_verified) as encoder:
        if source:
            written = encode_video(encoder, source, output, at_once)
        else:
            written = encode_images(encoder, files, paths, at_once, shard or WHOLE)
        if as_json:
            echo_json([{**vars(entry), "payload": str(entry.payload)} for entry in written])
            return
        console = stdout_console()
        for entry in written:  # one at a time: a camera's frames do not end
            console.print(f"{entry.source}: {entry.payload}, {entry.payload_bytes} bytes")

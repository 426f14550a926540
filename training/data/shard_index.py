"""Where each image is in shards (tar archives), and what its label is.

The library `webdataset` reads shards in sequence; its reader with random access was removed in version 1.0.
With random access, shards and folders have the same sampler, and a resumed run needs no position in a stream.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import msgspec
from webdataset.tariterators import base_plus_ext

from ccr_deploy.core.atomic import folder_lock, write_atomically
from ccr_deploy.core.messages import pack, unpack
from ccr_deploy.core.progress import SILENT
from ccr_deploy.core.records import Record
from ccr_deploy.core.untrusted import open_regular, parse_json, read_bytes, reading
from ccr_deploy.data.images import SUFFIXES
from ccr_deploy.engines.store import user_cache
from ccr_deploy.errors import ImageError

if TYPE_CHECKING:
    from pathlib import Path
    from tarfile import TarInfo

    from ccr_deploy.core.progress import Progress

LABEL_SUFFIXES = ("cls", "txt", "json")
"""Where a label is looked for, in this order."""

MAX_LABEL_BYTES = 1 << 20
MAX_INDEX_BYTES = 4 << 30
"""The limit for the stored index; that of the whole of ImageNet takes 80 MB."""


class ShardedImage(Record, frozen=True, array_like=True):
    """One image of a shard: its member's name, the position and size of its content in bytes, and its label.

    The name is encoded as in the archive: it need not be valid Unicode.
    """

    name: bytes
    offset: int
    size: int
    label: str


class ShardIndex(Record, frozen=True):
    """The images of one shard; valid while the shard's size in bytes and its time of change are the same."""

    shard: str
    size: int
    modified_ns: int
    images: tuple[ShardedImage, ...]


def index_folder(folder: Path, progress: Progress = SILENT) -> tuple[ShardIndex, ...]:
    """Return the index of every shard in a folder, in the order of their names.

    The index is kept in the user's cache. Of several processes that start together, one makes it, and the
    others wait for it.

    Args:
        folder: a folder with shards (``*.tar``).
        progress: advances by one for each shard.

    Raises:
        ImageError: if a shard is damaged, has no images, or an image has no label.
    """
    shards = sorted(folder.glob("*.tar"))
    name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:32]
    stored = user_cache() / "ccr-deploy" / "shards" / f"{name}.msgpack"
    with ExitStack() as stack:
        with suppress(OSError):  # without a cache, every start reads the shards
            stored.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(folder_lock(stored.parent))
        known = {(index.shard, index.size, index.modified_ns): index for index in _read(stored)}
        advance = stack.enter_context(progress.task("Index shards", len(shards)))
        found = []
        for shard in shards:
            with reading(shard, ImageError):
                status = shard.stat()
            index = known.get((shard.name, status.st_size, status.st_mtime_ns))
            found.append(index or index_shard(shard))
            advance(1)
        if list(known.values()) != found:
            with suppress(OSError):
                write_atomically(stored, pack(found))
    return tuple(found)


def index_shard(shard: Path) -> ShardIndex:
    """Read the headers and labels of a shard; the images' content is skipped.

    Raises:
        ImageError: if it is not an uncompressed tar archive, is truncated, has no images, or an image has no
            label.
    """
    members: dict[str, dict[str, TarInfo]] = {}
    with reading(shard, ImageError), open_regular(shard) as file:
        status = os.fstat(file.fileno())
        try:
            with tarfile.open(fileobj=file, mode="r:") as archive:
                for member in archive:
                    _add(members, member, shard)
                images = tuple(
                    image
                    for key, parts in members.items()
                    if (image := _image(archive, f"{shard}/{key}", parts))
                )
        except tarfile.TarError as error:
            raise ImageError(
                f"{shard}: not an uncompressed tar archive, or truncated ({error}): copy or write it again"
            ) from None
    if not images:
        raise ImageError(f"{shard}: contains no images ({', '.join(sorted(SUFFIXES))})")
    return ShardIndex(shard.name, status.st_size, status.st_mtime_ns, images)


def _read(stored: Path) -> tuple[ShardIndex, ...]:
    """Return the stored index; an index that is missing, damaged or of another version is made again."""
    try:
        found: tuple[ShardIndex, ...] = unpack(tuple[ShardIndex, ...], read_bytes(stored, MAX_INDEX_BYTES))
    except (OSError, msgspec.MsgspecError):
        return ()
    return found


def _add(members: dict[str, dict[str, TarInfo]], member: TarInfo, shard: Path) -> None:
    """Sort a member into the samples by its key, all before the first dot, as in `webdataset`."""
    key, suffix = base_plus_ext(member.name)
    if not member.isreg() or key is None or member.name.startswith("__"):
        return
    parts = members.setdefault(key, {})
    if suffix.lower() in parts:
        raise ImageError(f"{shard}/{member.name}: is in the shard twice: write the shard again")
    parts[suffix.lower()] = member


def _image(archive: tarfile.TarFile, key: str, parts: dict[str, TarInfo]) -> ShardedImage | None:
    """Return the image of a sample with its label; None if the sample has no image."""
    images = [member for suffix, member in parts.items() if f".{suffix}" in SUFFIXES]
    if not images:
        return None
    if len(images) > 1:
        raise ImageError(f"{key}: has {len(images)} images ({', '.join(sorted(parts))}): one is needed")
    labels = [suffix for suffix in LABEL_SUFFIXES if suffix in parts]
    if not labels:
        raise ImageError(f"{key}: has no label: add {key.rpartition('/')[2]}.cls with its class to the shard")
    image, label = images[0], parts[labels[0]]
    content = archive.extractfile(label)
    assert content is not None  # members are regular files
    text = _label(content.read(MAX_LABEL_BYTES), labels[0], key)
    return ShardedImage(os.fsencode(image.name), image.offset_data, image.size, text)


def _label(content: bytes, suffix: str, key: str) -> str:
    """Return the label's text: the whole content, or the field ``label`` of JSON."""
    try:
        if suffix != "json":
            label: object = content.decode().strip()
        else:
            parsed = parse_json(content)
            label = parsed.get("label") if isinstance(parsed, dict) else None
    except ValueError as error:
        raise ImageError(f"{key}.{suffix}: cannot be read as a label ({error})") from None
    if isinstance(label, bool) or not isinstance(label, str | int) or label == "":
        raise ImageError(f"{key}.{suffix}: has no label: a class name or a class number is needed")
    return str(label)

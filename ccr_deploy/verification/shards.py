"""A verification that several machines divide: each writes a part file, then the parts are joined.

::

    report folder/
      verify-part-0-of-3.jsonl     written by verify --shard 0/3
      verify-part-1-of-3.jsonl
      verify-part-2-of-3.jsonl
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, BinaryIO

from ccr_deploy import CREATED_BY
from ccr_deploy.bundle.manifest import MANIFEST
from ccr_deploy.bundle.reader import sha256_of
from ccr_deploy.core.records import first_difference
from ccr_deploy.core.shards import Shard
from ccr_deploy.core.untrusted import MAX_BYTES, open_regular, reading
from ccr_deploy.errors import CcrDeployError, WrongUsageError
from ccr_deploy.verification.part_file import SUFFIX, BatchReader, read_header
from ccr_deploy.verification.part_records import PartHeader, RunIdentity, listing_sha256
from ccr_deploy.verification.verify import make_report

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.verification.collected import BatchResult
    from ccr_deploy.verification.results import VerificationReport

_PREFIX = "verify-part-"
_AGAIN = "run ccr-deploy verify BUNDLE --shard {} --report DIR"


def part_path(folder: Path, shard: Shard) -> Path:
    """Return the path of a shard's part file in a report folder."""
    return folder / f"{_PREFIX}{shard.index}-of-{shard.shards}{SUFFIX}"


def merge_parts(bundle: Bundle, folder: Path) -> VerificationReport:
    """Join the parts in a folder to the report that one run would give.

    Args:
        bundle: bundle that was verified; only its manifest is read.
        folder: folder of the part files.

    Raises:
        WrongUsageError: if a part is missing, of another run or of another bundle.
        CcrDeployError: if a part is damaged or not complete.
    """
    found = sorted(folder.glob(f"{_PREFIX}*{SUFFIX}"))
    if not found:
        raise WrongUsageError(f"{folder}: contains no parts: {_AGAIN.format('I/N')}")
    with ExitStack() as stack:
        files: dict[Path, BinaryIO] = {}
        for path in found:
            with reading(path, CcrDeployError):
                files[path] = stack.enter_context(open_regular(path))
        headers = {path: _header(path, file) for path, file in files.items()}
        shards = _check_complete(folder, headers)
        run = _check_same_run(bundle, headers)
        return make_report(bundle, run, _in_order(run, files, shards))


def _header(path: Path, file: BinaryIO) -> PartHeader:
    try:
        return read_header(file)
    except ValueError as error:
        raise CcrDeployError(f"{path}: not a part of a verification ({error}): remove it") from error


def _check_complete(folder: Path, headers: Mapping[Path, PartHeader]) -> dict[Shard, Path]:
    """Return the part of each shard, in order; raise WrongUsageError if there is not exactly one."""
    (first_path, first), *_ = headers.items()
    shards: dict[Shard, Path] = {}
    for path, header in headers.items():
        shard = header.shard
        if shard.shards != first.shard.shards:
            raise WrongUsageError(
                f"{path}: shard {shard}, but {first_path.name} is shard {first.shard}: remove the parts of "
                "one of the runs"
            )
        if shard in shards:
            raise WrongUsageError(f"{path}: shard {shard}, as {shards[shard].name} is: remove one of the two")
        shards[shard] = path
    every = [Shard(index, first.shard.shards) for index in range(first.shard.shards)]
    if missing := [shard for shard in every if shard not in shards]:
        raise WrongUsageError(f"{folder}: shard {missing[0]} is missing: {_AGAIN.format(missing[0])}")
    return {shard: shards[shard] for shard in every}


def _check_same_run(bundle: Bundle, headers: Mapping[Path, PartHeader]) -> RunIdentity:
    """Return what all parts compared; raise WrongUsageError if they differ, or the bundle is another one."""
    (first_path, first), *others = headers.items()
    run = first.run
    manifest = bundle.manifest
    own = (
        ("created_by", CREATED_BY),
        ("contract_id", manifest.contract_id),
        ("weights_sha256", manifest.weights.sha256),
        ("manifest_sha256", sha256_of(bundle.path / MANIFEST)),
    )
    for field, expected in own:
        if (found := getattr(run, field)) != expected:
            what = "this is" if field == "created_by" else "the bundle's is"
            raise WrongUsageError(
                f"{first_path}: {field} is {found}, {what} {expected}: {_AGAIN.format(first.shard)}"
            )
    for path, header in others:
        if difference := first_difference(header.run, run):
            name, other, usual = difference
            raise WrongUsageError(
                f"{path}: {name} is {str(other)[:200]}, that of {first_path.name} is {str(usual)[:200]}: "
                f"{_AGAIN.format(header.shard)}"
            )
    return run


def _in_order(
    run: RunIdentity, files: Mapping[Path, BinaryIO], shards: Mapping[Shard, Path]
) -> Iterator[BatchResult]:
    """Yield the results of all batches in the order of the images, a batch of each part in turn.

    Raises:
        CcrDeployError: if a part is damaged or not complete.
    """
    reader = BatchReader()
    reader.expect(run)
    names: list[str] = []
    labels: list[int | None] = []
    groups: list[str] = []
    for number in range(-(-run.image_count // run.batch)):
        shard = Shard(number % len(shards), len(shards))
        path = shards[shard]
        with reading(path, CcrDeployError):
            line = files[path].readline(MAX_BYTES + 1)
        if not line.endswith(b"\n"):
            raise CcrDeployError(f"{path}: not complete: {_AGAIN.format(shard)}, which continues it")
        try:
            result = reader.read(line)
        except ValueError as error:
            raise _damaged(path, shard, str(error)) from error
        size = min(run.batch, run.image_count - number * run.batch)
        if (result.number, len(result.names)) != (number, size):
            raise _damaged(path, shard, f"batch {result.number}, expected {number} of {size} images")
        names += result.names
        labels += result.labels
        groups += result.groups
        yield result
    if listing_sha256(names, labels, groups) != run.listing_sha256:
        raise CcrDeployError(
            f"{path.parent}: the images of the parts are not those of their headers: remove the parts, then "
            f"{_AGAIN.format('I/N')}"
        )


def _damaged(path: Path, shard: Shard, problem: str) -> CcrDeployError:
    return CcrDeployError(f"{path}: damaged ({problem}): remove it and {_AGAIN.format(shard)}")

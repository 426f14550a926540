"""Part files: the results of single batches as they are computed, to resume a run or to join shards.

A part file has one JSON record a line: a header that says what is verified, then a record for each batch. It
grows while the images are run. After an interruption the batches in it are not run again, if their decoded
images are the same; a last line that is not complete is removed.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, BinaryIO

from ccr_deploy.core.records import Record, canonical_json, convert, first_difference, to_json
from ccr_deploy.core.shards import WHOLE
from ccr_deploy.core.untrusted import MAX_BYTES, parse_json
from ccr_deploy.errors import CcrDeployError, WrongUsageError
from ccr_deploy.verification.collected import BatchResult
from ccr_deploy.verification.part_records import PartBatch, PartHeader, RunIdentity
from ccr_deploy.verification.shown import ShownBatch
from ccr_deploy.verification.stored_measures import from_stored, to_stored

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import FileIO
    from pathlib import Path

    from ccr_deploy.verification.measures import Measures
    from ccr_deploy.verification.results import Way

SCHEMA_VERSION = 1
SUFFIX = ".jsonl"
MARK = b'{"schema_version":'
"""The start of every part file; other files are not overwritten."""
_log = logging.getLogger(__name__)


class BatchReader:
    """Reads lines of batches, all of which must have the measurements that the first one has."""

    def __init__(self) -> None:
        self._first: Measures | None = None
        self._ways: set[Way] | None = None

    def expect(self, run: RunIdentity) -> None:
        """Refuse batches that lack the answers of one of the run's ways, or have others."""
        self._ways = set(run.ways)

    def read(self, line: bytes) -> BatchResult:
        """Return the results in a line.

        Raises:
            ValueError: if the line is not complete or damaged.
        """
        part = convert(PartBatch, parse_json(_whole(line)), nan=True)
        measures = from_stored(part.measures, len(part.names), self._first)
        if self._ways is not None and set(measures.answers) != self._ways:
            raise ValueError("other ways than those of the header")
        self._first = self._first or measures
        shown = ShownBatch(part.samples, part.changed_answers)
        return BatchResult(
            part.number, part.images_sha256, part.names, part.labels, part.groups, measures, shown
        )


class PartFile:
    """A part file that is being written: first its batches are read again, then new ones are added.

    Args:
        reader: the file, to read from its beginning.
        writer: the file, to append to without a buffer.
        path: its path, for messages.
        is_required: whether it is an error if a batch cannot be written; else the file only stops growing.
    """

    def __init__(self, reader: BinaryIO, writer: FileIO, path: Path, *, is_required: bool) -> None:
        self._file = reader
        self._writer = writer
        self._path = path
        self._is_required = is_required
        self._reader = BatchReader()
        self._is_at_end = False
        self._is_broken = False

    def begin(self, header: PartHeader) -> None:
        """Read the header; if it is another one, remove all content and write this one.

        Raises:
            WrongUsageError: if the file is required and is a part of another run.
            CcrDeployError: if the file is required and cannot be written.
        """
        self._reader.expect(header.run)
        line = self._file.readline(MAX_BYTES + 1)
        if line == _line(header):
            return
        # A line that is not complete was being written when the command was killed.
        if self._is_required and line.endswith(b"\n"):
            raise WrongUsageError(
                f"{self._path}: a part of another run ({_other_run(line, header)}): choose another folder or "
                "remove it"
            )
        self._cut(0)
        self._write(header)

    def find(self, number: int, images_sha256: str) -> BatchResult | None:
        """Return the results of the next batch; None if it, and all that follow, must be run.

        Args:
            number: number of the batch.
            images_sha256: SHA-256 of its decoded images.
        """
        if self._is_at_end:
            return None
        position = self._file.tell()
        try:
            found = self._reader.read(self._file.readline(MAX_BYTES + 1))
        except ValueError:
            found = None
        if found is None or (found.number, found.images_sha256) != (number, images_sha256):
            self._cut(position)
            return None
        return found

    def add(self, result: BatchResult) -> None:
        """Write the results of the next batch.

        Raises:
            CcrDeployError: if the file is required and cannot be written.
        """
        self._write(_stored(result))

    def _cut(self, position: int) -> None:
        self._is_at_end = True
        self._writer.truncate(position)

    def _write(self, record: Record) -> None:
        if self._is_broken:
            return
        try:
            # Written at once: a killed process loses only the batch that it runs.
            _append(self._writer, _line(record))
        except OSError as error:
            if self._is_required:
                raise CcrDeployError(f"{self._path}: cannot be written ({error.strerror})") from error
            _log.debug("%s: cannot be written: %s", self._path, error)
            self._is_broken = True


def _other_run(line: bytes, header: PartHeader) -> str:
    try:
        difference = first_difference(_parsed_header(line), header)
    except ValueError as error:
        return str(error)
    if difference is None:
        return "written in another form"
    name, found, expected = difference
    return f"{name} is {str(found)[:200]}, not {str(expected)[:200]}"


def _stored(result: BatchResult) -> PartBatch:
    return PartBatch(
        number=result.number,
        images_sha256=result.images_sha256,
        names=result.names,
        labels=result.labels,
        groups=result.groups,
        measures=to_stored(result.measures),
        samples=result.shown.samples,
        changed_answers=result.shown.changed_answers,
    )


@contextmanager
def part_file(path: Path, header: PartHeader, *, is_required: bool) -> Iterator[PartFile]:
    """Open a part file to continue it.

    If it has another header, it is started again, unless it is required.

    Args:
        path: the file.
        header: what is verified.
        is_required: whether it is an error if a batch cannot be written.

    Raises:
        WrongUsageError: if the file is required and is a part of another run.
        BlockingIOError: if another process is writing it.
        OSError: if it cannot be written, or is not a regular file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    # Unbuffered: after a full disk, closing a buffered file fails again.
    with path.open("ab", buffering=0) as writer, path.open("rb") as reader:
        fcntl.flock(writer, fcntl.LOCK_EX | fcntl.LOCK_NB)
        part = PartFile(reader, writer, path, is_required=is_required)
        part.begin(header)
        yield part


@contextmanager
def resumable(folder: Path, run: RunIdentity) -> Iterator[PartFile | None]:
    """Yield the part file of a run that may have been interrupted, and remove it at the end.

    There is one for each model and target. Yield None, so that the run cannot be resumed, if the folder
    cannot be written or another process has the part file.

    Args:
        folder: the folder of such part files.
        run: what is verified.
    """
    name = hashlib.sha256(canonical_json([run.contract_id, run.weights_sha256, run.target])).hexdigest()[:24]
    path = folder / f"{name}{SUFFIX}"
    with ExitStack() as stack:
        try:
            header = PartHeader(SCHEMA_VERSION, WHOLE, run)
            part = stack.enter_context(part_file(path, header, is_required=False))
        except OSError as error:
            _log.debug("%s: not used: %s", path, error)
            yield None
            return
        yield part
        path.unlink(missing_ok=True)


def read_header(file: BinaryIO) -> PartHeader:
    """Read the first line of a part file.

    Raises:
        ValueError: if it is damaged, or its schema version is not supported.
    """
    return _parsed_header(file.readline(MAX_BYTES + 1))


def _parsed_header(line: bytes) -> PartHeader:
    header = convert(PartHeader, parse_json(_whole(line)), nan=True)
    if header.schema_version != SCHEMA_VERSION:
        raise ValueError(
            f"schema version {header.schema_version} is not supported, expected {SCHEMA_VERSION}"
        )
    return header


def _append(file: FileIO, line: bytes) -> None:
    if file.write(line) != len(line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _line(record: Record) -> bytes:
    return to_json(record, indent=None, nan=True).encode() + b"\n"


def _whole(line: bytes) -> bytes:
    if not line.endswith(b"\n"):
        raise ValueError("the line is not complete")
    return line

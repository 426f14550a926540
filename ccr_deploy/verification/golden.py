"""Golden files: the results of a checkpoint for a few images, to verify engines without PyTorch.

A golden file is a ZIP archive that NumPy's ``np.load`` opens too::

    record.json             contract, weights, image names, labels, gate limits for each precision
    images.npy              uint8 [N, H, W, 3], the encoder's input
    payloads.npy            uint8 [N, payload bytes]
    margins.npy             float16 [N, code bits], pre-binarization activations over their standard deviation
    classifier_logits.npy   float32 [N, classes], of the codes in `payloads`
    baseline_logits.npy     float32 [N, classes], only if the bundle has a baseline

The sign of a margin is the bit; its size says how far rounding must reach to flip it. Nothing is pickled,
and the arrays' shapes follow from the record, so that a damaged or hostile file is refused before memory
is reserved for what it claims to hold.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypeVar

import numpy as np
from msgspec import Meta

from ccr_deploy.codec.contract import CodeContract, pack_code
from ccr_deploy.codec.payload import OVERHEAD_BYTES, PayloadWriter, decode_payload
from ccr_deploy.core.atomic import atomic_file, writing
from ccr_deploy.core.precisions import EnginePrecision
from ccr_deploy.core.records import Record, first_difference, parse_versioned_json, to_json
from ccr_deploy.core.untrusted import MAX_BYTES, open_regular, reading
from ccr_deploy.errors import GoldenError, PayloadError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy.typing as npt

    from ccr_deploy.bundle.manifest import Manifest
    from ccr_deploy.core.stages import Stage

_Scalar = TypeVar("_Scalar", bound=np.generic)

SCHEMA_VERSION = 1
RECORD = "record.json"
REMEDY = "write it with ccr-deploy verify BUNDLE --export-golden FILE"
MAX_IMAGES = 4096
"""A golden file is for a device's own check; thousands of images belong in a data set."""
MAX_ARRAY_BYTES = 1 << 30
"""Each array is held in memory, and a compressed file can claim a thousand times its own size."""


class GoldenRecord(Record, frozen=True):
    """The part of a golden file that is not an array.

    `limits` are the gates' limits for engines of each precision, by the gates' names, as they were for the
    bundle when the file was written: a device judges by them and needs nothing else to know them.
    `changed_gates` are the names of those gates whose limits were not the default ones, but ``--gate``'s.
    `weights_sha256` and `baseline_sha256` are those of the bundle's weight files.
    """

    schema_version: int
    created_by: str
    contract: CodeContract
    contract_id: str
    weights_sha256: str
    baseline_sha256: str | None
    classes: Annotated[int, Meta(ge=1)]
    baseline_classes: Annotated[int, Meta(ge=1)] | None
    images: str
    image_names: Annotated[tuple[str, ...], Meta(min_length=1, max_length=MAX_IMAGES)]
    labels: tuple[int | None, ...]
    groups: tuple[str, ...]
    limits: dict[EnginePrecision, dict[str, float]]
    changed_gates: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        counts = {len(self.image_names), len(self.labels), len(self.groups)}
        if len(counts) != 1:
            raise ValueError(f"image names, labels and groups are of different lengths: {sorted(counts)}")
        for label in self.labels:
            if label is not None and not 0 <= label < self.classes:
                raise ValueError(f"an image has label {label}, but there are {self.classes} classes")
        if (self.baseline_sha256 is None) != (self.baseline_classes is None):
            raise ValueError("baseline_sha256 and baseline_classes must both be given or both be null")


@dataclass(frozen=True)
class Golden:
    """A golden file in memory: its record and arrays; see the module's docstring for their shapes."""

    record: GoldenRecord
    images: npt.NDArray[np.uint8]
    codes: npt.NDArray[np.uint8]
    margins: npt.NDArray[np.float16]
    logits: Mapping[Stage, npt.NDArray[np.float32]]


def most_images(contract: CodeContract, classes: int) -> int:
    """Return how many images a golden file can hold.

    Args:
        contract: contract of the bundle.
        classes: number of classes of the classifier or the baseline, whichever has more.
    """
    pixels = contract.image_height * contract.image_width
    bytes_per_image = max(3 * pixels, 2 * 8 * contract.code_bytes, 4 * classes)
    return min(MAX_IMAGES, MAX_ARRAY_BYTES // bytes_per_image)


def write_golden(path: Path, golden: Golden) -> None:
    """Write a golden file; it appears complete or not at all, and two of equal content are equal bytes.

    Raises:
        GoldenError: if `path` cannot be written, or activations or logits are NaN or infinite.
    """
    floats: list[npt.NDArray[np.floating]] = [golden.margins, *golden.logits.values()]
    for values in floats:
        finite = np.isfinite(values).all(axis=1)
        if not finite.all():
            name = golden.record.image_names[int(finite.argmin())]
            raise GoldenError(
                f"{path}: not written: the checkpoint's activations or logits for {name} are NaN or "
                "infinite: check its weights"
            )
    arrays: dict[str, npt.NDArray[np.generic]] = {
        "images": golden.images,
        "payloads": _payloads(golden.codes, golden.record.contract),
        "margins": golden.margins,
        **{f"{stage}_logits": logits for stage, logits in golden.logits.items()},
    }
    with (
        writing(path, GoldenError, "the golden file "),
        atomic_file(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        archive.writestr(_entry(RECORD), to_json(golden.record))
        for name, array in arrays.items():
            with archive.open(_entry(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)


def read_golden(path: Path) -> Golden:
    """Read a golden file and check that its parts fit together.

    Raises:
        GoldenError: if the file is missing, truncated, damaged or of another schema version, or its arrays
            are not those that its record describes.
    """
    with reading(path, GoldenError, f": {REMEDY}"):
        try:
            with open_regular(path) as file, zipfile.ZipFile(file) as archive:
                return _read(archive, path)
        # What zipfile and zlib raise for damaged archives is a matter of where the damage is.
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            NotImplementedError,
            RuntimeError,
            ValueError,
        ) as error:
            raise GoldenError(f"{path}: not a golden file, or damaged ({error}): {REMEDY}") from error


def check_same_model(golden: GoldenRecord, manifest: Manifest, path: Path) -> None:
    """Raise GoldenError if a golden file was written for another model than a bundle's.

    Args:
        golden: the golden file's record.
        manifest: the bundle's.
        path: the golden file, for messages.

    Raises:
        GoldenError: if contract, weights or classes differ; the message names the field and both values.
    """
    baseline = manifest.baseline
    own = (
        ("", golden.contract, manifest.contract),
        ("weights_sha256", golden.weights_sha256, manifest.weights.sha256),
        ("baseline_sha256", golden.baseline_sha256, baseline.weights.sha256 if baseline else None),
        ("classes", golden.classes, manifest.model.classifier.classes),
        (
            "baseline_classes",
            golden.baseline_classes,
            baseline.model.classifier.classes if baseline else None,
        ),
    )
    for name, found, expected in own:
        if difference := first_difference(found, expected, name):
            field, of_file, of_bundle = difference
            raise GoldenError(
                f"{path}: golden file of another model: {field} is {of_file}, the bundle's is {of_bundle}: "
                f"{REMEDY}"
            )


def _read(archive: zipfile.ZipFile, path: Path) -> Golden:
    record = _read_record(archive, path)
    count = len(record.image_names)
    contract = record.contract
    images = _read_array(archive, "images", (count, contract.image_height, contract.image_width, 3), np.uint8)
    payloads = _read_array(archive, "payloads", (count, contract.code_bytes + OVERHEAD_BYTES), np.uint8)
    margins = _read_array(archive, "margins", (count, 8 * contract.code_bytes), np.float16)
    logits: dict[Stage, npt.NDArray[np.float32]] = {
        "classifier": _read_array(archive, "classifier_logits", (count, record.classes), np.float32)
    }
    if record.baseline_classes is not None:
        shape = (count, record.baseline_classes)
        logits["baseline"] = _read_array(archive, "baseline_logits", shape, np.float32)
    floats: dict[str, npt.NDArray[np.floating]] = {
        "margins": margins,
        **{f"{stage}_logits": values for stage, values in logits.items()},
    }
    for name, values in floats.items():
        if not np.isfinite(values).all():
            raise ValueError(f"{name}.npy holds NaN or infinity")
    codes = _codes(payloads, contract)
    if not np.array_equal(pack_code(margins), codes):
        raise ValueError("the signs in margins.npy are not the bits in payloads.npy")
    return Golden(record, images, codes, margins, logits)


def _read_record(archive: zipfile.ZipFile, path: Path) -> GoldenRecord:
    with _member(archive, RECORD) as member:
        text = member.read(MAX_BYTES + 1)
    if len(text) > MAX_BYTES:
        raise ValueError(f"{RECORD} is larger than {MAX_BYTES >> 20} MiB")
    record = parse_versioned_json(
        GoldenRecord, text, path, version=SCHEMA_VERSION, error=GoldenError, remedy=REMEDY
    )
    if record.contract_id != record.contract.contract_id:
        raise ValueError(
            f"contract_id is {record.contract_id}, its contract has {record.contract.contract_id}"
        )
    return record


def _read_array(
    archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], kind: type[_Scalar]
) -> npt.NDArray[_Scalar]:
    """Read an array after its header was compared with what the record promises."""
    with _member(archive, f"{name}.npy") as member:
        try:
            np.lib.format.read_magic(member)
            found, fortran, dtype = np.lib.format.read_array_header_1_0(member)
        except Exception as error:  # NumPy parses it as Python: damage raises anything from SyntaxError on
            raise ValueError(f"{name}.npy: its header cannot be read") from error
        if (found, fortran, dtype) != (shape, False, np.dtype(kind)):
            raise ValueError(
                f"{name}.npy: {dtype} {list(found)}, expected {np.dtype(kind)} {list(shape)} by its record"
            )
        expected = math.prod(shape) * dtype.itemsize
        if expected > MAX_ARRAY_BYTES:
            raise ValueError(f"{name}.npy: over the limit of {MAX_ARRAY_BYTES >> 20} MiB")
        content = member.read(expected)
        # Reading to the end makes zipfile compare the member's CRC-32.
        if len(content) != expected or member.read(1):
            raise ValueError(f"{name}.npy: {len(content)} bytes of data, expected {expected}")
    return np.frombuffer(content, dtype).reshape(shape)


def _member(archive: zipfile.ZipFile, name: str) -> zipfile.ZipExtFile:
    try:
        entry = archive.getinfo(name)
    except KeyError:
        raise ValueError(f"{name} is missing") from None
    # LZMA and bzip2 are never written, and raise errors of their own for damaged data.
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name}: compression method {entry.compress_type} is not supported")
    return archive.open(entry)  # type: ignore[return-value] # reading gives this kind


def _entry(name: str) -> zipfile.ZipInfo:
    """Return a member's description with a fixed date, so that equal content makes equal files."""
    entry = zipfile.ZipInfo(name)
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry


def _payloads(codes: npt.NDArray[np.uint8], contract: CodeContract) -> npt.NDArray[np.uint8]:
    payloads = PayloadWriter(contract).payloads(codes)
    return np.frombuffer(b"".join(payloads), np.uint8).reshape(len(codes), -1)


def _codes(payloads: npt.NDArray[np.uint8], contract: CodeContract) -> npt.NDArray[np.uint8]:
    try:
        return np.stack([decode_payload(payload.tobytes(), contract) for payload in payloads])
    except PayloadError as error:
        raise ValueError(f"payloads.npy: {error}") from None

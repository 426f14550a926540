"""Part files: what a run compares, as its header has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from ccr_deploy.core.records import canonical_json, convert, to_json
from ccr_deploy.core.shards import Shard
from ccr_deploy.core.untrusted import parse_json
from ccr_deploy.errors import WrongUsageError
from ccr_deploy.verification.gates import GateLimits
from ccr_deploy.verification.part_file import SCHEMA_VERSION, BatchReader, part_file
from ccr_deploy.verification.part_records import PartBatch, PartHeader, RecordedLimits, RunIdentity
from ccr_deploy.verification.stored_measures import StoredArrays, from_stored

if TYPE_CHECKING:
    from pathlib import Path

RUN = RunIdentity(
    created_by="ccr-deploy test",
    contract_id="0" * 16,
    weights_sha256="0" * 64,
    manifest_sha256="0" * 64,
    computed_by=("pytorch", "2.6", "cpu"),
    target="cpu",
    engines=(),
    ways=("pytorch", "engine"),
    matrix=(),
    limits={"engine": RecordedLimits({"min-cosine": 0.98}, {})},
    images="val",
    image_count=3,
    listing_sha256="0" * 64,
    batch=16,
)


def test_recorded_limits_keep_their_reasons() -> None:
    limits = GateLimits({"max-flipped-percent": 1.5, "min-cosine": 0.98}, {"max-flipped-percent": "--gate"})
    stored = parse_json(canonical_json(RecordedLimits.of(limits)))
    assert convert(RecordedLimits, stored).limits() == limits


def begin(path: Path, run: RunIdentity, *, is_required: bool = True) -> bytes:
    with part_file(path, PartHeader(SCHEMA_VERSION, Shard(0, 2), run), is_required=is_required):
        pass
    return path.read_bytes()


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"computed_by": ("pytorch", "2.7", "cpu")}, r"run.computed_by\[1\] is 2.6, not 2.7"),
        ({"target": "l4"}, "run.target is cpu, not l4"),
        ({"limits": {"engine": RecordedLimits({"min-cosine": 0.5}, {})}}, "run.limits is"),
    ],
)
def test_a_required_part_of_another_run_is_not_replaced(tmp_path, changes, difference) -> None:
    path = tmp_path / "part.jsonl"
    first = begin(path, RUN)
    with pytest.raises(WrongUsageError, match=rf"part.jsonl: .*{difference}.*: choose another folder"):
        begin(path, replace(RUN, **changes))
    assert path.read_bytes() == first


def test_a_part_whose_header_is_not_complete_is_started_again(tmp_path) -> None:
    path = tmp_path / "part.jsonl"
    first = begin(path, RUN)
    path.write_bytes(first[:20])
    assert begin(path, RUN) == first


def test_a_part_to_resume_from_is_replaced_by_that_of_another_run(tmp_path) -> None:
    path = tmp_path / "part.jsonl"
    begin(path, RUN)
    assert b'"target":"l4"' in begin(path, replace(RUN, target="l4"), is_required=False)


def test_a_first_batch_without_the_ways_of_the_header_is_refused() -> None:
    batch = PartBatch(0, "0" * 64, ("a.png",), (None,), ("",), (), (), ())
    reader = BatchReader()
    reader.expect(RUN)
    with pytest.raises(ValueError, match="other ways than those of the header"):
        reader.read(to_json(batch, indent=None, nan=True).encode() + b"\n")


def test_a_number_that_is_too_large_is_a_value_error() -> None:
    stored = StoredArrays("answers", ("engine",), {"top1": [1 << 70]}, {})
    with pytest.raises(ValueError, match="answers: a number is too large"):
        from_stored([stored], 1, None)

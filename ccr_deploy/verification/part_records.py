"""The lines of a part file: the header, which says what is verified, and the results of each batch."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from ccr_deploy.core.precisions import EnginePrecision
from ccr_deploy.core.records import Record, canonical_json
from ccr_deploy.core.shards import Shard
from ccr_deploy.verification.gates import GateLimits
from ccr_deploy.verification.results import ChangedAnswer, EngineSummary, Level, SampleAnswer, Way
from ccr_deploy.verification.stored_measures import StoredArrays

if TYPE_CHECKING:
    from collections.abc import Sequence

Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]


class RecordedLimits(Record, frozen=True):
    """The limits of one way by the names of the gates, and where they come from, as `GateLimits` has them."""

    by_name: dict[str, float]
    reasons: dict[str, str]

    @classmethod
    def of(cls, limits: GateLimits) -> RecordedLimits:
        """Return the record of limits."""
        # As floats, as part files have them: 0 and 0.0 are written differently.
        return cls({name: float(limit) for name, limit in limits.by_name.items()}, dict(limits.reasons))

    def limits(self) -> GateLimits:
        """Return the limits."""
        return GateLimits(self.by_name, self.reasons)


class RunIdentity(Record, frozen=True):
    """What one verification compares; parts are joined, and runs resumed, only if all of it is equal.

    `manifest_sha256` is the SHA-256 of the bundle's manifest, which names all its files. `listing_sha256` is
    that of the images' names, labels and groups. `computed_by` has the libraries, their versions and the
    processor that compute the reference and the graphs. `limits` are those of the gates.
    """

    created_by: str
    contract_id: str
    weights_sha256: str
    manifest_sha256: str
    computed_by: tuple[str, ...]
    target: str
    engines: tuple[EngineSummary, ...]
    ways: tuple[Way, ...]
    matrix: tuple[tuple[EnginePrecision, EnginePrecision], ...]
    limits: dict[Level, RecordedLimits]
    images: str
    image_count: Annotated[int, Meta(ge=1)]
    listing_sha256: Sha256
    batch: Annotated[int, Meta(ge=1)]


class PartHeader(Record, frozen=True):
    """The first line of a part file."""

    schema_version: int
    shard: Shard
    run: RunIdentity


class PartBatch(Record, frozen=True):
    """One line of a part file: the results of one batch."""

    number: Annotated[int, Meta(ge=0)]
    images_sha256: Sha256
    names: Annotated[tuple[str, ...], Meta(min_length=1)]
    labels: tuple[int | None, ...]
    groups: tuple[str, ...]
    measures: tuple[StoredArrays, ...]
    samples: tuple[SampleAnswer, ...]
    changed_answers: tuple[ChangedAnswer, ...]

    def __post_init__(self) -> None:
        if len({len(self.names), len(self.labels), len(self.groups)}) != 1:
            raise ValueError("names, labels and groups are of different lengths")


def listing_sha256(names: Sequence[str], labels: Sequence[int | None], groups: Sequence[str]) -> str:
    """Return the SHA-256 of the listing of an image set.

    Args:
        names: the name of each image.
        labels: the class of each image, None if it has no label.
        groups: the group of each image.
    """
    return hashlib.sha256(canonical_json([list(names), list(labels), list(groups)])).hexdigest()

"""The part of a target that one stage's engine depends on.

Complete targets, and their files, are in `ccr_deploy.targets.schema`.
"""

from __future__ import annotations

import hashlib

from ccr_deploy.backends.options import BackendOptions, Batch
from ccr_deploy.core.precisions import PRECISIONS, EnginePrecision, Precision
from ccr_deploy.core.records import Record, canonical_json
from ccr_deploy.core.stages import Schedule


class ResolvedTarget(Record, frozen=True):
    """The fields of a target that one stage's engine depends on.

    `schedule` is None except for an unrolled encoder, and `batch` is None for backends without batch
    profiles.
    """

    precision: EnginePrecision
    schedule: Schedule | None
    batch: Batch | None
    options: BackendOptions

    @property
    def backend(self) -> str:
        """The backend's name."""
        return self.options.backend

    @property
    def graph_precision(self) -> Precision:
        """The precision of the graph that the engine is built from."""
        return PRECISIONS[self.precision].graph

    @property
    def digest(self) -> str:
        """The SHA-256 over all fields; it does not depend on the target's name, machine and description."""
        # Over the canonical form with all defaults, so that writing out a default does not change the digest.
        return hashlib.sha256(canonical_json(self)).hexdigest()

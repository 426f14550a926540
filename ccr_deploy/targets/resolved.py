"""What one stage's engine is built from a target.

Whole targets, and the files they come from, are in `ccr_deploy.targets.schema`.
"""

from __future__ import annotations

import hashlib

from ccr_deploy.backends.options import BackendOptions, Batch
from ccr_deploy.core.precisions import PRECISIONS, EnginePrecision, Precision
from ccr_deploy.core.records import Record, canonical_json
from ccr_deploy.core.stages import Schedule


class ResolvedTarget(Record, frozen=True):
    """What one stage's engine is built from a target: a stage, and nothing else.

    Only an unrolled encoder has a schedule, and only backends with batch profiles build for certain batches.
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
        """The SHA-256 over all fields; a target's name, machine and description do not count."""
        return hashlib.sha256(canonical_json(self)).hexdigest()

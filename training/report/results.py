"""The report on trainings, as it is written to JSON."""

from __future__ import annotations

from ccr_deploy.core.records import Record
from training.evaluation.comparison import Comparison
from training.evaluation.results import Evaluation, Restoration

SCHEMA_VERSION = 1


class RunResults(Record, frozen=True, kw_only=True):
    """The results in one run folder.

    Attributes:
        name: name of the folder.
        evaluation: accuracy and cost of its checkpoint; None for a compressor.
        restoration: quality of restored images; None for a CCR chain, which restores none.
    """

    name: str
    evaluation: Evaluation | None
    restoration: Restoration | None


class TrainingReport(Record, frozen=True, kw_only=True):
    """The results of one or several trainings.

    Attributes:
        schema_version: the version of this record.
        created_by: the program and its version.
        runs: the results of each run folder.
        comparisons: differences of accuracies, paired by image.
        warnings: what is wrong with the results, a line each.
    """

    schema_version: int = SCHEMA_VERSION
    created_by: str
    runs: tuple[RunResults, ...]
    comparisons: tuple[Comparison, ...] = ()
    warnings: tuple[str, ...] = ()

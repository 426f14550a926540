"""Evidence for one artifact: accuracy and speed are joined only if both are of the same engines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.reporting.table import Table
from ccr_deploy.reporting.tables import SUMMARY_COLUMNS, SUMMARY_TITLE, summary_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ccr_deploy.benchmarking.results import BenchmarkReport, Timing
    from ccr_deploy.verification.results import VerificationReport

_CHAIN = ("encoder", "classifier")


def joined_table(verification: VerificationReport, benchmark: BenchmarkReport) -> Table:
    """Return the summary of accuracy and speed; without rows, but with a warning, if they are not joined."""
    if refusal := why_not_joined(verification, benchmark):
        return Table(SUMMARY_TITLE, SUMMARY_COLUMNS, (), warning=refusal)
    return summary_table(verification, benchmark)


def why_not_joined(verification: VerificationReport, benchmark: BenchmarkReport) -> str:
    """Return why results are not of the same engines, as one line; "" if they are.

    Args:
        verification: result of `verify`.
        benchmark: result of `benchmark` for the same bundle and target.
    """
    verified = {engine.stage: engine.engine_sha256 for engine in verification.engines}
    for stage, timed in _timed_engines(benchmark):
        if stage not in verified:
            found = f"the {stage} engine that was timed ({timed[:12]}…) was not verified"
        elif not timed:
            found = f"the benchmark does not say which {stage} engine was timed"
        elif timed != verified[stage]:
            found = (
                f"the {stage} engine that was verified has the SHA-256 {verified[stage][:12]}…, "
                f"the one that was timed {timed[:12]}…"
            )
        else:
            continue
        return f"accuracy and speed are not joined: {found}: run ccr-deploy verify and benchmark again"
    return ""


def _timed_engines(benchmark: BenchmarkReport) -> Iterator[tuple[str, str]]:
    """Yield stage and SHA-256 of each of the target's engines, "" if it is not known."""
    for timing in benchmark.timings:
        if timing.is_target:
            stages = _stages(timing)
            yield from zip(stages, timing.engines_sha256 or ("",) * len(stages), strict=True)


def _stages(timing: Timing) -> tuple[str, ...]:
    return _CHAIN if timing.subject == "chain" else (timing.subject,)

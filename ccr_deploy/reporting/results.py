"""The results that one report shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ccr_deploy.reporting.evidence import why_not_joined

if TYPE_CHECKING:
    from ccr_deploy.benchmarking.results import BenchmarkReport
    from ccr_deploy.benchmarking.scenario_results import ScenarioResult, SoakResult
    from ccr_deploy.benchmarking.table1_results import Table1
    from ccr_deploy.verification.results import VerificationReport


@dataclass(frozen=True)
class Results:
    """The results of one bundle on one target; what was not run is None or empty."""

    verification: VerificationReport | None = None
    benchmark: BenchmarkReport | None = None
    scenarios: tuple[ScenarioResult, ...] = ()
    soak: SoakResult | None = None
    table1: Table1 | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warnings of all results, each once, and why accuracy and speed are not joined."""
        found = [self.verification, self.benchmark, *self.scenarios, self.soak]
        lines = [line for result in found if result for line in result.warnings]
        if self.verification and self.benchmark:
            lines += filter(None, [why_not_joined(self.verification, self.benchmark)])
        return tuple(dict.fromkeys(lines))

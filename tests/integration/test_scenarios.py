"""Scenarios and soaks on real engines of a tiny model, in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from benchmarks.hosts.processes import hearing_ctrl_c
from ccr_deploy.benchmarking.scenario_results import ScenarioResult, SoakResult
from ccr_deploy.benchmarking.scenarios import scenario_run
from ccr_deploy.benchmarking.scenarios.loadgen import is_installed
from ccr_deploy.benchmarking.scenarios.soak import KEPT_SAMPLES
from ccr_deploy.benchmarking.scenarios.statistics import latencies
from ccr_deploy.core.records import convert, to_json
from ccr_deploy.core.scenarios import SCENARIOS
from ccr_deploy.errors import EngineError
from ccr_deploy.workflow.scenarios import run_bundle_scenario
from ccr_deploy.workflow.soak import soak_bundle
from tests.support.cli_runner import run

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.engines.store import EngineStore

OPTIONS = {
    "single-stream": {},
    "multi-stream": {"streams": 3, "batch": 2},
    "server": {"rate": 40.0, "latency_bound": 1e5, "batch": 2},
    "offline": {"batch": 4},
    "paced": {"rate": 50.0},
}
needs_loadgen = pytest.mark.skipif(not is_installed(), reason="LoadGen is not installed")
ISSUED = [
    *(pytest.param(scenario, False, id=f"{scenario}, ccr-deploy") for scenario in SCENARIOS),
    *(
        pytest.param(scenario, True, id=f"{scenario}, LoadGen", marks=needs_loadgen)
        for scenario in SCENARIOS
        if scenario != "paced"
    ),
]


@pytest.mark.parametrize(("scenario", "by_loadgen"), ISSUED)
def test_every_scenario_runs_the_engines_of_the_bundle(
    tiny_bundle: Bundle, built_store: EngineStore, scenario: str, by_loadgen: bool
) -> None:
    result = run_bundle_scenario(
        tiny_bundle,
        "cpu",
        built_store,
        scenario,
        min_duration=0.5,
        by_loadgen=by_loadgen,
        **OPTIONS[scenario],
    )
    assert result.issued_by.startswith("LoadGen ") == by_loadgen == (result.loadgen is not None)
    # LoadGen's clock is another one; the number of samples of *offline* follows the rate of the warm-up.
    assert result.duration_seconds >= 0.4 or scenario == "offline"
    assert result.contract_id == tiny_bundle.manifest.contract_id
    assert len(result.engines_sha256) == len(result.precisions) == 2
    assert result.latencies == latencies(result.samples_ms)
    assert len(result.samples_ms) == (result.samples if scenario == "offline" else result.queries)
    assert result.samples == result.queries * {"multi-stream": 3}.get(scenario, 1) or scenario == "offline"
    assert (result.bound_met is True) == (scenario == "server")
    assert (result.paced is not None) == (scenario == "paced")
    assert [observed.phase for observed in result.contention] == ["start", "fresh inputs", "chain"]
    assert not result.is_quotable
    assert result.settings.pool == len(tiny_bundle.manifest.samples)
    if result.loadgen:
        assert result.loadgen.queries == result.queries
        # Each of our intervals is within LoadGen's.
        compared = [entry for entry in result.loadgen.compared if "ms" in entry.quantity]
        assert compared
        assert all(entry.ours <= entry.loadgen + 0.001 for entry in compared)
    assert convert(ScenarioResult, json.loads(to_json(result))) == result


@pytest.mark.parametrize("subject", ["encoder", "classifier"])
def test_a_stage_runs_alone(tiny_bundle: Bundle, built_store: EngineStore, subject: str) -> None:
    whole = run_bundle_scenario(tiny_bundle, "cpu", built_store, "single-stream", min_duration=0.01)
    part = run_bundle_scenario(
        tiny_bundle, "cpu", built_store, "single-stream", subject=subject, min_duration=0.01
    )
    index = ("encoder", "classifier").index(subject)
    assert part.engines_sha256 == whole.engines_sha256[index : index + 1]
    assert part.subject == subject


def test_an_engine_that_was_replaced_is_refused(
    tiny_bundle: Bundle, built_store: EngineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def swapped(request, *arguments):
        (path, precision, _), classifier = request.engines.engines
        engines = replace(request.engines, engines=((path, precision, "0" * 64), classifier))
        return scenario_run.run_scenario(replace(request, engines=engines), *arguments)

    monkeypatch.setattr("ccr_deploy.workflow.scenarios.run_scenario", swapped)
    with pytest.raises(EngineError, match=r"^the engines: .*(replaced|SHA-256)"):
        run_bundle_scenario(tiny_bundle, "cpu", built_store, "single-stream", min_duration=0.01)


def test_a_soak_records_the_machine_in_every_interval(tiny_bundle: Bundle, built_store: EngineStore) -> None:
    result = soak_bundle(tiny_bundle, "cpu", built_store, 0.02)
    assert result.duration_seconds >= 1.2
    assert not result.ended_early
    assert [observed.phase for observed in result.contention] == ["start", "fresh inputs", "chain"]
    assert sum(entry.runs for entry in result.intervals) == result.runs
    assert len(result.samples_ms) == min(result.runs, KEPT_SAMPLES)
    if result.runs <= KEPT_SAMPLES:  # a fast machine runs this model more often
        assert result.latencies == latencies(result.samples_ms)
    starts = [entry.seconds for entry in result.intervals]
    assert starts == sorted(starts)
    assert all(entry.memory_mib > 1 for entry in result.intervals)
    assert all(entry.p50_ms <= entry.p90_ms <= entry.p99_ms <= entry.max_ms for entry in result.intervals)
    assert convert(SoakResult, json.loads(to_json(result))) == result


def test_a_long_run_keeps_its_results_in_the_report_folder(
    tiny_bundle: Bundle, built_store: EngineStore, tmp_path: Path
) -> None:
    common = ("benchmark", tiny_bundle.path, "--target", "cpu", "--engines", built_store.path)
    report = ("--report", tmp_path / "report")
    server = ("--scenario", "server", "--rate", 30, "--latency-bound", 1e5, "--min-duration", 0.3)
    shown = run(*common, *server, *report)
    assert (shown.status, shown.stderr) == (0, "")
    assert "30 queries/s, Poisson" in shown.stdout
    assert "bound of 100000 ms" in shown.stdout
    printed = run(*common, "--soak", 0.005, "--json", *report)
    assert printed.status == 0
    saved = json.loads((tmp_path / "report" / "soak.json").read_text())
    assert json.loads(printed.stdout) == saved
    kept = {"scenario-server.json", "soak.json", "report.html", "report.md"}
    assert {path.name for path in (tmp_path / "report").iterdir()} == kept
    assert run(*common, "--soak", 0.005, *report).status == 0  # replaces the file


def test_a_file_of_another_program_is_not_replaced(
    tiny_bundle: Bundle, built_store: EngineStore, tmp_path: Path
) -> None:
    (tmp_path / "soak.json").write_text("{}")
    refused = run("benchmark", tiny_bundle.path, "--soak", 0.005, "--report", tmp_path)
    assert refused.status == 2
    assert "contains a soak.json that ccr-deploy did not write: choose another folder" in refused.error_line
    assert (tmp_path / "soak.json").read_text() == "{}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("server",), "--scenario server needs --rate N"),
        (("paced", "--rate", 2e9), "2000000000.0 is not in the range 0<x<=1000000"),
        (("single-stream", "--rate", 5), "--scenario single-stream does not accept --rate: omit it"),
        (("paced", "--batch", 2), "--scenario paced does not accept --batch: omit it"),
        (("offline", "--streams", 2), "--scenario offline does not accept --streams: omit it"),
        (("paced", "--latency-bound", 2), "--scenario paced does not accept --latency-bound: omit it"),
        (("server", "--rounds", 3), "--scenario does not accept --rounds: omit it"),
    ],
)
def test_an_option_of_another_scenario_is_refused(options: tuple, message: str, tiny_bundle: Bundle) -> None:
    refused = run("benchmark", tiny_bundle.path, "--scenario", *options)
    assert refused.status == 2
    assert message in refused.stderr


WITH_CTRL_C = """
import os, signal, sys
from contextlib import contextmanager
from pathlib import Path

from ccr_deploy.bundle.reader import Bundle
from ccr_deploy.core.records import to_json
from ccr_deploy.engines.store import EngineStore
from ccr_deploy.workflow.soak import soak_bundle


class CtrlC:
    '''Ctrl-C some times: before the first interval, or as soon as it is over.'''

    @contextmanager
    def task(self, description, total):
        def press(units):
            for _ in range(int(sys.argv[3])):
                os.kill(os.getpid(), signal.SIGINT)

        if sys.argv[4] == "before":
            press(0)
            yield lambda units: None
        else:
            yield press


bundle, store = Bundle.open(Path(sys.argv[1])), EngineStore(Path(sys.argv[2]))
try:
    result = soak_bundle(bundle, "cpu", store, 0.5, progress=CtrlC())
except KeyboardInterrupt:
    sys.exit(130)
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
print(to_json(result))
"""


def soak_with_ctrl_c(
    bundle: Bundle, store: EngineStore, times: int, when: str = "after"
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITH_CTRL_C, str(bundle.path), str(store.path), str(times), when]
    with hearing_ctrl_c():
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.parametrize("when", ["before", "after"])
def test_ctrl_c_ends_a_soak_and_keeps_what_was_measured(
    tiny_bundle: Bundle, built_store: EngineStore, when: str
) -> None:
    """Before the end of the first interval, it is kept too."""
    ended = soak_with_ctrl_c(tiny_bundle, built_store, 1, when)
    assert (ended.returncode, ended.stderr) == (0, "")
    result = convert(SoakResult, json.loads(ended.stdout))
    assert result.ended_early
    assert 0 < result.duration_seconds < 30
    assert sum(entry.runs for entry in result.intervals) == result.runs > 0
    assert result.latency_drift is None


def test_a_second_ctrl_c_ends_the_command(tiny_bundle: Bundle, built_store: EngineStore) -> None:
    assert soak_with_ctrl_c(tiny_bundle, built_store, 2).returncode == 130

"""The documents' tables are the committed results and the gates' rows."""

from __future__ import annotations

import re

from benchmarks.documents import DOCUMENTS, filled, tables
from ccr_deploy.core.precisions import PRECISIONS
from ccr_deploy.verification.gates import GATES
from tests.docs.fences import ROOT
from tests.support.cli_runner import run

TIMED = {"demo", "int8", "saturation", "container-starts", "speed", "payload", "rtx", "serving", "triton"}


def test_tables_are_the_committed_results() -> None:
    texts = [document.read_text(encoding="utf-8") for document in DOCUMENTS]
    assert [filled(text) for text in texts] == texts
    assert all(any(table in text for text in texts) for table in tables().values())


def test_tables_of_times_name_the_processor() -> None:
    for name in TIMED:
        assert re.search(r"AMD EPYC|Intel\(R\) Xeon", tables()[name]), name


def test_page_and_help_state_the_gates_as_they_are() -> None:
    page = (ROOT / "docs" / "reference" / "gates.md").read_text(encoding="utf-8")
    shown = run("verify", "--help").stdout
    for gate in GATES:
        expected = [gate.limit_text(precision) for precision in PRECISIONS]
        (stated,) = re.findall(rf"^\| `{gate.name}`: {gate.help} \| (.*) \|$", page, flags=re.MULTILINE)
        assert stated.split(" | ") == expected
        (helped,) = re.findall(rf"^ +{gate.name} +(.*?) +{gate.help}$", shown, flags=re.MULTILINE)
        assert helped.split() == expected

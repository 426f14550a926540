"""Support of other tests: processors of an emulated Arm, and pip's settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.hosts.pip_settings import pip_settings
from ccr_deploy.core.processor import instruction_sets, parse_flags
from tests.arm.processors import CORTEX_A72, CORTEX_A76

if TYPE_CHECKING:
    from pathlib import Path


def test_a_processor_is_written_as_linux_reports_it(tmp_path: Path) -> None:
    CORTEX_A76.write(tmp_path)
    lines = (tmp_path / "cpuinfo").read_text().splitlines()
    assert instruction_sets(parse_flags(lines)) == ("FP16", "DotProd")
    wanted = ("CPU implementer\t: 0x41", "CPU variant\t: 0x4", "CPU part\t: 0xd0b", "CPU revision\t: 1")
    assert set(wanted) <= set(lines)
    assert (tmp_path / "cpu/cpu0/regs/identification/midr_el1").read_text() == "0x00000000414fd0b1\n"
    assert (tmp_path / "cpu/cpu0/topology/thread_siblings").read_text() == "1\n"
    CORTEX_A72.write(tmp_path)
    assert instruction_sets(parse_flags((tmp_path / "cpuinfo").read_text().splitlines())) == ()


def test_pips_settings_become_variables_and_their_paths_are_found(tmp_path: Path) -> None:
    index, wheels, certificate = tmp_path / "index" / "simple", tmp_path / "wheels", tmp_path / "ca.crt"
    index.mkdir(parents=True)
    wheels.mkdir()
    certificate.touch()
    listed = (
        f"global.cert='{certificate}'\n"
        f"global.extra-index-url='{index.as_uri()}\\nhttps://example.com/simple'\n"
        "global.timeout='10'\n"
        "freeze.timeout='11'\n"
        "install.timeout='12'\n"
        f":env:.find-links='{wheels} /is/not/there'\n"
    )
    found = pip_settings(listed)
    assert found.environment == {
        "PIP_CERT": str(certificate),
        "PIP_EXTRA_INDEX_URL": f"{index.as_uri()} https://example.com/simple",
        "PIP_TIMEOUT": "12",
        "PIP_FIND_LINKS": f"{wheels} /is/not/there",
    }
    assert set(found.paths) == {certificate, index.parent, wheels}

"""What the tests on an emulated Arm are told of processors, of pip's settings and of missing tools."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from ccr_deploy.backends.processor import instruction_sets, parse_flags
from tests.arm.pip_settings import pip_settings
from tests.arm.processors import CORTEX_A72, CORTEX_A76

ROOT = Path(__file__).parent.parent.parent
SHELLCHECK = ROOT / ".venv" / "bin" / "shellcheck"


def test_a_processor_is_written_as_linux_tells_it(tmp_path: Path) -> None:
    CORTEX_A76.write(tmp_path)
    lines = (tmp_path / "cpuinfo").read_text().splitlines()
    assert instruction_sets(parse_flags(lines)) == ("FP16", "DotProd")
    wanted = ("CPU implementer\t: 0x41", "CPU variant\t: 0x4", "CPU part\t: 0xd0b", "CPU revision\t: 1")
    assert set(wanted) <= set(lines)
    assert (tmp_path / "cpu/cpu0/regs/identification/midr_el1").read_text() == "0x00000000414fd0b1\n"
    assert (tmp_path / "cpu/cpu0/topology/thread_siblings").read_text() == "1\n"
    CORTEX_A72.write(tmp_path)
    assert instruction_sets(parse_flags((tmp_path / "cpuinfo").read_text().splitlines())) == ()


def test_pips_settings_become_variables_and_what_they_name_is_found(tmp_path: Path) -> None:
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


def test_missing_tools_are_one_line_and_a_status_of_their_own(tmp_path: Path) -> None:
    for tool in ("uname", "id"):
        (tmp_path / tool).symlink_to(str(shutil.which(tool)))
    checked = subprocess.run(
        ["/bin/sh", str(ROOT / "scripts" / "check_arm_tools.sh")],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 69
    (line,) = checked.stderr.splitlines()
    missing = "debootstrap is missing" if os.geteuid() == 0 else "run it as root"
    assert line.startswith("test-arm: ")
    assert missing in line


def test_shellcheck_finds_nothing() -> None:
    scripts = [ROOT / "scripts" / "check_arm_tools.sh", *(ROOT / "tests" / "arm").glob("*.sh")]
    checked = subprocess.run([SHELLCHECK, *scripts], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout) == (0, "")

"""Run the tutorial's commands and write their real output into it: ``python -m scripts.record_tutorial``.

Every ``console`` block of ``docs/tutorial.md`` holds one command after ``$`` and its output. The commands run
in order in the repository's root, as a reader would run them; training takes about two minutes.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
ENGINES = "build/tutorial-engines"
"""The engine store, as the tutorial names it."""
TUTORIAL = ROOT / "docs" / "tutorial.md"
BLOCK = re.compile(r"```console\n\$ (?P<command>.*?[^\\])\n(?P<output>.*?)```\n", flags=re.DOTALL)


def record() -> None:
    """Run every command of the tutorial and replace the output below it."""
    # As for a reader, the store must be empty: the output would otherwise say "reused from the engine store".
    shutil.rmtree(ROOT / ENGINES, ignore_errors=True)
    text = TUTORIAL.read_text(encoding="utf-8")
    TUTORIAL.write_text(BLOCK.sub(_recorded, text), encoding="utf-8")


def _recorded(block: re.Match[str]) -> str:
    command = block["command"]
    print(f"$ {command}", flush=True)
    environment = {
        **os.environ,
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""))),
        "CCR_DEPLOY_ENGINES": ENGINES,
    }
    finished = subprocess.run(
        ["/bin/bash", "-c", command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if finished.returncode:
        raise SystemExit(f"exit status {finished.returncode}: {finished.stderr.strip()}")
    output = "\n".join(line.rstrip() for line in finished.stdout.splitlines()).strip("\n")
    return f"```console\n$ {command}\n{output}\n```\n"


if __name__ == "__main__":
    record()

"""The package's docstring describes its layout."""

from __future__ import annotations

import re
from pathlib import Path

import ccr_deploy


def test_docstring_lists_every_package() -> None:
    folders = {path.parent.name for path in Path(ccr_deploy.__path__[0]).glob("*/__init__.py")}
    assert ccr_deploy.__doc__
    assert sorted(re.findall(r"^    (\w+)  ", ccr_deploy.__doc__, re.MULTILINE)) == sorted(folders)

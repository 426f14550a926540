"""Options, their defaults and exit statuses change only when somebody means to change them.

``python -m scripts.inventory write tests/golden/inventory.json`` writes down what they are.
"""

from __future__ import annotations

import json
from pathlib import Path

from scripts.inventory import cli_options, exit_statuses

INVENTORY = json.loads((Path(__file__).parents[2] / "golden" / "inventory.json").read_text(encoding="utf-8"))


def test_every_option_has_its_default() -> None:
    assert cli_options() == INVENTORY["options"]


def test_every_error_has_its_exit_status() -> None:
    assert exit_statuses() == INVENTORY["exit_statuses"]

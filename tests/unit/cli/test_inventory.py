"""No option, default or exit status is lost or changed unintentionally.

``python -m scripts.inventory write tests/golden/inventory.json`` records them.
"""

from __future__ import annotations

import json
from pathlib import Path

from scripts.inventory import cli_options, exit_statuses

INVENTORY = json.loads((Path(__file__).parents[2] / "golden" / "inventory.json").read_text(encoding="utf-8"))


def test_every_option_has_its_default() -> None:
    """New options, and new choices of old ones, break nothing."""
    found = cli_options()
    for command, options in INVENTORY["options"].items():
        known = {tuple(option["opts"]): option for option in found[command]}
        for option in options:
            here = known[tuple(option["opts"])]
            choices = here["type"].get("choices", ())
            kept = [choice for choice in choices if choice in option["type"].get("choices", ())]
            assert (here | {"type": here["type"] | ({"choices": kept} if choices else {})}) == option


def test_every_error_has_its_exit_status() -> None:
    """New errors break nothing."""
    found = exit_statuses()
    assert {name: found.get(name) for name in INVENTORY["exit_statuses"]} == INVENTORY["exit_statuses"]

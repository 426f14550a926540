"""The scenarios of a benchmark. Imports nothing, so that the command line starts fast."""

from __future__ import annotations

from typing import Literal, get_args

Scenario = Literal["single-stream", "multi-stream", "server", "offline", "paced"]
"""How queries arrive: the first four as MLPerf's LoadGen defines them, *paced* as a camera's frames do."""
SCENARIOS: tuple[Scenario, ...] = get_args(Scenario)

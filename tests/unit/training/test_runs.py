from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ccr_deploy.errors import WrongUsageError
from training.data.open import open_photos
from training.runs import compare_runs, evaluate_run

if TYPE_CHECKING:
    from pathlib import Path


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(WrongUsageError, match=r"trained: no such folder"):
        evaluate_run(tmp_path / "trained", open_photos(48))


def test_a_comparison_needs_two_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(WrongUsageError, match="at least two folders"):
        compare_runs([tmp_path])
    with pytest.raises(WrongUsageError, match=r"has no checkpoint, so no accuracy to compare: omit it"):
        compare_runs([tmp_path, tmp_path / "pretrained"])

"""The default target."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ccr_deploy.core.gpu import Gpu
from ccr_deploy.workflow import doctor

if TYPE_CHECKING:
    from ccr_deploy.targets.schema import Target


@pytest.mark.parametrize("name", ["l4", "h200"])
def test_a_target_for_triton_is_never_the_default(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Both targets of a GPU model fit the same machine."""

    def obstacle_unless_fitting(target: str, _: Target) -> str | None:
        return None if target.startswith(name) else "for another GPU"

    monkeypatch.setattr(doctor, "find_gpu", lambda: Gpu("a GPU", "8.9", 24576, "CUDA 13.0"))
    monkeypatch.setattr(doctor, "_run_obstacle", obstacle_unless_fitting)
    assert doctor.default_target() == name

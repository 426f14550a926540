"""Limits of control groups, versions 1 and 2, read from files as the kernel writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from ccr_deploy.core.control_groups import (
    cpu_limit_cores,
    group_folders,
    memory_in_use,
    memory_limit_bytes,
    throttled_seconds,
)

if TYPE_CHECKING:
    from pathlib import Path


GROUP = "sys/fs/cgroup"
V2 = {f"{GROUP}/cgroup.controllers": "cpu memory\n", "proc/self/cgroup": "0::/system.slice/job.service\n"}
V1 = {"proc/self/cgroup": "5:cpu,cpuacct:/docker/3f0c\n4:memory:/docker/3f0c\n1:name=systemd:/\n0::/\n"}


def system(root: Path, *parts: dict[str, str]) -> Path:
    for files in parts:
        for name, text in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("200000 100000\n", 2),
        ("150000 100000\n", 1.5),
        ("5000 100000\n", 0.05),
        ("max 100000\n", None),
        ("", None),
        ("200000\n", None),
        ("200000 0\n", None),
        ("unheard of this", None),
    ],
)
def test_the_quota_of_version_2(tmp_path: Path, text: str, cores: float | None) -> None:
    own = f"{GROUP}/system.slice/job.service"
    assert cpu_limit_cores(system(tmp_path, V2, {f"{own}/cpu.max": text})) == cores


def test_a_mount_of_version_1_may_be_named_for_all_its_controllers(tmp_path: Path) -> None:
    own = f"{GROUP}/cpu,cpuacct/docker/3f0c"
    files = {f"{own}/cpu.cfs_quota_us": "150000\n", f"{own}/cpu.cfs_period_us": "100000\n"}
    assert cpu_limit_cores(system(tmp_path, V1, files)) == 1.5


@pytest.mark.parametrize(
    ("quota", "period", "cores"),
    [
        ("250000\n", "100000\n", 2.5),
        ("-1\n", "100000\n", None),
        ("100000\n", None, None),
        ("100000\n", "0\n", None),
        (None, None, None),
    ],
)
def test_the_quota_of_version_1(
    tmp_path: Path, quota: str | None, period: str | None, cores: float | None
) -> None:
    own = f"{GROUP}/cpu/docker/3f0c"
    files = {f"{own}/cpu.cfs_quota_us": quota, f"{own}/cpu.cfs_period_us": period, f"{own}/tasks": "7\n"}
    root = system(tmp_path, V1, {name: text for name, text in files.items() if text})
    assert cpu_limit_cores(root) == cores


@pytest.mark.parametrize(
    ("groups", "file", "text", "limit"),
    [
        (V2, "system.slice/memory.max", "536870912\n", 2**29),
        (V2, "system.slice/memory.max", "max\n", None),
        (V2, "system.slice/memory.max", "unheard of this", None),
        (V1, "memory/docker/memory.limit_in_bytes", "536870912\n", 2**29),
        (V1, "memory/docker/memory.limit_in_bytes", "9223372036854771712\n", None),
    ],
)
def test_the_memory_limit(
    tmp_path: Path, groups: dict[str, str], file: str, text: str, limit: int | None
) -> None:
    assert memory_limit_bytes(system(tmp_path, groups, {f"{GROUP}/{file}": text})) == limit


def test_without_a_list_of_groups_the_mount_point_counts(tmp_path: Path) -> None:
    files = {f"{GROUP}/cgroup.controllers": "cpu\n", f"{GROUP}/cpu.max": "100000 100000\n"}
    assert cpu_limit_cores(system(tmp_path, files)) == 1


def test_the_time_that_quotas_withheld_is_that_of_all_groups_of_version_2(tmp_path: Path) -> None:
    own, slice_ = f"{GROUP}/system.slice/job.service", f"{GROUP}/system.slice"
    files = {
        f"{own}/cpu.stat": "usage_usec 5\nnr_periods 10\nnr_throttled 4\nthrottled_usec 2500000\n",
        f"{slice_}/cpu.stat": "usage_usec 9\nnr_throttled 1\nthrottled_usec 500000\n",
        f"{GROUP}/cpu.stat": "usage_usec 9\nuser_usec 3\n",  # the root group has no quota
    }
    assert throttled_seconds(system(tmp_path, V2, files)) == 3


def test_version_1_counts_it_in_nanoseconds(tmp_path: Path) -> None:
    text = "nr_periods 10\nnr_throttled 4\nthrottled_time 2500000000\n"
    assert throttled_seconds(system(tmp_path, V1, {f"{GROUP}/cpu/docker/3f0c/cpu.stat": text})) == 2.5


@pytest.mark.parametrize(
    "text", ["usage_usec 5\nuser_usec 3\n", "throttled_usec\n", "throttled_usec -1\n", ""]
)
def test_a_group_without_a_quota_withholds_nothing(tmp_path: Path, text: str) -> None:
    assert throttled_seconds(system(tmp_path, V2, {f"{GROUP}/cpu.stat": text})) is None
    assert throttled_seconds(tmp_path / "nowhere") is None


def test_every_group_of_version_2_above_the_process_counts(tmp_path: Path) -> None:
    own, slice_ = f"{GROUP}/system.slice/job.service", f"{GROUP}/system.slice"
    files = {
        f"{own}/cpu.max": "300000 100000\n",
        f"{own}/memory.max": "max\n",
        f"{slice_}/cpu.max": "150000 100000\n",
        f"{slice_}/memory.max": "1073741824\n",
    }
    root = system(tmp_path, V2, files)
    assert [folder.name for folder in group_folders("cpu", root)] == ["job.service", "system.slice", "cgroup"]
    assert (cpu_limit_cores(root), memory_limit_bytes(root)) == (1.5, 2**30)


def test_every_controller_of_version_1_has_its_own_tree(tmp_path: Path) -> None:
    files = {
        f"{GROUP}/cpu/docker/3f0c/cpu.cfs_quota_us": "50000\n",
        f"{GROUP}/cpu/docker/3f0c/cpu.cfs_period_us": "100000\n",
        f"{GROUP}/cpu/cpu.cfs_quota_us": "-1\n",
        f"{GROUP}/cpu/cpu.cfs_period_us": "100000\n",
        f"{GROUP}/memory/docker/3f0c/memory.limit_in_bytes": "536870912\n",
        f"{GROUP}/memory/memory.limit_in_bytes": "9223372036854771712\n",
    }
    root = system(tmp_path, V1, files)
    assert (cpu_limit_cores(root), memory_limit_bytes(root)) == (0.5, 2**29)


def test_in_a_container_the_groups_own_folder_may_be_the_mount_point(tmp_path: Path) -> None:
    """The path in /proc is the host's, if the container shares its namespace of groups."""
    files = {
        f"{GROUP}/cpu/cpu.cfs_quota_us": "200000\n",
        f"{GROUP}/cpu/cpu.cfs_period_us": "100000\n",
        f"{GROUP}/memory/memory.limit_in_bytes": "536870912\n",
    }
    root = system(tmp_path, V1, files)
    assert (cpu_limit_cores(root), memory_limit_bytes(root)) == (2.0, 2**29)


def test_without_groups_or_with_damaged_files_there_is_no_limit(tmp_path: Path) -> None:
    assert (group_folders("cpu", tmp_path), cpu_limit_cores(tmp_path)) == ([], None)
    files = {f"{GROUP}/cpu.max": "max 100000\n", f"{GROUP}/memory.max": "unheard of this"}
    root = system(tmp_path, V2, files, {"proc/self/cgroup": "damaged\n0::/../..\n"})
    assert (cpu_limit_cores(root), memory_limit_bytes(root)) == (None, None)


def test_memory_in_use_grows_by_the_memory_written() -> None:
    before = memory_in_use()
    held = np.ones(2**26, np.uint8)
    assert memory_in_use() >= before + held.nbytes * 0.9


def test_memory_in_use_is_0_if_the_system_does_not_report_it(tmp_path: Path) -> None:
    assert memory_in_use(tmp_path / "status") == 0

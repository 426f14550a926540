"""Limits of control groups, versions 1 and 2, read from files as the kernel writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from ccr_deploy.core.control_groups import (
    cpu_limit_cores,
    group_folders,
    memory_in_use,
    memory_limit,
    memory_limit_bytes,
    quota_cores,
)

if TYPE_CHECKING:
    from pathlib import Path


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "5000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": ""}, None),
        ({"cpu.max": "unheard of this"}, None),
        ({"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "250000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "0\n"}, None),
        ({}, None),
    ],
)
def test_the_quota_is_read_in_cores(tmp_path: Path, files: dict[str, str], cores: int | None) -> None:
    write(tmp_path, files)
    assert quota_cores(tmp_path) == cores


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"memory.max": "536870912\n"}, 2**29),
        ({"memory.max": "max\n"}, None),
        ({"memory/memory.limit_in_bytes": "536870912\n"}, 2**29),
        ({"memory/memory.limit_in_bytes": "9223372036854771712\n"}, None),
        ({"memory.max": "unheard of this"}, None),
        ({}, None),
    ],
)
def test_the_memory_limit_is_read(tmp_path: Path, files: dict[str, str], limit: int | None) -> None:
    write(tmp_path, files)
    assert memory_limit(tmp_path) == limit


GROUP = "sys/fs/cgroup"
V2 = {f"{GROUP}/cgroup.controllers": "cpu memory\n", "proc/self/cgroup": "0::/system.slice/job.service\n"}
V1 = {"proc/self/cgroup": "5:cpu,cpuacct:/docker/3f0c\n4:memory:/docker/3f0c\n1:name=systemd:/\n0::/\n"}


def system(root: Path, *parts: dict[str, str]) -> Path:
    for files in parts:
        for name, text in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
    return root


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

"""The file of TensorRT-RTX's runtime cache, with objects that stand in for TensorRT-RTX's."""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING

import pytest

from ccr_deploy.backends.tensorrt.runtime_cache import RuntimeCache

if TYPE_CHECKING:
    from pathlib import Path

KERNELS = b"compiled kernels"


class CacheStandIn:
    def __init__(self) -> None:
        self.content = b""

    def deserialize(self, content: bytes) -> bool:
        self.content = content
        return True

    def serialize(self) -> bytes:
        return self.content


class ConfigurationStandIn:
    def __init__(self, *, accepts: bool = True) -> None:
        self._accepts = accepts
        self.cache: CacheStandIn | None = None

    def create_runtime_cache(self) -> CacheStandIn:
        return CacheStandIn()

    def set_runtime_cache(self, cache: CacheStandIn) -> bool:
        if self._accepts:
            self.cache = cache
        return self._accepts


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "encoder.plan.cache"


def test_the_next_start_reads_what_was_saved(file: Path) -> None:
    first = ConfigurationStandIn()
    cache = RuntimeCache(first, file)
    first.cache.content = KERNELS
    cache.save()
    second = ConfigurationStandIn()
    RuntimeCache(second, file)
    assert second.cache.content == KERNELS


def test_a_damaged_file_is_not_passed_on(file: Path) -> None:
    file.write_bytes(hashlib.sha256(b"others").digest() + KERNELS)
    configuration = ConfigurationStandIn()
    RuntimeCache(configuration, file)
    assert configuration.cache.content == b""


def test_a_rejected_cache_is_reported_and_its_file_left_as_it_was(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = hashlib.sha256(KERNELS).digest() + KERNELS
    file.write_bytes(before)
    with caplog.at_level(logging.WARNING):
        cache = RuntimeCache(ConfigurationStandIn(accepts=False), file)
        cache.save()
    assert caplog.messages == [
        f"{file}: TensorRT-RTX rejects the runtime cache: every start compiles all kernels"
    ]
    assert file.read_bytes() == before


def test_a_rejected_cache_is_not_saved(file: Path) -> None:
    RuntimeCache(ConfigurationStandIn(accepts=False), file).save()
    assert not file.exists()

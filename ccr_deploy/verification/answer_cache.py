"""Cache of the outputs of PyTorch and of graphs: a second verification runs only the engines.

::

    engine store/
      answers/
        8e41…/                    what computed them: weights or graph, library and its version, processor
          5b07….answers           outputs for one batch, by the SHA-256 of its inputs

A file is the SHA-256 of its content, then the outputs as NumPy writes them (``np.savez``). A file that is
truncated or damaged is computed again, so that files are written without a temporary name.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from ccr_deploy import __version__
from ccr_deploy.backends.runner import Arrays, Outputs, Runner
from ccr_deploy.core.private_folder import make_private_folder
from ccr_deploy.core.records import canonical_json
from ccr_deploy.core.untrusted import read_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

ANSWERS_VERSION = 1
"""Raise it if the same graph or network gives other outputs, or they mean something else.

Examples are a change of `quantization.emulation` or of `reference.as_margins`. The version of ccr-deploy is
not enough, since a checkout has the same one before and after such a change.
"""

LIMIT_BYTES = 4 << 30
_MAX_FILE_BYTES = 1 << 30
_DIGEST_BYTES = 32
_log = logging.getLogger(__name__)


class AnswerCache:
    """Outputs for batches, in a folder of limited size; the longest unused ones are removed first.

    A folder that cannot be read or written, or whose disk is full, only disables the cache.

    Args:
        store: folder of the engine store; None to keep no outputs.
        limit: size of the cache in bytes.
    """

    def __init__(self, store: Path | None, limit: int = LIMIT_BYTES) -> None:
        self._store = store
        self._limit = limit
        self._started = time.time()
        self._bytes: int | None = None  # found by the first `add`
        self._is_full = False

    def find(self, key: str, inputs: str) -> Outputs | None:
        """Return the outputs for a batch; None if they are not in the cache.

        Args:
            key: identifies what computed them.
            inputs: SHA-256 of the batch.
        """
        if self._store is None:
            return None
        path = self._path(self._store, key, inputs)
        try:
            content = read_bytes(path, _MAX_FILE_BYTES)
            os.utime(path)  # files that are used stay
        except OSError:
            return None
        digest, arrays = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        if hashlib.sha256(arrays).digest() != digest:
            _log.debug("%s: damaged, computed again", path)
            return None
        with np.load(io.BytesIO(arrays), allow_pickle=False) as found:
            return dict(found)

    def add(self, key: str, inputs: str, outputs: Arrays) -> None:
        """Add the outputs for a batch, if there is room.

        Args:
            key: identifies what computed them.
            inputs: SHA-256 of the batch.
            outputs: arrays by name.
        """
        if self._store is None or self._is_full:
            return
        buffer = io.BytesIO()
        # Without `allow_pickle`, which NumPy before 2.1 would write as an array.
        np.savez(buffer, **outputs)  # type: ignore[arg-type]
        arrays = buffer.getvalue()
        path = self._path(self._store, key, inputs)
        try:
            make_private_folder(self._store)
            if not self._make_room(path.parent.parent, len(arrays) + _DIGEST_BYTES):
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(hashlib.sha256(arrays).digest() + arrays)
        except OSError as error:
            _log.debug("%s: not written: %s", path, error)
            self._is_full = True
            with suppress(OSError):
                path.unlink(missing_ok=True)

    @staticmethod
    def _path(store: Path, key: str, inputs: str) -> Path:
        return store / "answers" / key / f"{inputs}.answers"

    def _make_room(self, folder: Path, needed: int) -> bool:
        """Remove the longest unused files if the limit is exceeded; return whether there is room.

        Files that this verification used stay: otherwise a set larger than the limit would remove each file
        just before it is needed again.
        """
        if self._bytes is None:
            self._bytes = sum(file.stat().st_size for file in folder.glob("*/*"))
        self._bytes += needed
        if self._bytes <= self._limit:
            return True
        found = [(file.stat(), file) for file in folder.glob("*/*")]
        for status, file in sorted(found, key=lambda entry: entry[0].st_mtime):
            # A tenth is left, so that not every file that is added lists the folder.
            if status.st_mtime >= self._started or self._bytes <= 0.9 * self._limit:
                break
            file.unlink(missing_ok=True)
            self._bytes -= status.st_size
        self._is_full = self._bytes > self._limit
        return not self._is_full


class CachedRunner(Runner):
    """A runner that is loaded for the first batch whose outputs are not in the cache.

    Args:
        cache: the cache.
        made_by: what computes the outputs, as JSON content: the same value must mean the same outputs.
        load: loads the runner.
    """

    def __init__(self, cache: AnswerCache, made_by: object, load: Callable[[], Runner]) -> None:
        self._cache = cache
        self._key = hashlib.sha256(canonical_json([__version__, ANSWERS_VERSION, made_by])).hexdigest()
        self._load = load
        self._loaded: Runner | None = None

    def infer(self, feeds: Mapping[str, Any]) -> Outputs:
        """Return the outputs from the cache, or run the batch."""
        inputs = _digest(feeds)
        outputs = self._cache.find(self._key, inputs)
        sizes = {len(feed) for feed in feeds.values()}
        if outputs is None or {len(output) for output in outputs.values()} != sizes:
            outputs = self._run(feeds)
            self._cache.add(self._key, inputs, outputs)
        return outputs

    def _run(self, feeds: Arrays) -> Outputs:
        if self._loaded is None:
            self._loaded = self._load()
        return self._loaded.infer(feeds)

    def _close(self) -> None:
        if self._loaded is not None:
            self._loaded.close()


def _digest(feeds: Arrays) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(feeds.items()):
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()

"""TensorRT-RTX's runtime cache: the kernels that it compiled for this GPU, stored for the next start.

The file is beside the engine and begins with the SHA-256 of the rest. A file whose SHA-256 does not match is
not passed to TensorRT-RTX, which itself rejects a cache of another version, GPU or driver. In both cases, and
if the engine store is read-only, kernels are compiled again at the next start.
"""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING, Any

from ccr_deploy.core.atomic import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

_LOGGER = logging.getLogger(__name__)
_DIGEST_BYTES = hashlib.sha256().digest_size


class RuntimeCache:
    """The cache of one engine on this GPU."""

    def __init__(self, configuration: Any, path: Path) -> None:  # noqa: ANN401 -- the library has no types
        """Read the file, if it exists, and add the cache to an engine's runtime configuration.

        If TensorRT-RTX rejects the cache, the engine runs without one: it is slower to start, but correct.
        """
        self._path = path
        self._saved = b""
        self._cache = configuration.create_runtime_cache()
        content = _read(path)
        if content and self._cache.deserialize(content):
            self._saved = content
        self._is_used = configuration.set_runtime_cache(self._cache)
        if not self._is_used:
            _LOGGER.warning(
                "%s: TensorRT-RTX rejects the runtime cache: every start compiles all kernels", path
            )

    def save(self) -> None:
        """Write the cache to its file if kernels were compiled since the last call."""
        if not self._is_used:
            return
        serialized = self._cache.serialize()
        content = bytes(memoryview(serialized)) if serialized is not None else b""
        if content in {b"", self._saved}:
            return
        self._saved = content
        try:
            write_atomically(self._path, hashlib.sha256(content).digest() + content)
        except OSError as error:
            _LOGGER.warning("%s: compiled kernels are not stored for the next start (%s)", self._path, error)


def _read(path: Path) -> bytes:
    """Return the file's content after its digest; empty if there is no file or it is damaged."""
    try:
        text = path.read_bytes()
    except OSError:
        return b""
    digest, content = text[:_DIGEST_BYTES], text[_DIGEST_BYTES:]
    return content if hashlib.sha256(content).digest() == digest else b""

"""TensorRT-RTX's runtime cache: the kernels that it compiled for this GPU, kept for the next start.

The file stands beside the engine. TensorRT-RTX itself refuses one of another version, GPU or driver; then,
as where the store cannot be written, kernels are compiled again.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from ccr_deploy.atomic import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

_LOGGER = logging.getLogger(__name__)


class RuntimeCache:
    """The cache of one engine on this GPU."""

    def __init__(self, configuration: Any, path: Path) -> None:  # noqa: ANN401 -- the library has no types
        """Reads the file, if there is one, and gives its content to an engine's runtime configuration."""
        self._path = path
        self._saved_bytes = 0
        self._cache = configuration.create_runtime_cache()
        try:
            content = path.read_bytes()
        except OSError:
            content = b""
        if content and self._cache.deserialize(content):
            self._saved_bytes = len(content)
        configuration.set_runtime_cache(self._cache)

    def save(self) -> None:
        """Writes what was compiled since."""
        content = bytes(memoryview(self._cache.serialize()))
        if len(content) == self._saved_bytes:
            return
        try:
            write_atomically(self._path, content)
        except OSError as error:
            _LOGGER.warning("%s: kernels are not kept for the next start (%s)", self._path, error)
        self._saved_bytes = len(content)

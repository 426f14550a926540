"""Images decoded by several threads, ahead of the engine that reads them."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING

from ccr_deploy.backends.threads import thread_count
from ccr_deploy.workflow.sources import contract_image

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from ccr_deploy.codec.contract import CodeContract

LOOK_AHEAD = 16
"""Images that are decoded before they are needed: four batches of `verify`, 2.4 MB at 224x224."""


def decoded(paths: Iterable[Path], contract: CodeContract) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield images ``uint8 [H, W, 3]`` in order, while threads decode up to `LOOK_AHEAD` of the next ones.

    Args:
        paths: the image files; read only as far as images are decoded.
        contract: defines the preprocessing.

    Raises:
        ImageError: if an image cannot be used; the images before it were yielded.
    """
    threads = ThreadPoolExecutor(thread_count(), thread_name_prefix="decode")
    try:
        remaining = iter(paths)
        ahead = deque(
            threads.submit(contract_image, path, contract) for path in islice(remaining, LOOK_AHEAD)
        )
        while ahead:
            image = ahead.popleft().result()
            if (path := next(remaining, None)) is not None:
                ahead.append(threads.submit(contract_image, path, contract))
            yield image
    finally:  # also if the caller stops early, or at Ctrl-C
        threads.shutdown(wait=True, cancel_futures=True)

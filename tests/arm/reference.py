"""The results of this machine for the demo's images, to compare those of an Arm with."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from tests.arm.differences import activations
from tests.arm.sides import Here, run_chain

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from tests.arm.sides import Chain, Precision


class Reference:
    """Chains and pre-binarization activations on this machine, each computed once."""

    def __init__(self, demo: Path, results: Path) -> None:
        self.demo = demo
        here = Here(demo, results)
        self.chain = functools.cache(functools.partial(run_chain, here))

    @functools.cached_property
    def fp32(self) -> Chain:
        """The results of ONNX Runtime in FP32."""
        return self.chain("cpu", "fp32")

    @functools.cache  # noqa: B019 -- one object for a whole run
    def activations(self, precision: Precision) -> npt.NDArray[np.float32]:
        """The activations of the graph without optimizations, ``float32 [N, bits]``."""
        return activations(self.demo, self.fp32.images, precision)

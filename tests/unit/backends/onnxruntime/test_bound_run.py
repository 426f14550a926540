"""Runs with inputs and outputs bound to a device: on the CPU, which has the same interface as a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnxruntime

from ccr_deploy.backends.onnxruntime.bound_run import bound_run
from ccr_deploy.engines.factory import EngineFactory

if TYPE_CHECKING:
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.engines.store import EngineStore


def test_a_bound_run_computes_the_outputs_of_its_inputs(
    tiny_bundle: Bundle, built_store: EngineStore
) -> None:
    factory = EngineFactory(tiny_bundle, "cpu", built_store)
    engine = factory.find("encoder")
    model = tiny_bundle.manifest.model
    shape = (2, model.image_height, model.image_width, 3)
    feeds = {"image": np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)}
    with factory.load(engine) as runner:
        expected = runner.infer(feeds)["code"]

    class NotingSession(onnxruntime.InferenceSession):
        """Keeps the bindings that were run."""

        def __init__(self) -> None:
            super().__init__(str(engine.path), providers=["CPUExecutionProvider"])
            self.bindings: list[onnxruntime.IOBinding] = []

        def run_with_iobinding(self, binding, *arguments) -> None:
            super().run_with_iobinding(binding, *arguments)
            self.bindings.append(binding)

    session = NotingSession()
    run = bound_run(session, feeds, ["code"], "cpu")
    assert session.bindings == []
    run()
    run()
    assert len(session.bindings) == 2
    (found,) = session.bindings[-1].copy_outputs_to_cpu()
    assert (found == expected).all()

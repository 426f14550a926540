"""Build and run a bundle's OpenVINO INT8 engines in a process with optionally limited instruction sets.

``python -m tests.support.openvino_process BUNDLE STORE INPUTS.npz OUTPUTS.npz [WEIGHT_BITS]``
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from ccr_deploy.backends.int8_weights import Int8Weights
from ccr_deploy.bundle.reader import Bundle
from ccr_deploy.engines.factory import EngineFactory, stage_precisions
from ccr_deploy.engines.store import EngineStore
from ccr_deploy.errors import EngineError


def main() -> None:
    bundle, store, inputs, outputs, *weight_bits = sys.argv[1:]
    factory = EngineFactory(
        Bundle.open(Path(bundle)), "cpu-openvino", EngineStore(Path(store)), stage_precisions("int8")
    )
    if weight_bits:  # simulates misread processor flags
        factory.backend._int8_weights = Int8Weights(int(weight_bits[0]), "a test says so")
    feeds = np.load(inputs)
    found = {}
    for stage, name in (("encoder", "image"), ("classifier", "code")):
        try:
            engine, _ = factory.build(stage)
        except EngineError as error:
            found[f"{stage}_error"] = np.array(str(error))
            continue
        found[f"{stage}_weight_bits"] = np.array(engine.sidecar.key.weight_bits)
        with factory.load(engine) as runner:
            (found[stage],) = runner.infer({name: feeds[name]}).values()
    np.savez(outputs, **found)


if __name__ == "__main__":
    main()

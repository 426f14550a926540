"""A new process up to its first answer, started by `ccr_deploy.workflow.end_to_end`.

``python -m ccr_deploy.workflow.first_answer BUNDLE TARGET STORE IMAGE`` prints when each part ended, on the
clock of `time.monotonic_ns`, which all processes of a machine share.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from ccr_deploy.data.images import load_image
from ccr_deploy.engines.store import EngineStore
from ccr_deploy.runtime import Classifier, Encoder

if __name__ == "__main__":
    imported = time.monotonic_ns()
    bundle, target, store, image = sys.argv[1:]
    engines = EngineStore(Path(store))
    with (
        Encoder.load(bundle, target, engines) as encoder,
        Classifier.load(bundle, target, engines) as classifier,
    ):
        loaded = time.monotonic_ns()
        contract = encoder.contract
        pixels = load_image(Path(image), contract.preprocessing, contract.image_height, contract.image_width)
        classifier.classify(encoder.encode(pixels[None]))
        answered = time.monotonic_ns()
    print(json.dumps([imported, loaded, answered]))  # noqa: T201 -- the owner reads it

"""Writes an engine's logits for a folder of payloads: ``logits.py BUNDLE TARGET PAYLOADS FILE``.

It runs on this machine and in the root folder, which has no other file of the tests.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from ccr_deploy.codec.payload import decode_payload
from ccr_deploy.runtime import Classifier

if __name__ == "__main__":
    bundle, target, payloads, output = sys.argv[1:]
    with Classifier.load(bundle, target) as classifier:
        contract = classifier.contract
        files = sorted(Path(payloads).rglob("*.ccr"))
        codes = np.stack([decode_payload(file.read_bytes(), contract) for file in files])
        np.save(output, classifier._runner.infer({"code": codes})["logits"])

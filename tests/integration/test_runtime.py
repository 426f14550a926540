"""The library API: images to payloads, payloads to predictions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ccr_deploy.errors import EngineError, PayloadError
from ccr_deploy.payload import encode_payload
from ccr_deploy.runtime import Classifier, Encoder

if TYPE_CHECKING:
    from ccr_deploy.bundle import Bundle
    from ccr_deploy.engine_store import EngineStore

IMAGES = np.random.default_rng(7).integers(0, 256, (4, 32, 48, 3), dtype=np.uint8)


def test_a_batch_gives_the_answers_of_its_images(tiny_bundle: Bundle, built_store: EngineStore) -> None:
    with (
        Encoder.load(tiny_bundle, "cpu", built_store) as encoder,
        Classifier.load(tiny_bundle, "cpu", built_store) as classifier,
    ):
        payloads = encoder.encode(IMAGES)
        assert payloads == [encoder.encode(image[None])[0] for image in IMAGES]
        predictions = classifier.classify(payloads)
        single = [classifier.classify([payload])[0] for payload in payloads]
        assert [p.label for p in predictions] == [p.label for p in single]
        assert all(p.name == tiny_bundle.manifest.class_names[p.label] for p in predictions)
        assert all(0.2 <= p.probability <= 1 for p in predictions)  # the largest of five
        assert classifier.classify([]) == []


def test_a_payload_of_another_training_is_refused(tiny_bundle: Bundle, built_store: EngineStore) -> None:
    other = replace(tiny_bundle.manifest.contract, encoder_digest="0" * 64)
    payload = encode_payload(np.zeros(other.code_bytes, np.uint8), other)
    with (
        Classifier.load(tiny_bundle, "cpu", built_store) as classifier,
        pytest.raises(PayloadError) as raised,
    ):
        classifier.classify([payload])
    assert other.contract_id in str(raised.value)
    assert tiny_bundle.manifest.contract_id in str(raised.value)


def test_a_closed_encoder_raises(tiny_bundle: Bundle, built_store: EngineStore) -> None:
    with Encoder.load(tiny_bundle, "cpu", built_store) as encoder:
        pass
    with pytest.raises(EngineError, match="closed"):
        encoder.encode(IMAGES)

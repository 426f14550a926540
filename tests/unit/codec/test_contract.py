"""The code contract: packing of codes and the contract id."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from msgspec import structs
from msgspec.structs import replace

from ccr_deploy.codec.contract import CodeContract, Preprocessing, pack_code, unpack_code

CONTRACT = CodeContract(
    image_height=32,
    image_width=48,
    preprocessing=Preprocessing(resize_to_cover=(40, 60), mean=(0.5, 0.25, 0.125), std=(1.0, 0.5, 0.25)),
    iterations=3,
    code_channels=8,
    encoder_digest="ab" * 32,
)
CONTRACT_JSON = (
    '{"bit_order":"msb-first; channel, row, column",'
    '"bit_rule":"1 where the pre-binarization activation is >= 0",'
    '"canonical_form":1,"code_channels":8,"encoder_digest":"' + "ab" * 32 + '",'
    '"image_height":32,"image_width":48,"iterations":3,'
    '"preprocessing":{"mean":[0.5,0.25,0.125],"resize_filter":"bilinear",'
    '"resize_to_cover":[40,60],"std":[1.0,0.5,0.25]}}'
)
OTHER_FIELDS = {
    "image_height": 48,
    "image_width": 32,
    "preprocessing": Preprocessing(resize_to_cover=(40, 61)),
    "iterations": 4,
    "code_channels": 16,
    "encoder_digest": "ac" * 32,
    "bit_order": "lsb-first; channel, row, column",
    "bit_rule": "1 where the pre-binarization activation is > 0",
}
OTHER_PREPROCESSING = {
    "resize_to_cover": (60, 40),
    "resize_filter": "box",
    "mean": (0.5, 0.25, 0.5),
    "std": (1.0, 0.5, 0.5),
}

codes = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 3), st.sampled_from((8, 16)), st.integers(1, 3), st.integers(1, 3)),
    elements=st.sampled_from((-1.0, 1.0)),
)


@given(codes)
@settings(deadline=None, max_examples=50)
def test_packing_and_unpacking_returns_the_code(code):
    packed = pack_code(code)
    unpacked = unpack_code(packed, code.shape[1:])
    assert unpacked.dtype == np.float32
    np.testing.assert_array_equal(unpacked, code)


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 3), st.just(6))))
@settings(deadline=None, max_examples=50)
def test_unpacking_and_packing_returns_the_bytes(packed):
    np.testing.assert_array_equal(pack_code(unpack_code(packed, (8, 2, 3))), packed)


@pytest.mark.parametrize(
    ("value", "bit"),
    [(0.0, 1), (-0.0, 1), (1e-45, 1), (-1e-45, 0), (1.0, 1), (-1.0, 0), (np.inf, 1), (-np.inf, 0)],
)
def test_a_bit_is_one_exactly_if_the_value_is_at_least_zero(value, bit):
    code = np.full((1, 8, 1, 1), value, dtype=np.float32)
    assert pack_code(code).tolist() == [[0xFF if bit else 0x00]]


def test_bits_are_most_significant_first_over_channel_row_column():
    code = -np.ones((1, 8, 2, 3), dtype=np.float32)
    for channel, row, column in ((0, 0, 0), (0, 0, 2), (0, 1, 0), (1, 0, 1), (2, 1, 2), (7, 1, 2)):
        code[0, channel, row, column] = 1
    assert pack_code(code).tobytes().hex() == "b10040000001"


def test_a_golden_packed_code_unpacks_to_its_positions():
    code = unpack_code(np.frombuffer(bytes.fromhex("b10040000001"), np.uint8)[None], (8, 2, 3))
    ones = [tuple(position) for position in np.argwhere(code[0] == 1).tolist()]
    assert ones == [(0, 0, 0), (0, 0, 2), (0, 1, 0), (1, 0, 1), (2, 1, 2), (7, 1, 2)]


def test_packing_does_not_depend_on_the_memory_layout():
    code = np.asfortranarray(np.random.default_rng(0).choice([-1.0, 1.0], size=(2, 8, 3, 4)))
    np.testing.assert_array_equal(pack_code(code), pack_code(np.ascontiguousarray(code)))


def test_each_code_of_a_batch_is_packed_on_its_own():
    code = np.random.default_rng(1).choice([-1.0, 1.0], size=(3, 8, 2, 3)).astype(np.float32)
    alone = np.concatenate([pack_code(code[index : index + 1]) for index in range(3)])
    np.testing.assert_array_equal(pack_code(code), alone)


def test_the_contract_id_has_its_golden_value():
    assert CONTRACT.contract_id == "74d6190f159311aa"


def test_the_contract_id_is_a_prefix_of_the_sha256_of_its_json():
    assert CONTRACT.contract_id == hashlib.sha256(CONTRACT_JSON.encode()).digest()[:8].hex()


def test_the_canonical_form_is_its_documented_json():
    assert CONTRACT.canonical_form == CONTRACT_JSON.encode()


class LaterPreprocessing(Preprocessing, frozen=True):
    """Preprocessing with a field that a later release could add."""

    gamma: float = 1.0


class LaterContract(CodeContract, frozen=True):
    """A contract with a field that a later release could add."""

    colour_space: str = "sRGB"


def test_a_field_of_a_later_release_at_its_default_keeps_the_id():
    fields = structs.asdict(CONTRACT)
    preprocessing = LaterPreprocessing(**structs.asdict(CONTRACT.preprocessing))
    later = LaterContract(**{**fields, "preprocessing": preprocessing})
    assert (later.colour_space, later.preprocessing.gamma) == ("sRGB", 1.0)
    assert later.contract_id == CONTRACT.contract_id


def test_integers_in_a_normalisation_give_the_same_id():
    whole = replace(CONTRACT.preprocessing, mean=(0, 0, 0), std=(1, 1, 1))
    fractions = replace(CONTRACT.preprocessing, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    ids = {replace(CONTRACT, preprocessing=found).contract_id for found in (whole, fractions)}
    assert len(ids) == 1


@pytest.mark.parametrize("field", CodeContract.__struct_fields__)
def test_the_contract_id_changes_with_every_field(field):
    changed = replace(CONTRACT, **{field: OTHER_FIELDS[field]})
    assert changed.contract_id != CONTRACT.contract_id


@pytest.mark.parametrize("field", Preprocessing.__struct_fields__)
def test_the_contract_id_changes_with_every_field_of_the_preprocessing(field):
    preprocessing = replace(CONTRACT.preprocessing, **{field: OTHER_PREPROCESSING[field]})
    assert replace(CONTRACT, preprocessing=preprocessing).contract_id != CONTRACT.contract_id


def test_the_code_has_a_sixteenth_of_the_image_size():
    assert CONTRACT.code_shape == (8, 2, 3)


def test_a_224_pixel_code_of_32_channels_takes_784_bytes():
    contract = replace(CONTRACT, image_height=224, image_width=224, code_channels=32)
    assert contract.code_bytes == 784

"""The payload: golden bytes, and that no invalid payload is read as a code."""

import json
import random
import re
import struct
import subprocess
import sys
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from ccr_deploy.backends.registry import BACKENDS
from ccr_deploy.codec.contract import CANONICAL_FORM, CodeContract, Preprocessing, unpack_code
from ccr_deploy.codec.payload import (
    OVERHEAD_BYTES,
    PayloadWriter,
    decode_payload,
    encode_payload,
    read_payload,
)
from ccr_deploy.core.records import convert
from ccr_deploy.errors import PayloadError

CONTRACT = CodeContract(
    image_height=32,
    image_width=48,
    preprocessing=Preprocessing(resize_to_cover=(40, 60), mean=(0.5, 0.25, 0.125), std=(1.0, 0.5, 0.25)),
    iterations=3,
    code_channels=8,
    encoder_digest="ab" * 32,
)
CODE = np.array([0x00, 0x11, 0x22, 0x33, 0x44, 0x55], dtype=np.uint8)
GOLDEN = bytes.fromhex(
    "43435250"  # CCRP
    "0100"  # format version 1
    "74d6190f159311aa"  # contract id
    "2000"  # 32 rows
    "3000"  # 48 columns
    "06000000"  # 6 bytes of code
    "001122334455"
    "83db1f87"  # CRC-32
)
GOLDEN_FILES = Path(__file__).parents[2] / "golden"
DOCUMENT = (Path(__file__).parents[3] / "docs" / "reference" / "payload.md").read_text(encoding="utf-8")


def sealed(body: bytes) -> bytes:
    """Append the correct CRC to a forged body."""
    return body + struct.pack("<I", zlib.crc32(body))


def test_a_payload_has_its_golden_bytes():
    assert encode_payload(CODE, CONTRACT) == GOLDEN


def test_the_golden_bytes_decode_to_their_code():
    np.testing.assert_array_equal(decode_payload(GOLDEN, CONTRACT), CODE)


def test_a_header_can_replace_the_contract():
    header, _ = read_payload(GOLDEN)
    assert encode_payload(CODE, header) == GOLDEN
    np.testing.assert_array_equal(decode_payload(GOLDEN, header), CODE)


def test_the_golden_file_matches_its_description():
    payload = (GOLDEN_FILES / "payload.ccr").read_bytes()
    held = json.loads((GOLDEN_FILES / "payload.json").read_text())
    contract = convert(CodeContract, held["contract"])
    assert contract.contract_id == held["contract_id"]
    code = decode_payload(payload, contract)
    assert code.tobytes().hex() == held["code_hex"]
    elements = unpack_code(code[None], tuple(held["code_shape"]))[0]
    assert np.argwhere(elements == 1).tolist() == held["ones"]
    assert encode_payload(code, contract) == payload


def test_one_writer_makes_many_payloads():
    writer = PayloadWriter(CONTRACT)
    codes = np.arange(60, dtype=np.uint8).reshape(10, 6)
    assert writer.payloads(codes) == [encode_payload(code, CONTRACT) for code in codes]


def documented(marker: str) -> str:
    """Return the code block after a marker in the document."""
    (block,) = re.findall(rf"<!-- {marker} -->\n\n```\w+\n(.*?)```", DOCUMENT, flags=re.DOTALL)
    return block


def test_the_documented_example_is_the_golden_payload():
    rows = re.findall(r"^(\d+) +((?:[0-9a-f]{2} )+)", documented("example"), flags=re.MULTILINE)
    offset = 0
    for start, field in rows:
        assert int(start) == offset
        offset += len(bytes.fromhex(field))
    assert bytes.fromhex("".join(field for _, field in rows)) == GOLDEN
    assert f"0x{zlib.crc32(GOLDEN[:-4]):08x}" in documented("example")


def test_the_documented_contract_has_the_documented_id():
    form = json.loads(documented("contract"))
    assert form.pop("canonical_form") == CANONICAL_FORM
    assert convert(CodeContract, form) == CONTRACT
    assert documented("contract").strip().encode() == CONTRACT.canonical_form
    assert f"begins `{CONTRACT.contract_id}`" in DOCUMENT


def test_the_documented_reader_gives_the_same_code():
    program: dict = {}
    exec(documented("reader"), program)  # noqa: S102 -- the document's own program
    channels, rows, columns = CONTRACT.code_shape
    identity = bytes.fromhex(CONTRACT.contract_id)
    found = program["read"](GOLDEN, identity, channels, rows, columns)
    np.testing.assert_array_equal(found, unpack_code(CODE[None], CONTRACT.code_shape)[0])
    for position in range(len(GOLDEN)):
        damaged = bytearray(GOLDEN)
        damaged[position] ^= 0x10
        with pytest.raises(ValueError):  # noqa: PT011 -- any refusal is right
            program["read"](bytes(damaged), identity, channels, rows, columns)


def test_a_payload_adds_26_bytes_to_its_code():
    assert OVERHEAD_BYTES == len(GOLDEN) - len(CODE) == 26


@given(st.binary(min_size=6, max_size=6))
@settings(deadline=None, max_examples=100)
def test_encoding_and_decoding_returns_the_code(content):
    code = np.frombuffer(content, np.uint8)
    decoded = decode_payload(encode_payload(code, CONTRACT), CONTRACT)
    assert decoded.dtype == np.uint8
    assert decoded.tobytes() == content


@given(st.integers(1, 6), st.integers(1, 6), st.sampled_from((8, 16, 32)), st.data())
@settings(deadline=None, max_examples=30)
def test_the_round_trip_holds_for_every_size_of_contract(rows, columns, channels, data):
    contract = replace(CONTRACT, image_height=16 * rows, image_width=16 * columns, code_channels=channels)
    content = data.draw(st.binary(min_size=contract.code_bytes, max_size=contract.code_bytes))
    payload = encode_payload(np.frombuffer(content, np.uint8), contract)
    assert decode_payload(payload, contract).tobytes() == content


@pytest.mark.parametrize("position", range(len(GOLDEN)))
def test_a_payload_with_a_changed_byte_is_refused(position):
    accepted = []
    for value in range(256):
        damaged = GOLDEN[:position] + bytes([value]) + GOLDEN[position + 1 :]
        if damaged == GOLDEN:
            continue
        try:
            decode_payload(damaged, CONTRACT)
        except PayloadError:
            continue
        accepted.append(value)
    assert accepted == []


@pytest.mark.parametrize("length", range(len(GOLDEN)))
def test_a_truncated_payload_is_refused(length):
    with pytest.raises(PayloadError):
        decode_payload(GOLDEN[:length], CONTRACT)


def test_bytes_after_a_payload_are_refused():
    with pytest.raises(PayloadError, match="33 bytes, but its header says 32"):
        decode_payload(GOLDEN + b"\0", CONTRACT)


@given(st.binary(max_size=64))
@settings(deadline=None, max_examples=100)
def test_random_bytes_are_refused_with_a_payload_error(content):
    with pytest.raises(PayloadError):
        decode_payload(content, CONTRACT)


@given(st.binary(max_size=64))
@settings(deadline=None, max_examples=100)
def test_random_bytes_after_the_magic_are_refused_with_a_payload_error(content):
    with pytest.raises(PayloadError):
        decode_payload(b"CCRP" + content, CONTRACT)


def test_a_payload_of_another_contract_is_refused_with_both_ids():
    other = replace(CONTRACT, encoder_digest="cd" * 32)
    payload = encode_payload(CODE, other)
    with pytest.raises(PayloadError) as caught:
        decode_payload(payload, CONTRACT)
    assert other.contract_id in str(caught.value)
    assert CONTRACT.contract_id in str(caught.value)


def test_another_format_version_is_refused_and_named():
    forged = sealed(GOLDEN[:4] + struct.pack("<H", 2) + GOLDEN[6:-4])
    with pytest.raises(PayloadError, match="format version 2 is not supported, expected 1"):
        decode_payload(forged, CONTRACT)


def test_another_image_size_under_the_same_contract_id_is_refused():
    forged = sealed(GOLDEN[:14] + struct.pack("<HH", 48, 32) + GOLDEN[18:-4])
    with pytest.raises(PayloadError, match="48x32 pixels"):
        decode_payload(forged, CONTRACT)


def test_another_code_length_under_the_same_contract_id_is_refused():
    forged = sealed(GOLDEN[:18] + struct.pack("<I", 5) + GOLDEN[22:-5])
    with pytest.raises(PayloadError, match="5 code bytes"):
        decode_payload(forged, CONTRACT)


@pytest.mark.parametrize("length", [0, 5, 7])
def test_a_code_of_another_length_is_not_encoded(length):
    with pytest.raises(PayloadError, match=rf"uint8 \[6\], found uint8 \[{length}\]"):
        encode_payload(np.zeros(length, np.uint8), CONTRACT)


def test_a_code_of_another_type_is_not_encoded():
    with pytest.raises(PayloadError, match="found float32"):
        encode_payload(np.zeros(6, np.float32), CONTRACT)


def test_a_batch_of_codes_is_not_encoded():
    with pytest.raises(PayloadError, match=r"found uint8 \[1, 6\]"):
        encode_payload(CODE[None], CONTRACT)


def mutated(generator: random.Random) -> bytes:
    """Return a payload with one to three mutations; half of them get a correct CRC."""
    payload = bytearray(GOLDEN)
    for _ in range(generator.randint(1, 3)):
        place = generator.randrange(len(payload) + 1)
        kind = generator.randrange(6)
        if kind == 0:
            payload[place:] = b""
        elif kind == 1:
            payload[place:place] = generator.randbytes(generator.randint(1, 4))
        elif kind == 2 and place < len(payload):
            payload[place] ^= 1 << generator.randrange(8)
        elif kind == 3:
            payload[place : place + generator.randint(1, 8)] = generator.randbytes(generator.randint(1, 8))
        elif kind == 4:
            payload[22:-4] = generator.randbytes(max(0, len(payload) - 26))
        else:
            payload[14:22] = generator.choice(SIZES)
    return sealed(bytes(payload[:-4])) if generator.random() < 0.5 else bytes(payload)


SIZES = [struct.pack("<HHI", *sizes) for sizes in ((32, 48, 6), (48, 32, 6), (0, 0, 0), (32, 48, 2**32 - 1))]


@pytest.mark.parametrize("count", [50_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_a_mutated_payload_is_refused_unless_it_is_valid(count):
    """A payload is valid if it has the golden header and the right length and CRC."""
    generator = random.Random(count)  # noqa: S311
    ends = Counter()
    for _ in range(count):
        payload = mutated(generator)
        is_valid = (
            len(payload) == len(GOLDEN)
            and payload[:22] == GOLDEN[:22]
            and payload[-4:] == struct.pack("<I", zlib.crc32(payload[:-4]))
        )
        try:
            code = decode_payload(payload, CONTRACT)
        except PayloadError:
            ends["refused"] += 1
            assert not is_valid, payload.hex()
        else:
            ends["read"] += 1
            assert is_valid, payload.hex()
            assert code.tobytes() == payload[22:28]
    assert min(ends["refused"], ends["read"]) > count / 50


IMPORT_ALONE = """
import sys

class OnlyNumPy:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in {"ccr_deploy", *ALLOWED} and top not in sys.stdlib_module_names:
            raise ImportError(f"blocked: {name}")
        return None

ALLOWED = set(sys.argv[2].split(","))
sys.meta_path.insert(0, OnlyNumPy())
try:
    import click
except ImportError:
    pass
else:
    sys.exit("the finder blocks nothing")
__import__(sys.argv[1])
"""


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("ccr_deploy.codec.contract", "numpy,msgspec"),
        ("ccr_deploy.codec.payload", "numpy"),
        ("ccr_deploy.core.metrics", "numpy,msgspec"),
        ("ccr_deploy.data.images", "numpy,PIL"),
        ("ccr_deploy.runtime", "numpy,msgspec"),
        *(
            (module, "numpy,msgspec")
            for module in sorted({place.partition(":")[0] for place in BACKENDS.values()})
        ),
    ],
)
def test_product_modules_import_with_only_their_packages(module, allowed):
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALONE, module, allowed], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("count", [1, 3])
def test_a_non_contiguous_batch_gives_the_same_payloads(count):
    codes = np.repeat(np.stack([CODE] * count), 2, axis=1)[:, ::2]
    assert not codes.flags.c_contiguous
    assert PayloadWriter(CONTRACT).payloads(codes) == [GOLDEN] * count

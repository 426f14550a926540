"""Random mutations from a seeded generator: of bytes, JSON, TOML and checkpoints."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import pickle
import zipfile
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    import random

DEEP = "@deep@"
ESCAPES = "\x1b[31mred\x9b1m\u202e\nccr-deploy: error: another"
HOSTILE: tuple[object, ...] = (
    *(None, True, False, -1, 0, 1, 3, 7.5, 1e308, -1e-320, 1e-50, 2**63, 2**70, 10**400),
    *(float("nan"), float("inf"), float("-inf")),
    *("", ".", "..", "../x", "/dev/zero", "\0", "\ud800", "x" * 10_000, ESCAPES, DEEP),
    *([], {}, [[]], [True], {"a": 1}, ["x"] * 1000, {ESCAPES: 1}, {"\ud800": 1}),
)


def damaged(chance: random.Random, content: bytes) -> bytes:
    """Flip, cut, repeat, overwrite or insert some bytes."""
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 8, 40))):
        start = chance.randrange(len(data) + 1)
        length = chance.choice((1, 2, 4, 8, 64, 1000))
        what = chance.randrange(6)
        if what == 0 and start < len(data):
            data[start] ^= 1 << chance.randrange(8)
        elif what == 1:
            del data[start : start + length]
        elif what == 2:
            data[start:start] = data[start : start + length]
        elif what == 3:
            data[start : start + length] = chance.randbytes(length)
        elif what == 4:
            data[start:start] = chance.choice((b"\0", b"\xff" * 4, b"\xef\xbb\xbf", b"\x1b[2J", b"\n"))
        elif chance.random() < 0.3:
            del data[start:]
    return bytes(data)


def hostile_json(chance: random.Random, text: bytes) -> bytes:
    """Replace, remove or add a field; sometimes in another encoding, or with damaged bytes."""
    content = json.loads(text)
    for _ in range(chance.choice((1, 1, 2))):
        holder = chance.choice(_holders(content))
        if isinstance(holder, dict) and (not holder or chance.random() < 0.1):
            holder[chance.choice(("surprise", ESCAPES, "\ud800"))] = copy.deepcopy(chance.choice(HOSTILE))
            continue
        key = chance.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        if chance.random() < 0.1:
            del holder[key]
        else:
            holder[key] = copy.deepcopy(chance.choice(HOSTILE))
    if "contract_id" in content and chance.random() < 0.5:  # or the id alone would give every change away
        honest = json.dumps(content.get("contract"), sort_keys=True, separators=(",", ":"))
        content["contract_id"] = hashlib.sha256(honest.encode()).hexdigest()[:16]
    depth = chance.choice((40, 500, 100_000))
    written = json.dumps(content).replace(f'"{DEEP}"', "[" * depth + "]" * depth)
    encoding = chance.choice(("utf-8",) * 8 + ("utf-16", "utf-8-sig"))
    data = written.encode(encoding)
    return damaged(chance, data) if chance.random() < 0.15 else data


def hostile_toml(chance: random.Random, text: bytes) -> bytes:
    """Replace a value by something else, add a line, or damage bytes."""
    lines = text.decode().splitlines()
    values = (
        '"x"',
        '"fp32"',
        "1",
        "true",
        "-1",
        "nan",
        "inf",
        "1e400",
        "9" * 5000,
        "0x" + "f" * 400,
        "1979-05-27",
        '".."',
    )
    values += ("[" * 5000 + "]" * 5000, '"\\u001b[31m"', '"\\ud800"', "{}", "[]", '"\\n"', "1e-50", "a" * 9)
    for _ in range(chance.choice((1, 2))):
        number = chance.randrange(len(lines))
        if "=" in lines[number] and chance.random() < 0.8:
            lines[number] = f"{lines[number].partition('=')[0]}= {chance.choice(values)}"
        else:
            added = ("a.b.c = 1", "[" + ".".join("a" * 60) + "]", "x = 1", ".".join("a" * 5000) + " = 1")
            lines.insert(number, chance.choice(added))
    data = "\n".join(lines).encode(chance.choice(("utf-8",) * 8 + ("utf-16", "utf-8-sig")))
    return damaged(chance, data) if chance.random() < 0.2 else data


def hostile_checkpoint(chance: random.Random, content: bytes) -> bytes:
    """Change a field or tensor, make it a bomb, or damage bytes."""
    loaded = torch.load(io.BytesIO(content), weights_only=True)
    what = chance.randrange(10)
    if what == 0:
        return damaged(chance, content)
    if what == 1:
        return _inflating(content, chance.choice((50, 400)))
    if what == 2:
        return pickle.dumps({"state_dict": _Call(bytearray, 3 * 10**9)}, protocol=2)
    if what == 3:
        loaded["class_names"] = _Call(bytearray, 3 * 10**9)
    elif what == 4:
        name = chance.choice(list(loaded["state_dict"]))
        shape = chance.choice(((10**9,), (10**5, 10**6), tuple(loaded["state_dict"][name].shape)))
        loaded["state_dict"][name] = torch.zeros(()).expand(shape)
    elif what == 5:
        loaded["hook"] = _Call(print, "this must not run")
    else:
        holders = _holders({name: loaded[name] for name in loaded if name != "state_dict"})
        holder = chance.choice([loaded, *holders])
        if holder:
            key = chance.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
            tensors = (torch.zeros(3), torch.tensor(float("nan")))
            cyclic: list[object] = []
            cyclic.append(cyclic)
            holder[key] = copy.deepcopy(chance.choice((*HOSTILE, *tensors, cyclic, {1, 2}, 1j)))
    file = io.BytesIO()
    torch.save(loaded, file, _use_new_zipfile_serialization=chance.random() < 0.8)
    return file.getvalue()


class _Call:
    """A call that a pickle makes when it is loaded."""

    def __init__(self, function: Any, argument: object) -> None:
        self.call = function, (argument,)

    def __reduce__(self) -> Any:
        return self.call


def _inflating(content: bytes, mebibytes: int) -> bytes:
    """The same archive with its records compressed, the first of the tensors' inflating to so much."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new:
        for record in old.infolist():
            bomb = record.filename.endswith("data/0")
            new.writestr(record.filename, bytes(mebibytes << 20) if bomb else old.read(record))
    return file.getvalue()


def _holders(content: object) -> list[Any]:
    """Every list and dictionary in it."""
    found: list[Any] = []
    pending = [content]
    while pending:
        value = pending.pop()
        if isinstance(value, dict | list):
            found.append(value)
            pending.extend(value.values() if isinstance(value, dict) else value)
    return [holder for holder in found if holder or isinstance(holder, dict)]

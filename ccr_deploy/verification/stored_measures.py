"""Measurements of a batch as records, which JSON holds without loss."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from ccr_deploy.core.records import Record
from ccr_deploy.verification.measures import (
    TOTALS,
    AnswerMeasures,
    CodeMeasures,
    Comparison,
    LogitMeasures,
    MatrixMeasures,
    Measures,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ccr_deploy.verification.results import Way

Table = Literal["codes", "logits", "answers", "matrix"]
_KINDS: Mapping[Table, type] = {
    "codes": CodeMeasures,
    "logits": LogitMeasures,
    "answers": AnswerMeasures,
    "matrix": MatrixMeasures,
}
"""The class of the measurements in each table of `Measures`."""


class StoredArrays(Record, frozen=True):
    """One entry of a table of `Measures`: its key, and its arrays by name, integers apart from others."""

    table: Table
    key: tuple[str, ...]
    integers: dict[str, int | list[int]]
    numbers: dict[str, list[float]]


def to_stored(measures: Measures) -> tuple[StoredArrays, ...]:
    """Return measurements as records."""
    return tuple(
        _stored(cast("Table", table.name), key, found)
        for table in fields(Measures)
        for key, found in getattr(measures, table.name).items()
    )


def from_stored(stored: Sequence[StoredArrays], images: int, like: Measures | None) -> Measures:
    """Return the measurements in records.

    Args:
        stored: the records.
        images: number of images that they are of.
        like: measurements with the tables, keys and counts that they must have; None to accept any.

    Raises:
        ValueError: if an array is missing, or has another length.
    """
    tables: dict[str, dict[Any, Any]] = {table: {} for table in _KINDS}
    for entry in stored:
        try:
            arrays = {name: np.asarray(values, np.int64) for name, values in entry.integers.items()}
            numbers = {name: np.asarray(values, np.float64) for name, values in entry.numbers.items()}
        except OverflowError as error:
            raise ValueError(f"{entry.table}: a number is too large") from error
        kind = _KINDS[entry.table]
        found = {**arrays, **numbers}
        if set(found) != {field.name for field in fields(kind)}:
            raise ValueError(f"{entry.table}: other measurements than those of this version")
        for name, values in found.items():
            if name not in TOTALS and values.shape != (images,):
                raise ValueError(f"{entry.table} {name}: {values.size} values for {images} images")
        tables[entry.table][_key(entry)] = kind(**found)
    measures = Measures(**tables)
    if like and _shape(measures) != _shape(like):
        raise ValueError("other ways or counts than those of the first batch")
    return measures


def _stored(table: Table, key: Any, found: Any) -> StoredArrays:  # noqa: ANN401 -- differ by table
    arrays = vars(found).items()
    return StoredArrays(
        table=table,
        key=_words(key),
        integers={name: array.tolist() for name, array in arrays if array.dtype.kind != "f"},
        numbers={name: array.tolist() for name, array in arrays if array.dtype.kind == "f"},
    )


def _words(key: str | tuple[Any, ...]) -> tuple[str, ...]:
    """Return a key as one tuple: that of logits holds a `Comparison`."""
    return (key,) if isinstance(key, str) else tuple(word for part in key for word in _words(part))


def _key(entry: StoredArrays) -> object:
    lengths = {"codes": 2, "logits": 3, "answers": 1, "matrix": 2}
    if len(entry.key) != lengths[entry.table]:
        raise ValueError(f"{entry.table}: a key of {len(entry.key)} words")
    if entry.table == "answers":
        return entry.key[0]
    if entry.table == "matrix":
        return entry.key
    pair = Comparison(*(cast("Way", way) for way in entry.key[-2:]))
    return pair if entry.table == "codes" else (entry.key[0], pair)


def _shape(measures: Measures) -> object:
    return [
        (table.name, key, [array.shape for name, array in vars(found).items() if name in TOTALS])
        for table in fields(Measures)
        for key, found in getattr(measures, table.name).items()
    ]

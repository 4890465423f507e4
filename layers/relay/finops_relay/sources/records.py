"""What a source gives, whichever it is: one record after another, every value as text."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeVar

Item = TypeVar("Item")

MAX_RECORDS = 5_000_000
"""Of one read: more is a list without an end."""
MAX_BYTES = 10_000_000_000
"""Of all pages of one read together, of which one at a time is in memory."""
MAX_DIGITS = 400
"""Of a number written out: ``1e999999999`` is eleven bytes of JSON, and a gigabyte of zeros."""

_NO_TEXT = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True)
class Record:
    """One row, entity or item of a source."""

    number: int
    """1-based, in the order read."""
    name: str
    """How a person finds it at the source: a ``sys_id``, an entity's reference, ``item 17``."""
    values: Mapping[str, str]
    """By column, never trimmed; empty where there is nothing, or no text."""
    problem: str = ""
    """Why a value is no text, by column; empty when all are."""


def record_of(number: int, name: str, item: Item, readers: Mapping[str, Callable[[Item], object]]) -> Record:
    """Return the record of an *item*; a reader that raises ValueError has found a problem of its column."""
    values: dict[str, str] = {}
    problems: list[str] = []
    for column, read in readers.items():
        try:
            values[column] = text_of(read(item))
        except ValueError as error:
            values[column] = ""
            problems.append(f"column {column!r}: {error}")
    return Record(number, name, values, "; ".join(problems))


def text_of(value: object) -> str:
    """Return *value* as text: numbers to the last digit and without an exponent, null as nothing.

    Raises:
        ValueError: it is a list or an object, a number without end, or cannot be written as UTF-8.
    """
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case str():
            return _plain(value)
        case int() | float() | Decimal():
            return _digits(value)
        case list():
            msg = "it is a list, where one value is wanted"
        case dict():
            msg = "it is an object, where one value is wanted"
        case _:
            msg = "it is no value"
    raise ValueError(msg)


def _plain(text: str) -> str:
    """Return *text*. Raises ValueError."""
    if _NO_TEXT.search(text):
        msg = "it holds NUL or half a surrogate pair, which is no text"
        raise ValueError(msg)
    return text


def _digits(number: float | Decimal) -> str:
    """Return *number* written out. Raises ValueError."""
    if isinstance(number, int):
        fits = number.bit_length() < MAX_DIGITS * 3  # 3.3 bits a digit
        exact = Decimal(number) if fits else Decimal("NaN")
    else:
        exact = Decimal(repr(number)) if isinstance(number, float) else number
    exponent = exact.as_tuple().exponent
    if not isinstance(exponent, int) or max(abs(exact.adjusted()), abs(exponent)) > MAX_DIGITS:
        msg = f"it is a number of more than {MAX_DIGITS} digits, or none"
        raise ValueError(msg)
    return f"{exact:f}"

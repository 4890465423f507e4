"""JSON with exact numbers: read as decimals, summed and written as plain digits, never by way of a double."""

from __future__ import annotations

import json
import re
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import Any

_EXACT = Context(prec=2000, Emax=9999, Emin=-9999, traps=[Inexact, InvalidOperation])
_LARGEST_EXPONENT = 308
"""A double's: a number beyond it is none that the vendor could read."""
_SMALLEST_EXPONENT = -400
_MARKED = re.compile(r'"\\ue000(-?[0-9.]+)\\ue000"')
"""How a decimal stands in the encoder's output; the character is for private use, and no API has use for it."""


def parse(text: str | bytes) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Read JSON; every number is a `Decimal`.

    Raises:
        ValueError: It is no JSON, or holds a number that is none or beyond a double's range.
    """
    return json.loads(text, parse_float=_number, parse_int=_number, parse_constant=_refuse)


def dump(value: object) -> str:
    """Write JSON without blanks, decimals as plain digits."""
    return _MARKED.sub(r"\1", json.dumps(value, default=_mark, separators=(",", ":")))


def plain(value: Decimal) -> str:
    """Write a number without an exponent and without needless zeros."""
    text = format(value, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in {"-0", ""} else text


def total(one: Decimal, other: Decimal) -> Decimal:
    """Add without rounding."""
    return _EXACT.add(one, other)


def _number(text: str) -> Decimal:
    value = Decimal(text)
    if value and not _SMALLEST_EXPONENT <= value.adjusted() <= _LARGEST_EXPONENT:
        raise ValueError(f"{text[:40]} is beyond the range of a number.")
    return value


def _refuse(text: str) -> object:
    raise ValueError(f"{text} is not a number.")


def _mark(value: object) -> str:
    if not isinstance(value, Decimal):
        raise TypeError(f"{type(value).__name__} is not JSON")
    return f"\ue000{plain(value)}\ue000"

"""One record of telemetry: what it must have under either contract, and which records are one and the same.

Records that agree in period, element and dimensions are one record at the vendor, so they are added up before they
are sent (contract page, "Telemetry"). A period is written as the hours since the epoch at which it begins.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

from finops_relay.formats.cost_cells import MAX_DIGITS, SUM_CONTEXT, CellFault

METRIC, ALLOCATION = KINDS = ("metric", "allocation")
HOURLY, DAILY, MONTHLY = GRANULARITIES = ("HOURLY", "DAILY", "MONTHLY")
ELEMENT = "element_name"
MAX_KEYS = 5
"""Dimensions of a stream (contract page)."""
MAX_VALUES = 20
"""Of one dimension of an allocation record under `live`."""
MAX_TEXT = 1_000
"""Characters of a name or a value. CloudZero states no limit; beyond this it is a mistake."""
SIGNIFICANT = 15
"""Digits of a value under `live` (contract page)."""
MAX_STREAM = 256
FIRST_YEAR, LAST_YEAR = 2000, 2100

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR = timedelta(hours=1)
_stream = re.compile(rf"[A-Za-z0-9_.-]{{1,{MAX_STREAM}}}").fullmatch
_number = re.compile(r"[-+]?(?:[0-9]{1,60}(?:\.[0-9]{0,60})?|\.[0-9]{1,60})(?:[eE][-+]?[0-9]{1,2})?").fullmatch
_are_live = re.compile(
    rf"(?:(?![0.]+\n)(?:[0-9]{{1,{SIGNIFICANT}}}+|(?=[0-9.]{{3,{SIGNIFICANT + 1}}}\n)[0-9]++\.[0-9]++)\n)*+"
).fullmatch
_are_plain = re.compile(rf"(?:[0-9]{{1,{MAX_DIGITS}}}+(?:\.[0-9]{{1,{MAX_DIGITS}}}+)?\n)*+").fullmatch
"""Columns of values as they mostly are, a line end behind each: read at once. Others are looked at one by one."""
_decimal = SUM_CONTEXT.create_decimal  # as exact as Decimal() within these digits, and a fifth faster
_unshown = re.compile("[\x00-\x1f\x7f\ud800-\udfff]").search
_is_plain = re.compile(rf"[!-{{}}~](?:[ -{{}}~]{{0,{MAX_TEXT - 2}}}[!-{{}}~])?").fullmatch
"""A label as it mostly is, without a bar: needs no other check."""
_TIME_FIX = "write it with its offset, such as 2026-03-01T05:00:00Z"
_VALUE_FIX = "write a number with a point before the decimals, such as 12.5"

Labels = tuple[str, ...]
"""The values of a record's dimensions in the order of its stream's keys; where the contract wants an element's name,
that comes first. Several values of one dimension stand in one text, sorted, with bars between them."""


class Ident(NamedTuple):
    """What makes two records of a stream the same one."""

    period: int
    """Hours since the epoch, UTC, at which it begins."""
    labels: Labels


@dataclass(slots=True)
class Total:
    """What the rows of one record add up to."""

    value: Decimal
    rows: int
    line: int
    """Of the first of them."""

    def add(self, value: Decimal) -> None:
        """Count one more row."""
        self.value = SUM_CONTEXT.add(self.value, value)
        self.rows += 1


@dataclass(frozen=True)
class Shape:
    """What the first record of a stream freezes."""

    granularity: str
    keys: tuple[str, ...]
    """Names of its dimensions, sorted."""

    def __str__(self) -> str:
        """Say it to a person."""
        return f"{self.granularity} with the keys {', '.join(self.keys) or '(none)'}"


@dataclass(frozen=True)
class Dialect:
    """What a tenant's contract wants of the records of one kind."""

    kind: str
    """One of :data:`KINDS`."""
    live: bool
    """The vendor's own contract; else `openapi`."""

    @property
    def named(self) -> bool:
        """Whether a record has an element's name beside its dimensions."""
        return self.live and self.kind == ALLOCATION

    @property
    def several(self) -> bool:
        """Whether a dimension may have several values."""
        return self.live and self.kind == ALLOCATION

    def rolls(self, shape: Shape) -> bool:
        """Whether records of this *shape* are hours that are added up to days before they are sent."""
        return self.live and self.kind == METRIC and shape.granularity == HOURLY


def is_stream(name: str) -> bool:
    """Whether *name* can be a stream's."""
    return _stream(name) is not None and set(name) != {"."}


def moment_of(period: int) -> datetime:
    """When a *period* begins, UTC."""
    return _EPOCH + period * _HOUR


def day_of(period: int) -> str:
    """The day, UTC, on which a *period* begins."""
    return moment_of(period).date().isoformat()


def period_of(timestamp: str, granularity: str) -> tuple[int, bool]:
    """The period that a *timestamp* is in, and whether the timestamp was somewhere after its beginning.

    Raises:
        CellFault: it is no time with an offset.
    """
    written = timestamp.strip()
    if not written:
        raise CellFault("timestamp is empty", _TIME_FIX)
    try:
        moment = datetime.fromisoformat(written.upper())
    except ValueError:
        raise CellFault("timestamp is no ISO 8601 time", _TIME_FIX) from None
    if moment.tzinfo is None:
        raise CellFault("timestamp has no offset from UTC", _TIME_FIX)
    if not FIRST_YEAR < moment.year < LAST_YEAR:
        raise CellFault(f"timestamp is not between {FIRST_YEAR} and {LAST_YEAR}", "correct the year")
    moment = moment.astimezone(UTC)
    start = moment.replace(minute=0, second=0, microsecond=0)
    if granularity != HOURLY:
        start = start.replace(hour=0)
    if granularity == MONTHLY:
        start = start.replace(day=1)
    return (start - _EPOCH) // _HOUR, start != moment


def granularity_of(text: str) -> str:
    """One of :data:`GRANULARITIES`. Raises CellFault."""
    found = text.strip().upper()
    if found not in GRANULARITIES:
        raise CellFault("granularity is none of HOURLY, DAILY and MONTHLY", "write one of them")
    return found


def value_of(text: str, dialect: Dialect) -> Decimal:
    """How much, exact. Raises CellFault."""
    written = text.strip()
    if not _number(written):
        raise CellFault("value is no plain number" if written else "value is empty", _VALUE_FIX)
    value = Decimal(written)
    digits = value.as_tuple()
    exponent = digits.exponent
    if not isinstance(exponent, int) or value.adjusted() >= MAX_DIGITS or exponent < -MAX_DIGITS:
        raise CellFault(f"value has more than {MAX_DIGITS} digits before or behind the point", _VALUE_FIX)
    if dialect.live and value <= 0:
        raise CellFault("value is not more than 0, which CloudZero demands", "to set 0, delete the record")
    if dialect.live and significant(value) > SIGNIFICANT:
        raise CellFault(f"value has more than {SIGNIFICANT} significant digits", "round it")
    return SUM_CONTEXT.plus(value)  # the same, but for -0, which becomes 0


def values_of(texts: Sequence[str], dialect: Dialect) -> list[Decimal]:
    """A whole column of values, each as :func:`value_of` reads it. Raises CellFault."""
    joined = "\n".join(texts) + "\n"
    plain = _are_live(joined) if dialect.live else _are_plain(joined)
    if plain and joined.count("\n") == len(texts):
        return list(map(_decimal, texts))
    return [value_of(text, dialect) for text in texts]


def significant(value: Decimal) -> int:
    """How many significant digits *value* has."""
    return len("".join(map(str, value.as_tuple().digits)).strip("0"))


def keys_of(names: Iterable[str], dialect: Dialect, *, element: bool) -> tuple[str, ...]:
    """The keys of records with dimensions of these *names*, sorted; *element* says whether they name an element, too.

    Raises:
        CellFault: there are too many, or one cannot be sent.
    """
    found = sorted(names)
    if element and not dialect.live:  # this contract has one place for both
        if ELEMENT in found:
            raise CellFault(f"{ELEMENT} stands twice", "keep one of the two")
        found = sorted([*found, ELEMENT])
    for name in found:
        if not name or name != name.strip() or len(name) > MAX_TEXT or _unshown(name):
            raise CellFault(f"a dimension is called {name[:60]!a}", "write a name of visible characters")
    if len(found) > MAX_KEYS:
        raise CellFault(f"a record has more than {MAX_KEYS} dimensions", f"keep the {MAX_KEYS} that matter")
    return tuple(found)


def labels_of(keys: Iterable[str], values: Mapping[str, str], element: str, dialect: Dialect) -> Labels:
    """The labels of one record.

    Args:
        keys: as :func:`keys_of` gave them.
        values: of its dimensions, by name.
        element: its name; empty for none.
        dialect: of the contract.

    Raises:
        CellFault: one is missing, or cannot be sent.
    """
    element = element_of(element, dialect)
    given = {**values, ELEMENT: element} if element and not dialect.live else values
    labels = [label_of(key, given.get(key, ""), dialect) for key in keys]
    return (element, *labels) if dialect.named else tuple(labels)


def element_of(text: str, dialect: Dialect) -> str:
    """The name of an element; empty for none. Raises CellFault."""
    element = _shown(ELEMENT, text.strip())
    if element and dialect.kind == METRIC:
        raise CellFault(f"a metric has no {ELEMENT}", f"write it as a dimension, filter.{ELEMENT}")
    if dialect.named and not element:
        raise CellFault(f"{ELEMENT} is empty, and CloudZero demands it", "write whose share the record is")
    return element


def label_of(key: str, text: str, dialect: Dialect) -> str:
    """The value of the dimension *key*. Raises CellFault."""
    if _is_plain(text):
        return text
    value = _shown(key, text.strip())
    if not value:
        raise empty(key)
    if dialect.kind == METRIC or "|" not in value:
        return value
    if not dialect.several:
        raise CellFault(f"{key} has several values, and CloudZero takes one", "write a record for each")
    values = sorted({part.strip() for part in value.split("|")})
    if not values[0]:
        raise CellFault(f"{key} has an empty value between its bars", "write each value, such as a|b")
    if len(values) > MAX_VALUES:
        raise CellFault(f"{key} has more than {MAX_VALUES} values", "write fewer")
    return "|".join(values)


def empty(key: str) -> CellFault:
    """What is wrong with a record without a value for one of its *key*s."""
    return CellFault(f"{key} is empty, and all records of a stream have its keys", "write its value")


def _shown(name: str, text: str) -> str:
    if len(text) > MAX_TEXT:
        raise CellFault(f"{name} has more than {MAX_TEXT:,} characters", "shorten it")
    if _unshown(text):
        raise CellFault(f"{name} has a control character, or bytes that are not UTF-8", "delete it")
    return text


def differing(found: Shape, stream: Shape) -> CellFault:
    """What is wrong with a record of another shape than its stream's."""
    if found.keys == stream.keys:
        shown, wanted = found.granularity, stream.granularity
    else:
        shown, wanted = str(found), str(stream)
    return CellFault(
        f"the record is {shown}, and the stream {wanted}: its first record has set that for good",
        "write it so, or use a new stream; deleting the stream (delete/stream.json) frees its name",
    )

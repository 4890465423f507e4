"""One cell of a cost file at a time: money, times, types, regions, resources and tags, read without guessing.

Each reader gives what the Common Bill Format wants, or raises a :class:`CellFault` that says what to write instead.
The readers are slow and the same values come again and again, so each is asked through a :class:`Cells`.
"""

from __future__ import annotations

import calendar
import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Context, Decimal, InvalidOperation
from typing import Generic, NamedTuple, TypeVar

Key = TypeVar("Key", str, tuple[str, str])
Value = TypeVar("Value")

CACHED_CHARS = 2_000_000
"""Text that one cache holds before it begins anew: with its values at most some 16 MB, whatever a file holds."""

CACHED_TEXT_CHARS = 4_000
"""Longest text that is kept: longer ones (some maps of tags) hardly come twice."""


class CellFault(Exception):
    """A row cannot be delivered as it stands; becomes a rejected row, or a refused file.

    Args:
        error: what is wrong, in one sentence without a full stop.
        fix: what the person should write instead.
        whole_file: whether no other row of the file can be delivered either.
    """

    def __init__(self, error: str, fix: str, *, whole_file: bool = False) -> None:
        super().__init__(error)
        self.error = error
        self.fix = fix
        self.whole_file = whole_file


class Cells(dict[Key, Value], Generic[Key, Value]):
    """What *read* makes of a text or a pair of texts, remembered in bounded memory; faults are not remembered.

    Raises:
        CellFault: whatever *read* raises, when a text is looked up.
    """

    def __init__(self, read: Callable[[Key], Value]) -> None:
        super().__init__()
        self._read: Callable[[Key], Value] = read
        self._chars = 0

    def __missing__(self, key: Key) -> Value:
        value = self._read(key)
        chars = len(key) if isinstance(key, str) else sum(map(len, key))
        if chars <= CACHED_TEXT_CHARS:
            self._chars += chars
            if self._chars > CACHED_CHARS:
                self.clear()
                self._chars = chars
            self[key] = value
        return value

    def column(self, name: str, keys: Iterable[Key]) -> list[Value]:
        """The values of a whole column.

        Raises:
            CellFault: of one of its cells, with the column's *name* in front.
        """
        try:
            return list(map(self.__getitem__, keys))
        except CellFault as fault:
            raise CellFault(f"{name} {fault.error}", fault.fix) from None


# --- money and amounts ------------------------------------------------------------------------------------------------

MAX_DIGITS = 30
"""Digits before and behind the point: beyond is a mistake. As the client's models have it (cloudzero/records.py)."""

_DIGITS = f"[0-9]{{1,{MAX_DIGITS}}}+"
_PLAIN = rf"-?{_DIGITS}(?:\.{_DIGITS})?"
_is_plain = re.compile(_PLAIN).fullmatch
_are_plain = re.compile(rf"(?:(?:{_PLAIN})?\n)*+").fullmatch

_LOCAL_ZERO = re.compile(r"(?:US)?\$\s*-").fullmatch
"""How spreadsheets show 0 in their accounting format."""

_LOCAL = re.compile(
    r"(?P<open>\()?(?P<sign>[-+])?\s*(?:(?:US)?\$\s*)?(?P<open2>\()?(?P<sign2>[-+])?"
    r"(?P<number>[0-9][0-9,]*\.?[0-9]*|\.[0-9]+)(?P<close>\))?"
).fullmatch
"""A number with what people and spreadsheets put around it; what its commas mean is judged apart."""

_GROUPED = re.compile(r"[1-9][0-9]{0,2}(?:(?:,[0-9]{3})+\.[0-9]*|(?:,[0-9]{3}){2,})").fullmatch
"""Thousands separators that can be nothing else: several of them, or one with a decimal point behind it."""

_EXPONENT = re.compile(r"[-+]?[0-9]{1,60}(?:\.[0-9]{1,60})?[eE][-+]?[0-9]{1,2}").fullmatch

_PLAIN_FIX = "write digits with a point before the decimals, such as 1200.50 or -0.0125"

_NUMBER_FAULTS: tuple[tuple[str, str, str], ...] = (
    (r"[-+]?(nan|inf|infinity)", "is no finite number", "write the amount, or leave the cell empty"),
    (r"-", "is a dash", "write 0, or leave the cell empty if there is no amount"),
    (r".*[€£¥₹].*|.*[a-z]{3}.*[0-9].*|.*[0-9]\s*[a-z]{3}", "has a currency", "write US dollars, the number alone"),
    (r"[-+(]?\$?\s*[0-9]{1,3},[0-9]{3}\)?", "may have a decimal comma or a thousands separator", _PLAIN_FIX),
    (r".*[0-9]\.[0-9]{3}(\.[0-9]{3})*,[0-9]+.*|.*[0-9],[0-9].*", "has a comma that is not clear", _PLAIN_FIX),
    (r".*[0-9]\s+[0-9].*", "has spaces in it", _PLAIN_FIX),
    (r".*[0-9]+%", "is a percentage", "write the amount itself"),
)
"""What is wrong with an amount, by pattern; the first that fits is told."""


SUM_CONTEXT = Context(prec=100)
"""Exact for 30 digits behind the point, 30 before it, and more rows than there are atoms on earth."""

_decimal = SUM_CONTEXT.create_decimal  # as exact as Decimal() within these digits, and a fifth faster


class Amounts(NamedTuple):
    """A column of amounts."""

    texts: Sequence[str]
    """Plain decimals; blank where there is none."""

    values: Sequence[Decimal | None]
    """The same as numbers, exact; None for blank."""


def read_amounts(name: str, column: Sequence[str], cells: Cells[str, str]) -> Sequence[str]:
    """A whole column of amounts as plain decimals.

    One search says whether they are all plain, and only in a column where they are not is each looked at.

    Args:
        name: the column's name, for messages.
        column: its cells.
        cells: what :func:`plain_decimal` makes of a cell.

    Raises:
        CellFault: a cell is neither blank nor an amount whose meaning is clear.
    """
    joined = "\n".join(column) + "\n"
    if _are_plain(joined) and joined.count("\n") == len(column):
        return column
    return cells.column(name, column)


def with_values(texts: Sequence[str]) -> Amounts:
    """Plain decimals with what they are worth."""
    if all(texts):
        return Amounts(texts, list(map(_decimal, texts)))
    return Amounts(texts, [_decimal(text) if text else None for text in texts])


def plain_decimal(text: str) -> str:
    """An amount as digits with at most one point and a minus sign; blank stays blank, and zero is never blank.

    ``$ 1,200.00``, ``(12.50)`` and ``1E-7`` are read; ``1,200`` is not, because it is 1.2 in half of the world.

    Raises:
        CellFault: it is no number, or may be more than one.
    """
    bare = text.strip()
    if not bare or _is_plain(bare):
        return bare
    plain = _from_local(bare) or _from_exponent(bare)
    if plain is None:
        raise _number_fault(bare)
    if not _is_plain(plain):
        raise CellFault(
            f"has more than {MAX_DIGITS} digits before or behind the point", "round it, or write fewer zeros"
        )
    return plain


def _from_local(text: str) -> str | None:
    """The plain form of a number with a dollar sign, brackets for minus, or clear thousands separators."""
    if _LOCAL_ZERO(text):
        return "0"
    found = _LOCAL(text)
    if found is None:
        return None
    number = found["number"]
    signs = (found["sign"] or "") + (found["sign2"] or "")
    brackets = (found["open"] or "") + (found["open2"] or "") + (found["close"] or "")
    if brackets not in {"", "()"} or len(signs + brackets[:1]) > 1 or ("," in number and not _GROUPED(number)):
        return None
    whole, _, decimals = number.replace(",", "").partition(".")
    negative = brackets or signs == "-"
    return ("-" if negative else "") + (whole or "0") + (f".{decimals}" if decimals else "")


def _from_exponent(text: str) -> str | None:
    """The plain form of a number in exponent form."""
    if not _EXPONENT(text):
        return None
    try:
        return format(Decimal(text), "f")
    except InvalidOperation:  # pragma: no cover -- the expression lets nothing through that Decimal does not read
        return None


def _number_fault(text: str) -> CellFault:
    for pattern, error, fix in _NUMBER_FAULTS:
        if re.fullmatch(pattern, text, re.DOTALL | re.IGNORECASE):
            return CellFault(error, fix)
    return CellFault("is not a plain decimal number", _PLAIN_FIX)


# --- times ------------------------------------------------------------------------------------------------------------

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 -- all times are UTC once they are read, and naive ones count faster
_HOUR = timedelta(hours=1)

_TIME = re.compile(
    r"(?P<day>\d{4}-\d{2}-\d{2})"
    r"(?:[T ](?P<time>\d{2}:\d{2}(?::\d{2})?)(?P<fraction>[.,]\d+)?"
    r"\s?(?P<zone>Z|UTC|(?P<sign>[+-])(?P<hours>[01]\d|2[0-3])(?::?(?P<minutes>[0-5]\d))?)?)?",
    re.ASCII,
).fullmatch
"""ISO 8601 as exports write it; ``2026-02-01 00:00:00 UTC`` is BigQuery's."""


class Times:
    """Reads the times of one file for one month.

    Args:
        month: the first day of the month that every row must be in.
        naive: whether a time without an offset is UTC; otherwise it is rejected.
        floored: whether a start within an hour counts for that hour; otherwise it is rejected.

    Raises:
        ValueError: *month* is no first day of a month.
    """

    def __init__(self, month: date, *, naive: bool, floored: bool) -> None:
        if month.day != 1:
            msg = "a month is named by its first day"
            raise ValueError(msg)
        self._naive = naive
        self._floored = floored
        first = datetime(month.year, month.month, 1)  # noqa: DTZ001 -- as _EPOCH
        self._month = first
        start = (first - _EPOCH) // _HOUR
        self._hours = range(start, start + 24 * calendar.monthrange(month.year, month.month)[1])
        self.hours: Cells[str, int] = Cells(self._hour)
        """The hour of a start, in hours since the epoch, UTC."""
        self.moments: Cells[str, str] = Cells(self._moment)
        """Any time as ``YYYY-MM-DDTHH:MM:SSZ``, without fractions of a second; blank stays blank."""
        self.texts = {hour: _shown(_EPOCH + hour * _HOUR) for hour in self._hours}
        """Each hour of the month in the same form."""

    def _hour(self, text: str) -> int:
        if not text.strip():
            raise CellFault("is empty", "write the hour in which the cost arose, such as 2026-02-01T13:00:00Z")
        moment, fraction = self._read(text)
        if not self._floored and (fraction or moment.minute or moment.second):
            raise CellFault(
                f"is not on the hour ({_shown(moment)} in UTC)", "write the hour in which it lies, UTC: …T13:00:00Z"
            )
        hour = (moment - _EPOCH) // _HOUR
        if hour not in self._hours:
            raise CellFault(
                f"is not in the month {self._month:%Y-%m} ({_shown(moment)} in UTC)",
                f"move the row to a file in the folder of its month, {moment.year:04d}-{moment.month:02d}, or mend it",
            )
        return hour

    def _moment(self, text: str) -> str:
        return _shown(self._read(text)[0]) if text.strip() else ""

    def _read(self, text: str) -> tuple[datetime, bool]:
        """The moment in UTC, to the second, and whether there is more behind the second."""
        found = _TIME(text.strip())
        if found is None:
            raise CellFault("is no ISO 8601 time", "write it as 2026-02-01T13:00:00Z")
        if found["zone"] is None and not self._naive:
            raise CellFault("has no offset from UTC", "write Z behind a time in UTC: 2026-02-01T13:00:00Z")
        try:
            moment = datetime.fromisoformat(f"{found['day']}T{found['time'] or '00:00'}")
            if found["sign"]:
                offset = timedelta(hours=int(found["hours"]), minutes=int(found["minutes"] or 0))
                moment += -offset if found["sign"] == "+" else offset
        except (ValueError, OverflowError):
            raise CellFault("is a time that there is not", "write it as 2026-02-01T13:00:00Z") from None
        return moment, bool((found["fraction"] or "").strip(".,0"))


def _shown(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds") + "Z"


# --- types, regions, resources, tags ----------------------------------------------------------------------------------

LINE_TYPES = (
    "Usage",
    "Tax",
    "Support",
    "Purchase",
    "CommittedUsePurchase",
    "Discount",
    "Credit",
    "Fee",
    "Adjustment",
)
"""``lineitem/type`` as the stream takes it (contract page)."""

_BUCKET_ONLY_TYPES = {"CommittedUseVacancy": "Usage", "CommittedUseRecurringFee": "Fee"}
"""Types that the format knows and the stream's own schema lacks, and what to write instead."""


def line_type(text: str) -> str:
    """A ``lineitem/type``; blank stays blank, which is Usage.

    Raises:
        CellFault: the stream takes no such type.
    """
    bare = text.strip()
    if not bare or bare in LINE_TYPES:
        return bare
    if bare in _BUCKET_ONLY_TYPES:
        raise CellFault(f"is {bare}, which a stream does not take", f"write {_BUCKET_ONLY_TYPES[bare]} instead")
    near = nearest(bare, LINE_TYPES)
    fix = f"write {near}" if near else f"write one of {', '.join(LINE_TYPES)}"
    raise CellFault("is no type of the Common Bill Format", fix)


def region(text: str) -> str:
    """A region; ``global`` becomes ``no-region``, which is what CloudZero calls it."""
    bare = text.strip()
    return "no-region" if bare.casefold() == "global" else bare


_RESOURCE_FIX = "write it as type/name, such as instance/i-0abc"
_SEPARATORS = re.compile("[:/]")


def resource_id(text: str) -> str:
    """A ``resource/id`` as ``type/name``; one with more segments is converted, because CloudZero drops all but two.

    ``arn:aws:ec2:eu-west-1:123:instance/i-1`` becomes ``ec2/eu-west-1_123_instance_i-1``: left as it is, it would be
    read as ``arn/aws``, as would be every other resource.

    Raises:
        CellFault: it has one segment only.
    """
    bare = text.strip()
    if not bare:
        return ""
    segments = _SEPARATORS.split(bare)
    if len(segments) == 2 and all(map(str.strip, segments)):  # noqa: PLR2004 -- type and name
        return bare
    if segments[0] == "arn" and ":" in bare:
        segments = segments[2:]  # behind arn and the partition
    kept = list(filter(None, map(str.strip, segments)))
    if len(kept) < 2:  # noqa: PLR2004 -- type and name
        raise CellFault("has no type and name", _RESOURCE_FIX)
    return f"{kept[0]}/{'_'.join(kept[1:])}"


def segment(text: str) -> str:
    """*text* as one of the two segments of a ``resource/id``: what would separate more of them becomes ``_``."""
    return "_".join(filter(None, map(str.strip, _SEPARATORS.split(text))))


TAG = "resource/tag:"
"""What the name of a tag's column begins with."""

_TAG_OTHER = re.compile(r"[^A-Za-z0-9_.:/=+@-]").search
"""Any character that a tag's key may not have (contract page)."""


def check_tag_key(key: str) -> None:
    """Checks the key of a tag.

    Raises:
        CellFault: it is empty or has a character that CloudZero does not take.
    """
    if not key:
        raise CellFault("a tag has no key", "write a key of letters, digits and _ . : / = + - @")
    found = _TAG_OTHER(key)
    if found:
        other = "white space" if found[0].isspace() else repr(found[0])
        shown = key if len(key) <= 60 else key[:57] + "..."  # noqa: PLR2004 -- enough to find it
        raise CellFault(
            f"the key of the tag {shown!r} has {other} in it", "use letters, digits and _ . : / = + - @ only"
        )


class Tags(dict[str, str]):
    """The tags of one row under their full names, in order; many rows share one object."""

    __slots__ = ("json",)

    def __init__(self, tags: Mapping[str, str]) -> None:
        super().__init__(tags)
        self.json = "".join([f',"{name}":"{escaped(value)}"' for name, value in tags.items()])
        """The members of a JSON object, with a comma before each."""


_ESCAPED = str.maketrans({'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})


def escaped(text: str) -> str:
    """A text without control characters but tabs and line ends, as it stands between the quotes of a JSON text."""
    return text.translate(_ESCAPED)


def all_escaped(column: Sequence[str]) -> Sequence[str]:
    """A whole column of such texts."""
    joined = "".join(column)
    if '"' in joined or "\\" in joined or "\n" in joined or "\t" in joined or "\r" in joined:
        return list(map(escaped, column))
    return column


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that somebody who wrote *name* may have meant."""
    by_case = {other.casefold(): other for other in known}
    found = difflib.get_close_matches(name[:100].casefold(), by_case, n=1, cutoff=0.6)
    return by_case[found[0]] if found else None

"""Lists of allowed values as people keep them: CSV with a header, JSON, or one value a line.

Nothing is normalised here: each row gives the value as it stood, with the line that names it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from finops_relay.errors import InputRefused
from finops_relay.formats.cost_records import Mending
from finops_relay.formats.csv_rows import Readable, RecordReader, is_blank
from finops_relay.formats.json_items import DECODER, ESCAPED_HALF, HALF, Doubled, escaped, scalar_text

MAX_BYTES = 10_000_000
"""Of a list: what a policy holds is read back whole, and a JSON document is held as objects, ten times as large."""
MAX_ROWS = 250_000
SUFFIXES = (".csv", ".json", ".txt")
VALUE_COLUMNS = frozenset({"value", "values", "allowed_value", "allowed_values", "allowedvalues"})
SETTINGS: Mapping[str, type] = {"message": str, "mandatory": bool}
"""What a JSON object may say of its tag beside the values, and of what kind it is."""
MAX_MESSAGE_CHARS = 2_000
"""As in relay.yaml."""
_LIST_NAMES = ("values", "allowed_values", "allowedValues")
_BOM = b"\xef\xbb\xbf"
_LINE_END = re.compile(rb"\r\n|\n|\r")
_JSON_FIX = 'write ["a", "b"], or {"values": ["a", "b"], "message": "…", "mandatory": true}'


@dataclass(frozen=True)
class ValueRow:
    """One row of a list."""

    line: int
    """Physical line, 1-based; of a JSON list the place in it."""
    value: str
    """As it stood; lone surrogates are bytes that are not UTF-8."""
    columns: tuple[str, ...]
    cells: tuple[str, ...]
    """The whole row, for the file of rejected rows."""
    problem: str = ""
    """Why there is no value to be had of it."""
    fix: str = ""
    """What to do about that."""


@dataclass(frozen=True)
class ValueFile:
    """A list that was opened."""

    rows: Iterator[ValueRow]
    settings: dict[str, str | bool] = field(default_factory=dict)
    """What it says of its tag, by our names."""


def open_values(
    name: str, tag: str, stream: Readable, mended: Mapping[int, Mapping[str, str]] | None = None
) -> ValueFile:
    """Open a list by its suffix.

    Args:
        name: the file's, for messages; its suffix says how it is written.
        tag: the tag's key, which a CSV's column may be named after.
        stream: its bytes.
        mended: rows by line that take the place of those in the file, by column.

    Raises:
        InputRefused: it cannot be read as what it says that it is, is too large, or has no column of values; or a
            mended row does not belong to it. Rows raise it too.
    """
    lower = name.lower()
    mending = Mending(name, mended)
    if lower.endswith(".csv"):
        return ValueFile(_csv_rows(name, tag, _Bounded(name, stream), mending))
    text = _Bounded(name, stream).whole()
    if lower.endswith(".json"):
        values, settings = _json_values(name, text.removeprefix(_BOM))
        return ValueFile(_listed(values, mending), settings)
    lines = ((number, line) for number, line in enumerate(_LINE_END.split(text.removeprefix(_BOM)), 1))
    said = ((number, line.decode("utf-8", "surrogateescape")) for number, line in lines if line.strip())
    return ValueFile(_listed(said, mending))


class _Bounded:
    """A stream that refuses to give more than a list may hold."""

    def __init__(self, name: str, stream: Readable) -> None:
        self._name = name
        self._stream = stream
        self._count = 0

    def read(self, size: int, /) -> bytes:
        """At most *size* bytes."""
        data = self._stream.read(size)
        self._count += len(data)
        if self._count > MAX_BYTES:
            reason = f"the list is larger than {MAX_BYTES:,} bytes"
            raise InputRefused(reason, file=self._name, fix="leave out what is no value of the tag")
        return data

    def whole(self) -> bytes:
        """Everything."""
        out = io.BytesIO()
        while data := self.read(1 << 20):
            out.write(data)
        return out.getvalue()


def _csv_rows(name: str, tag: str, stream: Readable, mending: Mending) -> Iterator[ValueRow]:
    header: tuple[str, ...] = ()
    at = 0
    for record in RecordReader(name, stream):
        if is_blank(record.values):
            continue
        if not header:
            header = tuple(record.values)
            at = _column(name, record.line, tag, header)
            mending.check_columns(header)
            continue
        cells = tuple(mending.row(record.line, header, record.values))
        value = cells[at] if at < len(cells) else ""
        surplus = len(cells) > len(header)
        problem = f"the row has {len(cells)} values, the header has {len(header)} names" if surplus else ""
        yield ValueRow(record.line, value, header, cells, problem, "quote a value that has commas" if surplus else "")
    mending.finish()


def _column(name: str, line: int, tag: str, header: tuple[str, ...]) -> int:
    """Return where the values stand. Raises InputRefused."""
    plain = [column.strip().lower() for column in header]
    found = [at for at, column in enumerate(plain) if column in VALUE_COLUMNS]
    found = found or [at for at, column in enumerate(plain) if column == tag.strip().lower()]
    if len(found) == 1:
        return found[0]
    reason = "several columns could be the one of the values" if found else "no column of the first line is named value"
    fix = f"name the column of the allowed values value (or {tag}); a list without a header is dropped as .txt"
    raise InputRefused(reason, file=name, line=line, value=",".join(header), fix=fix)


def _listed(said: Iterator[tuple[int, object]], mending: Mending) -> Iterator[ValueRow]:
    """Yield the rows of a list without columns."""
    header = ("value",)
    mending.check_columns(header)
    for number, found in said:
        value = (mending.take(number) or {}).get("value", found)
        text = scalar_text(value)
        if text is None:
            shown = "an object" if isinstance(value, dict) else "a list"
            yield ValueRow(number, "", header, (shown,), f"item {number} is {shown}, not a value", "write a text")
        elif ESCAPED_HALF.search(text):
            problem = f"item {number} has half of a character"
            yield ValueRow(number, "", header, (escaped(text),), problem, "write the whole character")
        else:
            yield ValueRow(number, text, header, (text,))
    mending.finish()


def _json_values(name: str, text: bytes) -> tuple[Iterator[tuple[int, object]], dict[str, str | bool]]:
    """Return the values of a JSON list, and the settings beside it. Raises InputRefused."""
    try:
        found = DECODER.decode(text.decode())
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise InputRefused("the file is not UTF-8", file=name, line=line, fix="save it as UTF-8") from None
    except RecursionError:
        raise InputRefused("the file is nested too deeply", file=name, fix=_JSON_FIX) from None
    except ValueError as error:
        at: int | None = getattr(error, "lineno", None)
        raise InputRefused("the file is no JSON", file=name, line=at, fix=_JSON_FIX) from None
    settings: dict[str, str | bool] = {}
    if isinstance(found, dict):
        if isinstance(found, Doubled):
            raise InputRefused("a member stands twice", file=name, value=found.name, fix="keep one")
        listed = [key for key in found if key in _LIST_NAMES]
        if len(listed) != 1:
            raise InputRefused("the object has no list of values", file=name, value=", ".join(found), fix=_JSON_FIX)
        settings = {key: _setting(name, key, said) for key, said in found.items() if key not in _LIST_NAMES}
        found = found[listed[0]]
    if not isinstance(found, list):
        raise InputRefused("the values are no list", file=name, value=str(found), fix=_JSON_FIX)
    return enumerate(found, 1), settings


def _setting(name: str, key: str, said: object) -> str | bool:
    """Return a setting of the tag. Raises InputRefused."""
    shown = f"{key}: {said}"
    if not isinstance(said, str | bool) or not isinstance(said, SETTINGS.get(key, ())):
        known = " and ".join(f"{known} ({kind.__name__})" for known, kind in SETTINGS.items())
        reason = f"a member is no setting of a tag, or not of its kind; known are {known}"
        raise InputRefused(reason, file=name, value=shown, fix=_JSON_FIX)
    if isinstance(said, str) and (len(said) > MAX_MESSAGE_CHARS or HALF.search(said)):
        reason = f"the {key} has half of a character, or more than {MAX_MESSAGE_CHARS:,} characters"
        raise InputRefused(reason, file=name, value=shown, fix="write a sentence that says where the values are found")
    return said

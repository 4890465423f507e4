"""Custom properties as Infracost wants them: a CSV whose first column is the key, checked, its bytes left alone.

Source: contract page, "Custom properties". What is sent replaces everything, and nothing can be read back: a file is
judged before it is sent.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from finops_relay.errors import InputRefused
from finops_relay.formats.cost_records import Mending
from finops_relay.formats.csv_rows import Readable, Record, RecordReader, csv_line, is_blank
from finops_relay.formats.json_items import HALF
from finops_relay.formats.rejected_rows import RejectedRow

MAX_BYTES = 20_000_000
"""Of a file: it is held in memory, with what was sent before, and sent as one body."""
MAX_ROWS = 250_000
"""Blank lines included."""
_BOM = b"\xef\xbb\xbf"
Reject = Callable[[RejectedRow], object]


@dataclass
class PropertyFile:
    """A file that was checked."""

    body: bytes
    """What is sent: the file's own bytes wherever nothing had to be mended or left out."""
    header: tuple[str, ...]
    rows: dict[str, str] = field(repr=False)
    """By key: the row as one line of CSV, for comparing."""
    rows_in: int = 0
    rejected: int = 0
    warnings: list[str] = field(default_factory=list)


def whole(name: str, stream: Readable) -> bytes:
    """Return a file's bytes. Raises InputRefused when it is too large."""
    out = io.BytesIO()
    while data := stream.read(1 << 20):
        out.write(data)
        if out.tell() > MAX_BYTES:
            reason = f"the file is larger than {MAX_BYTES:,} bytes"
            raise InputRefused(reason, file=name, fix="leave out what nobody filters or groups by")
    return out.getvalue()


def wire_form(data: bytes) -> tuple[bytes, list[str]]:
    r"""Return the bytes without a byte order mark and with ``\n`` alone as line end, and what was changed."""
    warnings = []
    if data.startswith(_BOM):
        while data.startswith(_BOM):  # a program that adds one without looking makes two
            data = data.removeprefix(_BOM)
        warnings.append("the byte order mark at the beginning was left out")
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        warnings.append("line ends with carriage returns were made \\n, as Infracost wants them")
    return data, warnings


def checked(
    name: str, data: bytes, reject: Reject, mended: Mapping[int, Mapping[str, str]] | None = None
) -> PropertyFile:
    """Check a file in its wire form, row by row.

    Args:
        name: the file's, for messages.
        data: its bytes.
        reject: takes each row that is left out.
        mended: rows by line that take the place of those in the file, by column.

    Raises:
        InputRefused: its header cannot be used, or it is no CSV; or a mended row does not belong to it.
    """
    found = PropertyFile(b"", (), {})
    mending = Mending(name, mended)
    kept, blank = list[bytes](), 0
    for record, raw in _with_bytes(name, data):
        if not record.values:
            kept.append(raw)
            continue
        if is_blank(record.values):  # a spreadsheet's `,,`: Infracost would take it for a row without a key
            blank += 1
            continue
        if not found.header:
            found.header = _header(name, record)
            mending.check_columns(found.header)
            kept.append(raw)
            continue
        found.rows_in += 1
        values = mending.row(record.line, found.header, record.values)
        if values is not record.values:
            values = [value.replace("\r\n", "\n").replace("\r", "\n") for value in values]
            raw = f"{csv_line(values)}\n".encode(errors="surrogateescape")  # noqa: PLW2901 -- a mended row has its own
        fault = _fault(found, values)
        if fault is None:
            found.rows[values[0]] = csv_line(values)
            kept.append(raw)
        else:
            found.rejected += 1
            reject(RejectedRow(record.line, found.header, tuple(values), *fault))
    mending.finish()
    if blank:
        found.warnings.append(f"{blank:,} lines with nothing but commas and blanks were left out")
    found.body = b"".join(kept) if blank or found.rejected or mended else data
    return found


def made(header: Sequence[str], rows: Mapping[str, str]) -> bytes:
    """Return the CSV of rows by key, sorted: the same rows give the same bytes."""
    lines = [csv_line(header), *(rows[key] for key in sorted(rows))]
    return ("\n".join(lines) + "\n").encode()


def meaning_of(data: bytes) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return what a checked file means: its columns, and each key's properties as JSON, whatever their order.

    The same rows under another header are something else, and so is a row whose columns have changed places.
    """
    found = checked("what was prepared", data, lambda _: None)
    columns = tuple(column.strip() for column in found.header)
    return columns, {key: _meaning(columns, line) for key, line in found.rows.items()}


def _meaning(columns: Sequence[str], line: str) -> str:
    values = next(csv.reader(io.StringIO(line, newline="")))
    named = {column: value for column, value in zip(columns[1:], values[1:], strict=True) if value}
    return json.dumps(named, sort_keys=True, ensure_ascii=False)


def _with_bytes(name: str, data: bytes) -> Iterator[tuple[Record, bytes]]:
    """Yield each record with the bytes that it was written in. Raises InputRefused when there are too many."""
    former: Record | None = None
    begin = end = 0
    for number, record in enumerate(RecordReader(name, io.BytesIO(data))):
        if number > MAX_ROWS:
            fix = "leave out what nobody filters or groups by, and blank lines"
            raise InputRefused(f"there are more than {MAX_ROWS:,} lines", file=name, line=record.line, fix=fix)
        if former is not None:
            for _ in range(record.line - former.line):
                end = data.index(b"\n", end) + 1
            yield former, data[begin:end]
            begin = end
        former = record
    if former is not None:
        yield former, data[begin:]


def _header(name: str, record: Record) -> tuple[str, ...]:
    """Return the names of the columns. Raises InputRefused."""
    names = [value.strip() for value in record.values]
    fix = "name every column once; the first one is the key"
    twice = {column for column, count in Counter(names).items() if count > 1}
    for column in names:
        if not column or not column.isprintable():
            raise InputRefused("a column has no name", file=name, line=record.line, value=",".join(names), fix=fix)
        if column in twice:
            raise InputRefused("a column stands twice", file=name, line=record.line, value=column, fix=fix)
    if len(names) == 1:
        fix = "put the properties beside the key, with commas between them"
        raise InputRefused("there is a key, but no property", file=name, line=record.line, value=names[0], fix=fix)
    return tuple(record.values)


def _fault(found: PropertyFile, values: Sequence[str]) -> tuple[str, str] | None:
    """Return what is wrong with a row and what to do about it; None for a good one."""
    if len(values) != len(found.header):
        counts = f"the row has {len(values)} values, the header has {len(found.header)} names"
        return counts, "quote a value that has commas, and write an empty one for what is not known"
    if HALF.search(",".join(values)):
        return "the row has bytes that are not UTF-8", "save it as UTF-8"
    if not values[0].strip():
        return f"the key ({found.header[0]}) is empty", "write the key, or take the row out"
    if values[0] in found.rows:
        return f"the key {values[0]!r} stands in a row before", "keep one row for each key"
    return None

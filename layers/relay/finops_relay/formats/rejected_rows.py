"""The file of rejected rows: what a person gets, mends and drops back.

Its columns are the input's, then ``line``, ``error`` and ``fix``. Values stand in it exactly as they came, bytes that
are not UTF-8 included. That means also that a value beginning with ``=`` or ``@`` stays one, and a spreadsheet may take
it for a formula: the usual guard, a quote in front, would go into the price book when the file comes back.
"""

from __future__ import annotations

import io
import json
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from finops_relay.errors import InputRefused
from finops_relay.formats.csv_rows import Readable, RecordReader, csv_line, is_blank

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

OWN_COLUMNS = ("line", "error", "fix")

MENDED_BYTES = 20_000_000
"""Largest mended file, in bytes: its rows are held in memory while the sheet is read again. About 50,000 rows."""

SPOOL_MEMORY_BYTES = 1024 * 1024
"""Rejected rows kept in memory before they go to a temporary file."""

SPOOL_BYTES = 256_000_000
"""Rejected rows kept at all, in bytes: half of a function's default temporary storage (512 MB)."""

_WRITE_BYTES = 64 * 1024

_BEYOND_CHARS = 100_000
"""Surplus values shown, in characters: the file must stay readable, and Python's CSV reader takes 131,072 a field."""


@dataclass(frozen=True)
class RejectedRow:
    """A row that is not delivered, and why."""

    line: int
    """1-based physical line on which the row begins in its file."""

    columns: tuple[str, ...]
    """The file's header as it stood."""

    values: tuple[str, ...]
    """The row as it stood; lone surrogates are bytes that are not UTF-8. Not always as many as there are columns."""

    error: str
    """What is wrong, in one sentence without a full stop."""

    fix: str
    """What the person should write instead."""


def rejected_csv_header(columns: Sequence[str]) -> bytes:
    """The first line of a rejected-rows file for an input with these *columns*."""
    return _encoded(csv_line((*_carried(columns), *OWN_COLUMNS)))


class RejectedFile:
    """Collects the rejected rows of one delivery in bounded memory, then gives the CSV.

    Files of one book may have different headers, so the columns are known only at the end: the union, in the order in
    which they were first seen. Until then the rows wait in a spooled temporary file.

    Args:
        several: the delivery has several files, so that a line is written as ``file name:line``.
        ceiling_bytes: rows beyond this size are counted in :attr:`omitted` and not kept.
    """

    def __init__(self, *, several: bool = False, ceiling_bytes: int = SPOOL_BYTES) -> None:
        self.several = several
        self._ceiling = ceiling_bytes
        self._spool: tempfile.SpooledTemporaryFile[bytes] = tempfile.SpooledTemporaryFile(SPOOL_MEMORY_BYTES)  # noqa: SIM115 -- closed by close()
        self._bytes = 0
        self._headers: dict[tuple[str, ...], int] = {}
        self.rows = 0
        """Rows kept."""
        self.omitted = 0
        """Rows that came after the ceiling and are not in the file."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the temporary file."""
        self._spool.close()

    def add(self, member_name: str, row: RejectedRow) -> None:
        """Keeps one more row of the file *member_name*."""
        header = self._headers.setdefault(row.columns, len(self._headers))
        where = f"{member_name}:{row.line}" if self.several else str(row.line)
        kept = row.values[: len(row.columns)]
        data = json.dumps([header, where, _error(row), row.fix, kept]).encode() + b"\n"
        if self._bytes + len(data) > self._ceiling:
            self.omitted += 1
            return
        self._bytes += self._spool.write(data)
        self.rows += 1

    def columns(self) -> tuple[str, ...]:
        """The input's columns that the file has: the union of all headers seen so far, in first-seen order."""
        return tuple(dict.fromkeys(name for header in self._headers for name in _carried(header)))

    def write_to(self, write: Callable[[bytes], object]) -> None:
        """Hands the whole CSV to *write*, header first, in pieces of at most some 64 KiB plus one row."""
        columns = self.columns()
        write(rejected_csv_header(columns))
        headers = list(self._headers)
        piece: list[bytes] = []
        size = 0
        self._spool.seek(0)
        for line in self._spool:
            header, where, error, fix, values = json.loads(line)
            named = dict(zip(headers[header], values, strict=False))
            piece.append(_encoded(csv_line((*(named.get(name, "") for name in columns), where, error, fix))))
            size += len(piece[-1])
            if size > _WRITE_BYTES:
                write(b"".join(piece))
                piece, size = [], 0
        if piece:
            write(b"".join(piece))
        self._spool.seek(0, io.SEEK_END)


def read_mended(stream: Readable, name: str) -> Mapping[str, Mapping[int, Mapping[str, str]]]:
    """Reads a rejected-rows file that a person has mended, also after a spreadsheet has saved it anew.

    Args:
        stream: its bytes, of at most :data:`MENDED_BYTES`.
        name: its name, for messages.

    Returns:
        For each file of the delivery (``""`` where the lines name none) the rows by line, each with its values by
        column name. Whether the columns are the input's is judged where its header is known.

    Raises:
        InputRefused: it has no ``line`` column, an unreadable or repeated line, a row that does not fit the header, or
            is too big.
    """
    reader = RecordReader(name, _Bounded(stream, name))
    header: list[str] | None = None
    mended: dict[str, dict[int, dict[str, str]]] = {}
    for record in reader:
        if is_blank(record.values):
            continue
        if header is None:
            header = _mended_header(name, record.line, record.values)
            continue
        values = _mended_values(name, record.line, header, record.values)
        member, line = _where(name, record.line, values.pop("line"))
        rows = mended.setdefault(member, {})
        if line in rows:
            reason = f"two rows are both for line {line}"
            raise InputRefused(reason, file=name, line=record.line, fix="keep one row for each line")
        rows[line] = values
    if not mended:
        raise InputRefused(
            "the mended file has no rows", file=name, fix="keep the rows that were rejected, with their line column"
        )
    return mended


class _Bounded:
    """A stream that refuses to give more than a mended file may hold."""

    def __init__(self, stream: Readable, name: str) -> None:
        self._stream = stream
        self._name = name
        self._count = 0

    def read(self, size: int) -> bytes:
        """At most *size* bytes."""
        data = self._stream.read(size)
        self._count += len(data)
        if self._count > MENDED_BYTES:
            reason = f"the mended file is larger than {MENDED_BYTES:,} bytes"
            raise InputRefused(reason, file=self._name, fix="mend the price sheet itself and drop it anew")
        return data


def _mended_header(name: str, line: int, values: list[str]) -> list[str]:
    """The header's names, with ours in lower case; refuses one that cannot be used."""
    header = [_own_name(value) or value for value in values]
    if "line" not in header:
        fix = "keep the rejected-rows file's columns, with commas between them; line says which row is replaced"
        raise InputRefused("no column is named line", file=name, line=line, value=",".join(values), fix=fix)
    twice = [value for value in dict.fromkeys(header) if value and header.count(value) > 1]
    if twice:
        raise InputRefused(
            "a column stands twice", file=name, line=line, value=twice[0], fix="keep one column of each name"
        )
    return header


def _mended_values(name: str, line: int, header: list[str], values: list[str]) -> dict[str, str]:
    """The row's values by column name, without our texts; short ones are filled: spreadsheets drop trailing cells."""
    if not is_blank(values[len(header) :]):
        reason = f"the row has {len(values)} values, the header has {len(header)} names"
        raise InputRefused(reason, file=name, line=line, fix="quote a value that has commas")
    filled = values + [""] * (len(header) - len(values))
    return {key: value for key, value in zip(header, filled, strict=False) if key and key not in {"error", "fix"}}


def _where(name: str, line: int, where: str) -> tuple[str, int]:
    """The file and line that a row of a mended file replaces."""
    member, _, number = where.strip().rpartition(":")
    if not (number.isascii() and number.isdigit() and 0 < len(number) < 12 and int(number)):  # noqa: PLR2004 -- under a trillion lines
        fix = "write the line as the rejected-rows file had it: a number, or file name:number"
        raise InputRefused("the line column has no line number", file=name, line=line, value=where, fix=fix)
    return member, int(number)


def _carried(columns: Sequence[str]) -> tuple[str, ...]:
    """The input's columns without nameless ones and without any that is named as one of ours."""
    return tuple(dict.fromkeys(name for name in columns if name and not _own_name(name)))


def _own_name(column: str) -> str | None:
    """``line``, ``error`` or ``fix`` when *column* is one of them in any case, with any space or BOM around."""
    name = column.strip("\ufeff \t").lower()
    return name if name in OWN_COLUMNS else None


def _error(row: RejectedRow) -> str:
    """The row's error, with the values for which there is no column: nothing of a row is lost."""
    beyond = csv_line(row.values[len(row.columns) :])
    return f"{row.error}; beyond the last column: {beyond[:_BEYOND_CHARS]}" if beyond else row.error


def _encoded(line: str) -> bytes:
    return (line + "\n").encode(errors="surrogateescape")

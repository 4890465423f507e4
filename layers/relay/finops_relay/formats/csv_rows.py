"""CSV records with the physical line each begins on; the bytes of a record survive exactly.

A file is cut into blocks of whole lines. A caller who can judge the lines of a block faster than a CSV parser does may
do so; for everybody else :meth:`RecordReader.records` parses it. Blocks have one size whatever the stream hands out
at once, and no record depends on where they are cut.

Bytes that are not UTF-8 become lone surrogates (``surrogateescape``): encoded the same way they are the same bytes.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from finops_relay.errors import InputRefused

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

BLOCK_BYTES = 256 * 1024
"""Bytes read at once: about 900 rows of a price sheet, which with their strings still fit a processor's cache."""

RECORD_BYTES = 1024 * 1024
"""Longest record and longest line, in bytes. A row of a price sheet has 300; more is a quote that was never closed."""

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Record:
    """One row as the file has it."""

    line: int
    """1-based physical line on which the record begins."""

    values: list[str]
    """Its fields; empty for an empty line."""


@dataclass(frozen=True)
class Block:
    """Some whole lines of a file, beginning where a record begins."""

    text: str
    """The lines with the line ends that they have; only the file's last line may have none."""

    first_line: int
    """1-based physical line of the file on which the block begins."""

    lines: int
    """How many physical lines it has."""

    decodable: bool
    """False when some of its bytes are not UTF-8."""

    final: bool
    """True for the last block of the file."""


class Readable(Protocol):
    """All that is asked of a stream."""

    def read(self, size: int, /) -> bytes:
        """At most *size* bytes, none only at the end."""


class RecordReader:
    """Reads one CSV file (UTF-8, with or without a BOM; LF, CRLF or CR) once, from its beginning.

    Args:
        name: the file's name, for messages.
        stream: its decoded bytes.
        block_bytes: how much is read at once; it never shows in the records.
    """

    def __init__(self, name: str, stream: Readable, *, block_bytes: int = BLOCK_BYTES) -> None:
        self._name = name
        self._stream = stream
        self._block_bytes = max(block_bytes, len(_BOM))
        self._pending = b""
        self._line = 1
        self._started = False
        self._ended = False

    def blocks(self) -> Iterator[Block]:
        """The file in blocks of about :data:`BLOCK_BYTES`.

        A caller who finds a block unfinished (a quoted field goes on in the next one) has :meth:`records` parse it
        before asking for the next one.

        Raises:
            InputRefused: a line is longer than :data:`RECORD_BYTES`.
        """
        while not self._ended:
            data = self._pending + self._read()
            if not self._started:
                data = data.removeprefix(_BOM)
                self._started = True
            cut = len(data) if self._ended else _after_last_line(data)
            self._pending = data[cut:]
            if cut:
                yield self._block(data[:cut])
            self._refuse_endless(len(self._pending), self._line)

    def records(self, block: Block) -> list[Record]:
        """Parses the block that :meth:`blocks` gave last; a record that it leaves open goes in front of the next one.

        Raises:
            InputRefused: a quote is not closed or not followed by a comma, or a field or record is too long.
        """
        lines = list(io.StringIO(block.text, newline=""))
        reader = csv.reader(lines, strict=True)
        records: list[Record] = []
        start = 0
        try:
            for values in reader:
                records.append(Record(block.first_line + start, values))
                start = reader.line_num
        except csv.Error as error:
            if block.final or reader.line_num < len(lines):
                raise self._refusal(block.first_line + start, str(error)) from error
            self._push_back("".join(lines[start:]), block.first_line + start)
        return records

    def __iter__(self) -> Iterator[Record]:
        """Every record of the file, empty lines included."""
        for block in self.blocks():
            yield from self.records(block)

    def _read(self) -> bytes:
        """One block's worth of bytes, however few the stream gives at a time; notes the end of the stream."""
        parts: list[bytes] = []
        missing = self._block_bytes
        while missing and (part := self._stream.read(missing)):
            parts.append(part)
            missing -= len(part)
        self._ended = missing > 0
        return b"".join(parts)

    def _block(self, data: bytes) -> Block:
        first_line, lines = self._line, _count_lines(data)
        self._line += lines
        try:
            return Block(data.decode(), first_line, lines, decodable=True, final=self._ended)
        except UnicodeDecodeError:
            return Block(data.decode(errors="surrogateescape"), first_line, lines, decodable=False, final=self._ended)

    def _push_back(self, text: str, line: int) -> None:
        self._pending = text.encode(errors="surrogateescape") + self._pending
        self._line = line

    def _refuse_endless(self, count: int, line: int) -> None:
        if count > RECORD_BYTES:
            raise self._refusal(line, f"longer than {RECORD_BYTES:,} bytes")

    def _refusal(self, line: int, detail: str) -> InputRefused:
        fix = 'close the quote of the field; a quote inside a quoted field is doubled ("")'
        return InputRefused(
            f"the record that begins here cannot be read ({detail})", file=self._name, line=line, fix=fix
        )


def single_lines(lines: list[str]) -> list[list[str]] | None:
    """The fields of each of *lines*, or None when they are not one whole record each.

    Lines may be given that stood between others that are whole records themselves: were one of them to begin a record
    of several lines, the count would not come out.

    Args:
        lines: without line ends and without carriage returns inside.
    """
    try:
        rows = list(csv.reader(lines, strict=True))
    except csv.Error:
        return None
    return rows if len(rows) == len(lines) else None


def is_blank(values: Iterable[str]) -> bool:
    """Whether a record is an empty line: nothing but separators and white space."""
    return not any(map(str.strip, values))


def csv_line(values: Iterable[str]) -> str:
    """*values* as one CSV line without its end; quotes stand only where a field needs them.

    Not ``csv.writer``: what it quotes differs between Python versions, and what we write is compared by hash.
    """
    return ",".join([_quoted(v) if "," in v or '"' in v or "\n" in v or "\r" in v else v for v in values])


def _quoted(value: str) -> str:
    return '"' + value.replace('"', '""') + '"'


def _after_last_line(data: bytes) -> int:
    """Where the last whole line of *data* ends; 0 when there is none.

    A file with LF anywhere is cut at LF only. In one without, a CR at the very end is left: an LF may follow it.
    """
    return data.rfind(b"\n") + 1 or data.rfind(b"\r", 0, len(data) - 1) + 1


def _count_lines(data: bytes) -> int:
    """Physical lines in *data*, a last one without an end included."""
    ends = data.count(b"\n")
    if b"\r" in data:
        ends += data.count(b"\r") - data.count(b"\r\n")
    return ends + (not data.endswith((b"\n", b"\r")))

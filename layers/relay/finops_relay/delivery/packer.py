"""Packs the rows of one month into bodies: ordered by hour, and no hour in two bodies unless it fills more than one.

Why: a body that replaces hours wipes what another body put into the same hour (contract page, "Drops, live contract").
So an hour stands in one body; only one that is larger than a body is cut, and its later bodies append.

Rows wait in a temporary file, found again by hour: memory does not grow with the rows of an ordered file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import NamedTuple, Self

MAX_BODY_BYTES = 5_000_000
"""Uncompressed, envelope included; whether the vendor's 5 MB are decimal or binary is not said (contract page)."""
SEPARATOR = b",\n"
"""Behind each row in the temporary file: JSON has no line end within a row, so rows can be told apart again."""
COPY_BYTES = 1 << 20


class Mode(StrEnum):
    """What a body does to what is there already."""

    MONTH = "month"
    """Wipes the whole month first."""
    HOURS = "hours"
    """Wipes its own hours first; safe to repeat."""
    APPEND = "append"
    """Adds to an hour that the body before has begun; NOT safe to repeat."""


Envelope = Callable[[Mode], tuple[bytes, bytes]]
"""Gives what stands before and behind the rows of a body, which are separated by commas."""


@dataclass(frozen=True)
class Body:
    """One body, written."""

    seq: int
    """From 1, in the order in which they have to be sent."""
    mode: Mode
    hours: tuple[int, ...]
    """Hours since the epoch, in order."""
    rows: int
    bytes: int
    sha256: str


class RowTooLargeError(ValueError):
    """One row alone does not fit into a body."""


class Part(NamedTuple):
    """Rows of one hour that stand together in the temporary file."""

    hour: int
    offset: int
    length: int


@dataclass
class _Hour:
    """Where the rows of an hour stand in the temporary file."""

    runs: list[tuple[int, int]] = field(default_factory=list)
    """Offset and length of rows that stand together."""
    rows: int = 0
    size: int = 0
    """Bytes of its rows, a comma behind each."""

    def add(self, offset: int, length: int) -> None:
        """Take one more row with its separator."""
        if self.runs and sum(self.runs[-1]) == offset:
            self.runs[-1] = (self.runs[-1][0], self.runs[-1][1] + length)
        else:
            self.runs.append((offset, length))
        self.rows += 1
        self.size += length - 1  # the line end is not sent


class Packer:
    """Collects rows, then writes the bodies.

    Args:
        envelope: what stands around the rows of a body.
        whole_month: the first body wipes the month; else each wipes its hours.
        appends_only: no body wipes anything (the contract `openapi`).
        max_bytes: of a body.
    """

    def __init__(
        self,
        envelope: Envelope,
        *,
        whole_month: bool = False,
        appends_only: bool = False,
        max_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        self._envelope = envelope
        self._first = Mode.APPEND if appends_only else Mode.MONTH if whole_month else Mode.HOURS
        self._further = Mode.APPEND if appends_only else Mode.HOURS
        self._max_bytes = max_bytes
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 -- closed by close()
        self._hours: dict[int, _Hour] = {}
        self._end = 0
        self._rooms = {mode: max_bytes - sum(map(len, envelope(mode))) for mode in Mode}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the temporary file."""
        self._file.close()

    @property
    def size(self) -> int:
        """Bytes of all rows, a comma behind each."""
        return sum(hour.size for hour in self._hours.values())

    @property
    def hours(self) -> tuple[int, ...]:
        """The hours that have rows, in order."""
        return tuple(sorted(self._hours))

    def add(self, hour: int, row: bytes) -> None:
        """Take one row.

        Args:
            hour: since the epoch.
            row: as it is sent; JSON in one line.

        Raises:
            RowTooLargeError: it does not fit into a body even alone.
        """
        if len(row) > min(self._rooms.values()):
            msg = f"the row has {len(row):,} bytes, and a body {self._max_bytes:,} at most"
            raise RowTooLargeError(msg)
        self._file.write(row + SEPARATOR)
        length = len(row) + len(SEPARATOR)
        self._hours.setdefault(hour, _Hour()).add(self._end, length)
        self._end += length

    def bodies(self, write: Callable[[int], Callable[[bytes], object]]) -> Iterator[Body]:
        """Write the bodies one after the other, and yield what each is. Same rows in the same order, same bytes.

        Args:
            write: called with a body's number, gives what takes its bytes; it is whole when the body is yielded.
        """
        for seq, (mode, piece) in enumerate(self._pieces(), 1):
            yield self._written(seq, mode, piece, write(seq))

    def _pieces(self) -> Iterator[tuple[Mode, list[Part]]]:
        """Yield for each body its mode and the parts that it is made of."""
        mode, piece, size = self._first, list[Part](), 0
        for number in self.hours:
            hour = self._hours[number]
            if piece and size + hour.size - 1 > self._rooms[mode]:
                yield mode, piece
                mode, piece, size = self._further, [], 0
            if hour.size - 1 <= self._rooms[mode]:
                piece += [Part(number, offset, length) for offset, length in hour.runs]
                size += hour.size
                continue
            for part in self._cut(number, hour, mode):
                yield mode, part
                mode = Mode.APPEND
            mode = self._further
        if piece:
            yield mode, piece

    def _cut(self, number: int, hour: _Hour, mode: Mode) -> Iterator[list[Part]]:
        """Yield the parts of an hour that is larger than a body, as full as they can be."""
        part: list[Part] = []
        size = 0
        for offset, length in self._rows_of(hour):
            if size + length - len(SEPARATOR) > self._rooms[mode]:
                yield part
                mode, part, size = Mode.APPEND, [], 0
            if part and part[-1].offset + part[-1].length == offset:
                part[-1] = Part(number, part[-1].offset, part[-1].length + length)
            else:
                part.append(Part(number, offset, length))
            size += length - 1
        yield part

    def _rows_of(self, hour: _Hour) -> Iterator[tuple[int, int]]:
        """Yield offset and length of each row, its separator included."""
        for offset, length in hour.runs:
            self._file.seek(offset)
            end = offset + length
            at = offset
            while at < end:
                line = self._file.readline()
                yield at, len(line)
                at += len(line)
                self._file.seek(at)

    def _written(self, seq: int, mode: Mode, piece: list[Part], write: Callable[[bytes], object]) -> Body:
        head, tail = self._envelope(mode)
        hashed = sha256()
        size = rows = 0

        def out(data: bytes) -> None:
            nonlocal size
            size += len(data)
            hashed.update(data)
            write(data)

        out(head)
        for part in piece:
            for chunk, at_end in self._chunks(part):
                rows += chunk.count(b"\n")
                lines = chunk.replace(b"\n", b"")
                out(lines[:-1] if at_end and part is piece[-1] else lines)
        out(tail)
        return Body(seq, mode, tuple(dict.fromkeys(part.hour for part in piece)), rows, size, hashed.hexdigest())

    def _chunks(self, part: Part) -> Iterator[tuple[bytes, bool]]:
        """Yield the rows of a part in pieces, and whether each is the last."""
        offset, end = part.offset, part.offset + part.length
        while offset < end:
            self._file.seek(offset)
            chunk = self._file.read(min(COPY_BYTES, end - offset))
            offset += len(chunk)
            yield chunk, offset == end

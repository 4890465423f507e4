"""Packs the rows of one month into bodies: ordered by hour, and no hour in two bodies unless it fills more than one.

Why: a body that replaces hours wipes what another body put into the same hour (contract page, "Drops, live contract").
So an hour stands in one body; only one that is larger than a body is cut, and its later bodies append.

Rows wait in a temporary file. They get there some megabytes at a time, ordered by hour, so that the rows of an hour
stand together in few places, whatever their order was: what is remembered of a row is twenty bytes.
"""

from __future__ import annotations

import tempfile
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple, Self

MAX_BODY_BYTES = 5_000_000
"""Uncompressed, envelope included; whether the vendor's 5 MB are decimal or binary is not said (contract page)."""
SEPARATOR = b","
"""Behind each row in the temporary file, as it stands between them in a body."""
ORDER_BYTES = 8_000_000
"""Rows that are put in order at once: in a month of 70 MB the rows of an hour stand in at most 9 places."""
EXAMPLES = 10
"""Surplus rows that are named."""


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
class Piece:
    """The rows of one hour in one body."""

    hour: int
    """Since the epoch."""
    offset: int
    """Where the first of them begins in the body."""
    length: int
    """Bytes of all of them, with the commas between them."""
    rows: int
    sha256: str
    """Of these bytes."""


@dataclass(frozen=True)
class Body:
    """One body, written."""

    seq: int
    """From 1, in the order in which they have to be sent."""
    mode: Mode
    pieces: tuple[Piece, ...]
    """Its hours, in order."""
    origins: array[int] = field(repr=False)
    """Where each of its rows came from, in the body's order."""
    bytes: int
    sha256: str

    @property
    def hours(self) -> tuple[int, ...]:
        """Hours since the epoch, in order."""
        return tuple(piece.hour for piece in self.pieces)

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return len(self.origins)


class Duplicate(NamedTuple):
    """A row that stands in its hour already, all bytes alike."""

    hour: int
    origin: int


@dataclass(frozen=True)
class Duplicates:
    """Rows beyond the first of those that are alike; they are sent all the same, for two such costs may have arisen."""

    rows: int = 0
    examples: tuple[Duplicate, ...] = ()
    """The first :data:`EXAMPLES` of them."""


class RowTooLargeError(ValueError):
    """One row alone does not fit into a body."""


class Part(NamedTuple):
    """Rows of one hour that stand together in the temporary file."""

    hour: int
    offset: int
    length: int
    """A comma behind each row included."""
    first: int
    """The number of the first of them among all rows of the file."""
    rows: int

    def cut(self, rows: int, length: int) -> tuple[Part, Part]:
        """Its first *rows*, which have *length* bytes, and the others."""
        return (
            self._replace(length=length, rows=rows),
            Part(self.hour, self.offset + length, self.length - length, self.first + rows, self.rows - rows),
        )


class Packer:
    """Collects rows, then writes the bodies.

    Args:
        envelope: what stands around the rows of a body; asked only for the modes that may be used.
        whole_month: the first body wipes the month; else each wipes its hours.
        appends_only: no body wipes anything (the contract `openapi`).
        max_bytes: of a body.
        order_bytes: rows that are put in order at once; it never shows in the bodies.
    """

    def __init__(
        self,
        envelope: Envelope,
        *,
        whole_month: bool = False,
        appends_only: bool = False,
        max_bytes: int = MAX_BODY_BYTES,
        order_bytes: int = ORDER_BYTES,
    ) -> None:
        self._first = Mode.APPEND if appends_only else Mode.MONTH if whole_month else Mode.HOURS
        self._further = Mode.APPEND if appends_only else Mode.HOURS
        self._envelopes = {mode: envelope(mode) for mode in (self._first, self._further, Mode.APPEND)}
        self._max_bytes = max_bytes
        self._order_bytes = order_bytes
        self._rooms = {mode: max_bytes - sum(map(len, around)) for mode, around in self._envelopes.items()}
        self.max_row_bytes = min(self._rooms.values())
        """Largest row that any body can hold."""
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 -- closed by close()
        self._end = 0
        self._origins, self._lengths, self._hashes = array("Q"), array("I"), array("q")  # of the rows in the file
        self._parts: dict[int, list[Part]] = {}
        self._waiting = _Waiting()
        self._repeats = _Repeats()

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
        return self._end + self._waiting.size

    @property
    def hours(self) -> tuple[int, ...]:
        """The hours that have rows, in order."""
        return tuple(sorted({*self._parts, *self._waiting.hours}))

    @property
    def duplicates(self) -> Duplicates:
        """Rows that stand more than once, as far as the bodies were written."""
        return Duplicates(self._repeats.rows, tuple(self._repeats.examples))

    def add(self, hour: int, row: bytes, origin: int = 0) -> None:
        """Take one row; arguments and errors as of :meth:`add_all`."""
        self.add_all((hour,), (row,), (origin,))

    def add_all(self, hours: Sequence[int], rows: Sequence[bytes], origins: Sequence[int]) -> None:
        """Take some rows.

        Args:
            hours: of each, since the epoch.
            rows: as they are sent; JSON in one line each.
            origins: where each came from: any number of 64 bits, which :attr:`Body.origins` gives back.

        Raises:
            RowTooLargeError: one does not fit into a body even alone; none was taken.
        """
        lengths = array("I", map(len, rows))
        largest = max(lengths, default=0)
        if largest > self.max_row_bytes:
            msg = f"the row has {largest:,} bytes, and a body {self._max_bytes:,} at most"
            raise RowTooLargeError(msg)
        self._waiting.add(hours, rows, origins, lengths)
        if self._waiting.size >= self._order_bytes:
            self._put_in_order()

    def bodies(self, write: Callable[[int], Callable[[bytes], object]]) -> Iterator[Body]:
        """Write the bodies one after the other, and yield what each is. Same rows in the same order, same bytes.

        Args:
            write: called with a body's number, gives what takes its bytes; it is whole when the body is yielded.
        """
        self._put_in_order()
        self._repeats = _Repeats()
        for seq, (mode, parts) in enumerate(self._bodies(), 1):
            yield self._written(seq, mode, parts, write(seq))

    def _put_in_order(self) -> None:
        """Write the waiting rows to the file, by hour and within it as they came."""
        waiting, self._waiting = self._waiting, _Waiting()
        order = sorted(range(len(waiting.hours)), key=waiting.hours.__getitem__)
        first = len(self._origins)
        self._origins.extend(map(waiting.origins.__getitem__, order))
        self._lengths.extend(map(waiting.lengths.__getitem__, order))
        self._hashes.extend(map(waiting.hashes.__getitem__, order))
        self._append(SEPARATOR.join((*map(waiting.rows.__getitem__, order), b"")))
        for hour, count in sorted(Counter(waiting.hours).items()):
            length = sum(self._lengths[first : first + count]) + count * len(SEPARATOR)
            self._parts.setdefault(hour, []).append(Part(hour, self._end, length, first, count))
            self._end += length
            first += count

    def _append(self, text: bytes) -> None:
        self._file.seek(self._end)
        left = memoryview(text)
        while left:
            left = left[self._file.write(left) :]

    def _bodies(self) -> Iterator[tuple[Mode, list[Part]]]:
        """Yield for each body its mode and the parts that it is made of."""
        mode, body, size = self._first, list[Part](), 0
        for hour in self.hours:
            parts = self._parts[hour]
            added = sum(part.length for part in parts)
            if body and size + added - 1 > self._rooms[mode]:
                yield mode, body
                mode, body, size = self._further, [], 0
            if added - 1 <= self._rooms[mode]:
                body += parts
                size += added
                continue
            for cut in self._cut(parts, mode):
                yield mode, cut
                mode = Mode.APPEND
            mode = self._further
        if body:
            yield mode, body

    def _cut(self, parts: Sequence[Part], mode: Mode) -> Iterator[list[Part]]:
        """Yield the parts of an hour that is larger than a body, cut so that each body is as full as it can be."""
        body: list[Part] = []
        room = self._rooms[mode]
        for part in parts:
            rest, fitting, length = part, 0, 0
            for size in self._lengths[part.first : part.first + part.rows]:
                if size > room:
                    if fitting:
                        head, rest = rest.cut(fitting, length)
                        body.append(head)
                    yield body
                    body, room, fitting, length = [], self._rooms[Mode.APPEND], 0, 0
                room -= size + 1
                fitting += 1
                length += size + 1
            body.append(rest)
        yield body

    def _written(self, seq: int, mode: Mode, parts: Sequence[Part], write: Callable[[bytes], object]) -> Body:
        head, tail = self._envelopes[mode]
        pieces: list[Piece] = []
        origins = array("Q")
        texts = [head]
        offset = len(head)
        for hour, same in groupby(parts, attrgetter("hour")):
            together = list(same)
            text = SEPARATOR.join(map(self._text, together))
            rows = sum(part.rows for part in together)
            pieces.append(Piece(hour, offset, len(text), rows, sha256(text).hexdigest()))
            for part in together:
                these = slice(part.first, part.first + part.rows)
                origins.extend(self._origins[these])
                self._repeats.look(hour, self._hashes[these], self._origins[these])
            texts += (text, SEPARATOR)
            offset += len(text) + len(SEPARATOR)
        texts[-1] = tail
        body = b"".join(texts)
        write(body)
        return Body(seq, mode, tuple(pieces), origins, len(body), sha256(body).hexdigest())

    def _text(self, part: Part) -> bytes:
        """Its rows with the commas between them."""
        self._file.seek(part.offset)
        text = self._file.read(part.length - len(SEPARATOR))
        if len(text) != part.length - len(SEPARATOR):
            raise OSError("the temporary file was cut short")
        return text


class _Waiting:
    """Rows that were not put in order yet."""

    def __init__(self) -> None:
        self.hours: list[int] = []
        self.rows: list[bytes] = []
        self.origins, self.lengths, self.hashes = array("Q"), array("I"), array("q")
        self.size = 0
        """Bytes of the rows, a comma behind each."""

    def add(self, hours: Sequence[int], rows: Sequence[bytes], origins: Sequence[int], lengths: array[int]) -> None:
        """Take some rows; they are hashed while they are still in the processor's cache."""
        self.hours += hours
        self.rows += rows
        self.origins.extend(origins)
        self.lengths.extend(lengths)
        self.hashes.extend(map(hash, rows))
        self.size += sum(lengths) + len(lengths) * len(SEPARATOR)


class _Repeats:
    """Finds rows that stand more than once, hour by hour.

    By hashes of 64 bits: two different rows of a million in one hour are taken for one in thirty million such hours.
    """

    def __init__(self) -> None:
        self._hour = 0
        self._seen: set[int] = set()
        self.rows = 0
        self.examples: list[Duplicate] = []

    def look(self, hour: int, hashes: Sequence[int], origins: Sequence[int]) -> None:
        """Count those of some rows that stood in the hour before; all of an hour come before the next hour."""
        if hour != self._hour:
            self._hour, self._seen = hour, set()
        new = set(hashes)
        if len(new) == len(hashes) and self._seen.isdisjoint(new):
            self._seen |= new
            return
        for hashed, origin in zip(hashes, origins, strict=True):
            if hashed not in self._seen:
                self._seen.add(hashed)
                continue
            self.rows += 1
            if len(self.examples) < EXAMPLES:
                self.examples.append(Duplicate(hour, origin))

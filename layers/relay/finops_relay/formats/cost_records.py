"""The records of a cost file in batches, before anybody judges them; mended ones already in the place of what stood."""

from __future__ import annotations

import csv
import io
import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import Protocol

from finops_relay.errors import InputRefused
from finops_relay.formats.cost_cells import CellFault
from finops_relay.formats.csv_rows import Block, RecordReader, is_blank
from finops_relay.formats.rejected_rows import RejectedRow


class Batch(Protocol):
    """Some records under one header."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The header."""

    @property
    def lines(self) -> Sequence[int]:
        """Where each record begins (see :attr:`CostRow.line`)."""

    def by_column(self) -> Sequence[Sequence[str]]:
        """The cells by column.

        Raises:
            CellFault: a record has another number of cells than the header, or text that cannot be sent.
        """

    def parts(self) -> Sequence[RowBatch]:
        """The same records in smaller batches; none when there is one record only."""


@dataclass(frozen=True)
class RowBatch:
    """Records that were parsed one by one."""

    columns: tuple[str, ...]
    lines: Sequence[int]

    values: Sequence[Sequence[str]]
    """The cells of each; not always as many as there are columns."""

    odd: bool
    """Whether a cell may hold a control character or bytes that are not UTF-8."""

    blanks: bool
    """Whether a record of nothing but blank cells is an empty line, and no row."""

    def by_column(self) -> Sequence[Sequence[str]]:
        """The cells by column."""
        try:
            cells: list[Sequence[str]] = list(zip(*self.values, strict=True))
        except ValueError:
            cells = []
        if len(cells) != len(self.columns):
            raise CellFault(
                f"the row has {len(self.values[0])} values, the header has {len(self.columns)} names",
                "put quotes around a value that has commas, and keep all the columns",
            )
        if self.odd:
            for name, column in zip(self.columns, cells, strict=True):
                _check_text(name, "".join(column))
        return cells

    def parts(self) -> Sequence[RowBatch]:
        """The two halves."""
        half = len(self.values) // 2
        return [
            RowBatch(self.columns, self.lines[part], self.values[part], self.odd, self.blanks)
            for part in (slice(None, half), slice(half, None))
            if half
        ]


@dataclass(frozen=True)
class BlockBatch:
    """Records of one line each that were taken apart at their commas, all at once."""

    columns: tuple[str, ...]
    lines: Sequence[int]
    cells: list[str]
    """Record by record; behind the last cell of each stands the line end, as a cell of its own."""

    def by_column(self) -> Sequence[Sequence[str]]:
        """The cells by column."""
        stride = len(self.columns) + 1
        return [self.cells[place::stride] for place in range(len(self.columns))]

    def parts(self) -> Sequence[RowBatch]:
        """The records one by one."""
        width = len(self.columns)
        values = [self.cells[place : place + width] for place in range(0, len(self.cells), width + 1)]
        return [RowBatch(self.columns, self.lines, values, odd=False, blanks=True)]


class CostRecords(Protocol):
    """The records of one file."""

    columns: tuple[str, ...]
    """The header; of JSON the names seen so far, in first-seen order."""

    header_line: int
    """1-based line of the header; 1 where there is none."""

    def batches(self) -> Iterator[Batch | RejectedRow]:
        """Every record; a rejected row is one that has no cells."""


class Mending:
    """The values that a person wrote for some records of one file.

    Args:
        name: the file's name, for messages.
        mended: values by column, by the line on which the record begins.
    """

    def __init__(self, name: str, mended: Mapping[int, Mapping[str, str]] | None) -> None:
        self._name = name
        self._left = dict(mended or {})
        self._lines = sorted(self._left)

    def within(self, first: int, last: int) -> list[int]:
        """The mended lines from *first* to *last*."""
        return self._lines[bisect_left(self._lines, first) : bisect_left(self._lines, last + 1)]

    def take(self, line: int) -> Mapping[str, str] | None:
        """What is to stand in the record that begins on *line*, if that was mended."""
        return self._left.pop(line, None)

    def row(self, line: int, columns: Sequence[str], values: list[str]) -> list[str]:
        """The record that begins on *line*, as it is to be read."""
        written = self.take(line)
        return values if written is None else _written_over(values, columns, written)

    def check_columns(self, columns: Sequence[str]) -> None:
        """Refuses values for columns that the file does not have.

        Raises:
            InputRefused: there is one.
        """
        known = set(columns)
        for line, values in self._left.items():
            unknown = [name for name, value in values.items() if value and name not in known]
            if unknown:
                reason = f"the mended row for line {line} has a value in a column that the file does not have"
                fix = "keep the column names of the rejected-rows file"
                raise InputRefused(reason, file=self._name, value=unknown[0], fix=fix)

    def finish(self) -> None:
        """Refuses a mended row for which there was no record.

        Raises:
            InputRefused: there is one.
        """
        if self._left:
            line = min(self._left)
            fix = "keep the line column as it was, and drop the mended file for the file that it came from"
            raise InputRefused("a mended row is for a line on which no row begins", file=self._name, line=line, fix=fix)


def _written_over(values: list[str], columns: Sequence[str], written: Mapping[str, str]) -> list[str]:
    """A record with what a person wrote; a column left out of the mended file stays as it was."""
    former = values if len(values) == len(columns) else [""] * len(columns)
    return [written.get(name, old) if name else old for name, old in zip(columns, former, strict=True)]


class Refusals:
    """Records that are rejected whatever stands in them, because somebody beyond the file's own checks refused them.

    Args:
        refused: what is wrong and what to do, by the line on which the record begins.
    """

    def __init__(self, refused: Mapping[int, tuple[str, str]] | None) -> None:
        self._refused = dict(refused or {})
        self._lines = sorted(self._refused)

    def apart(self, batch: Batch | RejectedRow) -> Iterator[Batch | RejectedRow]:
        """The records of *batch*, the refused ones as rejected rows."""
        if isinstance(batch, RejectedRow):
            said = self._refused.get(batch.line)
            yield batch if said is None else replace(batch, error=said[0], fix=said[1])
            return
        lines = batch.lines
        within = self._lines[bisect_left(self._lines, lines[0]) : bisect_left(self._lines, lines[-1] + 1)]
        if not within:
            yield batch
            return
        rows = batch if isinstance(batch, RowBatch) else batch.parts()[0]
        start = 0
        for line in within:
            place = bisect_left(lines, line)
            if lines[place] == line:
                yield from _slice(rows, start, place)
                yield RejectedRow(line, rows.columns, tuple(rows.values[place]), *self._refused[line])
                start = place + 1
        yield from _slice(rows, start, len(lines))


class Chosen:
    """Of all records of a file only some, where the others were delivered before and cannot be replaced.

    Args:
        lines: on which they begin; None chooses all.
    """

    def __init__(self, lines: frozenset[int] | None) -> None:
        self._all = lines is None
        self._lines = sorted(lines or ())

    def of(self, batch: Batch | RejectedRow) -> Iterator[Batch | RejectedRow]:
        """Those records of *batch*; the others are not counted anywhere."""
        if self._all:
            yield batch
            return
        lines = [batch.line] if isinstance(batch, RejectedRow) else batch.lines
        for line in self._lines[bisect_left(self._lines, lines[0]) : bisect_left(self._lines, lines[-1] + 1)]:
            place = bisect_left(lines, line)
            if lines[place] != line:
                continue
            if isinstance(batch, RejectedRow):
                yield batch
            else:
                yield from _slice(batch if isinstance(batch, RowBatch) else batch.parts()[0], place, place + 1)


def _slice(rows: RowBatch, start: int, end: int) -> Iterator[RowBatch]:
    if start < end:
        yield replace(rows, lines=rows.lines[start:end], values=rows.values[start:end])


class CsvRecords:
    """The records of a CSV file; the first that is not blank is its header.

    Args:
        name: the file's name, for messages.
        reader: reads it.
        mending: what was mended.

    Raises:
        InputRefused: a record cannot be read, or the header names a column twice.
    """

    def __init__(self, name: str, reader: RecordReader, mending: Mending) -> None:
        self._reader = reader
        self._mending = mending
        self._blocks = reader.blocks()
        self._first: tuple[Block, Sequence[int], list[list[str]]] | None = None
        self.columns: tuple[str, ...] = ()
        self.header_line = 1
        for block in self._blocks:
            lines, values = self._parsed(block)
            place = next((place for place, row in enumerate(values) if not is_blank(row)), None)
            if place is not None:
                self.columns, self.header_line = tuple(values[place]), lines[place]
                self._first = block, lines[place + 1 :], values[place + 1 :]
                break
        self._check_header(name)
        mending.check_columns(self.columns)

    def batches(self) -> Iterator[Batch]:
        """Every record but empty lines."""
        if self._first is not None:
            yield from self._batch(*self._first)
            self._first = None
        for block in self._blocks:
            odd = not block.decodable or has_controls(block.text)
            if not odd and not self._mending.within(block.first_line, block.first_line + block.lines - 1):
                cells = cells_of_lines(block.text, len(self.columns), block.lines)
                if cells is not None:
                    yield BlockBatch(self.columns, range(block.first_line, block.first_line + block.lines), cells)
                    continue
            yield from self._batch(block, *self._parsed(block))

    def _parsed(self, block: Block) -> tuple[Sequence[int], list[list[str]]]:
        """The records of a block and their lines; where each is one line, all are parsed at once."""
        parser = csv.reader(io.StringIO(block.text, newline=""), strict=True)
        try:
            values = list(parser)
        except csv.Error:
            values = []
        if values and parser.line_num == len(values):
            return range(block.first_line, block.first_line + len(values)), values
        records = self._reader.records(block)
        return [record.line for record in records], [record.values for record in records]

    def _batch(self, block: Block, lines: Sequence[int], values: list[list[str]]) -> Iterator[Batch]:
        if not values:
            return
        mended = set[int]()
        for line in self._mending.within(lines[0], lines[-1]):
            place = bisect_left(lines, line)
            if lines[place] == line and (written := self._mending.take(line)) is not None:
                values[place] = _written_over(values[place], self.columns, written)
                mended.add(place)
        there = [bool(row) if not mended else place in mended or not is_blank(row) for place, row in enumerate(values)]
        if not all(there):
            lines, values = list(compress(lines, there)), list(compress(values, there))
        if values:
            odd = bool(mended) or not block.decodable or has_controls(block.text)
            yield RowBatch(self.columns, lines, values, odd, blanks=not mended)

    def _check_header(self, name: str) -> None:
        named = [column.strip() for column in self.columns if column.strip()]
        twice = [column for column in dict.fromkeys(named) if named.count(column) > 1]
        if twice:
            reason = "the header has two columns of one name"
            fix = "delete one of the two columns, or rename it"
            raise InputRefused(reason, file=name, line=self.header_line, value=twice[0], fix=fix)


_CONTROLS = bytes(set(range(0x20)) - set(b"\t\n\r")) + b"\x7f"
_WITHOUT_CONTROLS = bytes.maketrans(_CONTROLS, b" " * len(_CONTROLS))


_UNFIT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\udc80-\udcff]").search
_QUOTED = re.compile(r'"([^"]*+(?:""[^"]*+)*+)"')
"""A quoted part of a line, as far as quotes that are doubled inside go on."""
_HOLE = "\x00"
"""Stands for a quoted cell while lines are taken apart, which have no control characters."""

CELLS_CHARS = 131_072
"""Longest block that is taken apart at its commas: the CSV parser refuses longer cells, and both must do the same."""


def cells_of_lines(text: str, width: int, lines: int) -> list[str] | None:
    """The cells of CSV lines, each line followed by its end as a cell of its own; in two thirds of a parser's time.

    None when some line is not one whole record of *width* cells, or is quoted in a way that needs a parser.

    Args:
        text: whole lines without control characters but tabs; only the last may lack its end.
        width: how many cells a record has.
        lines: how many lines they are.
    """
    text = text.replace("\r\n", "\n") if "\r" in text else text
    text = text if text.endswith("\n") else text + "\n"
    if "\r" in text or len(text) > CELLS_CHARS:
        return None
    quoted = ""
    if '"' in text:
        parts = _QUOTED.split(text)
        text, quoted = _HOLE.join(parts[::2]), _HOLE.join(parts[1::2])
        if '"' in text or "\n" in quoted:
            return None
    cells = text.replace("\n", ",\n,").split(",")
    cells.pop()
    if len(cells) != lines * (width + 1) or cells[width :: width + 1].count("\n") != lines:
        return None
    return _filled(cells, width + 1, quoted.replace('""', '"').split(_HOLE)) if _HOLE in text else cells


def _filled(cells: list[str], stride: int, quoted: list[str]) -> list[str] | None:
    """The *cells* with the *quoted* ones in their holes; None when a quoted part was not a whole cell.

    Mostly it is the same columns that are quoted in all rows, which are filled one by one.
    """
    places = [place for place in range(stride) if cells[place] == _HOLE]
    count = len(cells) // stride
    if len(quoted) == len(places) * count and all(cells[place::stride].count(_HOLE) == count for place in places):
        for number, place in enumerate(places):
            cells[place::stride] = quoted[number :: len(places)]
        return cells
    place = -1
    try:
        for cell in quoted:
            place = cells.index(_HOLE, place + 1)
            cells[place] = cell
    except ValueError:
        return None
    return cells


def _check_text(name: str, text: str) -> None:
    """Refuses what cannot be sent in the column *name*."""
    found = _UNFIT(text)
    if found and found[0] > "\x7f":
        raise CellFault(f"{name} has bytes that are not UTF-8", "write the text again and save it as UTF-8")
    if found:
        raise CellFault(f"{name} has a control character", "delete it; only tabs and line breaks may stand there")


def has_controls(text: str) -> bool:
    """Whether *text* has a control character other than tabs and line ends."""
    data = text.encode(errors="surrogateescape")
    return data.translate(_WITHOUT_CONTROLS) != data

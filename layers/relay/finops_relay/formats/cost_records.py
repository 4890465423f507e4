"""The records of a cost file in batches, before anybody judges them; mended ones already in the place of what stood."""

from __future__ import annotations

import csv
import io
import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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
                cells = cells_of_lines(block.text, len(self.columns))
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
                values[place] = self._mended(values[place], written)
                mended.add(place)
        there = [bool(row) if not mended else place in mended or not is_blank(row) for place, row in enumerate(values)]
        if not all(there):
            lines, values = list(compress(lines, there)), list(compress(values, there))
        if values:
            odd = bool(mended) or not block.decodable or has_controls(block.text)
            yield RowBatch(self.columns, lines, values, odd, blanks=not mended)

    def _mended(self, values: list[str], written: Mapping[str, str]) -> list[str]:
        """The record with what a person wrote; a column left out of the mended file stays as it was."""
        former = values if len(values) == len(self.columns) else [""] * len(self.columns)
        return [written.get(name, old) if name else old for name, old in zip(self.columns, former, strict=True)]

    def _check_header(self, name: str) -> None:
        named = [column.strip() for column in self.columns if column.strip()]
        twice = [column for column in dict.fromkeys(named) if named.count(column) > 1]
        if twice:
            reason = "the header has two columns of one name"
            fix = "delete one of the two columns, or rename it"
            raise InputRefused(reason, file=name, line=self.header_line, value=twice[0], fix=fix)


_CONTROLS = bytes(set(range(0x20)) - set(b"\t\n\r")) + b"\x7f"


_UNFIT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\udc80-\udcff]").search
_QUOTED = re.compile(r'"([^"]*+(?:""[^"]*+)*+)"')
"""A quoted part of a line, as far as quotes that are doubled inside go on."""
_BEFORE = ("", ",", "\n")
_AFTER = (",", "\n")

CELLS_CHARS = 131_072
"""Longest block that is taken apart at its commas: the CSV parser refuses longer cells, and both must do the same."""


def cells_of_lines(text: str, width: int) -> list[str] | None:
    """The cells of CSV lines, each line followed by its end as a cell of its own; in half of a parser's time.

    None when some line is not one whole record of *width* cells, or is quoted in a way that needs a parser.

    Args:
        text: whole lines; only the last may lack its end.
        width: how many cells a record has.
    """
    text = text.replace("\r\n", "\n") if "\r" in text else text
    text = text if text.endswith("\n") else text + "\n"
    if "\r" in text or len(text) > CELLS_CHARS:
        return None
    bare, quoted = [text], []
    if '"' in text:
        parts = _QUOTED.split(text)
        bare, quoted = parts[::2], parts[1::2]
        if not _stand_alone(bare, quoted):
            return None
        text = "".join(bare)
    cells = text.replace("\n", ",\n,").split(",")
    cells.pop()
    count = text.count("\n")
    if len(cells) != count * (width + 1) or cells[width :: width + 1].count("\n") != count:
        return None
    place = 0
    for before, cell in zip(bare, quoted, strict=False):
        place += before.count(",") + 2 * before.count("\n")
        cells[place] = cell.replace('""', '"')
    return cells


def _stand_alone(bare: Sequence[str], quoted: Sequence[str]) -> bool:
    """Whether quotes stand around whole cells only, none of which has a line end in it.

    Args:
        bare: what stands before, between and behind the quoted parts.
        quoted: what stands inside of quotes.
    """
    ends = bare[0][-1:] in _BEFORE and bare[-1][:1] in _AFTER
    between = all(part and part[0] in _AFTER and part[-1] in _BEFORE for part in bare[1:-1])
    return ends and between and '"' not in "".join(bare) and "\n" not in "".join(quoted)


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
    return len(data.translate(None, _CONTROLS)) != len(data)

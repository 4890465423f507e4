"""Files of telemetry in any form, told apart by content: CSV, JSON or NDJSON; plain or gzip; added up by record.

How it is fast: rows are judged many at a time, column by column, and what the same cells mean is looked up. A fault of
any row ends the reading of all that were given together; the halves are given anew, until each faulty row stands
alone. Rows are added up only after all that were given together were found right, so none counts twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from functools import partial
from itertools import repeat
from typing import BinaryIO, cast

from finops_relay.errors import InputRefused
from finops_relay.formats.archives import Budget
from finops_relay.formats.cost_cells import SUM_CONTEXT, CellFault, Cells, nearest
from finops_relay.formats.cost_files import (
    judged,
    open_records,
    open_with_advice,
    refuse_no_rows,
    refuse_other_separators,
)
from finops_relay.formats.cost_records import Batch, Chosen, CsvRecords, Mending
from finops_relay.formats.csv_rows import Readable, csv_line
from finops_relay.formats.json_items import scalar_text
from finops_relay.formats.rejected_rows import RejectedRow
from finops_relay.formats.telemetry import (
    ALLOCATION,
    ELEMENT,
    GRANULARITIES,
    Dialect,
    Ident,
    Labels,
    Shape,
    Total,
    differing,
    element_of,
    empty,
    granularity_of,
    keys_of,
    label_of,
    period_of,
    values_of,
)

TELEMETRY_BLOCK_BYTES = 96 * 1024
"""Bytes read at once: a thousand rows, whose cells still fit a processor's cache (measured)."""

MAX_RECORDS = 500_000
"""Different records of one file: all of them are held in memory until they are added up."""

TIMESTAMP, VALUE, GRANULARITY = "timestamp", "value", "granularity"
OWN = (TIMESTAMP, VALUE, GRANULARITY, ELEMENT)
"""The columns beside the dimensions."""
DIMENSION = "filter."
"""What the name of a dimension's column begins with."""

_PREFIXES = (DIMENSION, "element.")
_NESTED = ("filter", "element", "associated_cost", "dimensions")
"""Members of a JSON object that hold its dimensions, under either contract and in records from applications."""
_FORMS = "drop the records as CSV in UTF-8 (timestamp,value,granularity,filter.<name>), JSON or NDJSON, or its gzip"
_SPLIT = "split it by period, such as a file for each day, and drop the files one after the other"
_WHOLE_PERIODS = "a deletion has timestamp and granularity only, because it deletes whole periods"
_KEEP_TWO = "delete the other columns, if all records of these periods are to go"


def open_telemetry_file(name: str, source: BinaryIO, encoded_bytes: int, budget: Budget) -> BinaryIO:
    """Opens a dropped file of telemetry. Arguments and errors as of :func:`open_with_advice`."""
    return open_with_advice(_FORMS, name, source, encoded_bytes, budget)


class TelemetryReader:
    """Reads one file of telemetry for one stream, once.

    Args:
        name: the file's name, for messages.
        dialect: of the tenant's contract, and the stream's kind.
        stream: what the stream's first record has frozen; None when it has none yet: then the first good record of the
            file says.
        mended: values by column that replace, before any check, those of the row that begins on this line (of a JSON
            array: of the element with this number).
        deletion: rows name periods, of which all records are to go; each is a record without dimensions and of value 0.
        refused: what is wrong and what to do, for records of which every row is to be rejected.
        only: lines of the rows that are read; all others are left out and not counted. None reads every row.
        budget: where rows are counted, if anywhere.
        block_bytes: how much is read at once; it never shows in the records.
    """

    def __init__(  # noqa: PLR0913 -- a file, and what is special about reading it this time
        self,
        name: str,
        dialect: Dialect,
        stream: Shape | None,
        mended: Mapping[int, Mapping[str, str]] | None = None,
        *,
        deletion: bool = False,
        refused: Mapping[Ident, tuple[str, str]] | None = None,
        only: frozenset[int] | None = None,
        budget: Budget | None = None,
        block_bytes: int = TELEMETRY_BLOCK_BYTES,
    ) -> None:
        self._name = name
        self._dialect = dialect
        self._deletion = deletion
        self._stream = Shape(stream.granularity, ()) if stream and deletion else stream
        self._refused = refused or {}
        self._mending = Mending(name, mended)
        self._only = only
        self._chosen = Chosen(only)
        self._budget = budget
        self._block_bytes = block_bytes
        self._meanings = None if self._stream is None else self._meanings_of(self._stream)
        self._totals: dict[Ident, Total] = {}
        self._cut = 0
        self._several = 0
        self.shape: Shape | None = None
        """Of the file's records; a deletion's has no keys. None before a row was accepted."""
        self.columns: tuple[str, ...] = ()
        """The file's header as it stood; of JSON the names in first-seen order."""
        self.rows_in = 0
        """Rows read so far: those that were accepted and those that were rejected."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was changed in the rows that were read, and how often."""
        notes = (
            (self._cut, "timestamps were cut to the beginning of their period"),
            (self._several, "records have several rows, which were added up"),
        )
        return tuple(f"{count:,} {note}" for count, note in notes if count)

    def totals(self, stream: Readable, reject: Callable[[RejectedRow], object]) -> dict[Ident, Total]:
        """What the rows of each record add up to, in the order of their first rows.

        Args:
            stream: the file's decoded bytes.
            reject: told of every row that is not counted, in their order.

        Raises:
            InputRefused: no row of the file can be delivered: it is in no known form, has an unusable header, other
                keys than its stream, no rows, or too many different records; or a mended row does not belong to it.
        """
        objects = _Objects(self._dialect, deletion=self._deletion)
        records = open_records(_FORMS, self._name, stream, self._mending, objects, block_bytes=self._block_bytes)
        self.columns = records.columns
        layout = _Layout(records.columns, self._dialect, deletion=self._deletion, fixed=isinstance(records, CsvRecords))
        if layout.fixed:
            self._check_header(layout, records.header_line)
        for whole in records.batches():
            self.columns = records.columns
            if whole.columns != layout.columns:  # only JSON goes on to find names
                layout = _Layout(whole.columns, self._dialect, deletion=self._deletion, fixed=False)
            for chosen in self._chosen.of(whole):
                self._take(layout, chosen, reject)
        self._mending.finish()
        if not self.rows_in and self._only is None:
            refuse_no_rows(self._name)
        if not self._deletion:
            self._several = sum(total.rows > 1 for total in self._totals.values())
        return self._totals

    def _meanings_of(self, shape: Shape) -> _Meanings:
        return _Meanings(self._dialect, shape, deletion=self._deletion)

    def _take(self, layout: _Layout, batch: Batch | RejectedRow, reject: Callable[[RejectedRow], object]) -> None:
        """Counts some rows."""
        if isinstance(batch, RejectedRow):
            reject(batch)
            self._count(1)
            return
        for one in judged(self._name, batch, lambda columns: self._read(layout, columns)):
            if isinstance(one, RejectedRow):
                reject(one)
                self._count(1)
            else:
                self._add(*one)

    def _read(self, layout: _Layout, columns: Sequence[Sequence[str]]) -> _Read:
        """Checks some rows, all at once; where nobody knows the stream's shape, the first of them says it."""
        meanings = self._meanings or self._meanings_of(layout.shape_of_first(columns, None))
        read = meanings.read(layout, columns, self._stream)
        if self._refused:
            for ident in read.idents():
                said = self._refused.get(Ident(*ident))
                if said is not None:
                    raise CellFault(*said)
        return read

    def _add(self, batch: Batch, read: _Read) -> None:
        """Adds rows up that are all right."""
        self._meanings = read.meanings
        self.shape = read.meanings.shape
        self._cut += read.cut
        totals = self._totals
        known = cast("Mapping[tuple[int, Labels], Total]", totals)  # an Ident is found by any tuple that equals it
        with localcontext(SUM_CONTEXT):
            for ident, value, line in zip(read.idents(), read.values, batch.lines, strict=True):
                total = known.get(ident)
                if total is None:
                    totals[Ident(*ident)] = Total(value, 1, line)
                else:
                    total.value += value
                    total.rows += 1
        self._count(len(read.values))
        if len(totals) > MAX_RECORDS:
            reason = f"the file has more than {MAX_RECORDS:,} different records"
            raise InputRefused(reason, file=self._name, fix=_SPLIT)

    def _count(self, rows: int) -> None:
        self.rows_in += rows
        if self._budget is not None:
            self._budget.count_rows(self._name, rows)

    def _check_header(self, layout: _Layout, line: int) -> None:
        """Refuses a CSV file by its header."""
        header = layout.columns
        wanted = (TIMESTAMP,) if self._deletion else (TIMESTAMP, VALUE)
        if not any(name in layout.own for name in wanted):
            refuse_other_separators(self._name, header, line)
            reason = "the first line is no header of telemetry"
            raise InputRefused(reason, file=self._name, line=line, value=csv_line(header), fix=_FORMS)
        for place, fault in layout.faults.items():
            if header[place].strip():
                raise InputRefused(fault.error, file=self._name, line=line, value=header[place], fix=fault.fix)
        if self._stream is None:
            wanted = (*wanted, GRANULARITY)
        if self._dialect.named and not self._deletion:
            wanted = (*wanted, ELEMENT)
        for name in wanted:
            if name not in layout.own:
                fix = f"add the column {name}" + (f": {', '.join(GRANULARITIES)}" if name == GRANULARITY else "")
                raise InputRefused(f"the header has no column {name}", file=self._name, line=line, fix=fix)
        try:
            keys = layout.keys()
        except CellFault as fault:
            raise InputRefused(fault.error, file=self._name, line=line, fix=fault.fix) from None
        if self._stream is not None and keys != self._stream.keys:
            other = differing(Shape(self._stream.granularity, keys), self._stream)
            raise InputRefused(other.error, file=self._name, line=line, fix=other.fix)


class _Objects:
    """JSON objects that are records, with their dimensions beside or nested in them."""

    noun = "records"
    example = (
        '{"timestamp": "2026-03-01T05:00:00Z", "value": 12.5, "granularity": "HOURLY", "filter": {"team": "core"}}'
    )
    few = "write the dimensions of all records under the same few names"
    inside = "records"
    around = ""
    alone = frozenset({TIMESTAMP})
    nested: tuple[str, ...] = _NESTED

    def __init__(self, dialect: Dialect, *, deletion: bool) -> None:
        self._dialect = dialect
        self.names: tuple[str, ...] = (TIMESTAMP, GRANULARITY) if deletion else (TIMESTAMP, VALUE, GRANULARITY)

        self._columns: Cells[tuple[str, str], str] = Cells(self._column)
        self._keys: Cells[str, str | None] = Cells(self._key)

    def column(self, name: str, within: str) -> str:
        """Each dimension and each of the other members has one column, however it was written."""
        return self._columns[name, within]

    def cell(self, column: str, value: object) -> tuple[str | None, CellFault | None]:
        """A scalar as its text, and the texts of a list with bars between them."""
        key = self._keys[column]
        if key is None:
            return scalar_text(value), None
        if isinstance(value, list):
            return self._listed(key, value)
        text = scalar_text(value)
        return text, empty(key) if text is not None and not text.strip() else None

    def _column(self, place: tuple[str, str]) -> str:
        name, within = place
        own, key = (None, name) if within else (own_name(name), dimension(name))
        if own is not None or key is None:
            return own or name
        return ELEMENT if key == ELEMENT and _one_place(self._dialect) else DIMENSION + key

    def _key(self, column: str) -> str | None:
        return ELEMENT if column == ELEMENT and _one_place(self._dialect) else dimension(column)

    def _listed(self, key: str, values: Sequence[object]) -> tuple[str | None, CellFault | None]:
        texts = [text for text in map(scalar_text, values) if text is not None]
        joined = "|".join(texts)
        fault = None
        if len(texts) < len(values):
            fault = CellFault(f"{key} has a list or an object among its values", "write texts")
        elif not joined.strip():
            fault = empty(key)
        elif len(texts) > 1 and not self._dialect.several:
            fault = CellFault(f"{key} has several values, and CloudZero takes one", "write a record for each")
        elif joined.count("|") >= len(texts) and self._dialect.kind == ALLOCATION:
            fault = CellFault(f"{key} has a bar in a value, where bars stand between values", "write it without bars")
        return joined, fault


def own_name(column: str) -> str | None:
    """One of :data:`OWN` that *column* names, in any case."""
    name = column.strip().lower()
    return name if name in OWN else None


def dimension(column: str) -> str | None:
    """The dimension that *column* holds the values of."""
    name = column.strip()
    prefix = next((prefix for prefix in _PREFIXES if name.lower().startswith(prefix)), None)
    return None if prefix is None else name[len(prefix) :]


def _one_place(dialect: Dialect) -> bool:
    """Whether an element's name is one of the dimensions."""
    return dialect.kind == ALLOCATION and not dialect.live


class _Layout:
    """Which column is what, under one header.

    Args:
        columns: the header.
        dialect: of the contract.
        deletion: rows name periods only.
        fixed: the header of a CSV file: all its rows have these dimensions; of JSON each has those that it names.
    """

    def __init__(self, columns: tuple[str, ...], dialect: Dialect, *, deletion: bool, fixed: bool) -> None:
        self.columns = columns
        self.fixed = fixed
        self._dialect = dialect
        self.own: dict[str, int] = {}
        self.dimensions: dict[str, int] = {}
        self.faults: dict[int, CellFault] = {}
        """Columns that may have no values, by place, and why."""
        for place, column in enumerate(columns):
            own, key = own_name(column), dimension(column)
            if own == ELEMENT and _one_place(dialect):
                own, key = None, ELEMENT
            found, name = (self.own, own) if own is not None else (self.dimensions, key)
            if deletion and own not in {TIMESTAMP, GRANULARITY}:
                self.faults[place] = CellFault(_WHOLE_PERIODS, _KEEP_TWO, whole_file=True)
            elif name is None:
                self.faults[place] = _unknown(column)
            elif name in found:
                error = f"{columns[found[name]]!r} and {column!r} are one column"
                self.faults[place] = CellFault(error, "use one of the two names")
            else:
                found[name] = place

    def keys(self) -> tuple[str, ...]:
        """The keys of records that have all dimensions of the header. Raises CellFault."""
        return keys_of(self.dimensions, self._dialect, element=False)

    def shape_of_first(self, columns: Sequence[Sequence[str]], stream: Shape | None) -> Shape:
        """The shape of the first of some rows; what *stream* says where it says no granularity. Raises CellFault."""
        place = self.own.get(GRANULARITY)
        granularity = _granularity("" if place is None else columns[place][0], stream)
        if self.fixed:
            return Shape(granularity, self.keys())
        there = [key for key, place in self.dimensions.items() if columns[place][0].strip()]
        return Shape(granularity, keys_of(there, self._dialect, element=False))


def _granularity(text: str, stream: Shape | None) -> str:
    """What *text* says, or *stream* where it says nothing. Raises CellFault."""
    if text.strip():
        return granularity_of(text)
    if stream is None:
        raise CellFault("granularity is empty", f"write one of {', '.join(GRANULARITIES)}")
    return stream.granularity


def _unknown(column: str) -> CellFault:
    """What is wrong with a column that is none of telemetry's."""
    name = column.strip()
    if not name:
        return CellFault("a column without a name has a value", "name the column, or empty it")
    if name in _NESTED:
        return CellFault(
            f"{name} is no object", f"write each of its keys as a column or member of its own, {name}.<key>"
        )
    near = nearest(name, OWN)
    meant = f"write {near}, if it is meant; " if near else ""
    return CellFault(
        f"telemetry has no column {name[:60]!a}",
        f"{meant}a dimension is written {DIMENSION}{name[:60]}; else delete it",
    )


@dataclass(frozen=True)
class _Read:
    """Rows that are all right."""

    meanings: _Meanings
    periods: Sequence[int]
    labels: Sequence[Sequence[str]]
    """By column."""
    values: Sequence[Decimal]
    cut: int
    """How many timestamps stood after the beginning of their period."""

    def idents(self) -> Iterator[tuple[int, Labels]]:
        """Of which record each is."""
        return zip(self.periods, zip(*self.labels, strict=True) if self.labels else repeat(()))  # noqa: B905 -- endless


class _Meanings:
    """What the cells of records of one shape mean, remembered in bounded memory.

    Args:
        dialect: of the contract.
        shape: of the records.
        deletion: they name periods only.
    """

    def __init__(self, dialect: Dialect, shape: Shape, *, deletion: bool) -> None:
        self._dialect = dialect
        self._deletion = deletion
        self.shape = shape
        self._periods: Cells[str, int] = Cells(self._period)
        self._cut: Cells[str, bool] = Cells(lambda text: period_of(text, shape.granularity)[1])
        self._some_cut = False
        self._labels: dict[str, Cells[str, str]] = {
            key: Cells(partial(label_of, key, dialect=dialect)) for key in shape.keys
        }
        self._elements: Cells[str, str] = Cells(partial(element_of, dialect=dialect))

    def read(self, layout: _Layout, columns: Sequence[Sequence[str]], stream: Shape | None) -> _Read:
        """Checks some rows.

        Args:
            layout: which column is what.
            columns: their cells.
            stream: what says the granularity of a row that does not.

        Raises:
            CellFault: one of them cannot be sent, or has another shape.
        """
        count = len(columns[0])
        for place, fault in layout.faults.items():
            if any(map(str.strip, columns[place])):
                raise fault
        self._check_shape(layout, columns, stream)
        times = _column(layout.own, TIMESTAMP, columns, count)
        periods = list(map(self._periods.__getitem__, times))
        cut = sum(map(self._cut.__getitem__, times)) if self._some_cut else 0
        if self._deletion:
            return _Read(self, periods, (), [Decimal(0)] * count, cut)
        labels = [
            list(map(cells.__getitem__, _column(layout.dimensions, key, columns, count)))
            for key, cells in self._labels.items()
        ]
        if self._dialect.named or ELEMENT in layout.own:
            elements = list(map(self._elements.__getitem__, _column(layout.own, ELEMENT, columns, count)))
            labels[:0] = [elements] if self._dialect.named else []
        values = values_of(_column(layout.own, VALUE, columns, count), self._dialect)
        return _Read(self, periods, labels, values, cut)

    def _check_shape(self, layout: _Layout, columns: Sequence[Sequence[str]], stream: Shape | None) -> None:
        """Refuses rows of another shape; one that lacks a key is told so later."""
        place = layout.own.get(GRANULARITY)
        texts = set(columns[place]) if place is not None else {""}
        beyond = [place for key, place in layout.dimensions.items() if key not in self.shape.keys]
        if {_granularity(text, stream) for text in texts} != {self.shape.granularity} or any(
            any(map(str.strip, columns[place])) for place in beyond
        ):
            raise differing(layout.shape_of_first(columns, stream), self.shape)

    def _period(self, text: str) -> int:
        period, cut = period_of(text, self.shape.granularity)
        self._some_cut |= cut
        return period


def _column(places: Mapping[str, int], name: str, columns: Sequence[Sequence[str]], count: int) -> Sequence[str]:
    """The cells of a column, which are blank where there is none."""
    return columns[places[name]] if name in places else [""] * count

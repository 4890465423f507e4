"""Rows of cost in the Common Bill Format, whatever form they were dropped in, and the checks that all forms share.

How it is fast: rows are judged many at a time, column by column, because nearly all are right and nearly all cells were
seen before. A fault of any row ends the reading of all that were given together; the caller gives the halves anew,
until each faulty row stands alone. So there is one set of checks, and how rows were given together never shows.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from decimal import Decimal, localcontext
from itertools import repeat
from operator import gt
from typing import Protocol, cast

from finops_relay.formats.cost_cells import (
    SUM_CONTEXT,
    TAG,
    Amounts,
    CellFault,
    Cells,
    Tags,
    Times,
    all_escaped,
    line_type,
    plain_decimal,
    read_amounts,
    region,
    resource_id,
    with_values,
)

START = "time/usage_start"
END = "time/usage_end"
COST = "cost/cost"
RESOURCE = "resource/id"
TYPE = "lineitem/type"
REGION = "resource/region"
AMOUNT = "usage/amount"

COSTS = (
    COST,
    "cost/discounted_cost",
    "cost/amortized_cost",
    "cost/discounted_amortized_cost",
    "cost/on_demand_cost",
)
"""The columns of money, in the order of :attr:`CostRow.costs`."""

CBF_COLUMNS = (
    START,
    END,
    *COSTS,
    AMOUNT,
    "usage/units",
    "lineitem/id",
    TYPE,
    "lineitem/description",
    "lineitem/cloud_provider",
    RESOURCE,
    "resource/service",
    "resource/account",
    REGION,
    "resource/usage_family",
    "action/operation",
    "action/usage_type",
    "action/account",
    "action/region",
    "bill/invoice_id",
    "k8s/cluster",
    "k8s/namespace",
    "k8s/deployment",
    "k8s/labels",
)
"""Every column of the Common Bill Format but the tags (contract page), in the order in which a row has them."""

_ORDER = {name: place for place, name in enumerate(CBF_COLUMNS)}
_REGIONS = (REGION, "action/region")
_NEVER_ESCAPED = frozenset({START, END, *COSTS, AMOUNT})


@dataclass(frozen=True, slots=True)
class CostRow:
    """One row of cost that is fit to be sent."""

    line: int
    """1-based physical line on which the row begins in its file; in a JSON array the 1-based number of the element."""

    hour: int
    """The hour of its usage, in hours since the epoch, UTC."""

    columns: dict[str, str]
    """The columns of the Common Bill Format that are not blank; always ``time/usage_start`` and ``cost/cost``.

    In the order of the format, then the tags by name. Amounts are plain decimals without an exponent.
    """

    costs: tuple[Decimal | None, Decimal | None, Decimal | None, Decimal | None, Decimal | None]
    """US dollars in the order of :data:`COSTS`, exact; None for blank, which is not zero."""


class CostForm(Protocol):
    """One of the forms in which costs are dropped, made for the header of one file."""

    name: str
    """``cbf``, ``focus`` or ``line_items``."""

    def read(self, columns: Sequence[Sequence[str]]) -> CostColumns:
        """Checks some rows.

        Args:
            columns: the rows' cells, by column of the file.

        Raises:
            CellFault: one of the rows cannot be delivered as it stands.
        """


@dataclass(frozen=True)
class CostColumns:
    """Some rows that passed all checks, column by column."""

    hours: Sequence[int]
    names: Sequence[str]
    """Columns of the Common Bill Format, in order."""
    cells: Sequence[Sequence[str]]
    """Their cells; blank ones are empty."""
    amounts: Sequence[Amounts | None]
    """The columns of money in the order of :data:`COSTS`; None for those that the form does not have."""
    tags: Sequence[Tags] | None
    """Further tags of each row; None when the form keeps tags in columns only."""
    noted: Mapping[str, int]
    """What was changed, and in how many rows."""

    def by_row(self) -> list[dict[str, str]]:
        """What each row has in its columns that are not blank, as :attr:`CostRow.columns`."""
        filled = [(name, cells) for name, cells in zip(self.names, self.cells, strict=True) if any(cells)]
        blank = dict.fromkeys((name for name, _ in filled), "")
        columns = [blank.copy() for _ in self.hours]  # in order from the start, and a fifth faster than dict(zip())
        for name, cells in filled:
            if all(cells):
                for row, cell in zip(columns, cells, strict=True):
                    row[name] = cell
                continue
            for row, cell in zip(columns, cells, strict=True):
                if cell:
                    row[name] = cell
                else:
                    del row[name]
        for row, tags in zip(columns, self.tags or (), strict=False):
            row.update(tags)
        return columns

    def as_json(self) -> list[bytes]:
        """Each row of :meth:`by_row` as a JSON object in one line, without making the rows: in half of the time.

        What stands before the cells and the cells themselves are laid out row by row, then joined all at once.
        """
        layout: list[Sequence[str]] = []
        count = len(self.hours)
        end = "{"
        for name, cells in zip(self.names, self.cells, strict=True):
            sent = cells if name in _NEVER_ESCAPED else all_escaped(cells)
            if all(cells):
                comma = "," if layout else ""
                layout += [f'{end}{comma}"{name}":"'] * count, sent
                end = '"'
            elif any(cells):  # never the first, which is the start
                layout += [end] * count, [f',"{name}":"{cell}"' if cell else "" for cell in sent]
                end = ""
        if self.tags is not None:
            layout += [end] * count, [tags.json for tags in self.tags]
            end = ""
        layout.append([end + "}\n"] * count)
        texts = [""] * (count * len(layout))
        for place, column in enumerate(layout):
            texts[place :: len(layout)] = column
        return "".join(texts).encode().split(b"\n")[:-1]

    def costs(self) -> list[Sequence[Decimal | None]]:
        """The dollars of all rows, column by column in the order of :data:`COSTS`; None for blank."""
        return [[None] * len(self.hours) if amounts is None else amounts.values for amounts in self.amounts]


@dataclass(frozen=True)
class CostBatch:
    """Rows that stand together in a file, all of them fit to be sent."""

    lines: Sequence[int]
    """Where each begins (see :attr:`CostRow.line`)."""
    columns: CostColumns

    def rows(self) -> list[CostRow]:
        """The same, row by row."""
        costs = list(zip(*self.columns.costs(), strict=True))
        return _many(self.lines, self.columns.hours, self.columns.by_row(), costs)


_NEW = CostRow.__new__
_SLOTS = [getattr(CostRow, field.name).__set__ for field in fields(CostRow)]


def _many(*values: Iterable[object]) -> list[CostRow]:
    """Rows of these fields: ``CostRow(...)`` for each in half of the time, which was a tenth of all a row takes."""
    lines, *others = values
    numbers = list(lines)
    rows = list(map(_NEW, repeat(CostRow, len(numbers))))
    for put, column in zip(_SLOTS, (numbers, *others), strict=True):
        deque(map(put, rows, column), maxlen=0)
    return rows


class CostPlan:
    """The checks of one file: made once for its header, then asked for many rows at a time.

    Args:
        names: the columns of the Common Bill Format that the form gives, ``time/usage_start`` and ``cost/cost`` among
            them, each once.
        shown: the names of the same columns in the file, for messages.
        times: reads the file's times.
        ready: columns whose cells come as they are to be sent.
    """

    def __init__(
        self, names: Sequence[str], shown: Sequence[str], times: Times, ready: frozenset[str] = frozenset()
    ) -> None:
        order = sorted(range(len(names)), key=lambda place: (_ORDER.get(names[place], len(_ORDER)), names[place]))
        self._order = order
        self._names = [names[place] for place in order]
        self._shown = dict(zip(names, shown, strict=True))
        self._times = times
        self._decimals: Cells[str, str] = Cells(plain_decimal)
        kinds = {TYPE: line_type, RESOURCE: resource_id, **dict.fromkeys(_REGIONS, region)}
        self._kinds: dict[str, Cells[str, str]] = {
            name: Cells(kind) for name, kind in kinds.items() if name not in ready
        }
        self._changed = [name for name in (RESOURCE, *_REGIONS) if name in names]
        self._tag_names = [name for name in self._names if name.startswith(TAG)]

    def read(self, columns: Sequence[Sequence[str]], tags: Sequence[Tags] | None = None) -> CostColumns:
        """Checks some rows.

        Args:
            columns: the cells, in the order of the names that the plan was made for.
            tags: further tags of each row, already checked.

        Raises:
            CellFault: one of the rows cannot be delivered as it stands.
        """
        given = {name: columns[place] for name, place in zip(self._names, self._order, strict=True)}
        hours = self._times.hours.column(self._shown[START], given[START])
        amounts = self._amounts(given)
        cells = {name: self._cells(name, given, amounts) for name in self._names}
        cells[START] = list(map(self._times.texts.__getitem__, hours))
        self._check_ends(given, cells)
        self._check_tagged(cells, tags)
        noted = Counter(
            {note: count for name in self._changed for note, count in _changes(name, given[name], cells[name])}
        )
        money = [amounts.get(name) for name in COSTS]
        return CostColumns(hours, self._names, list(cells.values()), money, tags, noted)

    def _amounts(self, given: Mapping[str, Sequence[str]]) -> dict[str, Amounts]:
        """The columns of money; one that holds the same as another (nearly all undiscounted costs do) is read once."""
        amounts: dict[str, Amounts] = {}
        read: list[tuple[Sequence[str], Amounts]] = []
        for name in COSTS:
            if name not in given:
                continue
            column = given[name]
            found = next((amounts for texts, amounts in read if texts is column or texts == column), None)
            if found is None:
                found = with_values(read_amounts(self._shown[name], column, self._decimals))
                read.append((column, found))
            amounts[name] = found
        if not all(amounts[COST].texts):
            raise CellFault(f"{self._shown[COST]} is empty", "write the cost in US dollars, 0 if it was free")
        return amounts

    def _cells(self, name: str, given: Mapping[str, Sequence[str]], amounts: Mapping[str, Amounts]) -> Sequence[str]:
        """The cells of one column as they are sent."""
        if name in amounts:
            return amounts[name].texts
        column = given[name]
        if name == AMOUNT:
            return read_amounts(self._shown[name], column, self._decimals)
        if name == END:
            return self._times.moments.column(self._shown[name], column)
        if name in self._kinds:
            return self._kinds[name].column(self._shown[name], column)
        return without_white_space(column)

    def _check_ends(self, given: Mapping[str, Sequence[str]], cells: Mapping[str, Sequence[str]]) -> None:
        """Refuses an end before its start; the start counts as it stood, before it was floored to the hour."""
        if END in cells and any(cells[END]):
            starts = self._times.moments.column(self._shown[START], given[START])
            if any(map(gt, starts, [end or "~" for end in cells[END]])):  # ~ is behind every digit
                raise CellFault(
                    f"{self._shown[END]} is before {self._shown[START]}", "write the later time as the end, or leave it"
                )

    def _check_tagged(self, cells: Mapping[str, Sequence[str]], tags: Sequence[Tags] | None) -> None:
        """Refuses a tag on a row without a resource."""
        resources = cells.get(RESOURCE)
        if resources is not None and all(resources):
            return
        tagged: list[Sequence[object]] = [cells[name] for name in self._tag_names]
        tagged += [] if tags is None else [tags]
        without = repeat("") if resources is None else resources
        if any(not resource and any(row) for resource, row in zip(without, zip(*tagged, strict=True), strict=False)):
            error = f"{self._shown.get(RESOURCE, RESOURCE)} is empty, and the row has tags"
            raise CellFault(error, "write the resource that is tagged as type/name, or leave the tags empty")


def without_white_space(column: Sequence[str]) -> Sequence[str]:
    """*column* with its cells of nothing but white space made empty."""
    if any(map(str.isspace, column)):
        return ["" if cell.isspace() else cell for cell in column]
    return column


def _changes(name: str, given: Sequence[str], sent: Sequence[str]) -> Iterable[tuple[str, int]]:
    """What a receipt says of values that are sent otherwise than they stood."""
    if list(given) != sent:
        count = sum(cell.strip() != new for cell, new in zip(given, sent, strict=True))
        if count:
            said = "were written as type/name" if name == RESOURCE else "named global were written as no-region"
            yield f"values of {name} {said}", count


class CostTotals:
    """The money of a file, by column, and whether the columns agree as CloudZero will read them."""

    def __init__(self) -> None:
        self._sums = [Decimal(0)] * 4

    def add(self, rows: CostColumns) -> None:
        """Adds rows that were accepted."""
        cost, discounted, amortized, both = (
            None if amounts is None or not any(amounts.texts) else amounts for amounts in rows.amounts[:4]
        )
        columns = _or(cost), _or(discounted, cost), _or(amortized, cost), _or(both, amortized, discounted, cost)
        sums: dict[int, Decimal] = {}
        with localcontext(SUM_CONTEXT):
            for place, values in enumerate(columns):
                if id(values) not in sums:
                    sums[id(values)] = sum(values, Decimal(0))
                self._sums[place] += sums[id(values)]

    def warning(self) -> str | None:
        """What a receipt says when the totals differ; None when they agree."""
        if len(set(self._sums)) == 1:
            return None
        shown = ", ".join(f"{name} {total:f}" for name, total in zip(COSTS, self._sums, strict=False))
        return f"the totals of the cost columns differ (blank cells taken from the next column): {shown}"


def _or(*columns: Amounts | None) -> Sequence[Decimal]:
    """The first of *columns*, its blanks filled from the next ones; the last has no blanks."""
    first, *others = (column for column in columns if column is not None)
    filled, whole = first.values, all(first.texts)
    for column in others:
        if whole:
            break
        filled = [other if value is None else value for value, other in zip(filled, column.values, strict=True)]
        whole = all(column.texts)
    return cast("Sequence[Decimal]", filled)

"""From files of costs to bodies that CloudZero takes, with every row counted and every sum exact.

Rows that are right as costs and that the tenant's contract cannot express are named and not packed; the caller then
reads the files again with these rows refused, so that what is packed is whole.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, localcontext
from itertools import compress, islice
from typing import TYPE_CHECKING, Self, cast

from finops_relay.cloudzero.records import DropOperation
from finops_relay.delivery.packer import MAX_BODY_BYTES, Body, Duplicates, Mode, Packer
from finops_relay.errors import InputRefused
from finops_relay.formats.cost_cells import Amounts
from finops_relay.formats.cost_files import CostFileReader
from finops_relay.formats.cost_rows import COSTS, SUM_CONTEXT, CostBatch
from finops_relay.formats.csv_rows import Readable
from finops_relay.formats.rejected_rows import RejectedRow

if TYPE_CHECKING:
    from finops_relay.cloudzero.client import CloudZero  # loads httpx, which the first message does

OPERATIONS: Mapping[Mode, DropOperation] = {
    Mode.MONTH: DropOperation.REPLACE_DROP,
    Mode.HOURS: DropOperation.REPLACE_HOURLY,
    Mode.APPEND: DropOperation.SUM,
}
LINE_BITS = 40
"""Of an origin; the member of a folder stands above them. A file of a trillion lines is beyond every ceiling."""
SUMMED_ROWS = 20_000
"""Rows that are summed by hour at once: some thirty for each hour of a month, where their order is any."""

Costs = tuple[Decimal | None, ...]
"""US dollars in the order of ``COSTS``; None where no row had the column, which is not zero."""


@dataclass(frozen=True)
class HourTotals:
    """What was packed of one hour."""

    rows: int = 0
    costs: Costs = (None,) * len(COSTS)


class Packing:
    """Reads files of costs for one month, and writes their rows as bodies for one contract.

    Args:
        client: of the contract.
        month: the first day of the month.
        whole_month: the bodies replace the month; else the hours that they have.
        appends_only: the contract replaces nothing.
        max_bytes: of a body.
    """

    def __init__(
        self,
        client: type[CloudZero],
        month: date,
        *,
        whole_month: bool,
        appends_only: bool,
        max_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        self._client = client
        self._packer = Packer(
            lambda mode: client.drop_envelope(OPERATIONS[mode], month),
            whole_month=whole_month,
            appends_only=appends_only,
            max_bytes=max_bytes,
        )
        self._sums = _Sums()
        self.rows = 0
        """Rows that were packed."""
        self.refused: dict[int, dict[int, tuple[str, str]]] = {}
        """Rows that the contract cannot express, which were not packed: error and fix by line, by member."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the rows."""
        self._packer.close()

    @staticmethod
    def origin(member: int, line: int) -> int:
        """Where a row came from, as one number: the file's number among its delivery's, and the line in it."""
        return member << LINE_BITS | line

    @staticmethod
    def origin_of(origin: int) -> tuple[int, int]:
        """The member and the line that an origin means."""
        return origin >> LINE_BITS, origin & (1 << LINE_BITS) - 1

    @property
    def size(self) -> int:
        """Bytes of all rows that were packed, a comma behind each; the bodies add what stands around them."""
        return self._packer.size

    @property
    def hours(self) -> Mapping[int, HourTotals]:
        """What was packed of each hour, in order."""
        return self._sums.by_hour()

    @property
    def totals(self) -> Mapping[str, Decimal]:
        """The sum of each column of money that any row had."""
        columns = zip(*(hour.costs for hour in self.hours.values()), strict=True)
        with localcontext(SUM_CONTEXT):
            sums = {name: _sum(column) for name, column in zip(COSTS, columns, strict=False)}
        return {name: total for name, total in sums.items() if total is not None}

    @property
    def duplicates(self) -> Duplicates:
        """Rows that stand more than once in an hour; known once the bodies were written."""
        return self._packer.duplicates

    def add_file(
        self, member: int, reader: CostFileReader, stream: Readable, reject: Callable[[RejectedRow], object]
    ) -> None:
        """Take the rows of one file.

        Args:
            member: the file's number among its delivery's; each once.
            reader: for the file, fresh.
            stream: its decoded bytes.
            reject: takes the rows that are not right.

        Raises:
            InputRefused: no row of the file can be delivered.
        """
        for batch in reader.batches(stream):
            if isinstance(batch, RejectedRow):
                reject(batch)
            else:
                self._add(member, batch)

    def bodies(self, write: Callable[[int], Callable[[bytes], object]]) -> Iterator[Body]:
        """Write the bodies; as `Packer.bodies`."""
        return self._packer.bodies(write)

    def _add(self, member: int, batch: CostBatch) -> None:
        """Pack rows that are right, except for those that the contract cannot express."""
        cells = batch.columns.by_row()
        lines, hours, money = batch.lines, batch.columns.hours, batch.columns.amounts
        try:
            rows = list(map(self._client.drop_row, cells))
        except InputRefused:
            rows = []
        if not rows or max(map(len, rows)) > self._packer.max_row_bytes:
            each = [self._expressed(member, line, row) for line, row in zip(lines, cells, strict=True)]
            kept = [row is not None for row in each]
            rows = [row for row in each if row is not None]
            lines, hours = list(compress(lines, kept)), list(compress(hours, kept))
            money = [
                column and Amounts(list(compress(column.texts, kept)), list(compress(column.values, kept)))
                for column in money
            ]
        above = self.origin(member, 0)
        self._packer.add_all(hours, rows, array("Q", map(above.__or__, lines)))
        self._sums.add(hours, money)
        self.rows += len(rows)

    def _expressed(self, member: int, line: int, cells: Mapping[str, str]) -> bytes | None:
        """One row as the contract has it; None, and noted, when it has no way to."""
        try:
            row = self._client.drop_row(cells)
        except InputRefused as refusal:
            said = (f"{refusal.reason}: {refusal.value}" if refusal.value else refusal.reason, refusal.fix)
        else:
            most = self._packer.max_row_bytes
            if len(row) <= most:
                return row
            said = (f"the row has {len(row):,} bytes as JSON, and a body holds {most:,}", "shorten its longest values")
        self.refused.setdefault(member, {})[line] = said
        return None


class _Sums:
    """Adds up the money of each hour, many rows at a time."""

    def __init__(self) -> None:
        self._hours: list[int] = []
        self._columns = [_Column() for _ in COSTS]
        self._totals: dict[int, HourTotals] = {}

    def add(self, hours: Sequence[int], money: Sequence[Amounts | None]) -> None:
        """Take the hours of some rows, and their money by column."""
        self._hours += hours
        for column, amounts in zip(self._columns, money, strict=True):
            column.add(len(hours), amounts)
        if len(self._hours) >= SUMMED_ROWS:
            self._sum()

    def by_hour(self) -> Mapping[int, HourTotals]:
        """What every hour has come to."""
        self._sum()
        return dict(sorted(self._totals.items()))

    def _sum(self) -> None:
        order = sorted(range(len(self._hours)), key=self._hours.__getitem__)
        counts = sorted(Counter(self._hours).items())
        done: list[tuple[_Column, Sequence[Decimal | None]]] = []
        with localcontext(SUM_CONTEXT):
            for column in self._columns:
                alike = (sums for other, sums in done if other.values == column.values)
                done.append((column, next(alike, None) or column.sums(order, [count for _, count in counts])))
            for (hour, count), *costs in zip(counts, *(sums for _, sums in done), strict=True):
                former = self._totals.get(hour, HourTotals())
                added = tuple(map(_sum, zip(former.costs, costs, strict=True)))
                self._totals[hour] = HourTotals(former.rows + count, added)
        self._hours, self._columns = [], [_Column() for _ in COSTS]


class _Column:
    """One column of money of the rows that were not summed yet."""

    def __init__(self) -> None:
        self.values: list[Decimal | None] = []
        self._any = False
        self._all = True

    def add(self, rows: int, amounts: Amounts | None) -> None:
        """Take the values of some rows."""
        self.values += [None] * rows if amounts is None else amounts.values
        self._any = self._any or amounts is not None
        self._all = self._all and amounts is not None and all(amounts.texts)

    def sums(self, order: Sequence[int], counts: Sequence[int]) -> Sequence[Decimal | None]:
        """The sum of the first so many values in this *order*, of the next so many, and so on."""
        if not self._any:
            return [None] * len(counts)
        values = map(self.values.__getitem__, order)
        if not self._all:
            return [_sum(islice(values, count)) for count in counts]
        whole = cast("Iterator[Decimal]", values)
        return [sum(islice(whole, count), Decimal(0)) for count in counts]


def _sum(values: Iterable[Decimal | None]) -> Decimal | None:
    """The sum of the *values* that are there; None when there is none. Exact within ``SUM_CONTEXT``."""
    there = [value for value in values if value is not None]
    return sum(there, Decimal(0)) if there else None

"""From files of costs to bodies that CloudZero takes, with every row counted and every sum exact.

Rows that are right as costs and that the tenant's contract cannot express are named and not packed; the caller then
reads the files again with these rows refused, so that what is packed is whole.
"""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, localcontext
from itertools import compress
from typing import TYPE_CHECKING, Self, cast

from finops_relay.cloudzero.records import DropOperation
from finops_relay.delivery.packer import MAX_BODY_BYTES, Body, Duplicates, Mode, Packer, RowTooLargeError
from finops_relay.errors import InputRefused
from finops_relay.formats.cost_cells import SUM_CONTEXT, Amounts
from finops_relay.formats.cost_files import CostFileReader
from finops_relay.formats.cost_rows import COST, COSTS, START, CostBatch
from finops_relay.formats.csv_rows import Readable
from finops_relay.formats.rejected_rows import RejectedRow
from finops_relay.jobs.billing.money import total
from finops_relay.jobs.billing.remembered import NO_COSTS, Costs

if TYPE_CHECKING:
    from finops_relay.cloudzero.client import CloudZero  # loads httpx, which the first message does

OPERATIONS: Mapping[Mode, DropOperation] = {
    Mode.MONTH: DropOperation.REPLACE_DROP,
    Mode.HOURS: DropOperation.REPLACE_HOURLY,
    Mode.APPEND: DropOperation.SUM,
}
LINE_BITS = 40
"""Of an origin; the member of a folder stands above them. A file of a trillion lines is beyond every ceiling."""

_PROBE = {START: "2026-02-01T00:00:00Z", COST: "1.0", "resource/service": '"'}
"""A row that shows whether a contract sends the columns as a JSON object of texts (`live`), which can be made faster.

A test holds the two ways to the same bytes.
"""


@dataclass(frozen=True)
class HourTotals:
    """What was packed of one hour."""

    rows: int = 0
    costs: Costs = NO_COSTS


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
        self._plain = client.drop_row(_PROBE) == json.dumps(_PROBE, separators=(",", ":")).encode()
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
        sums = zip(COSTS, total(hour.costs for hour in self.hours.values()), strict=True)
        return {name: amount for name, amount in sums if amount is not None}

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
        """Pack rows that are right: all at once if the contract can express them all, else one by one."""
        columns = batch.columns
        try:
            rows = columns.as_json() if self._plain else list(map(self._client.drop_row, columns.by_row()))
            self._pack(member, batch.lines, columns.hours, rows, columns.amounts)
        except (InputRefused, RowTooLargeError):
            cells = zip(batch.lines, columns.by_row(), strict=True)
            each = [self._expressed(member, line, row) for line, row in cells]
            kept = [row is not None for row in each]
            money = [
                column and Amounts(list(compress(column.texts, kept)), list(compress(column.values, kept)))
                for column in columns.amounts
            ]
            lines, hours = list(compress(batch.lines, kept)), list(compress(columns.hours, kept))
            self._pack(member, lines, hours, [row for row in each if row is not None], money)

    def _pack(
        self,
        member: int,
        lines: Sequence[int],
        hours: Sequence[int],
        rows: Sequence[bytes],
        money: Sequence[Amounts | None],
    ) -> None:
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
    """Adds up the money of each hour.

    Columns that hold the same, as nearly all undiscounted costs do, are added up once: so the sums are kept for the
    sets of columns (by their places) that held the same in some rows.
    """

    def __init__(self) -> None:
        self._rows: Counter[int] = Counter()
        self._sums: dict[tuple[int, ...], dict[int, Decimal]] = {}

    def add(self, hours: Sequence[int], money: Sequence[Amounts | None]) -> None:
        """Take the hours of some rows, and their money by column."""
        self._rows.update(hours)
        alike: dict[int, list[int]] = {}
        for place, amounts in enumerate(money):
            alike.setdefault(id(amounts), []).append(place)
        with localcontext(SUM_CONTEXT):
            for places in alike.values():
                amounts = money[places[0]]
                if amounts is not None and any(amounts.texts):
                    _add(self._sums.setdefault(tuple(places), {}), hours, amounts)

    def by_hour(self) -> dict[int, HourTotals]:
        """What every hour has come to, in order."""
        with localcontext(SUM_CONTEXT):
            return {hour: HourTotals(rows, self._costs(hour)) for hour, rows in sorted(self._rows.items())}

    def _costs(self, hour: int) -> Costs:
        held = [(places, sums[hour]) for places, sums in self._sums.items() if hour in sums]
        return tuple(_sum(amount for places, amount in held if place in places) for place in range(len(COSTS)))


def _add(sums: dict[int, Decimal], hours: Sequence[int], amounts: Amounts) -> None:
    """Add the amounts that are there to the *sums* of their *hours*."""
    values = amounts.values
    if not all(amounts.texts):
        hours, values = list(compress(hours, amounts.texts)), list(compress(values, amounts.texts))
    for hour, value in zip(hours, cast("Sequence[Decimal]", values), strict=True):
        if hour in sums:
            sums[hour] += value
        else:
            sums[hour] = value


def _sum(values: Iterable[Decimal | None]) -> Decimal | None:
    """The sum of the *values* that are there; None when there is none. Exact within ``SUM_CONTEXT``."""
    there = [value for value in values if value is not None]
    return sum(there, Decimal(0)) if there else None

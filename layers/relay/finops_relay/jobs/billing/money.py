"""The money of a receipt, column by column, and the rows that it belongs to. Exact, whatever the amounts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal, localcontext

from finops_relay.delivery.receipt import ColumnMoney, Money
from finops_relay.formats.cost_cells import SUM_CONTEXT
from finops_relay.formats.cost_rows import COST, COSTS
from finops_relay.jobs.billing.remembered import NO_COSTS, Costs


def total(costs: Iterable[Costs]) -> Costs:
    """Return the sums of *costs*, column by column; None where nothing has the column."""
    return tuple(map(_sum, zip(NO_COSTS, *costs, strict=True)))


def _sum(amounts: Iterable[Decimal | None]) -> Decimal | None:
    found = [amount for amount in amounts if amount is not None]
    with localcontext(SUM_CONTEXT):
        return sum(found, Decimal(0)) if found else None


def less(one: Costs, other: Costs) -> Costs:
    """Return *one* without *other*."""
    with localcontext(SUM_CONTEXT):
        return tuple(None if mine is None else mine - (gone or 0) for mine, gone in zip(one, other, strict=True))


def with_sent(money: Money, costs: Iterable[Costs]) -> Money:
    """Return *money* with what has left, added up from the bytes that were sent."""
    return _with(money, "sent", total(costs))


def with_read_back(money: Money, costs: Iterable[Costs]) -> Money:
    """Return *money* with what the vendor shows of the hours that were sent."""
    return _with(money, "read_back", tuple(amount or Decimal(0) for amount in total(costs)))


def with_rejected(money: Money, costs: Iterable[Costs]) -> Money:
    """Return *money* with what rows would have cost that the vendor refused."""
    return money.model_copy(update={"rejected": _sum((money.rejected, total(costs)[COSTS.index(COST)]))})


def rest_rejected(money: Money) -> Money:
    """Return *money* where no further row is to be sent."""
    if money.in_ is None:
        return money
    with localcontext(SUM_CONTEXT):
        return money.model_copy(update={"rejected": money.in_ - (money.sent or 0)})


def _with(money: Money, name: str, sums: Sequence[Decimal | None]) -> Money:
    columns = dict(money.by_column)
    for column, amount in zip(COSTS, sums, strict=True):
        if column in columns:  # one that the file does not have is none of ours, whatever is shown in it
            columns[column] = _column(columns[column].model_copy(update={name: amount}))
    whole = columns.get(COST, ColumnMoney())
    found = {"sent": whole.sent, "read_back": whole.read_back, "difference": whole.difference}
    return money.model_copy(update={**found, "by_column": columns})


def _column(column: ColumnMoney) -> ColumnMoney:
    if column.sent is None or column.read_back is None:
        return column.model_copy(update={"difference": None})
    with localcontext(SUM_CONTEXT):
        return column.model_copy(update={"difference": column.read_back - column.sent})

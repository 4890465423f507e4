"""Whether what the vendor shows of a month is what a delivery has sent: hour by hour, rows and money to the cent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal, localcontext
from typing import Protocol

from finops_relay.formats.cost_cells import SUM_CONTEXT
from finops_relay.formats.cost_rows import COST, COSTS
from finops_relay.jobs.billing.judging import named
from finops_relay.jobs.billing.money import total
from finops_relay.jobs.billing.remembered import BodyPlan, Costs, Hour, Manifest

CENT = Decimal("0.005")
"""Less than this apart is the same to the cent."""


class Shown(Protocol):
    """What the vendor shows of an hour."""

    @property
    def rows(self) -> int:
        """How many."""

    @property
    def costs(self) -> Costs:
        """Their money, by cost column."""


Held = Mapping[int, Shown]
"""By hour since the epoch."""


def difference(manifest: Manifest, held: Held, *, whole_month: bool) -> str:
    """Return what differs between what was sent and what is shown; empty when nothing does.

    Args:
        manifest: of what was sent.
        held: the month, as the vendor shows it.
        whole_month: what was sent replaces the month, so that nothing else may be there.
    """
    wrong = [hour for hour, sent in manifest.hours.items() if not _same(sent, held.get(hour))]
    if wrong:
        return _said(wrong, [manifest.hours[hour] for hour in wrong], [held[hour] for hour in wrong if hour in held])
    shown = [held[hour] for hour in manifest.hours]
    sent_costs = total(hour.costs for hour in manifest.hours.values())
    if not _to_the_cent(sent_costs, total(hour.costs for hour in shown)):  # many small differences of one sign
        return _said(list(manifest.hours), list(manifest.hours.values()), shown)
    others = [hour for hour in held if hour not in manifest.hours] if whole_month else []
    if others:
        return f"{named(others)} hold {sum(held[hour].rows for hour in others):,} rows that this delivery did not send"
    return ""


def part_arrived(plan: BodyPlan, before: Sequence[BodyPlan], costs: Costs, held: Held) -> bool:
    """Return whether the rest of an hour is shown beside what the bodies *before* it have put there.

    Args:
        plan: of the rest.
        before: of the hour's other bodies.
        costs: of all of them together: what is shown late may be a former hour with as many rows.
        held: the month, as the vendor shows it.
    """
    for hour, rows in plan.rows:
        earlier = sum(count for other in before for at, count in other.rows if at == hour)
        if hour not in held or held[hour].rows != earlier + rows or not _to_the_cent(costs, held[hour].costs):
            return False
    return True


def _same(sent: Hour, shown: Shown | None) -> bool:
    return shown is not None and shown.rows == sent.rows and _to_the_cent(sent.costs, shown.costs)


def _to_the_cent(sent: Costs, shown: Costs) -> bool:
    """Compare the columns that were sent; what the vendor fills in for the others is its own."""
    with localcontext(SUM_CONTEXT):
        return all(mine is None or abs(mine - (theirs or 0)) < CENT for mine, theirs in zip(sent, shown, strict=True))


def _said(hours: Sequence[int], sent: Sequence[Hour], shown: Sequence[Shown]) -> str:
    sent_costs, shown_costs = total(hour.costs for hour in sent), total(hour.costs for hour in shown)
    unlike = [
        f"{column} {_amount(mine)} and {_amount(theirs)}"
        for column, mine, theirs in zip(COSTS, sent_costs, shown_costs, strict=True)
        if mine is not None and (column == COST or mine != theirs)
    ]
    rows, seen = sum(hour.rows for hour in sent), sum(hour.rows for hour in shown)
    return f"{named(hours)}: {rows:,} rows were sent and {seen:,} are shown; {', '.join(unlike)}"


def _amount(amount: Decimal | None) -> str:
    return "nothing" if amount is None else f"{amount:f}"

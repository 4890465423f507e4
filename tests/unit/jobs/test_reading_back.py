"""What the vendor shows, beside what was sent: the same to the cent, or a difference that names hours and figures."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

import pytest
from finops_relay.delivery.packer import Mode
from finops_relay.jobs.billing.reading_back import difference, part_arrived
from finops_relay.jobs.billing.remembered import NO_COSTS, BodyPlan, Costs, Hour, Manifest

NOON = 492_372
"""2026-03-03T12:00Z in hours since the epoch."""


@dataclass(frozen=True)
class Seen:
    """What the vendor shows of an hour."""

    rows: int
    costs: Costs


def costs(*amounts: str | None) -> Costs:
    """Return costs by column, those not given being None."""
    found = [None if amount is None else Decimal(amount) for amount in amounts]
    return (*found, *[None] * (5 - len(found)))


def manifest(*hours: tuple[int, Costs]) -> Manifest:
    """Return what was sent: rows and costs of noon and the hours after it."""
    found = {NOON + at: Hour(rows=rows, bytes=9, sha256="x", costs=of) for at, (rows, of) in enumerate(hours)}
    return Manifest(delivery="d", contract="live", connection="c", month="2026-03", hours=found, bodies={})


def test_the_same_rows_and_money_are_no_difference() -> None:
    sent = manifest((2, costs("1.5", None, "1")), (1, costs("-3")))
    held = {NOON: Seen(2, costs("1.50", "7", "1")), NOON + 1: Seen(1, costs("-3", "-3")), 1: Seen(9, costs("9"))}
    assert difference(sent, held, whole_month=False) == ""


def test_an_hour_that_is_not_shown_is_named_with_its_time() -> None:
    found = difference(manifest((2, costs("1.5"))), {}, whole_month=False)
    assert found == ("the hours 2026-03-03T12:00Z: 2 rows were sent and 0 are shown; cost/cost 1.5 and nothing")


@pytest.mark.parametrize(
    ("held", "words"),
    [
        (Seen(3, costs("1.5", None, "1")), "2 rows were sent and 3 are shown; cost/cost 1.5 and 1.5"),
        (Seen(2, costs("1.51", None, "1")), "2 rows were sent and 2 are shown; cost/cost 1.5 and 1.51"),
        (Seen(2, costs("1.505", None, "1")), "cost/cost 1.5 and 1.505"),
        (Seen(2, costs("1.5", None, "2")), "cost/cost 1.5 and 1.5, cost/amortized_cost 1 and 2"),
        (Seen(2, costs("1.5")), "cost/amortized_cost 1 and nothing"),
        (Seen(2, NO_COSTS), "cost/cost 1.5 and nothing"),
    ],
)
def test_other_rows_or_money_of_an_hour_are_told_with_both_figures(held: Seen, words: str) -> None:
    assert words in difference(manifest((2, costs("1.5", None, "1"))), {NOON: held}, whole_month=False)


@pytest.mark.parametrize("shown", ["1.5049", "1.4951", "1.500000000000001"])
def test_less_than_half_a_cent_is_what_floats_make_of_a_sum(shown: str) -> None:
    assert difference(manifest((1, costs("1.5"))), {NOON: Seen(1, costs(shown))}, whole_month=False) == ""


def test_many_small_differences_of_one_sign_are_a_difference() -> None:
    sent = manifest(*[(1, costs("1"))] * 3)
    held = {NOON + at: Seen(1, costs("1.002")) for at in range(3)}
    assert "3 rows were sent and 3 are shown; cost/cost 3 and 3.006" in difference(sent, held, whole_month=False)


def test_a_zero_that_is_not_shown_is_no_difference_and_a_missing_column_of_ours_is_not_looked_at() -> None:
    sent = manifest((1, costs("0", None, "0")))
    assert difference(sent, {NOON: Seen(1, costs(None, "5"))}, whole_month=False) == ""


def test_hours_that_nobody_sent_count_only_where_the_month_was_replaced() -> None:
    sent, held = manifest((1, costs("1"))), {NOON: Seen(1, costs("1")), NOON + 5: Seen(4, costs("9"))}
    assert difference(sent, held, whole_month=False) == ""
    found = difference(sent, held, whole_month=True)
    assert found == "the hours 2026-03-03T17:00Z hold 4 rows that this delivery did not send"


def test_runs_of_hours_are_named_together_and_only_a_few() -> None:
    sent = manifest(*[(1, costs("1"))] * 30)
    some = {NOON + at: Seen(1, costs("1")) for at in range(3, 30, 4)}
    found = difference(sent, some, whole_month=False)
    assert found.startswith("the hours 2026-03-03T12:00Z to 2026-03-03T14:00Z, 2026-03-03T16:00Z to ")
    assert "and 3 more runs of hours" in found


def test_the_rest_of_an_hour_has_arrived_when_it_is_shown_beside_the_first_part() -> None:
    first = BodyPlan(mode=Mode.HOURS, rows=((NOON - 1, 7), (NOON, 2)))
    rest = BodyPlan(mode=Mode.APPEND, rows=((NOON, 3),))
    both = costs("5")
    assert part_arrived(rest, [first], both, {NOON: Seen(5, both)})
    assert not part_arrived(rest, [first], both, {NOON: Seen(2, costs("2"))})
    assert not part_arrived(rest, [first], both, {NOON: Seen(8, costs("8"))})  # twice would be no better than never
    assert not part_arrived(rest, [first], both, {NOON: Seen(5, costs("4"))})  # as many rows of what was there before
    assert not part_arrived(rest, [first], both, {})

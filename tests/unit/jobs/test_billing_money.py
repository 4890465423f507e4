"""The money of a receipt: exact sums, and nothing where nothing is known."""

from __future__ import annotations

from decimal import Decimal

import pytest
from finops_relay.delivery.receipt import ColumnMoney, Money, Rows
from finops_relay.jobs.billing.money import less, rest_rejected, total, with_read_back, with_rejected, with_sent
from finops_relay.jobs.billing.remembered import NO_COSTS, Costs
from finops_relay.jobs.steps import moved
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

AMOUNTS = st.decimals(-(10**20), 10**20, places=20)
COLUMNS = st.tuples(*[st.none() | AMOUNTS] * 5)


def costs(*amounts: str | None) -> Costs:
    """Return costs by column, those not given being None."""
    found = [None if amount is None else Decimal(amount) for amount in amounts]
    return (*found, *[None] * (5 - len(found)))


def money(**columns: str) -> Money:
    """Return the money that came in, by the end of each column's name."""
    by_column = {f"cost/{name}": ColumnMoney(in_=Decimal(amount)) for name, amount in columns.items()}
    return Money(in_=by_column["cost/cost"].in_, by_column=by_column)


def test_sums_are_exact_beyond_any_float() -> None:
    one = costs("100000000000000000000", None, "0.1")
    other = costs("0.00000000000000000001", None, "0.2")
    assert total([one, other]) == costs("100000000000000000000.00000000000000000001", None, "0.3")
    assert less(total([one, other]), other) == one


def test_nothing_adds_up_to_nothing_and_a_column_that_no_row_has_stays_none() -> None:
    assert total([]) == NO_COSTS
    assert total([NO_COSTS, costs("0")]) == costs("0")


@given(st.lists(COLUMNS, max_size=8).flatmap(lambda found: st.tuples(st.just(found), st.permutations(found))))
def test_the_order_of_what_is_added_never_shows(found: tuple[list[Costs], list[Costs]]) -> None:
    one, other = found
    assert total(one) == total(other)


@given(COLUMNS, COLUMNS)
def test_what_was_added_can_be_taken_away(one: Costs, other: Costs) -> None:
    left = less(total([one, other]), other)
    for mine, rest in zip(one, left, strict=True):
        assert rest == mine or (mine is None and not rest)


def test_what_was_sent_and_read_back_stands_by_column_with_the_difference() -> None:
    came = money(cost="3.5", amortized_cost="3")
    sent = with_sent(came, [costs("1.5", None, "1"), costs("2", None, "2")])
    assert sent.sent == Decimal("3.5")
    assert sent.difference is None
    both = with_read_back(sent, [costs("3.25", "9", "3")])
    assert (both.read_back, both.difference) == (Decimal("3.25"), Decimal("-0.25"))
    assert both.by_column["cost/amortized_cost"].difference == 0
    assert "cost/discounted_cost" not in both.by_column  # what the vendor fills in is none of the file's columns
    assert both.in_ == came.in_


def test_nothing_sent_is_unknown_and_nothing_read_back_is_zero() -> None:
    nothing = with_sent(money(cost="1"), [])
    assert (nothing.sent, with_read_back(nothing, []).difference) == (None, None)
    assert with_read_back(with_sent(money(cost="1"), [costs("1")]), []).difference == -1


def test_what_the_vendor_refuses_is_added_to_what_we_refused() -> None:
    came = money(cost="10").model_copy(update={"rejected": Decimal(1)})
    assert with_rejected(came, [costs("2"), costs("0.5")]).rejected == Decimal("3.5")
    assert with_rejected(money(cost="10"), [costs("2")]).rejected == 2


def test_what_is_not_sent_any_more_is_rejected() -> None:
    assert rest_rejected(money(cost="10")).rejected == 10
    assert rest_rejected(with_sent(money(cost="10"), [costs("2.5")])).rejected == Decimal("7.5")
    assert rest_rejected(Money()).rejected is None  # of a kind that carries no money


def test_rows_move_and_the_law_is_kept() -> None:
    rows = Rows.model_validate({"in": 10, "rejected": 1, "owed": 9})
    rows = moved(rows, accepted=True, count=4)
    assert (rows.accepted, rows.owed) == (4, 5)
    rows = moved(rows, accepted=False, count=2)
    assert (rows.rejected, rows.owed) == (3, 3)
    rows = moved(rows, accepted=True)
    assert (rows.accepted, rows.owed) == (7, 0)
    assert moved(rows, accepted=True, count=-7) == Rows.model_validate({"in": 10, "rejected": 3, "owed": 7})


def test_counts_that_break_the_law_cannot_be_made() -> None:
    with pytest.raises(ValidationError, match="the law is broken"):
        Rows.model_validate({"in": 10, "owed": 9})

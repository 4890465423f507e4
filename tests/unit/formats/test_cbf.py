from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.formats.costs import CBF, HOSTILE, HOUR, cbf, fault, only, read, refused, sheet, table


def in_order(row: dict[str, str]) -> dict[str, str]:
    return {name: row[name] for name in CBF}


def test_a_good_row_passes_as_it_stands() -> None:
    row = only(table(CBF))
    assert row.columns == dict(CBF)
    assert (row.line, row.hour) == (2, HOUR)
    assert row.costs == (Decimal("1.25"), None, None, None, None)


def test_the_reader_says_what_it_read() -> None:
    done = read(table(CBF, CBF))
    assert (done.reader.form, done.reader.columns, done.reader.rows_in) == ("cbf", tuple(CBF), 2)
    assert done.reader.warnings == ()


def test_blank_is_left_out_and_zero_is_not() -> None:
    row = only(table(cbf(cost__discounted_cost="0", cost__amortized_cost=" ", cost__cost="0.00", lineitem__type="")))
    assert row.columns["cost/discounted_cost"] == "0"
    assert "cost/amortized_cost" not in row.columns
    assert "lineitem/type" not in row.columns
    assert row.costs == (Decimal(0), Decimal(0), None, None, None)


def test_credits_are_negative_and_spreadsheets_numbers_become_plain() -> None:
    row = only(table(cbf(cost__cost="(1,200.50)", cost__on_demand_cost="1E-7", usage__amount="$ -")))
    assert (row.columns["cost/cost"], row.columns["usage/amount"]) == ("-1200.50", "0")
    assert row.columns["cost/on_demand_cost"] == "0.0000001"
    assert row.costs[0] == Decimal("-1200.50")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cost__cost": ""}, "cost/cost is empty"),
        ({"cost__cost": "1,200"}, "cost/cost may have a decimal comma"),
        ({"cost__discounted_cost": "NaN"}, "cost/discounted_cost is no finite number"),
        ({"usage__amount": "many"}, "usage/amount is not a plain decimal"),
        ({"time__usage_start": ""}, "time/usage_start is empty"),
        ({"time__usage_start": "2026-02-04T00:15:00Z"}, "time/usage_start is not on the hour"),
        ({"time__usage_start": "2026-03-04T00:00:00Z"}, "time/usage_start is not in the month 2026-02"),
        ({"time__usage_end": "2026-02-03T23:00:00Z"}, "time/usage_end is before time/usage_start"),
        ({"time__usage_end": "soon"}, "time/usage_end is no ISO 8601 time"),
        ({"lineitem__type": "CommittedUseVacancy"}, "which a stream does not take"),
        ({"lineitem__type": "Discounts"}, "lineitem/type is no type"),
        ({"resource__id": ""}, "resource/id is empty, and the row has tags"),
        ({"resource__id": "i-1"}, "resource/id has no type and name"),
        ({"resource__region": "a\x00b"}, "resource/region has a control character"),
        ({"resource__region": "a\udcff"}, "resource/region has bytes that are not UTF-8"),
    ],
)
def test_a_faulty_row_is_rejected_by_name_and_its_neighbours_are_not(changes: dict[str, str], said: str) -> None:
    bad = cbf(**changes)
    good = {**dict.fromkeys(bad, ""), **CBF}
    done = read(table(*[good] * 20, bad, *[good] * 20))
    [row] = done.rejected
    assert said in row.error
    assert (row.line, row.columns, row.values) == (22, tuple(bad), tuple(bad.values()))
    assert [row.line for row in done.all] == list(range(2, 43))


def test_the_fix_of_a_row_of_another_month_names_its_folder() -> None:
    assert "2026-03" in fault(table(cbf(time__usage_start="2026-03-04T00:00:00Z"))).fix


def test_an_end_is_written_in_utc_and_may_be_the_start() -> None:
    assert only(table(cbf(time__usage_end="2026-02-04T02:00:00.5+02:00"))).columns["time/usage_end"] == (
        "2026-02-04T00:00:00Z"
    )


def test_arns_and_global_regions_are_converted_and_counted() -> None:
    arn = cbf(resource__id="arn:aws:s3:::b", resource__region="global", action__region="Global")
    done = read(table(arn, {**CBF, "action/region": ""}, arn))
    assert [row.columns["resource/id"] for row in done.rows] == ["s3/b", "instance/i-1", "s3/b"]
    assert [row.columns["resource/region"] for row in done.rows] == ["no-region", "eu-west-1", "no-region"]
    assert done.reader.warnings == (
        "2 values of action/region named global were written as no-region",
        "2 values of resource/id were written as type/name",
        "2 values of resource/region named global were written as no-region",
    )


def test_a_tag_without_a_value_needs_no_resource() -> None:
    row = only(table(cbf(resource__id="", **{"resource/tag:team": " "})))
    assert not {"resource/id", "resource/tag:team"} & row.columns.keys()


def test_totals_that_disagree_are_told_with_their_fall_backs() -> None:
    first = cbf(cost__cost="10", cost__discounted_cost="8", cost__amortized_cost="", cost__discounted_amortized_cost="")
    other = cbf(cost__cost="1", cost__discounted_cost="", cost__amortized_cost="2", cost__discounted_amortized_cost="")
    [warning] = read(table(first, other)).reader.warnings
    assert "cost/cost 11, cost/discounted_cost 9, cost/amortized_cost 12, cost/discounted_amortized_cost 10" in warning


def test_totals_that_agree_over_the_file_are_no_warning() -> None:
    rows = [cbf(cost__cost=cost, cost__amortized_cost=other) for cost, other in (("1", "2"), ("2", "1"), ("3", ""))]
    assert read(table(*rows), block_bytes=64).reader.warnings == ()


def test_totals_of_rejected_rows_do_not_count() -> None:
    bad = cbf(cost__cost="1", cost__amortized_cost="2", lineitem__type="x")
    assert read(table(bad)).reader.warnings == ()


@pytest.mark.parametrize(
    ("column", "said", "fix"),
    [
        ("cost/amortised_cost", "no column 'cost/amortised_cost'", "cost/amortized_cost"),
        ("Resource/Service", "no column", "resource/service"),
        ("team", "no column 'team'", "resource/tag:<key>"),
        ("resource/tag:Cost Center", "'Cost Center' has white space", "letters"),
        ("resource/tag:", "no key", "letters"),
        ("cost/cost", "two columns of one name", "delete"),
    ],
)
def test_a_column_that_the_format_has_not_refuses_the_file_and_names_the_nearest(
    column: str, said: str, fix: str
) -> None:
    refusal = refused(sheet([*CBF, column], [*CBF.values(), "x"]))
    assert said in refusal.reason
    assert fix in refusal.fix
    assert refusal.line == 1


@pytest.mark.parametrize("name", ["time/usage_start", "cost/cost"])
def test_a_file_without_a_column_that_must_be_there_is_refused(name: str) -> None:
    row = {key: value for key, value in CBF.items() if key != name}
    assert f"no column {name}" in refused(table(row)).reason


def test_columns_without_a_name_may_be_there_but_hold_nothing() -> None:
    done = read(sheet([*CBF, "", " "], [*CBF.values(), "", " "], [*CBF.values(), "", "x"]))
    assert done.rows[0].columns == dict(CBF)
    assert "without a name" in done.rejected[0].error


def test_a_row_of_another_width_is_rejected_with_both_figures() -> None:
    done = read(sheet(list(CBF), CBF.values(), [*CBF.values(), "x"], list(CBF.values())[:-1], CBF.values()))
    assert [row.line for row in done.rows] == [2, 5]
    assert [row.error for row in done.rejected] == [
        "the row has 7 values, the header has 6 names",
        "the row has 5 values, the header has 6 names",
    ]


@given(
    st.lists(
        st.decimals(allow_nan=False, allow_infinity=False, places=10, max_value=10**15, min_value=-(10**15)),
        min_size=1,
        max_size=60,
    )
)
def test_no_digit_of_the_money_is_lost(values: list[Decimal]) -> None:
    done = read(table(*(cbf(cost__cost=f"{value:f}") for value in values)), block_bytes=500)
    assert sum(row.costs[0] or 0 for row in done.rows) == sum(values)
    assert [row.columns["cost/cost"] for row in done.rows] == [f"{value:f}" for value in values]


@settings(max_examples=200)
@given(
    st.lists(
        st.fixed_dictionaries({name: st.just(value) | HOSTILE for name, value in CBF.items()}).map(in_order),
        min_size=1,
        max_size=6,
    )
)
def test_any_row_is_either_accepted_or_rejected(rows: list[dict[str, str]]) -> None:
    """Fuzzed: nothing that stands in a cell ends the reading of the others."""
    alone = [one for row in rows for one in read(table(row, CBF)).all[:-1]]
    together = read(table(*rows, CBF)).all[:-1]
    assert [replace(row, line=0) for row in together] == [replace(row, line=0) for row in alone]

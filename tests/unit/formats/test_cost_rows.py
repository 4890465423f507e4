from __future__ import annotations

import pickle
import re
from dataclasses import FrozenInstanceError, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from finops_relay.formats.cost_cells import (
    CACHED_CHARS,
    LINE_TYPES,
    CellFault,
    Cells,
    Times,
    check_tag_key,
    line_type,
    nearest,
    plain_decimal,
    region,
    resource_id,
    segment,
)
from finops_relay.formats.cost_rows import CBF_COLUMNS, COSTS, CostBatch, CostPlan, CostRow
from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.formats.costs import HOSTILE, HOUR, MONTH

FIRST = datetime(2026, 1, 30)  # noqa: DTZ001 -- hypothesis draws between naive times

# --- money ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("0", "0"),
        ("-12.50", "-12.50"),
        (" 1.5 ", "1.5"),
        ("", ""),
        ("   ", ""),
        ("0.000000000000000000000000000001", "0.000000000000000000000000000001"),
        ("$ 1,200.00", "1200.00"),
        ("$1,234,567", "1234567"),
        ("1,234,567.8", "1234567.8"),
        ("$ -", "0"),
        ("$-", "0"),
        ("US$ 5", "5"),
        ("(12.50)", "-12.50"),
        ("($ 1,200.00)", "-1200.00"),
        ("$(3)", "-3"),
        ("-$5", "-5"),
        ("$-5.25", "-5.25"),
        ("+5", "5"),
        (".5", "0.5"),
        ("-.5", "-0.5"),
        ("5.", "5"),
        ("1E-7", "0.0000001"),
        ("-1.5e+3", "-1500"),
        ("1e0", "1"),
        ("0E-10", "0.0000000000"),
    ],
)
def test_an_amount_whose_meaning_is_clear_is_written_as_a_plain_decimal(text: str, plain: str) -> None:
    assert plain_decimal(text) == plain


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1,200", "decimal comma or a thousands separator"),
        ("$1,200", "decimal comma or a thousands separator"),
        ("(1,200)", "decimal comma or a thousands separator"),
        ("1.200,50", "comma that is not clear"),
        ("1,5", "comma that is not clear"),
        ("1,2,3", "comma that is not clear"),
        ("0,123.45", "comma that is not clear"),
        ("1,20,000.5", "comma that is not clear"),
        ("1.234.567", "no plain decimal"),
        ("1 200.50", "spaces"),
        ("€ 5", "currency"),
        ("5 EUR", "currency"),
        ("USD 5", "currency"),
        ("NaN", "finite"),
        ("-inf", "finite"),
        ("Infinity", "finite"),
        ("-", "dash"),
        ("12%", "percentage"),
        ("(-5)", "no plain decimal"),
        ("--5", "no plain decimal"),
        ("(5", "no plain decimal"),
        ("5)", "no plain decimal"),
        ("((5))", "no plain decimal"),
        ("$", "no plain decimal"),
        ("1_000", "no plain decimal"),
        ("٣", "no plain decimal"),
        ("1e999999999", "no plain decimal"),
        ("1e40", "more than 30 digits"),
        ("1e-31", "more than 30 digits"),
        ("1" * 31, "more than 30 digits"),
        ("0." + "1" * 31, "more than 30 digits"),
        ("free", "no plain decimal"),
        ("5\n6", "spaces"),
    ],
)
def test_an_amount_that_may_mean_something_else_is_rejected_with_its_reason(text: str, said: str) -> None:
    with pytest.raises(CellFault) as fault:
        plain_decimal(text)
    assert said.replace("no plain", "not a plain") in fault.value.error or said in fault.value.error
    assert fault.value.fix


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**29), max_value=10**29, places=20))
def test_a_plain_decimal_keeps_every_digit_and_its_spreadsheet_form_has_the_same_value(value: Decimal) -> None:
    assert plain_decimal(f"{value:f}") == f"{value:f}"
    local = f"(${value.copy_negate():,f})" if value < 0 else f"$ {value:,f}"
    assert Decimal(plain_decimal(local)) == value


@given(HOSTILE)
@example("-0")
def test_whatever_is_read_as_an_amount_is_a_plain_decimal(text: str) -> None:
    try:
        plain = plain_decimal(text)
    except CellFault:
        return
    assert re.fullmatch(r"-?[0-9]{1,30}(\.[0-9]{1,30})?", plain) or (plain == "" and not text.strip())


# --- times ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "2026-02-04T00:00:00Z",
        "2026-02-04T00:00:00+00:00",
        "2026-02-04T00:00:00.000Z",
        "2026-02-04T00:00Z",
        "2026-02-04 00:00:00 UTC",
        "2026-02-04T05:30:00+05:30",
        "2026-02-04T05:30+0530",
        "2026-02-03T19:00:00-05",
        "2026-02-04T00:00:00",
        "2026-02-04",
        " 2026-02-04T00:00:00Z ",
    ],
)
def test_a_time_with_any_offset_is_its_hour_in_utc(text: str) -> None:
    assert Times(MONTH, naive=True, floored=False).hours[text] == HOUR


@pytest.mark.parametrize("text", ["2026-02-04T00:00:00", "2026-02-04"])
def test_a_line_item_says_its_offset(text: str) -> None:
    with pytest.raises(CellFault, match="no offset"):
        Times(MONTH, naive=False, floored=False).hours[text]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("2026-02-04T00:30:00Z", "not on the hour"),
        ("2026-02-04T00:00:01Z", "not on the hour"),
        ("2026-02-04T00:00:00.001Z", "not on the hour"),
        ("2026-02-04T00:00:00+05:30", "not on the hour"),
        ("2026-01-31T23:00:00Z", "not in the month 2026-02"),
        ("2026-02-01T00:00:00+01:00", "not in the month 2026-02"),
        ("2026-03-01T00:00:00Z", "not in the month 2026-02"),
        ("2026-02-30T00:00:00Z", "there is not"),
        ("2026-02-04T24:00:00Z", "there is not"),
        ("0001-01-01T00:00:00+01:00", "there is not"),
        ("9999-12-31T23:00:00-01:00", "there is not"),
        ("2/4/2026 0:00", "no ISO 8601"),
        ("1770163200", "no ISO 8601"),
        ("2026-W06-3", "no ISO 8601"),
        ("2026-02-04T00:00:00+99:00", "no ISO 8601"),
        ("now", "no ISO 8601"),
    ],
)
def test_a_time_that_is_no_hour_of_the_month_is_rejected_and_never_replaced(text: str, said: str) -> None:
    with pytest.raises(CellFault, match=said):
        Times(MONTH, naive=True, floored=False).hours[text]


def test_the_hours_of_the_month_are_all_that_are_taken() -> None:
    times = Times(date(2028, 2, 1), naive=True, floored=False)
    first = datetime(2028, 2, 1, tzinfo=UTC)
    hours = [times.hours[(first + timedelta(hours=n)).isoformat()] for n in range(29 * 24)]
    assert list(times.texts) == hours
    assert times.texts[hours[-1]] == "2028-02-29T23:00:00Z"
    for text in ("2028-01-31T23:00:00Z", "2028-03-01T00:00:00Z"):
        with pytest.raises(CellFault, match="not in the month"):
            times.hours[text]


@given(
    st.datetimes(FIRST, FIRST + timedelta(days=32)),
    st.integers(-14 * 60, 14 * 60),
)
def test_a_floored_time_is_the_hour_in_which_it_lies(moment: datetime, offset_minutes: int) -> None:
    sign = "-" if offset_minutes < 0 else "+"
    zone = f"{sign}{abs(offset_minutes) // 60:02d}:{abs(offset_minutes) % 60:02d}"
    text = moment.isoformat() + zone
    utc = datetime.fromisoformat(text).astimezone(UTC)
    times = Times(MONTH, naive=False, floored=True)
    if (utc.year, utc.month) == (2026, 2):
        assert times.hours[text] == int(utc.timestamp()) // 3600
        assert times.texts[times.hours[text]] == utc.strftime("%Y-%m-%dT%H:00:00Z")
    else:
        with pytest.raises(CellFault, match="not in the month"):
            times.hours[text]
    assert times.moments[text] == utc.strftime("%Y-%m-%dT%H:%M:%SZ")


def test_a_month_is_named_by_its_first_day() -> None:
    with pytest.raises(ValueError, match="first day"):
        Times(date(2026, 2, 2), naive=True, floored=True)


# --- types, regions, resources, tags ----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", *LINE_TYPES])
def test_the_streams_types_pass_and_blank_stays_blank(text: str) -> None:
    assert line_type(f" {text}") == text


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("CommittedUseVacancy", "write Usage"),
        ("CommittedUseRecurringFee", "write Fee"),
        ("usage", "write Usage"),
        ("Credits", "write Credit"),
        ("x", "write one of Usage, Tax"),
    ],
)
def test_a_type_that_the_stream_lacks_is_rejected_with_what_to_write(text: str, fix: str) -> None:
    with pytest.raises(CellFault) as fault:
        line_type(text)
    assert fix in fault.value.fix


@pytest.mark.parametrize("text", ["global", "Global", " GLOBAL "])
def test_global_is_no_region(text: str) -> None:
    assert region(text) == "no-region"
    assert region("eu-west-1") == "eu-west-1"


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("instance/i-1", "instance/i-1"),
        ("instance:i-1", "instance:i-1"),
        ("", ""),
        ("arn:aws:ec2:eu-west-1:123:instance/i-1", "ec2/eu-west-1_123_instance_i-1"),
        ("arn:aws:s3:::bucket", "s3/bucket"),
        ("a/b/c:d", "a/b_c_d"),
        ("/subscriptions/1/vm", "subscriptions/1_vm"),
        ("//compute.googleapis.com/projects/p", "compute.googleapis.com/projects_p"),
        ("a//b", "a/b"),
    ],
)
def test_a_resource_is_written_as_type_and_name(text: str, written: str) -> None:
    assert resource_id(text) == written


@pytest.mark.parametrize("text", ["i-1", "/", "a/", ":a", "::", "arn:aws:s3"])
def test_a_resource_without_type_or_name_is_rejected(text: str) -> None:
    with pytest.raises(CellFault, match="no type and name"):
        resource_id(text)


@given(st.text(st.sampled_from("ab:/_ "), max_size=12))
def test_a_resource_has_two_segments_whatever_stood_there(text: str) -> None:
    try:
        written = resource_id(text)
    except CellFault:
        return
    assert written == "" or (written.count("/") + written.count(":") == 1 and resource_id(written) == written)
    assert ":" not in segment(text)
    assert "/" not in segment(text)


@pytest.mark.parametrize("key", ["team", "Cost-Center_1.2:3/4=5+6@7"])
def test_a_tag_may_have_all_characters_of_the_contract(key: str) -> None:
    check_tag_key(key)


@pytest.mark.parametrize(
    ("key", "said"),
    [("Cost Center", "white space"), ("a\tb", "white space"), ("naïve", "'ï'"), ("a,b", "','"), ("", "no key")],
)
def test_a_tag_with_another_character_is_rejected_and_the_character_named(key: str, said: str) -> None:
    with pytest.raises(CellFault, match=said):
        check_tag_key(key)


def test_the_nearest_name_is_found_in_any_case() -> None:
    assert nearest("Cost/Costs", CBF_COLUMNS) == "cost/cost"
    assert nearest("zzz", CBF_COLUMNS) is None


# --- rows -------------------------------------------------------------------------------------------------------------


def test_what_was_read_is_remembered_within_bounds() -> None:
    asked: list[str] = []

    def read(text: str) -> str:
        asked.append(text)
        return text.upper()

    cells = Cells(read)
    assert cells.column("x", ["a", "b", "a"]) == ["A", "B", "A"]
    assert asked == ["a", "b"]
    for number in range(3000):
        cells[f"{number:01000d}"]
        assert sum(map(len, cells)) <= CACHED_CHARS
    huge = "h" * 10_000
    assert cells[huge] == huge.upper()
    assert huge not in cells


def test_a_row_is_frozen_and_like_any_dataclass() -> None:
    plan = CostPlan(["cost/cost", "time/usage_start"], ["cost", "timestamp"], Times(MONTH, naive=True, floored=False))
    [row] = CostBatch([7], plan.read([["1.0"], ["2026-02-04"]])).rows()
    made = CostRow(
        7,
        HOUR,
        {"time/usage_start": "2026-02-04T00:00:00Z", "cost/cost": "1.0"},
        (Decimal("1.0"), None, None, None, None),
    )
    assert row == made
    assert repr(row) == repr(made)
    assert replace(row, line=8).line == 8
    assert pickle.loads(pickle.dumps(row)) == made  # noqa: S301 -- our own bytes
    with pytest.raises(FrozenInstanceError):
        row.line = 8  # type: ignore[misc]  # that is what is tested


def test_columns_stand_in_the_formats_order_whatever_the_files_is() -> None:
    names = ["resource/tag:b", "lineitem/type", "cost/cost", "resource/id", "resource/tag:a", "time/usage_start"]
    plan = CostPlan(names, names, Times(MONTH, naive=True, floored=False))
    cells = [["x", ""], ["Tax", "Usage"], ["1", "2"], ["a/b", "a/b"], ["", "y"], ["2026-02-04", "2026-02-04"]]
    rows = CostBatch([1, 2], plan.read(cells)).rows()
    assert [list(row.columns) for row in rows] == [
        ["time/usage_start", "cost/cost", "lineitem/type", "resource/id", "resource/tag:b"],
        ["time/usage_start", "cost/cost", "lineitem/type", "resource/id", "resource/tag:a"],
    ]
    assert [row.costs for row in rows] == [(Decimal(1), *[None] * 4), (Decimal(2), *[None] * 4)]
    assert set(COSTS) < set(CBF_COLUMNS)

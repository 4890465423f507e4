from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal, localcontext

import pytest
from finops_relay.formats.cost_cells import SUM_CONTEXT, CellFault
from finops_relay.formats.telemetry import (
    ALLOCATION,
    DAILY,
    GRANULARITIES,
    HOURLY,
    MAX_KEYS,
    MAX_TEXT,
    MAX_VALUES,
    METRIC,
    MONTHLY,
    Dialect,
    Ident,
    Shape,
    Total,
    day_of,
    differing,
    granularity_of,
    is_stream,
    keys_of,
    label_of,
    labels_of,
    moment_of,
    period_of,
    value_of,
    values_of,
)
from hypothesis import example, given
from hypothesis import strategies as st

LIVE_METRIC, METRIC_ONLY = Dialect(METRIC, live=True), Dialect(METRIC, live=False)
LIVE_ALLOCATION, ALLOCATION_ONLY = Dialect(ALLOCATION, live=True), Dialect(ALLOCATION, live=False)
DIALECTS = (LIVE_METRIC, METRIC_ONLY, LIVE_ALLOCATION, ALLOCATION_ONLY)
SECONDS = st.integers(978_400_000, 4_070_908_799)
"""From the first days of 2001 to 2098."""


def period(moment: datetime) -> int:
    return int(moment.timestamp()) // 3600


# --- streams and times ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "orders.per-day_2", "A" * 256, ".a", "a."])
def test_a_stream_is_named_by_letters_digits_and_three_marks(name: str) -> None:
    assert is_stream(name)


@pytest.mark.parametrize("name", ["", "A" * 257, "a b", "a/b", "é", "a\n", ".", ".."])
def test_any_other_name_is_no_streams_and_none_is_a_folder_of_an_address(name: str) -> None:
    assert not is_stream(name)


@given(SECONDS, st.integers(-14 * 60, 14 * 60), st.sampled_from(GRANULARITIES))
def test_the_period_is_the_one_in_utc_whatever_the_offset(seconds: int, minutes: int, granularity: str) -> None:
    moment = datetime.fromtimestamp(seconds, UTC)
    found, cut = period_of(moment.astimezone(timezone(timedelta(minutes=minutes))).isoformat(), granularity)
    start = moment_of(found)
    assert start <= moment
    assert cut == (start != moment)
    assert (start.minute, start.second) == (0, 0)
    assert granularity == HOURLY or start.hour == 0
    assert granularity != MONTHLY or start.day == 1
    same = {HOURLY: "%Y%m%d%H", DAILY: "%Y%m%d", MONTHLY: "%Y%m"}[granularity]
    assert start.strftime(same) == moment.strftime(same)
    assert day_of(found) == start.strftime("%Y-%m-%d")


@pytest.mark.parametrize(
    "written", ["2026-03-01T05:00:00Z", " 2026-03-01t05:00:00z ", "2026-03-01 06:00+01:00", "20260301T050000.000Z"]
)
def test_a_time_may_be_written_in_every_form_of_the_standard(written: str) -> None:
    assert period_of(written, HOURLY) == (period(datetime(2026, 3, 1, 5, tzinfo=UTC)), False)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("", "is empty"),
        (" ", "is empty"),
        ("yesterday", "no ISO 8601"),
        ("1772323200", "no ISO 8601"),
        ("2026-02-30T00:00:00Z", "no ISO 8601"),
        ("2026-03-01T05:00:00\udcff", "no ISO 8601"),
        ("2026-03-01T05:00:00", "no offset"),
        ("2026-03-01", "no offset"),
        ("1999-03-01T05:00:00Z", "between"),
        ("2100-01-01T00:00:00Z", "between"),
        ("0001-01-01T00:00:00+14:00", "between"),
        ("9999-12-31T23:59:59-14:00", "between"),
    ],
)
def test_a_time_that_is_not_certain_is_a_fault(written: str, said: str) -> None:
    with pytest.raises(CellFault, match=said):
        period_of(written, DAILY)


def test_a_granularity_is_known_in_any_case() -> None:
    assert [granularity_of(text) for text in ("hourly", " Daily", "MONTHLY")] == list(GRANULARITIES)
    for text in ("", "WEEKLY", "HOUR"):
        with pytest.raises(CellFault, match="HOURLY, DAILY and MONTHLY"):
            granularity_of(text)


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("text", ["1", "12.5", " 007.50 ", "+3", ".5", "5.", "1e3", "1.5E-7", "123456789012345"])
def test_a_value_is_exact(dialect: Dialect, text: str) -> None:
    assert value_of(text, dialect) == Decimal(text.strip())


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "text", ["", " ", "x", "1,5", "1 000", "0x1", "NaN", "Infinity", "--1", "1e", "1e100", "1_0", "٣", "1\n2", "true"]
)
def test_what_is_no_plain_number_is_a_fault(dialect: Dialect, text: str) -> None:
    with pytest.raises(CellFault, match="value"):
        value_of(text, dialect)


@pytest.mark.parametrize("text", ["1e30", "1" * 31, "0." + "0" * 30 + "1", "1e-31", "1" * 60 + "." + "1" * 60])
def test_more_digits_than_anybody_means_are_a_fault(text: str) -> None:
    for dialect in DIALECTS:
        with pytest.raises(CellFault, match="more than 30 digits"):
            value_of(text, dialect)


@pytest.mark.parametrize("text", ["0", "0.00", "-1", "-0", "0e5"])
def test_values_of_nothing_and_less_are_taken_by_one_contract_only(text: str) -> None:
    for dialect in (METRIC_ONLY, ALLOCATION_ONLY):
        assert value_of(text, dialect) == Decimal(text)
        assert not value_of("-0", dialect).is_signed()
    for dialect in (LIVE_METRIC, LIVE_ALLOCATION):
        with pytest.raises(CellFault, match="not more than 0"):
            value_of(text, dialect)


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ("123456789012345", True),
        ("1234567890123456", False),
        ("1234567890123450000", True),
        ("0.00000123456789012345", True),
        ("1.00000000000000", True),
        ("1.000000000000001", False),
        ("12345678.12345678", False),
    ],
)
def test_significant_digits_are_counted_without_the_zeros_around_them(text: str, *, taken: bool) -> None:
    assert value_of(text, METRIC_ONLY) == Decimal(text)
    if taken:
        assert value_of(text, LIVE_METRIC) == Decimal(text)
    else:
        with pytest.raises(CellFault, match="15 significant"):
            value_of(text, LIVE_METRIC)


def _each(texts: list[str], dialect: Dialect) -> list[Decimal] | str:
    try:
        return [value_of(text, dialect) for text in texts]
    except CellFault as fault:
        return fault.error


NUMBERS = st.from_regex(r"[-+]?[0-9]{0,17}(\.[0-9]{0,17})?(e-?[0-9])?", fullmatch=True)


@given(st.lists(NUMBERS | st.text(st.sampled_from("019. \n-"), max_size=4), max_size=6), st.sampled_from(DIALECTS))
@example(["1\n2", "3"], LIVE_METRIC)
@example(["0.0"], LIVE_METRIC)
@example(["000000000000000"], METRIC_ONLY)
def test_a_column_of_values_means_what_each_of_them_means(texts: list[str], dialect: Dialect) -> None:
    expected = _each(texts, dialect)
    try:
        found: list[Decimal] | str = values_of(texts, dialect)
    except CellFault as fault:
        found = fault.error
    assert found == expected
    assert list(map(str, found)) == list(map(str, expected))


@given(st.lists(st.decimals(-(10**29), 10**29, places=30, allow_nan=False, allow_infinity=False), min_size=1))
def test_a_total_is_exact_in_any_order(values: list[Decimal]) -> None:
    totals = []
    for order in (values, values[::-1]):
        total = Total(Decimal(0), 0, 1)
        for value in order:
            total.add(value)
        totals.append(total)
    with localcontext(SUM_CONTEXT):
        expected = sum(values, Decimal(0))
    assert [(total.value, total.rows) for total in totals] == [(expected, len(values))] * 2
    assert str(totals[0].value) == str(totals[1].value)


# --- dimensions -------------------------------------------------------------------------------------------------------


def test_keys_are_sorted_and_an_elements_name_is_one_of_them_where_it_has_no_place_of_its_own() -> None:
    assert keys_of(["b", "a"], LIVE_ALLOCATION, element=True) == ("a", "b")
    assert keys_of(["f", "a"], ALLOCATION_ONLY, element=True) == ("a", "element_name", "f")
    assert keys_of([], METRIC_ONLY, element=False) == ()
    with pytest.raises(CellFault, match="stands twice"):
        keys_of(["element_name"], ALLOCATION_ONLY, element=True)


@pytest.mark.parametrize("name", ["", " a", "a ", "a\tb", "a\udcff", "\ud83d", "x" * (MAX_TEXT + 1)])
def test_a_dimension_has_a_name_that_can_be_seen(name: str) -> None:
    with pytest.raises(CellFault, match="a dimension is called"):
        keys_of(["a", name], LIVE_METRIC, element=False)


def test_a_record_has_few_dimensions() -> None:
    names = [f"k{n}" for n in range(MAX_KEYS)]
    assert keys_of(names, LIVE_METRIC, element=False) == tuple(names)
    with pytest.raises(CellFault, match="more than 5"):
        keys_of([*names, "z"], LIVE_METRIC, element=False)
    with pytest.raises(CellFault, match="more than 5"):
        keys_of(names, ALLOCATION_ONLY, element=True)


def test_labels_stand_in_the_order_of_the_keys_and_the_elements_name_comes_first() -> None:
    values = {"b": " 2 ", "a": "1"}
    assert labels_of(("a", "b"), values, "", LIVE_METRIC) == ("1", "2")
    assert labels_of(("a", "b"), values, " me ", LIVE_ALLOCATION) == ("me", "1", "2")
    assert labels_of(("a", "b", "element_name"), values, " me ", ALLOCATION_ONLY) == ("1", "2", "me")
    assert labels_of((), {}, "", METRIC_ONLY) == ()


@pytest.mark.parametrize(
    ("dialect", "text", "said"),
    [
        *((dialect, " ", "k is empty") for dialect in DIALECTS),
        *((dialect, "a\nb", "control character") for dialect in DIALECTS),
        *((dialect, "a\udcff", "not UTF-8") for dialect in DIALECTS),
        *((dialect, "x" * (MAX_TEXT + 1), "more than 1,000") for dialect in DIALECTS),
        (ALLOCATION_ONLY, "a|b", "CloudZero takes one"),
        (LIVE_ALLOCATION, "a||b", "empty value between its bars"),
        (LIVE_ALLOCATION, "|", "empty value between its bars"),
        (LIVE_ALLOCATION, "|".join(f"v{n}" for n in range(MAX_VALUES + 1)), "more than 20 values"),
    ],
)
def test_a_label_that_cannot_be_sent_is_a_fault(dialect: Dialect, text: str, said: str) -> None:
    with pytest.raises(CellFault, match=said):
        label_of("k", text, dialect)


def test_several_values_are_sorted_and_told_once_where_they_may_stand_and_one_text_elsewhere() -> None:
    assert label_of("k", " b | a|b", LIVE_ALLOCATION) == "a|b"
    assert label_of("k", "b|a", LIVE_METRIC) == label_of("k", "b|a", METRIC_ONLY) == "b|a"
    most = "|".join(sorted(f"v{n}" for n in range(MAX_VALUES)))
    assert label_of("k", most, LIVE_ALLOCATION) == most


@given(st.text(max_size=8) | st.text(st.sampled_from("a |\t\x00\udcff~!é"), max_size=5), st.sampled_from(DIALECTS))
@example("x" * MAX_TEXT, LIVE_METRIC)
def test_a_label_is_the_text_without_space_around_it_or_a_fault(text: str, dialect: Dialect) -> None:
    try:
        label = label_of("k", text, dialect)
    except CellFault:
        return
    assert label_of("k", label, dialect) == label
    if not dialect.several:
        assert label == text.strip()


def test_an_elements_name_is_demanded_by_one_contract_and_no_metric_has_one() -> None:
    with pytest.raises(CellFault, match="CloudZero demands it"):
        labels_of((), {}, " ", LIVE_ALLOCATION)
    for dialect in (LIVE_METRIC, METRIC_ONLY):
        with pytest.raises(CellFault, match="a metric has no element_name"):
            labels_of((), {}, "x", dialect)
    with pytest.raises(CellFault, match="element_name is empty"):
        labels_of(("element_name",), {}, "", ALLOCATION_ONLY)


def test_a_record_of_another_shape_is_told_both_shapes() -> None:
    stream = Shape(DAILY, ("a", "b"))
    assert (
        "DAILY with the keys a, and the stream DAILY with the keys a, b"
        in differing(Shape(DAILY, ("a",)), stream).error
    )
    assert "the record is HOURLY, and the stream DAILY:" in differing(Shape(HOURLY, ("a", "b")), stream).error
    assert str(Shape(DAILY, ())) == "DAILY with the keys (none)"


def test_records_that_agree_in_period_and_labels_are_one() -> None:
    assert {Ident(1, ("a",)): 1}[Ident(1, ("a",))] == 1
    assert len({Ident(1, ("a",)), Ident(1, ("a", "b")), Ident(2, ("a",))}) == 3

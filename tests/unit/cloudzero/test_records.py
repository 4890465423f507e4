"""What is sent is strict and exact; what is read is tolerant, and never trusted."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from finops_relay.cloudzero.idempotency import HEADER, IdempotencyKeys
from finops_relay.cloudzero.records import (
    AllocationRecord,
    Amount,
    BillingDrop,
    BillingRow,
    Budget,
    BudgetChange,
    CostQuery,
    CostRow,
    Dimension,
    DropAccepted,
    DropCheck,
    DropOperation,
    DropSummary,
    Granularity,
    HeldNotification,
    HeldRow,
    Insight,
    InsightChange,
    MetricRecord,
    Moment,
    Notification,
    ReadMoment,
    RecordKey,
    StoredRecord,
    plain,
)
from finops_relay.errors import (
    AnswerNotUnderstood,
    Call,
    CredentialRefused,
    OutcomeUnknown,
    RateLimited,
    VendorError,
    VendorUnavailable,
    VendorUnreachable,
)
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

FEB = datetime(2026, 2, 1, tzinfo=UTC)
AMOUNT: TypeAdapter[Decimal] = TypeAdapter(Amount)
MOMENT: TypeAdapter[datetime] = TypeAdapter(Moment)
READ: TypeAdapter[datetime] = TypeAdapter(ReadMoment)


# --- amounts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "amount"),
    [
        (5, Decimal(5)),
        ("-1.10", Decimal("-1.10")),
        ("1e-7", Decimal("1E-7")),
        (Decimal("1E+30"), Decimal("1E+30")),
        ("1E-30", Decimal("1E-30")),
        (" 2 ", Decimal(2)),
        ("-0", Decimal(0)),
        (10**30, Decimal(10**30)),
    ],
)
def test_an_amount_is_exactly_what_was_given(given: object, amount: Decimal) -> None:
    assert AMOUNT.validate_python(given) == amount


@pytest.mark.parametrize(
    "given",
    [
        0.1,
        0.0,
        float("inf"),
        float("nan"),
        "NaN",
        "-NaN",
        "sNaN",
        "Infinity",
        "-inf",
        Decimal("NaN"),
        Decimal("Infinity"),
        "1E+31",
        "1E-31",
        "1E+999999999",
        "1E-999999999",
        "1E+99999999999999999999",
        10**31,
        10**5000,
        "9" * 5000,
        "0." + "0" * 30 + "1",
        True,
        None,
        "",
        "1,5",
        "$1",
        "0x10",
        b"\xff",
        [],
        {},
    ],
    ids=lambda given: repr(given)[:20] if not isinstance(given, int) or given < 10**40 else "a-huge-int",
)
def test_what_is_no_finite_exact_amount_of_sane_size_is_refused(given: object) -> None:
    with pytest.raises(ValidationError):
        AMOUNT.validate_python(given)


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**30), max_value=10**30))
def test_plain_digits_are_the_same_amount(amount: Decimal) -> None:
    written = plain(amount)
    assert set(written) <= set("-0123456789.")
    assert Decimal(written) == amount
    assert written == plain(Decimal(written))


@given(st.text(max_size=20) | st.integers() | st.floats() | st.decimals() | st.binary(max_size=9) | st.none())
def test_whatever_is_given_for_an_amount_it_is_an_amount_or_refused(given: object) -> None:
    try:
        amount = AMOUNT.validate_python(given)
    except ValidationError:
        return
    assert amount.is_finite()
    assert len(plain(amount)) <= 64
    assert not isinstance(given, float)


@pytest.mark.parametrize("said", ["1E+999999999", "1E-999999999"])
def test_an_amount_that_is_read_is_of_sane_size_too(said: str) -> None:
    with pytest.raises(ValidationError):
        CostRow.model_validate({"value": said})
    with pytest.raises(ValidationError):
        StoredRecord.model_validate({"timestamp": FEB, "value": said})
    with pytest.raises(ValidationError):
        Insight.model_validate({"id": "i", "cost_impact": said})


# --- moments that are sent --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hours", [-12, -5, 0, 1, 14])
def test_a_moment_is_kept_in_utc(hours: int) -> None:
    moment = MOMENT.validate_python(FEB.astimezone(timezone(timedelta(hours=hours))))
    assert moment == FEB
    assert moment.tzinfo is UTC


@pytest.mark.parametrize("given", [datetime(2026, 2, 1), "2026-02-01T00:00:00", date(2026, 2, 1), "soon", None])  # noqa: DTZ001 -- those are the cases
def test_a_moment_without_an_offset_is_refused(given: object) -> None:
    with pytest.raises(ValidationError):
        MOMENT.validate_python(given)


EDGES = [
    datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1))),
    datetime(9999, 12, 31, 23, 59, tzinfo=timezone(timedelta(hours=-1))),
]


@pytest.mark.parametrize("moment", EDGES)
@pytest.mark.parametrize("adapter", [MOMENT, READ], ids=["sent", "read"])
def test_a_moment_beyond_utc_is_refused(adapter: TypeAdapter[datetime], moment: datetime) -> None:
    for written in (moment, moment.isoformat()):
        with pytest.raises(ValidationError):
            adapter.validate_python(written)


# --- moments that are read --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        "2026-02-01",
        "2026-02-01T00:00:00",
        "2026-02-01T00:00:00Z",
        "2026-02-01 00:00:00",
        "2026-02-01T00:00:00.000000",
        "2026-02-01T01:00:00+01:00",
        "2026-01-31T19:00:00-05:00",
        " 2026-02-01T00:00:00Z ",
        "1769904000",
        "1769904000.123456",
        " 1769904000 ",
        1769904000,
        Decimal("1769904000.0"),
        datetime(2026, 2, 1),  # noqa: DTZ001 -- that is the case
        FEB,
    ],
    ids=str,
)
def test_a_time_is_read_in_every_way_that_live_writes_it(said: object) -> None:
    moment = READ.validate_python(said)
    assert moment == FEB
    assert moment.tzinfo is UTC


HOSTILE = [
    "",
    " ",
    ".",
    ".5",
    "-1",
    "-1769904000",
    "+1",
    "1e10",
    "NaN",
    "Infinity",
    "soon",
    "2026-13-01",
    "2026-02-30",
    "2026-02-01T25:00:00",
    "0000-01-01",
    "10000-01-01",
    "999999999999",
    "9" * 400,
    "9" * 100_000,
    "٣",
    "²",
    "1\x00",
    "0x10",
    10**12 * 10**12,
    -(10**400),
    10**400,
    Decimal("1E+400"),
    Decimal("1E+9999999"),
    Decimal("-1E+9999999"),
    Decimal("NaN"),
    Decimal("Infinity"),
    True,
    None,
    [],
    {},
    b"\xff",
]


@pytest.mark.parametrize("said", HOSTILE, ids=lambda said: f"{type(said).__name__}")
def test_a_hostile_time_is_only_refused(said: object) -> None:
    with pytest.raises(ValidationError):
        READ.validate_python(said)


@given(
    st.text(st.sampled_from("0123456789-+:.TZeE ") | st.characters(), max_size=30)
    | st.datetimes(timezones=st.just(UTC) | st.none()).map(datetime.isoformat)
    | st.integers()
    | st.integers().map(str)
    | st.decimals()
)
def test_whatever_is_said_of_a_time_it_is_one_in_utc_or_refused(said: object) -> None:
    try:
        moment = READ.validate_python(said)
    except ValidationError:
        return
    assert moment.tzinfo is UTC


@pytest.mark.parametrize("said", ["1769904000000", "1769904000000.5", 1769904000000, Decimal(1769904000000)])
def test_milliseconds_of_the_epoch_are_not_taken_for_seconds(said: str) -> None:
    assert READ.validate_python(said) == FEB


def test_a_day_without_hyphens_is_that_day() -> None:
    assert READ.validate_python("20260201") == FEB


@pytest.mark.parametrize("said", ["17699040", "176990400", "17699040000", "1769904000000000", "99999999999999999999"])
def test_a_number_that_is_neither_seconds_nor_milliseconds_is_no_time(said: str) -> None:
    with pytest.raises(ValidationError):
        READ.validate_python(said)


# --- models -----------------------------------------------------------------------------------------------------------

SENT: list[tuple[type[BaseModel], dict[str, Any]]] = [
    (CostQuery, {"start": FEB, "end": FEB}),
    (InsightChange, {"title": "t"}),
    (Notification, {"threshold": 80}),
    (BudgetChange, {"name": "n"}),
    (MetricRecord, {"timestamp": FEB, "value": 1, "granularity": "DAILY"}),
    (AllocationRecord, {"timestamp": FEB, "value": 1, "granularity": "DAILY"}),
    (RecordKey, {"timestamp": FEB}),
    (BillingRow, {"usage_start": FEB, "cost": 1}),
    (HeldRow, {"usage_start": FEB, "cost": 1}),
    (BillingDrop, {"rows": (), "operation": "replace_drop", "month": date(2026, 2, 1)}),
]
HELD: list[tuple[type[BaseModel], dict[str, Any]]] = [
    (Dimension, {"id": "a"}),
    (CostRow, {"value": 1}),
    (Insight, {"id": "i"}),
    (Budget, {"id": "b"}),
    (StoredRecord, {"timestamp": FEB, "value": 1}),
    (DropAccepted, {}),
    (DropSummary, {}),
    (HeldNotification, {}),
    (DropCheck, {"is_valid": True}),
]


@pytest.mark.parametrize(("model", "given"), SENT + HELD, ids=lambda part: getattr(part, "__name__", ""))
def test_a_record_cannot_be_changed_in_hand(model: type[BaseModel], given: dict[str, Any]) -> None:
    made = model.model_validate(given)
    for name in model.model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(made, name, None)


@pytest.mark.parametrize(("model", "given"), SENT, ids=lambda part: getattr(part, "__name__", ""))
def test_what_is_no_field_is_refused_in_what_is_sent(model: type[BaseModel], given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        model.model_validate({**given, "tpyo": 1})


@pytest.mark.parametrize(("model", "given"), HELD, ids=lambda part: getattr(part, "__name__", ""))
def test_what_is_no_field_is_passed_over_in_what_is_read(model: type[BaseModel], given: dict[str, Any]) -> None:
    assert model.model_validate({**given, "new": {"a": [1]}}) == model.model_validate(given)


def test_a_drop_has_no_operation_of_its_own() -> None:
    with pytest.raises(ValidationError, match="operation"):
        BillingDrop.model_validate({"rows": (BillingRow(usage_start=FEB, cost=Decimal(1)),)})


def test_a_blank_column_is_not_sent_and_a_zero_is() -> None:
    columns = {"cost/amortized_cost": "", "cost/discounted_cost": "0", "resource/tag:team": ""}
    assert BillingRow(usage_start=FEB, cost=Decimal(1), columns=columns).columns == {"cost/discounted_cost": "0"}


def test_a_column_is_a_text() -> None:
    for value in (1, Decimal(1), None, ["a"]):
        with pytest.raises(ValidationError):
            BillingRow.model_validate({"usage_start": FEB, "cost": 1, "columns": {"usage/amount": value}})


def test_a_dimensions_single_value_stands_for_a_tuple_of_one() -> None:
    record = AllocationRecord.model_validate(
        {"timestamp": FEB, "value": 1, "granularity": "DAILY", "dimensions": {"a": "x", "b": ["y", "z"]}}
    )
    assert record.dimensions == {"a": ("x",), "b": ("y", "z")}
    for wrong in ("ab", 5, [("a", "x")], {"a": 5}, {"a": None}, {1: "x"}):
        with pytest.raises(ValidationError):
            AllocationRecord.model_validate({"timestamp": FEB, "value": 1, "granularity": "DAILY", "dimensions": wrong})


def test_a_month_of_a_row_is_that_of_utc() -> None:
    late = datetime(2026, 2, 28, 23, tzinfo=timezone(timedelta(hours=-1)))
    assert BillingRow(usage_start=late, cost=Decimal(1)).month == date(2026, 3, 1)
    assert BillingRow(usage_start=FEB, cost=Decimal(1)).month == date(2026, 2, 1)


def test_the_words_of_operations_and_granularities_are_the_vendors() -> None:
    assert {str(name) for name in DropOperation} == {"replace_drop", "replace_hourly", "sum"}
    assert {str(name) for name in Granularity} == {"HOURLY", "DAILY", "MONTHLY"}


# --- idempotency keys -------------------------------------------------------------------------------------------------

CALL, ANSWERED = Call("POST", "/x"), Call("POST", "/x", status=500)
LOST, NO_ROUTE = OutcomeUnknown("lost", CALL), VendorUnreachable("no route", CALL)
BUSY, FAILED = RateLimited("busy", ANSWERED), OutcomeUnknown("failing", ANSWERED)
DOWN, ODD = VendorUnavailable("failing", ANSWERED), AnswerNotUnderstood("odd", ANSWERED)


def numbered(kept: str = "") -> IdempotencyKeys:
    """Return keys that can be told apart."""
    made = iter(range(1, 99))
    return IdempotencyKeys(kept, make=lambda: str(next(made)))


def heard(keys: IdempotencyKeys, error: VendorError, *, safe: bool) -> str:
    """Tell keys of an error, and return the key that is sent next."""
    keys.hear(error, safe=safe)
    headers: Mapping[str, str] = keys.header
    assert headers == {HEADER: keys.current}
    return keys.current


def test_a_header_can_be_asked_for_again_and_again() -> None:
    keys = numbered()
    assert [keys.header for _ in range(3)] == [{HEADER: "1"}] * 3


def test_a_safe_call_keeps_its_key_while_nobody_answers_and_renews_it_after_any_answer() -> None:
    keys = numbered()
    for error, key in [(LOST, "1"), (NO_ROUTE, "1"), (DOWN, "2"), (BUSY, "3"), (LOST, "3"), (BUSY, "4"), (ODD, "5")]:
        assert heard(keys, error, safe=True) == key
    assert keys.in_doubt is False


def test_an_unsafe_call_renews_its_key_after_a_refusal() -> None:
    keys = numbered()
    for error, key in [(NO_ROUTE, "1"), (BUSY, "2"), (NO_ROUTE, "2"), (BUSY, "3")]:
        assert heard(keys, error, safe=False) == key
        assert keys.in_doubt is False


@pytest.mark.parametrize("unknown", [LOST, FAILED, ODD], ids=["no-answer", "5xx", "odd"])
def test_an_unsafe_call_never_gives_up_a_key_whose_outcome_is_unknown(unknown: VendorError) -> None:
    keys = numbered()
    for error in (unknown, BUSY, NO_ROUTE, FAILED, BUSY, CredentialRefused("no", ANSWERED)):
        assert heard(keys, error, safe=False) == "1"
        assert keys.in_doubt is True


def test_a_key_that_was_kept_is_in_doubt() -> None:
    assert heard(numbered("kept"), BUSY, safe=False) == "kept"


def test_how_keys_are_made_is_said_by_name_and_each_is_new() -> None:
    keys = IdempotencyKeys()
    first = keys.current
    keys.hear(BUSY, safe=False)
    assert keys.current != first
    assert len(keys.current) == len(first) == 36


def test_keys_of_two_bodies_are_never_the_same() -> None:
    assert len({IdempotencyKeys().current for _ in range(1000)}) == 1000

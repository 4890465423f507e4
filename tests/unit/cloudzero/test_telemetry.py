"""Telemetry of both kinds under both contracts: what arrives in a stream, and what never leaves."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import httpx
import pytest
from finops_relay.cloudzero.records import AllocationRecord, Granularity, MetricRecord, RecordKey
from finops_relay.errors import (
    BodyTooLarge,
    InputRefused,
    NotFound,
    NotInContract,
    OutcomeUnknown,
    RateLimited,
    RequestRefused,
)
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.unit.cloudzero.conftest import Tenant
from tests.unit.cloudzero.wires import ONE_TRY, client, client_over, nobody, vendor

FEB = datetime(2026, 2, 1, tzinfo=UTC)
HOURLY, DAILY, MONTHLY = Granularity.HOURLY, Granularity.DAILY, Granularity.MONTHLY
STREAM, SHARES = "orders.per-day", "cpu_by-team"
CONTRACTS = ("openapi", "live")


def metric(
    value: Decimal | int | str = 1, day: int = 1, granularity: Granularity = DAILY, **dimensions: str
) -> MetricRecord:
    return MetricRecord.model_validate(
        {"timestamp": FEB.replace(day=day), "value": value, "granularity": granularity, "dimensions": dimensions}
    )


def share(tenant: Tenant | str, value: Decimal | int | str = 1, day: int = 1, **dimensions: Any) -> AllocationRecord:  # noqa: ANN401 -- one value or several
    """Make a record, under live with the name of its element."""
    live = tenant == "live" if isinstance(tenant, str) else tenant.live
    return AllocationRecord.model_validate(
        {
            "timestamp": FEB.replace(day=day),
            "value": value,
            "granularity": DAILY,
            "element_name": "checkout" if live else "",
            "dimensions": dimensions,
        }
    )


def day(number: int = 1, granularity: Granularity | None = DAILY, **more: Any) -> RecordKey:  # noqa: ANN401 -- as RecordKey takes them
    return RecordKey(timestamp=FEB.replace(day=number), granularity=granularity, **more)


def held(tenant: Tenant, stream: str = STREAM) -> dict[tuple[Any, ...], Decimal]:
    """Return the values of a stream by day, dimensions and element."""
    found = {}
    for key, value in tenant.records(stream).items():
        timestamp, _, labels, element = json.loads(key)
        flat = tuple(sorted((name, tuple(held) if isinstance(held, list) else held) for name, held in labels.items()))
        found[timestamp[:10], flat, element] = Decimal(value)
    return found


def values(tenant: Tenant, stream: str = STREAM) -> list[Any]:
    """Return the values of a stream, as Decimals."""
    return [*held(tenant, stream).values()]


# --- what a call does to a stream -------------------------------------------------------------------------------------


def test_adding_metrics_adds_up_by_time_and_dimensions(tenant: Tenant) -> None:
    said = tenant.client.add_metric_records(
        STREAM, [metric("0.1", team="a"), metric("0.2", team="a"), metric(5, team="b")]
    )
    tenant.client.add_metric_records(STREAM, [metric("0.3", team="a"), metric(7, 2, team="a")])
    assert held(tenant) == {
        ("2026-02-01", (("team", "a"),), ""): Decimal("0.6"),
        ("2026-02-01", (("team", "b"),), ""): 5,
        ("2026-02-02", (("team", "a"),), ""): 7,
    }
    assert said == tenant.state()["posts"][0]["request_id"]


def test_replacing_metrics_sets_what_is_alike_and_leaves_the_rest(live: Tenant) -> None:
    live.client.add_metric_records(STREAM, [metric(1, team="a"), metric(2, team="b")])
    for _ in range(2):
        live.client.replace_metric_records(STREAM, [metric(8, team="a"), metric(4, 2, team="a")])
    assert sorted(values(live)) == [2, 4, 8]


def test_openapi_replaces_no_metrics_and_says_what_to_do_instead() -> None:
    with pytest.raises(NotInContract, match="delete the period's records, then add"):
        client("openapi", nobody()).replace_metric_records(STREAM, [metric()])
    with pytest.raises(NotInContract):
        client("openapi", nobody()).replace_metric_records(STREAM, b"{}")


def test_deleting_and_adding_replaces_metrics_under_openapi(openapi: Tenant) -> None:
    openapi.client.add_metric_records(STREAM, [metric(1, 1), metric(2, 2)])
    openapi.client.delete_metric_records(STREAM, [day(1)])
    openapi.client.add_metric_records(STREAM, [metric(8, 1)])
    assert sorted(values(openapi)) == [2, 8]


def test_adding_and_replacing_allocations(tenant: Tenant) -> None:
    tenant.client.add_allocation_records(SHARES, [share(tenant, "0.1", team="a"), share(tenant, 7, 2, team="a")])
    tenant.client.add_allocation_records(SHARES, [share(tenant, "0.2", team="a")])
    assert sorted(values(tenant, SHARES)) == [Decimal("0.3"), 7]
    for _ in range(2):
        said = tenant.client.replace_allocation_records(SHARES, [share(tenant, "0.5", team="a")])
    assert sorted(values(tenant, SHARES)) == [Decimal("0.5"), 7]
    assert said == tenant.state()["posts"][-1]["request_id"]


def test_a_record_keeps_its_dimensions_as_its_contract_writes_them(tenant: Tenant) -> None:
    tenant.client.add_allocation_records(SHARES, [share(tenant, 1, team="a", env="x")])
    labels: tuple[tuple[str, object], ...] = (("env", "x"), ("team", "a"))
    expected = tuple((name, (value,)) for name, value in labels) if tenant.live else labels
    assert held(tenant, SHARES) == {("2026-02-01", expected, "checkout" if tenant.live else ""): 1}


def test_several_values_of_a_dimension_reach_live(live: Tenant) -> None:
    live.client.add_allocation_records(SHARES, [share(live, 1, team=("b", "a"))])
    assert list(held(live, SHARES)) == [("2026-02-01", (("team", ("a", "b")),), "checkout")]


def test_a_body_made_ahead_is_sent_byte_for_byte() -> None:
    for contract in CONTRACTS:
        wire = vendor(b"")
        made = client(contract, wire)
        bodies = [made.metric_body([metric("1.50")]), made.allocation_body([share(contract, "1.50")])]
        assert wire.seen == []
        for body in bodies:
            made.add_metric_records(STREAM, b" " + body)
            made.add_allocation_records(SHARES, b" " + body)
            made.replace_allocation_records(SHARES, b" " + body)
            assert {request.content for request in wire.seen} == {b" " + body}
            wire.seen.clear()


def test_a_lost_answer_to_a_sum_is_left_to_the_caller_and_to_a_replacement_is_not(live: Tenant) -> None:
    live.fault("postMetricTelemetrySum", "lost_answer")
    with pytest.raises(OutcomeUnknown):
        live.client.add_metric_records(STREAM, [metric(3)])
    live.fault("postMetricTelemetryReplace", "lost_answer")
    live.client.replace_metric_records(STREAM, [metric(5)])
    assert (live.count("postMetricTelemetrySum"), live.count("postMetricTelemetryReplace")) == (1, 2)
    assert values(live) == [5]


def test_a_vendor_that_asks_to_slow_down_is_asked_again_even_for_a_sum(tenant: Tenant, wire: httpx.Client) -> None:
    tenant.configure(burst=2)
    hasty = client_over(tenant.vendor.contract, tenant.vendor.api_url, wire, "standin-cloudzero-key", ONE_TRY)
    hasty.add_metric_records(STREAM, [metric(1), metric(2, 2)])
    with pytest.raises(RateLimited, match="Slow down"):
        hasty.add_metric_records(STREAM, [metric(1)])
    assert sorted(values(tenant)) == [1, 2]
    tenant.configure(burst=None)
    name = "postMetricTelemetrySum" if tenant.live else "postMetricTelemetry"
    tenant.fault(name, "status", status=503)
    tenant.client.add_metric_records(STREAM, [metric(1)])
    assert sorted(values(tenant)) == [2, 2]


# --- values -----------------------------------------------------------------------------------------------------------

numbers = st.builds(
    lambda digits, exponent: Decimal(digits).scaleb(exponent), st.integers(1, 10**15 - 1), st.integers(-20, 10)
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(numbers, min_size=1, max_size=6))
@example([Decimal("1E+3"), Decimal("1E-7"), Decimal("0.100"), Decimal(999999999999999)])
def test_values_arrive_to_the_last_digit(tenant: Tenant, wanted: list[Decimal]) -> None:
    tenant.vendor.reset()
    tenant.client.add_metric_records(STREAM, [metric(value, n) for n, value in enumerate(wanted, 1)])
    tenant.client.replace_allocation_records(SHARES, [share(tenant, value, n) for n, value in enumerate(wanted, 1)])
    assert values(tenant) == wanted
    assert values(tenant, SHARES) == wanted
    if tenant.live:
        assert [record.value for record in tenant.client.metric_records(STREAM)] == wanted[::-1]


@pytest.mark.parametrize("value", ["0", "-1", "-0.5", "0.0"])
def test_live_takes_only_values_above_zero_and_nothing_is_sent(value: str) -> None:
    made = client("live", nobody())
    with pytest.raises(InputRefused, match="more than 0") as caught:
        made.replace_metric_records(STREAM, [metric(1), metric(value)])
    assert caught.value.fix == "to set 0, delete the record"
    with pytest.raises(InputRefused, match="more than 0"):
        made.add_allocation_records(SHARES, [share("live", 1), share("live", value)])


@pytest.mark.parametrize("value", ["0", "-1", "1234567890123456", "0.1234567890123456789"])
def test_openapi_takes_any_value(openapi: Tenant, value: str) -> None:
    openapi.client.add_metric_records(STREAM, [metric(value)])
    openapi.client.add_allocation_records(SHARES, [share(openapi, value)])
    assert values(openapi) == values(openapi, SHARES) == [Decimal(value)]


@pytest.mark.parametrize("value", ["1234567890123456", "0.1234567890123456", "1.000000000000001", "12345678.12345678"])
def test_live_takes_no_more_than_15_significant_digits(value: str) -> None:
    with pytest.raises(InputRefused, match="15 significant digits") as caught:
        client("live", nobody()).add_metric_records(STREAM, [metric(value)])
    assert caught.value.value == value


@pytest.mark.parametrize(
    "value", ["123456789012345", "0.000000000123456789012345", "123456789012345000000", "1.10000000000000000"]
)
def test_zeros_at_either_end_are_no_significant_digits(live: Tenant, value: str) -> None:
    live.client.add_metric_records(STREAM, [metric(value)])
    assert values(live) == [Decimal(value)]


def judged(value: Decimal) -> None:
    """See that live's client takes a value if, and only if, the vendor takes it."""
    made = client("live", nobody())
    digits = len(format(value.copy_abs(), "f").replace(".", "").strip("0"))
    if value > 0 and digits <= 15:
        assert json.loads(made.metric_body([metric(value)]), parse_float=Decimal)["records"][0]["value"] == value
    else:
        with pytest.raises(InputRefused):
            made.metric_body([metric(value)])


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**15), max_value=10**15, places=12))
def test_whatever_live_would_refuse_is_refused_before(value: Decimal) -> None:
    judged(value)


def test_a_value_that_is_nearly_round_has_all_its_digits_counted() -> None:
    judged(Decimal("4768371582031249999.9999999995"))
    judged(Decimal("1000000000000000000000000000.5"))


@pytest.mark.parametrize("value", [1.5, "NaN", "Infinity", "1E+40", "1E-40"])
def test_what_is_no_exact_number_is_no_value(value: object) -> None:
    with pytest.raises(ValidationError):
        MetricRecord.model_validate({"timestamp": FEB, "value": value, "granularity": DAILY})
    with pytest.raises(ValidationError):
        AllocationRecord.model_validate({"timestamp": FEB, "value": value, "granularity": DAILY})


@pytest.mark.parametrize("contract", CONTRACTS)
def test_no_records_at_all_are_refused_and_nothing_is_sent(contract: str) -> None:
    made = client(contract, nobody())
    calls: list[Any] = [made.add_metric_records, made.add_allocation_records, made.replace_allocation_records]
    for call in calls + ([made.replace_metric_records] if contract == "live" else []):
        with pytest.raises(InputRefused, match="no records to send") as caught:
            call(STREAM, ())
        assert caught.value.fix == "give at least one"


@pytest.mark.parametrize("contract", CONTRACTS)
def test_a_body_over_the_limit_is_refused_with_size_and_limit_and_nothing_is_sent(contract: str) -> None:
    made = client(contract, nobody())
    body = made.metric_body([metric()])
    padded = body + b" " * (5_000_001 - len(body))
    calls: list[Any] = [made.add_metric_records, made.add_allocation_records, made.replace_allocation_records]
    for call in calls + ([made.replace_metric_records] if contract == "live" else []):
        with pytest.raises(BodyTooLarge, match=r"5,000,001 bytes.*5,000,000 a body.*nothing was sent") as caught:
            call(STREAM, padded)
        assert caught.value.call.sent_bytes == 5_000_001


def test_a_body_of_just_the_limit_is_taken(tenant: Tenant) -> None:
    body = tenant.client.metric_body([metric()])
    tenant.client.add_metric_records(STREAM, body + b" " * (5_000_000 - len(body)))
    assert values(tenant) == [1]


# --- granularity and times --------------------------------------------------------------------------------------------


def test_hours_of_a_metric_are_of_openapi_only(openapi: Tenant) -> None:
    openapi.client.add_metric_records(STREAM, [metric(1, granularity=HOURLY)])
    assert openapi.state()["telemetry"][STREAM]["granularity"] == "HOURLY"
    made = client("live", nobody())
    for call in (made.add_metric_records, made.replace_metric_records):
        with pytest.raises(NotInContract, match="add the hours up to DAILY"):
            call(STREAM, [metric(1), metric(1, granularity=HOURLY)])
    with pytest.raises(NotInContract, match="HOURLY"):
        made.delete_metric_records(STREAM, [day(granularity=HOURLY)])


def test_hours_of_an_allocation_are_of_both(tenant: Tenant) -> None:
    record = share(tenant).model_copy(update={"granularity": HOURLY, "timestamp": FEB + timedelta(hours=5)})
    tenant.client.add_allocation_records(SHARES, [record])
    assert tenant.state()["telemetry"][SHARES]["granularity"] == "HOURLY"


def test_months_are_of_both(tenant: Tenant) -> None:
    tenant.client.add_metric_records(STREAM, [metric(1, granularity=MONTHLY), metric(2, 9, granularity=MONTHLY)])
    assert values(tenant) == [3]


def test_a_time_of_another_zone_is_sent_as_utc_and_one_without_is_refused(tenant: Tenant) -> None:
    late = datetime(2026, 1, 31, 22, tzinfo=timezone(timedelta(hours=-5)))
    tenant.client.add_metric_records(
        STREAM, [metric(), MetricRecord(timestamp=late, value=Decimal(2), granularity=DAILY)]
    )
    assert held(tenant) == {("2026-02-01", (), ""): 3}
    with pytest.raises(ValidationError, match="timezone"):
        MetricRecord(timestamp=datetime(2026, 2, 1), value=Decimal(1), granularity=DAILY)  # noqa: DTZ001 -- that is the case


# --- elements and dimensions ------------------------------------------------------------------------------------------


def test_an_element_has_a_name_under_live_only() -> None:
    with pytest.raises(InputRefused, match="element_name") as caught:
        client("live", nobody()).add_allocation_records(SHARES, [share("live"), share("openapi")])
    assert caught.value.fix
    with pytest.raises(NotInContract, match="dimensions name the element"):
        client("openapi", nobody()).replace_allocation_records(SHARES, [share("live")])


def test_openapi_takes_one_value_for_each_dimension() -> None:
    made = client("openapi", nobody())
    for several in (("a", "b"), ()):
        with pytest.raises(NotInContract, match=r"one value for each dimension \(team\)"):
            made.add_allocation_records(SHARES, [share("openapi", team=several)])


def test_a_record_has_at_most_five_dimensions() -> None:
    five: dict[str, Any] = {f"d{n}": "v" for n in range(5)}
    assert len(metric(**five).dimensions) == len(share("live", **five).dimensions) == 5
    with pytest.raises(ValidationError, match="at most 5"):
        metric(**five, d5="v")
    with pytest.raises(ValidationError, match="at most 5"):
        share("live", **five, d5="v")


def test_records_without_dimensions_say_nothing_of_them() -> None:
    for contract in CONTRACTS:
        made = client(contract, nobody())
        for body in (made.metric_body([metric()]), made.allocation_body([share(contract)])):
            (record,) = json.loads(body)["records"]
            assert record.keys() - {"element_name"} == {"timestamp", "value", "granularity"}


def test_what_a_stream_froze_is_told_by_the_vendor(tenant: Tenant) -> None:
    tenant.client.add_metric_records(STREAM, [metric(team="a")])
    with pytest.raises(RequestRefused, match="All records in a stream"):
        tenant.client.add_metric_records(STREAM, [metric(crew="a")])


# --- deleting ---------------------------------------------------------------------------------------------------------


def test_deleting_takes_what_matches_and_leaves_the_rest(tenant: Tenant) -> None:
    tenant.client.add_metric_records(STREAM, [metric(n, n, team=team) for n in (1, 2, 3) for team in "ab"])
    tenant.client.delete_metric_records(STREAM, [day(1), day(3), day(9)])
    assert values(tenant) == [2, 2]
    tenant.client.delete_metric_records(STREAM, [day(2)])
    assert values(tenant) == []
    calls = tenant.count("deleteMetricTelemetry")
    assert calls == (2 if tenant.live else 4), "one call under live, one for each key under openapi"


def test_deleting_allocations_takes_what_matches_and_leaves_the_rest(tenant: Tenant) -> None:
    tenant.client.add_allocation_records(SHARES, [share(tenant, n, n) for n in (1, 2, 3)])
    tenant.client.delete_allocation_records(SHARES, [day(1), day(3)])
    assert values(tenant, SHARES) == [2]
    assert tenant.count("deleteAllocationTelemetry") == (1 if tenant.live else 2)


def test_live_deletes_by_dimensions_and_element(live: Tenant) -> None:
    live.client.add_metric_records(STREAM, [metric(1, team="a"), metric(2, team="b")])
    live.client.delete_metric_records(STREAM, [day(dimensions={"team": ("a",)})])
    assert values(live) == [2]
    other = share(live, 4, team=("a",)).model_copy(update={"element_name": "search"})
    live.client.add_allocation_records(SHARES, [share(live, 1, team=("a",)), share(live, 2, team=("b",)), other])
    live.client.delete_allocation_records(SHARES, [day(element_name="checkout", dimensions={"team": ("a",)})])
    assert values(live, SHARES) == [2, 4]
    live.client.delete_allocation_records(SHARES, [day(element_name="search")])
    assert values(live, SHARES) == [2]


def test_openapi_deletes_by_time_and_granularity_only() -> None:
    made = client("openapi", nobody())
    for key in (day(dimensions={"team": ("a",)}), day(element_name="checkout")):
        with pytest.raises(NotInContract, match="by timestamp and granularity only"):
            made.delete_metric_records(STREAM, [day(), key])
        with pytest.raises(NotInContract, match="by timestamp and granularity only"):
            made.delete_allocation_records(SHARES, [day(), key])


def test_live_deletes_metrics_by_one_value_a_dimension_and_without_elements() -> None:
    made = client("live", nobody())
    for several in (("a", "b"), ()):
        with pytest.raises(NotInContract, match="one value"):
            made.delete_metric_records(STREAM, [day(dimensions={"team": several})])
    with pytest.raises(NotInContract, match="element_name"):
        made.delete_metric_records(STREAM, [day(element_name="checkout")])


def test_metrics_can_be_deleted_whatever_their_granularity_and_allocations_cannot(tenant: Tenant) -> None:
    tenant.client.add_metric_records(STREAM, [metric(1), metric(2, 2)])
    tenant.client.delete_metric_records(STREAM, [day(granularity=None)])
    assert values(tenant) == [2]
    with pytest.raises(InputRefused, match="granularity"):
        tenant.client.delete_allocation_records(SHARES, [day(), day(granularity=None)])
    assert tenant.count("deleteAllocationTelemetry") == 0


def test_no_keys_delete_nothing_and_nothing_is_sent() -> None:
    for contract in CONTRACTS:
        client(contract, nobody()).delete_metric_records(STREAM, [])
        client(contract, nobody()).delete_allocation_records(SHARES, [])


def test_a_stream_is_deleted_with_all_that_it_holds_and_then_not_found(tenant: Tenant) -> None:
    tenant.client.add_metric_records(STREAM, [metric()])
    tenant.client.add_allocation_records(SHARES, [share(tenant)])
    tenant.client.delete_stream(STREAM)
    assert list(tenant.state()["telemetry"]) == [SHARES]
    with pytest.raises(NotFound, match="the stream's name"):
        tenant.client.delete_stream(STREAM)


def test_a_stream_may_be_there_for_a_while_after_its_deletion(live: Tenant) -> None:
    live.client.add_metric_records(STREAM, [metric()])
    live.configure(delete_lag_reads=1)
    live.client.delete_stream(STREAM)
    assert len(live.client.metric_records(STREAM)) == 1
    with pytest.raises(NotFound):
        live.client.metric_records(STREAM)


# --- names of streams -------------------------------------------------------------------------------------------------


def every_call(contract: str, stream: str, wire: Any) -> list[Any]:  # noqa: ANN401 -- a fake wire
    """Return every call that names a stream."""
    made = client(contract, wire)
    calls: list[Any] = [
        lambda: made.add_metric_records(stream, [metric()]),
        lambda: made.add_metric_records(stream, b"{}"),
        lambda: made.delete_metric_records(stream, [day()]),
        lambda: made.delete_stream(stream),
        lambda: made.add_allocation_records(stream, [share(contract)]),
        lambda: made.replace_allocation_records(stream, [share(contract)]),
        lambda: made.delete_allocation_records(stream, [day()]),
    ]
    if contract == "live":
        calls += [
            lambda: made.replace_metric_records(stream, [metric()]),
            lambda: made.metric_records(stream),
            lambda: made.telemetry_records(stream),
        ]
    return calls


BAD_NAMES = [
    "",
    ".",
    "..",
    "...",
    "a/b",
    "../x",
    "a b",
    "a%2Fb",
    "a?b",
    "a#b",
    "größe",
    "٣",
    "a\n",
    "\x00",
    "x" * 257,
    "a:b",
    "\N{FULLWIDTH LATIN SMALL LETTER A}",
]


@pytest.mark.parametrize("contract", CONTRACTS)
@pytest.mark.parametrize("stream", BAD_NAMES)
def test_a_name_that_would_change_the_address_is_refused_and_nothing_is_sent(contract: str, stream: str) -> None:
    for call in every_call(contract, stream, nobody()):
        with pytest.raises(InputRefused, match="a stream's name") as caught:
            call()
        assert caught.value.fix == "rename the stream"


@pytest.mark.parametrize("stream", ["a", "A_b.c-d", "..a", "x" * 256, "0", "_", "-"])
def test_a_good_name_is_taken_by_the_vendor(tenant: Tenant, stream: str) -> None:
    tenant.client.add_metric_records(stream, [metric(3)])
    assert values(tenant, stream) == [3]
    tenant.client.delete_stream(stream)


RESERVED = ["metric", "allocation", "records", "sum", "replace", "delete", "telemetry"]


@pytest.mark.parametrize("stream", RESERVED)
def test_a_stream_called_like_a_part_of_the_address_is_written_and_deleted_as_any_other(
    tenant: Tenant, stream: str
) -> None:
    tenant.client.add_metric_records(stream, [metric(1), metric(2, 2)])
    tenant.client.delete_metric_records(stream, [day(1)])
    assert values(tenant, stream) == [2]
    tenant.client.delete_stream(stream)
    tenant.client.add_allocation_records(stream, [share(tenant, 1), share(tenant, 2, 2)])
    tenant.client.replace_allocation_records(stream, [share(tenant, 4)])
    tenant.client.delete_allocation_records(stream, [day(2)])
    assert values(tenant, stream) == [4]
    tenant.client.delete_stream(stream)
    assert tenant.state()["telemetry"] == {}


@pytest.mark.parametrize("stream", RESERVED)
def test_a_stream_called_like_a_part_of_the_address_is_read_as_any_other(live: Tenant, stream: str) -> None:
    other = "records" if stream != "records" else "metric"
    live.client.add_metric_records(other, [metric(9)])
    live.client.add_metric_records(stream, [metric(1)])
    if stream != "records":
        assert [record.value for record in live.client.metric_records(stream)] == [1]
    if stream != "metric":
        assert [record.value for record in live.client.telemetry_records(stream)] == [1]


def test_a_stream_whose_address_is_that_of_another_is_not_read_and_nothing_is_sent() -> None:
    """``…/telemetry/metric/records`` would be either."""
    made = client("live", nobody())
    with pytest.raises(InputRefused, match="address is that of another stream") as caught:
        made.telemetry_records("metric")
    assert caught.value.value == "metric"
    with pytest.raises(InputRefused, match="address is that of another stream") as caught:
        made.metric_records("records")
    assert caught.value.fix == "use the other of metric_records and telemetry_records"


# --- reading ----------------------------------------------------------------------------------------------------------


def test_records_are_read_as_they_were_sent_the_latest_first(live: Tenant) -> None:
    live.client.add_metric_records(STREAM, [metric("1.50", 1, team="a"), metric(2, 2, team="b")])
    live.client.add_allocation_records(SHARES, [share(live, 3, team=("a", "b"))])
    latest, first = live.client.metric_records(STREAM)
    assert (first.value, first.timestamp, first.granularity) == (Decimal("1.5"), FEB, "DAILY")
    assert (first.dimensions, first.element_name) == ({"team": ("a",)}, "")
    assert latest.value == 2
    (read,) = live.client.telemetry_records(SHARES)
    assert read.model_dump(include={"element_name", "dimensions"}) == {
        "element_name": "checkout",
        "dimensions": {"team": ("a", "b")},
    }
    assert read.value == 3
    assert live.client.telemetry_records(STREAM) == (latest, first)
    with pytest.raises(NotFound):
        live.client.metric_records(SHARES)


@pytest.mark.parametrize("limit", [1, 2, 1000])
def test_no_more_records_are_read_than_asked_for(live: Tenant, limit: int) -> None:
    live.client.add_metric_records(STREAM, [metric(n, n) for n in range(1, 4)])
    assert len(live.client.metric_records(STREAM, limit)) == min(limit, 3)
    assert len(live.client.telemetry_records(STREAM, limit=limit)) == min(limit, 3)


@pytest.mark.parametrize("limit", [0, -1, 1001, 10**9])
def test_a_limit_out_of_bounds_is_refused_and_nothing_is_sent(limit: int) -> None:
    made = client("live", nobody())
    for read in (made.metric_records, made.telemetry_records):
        with pytest.raises(InputRefused, match="1 to 1,000") as caught:
            read(STREAM, limit)
        assert caught.value.value == str(limit)


def test_the_limit_is_always_said() -> None:
    wire = vendor({"records": []})
    client("live", wire).metric_records(STREAM)
    client("live", wire).telemetry_records(STREAM, 5)
    assert [str(request.url.raw_path, "ascii") for request in wire.seen] == [
        f"/unit-cost/v1/telemetry/metric/{STREAM}?limit=1000",
        f"/unit-cost/v1/telemetry/{STREAM}/records?limit=5",
    ]


def test_openapi_reads_no_telemetry() -> None:
    made = client("openapi", nobody())
    for read in (made.metric_records, made.telemetry_records):
        with pytest.raises(NotInContract, match="no way to read telemetry"):
            read(STREAM)


@pytest.mark.parametrize(
    "said",
    [
        {"timestamp": "2026-02-01", "value": 1},
        {"timestamp": "2026-02-01T00:00:00", "value": 1, "unit": "orders", "granularity": "WEEKLY"},
        {"timestamp": "2026-01-31T19:00:00-05:00", "value": 1, "associated_cost": None, "filter": None},
        {"timestamp": "1769904000", "value": 1, "filter": {}},
    ],
)
def test_a_record_that_is_written_otherwise_is_read_all_the_same(said: dict[str, object]) -> None:
    (read,) = client("live", vendor({"records": [said]})).metric_records(STREAM)
    assert read.model_dump(include={"timestamp", "value", "dimensions"}) == {
        "timestamp": FEB,
        "value": 1,
        "dimensions": {},
    }

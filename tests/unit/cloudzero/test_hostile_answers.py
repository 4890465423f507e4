"""Whatever an answer holds, only errors of the tree come out, and never a foreign one."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest
from finops_relay.cloudzero.client import CloudZero
from finops_relay.cloudzero.connect import ProcessMemory, client_of
from finops_relay.cloudzero.records import (
    BillingDrop,
    BillingRow,
    BudgetChange,
    CostQuery,
    DropOperation,
    InsightChange,
    Period,
)
from finops_relay.errors import AnswerNotUnderstood, VendorError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.cloudzero.wires import BASE, ONE_TRY, Handler, answer, client, vendor

FEB = datetime(2026, 2, 1, tzinfo=UTC)
QUERY = CostQuery(start=FEB, end=datetime(2026, 3, 1, tzinfo=UTC), group_by=("Account", "Service"))
DROP = BillingDrop(rows=(BillingRow(usage_start=FEB, cost=Decimal(1)),), operation=DropOperation.SUM)
RETITLED, RENAMED = InsightChange(title="u"), BudgetChange(name="m")
CREATED = {"created_at": "2026-02-01T00:00:00Z", "updated_at": "2026-02-01T00:00:00Z"}
STAMPS = {"created": "1769904000.123", "last_updated": "1769904001"}
NUMBERED = {"next": f"{BASE}/v2/next?page=2", "previous": None, "total": 2}
CURSOR = {"cursor": {"next_cursor": "abc=", "has_next": True}, "total_count": 2}
NOTES = [{"threshold": 80, "recipients": ["a@b.example"]}]
OLD_INSIGHT = {"id": "i", "name": "n", "description": "d", "filters": {"a": [1]}, "group_by": ["a"], **CREATED}
OLD_BUDGET = {
    "id": "b",
    "name": "n",
    "amount": 1.5,
    "period": "annual",
    "view_id": "v",
    "notifications": NOTES,
    **CREATED,
}
INSIGHT = {"id": "i", "title": "t", "category": "c", "status": "new", "cost_impact": "1.5", "link": "l", **STAMPS}
LIMITS = {"monthly": {"2026-02-01T00:00:00Z": {"amount": "5"}}}
BUDGET = {"id": "b", "name": "n", "view": {"id": "v"}, "planned_limits": LIMITS, "alerts": {"80": "N"}, **STAMPS}
RECORD = {"timestamp": "2026-02-01", "value": 1.5, "granularity": "DAILY", "filter": {"a": ["b"]}, "element_name": "e"}
METRIC = {"timestamp": "1769904000", "value": 1, "associated_cost": {"a": "b"}}
ROW = {"time/usage_start": "2026-02-01T00:00:00Z", "cost/cost": "1.5", "resource/id": "a/b"}
HELD = {"drop_id": "d", "month": "2026-02-01T00:00:00Z", "row_count": 1, "operation": "sum"}


@dataclass(frozen=True)
class Asking:
    """A call, and an answer to it that could be."""

    contract: str
    name: str
    ask: Callable[[CloudZero], object]
    said: Any

    def __str__(self) -> str:
        return f"{self.contract}-{self.name}"


ASKED = [
    Asking(
        "openapi",
        "costs",
        lambda c: list(c.costs(QUERY)),
        {
            "data": [{"group": {"Account": "1"}, "cost": [{"timestamp": "2026-02-01T00:00:00Z", "value": 1.5}]}],
            "pagination": NUMBERED,
        },
    ),
    Asking("openapi", "dimensions", lambda c: c.dimensions(), {"data": [{"id": "a", "name": "b", "type": "c"}]}),
    Asking("openapi", "insights", lambda c: c.insights(), {"data": [OLD_INSIGHT], "pagination": NUMBERED}),
    Asking("openapi", "insight", lambda c: c.insight("i"), {"data": OLD_INSIGHT}),
    Asking("openapi", "create_insight", lambda c: c.create_insight(InsightChange(title="t")), {"data": OLD_INSIGHT}),
    Asking("openapi", "update_insight", lambda c: c.update_insight("i", RETITLED), {"data": OLD_INSIGHT}),
    Asking("openapi", "budgets", lambda c: c.budgets(), {"data": [OLD_BUDGET], "pagination": NUMBERED}),
    Asking("openapi", "budget", lambda c: c.budget("b"), {"data": OLD_BUDGET}),
    Asking(
        "openapi",
        "create_budget",
        lambda c: c.create_budget(BudgetChange(name="n", amount=Decimal(1), period=Period.ANNUAL)),
        {"data": OLD_BUDGET},
    ),
    Asking("openapi", "update_budget", lambda c: c.update_budget("b", RENAMED), {"data": OLD_BUDGET}),
    Asking("openapi", "create_billing_drop", lambda c: c.create_billing_drop("c", DROP), {}),
    Asking(
        "live",
        "costs",
        lambda c: list(c.costs(QUERY)),
        {"costs": [{"usage_date": "2026-02-01", "cost": 1.5, "Account": "1", "Service": None}], "pagination": CURSOR},
    ),
    Asking("live", "dimensions", lambda c: c.dimensions(), {"dimensions": [{"id": "a", "name": "b"}]}),
    Asking("live", "insights", lambda c: c.insights(), {"insights": [INSIGHT], "pagination": CURSOR}),
    Asking("live", "insight", lambda c: c.insight("i"), {"insight": INSIGHT}),
    Asking("live", "create_insight", lambda c: c.create_insight(InsightChange(title="t")), {"insight": INSIGHT}),
    Asking("live", "update_insight", lambda c: c.update_insight("i", RETITLED), {"insight": INSIGHT}),
    Asking("live", "budgets", lambda c: c.budgets(), {"budgets": [BUDGET], "pagination": CURSOR}),
    Asking("live", "budget", lambda c: c.budget("b"), {"budget": BUDGET}),
    Asking("live", "update_budget", lambda c: c.update_budget("b", RENAMED), {"budget": BUDGET}),
    Asking("live", "metric_records", lambda c: c.metric_records("s"), {"records": [METRIC]}),
    Asking("live", "telemetry_records", lambda c: c.telemetry_records("s"), {"records": [RECORD]}),
    Asking("live", "create_billing_drop", lambda c: c.create_billing_drop("c", DROP), {"connection": HELD}),
    Asking("live", "billing_drops", lambda c: c.billing_drops("c"), {"billing_drops": [HELD]}),
    Asking("live", "billing_drop_rows", lambda c: c.billing_drop_rows("c", date(2026, 2, 1)), {"billing_drop": [ROW]}),
    Asking(
        "live",
        "validate_billing_drop",
        lambda c: c.validate_billing_drop(DROP),
        {"connection": {"is_valid": False, "errors": ["a"]}},
    ),
]
every_call = pytest.mark.parametrize("asking", ASKED, ids=str)

# --- what an answer may hold ------------------------------------------------------------------------------------------


class Raw(str):
    """JSON as it stands."""

    __slots__ = ()


LONG = json.dumps("x" * 70_000)
NUMBERS = ["0", "-0", "1", "-1", "1.5", "1769904000", "1769904000.5", "999999999999", "9" * 20, "9" * 5000]
EXPONENTS = ["1E-400", "1e400", "-1E+400"]
TEXTS = [
    "",
    " ",
    "NaN",
    "-Infinity",
    "1E+31",
    "1e99999999999999999999",
    "0001-01-01T00:00:00Z",
    "2026-02-01T00:00:00+23:59",
    "2026-02-30",
    "2026-02-01T00:30:00Z",
    "999999999999",
    "9" * 400,
    "-5",
    "1.1.1",
    "٣",
    "²",
    "\x00\x07\x1b[31m",
    "monthly",
    "https://evil.example/",
    "//api.vendor.example:99999/",
    "/v2/next",
    "?page=3",
    "#",
]
BEYOND_UTC = ["0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00"]
NO_ADDRESS = ["http://[", "?\x07", "https://api.vendor.example\N{ACCOUNT OF}/", "/" + "x" * 70_000]
BEYOND_DECIMAL = ["1e99999999999999999999", "-1E-99999999999999999999"]

leaves = (
    st.sampled_from(["null", "true", "false", r'"\ud800"', LONG, *NUMBERS, *EXPONENTS, *BEYOND_DECIMAL])
    | st.sampled_from([json.dumps(text) for text in (*TEXTS, *BEYOND_UTC, *NO_ADDRESS)])
    | st.builds(json.dumps, st.text(max_size=12) | st.integers() | st.datetimes().map(str))
    | st.builds("{}e{}".format, st.integers(-99, 99), st.integers(-500, 500))
)
KEYS = ["id", "data", "amount", "cost", "value", "next", "errors", "message", "cost/cost", ""]
anything = st.recursive(
    leaves,
    lambda part: (
        st.lists(part, max_size=3).map(lambda parts: f"[{','.join(parts)}]")
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), part, max_size=3).map(
            lambda held: "{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in held.items()) + "}"
        )
    ),
    max_leaves=6,
)


def paths(said: object, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where something stands in an answer, the whole first."""
    yield here
    members = said.items() if isinstance(said, dict) else enumerate(said) if isinstance(said, list) else ()
    for name, member in members:
        yield from paths(member, (*here, name))


def swapped(said: Any, path: tuple[Any, ...], other: object) -> Any:  # noqa: ANN401 -- JSON
    """Return an answer with something else at a place of it."""
    if not path:
        return other
    if isinstance(said, dict):
        return {**said, path[0]: swapped(said[path[0]], path[1:], other)}
    if isinstance(said, list):
        return [swapped(member, path[1:], other) if n == path[0] else member for n, member in enumerate(said)]
    return said  # swapped already, further up


def dumped(said: object) -> str:
    """Write an answer; what is raw stands as it is."""
    match said:
        case Raw():
            return str(said)
        case dict():
            return "{" + ",".join(f"{json.dumps(name)}:{dumped(value)}" for name, value in said.items()) + "}"
        case list():
            return f"[{','.join(map(dumped, said))}]"
        case _:
            return json.dumps(said)


def with_strange_parts(said: object) -> st.SearchStrategy[bytes]:
    """Give an answer with one or two of its parts swapped for anything."""
    places = st.sampled_from([*paths(said)])

    def build(swaps: list[tuple[tuple[Any, ...], str]]) -> bytes:
        strange = said
        for path, other in swaps:
            strange = swapped(strange, path, Raw(other))
        return dumped(strange).encode()

    return st.lists(st.tuples(places, anything), min_size=1, max_size=2).map(build)


def survives(asking: Asking, wire: Handler) -> None:
    """Make a call; it goes well, or fails as the tree has it."""
    try:
        asking.ask(client(asking.contract, wire, ONE_TRY))
    except VendorError as error:
        assert len(str(error)) < 2000  # noqa: PT017 -- it need not fail


@pytest.mark.parametrize("number", BEYOND_DECIMAL)
def test_a_number_beyond_all_exponents_is_told(number: str) -> None:
    for asking in ASKED:
        for said in (number, dumped({**asking.said, "beside": Raw(number)})):
            wire = vendor(answer(said.encode()))
            if asking.name == "create_billing_drop":  # taken, whatever is said of it
                asking.ask(client(asking.contract, wire, ONE_TRY))
                continue
            with pytest.raises(AnswerNotUnderstood):
                asking.ask(client(asking.contract, wire, ONE_TRY))


@pytest.mark.parametrize("moment", BEYOND_UTC)
def test_a_time_beyond_utc_is_told(moment: str) -> None:
    said = {"insight": {**INSIGHT, "created": moment}}
    with pytest.raises(AnswerNotUnderstood, match="created_at"):
        client("live", vendor(said)).insight("i")
    with pytest.raises(AnswerNotUnderstood, match="at: at"):
        list(client("openapi", vendor({"data": [{"cost": [{"timestamp": moment, "value": 1}]}]})).costs(QUERY))
    with pytest.raises(AnswerNotUnderstood, match="usage_start"):
        client("live", vendor({"rows": [{**ROW, "time/usage_start": moment}]})).billing_drop_rows("c", FEB)


def test_costs_that_are_no_list_are_told() -> None:
    with pytest.raises(AnswerNotUnderstood):
        list(client("openapi", vendor({"data": [{"cost": 5}]})).costs(QUERY))


HUGE = ["1E+10000000", "-1E+10000000", "1E+999999999999999999", "1E-10000000", "1" + "0" * 1000]


@pytest.mark.parametrize("count", HUGE, ids=lambda count: count[:30])
def test_a_huge_count_takes_no_time(count: str) -> None:
    started = time.process_time()
    said = b'{"billing_drops": [{"drop_id": "d", "row_count": %s}]}' % count.encode()
    if count.startswith("10"):
        (drop,) = client("live", vendor(answer(said))).billing_drops("c")
        assert drop.row_count == 10**1000
    else:
        with pytest.raises(AnswerNotUnderstood, match="row_count"):
            client("live", vendor(answer(said))).billing_drops("c")
    said = b'{"connection": {"drop_id": "d", "row_count": %s}}' % count.encode()
    assert client("live", vendor(answer(said))).create_billing_drop("c", DROP).drop_id == "d"
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize("number", HUGE[:-1])
def test_a_huge_number_in_place_of_anything_takes_no_time(number: str) -> None:
    for asking in ASKED:
        for path in paths(asking.said):
            started = time.process_time()
            survives(asking, vendor(answer(dumped(swapped(asking.said, path, Raw(number))).encode())))
            assert time.process_time() - started < 0.5, (str(asking), path)


# --- what comes out ---------------------------------------------------------------------------------------------------


@every_call
def test_the_answer_that_could_be_is_understood(asking: Asking) -> None:
    said = json.loads(json.dumps(asking.said))
    if "pagination" in said:
        said["pagination"] = {}
    asking.ask(client(asking.contract, vendor(said), ONE_TRY))


@every_call
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_whatever_stands_in_an_answer_only_errors_of_the_tree_come_out(asking: Asking, data: st.DataObject) -> None:
    survives(asking, vendor(answer(data.draw(with_strange_parts(asking.said)))))


HEADERS = [
    "-1",
    "99999999999",
    "Fri, 31 Dec 9999 23:59:59 GMT",
    "Mon, 01 Jan 0001 00:00:00 +1400",
    "gzip",
    "//[",
    "a=b",
]


@every_call
@settings(max_examples=15)
@given(
    status=st.sampled_from([200, 201, 202, 204, 299, 301, 304, 400, 401, 403, 404, 409, 410, 413, 418, 429, 500, 503]),
    kind=st.sampled_from(["application/json", "text/html", "text/plain; charset=x", "", "a" * 500]),
    body=st.binary(max_size=40) | anything.map(str.encode),
    more=st.dictionaries(
        st.sampled_from(["retry-after", "location", "x-request-id", "content-encoding", "set-cookie"]),
        st.sampled_from(HEADERS),
    ),
)
def test_whatever_kind_of_answer_it_is_only_errors_of_the_tree_come_out(
    asking: Asking, status: int, kind: str, body: bytes, more: dict[str, str]
) -> None:
    def wire(_: httpx.Request) -> httpx.Response:
        return httpx.Response(status, headers={"content-type": kind, **more}, stream=httpx.ByteStream(body))

    survives(asking, wire)


@settings(max_examples=150)
@given(anything | st.builds('{{"{}": {}}}'.format, st.sampled_from(["data", "dimensions"]), anything))
def test_whatever_an_api_shows_of_its_dimensions_only_errors_of_the_tree_come_out(said: str) -> None:
    http = client("live", vendor(answer(said.encode())), ONE_TRY).http
    try:
        client_of(http, "auto", ProcessMemory())
    except VendorError as error:
        assert type(error) is AnswerNotUnderstood  # noqa: PT017 -- it need not fail


def test_an_answer_that_is_nested_without_end_is_told() -> None:
    for asking in ASKED:
        for opening in (b"[", b'{"a":', b'{"data":['):
            survives(asking, vendor(answer(opening * 100_000)))

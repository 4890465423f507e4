"""docs/billing-drops.md is true: its examples are dropped, its tables are tried row by row, under both contracts."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import pytest
from finops_relay.delivery.ledger import Delivery
from finops_relay.delivery.packer import MAX_BODY_BYTES
from finops_relay.errors import InputRefused, Wait
from finops_relay.formats.cost_cells import MAX_DIGITS
from finops_relay.formats.cost_files import CostFileReader
from finops_relay.formats.cost_rows import CostRow
from finops_relay.formats.focus import REQUIRED
from finops_relay.formats.json_items import JSON_BYTES
from finops_relay.formats.rejected_rows import RejectedRow
from finops_relay.jobs.billing.judging import over_limit
from finops_relay.jobs.billing.prepare import MAX_PARTS
from finops_relay.jobs.billing.remembered import MONTH_BYTES, MONTH_ROWS
from finops_relay.jobs.config import parse
from finops_relay.jobs.mended import MAX_MENDS
from finops_relay.jobs.release import Decision

from local.standins.cloudzero import CONNECTION
from tests.world.billing import FOLDER, MONTH, Billing, billing, cbf
from tests.world.relay import SPOOL

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "billing-drops.md").read_text()
Contract = Literal["live", "openapi"]
CONTRACTS: tuple[Contract, ...] = ("live", "openapi")
NOTHING = {"nothing": "", "not sent": None}
"""What the tables say of empty cells and of columns that are left out."""


# --- reading the page -------------------------------------------------------------------------------------------------


def blocks(text: str) -> list[tuple[str, str]]:
    """Return the fenced blocks of a text: what the fence says, and what stands in it."""
    return re.findall(r"^```(\w+ [\w.-]+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Example:
    """A worked example."""

    name: str
    """Of the file."""
    body: bytes
    sent: dict[Contract, str]
    """By contract."""
    receipt: dict[str, Any]
    rejected: str


def examples() -> Iterator[Example]:
    """Yield the worked examples, which stand below headings of their own."""
    for section in re.split(r"^### ", PAGE.partition("\n## Examples\n")[2].partition("\n## ")[0], flags=re.MULTILINE)[
        1:
    ]:
        found = {words.split()[1]: text for words, text in blocks(section)}
        name = next((name for name in found if "." in name), "")
        if name:
            sent = {contract: found[contract] for contract in CONTRACTS}
            yield Example(name, found[name].encode(), sent, json.loads(found["receipt"]), found.get("rejected", ""))


EXAMPLES = list(examples())


def table(first: str, second: str = "") -> list[list[str]]:
    """Return the cells of the table whose header begins with these words, without the header."""
    header = re.escape(f"| {first} | {second}")
    found = re.search(rf"^{header}.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    assert found is not None, f"the page has no table {first!r}, {second!r}"
    return [line.strip("| \n").split(" | ") for line in found[1].splitlines()]


def spans(cell: str) -> list[str]:
    """Return what stands in the code spans of a cell."""
    return re.findall(r"`([^`]+)`", cell)


def said(cell: str) -> str | None:
    """Return the value that a cell shows."""
    if cell in NOTHING:
        return NOTHING[cell]
    [value] = spans(cell)
    return value


def ids(rows: list[list[str]]) -> list[str]:
    """Return names for the tests of a table's rows."""
    return [re.sub(r"[^\w.=+-]+", "_", "-".join(row[:3])).strip("_")[:70] for row in rows]


# --- reading files ----------------------------------------------------------------------------------------------------


def read(*records: dict[str, str]) -> list[CostRow | RejectedRow]:
    """Read a CSV file of these records, which have the same columns."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]))
    writer.writeheader()
    writer.writerows(records)
    return list(
        CostFileReader("costs.csv", date.fromisoformat(f"{MONTH}-01")).rows(io.BytesIO(text.getvalue().encode()))
    )


def refusal(data: bytes) -> InputRefused:
    """Read a file that must be refused."""
    with pytest.raises(InputRefused) as caught:
        list(CostFileReader("costs.csv", date.fromisoformat(f"{MONTH}-01")).rows(io.BytesIO(data)))
    return caught.value


CBF = {
    "time/usage_start": f"{MONTH}-01T00:00:00Z",
    "time/usage_end": "",
    "cost/cost": "1.25",
    "cost/amortized_cost": "1.25",
    "lineitem/type": "Usage",
    "resource/id": "instance/i-1",
    "resource/region": "eu-west-1",
    "resource/tag:team": "core",
}
FOCUS = {
    "ChargePeriodStart": f"{MONTH}-01T00:00:00Z",
    "BilledCost": "1",
    "BillingCurrency": "USD",
    "ChargeCategory": "Usage",
}
ALL_OF_FOCUS = FOCUS | {
    "ChargePeriodEnd": f"{MONTH}-01T01:00:00Z",
    "EffectiveCost": "1",
    "ListCost": "1",
    "ChargeDescription": "d",
    "ProviderName": "AWS",
    "ServiceName": "s",
    "ServiceSubcategory": "f",
    "SubAccountId": "1",
    "BillingAccountId": "2",
    "RegionId": "r",
    "ResourceId": "i-1",
    "ResourceType": "Instance",
    "SkuMeter": "m",
    "SkuId": "k",
    "ConsumedQuantity": "1",
    "ConsumedUnit": "u",
    "Tags": '{"team": "core"}',
    "ChargeClass": "",
    "CommitmentDiscountId": "",
    "CommitmentDiscountStatus": "",
}


def focus(cell: str) -> dict[str, str]:
    """Return a FOCUS record with the values that a cell names."""
    return FOCUS | dict(change.split("=", 1) for change in spans(cell))


# --- the examples -----------------------------------------------------------------------------------------------------


def test_there_is_an_example_for_every_form() -> None:
    assert [example.name for example in EXAMPLES] == ["cbf.csv", "focus.csv", "items.csv", "items.json", "items.ndjson"]


@pytest.mark.parametrize("contract", CONTRACTS)
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_an_example_is_sent_and_accounted_for_as_the_page_shows(example: Example, contract: Contract) -> None:
    with billing(contract) as world:
        plain = world.deliver_file(f"{FOLDER}/{example.name}", example.body)
        [unit] = plain.units
        body = world.text(unit.spool_key, SPOOL)
        assert json.loads(body, parse_float=str, parse_int=str) == json.loads(
            example.sent[contract], parse_float=str, parse_int=str
        )
        receipt = world.receipt(plain)
        shown = example.receipt if contract == "live" else without_read_back(example.receipt)
        assert {name: part_of(receipt[name], shown[name]) for name in shown} == shown
        assert world.total() == Decimal(shown["money"]["sent"])
        assert (world.rejected(plain) if plain.rejected_rows else "") == example.rejected


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_the_gzip_of_an_example_is_sent_as_the_plain_file_is(example: Example) -> None:
    with billing("live") as world:
        made = [
            world.prepare(world.drop(f"{FOLDER}/{name}", body))
            for name, body in (("plain", example.body), ("packed", gzip.compress(example.body)))
        ]
        plain, packed = (delivery.units[0].sha256 for delivery in made if delivery is not None)
        assert plain == packed


@pytest.mark.parametrize(
    "spoiled", [gzip.compress(cbf(("01T00", "1", "a")) * 100)[:-20], b"PK\x03\x04", b"PAR1", b"\xff\xfea"]
)
def test_a_file_of_another_kind_or_a_short_one_is_refused_whole(spoiled: bytes) -> None:
    with billing("live") as world:
        found = world.deliver_file(f"{FOLDER}/costs", spoiled)
        assert found.outcome == "rejected"
        assert found.units == ()


def part_of(found: Any, shown: Any) -> Any:  # noqa: ANN401 -- JSON
    """Return those members of an object that an example shows."""
    return {name: found[name] for name in shown} if isinstance(shown, dict) else found


def without_read_back(receipt: dict[str, Any]) -> dict[str, Any]:
    """Return what an example's receipt is where nothing is read back."""
    none = {"read_back": None, "difference": None}
    money = receipt["money"] | none
    if "by_column" in money:
        money["by_column"] = {name: column | none for name, column in money["by_column"].items()}
    return receipt | {"money": money}


# --- the tables of values ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", table("CBF", "from FOCUS"), ids=ids(table("CBF", "from FOCUS")))
def test_each_line_of_the_mapping_is_what_becomes_of_a_row(row: list[str]) -> None:
    column, source, given, value = row
    record = focus(given)
    [found] = read(record)
    assert isinstance(found, CostRow)
    assert found.columns.get(spans(column)[0]) == said(value)
    named = {name for name in spans(source) if re.fullmatch(r"[A-Z][A-Za-z]+", name)} & ALL_OF_FOCUS.keys()
    assert named <= {*record, "ResourceType"}, "the example has the columns that the line names"


def test_the_mapping_has_a_line_for_every_column_that_focus_becomes() -> None:
    [found] = read(ALL_OF_FOCUS)
    assert isinstance(found, CostRow)
    assert {spans(row[0])[0] for row in table("CBF", "from FOCUS")} == found.columns.keys()


@pytest.mark.parametrize("row", table("a FOCUS row with"), ids=ids(table("a FOCUS row with")))
def test_focus_rows_are_refused_as_the_page_says(row: list[str]) -> None:
    given, refused = row
    record, [error] = focus(given), spans(refused)
    if refused.startswith("the file"):
        data = f"{','.join(record)}\n{','.join(record.values())}\n".encode()
        assert refusal(data).reason == error
        return
    [found] = read(record)
    assert isinstance(found, RejectedRow)
    assert found.error == error


def test_the_mandatory_columns_of_focus_are_named() -> None:
    assert f"{', '.join(f'`{name}`' for name in REQUIRED[:3])} and `{REQUIRED[3]}` must be columns" in PAGE


@pytest.mark.parametrize("row", table("first line"), ids=ids(table("first line")))
def test_first_lines_are_refused_as_the_page_says(row: list[str]) -> None:
    [header], [reason] = map(spans, row)
    assert refusal(f"{header}\n{header}\n".encode()).reason == reason


@pytest.mark.parametrize(
    "row", table("column", "stands there | is sent as"), ids=ids(table("column", "stands there | is sent as"))
)
def test_values_are_sent_as_the_page_says(row: list[str]) -> None:
    [column], given, sent = spans(row[0]), said(row[1]), said(row[2])
    [found] = read(CBF | {column: given or ""})
    assert isinstance(found, CostRow)
    assert found.columns.get(column) == sent


@pytest.mark.parametrize(
    "row", table("column", "stands there | `error`"), ids=ids(table("column", "stands there | `error`"))
)
def test_values_are_rejected_as_the_page_says(row: list[str]) -> None:
    [column], given, [error], [fix] = spans(row[0]), said(row[1]), spans(row[2]), spans(row[3])
    [found] = read(CBF | {column: given or ""})
    assert isinstance(found, RejectedRow)
    assert (found.error, found.fix) == (error, fix)


# --- numbers, settings, decisions -------------------------------------------------------------------------------------


def test_the_limits_are_those_of_the_code() -> None:
    texts = dict(blocks(PAGE))
    assert texts["text limits"].strip() == over_limit(MONTH, 1_000_001, 160_000_000)
    for words in (
        f"{MONTH_BYTES:,} bytes and {MONTH_ROWS:,} rows a month",
        f"of at most {MAX_BODY_BYTES:,} bytes",
        f"({MAX_PARTS:,} at most)",
        f"may have {JSON_BYTES:,} bytes",
        f"up to {MAX_DIGITS} before and {MAX_DIGITS} behind the point",
        f"({MAX_MENDS} times)",
    ):
        assert words in PAGE, words


def test_the_settings_and_the_decisions_are_understood() -> None:
    texts = blocks(PAGE)
    [config] = [text for words, text in texts if words == "yaml relay.yaml"]
    billing_rules = parse(config.encode()).billing
    assert (billing_rules.months_open, billing_rules.overlap) == (1, "hold"), "they are the defaults, as it says"
    assert billing_rules.for_connection(CONNECTION).overlap == "hold"
    decisions = [Decision.model_validate_json(text).decision for words, text in texts if words == "json release"]
    assert decisions == ["send", "arrived", "drop"]


# --- what happens under each contract ---------------------------------------------------------------------------------

A, B, OTHER_B, C = ("01T00", "1", "a"), ("01T01", "2", "b"), ("01T01", "3", "b"), ("01T02", "4", "c")
KEY = f"{FOLDER}/costs.csv"
DROP = "createAnyCostBillingDrop"


def fault(world: Billing, kind: str, after: int = 0, **facts: Any) -> None:  # noqa: ANN401 -- the fault's
    world.vendor.faults.add([{"operation": DROP, "after": after, "fault": {"kind": kind, **facts}}])


def after(world: Billing, *former: tuple[str, str, str]) -> Callable[[str, bytes], Delivery]:
    """Deliver a first file; return what delivers the next."""
    assert world.deliver_file(KEY, cbf(*former)).outcome == "delivered"
    return world.deliver_file


def same(world: Billing) -> Delivery:
    return after(world, A, B)(KEY, cbf(A, B))


def grown(world: Billing) -> Delivery:
    found = after(world, A, B)(KEY, cbf(A, B, C))
    assert found.rows.accepted == 3
    assert found.money.sent == (7 if world.contract == "live" else 4)
    assert world.total() == 7
    return found


def changed(world: Billing) -> Delivery:
    return after(world, A, B)(KEY, cbf(A, OTHER_B))


def shrunk(world: Billing) -> Delivery:
    return after(world, A, B)(KEY, cbf(A))


def overlapping(world: Billing) -> Delivery:
    return after(world, A, B)(f"{FOLDER}/other.csv", cbf(OTHER_B, C))


def month_over(world: Billing) -> Delivery:
    return after(world, A, B)(f"{FOLDER}/month/costs.csv", cbf(A, C))


def lost(world: Billing) -> Delivery:
    fault(world, "lost_answer")
    found = world.deliver_file(KEY, cbf(A))
    assert world.held()["count"] == 1, "it arrived once, whoever knows it"
    return found


def slowed(world: Billing) -> Delivery:
    fault(world, "status", status=429, headers={"Retry-After": "90"})
    found = world.deliver_file(KEY, cbf(A))
    assert [wait.seconds for wait in world.waited][:1] == [90]
    return found


def key_refused(world: Billing) -> Delivery:
    world.key[0] = "wrong"
    prepared = world.prepare(world.drop(KEY, cbf(A)))
    assert prepared is not None
    with pytest.raises(Wait):
        world.step(prepared.id)
    waiting = world.ledger.delivery(prepared.id)
    assert waiting is not None
    return waiting


def no_connection(world: Billing) -> Delivery:
    return world.deliver_file(f"incoming/billing/nobody/{MONTH}/costs.csv", cbf(A))


def not_seen(world: Billing) -> Delivery:
    world.vendor.configure({"read_lag_reads": 1_000})
    return world.deliver_file(KEY, cbf(A))


def mended(world: Billing) -> Delivery:
    first = world.deliver_file(KEY, cbf(A, ("01T01", "x", "b")))
    assert first.outcome == "partly_delivered"
    rows = world.rejected(first).replace(",x,", ",2,").encode()
    found = world.deliver_file(f"{FOLDER}/mended/{first.id}.csv", rows)
    assert found.rows.in_ == (2 if world.contract == "live" else 1)
    assert world.total() == 3
    return found


CASES: dict[str, Callable[[Billing], Delivery]] = {
    "the same content again": same,
    "a newer version with more hours": grown,
    "a newer version with changed hours": changed,
    "a newer version without an hour of the former": shrunk,
    "another file with the same hours": overlapping,
    "a complete month over what is there": month_over,
    "an answer is lost": lost,
    "CloudZero answers 429": slowed,
    "the key is refused": key_refused,
    "the connection does not exist": no_connection,
    "what arrived is not what was sent": not_seen,
    "rejected rows, mended": mended,
}


def test_every_line_that_compares_the_contracts_is_tried() -> None:
    assert [row[0] for row in table("what happens", "`live`")] == list(CASES)


@pytest.mark.parametrize("contract", CONTRACTS)
@pytest.mark.parametrize("row", table("what happens", "`live`"), ids=ids(table("what happens", "`live`")))
def test_the_contracts_differ_as_the_page_says(row: list[str], contract: Contract) -> None:
    with billing(contract) as world:
        found = CASES[row[0]](world)
        assert found.outcome == spans(row[1 + CONTRACTS.index(contract)])[0], found.reason


# --- what is held -----------------------------------------------------------------------------------------------------


def closed_month(world: Billing) -> Delivery:
    return in_month(world, "2026-01")


def month_to_come(world: Billing) -> Delivery:
    return in_month(world, "2026-04")


def in_month(world: Billing, month: str) -> Delivery:
    return world.deliver_file(
        f"incoming/billing/{CONNECTION}/{month}/costs.csv", cbf(A).replace(MONTH.encode(), month.encode())
    )


def older(world: Billing) -> Delivery:
    first = world.prepare(world.drop(KEY, cbf(A)))
    assert first is not None
    assert world.deliver_file(f"{FOLDER}/newer.csv", cbf(("01T00", "5", "a"))).outcome == "delivered"
    return world.finish(first.id)


def in_doubt_before(world: Billing) -> Delivery:
    assert world.decide(lost(world), "drop").outcome == "rejected"
    return world.deliver_file(KEY, cbf(A, B))


def rest_not_seen(world: Billing) -> Delivery:
    """An hour that does not fit one body, and a rest of it that never arrived."""
    fault(world, "reset", after=1)
    return world.deliver_file(KEY, cbf(*(("01T00", "1", f"{number}{'x' * 100_000}") for number in range(60))))


HELD: tuple[tuple[Contract | Literal["both"], Callable[[Billing], Delivery]], ...] = (
    ("both", closed_month),
    ("both", month_to_come),
    ("live", overlapping),
    ("openapi", overlapping),
    ("live", shrunk),
    ("live", older),
    ("openapi", changed),
    ("openapi", in_doubt_before),
    ("openapi", lost),
    ("live", rest_not_seen),
    ("live", not_seen),
)
"""In the order of the page's table."""


def test_every_reason_to_hold_is_tried() -> None:
    assert [spans(row[1])[0] if "`" in row[1] else row[1] for row in table("`reason` says", "contract")] == [
        contract for contract, _ in HELD
    ]


DECIDED = [
    pytest.param(number, held, contract, id=f"{held.__name__}-{contract}")
    for number, (contracts, held) in enumerate(HELD)
    for contract in CONTRACTS
    if contracts in {"both", contract}
]


@pytest.mark.parametrize("decision", ["send", "mark as arrived", "drop"])
@pytest.mark.parametrize(("number", "held", "contract"), DECIDED)
def test_a_held_delivery_says_why_and_goes_on_as_decided(
    number: int, held: Callable[[Billing], Delivery], contract: Contract, decision: str
) -> None:
    phrase = spans(table("`reason` says", "contract")[number][0])[0]
    with billing(contract) as world:
        found = held(world)
        assert found.outcome == "held"
        assert phrase in found.reason
        assert f"incoming/release/{found.id}.json" in found.next_command
        sent = len(world.state()["posts"])
        world.vendor.configure({"read_lag_reads": 0})
        decided = world.decide(found, decision)
        assert (len(world.state()["posts"]) > sent) == (decision == "send"), decided.reason
        assert decided.rows.owed == 0
        wanted = "delivered" if decision != "drop" else "partly_delivered" if found.rows.accepted else "rejected"
        assert decided.outcome == wanted, decided.reason

"""As `test_real_kills`, for billing drops: whatever is killed, in the end CloudZero holds each row of the file once.

Calls to the vendor are held up by its stand-in, calls to AWS by an endpoint in front of the stack's. Both act on a call
when the process is dead, unless the test says that it is lost.
"""

from __future__ import annotations

import json
import re
import uuid
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from local.serve import CLOUDZERO_SECRET
from local.standins.cloudzero import CloudZeroStandIn
from tests.stack.emulated_relay import AwsResources, Fed
from tests.stack.holding_endpoint import AwsCall, HoldingEndpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from local.rie import Emulated
    from local.stack import Stack
    from local.standins.cloudzero_account import Contract

pytestmark = pytest.mark.rie

SEND, READ = "createAnyCostBillingDrop", "getAnyCostBillingDrop"
LONG = 20_000
"""Characters of a description with which 249 rows fill a body, and ten of them still fit the sockets' buffers."""
SECOND_BODY = re.compile(rb"send billing/[0-9a-f]{64}/0002\.json")
"""The intent to send it."""


@dataclass(frozen=True, order=True)
class Row:
    """A cost."""

    start: str
    cost: Decimal
    service: str
    description: str


@dataclass
class Relay:
    """The built functions of billing drops under one contract, AWS resources of their own, and the vendor."""

    aws: AwsResources
    vendor: CloudZeroStandIn
    endpoint: HoldingEndpoint
    prepare: Fed
    deliver: Fed
    release: Fed
    preparing: Emulated
    """A process for files that are only to be there: not to be killed."""
    month: str = ""
    connection: str = ""
    rows: dict[str, list[Row]] = field(default_factory=dict)
    """Of each file, by its key."""

    def begin(self) -> None:
        """Begin anew, with an empty tenant and another connection."""
        self.vendor.reset()
        self.month, self.connection = f"{datetime.now(UTC):%Y-%m}", f"kills-{uuid.uuid4().hex[:12]}"
        # Its state is asked for again and again while a call is held up: the rows are shown when they are looked at.
        self.vendor.configure({"connections": [self.connection], "rows_in_state": False})
        for fed in (self.prepare, self.deliver, self.release):
            fed.sqs.purge_queue(QueueUrl=fed.queue_url)

    # --- what is dropped ----------------------------------------------------------------------------------------------

    def hour(self, hour: int, count: int, *, characters: int = 10, service: str = "Compute") -> list[Row]:
        """Costs of one hour of the month's first day, no two alike, credits among them."""
        return [
            Row(
                f"{self.month}-01T{hour:02d}:00:00Z",
                Decimal(13 * number - 40) / 1000,
                service,
                f"{number:06d}".ljust(characters, "x"),
            )
            for number in range(count)
        ]

    def drop(self, file: str, rows: Iterable[Row]) -> str:
        """Drop a file of costs; the message that tells of it is due. Its key."""
        key = f"incoming/billing/{self.connection}/{self.month}/{file}"
        self.rows[key] = list(rows)
        lines = [f"{row.start},{row.cost},{row.service},{row.description}" for row in self.rows[key]]
        head = "time/usage_start,cost/cost,resource/service,lineitem/description"
        self._tell(self.prepare, key, "\n".join([head, *lines, ""]).encode())
        return key

    def drop_prepared(self, file: str, rows: Iterable[Row]) -> str:
        """Drop a file and have it prepared; the delivering function's message is due. Its key."""
        key = self.drop(file, rows)
        self.prepare.finish(self.preparing)
        return key

    def decide(self, delivery: str, decision: str) -> None:
        """Drop a person's decision about a held delivery; the message that tells of it is due."""
        self._tell(self.release, f"incoming/release/{delivery}.json", json.dumps({"decision": decision}).encode())

    def _tell(self, fed: Fed, key: str, body: bytes) -> None:
        fed.sqs.send_message(QueueUrl=fed.queue_url, MessageBody=self.aws.drop(key, body))

    # --- kills --------------------------------------------------------------------------------------------------------

    def kill_at(self, fed: Fed, wanted: Callable[[AwsCall], bool], running: Emulated, *, arrives: bool) -> None:
        """Kill a process in the middle of a call to AWS; the message is due again afterwards."""
        held = self.endpoint.hold(wanted, arrives=arrives)
        fed.kill_when(lambda: held.reached, running)
        held.let_go()
        fed.let_visibility_pass()

    # --- what came of it ----------------------------------------------------------------------------------------------

    def receipt(self, key: str, kind: str = "billing") -> dict[str, Any]:
        """The receipt of what was dropped last under a key; the law holds in it."""
        receipts = [receipt for receipt in self.aws.receipts(kind) if receipt["source"]["key"] == key]
        found = max(receipts, key=lambda receipt: str(receipt["source"]["sequencer"]))
        rows = found["rows"]
        assert rows["in"] == rows["accepted"] + rows["filtered"] + rows["rejected"] + rows["owed"]
        return found

    def state(self) -> dict[str, Any]:
        """What the vendor has; nothing broke its contract."""
        state: dict[str, Any] = self.vendor.state()
        assert state["violations"] == []
        assert state["response_violations"] == []
        assert state["overlaps"] == []
        return state

    def sent(self) -> list[str]:
        """What the bodies did that the vendor has acted on, in order."""
        return [post["mode"] for post in self.state()["posts"]]

    def assert_held(self, rows: Iterable[Row]) -> None:
        """The vendor holds these rows, each once, and no others."""
        self.vendor.configure({"rows_in_state": True})
        held = self.state()["drops"].get(self.connection, {}).get(self.month, {"rows": []})
        self.vendor.configure({"rows_in_state": False})
        live = self.vendor.contract == "live"
        assert Counter(_live_row(row) if live else _openapi_row(row) for row in held["rows"]) == Counter(rows)

    def assert_delivered(self, key: str) -> dict[str, Any]:
        """The vendor holds a file's rows and no others, and its receipt says so, money included; the receipt."""
        rows = self.rows[key]
        self.assert_held(rows)
        receipt = self.receipt(key)
        assert receipt["outcome"] == "delivered", receipt
        assert receipt["rows"]["accepted"] == receipt["rows"]["in"] == len(rows)
        total = sum((row.cost for row in rows), Decimal(0))
        money = receipt["money"]
        assert (Decimal(money["in"]), Decimal(money["sent"])) == (total, total)
        if self.vendor.contract == "live":
            assert (Decimal(money["read_back"]), Decimal(money["difference"])) == (total, Decimal(0))
        assert not self.deliver.has_more()
        return receipt


def _live_row(row: dict[str, str]) -> Row:
    names = ("time/usage_start", "cost/cost", "resource/service", "lineitem/description")
    start, cost, service, description = (row[name] for name in names)
    return Row(start, Decimal(cost), service, description)


def _openapi_row(row: dict[str, Any]) -> Row:
    return Row(row["timestamp"], Decimal(row["cost"]), row["service"], row["description"])


@contextmanager
def made(stack: Stack, built: Path, contract: Contract) -> Iterator[Relay]:
    """Make a relay that speaks one contract."""
    key = stack.client("secretsmanager").get_secret_value(SecretId=CLOUDZERO_SECRET)["SecretString"]
    with HoldingEndpoint(stack.endpoint) as endpoint, CloudZeroStandIn(contract, keys=[key]) as vendor:
        aws = AwsResources(stack, f"kills-{uuid.uuid4().hex[:12]}")
        aws.make()
        queues = [aws.queue(f"{aws.name}-{name}") for name in ("prepare", "deliver.fifo", "release")]
        environ = aws.environ | {
            "AWS_ENDPOINT_URL": endpoint.url,
            "PREPARE_QUEUE_URL": queues[0],
            "DELIVER_QUEUE_URL": queues[1],
            "CLOUDZERO_API_URL": vendor.api_url,
            "CLOUDZERO_CONTRACT": contract,
            "READ_BACK_END_S": "0.3",
        }
        functions = ("BillingDropPrepareFunction", "CloudZeroDeliverFunction", "ReleaseFunction")
        prepare, deliver, release = (
            Fed(stack.client("sqs"), built, function, url, environ)
            for function, url in zip(functions, queues, strict=True)
        )
        with prepare.process() as preparing:
            yield Relay(aws, vendor, endpoint, prepare, deliver, release, preparing)


@pytest.fixture(scope="module")
def live_relay(stack: Stack, built: Path) -> Iterator[Relay]:
    with made(stack, built, "live") as relay:
        yield relay


@pytest.fixture
def live(live_relay: Relay) -> Relay:
    """A relay whose vendor speaks the live contract and holds nothing."""
    live_relay.begin()
    return live_relay


@pytest.fixture(scope="module")
def openapi_relay(stack: Stack, built: Path) -> Iterator[Relay]:
    with made(stack, built, "openapi") as relay:
        yield relay


@pytest.fixture
def openapi(openapi_relay: Relay) -> Relay:
    """A relay whose vendor speaks the openapi contract, where drops only append, and holds nothing."""
    openapi_relay.begin()
    return openapi_relay


def reads_the_file(call: AwsCall) -> bool:
    return call.method == "GET" and "/incoming/billing/" in call.path


def writes_the_second_body(call: AwsCall) -> bool:
    return call.method == "PUT" and call.path.endswith("/0002.json")


def queues_a_message(call: AwsCall) -> bool:
    return call.action == "SendMessage"


def writes_a_receipt(call: AwsCall) -> bool:
    return call.method == "PUT" and "/receipts/billing/" in call.path


def remembers_the_second_body(call: AwsCall) -> bool:
    return call.action == "PutItem" and SECOND_BODY.search(call.body) is not None


# --- live -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "arrives", "bodies"),
    [(reads_the_file, True, 1), (writes_the_second_body, False, 2), (queues_a_message, True, 1)],
)
def test_killed_while_it_prepares_the_file_is_prepared_anew_and_sent_once(
    live: Relay, wanted: Callable[[AwsCall], bool], *, arrives: bool, bodies: int
) -> None:
    characters = LONG if bodies > 1 else 10
    key = live.drop("costs.csv", [row for hour in (0, 1) for row in live.hour(hour, 150, characters=characters)])
    with live.prepare.process() as running:
        live.kill_at(live.prepare, wanted, running, arrives=arrives)
    assert live.sent() == []
    live.prepare.finish_afresh()
    live.deliver.finish_afresh()
    live.assert_delivered(key)
    assert live.sent() == ["replace_hourly"] * bodies


def test_killed_in_a_body_that_replaces_hours_it_sends_that_body_once_more_to_the_same_effect(live: Relay) -> None:
    with live.deliver.process() as running:
        live.drop_prepared("costs.csv", [*live.hour(0, 20, service="Former"), *live.hour(1, 5, service="Former")])
        live.deliver.finish(running)
        key = live.drop_prepared("costs.csv", [*live.hour(0, 7), *live.hour(1, 9)])
        live.deliver.kill_in(live.vendor, SEND, running)
    assert live.receipt(key)["outcome"] == "pending"
    live.deliver.finish_afresh()
    receipt = live.assert_delivered(key)
    assert [unit["attempts"] for unit in receipt["units"]] == [2]
    # The third carried the second's idempotency key, to which the vendor gave the answer that nobody had heard.
    assert live.state()["counts"][SEND] == 3
    assert live.state()["replays"] == 1
    assert live.sent() == ["replace_hourly", "replace_hourly"]


def test_killed_in_the_body_that_wipes_a_month_it_goes_on_with_the_others_and_wipes_none_of_them(live: Relay) -> None:
    with live.deliver.process() as running:
        live.drop_prepared("yesterday.csv", live.hour(5, 20, service="Former"))
        live.deliver.finish(running)
        hours = [
            live.hour(0, 10, characters=LONG),
            live.hour(1, 240, characters=LONG),
            live.hour(2, 10, characters=LONG),
        ]
        key = live.drop_prepared("month/costs.csv", [row for hour in hours for row in hour])
        live.deliver.kill_in(live.vendor, SEND, running)
    live.assert_held(hours[0])
    live.deliver.finish_afresh()
    receipt = live.assert_delivered(key)
    assert [unit["attempts"] for unit in receipt["units"]] == [2, 1, 1]
    assert live.sent() == ["replace_hourly", "replace_drop", "replace_hourly", "replace_hourly"]


def test_killed_in_the_rest_of_an_hour_that_fits_no_body_it_finds_it_there_and_does_not_add_it_again(
    live: Relay,
) -> None:
    with live.deliver.process() as running:
        key = live.drop_prepared("costs.csv", [*live.hour(0, 260, characters=LONG), *live.hour(1, 5)])
        live.deliver.kill_in(live.vendor, SEND, running, after=1)
    live.deliver.finish_afresh()
    receipt = live.assert_delivered(key)
    assert any("body 2 was lost; it was read back and has arrived" in warning for warning in receipt["warnings"])
    assert live.sent() == ["replace_hourly", "sum", "replace_hourly"]


def test_killed_before_the_rest_of_an_hour_has_left_it_is_held_and_the_release_replaces_the_whole(live: Relay) -> None:
    with live.deliver.process() as running:
        key = live.drop_prepared("costs.csv", [*live.hour(0, 260, characters=LONG), *live.hour(1, 5)])
        live.kill_at(live.deliver, remembers_the_second_body, running, arrives=True)
    with live.deliver.process() as fresh:
        live.deliver.finish(fresh)
        receipt = live.receipt(key)
        assert receipt["outcome"] == "held"
        assert "body 2" in receipt["reason"]
        assert receipt["rows"]["owed"] > 0
        live.decide(receipt["id"], "send")
        live.release.finish_afresh()
        live.deliver.finish(fresh)
    live.assert_delivered(key)
    assert live.sent() == ["replace_hourly", "replace_hourly", "sum", "replace_hourly"]


def test_killed_while_it_reads_back_it_reads_again_and_sends_nothing(live: Relay) -> None:
    with live.deliver.process() as running:
        key = live.drop_prepared("costs.csv", [*live.hour(0, 7), *live.hour(1, 9)])
        live.deliver.kill_in(live.vendor, READ, running)
    assert live.receipt(key)["outcome"] == "pending"
    live.deliver.finish_afresh()
    live.assert_delivered(key)
    assert live.sent() == ["replace_hourly"]
    assert live.state()["counts"] == {SEND: 1, READ: 2}


# --- openapi ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("arrives", "truth"), [(True, "mark as arrived"), (False, "send")])
def test_killed_in_a_body_that_adds_it_is_held_and_names_it_and_the_truth_about_it_makes_the_rows_exact(
    openapi: Relay, truth: str, *, arrives: bool
) -> None:
    with openapi.deliver.process() as running:
        hours = [openapi.hour(0, 240, characters=LONG), openapi.hour(1, 10, characters=LONG)]
        key = openapi.drop_prepared("costs.csv", [*hours[0], *hours[1]])
        if arrives:
            openapi.deliver.kill_in(openapi.vendor, SEND, running, after=1)
        else:  # as the intent to send it is remembered
            openapi.kill_at(openapi.deliver, remembers_the_second_body, running, arrives=True)
    openapi.assert_held([*hours[0], *hours[1]] if arrives else hours[0])
    with openapi.deliver.process() as fresh:
        openapi.deliver.finish(fresh)
        receipt = openapi.receipt(key)
        assert receipt["outcome"] == "held"
        assert "body 2 (10 rows" in receipt["reason"]
        assert [unit["status"] for unit in receipt["units"]] == ["accepted", "in doubt"]
        assert f"incoming/release/{receipt['id']}.json" in receipt["next_command"]
        openapi.decide(receipt["id"], truth)
        openapi.release.finish_afresh()
        openapi.deliver.finish(fresh)
    openapi.assert_delivered(key)
    assert openapi.sent() == ["append", "append"]


@pytest.mark.parametrize(("wanted", "arrives"), [(writes_a_receipt, False), (queues_a_message, True)])
def test_a_decision_whose_function_is_killed_between_its_writes_is_taken_once_it_runs_again(
    openapi: Relay, wanted: Callable[[AwsCall], bool], *, arrives: bool
) -> None:
    openapi.vendor.faults.add([{"operation": SEND, "fault": {"kind": "lost_answer"}}])
    key = openapi.drop_prepared("costs.csv", openapi.hour(0, 12))
    with openapi.deliver.process() as delivering:
        openapi.deliver.finish(delivering)
        delivery = openapi.receipt(key)["id"]
        openapi.decide(delivery, "mark as arrived")
        with openapi.release.process() as running:
            openapi.kill_at(openapi.release, wanted, running, arrives=arrives)
        openapi.release.finish_afresh()
        openapi.deliver.finish(delivering)
    openapi.assert_delivered(key)
    assert openapi.sent() == ["append"]
    assert openapi.receipt(f"incoming/release/{delivery}.json", "release")["outcome"] == "delivered"

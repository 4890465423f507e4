"""Settings from the environment; the event bus; the vendors' queues."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from finops_relay.aws.bus import MAX_REASON, EventBus
from finops_relay.aws.queues import FifoQueue
from finops_relay.aws.settings import Settings
from finops_relay.delivery.defaults import Defaults
from finops_relay.delivery.ledger import Delivery
from finops_relay.delivery.receipt import Outcome, Rows, Source
from finops_relay.errors import RelayError
from pydantic import ValidationError

NEEDED = {"LEDGER_TABLE": "l", "DROPS_BUCKET": "d", "SPOOL_BUCKET": "s", "BUS_NAME": "b", "QUEUE_URL": "q"}
DELIVERY = Delivery(
    id="d1",
    kind="price-book",
    target="t",
    group="g1",
    source=Source(bucket="drops", key="incoming/ä b.csv"),
    times={"received": datetime(2026, 3, 1, tzinfo=UTC)},
    outcome=Outcome.DELIVERED,
    reason="r" * 5000,
    rows=Rows.model_validate({"in": 3, "accepted": 2, "rejected": 1}),
)


@pytest.mark.parametrize("missing", sorted(NEEDED))
def test_a_missing_or_empty_setting_is_named(missing: str) -> None:
    for environment in ({k: v for k, v in NEEDED.items() if k != missing}, {**NEEDED, missing: ""}):
        with pytest.raises(ValidationError, match=missing.lower()):
            Settings.read(environment)


def test_a_number_that_is_none_is_named() -> None:
    with pytest.raises(ValidationError, match="retry_cap_s"):
        Settings.read({**NEEDED, "RETRY_CAP_S": "soon"})


def test_what_is_set_is_read_and_the_rest_has_defaults() -> None:
    settings = Settings.read(
        {**NEEDED, "RETRY_FIRST_S": "1.5", "INFRACOST_ENTERPRISE_ID": "e", "INFRACOST_SLUG": "acme", "OTHER": "x"}
    )
    assert (settings.retry_first_s, settings.retry_cap_s) == (1.5, 900)
    assert settings.defaults == Defaults("e", "acme", "", "")
    assert settings.infracost_api_url == "https://api.infracost.io/v1"
    assert (settings.prepare_queue_url, settings.read_back_end_s) == ("", 3600)


@pytest.mark.parametrize(("said", "meant"), [("0", 0), ("23", 23), (None, 3)])
def test_sources_are_read_at_an_hour_of_the_day_and_by_night_unless_another_is_named(
    said: str | None, meant: int
) -> None:
    told = {} if said is None else {"SYNC_HOUR_UTC": said}
    assert Settings.read({**NEEDED, **told}).sync_hour_utc == meant


@pytest.mark.parametrize("said", ["24", "-1", "3.5", "03:00", ""])
def test_what_is_no_hour_of_the_day_is_named(said: str) -> None:
    with pytest.raises(ValidationError, match="sync_hour_utc"):
        Settings.read({**NEEDED, "SYNC_HOUR_UTC": said})


def test_what_releases_is_told_of_the_queues_of_both_vendors() -> None:
    told = {"DELIVER_QUEUE_URL": "c", "INFRACOST_DELIVER_QUEUE_URL": "i"}
    settings = Settings.read({**NEEDED, **told})
    assert (settings.deliver_queue_url, settings.infracost_deliver_queue_url) == ("c", "i")
    assert Settings.read(NEEDED).infracost_deliver_queue_url == ""


@pytest.mark.parametrize(("said", "meant"), [("true", True), ("false", False)])
def test_a_flag_is_read_as_the_template_writes_it(said: str, meant: bool) -> None:  # noqa: FBT001 -- a test's parameter
    assert Settings.read({**NEEDED, "CLOUDZERO_BEARER": said}).cloudzero_bearer is meant


def test_what_cloudzero_deliver_is_told_is_read() -> None:
    told = {"PREPARE_QUEUE_URL": "p", "READ_BACK_END_S": "10", "CLOUDZERO_CONTRACT": "live"}
    settings = Settings.read({**NEEDED, **told})
    assert (settings.prepare_queue_url, settings.read_back_end_s) == ("p", 10)
    assert settings.cloudzero_contract == "live"


class Events:
    """An event bus that answers as told."""

    def __init__(self, failed: int) -> None:
        self.failed = failed
        self.entries: list[dict[str, Any]] = []

    def put_events(self, Entries: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803 -- boto3's names
        self.entries += Entries
        return {"FailedEntryCount": self.failed, "Entries": [{"ErrorCode": "InternalFailure"} if self.failed else {}]}


def test_an_event_is_a_summary_and_a_pointer() -> None:
    events: Any = Events(0)
    EventBus(events, "bus").announce(DELIVERY, "s3://drops/receipts/d1.json")
    (entry,) = events.entries
    detail = json.loads(entry["Detail"])
    assert (entry["EventBusName"], entry["Source"], entry["DetailType"]) == ("bus", "finops-relay", "Delivery")
    assert detail["receipt"] == "s3://drops/receipts/d1.json"
    assert detail["rows"] == {"in": 3, "accepted": 2, "filtered": 0, "rejected": 1, "owed": 0}
    assert detail["source"] == "s3://drops/incoming/ä b.csv"
    assert len(detail["reason"]) == MAX_REASON
    assert not {"work", "money", "units"} & set(detail)


def test_an_event_that_the_bus_refused_is_an_error() -> None:
    events: Any = Events(1)
    with pytest.raises(RelayError, match="InternalFailure"):
        EventBus(events, "bus").announce(DELIVERY, "s3://x")


def test_the_same_nonce_queues_a_delivery_once_and_its_group_keeps_order(aws: str) -> None:
    sqs = boto3.client("sqs", aws)
    url = sqs.create_queue(QueueName="q.fifo", Attributes={"FifoQueue": "true"})["QueueUrl"]
    queue = FifoQueue(sqs, url)
    for nonce in ("n1", "n1", "n2", "ü" * 300):
        queue.send(DELIVERY, nonce=nonce)
    found = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, AttributeNames=["All"])["Messages"]
    assert len(found) == 3
    assert {message["Attributes"]["MessageGroupId"] for message in found} == {"g1"}
    assert json.loads(found[0]["Body"]) == {"kind": "price-book", "delivery": "d1"}
    sqs.close()

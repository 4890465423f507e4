"""Records of applications through the queue of the local stack, some sent twice: how fast, and how many writes.

The whole way: SQS, telemetry_collect, the inbox, the schedule's message, telemetry_prepare, the FIFO queue,
cloudzero_deliver and the stand-in; every function as a process of its own, with its role. The emulator hands over ten
messages at a time, where SQS hands over up to ten thousand: so there are a thousand batches here, and in AWS a few.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from local.serve import Local, Settings, serving

if TYPE_CHECKING:
    from collections.abc import Iterable

RECORDS = 10_000
STREAM = "requests"
TEAMS, REGIONS = 20, 5
TWICE = 10
"""Every so many-th record is sent twice."""
IN_A_CALL = 10
"""Messages that SQS takes at once."""
SENDERS = 4
PATIENCE_S = 300.0


@dataclass(frozen=True)
class Queued:
    """What came of some records."""

    records: int
    """Different ones."""
    repeated: int
    """How many of them were sent twice."""
    sending_s: float
    """To put them into the queue, which is the application's part."""
    whole_s: float
    """From the first one sent to the last receipt."""
    writes: int
    """To the ledger, of every kind."""
    deliveries: int
    counted: str
    """What the vendor holds in the end."""

    @property
    def per_s(self) -> float:
        """Records a second, the whole way."""
        return self.records / self.whole_s

    @property
    def writes_per_record(self) -> float:
        """Writes to the ledger for each record."""
        return self.writes / self.records


def measure(records: int = RECORDS) -> Queued:
    """Send records, some of them twice, and wait until the vendor holds each once."""
    with serving(Settings()) as local:
        before = _writes(local)
        began = time.monotonic()
        bodies = [json.dumps(each) for each in _records(records)]
        again = bodies[::TWICE]
        bodies += again
        _send(local, bodies)
        sent = time.monotonic()
        expected = sum((Decimal(each["value"]) for each in _records(records)), Decimal(0))
        held = _finished(local, expected)
        whole_s = time.monotonic() - began
        receipts = _receipts(local)
        writes = _writes(local) - before
    counted = sum(receipt["rows"]["accepted"] for receipt in receipts)
    filtered = sum(receipt["rows"]["filtered"] for receipt in receipts)
    if (counted, filtered) != (records, len(again)):
        msg = f"{counted:,} records were counted and {filtered:,} left out, of {records:,} and {len(again):,} again"
        raise AssertionError(msg)
    return Queued(records, len(again), sent - began, whole_s, writes, len(receipts), str(held))


def _records(count: int) -> Iterable[dict[str, Any]]:
    day = f"{datetime.now(UTC):%Y-%m-%d}"
    for number in range(count):
        yield {
            "stream": STREAM,
            "kind": "metric",
            "timestamp": f"{day}T{number % 24:02}:{number % 60:02}:00Z",
            "granularity": "DAILY",
            "value": f"{1 + number % 100}.25",
            "dimensions": {"team": f"team-{number % TEAMS}", "region": f"region-{number % REGIONS}"},
            "id": f"request-{number}",
        }


def _send(local: Local, bodies: list[str]) -> None:
    sqs, url = local.stack.client("sqs"), local.stack.outputs["TelemetryQueueUrl"]

    def call(first: int) -> None:
        entries = [
            {"Id": str(place), "MessageBody": body} for place, body in enumerate(bodies[first : first + IN_A_CALL])
        ]
        failed = sqs.send_message_batch(QueueUrl=url, Entries=entries).get("Failed")
        if failed:
            raise AssertionError(failed)

    with ThreadPoolExecutor(SENDERS) as senders:
        list(senders.map(call, range(0, len(bodies), IN_A_CALL)))


def _finished(local: Local, expected: Decimal) -> Decimal:
    """Let the schedule fire while something is in the inbox, and wait until the vendor holds what was sent."""
    assert local.cloudzero is not None  # noqa: S101 -- for the types: no other server was named
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        held = local.cloudzero.state()["telemetry"].get(STREAM, {"records": {}})["records"]
        total = sum(map(Decimal, held.values()), Decimal(0))
        if total == expected and not any(receipt["outcome"] == "pending" for receipt in _receipts(local)):
            return total
        if not _waiting(local, "TelemetryQueue") and not _waiting(local, "TelemetryPrepareQueue") and _inbox(local):
            _tick(local)
        time.sleep(0.2)
    msg = f"the vendor holds {total} of {expected} after {PATIENCE_S:.0f} s"
    raise AssertionError(msg)


def _tick(local: Local) -> None:
    """Send what the schedule sends, which fires once a minute here."""
    at = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    tick = {"source": "aws.events", "detail-type": "Scheduled Event", "time": at}
    queue = local.stack.resources["TelemetryPrepareQueue"]
    local.stack.client("sqs").send_message(QueueUrl=queue, MessageBody=json.dumps(tick))


def _inbox(local: Local) -> int:
    listed = local.stack.client("s3").list_objects_v2(Bucket=local.drops_bucket, Prefix="state/telemetry/inbox/")
    return int(listed["KeyCount"])


def _waiting(local: Local, queue: str) -> int:
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    found = local.stack.client("sqs").get_queue_attributes(QueueUrl=local.stack.resources[queue], AttributeNames=names)
    return sum(int(count) for count in found["Attributes"].values())


def _receipts(local: Local) -> list[dict[str, Any]]:
    s3 = local.stack.client("s3")
    listed = s3.list_objects_v2(Bucket=local.drops_bucket, Prefix="receipts/telemetry/").get("Contents", [])
    return [json.loads(s3.get_object(Bucket=local.drops_bucket, Key=entry["Key"])["Body"].read()) for entry in listed]


def _writes(local: Local) -> int:
    """How often the items of the ledger were written: each has the number of its version."""
    pages = local.stack.client("dynamodb").get_paginator("scan").paginate(TableName=local.stack.outputs["LedgerTable"])
    return sum(int(item.get("version", {"N": "1"})["N"]) for page in pages for item in page["Items"])

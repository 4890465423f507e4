"""A whole relay in one process: moto for AWS, the strict stand-in for the vendor, and a clock that tests turn.

Nothing of ours is patched: the real jobs run over the real AWS ports and the real client; only time is given by hand.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final, Self

import boto3
from finops_relay.aws.bus import EventBus
from finops_relay.aws.objects import S3Drops, S3Spool
from finops_relay.aws.queues import FifoQueue
from finops_relay.aws.tables import DynamoLedger
from finops_relay.delivery.defaults import Defaults
from finops_relay.delivery.identity import ObjectVersion
from finops_relay.delivery.ledger import Delivery
from finops_relay.delivery.ports import Clock, Ports
from finops_relay.delivery.waits import Looks, Waits
from finops_relay.errors import Wait
from finops_relay.http.auth import Credential
from finops_relay.http.client import HttpClient, Timeouts
from finops_relay.http.retry import RetryPolicy
from finops_relay.http.wire import new_wire
from finops_relay.infracost.advice import advice
from finops_relay.infracost.client import Infracost, api_base
from finops_relay.jobs.price_books.deliver import deliver
from finops_relay.jobs.price_books.prepare import prepare
from moto import mock_aws
from pydantic import SecretStr

from local.standins.infracost import AWS_ORGANIZATION, AZURE_ORGANIZATION, ENTERPRISE, TOKEN, InfracostStandIn

REGION: Final = "eu-west-1"
DROPS = "drops"
SPOOL = "spool"
LEDGER = "ledger"
BUS = "deliveries"
FIFO = "infracost.fifo"
START = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)
DEFAULTS = Defaults(ENTERPRISE, "acme", AWS_ORGANIZATION, AZURE_ORGANIZATION)


class Metrics:
    """Remembers what was counted."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def count(self, name: str, value: int = 1) -> None:
        self.counts[name] = self.counts.get(name, 0) + value


@dataclass(kw_only=True)
class Aws:
    """AWS in this process, and a clock that tests turn."""

    s3: Any
    sqs: Any
    dynamodb: Any
    ledger: DynamoLedger
    ports: Ports
    metrics: Metrics
    time: list[datetime]
    defaults: Defaults = DEFAULTS
    waits: Waits = field(default_factory=lambda: Waits(10, 900))
    remaining: list[float] = field(default_factory=lambda: [900.0])
    sequencer: int = 0x0055AED6DCD90281E5
    waited: list[Wait] = field(default_factory=list)
    token_reads: list[bool] = field(default_factory=list)
    timeouts: Timeouts = field(default_factory=lambda: Timeouts(connect_s=2, read_s=2, total_s=5))
    wire: Any = field(default_factory=new_wire)

    def drop(self, key: str, body: bytes, bucket: str = DROPS) -> ObjectVersion:
        """Upload a file; return what S3's event would name."""
        self.sequencer += 0x10
        self.time[0] += timedelta(milliseconds=5)
        put = self.s3.put_object(Bucket=bucket, Key=key, Body=body)
        return ObjectVersion(
            bucket,
            key,
            put.get("VersionId", ""),
            put["ETag"].strip('"'),
            len(body),
            f"{self.sequencer:018X}",
            self.time[0],
        )

    def receipt(self, delivery: Delivery) -> dict[str, Any]:
        """Return the receipt that stands in the bucket."""
        body = self.s3.get_object(Bucket=DROPS, Key=delivery.receipt_key)["Body"].read()
        receipt: dict[str, Any] = json.loads(body)
        rows = receipt["rows"]
        assert rows["in"] == rows["accepted"] + rows["filtered"] + rows["rejected"] + rows["owed"]
        return receipt

    def receipts(self) -> list[dict[str, Any]]:
        """Return every receipt in the bucket."""
        keys = self.keys(DROPS, "receipts/")
        return [json.loads(self.s3.get_object(Bucket=DROPS, Key=key)["Body"].read()) for key in keys]

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        """Return the keys in a bucket."""
        found = self.s3.list_objects_v2(Bucket=bucket, Prefix=prefix)
        return [entry["Key"] for entry in found.get("Contents", [])]

    def text(self, key: str, bucket: str = DROPS) -> bytes:
        """Return an object's bytes."""
        body: bytes = self.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        return body

    def queued(self) -> list[dict[str, Any]]:
        """Take and return the messages in the vendor's queue."""
        found = []
        while batch := self.sqs.receive_message(QueueUrl=FIFO, MaxNumberOfMessages=10, AttributeNames=["All"]).get(
            "Messages"
        ):
            for message in batch:
                found.append(message)
                self.sqs.delete_message(QueueUrl=FIFO, ReceiptHandle=message["ReceiptHandle"])
        return found

    def with_ports(self, wrap: Callable[[str, Any], Any]) -> Ports:
        """Return the ports with each one but the clock wrapped."""
        names = ("ledger", "drops", "spool", "queue", "bus", "metrics")
        return replace(self.ports, **{name: wrap(name, getattr(self.ports, name)) for name in names})

    def with_ledger(self, table: str) -> Self:
        """Return the same with a ledger of its own, which is empty."""
        make_ledger(self.dynamodb, table)
        ledger = DynamoLedger(self.dynamodb, table, 400, lambda: self.time[0])
        return replace(self, ledger=ledger, ports=replace(self.ports, ledger=ledger))


@dataclass(kw_only=True)
class World(Aws):
    """What the tests of Infracost's deliveries hold in their hands."""

    vendor: InfracostStandIn
    polling: Looks = field(default_factory=lambda: Looks(10, 300, 86_400))
    token: list[str] = field(default_factory=lambda: [TOKEN])

    # --- dropping ---------------------------------------------------------------------------------------------------

    def prepare(self, source: ObjectVersion, ports: Ports | None = None) -> Delivery | None:
        """Run the preparing job once."""
        return prepare(source, ports or self.ports, self.defaults, self.waits)

    def client(self, _slug: str = "") -> Infracost:
        """Return a client of the stand-in, as a function would build it, with short time-outs."""

        def token(fresh: bool) -> SecretStr | None:  # noqa: FBT001 -- TokenSource is called by position
            self.token_reads.append(fresh)
            return SecretStr(self.token[0]) if self.token[0] else None

        return Infracost(
            HttpClient(
                base_url=api_base(self.vendor.url),
                auth=Credential(token, "infracost/acme or infracost/default"),
                advice=advice,
                retry=RetryPolicy(attempts=2, base_s=0.001, cap_s=0.01, budget_s=1),
                timeouts=self.timeouts,
                wire=self.wire,
            )
        )

    def step(
        self, delivery_id: str, ports: Ports | None = None, vendor: Callable[[str], Infracost] | None = None
    ) -> Delivery:
        """Run the delivering job once, as one message would. Raises Wait."""
        ports = ports or self.ports
        delivery = ports.ledger.delivery(delivery_id)
        assert delivery is not None
        return deliver(delivery, ports, vendor or self.client, self.waits, self.polling)

    def finish(self, delivery_id: str, ports: Ports | None = None, tries: int = 200) -> Delivery:
        """Run the delivering job until it is over, turning the clock over its waits."""
        for _ in range(tries):
            try:
                return self.step(delivery_id, ports)
            except Wait as wait:
                self.waited.append(wait)
                self.time[0] += timedelta(seconds=wait.seconds)
        raise AssertionError(f"not over after {tries} tries: {self.waited[-3:]}")

    def deliver_file(self, key: str, body: bytes) -> Delivery:
        """Drop a file and take it to its end."""
        prepared = self.prepare(self.drop(key, body))
        assert prepared is not None
        return prepared if prepared.outcome.final else self.finish(prepared.id)

    # --- looking ----------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return what the vendor holds, and check that nothing broke its contract."""
        state: dict[str, Any] = self.vendor.state()
        assert state["violations"] == []
        assert state["response_violations"] == []
        return state

    def active(self, organization: str) -> str | None:
        """Return the price book that an organization uses at the vendor."""
        found: dict[str, str | None] = {
            known["id"]: known["customPriceBookId"] for known in self.state()["organizations"]
        }
        return found[organization]


@cache
def _client(service: str) -> Any:  # noqa: ANN401 -- boto3's clients are made by name
    """Return the tests' client of a mocked service: made once, for reading its model takes longer than most tests."""
    make: Callable[..., Any] = boto3.session.Session().client
    return make(service, REGION)


def make_ledger(dynamodb: Any, table: str) -> None:  # noqa: ANN401 -- boto3's clients are made by name
    """Make the table of a ledger."""
    dynamodb.create_table(
        TableName=table,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
    )


@contextmanager
def aws() -> Iterator[dict[str, Any]]:
    """Make AWS; yield what `Aws` needs."""
    with mock_aws():
        s3 = _client("s3")
        for bucket in (DROPS, SPOOL):
            s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
            s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        dynamodb = _client("dynamodb")
        make_ledger(dynamodb, LEDGER)
        sqs = _client("sqs")
        queue = sqs.create_queue(QueueName=FIFO, Attributes={"FifoQueue": "true"})["QueueUrl"]
        events = _client("events")
        events.create_event_bus(Name=BUS)
        time = [START]
        remaining = [900.0]
        ledger = DynamoLedger(dynamodb, LEDGER, 400, lambda: time[0])
        metrics = Metrics()
        ports = Ports(
            ledger=ledger,
            drops=S3Drops(s3, DROPS),
            spool=S3Spool(s3, SPOOL),
            queue=FifoQueue(sqs, queue),
            bus=EventBus(events, BUS),
            metrics=metrics,
            clock=Clock(lambda: time[0], lambda: remaining[0]),
        )
        yield {
            "s3": s3,
            "sqs": sqs,
            "dynamodb": dynamodb,
            "ledger": ledger,
            "ports": ports,
            "metrics": metrics,
            "time": time,
            "remaining": remaining,
        }


@contextmanager
def world(**behaviour: Any) -> Iterator[World]:  # noqa: ANN401 -- checked by the stand-in
    """Make a world; *behaviour* is the stand-in's."""
    with aws() as parts, InfracostStandIn(**{"polls_needed": 1, **behaviour}) as vendor:
        found = World(vendor=vendor, **parts)
        try:
            yield found
        finally:
            found.wire.close()

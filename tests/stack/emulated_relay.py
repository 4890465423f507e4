"""Built functions under the emulator, with AWS resources of their own: fed from their queues, and killed on order."""

from __future__ import annotations

import json
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from local.rie import Emulated, FunctionDied, emulated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from local.stack import Stack
    from local.standins.standin import StandIn

TIMEOUT_S = 900
"""As the template has it: a step that needs more time than is left is put off to another invocation."""
HELD_UP_S = 1.0
"""How long a stand-in holds up the call in which the process is killed."""


def sqs_event(body: str, *, message: Mapping[str, Any] | None = None, queue: str = "queue") -> dict[str, Any]:
    """What Lambda's poller gives a function for one message."""
    message = message or {}
    attributes = {"ApproximateReceiveCount": "1", "SentTimestamp": str(int(time.time() * 1000))}
    record = {
        "messageId": message.get("MessageId", str(uuid.uuid4())),
        "receiptHandle": message.get("ReceiptHandle", "made-up"),
        "body": body,
        "attributes": attributes | message.get("Attributes", {}),
        "messageAttributes": {},
        "md5OfBody": "",
        "eventSource": "aws:sqs",
        "eventSourceARN": f"arn:aws:sqs:us-east-1:000000000000:{queue}",
        "awsRegion": "us-east-1",
    }
    return {"Records": [record]}


@dataclass
class Fed:
    """One built function, and the queue that it is fed from."""

    sqs: Any
    built: Path
    function: str
    queue_url: str
    environ: Mapping[str, str]
    received: dict[str, Any] = field(default_factory=dict)
    """The message that was received last."""

    @contextmanager
    def process(self) -> Iterator[Emulated]:
        """A fresh process of it."""
        environ = {**self.environ, "QUEUE_URL": self.queue_url}
        with emulated(self.function, environ, timeout_s=TIMEOUT_S, built=self.built) as running:
            yield running

    def message(self) -> dict[str, Any]:
        """Receive the one message that is due."""
        for _ in range(10):
            found = self.sqs.receive_message(QueueUrl=self.queue_url, WaitTimeSeconds=2, AttributeNames=["All"])
            if messages := found.get("Messages"):
                self.received = messages[0]
                return self.received
        raise AssertionError("no message is due")

    def give(self, running: Emulated, message: Mapping[str, Any]) -> bool:
        """Give a message to the function as Lambda's poller does; whether it is done with it."""
        queue = self.queue_url.rpartition("/")[2]
        failures = running.invoke(sqs_event(message["Body"], message=message, queue=queue))["batchItemFailures"]
        if failures:
            assert failures == [{"itemIdentifier": message["MessageId"]}]
            return False
        self.sqs.delete_message(QueueUrl=self.queue_url, ReceiptHandle=message["ReceiptHandle"])
        return True

    def finish(self, running: Emulated) -> None:
        """Let one process take the next message to its end, over all its waits."""
        for _ in range(50):
            if self.give(running, self.message()):
                return
        raise AssertionError(f"not over: {running.output()[-3000:]}")

    def finish_afresh(self) -> None:
        """Let a fresh process take the next message to its end."""
        with self.process() as running:
            self.finish(running)

    def kill_when(self, under_way: Callable[[], bool], running: Emulated) -> None:
        """Let a process take the next message, and kill it when something is *under_way*; the message stays hidden."""
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(self.finish, running)
            while not (under_way() or answer.done()):
                time.sleep(0.01)
            running.kill()
            assert isinstance(answer.exception(), FunctionDied), running.output()

    def kill_in(self, vendor: StandIn, operation: str, running: Emulated, *, after: int = 0) -> None:
        """Kill a process in the middle of its next call of *operation*; the message is due again afterwards.

        Args:
            vendor: holds the call up, and acts on it when the process is dead.
            operation: of the vendor.
            running: the process.
            after: so many calls of the operation go well before.
        """
        before = len(vendor.state()["calls"])
        vendor.faults.add([{"operation": operation, "after": after, "fault": {"kind": "delay", "seconds": HELD_UP_S}}])
        struck: list[str] = []

        def under_way() -> bool:
            calls = vendor.state()["calls"][before:]
            struck.extend(call["request_id"] for call in calls if call["fault"] == "delay")
            if struck:
                time.sleep(0.2)  # until as much of the body is on its way as the sockets hold
            return bool(struck)

        self.kill_when(under_way, running)
        _wait_until_acted(vendor, struck[0])
        self.let_visibility_pass()

    def let_visibility_pass(self) -> None:
        """What the queue does 90 minutes after the kill."""
        self.sqs.change_message_visibility(
            QueueUrl=self.queue_url, ReceiptHandle=self.received["ReceiptHandle"], VisibilityTimeout=0
        )

    def has_more(self) -> bool:
        """Whether another message is due."""
        return bool(self.sqs.receive_message(QueueUrl=self.queue_url, VisibilityTimeout=0).get("Messages"))


def _wait_until_acted(vendor: StandIn, request_id: str) -> None:
    """Return when the vendor is done with a call that nobody waits for any more."""
    for _ in range(1000):
        call = next(call for call in vendor.state()["calls"] if call["request_id"] == request_id)
        if call["status"] is not None or call["fault"] == "client_broke_off":
            return
        time.sleep(0.01)
    raise AssertionError(f"the vendor is not done: {call}")


@dataclass
class AwsResources:
    """Buckets, ledger, bus and queues apart from the stack's own, whose functions would take our messages."""

    stack: Stack
    name: str
    drops: int = 0
    """Files that were dropped so far."""

    def make(self) -> None:
        """Make them, but for the queues."""
        s3 = self.stack.client("s3")
        for bucket in (self.bucket, f"{self.name}-spool"):
            s3.create_bucket(Bucket=bucket)
            s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        self.stack.client("dynamodb").create_table(
            TableName=self.name,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        )
        self.stack.client("events").create_event_bus(Name=self.name)

    def queue(self, name: str) -> str:
        """Make a queue, FIFO by its *name*; its URL."""
        attributes = {"VisibilityTimeout": "900"} | ({"FifoQueue": "true"} if name.endswith(".fifo") else {})
        url: str = self.stack.client("sqs").create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
        return url

    @property
    def bucket(self) -> str:
        """Where files are dropped."""
        return f"{self.name}-drops"

    @property
    def environ(self) -> dict[str, str]:
        """What every function is told."""
        return {
            "AWS_ENDPOINT_URL": self.stack.endpoint,
            "AWS_ACCESS_KEY_ID": self.stack.access_key,
            "AWS_SECRET_ACCESS_KEY": self.stack.secret_key,
            "LEDGER_TABLE": self.name,
            "DROPS_BUCKET": self.bucket,
            "SPOOL_BUCKET": f"{self.name}-spool",
            "BUS_NAME": self.name,
            "POWERTOOLS_METRICS_NAMESPACE": "FinOpsRelay",
            "POWERTOOLS_SERVICE_NAME": "kills",
            # Waits below half a second are none for a queue, which counts seconds.
            **dict.fromkeys(("POLL_FIRST_S", "POLL_CAP_S", "RETRY_FIRST_S", "RETRY_CAP_S"), "0.1"),
        }

    def drop(self, key: str, body: bytes) -> str:
        """Drop a file; the message in which S3 tells of it."""
        self.drops += 1
        put = self.stack.client("s3").put_object(Bucket=self.bucket, Key=key, Body=body)
        dropped = {
            "key": key,
            "size": len(body),
            "eTag": put["ETag"].strip('"'),
            "versionId": put["VersionId"],
            "sequencer": f"{self.drops:018X}",
        }
        record = {
            "eventTime": datetime.now(UTC).isoformat(),
            "s3": {"bucket": {"name": self.bucket}, "object": dropped},
        }
        return json.dumps({"Records": [record]})

    def receipts(self, kind: str) -> list[dict[str, Any]]:
        """Every receipt of a kind, in the order of the dropped keys."""
        s3 = self.stack.client("s3")
        listed = s3.list_objects_v2(Bucket=self.bucket, Prefix=f"receipts/{kind}/").get("Contents", [])
        found = [json.load(s3.get_object(Bucket=self.bucket, Key=entry["Key"])["Body"]) for entry in listed]
        return sorted(found, key=lambda receipt: str(receipt["source"]["key"]))

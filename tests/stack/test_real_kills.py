"""The built functions under AWS's own runtime client: they start, and a process that is killed loses nothing.

A kill is ``kill -9`` of the emulator and of the function's interpreter in the middle of a call to the vendor. The
vendor's stand-in holds that call up, so the moment is certain; it acts on it afterwards, as a vendor would. Then the
message's visibility time-out passes, and a process that knows nothing gets the same message from the queue.
"""

from __future__ import annotations

import io
import json
import shutil
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.sheets import write_ea_sheet
from local.bootstrap import ROOT
from local.build import BUILT, build
from local.rie import NOTHING_BUILT, Emulated, FunctionDied, emulated, missing
from local.standins.infracost import AZURE_ORGANIZATION, ENTERPRISE, TOKEN, InfracostStandIn
from local.template import load

if TYPE_CHECKING:
    from collections.abc import Iterator

    from local.stack import Stack

pytestmark = pytest.mark.rie

FUNCTIONS = sorted(
    name
    for name, resource in load(ROOT / "template.yaml")["Resources"].items()
    if resource["Type"] == "AWS::Serverless::Function"
)
HELD_UP_S = 1.0
"""How long the stand-in holds up the call in which the process is killed."""
UNBUFFERED_BYTES = 24_000_000
"""A file that does not fit the sockets' buffers: when it is held up, a part of it is still to be sent."""
TEST_EVENT = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Time": "2026-03-01T09:00:00.000Z", "Bucket": "drops"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``sam build`` makes of the tree as it is now; a copy, which no other command builds anew meanwhile."""
    why = missing()
    if why and why != NOTHING_BUILT:
        pytest.skip(why)
    build()
    return shutil.copytree(BUILT, tmp_path_factory.mktemp("artefact") / "build")


def sqs_event(body: str, *, message: dict[str, Any] | None = None, queue: str = "queue") -> dict[str, Any]:
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


def sheet(size_bytes: int) -> bytes:
    """An EA sheet in which reservations stand among the rows."""
    buffer = io.BytesIO()
    write_ea_sheet(buffer, size_bytes, seed=size_bytes)
    return buffer.getvalue()


@dataclass
class Relay:
    """The built functions, AWS resources of their own, and the vendor."""

    stack: Stack
    vendor: InfracostStandIn
    built: Path
    name: str
    queue_url: str = ""
    sequence: int = 0
    received: dict[str, Any] = field(default_factory=dict)
    """The message that was received last."""
    environ: dict[str, str] = field(default_factory=dict)

    def make(self) -> None:
        """Make the resources, apart from the stack's own, whose functions would take our messages."""
        s3 = self.stack.client("s3")
        for bucket in (f"{self.name}-drops", f"{self.name}-spool"):
            s3.create_bucket(Bucket=bucket)
            s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        self.stack.client("dynamodb").create_table(
            TableName=self.name,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        )
        self.queue_url = self.stack.client("sqs").create_queue(
            QueueName=f"{self.name}.fifo", Attributes={"FifoQueue": "true", "VisibilityTimeout": "900"}
        )["QueueUrl"]
        self.stack.client("events").create_event_bus(Name=self.name)
        self.stack.client("secretsmanager").create_secret(Name=f"infracost/{self.name}", SecretString=TOKEN)
        self.environ = {
            "AWS_ENDPOINT_URL": self.stack.endpoint,
            "AWS_ACCESS_KEY_ID": self.stack.access_key,
            "AWS_SECRET_ACCESS_KEY": self.stack.secret_key,
            "LEDGER_TABLE": self.name,
            "DROPS_BUCKET": f"{self.name}-drops",
            "SPOOL_BUCKET": f"{self.name}-spool",
            "BUS_NAME": self.name,
            "QUEUE_URL": self.queue_url,
            "DELIVER_QUEUE_URL": self.queue_url,
            "INFRACOST_API_URL": self.vendor.api_url,
            "INFRACOST_ENTERPRISE_ID": ENTERPRISE,
            "INFRACOST_SLUG": self.name,
            "INFRACOST_AZURE_ORGANIZATION_ID": AZURE_ORGANIZATION,
            "POWERTOOLS_METRICS_NAMESPACE": "FinOpsRelay",
            "POWERTOOLS_SERVICE_NAME": "kills",
            # Waits below half a second are none for a queue, which counts seconds.
            **dict.fromkeys(("POLL_FIRST_S", "POLL_CAP_S", "RETRY_FIRST_S", "RETRY_CAP_S"), "0.1"),
        }

    @contextmanager
    def deliverer(self) -> Iterator[Emulated]:
        """A fresh process of infracost_deliver."""
        with emulated("InfracostDeliverFunction", self.environ, built=self.built) as running:
            yield running

    def drop(self, body: bytes) -> None:
        """Drop a book and have it prepared; it is then a message in the vendor's queue."""
        bucket = f"{self.name}-drops"
        self.sequence += 1
        key = f"incoming/price-books/azure/book-{self.sequence}.csv"
        put = self.stack.client("s3").put_object(Bucket=bucket, Key=key, Body=body)
        dropped = {
            "key": key,
            "size": len(body),
            "eTag": put["ETag"].strip('"'),
            "versionId": put["VersionId"],
            "sequencer": f"{self.sequence:018X}",
        }
        record = {"eventTime": datetime.now(UTC).isoformat(), "s3": {"bucket": {"name": bucket}, "object": dropped}}
        with emulated("PriceBookPrepareFunction", self.environ, built=self.built) as running:
            answer = running.invoke(sqs_event(json.dumps({"Records": [record]})))
            assert answer == {"batchItemFailures": []}, running.output()

    def message(self) -> dict[str, Any]:
        """Receive the one message that is due."""
        for _ in range(10):
            found = self.stack.client("sqs").receive_message(
                QueueUrl=self.queue_url, WaitTimeSeconds=2, AttributeNames=["All"]
            )
            if messages := found.get("Messages"):
                self.received = messages[0]
                return self.received
        raise AssertionError("no message is due")

    def give(self, running: Emulated, message: dict[str, Any]) -> bool:
        """Give a message to the function as Lambda's poller does; whether it is done with it."""
        event = sqs_event(message["Body"], message=message, queue=f"{self.name}.fifo")
        failures = running.invoke(event)["batchItemFailures"]
        if failures:
            assert failures == [{"itemIdentifier": message["MessageId"]}]
            return False
        self.stack.client("sqs").delete_message(QueueUrl=self.queue_url, ReceiptHandle=message["ReceiptHandle"])
        return True

    def finish(self, running: Emulated) -> None:
        """Let one process take the next message to its end, over all its waits."""
        for _ in range(50):
            if self.give(running, self.message()):
                return
        raise AssertionError(f"not over: {running.output()[-3000:]}")

    def kill_in(self, operation: str, running: Emulated) -> None:
        """Kill a process in the middle of its next call of *operation*; the message is due again afterwards."""
        before = len(self.vendor.state()["calls"])
        fault = {"kind": "delay", "seconds": HELD_UP_S}
        self.vendor.faults.add([{"operation": operation, "fault": fault}])
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(self.finish, running)
            while not (struck := [call for call in self.vendor.state()["calls"][before:] if call["fault"] == "delay"]):
                if answer.done():
                    break
                time.sleep(0.01)
            time.sleep(0.2)
            running.kill()
            assert isinstance(answer.exception(), FunctionDied), running.output()
        self.wait_until_acted(struck[0]["request_id"])
        self.let_visibility_pass()

    def wait_until_acted(self, request_id: str) -> None:
        """Return when the vendor is done with a call that nobody waits for any more."""
        for _ in range(1000):
            call = next(call for call in self.vendor.state()["calls"] if call["request_id"] == request_id)
            if call["status"] is not None or call["fault"] == "client_broke_off":
                return
            time.sleep(0.01)
        raise AssertionError(f"the vendor is not done: {call}")

    def let_visibility_pass(self) -> None:
        """What the queue does 90 minutes after the kill."""
        self.stack.client("sqs").change_message_visibility(
            QueueUrl=self.queue_url, ReceiptHandle=self.received["ReceiptHandle"], VisibilityTimeout=0
        )

    def receipts(self) -> list[dict[str, Any]]:
        """Every receipt, in the order of the drops."""
        s3, bucket = self.stack.client("s3"), f"{self.name}-drops"
        keys = [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket, Prefix="receipts/")["Contents"]]
        found = [json.load(s3.get_object(Bucket=bucket, Key=key)["Body"]) for key in keys]
        return sorted(found, key=lambda receipt: str(receipt["source"]["key"]))

    def calls(self, operation: str) -> int:
        """How often an operation was called."""
        return int(self.vendor.state()["counts"].get(operation, 0))

    def active(self) -> str:
        """The price book that the organization uses."""
        found = {known["id"]: known["customPriceBookId"] for known in self.vendor.state()["organizations"]}
        return str(found[AZURE_ORGANIZATION])

    def assert_switched(self, former: str) -> dict[str, Any]:
        """The last book was delivered whole, once, and every other trace at the vendor is named; its receipt."""
        receipt = self.receipts()[-1]
        assert receipt["outcome"] == "delivered", receipt
        rows = receipt["rows"]
        assert rows["in"] == rows["accepted"] + rows["filtered"] + rows["rejected"] + rows["owed"]
        assert rows["accepted"] > 0
        assert rows["filtered"] > 0
        assert rows["owed"] == 0
        state = self.vendor.state()
        assert state["violations"] == []
        assert state["response_violations"] == []
        books = {book["id"]: book for book in state["price_books"]}
        active = books[self.active()]
        assert active["status"] == "SUCCESS"
        [file] = active["files"]
        [sent] = [unit for unit in receipt["units"] if unit["rows"]]
        assert (file["rows"], file["sha256"], file["bytes"]) == (rows["accepted"], sent["sha256"], sent["bytes"])
        [organization] = [known for known in state["organizations"] if known["id"] == AZURE_ORGANIZATION]
        switches = list(dict.fromkeys(change["customPriceBookId"] for change in organization["activations"]))
        assert switches == [former, active["id"]]
        orphans = books.keys() - {former, active["id"]}
        assert all(any(orphan in warning for warning in receipt["warnings"]) for orphan in orphans)
        found: dict[str, Any] = receipt
        return found


@pytest.fixture
def relay(stack: Stack, built: Path) -> Iterator[Relay]:
    """A relay of its own beside the stack's; a book is ready at the third look."""
    with InfracostStandIn(polls_needed=3) as vendor:
        relay = Relay(stack, vendor, built, f"kills-{uuid.uuid4().hex[:12]}")
        relay.make()
        yield relay


def a_delivered_book(relay: Relay, running: Emulated) -> str:
    """A first book is dropped, delivered and active."""
    relay.drop(sheet(20_000))
    relay.finish(running)
    return relay.active()


def killed_in(relay: Relay, operation: str, size_bytes: int = 60_000) -> str:
    """A second book is on its way, and its process is killed in the middle of *operation*; the former book."""
    with relay.deliverer() as running:
        former = a_delivered_book(relay, running)
        relay.drop(sheet(size_bytes))
        relay.kill_in(operation, running)
    return former


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_built_function_starts_from_the_artefact_alone(
    function: str, built: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing: dict[str, list[str]] = {"batchItemFailures": []}
    environ = dict.fromkeys(("LEDGER_TABLE", "DROPS_BUCKET", "SPOOL_BUCKET", "BUS_NAME"), "none")
    environ |= {"QUEUE_URL": "http://127.0.0.1:9/000000000000/queue", "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    with emulated(function, environ, built=built) as running:
        assert running.invoke({"Records": []}) == nothing, running.output()
        if function != "InfracostDeliverFunction":  # S3 does not know its queue
            assert running.invoke(sqs_event(json.dumps(TEST_EVENT))) == nothing, running.output()
        assert running.init_ms is not None
        with capsys.disabled():
            print(f"\n{function}: start-up {running.init_ms:.0f} ms", end=" ")  # noqa: T201 -- the figure is to be seen


def test_killed_in_the_middle_of_an_upload_it_uploads_that_file_once_more(relay: Relay) -> None:
    former = killed_in(relay, "uploadPriceBookFile", UNBUFFERED_BYTES)
    broken = [call for call in relay.vendor.state()["calls"] if call["fault"] == "client_broke_off"]
    assert [call["operation"] for call in broken] == ["uploadPriceBookFile"]
    assert relay.active() == former
    uploads = relay.calls("uploadPriceBookFile")
    with relay.deliverer() as fresh:
        relay.finish(fresh)
    receipt = relay.assert_switched(former)
    assert relay.calls("uploadPriceBookFile") == uploads + 1
    assert [unit["attempts"] for unit in receipt["units"] if unit["rows"]] == [2]
    assert len(relay.vendor.state()["price_books"]) == 2


def test_killed_before_a_created_book_was_remembered_it_names_the_orphan_and_creates_another(relay: Relay) -> None:
    former = killed_in(relay, "createPriceBook")
    [orphan] = [book["id"] for book in relay.vendor.state()["price_books"] if book["id"] != former]
    assert relay.active() == former
    with relay.deliverer() as fresh:
        relay.finish(fresh)
    receipt = relay.assert_switched(former)
    assert any("lost" in warning and orphan in warning for warning in receipt["warnings"])
    assert relay.calls("createPriceBook") == 3
    assert relay.calls("uploadPriceBookFile") == 2


def test_killed_between_polls_each_fresh_process_goes_on_where_the_last_one_stopped(relay: Relay) -> None:
    with relay.deliverer() as running:
        former = a_delivered_book(relay, running)
    relay.drop(sheet(60_000))
    processes = 0
    over = False
    while not over:
        with relay.deliverer() as running:
            over = relay.give(running, relay.message())
            assert over or relay.active() == former
            running.kill()
        processes += 1
    assert processes == 3  # the book is ready at the third look
    relay.assert_switched(former)
    assert relay.calls("uploadPriceBookFile") == 2
    assert relay.calls("ingestPriceBook") == 2


@pytest.mark.parametrize("operation", ["createPriceBookFile", "ingestPriceBook", "getPriceBook", "updateOrganization"])
def test_killed_in_any_other_call_it_still_switches_once_and_to_exactly_the_accepted_rows(
    relay: Relay, operation: str
) -> None:
    former = killed_in(relay, operation)
    if operation != "updateOrganization":  # which the vendor has carried out by now
        assert relay.active() == former
    with relay.deliverer() as fresh:
        relay.finish(fresh)
    relay.assert_switched(former)
    assert relay.calls("uploadPriceBookFile") == 2

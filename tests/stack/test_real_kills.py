"""The built functions under AWS's own runtime client: they start, and a process that is killed loses nothing.

A kill is ``kill -9`` of the emulator and of the function's interpreter in the middle of a call to the vendor. The
vendor's stand-in holds that call up, so the moment is certain; it acts on it afterwards, as a vendor would. Then the
message's visibility time-out passes, and a process that knows nothing gets the same message from the queue.
"""

from __future__ import annotations

import io
import json
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.sheets import write_ea_sheet
from local.bootstrap import ROOT
from local.rie import emulated
from local.standins.infracost import AZURE_ORGANIZATION, ENTERPRISE, TOKEN, InfracostStandIn
from local.template import load
from tests.stack.emulated_relay import AwsResources, Fed, sqs_event

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from local.rie import Emulated
    from local.stack import Stack

pytestmark = pytest.mark.rie

FUNCTIONS = sorted(
    name
    for name, resource in load(ROOT / "template.yaml")["Resources"].items()
    if resource["Type"] == "AWS::Serverless::Function"
)
DELIVERING = {"InfracostDeliverFunction", "CloudZeroDeliverFunction"}
"""S3 does not know their queues."""
UNBUFFERED_BYTES = 24_000_000
"""A file that does not fit the sockets' buffers: when it is held up, a part of it is still to be sent."""
TEST_EVENT = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Time": "2026-03-01T09:00:00.000Z", "Bucket": "drops"}


def sheet(size_bytes: int) -> bytes:
    """An EA sheet in which reservations stand among the rows."""
    buffer = io.BytesIO()
    write_ea_sheet(buffer, size_bytes, seed=size_bytes)
    return buffer.getvalue()


@dataclass
class Relay:
    """The built functions of price books, AWS resources of their own, and the vendor."""

    aws: AwsResources
    vendor: InfracostStandIn
    deliver: Fed

    @classmethod
    def make(cls, stack: Stack, vendor: InfracostStandIn, built: Path) -> Relay:
        """Make the resources."""
        aws = AwsResources(stack, f"kills-{uuid.uuid4().hex[:12]}")
        aws.make()
        stack.client("secretsmanager").create_secret(Name=f"infracost/{aws.name}", SecretString=TOKEN)
        queue_url = aws.queue(f"{aws.name}.fifo")
        environ = {
            "DELIVER_QUEUE_URL": queue_url,
            "INFRACOST_API_URL": vendor.api_url,
            "INFRACOST_ENTERPRISE_ID": ENTERPRISE,
            "INFRACOST_SLUG": aws.name,
            "INFRACOST_AZURE_ORGANIZATION_ID": AZURE_ORGANIZATION,
        }
        sqs = stack.client("sqs")
        return cls(aws, vendor, Fed(sqs, built, "InfracostDeliverFunction", queue_url, aws.environ | environ))

    def drop(self, body: bytes) -> None:
        """Drop a book and have it prepared; it is then a message in the vendor's queue."""
        told = self.aws.drop(f"incoming/price-books/azure/book-{self.aws.drops + 1}.csv", body)
        environ = {**self.deliver.environ, "QUEUE_URL": self.deliver.queue_url}
        with emulated("PriceBookPrepareFunction", environ, built=self.deliver.built) as running:
            assert running.invoke(sqs_event(told)) == {"batchItemFailures": []}, running.output()

    def kill_in(self, operation: str, running: Emulated) -> None:
        """Kill a process in the middle of its next call of *operation*; the message is due again afterwards."""
        self.deliver.kill_in(self.vendor, operation, running)

    def calls(self, operation: str) -> int:
        """How often an operation was called."""
        return int(self.vendor.state()["counts"].get(operation, 0))

    def active(self) -> str:
        """The price book that the organization uses."""
        found = {known["id"]: known["customPriceBookId"] for known in self.vendor.state()["organizations"]}
        return str(found[AZURE_ORGANIZATION])

    def assert_switched(self, former: str) -> dict[str, Any]:
        """The last book was delivered whole, once, and every other trace at the vendor is named; its receipt."""
        receipt = self.aws.receipts("price-books")[-1]
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
        yield Relay.make(stack, vendor, built)


def a_delivered_book(relay: Relay, running: Emulated) -> str:
    """A first book is dropped, delivered and active."""
    relay.drop(sheet(20_000))
    relay.deliver.finish(running)
    return relay.active()


def killed_in(relay: Relay, operation: str, size_bytes: int = 60_000) -> str:
    """A second book is on its way, and its process is killed in the middle of *operation*; the former book."""
    with relay.deliver.process() as running:
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
        whole = function == "TelemetryCollectFunction"  # it answers nothing, and needs a bucket for anything else
        assert running.invoke({"Records": []}) == (None if whole else nothing), running.output()
        if function not in DELIVERING and not whole:
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
    relay.deliver.finish_afresh()
    receipt = relay.assert_switched(former)
    assert relay.calls("uploadPriceBookFile") == uploads + 1
    assert [unit["attempts"] for unit in receipt["units"] if unit["rows"]] == [2]
    assert len(relay.vendor.state()["price_books"]) == 2


def test_killed_before_a_created_book_was_remembered_it_names_the_orphan_and_creates_another(relay: Relay) -> None:
    former = killed_in(relay, "createPriceBook")
    [orphan] = [book["id"] for book in relay.vendor.state()["price_books"] if book["id"] != former]
    assert relay.active() == former
    relay.deliver.finish_afresh()
    receipt = relay.assert_switched(former)
    assert any("lost" in warning and orphan in warning for warning in receipt["warnings"])
    assert relay.calls("createPriceBook") == 3
    assert relay.calls("uploadPriceBookFile") == 2


def test_killed_between_polls_each_fresh_process_goes_on_where_the_last_one_stopped(relay: Relay) -> None:
    with relay.deliver.process() as running:
        former = a_delivered_book(relay, running)
    relay.drop(sheet(60_000))
    processes = 0
    over = False
    while not over:
        with relay.deliver.process() as running:
            over = relay.deliver.give(running, relay.deliver.message())
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
    relay.deliver.finish_afresh()
    relay.assert_switched(former)
    assert relay.calls("uploadPriceBookFile") == 2

"""The functions themselves, called as Lambda calls them: recorded events in, over moto and the vendor's stand-in.

What Lambda's poller does stands here: it takes messages, hands them over, deletes those that were not returned.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast
from urllib.parse import quote_plus, unquote_plus

import boto3
import pytest
from finops_relay.aws.wiring import Context, _boto_client, relay
from moto import mock_aws

from functions.billing_drop_prepare import app as billing_drop_prepare
from functions.cloudzero_deliver import app as cloudzero_deliver
from functions.config_check import app as config_check
from functions.custom_properties_prepare import app as custom_properties_prepare
from functions.infracost_deliver import app as infracost_deliver
from functions.price_book_prepare import app as price_book_prepare
from functions.release import app as release
from functions.tagging_policy_prepare import app as tagging_policy_prepare
from functions.telemetry_collect import app as telemetry_collect
from functions.telemetry_prepare import app as telemetry_prepare
from local.standins.cloudzero import KEY
from local.standins.cloudzero_account import Contract
from local.standins.infracost import AWS_ORGANIZATION, AZURE_ORGANIZATION, ENTERPRISE, TOKEN, InfracostStandIn
from tests.world.billing import PickyStandIn

ROOT = Path(__file__).resolve().parents[2]
REGION = "eu-west-1"
DROPS = "acme-finops-drops"
"""As in the recorded events."""
SPOOL = "acme-finops-spool"
PREPARE: ModuleType = price_book_prepare
DELIVER: ModuleType = infracost_deliver
CONFIG: ModuleType = config_check
BILLING: ModuleType = billing_drop_prepare
CLOUDZERO: ModuleType = cloudzero_deliver
RELEASE: ModuleType = release
TELEMETRY: ModuleType = telemetry_prepare
COLLECT: ModuleType = telemetry_collect
TAGS: ModuleType = tagging_policy_prepare
PROPERTIES: ModuleType = custom_properties_prepare
VENDORS = {
    PREPARE: DELIVER,
    TAGS: DELIVER,
    PROPERTIES: DELIVER,
    BILLING: CLOUDZERO,
    TELEMETRY: CLOUDZERO,
    RELEASE: CLOUDZERO,
}
"""Whose FIFO queue a function sends to."""
POINTERS = {DELIVER: "infracost_deliver/pointer", CLOUDZERO: "cloudzero_deliver/pointer"}
"""The recorded event of a function with a FIFO queue; S3 notifies the others."""


def recorded(name: str) -> dict[str, Any]:
    """Return a recorded event of ``events/``, such as ``price_book_prepare/s3_put``."""
    event: dict[str, Any] = json.loads((ROOT / "events" / f"{name}.json").read_text())
    return event


def body_of(name: str) -> str:
    """Return the body of the one message of a recorded event."""
    return str(recorded(name)["Records"][0]["body"])


@dataclass
class Lambdas:
    """The functions and what is around them."""

    vendor: InfracostStandIn
    cloudzero: PickyStandIn
    environment: pytest.MonkeyPatch
    s3: Any
    sqs: Any
    queues: dict[ModuleType, str]
    hidden: list[tuple[str, int]] = field(default_factory=list)
    """Each visibility that a function set: receipt handle, seconds."""
    sequencer: int = 0x0055AED6DCD90281E5
    remaining_ms: int = 900_000
    now_in: ModuleType | None = None

    # --- what AWS does ----------------------------------------------------------------------------------------------

    def put(self, key: str, content: bytes) -> dict[str, Any]:
        """Upload an object; return the notification that S3 sends of it, in the recorded shape."""
        put = self.s3.put_object(Bucket=DROPS, Key=key, Body=content)
        self.sequencer += 0x10
        notification: dict[str, Any] = json.loads(body_of("price_book_prepare/s3_put"))
        notification["Records"][0]["s3"]["object"] |= {
            "key": quote_plus(key, safe="/"),
            "size": len(content),
            "eTag": put["ETag"].strip('"'),
            "versionId": put["VersionId"],
            "sequencer": f"{self.sequencer:018X}",
        }
        return notification

    def replayed(self, name: str, content: bytes, month: str = "2026-02") -> dict[str, Any]:
        """Upload what a recorded event tells of; return the event's notification with the real version in it.

        Args:
            name: of the event.
            content: of the object.
            month: for the recorded one in the key of a billing drop, which is closed some day.
        """
        notification: dict[str, Any] = json.loads(body_of(name).replace("/2026-02/", f"/{month}/"))
        told = notification["Records"][0]["s3"]["object"]
        put = self.s3.put_object(Bucket=DROPS, Key=unquote_plus(told["key"]), Body=content)
        told |= {"versionId": put["VersionId"], "eTag": put["ETag"].strip('"'), "size": len(content)}
        return notification

    def send(self, function: ModuleType, *bodies: str | dict[str, Any]) -> None:
        """Put messages into a function's queue."""
        for body in bodies:
            text = body if isinstance(body, str) else json.dumps(body)
            more = {"MessageGroupId": "g", "MessageDeduplicationId": str(hash(text))} if function in POINTERS else {}
            self.sqs.send_message(QueueUrl=self.queues[function], MessageBody=text, **more)

    def take(self, function: ModuleType) -> dict[str, Any]:
        """Receive what is in a function's queue, as the event that Lambda makes of it."""
        template = recorded(POINTERS.get(function, "price_book_prepare/s3_put"))["Records"][0]
        found = self._received(function)
        while function is COLLECT and (more := self._received(function)):  # its poller gathers before it hands over
            found += more
        records = [
            template
            | {
                "messageId": message["MessageId"],
                "receiptHandle": message["ReceiptHandle"],
                "body": message["Body"],
                "attributes": template["attributes"] | message["Attributes"],
            }
            for message in found
        ]
        return {"Records": records}

    def _received(self, function: ModuleType) -> list[dict[str, Any]]:
        """Receive some messages of a function's queue."""
        found: list[dict[str, Any]] = self.sqs.receive_message(
            QueueUrl=self.queues[function], MaxNumberOfMessages=10, AttributeNames=["All"], VisibilityTimeout=5400
        ).get("Messages", [])
        return found

    def invoke(self, function: ModuleType, event: dict[str, Any]) -> list[str]:
        """Call a function's handler; delete the messages that it did not return, and return the ids of the others."""
        self._become(function)
        context = SimpleNamespace(aws_request_id="r", get_remaining_time_in_millis=lambda: self.remaining_ms)
        answer = function.lambda_handler(event, cast("Context", context))
        returned = answer["batchItemFailures"] if answer is not None else []
        failed = [failure["itemIdentifier"] for failure in returned]
        for record in event["Records"]:
            if record["messageId"] not in failed:
                self.sqs.delete_message(QueueUrl=self.queues[function], ReceiptHandle=record["receiptHandle"])
        return failed

    def run(self, function: ModuleType) -> list[str]:
        """Let a function take what is in its queue; return the ids of the messages that it gave back."""
        event = self.take(function)
        return self.invoke(function, event) if event["Records"] else []

    def take_all(self, function: ModuleType) -> list[dict[str, Any]]:
        """Let a function take all that is in its queue; return the records that it was given."""
        records: list[dict[str, Any]] = []
        while (event := self.take(function))["Records"]:
            self.invoke(function, event)
            records += event["Records"]
        return records

    def reveal(self, function: ModuleType, handle: str) -> None:
        """Let the time pass for which a message is hidden."""
        self.sqs.change_message_visibility(QueueUrl=self.queues[function], ReceiptHandle=handle, VisibilityTimeout=0)

    def _become(self, function: ModuleType) -> None:
        """Begin a process of *function*, unless the present one is of it."""
        if self.now_in is function:
            return
        self.close()
        name = (function.__file__ or "").split("/")[-2].replace("_", "-")
        variables = {"POWERTOOLS_SERVICE_NAME": name, "QUEUE_URL": self.queues[function]}
        variables["DELIVER_QUEUE_URL"] = self.queues[VENDORS[function]] if function in VENDORS else ""
        asked = {CLOUDZERO: BILLING, TAGS: TAGS, PROPERTIES: PROPERTIES}
        variables["PREPARE_QUEUE_URL"] = self.queues[asked[function]] if function in asked else ""
        variables["INFRACOST_DELIVER_QUEUE_URL"] = self.queues[DELIVER] if function is RELEASE else ""
        variables["TELEMETRY_PREPARE_QUEUE_URL"] = self.queues[TELEMETRY] if function is CLOUDZERO else ""
        for key, value in variables.items():
            self.environment.setenv(key, value)
        self.now_in = function

    def close(self) -> None:
        """End the present process."""
        if self.now_in is not None:
            wire = vars(relay()).get("_wire")
            if wire is not None:
                wire.close()
        relay.cache_clear()
        self.now_in = None

    # --- what can be seen -------------------------------------------------------------------------------------------

    def keys(self, prefix: str = "") -> list[str]:
        """Return the keys in the drops bucket."""
        return [entry["Key"] for entry in self.s3.list_objects_v2(Bucket=DROPS, Prefix=prefix).get("Contents", [])]

    def content(self, key: str) -> bytes:
        """Return an object's bytes."""
        body: bytes = self.s3.get_object(Bucket=DROPS, Key=key)["Body"].read()
        return body

    def receipts(self) -> dict[str, dict[str, Any]]:
        """Return every receipt by the key of what was dropped; each keeps the law."""
        found = {}
        for key in self.keys("receipts/"):
            receipt = json.loads(self.content(key))
            rows = receipt["rows"]
            assert rows["in"] == rows["accepted"] + rows["filtered"] + rows["rejected"] + rows["owed"]
            found[receipt["source"]["key"]] = receipt
        return found

    def active(self, organization: str) -> dict[str, Any]:
        """Return the book that an organization uses at the vendor, with its files."""
        state = self.vendor.state()
        assert state["violations"] == []
        users = {known["id"]: known["customPriceBookId"] for known in state["organizations"]}
        return next((book for book in state["price_books"] if book["id"] == users[organization]), {})

    def left(self, function: ModuleType) -> int:
        """Return how many messages a queue holds, hidden ones included."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.sqs.get_queue_attributes(QueueUrl=self.queues[function], AttributeNames=names)["Attributes"]
        return sum(int(found[name]) for name in names)


@contextmanager
def lambdas(
    environment: pytest.MonkeyPatch,
    *,
    token: str = TOKEN,
    contract: Contract = "live",
    running: PickyStandIn | None = None,
    infracost: InfracostStandIn | None = None,
    **behaviour: Any,  # noqa: ANN401 -- the stand-in's
) -> Iterator[Lambdas]:
    """Set everything up, with the settings that the template gives; *contract* is CloudZero's.

    To start and stop a stand-in takes longer than many a test. One that runs already, *running* or *infracost*, forgets
    all that it holds.
    """
    for standin in (running, infracost):
        if standin is not None:
            standin.reset()
    with (
        mock_aws(),
        nullcontext(infracost) if infracost else InfracostStandIn(**{"polls_needed": 1, **behaviour}) as vendor,
        PickyStandIn(contract) if running is None else nullcontext(running) as cloudzero,
    ):
        variables = {
            "AWS_DEFAULT_REGION": REGION,
            "POWERTOOLS_METRICS_NAMESPACE": "FinOpsRelay",
            "LEDGER_TABLE": "ledger",
            "DROPS_BUCKET": DROPS,
            "SPOOL_BUCKET": SPOOL,
            "BUS_NAME": "deliveries",
            "CLOUDZERO_API_URL": cloudzero.api_url,
            "CLOUDZERO_CONTRACT": contract,
            "INFRACOST_API_URL": vendor.api_url,
            "INFRACOST_ENTERPRISE_ID": ENTERPRISE,
            "INFRACOST_SLUG": "acme",
            "INFRACOST_AWS_ORGANIZATION_ID": AWS_ORGANIZATION,
            "INFRACOST_AZURE_ORGANIZATION_ID": AZURE_ORGANIZATION,
        }
        for key, value in variables.items():
            environment.setenv(key, value)
        _boto_client.cache_clear()
        relay.cache_clear()
        s3, sqs = _boto_client("s3"), _boto_client("sqs")
        for bucket in (DROPS, SPOOL):
            s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
            s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        boto3.client("dynamodb", REGION).create_table(
            TableName="ledger",
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        )
        boto3.client("events", REGION).create_event_bus(Name="deliveries")
        if token:
            boto3.client("secretsmanager", REGION).create_secret(Name="infracost/default", SecretString=token)
            boto3.client("secretsmanager", REGION).create_secret(Name="cloudzero", SecretString=KEY)
        queues = {
            PREPARE: sqs.create_queue(QueueName="price-book-prepare")["QueueUrl"],
            CONFIG: sqs.create_queue(QueueName="config-check")["QueueUrl"],
            DELIVER: sqs.create_queue(QueueName="infracost-deliver.fifo", Attributes={"FifoQueue": "true"})["QueueUrl"],
            BILLING: sqs.create_queue(QueueName="billing-drop-prepare")["QueueUrl"],
            TELEMETRY: sqs.create_queue(QueueName="telemetry-prepare")["QueueUrl"],
            COLLECT: sqs.create_queue(QueueName="telemetry-collect")["QueueUrl"],
            TAGS: sqs.create_queue(QueueName="tagging-policy-prepare")["QueueUrl"],
            PROPERTIES: sqs.create_queue(QueueName="custom-properties-prepare")["QueueUrl"],
            RELEASE: sqs.create_queue(QueueName="release")["QueueUrl"],
            CLOUDZERO: sqs.create_queue(QueueName="cloudzero-deliver.fifo", Attributes={"FifoQueue": "true"})[
                "QueueUrl"
            ],
        }
        found = Lambdas(vendor, cloudzero, environment, s3, sqs, queues)

        def note(params: dict[str, Any], **_: object) -> None:
            found.hidden.append((params["ReceiptHandle"], params["VisibilityTimeout"]))

        sqs.meta.events.register("provide-client-params.sqs.ChangeMessageVisibility", note)
        try:
            yield found
        finally:
            found.close()
            _boto_client.cache_clear()

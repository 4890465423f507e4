"""The functions as Lambda calls them: batches, waits, quarantine, and what must never be seen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from botocore.exceptions import EndpointConnectionError
from finops_relay.aws.logs import logger
from finops_relay.aws.wiring import _boto_client
from finops_relay.delivery.ledger import MAX_ATTEMPTS

from local.standins.infracost import AWS_ORGANIZATION, TOKEN
from tests.world.billing import PickyStandIn
from tests.world.lambdas import CONFIG, DELIVER, PREPARE, Lambdas, body_of, lambdas
from tests.world.sheets import aws_sheet

FOLDER = "incoming/price-books/aws/"


@pytest.fixture(scope="module")
def cloudzero() -> Iterator[PickyStandIn]:
    with PickyStandIn("live") as found:
        yield found


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch, cloudzero: PickyStandIn) -> Iterator[Lambdas]:
    with lambdas(monkeypatch, running=cloudzero) as found:
        yield found


class Plain(yaml.SafeLoader):
    """Reads the template with CloudFormation's tags as plain values."""


def _plain(loader: yaml.SafeLoader, _: str, node: yaml.Node) -> Any:  # noqa: ANN401 -- whatever stands there
    if isinstance(node, yaml.ScalarNode):
        return node.value
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    assert isinstance(node, yaml.MappingNode)
    return loader.construct_mapping(node, deep=True)


Plain.add_multi_constructor("!", _plain)


@pytest.fixture(scope="module")
def template() -> dict[str, Any]:
    """The resources of template.yaml."""
    text = (Path(__file__).resolve().parents[2] / "template.yaml").read_text()
    found: dict[str, Any] = yaml.load(text, Loader=Plain)["Resources"]  # noqa: S506 -- a SafeLoader
    return found


def forbid(cloud: Lambdas, key: str) -> None:
    """Let S3 answer every read of *key* as it does when a policy denies it; moto checks no policies."""

    def answer(params: dict[str, Any], **_: object) -> tuple[Any, dict[str, Any]] | None:
        if not params["url_path"].endswith(key.rpartition("/")[2]):
            return None
        refusal = {"Error": {"Code": "403", "Message": "Forbidden"}, "ResponseMetadata": {"HTTPStatusCode": 403}}
        return SimpleNamespace(status_code=403), refusal

    cloud.s3.meta.events.register("before-call.s3.HeadObject", answer, unique_id=key)


def test_a_bad_record_of_a_batch_holds_up_none_of_its_neighbours(cloud: Lambdas) -> None:
    """Row 1: bad JSON and a vanished object go to quarantine, a forbidden one is given back, the others go on."""
    good = [cloud.put(f"{FOLDER}good_{number}.csv", aws_sheet(3, f"0.{number + 1}")) for number in range(2)]
    gone = cloud.put(f"{FOLDER}gone.csv", aws_sheet(4))
    version = gone["Records"][0]["s3"]["object"]["versionId"]
    cloud.s3.delete_object(Bucket="acme-finops-drops", Key=f"{FOLDER}gone.csv", VersionId=version)
    forbidden = cloud.put(f"{FOLDER}forbidden.csv", aws_sheet(5))
    forbid(cloud, f"{FOLDER}forbidden.csv")
    bad = body_of("price_book_prepare/not_json")
    cloud.send(PREPARE, good[0], bad, gone, forbidden, good[1])

    event = cloud.take(PREPARE)
    returned = cloud.invoke(PREPARE, event)

    by_body = {record["body"]: record for record in event["Records"]}
    assert len(by_body) == 5
    waiting = by_body[json.dumps(forbidden)]
    assert returned == [waiting["messageId"]]
    assert [handle for handle, _ in cloud.hidden] == [waiting["receiptHandle"]]
    assert 15 <= cloud.hidden[0][1] <= 30
    name = by_body[bad]["messageId"]
    assert cloud.content(f"quarantine/{name}/message") == bad.encode()
    assert "not JSON" in json.loads(cloud.content(f"quarantine/{name}/reason.json"))["reason"]
    receipts = cloud.receipts()
    assert receipts[f"{FOLDER}gone.csv"]["outcome"] == "failed"
    assert receipts[f"{FOLDER}forbidden.csv"]["outcome"] == "pending"
    assert "may not be read" in receipts[f"{FOLDER}forbidden.csv"]["reason"]
    for _ in range(3):
        assert cloud.run(DELIVER) == []
    receipts = cloud.receipts()
    # The older of the two good ones was overtaken by its neighbour before its turn came: both are for one target.
    assert receipts[f"{FOLDER}good_0.csv"]["outcome"] == "superseded"
    assert receipts[f"{FOLDER}good_1.csv"]["outcome"] == "delivered"
    assert receipts[f"{FOLDER}good_1.csv"]["rows"] == {"in": 3, "accepted": 3, "filtered": 0, "rejected": 0, "owed": 0}
    assert [file["rows"] for file in cloud.active(AWS_ORGANIZATION)["files"]] == [3]
    assert cloud.left(PREPARE) == 1
    assert cloud.left(DELIVER) == 0


def test_what_waits_is_given_back_hidden_for_as_long_as_the_vendor_asked(cloud: Lambdas) -> None:
    """Row 8: a 429 that names an hour hides the message for an hour, sleeps nowhere, and costs no try."""
    fault = {"kind": "status", "status": 429, "headers": {"Retry-After": "3600"}}
    cloud.vendor.faults.add([{"operation": "createPriceBook", "fault": fault}])
    cloud.send(PREPARE, cloud.put(f"{FOLDER}a.csv", aws_sheet(3)))
    assert cloud.run(PREPARE) == []

    event = cloud.take(DELIVER)
    assert cloud.invoke(DELIVER, event) == [event["Records"][0]["messageId"]]

    assert cloud.hidden == [(event["Records"][0]["receiptHandle"], 3600)]
    receipt = cloud.receipts()[f"{FOLDER}a.csv"]
    assert receipt["rows"] == {"in": 3, "accepted": 0, "filtered": 0, "rejected": 0, "owed": 3}
    assert receipt["reason"].startswith("waits: ")
    cloud.reveal(DELIVER, event["Records"][0]["receiptHandle"])
    assert cloud.run(DELIVER) == []
    receipt = cloud.receipts()[f"{FOLDER}a.csv"]
    assert receipt["outcome"] == "delivered"
    assert receipt["rows"] == {"in": 3, "accepted": 3, "filtered": 0, "rejected": 0, "owed": 0}
    assert cloud.vendor.state()["counts"]["createPriceBook"] == 2
    assert len(cloud.vendor.state()["price_books"]) == 1


def test_the_deliveries_of_a_target_stay_in_order_while_the_first_one_waits(cloud: Lambdas) -> None:
    """Row 15: in a FIFO batch nothing is taken past a message that waits."""
    cloud.vendor.faults.add(
        [{"operation": "createPriceBook", "fault": {"kind": "status", "status": 429, "headers": {"Retry-After": "60"}}}]
    )
    for key in ("aws/a.csv", "azure/b.csv"):
        cloud.send(PREPARE, cloud.put(f"incoming/price-books/{key}", aws_sheet(3)))
    cloud.send(PREPARE, cloud.put(f"{FOLDER}c.csv", aws_sheet(4)))
    assert cloud.run(PREPARE) == []
    first = cloud.take(DELIVER)
    assert len(first["Records"]) == 2  # the Azure one was rejected: it is an AWS sheet
    returned = cloud.invoke(DELIVER, first)
    receipts = cloud.receipts()
    assert receipts["incoming/price-books/azure/b.csv"]["outcome"] == "rejected"
    assert receipts[f"{FOLDER}a.csv"]["outcome"] == "superseded"
    # The second message now is the newest; it met the fault, and waits.
    assert returned == [first["Records"][1]["messageId"]]
    assert receipts[f"{FOLDER}c.csv"]["rows"]["owed"] == 4


def test_the_test_event_of_s3_is_acknowledged_without_a_receipt(cloud: Lambdas) -> None:
    """Row 28: what S3 sends when a notification is set up leaves nothing behind."""
    cloud.send(PREPARE, body_of("price_book_prepare/s3_test_event"))
    cloud.send(CONFIG, body_of("price_book_prepare/s3_test_event"))
    assert cloud.run(PREPARE) == []
    assert cloud.run(CONFIG) == []
    assert cloud.keys() == []
    assert cloud.left(PREPARE) == cloud.left(CONFIG) == 0


def test_a_folder_made_in_a_console_is_nothing_to_do(cloud: Lambdas) -> None:
    """Row 28: the empty object that a console makes for a folder makes no receipt."""
    cloud.send(PREPARE, cloud.replayed("price_book_prepare/s3_put_folder", b""))
    assert cloud.run(PREPARE) == []
    assert cloud.keys() == ["incoming/price-books/aws/2026-03/"]


def test_the_recorded_put_is_delivered(cloud: Lambdas) -> None:
    """Row 4: the event in its recorded shape leads to one delivery, and a second copy of it to nothing more."""
    notification = cloud.replayed("price_book_prepare/s3_put", aws_sheet(2))
    cloud.send(PREPARE, notification, json.dumps(notification) + " ")
    assert cloud.run(PREPARE) == []
    assert cloud.run(DELIVER) == []
    (receipt,) = cloud.receipts().values()
    assert receipt["outcome"] == "delivered"
    assert receipt["rows"]["accepted"] == 2
    assert receipt["source"]["sequencer"] == "0055AED6DCD90281E5"
    assert cloud.vendor.state()["counts"]["createPriceBook"] == 1


def test_a_key_with_spaces_a_plus_and_letters_beyond_ascii_is_decoded(cloud: Lambdas) -> None:
    """Row 1: S3 encodes keys in its events as a form would; the receipt shows the key as it was dropped."""
    key = f"{FOLDER}Preise 2026 + Rabatt ü(1).csv"
    cloud.send(PREPARE, cloud.replayed("price_book_prepare/s3_put_odd_key", aws_sheet(2)))
    assert cloud.run(PREPARE) == []
    assert cloud.run(DELIVER) == []
    assert cloud.receipts()[key]["outcome"] == "delivered"
    assert [file["rows"] for file in cloud.active(AWS_ORGANIZATION)["files"]] == [2]


def test_the_scheduled_sweep_is_understood(cloud: Lambdas) -> None:
    """Row 1: the event of the schedule looks for folders, and finds none."""
    cloud.send(PREPARE, body_of("price_book_prepare/scheduled_sweep"))
    assert cloud.run(PREPARE) == []
    assert cloud.receipts() == {}


def test_a_pointer_that_leads_nowhere_is_quarantined_with_its_exact_bytes(cloud: Lambdas) -> None:
    """Row 23: a message that no try will ever make readable is put aside at once, with reason and next command."""
    unknown, strange = body_of("infracost_deliver/pointer"), "\u2028not a pointer \U0001f4a3"
    cloud.send(DELIVER, unknown, strange)
    ids = {record["body"]: record["messageId"] for record in cloud.take_all(DELIVER)}
    assert cloud.left(DELIVER) == 0
    for body, name in ids.items():
        assert cloud.content(f"quarantine/{name}/message") == body.encode()
        listing = json.loads(cloud.content(f"quarantine/{name}/reason.json"))
        assert "delivery" in listing["reason"]
        assert listing["next_command"]
    assert len(ids) == 2


def test_a_drop_that_kills_every_preparation_is_quarantined_with_its_exact_bytes(cloud: Lambdas) -> None:
    """Row 23: after five tries without a word the drop is put aside, bytes untouched, with what to do next."""
    content = b"\x00poison\xff" + aws_sheet(3)
    notification = cloud.put(f"{FOLDER}poison.csv", content)
    cloud.send(PREPARE, notification)

    def die(**_: object) -> None:
        raise MemoryError

    name = cloud.s3.meta.events
    name.register("before-parameter-build.s3.HeadObject", die, unique_id="poison")
    event = cloud.take(PREPARE)
    for attempt in range(MAX_ATTEMPTS):
        assert len(cloud.invoke(PREPARE, event)) == 1, attempt
    name.unregister("before-parameter-build.s3.HeadObject", unique_id="poison")
    assert cloud.invoke(PREPARE, event) == []

    receipt = cloud.receipts()[f"{FOLDER}poison.csv"]
    assert receipt["outcome"] == "failed"
    assert "5 tries ended without a word" in receipt["reason"]
    assert receipt["next_command"].startswith("aws s3api copy-object ")
    folder = f"quarantine/{receipt['id']}/"
    assert cloud.content(f"{folder}poison.csv") == content
    listing = json.loads(cloud.content(f"{folder}reason.json"))
    assert listing["next_command"] == receipt["next_command"]
    assert listing["reason"] == receipt["reason"]
    assert cloud.left(PREPARE) == 0


def test_a_message_moved_back_from_the_dead_letters_is_delivered_once(cloud: Lambdas) -> None:
    """Row 24: a message redriven after its delivery went on, or ended, neither loses a row nor doubles one."""
    cloud.send(PREPARE, cloud.put(f"{FOLDER}a.csv", aws_sheet(3)))
    cloud.run(PREPARE)
    event = cloud.take(DELIVER)
    body = event["Records"][0]["body"]
    cloud.sqs.delete_message(  # it died: the queue has moved it away
        QueueUrl=cloud.queues[DELIVER], ReceiptHandle=event["Records"][0]["receiptHandle"]
    )
    assert cloud.receipts()[f"{FOLDER}a.csv"]["rows"]["owed"] == 3
    cloud.send(DELIVER, body)
    assert cloud.run(DELIVER) == []
    before = cloud.vendor.state()["counts"]
    cloud.send(DELIVER, f"{body} ")
    assert cloud.run(DELIVER) == []
    assert cloud.vendor.state()["counts"] == before
    receipt = cloud.receipts()[f"{FOLDER}a.csv"]
    assert receipt["outcome"] == "delivered"
    assert receipt["rows"]["accepted"] == 3
    assert before["createPriceBook"] == before["ingestPriceBook"] == before["updateOrganization"] == 1


def test_nothing_secret_is_ever_written_anywhere(
    cloud: Lambdas, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Row 29: token and upload addresses stand in no log, receipt, quarantine listing or event, whatever goes wrong."""
    echo = {
        "message": f"bad token Bearer {TOKEN} for https://s3.amazonaws.com/x?X-Amz-Signature=abc123&X-Amz-Credential=AKIAX"
    }
    cloud.vendor.faults.add(
        [
            {"operation": "createPriceBook", "fault": {"kind": "status", "status": 401, "body": echo}},
            {"operation": "uploadPriceBookFile", "fault": {"kind": "status", "status": 403, "body": echo}},
            {"operation": "ingestPriceBook", "fault": {"kind": "status", "status": 500, "body": echo}},
            {"operation": "updateOrganization", "fault": {"kind": "status", "status": 400, "body": echo}},
        ]
    )
    announced: list[str] = []
    _boto_client("events").meta.events.register(
        "provide-client-params.events.PutEvents", lambda params, **_: announced.append(json.dumps(params))
    )
    cloud.send(PREPARE, cloud.put(f"{FOLDER}a.csv", aws_sheet(3)))
    cloud.run(PREPARE)
    told = []
    for _ in range(6):
        event = cloud.take(DELIVER)
        for record in event["Records"]:
            cloud.invoke(DELIVER, event)
            if cloud.left(DELIVER):
                cloud.reveal(DELIVER, record["receiptHandle"])
        told += [receipt["reason"] for receipt in cloud.receipts().values()]
    receipt = cloud.receipts()[f"{FOLDER}a.csv"]
    assert receipt["outcome"] == "failed"  # the only organization refused the book
    assert any("REDACTED" in reason for reason in told)
    written = capsys.readouterr()
    seen = [written.out, written.err, caplog.text, *announced, *map(repr, caplog.records)]
    seen += [cloud.content(key).decode() for key in cloud.keys("") if not key.startswith("incoming/")]
    seen += [str(getattr(log, "__dict__", "")) for log in caplog.records]
    assert len(announced) == 1
    seen += [logger.registered_formatter.format(record) for record in caplog.records]  # as CloudWatch gets them
    assert any("vendor call" in text and "{preSignedUrl}" in text for text in seen)
    for text in seen:
        assert TOKEN not in text
        assert "X-Amz-Signature=" not in text.replace("X-Amz-Signature=REDACTED", "")
        assert "X-Amz-Credential=" not in text.replace("X-Amz-Credential=REDACTED", "")
        assert "AKIAX" not in text


def test_a_good_relay_yaml_is_in_force_for_what_comes_after(cloud: Lambdas) -> None:
    """Row 27: each delivery records the version of the configuration that it used."""
    first = cloud.replayed("config_check/s3_put", b"version: 1\nprice_books: {aws: {activate: false}}\n")
    cloud.send(CONFIG, first)
    assert cloud.run(CONFIG) == []
    assert cloud.receipts()["config/relay.yaml"]["outcome"] == "delivered"
    cloud.send(PREPARE, cloud.put(f"{FOLDER}a.csv", aws_sheet(3)))
    cloud.run(PREPARE)
    cloud.run(DELIVER)
    receipt = cloud.receipts()[f"{FOLDER}a.csv"]
    assert receipt["outcome"] == "delivered"
    assert receipt["versions"]["config"] == first["Records"][0]["s3"]["object"]["versionId"]
    assert cloud.active(AWS_ORGANIZATION) == {}


def written_keys(cloud: Lambdas) -> set[str]:
    """Return the keys in the drops bucket that nobody dropped."""
    return {key for key in cloud.keys("") if not key.startswith(("incoming/", "plan/", "config/"))}


def test_nothing_that_we_write_starts_us_again(cloud: Lambdas, template: dict[str, Any]) -> None:
    """Row 28: no key that a function writes is below a prefix that notifies one; told anyway, nothing is sent."""
    watched = [
        rule["Value"]
        for entry in template["DropsBucket"]["Properties"]["NotificationConfiguration"]["QueueConfigurations"]
        for rule in entry["Filter"]["S3Key"]["Rules"]
        if rule["Name"] == "prefix"
    ]
    assert sorted(watched) == [
        "config/",
        "incoming/billing/",
        "incoming/custom-properties/",
        "incoming/price-books/",
        "incoming/release/",
        "incoming/tagging-policies/",
        "incoming/telemetry/",
        "plan/billing/",
        "plan/custom-properties/",
        "plan/price-books/",
        "plan/tagging-policies/",
        "plan/telemetry/",
    ]
    cloud.send(PREPARE, cloud.put(f"{FOLDER}some_bad.csv", aws_sheet(300, bad=2)))
    cloud.send(PREPARE, cloud.put(f"{FOLDER}all_bad.csv", aws_sheet(1, bad=2)), body_of("price_book_prepare/not_json"))
    gone = cloud.put(f"{FOLDER}gone.csv", aws_sheet(4))
    cloud.s3.delete_object(
        Bucket="acme-finops-drops",
        Key=f"{FOLDER}gone.csv",
        VersionId=gone["Records"][0]["s3"]["object"]["versionId"],
    )
    cloud.send(PREPARE, gone)
    cloud.send(CONFIG, cloud.put("config/relay.yaml", b"version: 2\n"))
    for function in (PREPARE, CONFIG, DELIVER):
        assert cloud.run(function) == []
    ours = written_keys(cloud)
    assert {key.partition("/")[0] for key in ours} == {"receipts", "rejected", "quarantine"}
    assert not [key for key in ours for prefix in watched if key.startswith(prefix)]
    before = cloud.vendor.state()["counts"]
    for key in sorted(ours):
        cloud.send(PREPARE, cloud.put(key, cloud.content(key)))
    while cloud.left(PREPARE):
        assert cloud.run(PREPARE) == []
    cloud.run(DELIVER)
    assert cloud.vendor.state()["counts"] == before
    assert cloud.receipts()[f"{FOLDER}some_bad.csv"]["outcome"] == "partly_delivered"


def test_every_dead_letter_queue_has_an_alarm_on_depth_and_one_on_age(template: dict[str, Any]) -> None:
    """Row 24: dead letters ring when there are any, and ring again long before they expire."""
    alarms = [found["Properties"] for found in template.values() if found["Type"] == "AWS::CloudWatch::Alarm"]
    dead = {
        found["Properties"]["RedrivePolicy"]["deadLetterTargetArn"].partition(".")[0]
        for found in template.values()
        if found["Type"] == "AWS::SQS::Queue" and "RedrivePolicy" in found["Properties"]
    }
    assert len(dead) == 10
    for queue in dead:
        watching = {
            alarm["MetricName"]: alarm
            for alarm in alarms
            if f"{queue}.QueueName" in json.dumps(alarm.get("Dimensions"))
        }
        assert watching["ApproximateNumberOfMessagesVisible"]["Threshold"] == 1
        kept = template[queue]["Properties"]["MessageRetentionPeriod"]
        assert watching["ApproximateAgeOfOldestMessage"]["Threshold"] <= kept / 2
        for alarm in watching.values():
            assert alarm["AlarmActions"]


def test_trouble_of_aws_itself_is_waited_out_and_is_no_poison(cloud: Lambdas) -> None:
    """Row 9: a store that fails for long is not a drop that kills its function; all goes on once it is back."""
    cloud.send(PREPARE, cloud.put(f"{FOLDER}a.csv", aws_sheet(3)))

    def fail(**_: object) -> None:
        raise EndpointConnectionError(endpoint_url="https://s3")

    name = cloud.s3.meta.events
    name.register("before-parameter-build.s3.HeadObject", fail, unique_id="outage")
    event = cloud.take(PREPARE)
    for _ in range(3 * MAX_ATTEMPTS):
        assert len(cloud.invoke(PREPARE, event)) == 1
    waiting = cloud.receipts()[f"{FOLDER}a.csv"]
    assert (waiting["outcome"], "EndpointConnectionError" in waiting["reason"]) == ("pending", True)
    name.unregister("before-parameter-build.s3.HeadObject", unique_id="outage")
    assert cloud.invoke(PREPARE, event) == []
    cloud.run(DELIVER)
    rows = cloud.receipts()[f"{FOLDER}a.csv"]["rows"]
    assert (rows["in"], rows["accepted"]) == (3, 3)

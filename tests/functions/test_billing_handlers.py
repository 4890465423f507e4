"""The functions of billing drops as Lambda calls them: recorded events in, receipts and the vendor's state out."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from finops_relay.aws.logs import logger
from finops_relay.aws.wiring import _boto_client
from finops_relay.delivery.ledger import MAX_ATTEMPTS

from local.standins.cloudzero import CONNECTION, KEY
from local.standins.infracost import InfracostStandIn
from tests.world.billing import MONTH, POISON, SEND, PickyStandIn, cbf
from tests.world.lambdas import BILLING, CLOUDZERO, DROPS, RELEASE, Lambdas, body_of, lambdas, recorded

A, B = ("01T05", "1.5", "EC2"), ("01T06", "2", "S3")
EVENTS = Path(__file__).resolve().parents[2] / "events"


@pytest.fixture(scope="module")
def vendors() -> Iterator[dict[str, PickyStandIn]]:
    with PickyStandIn("live") as live, PickyStandIn("openapi") as openapi:
        yield {"live": live, "openapi": openapi}


@pytest.fixture(scope="module")
def infracost() -> Iterator[InfracostStandIn]:
    with InfracostStandIn() as found:
        yield found


@pytest.fixture(params=["live", "openapi"])
def cloud(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    vendors: dict[str, PickyStandIn],
    infracost: InfracostStandIn,
) -> Iterator[Lambdas]:
    contract = request.param
    with lambdas(monkeypatch, contract=contract, running=vendors[contract], infracost=infracost) as found:
        yield found


@pytest.fixture
def live(
    monkeypatch: pytest.MonkeyPatch, vendors: dict[str, PickyStandIn], infracost: InfracostStandIn
) -> Iterator[Lambdas]:
    with lambdas(monkeypatch, running=vendors["live"], infracost=infracost) as found:
        yield found


def this_month() -> str:
    """Return the month that the functions' clock is in."""
    return f"{datetime.now(UTC):%Y-%m}"


def costs(*rows: tuple[str, str, str]) -> bytes:
    """Return a CBF file for this month."""
    return cbf(*rows).replace(MONTH.encode(), this_month().encode())


def folder() -> str:
    """Return where files for this month are dropped."""
    return f"incoming/billing/{CONNECTION}/{this_month()}/"


def held(cloud: Lambdas, month: str = "") -> list[str]:
    """Return the cost of each row that the vendor holds of a month, and check that nothing broke its contract."""
    state = cloud.cloudzero.state()
    assert state["violations"] == []
    assert state["overlaps"] == []
    rows = state["drops"].get(CONNECTION, {}).get(month or this_month(), {}).get("rows", [])
    return [row.get("cost/cost", row.get("cost")) for row in rows]


def sends(cloud: Lambdas) -> int:
    """Return how often a body was sent."""
    return int(cloud.cloudzero.state()["counts"].get(SEND, 0))


def put(cloud: Lambdas, name: str, *rows: tuple[str, str, str]) -> str:
    """Drop a file for this month and tell the function; return its key."""
    cloud.send(BILLING, cloud.put(f"{folder()}{name}", costs(*rows)))
    return f"{folder()}{name}"


def again(cloud: Lambdas, function: ModuleType, event: dict[str, Any]) -> list[str]:
    """Let the time pass for which the messages of *event* are hidden, and take the function's queue again."""
    for record in event["Records"]:
        cloud.reveal(function, record["receiptHandle"])
    return cloud.run(function)


# --- recorded events --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "outcome", "mode"),
    [
        ("s3_put", "delivered", "replace_hourly"),
        ("s3_put_odd_key", "delivered", "replace_hourly"),
        ("s3_put_month", "delivered", "replace_drop"),
        ("s3_put_plan", "unchanged", ""),
    ],
)
def test_the_recorded_put_of_costs_is_delivered(cloud: Lambdas, name: str, outcome: str, mode: str) -> None:
    """Row 1, Row 4: each recorded event leads to one delivery of its decoded key, and its copy to nothing more."""
    notification = cloud.replayed(f"billing_drop_prepare/{name}", costs(A, B), this_month())
    cloud.send(BILLING, notification, json.dumps(notification) + " ")
    assert cloud.run(BILLING) == []
    assert cloud.run(CLOUDZERO) == []
    (receipt,) = cloud.receipts().values()
    assert receipt["outcome"] == outcome, receipt["reason"]
    assert receipt["source"]["sequencer"] == notification["Records"][0]["s3"]["object"]["sequencer"]
    if name == "s3_put_odd_key":
        assert receipt["source"]["key"] == f"{folder()}Kosten 2026 + Gutschrift ü(1).csv"
    modes = [post["mode"] for post in cloud.cloudzero.state()["posts"]]
    live = cloud.cloudzero.contract == "live"
    assert modes == ([mode if live else "append"] if mode else [])
    assert held(cloud) == (["1.5", "2"] if mode else [])
    assert cloud.left(BILLING) == cloud.left(CLOUDZERO) == 0


def test_the_recorded_marker_delivers_its_folder(live: Lambdas) -> None:
    """Row 4: a part's own event makes no receipt; the marker's does."""
    part = live.put(f"{folder()}month/export/a.csv", costs(A, B))
    live.send(BILLING, part)
    assert live.run(BILLING) == []
    assert live.receipts() == {}
    live.send(BILLING, live.replayed("billing_drop_prepare/s3_multipart", b"", this_month()))
    live.run(BILLING)
    live.run(CLOUDZERO)
    assert live.receipts()[f"{folder()}month/export/_SUCCESS"]["outcome"] == "delivered"
    assert held(live) == ["1.5", "2"]


def test_every_recorded_event_of_billing_drops_is_used_by_a_test() -> None:
    """Row 1: an event that is recorded and that no test replays would be a promise that nobody keeps."""
    text = Path(__file__).read_text()
    for folder_of in ("billing_drop_prepare", "cloudzero_deliver", "release"):
        for path in sorted((EVENTS / folder_of).glob("*.json")):
            assert f"{folder_of}/{path.stem}" in text or f'"{path.stem}"' in text, path


def test_the_test_event_and_the_sweep_leave_nothing_behind(live: Lambdas) -> None:
    """Row 28: what S3 sends when a notification is set up, and a schedule that finds no folder, make no receipt."""
    live.send(BILLING, body_of("billing_drop_prepare/s3_test_event"), body_of("billing_drop_prepare/scheduled_sweep"))
    live.send(RELEASE, body_of("billing_drop_prepare/s3_test_event"), body_of("billing_drop_prepare/scheduled_sweep"))
    assert live.run(BILLING) == []
    assert live.run(RELEASE) == []
    assert live.keys() == []
    assert live.left(BILLING) == live.left(RELEASE) == 0


def test_a_bad_record_of_a_batch_of_costs_holds_up_none_of_its_neighbours(live: Lambdas) -> None:
    """Row 1: bad JSON and a vanished object go to quarantine; the files beside them are delivered."""
    good = live.put(f"{folder()}good.csv", costs(A))
    gone = live.put(f"{folder()}gone.csv", costs(B))
    version = gone["Records"][0]["s3"]["object"]["versionId"]
    live.s3.delete_object(Bucket=DROPS, Key=f"{folder()}gone.csv", VersionId=version)
    bad = body_of("billing_drop_prepare/not_json")
    live.send(BILLING, bad, gone, good)
    event = live.take(BILLING)
    assert live.invoke(BILLING, event) == []
    name = next(record["messageId"] for record in event["Records"] if record["body"] == bad)
    assert live.content(f"quarantine/{name}/message") == bad.encode()
    assert live.run(CLOUDZERO) == []
    receipts = live.receipts()
    assert receipts[f"{folder()}gone.csv"]["outcome"] == "failed"
    assert receipts[f"{folder()}good.csv"]["outcome"] == "delivered"
    assert held(live) == ["1.5"]


@pytest.mark.parametrize(
    ("function", "body"),
    [
        (CLOUDZERO, body_of("cloudzero_deliver/pointer")),
        (CLOUDZERO, body_of("cloudzero_deliver/unknown_kind")),
        (CLOUDZERO, "\u2028not a pointer \U0001f4a3"),
        (RELEASE, body_of("release/not_json")),
    ],
)
def test_a_message_that_leads_nowhere_is_quarantined_with_its_exact_bytes(
    live: Lambdas, function: ModuleType, body: str
) -> None:
    """Row 23: a message that no try will ever make readable is put aside at once, with reason and next command."""
    live.send(function, body)
    (record,) = live.take_all(function)
    assert live.content(f"quarantine/{record['messageId']}/message") == body.encode()
    listing = json.loads(live.content(f"quarantine/{record['messageId']}/reason.json"))
    assert listing["reason"]
    assert listing["next_command"]
    assert live.left(function) == 0


def test_a_request_to_name_rows_of_a_delivery_that_is_not_known_is_acknowledged(live: Lambdas) -> None:
    """Row 23: there is nothing to name, and nothing is lost by letting the message go."""
    live.send(BILLING, body_of("billing_drop_prepare/rejected_rows"))
    assert live.run(BILLING) == []
    assert live.left(BILLING) == 0
    assert live.receipts() == {}


# --- the way round ----------------------------------------------------------------------------------------------------


def test_rows_that_cloudzero_refuses_travel_back_to_be_named(cloud: Lambdas) -> None:
    """Row 11: the function that holds the credential asks the one that may read the source; then the delivery ends."""
    key = put(cloud, "a.csv", A, ("01T06", "2", POISON))
    assert cloud.run(BILLING) == []
    assert cloud.run(CLOUDZERO) == []
    assert cloud.receipts()[key]["outcome"] == "pending"
    event = cloud.take(BILLING)
    pointers = [json.loads(record["body"]) for record in event["Records"]]
    template = json.loads(body_of("billing_drop_prepare/rejected_rows"))
    assert [pointer.keys() for pointer in pointers] == [template.keys()]
    assert cloud.invoke(BILLING, event) == []
    assert cloud.run(CLOUDZERO) == []
    receipt = cloud.receipts()[key]
    assert receipt["outcome"] == "partly_delivered", receipt["reason"]
    assert receipt["rows"] == {"in": 2, "accepted": 1, "filtered": 0, "rejected": 1, "owed": 0}
    (row,) = csv.DictReader(io.StringIO(cloud.content(f"rejected/{receipt['id']}.csv").decode()))
    assert (row["line"], row["resource/service"]) == ("3", POISON)
    assert held(cloud) == ["1.5"]


def test_a_contract_that_nobody_knows_is_found_out_once_and_remembered(
    cloud: Lambdas, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 8: the function without a credential asks the one with it, waits meanwhile, and then goes on by itself."""
    monkeypatch.setenv("CLOUDZERO_CONTRACT", "auto")
    key = put(cloud, "a.csv", A, B)
    event = cloud.take(BILLING)
    assert len(cloud.invoke(BILLING, event)) == 1
    assert "not known yet which contract" in cloud.receipts()[key]["reason"]
    questions = cloud.take(CLOUDZERO)
    template = json.loads(body_of("cloudzero_deliver/contract"))
    assert [json.loads(record["body"]).keys() for record in questions["Records"]] == [template.keys()]
    assert json.loads(questions["Records"][0]["body"])["kind"] == template["kind"]
    assert cloud.invoke(CLOUDZERO, questions) == []
    assert again(cloud, BILLING, event) == []
    assert cloud.run(CLOUDZERO) == []
    assert cloud.receipts()[key]["outcome"] == "delivered"
    put(cloud, "b.csv", ("02T00", "3", "S3"))
    assert cloud.run(BILLING) == []
    assert cloud.run(CLOUDZERO) == []
    assert held(cloud) == ["1.5", "2", "3"]
    state = cloud.cloudzero.state()
    assert state["posts"][0]["mode"] == ("append" if cloud.cloudzero.contract == "openapi" else "replace_hourly")
    assert sum(count for name, count in state["counts"].items() if "imension" in name) == 1


def test_why_a_contract_could_not_be_found_out_stands_in_the_receipt(
    live: Lambdas, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 12: a refused key holds up what needs it, says so in the receipt, and all goes on once it is mended."""
    monkeypatch.setenv("CLOUDZERO_CONTRACT", "auto")
    live.cloudzero.faults.add(
        [{"operation": "*", "times": 99, "fault": {"kind": "status", "status": 403, "body": {"message": "no"}}}]
    )
    key = put(live, "a.csv", A)
    event = live.take(BILLING)
    for _ in range(2):
        assert len(live.invoke(BILLING, event)) == 1
        assert live.run(CLOUDZERO) == []
    assert len(live.invoke(BILLING, event)) == 1
    receipt = live.receipts()[key]
    assert receipt["outcome"] == "pending"
    assert "the last try failed: " in receipt["reason"]
    assert "answered 403" in receipt["reason"]
    live.cloudzero.faults.clear()  # the key was mended
    assert live.run(CLOUDZERO) == []
    assert again(live, BILLING, event) == []
    assert live.run(CLOUDZERO) == []
    assert live.receipts()[key]["outcome"] == "delivered"


def test_a_setting_that_names_no_contract_rejects_what_is_dropped(
    live: Lambdas, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 12: a misspelt contract is a person's to mend, and is said at once."""
    monkeypatch.setenv("CLOUDZERO_CONTRACT", "alive")
    key = put(live, "a.csv", A)
    assert live.run(BILLING) == []
    receipt = live.receipts()[key]
    assert receipt["outcome"] == "rejected"
    assert "set it to auto, openapi or live" in receipt["reason"]


def test_a_held_delivery_goes_on_by_the_recorded_release(cloud: Lambdas) -> None:
    """Row 26: late costs of a closed month are held; a person overrides by one dropped file, and only they can."""
    closed = f"incoming/billing/{CONNECTION}/2019-05/late.csv"
    cloud.send(BILLING, cloud.put(closed, cbf(A).replace(MONTH.encode(), b"2019-05")))
    assert cloud.run(BILLING) == []
    assert cloud.run(CLOUDZERO) == []
    receipt = cloud.receipts()[closed]
    assert receipt["outcome"] == "held"
    assert held(cloud, "2019-05") == []
    key = put(cloud, "a.csv", B)
    assert cloud.run(BILLING) == []
    event = cloud.take(CLOUDZERO)
    assert len(cloud.invoke(CLOUDZERO, event)) == 1  # behind the held one

    recorded_key = json.loads(body_of("release/s3_put"))["Records"][0]["s3"]["object"]["key"]
    name = f"incoming/release/{receipt['id']}.json"
    assert recorded_key.rpartition("/")[0] == name.rpartition("/")[0]
    told = cloud.put(name, b'{"decision": "send"}')
    cloud.send(RELEASE, told, json.dumps(told) + " ")
    assert cloud.run(RELEASE) == []
    assert cloud.run(CLOUDZERO) == []
    assert cloud.receipts()[closed]["outcome"] == "delivered"
    assert cloud.receipts()[name]["outcome"] == "delivered"
    assert held(cloud, "2019-05") == ["1.5"]
    assert again(cloud, CLOUDZERO, event) == []
    assert cloud.receipts()[key]["outcome"] == "delivered"
    assert held(cloud) == ["2"]
    assert sends(cloud) == 2


def test_what_cloudzero_puts_off_is_given_back_hidden_for_as_long(cloud: Lambdas) -> None:
    """Row 8: a 429 that names an hour hides the message for an hour, sleeps nowhere, and costs no try."""
    fault = {"kind": "status", "status": 429, "headers": {"Retry-After": "3600"}}
    cloud.cloudzero.faults.add([{"operation": SEND, "fault": fault}])
    key = put(cloud, "a.csv", A)
    assert cloud.run(BILLING) == []
    event = cloud.take(CLOUDZERO)
    assert cloud.invoke(CLOUDZERO, event) == [event["Records"][0]["messageId"]]
    assert cloud.hidden == [(event["Records"][0]["receiptHandle"], 3600)]
    assert cloud.receipts()[key]["reason"].startswith("waits: ")
    assert again(cloud, CLOUDZERO, event) == []
    assert cloud.receipts()[key]["outcome"] == "delivered"
    assert held(cloud) == ["1.5"]


def test_a_message_of_costs_moved_back_from_the_dead_letters_is_delivered_once(cloud: Lambdas) -> None:
    """Row 24: a message redriven after its delivery went on, or ended, neither loses a row nor doubles a dollar."""
    key = put(cloud, "a.csv", A, B)
    cloud.run(BILLING)
    event = cloud.take(CLOUDZERO)
    body = event["Records"][0]["body"]
    cloud.sqs.delete_message(  # it died: the queue has moved it away
        QueueUrl=cloud.queues[CLOUDZERO], ReceiptHandle=event["Records"][0]["receiptHandle"]
    )
    for number in range(3):
        cloud.send(CLOUDZERO, body + " " * number)
        assert cloud.run(CLOUDZERO) == []
    assert sends(cloud) == 1
    assert cloud.receipts()[key]["outcome"] == "delivered"
    assert held(cloud) == ["1.5", "2"]


def test_costs_that_kill_every_preparation_are_quarantined_with_their_exact_bytes(live: Lambdas) -> None:
    """Row 23: after five tries without a word the drop is put aside, bytes untouched, with what to do next."""
    content = b"\x00poison\xff" + costs(A)
    live.send(BILLING, live.put(f"{folder()}poison.csv", content))

    def die(**_: object) -> None:
        raise MemoryError

    name = live.s3.meta.events
    name.register("before-parameter-build.s3.HeadObject", die, unique_id="poison")
    event = live.take(BILLING)
    for _ in range(MAX_ATTEMPTS):
        assert len(live.invoke(BILLING, event)) == 1
    name.unregister("before-parameter-build.s3.HeadObject", unique_id="poison")
    assert live.invoke(BILLING, event) == []
    receipt = live.receipts()[f"{folder()}poison.csv"]
    assert receipt["outcome"] == "failed"
    assert "5 tries ended without a word" in receipt["reason"]
    assert live.content(f"quarantine/{receipt['id']}/poison.csv") == content
    assert live.left(BILLING) == 0


def test_nothing_that_billing_writes_starts_us_again(cloud: Lambdas) -> None:
    """Row 28: told of what we write all the same, neither the preparing nor the releasing function sends anything."""
    put(cloud, "a.csv", A, ("01T06", "?", "S3"))
    put(cloud, "b.csv", ("01T05", "9", "S3"))
    for function in (BILLING, CLOUDZERO, CLOUDZERO):
        cloud.run(function)
    outcomes = {key.rpartition("/")[2]: receipt["outcome"] for key, receipt in cloud.receipts().items()}
    assert outcomes == {"a.csv": "partly_delivered", "b.csv": "held"}
    ours = {key for key in cloud.keys("") if not key.startswith("incoming/")}
    assert {key.partition("/")[0] for key in ours} == {"receipts", "rejected", "state"}
    sent, before = sends(cloud), held(cloud)
    for function in (BILLING, RELEASE):
        for key in sorted(ours):
            cloud.send(function, cloud.put(key, cloud.content(key)))
        while cloud.left(function):
            assert cloud.run(function) == []
    cloud.run(CLOUDZERO)
    assert (sends(cloud), held(cloud)) == (sent, before)


def test_no_api_key_is_ever_written_anywhere(
    cloud: Lambdas, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Row 29: the key stands in no log, receipt, ledger item, quarantine listing or event, whatever goes wrong."""
    echo = {"message": f"bad key {KEY} (Authorization: {KEY})"}
    cloud.cloudzero.faults.add(
        [
            {"operation": SEND, "times": 2, "fault": {"kind": "status", "status": 403, "body": echo}},
            {"operation": SEND, "fault": {"kind": "status", "status": 429, "body": echo}},
            {"operation": SEND, "fault": {"kind": "status", "status": 413, "body": echo}},
            {"operation": SEND, "fault": {"kind": "status", "status": 400, "body": echo}},
            {"operation": SEND, "fault": {"kind": "status", "status": 500, "body": echo}},
        ]
    )
    announced: list[str] = []
    _boto_client("events").meta.events.register(
        "provide-client-params.events.PutEvents", lambda params, **_: announced.append(json.dumps(params))
    )
    key = put(cloud, "a.csv", A, B)
    cloud.run(BILLING)
    told = []
    for _ in range(8):
        event = cloud.take(CLOUDZERO)
        for record in event["Records"]:
            cloud.invoke(CLOUDZERO, event)
            if cloud.left(CLOUDZERO):
                cloud.reveal(CLOUDZERO, record["receiptHandle"])
        cloud.run(BILLING)
        told.append(json.dumps(cloud.receipts()[key]))
    assert cloud.receipts()[key]["outcome"] != "pending"
    assert announced
    written = capsys.readouterr()
    seen = [written.out, written.err, caplog.text, *told, *announced, *map(repr, caplog.records)]
    seen += [cloud.content(name).decode() for name in cloud.keys("") if not name.startswith("incoming/")]
    seen += [str(getattr(log, "__dict__", "")) for log in caplog.records]
    seen += [logger.registered_formatter.format(record) for record in caplog.records]  # as CloudWatch gets them
    seen += [str(item) for item in _boto_client("dynamodb").scan(TableName="ledger")["Items"]]
    assert any("vendor call" in text for text in seen)
    for text in seen:
        assert KEY not in text


def test_a_recorded_pointer_is_what_the_preparing_function_sends(live: Lambdas) -> None:
    """Row 1: the message from function to function has the shape that was recorded."""
    put(live, "a.csv", A)
    live.run(BILLING)
    (record,) = live.take(CLOUDZERO)["Records"]
    assert json.loads(record["body"]).keys() == json.loads(body_of("cloudzero_deliver/pointer")).keys()
    assert recorded("cloudzero_deliver/pointer")["Records"][0]["eventSource"] == "aws:sqs"

"""The functions of telemetry as Lambda calls them: recorded events in, receipts and the vendor's streams out."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError
from finops_relay.aws.logs import logger
from finops_relay.aws.wiring import _boto_client
from finops_relay.delivery.ledger import MAX_ATTEMPTS
from finops_relay.jobs.telemetry.collect import INBOX

from local.standins.cloudzero import KEY
from local.standins.infracost import InfracostStandIn
from tests.world.applications import record
from tests.world.billing import PickyStandIn
from tests.world.lambdas import CLOUDZERO, COLLECT, DROPS, RELEASE, TELEMETRY, Lambdas, body_of, lambdas, recorded
from tests.world.telemetry import REPLACES, SUMS, allocation, folder, metric

EVENTS = Path(__file__).resolve().parents[2] / "events"
A, B = ("01T00", "1.5", "a"), ("01T00", "2", "b")
TICK = body_of("telemetry_prepare/scheduled_send")
QUEUED = "telemetry/orders"
"""The target of what applications send here."""


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


def state(cloud: Lambdas) -> dict[str, Any]:
    """Return what the vendor has, and check that nothing broke its contract."""
    found: dict[str, Any] = cloud.cloudzero.state()
    assert found["violations"] == found["response_violations"] == found["overlaps"] == []
    return found


def held(cloud: Lambdas, stream: str = "requests") -> dict[str, Decimal]:
    """Return what a stream holds at the vendor: day, element and values of the dimensions -> value."""
    found = {}
    for key, value in state(cloud)["telemetry"].get(stream, {"records": {}})["records"].items():
        timestamp, _, labels, element = json.loads(key)
        words = [each if isinstance(each, str) else "|".join(each) for _, each in sorted(labels.items())]
        found[" ".join([timestamp[8:10], *([element] if element else []), *words])] = Decimal(value)
    return found


def posts(cloud: Lambdas) -> int:
    """Return how many bodies of records the vendor has taken."""
    return len(state(cloud)["posts"])


def fault(cloud: Lambdas, *kinds: dict[str, Any], verb: str = "replace") -> None:
    """Order faults where a metric's records are replaced, or added."""
    operation = REPLACES[cloud.cloudzero.contract] if verb == "replace" else SUMS[cloud.cloudzero.contract][0]
    cloud.cloudzero.faults.add([{"operation": operation, "fault": kind} for kind in kinds])


def put(cloud: Lambdas, content: bytes, name: str = "a.csv", verb: str = "replace") -> str:
    """Drop a file of records and tell the function; return its key."""
    key = f"{folder('requests', verb)}{name}"
    cloud.send(TELEMETRY, cloud.put(key, content))
    return key


def again(cloud: Lambdas, event: dict[str, Any]) -> list[str]:
    """Let the time pass for which the vendor's messages of *event* are hidden, and take its queue again."""
    for each in event["Records"]:
        cloud.reveal(CLOUDZERO, each["receiptHandle"])
    return cloud.run(CLOUDZERO)


def counted(cloud: Lambdas, *bodies: str | dict[str, Any]) -> list[dict[str, Any]]:
    """Send messages as applications do, and let the schedule count them; return the receipts that came of it."""
    before = set(cloud.keys("receipts/"))
    cloud.send(COLLECT, *bodies)
    assert cloud.run(COLLECT) == []
    assert cloud.left(COLLECT) == 0
    cloud.send(TELEMETRY, TICK)
    assert cloud.run(TELEMETRY) == []
    assert cloud.run(CLOUDZERO) == []
    return [json.loads(cloud.content(key)) for key in cloud.keys("receipts/") if key not in before]


def rejected(cloud: Lambdas, receipt: dict[str, Any]) -> list[dict[str, str]]:
    """Return the rows of a receipt's file of rejected rows."""
    text = cloud.content(f"rejected/{receipt['id']}.csv").decode(errors="surrogateescape")
    limit = csv.field_size_limit(2**21)  # a message may be longer than a cell is by default
    try:
        return list(csv.DictReader(io.StringIO(text)))
    finally:
        csv.field_size_limit(limit)


def rows(*, accepted: int = 0, filtered: int = 0, rejected: int = 0, owed: int = 0) -> dict[str, int]:
    """Return the rows of a receipt; what came in is what became of it."""
    counts = {"accepted": accepted, "filtered": filtered, "rejected": rejected, "owed": owed}
    return {"in": sum(counts.values()), **counts}


# --- recorded events --------------------------------------------------------------------------------------------------


def test_the_recorded_puts_of_records_are_delivered_each_once(cloud: Lambdas) -> None:
    """Row 1, Row 4: each recorded event leads to one delivery of its decoded key, and its copy to nothing more."""
    live = cloud.cloudzero.contract == "live"
    added = {"timestamp": "2026-03-01T05:00:00Z", "value": 3, "granularity": "DAILY", "filter": {"team": "a"}}
    contents = {
        "s3_put": metric(A, B),
        "s3_put_sum": gzip.compress(json.dumps(added).encode()),
        "s3_put_plan": metric(("01T00", "9", "a")),
        "s3_put_odd_key": allocation(cloud.cloudzero.contract, ("01T00", "4", "red", "EC2")),
    }
    told = {name: cloud.replayed(f"telemetry_prepare/{name}", content) for name, content in contents.items()}
    for notification in told.values():
        cloud.send(TELEMETRY, notification, json.dumps(notification) + " ")
    assert cloud.run(TELEMETRY) == []
    while cloud.left(CLOUDZERO):
        assert cloud.run(CLOUDZERO) == []
    receipts = cloud.receipts()
    assert {key: receipt["outcome"] for key, receipt in receipts.items()} == {
        "incoming/telemetry/metric/requests/replace/requests.csv": "delivered",
        "incoming/telemetry/metric/requests/sum/requests.ndjson.gz": "delivered",
        "plan/telemetry/metric/requests/replace/requests.csv": "unchanged",
        "incoming/telemetry/allocation/cluster-share/replace/Anteile 2026 + Nachtrag ü(1).csv": "delivered",
    }
    sequencers = {each["Records"][0]["s3"]["object"]["sequencer"] for each in told.values()}
    assert {receipt["source"]["sequencer"] for receipt in receipts.values()} == sequencers
    assert held(cloud) == {"01 a": Decimal("4.5"), "01 b": Decimal(2)}
    assert held(cloud, "cluster-share") == {"01 red EC2" if live else "01 EC2 red": Decimal(4)}

    cloud.send(TELEMETRY, cloud.replayed("telemetry_prepare/s3_put_stream", b'{"stream": "requests"}'))
    assert cloud.run(TELEMETRY) == cloud.run(CLOUDZERO) == []
    assert list(state(cloud)["telemetry"]) == ["cluster-share"]


def test_every_recorded_event_of_telemetry_is_used_by_a_test() -> None:
    """Row 1: an event that is recorded and that no test replays would be a promise that nobody keeps."""
    text = Path(__file__).read_text()
    for folder_of in ("telemetry_prepare", "telemetry_collect"):
        for path in sorted((EVENTS / folder_of).glob("*.json")):
            assert f"{folder_of}/{path.stem}" in text or f'"{path.stem}"' in text, path


def test_messages_about_nothing_leave_nothing_behind(live: Lambdas) -> None:
    """Row 23, Row 28: S3's test event, a tick without records, and a request about a delivery that is not known."""
    names = ("s3_test_event", "scheduled_send", "rejected_records")
    live.send(TELEMETRY, *(body_of(f"telemetry_prepare/{name}") for name in names))
    assert live.run(TELEMETRY) == []
    assert live.keys() == []
    assert live.left(TELEMETRY) == live.left(CLOUDZERO) == 0


def test_a_bad_message_among_files_of_records_holds_up_none_of_its_neighbours(live: Lambdas) -> None:
    """Row 1: bad JSON and a vanished object go to quarantine; the files beside them are delivered."""
    gone = live.put(f"{folder('requests')}gone.csv", metric(B))
    version = gone["Records"][0]["s3"]["object"]["versionId"]
    live.s3.delete_object(Bucket=DROPS, Key=f"{folder('requests')}gone.csv", VersionId=version)
    bad = body_of("telemetry_prepare/not_json")
    live.send(TELEMETRY, bad, gone)
    key = put(live, metric(A))
    event = live.take(TELEMETRY)
    assert len(event["Records"]) == 3
    assert live.invoke(TELEMETRY, event) == []
    name = next(each["messageId"] for each in event["Records"] if each["body"] == bad)
    assert live.content(f"quarantine/{name}/message") == bad.encode()
    assert live.run(CLOUDZERO) == []
    receipts = live.receipts()
    assert receipts[f"{folder('requests')}gone.csv"]["outcome"] == "failed"
    assert receipts[key]["outcome"] == "delivered"
    assert held(live) == {"01 a": Decimal("1.5")}


def test_events_of_one_key_that_come_in_the_wrong_order_end_stale(live: Lambdas) -> None:
    """Row 4: the older one is left out by its sequencer, and a copy of either sends nothing."""
    older = live.put(f"{folder('requests')}a.csv", metric(A))
    newer = live.put(f"{folder('requests')}a.csv", metric(B))
    for notification in (newer, older, newer, older):
        live.send(TELEMETRY, notification)
        assert live.run(TELEMETRY) == live.run(CLOUDZERO) == []
    outcomes = [json.loads(live.content(key))["outcome"] for key in live.keys("receipts/")]
    assert sorted(outcomes) == ["delivered", "stale"]
    assert held(live) == {"01 b": Decimal(2)}
    assert posts(live) == 1


# --- what applications send -------------------------------------------------------------------------------------------


def test_what_applications_send_is_gathered_counted_on_the_tick_and_delivered(cloud: Lambdas) -> None:
    """Row 1, Row 4: every record comes twice and counts once, a bad message comes back by name, the others go."""
    sent = [record(f"r{number}", number + 1, team="ab"[number % 2]) for number in range(6)]
    told = {
        receipt["target"]: receipt for receipt in counted(cloud, *sent, body_of("telemetry_collect/not_json"), *sent)
    }
    assert told[QUEUED]["outcome"] == "delivered"
    assert told[QUEUED]["rows"] == rows(accepted=6, filtered=6)
    assert told[QUEUED]["filtered_by"] == {"duplicates": 6}
    assert told[QUEUED]["usage"] == {"in": "21", "sent": "21"}
    assert told[""]["outcome"] == "rejected"
    assert [row["body"] for row in rejected(cloud, told[""])] == [body_of("telemetry_collect/not_json")]
    assert held(cloud, "orders") == {"01 a": Decimal(9), "01 b": Decimal(12)}
    assert cloud.keys(INBOX) == []

    (late,) = counted(cloud, record("late", 100, team="a"), sent[0])
    assert late["rows"] == rows(accepted=1, filtered=1)
    assert held(cloud, "orders") == {"01 a": Decimal(109), "01 b": Decimal(12)}
    taken = posts(cloud)
    (unchanged,) = counted(cloud, *sent)
    assert (unchanged["outcome"], posts(cloud)) == ("unchanged", taken)
    assert counted(cloud) == []


def test_the_recorded_batch_is_counted_with_the_streams_that_it_names(live: Lambdas) -> None:
    """Row 1: the messages of the documentation are good ones."""
    bodies = [each["body"] for each in recorded("telemetry_collect/records")["Records"]]
    assert {receipt["outcome"] for receipt in counted(live, *bodies)} == {"delivered"}
    assert held(live, "orders") == {"01 search": Decimal(1)}
    assert held(live, "checkout-share") == {"01 checkout ads|search": Decimal("12.5")}


def hostile() -> list[str]:
    """Return messages that no application of good will would send; none of them is a record."""
    good = record("good")
    odd = [
        {**good, "stream": "s" * 1_000_000},
        {**good, "dimensions": {"n" * 1_000_000: "x"}},
        {**good, "dimensions": {"team": "v" * 300_000}},
        {**good, "dimensions": {f"key{number}": "x" for number in range(10_000)}},
        {**good, "id": "i" * 300_000},
        {**good, "id": "\ud800"},
        {**good, "id": {"a": 1}},
        {**good, "kind": "metric\x00"},
        {**good, "timestamp": "2026-03-01T05:00:00" + "0" * 500_000 + "Z"},
        {**good, "timestamp": "0001-01-01T00:00:00+23:59"},
        {**good, "timestamp": "9999-12-31T23:59:59-23:59"},
        {**good, "granularity": ["DAILY"]},
        {**good, "value": [[1]]},
        {**good, "value": True},
        {**good, "value": "1_000"},
        {**good, "dimensions": {"team": "a\r\nb"}},
        {**good, "dimensions": {"team": "\udcff"}},
        {**good, "dimensions": {"\x1b[31m": "x"}},
        {**good, "dimensions": {"team": None}},
        {**good, "dimensions": [["team", "a"]]},
        {**good, "stream": "orders\n"},
        {**good, "stream": "../orders"},
        {**good, "stream": True},
        {**good, "extra": "=cmd|' /C calc'!A0"},
    ]
    plain = json.dumps(good)
    return [
        *map(json.dumps, odd),
        *(plain.replace('"value": 1', f'"value": {value}') for value in ("9" * 500_000, "1e400", "NaN", "-Infinity")),
        plain.replace('"value": 1', '"value": 1, "value": 2'),
        plain.replace('{"team"', '{"team": "x", "team"'),
        "[" * 500_000,
        '{"a":' * 100_000 + "1" + "}" * 100_000,
        plain.replace('"search"', "[" * 100_000 + "]" * 100_000),
        "\ufeff" + plain,
        plain + plain,
        '"just a text"',
        "\t",
        '{"stream": "orders\\u0000"}',
    ]


def test_messages_of_hostile_applications_are_rejected_by_name_and_crash_nothing(cloud: Lambdas) -> None:
    """Row 1, Row 7: whatever stands in a message, it comes back by its id with a reason, and a good record counts."""
    bodies = hostile()
    receipts = counted(cloud, *bodies, record("good"))
    assert sum(receipt["rows"]["rejected"] for receipt in receipts) == len(bodies)
    assert sum(receipt["rows"]["in"] for receipt in receipts) == len(bodies) + 1
    named = [row for receipt in receipts for row in rejected(cloud, receipt)]
    assert len({row["message_id"] for row in named}) == len(bodies)
    for row in named:
        assert 0 < len(row["error"]) <= 300, row["error"][:500]
        assert 0 < len(row["fix"]) <= 300, row["fix"][:500]
        assert (row["error"] + row["fix"]).isprintable()
    for receipt in receipts:
        assert len(json.dumps(receipt)) < 10_000
    assert {receipt["outcome"] for receipt in receipts} == {"rejected", "partly_delivered"}
    assert held(cloud, "orders") == {"01 search": Decimal(1)}


def test_trouble_of_aws_on_the_tick_is_waited_out_and_nothing_is_lost(live: Lambdas) -> None:
    """Row 9: the tick is given back, what was gathered stays in the inbox, and counts once the store is back."""
    live.send(COLLECT, record("a", 2))
    assert live.run(COLLECT) == []

    def fail(**_: object) -> None:
        raise EndpointConnectionError(endpoint_url="https://s3")

    name = live.s3.meta.events
    name.register("before-parameter-build.s3.GetObject", fail, unique_id="outage")
    live.send(TELEMETRY, TICK)
    event = live.take(TELEMETRY)
    for _ in range(2 * MAX_ATTEMPTS):
        assert len(live.invoke(TELEMETRY, event)) == 1
    assert len(live.keys(INBOX)) == 1
    name.unregister("before-parameter-build.s3.GetObject", unique_id="outage")
    assert live.invoke(TELEMETRY, event) == []
    assert live.run(CLOUDZERO) == []
    assert held(live, "orders") == {"01 search": Decimal(2)}


def test_until_the_contract_is_known_files_wait_and_records_stay_in_the_inbox(
    cloud: Lambdas, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 12: who holds no key asks the one who does; a refused key holds up both, and both go on by themselves."""
    monkeypatch.setenv("CLOUDZERO_CONTRACT", "auto")
    refused = {"kind": "status", "status": 403, "body": {"message": "no"}}
    cloud.cloudzero.faults.add([{"operation": "*", "times": 99, "fault": refused}])
    key = put(cloud, metric(A))
    cloud.send(COLLECT, record("a", 2))
    assert cloud.run(COLLECT) == []
    event = cloud.take(TELEMETRY)
    tick = body_of("telemetry_prepare/scheduled_send")
    for _ in range(2):
        cloud.send(TELEMETRY, tick)
        assert cloud.run(TELEMETRY) == []
        assert len(cloud.invoke(TELEMETRY, event)) == 1
        assert cloud.run(CLOUDZERO) == []
    assert len(cloud.invoke(TELEMETRY, event)) == 1
    assert "the last try failed: " in cloud.receipts()[key]["reason"]
    assert len(cloud.keys(INBOX)) == 1
    cloud.cloudzero.faults.clear()  # the key was mended
    assert cloud.run(CLOUDZERO) == []
    assert cloud.invoke(TELEMETRY, event) == []
    cloud.send(TELEMETRY, tick)
    assert cloud.run(TELEMETRY) == cloud.run(CLOUDZERO) == []
    assert cloud.receipts()[key]["outcome"] == "delivered"
    assert (held(cloud), held(cloud, "orders")) == ({"01 a": Decimal("1.5")}, {"01 search": Decimal(2)})


# --- what stands in a file --------------------------------------------------------------------------------------------


def test_bytes_that_are_no_text_are_rejected_by_line_and_the_others_are_read_as_written(live: Lambdas) -> None:
    """Row 5: BOM, CRLF, U+2028 and quotes change nothing; an undecodable row comes back with its line."""
    header, *lines = metric(A, ("01T00", "2", "line\u2028end"), ("01T00", "4", "bad"), ("01T00", "8", '"c, d"')).split(
        b"\n"
    )[:-1]
    lines[2] = lines[2].replace(b"bad", b"b\xffd")
    key = put(live, b"\xef\xbb\xbf" + b"\r\n".join([header, *lines, b""]))
    assert live.run(TELEMETRY) == live.run(CLOUDZERO) == []
    receipt = live.receipts()[key]
    assert receipt["outcome"] == "partly_delivered"
    assert receipt["rows"] == rows(accepted=3, rejected=1)
    assert held(live) == {"01 a": Decimal("1.5"), "01 line\u2028end": Decimal(2), "01 c, d": Decimal(8)}
    (row,) = rejected(live, receipt)
    assert row["line"] == "4"
    assert row["filter.team"].encode(errors="surrogateescape") == b"b\xffd"
    assert "not UTF-8" in row["error"]


def test_a_file_that_is_cut_off_or_a_bomb_is_refused_and_nothing_is_sent(live: Lambdas) -> None:
    """Row 6, Row 7: what ends early is never taken for whole, what expands beyond all measure fills nothing."""
    whole = gzip.compress(metric(*((f"{day:02}T00", "1", f"t{day}") for day in range(1, 29))))
    line = b"2026-03-01T00:00:00Z,1,DAILY," + b"a" * 970 + b"\n"
    keys = {
        put(live, whole[:-8], "cut.csv.gz"): "truncated",
        put(live, gzip.compress(metric() + line * 52_000, 9), "bomb.csv.gz"): "expands",
        put(live, gzip.compress(b"[" + b" " * 12_000_000, 9), "bomb.json.gz"): "larger than",
    }
    assert live.run(TELEMETRY) == []
    receipts = live.receipts()
    for key, reason in keys.items():
        assert receipts[key]["outcome"] == "rejected"
        assert reason in receipts[key]["reason"]
    assert live.left(TELEMETRY) == live.left(CLOUDZERO) == 0
    assert live.s3.list_objects_v2(Bucket="acme-finops-spool")["KeyCount"] == 0


def test_a_file_that_kills_every_preparation_is_quarantined_with_its_exact_bytes(live: Lambdas) -> None:
    """Row 23: after five tries without a word the drop is put aside, bytes untouched, with what to do next."""
    content = b"\x00poison\xff" + metric(A)
    key = put(live, content, "poison.csv")

    def die(**_: object) -> None:
        raise MemoryError

    name = live.s3.meta.events
    name.register("before-parameter-build.s3.HeadObject", die, unique_id="poison")
    event = live.take(TELEMETRY)
    for _ in range(MAX_ATTEMPTS):
        assert len(live.invoke(TELEMETRY, event)) == 1
    name.unregister("before-parameter-build.s3.HeadObject", unique_id="poison")
    assert live.invoke(TELEMETRY, event) == []
    receipt = live.receipts()[key]
    assert receipt["outcome"] == "failed"
    assert "5 tries ended without a word" in receipt["reason"]
    assert receipt["next_command"].startswith("aws s3api copy-object ")
    assert live.content(f"quarantine/{receipt['id']}/poison.csv") == content
    assert live.left(TELEMETRY) == 0


# --- the vendor -------------------------------------------------------------------------------------------------------


def test_a_record_that_cloudzero_refuses_travels_back_to_be_named(cloud: Lambdas) -> None:
    """Row 11: the function that holds the credential asks the one that may read the source; then the delivery ends."""
    refused = {"kind": "status", "status": 400, "body": {"message": "no such team"}}
    fault(cloud, refused, refused)
    key = put(cloud, metric(A, B))
    assert cloud.run(TELEMETRY) == cloud.run(CLOUDZERO) == []
    assert cloud.receipts()[key]["outcome"] == "pending"
    event = cloud.take(TELEMETRY)
    template = json.loads(body_of("telemetry_prepare/rejected_records"))
    (told,) = [json.loads(each["body"]) for each in event["Records"]]
    assert (told.keys(), told["kind"]) == (template.keys(), template["kind"])
    assert cloud.invoke(TELEMETRY, event) == cloud.run(CLOUDZERO) == []
    receipt = cloud.receipts()[key]
    assert receipt["outcome"] == "partly_delivered", receipt["reason"]
    assert receipt["rows"] == rows(accepted=1, rejected=1)
    (row,) = rejected(cloud, receipt)
    assert (row["line"], row["filter.team"]) == ("2", "a")
    assert "no such team" in row["error"]
    assert held(cloud) == {"01 b": Decimal(2)}


def test_what_cloudzero_puts_off_is_hidden_for_as_long_and_redriven_it_is_delivered_once(cloud: Lambdas) -> None:
    """Row 8, Row 24: "slow down" hides the message as long as it says; redriven it goes once."""
    fault(cloud, {"kind": "status", "status": 503, "headers": {"Retry-After": "3600"}})
    key = put(cloud, metric(A))
    assert cloud.run(TELEMETRY) == []
    event = cloud.take(CLOUDZERO)
    (message,) = event["Records"]
    assert cloud.invoke(CLOUDZERO, event) == [message["messageId"]]
    assert cloud.hidden == [(message["receiptHandle"], 3600)]
    assert cloud.receipts()[key]["reason"].startswith("waits: ")
    # It died meanwhile: the queue has moved it away.
    cloud.sqs.delete_message(QueueUrl=cloud.queues[CLOUDZERO], ReceiptHandle=message["receiptHandle"])
    for number in range(3):
        cloud.send(CLOUDZERO, message["body"] + " " * number)
        assert cloud.run(CLOUDZERO) == []
    assert cloud.receipts()[key]["outcome"] == "delivered"
    assert held(cloud) == {"01 a": Decimal("1.5")}
    assert posts(cloud) == 1


def test_a_refused_key_holds_up_records_until_it_is_mended_and_no_longer(
    live: Lambdas, capsys: pytest.CaptureFixture[str]
) -> None:
    """Row 12: the alarm's metric is counted, the message waits, and all goes on without anybody's help."""
    key = put(live, metric(A))
    assert live.run(TELEMETRY) == []
    secrets = _boto_client("secretsmanager")
    secrets.put_secret_value(SecretId="cloudzero", SecretString="out-of-date")
    event = live.take(CLOUDZERO)
    assert len(live.invoke(CLOUDZERO, event)) == 1
    assert '"CredentialRefused"' in capsys.readouterr().out
    assert live.receipts()[key]["outcome"] == "pending"
    secrets.put_secret_value(SecretId="cloudzero", SecretString=KEY)
    assert again(live, event) == []
    assert live.receipts()[key]["outcome"] == "delivered"
    assert held(live) == {"01 a": Decimal("1.5")}


def test_a_sum_in_doubt_is_held_and_goes_on_by_a_dropped_decision(cloud: Lambdas) -> None:
    """Row 10: what adds is never sent again on a guess; a person looks and says so by one file."""
    fault(cloud, {"kind": "lost_answer"}, verb="sum")
    key = put(cloud, metric(A), verb="sum")
    assert cloud.run(TELEMETRY) == cloud.run(CLOUDZERO) == []
    receipt = cloud.receipts()[key]
    assert receipt["outcome"] == "held"
    assert receipt["rows"]["owed"] == 1
    cloud.send(RELEASE, cloud.put(f"incoming/release/{receipt['id']}.json", b'{"decision": "mark as arrived"}'))
    assert cloud.run(RELEASE) == cloud.run(CLOUDZERO) == []
    receipt = cloud.receipts()[key]
    assert receipt["outcome"] == "delivered", receipt["reason"]
    assert receipt["rows"] == rows(accepted=1)
    assert held(cloud) == {"01 a": Decimal("1.5")}
    assert posts(cloud) == 1


# --- what must never be -----------------------------------------------------------------------------------------------


def test_nothing_that_telemetry_writes_starts_us_again(live: Lambdas) -> None:
    """Row 28: told of what we write all the same, nothing is sent; a batch that is back in the inbox counts nothing."""
    put(live, metric(A, ("01T00", "?", "b")))
    live.send(COLLECT, record("a", 2), "not JSON")
    assert live.run(COLLECT) == []
    (inbox,) = live.keys(INBOX)
    batch = live.content(inbox)
    live.send(TELEMETRY, TICK)
    assert live.run(TELEMETRY) == live.run(CLOUDZERO) == []
    ours = {key for key in live.keys("") if not key.startswith("incoming/")}
    assert {key.partition("/")[0] for key in ours} == {"receipts", "rejected"}
    before = (posts(live), held(live), held(live, "orders"))
    for function in (TELEMETRY, RELEASE):
        for key in sorted(ours):
            live.send(function, live.put(key, live.content(key)))
        live.send(function, live.put(inbox, batch))
        while live.left(function):
            assert live.run(function) == []
    live.send(TELEMETRY, TICK)
    assert live.run(TELEMETRY) == live.run(CLOUDZERO) == []
    assert live.keys(INBOX) == []
    assert (posts(live), held(live), held(live, "orders")) == before


def test_the_key_stands_in_nothing_that_telemetry_writes(
    cloud: Lambdas, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Row 29: in no log, receipt, rejected row, ledger item, spool object, quarantine or event, whatever goes wrong."""
    echo = {"message": f"bad key {KEY} (Authorization: {KEY})"}
    statuses = (403, 403, 503, 413, 400, 400, 500)
    fault(cloud, *({"kind": "status", "status": status, "body": echo} for status in statuses))
    announced: list[str] = []
    _boto_client("events").meta.events.register(
        "provide-client-params.events.PutEvents", lambda params, **_: announced.append(json.dumps(params))
    )
    key = put(cloud, metric(A, B, ("02T00", "4", "c")))
    cloud.send(TELEMETRY, body_of("telemetry_prepare/not_json"))
    cloud.run(TELEMETRY)
    told = []
    for _ in range(8):
        event = cloud.take(CLOUDZERO)
        for each in event["Records"]:
            cloud.invoke(CLOUDZERO, event)
            if cloud.left(CLOUDZERO):
                cloud.reveal(CLOUDZERO, each["receiptHandle"])
        cloud.run(TELEMETRY)
        told.append(json.dumps(cloud.receipts()[key]))
    assert cloud.receipts()[key]["outcome"] == "partly_delivered", told[-1]
    assert announced
    written = capsys.readouterr()
    seen = [written.out, written.err, caplog.text, *told, *announced, *map(repr, caplog.records)]
    seen += [cloud.content(name).decode() for name in cloud.keys("") if not name.startswith("incoming/")]
    listed = cloud.s3.list_objects_v2(Bucket="acme-finops-spool")["Contents"]
    seen += [
        cloud.s3.get_object(Bucket="acme-finops-spool", Key=each["Key"])["Body"].read().decode() for each in listed
    ]
    seen += [str(getattr(log, "__dict__", "")) for log in caplog.records]
    seen += [logger.registered_formatter.format(each) for each in caplog.records]  # as CloudWatch gets them
    seen += [str(item) for item in _boto_client("dynamodb").scan(TableName="ledger")["Items"]]
    assert any("vendor call" in text for text in seen)
    assert {name.partition("/")[0] for name in cloud.keys("")} == {"incoming", "quarantine", "receipts", "rejected"}
    for text in seen:
        assert KEY not in text

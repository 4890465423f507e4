"""Records on the running stack, IAM enforced: all that the roles of telemetry are granted is used on the way."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from local.demo import waiting
from local.showing import final_receipt, wait_until

if TYPE_CHECKING:
    from local.serve import Local

HEADER = "timestamp,value,granularity,filter.team"
DAY = "2026-03-01T00:00:00Z"


def drop(running: Local, key: str, body: str) -> dict[str, Any]:
    """Drop a file; return its receipt once it is over or held."""
    put = running.stack.client("s3").put_object(Bucket=running.drops_bucket, Key=key, Body=body.encode())
    return final_receipt(running, lambda found: found["source"]["version"] == put["VersionId"])


def rejected(running: Local, receipt: dict[str, Any]) -> list[dict[str, str]]:
    """Return the rows of a receipt's file of rejected rows."""
    key = f"rejected/{receipt['id']}.csv"
    text = running.stack.client("s3").get_object(Bucket=running.drops_bucket, Key=key)["Body"].read().decode()
    return list(csv.DictReader(io.StringIO(text)))


def held(running: Local, stream: str) -> list[str]:
    """Return the values that a stream has at the vendor, and check that nothing broke its contract."""
    assert running.cloudzero is not None
    state = running.cloudzero.state()
    assert state["violations"] == []
    return sorted(state["telemetry"][stream]["records"].values())


def held_in_all(running: Local) -> str:
    """Return the one value of the stream of the queue; empty before it is there."""
    assert running.cloudzero is not None
    holding = running.cloudzero.state()["telemetry"].get("stack-orders", {"records": {}})
    return "".join(holding["records"].values())


def test_records_of_files_and_of_the_queue_arrive(running: Local) -> None:
    """Row 1: what is bad comes back by name, from a file as from the queue; the rest is delivered."""
    key = "incoming/telemetry/metric/stack-requests/replace/a.csv"
    receipt = drop(running, key, f"{HEADER}\n{DAY},1.5,DAILY,a\n{DAY},?,DAILY,b\n")
    assert receipt["outcome"] == "partly_delivered", receipt["reason"]
    assert [row["filter.team"] for row in rejected(running, receipt)] == ["b"]
    assert held(running, "stack-requests") == ["1.5"]

    sqs = running.stack.client("sqs")
    record = {"stream": "stack-orders", "kind": "metric", "timestamp": DAY, "granularity": "DAILY", "value": 2}
    url = running.described()["telemetry_queue_url"]
    for body in (*[json.dumps({**record, "id": each}) for each in "aab"], json.dumps({**record, "value": "?"})):
        sqs.send_message(QueueUrl=url, MessageBody=body)
    wait_until(lambda: not waiting(running, "TelemetryQueue"), "the records to be gathered")
    tick = {"source": "aws.events", "detail-type": "Scheduled Event", "time": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}
    sqs.send_message(QueueUrl=running.stack.resources["TelemetryPrepareQueue"], MessageBody=json.dumps(tick))
    wait_until(lambda: held_in_all(running) == "4", "the records to arrive")


def test_what_is_refused_is_named_and_what_is_in_doubt_is_decided_and_what_was_mended_goes(running: Local) -> None:
    """Row 10, Row 11: CloudZero's refusals travel back by a queue, a decision goes on, mended rows are added alone."""
    assert running.cloudzero is not None
    refused = {"kind": "status", "status": 400, "body": {"message": "no such team"}}
    orders = [{"operation": "postMetricTelemetryReplace", "fault": refused} for _ in range(2)]
    running.cloudzero.faults.add(orders)
    folder = "incoming/telemetry/metric/stack-refused"
    receipt = drop(running, f"{folder}/replace/a.csv", f"{HEADER}\n{DAY},1,DAILY,a\n{DAY},2,DAILY,b\n")
    assert receipt["outcome"] == "partly_delivered", receipt["reason"]
    assert ["no such team" in row["error"] for row in rejected(running, receipt)] == [True]

    running.cloudzero.faults.add([{"operation": "postMetricTelemetrySum", "fault": {"kind": "lost_answer"}}])
    receipt = drop(running, f"{folder}/sum/b.csv", f"{HEADER}\n{DAY},4,DAILY,c\n{DAY},?,DAILY,d\n")
    assert receipt["outcome"] == "held", receipt["reason"]
    release = drop(running, f"incoming/release/{receipt['id']}.json", '{"decision": "mark as arrived"}')
    assert release["outcome"] == "delivered", release["reason"]
    ended = final_receipt(running, lambda found: found["id"] == receipt["id"] and found["outcome"] != "held")
    assert ended["outcome"] == "partly_delivered", ended["reason"]
    assert held(running, "stack-refused") == ["2", "4"]

    mended = f"{HEADER},line,error,fix\n{DAY},8,DAILY,d,3,,\n"
    receipt = drop(running, f"{folder}/sum/mended/{receipt['id']}.csv", mended)
    assert receipt["outcome"] == "delivered", receipt["reason"]
    assert held(running, "stack-refused") == ["2", "4", "8"]

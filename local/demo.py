"""``make demo``: the main job on real files, on this machine, by the ways that a user has: uploads in, receipts out."""

from __future__ import annotations

import io
import json
import os
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from local.bootstrap import ROOT
from local.serve import Local, Settings, serving
from local.standins.cloudzero import CONNECTIONS
from local.standins.infracost import AWS_ORGANIZATION, AZURE_ORGANIZATION

EXAMPLES = ROOT / "docs" / "examples"
PATIENCE_S = 120.0
WIDTH = 110
RECORDS = 20
"""Emitted, each twice."""


@dataclass(frozen=True)
class Drop:
    """One upload of the demo and what it has to lead to."""

    title: str
    key: str
    body: bytes
    outcome: str
    organization: str = ""
    """Infracost's, that has to use the book in the end."""
    connection: str = ""
    """CloudZero's, that has to hold the costs in the end."""
    stream: str = ""
    """CloudZero's, that has to hold the records in the end."""


def main() -> int:
    """Run the demo; 0 when everything came out as it should."""
    began = time.monotonic()
    settings = Settings.from_environ({name: os.environ[name] for name in ("RELAY_PORT_BASE",) if name in os.environ})
    with serving(settings) as local:
        say(f"The stack of template.yaml is up on this machine ({time.monotonic() - began:.1f} s).")
        say(f"  drops bucket {local.drops_bucket}")
        say(f"  stand-ins: Infracost {local.infracost_api_url}, CloudZero {local.cloudzero_api_url}")
        dropped = drops()
        receipts = [shown(local, number, drop) for number, drop in enumerate(dropped, 1)]
        counted = emitted(local, len(receipts) + 1)
        checks = {**holds_books(local, dropped, receipts), **holds_costs(local, dropped, receipts)}
        streams = [(drop.stream, receipt) for drop, receipt in zip(dropped, receipts, strict=True) if drop.stream]
        checks |= holds_streams(local, [*streams, ("checkout", counted)])
        receipts.append(counted)
        good = told(checks)
    say(f"\n{'Done' if good else 'NOT as promised'}: {len(receipts)} receipts in {time.monotonic() - began:.0f} s.")
    return 0 if good else 1


def drops() -> list[Drop]:
    """Return the uploads: three price sheets, one of them spoiled by a spreadsheet, and costs in two forms."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as sheet:
        for part in ("azure_ea_part_1.csv", "azure_ea_part_2.csv"):
            sheet.write(EXAMPLES / part, part)
    incoming = "incoming/price-books"
    return [
        Drop(
            "An Azure EA price sheet: a zip of two parts, BOM, reserved-instance rows",
            f"{incoming}/azure/ea-2026-02.zip",
            archive.getvalue(),
            "delivered",
            AZURE_ORGANIZATION,
        ),
        Drop(
            "An AWS private price list, its columns in another order",
            f"{incoming}/aws/private-pricing.csv",
            (EXAMPLES / "aws_private_pricing.csv").read_bytes(),
            "delivered",
            AWS_ORGANIZATION,
        ),
        Drop(
            "An Azure sheet that was opened and saved by a spreadsheet",
            f"{incoming}/azure/saved-by-a-spreadsheet.csv",
            (EXAMPLES / "azure_saved_by_a_spreadsheet.csv").read_bytes(),
            "rejected",
        ),
        Drop(
            "Costs in FOCUS 1.0, as AWS exports them, for one CloudZero connection",
            f"incoming/billing/{CONNECTIONS[0]}/{month()}/focus.csv",
            this_month("costs_focus.csv"),
            "delivered",
            connection=CONNECTIONS[0],
        ),
        Drop(
            "Costs in the Common Bill Format for another one; one row has an amount in euros",
            f"incoming/billing/{CONNECTIONS[1]}/{month()}/snowflake.csv",
            this_month("costs_cbf.csv"),
            "partly_delivered",
            connection=CONNECTIONS[1],
        ),
        Drop(
            "Whose share of a cluster is how large: an allocation stream, from a file",
            "incoming/telemetry/allocation/cluster-share/replace/shares.csv",
            this_month("telemetry_allocation.csv"),
            "delivered",
            stream="cluster-share",
        ),
    ]


def month() -> str:
    """Return this month, which may be replaced whatever day it is."""
    return f"{datetime.now(UTC):%Y-%m}"


def this_month(name: str) -> bytes:
    """Return an example whose costs are of February 2026 as if they were of this month."""
    following = datetime.now(UTC).replace(day=1) + timedelta(days=31)
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    return text.replace("2026-03-", f"{following:%Y-%m}-").replace("2026-02-", f"{month()}-").encode()


def shown(local: Local, number: int, drop: Drop) -> dict[str, Any]:
    """Drop one file, wait for its receipt, and show it."""
    say(f"\n{'-' * WIDTH}\n{number}. {drop.title}")
    say(f"   aws s3 cp {Path(drop.key).name} s3://{local.drops_bucket}/{drop.key}")
    s3 = local.stack.client("s3")
    began = time.monotonic()
    version = s3.put_object(Bucket=local.drops_bucket, Key=drop.key, Body=drop.body)["VersionId"]
    receipt = final_receipt(local, lambda found: found["source"]["version"] == version)
    say(f"   -> {receipt['outcome']} after {time.monotonic() - began:.1f} s. Its receipt:\n")
    for line in json.dumps(abridged(receipt), indent=2).splitlines():
        say(f"   {line}")
    return receipt


def emitted(local: Local, number: int) -> dict[str, Any]:
    """Send records to the application queue, each twice; wait for the receipt of their stream, and show it."""
    say(f"\n{'-' * WIDTH}\n{number}. A service counts its checkouts: {RECORDS} records to the queue, each sent twice")
    url = local.described()["telemetry_queue_url"]
    say(f"   aws sqs send-message --queue-url {url} --message-body …")
    sqs = local.stack.client("sqs")
    began = time.monotonic()
    for record in [record for record in records() for _ in range(2)]:
        sqs.send_message(QueueUrl=url, MessageBody=json.dumps(record))
    wait_until(lambda: not waiting(local, "TelemetryQueue"), "the records to be gathered")
    say("   (The schedule counts what has come once a minute here; its message is sent now, so that nobody waits.)")
    at = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    tick = {"source": "aws.events", "detail-type": "Scheduled Event", "time": at}
    sqs.send_message(QueueUrl=local.stack.resources["TelemetryPrepareQueue"], MessageBody=json.dumps(tick))
    receipt = final_receipt(local, lambda found: found["target"] == "telemetry/checkout")
    say(f"   -> {receipt['outcome']} after {time.monotonic() - began:.1f} s. Its receipt:\n")
    for line in json.dumps(abridged(receipt), indent=2).splitlines():
        say(f"   {line}")
    return receipt


def records() -> list[dict[str, Any]]:
    """Return what a service would emit: one record a checkout."""
    return [
        {
            "stream": "checkout",
            "kind": "metric",
            "timestamp": f"{month()}-01T{number % 24:02}:{number % 60:02}:00Z",
            "granularity": "DAILY",
            "value": "1",
            "dimensions": {"shop": f"shop-{number % 3}"},
            "id": f"checkout-{number}",
        }
        for number in range(RECORDS)
    ]


def waiting(local: Local, queue: str) -> int:
    """Return how many messages a queue has, those in hand included."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    found = local.stack.client("sqs").get_queue_attributes(QueueUrl=local.stack.resources[queue], AttributeNames=names)
    return sum(int(count) for count in found["Attributes"].values())


def wait_until(so: Callable[[], bool], what: str) -> None:
    """Wait until it is so. Raises TimeoutError."""
    deadline = time.monotonic() + PATIENCE_S
    while not so():
        if time.monotonic() > deadline:
            msg = f"waited for {what}, in vain"
            raise TimeoutError(msg)
        time.sleep(0.1)


def final_receipt(local: Local, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Wait for the receipt that is *wanted* to be more than pending. Raises TimeoutError."""
    s3 = local.stack.client("s3")
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        listed = s3.list_objects_v2(Bucket=local.drops_bucket, Prefix="receipts/")
        for entry in listed.get("Contents", []):
            body = s3.get_object(Bucket=local.drops_bucket, Key=entry["Key"])["Body"].read()
            receipt: dict[str, Any] = json.loads(body)
            if wanted(receipt) and receipt["outcome"] != "pending":
                return {**receipt, "stands_at": f"s3://{local.drops_bucket}/{entry['Key']}"}
        time.sleep(0.2)
    msg = f"no receipt within {PATIENCE_S:.0f} s; the functions say:\n"
    names = (
        "PriceBookPrepare",
        "InfracostDeliver",
        "BillingDropPrepare",
        "TelemetryCollect",
        "TelemetryPrepare",
        "CloudZeroDeliver",
    )
    logs = [local.stack.logs(f"{name}Function") for name in names]
    raise TimeoutError(msg + "\n".join(logs)[-4000:])


def abridged(receipt: dict[str, Any]) -> dict[str, Any]:
    """Return the parts of a receipt that tell the story; the whole stands in the bucket."""
    units = [
        {"unit": unit["name"], "rows": unit["rows"], "status": unit["status"], "vendor_id": unit["vendor_id"]}
        for unit in receipt["units"]
    ]
    return {
        "outcome": receipt["outcome"],
        **({"reason": receipt["reason"]} if receipt["reason"] else {}),
        "rows": receipt["rows"],
        **({"money": receipt["money"]} if receipt["money"]["in"] is not None else {}),
        **({"usage": receipt["usage"]} if receipt["usage"]["in"] is not None else {}),
        **({"filtered_by": receipt["filtered_by"]} if receipt["filtered_by"] else {}),
        "units": units,
        **({"rejected_rows": receipt["rejected_rows"]} if receipt["rejected_rows"] else {}),
        **({"next_command": receipt["next_command"]} if receipt["outcome"] == "partly_delivered" else {}),
        "stands_at": receipt["stands_at"],
    }


def holds_books(local: Local, dropped: list[Drop], receipts: list[dict[str, Any]]) -> dict[str, bool]:
    """Print what Infracost holds now, and return whether it agrees with every receipt."""
    if local.standin is None:
        return {}
    state = local.standin.state()
    say(f"\n{'-' * WIDTH}\nWhat the Infracost stand-in holds now:")
    books = {book["id"]: book for book in state["price_books"]}
    for book in state["price_books"]:
        rows = sum(file["rows"] for file in book["files"])
        held = f"{len(book['files'])} files, {rows} rows"
        say(f"   price book {book['id']} {book['provider']:5} {book['status']:8} {held}")
    for organization in state["organizations"]:
        say(f"   organization {organization['id']} ({organization['name']}) uses {organization['customPriceBookId']}")
    active = {organization["id"]: organization["customPriceBookId"] for organization in state["organizations"]}
    checks = {"Infracost saw no call that breaks its contract": not state["violations"]}
    for drop, receipt in zip(dropped, receipts, strict=True):
        rows = receipt["rows"]
        law = rows["in"] == rows["accepted"] + rows["filtered"] + rows["rejected"] + rows["owed"]
        checks[f"{drop.key}: {drop.outcome}"] = receipt["outcome"] == drop.outcome
        checks[f"{drop.key}: rows in = accepted + filtered + rejected + owed"] = law
        if drop.organization:
            book = books.get(active[drop.organization] or "", {"files": []})
            arrived = sum(file["rows"] for file in book["files"])
            checks[f"{drop.key}: the active book holds the {rows['accepted']} rows accepted"] = (
                arrived == rows["accepted"] > 0
            )
    checks["two price books were made, none for the bad sheet"] = len(books) == 2  # noqa: PLR2004 -- the two good drops
    return checks


def holds_costs(local: Local, dropped: list[Drop], receipts: list[dict[str, Any]]) -> dict[str, bool]:
    """Print what CloudZero holds now, and return whether rows and money agree with every receipt to the cent."""
    if local.cloudzero is None:
        return {}
    state = local.cloudzero.state()
    say("\nWhat the CloudZero stand-in holds now:")
    checks = {"CloudZero saw no call that breaks its contract": not state["violations"]}
    for drop, receipt in zip(dropped, receipts, strict=True):
        if not drop.connection:
            continue
        held = state["drops"][drop.connection][month()]
        money = receipt["money"]
        say(f"   connection {drop.connection} {month()} {held['count']:5} rows")
        for column, total in held["totals"].items():
            say(f"      {column:32} {total:>18} US dollars")
            sent = Decimal(money["by_column"][column]["sent"])
            read_back = Decimal(money["by_column"][column]["read_back"])
            checks[f"{drop.key}: {column} sent = read back = held, {sent} dollars"] = (
                sent == read_back == Decimal(total)
            )
        accepted = receipt["rows"]["accepted"]
        checks[f"{drop.key}: CloudZero holds the {accepted} rows accepted"] = held["count"] == accepted > 0
    return checks


def holds_streams(local: Local, sent: list[tuple[str, dict[str, Any]]]) -> dict[str, bool]:
    """Print the streams that CloudZero holds now, and return whether they agree with every receipt."""
    if local.cloudzero is None:
        return {}
    streams = local.cloudzero.state()["telemetry"]
    checks = {}
    for name, receipt in sent:
        held = [Decimal(value) for value in streams[name]["records"].values()]
        say(f"   stream {name:20} {streams[name]['kind']:10} {len(held):5} records, {sum(held)} in all")
        usage = receipt["usage"]
        agrees = Decimal(usage["in"]) == Decimal(usage["sent"]) == sum(held) > 0
        checks[f"stream {name}: in = sent = held, {usage['sent']}"] = agrees
        rows = receipt["rows"]
        law = rows["in"] == rows["accepted"] + rows["filtered"] + rows["rejected"] + rows["owed"]
        checks[f"stream {name}: rows in = accepted + filtered + rejected + owed"] = law
    rows = sent[-1][1]["rows"]
    checks[f"{2 * RECORDS} records came through the queue, and {RECORDS} were counted"] = (
        rows["in"] == 2 * RECORDS and rows["accepted"] == rows["filtered"] == RECORDS
    )
    return checks


def told(checks: dict[str, bool]) -> bool:
    """Print the checks; return whether all of them passed."""
    say("")
    for check, passed in checks.items():
        say(f"   {'ok  ' if passed else 'FAIL'} {check}")
    return all(checks.values())


def say(line: str) -> None:
    """Print at once: a demo is watched."""
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())

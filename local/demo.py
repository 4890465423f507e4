"""``make demo``: the main job on real files, on this machine, by the ways that a user has: uploads in, receipts out."""

from __future__ import annotations

import io
import json
import os
import sys
import time
import zipfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from local.bootstrap import ROOT
from local.demo_syncs import syncs
from local.serve import Local, Settings, serving
from local.showing import WIDTH, drop, final_receipt, say, show, title, told, wait_until
from local.standins.cloudzero import CONNECTIONS
from local.standins.infracost import AWS_ORGANIZATION, AZURE_ORGANIZATION

EXAMPLES = ROOT / "docs" / "examples"
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
        say(f"  stand-ins: Infracost {local.infracost_api_url}, CloudZero {local.cloudzero_api_url},")
        say(f"  ServiceNow {local.servicenow.api_url}, Backstage {local.backstage.api_url}")
        dropped = drops()
        receipts = [shown(local, number, file) for number, file in enumerate(dropped, 1)]
        counted = emitted(local, len(receipts) + 1)
        checks = {**holds_books(local, dropped, receipts), **holds_costs(local, dropped, receipts)}
        streams = [(file.stream, receipt) for file, receipt in zip(dropped, receipts, strict=True) if file.stream]
        checks |= holds_streams(local, [*streams, ("checkout", counted)])
        receipts.append(counted)
        followed, more = syncs(local, len(receipts) + 1)
        receipts += followed
        good = told(checks | more)
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


def shown(local: Local, number: int, file: Drop) -> dict[str, Any]:
    """Drop one file, wait for its receipt, and show it."""
    title(number, file.title)
    began = time.monotonic()
    version = drop(local, file.key, file.body)
    return show(final_receipt(local, lambda found: found["source"]["version"] == version), began)


def emitted(local: Local, number: int) -> dict[str, Any]:
    """Send records to the application queue, each twice; wait for the receipt of their stream, and show it."""
    title(number, f"A service counts its checkouts: {RECORDS} records to the queue, each sent twice")
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
    return show(final_receipt(local, lambda found: found["target"] == "telemetry/checkout"), began)


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


def holds_books(local: Local, dropped: list[Drop], receipts: list[dict[str, Any]]) -> dict[str, bool]:
    """Print what Infracost holds now, and return whether it agrees with every receipt."""
    if local.standin is None:
        return {}
    state = local.standin.state()
    say(f"\n{'-' * WIDTH}\nWhat the Infracost stand-in holds now:")
    books = {book["id"]: book for book in state["price_books"]}
    for book in state["price_books"]:
        rows = sum(part["rows"] for part in book["files"])
        held = f"{len(book['files'])} files, {rows} rows"
        say(f"   price book {book['id']} {book['provider']:5} {book['status']:8} {held}")
    for organization in state["organizations"]:
        say(f"   organization {organization['id']} ({organization['name']}) uses {organization['customPriceBookId']}")
    active = {organization["id"]: organization["customPriceBookId"] for organization in state["organizations"]}
    checks = {"Infracost saw no call that breaks its contract": not state["violations"]}
    for file, receipt in zip(dropped, receipts, strict=True):
        rows = receipt["rows"]
        law = rows["in"] == rows["accepted"] + rows["filtered"] + rows["rejected"] + rows["owed"]
        checks[f"{file.key}: {file.outcome}"] = receipt["outcome"] == file.outcome
        checks[f"{file.key}: rows in = accepted + filtered + rejected + owed"] = law
        if file.organization:
            book = books.get(active[file.organization] or "", {"files": []})
            arrived = sum(part["rows"] for part in book["files"])
            checks[f"{file.key}: the active book holds the {rows['accepted']} rows accepted"] = (
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
    for file, receipt in zip(dropped, receipts, strict=True):
        if not file.connection:
            continue
        held = state["drops"][file.connection][month()]
        money = receipt["money"]
        say(f"   connection {file.connection} {month()} {held['count']:5} rows")
        for column, total in held["totals"].items():
            say(f"      {column:32} {total:>18} US dollars")
            sent = Decimal(money["by_column"][column]["sent"])
            read_back = Decimal(money["by_column"][column]["read_back"])
            checks[f"{file.key}: {column} sent = read back = held, {sent} dollars"] = (
                sent == read_back == Decimal(total)
            )
        accepted = receipt["rows"]["accepted"]
        checks[f"{file.key}: CloudZero holds the {accepted} rows accepted"] = held["count"] == accepted > 0
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


if __name__ == "__main__":
    sys.exit(main())

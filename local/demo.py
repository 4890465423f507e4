"""``make demo``: the main job on real files, on this machine, by the ways that a user has: uploads in, receipts out."""

from __future__ import annotations

import io
import json
import os
import sys
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local.bootstrap import ROOT
from local.serve import Local, Settings, serving
from local.standins.infracost import AWS_ORGANIZATION, AZURE_ORGANIZATION

EXAMPLES = ROOT / "docs" / "examples"
PATIENCE_S = 120.0
WIDTH = 110


@dataclass(frozen=True)
class Drop:
    """One upload of the demo and what it has to lead to."""

    title: str
    key: str
    body: bytes
    outcome: str
    organization: str = ""


def main() -> int:
    """Run the demo; 0 when everything came out as it should."""
    began = time.monotonic()
    settings = Settings.from_environ({name: os.environ[name] for name in ("RELAY_PORT_BASE",) if name in os.environ})
    with serving(settings) as local:
        say(f"The stack of template.yaml is up on this machine ({time.monotonic() - began:.1f} s).")
        say(f"  drops bucket {local.drops_bucket}, Infracost stand-in {local.infracost_api_url}")
        receipts = [shown(local, number, drop) for number, drop in enumerate(drops(), 1)]
        good = holds(local, receipts)
    say(f"\n{'Done' if good else 'NOT as promised'}: {len(receipts)} receipts in {time.monotonic() - began:.0f} s.")
    return 0 if good else 1


def drops() -> list[Drop]:
    """Return the uploads: an Azure sheet in two zipped parts, an AWS sheet, and one that a spreadsheet spoiled."""
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
    ]


def shown(local: Local, number: int, drop: Drop) -> dict[str, Any]:
    """Drop one file, wait for its receipt, and show it."""
    say(f"\n{'-' * WIDTH}\n{number}. {drop.title}")
    say(f"   aws s3 cp {Path(drop.key).name} s3://{local.drops_bucket}/{drop.key}")
    s3 = local.stack.client("s3")
    began = time.monotonic()
    version = s3.put_object(Bucket=local.drops_bucket, Key=drop.key, Body=drop.body)["VersionId"]
    receipt = final_receipt(local, version)
    say(f"   -> {receipt['outcome']} after {time.monotonic() - began:.1f} s. Its receipt:\n")
    for line in json.dumps(abridged(receipt), indent=2).splitlines():
        say(f"   {line}")
    return receipt


def final_receipt(local: Local, version: str) -> dict[str, Any]:
    """Wait for the receipt of an object version to be more than pending. Raises TimeoutError."""
    s3 = local.stack.client("s3")
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        listed = s3.list_objects_v2(Bucket=local.drops_bucket, Prefix="receipts/price-books/")
        for entry in listed.get("Contents", []):
            body = s3.get_object(Bucket=local.drops_bucket, Key=entry["Key"])["Body"].read()
            receipt: dict[str, Any] = json.loads(body)
            if receipt["source"]["version"] == version and receipt["outcome"] != "pending":
                return {**receipt, "stands_at": f"s3://{local.drops_bucket}/{entry['Key']}"}
        time.sleep(0.2)
    msg = f"no receipt within {PATIENCE_S:.0f} s; the functions say:\n"
    logs = [local.stack.logs(name) for name in ("PriceBookPrepareFunction", "InfracostDeliverFunction")]
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
        **({"filtered_by": receipt["filtered_by"]} if receipt["filtered_by"] else {}),
        "units": units,
        "stands_at": receipt["stands_at"],
    }


def holds(local: Local, receipts: list[dict[str, Any]]) -> bool:
    """Print what the vendor holds now, and return whether it agrees with every receipt."""
    if local.standin is None:
        return True
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
    checks = {"the stand-in saw no call that breaks its contract": not state["violations"]}
    for drop, receipt in zip(drops(), receipts, strict=True):
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
    say("")
    for check, passed in checks.items():
        say(f"   {'ok  ' if passed else 'FAIL'} {check}")
    return all(checks.values())


def say(line: str) -> None:
    """Print at once: a demo is watched."""
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())

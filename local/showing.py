"""What the demo prints, and what it waits for."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from local.serve import Local

PATIENCE_S = 120.0
WIDTH = 110


def drop(local: Local, key: str, body: bytes) -> str:
    """Upload a file as a user would; return the version that S3 gave it."""
    say(f"   aws s3 cp {Path(key).name} s3://{local.drops_bucket}/{key}")
    version: str = local.stack.client("s3").put_object(Bucket=local.drops_bucket, Key=key, Body=body)["VersionId"]
    return version


def title(number: int, text: str) -> None:
    """Print what comes next."""
    say(f"\n{'-' * WIDTH}\n{number}. {text}")


def show(receipt: dict[str, Any], began: float) -> dict[str, Any]:
    """Print a receipt that has just come; return it."""
    say(f"   -> {receipt['outcome']} after {time.monotonic() - began:.1f} s. Its receipt:\n")
    for line in json.dumps(abridged(receipt), indent=2).splitlines():
        say(f"   {line}")
    return receipt


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
        "TaggingPolicyPrepare",
        "CustomPropertiesPrepare",
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
        **({"plan": plan_of(receipt["plan"])} if receipt["plan"] else {}),
        **({"filtered_by": receipt["filtered_by"]} if receipt["filtered_by"] else {}),
        "units": units,
        **({"rejected_rows": receipt["rejected_rows"]} if receipt["rejected_rows"] else {}),
        **({"next_command": receipt["next_command"]} if receipt["outcome"] in {"partly_delivered", "held"} else {}),
        "stands_at": receipt["stands_at"],
    }


def told(checks: dict[str, bool]) -> bool:
    """Print the checks; return whether all of them passed."""
    say("")
    for check, passed in checks.items():
        say(f"   {'ok  ' if passed else 'FAIL'} {check}")
    return all(checks.values())


def say(line: str) -> None:
    """Print at once: a demo is watched."""
    print(line, flush=True)


def plan_of(plan: dict[str, Any]) -> dict[str, Any]:
    """Return the parts of a plan that tell the story."""
    return {name: plan[name] for name in ("verdict", "before", "after", "steps", "guards") if plan.get(name)}

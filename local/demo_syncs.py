"""The demo's syncs: tags follow ServiceNow, a guard holds what would do harm, custom properties arrive as they are."""

from __future__ import annotations

import json
import time
import urllib.request
from typing import Any

from local.bootstrap import ROOT
from local.serve import SLUG, Local, put_config
from local.showing import drop, final_receipt, say, show, title
from local.standins.servicenow import TABLE

PROPERTIES = ROOT / "docs" / "examples" / "custom_properties.csv"
KEY = "CostCenter"
BEFORE = [f"CC-{number}" for number in range(1001, 1009)]
"""The values that the policy allows at the beginning."""
TODAY = [*BEFORE[1:], "CC-1009", "CC-1010", "CC-1011"]
"""What ServiceNow has: one is gone, three are new."""
LOST = TODAY[:4]
"""What is left of it after somebody has broken its import: 60 % are gone."""


def syncs(local: Local, number: int) -> tuple[list[dict[str, Any]], dict[str, bool]]:
    """Run the syncs; return their receipts, and whether everything came out as it should."""
    policy = _made_policy(local)
    _configured(local, policy)
    receipts = [_adds_and_removes(local, number)]
    checks = {"ServiceNow: 3 values were added and 1 removed, in one PATCH": _holds(local, policy, TODAY, patches=1)}
    held, released = _lost(local, number + 1)
    checks["ServiceNow lost 60 %: the guard held it, and nothing was written"] = held["outcome"] == "held"
    checks["released by a dropped file: written then"] = released["outcome"] == "delivered"
    checks["the released plan is what the policy holds now"] = _holds(local, policy, LOST, patches=2)
    receipts += [released, _unchanged(local, number + 2)]
    same = receipts[-1]["outcome"] == "unchanged"
    checks["ServiceNow as before: unchanged, no write"] = same and _holds(local, policy, LOST, patches=2)
    receipts += _properties(local, number + 3)
    sent = local.standin.state()["custom_properties"][SLUG] if local.standin else {}
    whole = sent.get("text") == PROPERTIES.read_text() and sent["bytes"] == PROPERTIES.stat().st_size
    checks["custom properties: the bytes that were dropped, with their newlines"] = whole
    checks["the same file again: unchanged, sent once"] = (
        receipts[-1]["outcome"] == "unchanged" and len(sent["uploads"]) == 1
    )
    for receipt in receipts:
        rows = receipt["rows"]
        law = rows["in"] == rows["accepted"] + rows["filtered"] + rows["rejected"] + rows["owed"]
        checks[f"{receipt['kind']} {receipt['outcome']}: rows in = accepted + filtered + rejected + owed"] = law
    return receipts, checks


def _adds_and_removes(local: Local, number: int) -> dict[str, Any]:
    title(number, f"Tag {KEY} follows ServiceNow: since yesterday three cost centres were opened, and one was closed")
    say("   (A schedule reads the source every day at its hour; a file with the suffix .sync does it now.)")
    _set_servicenow(local, TODAY)
    return _synced(local)


def _lost(local: Local, number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    title(number, "ServiceNow has lost 60 % of its rows over night")
    _set_servicenow(local, LOST)
    held = _synced(local)
    say("\n   A person has looked at the plan, and lets it pass:")
    began = time.monotonic()
    drop(local, f"incoming/release/{held['id']}.json", b'{"decision": "send"}')
    released = final_receipt(
        local, lambda found: found["id"] == held["id"] and found["outcome"] not in {"held", "pending"}
    )
    return held, show(released, began)


def _unchanged(local: Local, number: int) -> dict[str, Any]:
    title(number, "The same sync again, with nothing new at its source")
    return _synced(local)


def _properties(local: Local, number: int) -> list[dict[str, Any]]:
    title(number, "Custom properties from a file, and the same file once more")
    found = []
    for _ in range(2):
        began = time.monotonic()
        version = drop(local, "incoming/custom-properties/services.csv", PROPERTIES.read_bytes())
        found.append(show(_receipt_of(local, version), began))
    return found


def _synced(local: Local) -> dict[str, Any]:
    """Have the source read at once; return the receipt."""
    began = time.monotonic()
    version = drop(local, f"incoming/tagging-policies/standard-tags/{KEY}.sync", b"")
    return show(_receipt_of(local, version), began)


def _receipt_of(local: Local, version: str) -> dict[str, Any]:
    return final_receipt(local, lambda found: found["source"]["version"] == version)


def _made_policy(local: Local) -> str:
    """Make a tagging policy, as somebody did in the dashboard long ago; return its id."""
    tag = {"key": KEY, "mandatory": True, "valueType": "LIST", "allowedValues": BEFORE}
    other = {"key": "environment", "mandatory": True, "valueType": "LIST", "allowedValues": ["dev", "prod"]}
    attributes = {"name": "Standard tags", "blockPr": True, "tags": [other, tag]}
    body = {"data": {"type": "tagging-policies", "attributes": attributes}}
    token = local.stack.client("secretsmanager").get_secret_value(SecretId="infracost/default")["SecretString"]
    found = _posted(
        f"{local.infracost_api_url}/orgs/{SLUG}/tagging-policies", body, {"authorization": f"Bearer {token}"}
    )
    policy: str = found["data"]["id"]
    return policy


def _configured(local: Local, policy: str) -> None:
    """Drop the relay.yaml by which the tag follows ServiceNow, and wait until it is in force."""
    text = f"""version: 1
sources:
  servicenow: {{type: servicenow, url: "{local.servicenow.api_url}"}}
tagging_policies:
  standard-tags:
    id: {policy}
    tags:
      {KEY}:
        servicenow:
          source: servicenow
          table: {TABLE}
          query: operational_status=1
          columns: {{value: u_cost_center}}
        rules: {{case: upper, pattern: "CC-[0-9]+"}}
"""
    put_config(local, text.encode(), "relay.yaml of the demo")


def _set_servicenow(local: Local, values: list[str]) -> None:
    """Let the stand-in have a row for each of *values*, and one that is retired."""
    rows = [{"name": f"App {value}", "u_cost_center": value, "operational_status": "1"} for value in values]
    gone = {"name": "Old app", "u_cost_center": "CC-1", "operational_status": "6"}
    local.servicenow.set_table(TABLE, [*rows, gone])


def _holds(local: Local, policy: str, values: list[str], *, patches: int) -> bool:
    """Return whether the policy allows just *values*, beside its other tag, after so many PATCHes in all."""
    if local.standin is None:
        return False
    state = local.standin.state()
    (found,) = [known for known in state["tagging_policies"][SLUG] if known["id"] == policy]
    tags = {tag["key"]: tag.get("allowedValues") for tag in found["attributes"]["tags"]}
    written = sum(call["operation"] == "updateTaggingPolicy" for call in state["calls"])
    return tags == {"environment": ["dev", "prod"], KEY: sorted(values)} and written == patches


def _posted(url: str, body: object, headers: dict[str, str]) -> dict[str, Any]:
    request = urllib.request.Request(  # noqa: S310 -- the stand-in's own address
        url, json.dumps(body).encode(), {"content-type": "application/json", **headers}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 -- as above
        found: dict[str, Any] = json.loads(answer.read())
    return found

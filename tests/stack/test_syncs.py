"""Syncs on the running stack, IAM enforced: all that the roles of the syncs are granted is used on the way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from local.serve import SLUG, put_config
from local.showing import final_receipt
from local.standins.servicenow import TABLE

if TYPE_CHECKING:
    from local.serve import Local

KEY = "CostCenter"
START = [f"CC-{number:03d}" for number in range(100)]


def drop(running: Local, key: str, body: bytes = b"") -> dict[str, Any]:
    """Drop a file; return its receipt once it is over or held."""
    put = running.stack.client("s3").put_object(Bucket=running.drops_bucket, Key=key, Body=body)
    return final_receipt(running, lambda found: found["source"]["version"] == put["VersionId"])


def source_of(running: Local, values: list[str]) -> None:
    """Let ServiceNow have a row for each of *values*."""
    running.servicenow.set_table(TABLE, [{"name": f"App {value}", "u_cost_center": value} for value in values])


@pytest.fixture
def policy(running: Local) -> Iterator[str]:
    """A policy whose tag follows ServiceNow, and custom properties that follow Backstage; its id."""
    assert running.standin is not None
    token = running.stack.client("secretsmanager").get_secret_value(SecretId="infracost/default")["SecretString"]
    from finops_relay.infracost.client import connect  # noqa: PLC0415 -- here alone
    from finops_relay.infracost.models import PolicyChange, Tag  # noqa: PLC0415 -- as above
    from pydantic import SecretStr  # noqa: PLC0415 -- as above

    client = connect(SecretStr(token), running.infracost_api_url)
    tags = (Tag(key=KEY, mandatory=True, value_type="LIST", allowed_values=tuple(START)),)
    made = client.create_tagging_policy(SLUG, PolicyChange(name="Stack tags", tags=tags)).id
    client.close()
    hour = datetime.now(UTC).hour
    config = {
        "sources": {
            "servicenow": {"type": "servicenow", "url": running.servicenow.api_url, "hour_utc": hour},
            "backstage": {"type": "backstage", "url": running.backstage.api_url},
        },
        "tagging_policies": {
            "stack-tags": {
                "id": made,
                "tags": {
                    KEY: {
                        "servicenow": {"source": "servicenow", "table": TABLE, "columns": {"value": "u_cost_center"}},
                        "guards": {"max_number_removed": 60, "max_share_removed": 0.5, "max_share_shrunk": 0.5},
                    }
                },
            }
        },
        "custom_properties": {
            "backstage": {
                "source": "backstage",
                "filters": ["kind=component"],
                "columns": {"service": "metadata.name", "owner": "spec.owner"},
                "refs": {"owner": "full"},
            }
        },
    }
    put_config(running, json.dumps(config).encode(), "the test's relay.yaml")
    yield made
    put_config(running, b"version: 1\n", "the default relay.yaml")


def allowed(running: Local, policy: str) -> list[str]:
    """Return the values that the tag allows at the vendor, which saw no breach of its contract."""
    assert running.standin is not None
    state = running.standin.state()
    assert state["violations"] == []
    (found,) = [known for known in state["tagging_policies"][SLUG] if known["id"] == policy]
    return sorted(found["attributes"]["tags"][0]["allowedValues"])


def test_a_schedule_runs_a_sync_and_what_it_holds_goes_on_by_a_decision(running: Local, policy: str) -> None:
    """Row 16, Row 25: the tick becomes a run of its own; a long plan stands in a file; held, released, delivered."""
    source_of(running, [*START[10:], "CC-new"])
    tick = {"source": "aws.events", "detail-type": "Scheduled Event", "time": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}
    for queue in ("TaggingPolicyPrepareQueue", "CustomPropertiesPrepareQueue"):
        running.stack.client("sqs").send_message(QueueUrl=running.stack.resources[queue], MessageBody=json.dumps(tick))
    begun = f"schedule/tagging-policies/stack-tags/{KEY}/"
    receipt = final_receipt(running, lambda found: found["source"]["key"].startswith(begun))
    assert receipt["outcome"] == "delivered", receipt["reason"]
    assert allowed(running, policy) == [*START[10:], "CC-new"]

    source_of(running, START[:30])
    held = drop(running, f"incoming/tagging-policies/stack-tags/{KEY}.sync")
    assert held["outcome"] == "held", held["reason"]
    whole = held["plan"]["whole_plan"].removeprefix(f"s3://{running.drops_bucket}/")
    text = running.stack.client("s3").get_object(Bucket=running.drops_bucket, Key=whole)["Body"].read()
    assert len(json.loads(text)["removed"]) == 71
    decision = drop(running, f"incoming/release/{held['id']}.json", b'{"decision": "send"}')
    assert decision["outcome"] == "delivered", decision["reason"]
    ended = final_receipt(
        running, lambda found: found["id"] == held["id"] and found["outcome"] not in {"held", "pending"}
    )
    assert ended["outcome"] == "delivered", ended["reason"]
    assert allowed(running, policy) == START[:30]


def test_a_list_with_a_bad_row_is_mended_and_dropped_back(running: Local, policy: str) -> None:
    """Row 5: the bad row comes back by name, the others arrive; mended, it arrives too, and a plan writes nothing."""
    folder = "tagging-policies/stack-tags"
    rows = "\n".join([*START, "CC-\x07"])
    planned = drop(running, f"plan/{folder}/{KEY}.txt", f"{rows}\nCC-planned\n".encode())
    assert (planned["outcome"], planned["plan"]["verdict"]) == ("unchanged", "would_deliver"), planned["reason"]
    receipt = drop(running, f"incoming/{folder}/{KEY}.txt", f"{rows}\n".encode())
    assert receipt["outcome"] == "partly_delivered", receipt["reason"]
    mended = f"value,line,error,fix\nCC-mended,{len(START) + 1},,\n".encode()
    receipt = drop(running, f"incoming/{folder}/mended/{receipt['id']}.csv", mended)
    assert receipt["outcome"] == "delivered", receipt["reason"]
    assert allowed(running, policy) == [*START, "CC-mended"]


def test_custom_properties_follow_backstage(running: Local, policy: str) -> None:
    """The rows of the catalog arrive as one CSV; read again without a change, nothing is sent."""
    del policy
    assert running.standin is not None
    receipt = drop(running, "incoming/custom-properties/properties.sync")
    assert receipt["outcome"] == "delivered", receipt["reason"]
    sent = running.standin.state()["custom_properties"][SLUG]
    assert sent["rows"] == receipt["rows"]["accepted"] > 0
    assert sent["text"].startswith("service,owner\n")
    assert all(line.partition(",")[2].startswith(("group:", "user:")) for line in sent["text"].splitlines()[1:])
    receipt = drop(running, "incoming/custom-properties/properties.sync")
    assert receipt["outcome"] == "unchanged", receipt["reason"]

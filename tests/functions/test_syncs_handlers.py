"""The functions of the syncs as Lambda calls them: batches, schedules, releases, and what must never be seen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml

from local.standins.infracost import TOKEN, InfracostStandIn
from local.standins.servicenow import ServiceNowStandIn
from tests.world.billing import PickyStandIn
from tests.world.lambdas import CONFIG, DELIVER, PROPERTIES, REGION, RELEASE, TAGS, Lambdas, body_of, lambdas
from tests.world.syncs import KEY, ORGANIZATION, POLICY, SLUG, TABLE, applications, policy

FOLDER = f"incoming/tagging-policies/{POLICY}"
PASSWORD = "a-password-for-servicenow-only"
START = ("a", "b", "c", "d")


@pytest.fixture(scope="module")
def standins() -> Iterator[tuple[InfracostStandIn, PickyStandIn, ServiceNowStandIn]]:
    policies = {SLUG: [policy(START)]}
    with (
        InfracostStandIn(policies=policies, organizations={ORGANIZATION: SLUG}) as infracost,
        PickyStandIn("live") as cloudzero,
        ServiceNowStandIn(applications(*START), users={"relay": PASSWORD}) as servicenow,
    ):
        yield infracost, cloudzero, servicenow


@pytest.fixture
def servicenow(standins: tuple[InfracostStandIn, PickyStandIn, ServiceNowStandIn]) -> ServiceNowStandIn:
    return standins[2]


@pytest.fixture
def cloud(
    monkeypatch: pytest.MonkeyPatch, standins: tuple[InfracostStandIn, PickyStandIn, ServiceNowStandIn]
) -> Iterator[Lambdas]:
    infracost, cloudzero, servicenow = standins
    servicenow.reset()
    with lambdas(monkeypatch, running=cloudzero, infracost=infracost) as found:
        yield found


def configure(cloud: Lambdas, servicenow: ServiceNowStandIn, more: str = "") -> None:
    """Let the tag follow ServiceNow, whose user stands in the secret."""
    user = json.dumps({"username": "relay", "password": PASSWORD})
    boto3.client("secretsmanager", REGION).create_secret(Name="sources/cmdb", SecretString=user)
    config = {
        "sources": {"cmdb": {"type": "servicenow", "url": servicenow.api_url}},
        "tagging_policies": {
            POLICY: {
                "tags": {
                    KEY: {"servicenow": {"source": "cmdb", "table": TABLE, "columns": {"value": "u_cost_center"}}},
                    "App": {
                        "servicenow": {"source": "cmdb", "table": TABLE, "columns": {"value": "name"}},
                        "adopt": True,
                    },
                }
            }
        },
    }
    cloud.send(CONFIG, cloud.put("config/relay.yaml", yaml.safe_dump(config).encode() + more.encode()))
    assert cloud.run(CONFIG) == []


def values(cloud: Lambdas, key: str = KEY) -> list[str]:
    """Return what the tag allows at the vendor."""
    state = cloud.vendor.state()
    assert state["violations"] == []
    (found,) = state["tagging_policies"][SLUG]
    return next(sorted(tag["allowedValues"]) for tag in found["attributes"]["tags"] if tag["key"] == key)


def tick(at: str) -> dict[str, Any]:
    """Return what the schedule sends."""
    found: dict[str, Any] = json.loads(body_of("tagging_policy_prepare/scheduled_tick"))
    return found | {"time": at}


def test_a_bad_message_of_a_batch_holds_up_none_of_its_neighbours(cloud: Lambdas) -> None:
    """Row 1: bad JSON and a vanished object go to quarantine; the lists beside them arrive."""
    good = [cloud.put(f"{FOLDER}/{KEY}.txt", b"a\nb\nc\nd\ne\n"), cloud.put(f"{FOLDER}/env.txt", b"prod\ndev\nqa\n")]
    gone = cloud.put(f"{FOLDER}/gone.txt", b"x\n")
    version = gone["Records"][0]["s3"]["object"]["versionId"]
    cloud.s3.delete_object(Bucket="acme-finops-drops", Key=f"{FOLDER}/gone.txt", VersionId=version)
    bad = body_of("tagging_policy_prepare/not_json")
    cloud.send(TAGS, good[0], bad, gone, good[1])

    assert cloud.run(TAGS) == []
    cloud.take_all(DELIVER)

    receipts = cloud.receipts()
    assert receipts[f"{FOLDER}/gone.txt"]["outcome"] == "failed"
    assert receipts[f"{FOLDER}/{KEY}.txt"]["outcome"] == "delivered"
    assert receipts[f"{FOLDER}/env.txt"]["outcome"] == "delivered"
    assert values(cloud) == ["a", "b", "c", "d", "e"]
    assert len([key for key in cloud.keys("quarantine/") if key.endswith("/message")]) == 1


def test_a_tick_becomes_one_message_a_sync_and_a_second_one_nothing(
    cloud: Lambdas, servicenow: ServiceNowStandIn
) -> None:
    """Row 25: two syncs are due, each runs once with its scheduled time as its key, however often the tick comes."""
    configure(cloud, servicenow)
    servicenow.set_table(TABLE, applications(*START, "e")[TABLE])
    cloud.send(TAGS, tick("2026-03-01T03:00:00Z"), tick("2026-03-01T03:00:30Z"))
    assert cloud.run(TAGS) == []
    cloud.send(TAGS, tick("2026-03-01T04:00:00Z"))
    cloud.take_all(TAGS)
    cloud.take_all(DELIVER)

    receipts = cloud.receipts()
    outcomes = {key: receipt["outcome"] for key, receipt in receipts.items() if key.startswith("schedule/")}
    day = "2026-03-01T03:00Z"
    kind = "schedule/tagging-policies"
    assert outcomes == {
        f"{kind}/{POLICY}/{KEY}/{day}": "delivered",
        f"{kind}/{POLICY}/App/{day}": "delivered",
    }
    assert values(cloud) == ["a", "b", "c", "d", "e"]
    assert values(cloud, "App") == ["app a", "app b", "app c", "app d", "app e"]
    assert len(servicenow.state()["calls"]) == 4  # two syncs, a page and an empty one each


def test_what_is_held_goes_on_when_the_release_file_is_dropped(cloud: Lambdas) -> None:
    """Row 16: from the function that holds it to the function that takes decisions, and back."""
    cloud.send(TAGS, cloud.put(f"{FOLDER}/{KEY}.txt", b"a\n"))
    cloud.run(TAGS)
    cloud.run(DELIVER)
    held = cloud.receipts()[f"{FOLDER}/{KEY}.txt"]
    assert held["outcome"] == "held"
    assert values(cloud) == ["a", "b", "c", "d"]

    release = cloud.put(f"incoming/release/{held['id']}.json", b'{"decision": "send"}')
    cloud.send(RELEASE, release)
    assert cloud.run(RELEASE) == []
    assert cloud.run(DELIVER) == []

    assert cloud.receipts()[f"{FOLDER}/{KEY}.txt"]["outcome"] == "delivered"
    assert values(cloud) == ["a"]


def test_custom_properties_go_from_the_drop_to_the_vendor_byte_for_byte(cloud: Lambdas) -> None:
    """What was dropped is what Infracost has, its newlines included."""
    content = b'service,team\n"a, b","x\ny"\nc,z\n'
    cloud.send(PROPERTIES, cloud.replayed("custom_properties_prepare/s3_put", content))
    assert cloud.run(PROPERTIES) == []
    assert cloud.run(DELIVER) == []
    assert cloud.vendor.state()["custom_properties"][SLUG]["text"] == content.decode()


@pytest.mark.parametrize("function", [TAGS, PROPERTIES])
@pytest.mark.parametrize("name", ["s3_put", "s3_put_odd_key", "s3_put_plan", "s3_put_sync", "s3_test_event", "run_due"])
def test_every_recorded_event_is_understood(cloud: Lambdas, function: Any, name: str) -> None:  # noqa: ANN401 -- a module
    """None is given back, none goes to quarantine."""
    folder = (function.__file__ or "").split("/")[-2]
    event = f"{folder}/{name}"
    if name.startswith("s3_put"):
        cloud.send(function, cloud.replayed(event, b"service,value\na,1\nb,2\n"))
    else:
        cloud.send(function, body_of(event))
    assert cloud.run(function) == []
    assert cloud.left(function) == 0
    assert cloud.keys("quarantine/") == []
    cloud.take_all(DELIVER)


def test_nothing_that_the_syncs_write_triggers_a_function(cloud: Lambdas, servicenow: ServiceNowStandIn) -> None:
    """Row 28: receipts, states, plans and rejected rows stand where no notification of the template looks."""
    many = "\n".join(f"value {number}" for number in range(200)).encode()
    for body in (b"a\nb\nc\nd\n\x07\n", many):
        cloud.send(TAGS, cloud.put(f"{FOLDER}/{KEY}.txt", body))
        cloud.run(TAGS)
        cloud.run(DELIVER)
    written = [key for key in cloud.keys("") if not key.startswith(("incoming/", "plan/", "config/"))]
    assert {key.partition("/")[0] for key in written} == {"receipts", "rejected", "state"}
    assert any("/plans/" in key for key in written)
    del servicenow


def test_no_secret_is_in_anything_that_the_syncs_write_or_say(
    cloud: Lambdas, servicenow: ServiceNowStandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    """Row 29: a refused password, a server that echoes it, a refused token: none is in a receipt, a log, the ledger."""
    configure(cloud, servicenow)
    echo = {"error": {"message": f"user relay with password {PASSWORD} is unknown", "detail": PASSWORD}}
    servicenow.faults.add(
        [{"operation": "listRecords", "times": 4, "fault": {"kind": "status", "status": 401, "body": echo}}]
    )
    cloud.send(TAGS, cloud.put(f"{FOLDER}/{KEY}.sync", b""))
    (event,) = [cloud.take(TAGS)]
    assert cloud.invoke(TAGS, event) != []
    cloud.reveal(TAGS, event["Records"][0]["receiptHandle"])
    servicenow.faults.clear()
    assert cloud.run(TAGS) == []
    cloud.vendor.faults.add(
        [{"operation": "*", "times": 3, "fault": {"kind": "status", "status": 403, "body": f"bad {TOKEN}"}}]
    )
    event = cloud.take(DELIVER)
    assert cloud.invoke(DELIVER, event) != []
    cloud.reveal(DELIVER, event["Records"][0]["receiptHandle"])
    cloud.vendor.faults.clear()
    assert cloud.run(DELIVER) == []
    assert cloud.receipts()[f"{FOLDER}/{KEY}.sync"]["outcome"] == "unchanged"

    said = capsys.readouterr()
    kept = json.dumps(boto3.client("dynamodb", REGION).scan(TableName="ledger")["Items"], default=str)
    written = b"".join(cloud.content(key) for key in cloud.keys("")).decode("utf-8", "replace")
    for secret in (PASSWORD, TOKEN):
        assert secret not in said.out + said.err
        assert secret not in kept
        assert secret not in written.replace("config", "")


def test_every_variable_that_the_functions_read_is_given_by_the_template() -> None:
    """The schedule's hour and the queues come from the template."""
    text = (Path(__file__).resolve().parents[2] / "template.yaml").read_text()
    for name in ("SYNC_HOUR_UTC: !Ref SyncHourUtc", "INFRACOST_DELIVER_QUEUE_URL: !Ref InfracostDeliverQueue"):
        assert name in text

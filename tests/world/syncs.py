"""A whole relay for syncs in one process: as `relay`, with strict stand-ins for the sources of truth."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from finops_relay.aws.tables import DynamoLedger
from finops_relay.delivery.identity import ObjectVersion
from finops_relay.delivery.ledger import Delivery
from finops_relay.delivery.ports import Ports
from finops_relay.delivery.receipt import Outcome
from finops_relay.http.auth import Credential, basic
from finops_relay.http.client import HttpClient
from finops_relay.http.retry import RetryPolicy
from finops_relay.infracost.client import Infracost
from finops_relay.jobs.config_check import check_config
from finops_relay.jobs.custom_properties import deliver as properties_deliver
from finops_relay.jobs.custom_properties import prepare as properties_prepare
from finops_relay.jobs.release import release
from finops_relay.jobs.syncing.preparing import Around, Reader
from finops_relay.jobs.tagging_policies import deliver as tags_deliver
from finops_relay.jobs.tagging_policies import prepare as tags_prepare
from finops_relay.jobs.tagging_policies.remembered import KIND as TAGGING_POLICIES
from finops_relay.sources import advice
from finops_relay.sources.backstage import Backstage
from finops_relay.sources.http_json import HttpJson
from finops_relay.sources.servicenow import ServiceNow
from finops_relay.sources.settings import AnySource
from pydantic import SecretStr
from typing_extensions import override

from local.standins.backstage import BackstageStandIn
from local.standins.infracost import InfracostStandIn
from local.standins.servicenow import USERS, ServiceNowStandIn
from tests.world.billing import Asked
from tests.world.memory import MemoryBucket
from tests.world.relay import DROPS, SPOOL, Metrics, World, aws
from tests.world.schedules import Parts

SLUG = "acme"
ORGANIZATION = "a0000000-0000-4000-8000-000000000001"
POLICY = "policy-of-tags"
KEY = "CostCenter"
TAGS = f"incoming/tagging-policies/{POLICY}"
PROPERTIES = "incoming/custom-properties"
TABLE = "cmdb_ci_business_app"
OTHER = {"key": "env", "mandatory": True, "valueType": "LIST", "allowedValues": ["prod", "dev"], "message": "where"}
"""A tag of the policy that nobody here owns."""


def policy(values: Sequence[str], **tag: Any) -> dict[str, Any]:  # noqa: ANN401 -- JSON
    """Return a policy that allows *values* for our tag, beside another tag."""
    ours = {"key": KEY, "mandatory": True, "valueType": "LIST", "allowedValues": list(values), **tag}
    return {"id": POLICY, "name": "Standard tags", "blockPr": True, "tags": [OTHER, ours]}


@dataclass(kw_only=True)
class Syncs(World):
    """What the tests of syncs hold in their hands."""

    servicenow: ServiceNowStandIn
    backstage: BackstageStandIn
    asked: Asked = field(default_factory=Asked)
    hour_utc: int = 3
    password: list[str] = field(default_factory=lambda: [USERS["relay"]])

    # --- what the functions do ----------------------------------------------------------------------------------------

    def around(self, ports: Ports | None = None) -> Around:
        """Return what the preparing jobs need."""
        return Around(ports or self.ports, self.defaults, self.waits, self.source, DROPS, self.hour_utc)

    def source(self, name: str, config: AnySource) -> Reader:
        """Return the reader of a source, as a function would build it, with short time-outs."""
        secret = config.secret or f"sources/{name}"

        def token(_fresh: bool) -> SecretStr | None:  # noqa: FBT001 -- TokenSource is called by position
            return SecretStr("standin-source-token")

        def user(_fresh: bool) -> SecretStr | None:  # noqa: FBT001 -- as above
            import base64  # noqa: PLC0415 -- here alone

            return SecretStr(base64.b64encode(f"relay:{self.password[0]}".encode()).decode())

        auth = Credential(token, secret) if config.type != "servicenow" else basic(user, secret)
        http = HttpClient(
            base_url=config.url.rstrip("/"),
            auth=auth,
            advice={"servicenow": advice.servicenow, "backstage": advice.backstage}.get(config.type, advice.http_json),
            retry=RetryPolicy(attempts=2, base_s=0.001, cap_s=0.01, budget_s=1),
            timeouts=self.timeouts,
            wire=self.wire,
        )
        made: dict[str, Callable[[HttpClient], Reader]] = {"servicenow": ServiceNow, "backstage": Backstage}
        return made.get(config.type, HttpJson)(http)

    def prepare(self, source: ObjectVersion, ports: Ports | None = None) -> Delivery | None:
        """Run the preparing job of the folder once."""
        job = tags_prepare.prepare if "/tagging-policies/" in source.key else properties_prepare.prepare
        return job(source, self.around(ports))

    def tick(self, when: datetime, ports: Ports | None = None) -> list[Delivery]:
        """Let the schedule fire, as both functions hear it; return the runs that were sent on."""
        around = self.around(ports)
        return [*tags_prepare.begin(when, around, self.asked), *properties_prepare.begin(when, around, self.asked)]

    def run(self, delivery_id: str, ports: Ports | None = None) -> Delivery:
        """Run what the schedule has begun, once. Raises Wait."""
        around = self.around(ports)
        found = tags_prepare.run(delivery_id, around) or properties_prepare.run(delivery_id, around)
        assert found is not None
        return found

    def step(
        self, delivery_id: str, ports: Ports | None = None, vendor: Callable[[str], Infracost] | None = None
    ) -> Delivery:
        """Run the delivering job once, as one message would. Raises Wait."""
        ports = ports or self.ports
        delivery = ports.ledger.delivery(delivery_id)
        assert delivery is not None
        job = tags_deliver.deliver if delivery.kind == TAGGING_POLICIES else properties_deliver.deliver
        return job(delivery, ports, vendor or self.client, self.waits)

    # --- whole lives --------------------------------------------------------------------------------------------------

    def deliver_file(self, key: str, body: bytes) -> Delivery:
        """Drop a file and take it to its end, or to where a person must decide."""
        prepared = self.prepare(self.drop(key, body))
        assert prepared is not None
        return prepared if prepared.outcome.final else self.finish(prepared.id)

    def deliver_values(self, *values: str, key: str = KEY, root: str = "incoming") -> Delivery:
        """Drop a list of values and take it to its end."""
        return self.deliver_file(f"{root}/tagging-policies/{POLICY}/{key}.txt", "\n".join([*values, ""]).encode())

    def sync_now(self, key: str = KEY, root: str = "incoming") -> Delivery:
        """Have the source of a tag read at once, and take that to its end."""
        return self.deliver_file(f"{root}/tagging-policies/{POLICY}/{key}.sync", b"")

    def scheduled(self, when: datetime) -> list[Delivery]:
        """Let the schedule fire, and take what it begins to its end."""
        ended = []
        for begun in self.tick(when):
            prepared = self.run(begun.id)
            ended.append(prepared if prepared.outcome.final else self.finish(prepared.id))
        return ended

    def decide(self, held: Delivery, decision: str = "send") -> Delivery:
        """Drop a person's decision, and take the held delivery on."""
        file = self.drop(f"incoming/release/{held.id}.json", json.dumps({"decision": decision}).encode())
        took = release(file, self.ports, self.waits, self.asked)
        assert took is not None
        assert took.outcome is Outcome.DELIVERED, took.reason
        return self.finish(held.id)

    def configure(self, text: str) -> Delivery:
        """Drop a relay.yaml, which must be good."""
        found = check_config(self.drop("config/relay.yaml", text.encode()), self.ports, self.defaults)
        assert found is not None
        assert found.outcome is Outcome.DELIVERED, found.reason
        return found

    # --- looking ------------------------------------------------------------------------------------------------------

    def tags(self) -> dict[str, dict[str, Any]]:
        """Return the tags that the policy has at the vendor, by key."""
        (found,) = [known for known in self.state()["tagging_policies"][SLUG] if known["id"] == POLICY]
        return {tag["key"]: tag for tag in found["attributes"]["tags"]}

    def values(self, key: str = KEY) -> list[str]:
        """Return the values that a tag allows at the vendor."""
        return list(self.tags()[key]["allowedValues"])

    def calls(self) -> list[str]:
        """Return the operations that the vendor was asked for, in order."""
        return [call["operation"] for call in self.vendor.state()["calls"]]

    def plan(self, delivery: Delivery) -> dict[str, Any]:
        """Return the plan that the receipt shows."""
        found: dict[str, Any] = self.receipt(delivery)["plan"]
        return found

    def guards(self, delivery: Delivery) -> dict[str, str]:
        """Return what each guard's verdict is, by its name."""
        return {said["guard"]: said["verdict"] for said in self.plan(delivery)["guards"]}

    def change_by_hand(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Change our tag as somebody would in the dashboard."""
        client = self.client()
        held = client.tagging_policy(SLUG, POLICY)
        tags = []
        for tag in held.attributes.tags or ():
            said = tag.model_dump(by_alias=True, exclude_none=True)
            if tag.key == KEY:
                change(said)
            tags.append(said)
        body = {"data": {"type": "tagging-policies", "attributes": {"tags": tags}}}
        ids = {"orgSlug": SLUG, "policyId": POLICY}
        client.http.request("PATCH", "/orgs/{orgSlug}/tagging-policies/{policyId}", ids=ids, body=body, safe=True)

    def later(self, **span: float) -> None:
        """Turn the clock."""
        self.time[0] += timedelta(**span)


def applications(*names: str, field_name: str = "u_cost_center") -> dict[str, list[dict[str, Any]]]:
    """Return a table with a row for each of *names*."""
    return {TABLE: [{"name": f"app {name}", field_name: name} for name in names]}


def relay_yaml(world: Syncs, more: str = "", tag: str = "", query: str = "") -> str:
    """Return a relay.yaml by which our tag follows ServiceNow; *tag* is added to it, *more* to the whole."""
    asked = f"\n          query: {query}" if query else ""
    return f"""
version: 1
sources:
  cmdb: {{type: servicenow, url: "{world.servicenow.api_url}"}}
  portal: {{type: backstage, url: "{world.backstage.api_url}"}}
  apps: {{type: http_json, url: "{world.backstage.api_url}"}}
tagging_policies:
  {POLICY}:
    tags:
      {KEY}:
        servicenow:
          source: cmdb
          table: {TABLE}
          columns: {{value: u_cost_center}}{asked}
{tag}
{more}
"""


def ledger_of(world: Syncs) -> DynamoLedger:
    """Return the ledger, for a look at what is remembered."""
    return world.ledger


@contextmanager
def syncs(
    values: Sequence[str] = ("a", "b", "c", "d"),
    table: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    running: ServiceNowStandIn | None = None,
    tag: Mapping[str, Any] | None = None,
    **behaviour: Any,  # noqa: ANN401 -- checked by the stand-in
) -> Iterator[Syncs]:
    """Make a world whose policy allows *values*, and whose ServiceNow has *table*."""
    policies = {SLUG: [policy(values, **(tag or {}))]}
    with (
        aws() as parts,
        InfracostStandIn(policies=policies, organizations={ORGANIZATION: SLUG}, **behaviour) as vendor,
        ServiceNowStandIn(table or applications(*values)) if running is None else nullcontext(running) as servicenow,
        BackstageStandIn(tokens=("standin-source-token",)) as backstage,
    ):
        found = Syncs(vendor=vendor, servicenow=servicenow, backstage=backstage, **parts)
        try:
            yield found
        finally:
            found.wire.close()


class StandIns(NamedTuple):
    """The vendor and the sources, for one world after the other: starting them takes longer than most tests."""

    vendor: InfracostStandIn
    servicenow: ServiceNowStandIn
    backstage: BackstageStandIn


@contextmanager
def standins(values: Sequence[str] = ("a", "b", "c", "d")) -> Iterator[StandIns]:
    """Start the vendor, whose policy allows *values*, and the sources, all of them as in `syncs`."""
    with (
        InfracostStandIn(policies={SLUG: [policy(values)]}, organizations={ORGANIZATION: SLUG}) as vendor,
        ServiceNowStandIn(applications(*values)) as servicenow,
        BackstageStandIn(tokens=("standin-source-token",)) as backstage,
    ):
        yield StandIns(vendor, servicenow, backstage)


@contextmanager
def over_aws(running: StandIns) -> Iterator[Syncs]:
    """Make a world beside what is *running*, which forgets all that has happened."""
    for each in running:
        each.reset()
    with aws() as parts:
        found = Syncs(**running._asdict(), **parts)
        try:
            yield found
        finally:
            found.wire.close()


@dataclass(kw_only=True)
class InMemory(Syncs):
    """The same with a ledger and buckets in memory: moto takes 4 ms a call, and a delivery makes forty."""

    parts: Parts

    @override
    def drop(self, key: str, body: bytes, bucket: str = DROPS) -> ObjectVersion:
        self.sequencer += 0x10
        self.time[0] += timedelta(milliseconds=5)
        version = self._bucket(bucket).upload(key, body)
        return ObjectVersion(bucket, key, version, version, len(body), f"{self.sequencer:018X}", self.time[0])

    @override
    def receipt(self, delivery: Delivery) -> dict[str, Any]:
        return self._receipt(delivery.receipt_key)

    @override
    def receipts(self) -> list[dict[str, Any]]:
        return [self._receipt(key) for key in self.keys(DROPS, "receipts/")]

    @override
    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        return [entry.key for entry in self._bucket(bucket).listing(bucket, prefix)]

    @override
    def text(self, key: str, bucket: str = DROPS) -> bytes:
        return self._bucket(bucket).latest(key)

    @override
    def queued(self) -> list[dict[str, Any]]:
        return [{"delivery": message.delivery} for known in self.parts.queue.groups.values() for message in known]

    def _bucket(self, name: str) -> MemoryBucket:
        return {DROPS: self.parts.drops, SPOOL: self.parts.spool}[name]

    def _receipt(self, key: str) -> dict[str, Any]:
        receipt: dict[str, Any] = json.loads(self.text(key))
        rows = receipt["rows"]
        assert rows["in"] == rows["accepted"] + rows["filtered"] + rows["rejected"] + rows["owed"]
        return receipt


@contextmanager
def in_memory(running: StandIns) -> Iterator[InMemory]:
    """Make a world in memory beside what is *running*, which forgets all that has happened."""
    for each in running:
        each.reset()
    parts, metrics, remaining = Parts(), Metrics(), [900.0]
    ports = parts.ports(metrics)
    nowhere: dict[str, Any] = dict.fromkeys(("s3", "sqs", "dynamodb"))
    ledger: Any = parts.ledger
    found = InMemory(
        **running._asdict(),
        **nowhere,
        parts=parts,
        ledger=ledger,
        ports=replace(ports, clock=replace(ports.clock, remaining_s=lambda: remaining[0])),
        metrics=metrics,
        time=parts.time,
        remaining=remaining,
    )
    try:
        yield found
    finally:
        found.wire.close()

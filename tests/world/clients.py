"""Every operation of every document, the client's method that makes it, and how to make it against a stand-in.

The table in docs/clients.md is made of this; `tests/contracts/test_clients.py` makes each call under each fault.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import httpx
from finops_relay.cloudzero.advice import advice as cloudzero_advice
from finops_relay.cloudzero.client import CloudZero
from finops_relay.cloudzero.connect import CLIENTS, credential
from finops_relay.cloudzero.records import (
    AllocationRecord,
    BillingDrop,
    BillingRow,
    BudgetChange,
    ContractName,
    CostQuery,
    DropOperation,
    Granularity,
    InsightChange,
    MetricRecord,
    Period,
    RecordKey,
)
from finops_relay.http.auth import Credential, fixed
from finops_relay.http.client import HttpClient, Timeouts
from finops_relay.http.retry import RetryPolicy
from finops_relay.infracost.advice import advice
from finops_relay.infracost.client import Infracost, api_base
from finops_relay.infracost.models import GuardrailChange, PolicyChange, Provider, Scope, Tag, ValueType
from pydantic import SecretStr

from local.standins.cloudzero import CONNECTION, KEY, CloudZeroStandIn
from local.standins.infracost import AWS_ORGANIZATION, ENTERPRISE, TOKEN, InfracostStandIn
from local.standins.standin import StandIn

SLUG = "primary"
STREAM = "orders.per-day"
SHARES = "cpu.by-team"
FEB = datetime(2026, 2, 1, tzinfo=UTC)
PRICES = (
    b"productcode,instancetype,databaseengine,operatingsystem,deploymentoption,licensemodel,hourlyprice,vcpu,memory,region,"
    b"databaseedition,description\n"
    b"AmazonEC2,m5.large,,Linux,,,0.0815,2,8 GiB,us-east-1,,m5.large Linux\n"
)
PROPERTIES = b"service_id,team\nauth-service,identity\n"
TAG = Tag(key="app_id", mandatory=True, value_type=ValueType.LIST, allowed_values=("b", "a"))
LIMIT = GuardrailChange(name="Limit", scope=Scope.PULL_REQUEST, increase_threshold=Decimal("500.10"))
METRIC = MetricRecord(timestamp=FEB, value=Decimal("12.5"), granularity=Granularity.DAILY, dimensions={"team": "a"})
SHARE = AllocationRecord(timestamp=FEB, value=Decimal(3), granularity=Granularity.DAILY, dimensions={"team": "a"})
NAMED_SHARE = SHARE.model_copy(update={"element_name": "checkout"})
KEY_OF_DAY = RecordKey(timestamp=FEB, granularity=Granularity.DAILY)
ROW = BillingRow(usage_start=FEB, cost=Decimal("-1.10"), columns={"resource/service": "Support"})
ADDED = BillingDrop(rows=(ROW,), operation=DropOperation.SUM)
REPLACED = BillingDrop(rows=(ROW,), operation=DropOperation.REPLACE_HOURLY)
QUERY = CostQuery(start=FEB, end=datetime(2026, 3, 1, tzinfo=UTC), group_by=("Account", "Service"))


class Made:
    """What a call needs to be there, made when it is first asked for."""

    def __init__(self, client: Any, makers: dict[str, Callable[[Any, Made], Any]]) -> None:  # noqa: ANN401 -- either
        self._client = client
        self._makers = makers
        self._made: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 -- an id, or an address
        if name not in self._made:
            self._made[name] = self._makers[name](self._client, self)
        return self._made[name]


@dataclass(frozen=True)
class Calling:
    """One operation, and the method that makes it."""

    operation: str
    method: str
    do: Callable[[Any, Made], object]
    needs: tuple[str, ...] = ()
    """What has to be made before."""
    safe: bool = True
    """Whether the method may be called again when its outcome is unknown."""
    reads: bool = True
    """Whether the method looks into the answer; else any 2xx will do."""
    says: bool = True
    """Whether the vendor's answer has a body."""
    gone: bool = False
    """Whether a second call, after one that was acted on, finds nothing."""
    alone: bool = False
    """Whether the vendor takes one at a time, so that it is not repeated while it may still be at it."""
    replayed: bool = False
    """Whether its idempotency key makes the vendor give its first answer again when that was lost."""


def unsafe(operation: str, method: str, do: Callable[[Any, Made], object], *needs: str, reads: bool = True) -> Calling:
    """Return a call that must not be made again when its outcome is unknown."""
    return Calling(operation, method, do, needs, safe=False, reads=reads, says=reads)


def deletion(
    operation: str, method: str, do: Callable[[Any, Made], object], *needs: str, replayed: bool = False
) -> Calling:
    """Return a call that finds nothing the second time, unless its first answer is given again."""
    return Calling(operation, method, do, needs, reads=False, says=replayed, gone=True, replayed=replayed)


# --- Infracost --------------------------------------------------------------------------------------------------------


def _upload(client: Infracost, made: Made) -> object:
    return client.upload_price_book_file(made.slot, lambda: [PRICES], len(PRICES))


def _ingested(client: Infracost, made: Made) -> str:
    _upload(client, made)
    client.ingest_price_book(ENTERPRISE, made.book)
    client.price_book(ENTERPRISE, made.book)  # the stand-in ends an ingestion at the first poll
    return str(made.book)


def _new_policy(client: Infracost, _: Made) -> str:
    return client.create_tagging_policy(SLUG, PolicyChange(name="Owners", tags=(TAG,))).id


INFRACOST_MAKERS: dict[str, Callable[[Any, Made], Any]] = {
    "book": lambda c, _: c.create_price_book(ENTERPRISE, Provider.AWS).id,
    "slot": lambda c, m: c.add_price_book_file(ENTERPRISE, m.book).pre_signed_url,
    "filled": _upload,
    "ready": _ingested,
    "policy": _new_policy,
    "guardrail": lambda c, _: c.create_guardrail(SLUG, LIMIT).id,
}
ASKED = PolicyChange(message="Ask the platform team")
INFRACOST = (
    Calling("listTaggingPolicies", "tagging_policies", lambda c, _: c.tagging_policies(SLUG)),
    unsafe("createTaggingPolicy", "create_tagging_policy", _new_policy),
    Calling("getTaggingPolicy", "tagging_policy", lambda c, m: c.tagging_policy(SLUG, m.policy), ("policy",)),
    Calling(
        "updateTaggingPolicy",
        "update_tagging_policy",
        lambda c, m: c.update_tagging_policy(SLUG, m.policy, ASKED),
        ("policy",),
    ),
    deletion(
        "deleteTaggingPolicy", "delete_tagging_policy", lambda c, m: c.delete_tagging_policy(SLUG, m.policy), "policy"
    ),
    Calling("listGuardrails", "guardrails", lambda c, _: c.guardrails(SLUG)),
    unsafe("createGuardrail", "create_guardrail", lambda c, _: c.create_guardrail(SLUG, LIMIT)),
    Calling("getGuardrail", "guardrail", lambda c, m: c.guardrail(SLUG, m.guardrail), ("guardrail",)),
    Calling(
        "updateGuardrail",
        "update_guardrail",
        lambda c, m: c.update_guardrail(SLUG, m.guardrail, GuardrailChange(block_pr=True)),
        ("guardrail",),
    ),
    deletion("deleteGuardrail", "delete_guardrail", lambda c, m: c.delete_guardrail(SLUG, m.guardrail), "guardrail"),
    Calling(
        "uploadCustomProperties",
        "upload_custom_properties",
        lambda c, _: c.upload_custom_properties(SLUG, PROPERTIES),
        reads=False,
        says=False,
    ),
    Calling("listPriceBooks", "price_books", lambda c, _: c.price_books(ENTERPRISE)),
    unsafe("createPriceBook", "create_price_book", lambda c, _: c.create_price_book(ENTERPRISE, Provider.AZURE)),
    Calling("getPriceBook", "price_book", lambda c, m: c.price_book(ENTERPRISE, m.book), ("book",)),
    deletion("deletePriceBook", "delete_price_book", lambda c, m: c.delete_price_book(ENTERPRISE, m.book), "book"),
    unsafe(
        "createPriceBookFile", "add_price_book_file", lambda c, m: c.add_price_book_file(ENTERPRISE, m.book), "book"
    ),
    Calling("uploadPriceBookFile", "upload_price_book_file", _upload, ("slot",), reads=False, says=False),
    unsafe("ingestPriceBook", "ingest_price_book", lambda c, m: c.ingest_price_book(ENTERPRISE, m.book), "filled"),
    Calling(
        "updateOrganization",
        "activate_price_book",
        lambda c, m: c.activate_price_book(AWS_ORGANIZATION, m.ready),
        ("ready",),
    ),
)

# --- CloudZero --------------------------------------------------------------------------------------------------------

MONTHLY = BudgetChange(name="Team", amount=Decimal("100.10"), period=Period.MONTHLY)
PLANNED = BudgetChange(name="Team", view_id="v1", monthly_limits={date(2026, 2, 1): Decimal("100.10")})
BOTH_MAKERS: dict[str, Callable[[Any, Made], Any]] = {
    "insight": lambda c, _: c.create_insight(InsightChange(title="Idle")).id,
    "metrics": lambda c, _: c.add_metric_records(STREAM, [METRIC]),
}
OPENAPI_MAKERS: dict[str, Callable[[Any, Made], Any]] = {
    **BOTH_MAKERS,
    "budget": lambda c, _: c.create_budget(MONTHLY).id,
    "shares": lambda c, _: c.add_allocation_records(SHARES, [SHARE]),
}
LIVE_MAKERS: dict[str, Callable[[Any, Made], Any]] = {
    **BOTH_MAKERS,
    "budget": lambda c, _: c.create_budget(PLANNED).id,
    "shares": lambda c, _: c.add_allocation_records(SHARES, [NAMED_SHARE]),
    "rows": lambda c, _: c.create_billing_drop(CONNECTION, ADDED),
}
BOTH = (
    Calling("getBillingCosts", "costs", lambda c, _: list(c.costs(QUERY))),
    Calling("getBillingDimensions", "dimensions", lambda c, _: c.dimensions()),
    Calling("getInsights", "insights", lambda c, _: c.insights()),
    unsafe("createInsight", "create_insight", lambda c, _: c.create_insight(InsightChange(title="Idle"))),
    Calling("getOneInsight", "insight", lambda c, m: c.insight(m.insight), ("insight",)),
    Calling(
        "updateOneInsight",
        "update_insight",
        lambda c, m: c.update_insight(m.insight, InsightChange(description="Since May")),
        ("insight",),
    ),
    Calling("getBudgets", "budgets", lambda c, _: c.budgets()),
    Calling("getOneBudget", "budget", lambda c, m: c.budget(m.budget), ("budget",)),
    Calling(
        "updateOneBudget",
        "update_budget",
        lambda c, m: c.update_budget(m.budget, BudgetChange(name="Crew")),
        ("budget",),
    ),
)
OPENAPI = (
    *BOTH,
    deletion("deleteOneInsight", "delete_insight", lambda c, m: c.delete_insight(m.insight), "insight"),
    unsafe("createBudget", "create_budget", lambda c, _: c.create_budget(MONTHLY)),
    deletion("deleteOneBudget", "delete_budget", lambda c, m: c.delete_budget(m.budget), "budget"),
    unsafe(
        "postMetricTelemetry", "add_metric_records", lambda c, _: c.add_metric_records(STREAM, [METRIC]), reads=False
    ),
    Calling(
        "deleteMetricTelemetry",
        "delete_metric_records",
        lambda c, _: c.delete_metric_records(STREAM, [KEY_OF_DAY]),
        ("metrics",),
        reads=False,
        says=False,
    ),
    deletion("deleteMetricTelemetryStream", "delete_stream", lambda c, _: c.delete_stream(STREAM), "metrics"),
    unsafe(
        "postAllocationTelemetrySum",
        "add_allocation_records",
        lambda c, _: c.add_allocation_records(SHARES, [SHARE]),
        reads=False,
    ),
    Calling(
        "postAllocationTelemetryReplace",
        "replace_allocation_records",
        lambda c, _: c.replace_allocation_records(SHARES, [SHARE]),
        reads=False,
        says=False,
    ),
    Calling(
        "deleteAllocationTelemetry",
        "delete_allocation_records",
        lambda c, _: c.delete_allocation_records(SHARES, [KEY_OF_DAY]),
        ("shares",),
        reads=False,
        says=False,
    ),
    unsafe(
        "createAnyCostBillingDrop",
        "create_billing_drop",
        lambda c, _: c.create_billing_drop(CONNECTION, ADDED),
        reads=False,
    ),
)
LIVE = (
    *BOTH,
    deletion("deleteOneInsight", "delete_insight", lambda c, m: c.delete_insight(m.insight), "insight", replayed=True),
    unsafe("createBudget", "create_budget", lambda c, _: c.create_budget(PLANNED)),
    deletion("deleteOneBudget", "delete_budget", lambda c, m: c.delete_budget(m.budget), "budget", replayed=True),
    unsafe(
        "postMetricTelemetrySum", "add_metric_records", lambda c, _: c.add_metric_records(STREAM, [METRIC]), reads=False
    ),
    Calling(
        "postMetricTelemetryReplace",
        "replace_metric_records",
        lambda c, _: c.replace_metric_records(STREAM, [METRIC]),
        reads=False,
        says=False,
    ),
    Calling(
        "deleteMetricTelemetry",
        "delete_metric_records",
        lambda c, _: c.delete_metric_records(STREAM, [KEY_OF_DAY]),
        ("metrics",),
        reads=False,
        says=False,
    ),
    Calling("getMetricTelemetryRecords", "metric_records", lambda c, _: c.metric_records(STREAM), ("metrics",)),
    Calling("getTelemetryRecords", "telemetry_records", lambda c, _: c.telemetry_records(SHARES), ("shares",)),
    deletion("deleteTelemetryStream", "delete_stream", lambda c, _: c.delete_stream(STREAM), "metrics"),
    unsafe(
        "postAllocationTelemetrySum",
        "add_allocation_records",
        lambda c, _: c.add_allocation_records(SHARES, [NAMED_SHARE]),
        reads=False,
    ),
    Calling(
        "postAllocationTelemetryReplace",
        "replace_allocation_records",
        lambda c, _: c.replace_allocation_records(SHARES, [NAMED_SHARE]),
        reads=False,
        says=False,
    ),
    Calling(
        "deleteAllocationTelemetry",
        "delete_allocation_records",
        lambda c, _: c.delete_allocation_records(SHARES, [KEY_OF_DAY]),
        ("shares",),
        reads=False,
        says=False,
    ),
    Calling(
        "createAnyCostBillingDrop",
        "create_billing_drop",
        lambda c, _: c.create_billing_drop(CONNECTION, REPLACED),
        reads=False,
        alone=True,
    ),
    Calling("getAnyCostBillingDrops", "billing_drops", lambda c, _: c.billing_drops(CONNECTION), ("rows",)),
    Calling("getAnyCostBillingDrop", "billing_drop_rows", lambda c, _: c.billing_drop_rows(CONNECTION, FEB), ("rows",)),
    Calling("validateAnyCostBillingDrop", "validate_billing_drop", lambda c, _: c.validate_billing_drop(REPLACED)),
)


# --- the three documents ----------------------------------------------------------------------------------------------

PATIENT = RetryPolicy(attempts=2, base_s=0.001, cap_s=0.01)
QUICK = Timeouts(connect_s=2, read_s=2, total_s=4)


@dataclass(frozen=True)
class Document:
    """One document, and the client of its API."""

    name: str
    title: str
    calls: tuple[Calling, ...]
    makers: dict[str, Callable[[Any, Made], Any]]
    interface: type
    """The class whose public methods make the calls."""
    beside: frozenset[str] = frozenset()
    """Its methods that are no operation of their own, or none of this contract."""

    def standin(self) -> StandIn:
        """Return the vendor, not yet started."""
        if self is INFRACOST_DOCUMENT:
            return InfracostStandIn(polls_needed=1)
        return CloudZeroStandIn("openapi" if self is OPENAPI_DOCUMENT else "live")

    def client(
        self, vendor: StandIn, wire: httpx.Client, retry: RetryPolicy = PATIENT, timeouts: Timeouts = QUICK
    ) -> Infracost | CloudZero:
        """Return a client of *vendor*."""
        if self is INFRACOST_DOCUMENT:
            auth = Credential(fixed(SecretStr(TOKEN)), "infracost/default")
            return Infracost(HttpClient(api_base(vendor.url), auth, advice, retry=retry, timeouts=timeouts, wire=wire))
        auth = credential(fixed(SecretStr(KEY)), "cloudzero")
        http = HttpClient(vendor.url, auth, cloudzero_advice, retry=retry, timeouts=timeouts, wire=wire)
        return CLIENTS[ContractName(self.name.removeprefix("cloudzero-"))](http)


BODIES = {"drop_body", "drop_envelope", "drop_row", "metric_body", "allocation_body", "close"}
LIVE_ONLY = {
    "replace_metric_records",
    "metric_records",
    "telemetry_records",
    "billing_drops",
    "billing_drop_rows",
    "validate_billing_drop",
}
BY_HOUR = {"billing_drop_hours", "sent_rows"}
"""The one makes the call of `billing_drop_rows` and reads its answer in another way; the other makes none."""
INFRACOST_DOCUMENT = Document(
    "infracost",
    "Infracost",
    INFRACOST,
    INFRACOST_MAKERS,
    Infracost,
    frozenset({"set_allowed_values", "whole_tagging_policy", "close"}),
)
OPENAPI_DOCUMENT = Document(
    "cloudzero-openapi",
    "CloudZero, contract `openapi`",
    OPENAPI,
    OPENAPI_MAKERS,
    CloudZero,
    frozenset(BODIES | LIVE_ONLY | BY_HOUR),
)
LIVE_DOCUMENT = Document(
    "cloudzero-live", "CloudZero, contract `live`", LIVE, LIVE_MAKERS, CloudZero, frozenset(BODIES | BY_HOUR)
)
DOCUMENTS = (INFRACOST_DOCUMENT, OPENAPI_DOCUMENT, LIVE_DOCUMENT)


def table(document: Document) -> str:
    """Return the table of a document's operations, as docs/clients.md has it."""
    lines = ["| operation | method | safe to repeat | test |", "|---|---|---|---|"]
    for calling in document.calls:
        safe = "yes" if calling.safe else "**no**"
        if document is LIVE_DOCUMENT and calling.method == "create_billing_drop":
            safe = "`replace_…`: yes; `sum`: **no**"
        test = f"`{document.name}-{calling.operation}`"
        lines.append(f"| `{calling.operation}` | `{calling.method}` | {safe} | {test} |")
    return "\n".join(lines)

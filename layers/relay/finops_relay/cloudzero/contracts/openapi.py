"""The contract `openapi`: the specification that this project was asked for.

Document: docs/openapi/cloudzero-openapi.yaml. It has no way to read back what was sent, and its drops only append.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, ClassVar

import msgspec
from pydantic import BaseModel
from typing_extensions import override

from finops_relay.cloudzero.client import (
    MAX_COSTS_BYTES,
    CloudZero,
    changing,
    drop_hour,
    fitting,
    outline,
    required,
    some,
    stream_ids,
    zulu,
)
from finops_relay.cloudzero.idempotency import IdempotencyKeys
from finops_relay.cloudzero.records import (
    COST_COLUMNS,
    AllocationRecord,
    BillingDrop,
    Budget,
    BudgetChange,
    ContractName,
    CostGranularity,
    CostQuery,
    CostRow,
    CostType,
    Dimension,
    DropAccepted,
    DropOperation,
    Insight,
    InsightChange,
    MetricRecord,
    RecordKey,
    SentRow,
)
from finops_relay.errors import AnswerNotUnderstood, InputRefused
from finops_relay.http.answers import Answer
from finops_relay.http.client import encoded
from finops_relay.http.pages import Next, pages

COSTS = "/v2/billing/costs"
DIMENSIONS = "/v2/billing/dimensions"
INSIGHTS = "/v2/insights"
INSIGHT = INSIGHTS + "/{insight_id}"
BUDGETS = "/v2/budgets"
BUDGET = BUDGETS + "/{budget_id}"
STREAM = "/v1/telemetry/{stream_name}"
METRICS = STREAM + "/records"
ALLOCATION = "/v1/telemetry/allocation/{stream_name}"
DROPS = "/v2/connections/billing/anycost/{connection_id}/billing_drops"

GRANULARITIES = {CostGranularity.DAILY, CostGranularity.MONTHLY, CostGranularity.CUMULATIVE}
TAG = "resource/tag:"
COLUMNS = {
    "time/usage_start": "timestamp",
    "cost/cost": "cost",
    "resource/service": "service",
    "lineitem/description": "description",
}
"""CBF columns that have a field of their own (contract page, "openapi -> CBF"); others go to the metadata."""


@dataclass(frozen=True)
class OpenapiCloudZero(CloudZero):
    """CloudZero as the specification has it."""

    name: ClassVar[ContractName] = ContractName.OPENAPI
    allocation: ClassVar[str] = ALLOCATION

    def __post_init__(self) -> None:
        """Refuse a test key. Raises NotInContract."""
        if self.test_key:
            self._lacks("has no sandbox")

    @override
    def costs(self, query: CostQuery) -> Iterator[CostRow]:
        if query.granularity is not None and query.granularity not in GRANULARITIES:
            self._lacks(f"has no {query.granularity.value} costs")
        if query.cost_type is CostType.USAGE_AMOUNT:
            self._lacks("has no usage_amount")
        body: dict[str, object] = {"start": zulu(query.start), "end": zulu(query.end)}
        if query.group_by:
            body["group_by"] = query.group_by
        if query.filters:
            body["filter"] = query.filters
        if query.granularity is not None:
            body["granularity"] = query.granularity
        if query.cost_type is not None:
            body["cost_type"] = query.cost_type
        return self._rows(body)

    def _rows(self, body: Mapping[str, object]) -> Iterator[CostRow]:
        for page in pages(self.http, "POST", COSTS, _next, body=body, at_most_whole_bytes=MAX_COSTS_BYTES):
            for found in page.listed("data"):
                series = page.fitted(_Series, found)
                group = {name: value for name, value in (series.group or {}).items() if value is not None}
                for point in series.cost:
                    yield page.fitted(CostRow, {"at": point.timestamp, "value": point.value, "group": group})

    @override
    def dimensions(self) -> tuple[Dimension, ...]:
        answer = self.http.request("GET", DIMENSIONS, safe=True)
        return tuple(answer.fitted(Dimension, found) for found in answer.listed("data"))

    # --- insights -----------------------------------------------------------------------------------------------------

    @override
    def insights(self) -> tuple[Insight, ...]:
        return tuple(_insight(page, found) for page, found in self._listed(INSIGHTS))

    @override
    def insight(self, insight_id: str) -> Insight:
        answer = self.http.request("GET", INSIGHT, ids={"insight_id": insight_id}, safe=True)
        return _insight(answer, answer.under("data"))

    @override
    def create_insight(self, new: InsightChange, keys: IdempotencyKeys | None = None) -> Insight:
        self._without_keys(keys)
        required(dict(new), ["title"], "insight")
        answer = self.http.request("POST", INSIGHTS, body=self._insight_body(new), safe=False)
        return _insight(answer, answer.under("data"))

    @override
    def update_insight(self, insight_id: str, change: InsightChange) -> Insight:
        body = changing(self._insight_body(change), "insight")
        held = self._insight_fields(self.insight(insight_id))
        ids = {"insight_id": insight_id}
        answer = self.http.request("PUT", INSIGHT, ids=ids, body={**held, **body}, safe=True)
        return _insight(answer, answer.under("data"))

    @override
    def delete_insight(self, insight_id: str) -> None:
        self.http.request("DELETE", INSIGHT, ids={"insight_id": insight_id}, safe=True)

    @classmethod
    def _insight_body(cls, change: InsightChange) -> dict[str, object]:
        cls._refuse_lacking(dict(change), ["category", "status", "effort", "cost_impact", "link"], "an insight")
        return cls._insight_fields(change)

    @staticmethod
    def _insight_fields(change: InsightChange) -> dict[str, object]:
        given = {"name": change.title or None, **change.model_dump(include={"description", "filters", "group_by"})}
        return {name: value for name, value in given.items() if value is not None}

    # --- budgets ------------------------------------------------------------------------------------------------------

    @override
    def budgets(self) -> tuple[Budget, ...]:
        return tuple(page.fitted(Budget, found) for page, found in self._listed(BUDGETS))

    @override
    def budget(self, budget_id: str) -> Budget:
        answer = self.http.request("GET", BUDGET, ids={"budget_id": budget_id}, safe=True)
        return answer.fitted(Budget, answer.under("data"))

    @override
    def create_budget(self, new: BudgetChange, keys: IdempotencyKeys | None = None) -> Budget:
        self._without_keys(keys)
        body = {name: value for name, value in self._budget_body(new).items() if value != ""}
        required(body, ["name", "amount", "period"], "budget")
        answer = self.http.request("POST", BUDGETS, body=body, safe=False)
        return answer.fitted(Budget, answer.under("data"))

    @override
    def update_budget(self, budget_id: str, change: BudgetChange) -> Budget:
        body = changing(self._budget_body(change), "budget")
        whole = {**self._budget_fields(self.budget(budget_id)), **body}
        whole = {name: value for name, value in whole.items() if value != ""}
        answer = self.http.request("PUT", BUDGET, ids={"budget_id": budget_id}, body=whole, safe=True)
        return answer.fitted(Budget, answer.under("data"))

    @override
    def delete_budget(self, budget_id: str) -> None:
        self.http.request("DELETE", BUDGET, ids={"budget_id": budget_id}, safe=True)

    @classmethod
    def _budget_body(cls, change: BudgetChange) -> dict[str, object]:
        cls._refuse_lacking(dict(change), ["monthly_limits", "alerts"], "a budget")
        return cls._budget_fields(change)

    @staticmethod
    def _budget_fields(change: BudgetChange) -> dict[str, object]:
        fields = {"name", "amount", "period", "view_id", "notifications"}
        return change.model_dump(include=fields, exclude_none=True)

    # --- telemetry ----------------------------------------------------------------------------------------------------

    @override
    def add_metric_records(self, stream: str, records: Sequence[MetricRecord] | bytes) -> str:
        body = records if isinstance(records, bytes) else self.metric_body(some(records))
        return self._send(METRICS, stream, body, safe=False)

    @override
    def delete_metric_records(self, stream: str, keys: Sequence[RecordKey]) -> None:
        for body in [self._key_body(key) for key in keys]:
            self.http.request("DELETE", METRICS, ids=stream_ids(stream), body=body, safe=True)

    @override
    def delete_stream(self, stream: str) -> None:
        self.http.request("DELETE", STREAM, ids=stream_ids(stream), safe=True)

    @override
    def delete_allocation_records(self, stream: str, keys: Sequence[RecordKey]) -> None:
        bodies = [self._key_body(key) for key in keys]
        for body in bodies:
            required(body, ["granularity"], "deletion of allocation records")
        for body in bodies:
            self.http.request("POST", ALLOCATION + "/delete", ids=stream_ids(stream), body=body, safe=True)

    @classmethod
    def _key_body(cls, key: RecordKey) -> dict[str, object]:
        if key.dimensions or key.element_name:
            cls._lacks("deletes telemetry by timestamp and granularity only")
        body: dict[str, object] = {"timestamp": zulu(key.timestamp)}
        return body if key.granularity is None else {**body, "granularity": key.granularity}

    @classmethod
    @override
    def metric_body(cls, records: Sequence[MetricRecord]) -> bytes:
        return encoded({"records": [_metric(record) for record in records]})

    @classmethod
    @override
    def allocation_body(cls, records: Sequence[AllocationRecord]) -> bytes:
        return encoded({"records": [cls._allocation(record) for record in records]})

    @classmethod
    def _allocation(cls, record: AllocationRecord) -> dict[str, object]:
        if record.element_name:
            cls._lacks("has no element_name: its dimensions name the element")
        several = [name for name, values in record.dimensions.items() if len(values) != 1]
        if several:
            cls._lacks(f"takes one value for each dimension ({', '.join(several)})")
        element = {name: values[0] for name, values in record.dimensions.items()}
        return _record(record, {"element": element} if element else {})

    # --- billing drops ------------------------------------------------------------------------------------------------

    @override
    def create_billing_drop(
        self,
        connection_id: str,
        drop: BillingDrop | bytes,
        keys: IdempotencyKeys | None = None,
    ) -> DropAccepted:
        self._without_keys(keys)
        body = drop if isinstance(drop, bytes) else self.drop_body(drop)
        if isinstance(drop, bytes):
            outline(body, _Drops)
        ids = {"connection_id": connection_id}
        answer = self.http.request("POST", DROPS, ids=ids, body=fitting(body, "POST", DROPS), safe=False)
        return DropAccepted(request_id=answer.request_id)

    @classmethod
    @override
    def drop_envelope(cls, operation: DropOperation, month: date) -> tuple[bytes, bytes]:
        if operation is not DropOperation.SUM:
            cls._lacks(f"has no {operation}: its drops append")
        return b'{"billing_drops":[{"line_items":[', b"]}]}"

    @classmethod
    @override
    def drop_row(cls, cells: Mapping[str, str]) -> bytes:
        """Return a row as this contract writes it: columns without a field of their own become metadata."""
        item: dict[str, object] = {}
        metadata: dict[str, str] = {}
        for column, value in cells.items():
            if column in COLUMNS:
                item[COLUMNS[column]] = Decimal(value) if column == "cost/cost" else value
                continue
            name = column.removeprefix(TAG)
            if name in metadata:
                reason = "a tag has the name of a column, and both would be one entry of the metadata"
                raise InputRefused(reason, value=name, fix="rename the tag, or leave one of them out")
            metadata[name] = value
        return encoded({**item, "metadata": metadata} if metadata else item)

    @classmethod
    @override
    def sent_rows(cls, body: bytes) -> tuple[SentRow, ...]:
        found = []
        for drop in outline(body, _Drops).billing_drops:
            for raw in outline(drop, _Items).line_items:
                row = outline(raw, _SentItem)
                others = (row.metadata.get(name) for name in COST_COLUMNS[1:])
                costs = (row.cost, *(None if cost is None else Decimal(cost) for cost in others))
                found.append(SentRow(drop_hour(row.timestamp), costs, bytes(raw)))
        return tuple(found)

    # --- what the calls share -----------------------------------------------------------------------------------------

    def _without_keys(self, keys: IdempotencyKeys | None) -> None:
        if keys is not None:
            self._lacks("has no idempotency keys")

    def _listed(self, path: str) -> Iterator[tuple[Answer, object]]:
        for page in pages(self.http, "GET", path, _next):
            for found in page.listed("data"):
                yield page, found


class _Drops(msgspec.Struct, forbid_unknown_fields=True):
    """A body of drops, which are not looked at."""

    billing_drops: list[msgspec.Raw]


class _Items(msgspec.Struct, forbid_unknown_fields=True):
    """A drop, its items not looked at."""

    line_items: list[msgspec.Raw]


class _SentItem(msgspec.Struct, gc=False):
    """What counts of an item that is sent."""

    timestamp: str
    cost: Decimal
    metadata: dict[str, str] = {}


class _Point(BaseModel):
    """One amount of a series."""

    timestamp: Any = None
    value: Any


class _Series(BaseModel):
    """The amounts of one group."""

    group: dict[str, str | None] | None = None
    cost: tuple[_Point, ...]


def _next(answer: Answer) -> Next | None:
    """Return the next page: its address. Raises AnswerNotUnderstood when nobody can tell whether there is one."""
    found = answer.json()
    told = found.get("pagination") if isinstance(found, dict) else None
    address = told.get("next") if isinstance(told, dict) else None
    if told is None or (isinstance(told, dict) and address in (None, "")):
        return None
    if not isinstance(address, str):
        msg = "the answer has a next page, but no address of it"
        raise AnswerNotUnderstood(msg, answer.call)
    return Next(address)


def _insight(answer: Answer, found: object) -> Insight:
    held: dict[str, Any] = dict(found) if isinstance(found, dict) else {}
    return answer.fitted(Insight, {**held, "title": held.get("name") or ""})


def _record(record: MetricRecord | AllocationRecord, more: Mapping[str, object]) -> dict[str, object]:
    return {
        "timestamp": zulu(record.timestamp),
        "value": record.value,
        "granularity": record.granularity,
        **more,
    }


def _metric(record: MetricRecord) -> dict[str, object]:
    return _record(record, {"filter": record.dimensions} if record.dimensions else {})

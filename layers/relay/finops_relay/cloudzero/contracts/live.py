"""The contract `live`: what the vendor itself documents today.

Document: docs/openapi/cloudzero-live.yaml. It can replace, read back and judge; a drop's default wipes a month, so the
operation is always written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Context, Decimal, Inexact, InvalidOperation, localcontext
from functools import lru_cache
from typing import Any, ClassVar, TypeVar

import msgspec
from pydantic import TypeAdapter
from typing_extensions import override

from finops_relay.cloudzero.client import (
    MAX_COSTS_BYTES,
    MONTH,
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
    MAX_READ_MAGNITUDE,
    AllocationRecord,
    BillingDrop,
    BillingRow,
    Budget,
    BudgetChange,
    ContractName,
    CostGranularity,
    CostQuery,
    CostRow,
    CostType,
    Dimension,
    DropAccepted,
    DropCheck,
    DropOperation,
    DropSummary,
    Granularity,
    HeldHour,
    HeldRow,
    Insight,
    InsightChange,
    MetricRecord,
    ReadMoment,
    RecordKey,
    SentRow,
    StoredRecord,
    bounded_as_read,
    plain,
)
from finops_relay.errors import AnswerNotUnderstood, InputRefused, VendorError
from finops_relay.http.answers import Answer
from finops_relay.http.client import encoded
from finops_relay.http.pages import Next, pages
from finops_relay.http.redact import one_line

Made = TypeVar("Made")

COSTS = "/v2/billing/costs"
DIMENSIONS = "/v2/billing/dimensions"
INSIGHTS = "/v2/insights"
INSIGHT = INSIGHTS + "/{insight_id}"
BUDGETS = "/v2/budgets"
BUDGET = BUDGETS + "/{budget_id}"
STREAM = "/unit-cost/v1/telemetry/{stream_name}"
METRIC = "/unit-cost/v1/telemetry/metric/{stream_name}"
ALLOCATION = "/unit-cost/v1/telemetry/allocation/{stream_name}"
ANYCOST = "/v2/connections/billing/anycost"
DROPS = ANYCOST + "/{connection_id}/billing_drops"
MONTH_ROWS = DROPS + "/{month}"
VALIDATE = ANYCOST + "/validate_billing_drop"

TEST_KEY = "cloudzero-test-key"
MAX_DIGITS = 15
"""Significant digits of a telemetry value."""
MAX_RECORDS = 1000
"""That one reading of telemetry gives."""
MAX_ERRORS = 100
"""Complaints about one body that are passed on."""
MAX_MONTH_BYTES = 150_000_000
"""Of a month that is read back: a stream holds 70 MB of bodies a month, and an answer may be wordier."""

_SUMS = Context(prec=2 * MAX_READ_MAGNITUDE + 20, traps=[Inexact, InvalidOperation])
"""Adds any amounts of an answer to the last digit, or raises."""


@dataclass(frozen=True)
class LiveCloudZero(CloudZero):
    """CloudZero as the vendor documents it."""

    name: ClassVar[ContractName] = ContractName.LIVE
    allocation: ClassVar[str] = ALLOCATION

    @override
    def costs(self, query: CostQuery) -> Iterator[CostRow]:
        if query.granularity is CostGranularity.CUMULATIVE:
            self._lacks("has no cumulative costs")
        params: dict[str, str | Sequence[str]] = {"start_date": zulu(query.start), "end_date": zulu(query.end)}
        if query.granularity is not None:
            params["granularity"] = query.granularity.value
        if query.group_by:
            params["group_by"] = query.group_by
        if query.filters:
            params["filters"] = encoded(query.filters).decode()
        if query.cost_type is not None:
            suffix = "" if query.cost_type is CostType.USAGE_AMOUNT else "_cost"
            params["cost_type"] = query.cost_type.value + suffix
        return self._rows(params, query.group_by)

    def _rows(self, params: Mapping[str, str | Sequence[str]], group_by: Sequence[str]) -> Iterator[CostRow]:
        for page in pages(self.http, "GET", COSTS, _next, params=params, at_most_whole_bytes=MAX_COSTS_BYTES):
            for found in page.listed("costs"):
                row = found if isinstance(found, dict) else {}
                missing = [name for name in group_by if name not in row]
                if missing:
                    msg = f"a row of costs has no {missing[0]!r}, which was grouped by"
                    raise AnswerNotUnderstood(msg, page.call)
                value = row.get("cost", row.get("usage_amount"))
                group = {name: row[name] for name in group_by if row.get(name) is not None}
                yield page.fitted(CostRow, {"at": row.get("usage_date"), "value": value, "group": group})

    @override
    def dimensions(self) -> tuple[Dimension, ...]:
        answer = self.http.request("GET", DIMENSIONS, safe=True)
        return tuple(answer.fitted(Dimension, found) for found in answer.listed("dimensions"))

    # --- insights -----------------------------------------------------------------------------------------------------

    @override
    def insights(self) -> tuple[Insight, ...]:
        return tuple(_insight(page, found) for page, found in self._listed(INSIGHTS, "insights"))

    @override
    def insight(self, insight_id: str) -> Insight:
        answer = self.http.request("GET", INSIGHT, ids={"insight_id": insight_id}, safe=True)
        return _insight(answer, answer.under("insight"))

    @override
    def create_insight(self, new: InsightChange, keys: IdempotencyKeys | None = None) -> Insight:
        required(dict(new), ["title"], "insight")
        body = self._insight_body(new)
        return self._create(INSIGHTS, body, keys, lambda answer: _insight(answer, answer.under("insight")))

    @override
    def update_insight(self, insight_id: str, change: InsightChange) -> Insight:
        ids, body = {"insight_id": insight_id}, changing(self._insight_body(change), "insight")
        answer = self._write("PATCH", INSIGHT, ids=ids, body=body, safe=True)
        return _insight(answer, answer.under("insight"))

    @override
    def delete_insight(self, insight_id: str) -> None:
        self._write("DELETE", INSIGHT, ids={"insight_id": insight_id}, safe=True)

    @classmethod
    def _insight_body(cls, change: InsightChange) -> dict[str, object]:
        cls._refuse_lacking(dict(change), ["filters", "group_by"], "an insight")
        given = change.model_dump(exclude_none=True, exclude={"filters", "group_by"})
        if change.cost_impact is not None:
            given["cost_impact"] = plain(change.cost_impact)
        return given

    # --- budgets ------------------------------------------------------------------------------------------------------

    @override
    def budgets(self) -> tuple[Budget, ...]:
        return tuple(_budget(page, found) for page, found in self._listed(BUDGETS, "budgets"))

    @override
    def budget(self, budget_id: str) -> Budget:
        answer = self.http.request("GET", BUDGET, ids={"budget_id": budget_id}, safe=True)
        return _budget(answer, answer.under("budget"))

    @override
    def create_budget(self, new: BudgetChange, keys: IdempotencyKeys | None = None) -> Budget:
        required(dict(new), ["name", "view_id", "monthly_limits"], "budget")
        body = self._budget_body(new)
        return self._create(BUDGETS, body, keys, lambda answer: _budget(answer, answer.under("budget")))

    @override
    def update_budget(self, budget_id: str, change: BudgetChange) -> Budget:
        ids, body = {"budget_id": budget_id}, changing(self._budget_body(change), "budget")
        answer = self._write("PATCH", BUDGET, ids=ids, body=body, safe=True)
        return _budget(answer, answer.under("budget"))

    @override
    def delete_budget(self, budget_id: str) -> None:
        self._write("DELETE", BUDGET, ids={"budget_id": budget_id}, safe=True)

    @classmethod
    def _budget_body(cls, change: BudgetChange) -> dict[str, object]:
        cls._refuse_lacking(dict(change), ["amount", "period", "notifications"], "a budget")
        if change.view_id == "":
            cls._lacks("has no budgets without a view")
        limits = change.monthly_limits
        given: dict[str, object] = {
            "name": change.name,
            "view": {"id": change.view_id} if change.view_id is not None else None,
            "planned_limits": None,
            "alerts": change.alerts,
        }
        if limits is not None:
            months = {month_start(day): {"amount": plain(amount)} for day, amount in limits.items()}
            given["planned_limits"] = {"monthly": months}
        return {name: value for name, value in given.items() if value is not None}

    # --- telemetry ----------------------------------------------------------------------------------------------------

    @override
    def add_metric_records(self, stream: str, records: Sequence[MetricRecord] | bytes) -> str:
        return self._metrics(stream, "/sum", records, safe=False)

    @override
    def replace_metric_records(self, stream: str, records: Sequence[MetricRecord] | bytes) -> str:
        return self._metrics(stream, "/replace", records, safe=True)

    def _metrics(self, stream: str, tail: str, records: Sequence[MetricRecord] | bytes, *, safe: bool) -> str:
        body = records if isinstance(records, bytes) else self.metric_body(some(records))
        return self._send(METRIC + tail, stream, body, safe=safe)

    @override
    def delete_metric_records(self, stream: str, keys: Sequence[RecordKey]) -> None:
        body = {"records": [self._metric_key(key) for key in keys]}
        if keys:
            self.http.request("POST", METRIC + "/delete", ids=stream_ids(stream), body=body, safe=True)

    @override
    def delete_stream(self, stream: str) -> None:
        self.http.request("DELETE", STREAM, ids=stream_ids(stream), safe=True)

    @override
    def metric_records(self, stream: str, limit: int = MAX_RECORDS) -> tuple[StoredRecord, ...]:
        return self._stored(METRIC, stream, limit, taken="records")

    @override
    def telemetry_records(self, stream: str, limit: int = MAX_RECORDS) -> tuple[StoredRecord, ...]:
        return self._stored(STREAM + "/records", stream, limit, taken="metric")

    def _stored(self, path: str, stream: str, limit: int, taken: str) -> tuple[StoredRecord, ...]:
        if stream == taken:  # …/metric/records is the stream "records" for one call and "metric" for the other
            reason = "this call cannot read a stream of this name: its address is that of another stream"
            raise InputRefused(reason, value=stream, fix="use the other of metric_records and telemetry_records")
        if not 1 <= limit <= MAX_RECORDS:
            reason = f"1 to {MAX_RECORDS:,} records can be read at once"
            raise InputRefused(reason, value=str(limit), fix="ask for fewer")
        answer = self.http.request("GET", path, ids=stream_ids(stream), params={"limit": str(limit)}, safe=True)
        return tuple(_stored(answer, found) for found in answer.listed("records"))

    @override
    def delete_allocation_records(self, stream: str, keys: Sequence[RecordKey]) -> None:
        body = {"records": [_allocation_key(key) for key in keys]}
        if keys:
            self.http.request("POST", ALLOCATION + "/delete", ids=stream_ids(stream), body=body, safe=True)

    @classmethod
    @override
    def metric_body(cls, records: Sequence[MetricRecord]) -> bytes:
        return encoded({"records": [cls._metric(record) for record in records]})

    @classmethod
    @override
    def allocation_body(cls, records: Sequence[AllocationRecord]) -> bytes:
        return encoded({"records": [_allocation(record) for record in records]})

    @classmethod
    def _metric(cls, record: MetricRecord) -> dict[str, object]:
        if record.granularity is Granularity.HOURLY:
            cls._lacks("has no HOURLY metrics: add the hours up to DAILY")
        body: dict[str, object] = {"timestamp": zulu(record.timestamp), "value": _value(record)}
        body["granularity"] = record.granularity
        return {**body, "associated_cost": record.dimensions} if record.dimensions else body

    @classmethod
    def _metric_key(cls, key: RecordKey) -> dict[str, object]:
        if key.granularity is Granularity.HOURLY:
            cls._lacks("has no HOURLY metrics")
        if key.element_name:
            cls._lacks("has no element_name in metrics")
        several = [name for name, values in key.dimensions.items() if len(values) != 1]
        if several:
            cls._lacks(f"takes one value for each dimension of a metric ({', '.join(several)})")
        found: dict[str, object] = {
            "timestamp": zulu(key.timestamp),
            "granularity": key.granularity,
            "associated_cost": {name: values[0] for name, values in key.dimensions.items()} or None,
        }
        return {name: value for name, value in found.items() if value is not None}

    # --- billing drops ------------------------------------------------------------------------------------------------

    @override
    def create_billing_drop(
        self,
        connection_id: str,
        drop: BillingDrop | bytes,
        keys: IdempotencyKeys | None = None,
    ) -> DropAccepted:
        body = drop if isinstance(drop, bytes) else self.drop_body(drop)
        does = outline(body, _Drop).operation if isinstance(drop, bytes) else drop.operation
        answer = self._write(
            "POST",
            DROPS,
            ids={"connection_id": connection_id},
            body=fitting(body, "POST", DROPS),
            keys=keys,
            safe=does != DropOperation.SUM,
            alone=True,
        )
        return DropAccepted(request_id=answer.request_id, **_told(answer))

    @override
    def billing_drops(self, connection_id: str) -> tuple[DropSummary, ...]:
        ids = {"connection_id": connection_id}
        answer = self.http.request("GET", DROPS, ids=ids, headers_of=lambda _: self._sandbox, safe=True)
        return tuple(answer.fitted(DropSummary, found) for found in answer.listed("billing_drops"))

    @override
    def billing_drop_rows(self, connection_id: str, month: date) -> tuple[BillingRow, ...]:
        answer = self._month(connection_id, month)
        rows = _single(answer, [held for held in _object(answer.json()).values() if isinstance(held, list)])
        return tuple(_billing_row(answer, found) for found in rows)

    @override
    def billing_drop_hours(self, connection_id: str, month: date) -> Mapping[int, HeldHour]:
        return _hours(self._month(connection_id, month))

    def _month(self, connection_id: str, month: date) -> Answer:
        """Ask for what a connection holds of a month."""
        ids = {"connection_id": connection_id, "month": month.strftime(MONTH)}
        return self.http.request(
            "GET", MONTH_ROWS, ids=ids, headers_of=lambda _: self._sandbox, safe=True, at_most_bytes=MAX_MONTH_BYTES
        )

    @override
    def validate_billing_drop(self, drop: BillingDrop | bytes) -> DropCheck:
        body = drop if isinstance(drop, bytes) else self.drop_body(drop)
        answer = self._write("POST", VALIDATE, body=fitting(body, "POST", VALIDATE), safe=True)
        check = answer.fitted(DropCheck, answer.under("connection"))
        said = tuple(one_line(error, *answer.secrets) for error in check.errors[:MAX_ERRORS])
        return check.model_copy(update={"errors": said})

    @classmethod
    @override
    def drop_body(cls, drop: BillingDrop) -> bytes:
        month = drop.month or drop.rows[0].month
        if any(row.month != month for row in drop.rows):
            reason = f"the rows of a drop are of one month, and the first is of {month:%Y-%m}"
            raise InputRefused(reason, fix="make a drop for each month")
        return super().drop_body(drop)

    @classmethod
    @override
    def drop_envelope(cls, operation: DropOperation, month: date) -> tuple[bytes, bytes]:
        return f'{{"month":"{month_start(month)}","operation":"{operation.value}","data":['.encode(), b"]}"

    @classmethod
    @override
    def drop_row(cls, cells: Mapping[str, str]) -> bytes:
        return encoded(cells)

    @classmethod
    @override
    def sent_rows(cls, body: bytes) -> tuple[SentRow, ...]:
        found = []
        for raw in outline(body, _Drop).data:
            row = outline(raw, _SentCosts)
            costs = (row.cost_0, row.cost_1, row.cost_2, row.cost_3, row.cost_4)
            found.append(SentRow(drop_hour(row.start), costs, bytes(raw)))
        return tuple(found)

    # --- what the calls share -----------------------------------------------------------------------------------------

    def _write(  # noqa: PLR0913 -- the parts of a request
        self,
        method: str,
        path: str,
        *,
        safe: bool,
        ids: Mapping[str, str] | None = None,
        body: object = None,
        keys: IdempotencyKeys | None = None,
        alone: bool = False,
    ) -> Answer:
        """Make a write of API V2: with an idempotency key, which hears what becomes of each try."""
        known = keys or IdempotencyKeys()

        def headers_of(former: VendorError | None) -> Mapping[str, str]:
            if former is not None:
                known.hear(former, safe=safe)
            return {**known.header, **self._sandbox}

        try:
            return self.http.request(method, path, ids=ids, body=body, headers_of=headers_of, safe=safe, alone=alone)
        except VendorError as error:
            known.hear(error, safe=safe)
            raise

    def _create(self, path: str, body: object, keys: IdempotencyKeys | None, read: Callable[[Answer], Made]) -> Made:
        """Make something, and read what the vendor says of it; one that cannot be read leaves its key in doubt."""
        known = keys or IdempotencyKeys()
        answer = self._write("POST", path, body=body, keys=known, safe=False)
        try:
            return read(answer)
        except AnswerNotUnderstood as error:
            known.hear(error, safe=False)
            raise

    @property
    def _sandbox(self) -> Mapping[str, str]:
        return {TEST_KEY: self.test_key} if self.test_key else {}

    def _listed(self, path: str, name: str) -> Iterator[tuple[Answer, object]]:
        for page in pages(self.http, "GET", path, _next):
            for found in page.listed(name):
                yield page, found


class _Drop(msgspec.Struct, forbid_unknown_fields=True):
    """A drop's body, its rows not looked at."""

    month: str
    operation: DropOperation
    data: list[msgspec.Raw]


class _SentCosts(
    msgspec.Struct,
    rename={"start": "time/usage_start", **{f"cost_{place}": name for place, name in enumerate(COST_COLUMNS)}},
    gc=False,
):
    """What counts of a row that is sent."""

    start: str
    cost_0: Decimal
    cost_1: Decimal | None = None
    cost_2: Decimal | None = None
    cost_3: Decimal | None = None
    cost_4: Decimal | None = None


def _told(answer: Answer) -> dict[str, Any]:
    """Return what a taken drop's answer says, if anything: it was taken whatever the body looks like."""
    try:
        found = _object(_object(answer.json()).get("connection"))
    except AnswerNotUnderstood:
        return {}
    told: dict[str, Any] = {
        name: one_line(found[name], *answer.secrets)
        for name in ("drop_id", "month")
        if isinstance(found.get(name), str)
    }
    count = found.get("row_count")
    return {**told, "row_count": count} if isinstance(count, int) and not isinstance(count, bool) else told


def month_start(day: date) -> str:
    """Return the month of *day* as the contract writes it."""
    return f"{day:%Y-%m}-01T00:00:00Z"


def _object(found: object) -> dict[str, Any]:
    return found if isinstance(found, dict) else {}


def _next(answer: Answer) -> Next | None:
    """Return the next page: its cursor. Raises AnswerNotUnderstood when nobody can tell whether there is one."""
    told = _object(answer.json()).get("pagination")
    cursor = told.get("cursor") if isinstance(told, dict) else told
    if cursor is None:
        return None
    following = cursor.get("next_cursor") if isinstance(cursor, dict) else None
    more = cursor.get("has_next") if isinstance(cursor, dict) else "unclear"
    if more is False or (more is None and not following):
        return None
    if not (more is True or more is None) or not isinstance(following, str) or not following:
        msg = "the answer has a next page, but no cursor for it"
        raise AnswerNotUnderstood(msg, answer.call)
    return Next(params={"cursor": following})


def _times(found: Mapping[str, Any]) -> dict[str, object]:
    return {"created_at": found.get("created"), "updated_at": found.get("last_updated")}


def _insight(answer: Answer, found: object) -> Insight:
    held = _object(found)
    return answer.fitted(Insight, {**held, **_times(held)})


def _budget(answer: Answer, found: object) -> Budget:
    held = _object(found)
    monthly = _object(_object(held.get("planned_limits")).get("monthly"))
    read = {
        "id": held.get("id"),
        "name": held.get("name") or "",
        "view_id": _object(held.get("view")).get("id"),
        "monthly_limits": {str(day)[:10]: _object(limit).get("amount") for day, limit in monthly.items()},
        "alerts": held.get("alerts"),
        **_times(held),
    }
    return answer.fitted(Budget, read)


def _value(record: MetricRecord | AllocationRecord) -> object:
    """Return a value that the contract takes. Raises InputRefused."""
    if record.value <= 0:
        reason = "a telemetry value is more than 0"
        raise InputRefused(reason, value=str(record.value), fix="to set 0, delete the record")
    digits = "".join(map(str, record.value.as_tuple().digits)).rstrip("0")
    if len(digits) > MAX_DIGITS:
        reason = f"a telemetry value has at most {MAX_DIGITS} significant digits"
        raise InputRefused(reason, value=str(record.value), fix="round it")
    return record.value


def _allocation(record: AllocationRecord) -> dict[str, object]:
    if not record.element_name:
        reason = "an allocation record needs an element_name"
        raise InputRefused(reason, fix="name whose share it is")
    body = {
        "timestamp": zulu(record.timestamp),
        "value": _value(record),
        "granularity": record.granularity,
        "element_name": record.element_name,
    }
    return {**body, "filter": record.dimensions} if record.dimensions else body


def _allocation_key(key: RecordKey) -> dict[str, object]:
    required({"granularity": key.granularity}, ["granularity"], "deletion of allocation records")
    found: dict[str, object] = {
        "timestamp": zulu(key.timestamp),
        "granularity": key.granularity,
        "element_name": key.element_name,
        "filter": key.dimensions,
    }
    return {name: value for name, value in found.items() if value}


def _stored(answer: Answer, found: object) -> StoredRecord:
    held = _object(found)
    dimensions = _object(held.get("filter") or held.get("associated_cost"))
    several = {name: (value,) if isinstance(value, str) else value for name, value in dimensions.items()}
    return answer.fitted(StoredRecord, {**held, "dimensions": several})


def _billing_row(answer: Answer, found: object) -> BillingRow:
    held = _object(found)
    columns = {name: _cell(value) for name, value in held.items() if value is not None}
    start, cost = columns.pop("time/usage_start", None), columns.pop("cost/cost", None)
    return answer.fitted(HeldRow, {"usage_start": start, "cost": cost, "columns": columns})


def _single(answer: Answer, lists: Sequence[Made]) -> Made:
    """Return the only one of *lists*. Raises AnswerNotUnderstood."""
    if len(lists) != 1:
        msg = "the answer has no single list of rows"
        raise AnswerNotUnderstood(msg, answer.call)
    return lists[0]


class _HeldCosts(
    msgspec.Struct,
    rename={"start": "time/usage_start", **{f"cost_{place}": name for place, name in enumerate(COST_COLUMNS)}},
    gc=False,  # it is gone before a cycle could be
):
    """What counts of a row when a month is added up; the rest of it never becomes an object."""

    start: Any = None
    cost_0: Any = None
    cost_1: Any = None
    cost_2: Any = None
    cost_3: Any = None
    cost_4: Any = None


_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_rows = msgspec.json.Decoder(list[msgspec.Raw])
_held_costs = msgspec.json.Decoder(_HeldCosts, float_hook=Decimal)
_moments: TypeAdapter[datetime] = TypeAdapter(ReadMoment)
_NOT_READ = (msgspec.MsgspecError, ValueError, ArithmeticError, RecursionError)
"""What a decoder raises, and a Decimal; all of them quote."""


def _hours(answer: Answer) -> Mapping[int, HeldHour]:
    """Add up the rows of a month, of which never more than one is an object. Raises AnswerNotUnderstood."""
    hours: dict[int, list[Any]] = {}
    with localcontext(_SUMS):
        for number, raw in enumerate(_raw_rows(answer), 1):
            try:
                row = _held_costs.decode(raw)
                held = hours.setdefault(_hour(_text(row.start)), [0, *(None for _ in COST_COLUMNS)])
                held[0] += 1
                costs = (row.cost_0, row.cost_1, row.cost_2, row.cost_3, row.cost_4)
                for place, cost in enumerate(costs, 1):
                    if cost is not None and cost != "":
                        held[place] = Decimal(_text(cost)) + (held[place] or 0)
            except _NOT_READ:
                msg = f"row {number:,} of the month has a time or an amount that cannot be understood"
                raise AnswerNotUnderstood(msg, answer.call) from None
    return {hour: HeldHour(rows, _bounded(answer, costs)) for hour, (rows, *costs) in sorted(hours.items())}


def _raw_rows(answer: Answer) -> Sequence[msgspec.Raw]:
    """Return the rows of a month as they stand in the answer. Raises AnswerNotUnderstood."""
    try:
        members = _members.decode(answer.body)
        return _rows.decode(_single(answer, [held for held in members.values() if bytes(memoryview(held)[:1]) == b"["]))
    except msgspec.ValidationError:
        return _single(answer, ())
    except _NOT_READ:
        msg = "the answer is JSON that is cut short or malformed"
        raise AnswerNotUnderstood(msg, answer.call) from None


@lru_cache(maxsize=10_000)
def _hour(start: str) -> int:
    """Return the hour since the epoch of a time; a month has 744 of them, on a million rows. Raises ValueError."""
    return int(_moments.validate_python(start).timestamp() // 3600)


def _bounded(answer: Answer, costs: Sequence[Decimal | None]) -> tuple[Decimal | None, ...]:
    """Return sums, which are of a size that amounts may have. Raises AnswerNotUnderstood."""
    try:
        return tuple(cost if cost is None else bounded_as_read(cost) for cost in costs)
    except ValueError:
        msg = "an hour of the month has an amount that cannot be understood"
        raise AnswerNotUnderstood(msg, answer.call) from None


def _text(value: object) -> str:
    """Return the text of a cell that is text or a number. Raises ValueError."""
    cell = _cell(value)
    if not isinstance(cell, str):
        msg = "the cell is neither text nor a number"
        raise ValueError(msg)  # noqa: TRY004 -- as everything that cannot be read
    return cell


def _cell(value: object) -> object:
    """Return the text of a cell; what is neither text nor a number stays, and does not fit."""
    if isinstance(value, Decimal) and abs(value.adjusted()) <= MAX_READ_MAGNITUDE:
        return plain(value)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

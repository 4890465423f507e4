"""Billing drops at the CloudZero stand-in: months of rows on AnyCost Stream connections, sent, read back and judged."""

from __future__ import annotations

import json
import re
import threading
import uuid
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from werkzeug.wrappers import Response

from local.standins.cloudzero_json import dump, plain, total
from local.standins.cloudzero_rows import CBF_COSTS, cbf_fault, hour_of, item_fault
from local.standins.standin import Call, Refusal, answer, now

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from local.standins.cloudzero_account import Account

_ACCEPTED, _BAD_REQUEST, _NOT_FOUND = 202, 400, 404
_OPERATIONS = ("replace_drop", "replace_hourly", "sum")
_MONTH_LENGTH = len("2026-02")
_MONTH_START = "-01T00:00:00Z"
_MONTH = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])-01T00:00:00(Z|\+00:00)")
_ERRORS_NAMED = 100
"""How many faults a verdict names."""


@dataclass(frozen=True)
class Hour:
    """The rows of an hour, which do not change; as compact JSON, because a month of them as objects is a gigabyte."""

    rows: tuple[str, ...] = ()
    totals: Mapping[str, Decimal] = field(default_factory=dict)
    """Of each cost column that a row has."""
    size_bytes: int = 0

    def __add__(self, other: Hour) -> Hour:
        """Give both hours' rows."""
        return Hour(self.rows + other.rows, _summed([self.totals, other.totals]), self.size_bytes + other.size_bytes)


@dataclass(frozen=True)
class Content:
    """What a month holds."""

    drop_id: str
    hours: Mapping[str, Hour]

    @property
    def row_count(self) -> int:
        """How many rows there are."""
        return sum(len(hour.rows) for hour in self.hours.values())

    @property
    def size_bytes(self) -> int:
        """How many bytes of compact JSON they are."""
        return sum(hour.size_bytes for hour in self.hours.values())

    def rows(self) -> Iterator[str]:
        """Yield the rows by hour, each as JSON."""
        for _, hour in sorted(self.hours.items()):
            yield from hour.rows

    def summary(self, month: str) -> dict[str, Any]:
        """Give the drop as the API shows it."""
        return {"drop_id": self.drop_id, "month": f"{month}{_MONTH_START}", "row_count": self.row_count}


class Month:
    """A month of a connection, which may be seen late."""

    def __init__(self) -> None:
        self.content: Content | None = None
        self._former: Content | None = None
        self._lag = 0

    def change(self, content: Content, lag_reads: int) -> None:
        """Hold other rows; the next *lag_reads* reads still show what they would have shown before."""
        if not self._lag:
            self._former = self.content
        self.content, self._lag = content, lag_reads

    def read(self) -> Content | None:
        """Give what a read shows."""
        if self._lag:
            self._lag -= 1
            return self._former
        return self.content


class Turns:
    """One request at a time on a connection; whoever comes meanwhile is noted. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._busy: set[str] = set()
        self.overlaps: list[dict[str, str]] = []

    @contextmanager
    def taken(self, call: Call) -> Iterator[bool]:
        """Say whether the call has its connection for itself, or needs none, for as long as it lasts."""
        connection = call.parameters.get("connection_id")
        if connection is None:
            yield True
            return
        with self._lock:
            alone = connection not in self._busy
            self._busy.add(connection)
            if not alone:
                overlap = {"connection": connection, "operation": call.operation.id, "request_id": call.request_id}
                self.overlaps.append(overlap | {"time": now()})
        try:
            yield alone
        finally:
            if alone:
                with self._lock:
                    self._busy.discard(connection)


class Drops:
    """The billing drops' operations.

    Args:
        account: Whose drops.
    """

    def __init__(self, account: Account) -> None:
        self._account = account
        self.forget()

    def handlers(self) -> dict[str, Callable[[Call], Response]]:
        """Give the handler of each operation of either contract."""
        if not self._account.live:
            return {"createAnyCostBillingDrop": self.append}
        return {
            "createAnyCostBillingDrop": self.create,
            "getAnyCostBillingDrops": self.months,
            "getAnyCostBillingDrop": self.get,
            "validateAnyCostBillingDrop": self.judge,
        }

    def forget(self) -> None:
        """Drop every row."""
        self._months: dict[tuple[str, str], dict[str, Month]] = defaultdict(lambda: defaultdict(Month))

    def holdings(self) -> dict[str, Any]:
        """Give the months of each connection, and apart from them those of each sandbox, as `/_state` shows them."""
        real: dict[str, Any] = {}
        sandboxes: dict[str, Any] = defaultdict(dict)
        for (sandbox, connection), months in self._months.items():
            held = {name: self._holding(month.content) for name, month in sorted(months.items()) if month.content}
            if held:
                (sandboxes[sandbox] if sandbox else real)[connection] = held
        return {"drops": real, "sandbox_drops": dict(sandboxes)}

    # The operations.

    def create(self, call: Call) -> Response:
        """Take the rows of one month in (live)."""
        connection = self._connection(call)
        rows: list[Any] = call.body["data"]
        operation: str = call.body.get("operation", "replace_drop")
        hours, month = self._read(rows, call.body.get("month", "")[:_MONTH_LENGTH])
        held = self._months[self._account.sandbox(call), connection][month]
        before = held.content
        drop_id = str(uuid.uuid4()) if before is None or operation == "replace_drop" else before.drop_id
        kept: dict[str, Hour] = {}
        if before is not None and operation != "replace_drop":
            kept = {hour: content for hour, content in before.hours.items() if operation == "sum" or hour not in hours}
        content = Content(drop_id, _merged(kept, hours))
        self._check_limits(month, content)
        held.change(content, self._account.config.read_lag_reads)
        self._account.took(call, connection, operation, len(rows))
        return answer({"connection": content.summary(month)})

    def append(self, call: Call) -> Response:
        """Add line items to their months (openapi)."""
        connection = self._connection(call)
        months: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
        count = 0
        for place, drop in enumerate(call.body["billing_drops"]):
            for index, item in enumerate(_items(drop, place)):
                pointer = f"/billing_drops/{place}/line_items/{index}"
                _refuse_fault(item_fault(item), f"Line item {index} of billing drop {place}", pointer)
                hour = hour_of(item["timestamp"]) or ""
                months[hour[:_MONTH_LENGTH]][hour].append(item)
                count += 1
        held = self._months["", connection]
        contents = {}
        for month, items in months.items():
            before = held[month].content or Content(str(uuid.uuid4()), {})
            hours = {hour: _hour(rows, ("cost",)) for hour, rows in items.items()}
            contents[month] = Content(before.drop_id, _merged(before.hours, hours))
            self._check_limits(month, contents[month])
        for month, content in contents.items():
            held[month].change(content, 0)
        self._account.took(call, connection, "append", count)
        return Response(status=_ACCEPTED)

    def months(self, call: Call) -> Response:
        """List the months of a connection."""
        months = self._months[self._account.sandbox(call), self._connection(call)]
        seen = {month: held.read() for month, held in sorted(months.items())}
        return answer({"billing_drops": [content.summary(month) for month, content in seen.items() if content]})

    def get(self, call: Call) -> Response:
        """Read the rows of a month back."""
        months = self._months[self._account.sandbox(call), self._connection(call)]
        name = call.parameters["month"]
        content = months[name].read() if name in months else None
        if content is None:
            raise Refusal(_NOT_FOUND, f"There is no billing drop for {name}.")
        return Response(f'{{"billing_drop": [{",".join(content.rows())}]}}', content_type="application/json")

    def judge(self, call: Call) -> Response:
        """Say what `create` would find wrong with a body."""
        body: dict[str, Any] = call.body
        faults = [f"{name!r} is no member of a billing drop." for name in body.keys() - {"month", "operation", "data"}]
        if body.get("operation", "sum") not in _OPERATIONS:
            faults.append(f"operation is not one of {', '.join(_OPERATIONS)}.")
        month = body.get("month")
        if month is not None and (not isinstance(month, str) or not _MONTH.fullmatch(month)):
            faults.append(f"month is not the first instant of a month: {month!r}.")
            month = None
        for index, row in enumerate(body["data"]):
            fault = cbf_fault(row)
            if not fault:
                month = month or row["time/usage_start"]
                fault = _other_month(row, month[:_MONTH_LENGTH])
            if fault:
                faults.append(f"Row {index} {fault}.")
        return answer({"connection": {"is_valid": not faults, "errors": faults[:_ERRORS_NAMED]}})

    # Parts of them.

    def _connection(self, call: Call) -> str:
        connection = call.parameters["connection_id"]
        if connection not in self._account.config.connections:
            raise Refusal(_NOT_FOUND, f"There is no AnyCost Stream connection {connection}.")
        return connection

    @staticmethod
    def _read(rows: list[Any], month: str) -> tuple[dict[str, Hour], str]:
        """Check each row, and put it to its hour; the first row says the month when the body does not."""
        hours: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for index, row in enumerate(rows):
            fault = cbf_fault(row)
            if not fault:
                month = month or row["time/usage_start"][:_MONTH_LENGTH]
                fault = _other_month(row, month)
            _refuse_fault(fault, f"Row {index}", f"/data/{index}")
            hours[hour_of(row["time/usage_start"]) or ""].append(row)
        if not month:
            raise Refusal(_BAD_REQUEST, "There is neither a month nor a row that says it.", "/data")
        return {hour: _hour(of_hour, CBF_COSTS) for hour, of_hour in hours.items()}, month

    def _check_limits(self, month: str, content: Content) -> None:
        config = self._account.config
        if content.row_count > config.month_rows:
            detail = f"{month} would have {content.row_count} rows; {config.month_rows} are the limit."
            raise Refusal(_BAD_REQUEST, detail)
        if content.size_bytes > config.month_bytes:
            detail = f"{month} would have {content.size_bytes} bytes; {config.month_bytes} are the limit."
            raise Refusal(_BAD_REQUEST, detail)

    def _holding(self, content: Content) -> dict[str, Any]:
        # Numbers are shown as the strings that they were written as, so that no reader rounds them.
        rows = [json.loads(row, parse_float=str, parse_int=str) for row in content.rows()]
        totals = _summed(hour.totals for hour in content.hours.values())
        return {
            "drop_id": content.drop_id,
            "count": content.row_count,
            "bytes": content.size_bytes,
            "totals": {column: plain(amount) for column, amount in totals.items()},
            "hours": {hour: len(held.rows) for hour, held in sorted(content.hours.items())},
        } | ({"rows": rows} if self._account.config.rows_in_state else {})


def _items(drop: object, place: int) -> list[Any]:
    """Give the line items of a drop, which may stand behind those that the document was kept for."""
    if not isinstance(drop, dict) or drop.keys() != {"line_items"} or not isinstance(drop["line_items"], list):
        detail = f"Billing drop {place} is not an object with a list of line items."
        raise Refusal(_BAD_REQUEST, detail, f"/billing_drops/{place}")
    return drop["line_items"]


def _refuse_fault(fault: str, name: str, pointer: str) -> None:
    if fault:
        raise Refusal(_BAD_REQUEST, f"{name} {fault}.", pointer)


def _other_month(row: dict[str, str], month: str) -> str:
    start = row["time/usage_start"]
    return "" if start.startswith(month) else f"is not of {month}: time/usage_start is {start}"


def _hour(rows: list[dict[str, Any]], columns: Iterable[str]) -> Hour:
    texts = tuple(dump(row) for row in rows)
    amounts = ({name: Decimal(row[name]) for name in columns if name in row} for row in rows)
    return Hour(texts, _summed(amounts), sum(len(text) for text in texts))


def _summed(amounts: Iterable[Mapping[str, Decimal]]) -> dict[str, Decimal]:
    sums: dict[str, Decimal] = {}
    for each in amounts:
        for column, amount in each.items():
            sums[column] = total(sums.get(column, Decimal(0)), amount)
    return sums


def _merged(one: Mapping[str, Hour], other: Mapping[str, Hour]) -> dict[str, Hour]:
    hours = dict(one)
    for name, hour in other.items():
        hours[name] = hours[name] + hour if name in hours else hour
    return hours

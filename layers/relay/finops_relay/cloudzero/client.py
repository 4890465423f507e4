"""CloudZero, whole, under either contract: what can be asked for, and whether repeating it can do harm.

`contracts.openapi` and `contracts.live` say how each call is made; `connect` finds out which of them a tenant speaks.
Documents: docs/openapi/cloudzero-openapi.yaml and docs/openapi/cloudzero-live.yaml, with the source of each part.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, ClassVar, NoReturn, TypeVar

import msgspec

from finops_relay.cloudzero.advice import MAX_BODY_BYTES
from finops_relay.cloudzero.idempotency import IdempotencyKeys
from finops_relay.cloudzero.records import (
    AllocationRecord,
    BillingDrop,
    BillingRow,
    Budget,
    BudgetChange,
    ContractName,
    CostQuery,
    CostRow,
    Dimension,
    DropAccepted,
    DropCheck,
    DropOperation,
    DropSummary,
    HeldHour,
    Insight,
    InsightChange,
    MetricRecord,
    RecordKey,
    SentRow,
    StoredRecord,
)
from finops_relay.errors import BodyTooLarge, Call, InputRefused, NotInContract
from finops_relay.http.client import HttpClient

STREAM = re.compile(r"[\w.-]{1,256}", re.ASCII)
"""Names of telemetry streams (contract page, "Telemetry"); only letters of ASCII, which both contracts take alike."""
MONTH = "%Y-%m"
MAX_COSTS_BYTES = 10_000_000_000
"""Of all pages of costs together, which are used page by page: more is a list without an end."""


@dataclass(frozen=True)
class CloudZero(ABC):
    """A client for one API key.

    Each method raises VendorError, as the tree in `finops_relay.errors` says, and NotInContract where the tenant's
    contract has no such call or field, besides what it names itself. "Safe" and "unsafe" say whether the same call may
    be made again when its outcome is unknown.

    Args:
        http: the core, with the API's address and the key.
        test_key: under ``live``, writes of API V2 go to a sandbox of this name that is purged after an hour.
    """

    http: HttpClient
    test_key: str = ""

    name: ClassVar[ContractName]
    allocation: ClassVar[str]
    """Path of an allocation stream, which both contracts continue alike."""

    def close(self) -> None:
        """Close the connections."""
        self.http.wire.close()

    # --- billing ------------------------------------------------------------------------------------------------------

    @abstractmethod
    def costs(self, query: CostQuery) -> Iterator[CostRow]:
        """Yield what was spent, page by page as it is asked for. Safe.

        Under ``live`` a tenant may ask 60 times a day; further pages of one question do not count.
        Raises NotInContract for a granularity or a cost type that the contract lacks.
        """

    @abstractmethod
    def dimensions(self) -> tuple[Dimension, ...]:
        """Return what costs can be grouped and filtered by. Safe."""

    # --- insights -----------------------------------------------------------------------------------------------------

    @abstractmethod
    def insights(self) -> tuple[Insight, ...]:
        """Return all insights. Safe."""

    @abstractmethod
    def insight(self, insight_id: str) -> Insight:
        """Return an insight. Safe."""

    @abstractmethod
    def create_insight(self, new: InsightChange, keys: IdempotencyKeys | None = None) -> Insight:
        """Create an insight; it needs a title. UNSAFE: each call makes another one.

        Under ``live`` the same *keys* make a repetition harmless when no answer came.
        """

    @abstractmethod
    def update_insight(self, insight_id: str, change: InsightChange) -> Insight:
        """Set what *change* names, and nothing else. Safe: it sets values.

        One PATCH under ``live``. ``openapi`` only replaces an insight whole: there it is read first and sent back with
        the change, so that another's change in between is lost.
        """

    @abstractmethod
    def delete_insight(self, insight_id: str) -> None:
        """Delete an insight. Safe: a second time it is not found."""

    # --- budgets ------------------------------------------------------------------------------------------------------

    @abstractmethod
    def budgets(self) -> tuple[Budget, ...]:
        """Return all budgets. Safe."""

    @abstractmethod
    def budget(self, budget_id: str) -> Budget:
        """Return a budget. Safe."""

    @abstractmethod
    def create_budget(self, new: BudgetChange, keys: IdempotencyKeys | None = None) -> Budget:
        """Create a budget. UNSAFE: each call makes another one; *keys* as for `create_insight`.

        It needs a name, and under ``openapi`` an amount and a period, under ``live`` a view and monthly limits.
        """

    @abstractmethod
    def update_budget(self, budget_id: str, change: BudgetChange) -> Budget:
        """Set what *change* names, and nothing else. Safe; under ``openapi`` as `update_insight`."""

    @abstractmethod
    def delete_budget(self, budget_id: str) -> None:
        """Delete a budget. Safe: a second time it is not found."""

    # --- telemetry ----------------------------------------------------------------------------------------------------

    @abstractmethod
    def add_metric_records(self, stream: str, records: Sequence[MetricRecord] | bytes) -> str:
        """Add records to a unit metric stream; return the request's id. UNSAFE: what is sent twice counts twice.

        Args:
            stream: its name; the first record makes it, and freezes its dimensions' names and its granularity.
            records: or a body that `metric_body` made.
        """

    def replace_metric_records(self, stream: str, records: Sequence[MetricRecord] | bytes) -> str:
        """Set records of a unit metric stream; return the request's id. Safe. ``live`` only.

        What it replaces has the same timestamp, granularity and dimensions: add up by these first, since of two records
        alike the later one stays. Under ``openapi``, delete the period and add.
        """
        del stream, records
        self._lacks("replaces no metric records: delete the period's records, then add")

    @abstractmethod
    def delete_metric_records(self, stream: str, keys: Sequence[RecordKey]) -> None:
        """Delete the records of a unit metric stream that match any of *keys*. Safe.

        One call under ``live``; under ``openapi`` one for each key.
        """

    @abstractmethod
    def delete_stream(self, stream: str) -> None:
        """Delete a stream with all that it holds; under ``live`` it may take a while. Safe: then it is not found."""

    def metric_records(self, stream: str, limit: int = 1000) -> tuple[StoredRecord, ...]:
        """Return the latest records of a unit metric stream, 1 to 1,000. Safe. ``live`` only."""
        del stream, limit
        self._lacks("has no way to read telemetry")

    def telemetry_records(self, stream: str, limit: int = 1000) -> tuple[StoredRecord, ...]:
        """Return the latest records of a stream of either kind, 1 to 1,000. Safe. ``live`` only."""
        del stream, limit
        self._lacks("has no way to read telemetry")

    def add_allocation_records(self, stream: str, records: Sequence[AllocationRecord] | bytes) -> str:
        """Add records to an allocation stream; return the request's id. UNSAFE: what is sent twice counts twice.

        *records* may be a body that `allocation_body` made.
        """
        body = records if isinstance(records, bytes) else self.allocation_body(some(records))
        return self._send(self.allocation + "/sum", stream, body, safe=False)

    def replace_allocation_records(self, stream: str, records: Sequence[AllocationRecord] | bytes) -> str:
        """Set records of an allocation stream; return the request's id. Safe.

        Under ``live`` it replaces by timestamp, granularity, element and dimensions; under ``openapi`` whatever the
        stream holds at the timestamp and granularity.
        """
        body = records if isinstance(records, bytes) else self.allocation_body(some(records))
        return self._send(self.allocation + "/replace", stream, body, safe=True)

    @abstractmethod
    def delete_allocation_records(self, stream: str, keys: Sequence[RecordKey]) -> None:
        """Delete the records of an allocation stream that match any of *keys*. Safe; calls as for metrics."""

    # --- billing drops ------------------------------------------------------------------------------------------------

    @abstractmethod
    def create_billing_drop(
        self,
        connection_id: str,
        drop: BillingDrop | bytes,
        keys: IdempotencyKeys | None = None,
    ) -> DropAccepted:
        """Send costs to an AnyCost Stream connection, never two at once to one connection.

        UNSAFE for ``sum``, which is all that ``openapi`` has: what is sent twice counts twice. Safe for the two that
        replace, as long as nothing else was sent in between.

        Args:
            connection_id: of the connection.
            drop: or a body that `drop_body` made, which says itself what it does.
            keys: for this body. When no answer came, the same object (or one with its `current`) lets the vendor answer
                as it did instead of acting again. ``live`` only; each call has keys of its own unless given.

        Raises:
            OutcomeUnknown: the drop may have been taken.
            BodyTooLarge: it is larger than 5,000,000 bytes.
            InputRefused: the bytes are no drop of this contract.
        """

    def billing_drops(self, connection_id: str) -> tuple[DropSummary, ...]:
        """Return the drops of a connection. Safe. ``live`` only."""
        del connection_id
        self._lacks("has no way to read billing drops back")

    def billing_drop_rows(self, connection_id: str, month: date) -> tuple[BillingRow, ...]:
        """Return what a connection holds of a month; it may lag behind what was sent. Safe. ``live`` only.

        Args:
            connection_id: of the connection.
            month: any day of it.
        """
        del connection_id, month
        self._lacks("has no way to read billing drops back")

    def billing_drop_hours(self, connection_id: str, month: date) -> Mapping[int, HeldHour]:
        """Return what a connection holds of a month, added up by hour; as `billing_drop_rows`, in less memory. Safe.

        ``live`` only. The hours are counted since the epoch, in order; each has the rows that begin in it. A cost that
        is null, empty or not there counts as none.
        """
        del connection_id, month
        self._lacks("has no way to read billing drops back")

    def validate_billing_drop(self, drop: BillingDrop | bytes) -> DropCheck:
        """Ask whether a drop would be taken, without sending it to a connection. Safe. ``live`` only."""
        del drop
        self._lacks("has no dry run of billing drops")

    # --- bodies made ahead --------------------------------------------------------------------------------------------

    @classmethod
    def drop_body(cls, drop: BillingDrop) -> bytes:
        """Return the body of a drop, to be kept and sent later as it is; nothing is sent."""
        month = drop.month or drop.rows[0].month
        head, tail = cls.drop_envelope(drop.operation, month)
        return head + b",".join(cls.drop_row(row.cells) for row in drop.rows) + tail

    @classmethod
    @abstractmethod
    def drop_envelope(cls, operation: DropOperation, month: date) -> tuple[bytes, bytes]:
        """Return what stands before and behind the rows of a drop's body; the rows are separated by commas.

        Args:
            operation: what the drop does.
            month: any day of the rows' month.
        """

    @classmethod
    @abstractmethod
    def drop_row(cls, cells: Mapping[str, str]) -> bytes:
        """Return one row as it stands in a drop's body, in one line.

        Args:
            cells: columns of the Common Bill Format that are not blank, checked before: ``time/usage_start`` in UTC, on
                the hour, ended by ``Z``; amounts as plain decimals.
        """

    @classmethod
    @abstractmethod
    def sent_rows(cls, body: bytes) -> tuple[SentRow, ...]:
        """Return the rows of a drop's body that this contract's `drop_body` made, or `drop_envelope` and `drop_row`.

        Raises:
            InputRefused: the bytes are no drop of this contract.
        """

    @classmethod
    @abstractmethod
    def metric_body(cls, records: Sequence[MetricRecord]) -> bytes:
        """Return the body of unit metric records; nothing is sent."""

    @classmethod
    @abstractmethod
    def allocation_body(cls, records: Sequence[AllocationRecord]) -> bytes:
        """Return the body of allocation records; nothing is sent."""

    # --- what both contracts share ------------------------------------------------------------------------------------

    def _send(self, path: str, stream: str, body: bytes, *, safe: bool) -> str:
        """Post a body of telemetry; return the request's id. Raises BodyTooLarge."""
        fitted = fitting(body, "POST", path)
        return self.http.request("POST", path, ids=stream_ids(stream), body=fitted, safe=safe).request_id

    @classmethod
    def _lacks(cls, what: str) -> NoReturn:
        """Raise NotInContract."""
        other = next(name for name in ContractName if name is not cls.name)
        msg = f"the contract {cls.name.value!r} {what} (CLOUDZERO_CONTRACT; {other.value!r} may)"
        raise NotInContract(msg)

    @classmethod
    def _refuse_lacking(cls, given: Mapping[str, Any], lacking: Sequence[str], what: str) -> None:
        """Refuse fields that the contract has not. Raises NotInContract."""
        found = [name for name in lacking if given.get(name) is not None]
        if found:
            cls._lacks(f"has no {', '.join(found)} in {what}")


def stream_ids(stream: str) -> dict[str, str]:
    """Return the part of an address that names a stream. Raises InputRefused."""
    if not STREAM.fullmatch(stream) or set(stream) == {"."}:
        reason = "a stream's name has 1 to 256 letters, digits, dots, hyphens and underscores"
        raise InputRefused(reason, value=stream, fix="rename the stream")
    return {"stream_name": stream}


Record = TypeVar("Record")
Shape = TypeVar("Shape", bound=msgspec.Struct)


def some(records: Sequence[Record]) -> Sequence[Record]:
    """Return *records*, of which there is at least one. Raises InputRefused."""
    if not records:
        reason = "there are no records to send"
        raise InputRefused(reason, fix="give at least one")
    return records


def changing(body: dict[str, object], what: str) -> dict[str, object]:
    """Return the body of a change, which names something. Raises InputRefused."""
    if not body:
        reason = f"the change of the {what} names nothing"
        raise InputRefused(reason, fix="set what is to change")
    return body


def fitting(body: bytes, method: str, path: str) -> bytes:
    """Return *body*, which is not too large. Raises BodyTooLarge."""
    if len(body) > MAX_BODY_BYTES:
        msg = f"{len(body):,} bytes were to be sent, and the limit is {MAX_BODY_BYTES:,} a body: send less in one"
        raise BodyTooLarge(f"{msg}; nothing was sent", Call(method, path, sent_bytes=len(body)))
    return body


def drop_hour(start: str) -> int:
    """Return the hour since the epoch of a time as it stands in a drop's body."""
    return int(datetime.fromisoformat(start).timestamp() // 3600)


def outline(body: bytes | msgspec.Raw, model: type[Shape]) -> Shape:
    """Return what the top level of a body made ahead says; its rows are not looked at. Raises InputRefused."""
    try:
        return msgspec.json.decode(body, type=model)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        reason = f"the bytes are no billing drop of this contract ({error})"
        raise InputRefused(reason, fix="send what `drop_body` of this client made") from None


def zulu(moment: datetime) -> str:
    """Return a time in UTC as both contracts write it."""
    return moment.isoformat().replace("+00:00", "Z")


def required(given: Mapping[str, Any], names: Sequence[str], what: str) -> None:
    """Refuse a new thing without what its contract requires. Raises InputRefused."""
    missing = [name for name in names if not given.get(name) and given.get(name) != 0]
    if missing:
        reason = f"a new {what} needs {' and '.join(missing)}"
        raise InputRefused(reason, fix="give it")

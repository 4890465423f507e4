"""Telemetry at the CloudZero stand-in: streams of records, added to, replaced, deleted and (live) read back."""

from __future__ import annotations

import functools
import json
import re
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from werkzeug.wrappers import Response

from local.standins.cloudzero_json import dump, plain, total
from local.standins.standin import Call, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from local.standins.cloudzero_account import Account, Contract

_OK, _CREATED, _ACCEPTED, _NO_CONTENT = 200, 201, 202, 204
_BAD_REQUEST, _NOT_FOUND, _SLOW_DOWN = 400, 404, 503
_LABELS = 5
_VALUES_OF_LABEL = 20
_DIGITS = 15
_RECORDS_READ = 1000
_BURST_WINDOW_S = 1.0
_GRANULARITIES = {"HOURLY": "%Y-%m-%dT%H:00:00Z", "DAILY": "%Y-%m-%dT00:00:00Z", "MONTHLY": "%Y-%m-01T00:00:00Z"}
"""Each with the beginning of the period that a time is in."""
_DATE_OR_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([+-][0-9]{2}:[0-9]{2}|Z)?)?", re.IGNORECASE
)

Labels = tuple[tuple[str, "str | tuple[str, ...]"], ...]


class RecordKey(NamedTuple):
    """What makes two records the same one."""

    timestamp: str
    """Cut to the granularity."""
    granularity: str
    labels: Labels
    """The dimensions and their values, both sorted."""
    element: str
    """The element_name of an allocation record (live); empty elsewhere."""

    def __str__(self) -> str:
        """Write it as `/_state` does: a JSON list."""
        return dump([self.timestamp, self.granularity, dict(self.labels), self.element])


@dataclass(frozen=True)
class Form:
    """What a record of one kind looks like under one contract."""

    kind: str
    """`metric` or `allocation`."""
    labels: str
    """The member that holds the dimensions."""
    granularities: tuple[str, ...]
    listed: bool = False
    """Whether a dimension has a list of values."""
    named: bool = False
    """Whether there is an element_name."""
    positive: bool = False
    """Whether a value must be more than zero and no longer than 15 digits."""
    default: str | None = None
    """The granularity of a record that does not say."""
    offset: bool = False
    """Whether a timestamp must be a time with an offset."""
    matched: frozenset[str] = frozenset({"timestamp", "granularity"})
    """The members that a deletion may name."""

    @property
    def members(self) -> frozenset[str]:
        """All members of a record."""
        named = {"element_name"} if self.named else set()
        return frozenset({"timestamp", "granularity", "value", self.labels, *named})


_ALL = tuple(_GRANULARITIES)
_FORMS: dict[tuple[Contract, str], Form] = {
    ("openapi", "metric"): Form("metric", "filter", _ALL, offset=True),
    ("openapi", "allocation"): Form("allocation", "element", _ALL, offset=True),
    ("live", "metric"): Form(
        "metric",
        "associated_cost",
        ("DAILY", "MONTHLY"),
        positive=True,
        default="DAILY",
        matched=frozenset({"timestamp", "granularity", "associated_cost"}),
    ),
    ("live", "allocation"): Form(
        "allocation",
        "filter",
        _ALL,
        listed=True,
        named=True,
        positive=True,
        matched=frozenset({"timestamp", "granularity", "filter", "element_name"}),
    ),
}


@dataclass
class Stream:
    """A telemetry stream; its kind, granularity and dimensions are those of its first record."""

    form: Form
    granularity: str
    labels: frozenset[str]
    values: dict[RecordKey, Decimal] = field(default_factory=dict)
    """Sent last comes last."""
    leaving: int | None = None
    """How many requests will still find it; None unless it is being deleted."""

    def put(self, key: RecordKey, value: Decimal) -> None:
        """Set a record, as the one sent last."""
        self.values.pop(key, None)
        self.values[key] = value

    def shown(self, key: RecordKey) -> dict[str, Any]:
        """Give a record as the live API shows it."""
        shown: dict[str, Any] = {
            "timestamp": key.timestamp,
            "granularity": key.granularity,
            "value": self.values[key],
            self.form.labels: dict(key.labels),
        }
        return shown | ({"element_name": key.element} if self.form.named else {})

    def holding(self) -> dict[str, Any]:
        """Give the stream as `/_state` shows it."""
        return {
            "kind": self.form.kind,
            "granularity": self.granularity,
            "keys": sorted(self.labels),
            "records": {str(key): plain(value) for key, value in self.values.items()},
            "leaving": self.leaving is not None,
        }


class Telemetry:
    """The telemetry operations.

    Args:
        account: Whose streams.
    """

    def __init__(self, account: Account) -> None:
        self._account = account
        self._metric = _FORMS[account.contract, "metric"]
        self._allocation = _FORMS[account.contract, "allocation"]
        self.forget()

    def handlers(self) -> dict[str, Callable[[Call], Response]]:
        """Give the handler of each operation of either contract."""
        both: dict[str, Callable[[Call], Response]] = {
            "postAllocationTelemetrySum": lambda call: self._post(call, self._allocation, "sum"),
            "postAllocationTelemetryReplace": lambda call: self._post(call, self._allocation, "replace"),
            "deleteAllocationTelemetry": lambda call: self._delete(call, self._allocation),
            "deleteMetricTelemetry": lambda call: self._delete(call, self._metric),
        }
        if not self._account.live:
            return both | {
                "postMetricTelemetry": lambda call: self._post(call, self._metric, "sum"),
                "deleteMetricTelemetryStream": self._delete_stream,
            }
        return both | {
            "postMetricTelemetrySum": lambda call: self._post(call, self._metric, "sum"),
            "postMetricTelemetryReplace": lambda call: self._post(call, self._metric, "replace"),
            "deleteTelemetryStream": self._delete_stream,
            "getTelemetryRecords": self._get,
            "getMetricTelemetryRecords": lambda call: self._get(call, "metric"),
        }

    def forget(self) -> None:
        """Drop every stream."""
        self._streams: dict[str, Stream] = {}
        self._recent: deque[tuple[float, int]] = deque()

    def holdings(self) -> dict[str, Any]:
        """Give the streams as `/_state` shows them."""
        return {name: stream.holding() for name, stream in sorted(self._streams.items())}

    # The operations.

    def _post(self, call: Call, form: Form, mode: str) -> Response:
        """Take records in: all of them or none."""
        name = call.parameters["stream_name"]
        stream = self._writable(name, form)
        read = [_read(record, form, f"/records/{index}") for index, record in enumerate(call.body["records"])]
        first = read[0][0]
        if stream is None:
            stream = Stream(form, first.granularity, frozenset(label for label, _ in first.labels))
        for index, (key, _) in enumerate(read):
            _check_frozen(stream, key, f"/records/{index}")
        self._pace(len(read))
        for key, value in read:
            stream.put(key, total(stream.values.get(key, Decimal(0)), value) if mode == "sum" else value)
        self._streams[name] = stream
        self._account.took(call, name, mode, len(read))
        return Response(status=_OK if self._account.live else _ACCEPTED)

    def _delete(self, call: Call, form: Form) -> Response:
        """Delete the records that match: a list of matches (live), or one."""
        name = call.parameters["stream_name"]
        stream = self._writable(name, form)
        if stream is None:
            raise Refusal(_BAD_REQUEST, f"There is no telemetry stream {name} to delete records from.")
        matches = call.body["records"] if self._account.live else [call.body]
        wanted = [_matcher(match, form, f"/records/{index}") for index, match in enumerate(matches)]
        stream.values = {
            key: value for key, value in stream.values.items() if not any(_matches(key, each) for each in wanted)
        }
        self._account.took(call, name, "delete", len(matches))
        return Response(status=_CREATED if self._account.live else _OK)

    def _delete_stream(self, call: Call) -> Response:
        """Delete a stream, at once or (live) after some more requests."""
        name = call.parameters["stream_name"]
        stream = self._found(name)
        if stream is None:
            raise Refusal(_NOT_FOUND, f"There is no telemetry stream {name}.")
        lag = self._account.config.delete_lag_reads if self._account.live else 0
        if not lag:
            del self._streams[name]
        elif stream.leaving is None:
            stream.leaving = lag
        return Response(status=_OK if self._account.live else _NO_CONTENT)

    def _get(self, call: Call, kind: str = "") -> Response:
        """Read the records that were sent last."""
        name = call.parameters["stream_name"]
        stream = self._found(name)
        if stream is None or kind not in {"", stream.form.kind}:
            raise Refusal(_NOT_FOUND, f"There is no telemetry stream {name}.")
        limit = int(call.request.args.get("limit", _RECORDS_READ))
        shown = [stream.shown(key) for key in [*reversed(stream.values)][:limit]]
        return Response(dump({"records": shown}), content_type="application/json")

    # Parts of them.

    def _found(self, name: str) -> Stream | None:
        """Find a stream; one that is being deleted is found a few times more."""
        stream = self._streams.get(name)
        if stream is not None and stream.leaving is not None:
            if not stream.leaving:
                del self._streams[name]
                return None
            stream.leaving -= 1
        return stream

    def _writable(self, name: str, form: Form) -> Stream | None:
        stream = self._found(name)
        if stream is None:
            return None
        if stream.leaving is not None:
            raise Refusal(_BAD_REQUEST, f"The telemetry stream {name} is being deleted.")
        if stream.form.kind != form.kind:
            raise Refusal(_BAD_REQUEST, f"The telemetry stream {name} is one of {stream.form.kind} records.")
        return stream

    def _pace(self, count: int) -> None:
        """Tell who sends too much within a second to slow down; a lone request is never too much."""
        burst = self._account.config.burst
        if burst is None:
            return
        instant = time.monotonic()
        while self._recent and self._recent[0][0] < instant - _BURST_WINDOW_S:
            self._recent.popleft()
        if self._recent and sum(taken for _, taken in self._recent) + count > burst:
            raise Refusal(_SLOW_DOWN, "Slow down: too many records within a second.")
        self._recent.append((instant, count))


def _read(record: object, form: Form, pointer: str) -> tuple[RecordKey, Decimal]:
    """Read a record; all is checked here that the document says of one, because it looks at the first ones only."""
    if not isinstance(record, dict) or not record.keys() <= form.members:
        raise Refusal(_BAD_REQUEST, f"A record has the members {', '.join(sorted(form.members))}.", pointer)
    value = record.get("value")
    if not isinstance(value, Decimal):
        raise Refusal(_BAD_REQUEST, "A record needs a value that is a number.", f"{pointer}/value")
    if form.positive and value <= 0:
        raise Refusal(_BAD_REQUEST, "The value must be more than zero.", f"{pointer}/value")
    if form.positive and len("".join(map(str, value.as_tuple().digits)).rstrip("0")) > _DIGITS:
        raise Refusal(_BAD_REQUEST, f"The value has more than {_DIGITS} significant digits.", f"{pointer}/value")
    element = record.get("element_name", "")
    if form.named and (not isinstance(element, str) or not element):
        raise Refusal(_BAD_REQUEST, "A record needs an element_name.", f"{pointer}/element_name")
    granularity = _granularity(record, form, pointer)
    timestamp = _period(record.get("timestamp"), granularity, form, pointer)
    return RecordKey(timestamp, granularity, _labels(record, form, pointer), element), value


def _matcher(match: Mapping[str, Any], form: Form, pointer: str) -> dict[str, Any]:
    """Read what a deletion is to match."""
    if not isinstance(match, dict) or not match.keys() <= form.matched:
        raise Refusal(_BAD_REQUEST, f"A match has the members {', '.join(sorted(form.matched))}.", pointer)
    wanted: dict[str, Any] = {"timestamps": {}, "labels": _labels(match, form, pointer)}
    granularities = form.granularities if "granularity" not in match else (_granularity(match, form, pointer),)
    for granularity in granularities:
        wanted["timestamps"][granularity] = _period(match.get("timestamp"), granularity, form, pointer)
    if "element_name" in match:
        wanted["element"] = match["element_name"]
    return wanted


def _matches(key: RecordKey, wanted: dict[str, Any]) -> bool:
    return (
        wanted["timestamps"].get(key.granularity) == key.timestamp
        and set(wanted["labels"]) <= set(key.labels)
        and wanted.get("element", key.element) == key.element
    )


def _granularity(record: Mapping[str, Any], form: Form, pointer: str) -> str:
    granularity = record.get("granularity", form.default)
    if granularity not in form.granularities:
        detail = f"The granularity is not one of {', '.join(form.granularities)}."
        raise Refusal(_BAD_REQUEST, detail, f"{pointer}/granularity")
    return str(granularity)


def _period(timestamp: object, granularity: str, form: Form, pointer: str) -> str:
    """Give the beginning of the period that a timestamp is in, in UTC."""
    moment = _moment(timestamp) if isinstance(timestamp, str) else None
    if moment is None or (form.offset and moment.tzinfo is None):
        raise Refusal(_BAD_REQUEST, "The timestamp is no ISO 8601 time.", f"{pointer}/timestamp")
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return moment.astimezone(UTC).strftime(_GRANULARITIES[granularity])


@functools.lru_cache(maxsize=4096)
def _moment(timestamp: str) -> datetime | None:
    if not _DATE_OR_TIME.fullmatch(timestamp):
        return None
    try:
        return datetime.fromisoformat(timestamp.upper())
    except ValueError:  # such as the 31st of April
        return None


def _labels(record: Mapping[str, Any], form: Form, pointer: str) -> Labels:
    labels = record.get(form.labels, {})
    shape = "lists of strings" if form.listed else "strings"
    if not isinstance(labels, dict) or not all(_is_value(value, listed=form.listed) for value in labels.values()):
        raise Refusal(_BAD_REQUEST, f"{form.labels} is not an object of {shape}.", f"{pointer}/{form.labels}")
    if len(labels) > _LABELS:
        raise Refusal(_BAD_REQUEST, f"{form.labels} has more than {_LABELS} keys.", f"{pointer}/{form.labels}")
    return tuple((name, tuple(sorted(set(value))) if form.listed else value) for name, value in sorted(labels.items()))


def _is_value(value: object, *, listed: bool) -> bool:
    if not listed:
        return isinstance(value, str)
    return (
        isinstance(value, list) and 0 < len(value) <= _VALUES_OF_LABEL and all(isinstance(each, str) for each in value)
    )


def _check_frozen(stream: Stream, key: RecordKey, pointer: str) -> None:
    """Hold a record to what the stream's first one was."""
    if key.granularity != stream.granularity:
        detail = f"All records in a stream have its granularity, which is {stream.granularity}."
        raise Refusal(_BAD_REQUEST, detail, pointer)
    if {label for label, _ in key.labels} != stream.labels:
        keys = json.dumps(sorted(stream.labels))
        raise Refusal(_BAD_REQUEST, f"All records in a stream have its {stream.form.labels} keys: {keys}.", pointer)

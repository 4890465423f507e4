"""What is sent because a stream's book has changed, and how it is packed into bodies. Pure.

`live` replaces record by record. `openapi` is told whole periods: an allocation's by one call that replaces, a
metric's by deletion and addition, as an allocation's is that does not fit one body (contract page, "Telemetry").
Whether a replacement under `openapi` spares the period's other records is not known; a whole period is right in
either case.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from finops_relay.cloudzero.records import AllocationRecord, Granularity, MetricRecord, RecordKey
from finops_relay.errors import SourceGone
from finops_relay.formats.cost_cells import MAX_DIGITS
from finops_relay.formats.telemetry import (
    ALLOCATION,
    DAILY,
    METRIC,
    SIGNIFICANT,
    Dialect,
    Ident,
    Labels,
    Shape,
    moment_of,
    period_of,
)
from finops_relay.jobs.telemetry.books import Book, Change, Verb, day_start, decoded, rolled_up, rounded

if TYPE_CHECKING:
    from finops_relay.cloudzero.client import CloudZero  # loads httpx, which the first message does

HEAD, TAIL = b'{"records":[', b"]}"
"""What stands around the records of a body, in either contract."""
GONE_IN_A_BODY = 500
"""Deletions that one body names: with their labels below 5 MB."""
GONE_IN_A_BODY_EACH = 24
"""Periods that one body deletes under `openapi`, where each is a call of its own: a vendor that asks to slow down has
them begun again."""


class Way(StrEnum):
    """What is done with a body."""

    REPLACE = "replace"
    """Its records replace; safe to repeat."""
    RENEW = "renew"
    """Its periods are deleted, then its records are added; safe to repeat from the deletion."""
    MORE = "more"
    """Its records are added to the period that the body before has renewed; NOT safe to repeat without that one."""
    SUM = "sum"
    """Its records are added; NOT safe to repeat."""
    DELETE = "delete"
    """What it names is deleted; safe to repeat."""


class Going(NamedTuple):
    """One record as it is sent."""

    ident: Ident
    value: Decimal
    rows: int
    """Of the delivery's input that it stands for; none where only the book has it."""


class Gone(msgspec.Struct, array_like=True, frozen=True):
    """One deletion."""

    period: int
    labels: tuple[str, ...] | None
    """None deletes all records of the period."""
    rows: int


@dataclass
class Sending:
    """What is sent because of one day's change."""

    going: list[Going] = field(default_factory=list)
    gone: list[Gone] = field(default_factory=list)
    needless: int = 0
    """Rows for which nothing is to be sent: what they delete is not there."""


@dataclass(frozen=True)
class Body:
    """A body, before it is written."""

    way: Way
    data: bytes
    rows: tuple[int, ...]
    """Of the delivery's input, for each record."""
    records: int


def way_of(verb: Verb, dialect: Dialect) -> Way:
    """Return what is done with the records that a delivery sends; those of a deletion are what it leaves."""
    if verb is Verb.SUM:
        return Way.SUM
    replacing = verb is Verb.REPLACE and dialect.kind == ALLOCATION
    return Way.REPLACE if dialect.live or replacing else Way.RENEW


def sending(verb: Verb, change: Change, book: Book, shape: Shape, dialect: Dialect) -> Sending:
    """Return what is to be sent after *change* was made to the *book* of a day."""
    rolls = dialect.rolls(shape)
    rows = {ident: line.rows for ident, line in change.applied.items()}
    if verb is Verb.SUM:
        values = {ident: line.value for ident, line in change.applied.items()}
        return Sending(_going(rolled_up(values) if rolls else values, _by_day(rows) if rolls else rows))
    if verb is Verb.DELETE:
        return _deleting(change, book, dialect, rows, rolls=rolls)
    if not dialect.live:
        whole = book.of({ident.period for ident in change.applied})
        return Sending(_going(whole, rows))
    if rolls:
        days = _by_day(rows)
        whole = {ident: value for ident, value in _days_of(book).items() if ident in days}
        return Sending(_going(whole, days))
    return Sending(_going({ident: line.value for ident, line in change.applied.items()}, rows))


def _going(values: Mapping[Ident, Decimal], rows: Mapping[Ident, int]) -> list[Going]:
    return [Going(ident, value, rows.get(ident, 0)) for ident, value in sorted(values.items())]


def _by_day(rows: Mapping[Ident, int]) -> dict[Ident, int]:
    days: dict[Ident, int] = {}
    for ident, count in rows.items():
        day = Ident(day_start(ident.period), ident.labels)
        days[day] = days.get(day, 0) + count
    return days


def _days_of(book: Book) -> dict[Ident, Decimal]:
    return rolled_up({ident: kept.value for ident, kept in book.kept.items()})


def _deleting(change: Change, book: Book, dialect: Dialect, rows: Mapping[Ident, int], *, rolls: bool) -> Sending:
    """Return the deletions, and what stays of what can only be sent whole."""
    found = Sending()
    left = _days_of(book) if rolls else {}
    told: set[Ident] = set()
    for line, count in sorted(rows.items()):
        taken = sorted(ident for ident in change.removed if ident.period == line.period)
        if rolls:
            days = [Ident(day_start(ident.period), ident.labels) for ident in taken]
            new = [day for day in days if day not in told]
            told.update(new)
            found.going += [Going(day, left[day], 0) for day in new if day in left]
            found.gone += [Gone(day.period, day.labels, 0) for day in new if day not in left]
            found.needless += count
        elif line.period not in change.spared:
            found.gone.append(Gone(line.period, None, count))
        elif dialect.live:
            found.gone += [Gone(ident.period, ident.labels, 0) for ident in taken]
            found.needless += count
        else:
            found.going += _going(book.of([line.period]), {})
            found.needless += count
    found.going.sort()
    return found


def unsendable(value: Decimal, dialect: Dialect) -> str:
    """Return why a total cannot be sent; empty where it can."""
    exponent = value.as_tuple().exponent
    if value.adjusted() >= MAX_DIGITS or not isinstance(exponent, int) or exponent < -MAX_DIGITS:
        return f"it adds up to more than {MAX_DIGITS} digits before or behind the point"
    if dialect.live and value <= 0:
        return f"it adds up to {value:f}, and CloudZero takes only what is more than 0"
    return ""


# --- bodies -----------------------------------------------------------------------------------------------------------


def bodies(  # noqa: PLR0913, PLR0917 -- what they are of, and how large they may be
    client: type[CloudZero],
    dialect: Dialect,
    shape: Shape,
    way: Way,
    going: Iterable[Going],
    max_bytes: int,
) -> Iterator[Body]:
    """Pack records into bodies, in order; a period that is told whole is cut only where it does not fit one.

    Raises:
        ValueError: one record alone does not fit.
    """
    texts = ((record, record_text(client, dialect, shape, record)) for record in going)
    room = max_bytes - len(HEAD) - len(TAIL)
    if dialect.live or way is Way.SUM:
        for part in _cut(texts, room):
            yield _body(way, part)
        return
    waiting: list[tuple[Going, bytes]] = []
    periods = 0
    for _, same in groupby(texts, lambda pair: pair[0].ident.period):
        period = list(same)
        if waiting and (
            _size(waiting) + 1 + _size(period) > room or (way is Way.RENEW and periods == GONE_IN_A_BODY_EACH)
        ):
            yield _body(way, waiting)
            waiting, periods = [], 0
        periods += 1
        if _size(period) <= room:
            waiting += period
            continue
        first = Way.RENEW
        for part in _cut(period, room):
            yield _body(first, part)
            first = Way.MORE
    if waiting:
        yield _body(way, waiting)


def gone_bodies(gone: Sequence[Gone], *, live: bool) -> Iterator[Body]:
    """Pack deletions into bodies."""
    most = GONE_IN_A_BODY if live else GONE_IN_A_BODY_EACH
    for first in range(0, len(gone), most):
        part = gone[first : first + most]
        yield Body(Way.DELETE, msgspec.json.encode(part), tuple(each.rows for each in part), len(part))


def rewritten(way: Way, texts: Sequence[bytes], rows: Sequence[int]) -> Body:
    """Make a body of records that stood in another one."""
    return Body(way, HEAD + b",".join(texts) + TAIL, tuple(rows), len(texts))


def _body(way: Way, part: Sequence[tuple[Going, bytes]]) -> Body:
    return rewritten(way, [text for _, text in part], [record.rows for record, _ in part])


def _cut(texts: Iterable[tuple[Going, bytes]], room: int) -> Iterator[list[tuple[Going, bytes]]]:
    part: list[tuple[Going, bytes]] = []
    size = 0
    for pair in texts:
        length = len(pair[1]) + 1
        if length - 1 > room:
            msg = f"a record has {length - 1:,} bytes, and a body {room:,} at most"
            raise ValueError(msg)
        if part and size + length - 1 > room:
            yield part
            part, size = [], 0
        part.append(pair)
        size += length
    if part:
        yield part


def _size(texts: Sequence[tuple[Going, bytes]]) -> int:
    return sum(len(text) + 1 for _, text in texts) - 1


def record_text(client: type[CloudZero], dialect: Dialect, shape: Shape, record: Going) -> bytes:
    """Return a record as it stands in a body."""
    granularity = Granularity(DAILY if dialect.rolls(shape) else shape.granularity)
    moment = moment_of(record.ident.period)
    value = rounded(record.value, SIGNIFICANT) if dialect.live else record.value
    element, labels = _apart(dialect, record.ident.labels)
    if dialect.kind == METRIC:
        values = dict(zip(shape.keys, labels, strict=True))
        body = client.metric_body(
            [MetricRecord(timestamp=moment, value=value, granularity=granularity, dimensions=values)]
        )
    else:
        several = dict(zip(shape.keys, (_values(dialect, label) for label in labels), strict=True))
        body = client.allocation_body(
            [
                AllocationRecord(
                    timestamp=moment, value=value, granularity=granularity, element_name=element, dimensions=several
                )
            ]
        )
    return body[len(HEAD) : -len(TAIL)]


def key_of(dialect: Dialect, shape: Shape, gone: Gone) -> RecordKey:
    """Return a deletion as the client takes it."""
    granularity = Granularity(DAILY if dialect.rolls(shape) else shape.granularity)
    moment = moment_of(gone.period)
    if gone.labels is None:
        return RecordKey(timestamp=moment, granularity=granularity)
    element, labels = _apart(dialect, gone.labels)
    dimensions = dict(zip(shape.keys, (_values(dialect, label) for label in labels), strict=True))
    return RecordKey(timestamp=moment, granularity=granularity, element_name=element, dimensions=dimensions)


def _apart(dialect: Dialect, labels: Labels) -> tuple[str, Labels]:
    return (labels[0], labels[1:]) if dialect.named else ("", labels)


def _values(dialect: Dialect, label: str) -> tuple[str, ...]:
    return tuple(label.split("|")) if dialect.several else (label,)


# --- what a body says -------------------------------------------------------------------------------------------------


class _Record(msgspec.Struct):
    timestamp: str
    value: Decimal
    granularity: str
    element_name: str = ""
    filter: dict[str, str | list[str]] = {}
    associated_cost: dict[str, str] = {}
    element: dict[str, str] = {}


class _Records(msgspec.Struct):
    records: list[_Record]


class _Texts(msgspec.Struct):
    records: list[msgspec.Raw]


@dataclass(frozen=True)
class Sent:
    """One record of a body."""

    ident: Ident
    value: Decimal
    text: bytes
    """As it stands there."""


def sent_records(body: bytes, shape: Shape, dialect: Dialect) -> list[Sent]:
    """Return the records of a body. Raises SourceGone when it is none of ours any more."""
    found = decoded(body, _Records, "a body in the spool").records
    texts = decoded(body, _Texts, "a body in the spool").records
    return [
        Sent(_ident(record, shape, dialect), record.value, bytes(text))
        for record, text in zip(found, texts, strict=True)
    ]


def gone_of(body: bytes) -> list[Gone]:
    """Return the deletions of a body. Raises SourceGone when it is none of ours any more."""
    return decoded(body, list[Gone], "a body in the spool")


def _ident(record: _Record, shape: Shape, dialect: Dialect) -> Ident:
    values: dict[str, str | list[str]] = {**record.filter, **record.associated_cost, **record.element}
    try:
        labels = [values[key] for key in shape.keys]
    except KeyError as error:
        msg = f"a body in the spool lacks {error}"
        raise SourceGone(msg) from None
    plain = tuple(label if isinstance(label, str) else "|".join(label) for label in labels)
    period, _ = period_of(record.timestamp, record.granularity)
    return Ident(period, (record.element_name, *plain) if dialect.named else plain)


def periods_of(records: Iterable[Sent]) -> list[int]:
    """Return the periods of some records, in order, each once."""
    return sorted({record.ident.period for record in records})

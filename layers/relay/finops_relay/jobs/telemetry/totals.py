"""Running totals of what applications send: for each day of a stream a page, with the ids of all that it counts."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from hashlib import sha256
from typing import NamedTuple, Self

import msgspec
from pydantic import Field

from finops_relay.delivery.identity import digest
from finops_relay.delivery.ledger import Delivery
from finops_relay.delivery.ports import Ports
from finops_relay.delivery.receipt import Frozen
from finops_relay.formats.cost_cells import MAX_DIGITS, SUM_CONTEXT, CellFault
from finops_relay.formats.telemetry import Ident, Total
from finops_relay.jobs.telemetry.books import Line, decoded, encoded
from finops_relay.jobs.telemetry.content import MAX_A_DAY, weight

ID_BYTES = 12
"""Kept of an id's hash: two of a thousand million ids of a day are alike once in a hundred thousand million days."""
CONTENT_BYTES = 4
"""Kept of what the record said, to tell a repetition from an id that was used twice."""
MARK_BYTES = ID_BYTES + CONTENT_BYTES
SEALED_BYTES = 4_000_000
"""Ids that stand in a page itself; more go into an object that is not written again, or each run would rewrite all."""


class Counted(NamedTuple):
    """One record that is to be counted."""

    id: bytes
    """Of its id's hash, so many bytes."""
    content: bytes
    """Likewise, of what it says."""
    ident: Ident
    value: Decimal
    batch: str = ""
    """Key of the batch that its message is in."""
    line: int = 0
    """Of its message there."""

    @classmethod
    def of(cls, known: str, ident: Ident, value: Decimal) -> Self:
        """Make one of what the record is *known* by."""
        hashed = sha256(known.encode("utf-8", "surrogatepass")).digest()
        plain = str(SUM_CONTEXT.normalize(value))
        content = bytes.fromhex(digest(str(ident.period), plain, *ident.labels)[: 2 * CONTENT_BYTES])
        return cls(hashed[:ID_BYTES], content, ident, value)


class Collected(Frozen):
    """What was collected of a stream. Kept as ``Record.content``; saving it is what counts a run's records."""

    runs: int = 0
    """How many runs have counted records of it."""
    order: str = ""
    """Of the deliveries of the last one."""
    kind: str = ""
    """Of its first record; empty until there was a good one."""
    granularity: str = ""
    keys: tuple[str, ...] = ()
    days: dict[str, str] = Field(default_factory=dict)
    """By day: the key in the spool of its page."""
    consumed: tuple[str, ...] = ()
    """Batches that were counted and may still lie in the inbox."""
    unsent: tuple[Delivery, ...] = ()
    """What the last run has made of them; handed over for certain once none of its batches is in the inbox."""
    former: tuple[str, ...] = ()
    """Keys of the pages that the last run has replaced."""


def collected_name(stream: str) -> str:
    """Return the name of the record of what was collected of a stream; without one, of what has no stream."""
    return f"collected#{stream}"


def totals_key(stream: str, day: str, run: str) -> str:
    """Return where a run's page of a day stands in the spool."""
    return f"telemetry/totals/{stream}/{day}/{run}.json"


def sealed_key(stream: str, day: str, run: str) -> str:
    """Return where the ids stand that a run has put aside."""
    return f"telemetry/totals/{stream}/{day}/{run}.ids"


class Totals(msgspec.Struct, frozen=True):
    """A page: a day of a stream, as it is kept."""

    order: str = ""
    """Of the run that wrote it."""
    nature: str = ""
    """Kind and shape of its records, in words."""
    lines: tuple[Line, ...] = ()
    """In order of period and labels; ``rows`` are all that were ever counted."""
    ids: bytes = b""
    """Ids and contents, each of so many bytes, one behind the other."""
    sealed: tuple[str, ...] = ()
    """Keys of objects with more of them."""


@dataclass(frozen=True)
class Day:
    """What a run makes of the records of a day."""

    changed: Mapping[Ident, Total]
    """New totals of the records that have changed, each with the rows of this run."""
    rows: int
    """That count."""
    value: Decimal
    """What they add up to."""
    repeated: int
    """Rows whose ids had come before."""
    clashing: int
    """Those of them that say something else than the first did."""
    refused: Sequence[tuple[Counted, CellFault]] = ()
    """Records that the day has no place for, and why. Nothing is kept of them: they may come again."""


def totals_of(ports: Ports, key: str) -> Totals:
    """Return a page; an empty one where there is no key. Raises SourceGone, ShortRead."""
    return decoded(b"".join(ports.spool.chunks(key)), Totals, key) if key else Totals()


def counted(
    ports: Ports, records: Sequence[Counted], page: Totals, standing: Mapping[Ident, Line], most: int = MAX_A_DAY
) -> tuple[Day, Totals]:
    """Count the records of a day, each id once; return what a run makes of the day, and its page with all of it.

    Args:
        ports: the spool holds ids that were put aside.
        records: of the day, in order.
        page: of the day, as it was.
        standing: lines of it that still count.
        most: different records that the day may have, by what they weigh.

    Raises:
        SourceGone, ShortRead: ids that were put aside cannot be read.
    """
    known = dict(_marks(ports, page, {record.id for record in records}))
    changed: dict[Ident, Total] = {}
    marks: list[bytes] = []
    refused: list[tuple[Counted, CellFault]] = []
    room = most - sum(map(weight, standing))
    repeated = clashing = 0
    value = Decimal(0)
    for record in records:
        if record.id in known:
            repeated += 1
            clashing += known[record.id] != record.content
            continue
        total, line = changed.get(record.ident), standing.get(record.ident)
        if total is None:
            total = Total(line.value if line else Decimal(0), 0, 0)
        needs = 0 if line or total.rows else weight(record.ident)
        fault = _fault(record, total, needs=needs, room=room)
        if fault is not None:
            refused.append((record, fault))
            continue
        known[record.id] = record.content
        room -= needs
        changed[record.ident] = total
        total.add(record.value)
        value = SUM_CONTEXT.add(value, record.value)
        marks.append(record.id + record.content)
    new = {ident: _line(ident, total, standing.get(ident)) for ident, total in changed.items()}
    lines = {**standing, **new}
    kept = tuple(lines[ident] for ident in sorted(lines))
    after = msgspec.structs.replace(page, lines=kept, ids=page.ids + b"".join(marks))
    return Day(changed, len(marks), value, repeated, clashing, refused), after


def _fault(record: Counted, total: Total, *, needs: int, room: int) -> CellFault | None:
    """Return why a record cannot be added to a total; None where it can."""
    if needs and needs > room:
        return CellFault(
            "the day has too many different records", "leave out a dimension, such as a request's id, and send it again"
        )
    if SUM_CONTEXT.add(total.value, record.value).adjusted() >= MAX_DIGITS:
        return CellFault(f"its total would have more than {MAX_DIGITS} digits before the point", "correct the value")
    return None


def _line(ident: Ident, total: Total, before: Line | None) -> Line:
    return Line(*ident, total.value, total.rows + (before.rows if before else 0), 0)


def _marks(ports: Ports, page: Totals, wanted: Collection[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Yield id and content of those *wanted* that a page counts already."""
    rest = b""
    for data in _pieces(ports, page):
        held = rest + data if rest else data
        whole = len(held) - len(held) % MARK_BYTES
        for at in range(0, whole, MARK_BYTES):
            known = held[at : at + ID_BYTES]
            if known in wanted:
                yield known, held[at + ID_BYTES : at + MARK_BYTES]
        rest = held[whole:]


def _pieces(ports: Ports, page: Totals) -> Iterator[bytes]:
    for key in page.sealed:
        yield from ports.spool.chunks(key)
    yield page.ids


def put_aside(ports: Ports, key: str, page: Totals) -> Totals:
    """Put the ids of a page into an object of their own; return the page without them."""
    with ports.spool.writer(key, "application/octet-stream") as out:
        out.write(page.ids)
    return msgspec.structs.replace(page, ids=b"", sealed=(*page.sealed, key))


def put_totals(ports: Ports, key: str, page: Totals) -> str:
    """Keep a page; return its key."""
    with ports.spool.writer(key, "application/json") as out:
        out.write(encoded(page))
    return key


class _Wiped(msgspec.Struct, frozen=True):
    """What a page of a book says of deletions; the rest of it is not looked at."""

    orders: tuple[str, ...] = ()
    wiped: dict[int, int] = {}


def wiped_periods(ports: Ports, key: str) -> dict[int, str]:
    """Return the order of each period's last deletion, by a page of its stream's book. Raises SourceGone, ShortRead."""
    page = decoded(b"".join(ports.spool.chunks(key)), _Wiped, key) if key else _Wiped()
    return {period: page.orders[place] for period, place in page.wiped.items()}

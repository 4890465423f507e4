"""The book of a stream: what we have put there, record by record, with who said so last.

A contract that replaces whole periods only (`openapi`), or whose days are made of our hours (`live` metrics), can only
be told a whole period; the book knows the rest of it. And it tells late deliveries from newer ones: drops are ordered
by when they were dropped, whatever order they arrive in. Pure: pages in, pages out; a page is a day of a stream.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import TypeVar

import msgspec

from finops_relay.errors import SourceGone
from finops_relay.formats.cost_cells import SUM_CONTEXT
from finops_relay.formats.telemetry import Ident

NEVER = -1


class Verb(StrEnum):
    """What a delivery does to the records that it names."""

    REPLACE = "replace"
    SUM = "sum"
    DELETE = "delete"
    """All records of the periods that it names."""


class Line(msgspec.Struct, array_like=True, frozen=True):
    """One record of a delivery, added up; of a deletion, one period."""

    period: int
    labels: tuple[str, ...]
    value: Decimal
    rows: int
    line: int
    """Of its first row."""

    @property
    def ident(self) -> Ident:
        """Which record it is."""
        return Ident(self.period, self.labels)


class Entry(msgspec.Struct, array_like=True, frozen=True):
    """One record of a page."""

    period: int
    labels: tuple[str, ...]
    value: Decimal
    replaced: int = NEVER
    """Place of the order, among the page's orders, at which it was set whole."""
    added: int = NEVER
    """Likewise, at which it was last added to since."""


class Page(msgspec.Struct, frozen=True):
    """A day of a stream, as it is kept."""

    orders: tuple[str, ...] = ()
    entries: tuple[Entry, ...] = ()
    """In order of period and labels."""
    wiped: dict[int, int] = {}
    """By period, the place of the order at which all its records were deleted last."""
    shaken: tuple[tuple[int, tuple[str, ...]], ...] = ()
    """Records of which nobody knows whether a delivery has changed them at the vendor."""


@dataclass
class Kept:
    """One record, while a page is open."""

    value: Decimal
    replaced: str = ""
    added: str = ""


@dataclass
class Book:
    """A page that is open: what is there, and what becomes of it."""

    kept: dict[Ident, Kept] = field(default_factory=dict)
    wiped: dict[int, str] = field(default_factory=dict)
    """By period, the order of its last deletion."""
    shaken: set[Ident] = field(default_factory=set)
    """Records that may be something else at the vendor: none of them is taken for unchanged."""

    @classmethod
    def opened(cls, page: Page) -> Book:
        """Open a page."""

        def order(place: int) -> str:
            return page.orders[place] if place != NEVER else ""

        kept = {
            Ident(entry.period, entry.labels): Kept(entry.value, order(entry.replaced), order(entry.added))
            for entry in page.entries
        }
        wiped = {period: page.orders[place] for period, place in page.wiped.items()}
        return cls(kept, wiped, {Ident(*known) for known in page.shaken})

    def closed(self) -> Page:
        """Return the page; the same book gives the same page."""
        used = {order for kept in self.kept.values() for order in (kept.replaced, kept.added)}
        orders = sorted((used | set(self.wiped.values())) - {""})
        places = {order: place for place, order in enumerate(orders)} | {"": NEVER}
        entries = tuple(
            Entry(*ident, kept.value, places[kept.replaced], places[kept.added])
            for ident, kept in sorted(self.kept.items())
        )
        wiped = {period: places[order] for period, order in sorted(self.wiped.items())}
        return Page(tuple(orders), entries, wiped, tuple(sorted(self.shaken)))

    def of(self, periods: Iterable[int]) -> dict[Ident, Decimal]:
        """Return what is there of some periods, in order."""
        wanted = frozenset(periods)
        return {ident: kept.value for ident, kept in sorted(self.kept.items()) if ident.period in wanted}


@dataclass
class Change:
    """What a delivery has done to one page."""

    applied: dict[Ident, Line] = field(default_factory=dict)
    """Its records that count; of a deletion, one for each period."""
    late: dict[Ident, Line] = field(default_factory=dict)
    """Its records that something newer has replaced or deleted already."""
    doubtful: dict[Ident, Line] = field(default_factory=dict)
    """Records that it replaces, and that something newer was added to: nobody can say what the sum would be."""
    same: bool = True
    """Whether nothing is different for it."""
    removed: set[Ident] = field(default_factory=set)
    """Records of the book that a deletion has taken out."""
    spared: set[int] = field(default_factory=set)
    """Periods of which a deletion has left what is newer."""

    def take(self, other: Change) -> None:
        """Count another page's, too."""
        self.applied |= other.applied
        self.late |= other.late
        self.doubtful |= other.doubtful
        self.same = self.same and other.same
        self.removed |= other.removed
        self.spared |= other.spared


def change(book: Book, verb: Verb, lines: Iterable[Line], order: str, *, forced: bool = False) -> Change:
    """Let a delivery change a book.

    Args:
        book: changed in place.
        verb: what the delivery does.
        lines: its records of this page.
        order: when it was dropped; sorts among all orders.
        forced: a person has decided that what is doubtful is replaced.
    """
    found = Change()
    rule = {Verb.REPLACE: _replace, Verb.SUM: _sum, Verb.DELETE: _delete}[verb]
    for line in lines:
        rule(book, line, order, found, forced=forced)
    return found


def _newer(book: Book, ident: Ident, order: str) -> bool:
    """Whether something newer than *order* has set a record, or deleted its period."""
    kept = book.kept.get(ident)
    return order < max(kept.replaced if kept else "", book.wiped.get(ident.period, ""))


def _replace(book: Book, line: Line, order: str, found: Change, *, forced: bool) -> None:
    ident = line.ident
    if _newer(book, ident, order):
        found.late[ident] = line
        return
    kept = book.kept.get(ident)
    if kept is not None and order < kept.added and not forced:
        found.doubtful[ident] = line
        return
    if kept is None or kept.value != line.value or ident in book.shaken:
        found.same = False
    book.shaken.discard(ident)
    book.kept[ident] = Kept(line.value, order)
    found.applied[ident] = line


def _sum(book: Book, line: Line, order: str, found: Change, *, forced: bool) -> None:
    del forced
    ident = line.ident
    if _newer(book, ident, order):
        found.late[ident] = line
        return
    kept = book.kept.setdefault(ident, Kept(Decimal(0)))
    kept.value = SUM_CONTEXT.add(kept.value, line.value)
    kept.added = max(kept.added, order)
    found.same = False
    found.applied[ident] = line


def _delete(book: Book, line: Line, order: str, found: Change, *, forced: bool) -> None:
    if book.wiped.get(line.period, "") > order:
        found.late[line.ident] = line
        return
    there = {ident: kept for ident, kept in book.kept.items() if ident.period == line.period}
    newer = {ident for ident, kept in there.items() if kept.replaced > order}
    if not forced and any(kept.added > order for ident, kept in there.items() if ident not in newer):
        found.doubtful[line.ident] = line
        return
    for ident in there.keys() - newer:
        del book.kept[ident]
        found.removed.add(ident)
    # What may be there although the book does not have it is deleted, too.
    found.removed |= {ident for ident in book.shaken if ident.period == line.period and ident not in newer}
    if newer:
        found.spared.add(line.period)
    book.shaken -= {ident for ident in book.shaken if ident.period == line.period and ident not in newer}
    book.wiped[line.period] = order
    found.same = False
    found.applied[line.ident] = line


# --- as bytes ---------------------------------------------------------------------------------------------------------

Kind = TypeVar("Kind")


def encoded(found: object) -> bytes:
    """Return a page or lines as they are kept: JSON, the same bytes for the same content."""
    return msgspec.json.encode(found)


def decoded(data: bytes, kind: type[Kind], where: str) -> Kind:
    """Return what was kept. Raises SourceGone when that is nothing of ours any more."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, ValueError):
        msg = f"{where} is not what was kept there"
        raise SourceGone(msg) from None


def rolled_up(values: Mapping[Ident, Decimal]) -> dict[Ident, Decimal]:
    """Return hours added up to days."""
    days: dict[Ident, Decimal] = {}
    for ident, value in values.items():
        day = Ident(day_start(ident.period), ident.labels)
        days[day] = SUM_CONTEXT.add(days.get(day, Decimal(0)), value)
    return days


def day_start(period: int) -> int:
    """Return the hours since the epoch at which the day of a period begins."""
    return period - period % 24


def rounded(value: Decimal, digits: int) -> Decimal:
    """Return *value* with at most so many significant digits."""
    return value if len(value.as_tuple().digits) <= digits else SUM_CONTEXT.create_decimal(f"{value:.{digits}g}")

"""Enter a delivery into the book of its stream, a day at a time: what follows from it is sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from finops_relay.delivery.ledger import Delivery
from finops_relay.delivery.ports import Ports
from finops_relay.formats.telemetry import SIGNIFICANT, Ident, significant
from finops_relay.jobs.telemetry.books import Book, Change, Verb, change, rolled_up
from finops_relay.jobs.telemetry.content import lines_of, page_of, put_page, weight
from finops_relay.jobs.telemetry.remembered import Removed, Work, page_key
from finops_relay.jobs.telemetry.sendings import Going, Gone, sending, unsendable


@dataclass
class Entering:
    """One delivery, while it is entered; complete once `going` was taken to its end."""

    ports: Ports
    delivery: Delivery
    work: Work
    pages: Mapping[str, str]
    """Of the book that is in force, by day."""
    whole: Change = field(default_factory=Change)
    gone: list[Gone] = field(default_factory=list)
    needless: int = 0
    """Rows for which nothing is to be sent."""
    cut: int = 0
    """Records that are sent rounded."""
    sizes: dict[str, int] = field(default_factory=dict)
    """What the pages weigh, by day."""
    base: dict[str, str] = field(default_factory=dict)
    staged: dict[str, str] = field(default_factory=dict)
    refused: list[Removed] = field(default_factory=list)
    """Records that no contract could be told."""
    refused_lines: set[Ident] = field(default_factory=set)
    """The delivery's lines that are in them."""

    def going(self) -> Iterator[Going]:
        """Yield the records that are to be sent, in order. Raises SourceGone, ShortRead."""
        work = self.work
        for day in work.days:
            base = self.pages.get(day, "")
            book = Book.opened(page_of(self.ports, base))
            lines = lines_of(self.ports, self.delivery.id, day)
            found = change(book, work.verb, lines, self.delivery.order, forced=work.forced)
            self.whole.take(found)
            self.sizes[day] = sum(map(weight, book.kept))
            if not found.applied:
                continue
            self.base[day] = base
            self.staged[day] = put_page(self.ports, page_key(work.stream, day, self.delivery.id), book.closed())
            what = sending(work.verb, found, book, work.shape, work.dialect)
            self.gone += what.gone
            self.needless += what.needless
            for going in what.going:
                why = unsendable(going.value, work.dialect)
                if why:
                    yield from self._refused(going, why, found, base)
                    continue
                self.cut += work.live and significant(going.value) > SIGNIFICANT
                yield going

    def warnings(self, work: Work) -> Iterator[str]:
        """Yield what a receipt says of it."""
        if self.cut:
            yield f"{self.cut:,} records add up to more than {SIGNIFICANT} significant digits and are sent rounded"
        if work.verb is Verb.DELETE and self.needless and not self.gone and not self.whole.removed:
            yield "nothing is known of these periods, and nothing was sent about them"

    def _refused(self, going: Going, why: str, found: Change, base: str) -> Iterator[Going]:
        """Leave out a record that cannot be told; where its period is told anew, as it was before."""
        self.refused.append(Removed(period=going.ident.period, labels=going.ident.labels, words=why))
        self.refused_lines |= {ident for ident in found.applied if self.work.sent_as(ident) == going.ident}
        former = self._values(Book.opened(page_of(self.ports, base))).get(going.ident)
        if not self.work.live and former is not None and not unsendable(former, self.work.dialect):
            yield Going(going.ident, former, 0)

    def _values(self, book: Book) -> Mapping[Ident, Decimal]:
        values = {ident: kept.value for ident, kept in book.kept.items()}
        return rolled_up(values) if self.work.rolled_up else values

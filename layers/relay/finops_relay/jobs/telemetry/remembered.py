"""What telemetry remembers: how far a delivery is, and what a stream is and holds."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from pydantic import Field

from finops_relay.delivery.identity import digest
from finops_relay.delivery.receipt import Frozen
from finops_relay.formats.telemetry import Dialect, Ident, Shape
from finops_relay.jobs.run import RunWork
from finops_relay.jobs.telemetry.books import Verb, day_start

KIND = "telemetry"
"""Of the deliveries, their receipts and their messages."""
PACE = 100.0
"""Records a second that a stream takes in the long run (contract page, "Telemetry")."""
BURST = PACE * 86_400
"""Records that it takes at once: a day's."""


def target_name(stream: str) -> str:
    """Return the name of the target that a stream is. The vendor's streams of both kinds share their names."""
    return f"telemetry/{stream}"


def stream_name(stream: str) -> str:
    """Return the name of the record of a stream."""
    return f"stream#{stream}"


class Stream(Frozen):
    """What a stream is, and where its book is kept. Kept as ``Record.content``."""

    kind: str = ""
    """``metric`` or ``allocation``; empty until CloudZero has taken a record, or may have."""
    sure: bool = False
    """Whether it has."""
    granularity: str = ""
    """As it is dropped: hours that are sent as days are hours here."""
    keys: tuple[str, ...] = ()
    pages: dict[str, str] = Field(default_factory=dict)
    """By day: the key in the spool of the page of its book."""
    emptied: str = ""
    """The order of the drop that deleted the whole stream last."""
    newest: str = ""
    """The order of the newest drop that has changed it since."""
    spent: float = 0.0
    """Records sent that the pace has not made up for yet, as of `spent_at`."""
    spent_at: datetime | None = None

    @property
    def shape(self) -> Shape | None:
        """What its first record has frozen; None before there was one."""
        return Shape(self.granularity, self.keys) if self.kind else None

    def owing(self, now: datetime) -> float:
        """Return the records that the pace has not made up for at *now*."""
        if self.spent_at is None:
            return 0.0
        return max(0.0, self.spent - PACE * max(0.0, (now - self.spent_at).total_seconds()))

    def wait_s(self, records: float, now: datetime) -> float:
        """Return the seconds to wait before so many *records* more are within the pace; a body alone always is."""
        owing = self.owing(now)
        return max(0.0, (owing + min(records, BURST) - BURST) / PACE)

    def having_sent(self, records: int, now: datetime) -> Stream:
        """Return it as it is once so many *records* more were sent."""
        return self.model_copy(update={"spent": self.owing(now) + records, "spent_at": now}) if records else self


class Removed(Frozen):
    """A record that the vendor refused."""

    period: int
    """As it was sent."""
    labels: tuple[str, ...]
    words: str
    gone: bool = False
    """Whether what the vendor held of it before was deleted to tell it anew."""


class Work(RunWork):
    """How far a delivery is. Kept as ``Delivery.work``."""

    stream: str
    kind: str
    verb: Verb
    whole_stream: bool = False
    """Whether the stream itself is deleted."""
    granularity: str = ""
    keys: tuple[str, ...] = ()
    days: tuple[str, ...] = ()
    """That it has records of; those of each stand in the spool, see `content_key`."""
    queued: bool = False
    """Whether its records came through the queue, and not in a file."""
    mends: str = ""
    """The delivery whose rejected rows this one mends."""
    forced: bool = False
    """Whether a person has decided that what is doubtful is replaced."""
    ways: dict[str, str] = Field(default_factory=dict)
    """What each body does, by its key in the spool: one of `sendings.Way`."""
    base: dict[str, str] = Field(default_factory=dict)
    """By day: the page of the book that was in force, empty for none."""
    staged: dict[str, str] = Field(default_factory=dict)
    """By day: the page that is in force once all is taken."""
    sent: Decimal | None = None
    """What the bodies that were taken add up to."""
    records: int = 0
    """How many records they have."""
    rewritten: int = 0
    """How often bodies were made anew, because the vendor refused them."""
    removed: tuple[Removed, ...] = ()
    """Records that the vendor refused."""
    perhaps: tuple[str, ...] = ()
    """Bodies that replace or delete and may have been taken, by key: if one is not sent once more, it is in doubt."""

    @property
    def live(self) -> bool:
        """Whether the vendor's own contract is spoken."""
        return self.contract == "live"

    @property
    def dialect(self) -> Dialect:
        """What the contract wants of the records."""
        return Dialect(self.kind, self.live)

    @property
    def shape(self) -> Shape:
        """Of its records."""
        return Shape(self.granularity, self.keys)

    @property
    def rolled_up(self) -> bool:
        """Whether its hours are sent as days."""
        return self.dialect.rolls(self.shape)

    def sent_as(self, ident: Ident) -> Ident:
        """Return the record that CloudZero is told for one that was dropped."""
        return Ident(day_start(ident.period), ident.labels) if self.rolled_up else ident


def content_key(delivery: str, day: str) -> str:
    """Return where a delivery's records of a day stand in the spool: lines, see `books.Line`, in order."""
    return f"telemetry/{delivery}/{day}.json"


def page_key(stream: str, day: str, delivery: str, settled: str = "") -> str:
    """Return where the page of a book stands that a delivery has written; short, for the ledger has many of them."""
    return f"telemetry/books/{digest(stream)[:16]}/{day}/{delivery[:32]}{settled}.json"

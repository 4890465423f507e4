"""What billing drops remember: how far a delivery is, what a connection is busy with, and which hours were sent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date
from decimal import Decimal
from itertools import groupby

from pydantic import Field

from finops_relay.cloudzero.records import ContractName
from finops_relay.delivery.packer import Mode
from finops_relay.delivery.receipt import Frozen
from finops_relay.jobs.run import RunWork

KIND = "billing"
"""Of the deliveries, their receipts and their messages."""

MONTH_ROWS = 1_000_000
"""That a stream holds of one month (contract page, "Drops, live contract", limits)."""
MONTH_BYTES = 70_000_000
"""Likewise; of rows as they are sent."""

Costs = tuple[Decimal | None, ...]
"""US dollars by cost column, in the order of `formats.cost_rows.COSTS`; None where no row has one."""
NO_COSTS: Costs = (None,) * 5


def target_name(connection: str) -> str:
    """Return the name of the target that a connection is."""
    return f"billing/{connection}"


def hours_name(connection: str, month: str) -> str:
    """Return the name of the record of what was sent to a connection in a month."""
    return f"hours#{connection}#{month}"


class Hour(Frozen):
    """What a delivery has for one hour."""

    rows: int
    bytes: int
    sha256: str
    """Of its rows as they are sent, in order."""
    costs: Costs = NO_COSTS


class BodyPlan(Frozen):
    """What a body does."""

    mode: Mode
    rows: tuple[tuple[int, int], ...]
    """Hour and how many rows of it."""

    @property
    def hours(self) -> frozenset[int]:
        """Its hours."""
        return frozenset(hour for hour, _ in self.rows)


class Manifest(Frozen):
    """What was prepared, hour by hour. Kept in ``state/billing/``, for it is too large for the ledger."""

    manifest_version: int = 1
    delivery: str
    contract: str
    connection: str
    month: str
    hours: dict[int, Hour]
    """By hour since the epoch."""
    bodies: dict[str, BodyPlan]
    """By the spool's key."""

    @property
    def rows(self) -> int:
        """Of all hours."""
        return sum(hour.rows for hour in self.hours.values())

    @property
    def bytes(self) -> int:
        """Of all hours' rows."""
        return sum(hour.bytes for hour in self.hours.values())


class Removed(Frozen):
    """A row that the vendor refused."""

    origin: int
    hour: int
    costs: Costs
    words: str


class Work(RunWork):
    """How far a delivery is. Kept as ``Delivery.work``."""

    connection: str
    month: str
    """YYYY-MM."""
    whole_month: bool = False
    key: str = ""
    """Whose rows these are: the dropped key, also where mended rows of it are delivered."""
    adds_to: str = ""
    """The key whose rejected rows these are, mended, where they go in addition to what it has sent (`openapi`)."""
    months_open: int = 1
    overlap: str = "hold"
    mends: str = ""
    """The delivery whose rejected rows this one mends."""
    mended: tuple[str, ...] = ()
    """That one, those that it mends itself, and so on."""
    manifest: str = ""
    """Its key in the drops bucket."""
    idempotency_key: str = Field(default="", repr=False)
    """Of the body in hand, while nobody knows whether the vendor has acted."""
    perhaps: tuple[int, ...] = ()
    """Hours of a body that replaces and may have been taken: if it is not sent once more, it is in doubt."""
    unit_costs: dict[str, Costs] = Field(default_factory=dict)
    """Money of each accepted body by its spool key, added up from the bytes that were sent."""
    rewritten: int = 0
    """How often bodies were made anew, because the vendor refused them or holds a part of them."""
    removed: tuple[Removed, ...] = ()
    """Rows that the vendor refused."""
    retried: str = ""
    """The body that was refused although each of its rows is good, and is sent once more."""
    seen: bool = False
    """Whether what was sent was read back, or a person has said that it arrived (`live`)."""

    @property
    def live(self) -> bool:
        """Whether the vendor can replace, and shows what it has."""
        return self.contract == ContractName.LIVE


class Owner(Frozen):
    """What one key has at the vendor in a month, as far as we know."""

    key: str
    adds_to: str = ""
    """As `Work.adds_to`."""
    delivery: str
    """That sent it last."""
    order: str
    sent_order: str = ""
    """Of the delivery that sent it; `order` is newer where the same was dropped again, unchanged."""
    fingerprint: str
    whole_month: bool = False
    manifest: str
    """That says what the hours hold."""
    runs: tuple[tuple[int, int], ...]
    """Its hours: first and last of each run."""
    rows: int
    bytes: int
    left_runs: tuple[tuple[int, int], ...] = ()
    """As `runs`, of the hours that hold nothing of the manifest: they were sent before, and were not replaced."""
    extras: tuple[tuple[int, int, int], ...] = ()
    """Hour, rows and bytes of what is there beyond the manifest, which includes all of the hours that were left."""
    intact: bool = True
    """Whether it holds all that the manifest says; what is there beyond that, a person has decided."""
    doubt: bool = False
    """Whether nobody knows what arrived."""
    doubt_left: bool = False
    """Whether that is so because of what the key had sent before."""
    unlike_runs: tuple[tuple[int, int], ...] = ()
    """As `runs`, of the hours that may hold other rows than the manifest says."""

    @property
    def hours(self) -> frozenset[int]:
        """Its hours."""
        return _hours(self.runs)

    @property
    def left(self) -> frozenset[int]:
        """Hours that hold nothing of the manifest."""
        return _hours(self.left_runs)

    @property
    def unlike(self) -> frozenset[int]:
        """Hours that may hold other rows than the manifest says."""
        return _hours(self.unlike_runs)


class SentHours(Frozen):
    """What was sent to a connection in a month. Kept as ``Record.content``."""

    owners: tuple[Owner, ...] = ()

    def of(self, key: str) -> Owner | None:
        """Return what *key* has there."""
        return next((owner for owner in self.owners if owner.key == key), None)

    def renewed(self, key: str, order: str) -> SentHours:
        """Return it as it is once what *key* has there was dropped again at *order*, unchanged."""
        owners = tuple(
            owner.model_copy(update={"order": max(owner.order, order)}) if owner.key == key else owner
            for owner in self.owners
        )
        return SentHours(owners=owners)

    @property
    def rows(self) -> int:
        """Of all owners."""
        return sum(owner.rows for owner in self.owners)

    @property
    def bytes(self) -> int:
        """Of all owners' rows."""
        return sum(owner.bytes for owner in self.owners)


def runs_of(hours: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Return first and last of each run of consecutive *hours*."""
    return tuple(_runs(sorted(set(hours))))


def _hours(runs: tuple[tuple[int, int], ...]) -> frozenset[int]:
    return frozenset(hour for first, last in runs for hour in range(first, last + 1))


def _runs(hours: list[int]) -> Iterator[tuple[int, int]]:
    for _, run in groupby(enumerate(hours), lambda placed: placed[1] - placed[0]):
        found = [hour for _, hour in run]
        yield found[0], found[-1]


def month_of(month: str) -> date:
    """Return the first day of a month that is written as YYYY-MM."""
    return date.fromisoformat(f"{month}-01")

"""What is to become of a prepared billing drop, given what was sent before: pure, so that every case can be tested.

The contracts differ in what a body does to what is there: `live` replaces months and hours, `openapi` only appends
(contract page, "Drops, live contract" and "openapi -> CBF"). So under `openapi` an hour goes once and never again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum

from finops_relay.delivery.ledger import Delivery
from finops_relay.jobs.billing.remembered import (
    MONTH_BYTES,
    MONTH_ROWS,
    Manifest,
    Owner,
    SentHours,
    Work,
    month_of,
    runs_of,
)
from finops_relay.jobs.turns import Waiting

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MAX_KEYS = 2_500
"""Keys of a connection's month that the ledger remembers: some 300 KB of the 400 KB that an item holds."""
_RUNS_NAMED = 5
"""Runs of hours that a reason names."""

ManifestOf = Callable[[Owner], Manifest]


class Answer(StrEnum):
    """What is to be done."""

    SEND = "send"
    UNCHANGED = "unchanged"
    HELD = "held"
    SUPERSEDED = "superseded"
    REJECTED = "rejected"


@dataclass(frozen=True)
class Verdict:
    """What is to be done, and why."""

    answer: Answer
    why: str = ""
    already: frozenset[int] = frozenset()
    """Hours that the vendor holds just so: they are not sent again (`openapi`)."""


@dataclass(frozen=True)
class Case:
    """One prepared delivery, and what was sent before it."""

    delivery: Delivery
    work: Work
    manifest: Manifest
    sent: SentHours
    manifest_of: ManifestOf

    @property
    def hours(self) -> frozenset[int]:
        """The delivery's hours."""
        return frozenset(self.manifest.hours)

    @property
    def released(self) -> bool:
        """Whether a person has said that it is to be sent all the same."""
        return self.work.decision == "send"

    @property
    def live(self) -> bool:
        """Whether the vendor can replace."""
        return self.work.live

    def judged(self) -> Verdict:
        """Return what is to be done."""
        newer = self._newer()
        if newer is not None:
            return Verdict(Answer.SUPERSEDED, f"the newer delivery {newer.delivery} was sent before")
        if self._is_there():
            return Verdict(Answer.UNCHANGED, "CloudZero was sent exactly this content before")
        already, hold = self._over_what_is_there()
        holds = [why for why in (closed(self.work, self.delivery.received.date()), hold) if why]
        if holds and not self.released:  # a person who decides has to know of all that is decided
            return Verdict(Answer.HELD, "; and ".join(holds))
        if already and already == self.hours:
            return Verdict(Answer.UNCHANGED, "CloudZero was sent exactly this content before", already)
        over = self._too_many_keys() or self._over_limit(already)
        if over:
            return Verdict(Answer.REJECTED, over)
        return Verdict(Answer.SEND, already=already)

    def _newer(self) -> Owner | None:
        """Return what has replaced the delivery before it was sent."""
        for owner in self.sent.owners:
            ours = owner.key in {self.work.key, self.work.adds_to} or owner.whole_month
            # Mended rows belong to what was sent, also where the same was dropped again since, unchanged.
            order = owner.sent_order if self.work.mends and owner.sent_order else owner.order
            if ours and order > self.delivery.order:
                return owner
        return None

    def _is_there(self) -> bool:
        """Return whether just this was sent whole, and nothing replaced; of a month that replaces, nothing else."""
        same = [
            owner
            for owner in self.sent.owners
            if owner.fingerprint == self.delivery.fingerprint and owner.intact and not owner.doubt
        ]
        alone = len(self.sent.owners) == 1 and all(owner.hours == self.hours for owner in same)
        return bool(same) and (alone or not (self.live and self.work.whole_month))

    def _over_what_is_there(self) -> tuple[frozenset[int], str]:
        """Return the hours that need not be sent, and why a person must decide, if one must."""
        if not self.live:
            return self._beside()
        return frozenset(), self._over_month() if self.work.whole_month else self._over_hours()

    def _over_month(self) -> str:
        """Return why a person must decide whether the month is replaced; empty when nobody must."""
        later = [owner for owner in self.sent.owners if owner.order > self.delivery.order]
        if later:
            return _older(later, "the month")
        months = [owner for owner in self.sent.owners if owner.whole_month and owner.key != self.work.key]
        if months and self.work.overlap != "replace":
            return _overlap(months, months[0].hours, "as the whole month, and would be erased")
        return ""

    def _over_hours(self) -> str:
        """Return why a person must decide whether the hours are replaced; empty when nobody must."""
        others = [owner for owner in self.sent.owners if owner.key != self.work.key and owner.hours & self.hours]
        later = [owner for owner in others if owner.order > self.delivery.order]
        if later:
            return _older(later, "these hours")
        if others and self.work.overlap != "replace":
            return _overlap(others, self.hours, "and would be erased")
        own = self.sent.of(self.work.key)
        vanished = own.hours - self.hours if own else frozenset()
        if vanished:
            return (
                f"this file has no row for {named(vanished)}, which its former version has sent, and CloudZero cannot"
                " empty an hour: 'send' replaces the other hours and leaves these as they are; to be rid of them, drop"
                " the complete month under month/"
            )
        return ""

    def _beside(self) -> tuple[frozenset[int], str]:
        """Likewise where drops only append."""
        month = self.work.whole_month and not self.work.adds_to
        own = [owner for owner in self.sent.owners if month or owner.key == self.work.key]
        there = Counter(hour for owner in own for hour in owner.hours)
        # Of an hour to which two files have added, none has sent all the rows.
        already = frozenset(hour for owner in own for hour in self._same(owner) if there[hour] == 1)
        doubtful = [owner for owner in own if owner.doubt]
        if doubtful:
            return already, (
                f"nobody knows what arrived of delivery {doubtful[0].delivery}, and under this contract nothing can be"
                " replaced: compare in CloudZero, then 'send' appends these rows, 'drop' does not"
            )
        changed = frozenset().union(*(owner.hours for owner in own)) - already
        if changed:
            return already, (
                f"the rows of {named(changed)} were sent before and are others now (or none), and under this contract"
                " drops only append: 'send' adds the new rows to the former ones, so that the money of these hours"
                " counts twice until CloudZero has removed the former; 'drop' leaves what was sent"
            )
        new = self.hours - already
        others = [
            owner for owner in self.sent.owners if owner not in own and owner.hours & new and not self._added_to(owner)
        ]
        if others and self.work.overlap != "replace":
            return already, _overlap(others, new, "and these rows would be added to them")
        return already, ""

    def _added_to(self, owner: Owner) -> bool:
        """Return whether the delivery has the mended rows of what *owner* has sent."""
        if not self.work.adds_to:
            return False
        return owner.key == self.work.adds_to or owner.delivery in self.work.mended

    def _same(self, owner: Owner) -> Iterable[int]:
        """Yield the hours of which *owner* has sent just the same rows."""
        theirs = self.manifest_of(owner).hours
        for hour in owner.hours & self.hours - owner.unlike:
            if hour in theirs and theirs[hour].sha256 == self.manifest.hours[hour].sha256:
                yield hour

    def _too_many_keys(self) -> str:
        """Return why nothing more can be remembered of the month; empty when it can."""
        if len(self.sent.owners) < MAX_KEYS or self.sent.of(self.work.key) is not None:
            return ""
        return (
            f"{self.work.month} has files of {len(self.sent.owners):,} keys already, and no more can be told apart;"
            " nothing was sent; fix: drop fewer and larger files, or new versions under the same key"
        )

    def _over_limit(self, already: frozenset[int]) -> str:
        """Return why the month would hold more than it may; empty when it would not."""
        rows = sum(hour.rows for at, hour in self.manifest.hours.items() if at not in already)
        size = sum(hour.bytes for at, hour in self.manifest.hours.items() if at not in already)
        there_rows, there_bytes = (0, 0) if self.live and self.work.whole_month else self._stays()
        return over_limit(self.work.month, rows, size, there_rows, there_bytes)

    def _stays(self) -> tuple[int, int]:
        """Return rows and bytes of the month that this delivery leaves as they are."""
        rows, size = self.sent.rows, self.sent.bytes
        for owner in self.sent.owners if self.live else ():
            for lost_rows, lost_bytes in _held(self, owner, self.hours).values():
                rows, size = rows - lost_rows, size - lost_bytes
        return max(0, rows), max(0, size)


def over_limit(month: str, rows: int, size: int, there_rows: int = 0, there_bytes: int = 0) -> str:
    """Return why a month would hold more than a stream may; empty when it would not.

    Args:
        month: YYYY-MM.
        rows: that are to be sent.
        size: their bytes.
        there_rows: that were sent before and stay.
        there_bytes: likewise.
    """
    if rows + there_rows <= MONTH_ROWS and size + there_bytes <= MONTH_BYTES:
        return ""
    before = f" ({there_rows:,} rows, {there_bytes:,} bytes sent before)" if there_rows else ""
    return (
        f"{month} would hold {rows + there_rows:,} rows and {size + there_bytes:,} bytes{before}; an AnyCost Stream"
        f" connection takes {MONTH_ROWS:,} rows and {MONTH_BYTES:,} bytes a month; nothing was sent; fix: aggregate the"
        " rows (by service and day, say), drop fewer columns, or divide them among several connections"
    )


def closed(work: Work, received: date) -> str:
    """Return why a month may not be changed any more without a person's word; empty when it may."""
    month = month_of(work.month)
    age = (received.year - month.year) * 12 + received.month - month.month
    if 0 <= age <= work.months_open:
        return ""
    which = "is still to come" if age < 0 else "is closed"
    return (
        f"{work.month} {which}: this month and the {work.months_open} before may be replaced (billing.months_open in"
        " config/relay.yaml); 'send' replaces it this once"
    )


def overtaken(delivery: Delivery, work: Work, waiting: dict[str, Waiting]) -> str:
    """Return the waiting delivery that replaces the same whole and is newer; empty when there is none."""
    if work.adds_to:
        return ""
    for known, other in sorted(waiting.items(), key=lambda item: item[1].order, reverse=True):
        if other.order <= delivery.order or known == delivery.id or other.month != work.month or other.addition:
            continue
        if other.whole_month or (other.key == work.key and not work.whole_month):
            return known
    return ""


def replaces(case: Case, held: Case) -> bool:
    """Return whether a newer delivery makes the decision about a held one needless: it replaces the same whole."""
    newer, older = case.work, held.work
    if case.delivery.order <= held.delivery.order or newer.month != older.month or newer.adds_to or older.adds_to:
        return False
    if not (newer.whole_month or (newer.key == older.key and not older.whole_month)):
        return False
    untouched = not any(unit.status in {"accepted", "in doubt"} for unit in held.delivery.units)
    return untouched or (case.live and (newer.whole_month or case.hours >= held.hours))


def settled(  # noqa: PLR0913 -- what was heard of the bodies, in words that a test can say
    case: Case,
    accepted: frozenset[int],
    doubtful: frozenset[int],
    *,
    wiped: bool,
    seen: bool = True,
    shaken: bool = False,
    unsent: frozenset[int] = frozenset(),
) -> SentHours:
    """Return what the vendor holds after what was sent of a delivery. Saying it twice changes nothing.

    Args:
        case: the delivery, and what was there before.
        accepted: hours that were sent whole.
        doubtful: hours of which nobody knows what arrived.
        wiped: a body that replaces the month was accepted.
        seen: what was accepted was read back, where it can be.
        shaken: a body that replaces the month is in doubt, so that nobody knows what is there of anything else.
        unsent: hours that were to be sent, and were not: what is there of them is not what the manifest says.
    """
    touched = accepted | doubtful
    if not touched:
        return case.sent
    others = [owner for owner in case.sent.owners if owner.key != case.work.key]
    own = case.sent.of(case.work.key)
    left: frozenset[int] = frozenset()
    if case.live:
        others = [] if wiped else [rest for owner in others if (rest := _without(case, owner, touched)) is not None]
        others = [rest.model_copy(update={"intact": False, "doubt": True}) for rest in others] if shaken else others
        left = own.hours - touched if own is not None and not wiped else left
    elif own is not None:
        left = own.hours - touched
    hours = touched | left
    stale, extras = _beyond(case, own, left)
    sums = {hour: (of.rows, of.bytes) for hour, of in case.manifest.hours.items()}
    counts = [*extras.values(), *(sums[hour] for hour in hours - stale if hour in sums)]
    unlike = doubtful
    doubt_left = False
    if own is not None:
        same = own.delivery == case.delivery.id  # then what is left is as this manifest says, too
        unlike |= left if shaken else left & (own.unlike if same else own.unlike | unsent)
        doubt_left = own.doubt_left if own.delivery == case.delivery.id else own.doubt and bool(left)
    owner = Owner(
        key=case.work.key,
        adds_to=case.work.adds_to,
        delivery=case.delivery.id,
        order=case.delivery.order,
        sent_order=case.delivery.order,
        fingerprint=case.delivery.fingerprint,
        whole_month=case.work.whole_month,
        manifest=case.work.manifest,
        runs=runs_of(hours),
        rows=sum(rows for rows, _ in counts),
        bytes=sum(size for _, size in counts),
        left_runs=runs_of(stale),
        extras=tuple((hour, *count) for hour, count in sorted(extras.items())),
        intact=seen and case.hours <= hours - stale - unlike and not case.work.removed,
        doubt=bool(doubtful) or doubt_left,
        doubt_left=doubt_left,
        unlike_runs=runs_of(unlike),
    )
    return SentHours(owners=(*others, owner))


def _beyond(case: Case, own: Owner | None, left: frozenset[int]) -> tuple[frozenset[int], dict[int, tuple[int, int]]]:
    """Return the hours of a key that hold nothing of this delivery, and rows and bytes that are not this delivery's."""
    if own is None:
        return frozenset(), {}
    stays = left if case.live else own.hours
    if own.delivery == case.delivery.id:
        return own.left & left, {hour: (rows, size) for hour, rows, size in own.extras if hour in stays}
    return left, _held(case, own, stays)


def _held(case: Case, owner: Owner, hours: frozenset[int]) -> dict[int, tuple[int, int]]:
    """Return rows and bytes of what *owner* has in those of *hours* that are its own."""
    found = {hour: (rows, size) for hour, rows, size in owner.extras if hour in hours}
    current = owner.hours & hours - owner.left
    theirs = case.manifest_of(owner).hours if current else {}
    for hour in current & theirs.keys():
        rows, size = found.get(hour, (0, 0))
        found[hour] = rows + theirs[hour].rows, size + theirs[hour].bytes
    return found


def _without(case: Case, owner: Owner, hours: frozenset[int]) -> Owner | None:
    """Return what *owner* has left once others have replaced *hours*."""
    lost = owner.hours & hours
    if not lost:
        return owner
    kept = owner.hours - lost
    if not kept:
        return None
    gone = _held(case, owner, lost).values()
    return owner.model_copy(
        update={
            "runs": runs_of(kept),
            "rows": max(0, owner.rows - sum(rows for rows, _ in gone)),
            "bytes": max(0, owner.bytes - sum(size for _, size in gone)),
            "left_runs": runs_of(owner.left & kept),
            "extras": tuple(extra for extra in owner.extras if extra[0] in kept),
            "intact": False,
        }
    )


def _older(later: list[Owner], what: str) -> str:
    newest = max(later, key=lambda owner: owner.order)
    return (
        f"this delivery is older than delivery {newest.delivery} of {newest.key!r}, which has sent {what} since and"
        " would be erased: drop the file again to make it the newest, or 'send' it all the same"
    )


def _overlap(others: list[Owner], hours: frozenset[int], what: str) -> str:
    first = others[0]
    more = f" (and {len(others) - 1} other files)" if len(others) > 1 else ""
    return (
        f"{named(first.hours & hours)} were sent by {first.key!r} (delivery {first.delivery}){more} {what}: 'send'"
        " does so this once; billing.connections in config/relay.yaml with overlap: replace allows it to all files of"
        " the connection"
    )


def named(hours: Iterable[int]) -> str:
    """Return hours as a person reads them."""
    runs = runs_of(hours)
    said = [f"{_time(first)}" if first == last else f"{_time(first)} to {_time(last)}" for first, last in runs]
    more = f" and {len(said) - _RUNS_NAMED} more runs of hours" if len(said) > _RUNS_NAMED else ""
    return f"the hours {', '.join(said[:_RUNS_NAMED])}{more}"


def _time(hour: int) -> str:
    return (_EPOCH + timedelta(hours=hour)).strftime("%Y-%m-%dT%H:00Z")

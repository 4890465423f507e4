"""Prepare what follows a source of truth: from a dropped file, from a run that was asked for, or on a schedule.

A schedule's tick becomes one message for each sync that is due: each waits for its own source, and holds up no other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, Protocol, TypeVar

from finops_relay.delivery.defaults import Defaults
from finops_relay.delivery.identity import ObjectVersion, digest, order_of
from finops_relay.delivery.ledger import MAX_ATTEMPTS, Delivery, Target
from finops_relay.delivery.ports import Ports, Queue
from finops_relay.delivery.receipt import Outcome, Source
from finops_relay.delivery.telling import announce, conclude, quarantine_delivery
from finops_relay.delivery.waits import Waits
from finops_relay.errors import ConfigRefused, CredentialRefused, InputRefused, VendorError
from finops_relay.formats.rejected_rows import RejectedFile, RejectedRow
from finops_relay.jobs.config import AnyAsk, Effective, in_force
from finops_relay.jobs.handing import queued
from finops_relay.jobs.mended import Rows as MendedRows
from finops_relay.jobs.mended import mending, version_of, with_rejects
from finops_relay.jobs.opening import (
    Opened,
    change_target,
    heard,
    opened,
    read_to_its_end,
    refuse_without_time,
    waiting,
)
from finops_relay.jobs.syncing import drop_path
from finops_relay.jobs.syncing.drop_path import DropPath, Meaning
from finops_relay.jobs.syncing.remembered import SyncWork, owned_of
from finops_relay.sources.records import Record
from finops_relay.sources.settings import AnySource

SCHEDULE = "schedule"
"""Where the key of a run begins that no file has asked for."""
CATCH_UP = timedelta(hours=3)
"""How long after its hour a run is still begun, should ticks have been missed: the same one, whichever begins it."""
TIME_EACH = 50
"""Records between two looks at the time that is left."""


class Reader(Protocol):
    """A source of truth, with its credential."""

    def records(self, ask: Any) -> Iterator[Record]:  # noqa: ANN401 -- each source has an ask of its own
        """Yield what *ask* is about, a page in memory at a time. Raises VendorError."""


Sources = Callable[[str, AnySource], Reader]
"""Gives the reader of a source by its name and what relay.yaml says of it."""


@dataclass(frozen=True)
class Around:
    """What every preparation needs beside what it prepares."""

    ports: Ports
    defaults: Defaults
    waits: Waits
    sources: Sources
    bucket: str
    """Of the drops."""
    hour_utc: int
    """At which a source is read that names no hour of its own."""

    def config(self) -> Effective:
        """Return what is in force."""
        return in_force(self.ports.ledger, self.defaults)


@dataclass(frozen=True)
class Due:
    """A sync that a schedule runs."""

    name: str
    """In the key of its runs, such as ``standard/CostCenter``."""
    source: str
    hour_utc: int | None
    plan_only: bool


@dataclass(frozen=True)
class Mends:
    """What a file of mended rows is about."""

    original: Delivery
    """The delivery whose rows were mended."""
    base: ObjectVersion
    """The file that is read again."""
    rows: MendedRows


WorkT = TypeVar("WorkT", bound=SyncWork)


@dataclass
class Preparation(ABC, Generic[WorkT]):
    """One run of the preparation of one delivery."""

    around: Around
    delivery: Delivery
    """As it was last saved, with what is known of it; for whoever ends it when this run cannot."""
    source: ObjectVersion | None
    """What was dropped; None for a run of the schedule."""
    path: DropPath
    command: str = ""
    """That reads the source once more; empty for a file."""

    @property
    def ports(self) -> Ports:
        """Everything outside."""
        return self.around.ports

    @abstractmethod
    def prepared(self) -> Delivery:
        """Return the delivery prepared and saved, or ended. Raises InputRefused, VendorError, and as reading does."""

    def mends(self, kind: str, whole: str) -> Mends | None:
        """Return what a file of mended rows is about; None for any other. Raises InputRefused and what reading raises.

        Args:
            kind: of the deliveries.
            whole: what is dropped whole, as a person would call it.
        """
        if self.path.meaning is not Meaning.MENDED or self.source is None:
            return None
        found = mending(self.ports, self.source, self.path.mends, kind=kind, place=drop_path.place, whole=whole)
        again = str(found.base.work.get("again", ""))
        if again:
            fix = f"correct them there, then: {again}"
            raise InputRefused("the rows came from a source of truth, not from a file", file=self.source.key, fix=fix)
        return Mends(found.original, version_of(found.base), found.rows)

    def begun(self, work: WorkT, target: str, config: Effective, mends: Mends | None) -> Delivery | None:
        """Give the delivery its target, and the settings that it will use to its end; nothing of it is saved yet.

        Returns:
            The delivery ended, where a newer run of the same source makes it needless; else None.
        """
        self.delivery = self.delivery.but(
            target=target,
            # A plan only reads: it need not wait behind what is being written.
            group=digest(f"plan/{target}" if self.delivery.dry_run else target),
            work=work.model_dump(mode="json"),
            config_version=config.version_id,
        )
        if mends is not None:  # as old as what it mends: what is newer is not replaced by something older
            self.delivery = self.delivery.but(order=f"{mends.original.order}+{self.delivery.order}")
        newer = overtaken(self.ports, self.delivery, work.owned) if self.command else ""
        if not newer:
            return None
        reason = f"the newer run {newer} reads the same source"
        return conclude(self.ports, self.delivery.ended(Outcome.SUPERSEDED, self.ports.clock.now(), reason))

    def records(self, ask: AnyAsk | None, config: Effective) -> Iterator[Record]:
        """Yield what a source has. Raises InputRefused and VendorError."""
        if ask is None:
            fix = "name one in config/relay.yaml (servicenow, backstage or http_json), or drop the values as a file"
            raise InputRefused("no source of truth is configured for it", file=self.delivery.source.key, fix=fix)
        reader = self.around.sources(ask.source, config.relay.sources[ask.source])
        for record in reader.records(ask):
            if record.number % TIME_EACH == 0:
                smaller = f"narrow the query down, then: {self.command}"
                refuse_without_time(self.ports, self.delivery.source.key, f"source {ask.source!r}", smaller)
            yield record

    def with_rejects(self, delivery: Delivery, rejects: RejectedFile) -> Delivery:
        """Return a delivery with its rejected rows written; those of a source are mended there."""
        delivery = with_rejects(self.ports, delivery, rejects)
        if self.command and rejects.rows:
            return delivery.but(next_command=f"correct the rejected rows at the source, then: {self.command}")
        return delivery


Begin = Callable[[Delivery, ObjectVersion | None, DropPath], Preparation[WorkT]]


def slug_of(own: str | None, config: Effective, file: str) -> str:
    """Return the slug of the organization. Raises ConfigRefused when none is known."""
    slug = own or config.slug
    if not slug:
        fix = "set the stack's parameter InfracostSlug, or infracost.slug in config/relay.yaml"
        raise ConfigRefused("no Infracost organization is configured", file=file, fix=fix)
    return slug


def rejected_record(record: Record, columns: Iterable[str], error: str, fix: str) -> RejectedRow:
    """Return a row of a source that is not delivered, with the name by which it is found there."""
    names = tuple(columns)
    return RejectedRow(
        record.number, ("record", *names), (record.name, *map(record.values.__getitem__, names)), error, fix
    )


# --- files, and runs that a file asks for -----------------------------------------------------------------------------


def prepare_drop(
    source: ObjectVersion,
    around: Around,
    kind: str,
    parse: Callable[[str], DropPath],
    begin: Begin[WorkT],
) -> Delivery | None:
    """Prepare what one S3 event tells of; return its delivery, None where the event makes none.

    Raises:
        Wait: the object or its source cannot be read now; the message comes back later.
        LedgerConflict: another run is at it.
    """
    refusal: InputRefused | None = None
    try:
        path = parse(source.key)
    except InputRefused as error:
        path, refusal = DropPath(Meaning.FILE, dry_run=source.key.startswith("plan/")), error
    if path.meaning is Meaning.NOTHING:
        return None
    found = opened(around.ports, source, kind=kind, dry_run=path.dry_run)
    if not isinstance(found, Opened):
        return found
    with heard(around.ports, found.delivery.id, around.waits):
        run = begin(found.delivery, source, path)

        def story() -> Delivery:
            if refusal is not None:
                raise refusal
            return _told(run)

        return read_to_its_end(around.ports, source, around.waits, lambda: run.delivery, story)


def _told(run: Preparation[WorkT]) -> Delivery:
    """Prepare and hand over, or end as the trouble with a source has it. Raises Wait and what reading raises."""
    if run.delivery.stage == "prepared":
        return hand_over(run.ports, run.delivery)
    try:
        return hand_over(run.ports, run.prepared())
    except VendorError as error:
        return _in_trouble(run, error)


def _in_trouble(run: Preparation[WorkT], error: VendorError) -> Delivery:
    """Decide what a source that does not answer leads to: a wait for however long it takes, or the end. Raises Wait."""
    ports, delivery = run.ports, run.delivery
    if isinstance(error, CredentialRefused):
        ports.metrics.count("CredentialRefused")
    elif error.retryable:
        ports.metrics.count("VendorTrouble")
    command = str(delivery.work.get("again", ""))
    said = f"the source could not be read: {error}"
    if delivery.dry_run:
        plan = {"verdict": "would_fail", "why": said, "steps": []}
        reason = "a dry run: nothing was written at the vendor"
        return conclude(ports, delivery.but(plan=plan).ended(Outcome.UNCHANGED, ports.clock.now(), reason, command))
    if not error.retryable:
        return conclude(ports, delivery.ended(Outcome.FAILED, ports.clock.now(), said, command))
    wait = run.around.waits.after(delivery.waits, error.retry_after_s)
    raise waiting(ports, delivery, wait, said) from error


def hand_over(ports: Ports, delivery: Delivery) -> Delivery:
    """Queue a prepared delivery, and let older ones of what it is about know that it is newer."""
    if delivery.stage in {"finished", "queued"}:
        return delivery
    if not delivery.dry_run:
        change_target(
            ports,
            str(delivery.work["owned"]),
            lambda target: (
                target.but(newest_order=delivery.order, newest_delivery=delivery.id)
                if delivery.order > target.newest_order
                else target
            ),
        )
    return queued(ports, delivery)


# --- schedules --------------------------------------------------------------------------------------------------------


def due_at(tick: datetime, hour_utc: int) -> datetime | None:
    """Return the time of the run that *tick* is to begin, if it was not begun before; None when none is due."""
    at = tick.replace(hour=hour_utc, minute=0, second=0, microsecond=0)
    if at > tick:
        at -= timedelta(days=1)
    return at if tick - at < CATCH_UP else None


def begin_due(tick: datetime, around: Around, kind: str, syncs: Iterable[Due], queue: Queue) -> list[Delivery]:
    """Begin every run that is due at *tick*, each once however often ticks come; return those that were sent on.

    Args:
        tick: the scheduled time that the event names, UTC.
        around: everything else.
        kind: of the deliveries.
        syncs: all that the schedule runs.
        queue: of the function itself.

    Raises:
        LedgerConflict: another tick begins the same run just now.
    """
    sent = []
    for sync in syncs:
        hour = around.hour_utc if sync.hour_utc is None else sync.hour_utc
        due = due_at(tick, hour)
        if due is None:
            continue
        moment = f"{due:%Y-%m-%dT%H:%MZ}"
        delivery_id = digest(SCHEDULE, kind, sync.name, moment)
        delivery = around.ports.ledger.delivery(delivery_id)
        if delivery is None:
            now = around.ports.clock.now()
            key = f"{SCHEDULE}/{kind}/{sync.name}/{moment}"
            begun = Delivery(
                id=delivery_id,
                kind=kind,
                order=order_of(ObjectVersion(around.bucket, key, at=now)),
                dry_run=sync.plan_only,
                source=Source(bucket=around.bucket, key=key),
                times={"received": now},
            )
            delivery = around.ports.ledger.save(begun)
        if delivery.stage == "preparing" and not delivery.attempts and not delivery.waits:  # perhaps not sent yet
            queue.send(delivery, nonce=delivery.id)
            sent.append(delivery)
    return sent


def run_due(delivery_id: str, around: Around, kind: str, begin: Begin[WorkT]) -> Delivery | None:
    """Run a sync that the schedule has begun; return its delivery, None when there is none of this id.

    Raises:
        Wait: its source cannot be read now.
        LedgerConflict: another run is at it.
    """
    ports = around.ports
    delivery = ports.ledger.delivery(delivery_id)
    if delivery is None or delivery.kind != kind:
        return None
    if delivery.stage == "finished":
        return announce(ports, delivery)
    if delivery.stage not in {"preparing", "prepared"}:
        return delivery
    if delivery.attempts >= MAX_ATTEMPTS:
        reason = f"{delivery.attempts} tries ended without a word in stage {delivery.stage!r}"
        return quarantine_delivery(ports, delivery, reason)
    delivery = ports.ledger.save(delivery.but(attempts=delivery.attempts + 1))
    with heard(ports, delivery.id, around.waits):
        run = begin(delivery, None, DropPath(Meaning.RUN, delivery.dry_run))
        try:
            return _told(run)
        except InputRefused as error:
            delivery = run.delivery
            command = str(delivery.work.get("again", ""))
            if delivery.dry_run:
                delivery = delivery.but(plan={"verdict": "would_be_rejected", "why": str(error), "steps": []})
            return conclude(ports, delivery.ended(Outcome.REJECTED, ports.clock.now(), str(error), command))


def overtaken(ports: Ports, delivery: Delivery, owned: str) -> str:
    """Return the newer run of the same source that makes this one needless; remember this one where there is none."""
    if delivery.dry_run:
        return ""
    newer, ended = "", ports.ledger.delivery(owned_of(ports.ledger.target(owned)).begun)
    idle = ended is not None and ended.outcome in {Outcome.REJECTED, Outcome.FAILED}  # it came to nothing

    def now(target: Target) -> Target:
        nonlocal newer
        known = owned_of(target)
        newer = known.begun if known.begun_order > delivery.order and not idle else ""
        if newer or known.begun == delivery.id:
            return target
        changes = {"begun": delivery.id, "begun_order": delivery.order}
        return target.but(content=known.model_copy(update=changes).model_dump(mode="json"))

    change_target(ports, owned, now)
    return newer

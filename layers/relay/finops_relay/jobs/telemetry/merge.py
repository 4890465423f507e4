"""Count what applications have sent: batches of the inbox in, deliveries that replace the totals that changed out.

Each record counts once, by its id. What was counted of a stream is in force once its ledger record `collected#…` is
saved: with the pages of its totals, the batches that are in them, and the deliveries that follow. A run that dies
before that has done nothing; after it the next run, which finds the batches still in the inbox, hands the deliveries
over. Batches are removed once nothing more is to be done about them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice

import msgspec

from finops_relay.cloudzero.records import ContractName
from finops_relay.delivery.identity import ObjectVersion, digest
from finops_relay.delivery.ledger import Delivery, Record
from finops_relay.delivery.ports import Ports
from finops_relay.delivery.receipt import Outcome, Rows, Source, Usage, rejected_key
from finops_relay.delivery.telling import announce
from finops_relay.errors import InputRefused, ShortRead, SourceGone
from finops_relay.formats.cost_cells import CellFault
from finops_relay.formats.rejected_rows import RejectedFile, RejectedRow
from finops_relay.formats.telemetry import Ident, Shape, day_of
from finops_relay.jobs.contract import Tenant, ask, known_contract
from finops_relay.jobs.handing import hand_over
from finops_relay.jobs.telemetry.books import Line, Verb
from finops_relay.jobs.telemetry.collect import INBOX, Received, batch_of
from finops_relay.jobs.telemetry.content import MAX_DAYS, entry_of, let_go, send_again, total_of, written
from finops_relay.jobs.telemetry.messages import Members, Nature, has_id, members_of, record_of, stream_of
from finops_relay.jobs.telemetry.remembered import KIND, Stream, Work, stream_name, target_name
from finops_relay.jobs.telemetry.totals import (
    SEALED_BYTES,
    Collected,
    Counted,
    Day,
    Totals,
    collected_name,
    counted,
    put_aside,
    put_totals,
    sealed_key,
    totals_key,
    totals_of,
    wiped_periods,
)

READING_LEFT_S = 120.0
"""An invocation with less time than this left reads no further batch."""
STREAM_LEFT_S = 30.0
"""Likewise, begins with no further stream."""
COLUMNS = ("message_id", "body")
NO_STREAM = ""
"""What messages are under that name no stream."""


@dataclass(frozen=True)
class Bounds:
    """How much one run takes; the next one takes what is beyond."""

    batches: int = 1_000
    records: int = 500_000
    bytes: int = 64_000_000
    """Of messages, decoded: what is kept of their records is in memory at once."""
    ids_bytes: int = SEALED_BYTES
    """Of the ids that stand in the page of a day."""


def merge(ports: Ports, bucket: str, tenant: Tenant, bounds: Bounds = Bounds()) -> list[Delivery]:
    """Count what lies in the inbox; return the deliveries that came of it, handed over or ended.

    Where nobody knows the tenant's contract yet, it is asked for and everything stays in the inbox for the next run.

    Args:
        ports: everything outside.
        bucket: of the inbox.
        tenant: whom the totals go to.
        bounds: of one run.

    Raises:
        LedgerConflict: another run is at it; nothing of it is lost.
        SourceGone, ShortRead: something that was kept of a stream cannot be read; the other streams were counted, and
            what is for this one stays in the inbox.
    """
    listed = list(islice(ports.drops.listing(bucket, INBOX), bounds.batches + 1))
    if not listed:
        return []
    contract = known_contract(ports, tenant)
    if contract is None:
        now = ports.clock.now()
        asking = digest(INBOX, f"{now:%Y-%m-%dT%H:%M}")  # not more than once a minute
        source = Source(bucket=bucket, key=INBOX)
        ask(ports, tenant, Delivery(id=asking, kind=KIND, source=source, times={"received": now}))
        return []
    run = _Run(ports, contract, bounds, listed[: bounds.batches], whole=len(listed) <= bounds.batches)
    run.read()
    return run.counted()


@dataclass
class _Part:
    """What a run has read of one stream."""

    name: str
    record: Record
    collected: Collected
    known: Stream
    version: int
    """Of the ledger record that *known* is."""
    nature: Nature | None
    consumed: frozenset[str]
    batches: dict[str, ObjectVersion] = field(default_factory=dict)
    """Those with records that were not counted yet, by key."""
    rows: int = 0
    days: dict[str, list[Counted]] = field(default_factory=dict)
    idents: dict[Ident, Ident] = field(default_factory=dict)
    rejects: dict[str, RejectedRow] = field(default_factory=dict)
    """By message: one that is given out twice is rejected once."""
    repeated: int = 0
    without_id: int = 0

    @classmethod
    def known_as(cls, name: str, ports: Ports) -> _Part:
        """Read what the ledger knows of a stream."""
        record = ports.ledger.record(collected_name(name))
        collected = Collected.model_validate(record.content)
        stream = ports.ledger.record(stream_name(name)) if name != NO_STREAM else Record(name="")
        known = Stream.model_validate(stream.content)
        nature = None
        if known.shape is not None:
            nature = Nature(known.kind, known.shape)
        elif collected.kind and collected.order > known.emptied:  # else the stream was deleted, and its name is free
            nature = Nature(collected.kind, Shape(collected.granularity, collected.keys))
        return cls(name, record, collected, known, stream.version, nature, frozenset(collected.consumed))

    def counts(self, batch: ObjectVersion) -> bool:
        """Whether the records of a batch are still to be counted."""
        if batch.key in self.consumed:
            return False
        self.batches.setdefault(batch.key, batch)
        return True

    def take(self, message: Received, line: int, members: Members, *, live: bool) -> None:
        """Take one record, good or bad."""
        try:
            record, nature = record_of(members, message.id, live=live, nature=self.nature)
        except CellFault as fault:
            self.reject(message, line, fault)
            return
        self.nature = self.nature or nature
        self.rows += 1
        self.without_id += not has_id(members)
        ident = self.idents.setdefault(record.ident, record.ident)
        self.days.setdefault(day_of(ident.period), []).append(record._replace(ident=ident))

    def reject(self, message: Received, line: int, fault: CellFault) -> None:
        """Take one bad message."""
        self.rows += 1
        self.repeated += message.id in self.rejects
        # Half of a character, which only an escape can put into a text, is nothing that a file can hold.
        body = message.body.encode(errors="backslashreplace").decode()
        self.rejects[message.id] = RejectedRow(line, COLUMNS, (message.id, body), fault.error, fault.fix)


@dataclass(frozen=True)
class _Batch:
    """A batch that was read, and the streams that have records in it."""

    key: str
    streams: set[str] = field(default_factory=set)


@dataclass
class _Run:
    """One run."""

    ports: Ports
    contract: ContractName
    bounds: Bounds
    listed: Sequence[ObjectVersion]
    """The first batches of the inbox, in order of their keys."""
    whole: bool
    """Whether there are no others."""
    parts: dict[str, _Part] = field(default_factory=dict)
    batches: list[_Batch] = field(default_factory=list)

    # --- what is read -------------------------------------------------------------------------------------------------

    def read(self) -> None:
        """Read batch after batch, as many as one run takes. Raises what reading raises."""
        records = size = 0
        for entry in self.listed:
            late = self.ports.clock.remaining_s() < READING_LEFT_S
            if self.batches and (late or records >= self.bounds.records or size >= self.bounds.bytes):
                return
            try:
                source = self.ports.drops.pin(entry.bucket, entry.key)
                messages, count = batch_of(self.ports, source)
            except SourceGone:  # another run has counted it
                continue
            except InputRefused as error:
                self._take_unreadable(source, error)
                continue
            records, size = records + len(messages), size + count
            self._take(source, messages)

    def _take(self, source: ObjectVersion, messages: Sequence[Received]) -> None:
        batch = _Batch(source.key)
        self.batches.append(batch)
        live = self.contract is ContractName.LIVE
        for line, message in enumerate(messages, 1):
            try:
                members = members_of(message.body)
                stream = stream_of(members)
            except CellFault as fault:
                if self._part(NO_STREAM, batch).counts(source):
                    self.parts[NO_STREAM].reject(message, line, fault)
                continue
            if self._part(stream, batch).counts(source):
                self.parts[stream].take(message, line, members, live=live)

    def _take_unreadable(self, source: ObjectVersion, error: InputRefused) -> None:
        """Reject an object as a whole: nobody but us writes into the inbox, but somebody may."""
        batch = _Batch(source.key)
        self.batches.append(batch)
        if self._part(NO_STREAM, batch).counts(source):
            where = f"{source.uri} version {source.version_id}"
            fault = CellFault(error.reason, "send the messages to the application queue")
            self.parts[NO_STREAM].reject(Received(source.key, where), 1, fault)

    def _part(self, stream: str, batch: _Batch) -> _Part:
        batch.streams.add(stream)
        part = self.parts.get(stream)
        if part is None:
            part = self.parts[stream] = _Part.known_as(stream, self.ports)
        return part

    # --- what becomes of it -------------------------------------------------------------------------------------------

    def counted(self) -> list[Delivery]:
        """Count one stream after the other, then remove the batches that nobody needs any more. Raises as merge."""
        done: list[Delivery] = []
        undone: set[str] = set()
        trouble: SourceGone | ShortRead | None = None
        for name, part in sorted(self.parts.items()):
            if self.ports.clock.remaining_s() < STREAM_LEFT_S:
                undone.add(name)
                continue
            try:
                done += self._told(part)
            except (SourceGone, ShortRead) as error:
                undone.add(name)
                trouble = trouble or error
        for batch in self.batches:
            if not batch.streams & undone:
                self.ports.drops.remove(batch.key)
        if trouble is not None:
            raise trouble
        return done

    def _told(self, part: _Part) -> Iterator[Delivery]:
        """Yield the deliveries of a stream: those of a former run that may have died, then those of this one."""
        if self._still_there(part.collected):
            yield from self._handed_over(part.collected)
        if part.rows:
            yield from self._handed_over(self._counted(part))

    def _handed_over(self, collected: Collected) -> Iterator[Delivery]:
        """Hand over what a run has made; what was handed over before stays as it is."""
        let_go(self.ports, collected.former)
        for made in collected.unsent:
            delivery = self.ports.ledger.delivery(made.id) or self.ports.ledger.save(made)
            final = delivery.outcome.final
            yield announce(self.ports, delivery) if final else hand_over(self.ports, delivery, entry_of(delivery))

    def _counted(self, part: _Part) -> Collected:
        """Count the records of a stream, once and for all."""
        before, now = part.collected, self.ports.clock.now()
        number = before.runs + 1
        # Never before the last one, whatever this machine's clock says: the older of two totals is left out.
        moment = max(now.isoformat(timespec="milliseconds"), before.order.partition("#")[0])
        order = f"{moment}#{number:064X}"
        # All that it may depend on: of two runs at once neither may write over what the other has counted.
        run = digest("telemetry-queue", part.name, order, self.contract, str(part.version), *part.batches)
        pages, found = dict(before.days), list[Day]()
        for day, records in sorted(part.days.items()):
            key, what = self._day(part, day, records, f"{number}-{run[:16]}", order)
            pages[day] = key
            found.append(what)
            records.clear()  # its totals are left of it
        nature = part.nature
        after = Collected(
            runs=number,
            order=order,
            kind=nature.kind if nature else "",
            granularity=nature.shape.granularity if nature else "",
            keys=nature.shape.keys if nature else (),
            days=pages,
            consumed=(*self._still_there(before), *part.batches),
            unsent=tuple(self._deliveries(part, run, order, now, found)),
            former=tuple(key for day, key in sorted(before.days.items()) if pages[day] != key),
        )
        self.ports.ledger.save_record(part.record.but(content=after.model_dump(mode="json")))
        return after

    def _still_there(self, collected: Collected) -> list[str]:
        """Return the batches that were counted and may still lie in the inbox: who counted them may have died."""
        there, last = {entry.key for entry in self.listed}, self.listed[-1].key
        return [key for key in collected.consumed if key in there or (key > last and not self.whole)]

    def _day(self, part: _Part, day: str, records: Sequence[Counted], run: str, order: str) -> tuple[str, Day]:
        """Count the records of a day; return the key of its page, which is a new one if anything is new."""
        key = part.collected.days.get(day, "")
        page = totals_of(self.ports, key)
        what, after = counted(self.ports, records, page, self._standing(part, day, page))
        if not what.rows:
            return key, what
        after = msgspec.structs.replace(after, order=order, nature=str(part.nature))
        if len(after.ids) > self.bounds.ids_bytes:
            after = put_aside(self.ports, sealed_key(part.name, day, run), after)
        return put_totals(self.ports, totals_key(part.name, day, run), after), what

    def _standing(self, part: _Part, day: str, page: Totals) -> dict[Ident, Line]:
        """Return the lines of a page that still count: not what was deleted since, nor what the stream is not of."""
        if not page.lines or page.order < part.known.emptied or page.nature != str(part.nature):
            return {}
        wiped = wiped_periods(self.ports, part.known.pages.get(day, ""))
        return {line.ident: line for line in page.lines if page.order > wiped.get(line.period, "")}

    # --- deliveries ---------------------------------------------------------------------------------------------------

    def _deliveries(self, part: _Part, run: str, order: str, now: datetime, days: Sequence[Day]) -> Iterator[Delivery]:
        """Yield what follows from a run's records; more than one delivery only where there are very many days."""
        repeated = part.repeated + sum(day.repeated for day in days)
        delivery = self._begun(part, run, order, now).but(filtered_by={"duplicates": repeated} if repeated else {})
        delivery = self._with_rejects(delivery, part).warn(*_warnings(part, days))
        fresh = [day for day in days if day.rows]
        if not fresh:
            yield _ended(delivery.but(rows=_rows(0, repeated, len(part.rejects))), now)
            return
        for first in range(0, len(fresh), MAX_DAYS):
            some = fresh[first : first + MAX_DAYS]
            owed = sum(day.rows for day in some)
            rows = _rows(owed, 0, 0) if first else _rows(owed, repeated, len(part.rejects))
            begun = self._begun(part, digest(run, str(first)), order, now) if first else delivery
            yield self._prepared(begun.but(rows=rows), some)

    def _begun(self, part: _Part, delivery: str, order: str, now: datetime) -> Delivery:
        source = next(iter(part.batches.values()))
        nature = part.nature
        work = Work(
            stream=part.name,
            kind=nature.kind if nature else "",
            verb=Verb.REPLACE,
            granularity=nature.shape.granularity if nature else "",
            keys=nature.shape.keys if nature else (),
            contract=self.contract.value,
            queued=True,
        )
        target = target_name(part.name) if part.name != NO_STREAM else ""
        return Delivery(
            id=delivery,
            kind=KIND,
            target=target,
            group=digest(target),
            order=order,
            source=Source(
                bucket=source.bucket,
                key=source.key,
                version=source.version_id,
                etag=source.etag,
                bytes=sum(batch.size_bytes for batch in part.batches.values()),
            ),
            times={"received": now},
            work=work.model_dump(mode="json"),
        )

    def _with_rejects(self, delivery: Delivery, part: _Part) -> Delivery:
        """Return the delivery with its rejected messages written, if there are any."""
        if not part.rejects:
            return delivery
        key = rejected_key(delivery.id)
        with RejectedFile() as rejects:
            for row in part.rejects.values():
                rejects.add("", row)
            with self.ports.drops.writer(key, "text/csv") as out:
                rejects.write_to(out.write)
        return delivery.but(rejected_rows=f"s3://{delivery.source.bucket}/{key}", next_command=send_again(delivery))

    def _prepared(self, delivery: Delivery, days: Sequence[Day]) -> Delivery:
        """Return a delivery with the new totals of some days in the spool."""
        totals = {ident: total for day in days for ident, total in day.changed.items()}
        names, hashed = written(self.ports, delivery, totals)
        work = Work.model_validate(delivery.work).model_copy(update={"days": names})
        return delivery.but(
            stage="prepared",
            usage=Usage(in_=total_of(day.value for day in days)),
            fingerprint=digest(work.contract, work.verb, str(work.shape), hashed),
            work=work.model_dump(mode="json"),
        ).at("prepared", self.ports.clock.now())


def _rows(owed: int, repeated: int, rejected: int) -> Rows:
    counts = {"owed": owed, "filtered": repeated, "rejected": rejected}
    return Rows.model_validate({"in": sum(counts.values()), **counts})


def _ended(delivery: Delivery, now: datetime) -> Delivery:
    """Return a delivery that ends here, because no record of it counts."""
    rows = delivery.rows
    if not rows.rejected:
        reason = f"all {rows.in_:,} records had come before: nothing has changed"
        return delivery.ended(Outcome.UNCHANGED, now, reason)
    reason = f"{rows.rejected:,} messages were rejected, and no other one is new; mend them and send them again"
    return delivery.ended(Outcome.REJECTED, now, reason, delivery.next_command)


def _warnings(part: _Part, days: Sequence[Day]) -> Iterator[str]:
    clashing = sum(day.clashing for day in days)
    if clashing:
        yield f"{clashing:,} records repeat an id with other content: the first counts"
    if part.without_id:
        yield (
            f"{part.without_id:,} records have no id, and count once for each message: one that is sent twice counts"
            " twice"
        )

"""Count what applications have sent: batches of the inbox in, deliveries that replace the totals that changed out.

Each record counts once, by its id. What was counted of a stream is in force once its ledger record `collected#…` is
saved: with the pages of its totals, the batches that are in them, and the deliveries that follow. A run that dies
before that has done nothing; after it the next run, which finds the batches still in the inbox, hands the deliveries
over. Batches are removed once nothing more is to be done about them.

No stream waits for another. What cannot be counted now is put apart by its stream, so that it lies before nobody; and
of a long inbox half of a run is for the oldest batches, the other half for some that are drawn by lot from all others.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from heapq import nsmallest
from itertools import chain, islice

import msgspec

from finops_relay.cloudzero.records import ContractName
from finops_relay.delivery.identity import ObjectVersion, digest
from finops_relay.delivery.ledger import Delivery, Record
from finops_relay.delivery.ports import Ports
from finops_relay.delivery.receipt import Outcome, Rows, Source, Usage, rejected_key
from finops_relay.delivery.telling import announce
from finops_relay.errors import InputRefused, LedgerConflict, ShortRead, SourceChanged, SourceForbidden, SourceGone
from finops_relay.formats.cost_cells import CellFault
from finops_relay.formats.rejected_rows import RejectedFile, RejectedRow
from finops_relay.formats.telemetry import Ident, Shape, day_of
from finops_relay.jobs.contract import Tenant, ask, known_contract
from finops_relay.jobs.handing import hand_over
from finops_relay.jobs.telemetry.books import Line, Verb
from finops_relay.jobs.telemetry.collect import INBOX, WAITING, Received, batch_of, put_waiting, waiting_stream
from finops_relay.jobs.telemetry.content import (
    MAX_A_DAY,
    MAX_DAYS,
    entry_of,
    erasing,
    let_go,
    send_again,
    total_of,
    written,
)
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
APART_BYTES = 6_000_000
"""Of messages, decoded, that are read before those to be put apart are written: as many as a batch of SQS's has."""
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
    weight: int = MAX_A_DAY
    """Of the different records of a stream's day."""


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
        Exception: of a stream or a batch, whatever it is, the first of several; the other streams were counted, and
            what is for this one stays in the inbox.
    """
    if not any(True for _ in islice(ports.drops.listing(bucket, INBOX), 1)):
        return []
    contract = known_contract(ports, tenant)
    if contract is None:
        now = ports.clock.now()
        asking = digest(INBOX, f"{now:%Y-%m-%dT%H:%M}")  # not more than once a minute
        source = Source(bucket=bucket, key=INBOX)
        ask(ports, tenant, Delivery(id=asking, kind=KIND, source=source, times={"received": now}))
        return []
    run = _Run(ports, bucket, contract, bounds)
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
    waits: bool = False
    """Whether a deletion of the stream waits for its turn: a total would bring back what it is about to delete."""
    trouble: Exception | None = None
    """Why nothing is known of it."""
    undone: bool = False
    """Whether something of it could not be done."""
    handed_over: bool = False
    """Whether what a former run has made of it is on its way for certain."""
    stays: bool = False
    """Whether it is not known for certain that none of it was counted, or more can be done about it at once."""
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
        try:
            return cls._known_as(name, ports)
        except Exception as error:  # noqa: BLE001 -- one stream's trouble is nobody else's; the run raises it in the end
            nothing = Record(name=collected_name(name))
            return cls(name, nothing, Collected(), Stream(), 0, None, frozenset(), trouble=error)

    @classmethod
    def _known_as(cls, name: str, ports: Ports) -> _Part:
        # First of all: what a deletion has done is remembered before it gives its turn away.
        waits = name != NO_STREAM and bool(erasing(ports, name))
        record = ports.ledger.record(collected_name(name))
        collected = Collected.model_validate(record.content)
        stream = ports.ledger.record(stream_name(name)) if name != NO_STREAM else Record(name="")
        known = Stream.model_validate(stream.content)
        nature = None
        if known.shape is not None:
            nature = Nature(known.kind, known.shape)
        elif collected.kind and collected.order > known.emptied:  # else the stream was deleted, and its name is free
            nature = Nature(collected.kind, Shape(collected.granularity, collected.keys))
        consumed = frozenset(collected.consumed)
        return cls(name, record, collected, known, stream.version, nature, consumed, waits)

    def counts(self, batch: ObjectVersion) -> bool:
        """Whether the records of a batch are still to be counted."""
        if batch.key in self.consumed:
            return False
        self.batches.setdefault(batch.key, batch)
        return not self.waits and self.trouble is None

    def owes(self, batch: str) -> bool:
        """Whether something is still to be done about its records of a batch."""
        return self.undone or (self.waits and batch in self.batches)

    def can_wait_apart(self, batch: str) -> bool:
        """Whether its records of a batch are certainly counted nowhere, and nothing but them is needed of it."""
        return not self.stays and self.trouble is None and batch in self.batches

    def take(self, message: Received, line: int, members: Members, batch: str, *, live: bool) -> None:
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
        self.days.setdefault(day_of(ident.period), []).append(record._replace(ident=ident, batch=batch, line=line))

    def reject(self, message: Received, line: int, fault: CellFault) -> None:
        """Take one bad message."""
        self.rows += 1
        self.repeated += message.id in self.rejects
        # Half of a character, which only an escape can put into a text, is nothing that a file can hold.
        known, body = (text.encode(errors="backslashreplace").decode() for text in message)
        self.rejects[message.id] = RejectedRow(line, COLUMNS, (known, body), fault.error, fault.fix)


@dataclass(frozen=True)
class _Batch:
    """A batch that was read, and the streams that have records in it."""

    source: ObjectVersion
    readable: bool = True
    streams: set[str] = field(default_factory=set)

    @property
    def key(self) -> str:
        """Where it lies."""
        return self.source.key


@dataclass
class _Run:
    """One run."""

    ports: Ports
    bucket: str
    """Of the inbox."""
    contract: ContractName
    bounds: Bounds
    parts: dict[str, _Part] = field(default_factory=dict)
    batches: list[_Batch] = field(default_factory=list)
    records: int = 0
    bytes: int = 0
    troubles: list[Exception] = field(default_factory=list)

    # --- what is read -------------------------------------------------------------------------------------------------

    def read(self) -> None:
        """Read batch after batch, as many as one run takes: whatever lies before a batch, its turn comes."""
        listed = self._listed()
        oldest = list(islice(listed, self.bounds.batches // 2))
        seen = self._read(oldest, 2)
        now = self.ports.clock.now().isoformat()
        others = chain(oldest[seen:], listed)
        self._read(nsmallest(self.bounds.batches - seen, others, key=lambda entry: digest(now, entry.key)), 1)

    def _listed(self) -> Iterator[ObjectVersion]:
        """Yield what lies in the inbox, but for what waits apart and cannot be counted now anyway."""
        for entry in self.ports.drops.listing(self.bucket, INBOX):
            stream = waiting_stream(entry.key)
            if not stream or not self._part(stream).waits:
                yield entry

    def _read(self, entries: Iterable[ObjectVersion], share: int) -> int:
        """Read some batches, up to one of so many shares of what a run takes, at least one if there is the time.

        Returns:
            How many were looked at.
        """
        most, size = self.bounds.records // share, self.bounds.bytes // share
        seen, before = 0, len(self.batches)
        for entry in entries:
            late = self.ports.clock.remaining_s() < READING_LEFT_S
            full = self.records >= most or self.bytes >= size
            if (late and self.batches) or (full and len(self.batches) > before):
                break
            seen += 1
            try:
                source = self.ports.drops.pin(entry.bucket, entry.key)
                self._read_batch(source)
            except SourceGone:  # another run has counted it
                continue
            except (SourceForbidden, SourceChanged, ShortRead) as error:
                self.troubles.append(error)
        return seen

    def _read_batch(self, source: ObjectVersion) -> None:
        try:
            messages, count = batch_of(self.ports, source)
        except InputRefused as error:
            self._take_unreadable(source, error)
            return
        self.records, self.bytes = self.records + len(messages), self.bytes + count
        self._take(source, messages)

    def _take(self, source: ObjectVersion, messages: Sequence[Received]) -> None:
        batch = _Batch(source)
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
                self.parts[stream].take(message, line, members, source.key, live=live)

    def _take_unreadable(self, source: ObjectVersion, error: InputRefused) -> None:
        """Reject an object as a whole: nobody but us writes into the inbox, but somebody may."""
        batch = _Batch(source, readable=False)
        self.batches.append(batch)
        if self._part(NO_STREAM, batch).counts(source):
            where = f"{source.uri} version {source.version_id}"
            fault = CellFault(error.reason, "send the messages to the application queue")
            self.parts[NO_STREAM].reject(Received(source.key, where), 1, fault)

    def _part(self, stream: str, batch: _Batch | None = None) -> _Part:
        if batch is not None:
            batch.streams.add(stream)
        part = self.parts.get(stream)
        if part is None:
            part = self.parts[stream] = _Part.known_as(stream, self.ports)
        return part

    # --- what becomes of it -------------------------------------------------------------------------------------------

    def counted(self) -> list[Delivery]:
        """Count one stream after the other, then remove the batches that nobody needs any more. Raises as merge."""
        done: list[Delivery] = []
        for _, part in sorted(self.parts.items()):
            if self.ports.clock.remaining_s() < STREAM_LEFT_S:
                part.undone = part.stays = True
                continue
            try:
                done += self._told(part)
            except LedgerConflict:
                raise
            except Exception as error:  # noqa: BLE001 -- one stream's trouble is nobody else's; it is raised below
                part.undone = True
                self.troubles.append(error)
        self._clear()
        if self.troubles:
            raise self.troubles[0]
        return done

    def _clear(self) -> None:
        """Remove the batches that nobody needs any more, and put what waits for its stream apart from what does not."""
        apart = []
        for batch in self.batches:
            owed = [part for name in batch.streams if (part := self.parts[name]).owes(batch.key)]
            if not owed:
                self.ports.drops.remove(batch.key)
                continue
            in_the_way = batch.readable and not batch.key.startswith(WAITING)
            if in_the_way and all(part.can_wait_apart(batch.key) for part in owed):
                apart.append(batch)
        try:
            self._put_apart(apart)
        except Exception as error:  # noqa: BLE001 -- nothing is lost: they lie where they did
            self.troubles.append(error)

    def _put_apart(self, batches: Sequence[_Batch]) -> None:
        """Write what is still to be counted of some batches anew, by stream; then remove them. Raises what that does.

        Should this die in between, records lie there twice; they count once all the same.
        """
        found: dict[str, dict[str, list[Received]]] = {}
        done: list[str] = []
        size = 0
        for batch in batches:
            if self.ports.clock.remaining_s() < STREAM_LEFT_S:
                break
            messages, count = batch_of(self.ports, batch.source)
            for message in messages:
                stream = _stream(message)
                if self.parts[stream].owes(batch.key):
                    found.setdefault(stream, {}).setdefault(batch.key, []).append(message)
            done.append(batch.key)
            size += count
            if size >= APART_BYTES:
                self._write_apart(found, done)
                size = 0
        self._write_apart(found, done)

    def _write_apart(self, found: dict[str, dict[str, list[Received]]], done: list[str]) -> None:
        for stream, batches in sorted(found.items()):
            put_waiting(self.ports, stream, chain.from_iterable(batches.values()))
            self._consumed(self.parts[stream], batches)
        for key in done:
            self.ports.drops.remove(key)
        found.clear()
        done.clear()

    def _consumed(self, part: _Part, batches: Iterable[str]) -> None:
        """Remember that nobody is to count a stream's records of some batches where they were.

        A run that has done so meanwhile is safe: this raises LedgerConflict then, and its batches stay for as long as
        it needs them.
        """
        after = part.collected.model_copy(update={"consumed": (*self._still_there(part.collected), *batches)})
        if part.handed_over:  # else what is still to be handed over would be so again and again
            after = after.model_copy(update={"unsent": (), "former": ()})
        part.record = self.ports.ledger.save_record(part.record.but(content=after.model_dump(mode="json")))
        part.collected = after

    def _told(self, part: _Part) -> Iterator[Delivery]:
        """Yield the deliveries of a stream: those of a former run that may have died, then those of this one."""
        if part.trouble is not None:
            raise part.trouble
        if self._still_there(part.collected):
            yield from self._handed_over(part.collected)
        part.handed_over = True
        if part.rows and not part.waits:
            part.waits = bool(part.name != NO_STREAM and erasing(self.ports, part.name))  # it may have come meanwhile
        if part.rows and not part.waits:
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
        self._name(part, [one for day in found for one in day.refused])
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
        record = part.record.but(content=after.model_dump(mode="json"))
        part.stays = True  # from now on it may be counted, even where saving fails
        self.ports.ledger.save_record(record)
        return after

    def _name(self, part: _Part, refused: Iterable[tuple[Counted, CellFault]]) -> None:
        """Reject records that their days have no place for. Their messages are read again: they were not kept."""
        found: dict[str, list[tuple[int, CellFault]]] = {}
        for record, fault in refused:
            found.setdefault(record.batch, []).append((record.line, fault))
        for key, lines in found.items():
            messages, _ = batch_of(self.ports, part.batches[key])
            for line, fault in lines:
                part.reject(messages[line - 1], line, fault)

    def _still_there(self, collected: Collected) -> list[str]:
        """Return the batches that were counted and still lie in the inbox: who counted them may have died."""
        return [key for key in collected.consumed if key in self._lying]

    @cached_property
    def _lying(self) -> Collection[str]:
        """Of the batches that any stream has counted before, those that still lie in the inbox."""
        counted_ones = {key for part in self.parts.values() for key in part.consumed}
        lying = counted_ones & {batch.key for batch in self.batches}
        if lying != counted_ones:  # they were removed, or they are none of those that were read
            listing = self.ports.drops.listing(self.bucket, INBOX)
            lying.update(entry.key for entry in listing if entry.key in counted_ones)
        return lying

    def _day(self, part: _Part, day: str, records: Sequence[Counted], run: str, order: str) -> tuple[str, Day]:
        """Count the records of a day; return the key of its page, which is a new one if anything is new."""
        key = part.collected.days.get(day, "")
        page = totals_of(self.ports, key)
        what, after = counted(self.ports, records, page, self._standing(part, day, page), self.bounds.weight)
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


def _stream(message: Received) -> str:
    """Return the stream that a message is for, as it was when its batch was read."""
    try:
        return stream_of(members_of(message.body))
    except CellFault:
        return NO_STREAM


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

"""Deliver telemetry: enter it into the stream's book, send what follows from that, and remember each step.

What replaces or deletes is repeated until it is heard; what adds is sent once, and where its outcome is unknown a
person decides (contract page, "Telemetry").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from hashlib import sha256

import msgspec
from typing_extensions import override

from finops_relay.cloudzero.client import CloudZero
from finops_relay.cloudzero.records import RecordKey
from finops_relay.delivery.ledger import Delivery, clip
from finops_relay.delivery.packer import MAX_BODY_BYTES
from finops_relay.delivery.ports import Ports, Queue
from finops_relay.delivery.receipt import Outcome, Unit
from finops_relay.delivery.waits import Looks, Waits
from finops_relay.errors import (
    AnswerNotUnderstood,
    BodyTooLarge,
    NotFound,
    OutcomeUnknown,
    RequestRefused,
    SourceGone,
    VendorError,
    VendorUnavailable,
)
from finops_relay.formats.cost_cells import SUM_CONTEXT
from finops_relay.formats.telemetry import (
    ALLOCATION,
    METRIC,
    Ident,
    day_of,
    differing,
    moment_of,
)
from finops_relay.jobs.run import ABOUT_ROWS, ACCEPTED, IN_DOUBT, OWED, UNSETTLED, Run, at_rest
from finops_relay.jobs.steps import moved
from finops_relay.jobs.telemetry.books import Book, Change, Verb, change
from finops_relay.jobs.telemetry.content import crowded, let_go, lines_of, page_of, put_page, send_again, total_of
from finops_relay.jobs.telemetry.entering import Entering
from finops_relay.jobs.telemetry.remembered import (
    Removed,
    Stream,
    Work,
    content_key,
    page_key,
    stream_name,
)
from finops_relay.jobs.telemetry.sendings import (
    Body,
    Going,
    Gone,
    Sent,
    Way,
    bodies,
    gone_bodies,
    gone_of,
    key_of,
    periods_of,
    record_text,
    rewritten,
    sent_records,
    way_of,
)

MAX_REWRITES = 400
"""Bodies made anew for one delivery; a vendor that refuses more refuses something else than records."""
MAX_ALL_REFUSED = 20
"""Records refused one by one while none was taken: then it is not the records."""
MAX_REMOVED = 300
MAX_REMOVED_CHARS = 60_000
MAX_WORDS = 200
"""Records refused by the vendor that one delivery names, their words and labels in all, and the words of one: all that
a delivery remembers must fit an item of the ledger."""
NAMED = 5
"""Records that a reason names."""
ERASE_FIRST = "if the stream was deleted in CloudZero, drop delete/stream.json, which forgets it, and then this again"
UNHEARD = (OutcomeUnknown, AnswerNotUnderstood, VendorUnavailable)
"""After these a body may have been taken."""


def deliver(  # noqa: PLR0913, PLR0917 -- what the handler puts together, each used once
    delivery: Delivery,
    ports: Ports,
    vendor: Callable[[], CloudZero],
    prepare_queue: Queue,
    waits: Waits,
    vanishing: Looks,
    max_bytes: int = MAX_BODY_BYTES,
) -> Delivery:
    """Take prepared telemetry as far as it goes now; return it when it is over, held, or somebody else's turn.

    Args:
        delivery: as the ledger has it.
        ports: everything outside.
        vendor: makes the client.
        prepare_queue: of the function that prepared it, which names the rows that the vendor refused.
        waits: after trouble.
        vanishing: while a stream is being deleted.
        max_bytes: of a body.

    Raises:
        Wait: the next step comes later; everything is saved.
        LedgerConflict: another run is at it.
    """
    found = at_rest(ports, delivery, prepare_queue)
    if found is not None:
        return found
    work = Work.model_validate(delivery.work)
    run = _Run(
        ports=ports,
        vendor=vendor,
        prepare_queue=prepare_queue,
        waits=waits,
        delivery=delivery,
        work=work,
        vanishing=vanishing,
        max_bytes=max_bytes,
    )
    return run.going_on()


@dataclass(kw_only=True)
class _Run(Run[Work]):
    """One invocation's work on one delivery."""

    vanishing: Looks
    max_bytes: int

    @override
    def steps(self) -> Mapping[str, Callable[[], None]]:
        return {
            "check": self._check,
            "decided": self._decided,
            "send": self._send,
            "erase": self._erase,
            "vanish": self._vanish,
            "name": self.name_refused,
            "finish": self._finish,
        }

    # --- remembering --------------------------------------------------------------------------------------------------

    def _stream(self) -> Stream:
        return Stream.model_validate(self.ports.ledger.record(stream_name(self.work.stream)).content)

    def _remember(self, change: Callable[[Stream], Stream]) -> None:
        """Change the record of the stream."""
        record = self.ports.ledger.record(stream_name(self.work.stream))
        before = Stream.model_validate(record.content)
        after = change(before)
        if after != before:
            self.ports.ledger.save_record(record.but(content=after.model_dump(mode="json")))

    @override
    def accounted(self) -> Delivery:
        usage = self.delivery.usage.model_copy(update={"sent": self.work.sent})
        unnamed = self.work.removed[self.work.named :]
        said = (f"CloudZero refused the record {_said(Ident(r.period, r.labels))}: {r.words}" for r in unnamed)
        return self.delivery.but(usage=usage).warn(*said)

    @override
    def as_held(self) -> Delivery:
        return self.delivery.but(usage=self.delivery.usage.model_copy(update={"sent": self.work.sent}))

    @override
    def settle(self) -> None:
        """Write into the record of the stream what it is and holds now, as far as we know."""
        taken = [unit for unit in self.delivery.units if unit.status == ACCEPTED]
        doubtful = [unit for unit in self.delivery.units if unit.status == IN_DOUBT]
        if self.delivery.units and not (taken or doubtful or self.work.perhaps or self.work.removed):
            return
        try:
            pages = dict(self.work.staged) if self._whole() else self._settled_pages()
        except SourceGone as error:
            self.delivery = self.delivery.warn(f"{UNSETTLED}: {error}")
            return
        work, replaced = self.work, set[str]()

        def now(stream: Stream) -> Stream:
            replaced.update(stream.pages.get(day, "") for day in pages)
            kept = {day: key for day, key in {**stream.pages, **pages}.items() if key}
            frozen = self._frozen(sure=bool(taken)) if not stream.sure and work.verb is not Verb.DELETE else {}
            newest = max(stream.newest, self.delivery.order) if pages else stream.newest
            return stream.model_copy(update={"pages": kept, "newest": newest, **frozen})

        self._remember(now)
        # Of a delivery that was held: what it had settled then. What there was before it is still needed, see `let_go`.
        let_go(self.ports, sorted(replaced - {"", *work.base.values(), *pages.values()}))

    @override
    def doubt_unheard(self) -> None:
        super().doubt_unheard()
        for unit in [unit for unit in self.delivery.units if unit.status == OWED]:
            if unit.spool_key in self.work.perhaps:
                self.doubt(unit)

    def _frozen(self, *, sure: bool) -> dict[str, object]:
        named = {"kind": self.work.kind, "granularity": self.work.granularity, "keys": self.work.keys}
        return {**named, "sure": sure}

    def _whole(self) -> bool:
        """Return whether everything was taken, just as it was entered into the staged pages."""
        return not self.work.removed and all(unit.status == ACCEPTED for unit in self.delivery.units)

    def _settled_pages(self) -> dict[str, str]:
        """Write the pages of the book with what was taken only; return their keys."""
        units = self.delivery.units
        accepted = self._idents([unit for unit in units if unit.status == ACCEPTED])
        open_ones = [unit for unit in units if unit.status != ACCEPTED]
        unsure = {ident.period for ident in self._idents(open_ones)} if self.work.verb is Verb.DELETE else set()
        shaken, periods = self._shaken()
        refused = {Ident(one.period, one.labels) for one in self.work.removed}
        pages = {}
        for day in self.work.staged:
            book = Book.opened(page_of(self.ports, self.work.base[day]))
            lines = lines_of(self.ports, self.delivery.id, day)
            if self.work.verb is Verb.DELETE:
                mine = [line for line in lines if self.work.sent_as(line.ident).period not in unsure]
            else:
                mine = [line for line in lines if self.work.sent_as(line.ident) in accepted - refused]
            change(book, self.work.verb, mine, self.delivery.order, forced=self.work.forced)
            both = (*book.kept, *(line.ident for line in lines))
            book.shaken |= {ident for ident in both if self.work.sent_as(ident) in shaken}
            book.shaken |= {ident for ident in both if self.work.sent_as(ident).period in periods}
            gone = {Ident(one.period, one.labels) for one in self.work.removed if one.gone}
            book.kept = {ident: kept for ident, kept in book.kept.items() if self.work.sent_as(ident) not in gone}
            key = page_key(self.work.stream, day, self.delivery.id, f".{self.delivery.version}")
            pages[day] = put_page(self.ports, key, book.closed())
        return pages

    def _shaken(self) -> tuple[set[Ident], set[int]]:
        """Return the records, and the whole periods, of which nobody knows what the vendor holds now."""
        perhaps = set(self.work.perhaps)
        unsure = [
            unit
            for unit in self.delivery.units
            if unit.status == IN_DOUBT or (unit.status != ACCEPTED and unit.spool_key in perhaps)
        ]
        wiping = {Way.RENEW, Way.MORE, Way.DELETE}
        periods = {ident.period for ident in self._idents([unit for unit in unsure if self._way(unit) in wiping])}
        told = [unit for unit in self.delivery.units if self._way(unit) in {Way.RENEW, Way.MORE}]
        begun = {ident.period for ident in self._idents([unit for unit in told if unit.status == ACCEPTED])}
        unfinished = {ident.period for ident in self._idents([unit for unit in told if unit.status != ACCEPTED])}
        return self._idents([unit for unit in unsure if self._way(unit) not in wiping]), periods | (begun & unfinished)

    def _idents(self, units: Sequence[Unit]) -> set[Ident]:
        """Return the records that some bodies are about, as they are sent; of a whole period one without labels."""
        found = set[Ident]()
        for unit in units:
            if self._way(unit) is Way.DELETE:
                found |= {Ident(gone.period, tuple(gone.labels or ())) for gone in gone_of(self.bytes_of(unit))}
            else:
                found |= {record.ident for record in self._records(unit)}
        return found

    @override
    def let_go(self) -> None:
        """Let expire what nothing needs any more: the delivery's records, its sidecars, and former pages."""
        let_go(self.ports, [content_key(self.delivery.id, day) for day in self.work.days])
        let_go(self.ports, [rows_key(unit.spool_key) for unit in self.delivery.units])
        if self.delivery.dry_run:
            let_go(self.ports, self.work.staged.values())
            return
        pages = self._stream().pages
        former = {key for day in self.work.staged for key in (self.work.base[day], self.work.staged[day]) if key}
        let_go(self.ports, sorted(former - set(pages.values())))

    @override
    def again(self) -> str:
        if not self.work.queued:
            return super().again()
        return "do not send them again: the running totals have them, and go with the next record of that period"

    @override
    def mend(self) -> str:
        if not self.work.queued:
            return super().mend()
        return self.again() if self.work.removed else send_again(self.delivery)

    # --- before anything is sent --------------------------------------------------------------------------------------

    def _check(self) -> None:
        """Is it this delivery's turn, and what is to become of it? Raises Wait."""
        other = self.in_the_way() if not self.delivery.dry_run else None
        if other is not None:
            raise self.wait_behind(other, "stream")
        if self.client.name != self.work.contract:
            self.end_other_contract()
            return
        stream = self._stream()
        if self.delivery.order < stream.emptied:
            reason = "a newer drop has deleted the stream with all that it held"
            self._end_without(Outcome.SUPERSEDED, reason)
        elif self.work.whole_stream:
            self._check_erasing(stream)
        elif stream.kind and stream.kind != self.work.kind:
            self._end_without(Outcome.REJECTED, f"the stream is one of {stream.kind} records, and keeps its kind")
        elif stream.shape is not None and self._differs(stream):
            fault = differing(self.work.shape, stream.shape)
            self._end_without(Outcome.REJECTED, f"{fault.error}; {fault.fix}")
        else:
            self._enter(stream)

    def _differs(self, stream: Stream) -> bool:
        if self.work.verb is Verb.DELETE:
            return stream.granularity != self.work.granularity
        return stream.shape != self.work.shape

    def _end_without(self, outcome: Outcome, reason: str) -> None:
        """End a delivery of which nothing is sent; a dry run with that verdict."""
        if self.delivery.dry_run:
            words = {
                Outcome.SUPERSEDED: "would_be_superseded",
                Outcome.REJECTED: "would_be_rejected",
                Outcome.UNCHANGED: "unchanged",
            }
            self.planned(words[outcome], reason)
            return
        rows = self.delivery.rows
        if outcome is Outcome.REJECTED:
            self.delivery = self.delivery.but(rows=moved(rows, accepted=False))
        elif outcome is Outcome.UNCHANGED:
            self.delivery = self.delivery.but(rows=moved(rows, accepted=True))
        else:
            self.delivery = self._late(rows.owed)
        self.end(outcome, reason)

    def _late(self, count: int) -> Delivery:
        """Return the delivery with *count* owed rows left out, because something newer has their records."""
        rows = self.delivery.rows
        by = {**self.delivery.filtered_by, "superseded": self.delivery.filtered_by.get("superseded", 0) + count}
        left = rows.model_copy(update={"filtered": rows.filtered + count, "owed": rows.owed - count})
        return self.delivery.but(rows=left, filtered_by=by)

    def _enter(self, stream: Stream) -> None:
        """Enter the records into the book, and make the bodies that follow from it."""
        if self.work.verb is Verb.DELETE and stream.kind:  # its file has none; what it leaves, and spares, has
            self.work = self.work.model_copy(update={"keys": stream.keys})
        entering = Entering(self.ports, self.delivery, self.work, stream.pages)
        work, way = self.work, way_of(self.work.verb, self.work.dialect)
        units, ways = list[Unit](), dict[str, Way]()

        def keep(body: Body) -> None:
            unit = self._written(len(units) + 1, body)
            units.append(unit)
            ways[unit.spool_key] = body.way

        for body in bodies(type(self.client), work.dialect, work.shape, way, entering.going(), self.max_bytes):
            keep(body)
        for body in gone_bodies(entering.gone, live=work.live):  # known once all days were entered
            keep(body)
        self._judged(entering, units, ways)

    def _judged(self, entered: Entering, units: Sequence[Unit], ways: Mapping[str, Way]) -> None:
        """Decide what is to become of the delivery, now that it is known what it changes."""
        late = sum(line.rows for line in entered.whole.late.values())
        verdict, why = self._verdict(entered, late)
        self.delivery = self.delivery.warn(*entered.warnings(self.work))
        if self.delivery.dry_run:
            self.delivery = self.delivery.but(units=tuple(units))
            self.work = self.work.model_copy(update={"base": entered.base, "staged": entered.staged})
            self.planned(verdict, why)
            return
        if verdict != "would_deliver":
            let_go(self.ports, [each for unit in units for each in (unit.spool_key, rows_key(unit.spool_key))])
        if verdict in {"would_be_held", "would_be_rejected"}:
            let_go(self.ports, entered.staged.values())
        if verdict == "would_be_held":
            self.hold(why)
            return
        if verdict == "would_be_rejected":
            self._end_without(Outcome.REJECTED, why)
            return
        if late and verdict != "would_be_superseded":
            self.delivery = self._late(late).warn(f"{late:,} rows were left out: newer drops have their records")
        if verdict != "would_deliver":
            self.work = self.work.model_copy(update={"base": entered.base, "staged": entered.staged})
            self._end_without(Outcome.UNCHANGED if verdict == "unchanged" else Outcome.SUPERSEDED, why)
            return
        rows = moved(self.delivery.rows, accepted=True, count=entered.needless)
        refused = sum(entered.whole.applied[ident].rows for ident in entered.refused_lines)
        delivery = self.delivery.but(units=tuple(units), rows=moved(rows, accepted=False, count=refused))
        self.done(
            delivery,
            step="send",
            ways={key: known.value for key, known in ways.items()},
            base=entered.base,
            staged=entered.staged,
            removed=tuple(entered.refused),
        )

    def _verdict(self, entered: Entering, late: int) -> tuple[str, str]:
        whole, over = entered.whole, crowded(entered.sizes)
        if over:
            return "would_be_rejected", over
        if whole.doubtful:
            return "would_be_held", self._why_doubtful(whole)
        if not whole.applied:
            return "would_be_superseded", "newer drops have all of its records"
        if whole.same and not late:
            return "unchanged", "the stream holds just these values already"
        return "would_deliver", ""

    def _why_doubtful(self, whole: Change) -> str:
        some = ", ".join(_said(ident) for ident in sorted(whole.doubtful)[:NAMED])
        return (
            f"{len(whole.doubtful):,} records ({some}) were added to by newer drops, and this older one would replace"
            " them: nobody can say what they should be. 'send' replaces them all the same, 'drop' leaves them"
        )

    def _written(self, seq: int, body: Body, name: str = "") -> Unit:
        """Keep a body; return what is remembered of it."""
        key = f"telemetry/{self.delivery.id}/body-{name or f'{seq:04d}'}.json"
        with self.ports.spool.writer(key, "application/json") as out:
            out.write(body.data)
        with self.ports.spool.writer(rows_key(key), "application/json") as out:
            out.write(msgspec.json.encode(body.rows))
        title = f"{body.way.value}: {body.records:,} records"
        hashed = sha256(body.data).hexdigest()
        return Unit(seq=seq, name=title, rows=sum(body.rows), bytes=len(body.data), sha256=hashed, spool_key=key)

    # --- a person's word ----------------------------------------------------------------------------------------------

    def _decided(self) -> None:
        """Go on as a person has said about a delivery that was held."""
        doubtful = [unit for unit in self.delivery.units if unit.status == IN_DOUBT]
        decision = f"by a person's decision (delivery {self.work.decided_by})"
        if self.work.decision == "drop":
            self._dropped(decision, doubtful)
        elif not self.delivery.units:  # nothing was sent yet: it is held because of what it would replace
            if self.work.decision == "arrived":
                self._dropped(decision, doubtful)
            else:
                self.done(step="check", forced=True)
        else:
            delivery = self.delivery
            for unit in doubtful:
                arrived = self.work.decision == "arrived"
                delivery = self.with_unit(unit.model_copy(update={"status": ACCEPTED if arrived else OWED}), delivery)
                if arrived:
                    delivery = delivery.but(rows=moved(delivery.rows, accepted=True, count=unit.rows))
                    delivery = delivery.warn(f"body {unit.seq} was taken for arrived {decision}")
                    self.work = self._counted(unit)
            self.done(delivery, step="send")

    def _dropped(self, decision: str, doubtful: list[Unit]) -> None:
        units = tuple(
            unit.model_copy(update={"status": "dropped"}) if unit.status == OWED else unit
            for unit in self.delivery.units
        )
        accepted = self.delivery.rows.accepted
        self.delivery = self.delivery.but(units=units, rows=moved(self.delivery.rows, accepted=False))
        doubt = "; nobody knows what arrived of the bodies that were in doubt" if doubtful else ""
        outcome = Outcome.PARTLY_DELIVERED if accepted else Outcome.REJECTED
        self.end(outcome, f"{decision} nothing more is sent{doubt}")

    # --- sending ------------------------------------------------------------------------------------------------------

    def _send(self) -> None:
        """Send the next body, unless it may have been sent already and would count twice."""
        unit = self.owed()
        if unit is None:
            self.done(step="name")
            return
        way, intent = self._way(unit), f"send {unit.spool_key}"
        if self.delivery.intent == intent and way in {Way.SUM, Way.MORE}:
            self._unknown(unit, "the function ended before it heard the answer")
            return
        body = self.bytes_of(unit)
        records = [] if way is Way.DELETE else self._records(unit, body)
        stream = self._stream()
        wait_s = stream.wait_s(len(records), self.now())
        if wait_s:
            raise self.wait(wait_s, "the pace that CloudZero takes telemetry at (100 records a second)")
        trying = unit.model_copy(update={"attempts": unit.attempts + 1})
        # Whatever is not heard of again may have been done, or half of it.
        perhaps = {*self.work.perhaps, *([] if way is Way.SUM else [unit.spool_key])}
        self.save(self.with_unit(trying).but(intent=intent), perhaps=tuple(sorted(perhaps)))
        try:
            if way is Way.RENEW:
                self._renewing(periods_of(records))
            request_id = self._told(way, body)
        except _NoSuchStreamError as error:
            self.end(Outcome.FAILED, f"{error}; {ERASE_FIRST}", redrop=True)
            return
        except VendorError as error:
            self._not_sent(trying, way, error, known=stream.sure)
            return
        accepted = trying.model_copy(update={"status": ACCEPTED, "request_id": request_id})
        delivery = self.with_unit(accepted).at("first_sent", self.now())
        rows = moved(delivery.rows, accepted=True, count=unit.rows)
        perhaps -= {unit.spool_key}
        self.done(delivery.but(rows=rows), **{**vars(self._counted(unit, records)), "perhaps": tuple(sorted(perhaps))})
        self._remember(lambda known: known.having_sent(len(records), self.now()))

    def _told(self, way: Way, body: bytes) -> str:
        """Tell the vendor; return the request's id. Raises VendorError."""
        client, stream, metric = self.client, self.work.stream, self.work.kind == METRIC
        if way is Way.DELETE:
            self._deleted([key_of(self.work.dialect, self.work.shape, gone) for gone in gone_of(body)])
            return ""
        if way is Way.REPLACE:
            replace = client.replace_metric_records if metric else client.replace_allocation_records
            return replace(stream, body)
        add = client.add_metric_records if metric else client.add_allocation_records
        return add(stream, body)

    def _renewing(self, periods: Sequence[int]) -> None:
        """Delete the periods that a body tells anew. Raises VendorError, _NoSuchStreamError."""
        shape, dialect = self.work.shape, self.work.dialect
        try:
            self._deleted([key_of(dialect, shape, Gone(period, None, 0)) for period in periods])
        except (RequestRefused, NotFound) as error:
            # Of a stream that was never sent there is nothing to delete. Of one that was, nothing is added to what may
            # be there: it would count twice.
            if self._stream().sure:
                raise _NoSuchStreamError(str(error)) from error

    def _deleted(self, keys: Sequence[RecordKey]) -> None:
        delete = self.client.delete_metric_records
        if self.work.kind == ALLOCATION:
            delete = self.client.delete_allocation_records
        delete(self.work.stream, keys)

    def _not_sent(self, unit: Unit, way: Way, error: VendorError, *, known: bool) -> None:
        """Decide what a body that was not taken leads to. Raises VendorError when it is to wait."""
        if isinstance(error, UNHEARD) and way in {Way.SUM, Way.MORE}:
            self._unknown(unit, str(error))
            return
        # An intent stays only where the vendor may have acted.
        self.save(self.delivery.but(intent=self.delivery.intent if isinstance(error, UNHEARD) else ""))
        if error.retryable:
            raise error
        if way is Way.DELETE:
            self._not_deleted(unit, error, known=known)
        elif isinstance(error, BodyTooLarge):
            self._refused(unit, way, error, too_large=True)
        elif isinstance(error, RequestRefused) and error.call.status in ABOUT_ROWS:
            self._refused(unit, way, error, too_large=False)
        else:
            raise error

    def _not_deleted(self, unit: Unit, error: VendorError, *, known: bool) -> None:
        """What was never there is deleted. Raises VendorError."""
        if known and isinstance(error, RequestRefused | NotFound):
            self.end(Outcome.FAILED, f"{error}; {ERASE_FIRST}", redrop=True)
            return
        if not isinstance(error, RequestRefused | NotFound):
            raise error
        delivery = self.with_unit(unit.model_copy(update={"status": ACCEPTED}))
        counted = moved(delivery.rows, accepted=True, count=unit.rows)
        self.done(delivery.but(rows=counted).warn(f"there is nothing to delete from: {error.call.detail or error}"))

    def _unknown(self, unit: Unit, why: str) -> None:
        """A body that adds may have arrived: its period is told anew where that helps, else a person decides."""
        self.ports.metrics.count("VendorTrouble")
        if self._way(unit) is Way.MORE:
            self._tell_anew(unit, why)
            return
        self.hold(
            f"nobody knows whether CloudZero has taken body {unit.seq} ({unit.rows:,} rows, s3 object {unit.spool_key}"
            f" of the spool bucket): {why}. Compare stream {self.work.stream} in CloudZero; then 'send' if it did not"
            " arrive, 'mark as arrived' if it did, 'drop' to send nothing more",
            delivery=self.doubted(unit),
        )

    def _tell_anew(self, unit: Unit, why: str) -> None:
        """Begin the period of a body again, which deletes all that may be there of it. Raises Wait."""
        units = list(self.delivery.units)
        place = next(place for place, known in enumerate(units) if known.spool_key == unit.spool_key)
        first = max(place for place in range(place) if self._way(units[place]) is Way.RENEW)
        delivery, work = self.delivery, self.work
        for known in units[first:place]:
            if known.status == ACCEPTED:
                delivery = self.with_unit(known.model_copy(update={"status": OWED}), delivery)
                delivery = delivery.but(rows=moved(delivery.rows, accepted=True, count=-known.rows))
                records = self._records(known)
                value = total_of(record.value for record in records)
                sent = SUM_CONTEXT.subtract(work.sent, value) if work.sent is not None else None
                work = work.model_copy(update={"sent": sent, "records": work.records - len(records)})
        perhaps = {*work.perhaps, *(known.spool_key for known in units[first : place + 1])}
        self.save(delivery.but(intent=""), **{**vars(work), "perhaps": tuple(sorted(perhaps))})
        raise self.wait(self.waits.after(self.delivery.waits), f"the period is told anew from its beginning: {why}")

    # --- bodies -------------------------------------------------------------------------------------------------------

    def _way(self, unit: Unit) -> Way:
        return Way(self.work.ways[unit.spool_key])

    def _records(self, unit: Unit, body: bytes | None = None) -> list[Sent]:
        return sent_records(self.bytes_of(unit) if body is None else body, self.work.shape, self.work.dialect)

    def _counted(self, unit: Unit, records: Sequence[Sent] | None = None) -> Work:
        """Return the work with what a body adds up to."""
        if self._way(unit) is Way.DELETE:
            return self.work
        if records is None:
            records = self._records(unit)
        value = total_of(record.value for record in records)
        sent = value if self.work.sent is None else SUM_CONTEXT.add(self.work.sent, value)
        return self.work.model_copy(update={"sent": sent, "records": self.work.records + len(records)})

    def _rows(self, unit: Unit) -> list[int]:
        return msgspec.json.decode(b"".join(self.ports.spool.chunks(rows_key(unit.spool_key))), type=list[int])

    # --- refused bodies -----------------------------------------------------------------------------------------------

    def _refused(self, unit: Unit, way: Way, error: VendorError, *, too_large: bool) -> None:
        """Send a body that was refused whole in two; a record that is refused alone is named."""
        records, rows = self._records(unit), self._rows(unit)
        if len(records) == 1:
            if len(self.work.removed) >= MAX_ALL_REFUSED and not self.any_accepted():
                advice = "check CLOUDZERO_CONTRACT: the tenant may speak the other one"
                self.end(Outcome.FAILED, f"CloudZero takes no record at all: {error}; {advice}", redrop=True)
                return
            self._remove(unit, way, records[0], str(error) if too_large else error.call.detail or str(error))
            return
        if self.work.rewritten >= MAX_REWRITES:
            self.end(Outcome.FAILED, f"bodies are refused again and again: {error}", redrop=True)
            return
        halves = list(self._halves(way, records, rows))
        said = f"a body was refused whole and is sent in parts: {error}"
        self._replaced(self.delivery.warn(said), unit, halves)

    def _halves(self, way: Way, records: Sequence[Sent], rows: Sequence[int]) -> Iterator[Body]:
        """Cut a body in two; between two periods where they are told whole."""
        half = len(records) // 2
        whole = not self.work.live and way is not Way.SUM
        borders = [
            place for place in range(1, len(records)) if records[place].ident.period != records[place - 1].ident.period
        ]
        rest = way
        if whole and borders:
            half = min(borders, key=lambda place: abs(place - half))
        elif whole:
            way, rest = Way.MORE if way is Way.MORE else Way.RENEW, Way.MORE
        for part, this in ((slice(None, half), way), (slice(half, None), rest)):
            yield rewritten(this, [record.text for record in records[part]], rows[part])

    def _remove(self, unit: Unit, way: Way, record: Sent, words: str) -> None:
        """Go on without a record that the vendor refused; it will be named."""
        chars = sum(len(one.words) + sum(map(len, one.labels)) for one in self.work.removed)
        if len(self.work.removed) >= MAX_REMOVED or chars > MAX_REMOVED_CHARS:
            reason = f"CloudZero refuses more than {len(self.work.removed)} records, one of them because: {words}"
            self.end(Outcome.FAILED, reason, redrop=True)
            return
        deleted = way in {Way.RENEW, Way.MORE}
        former = self._former(record.ident) if deleted and unit.rows else None
        former = None if former == record.value else former
        gone = deleted and former is None
        words = clip(words, MAX_WORDS)
        one = Removed(period=record.ident.period, labels=record.ident.labels, words=words, gone=gone)
        removed = (*self.work.removed, one)
        delivery = self.delivery.but(rows=moved(self.delivery.rows, accepted=False, count=unit.rows))
        if former is not None:  # what it was is told again in its place
            going = Going(record.ident, former, 0)
            text = record_text(type(self.client), self.work.dialect, self.work.shape, going)
            self.work = self.work.model_copy(update={"removed": removed})
            self._replaced(delivery, unit, [rewritten(way, [text], [0])])
            return
        delivery = self.with_unit(unit.model_copy(update={"status": "refused"}), delivery)
        if not unit.rows:  # no row of this delivery: the book has it from before
            delivery = delivery.warn(f"CloudZero refused the record {_said(record.ident)}, which it held: {words}")
        ways = dict(self.work.ways)
        units = list(delivery.units)
        place = next(place for place, known in enumerate(units) if known.spool_key == unit.spool_key)
        if way is Way.RENEW and place + 1 < len(units) and self._way(units[place + 1]) is Way.MORE:
            heir = units[place + 1]  # what this body would have deleted, the next one has to
            ways[heir.spool_key] = Way.RENEW.value
            delivery = self.with_unit(heir.model_copy(update={"name": heir.name.replace("more", "renew", 1)}), delivery)
        self.done(delivery, removed=removed, ways=ways)

    def _former(self, ident: Ident) -> Decimal | None:
        """Return what the book has of a record from before this delivery."""
        base = self.work.base.get(day_of(ident.period), "")
        kept = Book.opened(page_of(self.ports, base)).kept.get(ident)
        return kept.value if kept is not None else None

    def _replaced(self, delivery: Delivery, unit: Unit, made: Sequence[Body]) -> None:
        """Remember the bodies that take the place of another."""
        number = self.work.rewritten + 1
        new = [self._written(0, body, f"{unit.seq:04d}-{number}-{part}") for part, body in enumerate(made)]
        units = [each for known in delivery.units for each in (new if known.spool_key == unit.spool_key else [known])]
        numbered = tuple(known.model_copy(update={"seq": seq}) for seq, known in enumerate(units, 1))
        ways = {key: way for key, way in self.work.ways.items() if key != unit.spool_key}
        ways |= {known.spool_key: body.way.value for known, body in zip(new, made, strict=True)}
        perhaps = set(self.work.perhaps) - {unit.spool_key}
        if unit.spool_key in self.work.perhaps:
            perhaps |= {known.spool_key for known in new}
        self.done(delivery.but(units=numbered), ways=ways, rewritten=number, perhaps=tuple(sorted(perhaps)))
        let_go(self.ports, [unit.spool_key, rows_key(unit.spool_key)])

    # --- a whole stream -----------------------------------------------------------------------------------------------

    def _check_erasing(self, stream: Stream) -> None:
        """A stream is not deleted by a drop that is older than what it holds, unless a person says so."""
        newer = self.delivery.order < stream.newest and not self.work.forced
        why = "newer drops have put records into the stream: 'send' deletes it all the same, 'drop' leaves it"
        if self.delivery.dry_run:
            self.planned("would_be_held" if newer else "would_deliver", why if newer else "")
            return
        if newer:
            self.hold(why)
            return
        self.done(step="erase")

    @override
    def plan(self) -> list[str]:
        return [f"delete the stream {self.work.stream}"] if self.work.whole_stream else super().plan()

    def _erase(self) -> None:
        """Delete the stream, and forget what it was."""
        try:
            self.client.delete_stream(self.work.stream)
        except NotFound:
            self.delivery = self.delivery.warn("CloudZero knows no stream of this name: there was nothing to delete")
        pages = self._stream().pages.values()
        order = self.delivery.order
        self._remember(
            lambda known: Stream(emptied=max(known.emptied, order), spent=known.spent, spent_at=known.spent_at)
        )
        let_go(self.ports, pages)
        rows = moved(self.delivery.rows, accepted=True)
        self.done(self.delivery.but(rows=rows), step="vanish" if self.work.live else "finish")

    def _vanish(self) -> None:
        """Wait until the stream is gone: until then CloudZero refuses new records of its name. Raises Wait."""
        why = "CloudZero is deleting the stream"
        try:
            self._shown()
        except NotFound:
            self.done(step="finish")
            return
        except VendorError as error:  # such as a key that may not read: the deletion itself is done
            why = f"{why}; whether it is done cannot be seen: {error}"
        if self.work.watched_s >= self.vanishing.end_s:
            said = "the stream is still to be seen; CloudZero deletes it in its own time, and refuses records till then"
            self.done(self.delivery.warn(said), step="finish")
            return
        raise self.look_again(self.vanishing, why)

    def _shown(self) -> None:
        """Ask for the stream. Raises NotFound once it is gone."""
        read = self.client.telemetry_records
        if self.work.stream == "metric":  # the address of that call is another one's for this name
            read = self.client.metric_records
        read(self.work.stream, limit=1)

    # --- the end ------------------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        """End with the outcome that the bodies add up to."""
        rows = self.delivery.rows
        back = "mend them and drop them back"
        if self.work.queued:  # what CloudZero has refused stays in the totals: sent again, it would count twice
            back = "the running totals have them: do not send them again" if self.work.removed else "send them again"
        if not rows.accepted and rows.rejected:
            self.end(Outcome.REJECTED, f"all {rows.rejected:,} rows were rejected; {back}")
        elif rows.rejected:
            self.end(Outcome.PARTLY_DELIVERED, f"{rows.rejected:,} rows were rejected; {back}")
        else:
            self.end(Outcome.DELIVERED)


class _NoSuchStreamError(Exception):
    """CloudZero refuses to delete from a stream that it has taken records of."""


def rows_key(body_key: str) -> str:
    """Return where it stands how many input rows each record of a body has."""
    return f"{body_key}.rows"


def _said(ident: Ident) -> str:
    return f"{moment_of(ident.period):%Y-%m-%dT%H:%MZ} {'/'.join(ident.labels)}".strip()

"""Deliver a price book: create, fill, ingest, watch, activate; one step at a time, each remembered before and after.

The former price book stays active until the new one is ingested, whatever goes wrong before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import TYPE_CHECKING

from finops_relay.delivery import commands
from finops_relay.delivery.ledger import MAX_ATTEMPTS, Delivery, Target
from finops_relay.delivery.ports import Ports
from finops_relay.delivery.receipt import Outcome, Rows, Unit
from finops_relay.delivery.telling import announce, conclude, quarantine_delivery
from finops_relay.delivery.waits import Looks, Waits
from finops_relay.errors import (
    AnswerNotUnderstood,
    CredentialRefused,
    NotFound,
    OutcomeUnknown,
    RequestRefused,
    ShortRead,
    SourceGone,
    UploadRefused,
    VendorError,
    Wait,
)
from finops_relay.infracost.models import PriceBook, Provider
from finops_relay.jobs.opening import change_target, heard, waiting
from finops_relay.jobs.price_books.remembered import Book, Shelf, Slot, Work, target_name

if TYPE_CHECKING:
    from finops_relay.infracost.client import Infracost  # loads httpx, which the first message does; not the start-up

MAX_RESTARTS = 10
"""Price books that one delivery begins and gives up; then it fails, rather than litter the enterprise."""
MAX_ORPHANS = 50
"""Empty price books that one delivery may have left behind by lost answers; then it fails, for the same reason."""
STEP_NEEDS_S = 30.0
"""An invocation with less time than this left begins no further step."""
UPLOAD_BYTES_PER_S = 8_000_000
"""Slowest upload that is planned for, when an invocation decides whether to begin one."""
READY = "SUCCESS"
UNDERWAY = frozenset({"WAITING_FOR_UPLOAD", "PROCESSING"})
"""Statuses after which another look is worth it; any that is not known is terminal (contract: price books)."""


def deliver(
    delivery: Delivery, ports: Ports, vendor: Callable[[str], Infracost], waits: Waits, polling: Looks
) -> Delivery:
    """Take a prepared price-book delivery as far as it goes now; return it when it is over.

    Args:
        delivery: as the ledger has it.
        ports: everything outside.
        vendor: gives the client for an organization's slug.
        waits: after trouble.
        polling: while the vendor ingests.

    Raises:
        Wait: the next step comes later; everything is saved.
        LedgerConflict: another run is at it.
    """
    if delivery.stage == "finished":
        return announce(ports, delivery)
    if delivery.attempts >= MAX_ATTEMPTS:
        work = Work.model_validate(delivery.work).model_copy(update={"slot": None})
        reason = f"{delivery.attempts} tries of step {work.step!r} ended without a word"
        delivery = delivery.but(work=work.model_dump(mode="json"))
        prepared = [ports.spool.version(unit.spool_key) for unit in delivery.units if unit.spool_key]
        return quarantine_delivery(ports, delivery, reason, *prepared)
    delivery = ports.ledger.save(delivery.but(stage="delivering", attempts=delivery.attempts + 1))
    work = Work.model_validate(delivery.work)
    with heard(ports, delivery.id, waits):
        return _Run(ports, vendor(work.slug), waits, polling, delivery, work).to_the_end()


@dataclass
class _Run:
    """One invocation's work on one delivery."""

    ports: Ports
    vendor: Infracost
    waits: Waits
    polling: Looks
    delivery: Delivery
    work: Work
    steps: int = 0

    def to_the_end(self) -> Delivery:
        """Take step after step until the delivery ends, or has to wait."""
        steps: dict[str, Callable[[], None]] = {
            "check": self._check,
            "create": self._create,
            "fill": self._fill,
            "ingest": self._ingest,
            "poll": self._poll,
            "activate": self._activate,
            "tidy": self._tidy,
        }
        while self.delivery.stage != "finished":
            self._leave_in_time()
            try:
                steps[self.work.step]()
            except VendorError as error:
                self._trouble(error)
            except ShortRead as error:
                raise self._wait(self.waits.after(self.delivery.waits), str(error)) from error
            except SourceGone as error:
                self._end(Outcome.FAILED, f"the spool lost a prepared file: {error}", redrop=True)
            self.steps += 1
        return self.delivery

    # --- remembering ------------------------------------------------------------------------------------------------

    def _save(self, delivery: Delivery | None = None, **work: object) -> None:
        """Remember changes of the delivery and of its work."""
        self.work = Work.model_validate({**dict(self.work), **work})
        kept = (delivery or self.delivery).but(work=self.work.model_dump(mode="json"))
        self.delivery = self.ports.ledger.save(kept)

    def _intend(self, intent: str) -> bool:
        """Remember the call that is about to be made; True when it was about to be made before, and may have been."""
        known = self.delivery.intent == intent
        if not known:
            self._save(self.delivery.but(intent=intent))
        return known

    def _done(self, delivery: Delivery | None = None, **work: object) -> None:
        """Remember that a step went well."""
        self._save((delivery or self.delivery).but(intent="", attempts=1, waits=0, reason=""), **work)

    def _end(self, outcome: Outcome, reason: str = "", *, redrop: bool = False) -> None:
        """End the delivery; what the vendor has not taken stays owed."""
        if self.work.book_id and outcome is not Outcome.DELIVERED and self.work.step != "tidy":
            self._shelve(self.work.book_id, str(outcome))
        command = commands.drop_again(self.delivery.source) if redrop else self.delivery.next_command
        ended = self.delivery.ended(outcome, self._now(), reason, command)
        self.delivery = conclude(
            self.ports, ended.but(work=self.work.model_copy(update={"slot": None}).model_dump(mode="json"))
        )

    def _wait(self, seconds: float, why: str) -> Wait:
        """Remember that the delivery waits, and return the Wait to raise."""
        return waiting(self.ports, self.delivery, seconds, why)

    def _leave_in_time(self) -> None:
        """Give the message back when this invocation cannot finish another step."""
        needed = STEP_NEEDS_S
        if self.work.step == "fill":
            unit = self._owed_unit()
            needed += (unit.bytes if unit else 0) / UPLOAD_BYTES_PER_S
        if self.steps and self.ports.clock.remaining_s() < needed:
            raise self._wait(1, "goes on in another invocation")

    def _now(self) -> datetime:
        return self.ports.clock.now()

    # --- trouble ----------------------------------------------------------------------------------------------------

    def _trouble(self, error: VendorError) -> None:
        """Decide what a failed call leads to: a wait, or the end. Raises Wait."""
        if isinstance(error, CredentialRefused):
            self.ports.metrics.count("CredentialRefused")
        elif error.retryable:
            self.ports.metrics.count("VendorTrouble")
        if self.delivery.dry_run:  # it has nothing to wait for: that the vendor cannot be used now is its verdict
            self._verdict(f"the vendor could not be asked: {error}")
            return
        if not error.retryable:
            self._end(Outcome.FAILED, str(error), redrop=True)
            return
        # Only a POST that was certainly not acted on takes its intent back; a look after a lost answer settles nothing.
        unknown = isinstance(error, OutcomeUnknown | AnswerNotUnderstood)
        if error.call.method == "POST" and not unknown:
            self._save(self.delivery.but(intent=""))
        raise self._wait(self.waits.after(self.delivery.waits, error.retry_after_s), str(error)) from error

    # --- the steps --------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        """Is there anything to do, and is this still the newest?"""
        target, shelf = self._target()
        if self._superseded(target):
            return
        if self.work.rollback:
            self._choose_former(shelf)
            return
        same = bool(self.delivery.fingerprint) and target.applied_fingerprint == self.delivery.fingerprint
        held = [org for org in self.work.organizations if self._holds(shelf, org)]
        same = same and self._still_there(shelf.applied_book)
        if same and (not self.work.activate or len(held) == len(self.work.organizations)):
            self._unchanged(shelf)
        elif self.delivery.dry_run:
            books = self.vendor.price_books(self.work.enterprise_id)
            self._verdict("", len(books), shelf, shelf.applied_book if same else "")
        elif same:
            self._accepted(shelf.applied_book)
        else:
            self._done(step="create")

    def _holds(self, shelf: Shelf, organization: str) -> bool:
        use = shelf.organizations.get(organization)
        return use is not None and use.active == shelf.applied_book and not use.pending

    def _unchanged(self, shelf: Shelf) -> None:
        """End: the vendor holds exactly this already."""
        units = tuple(unit.model_copy(update={"status": "unchanged"}) for unit in self.delivery.units)
        plan = {"verdict": "unchanged", "price_book": shelf.applied_book} if self.delivery.dry_run else None
        self.delivery = self.delivery.but(units=units, rows=_all_accepted(self.delivery.rows), plan=plan)
        self._end(Outcome.UNCHANGED, f"price book {shelf.applied_book} holds exactly this content")

    def _still_there(self, book_id: str) -> bool:
        """Return whether a book of ours can still be activated."""
        try:
            return self.vendor.price_book(self.work.enterprise_id, book_id).status == READY
        except NotFound:
            return False

    def _verdict(self, refusal: str, books: int = 0, shelf: Shelf | None = None, again: str = "") -> None:
        """End a dry run with what would be done; nothing was written at the vendor."""
        uses = (shelf or Shelf()).organizations
        files = [f"upload file {unit.seq}: {unit.rows:,} rows, {unit.bytes:,} bytes" for unit in self.delivery.units]
        steps = [f"create a price book for {self.work.provider.upper()} beside {books} others", *files]
        if again:
            steps = [f"take price book {again}, which holds exactly this content"]
        for org in self.work.organizations if self.work.activate else ():
            use = uses.get(org)
            steps.append(f"activate it for organization {org} instead of {use.active if use else 'an unknown book'}")
        plan = {"verdict": "would_fail" if refusal else "would_deliver", "why": refusal, "steps": steps}
        self.delivery = self.delivery.but(plan=plan, next_command=commands.drop_for_real(self.delivery.source))
        self._end(Outcome.UNCHANGED, "a dry run: nothing was written at the vendor")

    def _create(self) -> None:
        """Make the price book. A lost answer may leave another one behind, empty: it is named."""
        if self._superseded():
            return
        if self.work.restarts >= MAX_RESTARTS:
            tries = f"{self.work.restarts} price books were begun and none could be filled"
            self._end(Outcome.FAILED, f"{tries}; {self.delivery.reason}".rstrip("; "), redrop=True)
            return
        if self._intend("create") and not self._name_orphans():
            return
        book = self.vendor.create_price_book(self.work.enterprise_id, Provider[self.work.provider.upper()])
        units = tuple(unit.model_copy(update={"status": "owed", "vendor_id": ""}) for unit in self.delivery.units)
        self._done(self.delivery.but(units=units).at("created", self._now()), step="fill", book_id=book.id, slot=None)

    def _name_orphans(self) -> bool:
        """After a lost answer: look for the book that may have been made, and name it. False when it ended instead.

        Looking also shows whether the vendor is back before another book is asked for.
        """
        _, shelf = self._target()
        ours = {book.id for book in shelf.books}
        empty = [
            book.id
            for book in self.vendor.price_books(self.work.enterprise_id)
            if book.status == "WAITING_FOR_UPLOAD"
            and book.provider.upper() in {"", self.work.provider.upper()}
            and not book.source_files
            and book.id not in ours
        ]
        seen = f"these are empty and not known to us: {', '.join(empty[:10])}" if empty else "none is to be seen"
        warning = f"the answer to 'create price book' was lost and an empty book may have been left behind; {seen}"
        suspects = tuple(dict.fromkeys((*self.work.suspects, *empty)))
        self._save(self.delivery.warn(warning), suspects=suspects)
        if len(suspects) > MAX_ORPHANS:
            self._end(Outcome.FAILED, f"{len(suspects)} price books may have been left behind empty", redrop=True)
            return False
        return True

    def _owed_unit(self) -> Unit | None:
        return next((unit for unit in self.delivery.units if unit.status != "uploaded"), None)

    def _fill(self) -> None:
        """Give the next file its slot, or its bytes."""
        if self._superseded():
            return
        unit = self._owed_unit()
        if unit is None:
            self._done(step="ingest")
        elif self.work.slot is None:
            self._open_slot(unit)
        else:
            self._upload(unit, self.work.slot)

    def _open_slot(self, unit: Unit) -> None:
        """Get a slot. When an answer was lost, and the book holds a slot of unknown address, it is given up."""
        if self._intend(f"slot {unit.seq}") and self._has_lost_slot():
            self._give_up_book("the answer to 'add a file' was lost, and a book with an empty slot cannot be ingested")
            return
        slot = self.vendor.add_price_book_file(self.work.enterprise_id, self.work.book_id)
        self._done(slot=Slot(seq=unit.seq, file_id=slot.file.id, url=slot.pre_signed_url))

    def _has_lost_slot(self) -> bool:
        """Return whether the book may hold a slot whose address never reached us; a vendor that was down made none."""
        slots = self.vendor.price_book(self.work.enterprise_id, self.work.book_id).source_files
        ours = {unit.vendor_id for unit in self.delivery.units}
        return slots is None or any(slot.id not in ours for slot in slots)

    def _upload(self, unit: Unit, slot: Slot) -> None:
        """Upload a file straight from the spool. Repeating it replaces the same bytes."""
        trying = unit.model_copy(update={"attempts": unit.attempts + 1, "vendor_id": slot.file_id})
        self._save(self._with_unit(trying).but(intent=f"upload {unit.seq}"))
        try:
            answer = self.vendor.upload_price_book_file(
                slot.url, lambda: self.ports.spool.chunks(unit.spool_key), unit.bytes
            )
        except UploadRefused as error:
            self._give_up_book(str(error))
            return
        done = trying.model_copy(update={"status": "uploaded", "request_id": answer.request_id})
        self._done(self._with_unit(done).at("uploaded", self._now()), slot=None)

    def _give_up_book(self, why: str) -> None:
        """Leave a book that cannot be completed, and begin anew."""
        book = self.work.book_id
        self._shelve(book, "given up")
        warning = f"price book {book} was begun and given up: {why}"
        self._save(
            self.delivery.warn(warning).but(intent="", attempts=1, reason=why),
            step="create",
            book_id="",
            slot=None,
            orphans=(*self.work.orphans, book),
            restarts=self.work.restarts + 1,
        )

    def _ingest(self) -> None:
        """Start the ingestion, unless it turns out to be under way."""
        if self._superseded():
            return
        if self._intend("ingest"):
            status = self.vendor.price_book(self.work.enterprise_id, self.work.book_id).status
            if status != "WAITING_FOR_UPLOAD":
                self._done(step="poll", polls=0, watched_s=0.0)
                return
        try:
            self.vendor.ingest_price_book(self.work.enterprise_id, self.work.book_id)
        except RequestRefused:  # also when an earlier request, taken for lost, was acted on after all
            if self.vendor.price_book(self.work.enterprise_id, self.work.book_id).status == "WAITING_FOR_UPLOAD":
                raise
        self._done(self.delivery.at("ingesting", self._now()), step="poll", polls=0, watched_s=0.0)

    def _poll(self) -> None:
        """Look at the status; only SUCCESS goes on, and any status that is not known is the end. Raises Wait."""
        if self._superseded():
            return
        book = self.vendor.price_book(self.work.enterprise_id, self.work.book_id)
        if book.status == READY:
            self._accepted(book.id)
            return
        if book.status not in UNDERWAY:
            self._end(Outcome.FAILED, f"the vendor did not take the price book: {_words(book)}; {KEPT}", redrop=True)
            return
        # Hours in which the vendor could not be asked are no hours of ingestion: only waits between looks count.
        if self.work.watched_s >= self.polling.end_s:
            hours = self.polling.end_s / 3600
            reason = f"the price book was still {book.status} after {hours:g} hours; {KEPT}"
            self._end(Outcome.FAILED, reason, redrop=True)
            return
        wait = self.polling.after(self.work.polls)
        self._done(polls=self.work.polls + 1, watched_s=self.work.watched_s + wait)
        raise self._wait(wait, f"price book {book.id} is {book.status} at the vendor")

    def _accepted(self, book_id: str) -> None:
        """Remember that the vendor has taken every row, and what is to be activated."""
        self._shelve(book_id, READY)
        units = tuple(unit.model_copy(update={"status": "accepted"}) for unit in self.delivery.units)
        delivery = self.delivery.but(units=units, rows=_all_accepted(self.delivery.rows)).at("accepted", self._now())
        if not self.work.activate:
            delivery = delivery.warn(f"price book {book_id} is ready; the setting 'activate: false' leaves it at that")
        elif not self.work.organizations:
            delivery = delivery.warn(f"no organization is configured for {self.work.provider}: nothing was activated")
        goals = dict.fromkeys(self.work.organizations if self.work.activate else (), book_id)
        self._done(delivery, step="activate", book_id=book_id, to_activate=goals)

    def _choose_former(self, shelf: Shelf) -> None:
        """Decide which book each organization goes back to; every one must be ready at the vendor."""
        goals: dict[str, str] = {}
        for org in self.work.organizations:
            use = shelf.organizations.get(org)
            goal = self.work.rollback_to or (use.former if use else "")
            if not goal:
                reason = f"no former price book of organization {org} is known; name one as price_book_id"
                self._end(Outcome.REJECTED, reason)
                return
            goals[org] = goal
        if not goals:
            self._end(Outcome.REJECTED, f"no organization is configured for {self.work.provider}")
            return
        for goal in sorted(set(goals.values())):
            try:
                book = self.vendor.price_book(self.work.enterprise_id, goal)
            except NotFound as error:
                self._end(Outcome.REJECTED, f"price book {goal} is not there any more: {error}")
                return
            if book.status != READY or book.provider.upper() not in {"", self.work.provider.upper()}:
                self._end(Outcome.REJECTED, f"price book {goal} cannot be activated: {book.provider} {_words(book)}")
                return
        if self.delivery.dry_run:
            steps = [f"activate price book {book} for organization {org}" for org, book in goals.items()]
            self.delivery = self.delivery.but(plan={"verdict": "would_deliver", "why": "", "steps": steps})
            self._end(Outcome.UNCHANGED, "a dry run: nothing was written at the vendor")
            return
        self._done(step="activate", to_activate=goals)

    def _activate(self) -> None:
        """Activate for every organization that is owed; one that is refused or cannot be asked holds up no other."""
        owed = [org for org in self.work.to_activate if org not in self.work.activated]
        if not owed:
            self._applied()
            return
        if self._superseded():
            return
        trouble: VendorError | None = None
        for org in owed:
            try:
                self._activate_for(org)
            except VendorError as error:
                if isinstance(error, CredentialRefused) and error.call.status == HTTPStatus.UNAUTHORIZED:
                    raise  # the token is refused for all
                trouble = trouble or error
        if trouble is not None:
            raise trouble

    def _activate_for(self, organization: str) -> None:
        """Activate for one organization, and remember it. Raises VendorError when it may go well later."""
        book = self.work.to_activate[organization]
        # Until the answer is remembered nobody can say which book the organization uses: a lost answer must not let a
        # later delivery believe that the former one is still there.
        self._change_shelf(lambda shelf: shelf.with_pending(organization, book))
        status, request_id = "activated", ""
        try:
            _, request_id = self.vendor.activate_price_book(organization, book)
        except VendorError as error:
            if error.retryable:
                raise
            self._change_shelf(lambda shelf: shelf.without_pending(organization))
            status, request_id = f"refused: {error}", error.call.request_id
        else:
            self._change_shelf(lambda shelf: shelf.with_active(organization, book, self._now()))
            self._leave_other_shelf(organization)
        unit = Unit(
            seq=len(self.delivery.units) + 1,
            name=f"organization {organization}",
            attempts=1 + self.delivery.waits,
            vendor_id=book,
            request_id=request_id,
            status=status,
        )
        delivery = self.delivery.but(units=(*self.delivery.units, unit)).at("activated", self._now())
        self._done(delivery, activated={**self.work.activated, organization: status})

    def _leave_other_shelf(self, organization: str) -> None:
        """Forget that the organization uses another provider's book: it holds one, and that is now ours."""
        for provider in Provider:
            name = target_name(self.work.enterprise_id, provider.value.lower())
            if name != self.delivery.target:
                self._change_shelf(lambda shelf: shelf.without_organization(organization), name)

    def _applied(self) -> None:
        """Remember at the target what it now holds, unless nothing of it was activated."""
        good = [org for org, status in self.work.activated.items() if status == "activated"]
        if good or not self.work.to_activate:
            books = {self.work.to_activate[org] for org in good} or {self.work.book_id}
            book = min(books) if len(books) == 1 else ""

            def applied(target: Target) -> Target:
                shelf = Shelf.model_validate(target.content)
                known = next((known for known in shelf.books if known.id == book), None)
                return target.but(
                    applied_order=self.delivery.order,
                    applied_delivery=self.delivery.id,
                    applied_fingerprint=known.fingerprint if known else "",
                    applied_at=self._now() if target.applied_delivery != self.delivery.id else target.applied_at,
                    content=shelf.model_copy(update={"applied_book": book}).model_dump(mode="json"),
                )

            change_target(self.ports, self.delivery.target, applied)
        self._done(step="tidy")

    def _tidy(self) -> None:
        """Delete unused books of ours beyond the newest that are kept (off by default), then end."""
        _, shelf = self._target()
        keep = self.work.keep_unused
        goner = next(iter(shelf.unused(keep, self.work.book_id)), None) if keep is not None else None
        if goner is None:
            self._finish()
            return
        self._intend(f"delete {goner.id}")
        try:
            self.vendor.delete_price_book(self.work.enterprise_id, goner.id)
            said = f"price book {goner.id} was deleted: unused, and older than the {keep} newest unused ones"
        except NotFound:
            said = f"price book {goner.id} was deleted before"
        except VendorError as error:  # a clean-up holds up nobody
            if error.retryable:
                self._save(self.delivery.warn(f"tidying up is left to the next delivery: {error}"))
                self._finish()
                return
            said = f"price book {goner.id} could not be deleted and is left alone from now on: {error}"
        self._change_shelf(lambda shelf: shelf.without_book(goner.id))
        self._done(self.delivery.warn(said))

    def _finish(self) -> None:
        """End with the outcome that the activations add up to."""
        refused = {org: status for org, status in self.work.activated.items() if status != "activated"}
        if refused:
            reason = "; ".join(f"organization {org}: {status}" for org, status in refused.items())
            some = len(refused) < len(self.work.activated)
            self._end(Outcome.PARTLY_DELIVERED if some else Outcome.FAILED, reason, redrop=True)
        elif self.delivery.rows.rejected:
            rejected = f"{self.delivery.rows.rejected:,} rows were rejected; mend them and drop them back"
            self._end(Outcome.PARTLY_DELIVERED, rejected)
        else:
            self._end(Outcome.DELIVERED)

    # --- the target -------------------------------------------------------------------------------------------------

    def _target(self) -> tuple[Target, Shelf]:
        target = self.ports.ledger.target(self.delivery.target)
        return target, Shelf.model_validate(target.content)

    def _superseded(self, target: Target | None = None) -> bool:
        """End the delivery if a newer one was prepared for the same target, or has been applied."""
        if self.delivery.dry_run:
            return False
        target = target or self.ports.ledger.target(self.delivery.target)
        for order, other in (
            (target.applied_order, target.applied_delivery),
            (target.newest_order, target.newest_delivery),
        ):
            if order > self.delivery.order and other != self.delivery.id:
                self._end(Outcome.SUPERSEDED, f"the newer delivery {other} replaces the same price book")
                return True
        return False

    def _change_shelf(self, change: Callable[[Shelf], Shelf], target_of: str = "") -> None:
        change_target(
            self.ports,
            target_of or self.delivery.target,
            lambda target: target.but(content=change(Shelf.model_validate(target.content)).model_dump(mode="json")),
        )

    def _shelve(self, book_id: str, status: str) -> None:
        """Remember a book of ours, so that it can be found, gone back to, or tidied up."""

        def shelved(shelf: Shelf) -> Shelf:
            known = next((known for known in shelf.books if known.id == book_id), None)
            book = Book(
                id=book_id,
                delivery=known.delivery if known else self.delivery.id,
                fingerprint=self.delivery.fingerprint,
                status=status,
                at=known.at if known else self._now(),
            )
            return shelf if known is not None and known.status == READY else shelf.with_book(book)

        self._change_shelf(shelved)

    def _with_unit(self, unit: Unit) -> Delivery:
        return self.delivery.but(units=tuple(unit if known.seq == unit.seq else known for known in self.delivery.units))


KEPT = "the former price book stays active"


def _all_accepted(rows: Rows) -> Rows:
    """Return the counts once the vendor has taken all that was owed."""
    return rows.model_copy(update={"accepted": rows.accepted + rows.owed, "owed": 0})


def _words(book: PriceBook) -> str:
    """Return a book's status and what the vendor says of it."""
    return f"{book.status}: {book.status_message}" if book.status_message else book.status

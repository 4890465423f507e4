"""One invocation's work on one delivery to CloudZero: step after step, each remembered, until it ends or waits.

What every kind has in common stands here: how a step is saved, what trouble leads to, how a delivery ends or is held,
and how one whose tries ended without a word is given up. A kind adds its steps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from hashlib import sha256
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from finops_relay.delivery import commands
from finops_relay.delivery.ledger import MAX_ATTEMPTS, MAX_REASON, Delivery, clip
from finops_relay.delivery.ports import Ports, Queue
from finops_relay.delivery.receipt import Frozen, Outcome, Rows, Unit
from finops_relay.delivery.telling import announce, conclude, quarantine_delivery
from finops_relay.delivery.waits import Looks, Waits
from finops_relay.errors import CredentialRefused, ShortRead, SourceGone, VendorError, Wait
from finops_relay.jobs.mended import folder_of, mend_command
from finops_relay.jobs.opening import heard, waiting
from finops_relay.jobs.turns import behind, leave, past_those_behind, take, tell_those_behind

if TYPE_CHECKING:
    from finops_relay.cloudzero.client import CloudZero  # loads httpx, which the first message does

STEP_NEEDS_S = 60.0
"""An invocation with less time than this left begins no further step: a body may take this long to be taken."""
OWED, ACCEPTED, IN_DOUBT = "owed", "accepted", "in doubt"
UNSETTLED = "what was sent could not be entered into the record of what CloudZero holds"
ABOUT_ROWS = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY})
"""Answers that may be about single rows of a body."""


class RunWork(Frozen):
    """How far a delivery is. Kept as ``Delivery.work``; a kind adds what only it remembers."""

    contract: str = ""
    step: str = "check"
    decision: str = ""
    """A person's, where the delivery was held: ``send``, ``drop`` or ``arrived``."""
    decided_by: str = ""
    """The delivery of the release file."""
    decisions: tuple[str, ...] = ()
    """Deliveries of all release files that were obeyed, so that none is twice: it may be held again in between."""
    removed: tuple[Frozen, ...] = ()
    """What the vendor refused."""
    named: int = 0
    """How much of it stands in the file of rejected rows."""
    looks: int = 0
    watched_s: float = 0.0
    """Seconds waited between looks at what the vendor does in its own time."""


WorkT = TypeVar("WorkT", bound=RunWork)


@dataclass
class Run(ABC, Generic[WorkT]):
    """One invocation's work on one delivery."""

    ports: Ports
    vendor: Callable[[], CloudZero]
    prepare_queue: Queue
    """Of the function that prepared the delivery, which names the rows that the vendor refused."""
    waits: Waits
    delivery: Delivery
    work: WorkT
    steps_done: int = 0
    handed_over: bool = False
    """Somebody else goes on with the delivery: a person, or the function that prepared it."""

    # --- what a kind says ---------------------------------------------------------------------------------------------

    @abstractmethod
    def steps(self) -> Mapping[str, Callable[[], None]]:
        """Give what is done at each step."""

    @abstractmethod
    def settle(self) -> None:
        """Write into the record of what the vendor holds what it holds now of this delivery."""

    def accounted(self) -> Delivery:
        """Return the delivery as it ends."""
        return self.delivery

    def as_held(self) -> Delivery:
        """Return the delivery as it is while a person is asked."""
        return self.delivery

    def doubt_unheard(self) -> None:
        """Mark the body that may have been taken, and that nothing more is to be heard of."""
        for unit in [unit for unit in self.delivery.units if unit.status == OWED]:
            if self.delivery.intent == f"send {unit.spool_key}":
                self.doubt(unit)

    def let_go(self) -> None:
        """Let expire what the delivery has in the spool beside its bodies."""

    def again(self) -> str:
        """Return the command that delivers the same once more."""
        return commands.drop_again(self.delivery.source)

    def mend(self) -> str:
        """Return the commands that fetch the rejected rows, and bring them back mended."""
        return mend_command(self.delivery, folder_of(self.delivery.source.key))

    def plan(self) -> list[str]:
        """Return what would be done, step by step."""
        return [f"send {unit.name}: {unit.rows:,} rows, {unit.bytes:,} bytes" for unit in self.delivery.units]

    def planned(self, verdict: str, why: str = "") -> None:
        """End a dry run with what would be done; nothing was written at the vendor."""
        plan = {"verdict": verdict, "why": why, "steps": self.plan() if verdict == "would_deliver" else []}
        self.delivery = self.delivery.but(plan=plan)
        for_real = commands.drop_for_real(self.delivery.source)
        self.end(Outcome.UNCHANGED, "a dry run: nothing was written at the vendor", command=for_real)

    # --- the run ------------------------------------------------------------------------------------------------------

    def going_on(self) -> Delivery:
        """Take the delivery as far as it goes now.

        Raises:
            Wait: the next step comes later; everything is saved.
            LedgerConflict: another run is at it.
        """
        if self.delivery.attempts >= MAX_ATTEMPTS:
            return self._given_up()
        self.delivery = self.ports.ledger.save(
            self.delivery.but(stage="delivering", attempts=self.delivery.attempts + 1)
        )
        with past_those_behind(self.ports, self.delivery), heard(self.ports, self.delivery.id, self.waits):
            return self._to_the_end()

    def _to_the_end(self) -> Delivery:
        """Take step after step until the delivery ends, is held, or has to wait."""
        steps = self.steps()
        while self.delivery.stage != "finished" and not self.handed_over:
            if self.steps_done and self.ports.clock.remaining_s() < STEP_NEEDS_S:
                raise self.wait(1, "goes on in another invocation")
            try:
                if self.work.step not in {"check", "decided"} and self.client.name != self.work.contract:
                    self.end_other_contract()
                    break
                steps[self.work.step]()
            except VendorError as error:
                self._trouble(error)
            except ShortRead as error:
                raise self.wait(self.waits.after(self.delivery.waits), str(error)) from error
            except SourceGone as error:
                self.end(Outcome.FAILED, f"something that was prepared is lost: {error}", redrop=True)
            self.steps_done += 1
        return self.delivery

    def _given_up(self) -> Delivery:
        """End a delivery whose tries ended without a word; what was being sent is in doubt.

        Saying so may fail too: should what was sent not go into the record of what is there, it is left out in the end.
        """
        self.delivery = self.ports.ledger.save(self.delivery.but(attempts=self.delivery.attempts + 1))
        if self.delivery.intent.startswith("send "):
            self.doubt(self.unit(self.delivery.intent.removeprefix("send ")))
        self.doubt_unheard()
        reason = f"{MAX_ATTEMPTS} tries of step {self.work.step!r} ended without a word"
        self.delivery = self.accounted()
        prepared = [self.ports.spool.version(unit.spool_key) for unit in self.delivery.units if unit.spool_key]
        if not self.delivery.dry_run and self.delivery.attempts <= 2 * MAX_ATTEMPTS:
            self.settle()
        elif not self.delivery.dry_run:
            self.delivery = self.delivery.warn(UNSETTLED)
        ended = quarantine_delivery(self.ports, self.delivery, reason, *prepared)
        self.let_go()
        leave(self.ports, ended)
        return ended

    # --- remembering --------------------------------------------------------------------------------------------------

    def save(self, delivery: Delivery | None = None, **work: Any) -> None:  # noqa: ANN401 -- fields of the work; pydantic checks them
        """Remember changes of the delivery and of its work."""
        self.work = type(self.work).model_validate({**vars(self.work), **work})
        kept = (delivery or self.delivery).but(work=self.work.model_dump(mode="json"))
        self.delivery = self.ports.ledger.save(kept)

    def done(self, delivery: Delivery | None = None, **work: Any) -> None:  # noqa: ANN401 -- as save
        """Remember that a step went well."""
        self.save((delivery or self.delivery).but(intent="", attempts=1, waits=0, reason=""), **work)

    def wait(self, seconds: float, why: str) -> Wait:
        """Remember that the delivery waits, and return the Wait to raise."""
        return waiting(self.ports, self.delivery, seconds, why)

    def end(self, outcome: Outcome, reason: str = "", *, redrop: bool = False, command: str = "") -> None:
        """End the delivery; what the vendor has not taken stays owed. The next one has its turn."""
        if not self.delivery.dry_run:
            self.doubt_unheard()
            self.settle()
        self.let_go()
        if redrop:
            command = self.again()
        elif self.delivery.rejected_rows:
            command = command or self.mend()
        ended = self.accounted().ended(outcome, self.now(), reason, command)
        self.delivery = self.ports.ledger.save(ended.but(work=self.work.model_dump(mode="json")))
        leave(self.ports, self.delivery)
        self.delivery = announce(self.ports, self.delivery)

    def hold(self, why: str, delivery: Delivery | None = None) -> None:
        """Leave the delivery, or what it has become, to a person, and tell those behind it. It keeps its turn."""
        before, self.delivery = self.delivery, delivery or self.delivery
        try:
            self.settle()
        except ShortRead:  # what it has become is saved with its hold only
            self.delivery = before
            raise
        command = commands.release(self.delivery.source, self.delivery.id)
        held = self.as_held().ended(Outcome.HELD, self.now(), clip(why, MAX_REASON), command)
        held = held.but(work=self.work.model_copy(update={"decision": "", "decided_by": ""}).model_dump(mode="json"))
        self.delivery = conclude(self.ports, held)
        tell_those_behind(self.ports, self.delivery)
        self.handed_over = True

    def end_other_contract(self) -> None:
        """End a delivery whose bodies the tenant does not understand any more."""
        now, then = self.client.name.value, self.work.contract
        self.end(Outcome.FAILED, f"the bodies are of contract {then!r}, and now {now!r} is spoken", redrop=True)

    def now(self) -> datetime:
        """Return the time, UTC."""
        return self.ports.clock.now()

    @cached_property
    def client(self) -> CloudZero:
        """The vendor's client, made when first needed."""
        return self.vendor()

    # --- turns, and looks ---------------------------------------------------------------------------------------------

    def in_the_way(self) -> Delivery | None:
        """Take the turn; return the delivery that has it and has not ended, None once it is this one's."""
        while True:
            busy = take(self.ports, self.delivery)
            if busy == self.delivery.id:
                return None
            other = self.ports.ledger.delivery(busy)
            if other is not None and not other.outcome.final:
                return other
            if other is not None:  # whoever ended it may have died before saying so
                announce(self.ports, other)
            leave(self.ports, self.delivery.but(id=busy) if other is None else other)

    def wait_behind(self, other: Delivery, what: str) -> Wait:
        """Remember that the delivery waits for *other*, which has *what* it needs, and return the Wait to raise."""
        why = behind(other).removeprefix("waits: ")
        if other.outcome is not Outcome.HELD:
            why = f"delivery {other.id} of {other.source.key!r} has the {what}"
        return self.wait(self.waits.after(self.delivery.waits), why)

    def look_again(self, looks: Looks, why: str) -> Wait:
        """Remember one more look in vain, and return the Wait to raise."""
        wait = looks.after(self.work.looks)
        self.save(looks=self.work.looks + 1, watched_s=self.work.watched_s + wait)
        return self.wait(wait, why)

    # --- bodies -------------------------------------------------------------------------------------------------------

    def unit(self, spool_key: str) -> Unit:
        """Return the body that stands under a key of the spool."""
        return next(unit for unit in self.delivery.units if unit.spool_key == spool_key)

    def with_unit(self, unit: Unit, delivery: Delivery | None = None) -> Delivery:
        """Return the delivery with *unit* in the place of the one that has its body."""
        delivery = delivery or self.delivery
        units = tuple(unit if known.spool_key == unit.spool_key else known for known in delivery.units)
        return delivery.but(units=units)

    def owed(self, after: Unit | None = None) -> Unit | None:
        """Return the body that is to be sent next, or the one after that."""
        owed = (unit for unit in self.delivery.units if unit.status == OWED)
        return next((unit for unit in owed if after is None or unit.spool_key != after.spool_key), None)

    def doubt(self, unit: Unit) -> None:
        """Nobody knows whether a body was taken."""
        self.delivery = self.doubted(unit)

    def doubted(self, unit: Unit) -> Delivery:
        """Return the delivery with a body in doubt."""
        return self.with_unit(unit.model_copy(update={"status": IN_DOUBT}))

    def any_accepted(self) -> bool:
        """Return whether the vendor has taken any body."""
        return any(unit.status == ACCEPTED for unit in self.delivery.units)

    def bytes_of(self, unit: Unit) -> bytes:
        """Return a body from the spool, unchanged since it was prepared. Raises SourceGone, ShortRead."""
        body = b"".join(self.ports.spool.chunks(unit.spool_key))
        if sha256(body).hexdigest() != unit.sha256:
            msg = f"the spool's {unit.spool_key} is not what was prepared"
            raise SourceGone(msg)
        return body

    def name_refused(self) -> None:
        """Have what the vendor refused named in the file of rejected rows: only the source knows its rows."""
        if len(self.work.removed) <= self.work.named:
            self.done(step="finish")
            return
        self.save(self.delivery.but(stage="naming", attempts=0))
        self.prepare_queue.send(self.delivery, nonce=self.delivery.id)
        self.handed_over = True

    # --- trouble ------------------------------------------------------------------------------------------------------

    def _trouble(self, error: VendorError) -> None:
        """Decide what a failed call leads to: a wait, or the end. Raises Wait."""
        if isinstance(error, CredentialRefused):
            self.ports.metrics.count("CredentialRefused")
        elif error.retryable:
            self.ports.metrics.count("VendorTrouble")
        if self.delivery.dry_run:  # it has nothing to wait for: that the vendor cannot be used now is its verdict
            self.planned("would_fail", f"the vendor could not be asked: {error}")
            return
        if not error.retryable:
            self.end(Outcome.FAILED, str(error), redrop=True)
            return
        raise self.wait(self.waits.after(self.delivery.waits, error.retry_after_s), str(error)) from error


def at_rest(ports: Ports, delivery: Delivery, prepare_queue: Queue) -> Delivery | None:
    """Return a delivery that has nothing to be sent now, once it was told again; None for one that goes on."""
    if delivery.stage == "finished":
        leave(ports, delivery)
        return announce(ports, delivery)
    if delivery.outcome is Outcome.HELD:
        told = announce(ports, delivery)
        tell_those_behind(ports, told)
        return told
    if delivery.stage == "naming":
        prepare_queue.send(delivery, nonce=delivery.id)
        return delivery
    return None


def moved(rows: Rows, *, accepted: bool, count: int | None = None) -> Rows:
    """Return the counts after *count* owed rows (all, when none is given) were accepted, or rejected.

    A negative count takes them back.
    """
    some = rows.owed if count is None else count
    name = "accepted" if accepted else "rejected"
    return rows.model_copy(update={name: getattr(rows, name) + some, "owed": rows.owed - some})

"""One invocation's work on one delivery to CloudZero, where bodies are sent one by one, and deliveries take turns."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from http import HTTPStatus
from typing import TYPE_CHECKING, Generic, TypeVar

from typing_extensions import override

from finops_relay.delivery.ledger import MAX_ATTEMPTS, Delivery
from finops_relay.delivery.ports import Ports, Queue
from finops_relay.delivery.receipt import Frozen, Outcome, Unit
from finops_relay.delivery.telling import announce
from finops_relay.delivery.waits import Looks
from finops_relay.errors import ShortRead, SourceGone, Wait
from finops_relay.jobs.steps import Steps, StepWork
from finops_relay.jobs.turns import behind, leave, past_those_behind, take, tell_those_behind

if TYPE_CHECKING:
    from finops_relay.cloudzero.client import CloudZero  # loads httpx, which the first message does

OWED, ACCEPTED, IN_DOUBT = "owed", "accepted", "in doubt"
UNSETTLED = "what was sent could not be entered into the record of what CloudZero holds"
ABOUT_ROWS = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY})
"""Answers that may be about single rows of a body."""


class RunWork(StepWork):
    """How far a delivery is. Kept as ``Delivery.work``; a kind adds what only it remembers."""

    contract: str = ""
    removed: tuple[Frozen, ...] = ()
    """What the vendor refused."""
    named: int = 0
    """How much of it stands in the file of rejected rows."""
    looks: int = 0
    watched_s: float = 0.0
    """Seconds waited between looks at what the vendor does in its own time."""


WorkT = TypeVar("WorkT", bound=RunWork)


@dataclass(kw_only=True)
class Run(Steps[WorkT], Generic[WorkT]):
    """One invocation's work on one delivery."""

    vendor: Callable[[], CloudZero]
    prepare_queue: Queue
    """Of the function that prepared the delivery, which names the rows that the vendor refused."""

    # --- what a kind says ---------------------------------------------------------------------------------------------

    @abstractmethod
    def settle(self) -> None:
        """Write into the record of what the vendor holds what it holds now of this delivery."""

    def doubt_unheard(self) -> None:
        """Mark the body that may have been taken, and that nothing more is to be heard of."""
        for unit in [unit for unit in self.delivery.units if unit.status == OWED]:
            if self.delivery.intent == f"send {unit.spool_key}":
                self.doubt(unit)

    @override
    def plan(self) -> list[str]:
        return [f"send {unit.name}: {unit.rows:,} rows, {unit.bytes:,} bytes" for unit in self.delivery.units]

    # --- the run ------------------------------------------------------------------------------------------------------

    @override
    def going_on(self) -> Delivery:
        with past_those_behind(self.ports, self.delivery):
            return super().going_on()

    @override
    def in_order(self) -> bool:
        if self.work.step in {"check", "decided"} or self.client.name == self.work.contract:
            return True
        self.end_other_contract()
        return False

    @override
    def give_up(self) -> None:
        """Doubt what was being sent. Should it not go into the record of what is there, it is left out in the end."""
        if self.delivery.intent.startswith("send "):
            self.doubt(self.unit(self.delivery.intent.removeprefix("send ")))
        self.doubt_unheard()
        self.delivery = self.accounted()
        if not self.delivery.dry_run and self.delivery.attempts <= 2 * MAX_ATTEMPTS:
            self.settle()
        elif not self.delivery.dry_run:
            self.delivery = self.delivery.warn(UNSETTLED)

    # --- remembering --------------------------------------------------------------------------------------------------

    @override
    def leave(self, ended: Delivery) -> None:
        leave(self.ports, ended)

    @override
    def end(self, outcome: Outcome, reason: str = "", *, redrop: bool = False, command: str = "") -> None:
        if not self.delivery.dry_run:
            self.doubt_unheard()
            self.settle()
        super().end(outcome, reason, redrop=redrop, command=command)

    @override
    def hold(self, why: str, command: str = "", delivery: Delivery | None = None) -> None:
        """Leave the delivery, or what it has become, to a person, and tell those behind it. It keeps its turn."""
        before, self.delivery = self.delivery, delivery or self.delivery
        try:
            self.settle()
        except ShortRead:  # what it has become is saved with its hold only
            self.delivery = before
            raise
        super().hold(why, command)
        tell_those_behind(self.ports, self.delivery)

    def end_other_contract(self) -> None:
        """End a delivery whose bodies the tenant does not understand any more."""
        now, then = self.client.name.value, self.work.contract
        self.end(Outcome.FAILED, f"the bodies are of contract {then!r}, and now {now!r} is spoken", redrop=True)

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

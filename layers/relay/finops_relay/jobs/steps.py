"""One invocation's work on one delivery: step after step, each remembered, until it ends, is held, or has to wait.

What deliveries to every vendor have in common stands here: how a step is saved, what trouble leads to, how a delivery
ends or is held, and how one whose tries ended without a word is given up. A kind adds its steps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from finops_relay.delivery import commands
from finops_relay.delivery.ledger import MAX_ATTEMPTS, MAX_REASON, Delivery, clip
from finops_relay.delivery.ports import Ports
from finops_relay.delivery.receipt import Frozen, Outcome, Rows
from finops_relay.delivery.telling import announce, conclude, quarantine_delivery
from finops_relay.delivery.waits import Waits
from finops_relay.errors import CredentialRefused, ShortRead, SourceGone, VendorError, Wait
from finops_relay.jobs.mended import folder_of, mend_command
from finops_relay.jobs.opening import heard, waiting

STEP_NEEDS_S = 60.0
"""An invocation with less time than this left begins no further step: a body may take this long to be taken."""


class StepWork(Frozen):
    """How far a delivery is. Kept as ``Delivery.work``; a kind adds what only it remembers."""

    step: str = "check"
    decision: str = ""
    """A person's, where the delivery was held: ``send``, ``drop`` or ``arrived``."""
    decided_by: str = ""
    """The delivery of the release file."""
    decisions: tuple[str, ...] = ()
    """Deliveries of all release files that were obeyed, so that none is twice: it may be held again in between."""


WorkT = TypeVar("WorkT", bound=StepWork)


@dataclass(kw_only=True)
class Steps(ABC, Generic[WorkT]):
    """One invocation's work on one delivery."""

    ports: Ports
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
    def plan(self) -> list[str]:
        """Return what would be done, step by step."""

    def in_order(self) -> bool:
        """Return whether the next step may be taken; the delivery has ended where it may not."""
        return True

    def accounted(self) -> Delivery:
        """Return the delivery as it ends."""
        return self.delivery

    def as_held(self) -> Delivery:
        """Return the delivery as it is while a person is asked."""
        return self.delivery

    def give_up(self) -> None:
        """Remember what is not known of a delivery whose tries ended without a word."""

    def let_go(self) -> None:
        """Let expire what the delivery has in the spool beside its bodies."""

    def leave(self, ended: Delivery) -> None:
        """Let the next delivery of the target have its turn; saying it twice changes nothing."""

    def again(self) -> str:
        """Return the command that delivers the same once more."""
        return commands.drop_again(self.delivery.source)

    def for_real(self) -> str:
        """Return the command that does what a dry run has planned."""
        return commands.drop_for_real(self.delivery.source)

    def mend(self) -> str:
        """Return the commands that fetch the rejected rows, and bring them back mended."""
        return mend_command(self.delivery, folder_of(self.delivery.source.key))

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
        with heard(self.ports, self.delivery.id, self.waits):
            return self._to_the_end()

    def _to_the_end(self) -> Delivery:
        """Take step after step until the delivery ends, is held, or has to wait."""
        steps = self.steps()
        while self.delivery.stage != "finished" and not self.handed_over:
            if self.steps_done and self.ports.clock.remaining_s() < STEP_NEEDS_S:
                raise self.wait(1, "goes on in another invocation")
            try:
                if not self.in_order():
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
        """End a delivery whose tries ended without a word. Saying so may fail too, and is repeated then."""
        self.delivery = self.ports.ledger.save(self.delivery.but(attempts=self.delivery.attempts + 1))
        reason = f"{MAX_ATTEMPTS} tries of step {self.work.step!r} ended without a word"
        self.give_up()
        prepared = [self.ports.spool.version(unit.spool_key) for unit in self.delivery.units if unit.spool_key]
        ended = quarantine_delivery(self.ports, self.delivery, reason, *prepared)
        self.let_go()
        self.leave(ended)
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
        self.let_go()
        if redrop:
            command = self.again()
        elif self.delivery.rejected_rows:
            command = command or self.mend()
        ended = self.accounted().ended(outcome, self.now(), reason, command)
        self.delivery = self.ports.ledger.save(ended.but(work=self.work.model_dump(mode="json")))
        self.leave(self.delivery)
        self.delivery = announce(self.ports, self.delivery)

    def hold(self, why: str, command: str = "") -> None:
        """Leave the delivery to a person; *command* says what to type where it is not to release it."""
        command = command or commands.release(self.delivery.source, self.delivery.id)
        held = self.as_held().ended(Outcome.HELD, self.now(), clip(why, MAX_REASON), command)
        held = held.but(work=self.work.model_copy(update={"decision": "", "decided_by": ""}).model_dump(mode="json"))
        self.delivery = conclude(self.ports, held)
        self.handed_over = True

    def planned(self, verdict: str, why: str = "") -> None:
        """End a dry run with what would be done; nothing was written at the vendor."""
        steps = self.plan() if verdict in {"would_deliver", "would_be_held"} else []
        plan = {**(self.delivery.plan or {}), "verdict": verdict, "why": why, "steps": steps}
        self.delivery = self.delivery.but(plan=plan)
        self.end(Outcome.UNCHANGED, "a dry run: nothing was written at the vendor", command=self.for_real())

    def now(self) -> datetime:
        """Return the time, UTC."""
        return self.ports.clock.now()

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


def moved(rows: Rows, *, accepted: bool, count: int | None = None) -> Rows:
    """Return the counts after *count* owed rows (all, when none is given) were accepted, or rejected.

    A negative count takes them back.
    """
    some = rows.owed if count is None else count
    name = "accepted" if accepted else "rejected"
    return rows.model_copy(update={name: getattr(rows, name) + some, "owed": rows.owed - some})

"""Whose turn it is at a connection or a stream: one delivery has it, from its first check until it has ended.

A held delivery keeps it until a person has decided, and the receipts of those behind say so.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pydantic import Field

from finops_relay.delivery.identity import second_group
from finops_relay.delivery.ledger import Delivery, Target
from finops_relay.delivery.ports import Ports
from finops_relay.delivery.receipt import Frozen, Outcome
from finops_relay.delivery.telling import write_receipt
from finops_relay.errors import LedgerConflict, Wait
from finops_relay.jobs.opening import change_target

MOST_TOLD = 200
"""Receipts that say at once behind which held delivery they wait; further ones say so when it is their turn to ask."""


class Waiting(Frozen):
    """A prepared delivery that has not ended."""

    order: str
    key: str = ""
    """Where it matters to those beside it: whose rows these are, of which month, and what becomes of it."""
    month: str = ""
    whole_month: bool = False
    addition: bool = False
    erases: str = ""
    """Of a stream: ``stream`` where it deletes the whole, ``periods`` where it deletes some."""
    optional: bool = False
    """Whether it need not be remembered beside `MOST_TOLD` others: nobody decides by it."""


class Turns(Frozen):
    """Who sends, and who waits. Kept as ``Target.content``."""

    busy: str = ""
    """The delivery whose turn it is: it is being sent, or held. No other sends anything meanwhile."""
    waiting: dict[str, Waiting] = Field(default_factory=dict)
    """By delivery, the busy one included."""

    def without(self, delivery: str) -> Turns:
        """Return it as it is once *delivery* has ended."""
        others = {known: of for known, of in self.waiting.items() if known != delivery}
        return Turns(busy="" if self.busy == delivery else self.busy, waiting=others)


def turns(ports: Ports, target: str) -> Turns:
    """Return whose turn it is."""
    return Turns.model_validate(ports.ledger.target(target).content)


def enter(ports: Ports, delivery: Delivery, entry: Waiting) -> Delivery | None:
    """Remember that a prepared delivery waits for its turn; return the held one that it waits for, if there is one."""

    def entered(target: Target) -> Target:
        found = Turns.model_validate(target.content)
        if entry.optional and len(found.waiting) >= MOST_TOLD:
            return target
        waiting = {**found.waiting, delivery.id: entry}
        return _with(target, found.model_copy(update={"waiting": waiting}))

    busy = Turns.model_validate(change_target(ports, delivery.target, entered).content).busy
    other = ports.ledger.delivery(busy) if busy and busy != delivery.id else None
    return other if other is not None and other.outcome is Outcome.HELD else None


def take(ports: Ports, delivery: Delivery) -> str:
    """Take the turn if nobody has it; return the delivery that has it."""

    def taken(target: Target) -> Target:
        found = Turns.model_validate(target.content)
        return target if found.busy else _with(target, found.model_copy(update={"busy": delivery.id}))

    return Turns.model_validate(change_target(ports, delivery.target, taken).content).busy


def leave(ports: Ports, delivery: Delivery) -> None:
    """Give the turn to the next one; saying it twice changes nothing."""
    if delivery.dry_run or not delivery.target:
        return
    change_target(
        ports,
        delivery.target,
        lambda target: _with(target, Turns.model_validate(target.content).without(delivery.id)),
    )


@contextmanager
def past_those_behind(ports: Ports, delivery: Delivery) -> Iterator[None]:
    """Let a delivery whose turn it is come back past those that wait for it, however long it waits itself.

    A message that has waited for long is sent afresh, which would put it behind them.

    Raises:
        Wait: as it was raised inside.
    """
    try:
        yield
    except Wait as wait:
        if turns(ports, delivery.target).busy != delivery.id:
            raise
        raise Wait(wait.seconds, wait.why, second_group(delivery.target)) from wait


def tell_those_behind(ports: Ports, held: Delivery) -> None:
    """Let the receipts of those that wait say behind which held delivery they do."""
    for known in [known for known in turns(ports, held.target).waiting if known != held.id][:MOST_TOLD]:
        other = ports.ledger.delivery(known)
        if other is None or other.outcome is not Outcome.PENDING or other.reason == behind(held):
            continue
        with suppress(LedgerConflict):  # it is just being worked on, and says so itself
            write_receipt(ports, ports.ledger.save(other.but(reason=behind(held))))


def behind(held: Delivery) -> str:
    """Return what the receipt of a delivery says that waits for a held one."""
    return f"waits: behind delivery {held.id} of {held.source.key!r}, which is held: a person must decide"


def _with(target: Target, now: Turns) -> Target:
    content = now.model_dump(mode="json")
    return target if target.content == content else target.but(content=content)

"""One run at a time for one target, whoever started it: a lease in the ledger, which ends with its invocation.

The FIFO queue keeps deliveries of one group apart. The lease holds where a queue's promise ends: two queues, a message
that was sent afresh, a person who invokes the function by hand.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta

from pydantic import Field

from finops_relay.delivery.ledger import Target
from finops_relay.delivery.ports import Ports
from finops_relay.delivery.receipt import Frozen
from finops_relay.errors import LedgerConflict
from finops_relay.jobs.opening import change_target

LONGEST_S = 900.0
"""Of an invocation (Lambda's own limit)."""
MARGIN_S = 5.0
"""Clocks of two machines may differ; a call that was sent may be carried out a little later."""


class Wrote(Frozen):
    """A write that was verified."""

    before: str
    """Fingerprint of what stood there before."""
    at: datetime


class Lease(Frozen):
    """Who is at a target, and until when at the latest. Kept as ``Target.content``."""

    by: str = ""
    until: datetime | None = None
    wrote: dict[str, Wrote] = Field(default_factory=dict)
    """By what is ours there: our last write."""


class Taken(Exception):
    """Somebody else is at the target.

    Args:
        by: the delivery.
        seconds: until its lease ends at the latest.
    """

    def __init__(self, by: str, seconds: float) -> None:
        super().__init__(by)
        self.by = by
        self.seconds = seconds


@contextmanager
def leased(ports: Ports, target: str, by: str) -> Iterator[None]:
    """Hold *target* for the delivery *by* while something is read and written there. Raises Taken."""
    now = ports.clock.now()
    left = min(LONGEST_S, max(0.0, ports.clock.remaining_s())) + MARGIN_S

    def taken(found: Target) -> Target:
        lease = Lease.model_validate(found.content)
        if lease.by not in {"", by} and lease.until is not None and lease.until > now:
            return found
        mine = lease.model_copy(update={"by": by, "until": now + timedelta(seconds=left)})
        return found.but(content=mine.model_dump(mode="json"))

    lease = Lease.model_validate(change_target(ports, target, taken).content)
    if lease.by != by:
        raise Taken(lease.by, (lease.until - now).total_seconds() if lease.until else 0.0)
    try:
        yield
    finally:
        with suppress(LedgerConflict):  # then somebody else has it already, after its end
            change_target(ports, target, lambda found: _without(found, by))


def _without(found: Target, by: str) -> Target:
    lease = Lease.model_validate(found.content)
    free = lease.model_copy(update={"by": "", "until": None})
    return found.but(content=free.model_dump(mode="json")) if lease.by == by else found


def wrote(ports: Ports, target: str, name: str, before: str) -> None:
    """Remember a verified write of *name* at *target*, where *before* is the fingerprint of what stood there."""

    def now(found: Target) -> Target:
        lease = Lease.model_validate(found.content)
        writes = {**lease.wrote, name: Wrote(before=before, at=ports.clock.now())}
        return found.but(content=lease.model_copy(update={"wrote": writes}).model_dump(mode="json"))

    change_target(ports, target, now)


def last_writes(ports: Ports, target: str) -> dict[str, Wrote]:
    """Return our last write of everything that is ours at *target*."""
    return Lease.model_validate(ports.ledger.target(target).content).wrote

"""Deliver custom properties: the prepared bytes as they are, in one call, unless they are what was sent last."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from typing_extensions import override

from finops_relay.delivery.ledger import Delivery, Target
from finops_relay.delivery.ports import Ports
from finops_relay.delivery.receipt import Outcome
from finops_relay.delivery.telling import announce
from finops_relay.delivery.waits import Waits
from finops_relay.errors import SourceGone
from finops_relay.formats.property_files import rows_of
from finops_relay.jobs.custom_properties.remembered import Work
from finops_relay.jobs.syncing.remembered import owned_of
from finops_relay.jobs.syncing.run import SyncRun
from finops_relay.sync.guard import Facts
from finops_relay.sync.state import State

if TYPE_CHECKING:
    from finops_relay.infracost.client import Infracost  # loads httpx, which the first message does


def deliver(delivery: Delivery, ports: Ports, vendor: Callable[[str], Infracost], waits: Waits) -> Delivery:
    """Take prepared custom properties as far as they go now; return the delivery when it is over or held.

    Args:
        delivery: as the ledger has it.
        ports: everything outside.
        vendor: gives the client for an organization's slug.
        waits: after trouble.

    Raises:
        Wait: the next try comes later; everything is saved.
        LedgerConflict: another run is at it.
    """
    if delivery.stage == "finished" or delivery.outcome is Outcome.HELD:
        return announce(ports, delivery)
    work = Work.model_validate(delivery.work)
    return _Run(ports=ports, vendor=vendor, waits=waits, delivery=delivery, work=work).going_on()


@dataclass(kw_only=True)
class _Run(SyncRun[Work]):
    """One invocation's work on one delivery."""

    first: bool = False
    """Whether nothing of ours was sent before."""

    @override
    def desired(self) -> State:
        return State(items=rows_of(self._body()))

    @override
    def remote(self, applied: State | None) -> State:
        """Return what was last sent: there is no way to read it back."""
        self.first = applied is None
        return applied or State()

    @override
    def compared(self, applied: State | None) -> State | None:
        return None

    @override
    def sure(self, target: Target) -> bool:
        """Return whether the last thing sent was heard of, and had just these bytes: their order is content too."""
        return target.applied_fingerprint == self.delivery.fingerprint and not owned_of(target).pending

    @override
    def facts(self, desired: State) -> Facts:
        return Facts(rows=self.work.rows, noun="keys")

    @override
    def notes(self, desired: State) -> list[str]:
        if not self.first:
            return []
        return ["nothing of ours was sent before, and Infracost cannot be asked: nobody can tell what this replaces"]

    @override
    def write(self, desired: State) -> str:
        return self.vendor(self.work.slug).upload_custom_properties(self.work.slug, self._body())

    def _body(self) -> bytes:
        """Return the prepared bytes. Raises SourceGone, ShortRead."""
        unit = self.delivery.units[0]
        body = b"".join(self.ports.spool.chunks(unit.spool_key))
        if sha256(body).hexdigest() != self.delivery.fingerprint:
            msg = f"the spool's {unit.spool_key} is not what was prepared"
            raise SourceGone(msg)
        return body

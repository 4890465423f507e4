"""Deliver custom properties: the prepared bytes as they are, in one call, unless they are what was sent last."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, ClassVar

from typing_extensions import override

from finops_relay.delivery.ledger import Delivery, Target
from finops_relay.delivery.ports import Ports
from finops_relay.delivery.receipt import Outcome
from finops_relay.delivery.telling import announce
from finops_relay.delivery.waits import Waits
from finops_relay.errors import InputRefused, SourceGone
from finops_relay.formats.property_files import meaning_of
from finops_relay.jobs.custom_properties.remembered import Work
from finops_relay.jobs.syncing.remembered import owned_of
from finops_relay.jobs.syncing.run import SyncRun
from finops_relay.sync.guard import Facts
from finops_relay.sync.state import State

if TYPE_CHECKING:
    from finops_relay.infracost.client import Infracost  # loads httpx, which the first message does

COLUMNS = "columns"
"""The setting that holds the names of the columns, in their order, as JSON."""


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

    blind: ClassVar[bool] = True
    former: State | None = None
    """What was sent last; None before the first time."""

    @override
    def desired(self) -> State:
        columns, rows = meaning_of(self._body())
        return State(items=rows, settings={COLUMNS: json.dumps(columns, ensure_ascii=False)})

    @override
    def remote(self, applied: State | None) -> State:
        """Return what was last sent: there is no way to read it back."""
        self.former = applied
        return applied or State(settings=self.desired().settings)

    @override
    def compared(self, applied: State | None) -> State | None:
        return None

    @override
    def sure(self, target: Target) -> bool:
        """Return whether the last thing sent was heard of, and had just these bytes: their order is content too."""
        return target.applied_fingerprint == self.delivery.fingerprint and not owned_of(target).pending

    @override
    def facts(self, desired: State) -> Facts:
        facts = Facts(rows=self.work.rows, noun="keys")
        if self.former is None:
            return facts
        was, now = _columns(self.former), _columns(desired)
        gone = tuple(column for column in was if column not in now)
        before = {key: _cells(said) for key, said in self.former.items.items()}
        emptied = sum(
            len(cells - _cells(desired.items[key]) - set(gone)) for key, cells in before.items() if key in desired.items
        )
        filled = sum(map(len, before.values()))
        return facts.model_copy(update={"columns_removed": gone, "filled": filled, "emptied": emptied})

    @override
    def taken_over(self, desired: State, remote: State) -> State:
        """Return the file's own rows: nobody can ask what Infracost holds, so the person says that it is just this."""
        return desired

    @override
    def notes(self, desired: State) -> list[str]:
        if self.former is not None:
            return []
        return ["nothing of ours was sent before, and Infracost cannot be asked: nobody can tell what this replaces"]

    @override
    def write(self, desired: State) -> str:
        if not desired.items:  # a line break in the header makes two lines of it, and no row
            fix = "send a header and rows: a file without rows empties what Infracost holds"
            raise InputRefused("there is no row", file=self.delivery.source.key, fix=fix)
        return self.vendor(self.work.slug).upload_custom_properties(self.work.slug, self._body())

    def _body(self) -> bytes:
        """Return the prepared bytes. Raises SourceGone, ShortRead."""
        unit = self.delivery.units[0]
        body = b"".join(self.ports.spool.chunks(unit.spool_key))
        if sha256(body).hexdigest() != self.delivery.fingerprint:
            msg = f"the spool's {unit.spool_key} is not what was prepared"
            raise SourceGone(msg)
        return body


def _columns(state: State) -> list[str]:
    """Return the names of the columns beside the key."""
    found: list[str] = json.loads(str(state.settings.get(COLUMNS) or "[]"))
    return found[1:]


def _cells(said: str) -> set[str]:
    """Return the columns in which a key has something."""
    return set(json.loads(said))

"""Deliver the allowed values of a tag: one read, one PATCH however many they are, one read to verify."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from finops_relay.delivery.ledger import Delivery
from finops_relay.delivery.ports import Ports
from finops_relay.delivery.receipt import Outcome
from finops_relay.delivery.telling import announce
from finops_relay.delivery.waits import Waits
from finops_relay.errors import SourceGone
from finops_relay.infracost.allowed_values import beside, lost_beside
from finops_relay.infracost.checks import SUGGESTED_VALUES
from finops_relay.infracost.models import HeldTag, TaggingPolicy, ValueType
from finops_relay.jobs.syncing.lease import last_writes, wrote
from finops_relay.jobs.syncing.run import SyncRun
from finops_relay.jobs.tagging_policies.remembered import Work
from finops_relay.sync.guard import Facts
from finops_relay.sync.state import Setting, State

if TYPE_CHECKING:
    from finops_relay.infracost.client import Infracost  # loads httpx, which the first message does

STALE_FOR, STALE_S = timedelta(minutes=10), 30.0
"""How long a read may show what stood there before a verified write, and the wait before another look, in seconds."""
SETTINGS = ("value_type", "mandatory", "message")
"""Attributes of a tag that may be ours beside its values."""


def deliver(delivery: Delivery, ports: Ports, vendor: Callable[[str], Infracost], waits: Waits) -> Delivery:
    """Take prepared allowed values as far as they go now; return the delivery when it is over or held.

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

    policy: TaggingPolicy | None = field(default=None, repr=False)
    """As it was read last."""

    @override
    def desired(self) -> State:
        state = State.model_validate_json(self._body())
        if state.fingerprint != self.delivery.fingerprint:
            msg = f"the spool's {self.delivery.units[0].spool_key} is not what was prepared"
            raise SourceGone(msg)
        if state.settings.get("message") == "":  # it takes the message away
            state = state.model_copy(update={"settings": {**state.settings, "message": None}})
        there = self._policy().tags.get(self.work.key)
        if there is None and "mandatory" not in state.settings:  # what a new tag is made with is shown in the plan
            return state.model_copy(update={"settings": {**state.settings, "mandatory": True}})
        return state

    @override
    def remote(self, applied: State | None) -> State:
        tag = self._policy().tags.get(self.work.key)
        if tag is None:
            return State()
        settings: dict[str, Setting] = {name: getattr(tag, name) for name in SETTINGS}
        settings["message"] = settings["message"] or None
        return State(items=dict.fromkeys(tag.allowed_values or (), ""), settings=settings)

    @override
    def facts(self, desired: State) -> Facts:
        policy = self._policy()
        tag, new = policy.tags.get(self.work.key), ""
        if tag is None:
            keys = ", ".join(sorted(policy.tags)[:20]) or "none"
            new = f"the policy has no tag {self.work.key!r} (it has {keys}): a misspelt key would add one"
        elif tag.value_type != ValueType.LIST:
            new = f"tag {self.work.key!r} is of type {tag.value_type}, and would be made a LIST"
        return Facts(rows=self.work.rows, new="" if self.work.adopt else new)

    @override
    def notes(self, desired: State) -> list[str]:
        tag = self._policy().tags.get(self.work.key)
        message = desired.settings.get("message", tag.message if tag else None)
        if len(desired.items) <= SUGGESTED_VALUES or message:
            return []
        said = (
            f"the list has {len(desired.items):,} values and no message: beyond {SUGGESTED_VALUES} Infracost suggests"
            " none and shows the first five only; set a message that says where the values are found"
        )
        return [said]

    @override
    def write(self, desired: State) -> str:
        settings = {name: value for name, value in desired.settings.items() if name != "value_type"}
        done = self.vendor(self.work.slug).set_allowed_values(
            self.work.slug,
            self.work.policy_id,
            self.work.key,
            desired.items,
            adopt=True,
            settings=settings,
            before=self._policy(),
        )
        before = self._policy().tags.get(self.work.key)
        wrote(self.ports, self.delivery.target, self.work.key, _values(before))
        return done.request_id

    @override
    def beside(self) -> dict[str, Any]:
        ours = State.model_validate_json(self._body()).settings
        return beside(self._policy(), self.work.key, ours)

    @override
    def lost_beside(self, kept: Mapping[str, Any]) -> list[str]:
        return lost_beside(kept, self._policy(), self.work.key) if kept else []

    def _body(self) -> bytes:
        """Return the prepared list. Raises SourceGone, ShortRead."""
        return b"".join(self.ports.spool.chunks(self.delivery.units[0].spool_key))

    def _policy(self) -> TaggingPolicy:
        """Return the policy as this run has read it. Raises VendorError."""
        if self.policy is None:
            self.policy = self.vendor(self.work.slug).whole_tagging_policy(self.work.slug, self.work.policy_id)
            self._wait_for_others(self.policy)
        return self.policy

    def _wait_for_others(self, policy: TaggingPolicy) -> None:
        """Wait while another tag that we have just written is shown as it was before: written back, it would be undone.

        Raises Wait.
        """
        for key, write in last_writes(self.ports, self.delivery.target).items():
            late = self.ports.clock.age(write.at) < STALE_FOR
            if key != self.work.key and late and _values(policy.tags.get(key)) == write.before:
                raise self.wait(STALE_S, f"Infracost still shows tag {key!r} as it was before our last write")


def _values(tag: HeldTag | None) -> str:
    """Return the fingerprint of the values that a tag allows."""
    return State(items=dict.fromkeys(tag.allowed_values or (), "") if tag else {}).fingerprint

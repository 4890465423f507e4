"""What syncs remember: how far a delivery is, and what of a target we own and have last applied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from finops_relay.delivery.identity import digest
from finops_relay.delivery.ledger import Delivery, Target
from finops_relay.delivery.ports import Ports
from finops_relay.delivery.receipt import Frozen
from finops_relay.errors import SourceGone
from finops_relay.jobs.opening import change_target
from finops_relay.jobs.steps import StepWork
from finops_relay.sync.guard import Guards
from finops_relay.sync.state import State


class SyncWork(StepWork):
    """How far a delivery is. Kept as ``Delivery.work``; a kind adds what only it remembers."""

    slug: str
    """Of the organization at Infracost."""
    owned: str
    """The name of the target that remembers what was last applied."""
    rows: int = 0
    """That the source has."""
    guards: Guards = Guards()
    again: str = ""
    """The command that reads the source once more; empty for what was dropped as a file."""
    mends: str = ""
    """The delivery whose rejected rows this one mends."""
    planned: str = ""
    """Fingerprint of what the vendor held when the plan was made that a person is asked about."""
    asked: tuple[str, ...] = ()
    """The guards that the person was told of: a release passes no other."""
    unkept: int = 0
    """Writes that the vendor has accepted and not kept."""


class Owned(Frozen):
    """What we own at the vendor. Kept as ``Target.content``."""

    state: str = ""
    """Key in the drops bucket of what was last applied."""
    rows: int = 0
    """That its source had."""
    pending: str = ""
    """Key of what was being applied when nothing more was heard of it; empty once that is known."""
    former: tuple[str, ...] = ()
    """Keys that nothing points to any more, but for this: whoever was to remove them may have died."""
    held: str = ""
    """The delivery that a person is asked about."""
    begun: str = ""
    begun_order: str = ""
    """The newest run of a source that was begun: an older one that still waits for its source ends as superseded."""


def owned_of(target: Target) -> Owned:
    """Return what a target remembers."""
    return Owned.model_validate(target.content)


def change_owned(ports: Ports, name: str, **changes: object) -> Target:
    """Change what a target remembers, and nothing else of it."""
    return change_target(
        ports,
        name,
        lambda target: target.but(content=owned_of(target).model_copy(update=changes).model_dump(mode="json")),
    )


def state_key(delivery: Delivery, owned: str) -> str:
    """Return where that what a delivery applies is kept."""
    return f"state/{delivery.kind}/{digest(owned)[:32]}/{delivery.id}.json"


def plan_key(delivery: Delivery) -> str:
    """Return where the whole plan of a delivery stands, if its receipt cannot hold it."""
    return f"state/{delivery.kind}/plans/{delivery.id}.json"


class Kept(State):
    """A state as it is kept."""

    beside: dict[str, Any] = Field(default_factory=dict)
    """What stood beside ours at the vendor before it was written."""


def kept_state(ports: Ports, bucket: str, key: str) -> Kept:
    """Return a state that was kept in the drops bucket. Raises SourceGone, SourceForbidden, ShortRead."""
    with ports.drops.open(ports.drops.pin(bucket, key)) as stream:
        text = stream.read()
    try:
        return Kept.model_validate_json(text)
    except ValueError:
        msg = f"{key} is not what was kept there"
        raise SourceGone(msg) from None


def keep_state(ports: Ports, key: str, state: State, beside: Mapping[str, Any]) -> None:
    """Keep a state in the drops bucket, with what stands beside it."""
    kept = Kept(items=state.items, settings=state.settings, beside=dict(beside))
    ports.drops.put(key, kept.model_dump_json().encode(), "application/json")

"""A person's decision about a held delivery: one dropped file, ``incoming/release/{delivery id}.json``."""

from __future__ import annotations

import json
import re

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from finops_relay.delivery.commands import DECISIONS
from finops_relay.delivery.identity import ObjectVersion, second_group
from finops_relay.delivery.ledger import Delivery
from finops_relay.delivery.ports import Ports, Queue
from finops_relay.delivery.receipt import Outcome
from finops_relay.delivery.telling import conclude, write_receipt
from finops_relay.delivery.waits import Waits
from finops_relay.errors import InputRefused
from finops_relay.jobs.billing.remembered import KIND as BILLING
from finops_relay.jobs.custom_properties.remembered import KIND as CUSTOM_PROPERTIES
from finops_relay.jobs.opening import Opened, heard, opened, read_to_its_end
from finops_relay.jobs.tagging_policies.remembered import KIND as TAGGING_POLICIES
from finops_relay.jobs.telemetry.remembered import KIND as TELEMETRY

KIND = "release"
SYNCS = frozenset({TAGGING_POLICIES, CUSTOM_PROPERTIES})
"""Kinds that Infracost's function delivers. One that is held has no turn, and nothing waits for it: it goes on in the
group that it was in."""
RELEASABLE = frozenset({BILLING, TELEMETRY}) | SYNCS
"""Kinds of deliveries that go on when they are released."""
MAX_RELEASE_BYTES = 10_000
_KEY = re.compile(r"incoming/release/([0-9a-f]{64})\.json")
_FIX = 'write {"decision": "send"}, {"decision": "drop"} or {"decision": "mark as arrived"}'


class Decision(BaseModel):
    """What the file says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    decision: str

    @field_validator("decision")
    @classmethod
    def _known(cls, said: str) -> str:
        plain = re.sub(r"[\s_-]+", " ", said).strip().lower()
        if plain not in DECISIONS:
            msg = f"is none of {', '.join(DECISIONS)}"
            raise ValueError(msg)
        return DECISIONS[plain]


def release(source: ObjectVersion, ports: Ports, waits: Waits, infracost: Queue) -> Delivery | None:
    """Take one dropped decision; return its own delivery, None for a folder made in a console.

    Args:
        source: the dropped file.
        ports: everything outside; its queue is that of CloudZero's function.
        waits: after trouble.
        infracost: the queue of Infracost's function.

    Raises:
        Wait: the file cannot be read now.
        LedgerConflict: another run is at it.
    """
    if source.key.endswith("/"):
        return None
    found = opened(ports, source, kind=KIND)
    if not isinstance(found, Opened):
        return found
    run = found.delivery
    with heard(ports, run.id, waits):
        return read_to_its_end(ports, source, waits, lambda: run, lambda: _taken(source, ports, run, infracost))


def _taken(source: ObjectVersion, ports: Ports, run: Delivery, infracost: Queue) -> Delivery:
    """Let the held delivery go on, and end the file's own. Raises InputRefused and what reading raises."""
    held = _released(source, ports, run, infracost)
    reason = f"delivery {held.id} goes on: {held.work['decision'] or 'it is held again since'}; see its own receipt"
    return conclude(ports, run.but(target=held.target).ended(Outcome.DELIVERED, ports.clock.now(), reason))


def _released(source: ObjectVersion, ports: Ports, run: Delivery, infracost: Queue) -> Delivery:
    """Let the delivery that the file names go on as it says. Raises InputRefused and what reading raises."""
    named = _KEY.fullmatch(source.key)
    if named is None:
        fix = "name it incoming/release/{delivery id}.json, as the receipt of the held delivery has it"
        raise InputRefused("the name of the file is no delivery's id", file=source.key, fix=fix)
    decision = _decision(source, ports)
    held = ports.ledger.delivery(named[1])
    if held is None:
        fix = "take the id from the receipt of the held delivery"
        raise InputRefused("there is no delivery of this id", file=source.key, value=named[1], fix=fix)
    obeyed = held.work.get("decisions", [])
    if run.id in obeyed:  # it goes on already, and perhaps was not told to; or was held once more since
        return _sent_on(ports, held, run, infracost)
    if held.outcome is not Outcome.HELD:
        reason = f"the delivery is not held: it is {held.outcome.value}"
        raise InputRefused(reason, file=source.key, fix="see its receipt; nothing is to be decided about it")
    if held.kind not in RELEASABLE or "step" not in held.work:
        fix = held.next_command or "see its receipt"
        raise InputRefused("this delivery does not go on by a decision", file=source.key, value=held.reason, fix=fix)
    decided = {"decision": decision, "decided_by": run.id, "decisions": [*obeyed, run.id], "step": "decided"}
    goes_on = held.but(
        outcome=Outcome.PENDING,
        stage="queued",
        reason=f"released by {source.key}: {decision}",
        next_command="",
        work=held.work | decided,
        attempts=0,
    )
    saved = ports.ledger.save(goes_on.at("released", ports.clock.now()))
    write_receipt(ports, saved)
    return _sent_on(ports, saved, run, infracost)


def _sent_on(ports: Ports, held: Delivery, run: Delivery, infracost: Queue) -> Delivery:
    """Queue a released delivery past those that wait for it."""
    if held.stage == "finished":
        return held
    if held.kind in SYNCS:
        infracost.send(held, nonce=f"{held.id}/{run.id}")
    else:
        ports.queue.send(held.but(group=second_group(held.target)), nonce=f"{held.id}/{run.id}")
    return held


def _decision(source: ObjectVersion, ports: Ports) -> str:
    """Return what the file decides. Raises InputRefused and what reading raises."""
    with ports.drops.open(source) as stream:
        text = stream.read(MAX_RELEASE_BYTES + 1)
    if len(text) > MAX_RELEASE_BYTES:
        raise InputRefused("the file is too large for a decision", file=source.key, fix=_FIX)
    try:
        return Decision.model_validate(json.loads(text.decode("utf-8-sig"))).decision
    except ValidationError as error:
        problem = error.errors()[0]
        at = ".".join(map(str, problem["loc"])) or "the file"
        reason = f"{at}: {problem['msg'].removeprefix('Value error, ')}"
        shown = str(problem.get("input", ""))
        raise InputRefused(reason, file=source.key, value=shown[:120], fix=_FIX) from None
    except (ValueError, RecursionError):
        raise InputRefused("the file is no JSON", file=source.key, fix=_FIX) from None

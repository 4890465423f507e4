"""Begin a delivery from an S3 event, once: duplicates, events out of order, retries and poison are settled here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from finops_relay.delivery.identity import ObjectVersion, delivery_id, order_of
from finops_relay.delivery.ledger import MAX_ATTEMPTS, MAX_REASON, Delivery, Target, clip
from finops_relay.delivery.ports import Ports
from finops_relay.delivery.receipt import Outcome, Source
from finops_relay.delivery.telling import announce, conclude, quarantine_delivery, write_receipt
from finops_relay.delivery.waits import Waits
from finops_relay.errors import (
    InputRefused,
    LedgerConflict,
    RelayError,
    ShortRead,
    SourceChanged,
    SourceForbidden,
    SourceGone,
    Wait,
)

TIME_LEFT_S = 20.0
"""Kept to write the receipt of a file that does not fit into one invocation."""
MAX_WAITS = 100
"""Waits in a row for something that is ours or AWS's to mend, about a day; then the delivery is quarantined."""


@dataclass(frozen=True)
class Opened:
    """A delivery that has work to do now."""

    delivery: Delivery


def opened(
    ports: Ports, source: ObjectVersion, *, kind: str, target: str = "", dry_run: bool = False
) -> Opened | Delivery:
    """Begin or resume the delivery of *source*.

    Returns:
        Opened when there is work to do; else the delivery as it ended (a duplicate, a stale event, quarantine).
    """
    key = delivery_id(source)
    known = ports.ledger.delivery(key)
    if known is not None and known.stage == "finished":
        return announce(ports, known)
    if known is not None and known.stage in {"queued", "delivering", "naming"}:
        return known
    if known is not None and known.stage == "prepared":
        return Opened(known)
    now = ports.clock.now()
    delivery = known or Delivery(
        id=key,
        kind=kind,
        target=target,
        order=order_of(source),
        dry_run=dry_run,
        source=Source(
            bucket=source.bucket,
            key=source.key,
            version=source.version_id,
            etag=source.etag,
            sequencer=source.sequencer,
            bytes=source.size_bytes,
        ),
        times={"received": now},
    )
    if not ports.ledger.claim(source):
        reason = "a newer version of the same key was seen before this event"
        return conclude(ports, delivery.ended(Outcome.STALE, now, reason))
    if delivery.attempts >= MAX_ATTEMPTS:
        reason = f"{delivery.attempts} tries ended without a word in stage {delivery.stage!r}"
        return quarantine_delivery(ports, delivery, reason, source)
    return Opened(ports.ledger.save(delivery.but(attempts=delivery.attempts + 1)))


def waiting(ports: Ports, delivery: Delivery, seconds: float, why: str) -> Wait:
    """Save that *delivery* waits, say so in its receipt, and return the Wait to raise."""
    write_receipt(
        ports,
        ports.ledger.save(delivery.but(attempts=0, waits=delivery.waits + 1, reason=clip(f"waits: {why}", MAX_REASON))),
    )
    return Wait(seconds, why)


@contextmanager
def heard(ports: Ports, delivery_id: str, waits: Waits) -> Iterator[None]:
    """Tell a try that failed from one that ended without a word: the first waits, only the second counts as poison.

    Trouble of AWS itself or a fault of ours makes the delivery wait, up to MAX_WAITS times in a row; after that, tries
    count like crashes, and the delivery ends in quarantine.

    Raises:
        Wait: instead of anything that is not expected here.
    """
    try:
        yield
    except (Wait, LedgerConflict, MemoryError):  # out of memory is what a poison pill does
        raise
    except Exception as error:
        known = ports.ledger.delivery(delivery_id)
        if known is None or known.stage == "finished" or known.waits >= MAX_WAITS:
            raise
        # Only the kind of a stranger's error goes into the receipt: its words may be anything; the log has them.
        why = (
            str(error)
            if isinstance(error, RelayError)
            else f"trouble on our side ({type(error).__name__}), see the log"
        )
        raise waiting(ports, known, waits.after(known.waits), why) from error


def refuse_without_time(ports: Ports, file: str, what: str, smaller: str = "drop smaller files") -> None:
    """Refuse a file that does not fit into one invocation, while there is time to say so. Raises InputRefused.

    Args:
        ports: everything outside.
        file: that is being read.
        what: is read, as a person would call it.
        smaller: what a person can do about the file.
    """
    if ports.clock.remaining_s() < TIME_LEFT_S:
        fix = f"raise the stack's PrepareMemoryMb, which also gives more CPU, or {smaller}"
        raise InputRefused(f"{what} cannot be read within one invocation", file=file, fix=fix)


def read_to_its_end(
    ports: Ports, source: ObjectVersion, waits: Waits, known: Callable[[], Delivery], story: Callable[[], Delivery]
) -> Delivery:
    """Run the *story* of a dropped object, or end its delivery as the trouble with the object has it.

    Args:
        ports: everything outside.
        source: what was dropped.
        waits: after trouble.
        known: gives the delivery as it was last saved, with what the story has found out.
        story: reads the object.

    Raises:
        Wait: the object cannot be read now.
    """
    try:
        return story()
    except InputRefused as error:
        return conclude(ports, rejected(ports, known(), str(error)))
    except SourceChanged as error:
        return conclude(ports, known().ended(Outcome.SUPERSEDED, ports.clock.now(), str(error)))
    except SourceGone as error:
        return quarantine_delivery(ports, known(), str(error), source)
    except (SourceForbidden, ShortRead) as error:
        delivery = known()
        if delivery.waits >= MAX_WAITS:
            return quarantine_delivery(ports, delivery, str(error), source)
        raise waiting(ports, delivery, waits.after(delivery.waits), str(error)) from error


def rejected(ports: Ports, delivery: Delivery, reason: str, next_command: str = "") -> Delivery:
    """Return a delivery that ends because of what was dropped; of a dry run, that is its verdict."""
    if delivery.dry_run:
        delivery = delivery.but(plan={"verdict": "would_be_rejected", "why": reason, "steps": []})
    return delivery.ended(Outcome.REJECTED, ports.clock.now(), reason, next_command)


def change_target(ports: Ports, name: str, change: Callable[[Target], Target]) -> Target:
    """Read, change and save a target; start again when somebody else saved it in between."""
    for attempt in range(10):
        before = ports.ledger.target(name)
        after = change(before)
        if after == before:
            return before
        try:
            return ports.ledger.save_target(after)
        except LedgerConflict:
            if attempt == 9:  # noqa: PLR2004 -- the last of the ten
                raise
    raise AssertionError

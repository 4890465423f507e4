"""Tell the world how a delivery stands: receipt, bus, counters. The only place that announces an outcome."""

from __future__ import annotations

import json

from finops_relay.delivery import commands
from finops_relay.delivery.identity import ObjectVersion
from finops_relay.delivery.ledger import Delivery
from finops_relay.delivery.ports import Ports
from finops_relay.delivery.receipt import Outcome
from finops_relay.errors import SourceForbidden, SourceGone

GOOD = frozenset({Outcome.DELIVERED, Outcome.UNCHANGED, Outcome.PARTLY_DELIVERED})
"""What tells the alarm for "no success" that deliveries get through."""

COUNTERS = {
    Outcome.DELIVERED: "DeliveryDelivered",
    Outcome.UNCHANGED: "DeliveryUnchanged",
    Outcome.PARTLY_DELIVERED: "DeliveryPartlyDelivered",
    Outcome.REJECTED: "DeliveryRejected",
    Outcome.HELD: "DeliveryHeld",
    Outcome.SUPERSEDED: "DeliverySuperseded",
    Outcome.STALE: "DeliveryStale",
    Outcome.FAILED: "DeliveryFailed",
}


def write_receipt(ports: Ports, delivery: Delivery) -> str:
    """Write the receipt as things stand; return its ``s3://`` address."""
    return ports.drops.put(delivery.receipt_key, delivery.receipt().as_json(), "application/json")


def conclude(ports: Ports, delivery: Delivery) -> Delivery:
    """Save an ended or held delivery, write its last receipt, tell the bus; return it as saved.

    Each part may be repeated after a crash: the ledger knows whether the announcement was finished.
    """
    return announce(ports, ports.ledger.save(delivery))


def announce(ports: Ports, delivery: Delivery) -> Delivery:
    """Announce an ended or held delivery once more unless that was finished before."""
    if delivery.announced:
        return delivery
    if delivery.outcome.final:
        for unit in delivery.units:
            if unit.spool_key:
                ports.spool.release(unit.spool_key)
    uri = write_receipt(ports, delivery)
    ports.bus.announce(delivery, uri)
    ports.metrics.count(COUNTERS[delivery.outcome])
    if delivery.outcome in GOOD:
        ports.metrics.count("DeliverySucceeded")
    return ports.ledger.save(delivery.but(announced=True))


def quarantine_delivery(ports: Ports, delivery: Delivery, reason: str, *versions: ObjectVersion) -> Delivery:
    """Put what a delivery that cannot go on is made of into quarantine, bytes untouched, and end it as failed.

    Args:
        ports: everything outside.
        delivery: the one that ends.
        reason: why, for the listing and the receipt.
        versions: what was dropped, or what was prepared of it; whichever this function may read.
    """
    redo = commands.drop_again(delivery.source)
    copies = []
    for version in versions:
        try:
            copies.append(ports.drops.quarantine(delivery.id, version))
        except (SourceGone, SourceForbidden) as error:
            copies.append(f"no copy could be made: {error}")
    source = delivery.source
    listing = {
        "delivery": delivery.id,
        "reason": reason,
        "source": f"s3://{source.bucket}/{source.key}",
        "version": source.version,
        "copies": copies,
        "next_command": redo,
    }
    ports.drops.put(f"quarantine/{delivery.id}/reason.json", json.dumps(listing, indent=2).encode(), "application/json")
    ports.metrics.count("Quarantined")
    return conclude(ports, delivery.ended(Outcome.FAILED, ports.clock.now(), reason, redo))


def quarantine_message(ports: Ports, message_id: str, body: str, reason: str) -> None:
    """Put a queue message that nobody can read into quarantine, bytes untouched."""
    ports.drops.put(f"quarantine/{message_id}/message", body.encode("utf-8", "surrogatepass"), "text/plain")
    listing = {"reason": reason, "next_command": "see docs/runbook.md, 'Something is in quarantine'"}
    ports.drops.put(f"quarantine/{message_id}/reason.json", json.dumps(listing, indent=2).encode(), "application/json")
    ports.metrics.count("Quarantined")

"""Hand a prepared delivery over to the function that delivers it, and take back what it wants named."""

from __future__ import annotations

from collections.abc import Callable

from finops_relay.delivery.identity import second_group
from finops_relay.delivery.ledger import Delivery
from finops_relay.delivery.ports import Ports
from finops_relay.delivery.telling import write_receipt
from finops_relay.delivery.waits import Waits
from finops_relay.errors import LedgerConflict
from finops_relay.jobs.opening import heard
from finops_relay.jobs.turns import Waiting, behind, enter


def queued(ports: Ports, delivery: Delivery) -> Delivery:
    """Queue a delivery, once its receipt says that it waits."""
    write_receipt(ports, delivery)
    ports.queue.send(delivery, nonce=delivery.id)
    try:
        return ports.ledger.save(delivery.but(stage="queued").at("queued", ports.clock.now()))
    except LedgerConflict:  # the vendor's function was faster, and has saved what it did
        return delivery


def hand_over(ports: Ports, delivery: Delivery, entry: Waiting) -> Delivery:
    """Queue a prepared delivery behind the others of its target; what is further already stays as it is.

    Args:
        ports: everything outside.
        delivery: perhaps prepared.
        entry: what those beside it are to know of it.
    """
    if delivery.stage != "prepared":
        return delivery
    if not delivery.dry_run:
        held = enter(ports, delivery, entry)
        delivery = delivery.but(reason=behind(held) if held is not None else "")
    return queued(ports, delivery)


def named(  # noqa: PLR0913, PLR0917 -- a delivery, and what is different for its kind
    ports: Ports,
    waits: Waits,
    delivery_id: str,
    kind: str,
    name: Callable[[Delivery], Delivery],
    count: Callable[[Delivery], int],
) -> Delivery | None:
    """Have what the vendor refused of a delivery named, and send it back to where it goes on.

    Args:
        ports: everything outside.
        waits: after trouble.
        delivery_id: of the delivery.
        kind: that it must be of.
        name: writes what was refused into the file of rejected rows; returns the delivery with that done.
        count: of what is named.

    Returns:
        The delivery; None when there is none of this id.

    Raises:
        Wait: the source cannot be read now.
        LedgerConflict: another run is at it.
    """
    delivery = ports.ledger.delivery(delivery_id)
    if delivery is None or delivery.kind != kind:
        return None
    with heard(ports, delivery.id, waits):
        if delivery.stage == "naming":
            delivery = ports.ledger.save(name(delivery).but(stage="queued", attempts=0))
        if delivery.stage == "queued" and count(delivery):
            again = delivery.but(group=second_group(delivery.target))
            ports.queue.send(again, nonce=f"{delivery.id}/named/{count(delivery)}")
    return delivery

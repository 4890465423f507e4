"""Takes prepared deliveries to Infracost Cloud, one remembered step at a time."""

from __future__ import annotations

from typing import Any

from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
from finops_relay.aws.batch import Message
from finops_relay.aws.events import NotUnderstoodError, pointer
from finops_relay.aws.wiring import Context, relay
from finops_relay.delivery.ledger import Delivery
from finops_relay.delivery.ports import Ports
from finops_relay.delivery.waits import Looks
from finops_relay.jobs.custom_properties.deliver import deliver as deliver_properties
from finops_relay.jobs.custom_properties.remembered import KIND as CUSTOM_PROPERTIES
from finops_relay.jobs.price_books.deliver import deliver as deliver_book
from finops_relay.jobs.price_books.remembered import KIND as PRICE_BOOKS
from finops_relay.jobs.tagging_policies.deliver import deliver as deliver_values
from finops_relay.jobs.tagging_policies.remembered import KIND as TAGGING_POLICIES


def lambda_handler(event: dict[str, Any], context: Context) -> PartialItemFailureResponse:
    """Go on with the deliveries that an SQS FIFO event points to."""
    return relay().handle(event, context, go_on)


def go_on(message: Message, ports: Ports) -> None:
    """Take the delivery that *message* points to as far as it goes now. Raises Wait when it has to wait."""
    delivery = _delivery(message, ports)
    settings, waits = relay().settings, relay().waits

    if delivery.kind == PRICE_BOOKS:
        polling = Looks(settings.poll_first_s, settings.poll_cap_s, settings.poll_end_s)
        deliver_book(delivery, ports, lambda slug: relay().infracost(slug, ports.clock), waits, polling)
    elif delivery.kind == TAGGING_POLICIES:
        deliver_values(delivery, ports, lambda slug: relay().infracost(slug, ports.clock), waits)
    elif delivery.kind == CUSTOM_PROPERTIES:
        deliver_properties(delivery, ports, lambda slug: relay().infracost(slug, ports.clock), waits)
    else:
        msg = f"no job here delivers {delivery.kind!r}"
        raise NotUnderstoodError(msg)


def _delivery(message: Message, ports: Ports) -> Delivery:
    found = ports.ledger.delivery(pointer(message.body).delivery)
    if found is None:
        msg = "the message points to a delivery that the ledger does not know"
        raise NotUnderstoodError(msg)
    return found

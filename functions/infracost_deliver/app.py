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
from finops_relay.jobs.price_books.deliver import deliver
from finops_relay.jobs.price_books.remembered import KIND as PRICE_BOOKS


def lambda_handler(event: dict[str, Any], context: Context) -> PartialItemFailureResponse:
    """Go on with the deliveries that an SQS FIFO event points to."""
    return relay().handle(event, context, go_on)


def go_on(message: Message, ports: Ports) -> None:
    """Take the delivery that *message* points to as far as it goes now. Raises Wait when it has to wait."""
    delivery = _delivery(message, ports)
    if delivery.kind != PRICE_BOOKS:
        msg = f"no job here delivers {delivery.kind!r}"
        raise NotUnderstoodError(msg)
    settings = relay().settings
    polling = Looks(settings.poll_first_s, settings.poll_cap_s, settings.poll_end_s)
    deliver(delivery, ports, lambda slug: relay().infracost(slug, ports.clock), relay().waits, polling)


def _delivery(message: Message, ports: Ports) -> Delivery:
    found = ports.ledger.delivery(pointer(message.body).delivery)
    if found is None:
        msg = "the message points to a delivery that the ledger does not know"
        raise NotUnderstoodError(msg)
    return found

"""Takes prepared deliveries to CloudZero, one request at a time for each connection."""

from __future__ import annotations

from typing import Any

from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
from finops_relay.aws.batch import Message
from finops_relay.aws.events import NotUnderstoodError, pointer
from finops_relay.aws.wiring import Context, relay
from finops_relay.delivery.ledger import Delivery
from finops_relay.delivery.ports import Ports
from finops_relay.delivery.waits import Looks
from finops_relay.jobs.billing import deliver as billing
from finops_relay.jobs.billing.remembered import KIND as BILLING
from finops_relay.jobs.contract import KIND as CONTRACT
from finops_relay.jobs.contract import Tenant, find_out
from finops_relay.jobs.telemetry import deliver as telemetry
from finops_relay.jobs.telemetry.remembered import KIND as TELEMETRY


def lambda_handler(event: dict[str, Any], context: Context) -> PartialItemFailureResponse:
    """Go on with the deliveries that an SQS FIFO event points to."""
    return relay().handle(event, context, go_on)


def go_on(message: Message, ports: Ports) -> None:
    """Take what *message* points to as far as it goes now. Raises Wait when it has to wait."""
    settings = relay().settings
    told = pointer(message.body)
    if told.kind == CONTRACT:
        tenant = Tenant(settings.cloudzero_api_url, settings.cloudzero_contract)
        find_out(ports, tenant, lambda: relay().cloudzero(ports.clock))
        return
    delivery = ports.ledger.delivery(told.delivery)
    if delivery is not None and delivery.kind == BILLING:
        deliver_billing(delivery, ports)
    elif delivery is not None and delivery.kind == TELEMETRY:
        deliver_telemetry(delivery, ports)
    else:
        msg = "the message points to nothing that is delivered here"
        raise NotUnderstoodError(msg)


def deliver_billing(delivery: Delivery, ports: Ports) -> None:
    """Go on with a billing drop."""
    settings = relay().settings
    billing.deliver(
        delivery,
        ports,
        lambda: relay().cloudzero(ports.clock),
        relay().prepare_queue,
        relay().waits,
        Looks(settings.poll_first_s, settings.poll_cap_s, settings.read_back_end_s),
        relay().pool,
    )


def deliver_telemetry(delivery: Delivery, ports: Ports) -> None:
    """Go on with telemetry."""
    settings = relay().settings
    telemetry.deliver(
        delivery,
        ports,
        lambda: relay().cloudzero(ports.clock),
        relay().telemetry_prepare_queue,
        relay().waits,
        Looks(settings.poll_first_s, settings.poll_cap_s, settings.read_back_end_s),
    )

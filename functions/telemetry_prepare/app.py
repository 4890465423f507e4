"""Reads and checks records of telemetry; on a schedule, counts those that applications have sent."""

from __future__ import annotations

from typing import Any

from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
from finops_relay.aws.batch import Message
from finops_relay.aws.events import Sweep, asked_again, drops_and_sweeps
from finops_relay.aws.wiring import Context, relay
from finops_relay.delivery.ports import Ports
from finops_relay.jobs.contract import Tenant
from finops_relay.jobs.telemetry.merge import merge
from finops_relay.jobs.telemetry.prepare import name_rejected, prepare

TICK_LASTS_S = 43_200.0
"""After that a tick of the schedule that has failed is let go: newer ones do its work."""


def lambda_handler(event: dict[str, Any], context: Context) -> PartialItemFailureResponse:
    """Prepare what the S3 notifications of an SQS event tell of, or what is in the inbox."""
    return relay().handle(event, context, on_message)


def on_message(message: Message, ports: Ports) -> None:
    """Prepare each object that *message* names, count what applications sent, or name what the vendor refused."""
    settings, waits = relay().settings, relay().waits
    pointer = asked_again(message.body)
    if pointer is not None:
        name_rejected(pointer.delivery, ports, waits)
        return
    tenant = Tenant(settings.cloudzero_api_url, settings.cloudzero_contract)
    for found in drops_and_sweeps(message.body):
        if not isinstance(found, Sweep):
            prepare(found, ports, settings.defaults, waits, tenant)
        elif message.age_s < TICK_LASTS_S:
            merge(ports, settings.drops_bucket, tenant)

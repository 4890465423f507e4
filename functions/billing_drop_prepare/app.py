"""Reads and checks dropped costs, and writes bodies of billing drops; on a schedule, looks for unfinished folders."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
from finops_relay.aws.batch import Message
from finops_relay.aws.events import Sweep, asked_again, drops_and_sweeps
from finops_relay.aws.wiring import Context, relay
from finops_relay.delivery.ports import Ports
from finops_relay.jobs.billing.drop_path import FOLDERS
from finops_relay.jobs.billing.prepare import name_rejected, prepare
from finops_relay.jobs.billing.remembered import KIND
from finops_relay.jobs.contract import Tenant
from finops_relay.jobs.folders import sweep


def lambda_handler(event: dict[str, Any], context: Context) -> PartialItemFailureResponse:
    """Prepare what the S3 notifications of an SQS event tell of."""
    return relay().handle(event, context, on_message)


def on_message(message: Message, ports: Ports) -> None:
    """Prepare each object that *message* names, sweep, or name the rows that the vendor refused."""
    settings, waits = relay().settings, relay().waits
    pointer = asked_again(message.body)
    if pointer is not None:
        name_rejected(pointer.delivery, ports, waits)
        return
    tenant = Tenant(settings.cloudzero_api_url, settings.cloudzero_contract)
    for found in drops_and_sweeps(message.body):
        if isinstance(found, Sweep):
            sweep(ports, settings.drops_bucket, timedelta(seconds=settings.folder_wait_s), KIND, FOLDERS)
        else:
            prepare(found, ports, settings.defaults, waits, tenant)

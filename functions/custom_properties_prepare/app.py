"""Reads custom properties from files and sources of truth; on a schedule, runs those that are due."""

from __future__ import annotations

from typing import Any

from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
from finops_relay.aws.batch import Message
from finops_relay.aws.events import Sweep, asked_again, drops_and_sweeps
from finops_relay.aws.wiring import Context, relay
from finops_relay.delivery.ports import Ports
from finops_relay.jobs.custom_properties.prepare import begin, prepare, run
from finops_relay.jobs.syncing.preparing import Around


def lambda_handler(event: dict[str, Any], context: Context) -> PartialItemFailureResponse:
    """Prepare what the S3 notifications of an SQS event tell of, or what a schedule runs."""
    return relay().handle(event, context, on_message)


def on_message(message: Message, ports: Ports) -> None:
    """Prepare each object that *message* names, begin the runs that are due, or go on with one of them."""
    settings = relay().settings
    around = Around(
        ports=ports,
        defaults=settings.defaults,
        waits=relay().waits,
        sources=lambda name, config: relay().source(name, config, ports.clock),
        bucket=settings.drops_bucket,
        hour_utc=settings.sync_hour_utc,
    )
    pointer = asked_again(message.body)
    if pointer is not None:
        run(pointer.delivery, around)
        return
    for found in drops_and_sweeps(message.body):
        if isinstance(found, Sweep):
            begin(found.at, around, relay().prepare_queue)
        else:
            prepare(found, around)

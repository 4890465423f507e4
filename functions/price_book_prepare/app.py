"""Reads, checks and normalises a dropped price book into the spool; on a schedule, looks for unfinished folders."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
from finops_relay.aws.batch import Message
from finops_relay.aws.events import Sweep, drops_and_sweeps
from finops_relay.aws.wiring import Context, relay
from finops_relay.delivery.ports import Ports
from finops_relay.jobs.price_books.folders import sweep
from finops_relay.jobs.price_books.prepare import prepare


def lambda_handler(event: dict[str, Any], context: Context) -> PartialItemFailureResponse:
    """Prepare what the S3 notifications of an SQS event tell of."""
    return relay().handle(event, context, on_message)


def on_message(message: Message, ports: Ports) -> None:
    """Prepare each object that *message* names, or sweep."""
    settings = relay().settings
    for found in drops_and_sweeps(message.body):
        if isinstance(found, Sweep):
            sweep(ports, settings.drops_bucket, timedelta(seconds=settings.folder_wait_s))
        else:
            prepare(found, ports, settings.defaults, relay().waits)

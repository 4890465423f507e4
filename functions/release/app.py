"""Takes a person's decision about a held delivery, dropped as a file, to where that delivery goes on."""

from __future__ import annotations

from typing import Any

from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
from finops_relay.aws.batch import Message
from finops_relay.aws.events import Sweep, drops_and_sweeps
from finops_relay.aws.wiring import Context, relay
from finops_relay.delivery.ports import Ports
from finops_relay.jobs.release import release


def lambda_handler(event: dict[str, Any], context: Context) -> PartialItemFailureResponse:
    """Take the decisions that the S3 notifications of an SQS event tell of."""
    return relay().handle(event, context, on_message)


def on_message(message: Message, ports: Ports) -> None:
    """Take each decision that *message* names."""
    for found in drops_and_sweeps(message.body):
        if not isinstance(found, Sweep):
            release(found, ports, relay().waits, relay().infracost_queue)

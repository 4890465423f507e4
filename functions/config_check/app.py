"""Checks a dropped config/relay.yaml; a bad one is refused with a receipt, and the former stays in force."""

from __future__ import annotations

from typing import Any

from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
from finops_relay.aws.batch import Message
from finops_relay.aws.events import Sweep, drops_and_sweeps
from finops_relay.aws.wiring import Context, relay
from finops_relay.delivery.ports import Ports
from finops_relay.jobs.config_check import check_config


def lambda_handler(event: dict[str, Any], context: Context) -> PartialItemFailureResponse:
    """Check what the S3 notifications of an SQS event tell of."""
    return relay().handle(event, context, on_message)


def on_message(message: Message, ports: Ports) -> None:
    """Check each configuration that *message* names."""
    for found in drops_and_sweeps(message.body):
        if not isinstance(found, Sweep):
            check_config(found, ports, relay().settings.defaults)

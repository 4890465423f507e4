"""Puts the records that applications send into the inbox, a batch of messages at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from finops_relay.aws.batch import Message
from finops_relay.aws.wiring import Context, relay
from finops_relay.delivery.ports import Ports
from finops_relay.jobs.telemetry.collect import Sent, collect


def lambda_handler(event: dict[str, Any], context: Context) -> None:
    """Keep the messages of an SQS event; where they cannot be kept the function fails, and all of them come back."""
    relay().handle_whole(event, context, on_batch)


def on_batch(messages: Sequence[Message], ports: Ports) -> None:
    """Write one object of all messages."""
    collect((Sent(message.id, message.body, message.sent_ms) for message in messages), ports)

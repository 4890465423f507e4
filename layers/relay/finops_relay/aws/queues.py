"""The queues from function to function."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING

from finops_relay.delivery.ledger import Delivery

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient


class FifoQueue:
    """One FIFO queue; a message is a pointer to a delivery in the ledger."""

    def __init__(self, sqs: SQSClient, url: str) -> None:
        self._sqs = sqs
        self._url = url

    def send(self, delivery: Delivery, *, nonce: str) -> None:
        """Queue *delivery* in its group; the same *nonce* within 5 minutes queues it once."""
        self._sqs.send_message(
            QueueUrl=self._url,
            MessageBody=json.dumps({"kind": delivery.kind, "delivery": delivery.id}),
            MessageGroupId=delivery.group,
            MessageDeduplicationId=sha256(nonce.encode()).hexdigest(),
        )


class StandardQueue:
    """The queue of a function that prepares: a delivery is sent back to it."""

    def __init__(self, sqs: SQSClient, url: str) -> None:
        self._sqs = sqs
        self._url = url

    def send(self, delivery: Delivery, *, nonce: str) -> None:
        """Queue *delivery*; it may be queued twice, whatever the *nonce*."""
        del nonce
        self._sqs.send_message(
            QueueUrl=self._url, MessageBody=json.dumps({"kind": delivery.kind, "delivery": delivery.id})
        )

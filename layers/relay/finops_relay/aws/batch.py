"""One SQS batch: each message on its own, waiting by visibility, and partial batch responses."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, SqsFifoPartialProcessor
from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from botocore.exceptions import BotoCoreError, ClientError

from finops_relay.aws.logs import logger
from finops_relay.delivery.waits import Waits
from finops_relay.errors import RelayError, Wait

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

MAX_HIDDEN_S = 42_000.0
"""SQS counts its 12 hours from the receipt (API reference, "ChangeMessageVisibility"): less a function's 15 minutes."""
MAX_RECEIVES = 80
"""Below the queues' maxReceiveCount of 100 (template): a message that waits this often is sent afresh."""
MAX_AGE_S = 8 * 86_400
"""Below the queues' retention of 10 days (template): likewise, so that nothing expires while it waits."""


@dataclass(frozen=True)
class Message:
    """What a handler needs of an SQS message."""

    id: str
    body: str
    receipt_handle: str
    receives: int
    age_s: float
    group: str = ""
    """Of a FIFO queue."""
    sent_ms: int = 0
    """When it was sent: milliseconds since the epoch."""


class _SentAfresh(Exception):
    """A message was sent anew and must not be given back as well."""


@dataclass(frozen=True)
class Batch:
    """How the messages of one function are taken.

    Args:
        sqs: the client.
        queue_url: the function's own queue.
        waits: growing waits after a failure that has no wait of its own.
    """

    sqs: SQSClient
    queue_url: str
    waits: Waits

    def process(self, event: dict[str, Any], handle: Callable[[Message], None]) -> PartialItemFailureResponse:
        """Handle each message; return the failed ones as a partial batch failure, each with its wait set."""
        fifo = self.queue_url.endswith(".fifo")
        processor = SqsFifoPartialProcessor() if fifo else BatchProcessor(event_type=EventType.SQS)
        processor.raise_on_entire_batch_failure = False  # every message of a batch may have to wait; that is no crash

        def one(record: SQSRecord) -> None:
            message = _message(record)
            with suppress(_SentAfresh):
                one_message(message)

        def one_message(message: Message) -> None:
            try:
                handle(message)
            except Wait as wait:
                logger.info("message waits", seconds=round(wait.seconds, 1), reason=str(wait), message_id=message.id)
                self._give_back(message, wait.seconds, wait.group)
                raise
            except Exception as error:
                # Whatever it is, the neighbours go on, and this message comes back after a wait that grows.
                if isinstance(error, RelayError):
                    logger.warning(
                        "message failed", error=type(error).__name__, reason=str(error), message_id=message.id
                    )
                else:
                    logger.exception("message failed", message_id=message.id)
                self._give_back(message, self.waits.after(message.receives - 1))
                raise

        with processor(event["Records"], one):
            processor.process()
        return processor.response()

    @staticmethod
    def process_whole(event: dict[str, Any], handle: Callable[[Sequence[Message]], object]) -> None:
        """Handle all messages at once. What it raises fails the function: Lambda counts it, and returns every message.

        They come back after the queue's own time-out: to set a wait for each of ten thousand takes longer than that.
        """
        messages = [_message(SQSRecord(record)) for record in event["Records"]]
        if messages:
            handle(messages)

    def _give_back(self, message: Message, seconds: float, group: str = "") -> None:
        """Hide a failed message for *seconds*. Raises _SentAfresh when its queue would have lost it.

        Sent afresh to its own group it stands behind those that wait for it; then *group* is another one.

        A wait that cannot be set is logged: the message comes back all the same, after the queue's own time-out.
        """
        try:
            if message.receives >= MAX_RECEIVES or message.age_s >= MAX_AGE_S:
                self._send_afresh(message, group or message.group)
                raise _SentAfresh
            self.sqs.change_message_visibility(
                QueueUrl=self.queue_url,
                ReceiptHandle=message.receipt_handle,
                VisibilityTimeout=int(min(MAX_HIDDEN_S, max(0.0, seconds)) + 0.5),
            )
        except (BotoCoreError, ClientError):
            logger.exception("the message's wait could not be set", message_id=message.id)

    def _send_afresh(self, message: Message, group: str) -> None:
        """Send the same body to the same queue; the ledger knows how far its delivery is."""
        fifo = {"MessageGroupId": group, "MessageDeduplicationId": f"{message.id}-{message.receives}"}
        send: Callable[..., Any] = self.sqs.send_message
        send(QueueUrl=self.queue_url, MessageBody=message.body, **(fifo if message.group else {}))


def _message(record: SQSRecord) -> Message:
    sent_ms = record.attributes.sent_timestamp
    return Message(
        id=record.message_id,
        body=record.body,
        receipt_handle=record.receipt_handle,
        receives=int(record.attributes.approximate_receive_count or 1),
        group=record.attributes.message_group_id or "",
        age_s=max(0.0, time.time() - int(sent_ms) / 1000) if sent_ms else 0.0,
        sent_ms=int(sent_ms or 0),
    )

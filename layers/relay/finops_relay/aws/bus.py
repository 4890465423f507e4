"""The event bus: a summary of every delivery that ended or is held, and a pointer to its receipt."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from finops_relay.delivery.ledger import Delivery
from finops_relay.errors import RelayError

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient

EVENT_SOURCE = "finops-relay"
DETAIL_TYPE = "Delivery"
MAX_REASON = 1_000
"""Characters; an event holds 256 KB (EventBridge user guide, "PutEvents")."""


class EventBus:
    """One event bus."""

    def __init__(self, events: EventBridgeClient, name: str) -> None:
        self._events = events
        self._name = name

    def announce(self, delivery: Delivery, receipt_uri: str) -> None:
        """Put one event. Raises RelayError when the bus took it not."""
        detail = {
            "delivery": delivery.id,
            "kind": delivery.kind,
            "target": delivery.target,
            "outcome": delivery.outcome.value,
            "reason": delivery.reason[:MAX_REASON],
            "rows": delivery.rows.model_dump(by_alias=True),
            "dry_run": delivery.dry_run,
            "source": f"s3://{delivery.source.bucket}/{delivery.source.key}",
            "receipt": receipt_uri,
        }
        answer = self._events.put_events(
            Entries=[
                {
                    "EventBusName": self._name,
                    "Source": EVENT_SOURCE,
                    "DetailType": DETAIL_TYPE,
                    "Detail": json.dumps(detail),
                    "Resources": [],
                }
            ]
        )
        if answer["FailedEntryCount"]:
            msg = f"the event bus refused the event: {answer['Entries'][0].get('ErrorCode')}"
            raise RelayError(msg)

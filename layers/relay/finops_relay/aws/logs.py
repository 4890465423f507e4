"""Structured logs and metrics; nothing secret is ever passed to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit

if TYPE_CHECKING:  # only a name: functions that call no vendor never load httpx
    from finops_relay.http.client import CallRecord

logger = Logger()


class Counters:
    """Counters that alarms watch, as CloudWatch embedded metrics."""

    def __init__(self) -> None:
        self._metrics = Metrics()

    def count(self, name: str, value: int = 1) -> None:
        """Add *value* to the counter *name*."""
        self._metrics.add_metric(name=name, unit=MetricUnit.Count, value=value)

    def flush(self) -> None:
        """Write what was counted to the log, where CloudWatch picks it up."""
        if self._metrics.metric_set:
            self._metrics.flush_metrics()


def log_call(record: CallRecord) -> None:
    """Log one call to a vendor: method, path template, status, attempts, seconds."""
    logger.info(
        "vendor call",
        method=record.method,
        path=record.path,
        status=record.status,
        attempts=record.attempts,
        seconds=round(record.seconds, 3),
    )

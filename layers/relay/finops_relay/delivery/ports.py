"""What the jobs need from the outside, as protocols; `aws` implements them, tests wrap them to crash at any call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import BinaryIO, Protocol

from finops_relay.delivery.identity import ObjectVersion
from finops_relay.delivery.ledger import Delivery, Record, Target


class Ledger(Protocol):
    """What is owed and what is done. Every save may raise LedgerConflict."""

    def delivery(self, delivery_id: str) -> Delivery | None:
        """Return the delivery as last saved, read consistently."""

    def save(self, delivery: Delivery) -> Delivery:
        """Save *delivery* if nobody saved it since it was read; return it with its new version."""

    def target(self, name: str) -> Target:
        """Return the target as last saved, or a new one."""

    def save_target(self, target: Target) -> Target:
        """Save *target* if nobody saved it since it was read; return it with its new version."""

    def record(self, name: str) -> Record:
        """Return what is remembered under *name* as last saved, or a new one."""

    def save_record(self, record: Record) -> Record:
        """Save *record* if nobody saved it since it was read; return it with its new version."""

    def claim(self, source: ObjectVersion) -> bool:
        """Remember the sequencer of *source* as the highest of its key; False when a higher one was seen before."""

    def note(self, name: str) -> Mapping[str, str]:
        """Return a small named note, empty when there is none."""

    def save_note(self, name: str, values: Mapping[str, str], order: str = "") -> bool:
        """Overwrite a small named note, unless it was saved with a higher *order*; say whether it was."""


class SpoolWriter(Protocol):
    """One object being written to the spool; nothing is visible before it is closed well."""

    def write(self, data: bytes) -> object:
        """Take more bytes."""


class Drops(Protocol):
    """The drops bucket. Reads are pinned to a version, or to the ETag where the bucket has none."""

    def pin(self, bucket: str, key: str) -> ObjectVersion:
        """Return the present version of an object. Raises SourceGone, SourceForbidden."""

    def open(self, source: ObjectVersion) -> AbstractContextManager[BinaryIO]:
        """Open a seekable reader. Raises SourceGone, SourceForbidden, SourceChanged; reading raises ShortRead."""

    def listing(self, bucket: str, prefix: str) -> Iterator[ObjectVersion]:
        """Yield the present objects below *prefix*, in key order, without version ids."""

    def put(self, key: str, body: bytes, content_type: str) -> str:
        """Write a small object of ours; return its ``s3://`` address."""

    def writer(self, key: str, content_type: str) -> AbstractContextManager[SpoolWriter]:
        """Write a large object of ours in constant memory; an exception leaves nothing behind."""

    def quarantine(self, name: str, source: ObjectVersion) -> str:
        """Copy an object version, bytes untouched, to ``quarantine/{name}/``; return its ``s3://`` address."""

    def remove(self, key: str) -> None:
        """Remove an object of ours; its versions stay for as long as the bucket keeps them. None is no error."""


class Spool(Protocol):
    """The spool bucket: prepared bodies."""

    def writer(self, key: str, content_type: str) -> AbstractContextManager[SpoolWriter]:
        """Write an object in constant memory; an exception leaves nothing behind."""

    def chunks(self, key: str) -> Iterator[bytes]:
        """Yield an object's bytes. Raises SourceGone, ShortRead."""

    def version(self, key: str) -> ObjectVersion:
        """Return the present version of an object, for quarantine; nothing is read."""

    def release(self, key: str) -> None:
        """Let an object expire: its delivery is over. An object that is not there is no error."""


class Queue(Protocol):
    """The FIFO queue of a vendor, or the queue of the function that prepared a delivery."""

    def send(self, delivery: Delivery, *, nonce: str) -> None:
        """Queue *delivery* in its group; a FIFO queue takes the same *nonce* within 5 minutes once."""


class Bus(Protocol):
    """The event bus."""

    def announce(self, delivery: Delivery, receipt_uri: str) -> None:
        """Tell that a delivery ended or is held; a summary and a pointer to its receipt."""


class Metrics(Protocol):
    """Counters that alarms watch."""

    def count(self, name: str, value: int = 1) -> None:
        """Add *value* to the counter *name*."""


@dataclass(frozen=True)
class Clock:
    """Time as the jobs see it; both parts can be replaced in tests without patching."""

    now: Callable[[], datetime]
    """Aware, UTC."""
    remaining_s: Callable[[], float]
    """Seconds left in this invocation."""

    def age(self, since: datetime) -> timedelta:
        """Return the time since *since*."""
        return self.now() - since


@dataclass(frozen=True)
class Ports:
    """Everything a job may touch."""

    ledger: Ledger
    drops: Drops
    spool: Spool
    queue: Queue
    bus: Bus
    metrics: Metrics
    clock: Clock

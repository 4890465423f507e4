"""The ports in memory, for tests that live thousands of lives: what is saved goes through JSON, as with the real ones.

The crash tests run the same jobs over the real ports on moto; these are for speed only.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import BinaryIO, TypeVar

from finops_relay.delivery.identity import ObjectVersion, padded
from finops_relay.delivery.ledger import Delivery, Record, Target
from finops_relay.errors import LedgerConflict, SourceGone

DEDUPLICATED = timedelta(minutes=5)
"""How long a FIFO queue knows a message (SQS developer guide, "Exactly-once processing")."""

Item = TypeVar("Item", Delivery, Record, Target)


@dataclass
class MemoryLedger:
    """The ledger: every save conditional on the version that was read."""

    items: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Version and JSON."""
    sequencers: dict[str, str] = field(default_factory=dict)
    notes: dict[str, Mapping[str, str]] = field(default_factory=dict)

    def delivery(self, delivery_id: str) -> Delivery | None:
        found = self.items.get(f"delivery#{delivery_id}")
        return Delivery.model_validate_json(found[1]) if found else None

    def save(self, delivery: Delivery) -> Delivery:
        return self._save(f"delivery#{delivery.id}", delivery.but(version=delivery.version + 1))

    def target(self, name: str) -> Target:
        found = self.items.get(f"target#{name}")
        return Target.model_validate_json(found[1]) if found else Target(name=name)

    def save_target(self, target: Target) -> Target:
        return self._save(f"target#{target.name}", target.but(version=target.version + 1))

    def record(self, name: str) -> Record:
        found = self.items.get(name)
        return Record.model_validate_json(found[1]) if found else Record(name=name)

    def save_record(self, record: Record) -> Record:
        return self._save(record.name, record.but(version=record.version + 1))

    def claim(self, source: ObjectVersion) -> bool:
        key, sequencer = f"{source.bucket}/{source.key}", padded(source.sequencer)
        if self.sequencers.get(key, "") > sequencer:
            return False
        self.sequencers[key] = sequencer
        return True

    def note(self, name: str) -> Mapping[str, str]:
        return self.notes.get(name, {})

    def save_note(self, name: str, values: Mapping[str, str], order: str = "") -> bool:
        del order
        self.notes[name] = values
        return True

    def _save(self, key: str, item: Item) -> Item:
        if self.items.get(key, (0, ""))[0] != item.version - 1:
            msg = f"{key} was saved by somebody else since version {item.version - 1}"
            raise LedgerConflict(msg)
        self.items[key] = item.version, item.model_dump_json(by_alias=True)
        return item


@dataclass
class MemoryBucket:
    """One bucket, versioned: as drops and as spool."""

    name: str
    objects: dict[str, list[bytes]] = field(default_factory=dict)
    """Versions of each key; the number of one in its list is its id."""
    released: set[str] = field(default_factory=set)
    """Keys that may expire."""
    removed: set[str] = field(default_factory=set)
    """Keys whose newest version is a delete marker."""

    def latest(self, key: str) -> bytes:
        """Return an object's bytes."""
        return self.objects[key][-1]

    def upload(self, key: str, body: bytes) -> str:
        """Write an object; return the id of its version."""
        self.objects.setdefault(key, []).append(body)
        self.released.discard(key)
        self.removed.discard(key)
        return str(len(self.objects[key]))

    def pin(self, bucket: str, key: str) -> ObjectVersion:
        found = self._version(bucket, key, "")
        return ObjectVersion(bucket, key, str(len(self.objects[key])), size_bytes=len(found))

    @contextmanager
    def open(self, source: ObjectVersion) -> Iterator[BinaryIO]:
        yield io.BytesIO(self._version(source.bucket, source.key, source.version_id))

    def listing(self, bucket: str, prefix: str) -> Iterator[ObjectVersion]:
        for key in sorted(self.objects):
            if key.startswith(prefix) and key not in self.removed:
                yield ObjectVersion(bucket, key, size_bytes=len(self.latest(key)))

    def put(self, key: str, body: bytes, content_type: str) -> str:
        assert content_type
        self.upload(key, body)
        return f"s3://{self.name}/{key}"

    @contextmanager
    def writer(self, key: str, content_type: str) -> Iterator[io.BytesIO]:
        assert content_type
        out = io.BytesIO()
        yield out  # an exception leaves nothing behind
        self.upload(key, out.getvalue())

    def quarantine(self, name: str, source: ObjectVersion) -> str:
        copy = self._version(self.name, source.key, source.version_id)
        return self.put(f"quarantine/{name}/{source.key.rpartition('/')[2]}", copy, "application/octet-stream")

    def remove(self, key: str) -> None:
        self.removed.add(key)

    def chunks(self, key: str) -> Iterator[bytes]:
        yield self._version(self.name, key, "")

    def version(self, key: str) -> ObjectVersion:
        return ObjectVersion(self.name, key)

    def release(self, key: str) -> None:
        self.released.add(key)

    def _version(self, bucket: str, key: str, version_id: str) -> bytes:
        assert bucket == self.name
        if key not in self.objects or (key in self.removed and not version_id):
            msg = f"s3://{bucket}/{key} is not there any more"
            raise SourceGone(msg)
        return self.objects[key][int(version_id) - 1 if version_id else -1]


@dataclass
class Told:
    """A bus that remembers what became of each delivery."""

    outcomes: dict[str, list[str]] = field(default_factory=dict)

    def announce(self, delivery: Delivery, receipt_uri: str) -> None:
        assert receipt_uri
        self.outcomes.setdefault(delivery.id, []).append(delivery.outcome.value)


@dataclass
class Message:
    """One message of a FIFO queue."""

    delivery: str
    visible: datetime


@dataclass
class Fifo:
    """A FIFO queue: of each group only the first message is given out, and it hides the others while it waits."""

    now: Callable[[], datetime]
    groups: dict[str, list[Message]] = field(default_factory=dict)
    known: dict[str, datetime] = field(default_factory=dict)
    """Nonces, and when they were sent."""

    def send(self, delivery: Delivery, *, nonce: str) -> None:
        assert delivery.group
        now = self.now()
        if nonce in self.known and now - self.known[nonce] < DEDUPLICATED:
            return
        self.known[nonce] = now
        self.groups.setdefault(delivery.group, []).append(Message(delivery.id, now))

    def heads(self) -> list[Message]:
        """Return the first message of each group, visible or not."""
        return [messages[0] for messages in self.groups.values() if messages]

    def done(self, message: Message) -> None:
        """Forget a message."""
        for messages in self.groups.values():
            if messages and messages[0] is message:
                messages.pop(0)
                return
        raise AssertionError(message)

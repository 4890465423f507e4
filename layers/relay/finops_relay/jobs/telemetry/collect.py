"""Records that applications send: each batch of their queue becomes one object of the inbox before it is acknowledged.

Nothing is read here and nothing is judged: `merge` does that for all batches of some minutes at once, so that the
ledger is written a few times for each stream, however many records there are.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable
from datetime import UTC, datetime
from gzip import BadGzipFile, GzipFile, compress
from hashlib import sha256
from typing import NamedTuple

from finops_relay.delivery.identity import ObjectVersion, digest
from finops_relay.delivery.ports import Ports
from finops_relay.errors import InputRefused
from finops_relay.formats.telemetry import is_stream

INBOX = "state/telemetry/inbox/"
"""Where the batches wait in the drops bucket until they are counted."""
WAITING = f"{INBOX}waiting/"
"""Where, by stream, those wait that could not be counted when their batch was. Behind the batches in order of keys."""
NOBODY = "~"
"""The name there of what is no stream's; no stream is called that."""
MAX_BATCH_BYTES = 64_000_000
"""Of one batch, decoded. SQS hands over 6 MB at most; a larger object is none that we have written."""


class Sent(NamedTuple):
    """One message of the application queue."""

    id: str
    """SQS's own; a message that is given out twice has the same one."""
    body: str
    sent_ms: int
    """When it was sent: milliseconds since the epoch, by SQS's clock."""


def collect(messages: Iterable[Sent], ports: Ports) -> str:
    """Write a batch into the inbox and return its key; the same messages give the same object, in whatever order."""
    batch = sorted({message.id: message for message in messages}.values(), key=lambda sent: (sent.sent_ms, sent.id))
    day = datetime.fromtimestamp(batch[0].sent_ms / 1000, UTC).date()
    key = f"{INBOX}{day}/{digest(*sorted(message.id for message in batch))}.json.gz"
    ports.drops.put(key, _packed(batch), "application/gzip")
    return key


class Received(NamedTuple):
    """One message of a batch, as it is read again."""

    id: str
    body: str


def put_waiting(ports: Ports, stream: str, messages: Iterable[Received]) -> str:
    """Let messages of a stream wait apart, and return their key; the same messages give the same object."""
    data = _packed(messages)
    key = f"{WAITING}{stream or NOBODY}/{sha256(data).hexdigest()}.json.gz"
    ports.drops.put(key, data, "application/gzip")
    return key


def waiting_stream(key: str) -> str:
    """Return the stream whose messages wait apart under a key; empty where it is another batch, or no stream's."""
    name = key.removeprefix(WAITING).partition("/")[0] if key.startswith(WAITING) else ""
    return name if is_stream(name) else ""


def _packed(messages: Iterable[Sent | Received]) -> bytes:
    lines = (json.dumps({"id": message.id, "body": message.body}) for message in messages)
    return compress("\n".join(lines).encode(), mtime=0)


def batch_of(ports: Ports, source: ObjectVersion) -> tuple[list[Received], int]:
    """Return the messages of a batch, and how many bytes they are.

    Raises:
        InputRefused: the object is no batch of ours.
        SourceGone, SourceForbidden, SourceChanged, ShortRead: it cannot be read.
    """
    with ports.drops.open(source) as stream:
        try:
            data = GzipFile(fileobj=stream, mode="rb").read(MAX_BATCH_BYTES + 1)
        except (BadGzipFile, EOFError, zlib.error) as error:
            raise InputRefused(f"the object is no batch of messages: {error}", file=source.key) from error
    if len(data) > MAX_BATCH_BYTES:
        raise InputRefused(f"the batch has more than {MAX_BATCH_BYTES:,} bytes", file=source.key)
    try:
        return [_received(json.loads(line)) for line in data.split(b"\n")], len(data)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputRefused("the object is no batch of messages", file=source.key) from error


def _received(line: dict[str, str]) -> Received:
    if not (isinstance(line["id"], str) and isinstance(line["body"], str)):
        raise TypeError
    return Received(line["id"], line["body"])

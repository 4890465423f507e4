"""Who a delivery is, and which of two is newer (design: decisions, "Identity of a delivery" and "Sequencer")."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256

# S3 documents sequencers as hexadecimal strings of differing length, compared after padding the shorter one on the
# right with zeros (S3 user guide, "Event message structure"). Seen: 16 to 18 digits; 64 leaves room.
SEQUENCER_WIDTH = 64


@dataclass(frozen=True)
class ObjectVersion:
    """One version of one object, as an event named it."""

    bucket: str
    key: str
    """Decoded."""
    version_id: str = ""
    """Empty in a bucket without versions; then the ETag pins."""
    etag: str = ""
    size_bytes: int = 0
    sequencer: str = ""
    """As received; empty where the event had none."""
    at: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    """When the object was created, by S3's clock."""

    @property
    def uri(self) -> str:
        """``s3://bucket/key``, for receipts and commands."""
        return f"s3://{self.bucket}/{self.key}"


def digest(*parts: str) -> str:
    """Return the hexadecimal SHA-256 of *parts*; a separator that no part can hold keeps them apart."""
    return sha256("\x00".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def delivery_id(source: ObjectVersion) -> str:
    """Return the identity of the delivery of one object version: 64 hexadecimal digits.

    Content is no part of it: the same bytes dropped again are another delivery, and may put an older state back.
    """
    return digest(source.bucket, source.key, source.version_id or f"etag:{source.etag}:{source.sequencer}")


def padded(sequencer: str) -> str:
    """Return *sequencer* so that two of one key compare as strings."""
    return sequencer.upper().ljust(SEQUENCER_WIDTH, "0")


def order_of(source: ObjectVersion) -> str:
    """Return a string that sorts deliveries to one target by the time their source was created.

    Sequencers only compare within one key, so the time leads and the sequencer breaks ties.
    """
    return f"{source.at.astimezone(UTC).isoformat(timespec='milliseconds')}#{padded(source.sequencer)}"


def second_group(target: str) -> str:
    """Return the FIFO group of what goes on past those that wait: a released delivery, one whose rejects are named.

    Deliveries of one target wait in one group; the one that they wait for cannot come behind them.
    """
    return digest("second", target)

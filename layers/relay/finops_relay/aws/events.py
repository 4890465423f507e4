"""What triggers us, checked at the border: S3 notifications, schedules, and our own queue messages."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import unquote_plus

from pydantic import AliasPath, BaseModel, ConfigDict, Field, ValidationError

from finops_relay.delivery.identity import ObjectVersion


class NotUnderstoodError(Exception):
    """A message is not what its queue is for; no retry will change that."""


class _S3Record(BaseModel):
    """One record of an S3 notification (S3 user guide, "Event message structure")."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    at: datetime = Field(alias="eventTime")
    bucket: str = Field(validation_alias=AliasPath("s3", "bucket", "name"), min_length=1)
    key: str = Field(validation_alias=AliasPath("s3", "object", "key"), min_length=1)
    size: int = Field(default=0, validation_alias=AliasPath("s3", "object", "size"))
    etag: str = Field(default="", validation_alias=AliasPath("s3", "object", "eTag"))
    version_id: str = Field(default="", validation_alias=AliasPath("s3", "object", "versionId"))
    sequencer: str = Field(default="", validation_alias=AliasPath("s3", "object", "sequencer"), max_length=64)


class _S3Notification(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    records: tuple[_S3Record, ...] = Field(alias="Records")


@dataclass(frozen=True)
class Sweep:
    """A schedule asks for a look around."""

    at: datetime


class _Scheduled(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    at: datetime = Field(alias="time")


class Pointer(BaseModel):
    """Our own message: which delivery to go on with."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    kind: str
    delivery: str = Field(min_length=1, max_length=256)


def drops_and_sweeps(body: str) -> tuple[ObjectVersion | Sweep, ...]:
    """Read a message of a preparing function's queue. Raises NotUnderstoodError.

    The test event that S3 sends when it is set up is nothing to do.
    """
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        msg = f"the message is not JSON: {error}"
        raise NotUnderstoodError(msg) from error
    try:
        match found:
            case {"Event": "s3:TestEvent"}:
                return ()
            case {"source": "aws.events"}:
                return (Sweep(_utc(_Scheduled.model_validate(found).at)),)
            case _:
                return tuple(_version(record) for record in _S3Notification.model_validate(found).records)
    except OverflowError as error:
        msg = "not an S3 notification: its time is out of all range"
        raise NotUnderstoodError(msg) from error
    except ValidationError as error:
        problem = error.errors()[0]
        msg = f"not an S3 notification: {'.'.join(map(str, problem['loc']))}: {problem['msg']}"
        raise NotUnderstoodError(msg) from error


def asked_again(body: str) -> Pointer | None:
    """Return the delivery that a delivering function sends back to the one that prepared it; None for anything else."""
    try:
        return Pointer.model_validate_json(body)
    except ValidationError:
        return None


def pointer(body: str) -> Pointer:
    """Read a message of a delivering function's queue. Raises NotUnderstoodError."""
    try:
        return Pointer.model_validate_json(body)
    except ValidationError as error:
        msg = f"not a pointer to a delivery: {error.errors()[0]['msg']}"
        raise NotUnderstoodError(msg) from error


def _version(record: _S3Record) -> ObjectVersion:
    return ObjectVersion(
        bucket=record.bucket,
        key=unquote_plus(record.key),
        version_id=record.version_id,
        etag=record.etag,
        size_bytes=record.size,
        sequencer=record.sequencer,
        at=_utc(record.at),
    )


def _utc(when: datetime) -> datetime:
    """Return *when* in UTC, which S3 always means. Raises OverflowError at the ends of time."""
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)

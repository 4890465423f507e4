"""The parts of a folder, as they were when its marker came: listed, pinned by version, and saved with the delivery."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from finops_relay.delivery.identity import ObjectVersion
from finops_relay.delivery.ledger import Delivery
from finops_relay.delivery.ports import Ports
from finops_relay.delivery.receipt import Part
from finops_relay.errors import InputRefused
from finops_relay.jobs.folders import end_held_folder


@dataclass(frozen=True)
class Listed:
    """What lies beside a marker, not pinned yet."""

    folder: str
    """With its slash."""
    parts: Mapping[str, ObjectVersion]
    """By the name in the folder."""
    marker: ObjectVersion | None
    """As it is now; None when it is gone."""


def pinned(ports: Ports, delivery: Delivery, *, is_part: Callable[[str], bool], most: int, noun: str) -> Delivery:
    """Return a marker's delivery with every part of its folder pinned and saved; pinned parts stay as they are.

    Args:
        ports: everything outside.
        delivery: of the marker.
        is_part: whether an object, by its name in the folder, is a part; nothing in a sub-folder is.
        most: as many parts as a folder may have.
        noun: what a part is, as a person would call it.

    Raises:
        InputRefused: there is no part, too many, or one that came after the marker.
        SourceGone, SourceForbidden: a part cannot be pinned.
    """
    if delivery.source.parts:
        return delivery
    beside = listed(ports, delivery, is_part)
    return pin(ports, delivery, beside, list(beside.parts), most=most, noun=noun)


def listed(ports: Ports, delivery: Delivery, is_part: Callable[[str], bool]) -> Listed:
    """Return what lies beside the marker that a delivery is about."""
    marker = delivery.source.key
    folder = f"{marker.rpartition('/')[0]}/"
    found = {entry.key.removeprefix(folder): entry for entry in ports.drops.listing(delivery.source.bucket, folder)}
    parts = {name: entry for name, entry in found.items() if name and "/" not in name and is_part(name)}
    return Listed(folder, parts, found.get(marker.removeprefix(folder)))


def pin(  # noqa: PLR0913 -- the last two are what a kind says of its parts
    ports: Ports, delivery: Delivery, beside: Listed, names: Sequence[str], *, most: int, noun: str
) -> Delivery:
    """Pin the present versions of the parts called *names*; return the delivery saved with them. Raises as pinned."""
    bucket, marker = delivery.source.bucket, delivery.source.key
    if not names:
        raise InputRefused(f"the folder holds no {noun}", file=marker, fix="upload the parts, then the marker")
    if len(names) > most:
        raise InputRefused(f"the folder holds {len(names)} parts", file=marker, fix=f"keep to {most}")
    end_held_folder(ports, bucket, beside.folder, f"the marker has come: delivery {delivery.id}")
    pins = [ports.drops.pin(bucket, beside.parts[name].key) for name in names]
    _refuse_late_parts(pins, beside.marker)
    parts = tuple(Part(key=part.key, version=part.version_id, etag=part.etag, bytes=part.size_bytes) for part in pins)
    return ports.ledger.save(delivery.but(source=delivery.source.model_copy(update={"parts": parts})))


def pinned_parts(delivery: Delivery) -> tuple[ObjectVersion, ...]:
    """Return the parts that were pinned for a delivery, in the order of their names or of the manifest."""
    bucket = delivery.source.bucket
    return tuple(ObjectVersion(bucket, part.key, part.version, part.etag, part.bytes) for part in delivery.source.parts)


def _refuse_late_parts(parts: Sequence[ObjectVersion], marker: ObjectVersion | None) -> None:
    """Refuse a part that came after its marker: with the others it may be a mixture. S3's dates are whole seconds."""
    for part in parts:
        if marker is not None and part.at.replace(microsecond=0) > marker.at.replace(microsecond=0):
            fix = "drop the marker again once every part is there"
            raise InputRefused("the part was written after the marker", file=part.key, fix=fix)

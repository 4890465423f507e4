"""Folders that a marker completes; one whose marker never came is held (design: decisions, "Folder drops")."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from finops_relay.delivery import commands
from finops_relay.delivery.identity import digest
from finops_relay.delivery.ledger import Delivery
from finops_relay.delivery.ports import Ports
from finops_relay.delivery.receipt import Outcome, Part, Source
from finops_relay.delivery.telling import announce, conclude

SUCCESS = "_SUCCESS"
"""The marker that a person or a tool drops, empty."""
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Shape:
    """What the folders of one kind look like."""

    prefixes: tuple[str, ...]
    """Below which they lie."""
    markers: tuple[str, ...]
    """Names of what completes a folder; SUCCESS is one of them."""
    is_part: Callable[[str], bool]
    """Whether an object of a folder, by its name there, may be a part."""
    is_folder: Callable[[str], bool]
    """Whether a prefix, with its slash, is a folder that a marker would complete."""


@dataclass
class _Folder:
    """What lies in one folder."""

    parts: list[Part]
    newest: datetime = _LONG_AGO
    marked: datetime = _LONG_AGO


def sweep(ports: Ports, bucket: str, patience: timedelta, kind: str, shape: Shape) -> list[Delivery]:
    """Report folders that have had parts but no newer marker for longer than *patience*; return what is held.

    A second sweep finds the same folders and reports nothing again.
    """
    return [
        _report(ports, bucket, path, folder, kind, shape.markers)
        for prefix in shape.prefixes
        for path, folder in _folders(ports, bucket, prefix, shape).items()
        if folder.newest > folder.marked and ports.clock.age(folder.newest) > patience
    ]


def end_held_folder(ports: Ports, bucket: str, folder: str, reason: str) -> None:
    """End the report of a folder as superseded once its marker, or more of its parts, have come."""
    known = ports.ledger.note(_note(bucket, folder)).get("delivery", "")
    report = ports.ledger.delivery(known) if known else None
    if report is not None and not report.outcome.final:
        conclude(ports, report.ended(Outcome.SUPERSEDED, ports.clock.now(), reason))


def is_bookkeeping(name: str, suffixes: tuple[str, ...]) -> bool:
    """Return whether a name is bookkeeping of the tool that wrote the folder (``_committed_1``).

    Nothing that ends in one of *suffixes* is, but for what macOS puts beside each file (``._costs.csv``).
    """
    return name.startswith("._") or (name.startswith(("_", ".")) and not name.lower().endswith(suffixes))


def _folders(ports: Ports, bucket: str, prefix: str, shape: Shape) -> dict[str, _Folder]:
    """Return what lies in each folder below *prefix*."""
    found: dict[str, _Folder] = {}
    for entry in ports.drops.listing(bucket, prefix):
        folder, _, name = entry.key.rpartition("/")
        path = f"{folder}/"
        marks = name in shape.markers
        if not name or not (marks or shape.is_part(name)) or not (path in found or shape.is_folder(path)):
            continue
        known = found.setdefault(path, _Folder([]))
        if marks:
            known.marked = max(known.marked, entry.at)
        else:
            known.newest = max(known.newest, entry.at)
            known.parts.append(Part(key=entry.key, etag=entry.etag, bytes=entry.size_bytes))
    return found


def _report(  # noqa: PLR0913, PLR0917 -- what was found where, and the kind's two words for it
    ports: Ports, bucket: str, path: str, folder: _Folder, kind: str, markers: tuple[str, ...]
) -> Delivery:
    """Hold one folder, once for what lies in it now."""
    key = digest("folder", bucket, path, folder.newest.isoformat())
    known = ports.ledger.delivery(key)
    if known is not None:
        return announce(ports, known)
    now = ports.clock.now()
    source = Source(bucket=bucket, key=path, parts=tuple(folder.parts[:200]), bytes=sum(p.bytes for p in folder.parts))
    report = Delivery(id=key, kind=kind, source=source, times={"received": now})
    command = commands.put_empty(bucket, f"{path}{SUCCESS}")
    missing = f"there is no {' or '.join(markers)}"
    late = "parts came after the last marker" if folder.marked > _LONG_AGO else missing
    reason = f"{len(folder.parts)} parts wait in {path}, and {late}; drop the marker when the folder is complete"
    end_held_folder(ports, bucket, path, "more parts have come, see its own report")
    ports.ledger.save_note(_note(bucket, path), {"delivery": key})
    return conclude(ports, report.ended(Outcome.HELD, now, reason, command))


def _note(bucket: str, folder: str) -> str:
    return f"folder#{bucket}/{folder}"

"""Folders whose marker never came: reported as held, so that nothing is forgotten (decisions, "Folder drops")."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from finops_relay.delivery import commands
from finops_relay.delivery.identity import digest
from finops_relay.delivery.ledger import Delivery
from finops_relay.delivery.ports import Ports
from finops_relay.delivery.receipt import Outcome, Part, Source
from finops_relay.delivery.telling import announce, conclude
from finops_relay.formats.price_sheets import Provider
from finops_relay.jobs.price_books.drop_path import MARKERS, MENDED, is_hidden
from finops_relay.jobs.price_books.remembered import KIND

_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass
class _Folder:
    """What lies in one folder."""

    parts: list[Part]
    newest: datetime = _LONG_AGO
    marked: datetime = _LONG_AGO


def sweep(ports: Ports, bucket: str, patience: timedelta) -> list[Delivery]:
    """Report folders that have had parts but no newer marker for longer than *patience*; return what is held.

    A second sweep finds the same folders and reports nothing again.
    """
    held = []
    for provider in Provider:
        for path, folder in _folders(ports, bucket, f"incoming/price-books/{provider.value}/").items():
            if folder.newest > folder.marked and ports.clock.age(folder.newest) > patience:
                held.append(_report(ports, bucket, path, folder))
    return held


def end_held_folder(ports: Ports, bucket: str, folder: str, reason: str) -> None:
    """End the report of a folder as superseded once its marker, or more of its parts, have come."""
    known = ports.ledger.note(_note(bucket, folder)).get("delivery", "")
    report = ports.ledger.delivery(known) if known else None
    if report is not None and not report.outcome.final:
        conclude(ports, report.ended(Outcome.SUPERSEDED, ports.clock.now(), reason))


def _folders(ports: Ports, bucket: str, prefix: str) -> dict[str, _Folder]:
    """Return what lies in each folder below *prefix*."""
    found: dict[str, _Folder] = {}
    for entry in ports.drops.listing(bucket, prefix):
        folder, _, name = entry.key.rpartition("/")
        path = f"{folder}/"
        if path == prefix or folder.endswith(f"/{MENDED}") or not name or (is_hidden(name) and name not in MARKERS):
            continue
        known = found.setdefault(path, _Folder([]))
        if name in MARKERS:
            known.marked = max(known.marked, entry.at)
        else:
            known.newest = max(known.newest, entry.at)
            known.parts.append(Part(key=entry.key, etag=entry.etag, bytes=entry.size_bytes))
    return found


def _report(ports: Ports, bucket: str, path: str, folder: _Folder) -> Delivery:
    """Hold one folder, once for what lies in it now."""
    key = digest("folder", bucket, path, folder.newest.isoformat())
    known = ports.ledger.delivery(key)
    if known is not None:
        return announce(ports, known)
    now = ports.clock.now()
    source = Source(bucket=bucket, key=path, parts=tuple(folder.parts[:200]), bytes=sum(p.bytes for p in folder.parts))
    report = Delivery(id=key, kind=KIND, source=source, times={"received": now})
    command = commands.put_empty(bucket, f"{path}_SUCCESS")
    late = "parts came after the last marker" if folder.marked > _LONG_AGO else "there is no _SUCCESS or manifest.json"
    reason = f"{len(folder.parts)} parts wait in {path}, and {late}; drop the marker when the folder is complete"
    end_held_folder(ports, bucket, path, "more parts have come, see its own report")
    ports.ledger.save_note(_note(bucket, path), {"delivery": key})
    return conclude(ports, report.ended(Outcome.HELD, now, reason, command))


def _note(bucket: str, folder: str) -> str:
    return f"folder#{bucket}/{folder}"

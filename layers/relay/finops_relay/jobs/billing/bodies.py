"""Bodies made anew at delivery: without hours that are there, without rows that were refused, or in two halves."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from hashlib import sha256
from typing import TYPE_CHECKING

from finops_relay.cloudzero.records import SentRow
from finops_relay.delivery.packer import Mode
from finops_relay.delivery.ports import Ports
from finops_relay.delivery.receipt import Unit
from finops_relay.jobs.billing.money import less, total
from finops_relay.jobs.billing.packing import OPERATIONS, Packing
from finops_relay.jobs.billing.remembered import BodyPlan, Costs, Manifest, Removed, Work
from finops_relay.jobs.billing.state import manifest_key

if TYPE_CHECKING:
    from finops_relay.cloudzero.client import CloudZero

MAX_WORDS = 300
"""Characters of what the vendor says of a row."""
MAX_CHECKS = 500
"""Questions to the vendor which rows of a body it refuses; 500 find about 20 rows among 10,000."""


def origins_key(spool_key: str) -> str:
    """Return where the origins of a body's rows stand in the spool."""
    return f"{spool_key}.origins"


def unfiled(work: Work) -> Iterator[str]:
    """Yield what a receipt says of rows that the vendor refused, and that no file names: there was no time to."""
    unnamed = work.removed[work.named :]
    if len(unnamed) > 1:
        yield f"{len(unnamed):,} rows that CloudZero refused are not in the file of rejected rows; as many as fit:"
    for row in unnamed:
        member, line = Packing.origin_of(row.origin)
        part = f"part {member + 1}, " if member else ""
        yield f"{part}line {line}: CloudZero refused the row: {row.words}"


def costs_of(rows: Sequence[SentRow]) -> Costs:
    """Return the money of rows, by cost column."""
    return total(row.costs for row in rows)


def joined(client: type[CloudZero], mode: Mode, month: date, rows: Sequence[SentRow]) -> bytes:
    """Return a body of *rows*."""
    head, tail = client.drop_envelope(OPERATIONS[mode], month)
    return head + b",".join(row.raw for row in rows) + tail


def refused_rows(
    client: CloudZero, rows: Sequence[SentRow], month: date, in_time: Callable[[], bool]
) -> dict[int, str] | None:
    """Ask the vendor which rows it refuses, without sending any; None when there are too many to tell (`live`).

    Returns:
        What the vendor says, by the row's place: of all of them, or of those that were found while there was time.
    """
    refused: dict[int, str] = {}
    parts = [range(len(rows))]
    for _ in range(MAX_CHECKS):
        if not parts or not in_time():
            break
        part = parts.pop()
        verdict = client.validate_billing_drop(joined(type(client), Mode.HOURS, month, [rows[at] for at in part]))
        if verdict.is_valid:
            continue
        if len(part) == 1:
            refused[part[0]] = "; ".join(verdict.errors) or "CloudZero refuses this row and does not say why"
        else:
            half = len(part) // 2
            parts += [part[half:], part[:half]]
    return refused or None if parts else refused


@dataclass
class Rewriting:
    """Makes bodies anew, and knows the manifest that has them.

    Args:
        ports: the spool.
        client: puts bodies together.
        month: its first day.
        manifest: with the bodies as they are now.
        number: of this rewriting of the delivery, so that a crash leaves nothing that is taken for another.
    """

    ports: Ports
    client: CloudZero
    month: date
    manifest: Manifest
    number: int
    made: int = 0

    @property
    def key(self) -> str:
        """Where its manifest belongs."""
        return manifest_key(self.manifest.delivery, self.number)

    def body(self, unit: Unit, rows: Sequence[SentRow], places: Sequence[int], mode: Mode) -> Unit:
        """Write a body of some of the rows of *unit*'s; return the unit that it is."""
        self.made += 1
        origins = self._origins(unit)
        kept = [rows[place] for place in places]
        data = joined(type(self.client), mode, self.month, kept)
        key = f"billing/{self.manifest.delivery}/{self.number:04d}-{self.made:04d}.json"
        with self.ports.spool.writer(key, "application/json") as out:
            out.write(data)
        with self.ports.spool.writer(origins_key(key), "application/octet-stream") as out:
            out.write(array("Q", (origins[place] for place in places)).tobytes())
        counts = Counter(row.hour for row in kept)
        bodies = {known: plan for known, plan in self.manifest.bodies.items() if known != unit.spool_key}
        bodies[key] = BodyPlan(mode=mode, rows=tuple(sorted(counts.items())))
        self.manifest = self.manifest.model_copy(update={"bodies": bodies})
        return Unit(
            seq=unit.seq,
            name=unit.name,
            rows=len(kept),
            bytes=len(data),
            sha256=sha256(data).hexdigest(),
            spool_key=key,
        )

    def halves(self, unit: Unit, rows: Sequence[SentRow], *, live: bool) -> list[Unit]:
        """Write the two halves of a body; the border is one between hours, where there is one."""
        mode = self.manifest.bodies[unit.spool_key].mode
        middle = len(rows) // 2
        borders = [at for at in range(1, len(rows)) if rows[at].hour != rows[at - 1].hour]
        cut = min(borders, key=lambda at: abs(at - middle), default=middle)
        rest = Mode.HOURS if live and mode is not Mode.APPEND and borders else Mode.APPEND
        whole = range(len(rows))
        return [self.body(unit, rows, whole[:cut], mode), self.body(unit, rows, whole[cut:], rest)]

    def without(
        self, unit: Unit, rows: Sequence[SentRow], refused: Mapping[int, str]
    ) -> tuple[list[Unit], tuple[Removed, ...]]:
        """Write a body without the rows that were refused; there is none where no row is left."""
        origins = self._origins(unit)
        removed = tuple(
            Removed(origin=origins[place], hour=rows[place].hour, costs=rows[place].costs, words=words[:MAX_WORDS])
            for place, words in sorted(refused.items())
        )
        mode = self.manifest.bodies[unit.spool_key].mode
        places = [place for place in range(len(rows)) if place not in refused]
        units = [self.body(unit, rows, places, mode)] if places else []
        if not places:
            bodies = {known: plan for known, plan in self.manifest.bodies.items() if known != unit.spool_key}
            self.manifest = self.manifest.model_copy(update={"bodies": bodies})
        hours = dict(self.manifest.hours)
        for place in refused:
            row = rows[place]
            hour = hours[row.hour]
            if hour.rows == 1:
                del hours[row.hour]
                continue
            changed = {
                "rows": hour.rows - 1,
                "bytes": max(0, hour.bytes - len(row.raw) - 1),
                "costs": less(hour.costs, row.costs),
                "sha256": "",  # so that it is never taken for what another version has
            }
            hours[row.hour] = hour.model_copy(update=changed)
        self.manifest = self.manifest.model_copy(update={"hours": hours})
        return units, removed

    def _origins(self, unit: Unit) -> array[int]:
        found = array("Q")
        found.frombytes(b"".join(self.ports.spool.chunks(origins_key(unit.spool_key))))
        return found

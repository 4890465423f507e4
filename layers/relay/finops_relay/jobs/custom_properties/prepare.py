"""Prepare custom properties: a file that was checked, byte for byte, or the rows of a source of truth as one CSV.

Holds no Infracost credential; those of the sources only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import BinaryIO, cast

from typing_extensions import override

from finops_relay.delivery.identity import ObjectVersion
from finops_relay.delivery.ledger import Delivery
from finops_relay.delivery.ports import Queue
from finops_relay.delivery.receipt import Rows, Unit
from finops_relay.delivery.telling import conclude
from finops_relay.errors import InputRefused
from finops_relay.formats.csv_rows import csv_line
from finops_relay.formats.property_files import MAX_BYTES, MAX_ROWS, PropertyFile, checked, made, whole, wire_form
from finops_relay.formats.rejected_rows import RejectedFile
from finops_relay.formats.source_hash import HashedSource
from finops_relay.infracost.checks import check_properties
from finops_relay.jobs.config import Effective, PropertiesConfig
from finops_relay.jobs.custom_properties.remembered import KIND, Work, owned_name, target_name
from finops_relay.jobs.opening import rejected
from finops_relay.jobs.syncing import drop_path
from finops_relay.jobs.syncing.drop_path import DropPath, Meaning, run_command
from finops_relay.jobs.syncing.preparing import (
    Around,
    Due,
    Mends,
    Preparation,
    begin_due,
    prepare_drop,
    rejected_record,
    run_due,
    slug_of,
)
from finops_relay.sources.records import Record
from finops_relay.sync.rules import Rules

SUFFIXES = (".csv",)
NAME = "properties"
"""What runs of the source are called."""


def prepare(source: ObjectVersion, around: Around) -> Delivery | None:
    """Prepare what one S3 event tells of, as `finops_relay.jobs.syncing.preparing.prepare_drop` says."""
    return prepare_drop(source, around, KIND, _parsed, lambda *parts: _Preparation(around, *parts))


def run(delivery_id: str, around: Around) -> Delivery | None:
    """Run the sync that the schedule has begun, as `finops_relay.jobs.syncing.preparing.run_due` says."""
    return run_due(delivery_id, around, KIND, lambda *parts: _Preparation(around, *parts))


def begin(tick: datetime, around: Around, queue: Queue) -> list[Delivery]:
    """Begin the sync if it is due, as `finops_relay.jobs.syncing.preparing.begin_due` says."""
    relay = around.config().relay
    config = relay.custom_properties
    if config.ask is None:
        return []
    due = Due(NAME, config.ask.source, relay.sources[config.ask.source].hour_utc, config.plan_only)
    return begin_due(tick, around, KIND, [due], queue)


def _parsed(key: str) -> DropPath:
    return drop_path.parse_properties(key, SUFFIXES)


@dataclass
class _Preparation(Preparation[Work]):
    """One run of the preparation of one delivery."""

    @override
    def prepared(self) -> Delivery:
        config = self.around.config()
        properties = config.relay.custom_properties
        slug = slug_of(None, config, self.delivery.source.key)
        mends = self.mends(KIND, "file")
        if self.path.meaning is Meaning.RUN:
            self.command = run_command(self.around.bucket, KIND, NAME)
        work = Work(
            slug=slug,
            owned=owned_name(slug),
            guards=properties.guards.over(config.relay.sync.guards),
            again=self.command,
            mends=mends.original.id if mends else "",
        )
        ended = self.begun(work, target_name(slug), config, mends)
        if ended is not None:
            return ended
        with RejectedFile() as rejects:
            found = self._of_source(properties, config, rejects) if self.command else self._of_file(rejects, mends)
            delivery = self.with_rejects(self.delivery.warn(*found.warnings), rejects)
        return self._judged(delivery, work, found, properties.max_rejected_share)

    def _of_file(self, rejects: RejectedFile, mends: Mends | None) -> PropertyFile:
        """Return what was dropped, checked. Raises InputRefused and what reading raises."""
        version = mends.base if mends else cast("ObjectVersion", self.source)
        with self.ports.drops.open(version) as raw:
            hashed = HashedSource(raw)
            data = whole(version.key, cast("BinaryIO", hashed))
            if mends is None:
                source = self.delivery.source.model_copy(update={"sha256": hashed.hexdigest()})
                self.delivery = self.delivery.but(source=source)
        data, warnings = wire_form(data)
        _refuse_one_line(version.key, data)
        lines: Mapping[int, Mapping[str, str]] | None = mends.rows.get("", {}) if mends else None
        found = checked(version.key, data, lambda row: rejects.add("", row), lines)
        if not found.rejected:
            _refuse_one_line(version.key, found.body)
        found.warnings += warnings
        return found

    def _of_source(self, config: PropertiesConfig, relay: Effective, rejects: RejectedFile) -> PropertyFile:
        """Return the rows of the source as one CSV, sorted by key. Raises InputRefused and VendorError."""
        found, size = PropertyFile(b"", (), {}), 0
        for record in self.records(config.ask, relay):
            found.header = found.header or tuple(record.values)
            found.rows_in += 1
            values, fault = _values(found, record, config.rules)
            if fault is not None:
                found.rejected += 1
                rejects.add("", rejected_record(record, found.header, *fault))
                continue
            line = found.rows[values[0]] = csv_line(values)
            size += len(line)
            if size > MAX_BYTES or found.rows_in > MAX_ROWS:
                reason = f"the source has more than {MAX_BYTES:,} bytes, or {MAX_ROWS:,} rows"
                fix = "narrow the query down, or read fewer columns"
                raise InputRefused(reason, file=self.delivery.source.key, fix=fix)
        ask = config.ask
        found.header = found.header or tuple(ask.columns if ask else ())
        found.body = made(found.header, found.rows)
        return found

    def _judged(self, delivery: Delivery, work: Work, found: PropertyFile, most: float) -> Delivery:
        """Return the delivery prepared and saved, or refused because too many of its rows are bad."""
        share = found.rejected / found.rows_in if found.rows_in else 0.0
        if share > most or (found.rejected and not found.rows):
            rows = Rows.model_validate({"in": found.rows_in, "rejected": found.rows_in})
            reason = (
                f"{found.rejected:,} of {found.rows_in:,} rows are bad ({share:.1%}; {most:.1%} may be): what is left"
                " out would lose its properties, so nothing is sent"
            )
            refused = rejected(self.ports, delivery.but(rows=rows), reason, delivery.next_command)
            return conclude(self.ports, refused)
        key = f"{KIND}/{delivery.id}/properties.csv"
        with self.ports.spool.writer(key, "text/csv") as out:
            out.write(found.body)
        hashed = sha256(found.body).hexdigest()
        counts = {"in": found.rows_in, "rejected": found.rejected, "owed": len(found.rows)}
        unit = Unit(
            seq=1,
            name=f"custom properties of {work.slug}",
            rows=len(found.rows),
            bytes=len(found.body),
            sha256=hashed,
            spool_key=key,
        )
        return self.ports.ledger.save(
            delivery.but(
                stage="prepared",
                attempts=0,
                waits=0,
                reason="",
                rows=Rows.model_validate(counts),
                units=(unit,),
                fingerprint=hashed,
                work=work.model_copy(update={"rows": found.rows_in}).model_dump(mode="json"),
            ).at("prepared", self.ports.clock.now())
        )


def _refuse_one_line(file: str, data: bytes) -> None:
    """Refuse a file that would empty what Infracost holds. Raises InputRefused, which names the file.

    Bytes that are not UTF-8 are a matter of their row, which is rejected by its line.
    """
    try:
        check_properties(data.decode(errors="replace").encode())
    except InputRefused as error:
        raise InputRefused(error.reason, file=file, line=error.line, value=error.value, fix=error.fix) from None


def _values(
    found: PropertyFile, record: Record, rules: Mapping[str, Rules]
) -> tuple[list[str], tuple[str, str] | None]:
    """Return the values of a record, normalised, and what is wrong with them."""
    if record.problem:
        return [], (record.problem, "correct the record at the source, or the column's expression")
    values = []
    for number, (column, given) in enumerate(record.values.items()):
        rule = rules.get(column, Rules())
        value = rule.normalised(given)
        fault = rule.fault(value) if value or not number else None  # a property may be unknown, a key may not
        if fault is not None:
            return [], (f"column {column!r}: {fault[0]}", fault[1])
        values.append(value)
    if values[0] in found.rows:
        return [], (
            f"the key {values[0]!r} stands in a record before",
            "make the keys unique, or choose another column",
        )
    return values, None

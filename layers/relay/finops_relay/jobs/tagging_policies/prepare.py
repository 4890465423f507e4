"""Prepare the allowed values of a tag: from a file or a source of truth to one list in the spool.

Holds no Infracost credential; those of the sources only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
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
from finops_relay.formats.rejected_rows import RejectedFile, RejectedRow
from finops_relay.formats.source_hash import HashedSource
from finops_relay.formats.value_files import MAX_ROWS, SUFFIXES, open_values
from finops_relay.infracost.models import ValueType
from finops_relay.jobs.config import Effective, PolicyConfig, TagSync, one_spelling
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
from finops_relay.jobs.tagging_policies.remembered import KIND, Work, owned_name, target_name
from finops_relay.sync.rules import Rules
from finops_relay.sync.state import Setting, State

EMPTY, DUPLICATES = "empty", "duplicates"
"""Why rows are left out."""


def prepare(source: ObjectVersion, around: Around) -> Delivery | None:
    """Prepare what one S3 event tells of, as `finops_relay.jobs.syncing.preparing.prepare_drop` says."""
    return prepare_drop(source, around, KIND, _parsed, lambda *parts: _Preparation(around, *parts))


def run(delivery_id: str, around: Around) -> Delivery | None:
    """Run a sync that the schedule has begun, as `finops_relay.jobs.syncing.preparing.run_due` says."""
    return run_due(delivery_id, around, KIND, lambda *parts: _Preparation(around, *parts))


def begin(tick: datetime, around: Around, queue: Queue) -> list[Delivery]:
    """Begin the syncs of tags that are due, as `finops_relay.jobs.syncing.preparing.begin_due` says."""
    config = around.config().relay
    syncs = [
        Due(f"{policy}/{key}", tag.ask.source, config.sources[tag.ask.source].hour_utc, tag.plan_only)
        for policy, key, tag in config.synced_tags()
        if tag.ask is not None
    ]
    return begin_due(tick, around, KIND, syncs, queue)


def _parsed(key: str) -> DropPath:
    return drop_path.parse_tag(key, SUFFIXES)


@dataclass(frozen=True)
class _Row:
    """A value, and how its row is named should it be rejected."""

    value: str
    rejects: RejectedRow
    """With the fault that it has already; empty where it has none."""


@dataclass
class _Tally:
    """What the rows of a list came to."""

    values: dict[str, int] = field(default_factory=dict)
    """By normalised value: the row that it was first seen in."""
    rows_in: int = 0
    rejected: int = 0
    filtered: dict[str, int] = field(default_factory=dict)

    def take(self, row: _Row, rules: Rules, rejects: RejectedFile, *, skip_empty: bool) -> None:
        """Take one more row: keep its value, leave it out and count it, or reject it by name."""
        self.rows_in += 1
        value = rules.normalised(row.value)
        if not row.rejects.error and not value and skip_empty:
            self._leave_out(EMPTY)
            return
        fault = (row.rejects.error, row.rejects.fix) if row.rejects.error else rules.fault(value)
        if fault is None and value in self.values:
            if rules.duplicates == "filter":
                self._leave_out(DUPLICATES)
                return
            fault = f"the value stands in row {self.values[value]} already", "keep one"
        if fault is None:
            self.values[value] = row.rejects.line
            return
        self.rejected += 1
        one = row.rejects
        rejects.add("", RejectedRow(one.line, one.columns, one.values, *fault))

    def _leave_out(self, why: str) -> None:
        self.filtered[why] = self.filtered.get(why, 0) + 1

    def rows(self) -> Rows:
        """Return the counts: what is kept is owed to the vendor."""
        filtered = sum(self.filtered.values())
        owed = len(self.values)
        return Rows.model_validate({"in": self.rows_in, "filtered": filtered, "rejected": self.rejected, "owed": owed})


@dataclass
class _Preparation(Preparation[Work]):
    """One run of the preparation of one delivery."""

    settings: dict[str, Setting] = field(default_factory=dict)
    """Of the tag, that come with the values."""

    @override
    def prepared(self) -> Delivery:
        config = self.around.config()
        mends = self.mends(KIND, "list")
        policy, key = self._named(mends.original if mends else None)
        alias, known = _policy(config, policy)
        tag = known.tags.get(key, TagSync())
        slug = slug_of(known.slug, config, self.delivery.source.key)
        policy_id = one_spelling(known.id or policy)
        if self.path.meaning is Meaning.RUN:
            self.command = run_command(self.around.bucket, f"{KIND}/{alias}", key)
        work = Work(
            slug=slug,
            owned=owned_name(slug, policy_id, key),
            guards=tag.guards.over(config.relay.sync.guards),
            again=self.command,
            policy=alias,
            policy_id=policy_id,
            key=key,
            adopt=tag.adopt,
            mends=mends.original.id if mends else "",
        )
        ended = self.begun(work, target_name(slug, policy_id), config, mends)
        return ended if ended is not None else self._read(work, tag, config, mends)

    def _named(self, mends: Delivery | None) -> tuple[str, str]:
        """Return which policy's folder and which tag are meant."""
        if mends is not None:
            work = Work.model_validate(mends.work)
            return work.policy, work.key
        if self.source is not None:
            return self.path.policy, self.path.name
        _, _, policy, rest = self.delivery.source.key.split("/", 3)
        return policy, rest.rpartition("/")[0]

    def _read(self, work: Work, tag: TagSync, config: Effective, mends: Mends | None) -> Delivery:
        """Read every row, write the list to the spool, and return the delivery prepared and saved, or refused."""
        tally = _Tally()
        with RejectedFile() as rejects:
            rows = self._of_source(tag, config) if self.command else self._of_file(work, mends)
            for row in rows:
                tally.take(row, tag.rules, rejects, skip_empty=bool(self.command))
                if tally.rows_in > MAX_ROWS:
                    fix = "a list of allowed values has at most that many; narrow the source down"
                    raise InputRefused(f"there are more than {MAX_ROWS:,} rows", file=self.delivery.source.key, fix=fix)
            delivery = self.delivery.but(filtered_by=tally.filtered)
            delivery = self.with_rejects(delivery, rejects)
        if tally.rejected and not tally.values:
            rows_of = tally.rows()
            refused = rejected(self.ports, delivery.but(rows=rows_of), "every row was rejected", delivery.next_command)
            return conclude(self.ports, refused)
        return self._written(delivery, work.model_copy(update={"rows": tally.rows_in}), tag, tally)

    def _of_source(self, tag: TagSync, config: Effective) -> Iterator[_Row]:
        """Yield the rows of the source. Raises VendorError."""
        for record in self.records(tag.ask, config):
            (value,) = record.values.values()
            fix = "correct the record at the source, or the column's expression"
            yield _Row(value, rejected_record(record, record.values, record.problem, fix if record.problem else ""))

    def _of_file(self, work: Work, mends: Mends | None) -> Iterator[_Row]:
        """Yield the rows of the file. Raises InputRefused and what reading raises."""
        version = mends.base if mends else cast("ObjectVersion", self.source)
        lines = mends.rows.get("", {}) if mends else None
        with self.ports.drops.open(version) as raw:
            hashed = HashedSource(raw)
            found = open_values(version.key, work.key, cast("BinaryIO", hashed), lines)
            self.settings = dict(found.settings)
            for row in found.rows:
                yield _Row(row.value, RejectedRow(row.line, row.columns, row.cells, row.problem, row.fix))
            if mends is None:
                source = self.delivery.source.model_copy(update={"sha256": hashed.hexdigest()})
                self.delivery = self.delivery.but(source=source)

    def _written(self, delivery: Delivery, work: Work, tag: TagSync, tally: _Tally) -> Delivery:
        """Write the list to the spool, and return the delivery prepared and saved."""
        said: dict[str, Setting] = {"message": tag.message, "mandatory": tag.mandatory}
        settings = {name: value for name, value in said.items() if value is not None} | self.settings
        state = State(
            items=dict.fromkeys(sorted(tally.values), ""), settings={**settings, "value_type": ValueType.LIST.value}
        )
        body = state.model_dump_json().encode()
        key = f"{KIND}/{delivery.id}/desired.json"
        with self.ports.spool.writer(key, "application/json") as out:
            out.write(body)
        unit = Unit(
            seq=1,
            name=f"tag {work.key} of policy {work.policy}",
            rows=len(tally.values),
            bytes=len(body),
            sha256=sha256(body).hexdigest(),
            vendor_id=work.policy_id,
            spool_key=key,
        )
        return self.ports.ledger.save(
            delivery.but(
                stage="prepared",
                attempts=0,
                waits=0,
                reason="",
                source=self.delivery.source,
                rows=tally.rows(),
                units=(unit,),
                fingerprint=state.fingerprint,
                work=work.model_dump(mode="json"),
            ).at("prepared", self.ports.clock.now())
        )


def _policy(config: Effective, named: str) -> tuple[str, PolicyConfig]:
    """Return what relay.yaml says of a policy, named by its alias or its id; nothing, where it says nothing."""
    policies = config.relay.tagging_policies
    if named in policies:
        return named, policies[named]
    plain = one_spelling(named)
    found = ((alias, known) for alias, known in policies.items() if one_spelling(known.id or alias) == plain)
    return next(found, (named, PolicyConfig()))

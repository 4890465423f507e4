"""Prepare telemetry: from a dropped file to records, added up, in the spool. Holds no vendor credential."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import BinaryIO, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from finops_relay.cloudzero.records import ContractName
from finops_relay.delivery.defaults import Defaults
from finops_relay.delivery.identity import ObjectVersion, digest, order_of
from finops_relay.delivery.ledger import Delivery
from finops_relay.delivery.ports import Ports
from finops_relay.delivery.receipt import Outcome, Rows, Usage, rejected_key
from finops_relay.delivery.telling import conclude
from finops_relay.delivery.waits import Waits
from finops_relay.errors import InputRefused, ShortRead, SourceChanged, SourceForbidden, SourceGone
from finops_relay.formats.archives import Budget, Ceilings
from finops_relay.formats.rejected_rows import RejectedFile, RejectedRow, read_mended
from finops_relay.formats.source_hash import HashedSource
from finops_relay.formats.telemetry import Dialect, Ident, Shape, Total, day_of, moment_of
from finops_relay.formats.telemetry_files import TelemetryReader, open_telemetry_file
from finops_relay.jobs import mended
from finops_relay.jobs.config import in_force
from finops_relay.jobs.contract import Tenant, ask, known_contract
from finops_relay.jobs.handing import hand_over, named
from finops_relay.jobs.opening import (
    MAX_WAITS,
    Opened,
    heard,
    opened,
    read_to_its_end,
    refuse_without_time,
    rejected,
    waiting,
)
from finops_relay.jobs.telemetry import drop_path
from finops_relay.jobs.telemetry.books import Verb
from finops_relay.jobs.telemetry.content import crowded, entry_of, erasing, let_go, lines_of, total_of, weight, written
from finops_relay.jobs.telemetry.drop_path import DropPath, Meaning
from finops_relay.jobs.telemetry.remembered import KIND, Stream, Work, content_key, stream_name, target_name

NOUN = "file of records"
REFUSED_FIX = "correct the record as CloudZero says, and drop it back"
MAX_STREAM_FILE_BYTES = 10_000
HOURS_OF_A_DAY = 24

Refusals = Mapping[Ident, tuple[str, str]]
"""Records that the vendor refused, as they were dropped: error and fix."""


class _Naming(BaseModel):
    """What a file says that deletes a stream."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stream: str


def prepare(source: ObjectVersion, ports: Ports, defaults: Defaults, waits: Waits, tenant: Tenant) -> Delivery | None:
    """Prepare what one S3 event tells of; return its delivery, None where the event makes none.

    Raises:
        Wait: the object cannot be read now, or nobody knows the tenant's contract yet; the message comes back later.
        LedgerConflict: another run is at it.
    """
    path, refusal = _understood(source.key)
    if path.meaning is Meaning.NOTHING:
        return None
    found = opened(ports, source, kind=KIND, dry_run=path.dry_run)
    if not isinstance(found, Opened):
        return found
    with heard(ports, found.delivery.id, waits):
        run = _Preparation(ports, defaults, waits, tenant, path, source, found.delivery)

        def story() -> Delivery:
            if refusal is not None:
                raise refusal
            prepared = run.prepared()
            return hand_over(ports, prepared, entry_of(prepared))

        return read_to_its_end(ports, source, waits, lambda: run.delivery, story)


def _understood(key: str) -> tuple[DropPath, InputRefused | None]:
    """Return what a key means, and why it is refused if it means nothing that we know."""
    try:
        return drop_path.parse(key), None
    except InputRefused as error:
        return DropPath(Meaning.FILE, dry_run=key.startswith("plan/")), error


def name_rejected(delivery_id: str, ports: Ports, waits: Waits) -> Delivery | None:
    """Write the rows of refused records into the file of rejected rows, with the columns that they came in.

    Returns:
        The delivery, sent back to where it goes on; None when there is none of this id.

    Raises:
        Wait: the source cannot be read now.
        LedgerConflict: another run is at it.
    """
    return named(
        ports,
        waits,
        delivery_id,
        KIND,
        lambda delivery: _named(delivery, ports),
        lambda delivery: Work.model_validate(delivery.work).named,
    )


def _named(delivery: Delivery, ports: Ports) -> Delivery:
    """Return the delivery with its refused rows named; where the source is gone, its end says which records."""
    work = Work.model_validate(delivery.work)
    if work.queued:
        delivery = _named_of_queue(delivery, work, ports)
    else:
        version = mended.version_of(delivery)
        run = _Preparation(ports, Defaults(), Waits(), Tenant(""), drop_path.parse(version.key), version, delivery)
        try:
            delivery = run.rejects_with(_refusals(work))
        except (SourceGone, SourceChanged, InputRefused, SourceForbidden, ShortRead) as error:
            if isinstance(error, SourceForbidden | ShortRead) and delivery.waits < MAX_WAITS:
                raise
            for one in work.removed:
                said = f"{moment_of(one.period).isoformat()} {'/'.join(one.labels)}"
                delivery = delivery.warn(f"CloudZero refused the record {said}: {one.words}")
            delivery = delivery.warn(f"the refused rows could not be read again: {error}")
    done = work.model_copy(update={"named": len(work.removed)})
    return delivery.but(work=done.model_dump(mode="json"))


def _refusals(work: Work) -> Refusals:
    """Return the refused records as they were dropped: hours, where they were sent as days."""
    hours = HOURS_OF_A_DAY if work.rolled_up else 1
    return {
        Ident(one.period + hour, one.labels): (f"CloudZero refused the record: {one.words}", REFUSED_FIX)
        for one in work.removed
        for hour in range(hours)
    }


def _named_of_queue(delivery: Delivery, work: Work, ports: Ports) -> Delivery:
    """Return a delivery of the queue with its refused records named; what came in is in the running totals only."""
    refused = _refusals(work)
    element = ("element_name",) if work.dialect.named else ()
    columns = ("stream", "kind", "granularity", "timestamp", *element, *work.keys, "value", "records")
    with RejectedFile() as rejects:
        for day in work.days:
            for line in lines_of(ports, delivery.id, day):
                if line.ident in refused:
                    when = moment_of(line.period).isoformat().replace("+00:00", "Z")
                    values = (work.stream, work.kind, work.granularity, when, *line.labels)
                    row = (*values, format(line.value, "f"), str(line.rows))
                    rejects.add("", RejectedRow(line.line, columns, row, *refused[line.ident]))
        key = f"rejected/{delivery.id}.records.csv"
        with ports.drops.writer(key, "text/csv") as out:
            rejects.write_to(out.write)
    address = f"s3://{delivery.source.bucket}/{key}"
    return delivery.but(rejected_rows=delivery.rejected_rows or address).warn(f"refused records are named in {address}")


@dataclass
class _Preparation:
    """One run of the preparation of one delivery."""

    ports: Ports
    defaults: Defaults
    waits: Waits
    tenant: Tenant
    path: DropPath
    source: ObjectVersion
    delivery: Delivery
    """As it was last saved, with what is known of it; for whoever ends it when this run cannot."""
    ceilings: Ceilings = field(default_factory=Ceilings)
    base: ObjectVersion | None = None
    """What mended rows belong to; None where the dropped object itself is read."""

    def prepared(self) -> Delivery:
        """Return the delivery prepared and saved, or ended. Raises InputRefused, Wait, and what reading raises."""
        if self.delivery.stage == "prepared":
            return self.delivery
        contract = known_contract(self.ports, self.tenant)
        if contract is None:
            why = ask(self.ports, self.tenant, self.delivery)
            raise waiting(self.ports, self.delivery, self.waits.after(self.delivery.waits), why)
        self.delivery = self._addressed(contract)
        if self.path.meaning is Meaning.STREAM:
            return self._whole_stream()
        rows, only = self._mended()
        with RejectedFile() as rejects:
            reader, totals, hashed = self._read(rows, only, rejects)
            return self._judged(reader, totals, hashed, rejects)

    def rejects_with(self, refusals: Refusals) -> Delivery:
        """Return the delivery with its file of rejected rows written anew. Raises as prepared, but for Wait."""
        rows, only = self._mended()
        with RejectedFile() as rejects:
            self._read(rows, only, rejects, refusals)
            return mended.with_rejects(self.ports, self.delivery, rejects)

    def _work(self) -> Work:
        return Work.model_validate(self.delivery.work)

    def _addressed(self, contract: ContractName) -> Delivery:
        """Return the delivery with its target."""
        target = target_name(self.path.stream)
        work = Work(
            stream=self.path.stream,
            kind=self.path.kind,
            verb=self.path.verb,
            contract=contract.value,
            whole_stream=self.path.meaning is Meaning.STREAM,
        )
        return self.delivery.but(
            target=target,
            # A plan only reads: it need not wait behind a delivery.
            group=digest(f"plan/{target}" if self.delivery.dry_run else target),
            work=work.model_dump(mode="json"),
            config_version=in_force(self.ports.ledger, self.defaults).version_id,
        )

    def _stream(self) -> Shape | None:
        """Return what the stream has frozen; None where nobody knows, or where it is of the other kind anyway."""
        stream = Stream.model_validate(self.ports.ledger.record(stream_name(self.path.stream)).content)
        if stream.kind != self.path.kind or erasing(self.ports, self.path.stream, self.delivery.order) == "stream":
            return None  # what it is then, the function that delivers knows
        return stream.shape

    # --- a stream that is deleted -------------------------------------------------------------------------------------

    def _whole_stream(self) -> Delivery:
        """Return the delivery of a file that deletes a stream. Raises InputRefused and what reading raises."""
        fix = f'write {{"stream": "{self.path.stream}"}} to delete the stream with all that it holds'
        with self.ports.drops.open(self.source) as stream:
            text = stream.read(MAX_STREAM_FILE_BYTES + 1)
        if len(text) > MAX_STREAM_FILE_BYTES:
            raise InputRefused("the file is too large for a stream's name", file=self.source.key, fix=fix)
        try:
            named = _Naming.model_validate(json.loads(text.decode("utf-8-sig"))).stream
        except (ValidationError, ValueError, RecursionError):
            raise InputRefused("the file does not name the stream", file=self.source.key, fix=fix) from None
        if named != self.path.stream:
            raise InputRefused("the file names another stream", file=self.source.key, value=named, fix=fix)
        rows = Rows.model_validate({"in": 1, "owed": 1})
        return self._saved(self.delivery.but(rows=rows, fingerprint=digest("stream", named)))

    # --- what is read -------------------------------------------------------------------------------------------------

    def _mended(self) -> tuple[Mapping[int, Mapping[str, str]], frozenset[int] | None]:
        """Return mended rows by line, and the lines that are read where not all are. Raises as mending.

        What replaces or deletes goes whole again; of what adds, the mended rows go alone.
        """
        if self.path.meaning is not Meaning.MENDED:
            return {}, None
        found = mended.mending(self.ports, self.source, self.path.mends, kind=KIND, place=drop_path.place, whole=NOUN)
        work = self._work().model_copy(update={"mends": found.original.id})
        # As old as what it mends: a newer version of it is not replaced by an older one with mended rows.
        order = f"{found.original.order}+{order_of(self.source)}"
        self.delivery = self.delivery.but(order=order, work=work.model_dump(mode="json"))
        rows = found.rows.get("", {})
        self.base = mended.version_of(found.base)
        if self.path.verb is not Verb.SUM:
            return rows, None
        return rows, self._only_these(found)

    def _only_these(self, found: mended.Mending) -> frozenset[int]:
        """Return the lines that were mended. Raises InputRefused where a row was sent already, or may be yet."""
        original = found.original
        if not original.outcome.final:
            fix = "wait until it has ended, or decide about it; then drop the mended rows again"
            raise InputRefused(f"delivery {original.id} has not ended", file=self.source.key, fix=fix)
        with self.ports.drops.open(self.source) as stream:
            mine = read_mended(stream, self.source.key).get("", {})
        key = rejected_key(original.id)
        with self.ports.drops.open(self.ports.drops.pin(original.source.bucket, key)) as stream:
            theirs = read_mended(stream, key).get("", {})
        taken = self._taken_before(original.id, set(mine))
        sent = sorted((set(mine) - set(theirs)) | taken)
        if sent:
            fix = "keep only rows of the rejected-rows file: what was added once must not be added again"
            reason = f"this row was not rejected by delivery {original.id}, and was sent"
            raise InputRefused(reason, file=self.source.key, value=str(sent[0]), fix=fix)
        return frozenset(mine)

    def _taken_before(self, original: str, lines: set[int]) -> set[int]:
        """Return the lines that another file of mended rows has added, or will; remember the others as this one's."""
        record = self.ports.ledger.record(f"mended#{original}")
        known: dict[str, str] = dict(record.content)
        taken = set[int]()
        for line in lines:
            other = self.ports.ledger.delivery(known.get(str(line), self.delivery.id))
            mine = other is None or other.id == self.delivery.id
            if not mine and other is not None and other.outcome not in {Outcome.REJECTED, Outcome.SUPERSEDED}:
                taken.add(line)
        if not taken:
            self.ports.ledger.save_record(record.but(content=known | {str(line): self.delivery.id for line in lines}))
        return taken

    def _read(
        self,
        rows: Mapping[int, Mapping[str, str]],
        only: frozenset[int] | None,
        rejects: RejectedFile,
        refusals: Refusals | None = None,
    ) -> tuple[TelemetryReader, dict[Ident, Total], str]:
        """Read the file; return its reader, its records, and the hash of what was dropped."""
        work, version = self._work(), self.base or self.source
        known = Shape(work.granularity, work.keys) if refusals is not None else self._stream()
        budget = Budget(self.ceilings, tick=lambda file: refuse_without_time(self.ports, file, "the records"))
        reader = TelemetryReader(
            version.key,
            Dialect(work.kind, work.live),
            known,
            rows or None,
            deletion=work.verb is Verb.DELETE,
            refused=refusals,
            only=only,
            budget=budget,
        )
        with self.ports.drops.open(version) as raw:
            hashed = HashedSource(raw)
            stream = open_telemetry_file(version.key, cast("BinaryIO", hashed), version.size_bytes, budget)
            totals = reader.totals(stream, lambda row: rejects.add("", row))
            sha256 = hashed.hexdigest() if version is self.source else ""
        return reader, totals, sha256

    # --- what is written ----------------------------------------------------------------------------------------------

    def _judged(
        self, reader: TelemetryReader, totals: Mapping[Ident, Total], sha256: str, rejects: RejectedFile
    ) -> Delivery:
        """Return the delivery prepared and saved, or refused because of what its rows are."""
        good = sum(total.rows for total in totals.values())
        bad = reader.rows_in - good
        source = self.delivery.source
        delivery = mended.with_rejects(self.ports, self.delivery, rejects).warn(*reader.warnings)
        delivery = delivery.but(
            rows=Rows.model_validate({"in": reader.rows_in, "rejected": bad, "owed": good}),
            source=source.model_copy(update={"sha256": sha256}) if sha256 else source,
        )
        if not good:
            none = f"all {reader.rows_in:,} rows were rejected; mend them and drop them back"
            return conclude(self.ports, rejected(self.ports, delivery, none, delivery.next_command))
        weights = Counter[str]()
        for ident in totals:
            weights[day_of(ident.period)] += weight(ident)
        over = crowded(weights)
        if over:
            raise InputRefused(over, file=self.source.key)
        work, shape = self._work(), reader.shape
        assert shape is not None  # noqa: S101 -- there is a good record, which has one
        days, hashed = written(self.ports, delivery, totals)
        usage = Usage() if work.verb is Verb.DELETE else Usage(in_=total_of(total.value for total in totals.values()))
        work = work.model_copy(update={"granularity": shape.granularity, "keys": shape.keys, "days": days})
        fingerprint = digest(work.contract, work.verb, work.mends, str(shape), hashed)
        try:
            return self._saved(delivery.but(usage=usage, fingerprint=fingerprint, work=work.model_dump(mode="json")))
        except BaseException:
            self._release(days)
            raise

    def _saved(self, delivery: Delivery) -> Delivery:
        prepared = delivery.but(stage="prepared", attempts=0, waits=0, reason="")
        return self.ports.ledger.save(prepared.at("prepared", self.ports.clock.now()))

    def _release(self, days: tuple[str, ...]) -> None:
        """Let what was written expire, unless another run has prepared the same under the same names."""
        known = self.ports.ledger.delivery(self.delivery.id)
        if known is not None and known.stage != "preparing":
            return
        let_go(self.ports, [content_key(self.delivery.id, day) for day in days])

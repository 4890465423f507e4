"""Prepare a billing drop: from a file of costs to bodies in the spool. Holds no vendor credential."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from typing import BinaryIO, cast

from finops_relay.cloudzero.records import ContractName
from finops_relay.delivery.defaults import Defaults
from finops_relay.delivery.identity import ObjectVersion, digest, order_of
from finops_relay.delivery.ledger import Delivery
from finops_relay.delivery.packer import Body
from finops_relay.delivery.ports import Ports
from finops_relay.delivery.receipt import ColumnMoney, Money, Rows, Unit, rejected_key
from finops_relay.delivery.telling import conclude
from finops_relay.delivery.waits import Waits
from finops_relay.errors import InputRefused, LedgerConflict, ShortRead, SourceChanged, SourceForbidden, SourceGone
from finops_relay.formats.archives import Budget, Ceilings
from finops_relay.formats.cost_cells import SUM_CONTEXT
from finops_relay.formats.cost_files import CostFileReader, open_cost_file, readable_cost
from finops_relay.formats.cost_rows import COST
from finops_relay.formats.rejected_rows import RejectedFile, RejectedRow, read_mended
from finops_relay.formats.source_hash import HashedSource
from finops_relay.jobs import mended
from finops_relay.jobs.billing import drop_path
from finops_relay.jobs.billing.bodies import origins_key
from finops_relay.jobs.billing.drop_path import DropPath, Meaning
from finops_relay.jobs.billing.judging import over_limit
from finops_relay.jobs.billing.money import rest_rejected
from finops_relay.jobs.billing.packing import Packing
from finops_relay.jobs.billing.remembered import KIND, BodyPlan, Hour, Manifest, Work, target_name
from finops_relay.jobs.billing.state import manifest_key, put_manifest
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
from finops_relay.jobs.pinning import pinned, pinned_parts
from finops_relay.jobs.turns import Waiting

MAX_PARTS = 200
NOUN = "file of costs"
REFUSED_FIX = "correct the row as CloudZero says, and drop it back"

Refusals = dict[int, dict[int, tuple[str, str]]]
"""Rows that are good costs and cannot be sent: part's number -> line -> error and fix."""


def prepare(source: ObjectVersion, ports: Ports, defaults: Defaults, waits: Waits, tenant: Tenant) -> Delivery | None:
    """Prepare what one S3 event tells of; return its delivery, None where the event makes none.

    Raises:
        Wait: the object cannot be read now, or nobody knows the tenant's contract yet; the message comes back later.
        LedgerConflict: another run is at it.
    """
    path, refusal = _understood(source.key)
    if path.meaning in {Meaning.NOTHING, Meaning.PART}:
        return None
    found = opened(ports, source, kind=KIND, dry_run=path.dry_run)
    if not isinstance(found, Opened):
        return found
    with heard(ports, found.delivery.id, waits):
        if found.delivery.stage == "prepared":
            return hand_over(ports, found.delivery, _entry(found.delivery))
        run = _Preparation(ports, defaults, waits, tenant, path, source, found.delivery)

        def story() -> Delivery:
            if refusal is not None:
                raise refusal
            prepared = run.prepared()
            return hand_over(ports, prepared, _entry(prepared))

        return read_to_its_end(ports, source, waits, lambda: run.delivery, story)


def _understood(key: str) -> tuple[DropPath, InputRefused | None]:
    """Return what a key means, and why it is refused if it means nothing that we know."""
    try:
        return drop_path.parse(key), None
    except InputRefused as error:
        return DropPath(Meaning.FILE, dry_run=key.startswith("plan/")), error


def _entry(delivery: Delivery) -> Waiting:
    work = Work.model_validate(delivery.work)
    return Waiting(
        order=delivery.order,
        key=work.key,
        month=work.month,
        whole_month=work.whole_month,
        addition=bool(work.adds_to),
    )


def name_rejected(delivery_id: str, ports: Ports, waits: Waits) -> Delivery | None:
    """Write the rows that the vendor refused into the file of rejected rows, with the columns that they came in.

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
    """Return the delivery with its refused rows named; where the source is gone, in its warnings."""
    work = Work.model_validate(delivery.work)
    refusals: Refusals = {}
    for row in work.removed:
        member, line = Packing.origin_of(row.origin)
        refusals.setdefault(member, {})[line] = (f"CloudZero refused the row: {row.words}", REFUSED_FIX)
    version = mended.version_of(delivery)
    run = _Preparation(ports, Defaults(), Waits(), Tenant(""), drop_path.parse(version.key), version, delivery)
    try:
        delivery = run.rejects_with(refusals)
    except (SourceGone, SourceChanged, InputRefused, SourceForbidden, ShortRead) as error:
        if isinstance(error, SourceForbidden | ShortRead) and delivery.waits < MAX_WAITS:
            raise
        for row in work.removed:
            _, line = Packing.origin_of(row.origin)
            delivery = delivery.warn(f"line {line}: CloudZero refused the row: {row.words}")
        delivery = delivery.warn(f"the refused rows could not be read again: {error}")
    done = work.model_copy(update={"named": len(work.removed)})
    return delivery.but(work=done.model_dump(mode="json"))


@dataclass(frozen=True)
class _Sources:
    """What is read for one delivery."""

    delivery: Delivery
    parts: tuple[ObjectVersion, ...]
    mended: mended.Rows = field(default_factory=dict)
    only: Mapping[str, frozenset[int]] | None = None
    """Where mended rows are sent alone: their lines, by file."""


@dataclass
class _Tally:
    """What the files of a delivery added up to."""

    rows_in: int = 0
    rejected_cost: Decimal | None = None
    sha256: str = ""
    warnings: list[str] = field(default_factory=list)

    def reject(self, form: str, row: RejectedRow) -> None:
        """Add what a rejected row would have cost."""
        cost = readable_cost(form, row)
        if cost is not None:
            with localcontext(SUM_CONTEXT):
                self.rejected_cost = (self.rejected_cost or Decimal(0)) + cost


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
    written: list[str] = field(default_factory=list)
    """Keys in the spool."""

    def prepared(self) -> Delivery:
        """Return the delivery prepared and saved, or ended. Raises InputRefused, Wait, and what reading raises."""
        contract = known_contract(self.ports, self.tenant)
        if contract is None:
            why = ask(self.ports, self.tenant, self.delivery)
            raise waiting(self.ports, self.delivery, self.waits.after(self.delivery.waits), why)
        sources = self._sources(self._addressed(contract))
        self.delivery = sources.delivery
        refusals: Refusals = {}
        try:
            while True:
                with self._packing() as packing, RejectedFile() as rejects:
                    tally = self._read(sources, packing, rejects, refusals)
                    if not packing.refused:
                        return self._judged(sources, packing, rejects, tally)
                    _add(refusals, packing.refused)  # and once more, with these rows among the rejected
        except LedgerConflict:  # another run prepares the same file under the same names: they are its own now
            raise
        except BaseException:
            self._release()
            raise

    def rejects_with(self, refusals: Refusals) -> Delivery:
        """Return the delivery with its file of rejected rows written anew. Raises as prepared, but for Wait."""
        sources = self._sources(self.delivery)
        while True:
            with self._packing() as packing, RejectedFile() as rejects:
                self._read(sources, packing, rejects, refusals)
                if not packing.refused:
                    return mended.with_rejects(self.ports, self.delivery, rejects)
                _add(refusals, packing.refused)

    def _work(self) -> Work:
        return Work.model_validate(self.delivery.work)

    def _packing(self) -> Packing:
        from finops_relay.cloudzero.connect import CLIENTS  # noqa: PLC0415 -- loads httpx, which the first message does

        work = self._work()
        contract = ContractName(work.contract)
        return Packing(
            CLIENTS[contract],
            self.path.month,
            whole_month=work.whole_month,
            appends_only=contract is ContractName.OPENAPI,
            max_bytes=self.tenant.body_bytes,
        )

    def _addressed(self, contract: ContractName) -> Delivery:
        """Return the delivery with its target and the settings that it will use to its end."""
        config = in_force(self.ports.ledger, self.defaults)
        rules = config.billing.for_connection(self.path.connection)
        target = target_name(self.path.connection)
        work = Work(
            connection=self.path.connection,
            month=f"{self.path.month:%Y-%m}",
            contract=contract.value,
            whole_month=self.path.whole_month,
            key=drop_path.for_real(self.source.key),
            months_open=rules.months_open,
            overlap=rules.overlap,
        )
        return self.delivery.but(
            target=target,
            # A plan only reads: it need not wait behind a delivery.
            group=digest(f"plan/{target}" if self.delivery.dry_run else target),
            work=work.model_dump(mode="json"),
            config_version=config.version_id,
        )

    # --- what is read -------------------------------------------------------------------------------------------------

    def _sources(self, delivery: Delivery) -> _Sources:
        """Return what is read for the delivery: the file, the parts of a folder, what was mended of either."""
        if self.path.meaning is not Meaning.MENDED:
            base = self._pinned(delivery)
            return _Sources(base, self._parts(base))
        found = mended.mending(self.ports, self.source, self.path.mends, kind=KIND, place=drop_path.place, whole=NOUN)
        base = self._pinned(found.base)
        work = Work.model_validate(delivery.work)
        key = drop_path.for_real(found.base.source.key)
        update: dict[str, object] = {"key": key}
        only = None
        if work.contract == ContractName.OPENAPI:
            only = self._only_these(found)
        if only is not None:
            update = {"adds_to": key}
        former = Work.model_validate(found.original.work).mended
        update |= {"mends": found.original.id, "mended": (found.original.id, *former)}
        # As old as what it mends: a newer version of it is not replaced by an older one with mended rows.
        order = f"{found.original.order}+{order_of(self.source)}"
        delivery = delivery.but(order=order, work=work.model_copy(update=update).model_dump(mode="json"))
        return _Sources(delivery, self._parts(base), found.rows, only)

    def _only_these(self, found: mended.Mending) -> Mapping[str, frozenset[int]] | None:
        """Return the lines that were mended, where their file has sent the others and cannot send them again.

        Raises InputRefused where it is not known what was sent, or a row was sent already.
        """
        original = found.original
        if not original.outcome.final:
            fix = "wait until it has ended, or decide about it; then drop the mended rows again"
            raise InputRefused(f"delivery {original.id} has not ended", file=self.source.key, fix=fix)
        if not (original.rows.accepted or found.base.rows.accepted or original.work.get("adds_to")):
            return None
        bucket = original.source.bucket
        with self.ports.drops.open(self.source) as stream:
            mine = read_mended(stream, self.source.key)
        with self.ports.drops.open(self.ports.drops.pin(bucket, rejected_key(original.id))) as stream:
            theirs = read_mended(stream, rejected_key(original.id))
        for member, lines in mine.items():
            sent = sorted(set(lines) - set(theirs.get(member, {})))
            if sent:
                fix = "keep only rows of the rejected-rows file: under this contract what was sent cannot be replaced"
                where = f"{member}:{sent[0]}" if member else str(sent[0])
                reason = f"this row was not rejected by delivery {original.id}, and was sent"
                raise InputRefused(reason, file=self.source.key, value=where, fix=fix)
        return {member: frozenset(lines) for member, lines in mine.items()}

    def _pinned(self, delivery: Delivery) -> Delivery:
        if drop_path.parse(delivery.source.key).meaning is not Meaning.MARKER:
            return delivery
        return pinned(self.ports, delivery, is_part=drop_path.is_part, most=MAX_PARTS, noun=NOUN)

    @staticmethod
    def _parts(base: Delivery) -> tuple[ObjectVersion, ...]:
        return pinned_parts(base) or (mended.version_of(base),)

    def _read(self, sources: _Sources, packing: Packing, rejects: RejectedFile, refusals: Refusals) -> _Tally:
        """Read every part into *packing*. Raises InputRefused and what reading raises."""
        tally = _Tally()
        budget = Budget(self.ceilings, tick=lambda file: refuse_without_time(self.ports, file, "the costs"))
        several = rejects.several = len(sources.parts) > 1
        known = set[str]()
        for member, part in enumerate(sources.parts):
            name = part.key.rpartition("/")[2] if several else ""
            known.add(name)
            only = None if sources.only is None else sources.only.get(name, frozenset())
            reader = CostFileReader(
                part.key,
                self.path.month,
                sources.mended.get(name) or None,
                budget=budget,
                refused=refusals.get(member),
                only=only,
            )
            with self.ports.drops.open(part) as raw:
                hashed = HashedSource(raw)

                def reject(row: RejectedRow, name: str = name, reader: CostFileReader = reader) -> None:
                    rejects.add(name, row)
                    tally.reject(reader.form, row)

                stream = open_cost_file(part.key, cast("BinaryIO", hashed), part.size_bytes, budget)
                packing.add_file(member, reader, stream, reject)
                if part.key == self.delivery.source.key:
                    tally.sha256 = hashed.hexdigest()
            tally.rows_in += reader.rows_in
            tally.warnings += [f"{name}: {warning}" if name else warning for warning in reader.warnings]
        _refuse_unknown(self.source.key, sources.mended, known)
        return tally

    # --- what is written ----------------------------------------------------------------------------------------------

    def _judged(self, sources: _Sources, packing: Packing, rejects: RejectedFile, tally: _Tally) -> Delivery:
        """Return the delivery prepared and saved, or refused because of what its rows are."""
        delivery = mended.with_rejects(self.ports, sources.delivery, rejects).warn(*tally.warnings)
        delivery = delivery.but(
            money=_money(packing, tally),
            source=delivery.source.model_copy(update={"sha256": tally.sha256}) if tally.sha256 else delivery.source,
        )
        over = over_limit(self._work().month, packing.rows, packing.size)
        if over or not packing.rows:
            none = f"all {tally.rows_in:,} rows were rejected; mend them and drop them back"
            rows = Rows.model_validate({"in": tally.rows_in, "rejected": tally.rows_in})
            delivery = delivery.but(rows=rows, money=rest_rejected(delivery.money))
            return conclude(self.ports, rejected(self.ports, delivery, over or none, delivery.next_command))
        refused = tally.rows_in - packing.rows
        rows = Rows.model_validate({"in": tally.rows_in, "rejected": refused, "owed": packing.rows})
        units, manifest = self._written(packing)
        delivery = delivery.warn(*_doubled(packing, sources))
        key = manifest_key(delivery.id)
        put_manifest(self.ports, key, manifest)
        work = Work.model_validate(delivery.work).model_copy(update={"manifest": key})
        mode = "month" if work.whole_month else "hours"
        return self.ports.ledger.save(
            delivery.but(
                stage="prepared",
                attempts=0,
                waits=0,
                reason="",
                rows=rows,
                units=units,
                fingerprint=digest(work.contract, mode, work.adds_to, *(unit.sha256 for unit in units)),
                work=work.model_dump(mode="json"),
            ).at("prepared", self.ports.clock.now())
        )

    def _written(self, packing: Packing) -> tuple[tuple[Unit, ...], Manifest]:
        """Write the bodies, and the origins of their rows, into the spool."""
        units: list[Unit] = []
        plans: dict[str, BodyPlan] = {}
        pieces: dict[int, list[tuple[int, int, str]]] = {}
        with _writing(self.ports, self._body_key) as (begin, end):
            for body in packing.bodies(begin):
                end()
                key = self._body_key(body.seq)
                self.written += [key, origins_key(key)]
                with self.ports.spool.writer(origins_key(key), "application/octet-stream") as out:
                    out.write(body.origins.tobytes())
                units.append(_unit(body, key))
                plans[key] = BodyPlan(mode=body.mode, rows=tuple((piece.hour, piece.rows) for piece in body.pieces))
                for piece in body.pieces:
                    pieces.setdefault(piece.hour, []).append((piece.rows, piece.length + 1, piece.sha256))
        work, totals = self._work(), packing.hours
        hours = {
            hour: Hour(
                rows=sum(rows for rows, _, _ in parts),
                bytes=sum(size for _, size, _ in parts),
                sha256=parts[0][2] if len(parts) == 1 else digest(*(hashed for _, _, hashed in parts)),
                costs=totals[hour].costs,
            )
            for hour, parts in pieces.items()
        }
        manifest = Manifest(
            delivery=self.delivery.id,
            contract=work.contract,
            connection=work.connection,
            month=work.month,
            hours=hours,
            bodies=plans,
        )
        return tuple(units), manifest

    def _body_key(self, seq: int) -> str:
        return f"billing/{self.delivery.id}/{seq:04d}.json"

    def _release(self) -> None:
        """Let what was written to the spool expire, unless another run has prepared the same under the same names."""
        known = self.ports.ledger.delivery(self.delivery.id)
        if known is not None and known.stage != "preparing":
            return
        for key in self.written:
            self.ports.spool.release(key)
        self.written.clear()


@contextmanager
def _writing(
    ports: Ports, key_of: Callable[[int], str]
) -> Iterator[tuple[Callable[[int], Callable[[bytes], object]], Callable[[], None]]]:
    """Give what begins a body in the spool, and what ends it; an exception leaves nothing of it behind."""
    with ExitStack() as whole:
        body = whole.enter_context(ExitStack())

        def begin(seq: int) -> Callable[[bytes], object]:
            return body.enter_context(ports.spool.writer(key_of(seq), "application/json")).write

        yield begin, body.close


def _unit(body: Body, key: str) -> Unit:
    return Unit(
        seq=body.seq, name=f"body {body.seq}", rows=body.rows, bytes=body.bytes, sha256=body.sha256, spool_key=key
    )


def _money(packing: Packing, tally: _Tally) -> Money:
    """Return the money that came in: of good rows, and of those rejected ones whose amount could be read."""
    columns = dict(packing.totals)
    if tally.rejected_cost is not None:
        with localcontext(SUM_CONTEXT):
            columns[COST] = columns.get(COST, Decimal(0)) + tally.rejected_cost
    by_column = {name: ColumnMoney(in_=amount) for name, amount in columns.items()}
    return Money(in_=columns.get(COST), rejected=tally.rejected_cost, by_column=by_column)


def _doubled(packing: Packing, sources: _Sources) -> Iterator[str]:
    """Yield what a receipt says of rows that stand more than once."""
    found = packing.duplicates
    if not found.rows:
        return
    places = []
    for example in found.examples:
        member, line = Packing.origin_of(example.origin)
        name = sources.parts[member].key.rpartition("/")[2]
        places.append(f"{name}:{line}" if len(sources.parts) > 1 else f"line {line}")
    yield (
        f"{found.rows:,} rows stand more than once in their hour, all columns alike ({', '.join(places)}); they were"
        " kept: if they are one cost each, give them a lineitem/id; if not, remove them and drop the file again"
    )


def _add(refusals: Refusals, more: Mapping[int, Mapping[int, tuple[str, str]]]) -> None:
    for member, lines in more.items():
        refusals.setdefault(member, {}).update(lines)


def _refuse_unknown(file: str, rows: mended.Rows, known: set[str]) -> None:
    """Refuse mended rows of a file that the delivery does not have: they would be lost without a word."""
    unknown = sorted(set(rows) - known)
    if unknown:
        fix = "keep the line column as the rejected-rows file had it"
        reason = "a mended row names a file that the delivery does not have"
        raise InputRefused(reason, file=file, value=unknown[0], fix=fix)

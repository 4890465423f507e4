"""Prepare a price book: from what was dropped to checked files in the spool. Holds no vendor credential."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, BinaryIO, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from finops_relay.delivery.defaults import Defaults
from finops_relay.delivery.identity import ObjectVersion, digest
from finops_relay.delivery.ledger import Delivery
from finops_relay.delivery.ports import Ports, SpoolWriter
from finops_relay.delivery.receipt import Rows, Unit
from finops_relay.delivery.telling import conclude
from finops_relay.delivery.waits import Waits
from finops_relay.errors import (
    ConfigRefused,
    InputRefused,
    LedgerConflict,
)
from finops_relay.formats.archives import Budget, Ceilings, Member, csv_members
from finops_relay.formats.price_sheets import MemberCounts, PriceBookReader, Provider, SheetRules
from finops_relay.formats.rejected_rows import RejectedFile
from finops_relay.formats.source_hash import HashedSource
from finops_relay.jobs import mended
from finops_relay.jobs.config import Effective, in_force
from finops_relay.jobs.handing import queued
from finops_relay.jobs.opening import (
    Opened,
    change_target,
    heard,
    opened,
    read_to_its_end,
    refuse_without_time,
    rejected,
)
from finops_relay.jobs.pinning import Listed, listed, pin, pinned_parts
from finops_relay.jobs.price_books import drop_path
from finops_relay.jobs.price_books.drop_path import DropPath, Meaning
from finops_relay.jobs.price_books.remembered import KIND, Shelf, Work, target_name

MAX_SMALL_FILE_BYTES = 1_000_000
"""Of a manifest or a rollback.json."""
MAX_NAME = 1_024
"""Characters of a member's name in a receipt: as long as a key may be; a zip allows 65,535."""


class Rollback(BaseModel):
    """``rollback.json``: an empty object goes back to each organization's former book."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    price_book_id: str = ""


class ManifestBlob(BaseModel):
    """One part that Azure's manifest names (Cost Management exports, "manifest.json")."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel)

    blob_name: str = Field(min_length=1)
    byte_count: int | None = None
    data_row_count: int | None = None


class Manifest(BaseModel):
    """Azure's manifest of an export."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel)

    blobs: tuple[ManifestBlob, ...] = Field(min_length=1)


def prepare(source: ObjectVersion, ports: Ports, defaults: Defaults, waits: Waits) -> Delivery | None:
    """Prepare what one S3 event tells of; return its delivery, None where the event makes none.

    Raises:
        Wait: the object cannot be read now; the message comes back later.
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
            return hand_over(ports, found.delivery)
        run = _Preparation(ports, defaults, path, source, found.delivery)

        def story() -> Delivery:
            if refusal is not None:
                raise refusal
            return hand_over(ports, run.prepared())

        return read_to_its_end(ports, source, waits, lambda: run.delivery, story)


def _understood(key: str) -> tuple[DropPath, InputRefused | None]:
    """Return what a key means, and why it is refused if it means nothing that we know."""
    try:
        return drop_path.parse(key), None
    except InputRefused as error:
        return DropPath(Meaning.BOOK, dry_run=key.startswith("plan/")), error


def hand_over(ports: Ports, delivery: Delivery) -> Delivery:
    """Queue a prepared delivery, and let older ones of its target know that it is newer."""
    if delivery.stage in {"finished", "queued"}:
        return delivery
    if not delivery.dry_run:
        change_target(
            ports,
            delivery.target,
            lambda target: (
                target.but(newest_order=delivery.order, newest_delivery=delivery.id)
                if delivery.order > target.newest_order
                else target
            ),
        )
    return queued(ports, delivery)


@dataclass
class _Tally:
    """What the members of a book added up to."""

    units: list[Unit] = field(default_factory=list)
    rows_in: int = 0
    written: int = 0
    filtered: int = 0
    rejected: int = 0
    filtered_by: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    members: set[str] = field(default_factory=set)

    def add(self, member: str, counts: MemberCounts) -> None:
        """Add a member's counts."""
        self.members.add(member)
        self.rows_in += counts.rows_in
        self.written += counts.written
        self.filtered += counts.filtered
        self.rejected += counts.rejected
        for name, count in counts.filtered_by.items():
            self.filtered_by[name] = self.filtered_by.get(name, 0) + count
        self.warnings += counts.warnings
        if counts.ignored_columns:
            self.warnings.append(
                f"columns that the contract does not have were left out: {', '.join(counts.ignored_columns)}"
            )

    def rows(self, *, refused: bool) -> Rows:
        """Return the counts: what was written is owed to the vendor, or rejected with its whole book."""
        owed = 0 if refused else self.written
        rejected = self.rejected + (self.written if refused else 0)
        return Rows.model_validate({"in": self.rows_in, "filtered": self.filtered, "rejected": rejected, "owed": owed})


class _NothingWritten(Exception):
    """A member had no row to send."""


@dataclass
class _Measured:
    """Passes bytes on to the spool, and knows how many and which."""

    out: SpoolWriter
    size: int = 0
    hashed: Any = field(default_factory=sha256)

    def write(self, data: bytes) -> None:
        """Write to the spool."""
        self.size += len(data)
        self.hashed.update(data)
        self.out.write(data)


@dataclass
class _Preparation:
    """One run of the preparation of one delivery."""

    ports: Ports
    defaults: Defaults
    path: DropPath
    source: ObjectVersion
    delivery: Delivery
    """As it was last saved, with what is known of it; for whoever ends it when this run cannot."""
    ceilings: Ceilings = field(default_factory=Ceilings)

    def prepared(self) -> Delivery:
        """Return the delivery prepared and saved, or ended. Raises InputRefused and what reading raises."""
        provider = self._provider()
        config = in_force(self.ports.ledger, self.defaults)
        if not config.enterprise_id:
            fix = "set the stack's parameter InfracostEnterpriseId, or infracost.enterprise_id in config/relay.yaml"
            raise ConfigRefused("no Infracost enterprise is configured", file=self.source.key, fix=fix)
        delivery = self.delivery = self._addressed(self.delivery, provider, config)
        if self.path.meaning is Meaning.ROLLBACK:
            return self._rollback(delivery)
        base, rows = delivery, mended.Rows()
        if self.path.meaning is Meaning.MENDED:
            delivery, base, rows = self._mended(delivery)
        parts: tuple[ObjectVersion, ...]
        counts: Mapping[str, int] = {}
        if drop_path.parse(base.source.key).meaning is Meaning.MARKER:
            base, counts, warnings = self._pinned(base)
            delivery = (base if base.id == delivery.id else delivery.but(source=delivery.source)).warn(*warnings)
            parts = pinned_parts(base)
        else:
            parts = (mended.version_of(base),)
        return self._read(delivery, provider, config, parts, rows, counts)

    def _provider(self) -> Provider:
        if self.path.provider is None:
            raise InputRefused("the folder does not say whose prices these are", file=self.source.key)
        return self.path.provider

    def _addressed(self, delivery: Delivery, provider: Provider, config: Effective) -> Delivery:
        """Return the delivery with its target and the settings that it will use to its end."""
        books = config.price_books
        aws = provider is Provider.AWS
        target = target_name(config.enterprise_id, provider.value)
        work = Work(
            provider=provider.value,
            enterprise_id=config.enterprise_id,
            slug=config.slug,
            organizations=config.aws_organizations if aws else config.azure_organizations,
            activate=books.aws.activate if aws else books.azure.activate,
            keep_unused=books.keep_unused,
        )
        return delivery.but(
            target=target,
            # A plan only reads: it need not wait behind a book that is being ingested.
            group=digest(f"plan/{target}" if delivery.dry_run else target),
            work=work.model_dump(mode="json"),
            config_version=config.version_id,
        )

    def _rollback(self, delivery: Delivery) -> Delivery:
        """Return the prepared roll-back that a rollback.json asks for."""
        text = self._small(self.source)
        try:
            asked = Rollback.model_validate_json(text.strip() or b"{}")
        except ValidationError as error:
            problem = error.errors()[0]
            raise InputRefused(
                f"{'.'.join(map(str, problem['loc'])) or 'the file'}: {problem['msg']}",
                file=self.source.key,
                value=text[:120].decode("utf-8", "replace"),
                fix='write {} for the former book, or {"price_book_id": "…"} for a certain one',
            ) from None
        self._refuse_without_former(delivery, asked)
        work = Work.model_validate(delivery.work).model_copy(
            update={"rollback": True, "rollback_to": asked.price_book_id}
        )
        delivery = delivery.but(stage="prepared", attempts=0, work=work.model_dump(mode="json"))
        return self.ports.ledger.save(delivery.at("prepared", self.ports.clock.now()))

    def _refuse_without_former(self, delivery: Delivery, asked: Rollback) -> None:
        """Refuse a roll-back to nowhere here: queued, it would end the deliveries before it as superseded."""
        shelf = Shelf.model_validate(self.ports.ledger.target(delivery.target).content)
        organizations = Work.model_validate(delivery.work).organizations
        if not organizations:
            raise InputRefused("no organization is configured for this provider", file=self.source.key)
        for org in organizations:
            use = shelf.organizations.get(org)
            if not asked.price_book_id and (use is None or not use.former):
                fix = 'name a price book: {"price_book_id": "…"}'
                reason = f"no former price book of organization {org} is known"
                raise InputRefused(reason, file=self.source.key, fix=fix)

    def _small(self, source: ObjectVersion) -> bytes:
        with self.ports.drops.open(source) as stream:
            text = stream.read(MAX_SMALL_FILE_BYTES + 1)
        if len(text) > MAX_SMALL_FILE_BYTES:
            raise InputRefused(
                "the file is too large for what it is", file=source.key, fix="drop the file that the tool wrote"
            )
        return text

    def _mended(self, delivery: Delivery) -> tuple[Delivery, Delivery, mended.Rows]:
        """Return the delivery, the one whose source is read again, and all mended rows."""
        found = mended.mending(
            self.ports, self.source, self.path.mends, kind=KIND, place=drop_path.place, whole="sheet"
        )
        work = Work.model_validate(delivery.work).model_copy(update={"mends": found.original.id})
        mending = delivery.but(
            # As old as the book it mends: a newer book is not replaced by an older one with mended rows.
            order=f"{found.original.order}+{delivery.order}",
            work=work.model_dump(mode="json"),
        )
        return mending, found.base, found.rows

    def _pinned(self, delivery: Delivery) -> tuple[Delivery, Mapping[str, int], list[str]]:
        """Return the folder's delivery with its parts pinned and saved, rows that each part must have, and warnings."""
        manifest = self._manifest(mended.version_of(delivery))
        warnings: list[str] = []
        if not delivery.source.parts:
            delivery, warnings = self._pin(delivery, manifest)
        if manifest is None:
            return delivery, {}, warnings
        rows = {blob.blob_name.rpartition("/")[2]: blob.data_row_count for blob in manifest.blobs}
        return delivery, {name: count for name, count in rows.items() if count is not None}, warnings

    def _pin(self, delivery: Delivery, manifest: Manifest | None) -> tuple[Delivery, list[str]]:
        """Pin the present versions of the folder's parts."""
        marker = delivery.source.key
        beside = listed(self.ports, delivery, drop_path.is_part)
        names, warnings = (
            _by_manifest(manifest, beside, marker) if manifest else (_all_sheets(beside.parts, marker), [])
        )
        most = self.ceilings.members
        self.delivery = pin(self.ports, delivery, beside, names, most=most, noun="price sheet")
        return self.delivery, warnings

    def _manifest(self, marker: ObjectVersion) -> Manifest | None:
        """Return what a manifest.json says; None for a _SUCCESS."""
        if not marker.key.endswith("/manifest.json"):
            return None
        try:
            return Manifest.model_validate_json(self._small(marker))
        except ValidationError as error:
            problem = error.errors()[0]
            at = ".".join(map(str, problem["loc"])) or "the file"
            fix = "drop the manifest.json that Azure wrote, or use an empty _SUCCESS instead"
            raise InputRefused(f"{at}: {problem['msg']}", file=marker.key, fix=fix) from None

    def _read(  # noqa: PLR0913, PLR0917 -- the parts of one reading, each used once
        self,
        delivery: Delivery,
        provider: Provider,
        config: Effective,
        parts: tuple[ObjectVersion, ...],
        mended_rows: mended.Rows,
        counts: Mapping[str, int],
    ) -> Delivery:
        """Read every part, write the spool, and return the delivery prepared and saved, or refused."""
        tally = _Tally()
        budget = Budget(
            self.ceilings,
            tick=lambda file: refuse_without_time(self.ports, file, "the book", "drop the book in smaller parts"),
        )
        reader = PriceBookReader(_rules(provider, config), budget)
        with RejectedFile() as rejects:
            try:
                for part in parts:
                    before = tally.rows_in
                    delivery = self._read_part(
                        delivery, reader, budget, part, mended_rows, rejects, tally, alone=len(parts) == 1
                    )
                    _refuse_short_part(part.key, tally.rows_in - before, counts)
                _refuse_unknown_members(self.source.key, mended_rows, tally)
                return self._judged(delivery, reader, tally, rejects, config)
            except LedgerConflict:  # another run prepares the same files under the same names: they are its own now
                raise
            except BaseException:
                self._release(tally)
                raise

    def _read_part(  # noqa: PLR0913, PLR0917 -- as _read
        self,
        delivery: Delivery,
        reader: PriceBookReader,
        budget: Budget,
        part: ObjectVersion,
        mended_rows: mended.Rows,
        rejects: RejectedFile,
        tally: _Tally,
        *,
        alone: bool,
    ) -> Delivery:
        """Read one object with all its members; return the delivery, with its hash if it is the source itself."""
        with self.ports.drops.open(part) as raw:
            hashed = HashedSource(raw)
            members = list(csv_members(part.key, cast("BinaryIO", hashed), part.size_bytes, budget))
            alone = alone and len(members) == 1
            rejects.several = not alone
            for member in members:
                lines = mended_rows.get("" if alone else member.name, {})
                self._rewrite(delivery, reader, member, lines, rejects, tally)
            if part.key != delivery.source.key:
                return delivery
            return delivery.but(source=delivery.source.model_copy(update={"sha256": hashed.hexdigest()}))

    def _rewrite(  # noqa: PLR0913, PLR0917 -- as _read
        self,
        delivery: Delivery,
        reader: PriceBookReader,
        member: Member,
        lines: Mapping[int, Mapping[str, str]],
        rejects: RejectedFile,
        tally: _Tally,
    ) -> None:
        """Rewrite one CSV into the spool, and add it up; one without a row to send leaves nothing there."""
        seq = len(tally.units) + 1
        key = f"price-books/{delivery.id}/{seq:04d}.csv"
        unit: Unit | None = None
        with suppress(_NothingWritten), member.open() as stream, self.ports.spool.writer(key, "text/csv") as out:
            measured = _Measured(out)
            counts = reader.rewrite(
                member.name, stream, measured.write, lambda row: rejects.add(member.name, row), lines or None
            )
            tally.add(member.name, counts)
            if not counts.written:
                raise _NothingWritten
            unit = Unit(
                seq=seq,
                name=member.name[:MAX_NAME],
                rows=counts.written,
                bytes=measured.size,
                sha256=measured.hashed.hexdigest(),
                spool_key=key,
            )
        if unit is not None:  # and its file is whole in the spool
            tally.units.append(unit)

    def _judged(
        self, delivery: Delivery, reader: PriceBookReader, tally: _Tally, rejects: RejectedFile, config: Effective
    ) -> Delivery:
        """Return the delivery prepared and saved, or refused because of what its rows are."""
        delivery = delivery.warn(*tally.warnings).but(filtered_by=tally.filtered_by)
        delivery = mended.with_rejects(self.ports, delivery, rejects)
        refusal = _refusal(tally, config.price_books.max_rejected_share)
        if refusal:
            self._release(tally)
            delivery = delivery.but(rows=tally.rows(refused=True))
            return conclude(self.ports, rejected(self.ports, delivery, refusal, delivery.next_command))
        work = Work.model_validate(delivery.work).model_copy(update={"currency": reader.currency or ""})
        return self.ports.ledger.save(
            delivery.but(
                stage="prepared",
                attempts=0,
                waits=0,
                reason="",
                rows=tally.rows(refused=False),
                units=tuple(tally.units),
                fingerprint=digest(work.provider, *(unit.sha256 for unit in tally.units)),
                work=work.model_dump(mode="json"),
            ).at("prepared", self.ports.clock.now())
        )

    def _release(self, tally: _Tally) -> None:
        """Let what was written to the spool expire."""
        for unit in tally.units:
            self.ports.spool.release(unit.spool_key)
        tally.units.clear()


def _rules(provider: Provider, config: Effective) -> SheetRules:
    """Return the reader's rules from the configuration."""
    azure = config.price_books.azure
    return SheetRules(
        provider=provider,
        price_types=None if azure.price_types == "all" else frozenset(azure.price_types),
        offers=None if azure.offers == "all" else frozenset(azure.offers),
    )


def _refusal(tally: _Tally, max_share: float) -> str:
    """Return why the whole book is refused because of its rows; empty when it is not."""
    checked = tally.written + tally.rejected
    if not tally.rows_in:
        return "the book has no rows; fix: export it again, and check that the export has finished"
    if not checked:
        by = ", ".join(f"{count:,} by {name}" for name, count in tally.filtered_by.items())
        return f"all {tally.rows_in:,} rows were filtered out ({by}); fix: widen the filter in config/relay.yaml"
    if tally.rejected > max_share * checked or not tally.written:
        share = tally.rejected / checked
        return (
            f"{tally.rejected:,} of {checked:,} rows were rejected ({share:.2%}), more than the {max_share:.2%} that a"
            " book may have; fix: mend the rejected rows and drop them back, or raise max_rejected_share"
        )
    return ""


def _all_sheets(there: Mapping[str, ObjectVersion], marker: str) -> list[str]:
    """Return the names of a folder's parts where no manifest names them; all of them must be sheets."""
    strange = [name for name in there if not drop_path.is_sheet(name)]
    if strange:
        fix = "move it away, or drop .csv, .csv.gz and .zip only; then drop _SUCCESS again"
        reason = "the folder holds something that is no price sheet"
        raise InputRefused(reason, file=marker, value=strange[0], fix=fix)
    return list(there)


def _by_manifest(manifest: Manifest, beside: Listed, marker: str) -> tuple[list[str], list[str]]:
    """Return the names of the parts that a manifest names, and warnings; each must be there, once and whole."""
    there = beside.parts
    names = [blob.blob_name.rpartition("/")[2] for blob in manifest.blobs]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        fix = "put parts of one name into folders of their own, each with its manifest"
        raise InputRefused("the manifest names two parts of one name", file=marker, value=twice[0], fix=fix)
    missing = [name for name in names if name not in there]
    if missing:
        fix = f"upload it to {beside.folder}, then drop the manifest again"
        raise InputRefused("a part that the manifest names is missing", file=marker, value=missing[0], fix=fix)
    warnings = [f"{name} is not named by the manifest and was left out" for name in there if name not in names]
    for blob, name in zip(manifest.blobs, names, strict=True):
        size, said = there[name].size_bytes, blob.byte_count
        if said is not None and said > size:
            fix = "upload the part again, then drop the manifest again"
            raise InputRefused(f"the part has {size} bytes, the manifest says {said}", file=there[name].key, fix=fix)
        if said is not None and said != size:
            warnings.append(f"{name} has {size} bytes, the manifest says {said}")
    return names, warnings


def _refuse_short_part(key: str, rows: int, counts: Mapping[str, int]) -> None:
    """Refuse a part with fewer rows than the manifest says: a short file is never taken for a whole one."""
    expected = counts.get(key.rpartition("/")[2], 0)
    if rows < expected:
        fix = "export or upload the part again, then drop the manifest again"
        raise InputRefused(f"the part has {rows} rows, the manifest says {expected}", file=key, fix=fix)


def _refuse_unknown_members(file: str, rows: mended.Rows, tally: _Tally) -> None:
    """Refuse mended rows of a file that the book does not have: they would be lost without a word."""
    unknown = sorted(set(rows) - {"", *tally.members}) or ([""] if "" in rows and len(tally.members) > 1 else [])
    if unknown:
        fix = "keep the line column as the rejected-rows file had it"
        raise InputRefused(
            "a mended row names a file that the book does not have", file=file, value=unknown[0], fix=fix
        )

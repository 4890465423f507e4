"""Telemetry: a file of many rows of some thousands of records, added up by ours and row by row.

Each in a process of its own, so that its peak memory is its own:

``python -m benchmarks.telemetry {rowwise|ours} SMALL FILE FOLDER`` prints a line of JSON, and leaves bodies in FOLDER.

rowwise: ``csv.DictReader``, a pydantic model and a dictionary of sums, one row after the other; then ``json.dumps``.
ours: the file opened and read with all checks, added up by record; then the same bodies.
"""

from __future__ import annotations

import csv
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from benchmarks.readers import Read, Watch
from local.bootstrap import ROOT, clean_environ

if TYPE_CHECKING:
    from finops_relay.formats.rejected_rows import RejectedRow

KINDS = ("rowwise", "ours")
RECORDS = 5_000
"""Different ones in every file, however many rows it has: what is held in memory."""
KEYS = ("customer", "feature", "team")
SEED = 20260301
SMALL_ROWS = 500
"""Of the file that each process adds up first."""
BODY_BYTES = 5_000_000
FIRST_DAY = datetime(2026, 3, 1, tzinfo=UTC)

Sum = tuple[datetime, tuple[str, ...], Decimal]
"""A day, the values of the keys, and what its rows add up to."""


@dataclass(frozen=True)
class UsageFile:
    """A generated file on disk."""

    file: Path
    rows: int
    bytes: int


@dataclass(frozen=True)
class Added:
    """What adding a file up came to."""

    read: Read
    records: int
    body_bytes: int
    value: str
    """The sum of all records."""


@dataclass
class Additions:
    """All runs over one file, by kind, in the order in which they were made."""

    rows: int
    bytes: int
    added: dict[str, list[Added]] = field(default_factory=lambda: {kind: [] for kind in KINDS})

    def rows_per_s(self, kind: str) -> float:
        """Rows a second of processor time, in the fastest: other work on the machine only slows one down."""
        return self.rows / min(added.read.cpu_s for added in self.added[kind])

    @property
    def times(self) -> float:
        """How many times as fast ours is."""
        return self.rows_per_s("ours") / self.rows_per_s("rowwise")

    def peak_mb(self, kind: str) -> float:
        """The highest peak of memory."""
        return max(added.read.peak_mb for added in self.added[kind])


# --- the files --------------------------------------------------------------------------------------------------------


def write_usage(path: Path, rows: int) -> UsageFile:
    """Write a file of telemetry: the same bytes for the same arguments, its records in no order."""
    draw = random.Random(SEED)  # noqa: S311 -- reproducible data, not a secret
    records = [_record(number) for number in range(RECORDS)]
    with path.open("w", newline="", encoding="utf-8") as file:
        file.write("timestamp,granularity,value," + ",".join(f"filter.{key}" for key in KEYS) + "\n")
        for _ in range(rows):
            day, labels = records[draw.randrange(RECORDS)]
            file.write(f"{day},DAILY,{draw.randrange(1, 10**9) / 10**4:.4f},{labels}\n")
    return UsageFile(path, rows, path.stat().st_size)


def _record(number: int) -> tuple[str, str]:
    day = FIRST_DAY + timedelta(days=number % 31)
    return f"{day:%Y-%m-%dT%H:%M:%SZ}", f"customer-{number:06d},feature-{number % 300},team-{number % 40}"


# --- the bodies -------------------------------------------------------------------------------------------------------


def write_bodies(folder: Path, sums: Iterable[Sum]) -> tuple[int, int, str]:
    """Write what is sent of a metric under `live`; the number of records, of bytes, and the sum of all."""
    head, tail = b'{"records":[', b"]}"
    total, count, written, size = Decimal(0), 0, 0, 0
    body: list[bytes] = []
    for day, labels, value in sums:
        filters = json.dumps(dict(zip(KEYS, labels, strict=True)), separators=(",", ":"))
        stamp = f"{day:%Y-%m-%dT%H:%M:%SZ}"
        record = (
            f'{{"timestamp":"{stamp}","value":{value:f},"granularity":"DAILY","associated_cost":{filters}}}'.encode()
        )
        if body and len(head) + size + len(record) + len(tail) > BODY_BYTES:
            written += (folder / f"{count}.json").write_bytes(head + b",".join(body) + tail)
            body, size = [], 0
        body.append(record)
        size += len(record) + 1
        count += 1
        total += value
    written += (folder / f"{count}.json").write_bytes(head + b",".join(body) + tail)
    return count, written, f"{total:f}"


# --- both ways --------------------------------------------------------------------------------------------------------


def rowwise(file: Path, folder: Path) -> Added:
    """Add up with the standard library and pydantic, as one would at first."""
    from pydantic import AwareDatetime, BaseModel, Field  # noqa: PLC0415 -- each kind pays for its own

    class Usage(BaseModel):
        timestamp: AwareDatetime
        value: Decimal = Field(gt=0, max_digits=15)
        granularity: Literal["HOURLY", "DAILY", "MONTHLY"]
        customer: str = Field(alias="filter.customer", min_length=1, max_length=1000)
        feature: str = Field(alias="filter.feature", min_length=1, max_length=1000)
        team: str = Field(alias="filter.team", min_length=1, max_length=1000)

    watch = Watch()
    sums: dict[tuple[datetime, str, tuple[str, ...]], Decimal] = {}
    rows = 0
    with file.open(newline="", encoding="utf-8") as text:
        for row in csv.DictReader(text):
            usage = Usage.model_validate(row)
            key = (usage.timestamp, usage.granularity, (usage.customer, usage.feature, usage.team))
            sums[key] = sums.get(key, Decimal(0)) + usage.value
            rows += 1
    records, size, value = write_bodies(
        folder, ((day, labels, sums[day, g, labels]) for day, g, labels in sorted(sums))
    )
    return Added(watch.stop(rows), records, size, value)


def ours(file: Path, folder: Path) -> Added:
    """Add up as the preparing job does, with every check."""
    from finops_relay.formats.archives import Budget  # noqa: PLC0415 -- each kind pays for its own
    from finops_relay.formats.telemetry import METRIC, Dialect, moment_of  # noqa: PLC0415 -- as above
    from finops_relay.formats.telemetry_files import TelemetryReader, open_telemetry_file  # noqa: PLC0415 -- as above

    def reject(row: RejectedRow) -> None:
        raise SystemExit(f"a good row was rejected: {row}")

    watch = Watch()
    budget = Budget()
    reader = TelemetryReader(file.name, Dialect(METRIC, live=True), None, budget=budget)
    with file.open("rb") as source, open_telemetry_file(file.name, source, file.stat().st_size, budget) as stream:
        totals = reader.totals(stream, reject)
    sums = ((moment_of(ident.period), ident.labels, total.value) for ident, total in sorted(totals.items()))
    records, size, value = write_bodies(folder, sums)
    return Added(watch.stop(reader.rows_in), records, size, value)


def add_up(folder: Path, rows: int, repeats: int, kinds: Iterable[str] = KINDS) -> Additions:
    """Write a file of so many *rows*, and add it up with each kind in turn, *repeats* times."""
    small, file = (write_usage(folder / f"usage-{count}.csv", count) for count in (SMALL_ROWS, rows))
    done = Additions(file.rows, file.bytes)
    for _ in range(repeats):
        for kind in kinds:
            done.added[kind].append(_once(kind, small, file, folder))
    file.file.unlink()
    found = {(each.read.rows, each.records, Decimal(each.value)) for runs in done.added.values() for each in runs}
    if len(found) > 1:
        raise SystemExit(f"the two ways do not agree on the records and their sum: {found}")
    return done


def _once(kind: str, small: UsageFile, file: UsageFile, folder: Path) -> Added:
    with tempfile.TemporaryDirectory(dir=folder) as bodies:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.telemetry", kind, str(small.file), str(file.file), bodies],
            cwd=ROOT,
            env=clean_environ(PYTHONPATH=os.pathsep.join([str(ROOT / "layers" / "relay"), str(ROOT)])),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{kind} of {file.file.name} failed:\n{done.stderr}")
        found = json.loads(done.stdout.splitlines()[-1])
    return Added(**{**found, "read": Read(**found["read"])})


def main(kind: str, small: str, file: str, folder: str) -> None:
    """Add a small file up, so that everything is loaded; then *file*, and print what it came to."""
    adding = {"rowwise": rowwise, "ours": ours}[kind]
    adding(Path(small), Path(folder))
    print(json.dumps(asdict(adding(Path(file), Path(folder)))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

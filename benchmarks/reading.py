"""Speed and memory on price sheets: ours beside the floor and the peer, each reading in a process of its own."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from benchmarks.readers import KINDS, Read
from benchmarks.sheets import write_ea_sheet
from local.bootstrap import ROOT, clean_environ

if TYPE_CHECKING:
    from collections.abc import Iterator

SEED = 20260301
SMALL_BYTES = 200_000
"""Of the sheet that each process reads first."""
GZIP_LEVEL = 6
"""Of the gzip tool, when it is not told otherwise."""


@dataclass(frozen=True)
class Sheet:
    """A generated sheet on disk."""

    file: Path
    decoded_bytes: int
    encoded_bytes: int
    rows: int

    @property
    def encoding(self) -> str:
        """How it is encoded."""
        return "gzip" if self.file.suffix == ".gz" else "plain"


@dataclass
class Readings:
    """All readings of one sheet, by kind, in the order in which they were made."""

    sheet: Sheet
    reads: dict[str, list[Read]] = field(default_factory=lambda: {kind: [] for kind in KINDS})

    def mb_per_s(self, kind: str) -> float:
        """Decoded megabytes (10^6) a second of the fastest reading: other work on the machine only slows one down."""
        return self.sheet.decoded_bytes / 1e6 / min(read.seconds for read in self.reads[kind])

    def mb_per_cpu_s(self, kind: str) -> float:
        """The same by the processor's time, which a busy machine changes less."""
        return self.sheet.decoded_bytes / 1e6 / min(read.cpu_s for read in self.reads[kind])

    def times(self, kind: str, other: str) -> float:
        """How many times as fast one kind is as another."""
        return self.mb_per_s(kind) / self.mb_per_s(other)

    def peak_mb(self, kind: str) -> float:
        """The highest peak of memory."""
        return max(read.peak_mb for read in self.reads[kind])


def write_sheets(folder: Path, size_mb: int) -> list[Sheet]:
    """Write a sheet of *size_mb* plain and, with the same rows, as gzip; and the small one that goes with each."""
    sheets = _write(folder / f"ea-{size_mb}.csv", size_mb * 1_000_000)
    _write(_small(sheets[0]), SMALL_BYTES)
    return sheets


def _small(sheet: Sheet) -> Path:
    """Where the small sheet is that goes with one."""
    return sheet.file.with_name(f"small.csv{sheet.file.suffix.removeprefix('.csv')}")


def _write(plain: Path, size_bytes: int) -> list[Sheet]:
    packed = plain.with_suffix(".csv.gz")
    with plain.open("wb") as file:
        rows = write_ea_sheet(file, size_bytes, SEED)
    with plain.open("rb") as file, gzip.GzipFile(packed, "wb", GZIP_LEVEL, mtime=0) as target:
        _copy(file, target)
    decoded = plain.stat().st_size
    return [Sheet(plain, decoded, decoded, rows), Sheet(packed, decoded, packed.stat().st_size, rows)]


def read(sheet: Sheet, store: str, repeats: int) -> Readings:
    """Read *sheet* with each kind in turn, *repeats* times."""
    readings = Readings(sheet)
    for _ in range(repeats):
        for kind in KINDS:
            readings.reads[kind].append(_read_once(kind, sheet, store))
    return readings


@contextmanager
def store(folder: Path) -> Iterator[str]:
    """Serve the files of *folder* from a process of its own; its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.store", str(folder)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:  # leaving it closes the store's standard input, which ends it
        if process.stdout is None:
            raise AssertionError
        yield process.stdout.readline().strip()


def _read_once(kind: str, sheet: Sheet, store: str) -> Read:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.readers", kind, str(_small(sheet)), str(sheet.file), store],
        cwd=ROOT,
        env=clean_environ(PYTHONPATH=os.pathsep.join([str(ROOT / "layers" / "relay"), str(ROOT)])),
        stdin=subprocess.DEVNULL,
        capture_output=True,  # Powertools' stream complains at the end of the interpreter that it cannot be flushed
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{kind} of {sheet.file.name} failed:\n{done.stderr}")
    found = Read(**json.loads(done.stdout.splitlines()[-1]))
    if found.rows != sheet.rows:
        raise SystemExit(f"{kind} read {found.rows:,} rows of {sheet.file.name}, which has {sheet.rows:,}")
    return found


def _copy(source: BinaryIO, target: gzip.GzipFile) -> None:
    while chunk := source.read(1 << 20):
        target.write(chunk)

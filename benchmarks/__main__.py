"""``make bench``: speed, memory, start-up, clients, billing drops, telemetry and syncs beside baselines.

It ends with 1 when a goal is missed that does not depend on time. ``--short`` is what CI runs: less of each. The raw
numbers of the full form go to ``benchmarks/results/``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks import queueing, sending, sync
from benchmarks.clients import BASELINE as IMPORT_BASELINE
from benchmarks.clients import EXPECTED, Clients, measure
from benchmarks.costs import FORMS, Packings, pack
from benchmarks.readers import KINDS
from benchmarks.reading import Readings, read, store, write_sheets
from benchmarks.startup import BASELINE, StartUps, start_ups
from benchmarks.telemetry import RECORDS, Additions, add_up
from local.rie import missing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

RESULTS = Path(__file__).parent / "results"

# The goals of the main job's issue, "Speed and memory".
PEER_RATIO = 2.0
JUDGED = "rewrite"
"""Which reading is held against the peer: all checks and the rewriting done.

The peer writes nothing, so the upload to the spool is left out here; the table has the whole job beside it.
"""
JUDGED_FROM_BYTES = 100_000_000
"""A smaller sheet is read in a fraction of a second: its ratio says more of the machine's other work than of ours."""
PEAK_MB = 160.0
PEAK_GROWTH = 0.05
START_RATIO = 2.0
# The goal of the clients' issue.
OVER_HTTPX_MS = 1.0
# The goals of the billing drops' issue.
ROWWISE_RATIO = 2.0
PACKING_PEAK_MB = 200.0
SENDING_OVER = 0.1
# The goals of telemetry's issue.
ADDING_RATIO = 2.0
ADDING_PEAK_GROWTH = 0.1
# The goal of the syncs' issue: bounded memory.
READING_PEAK_GROWTH = 0.1
WRITES_PER_RECORD = 0.2
"""Well under one."""


@dataclass(frozen=True)
class Form:
    """How much is measured."""

    name: str
    sizes_mb: tuple[int, ...]
    repeats: tuple[int, ...]
    """Readings of each kind, by size."""
    starts: int
    imports: int
    calls: int
    """Of each method, bare and through the client."""
    policies: int
    """Settings of a long list, bare and through the client."""
    costs_mb: int
    """Of the bodies that a file of costs fills; a month of a stream takes 70."""
    packings: int
    """Of each kind, of each form of costs."""
    usage_rows: tuple[int, int]
    """Of a file of telemetry; the second is read by ours alone, for its memory."""
    additions: int
    """Of the first, of each kind."""
    queued: int
    """Records of applications."""
    values: int
    """Of a tag."""
    plannings: int
    source_rows: tuple[int, int]
    """Of a ServiceNow."""


FULL = Form(
    "full",
    (100, 1000),
    (3, 1),
    starts=20,
    imports=15,
    calls=2_000,
    policies=7,
    costs_mb=70,
    packings=7,
    usage_rows=(500_000, 2_000_000),
    additions=5,
    queued=10_000,
    values=100_000,
    plannings=21,
    source_rows=(10_000, 50_000),
)
SHORT = Form(
    "short",
    (20,),
    (3,),
    starts=5,
    imports=3,
    calls=300,
    policies=1,
    costs_mb=10,
    packings=2,
    usage_rows=(50_000, 200_000),
    additions=2,
    queued=500,
    values=20_000,
    plannings=5,
    source_rows=(5_000, 10_000),
)


@dataclass
class Found:
    """What was measured; what was left out is empty."""

    readings: list[Readings] = field(default_factory=list)
    starts: list[StartUps] = field(default_factory=list)
    bytecode: bool = False
    """Whether the built layer has it."""
    clients: Clients | None = None
    packings: list[Packings] = field(default_factory=list)
    sent: sending.Sent | None = None
    additions: list[Additions] = field(default_factory=list)
    queued: queueing.Queued | None = None
    syncs: sync.Syncs | None = None


@dataclass(frozen=True)
class Goal:
    """A figure and its limit."""

    what: str
    figure: float
    limit: float
    at_least: bool = False
    timed: bool = False
    """Depends on the machine's other work: printed, and no reason to fail."""

    @property
    def reached(self) -> bool:
        """Whether the figure keeps its limit."""
        return self.figure >= self.limit if self.at_least else self.figure <= self.limit

    def __str__(self) -> str:
        verdict = "reached" if self.reached else "MISSED"
        sign = ">=" if self.at_least else "<="
        return f"  {verdict:<8} {self.what}: {self.figure:.2f} (goal {sign} {self.limit:g})"


def read_sheets(form: Form) -> list[Readings]:
    """Generate the sheets and read them all."""
    found: list[Readings] = []
    with tempfile.TemporaryDirectory(prefix="finops-relay-bench-") as scratch:
        folder = Path(scratch)
        with store(folder) as address:
            for size, repeats in zip(form.sizes_mb, form.repeats, strict=True):
                print(f"  {size:,} MB …", file=sys.stderr, flush=True)
                sheets = write_sheets(folder, size)
                found += [read(sheet, address, repeats) for sheet in sheets]
                for sheet in sheets:
                    sheet.file.unlink()
    return found


def reading_goals(found: Sequence[Readings]) -> list[Goal]:
    """The goals for speed and memory."""
    goals = []
    for each in found:
        name = f"{each.sheet.decoded_bytes / 1e6:,.0f} MB {each.sheet.encoding}"
        if each.sheet.decoded_bytes >= JUDGED_FROM_BYTES:
            ratio = each.times(JUDGED, "peer")
            goals.append(
                Goal(f"{name}: speed of {JUDGED!r}, times the peer's", ratio, PEER_RATIO, at_least=True, timed=True)
            )
        goals.append(Goal(f"{name}: peak memory, MB", each.peak_mb("ours"), PEAK_MB))
    for encoding in ("plain", "gzip"):
        peaks = [each.peak_mb("ours") for each in found if each.sheet.encoding == encoding]
        if len(peaks) > 1:
            growth = peaks[-1] / peaks[0] - 1
            goals.append(Goal(f"{encoding}: growth of the peak from smallest to largest", growth, PEAK_GROWTH))
    return goals


def start_goals(found: Sequence[StartUps]) -> list[Goal]:
    """The goals for start-up."""
    baseline = next((each.median_init_ms for each in found if each.function == BASELINE), 0.0)
    return [
        Goal(
            f"{each.function}: start-up, times the baseline's", each.median_init_ms / baseline, START_RATIO, timed=True
        )
        for each in found
        if each.function != BASELINE
    ]


def client_goals(found: Clients) -> list[Goal]:
    """The goals for the clients."""
    goals = [
        Goal(f"importing {each.what}: modules of the other vendor", len(each.foreign), 0)
        for each in found.imports
        if each.what != IMPORT_BASELINE
    ]
    goals += [
        Goal(f"a {each.method} through the client, ms over bare httpx", each.over_ms, OVER_HTTPX_MS, timed=True)
        for each in found.calls
    ]
    wanted = ", ".join(f"{count} {operation}" for operation, count in EXPECTED.items())
    what = f"{found.policy.values:,} values in one policy: calls too many or too few for {wanted}"
    return [*goals, Goal(what, found.policy.astray, 0)]


def packing_goals(found: Sequence[Packings]) -> list[Goal]:
    """The goals for billing drops."""
    goals = []
    for each in found:
        what = f"{each.form}, {each.body_mb:.0f} MB of bodies"
        goals += [
            Goal(f"{what}: rows a second, times row by row", each.times, ROWWISE_RATIO, at_least=True, timed=True),
            Goal(f"{what}: peak memory, MB", each.peak_mb("ours"), PACKING_PEAK_MB),
        ]
    return goals


def adding_goals(found: Sequence[Additions]) -> list[Goal]:
    """The goals for telemetry."""
    few, many = found
    growth = many.peak_mb("ours") / few.peak_mb("ours") - 1
    what = f"telemetry, {few.rows:,} rows: rows a second, times row by row"
    grown = f"telemetry: growth of the peak from {few.rows:,} to {many.rows:,} rows of the same records"
    return [Goal(what, few.times, ADDING_RATIO, at_least=True, timed=True), Goal(grown, growth, ADDING_PEAK_GROWTH)]


def print_readings(found: Sequence[Readings]) -> None:
    """The table of speed and memory."""
    print("\nMB/s of decoded sheet (in brackets: by processor time), peak MB of the process")
    heads = "".join(f"{kind:>14}" for kind in KINDS)
    print(f"  {'sheet':<16}{heads}{'ours/peer':>11}{'rewrite/peer':>14}{'ours/floor':>12}{'peak MB':>9}")
    for each in found:
        name = f"{each.sheet.decoded_bytes / 1e6:,.0f} MB {each.sheet.encoding}"
        speeds = "".join(f"{f'{each.mb_per_s(kind):.0f} ({each.mb_per_cpu_s(kind):.0f})':>14}" for kind in KINDS)
        ratios = f"{each.times('ours', 'peer'):>11.2f}{each.times('rewrite', 'peer'):>14.2f}"
        print(f"  {name:<16}{speeds}{ratios}{each.times('ours', 'floor'):>12.2f}{each.peak_mb('ours'):>9.1f}")


def print_start_ups(found: Sequence[StartUps], *, bytecode: bool) -> None:
    """The table of start-ups."""
    print(f"\nStart-up under the emulator, median ms; the layer is built {'with' if bytecode else 'without'} bytecode")
    print(f"  {'function':<28}{'init':>8}{'/baseline':>11}{'first answer':>14}")
    baseline = found[0].median_init_ms
    for each in found:
        ratio = each.median_init_ms / baseline
        print(f"  {each.function:<28}{each.median_init_ms:>8.0f}{ratio:>11.2f}{each.median_answer_ms:>14.0f}")


def print_clients(found: Clients) -> None:
    """The tables of the clients."""
    print("\nImports by -X importtime, median microseconds")
    print(f"  {'module':<34}{'whole':>9}{'own part':>10}  modules of the other vendor")
    for each in found.imports:
        others = ", ".join(each.foreign) or "none"
        print(f"  {each.what:<34}{each.median_us:>9,.0f}{each.median_own_us:>10,.0f}  {others}")
    print("\nCalls on loopback, median ms")
    print(f"  {'method':<8}{'calls':>7}{'bare httpx':>12}{'client':>9}{'over':>8}")
    for call in found.calls:
        print(f"  {call.method:<8}{call.count:>7,}{call.bare_ms:>12.3f}{call.client_ms:>9.3f}{call.over_ms:>8.3f}")
    policy = found.policy
    counts = ", ".join(f"{count} {operation}" for operation, count in policy.counts[-1].items())
    print(f"\n{policy.values:,} values in one tagging policy: {counts}; the PATCH has {policy.patch_bytes:,} bytes")
    print(f"  by hand {policy.median_s('bare'):.3f} s, through the client {policy.median_s('client'):.3f} s (median)")


def print_packings(found: Sequence[Packings]) -> None:
    """The table of billing drops."""
    print("\nBilling drops, rows a second of processor time, fastest; peak MB of the process")
    heads = f"{'file MB':>9}{'bodies MB':>11}{'row by row':>12}{'ours':>9}{'times':>7}{'peaks MB':>15}"
    print(f"  {'form':<8}{'rows':>9}{heads}")
    for each in found:
        peaks = f"{each.peak_mb('rowwise'):.1f} {each.peak_mb('ours'):.1f}"
        print(
            f"  {each.form:<8}{each.rows:>9,}{each.bytes / 1e6:>9.1f}{each.body_mb:>11.1f}"
            f"{each.rows_per_s('rowwise'):>12,.0f}{each.rows_per_s('ours'):>9,.0f}{each.times:>7.2f}{peaks:>15}"
        )


def print_additions(found: Sequence[Additions]) -> None:
    """The table of telemetry."""
    print(f"\nTelemetry, {RECORDS:,} records; rows a second of processor time, fastest; peak MB of the process")
    print(f"  {'rows':<10}{'file MB':>9}{'row by row':>12}{'ours':>11}{'times':>7}{'peaks MB':>15}")
    for each in found:
        both = bool(each.added["rowwise"])
        rowwise, times = (f"{each.rows_per_s('rowwise'):,.0f}", f"{each.times:.2f}") if both else ("", "")
        peaks = f"{each.peak_mb('rowwise'):.1f} " if both else ""
        print(
            f"  {each.rows:<10,}{each.bytes / 1e6:>9.1f}{rowwise:>12}{each.rows_per_s('ours'):>11,.0f}{times:>7}"
            f"{peaks + format(each.peak_mb('ours'), '.1f'):>15}"
        )


def print_syncs(found: sync.Syncs) -> None:
    """The tables of syncs."""
    plans = found.plans
    print(f"\nA plan of {plans.values:,} values, median ms of {len(plans.plan_s)} (1 % new, 1 % gone)")
    parts = {"set difference": plans.sets_s, "plan": plans.plan_s, "guards": plans.judge_s, "receipt": plans.tell_s}
    times = ", ".join(f"{name} {median(taken) * 1000:.1f}" for name, taken in parts.items())
    print(f"  {times}; the plan takes {plans.times:.1f} times as long as the difference of two sets")
    print("A list delivered, then dropped again without a change")
    for each in found.delivered:
        calls = "; then ".join(
            ", ".join(f"{count} {operation}" for operation, count in made.items()) for made in each.calls.values()
        )
        print(f"  {each.values:>9,} values: {calls} ({each.seconds:.1f} s in all)")
    print("A ServiceNow read row by row (ours), and into one list (whole)")
    for rows, reads in found.reads.items():
        said = "; ".join(f"{way} {read.seconds:.2f} s, peak {read.peak_mb:.1f} MB" for way, read in reads.items())
        print(f"  {rows:>9,} rows: {said}")


def record(name: str, form: Form, found: Found, goals: Sequence[Goal]) -> Path:
    """Write the raw numbers, which name no path of this machine."""
    sheets: list[dict[str, Any]] = [
        {
            "encoding": each.sheet.encoding,
            "decoded_bytes": each.sheet.decoded_bytes,
            "encoded_bytes": each.sheet.encoded_bytes,
            "rows": each.sheet.rows,
            "reads": {kind: [asdict(one) for one in reads] for kind, reads in each.reads.items()},
        }
        for each in found.readings
    ]
    body = {
        "form": form.name,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load_1min": round(os.getloadavg()[0], 2),
        "sheets": sheets,
        "layer_has_bytecode": found.bytecode,
        "start_ups": [asdict(each) for each in found.starts],
        "clients": asdict(found.clients) if found.clients else None,
        "packings": [asdict(each) for each in found.packings],
        "sent": asdict(found.sent) if found.sent else None,
        "additions": [asdict(each) for each in found.additions],
        "queued": asdict(found.queued) if found.queued else None,
        "syncs": asdict(found.syncs) if found.syncs else None,
        "goals": [asdict(goal) | {"reached": goal.reached} for goal in goals],
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(body, indent=1) + "\n")
    return path


def measure_sheets(form: Form, found: Found) -> list[Goal]:
    """Measure and print speed and memory; the goals."""
    found.readings = read_sheets(form)
    print_readings(found.readings)
    return reading_goals(found.readings)


def measure_starts(form: Form, found: Found) -> list[Goal]:
    """Measure and print the start-ups where they can be; the goals."""
    why = missing()
    if why:
        print(f"\nNo start-ups were measured: {why}")
        return []
    print("  start-ups …", file=sys.stderr, flush=True)
    found.starts, found.bytecode = start_ups(form.starts)
    print_start_ups(found.starts, bytecode=found.bytecode)
    return start_goals(found.starts)


def measure_clients(form: Form, found: Found) -> list[Goal]:
    """Measure and print the clients; the goals."""
    print("  clients …", file=sys.stderr, flush=True)
    found.clients = measure(form.imports, form.calls, form.policies)
    print_clients(found.clients)
    return client_goals(found.clients)


def measure_costs(form: Form, found: Found) -> list[Goal]:
    """Measure and print billing drops; the goals."""
    with tempfile.TemporaryDirectory(prefix="finops-relay-bench-") as scratch:
        for costs in FORMS:
            print(f"  {costs} …", file=sys.stderr, flush=True)
            found.packings.append(pack(Path(scratch), costs, form.costs_mb, form.packings))
    print_packings(found.packings)
    print("  sending …", file=sys.stderr, flush=True)
    sent = found.sent = sending.measure(form.packings, form.costs_mb * 1_000_000)
    answers = f"{sent.bodies} answers after {sending.LATENCY_S:g} s each"
    print(f"\nSending {sent.bytes / 1e6:.1f} MB: {sent.whole_s:.2f} s for {answers}, {sent.over:.1%} on top (best run)")
    what = "sending a month of bodies: share on top of the vendor's answers"
    return [*packing_goals(found.packings), Goal(what, sent.over, SENDING_OVER, timed=True)]


def measure_telemetry(form: Form, found: Found) -> list[Goal]:
    """Measure and print telemetry; the goals."""
    print("  telemetry …", file=sys.stderr, flush=True)
    few, many = form.usage_rows
    with tempfile.TemporaryDirectory(prefix="finops-relay-bench-") as scratch:
        found.additions = [add_up(Path(scratch), few, form.additions), add_up(Path(scratch), many, 1, ["ours"])]
    print_additions(found.additions)
    return adding_goals(found.additions)


def measure_queue(form: Form, found: Found) -> list[Goal]:
    """Measure and print the application queue; the goals."""
    print("  queue …", file=sys.stderr, flush=True)
    queued = found.queued = queueing.measure(form.queued)
    print(
        f"\nApplication queue, local stack: {queued.records:,} records, {queued.repeated:,} of them sent twice, in"
        f" {queued.whole_s:.0f} s ({queued.per_s:,.0f} records a second; putting them into the queue took"
        f" {queued.sending_s:.0f} s)\n  {queued.deliveries} deliveries, {queued.writes} writes to the ledger:"
        f" {queued.writes_per_record:.4f} a record; every record counted once"
    )
    return [
        Goal("application queue: writes to the ledger for each record", queued.writes_per_record, WRITES_PER_RECORD)
    ]


def measure_syncs(form: Form, found: Found) -> list[Goal]:
    """Measure and print syncs; the goals."""
    print("  syncs …", file=sys.stderr, flush=True)
    done = found.syncs = sync.measure(form.values, form.plannings, form.source_rows)
    print_syncs(done)
    few, many = form.source_rows
    goals = [
        Goal(
            f"{each.values:,} values of a tag: calls too many or too few, of a change and of no change", each.astray, 0
        )
        for each in done.delivered
    ]
    what = f"a source: growth of the peak from {few:,} to {many:,} rows of the same values"
    return [*goals, Goal(what, done.growth(), READING_PEAK_GROWTH)]


PARTS: Mapping[str, Callable[[Form, Found], list[Goal]]] = {
    "sheets": measure_sheets,
    "starts": measure_starts,
    "clients": measure_clients,
    "costs": measure_costs,
    "telemetry": measure_telemetry,
    "queue": measure_queue,
    "sync": measure_syncs,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, record; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--short", action="store_true", help="what CI runs, in about a minute")
    parser.add_argument("--only", choices=tuple(PARTS), help="leave the other parts out")
    given = parser.parse_args(arguments)
    form = SHORT if given.short else FULL
    found = Found()
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}")
    goals = [goal for name, part in PARTS.items() if given.only in {None, name} for goal in part(form, found)]
    print("\nGoals")
    print("\n".join(map(str, goals)))
    if form is FULL:
        path = record(given.only or form.name, form, found, goals)
        print(f"\nRaw numbers: {path.relative_to(Path(__file__).parents[1])}")
    return 0 if all(goal.reached or goal.timed for goal in goals) else 1


if __name__ == "__main__":
    sys.exit(main())

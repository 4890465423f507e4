"""Syncs: what a plan costs beside a plain difference of sets, how many calls a list takes, what a large source holds.

Each figure is taken in a process of its own: ``python -m benchmarks.sync plan VALUES REPEATS``, ``… deliver VALUES``
and ``… read WAY ADDRESS`` (a way is ours or whole: every row held) print JSON; ``… serve ROWS`` is a ServiceNow that
gives so many rows, and ends with its standard input.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from statistics import median
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from benchmarks.readers import Memory, Read, Watch
from local.bootstrap import ROOT, clean_environ

if TYPE_CHECKING:
    from collections.abc import Iterator

SLUG, POLICY, KEY = "acme", "standard-tags", "CostCenter"
TABLE = "cmdb_ci_business_app"
COST_CENTRES = 2_000
"""Different values in every source, however many rows it has: what is kept of them."""
EXPECTED = {"written": Counter(getTaggingPolicy=2, updateTaggingPolicy=1), "unchanged": Counter(getTaggingPolicy=1)}
"""One read, one PATCH, one verification; nothing to do is one read."""
WAYS = ("whole", "ours")
_HOST = "127.0.0.1"


@dataclass(frozen=True)
class Plans:
    """Plans of one list of values, of which one in a hundred is new and one in a hundred is gone."""

    values: int
    sets_s: list[float]
    """Both differences of two sets that are there already."""
    plan_s: list[float]
    """The plan, sorted, with a look for drift."""
    judge_s: list[float]
    """All guards."""
    tell_s: list[float]
    """What a receipt shows of it."""

    @property
    def times(self) -> float:
        """How many times as long as the difference of sets a plan takes."""
        return median(self.plan_s) / median(self.sets_s)


@dataclass(frozen=True)
class Delivered:
    """A list that was delivered, and delivered again."""

    values: int
    seconds: float
    calls: dict[str, dict[str, int]]
    """Of each of the two, by operation."""

    @property
    def astray(self) -> int:
        """Calls too many or too few."""
        return sum(
            sum(((Counter(self.calls[what]) - expected) + (expected - Counter(self.calls[what]))).values())
            for what, expected in EXPECTED.items()
        )


@dataclass
class Syncs:
    """All of it."""

    plans: Plans
    delivered: list[Delivered] = field(default_factory=list)
    reads: dict[int, dict[str, Read]] = field(default_factory=dict)
    """By rows of the source, and by way."""

    def growth(self) -> float:
        """How much larger the peak is with the larger source, as a share."""
        few, many = sorted(self.reads)
        return self.reads[many]["ours"].peak_mb / self.reads[few]["ours"].peak_mb - 1


def measure(values: int, repeats: int, rows: tuple[int, int]) -> Syncs:
    """Measure everything."""
    found = Syncs(Plans(**json.loads(_process("plan", str(values), str(repeats)))))
    found.delivered = [Delivered(**json.loads(_process("deliver", str(count)))) for count in (100, values)]
    for count in rows:
        with _served(count) as address:
            found.reads[count] = {way: Read(**json.loads(_process("read", way, address))) for way in WAYS}
    return found


def _process(*arguments: str) -> str:
    command = [sys.executable, "-m", "benchmarks.sync", *arguments]
    return subprocess.run(command, cwd=ROOT, env=clean_environ(), check=True, capture_output=True, text=True).stdout


# --- plans ------------------------------------------------------------------------------------------------------------


def plans(count: int, repeats: int) -> Plans:
    """Plan a list of *count* values, over and over."""
    from finops_relay.sync.guard import Facts, Guards, judge  # noqa: PLC0415 -- each process pays for its own
    from finops_relay.sync.plan import plan  # noqa: PLC0415 -- as above
    from finops_relay.sync.state import State  # noqa: PLC0415 -- as above

    some = count // 100
    names = [f"CC-{number:07d}" for number in range(count + some)]
    remote, desired = State(items=dict.fromkeys(names[:count], "")), State(items=dict.fromkeys(names[some:], ""))
    one, other = set(remote.items), set(desired.items)
    found = Plans(count, [], [], [], [])
    facts, guards = Facts(rows=count, rows_before=count), Guards(max_number_removed=count)
    for _ in range(repeats):
        began = time.perf_counter()
        gone, new = one - other, other - one
        found.sets_s.append(time.perf_counter() - began)
        began = time.perf_counter()
        made = plan(remote, desired, remote)
        found.plan_s.append(time.perf_counter() - began)
        began = time.perf_counter()
        verdicts = judge(made, desired, facts, guards, datetime(2026, 3, 1, tzinfo=UTC))
        found.judge_s.append(time.perf_counter() - began)
        began = time.perf_counter()
        shown = made.shown()
        found.tell_s.append(time.perf_counter() - began)
        if (set(made.removed), set(made.added), shown["removed"]["count"]) != (gone, new, some) or verdicts:
            raise SystemExit("the plan is not what it should be")
    return found


# --- calls ------------------------------------------------------------------------------------------------------------


class Bucket:
    """Objects in memory: as drops and as spool."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def pin(self, bucket: str, key: str) -> Any:  # noqa: ANN401 -- an ObjectVersion, imported by who runs
        """Return what an object's only version is called."""
        from finops_relay.delivery.identity import ObjectVersion  # noqa: PLC0415 -- as in plans

        return ObjectVersion(bucket, key, size_bytes=len(self.objects[key]))

    @contextmanager
    def open(self, source: Any) -> Iterator[io.BytesIO]:  # noqa: ANN401 -- as above
        """Give an object to read."""
        yield io.BytesIO(self.objects[source.key])

    @contextmanager
    def writer(self, key: str, content_type: str) -> Iterator[io.BytesIO]:
        """Give an object to write."""
        del content_type
        out = io.BytesIO()
        yield out
        self.objects[key] = out.getvalue()

    def put(self, key: str, body: bytes, content_type: str) -> str:
        """Write an object."""
        del content_type
        self.objects[key] = body
        return key

    def chunks(self, key: str) -> Iterator[bytes]:
        """Yield an object's bytes."""
        yield self.objects[key]

    def remove(self, key: str) -> None:
        """Remove an object."""
        self.objects.pop(key, None)

    def release(self, key: str) -> None:
        """Let it lie."""


def delivered(count: int) -> Delivered:
    """Deliver a list of *count* values, and deliver it again, by the jobs that the functions run."""
    from finops_relay.delivery.defaults import Defaults  # noqa: PLC0415 -- as in plans
    from finops_relay.delivery.identity import ObjectVersion  # noqa: PLC0415 -- as in plans
    from finops_relay.delivery.ports import Clock, Ports  # noqa: PLC0415 -- as in plans
    from finops_relay.delivery.waits import Waits  # noqa: PLC0415 -- as in plans
    from finops_relay.infracost.client import connect  # noqa: PLC0415 -- as in plans
    from finops_relay.jobs.syncing.preparing import Around  # noqa: PLC0415 -- as in plans
    from finops_relay.jobs.tagging_policies.deliver import deliver  # noqa: PLC0415 -- as in plans
    from finops_relay.jobs.tagging_policies.prepare import prepare  # noqa: PLC0415 -- as in plans
    from pydantic import SecretStr  # noqa: PLC0415 -- as in plans

    from local.standins.infracost import PRIMARY_ORGANIZATION, TOKEN, InfracostStandIn  # noqa: PLC0415 -- as in plans

    names = [f"CC-{number:07d}" for number in range(count)]
    tag = {"key": KEY, "mandatory": True, "valueType": "LIST", "allowedValues": names[: count - count // 100]}
    policies = {SLUG: [{"id": POLICY, "name": "Standard", "message": "see the wiki", "tags": [tag]}]}
    memory, bucket = Memory(), Bucket()
    clock = Clock(lambda: datetime(2026, 3, 1, tzinfo=UTC), lambda: 900.0)
    kept: Any = bucket  # it has as much of both as is used here
    ports = Ports(ledger=memory, drops=kept, spool=kept, queue=memory, bus=memory, metrics=memory, clock=clock)
    nobody: Any = None  # no source is asked
    around = Around(ports, Defaults(slug=SLUG), Waits(), nobody, "drops", 3)
    calls: dict[str, dict[str, int]] = {}
    with InfracostStandIn(policies=policies, organizations={PRIMARY_ORGANIZATION: SLUG}) as vendor:
        client = connect(SecretStr(TOKEN), vendor.api_url)
        began = time.monotonic()
        for number, what in enumerate(EXPECTED):
            key = f"incoming/tagging-policies/{POLICY}/{KEY}.txt"
            bucket.objects[key] = "\n".join(names).encode()
            source = ObjectVersion("drops", key, str(number), "", 1, f"{number + 1:02X}", clock.now())
            prepared = prepare(source, around)
            before = Counter(vendor.state()["counts"])
            ended = deliver(prepared, ports, lambda _: client, Waits()) if prepared is not None else None
            if ended is None or ended.outcome not in {"delivered", "unchanged"}:
                raise SystemExit(f"the list was not delivered: {ended}")
            calls[what] = dict(Counter(vendor.state()["counts"]) - before)
        took = time.monotonic() - began
        client.close()
    return Delivered(count, took, calls)


# --- a large source ---------------------------------------------------------------------------------------------------


class _Handler(BaseHTTPRequestHandler):
    """A ServiceNow that gives rows in the order of their keys."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    rows: int

    def do_GET(self) -> None:
        """Give a page: those rows whose keys are above the one that the query names."""
        query = parse_qs(urlsplit(self.path).query)
        limit = int(query["sysparm_limit"][0])
        after = next((part[7:] for part in query["sysparm_query"][0].split("^") if part.startswith("sys_id>")), "")
        first = int(after, 16) + 1 if after else 0
        found = [_row(number) for number in range(first, min(first + limit, self.rows))]
        body = json.dumps({"result": found}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("X-Total-Count", str(self.rows - first))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401 -- as the base class has it
        """Log nothing: it would be measured."""


def _row(number: int) -> dict[str, str]:
    return {"sys_id": f"{number:032x}", "u_cost_center": f"CC-{number % COST_CENTRES:05d}"}


def serve(rows: int) -> None:
    """Be the source until standard input ends."""
    handler = type("Handler", (_Handler,), {"rows": rows})
    server = ThreadingHTTPServer((_HOST, 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://{_HOST}:{server.server_port}", flush=True)
    sys.stdin.read()


@contextmanager
def _served(rows: int) -> Iterator[str]:
    """Run the source; yield its address."""
    command = [sys.executable, "-m", "benchmarks.sync", "serve", str(rows)]
    with subprocess.Popen(
        command, cwd=ROOT, env=clean_environ(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None  # noqa: S101 -- for the types: both are pipes
        assert server.stdout is not None  # noqa: S101 -- for the types: both are pipes
        try:
            yield server.stdout.readline().strip()
        finally:
            server.stdin.close()


def read(way: str, address: str) -> Read:
    """Read the source: row by row for its values, or every row into one list first."""
    from finops_relay.http.auth import NOBODY  # noqa: PLC0415 -- as in plans
    from finops_relay.http.client import HttpClient  # noqa: PLC0415 -- as in plans
    from finops_relay.sources.asks import TableAsk  # noqa: PLC0415 -- as in plans
    from finops_relay.sources.servicenow import ServiceNow  # noqa: PLC0415 -- as in plans

    http = HttpClient(address, NOBODY)
    ask = TableAsk(table=TABLE, columns={"value": "u_cost_center"})
    watch = Watch()
    found = ServiceNow(http).records(ask)
    rows = list(found) if way == "whole" else found
    count, values = 0, set()
    for record in rows:
        count += 1
        values.add(record.values["value"])
    http.wire.close()
    if len(values) != min(count, COST_CENTRES):
        raise SystemExit(f"{len(values)} values are not those of {count} rows")
    return watch.stop(count)


def main(arguments: list[str]) -> None:
    """Be the source, or run one measurement."""
    what, *rest = arguments
    if what == "serve":
        serve(int(rest[0]))
        return
    sys.path.insert(0, str(ROOT / "layers" / "relay"))
    found: Any
    if what == "plan":
        found = plans(int(rest[0]), int(rest[1]))
    elif what == "deliver":
        found = delivered(int(rest[0]))
    else:
        found = read(rest[0], rest[1])
    print(json.dumps(asdict(found)))


if __name__ == "__main__":
    main(sys.argv[1:])

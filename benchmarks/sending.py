"""Sending a month of bodies to a vendor that takes 300 ms for each: what comes on top of its answers.

``python -m benchmarks.sending run FOLDER STORE VENDOR`` prepares and sends, and prints JSON; ``… vendor`` is the server
that is sent to: it answers 300 ms after a body has come in whole, and ends with its standard input.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.costs import MONTH, write_costs
from benchmarks.reading import store
from local.bootstrap import ROOT, clean_environ

if TYPE_CHECKING:
    from collections.abc import Iterator

LATENCY_S = 0.3
MONTH_BYTES = 70_000_000
SENT_ROW_BYTES = 910
"""Of a row in a body, a little more than about: the month must not be refused for its size."""
CONNECTION = "c1"
_HOST = "127.0.0.1"


@dataclass(frozen=True)
class Sent:
    """A month that was sent."""

    bodies: int
    bytes: int
    whole_s: float
    """From the first check to the last answer, and one look at what arrived."""

    @property
    def over(self) -> float:
        """What comes on top of the vendor's answers, as a share of them."""
        return self.whole_s / (self.bodies * LATENCY_S) - 1


def measure(runs: int, month_bytes: int = MONTH_BYTES) -> Sent:
    """Send a month *runs* times, each in a process of its own; return the one that other work disturbed least."""
    found = []
    with tempfile.TemporaryDirectory(prefix="finops-relay-bench-") as scratch, _vendor() as vendor:
        folder = Path(scratch)
        write_costs(folder / "costs.csv", "cbf", month_bytes // SENT_ROW_BYTES)
        with store(folder) as address:
            for _ in range(runs):
                done = _process("run", scratch, address, vendor)
                found.append(Sent(**json.loads(done)))
    return min(found, key=lambda sent: sent.over)


def _process(*arguments: str) -> str:
    command = [sys.executable, "-m", "benchmarks.sending", *arguments]
    return subprocess.run(command, cwd=ROOT, env=clean_environ(), check=True, capture_output=True, text=True).stdout


@contextmanager
def _vendor() -> Iterator[str]:
    """Run the server that is sent to; yield its address."""
    command = [sys.executable, "-m", "benchmarks.sending", "vendor"]
    with subprocess.Popen(
        command, cwd=ROOT, env=clean_environ(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None  # noqa: S101 -- for the types: both are pipes
        assert server.stdout is not None  # noqa: S101 -- for the types: both are pipes
        try:
            yield server.stdout.readline().strip()
        finally:
            server.stdin.close()


class _Handler(BaseHTTPRequestHandler):
    """A vendor that takes every drop, after a while."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        """Take a body whole, then answer 300 ms after the request began."""
        began = time.monotonic()
        missing = int(self.headers["Content-Length"])
        while missing and (chunk := self.rfile.read(min(missing, 1 << 20))):
            missing -= len(chunk)
        time.sleep(max(0.0, LATENCY_S - (time.monotonic() - began)))
        self._answer(200, b'{"connection":{"drop_id":"d","month":"2026-02-01T00:00:00Z","row_count":1}}')

    def do_GET(self) -> None:
        """Show nothing of what was sent."""
        self._answer(404, b'{"error":{"message":"none","type":"not_found"}}')

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401 -- as the base class has it
        """Log nothing: it would be measured."""

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def serve() -> None:
    """Be the vendor until standard input ends."""
    server = ThreadingHTTPServer((_HOST, 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://{_HOST}:{server.server_port}", flush=True)
    sys.stdin.read()


def run(folder: Path, store_address: str, vendor: str) -> Sent:
    """Prepare the month into the store's folder, then send it as the function does."""
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 -- each process pays for its own

    from finops_relay.aws.objects import S3Drops, S3Spool  # noqa: PLC0415 -- as above
    from finops_relay.cloudzero.connect import connect  # noqa: PLC0415 -- as above
    from finops_relay.delivery.defaults import Defaults  # noqa: PLC0415 -- as above
    from finops_relay.delivery.identity import ObjectVersion  # noqa: PLC0415 -- as above
    from finops_relay.delivery.ports import Clock, Ports  # noqa: PLC0415 -- as above
    from finops_relay.delivery.waits import Looks, Waits  # noqa: PLC0415 -- as above
    from finops_relay.errors import Wait  # noqa: PLC0415 -- as above
    from finops_relay.jobs.billing.deliver import deliver  # noqa: PLC0415 -- as above
    from finops_relay.jobs.billing.prepare import prepare  # noqa: PLC0415 -- as above
    from finops_relay.jobs.contract import Tenant  # noqa: PLC0415 -- as above
    from pydantic import SecretStr  # noqa: PLC0415 -- as above

    from benchmarks.readers import Memory, s3_client  # noqa: PLC0415 -- as above

    s3, memory, kept = s3_client(store_address), Memory(), Kept(folder)
    clock = Clock(lambda: datetime(MONTH.year, MONTH.month, 10, tzinfo=UTC), lambda: 900.0)
    drops, spool = S3Drops(s3, "drops"), S3Spool(s3, "spool")
    ports = Ports(ledger=memory, drops=drops, spool=spool, queue=memory, bus=memory, metrics=memory, clock=clock)
    key = f"incoming/billing/{CONNECTION}/{MONTH:%Y-%m}/costs.csv"
    size = (folder / "costs.csv").stat().st_size
    source = ObjectVersion("drops", key, "", f'"{size:x}"', size, "01", clock.now())
    writing = Ports(
        ledger=memory,
        drops=Both(drops, kept),
        spool=Both(spool, kept),
        queue=memory,
        bus=memory,
        metrics=memory,
        clock=clock,
    )
    delivery = prepare(source, writing, Defaults(), Waits(), Tenant(vendor, "live"))
    if delivery is None or delivery.stage != "queued" or delivery.rows.rejected:
        raise SystemExit(f"the costs were not prepared as they should be: {delivery}")
    client = connect(SecretStr("key"), vendor, "live")
    began = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        try:
            deliver(delivery, ports, lambda: client, memory, Waits(), Looks(), pool)
        except Wait:  # nothing is shown of what was sent: it is to be looked for again
            whole_s = time.monotonic() - began
    sent = memory.deliveries[delivery.id]
    if sent.rows.owed or not sent.rows.accepted:
        raise SystemExit(f"not every body was taken: {sent}")
    return Sent(len(sent.units), sum(unit.bytes for unit in sent.units), whole_s)


@dataclass(frozen=True)
class Kept:
    """Writes objects as files of a folder, where the store finds them again."""

    folder: Path

    @contextmanager
    def writer(self, key: str, content_type: str) -> Iterator[Any]:
        """Give what takes the bytes of an object."""
        del content_type
        with (self.folder / Path(key).name).open("wb") as file:
            yield file

    def put(self, key: str, body: bytes, content_type: str) -> str:
        """Write a manifest; a receipt would take its name here."""
        if not key.startswith("state/"):
            return key
        with self.writer(key, content_type) as file:
            file.write(body)
        return key


@dataclass(frozen=True)
class Both:
    """Reads from the store, and writes what is kept."""

    reads: Any
    kept: Kept

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 -- a port's methods
        return getattr(self.kept if name in {"writer", "put"} else self.reads, name)


def main(arguments: list[str]) -> None:
    """Be the vendor, or run once."""
    if arguments[0] == "vendor":
        serve()
        return
    sys.path.insert(0, str(ROOT / "layers" / "relay"))
    sent = run(Path(arguments[1]), arguments[2], arguments[3])
    print(json.dumps({"bodies": sent.bodies, "bytes": sent.bytes, "whole_s": sent.whole_s}))


if __name__ == "__main__":
    main(sys.argv[1:])

"""One reading of one price sheet in a process of its own, so that its peak memory is its own.

``python -m benchmarks.readers {floor|peer|rewrite|ours} SMALL FILE [ENDPOINT]`` prints a line of JSON.

floor: ``csv.reader`` over the local file, and nothing done with the rows.
peer: the CSV reader of Powertools' ``S3Object``, from the store, and nothing done with the rows.
rewrite: the preparing job up to the spool, which forgets: pinned, decoded, checked, filtered, rewritten, hashed.
ours: the whole preparing job: the same, and uploaded to the spool in parts.
"""

from __future__ import annotations

import csv
import gzip
import json
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from finops_relay.delivery.identity import ObjectVersion
    from finops_relay.delivery.ledger import Delivery, Record, Target

ENTERPRISE = "e0000000-0000-4000-8000-000000000001"
KINDS = ("floor", "peer", "rewrite", "ours")


@dataclass(frozen=True)
class Read:
    """What a reading came to."""

    rows: int
    seconds: float
    cpu_s: float
    """Of this process: the store's is not in it."""
    peak_mb: float
    """Highest resident memory of the process, interpreter and imports included, in 10^6 bytes."""
    start_mb: float
    """The same before the first byte was read."""


def peak_bytes() -> int:
    """The highest resident memory of this process so far."""
    status = Path("/proc/self/status")
    if status.exists():
        # Linux hands ru_maxrss on from the process that called exec, which may be the larger one: VmHWM is ours alone.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # KiB everywhere but on macOS (getrusage(2))


class Watch:
    """Notes what the process has used at the start, and what a reading comes to at its end."""

    def __init__(self) -> None:
        self._start_mb = peak_bytes() / 1e6
        self._cpu_s = time.process_time()
        self._started = time.perf_counter()

    def stop(self, rows: int) -> Read:
        """Say what it came to."""
        seconds = time.perf_counter() - self._started
        return Read(rows, seconds, time.process_time() - self._cpu_s, peak_bytes() / 1e6, self._start_mb)


def floor(file: Path, _endpoint: str) -> Read:
    """Read with the standard library alone."""
    watch = Watch()
    opener: Any = gzip.open if file.suffix == ".gz" else open
    with opener(file, "rt", newline="", encoding="utf-8") as text:
        return watch.stop(sum(1 for _ in csv.reader(text)) - 1)


def peer(file: Path, endpoint: str) -> Read:
    """Read with Powertools."""
    from aws_lambda_powertools.utilities.streaming import S3Object  # noqa: PLC0415 -- each kind pays for its own
    from aws_lambda_powertools.utilities.streaming.transformations import (  # noqa: PLC0415 -- as above
        CsvTransform,
        GzipTransform,
    )

    source = S3Object("drops", file.name, boto3_client=s3_client(endpoint))
    kinds: list[Any] = [GzipTransform, CsvTransform] if file.suffix == ".gz" else [CsvTransform]
    transformations = [kind() for kind in kinds]
    watch = Watch()
    return watch.stop(sum(1 for _ in source.transform(transformations)))


def rewrite(file: Path, endpoint: str) -> Read:
    """Prepare the price book into a spool that forgets: what the job does beyond this, the peer does nothing of."""
    return ours(file, endpoint, spool=Forgetful())


def ours(file: Path, endpoint: str, spool: Any = None) -> Read:  # noqa: ANN401 -- S3Spool, or a part of one
    """Prepare the price book."""
    from finops_relay.aws.objects import S3Drops, S3Spool  # noqa: PLC0415 -- as in `peer`
    from finops_relay.delivery.defaults import Defaults  # noqa: PLC0415 -- as above
    from finops_relay.delivery.ports import Clock, Ports  # noqa: PLC0415 -- as above
    from finops_relay.delivery.waits import Waits  # noqa: PLC0415 -- as above
    from finops_relay.jobs.price_books.prepare import prepare  # noqa: PLC0415 -- as above

    s3, memory = s3_client(endpoint), Memory()
    drops = S3Drops(s3, "drops")
    ports = Ports(
        ledger=memory,
        drops=drops,
        spool=spool or S3Spool(s3, "spool"),
        queue=memory,
        bus=memory,
        metrics=memory,
        clock=Clock(lambda: datetime.now(UTC), lambda: 900.0),
    )
    source = drops.pin("drops", f"incoming/price-books/azure/{file.name}")
    watch = Watch()
    delivery = prepare(source, ports, Defaults(ENTERPRISE, "acme", "", ENTERPRISE), Waits())
    read = watch.stop(delivery.rows.in_ if delivery else 0)
    if delivery is None or delivery.stage != "queued" or delivery.rows.rejected or not delivery.rows.filtered:
        raise SystemExit(f"the sheet was not prepared as it should be: {delivery}")
    return read


def s3_client(endpoint: str) -> Any:  # noqa: ANN401 -- botocore makes its clients at run time
    """Return a client of the store at *endpoint*."""
    import boto3  # noqa: PLC0415 -- the floor runs without it
    from botocore.config import Config  # noqa: PLC0415 -- as above

    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="made-up",
        aws_secret_access_key="made-up",  # noqa: S106 -- says so
        config=Config(s3={"addressing_style": "path"}),
    )


class Forgetful:
    """As much of a spool as preparing needs; it keeps nothing."""

    @contextmanager
    def writer(self, key: str, content_type: str) -> Iterator[Forgetful]:
        """Give what takes the bytes of an object."""
        del key, content_type
        yield self

    def write(self, data: bytes) -> int:
        """Take bytes."""
        return len(data)


@dataclass
class Memory:
    """Ledger, queue, bus and counters that only remember: a book makes a dozen calls to them, however large it is."""

    deliveries: dict[str, Delivery] = field(default_factory=dict)
    targets: dict[str, Target] = field(default_factory=dict)
    records: dict[str, Record] = field(default_factory=dict)

    def delivery(self, delivery_id: str) -> Delivery | None:
        """Return the delivery as last saved."""
        return self.deliveries.get(delivery_id)

    def save(self, delivery: Delivery) -> Delivery:
        """Save the delivery."""
        saved = self.deliveries[delivery.id] = delivery.but(version=delivery.version + 1)
        return saved

    def target(self, name: str) -> Target:
        """Return the target as last saved, or a new one."""
        from finops_relay.delivery.ledger import Target  # noqa: PLC0415 -- as in `peer`

        return self.targets.get(name) or Target(name=name)

    def save_target(self, target: Target) -> Target:
        """Save the target."""
        saved = self.targets[target.name] = target.but(version=target.version + 1)
        return saved

    def record(self, name: str) -> Record:
        """Return the record as last saved, or a new one."""
        from finops_relay.delivery.ledger import Record  # noqa: PLC0415 -- as in `peer`

        return self.records.get(name) or Record(name=name)

    def save_record(self, record: Record) -> Record:
        """Save the record."""
        saved = self.records[record.name] = record.but(version=record.version + 1)
        return saved

    def claim(self, source: ObjectVersion) -> bool:
        """Every event is the newest."""
        del source
        return True

    def note(self, name: str) -> Mapping[str, str]:
        """There are no notes."""
        del name
        return {}

    def save_note(self, name: str, values: Mapping[str, str], order: str = "") -> bool:  # noqa: ARG002 -- the port's shape
        """Keep nothing."""
        return True

    def send(self, delivery: Delivery, *, nonce: str) -> None:
        """Queue nothing."""

    def announce(self, delivery: Delivery, receipt_uri: str) -> None:
        """Tell nobody."""

    def count(self, name: str, value: int = 1) -> None:
        """Count nothing."""


def main(kind: str, small: str, file: str, endpoint: str = "") -> None:
    """Read a small sheet, so that everything is loaded and connected; then read *file* and print what it came to."""
    reading = {"floor": floor, "peer": peer, "rewrite": rewrite, "ours": ours}[kind]
    reading(Path(small), endpoint)
    print(json.dumps(asdict(reading(Path(file), endpoint))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

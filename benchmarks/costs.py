"""Billing drops: files of costs that fill a month of bodies, packed by ours and row by row.

Each in a process of its own, so that its peak memory is its own:

``python -m benchmarks.costs {rowwise|ours} {cbf|focus} SMALL FILE FOLDER`` prints a line of JSON and leaves the bodies
in FOLDER.

rowwise: ``csv.DictReader``, a pydantic model and ``json.dumps``, one row after the other, into bodies as they fill.
ours: what the preparing job does with a file: opened, read with all checks, ordered by hour, packed, summed, hashed.
"""

from __future__ import annotations

import csv
import json
import os
import random
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.readers import Read, Watch
from local.bootstrap import ROOT, clean_environ

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pydantic import BaseModel

KINDS = ("rowwise", "ours")
FORMS = ("cbf", "focus")
MONTH = date(2026, 2, 1)
SEED = 20260201
SMALL_ROWS = 500
"""Of the file that each process packs first."""
BODY_BYTES = 5_000_000
ROW_BYTES = {"cbf": 900, "focus": 846}
"""Of a row in a body, rounded up: says how many rows fill bodies of a certain size."""

CBF_HEADER = (
    "lineitem/id,lineitem/type,lineitem/description,lineitem/cloud_provider,time/usage_start,time/usage_end,resource/id,"
    "resource/service,resource/account,resource/region,resource/usage_family,action/operation,action/usage_type,"
    "usage/amount,usage/units,cost/cost,cost/discounted_cost,cost/amortized_cost,cost/discounted_amortized_cost,"
    "cost/on_demand_cost,bill/invoice_id,resource/tag:team,resource/tag:env,resource/tag:cost-center,resource/tag:app"
)
FOCUS_HEADER = (
    "AvailabilityZone,BilledCost,BillingAccountId,BillingAccountName,BillingCurrency,BillingPeriodEnd,BillingPeriodStart,"
    "ChargeCategory,ChargeClass,ChargeDescription,ChargeFrequency,ChargePeriodEnd,ChargePeriodStart,"
    "CommitmentDiscountCategory,CommitmentDiscountId,CommitmentDiscountName,CommitmentDiscountStatus,"
    "CommitmentDiscountType,ConsumedQuantity,ConsumedUnit,ContractedCost,ContractedUnitPrice,EffectiveCost,"
    "InvoiceIssuerName,ListCost,ListUnitPrice,PricingCategory,PricingQuantity,PricingUnit,ProviderName,PublisherName,"
    "RegionId,RegionName,ResourceId,ResourceName,ResourceType,ServiceCategory,ServiceName,SkuId,SkuPriceId,SubAccountId,"
    "SubAccountName,Tags"
)
"""The 43 columns of FOCUS 1.0."""
HEADERS = {"cbf": CBF_HEADER, "focus": FOCUS_HEADER}

_SERVICES = (
    (
        "Amazon Elastic Compute Cloud",
        "Compute",
        "Virtual Machines",
        "Instance",
        "instance",
        "BoxUsage:m5.xlarge",
        "Hrs",
    ),
    ("Amazon Simple Storage Service", "Storage", "Object Storage", "Bucket", "bucket", "TimedStorage-ByteHrs", "GB-Mo"),
    (
        "Amazon Relational Database Service",
        "Databases",
        "Relational",
        "DB Instance",
        "db",
        "InstanceUsage:db.r5",
        "Hrs",
    ),
    ("AWS Lambda", "Compute", "Serverless Compute", "Function", "function", "Lambda-GB-Second", "Second"),
    ("Amazon Virtual Private Cloud", "Networking", "Network", "NAT Gateway", "natgateway", "NatGateway-Bytes", "GB"),
    (
        "AmazonCloudWatch",
        "Management and Governance",
        "Observability",
        "Log Group",
        "log-group",
        "DataProcessing",
        "GB",
    ),
)
_REGIONS = (("us-east-1", "US East (N. Virginia)"), ("eu-west-1", "EU (Ireland)"), ("ap-southeast-2", "Sydney"))
_TEAMS = ("platform", "payments", "search", "data", "identity", "growth")


@dataclass(frozen=True)
class CostFile:
    """A generated file on disk."""

    form: str
    file: Path
    rows: int
    bytes: int


@dataclass(frozen=True)
class Packed:
    """What packing a file came to."""

    read: Read
    bodies: int
    body_bytes: int
    cost: str
    """The sum of what was sent as ``cost/cost``, in US dollars."""


@dataclass
class Packings:
    """All packings of one file, by kind, in the order in which they were made."""

    form: str
    rows: int
    bytes: int
    packed: dict[str, list[Packed]] = field(default_factory=lambda: {kind: [] for kind in KINDS})

    def rows_per_s(self, kind: str) -> float:
        """Rows a second of processor time, in the fastest: other work on the machine only slows one down."""
        return self.rows / min(packed.read.cpu_s for packed in self.packed[kind])

    @property
    def body_mb(self) -> float:
        """Megabytes (10^6) of our bodies."""
        return self.packed["ours"][0].body_bytes / 1e6

    @property
    def times(self) -> float:
        """How many times as fast ours is."""
        return self.rows_per_s("ours") / self.rows_per_s("rowwise")

    def peak_mb(self, kind: str) -> float:
        """The highest peak of memory."""
        return max(packed.read.peak_mb for packed in self.packed[kind])


# --- the files --------------------------------------------------------------------------------------------------------


def write_costs(path: Path, form: str, rows: int) -> CostFile:
    """Write a file of costs: the same bytes for the same arguments. The hours come in no order, as in most exports."""
    draw = random.Random(SEED)  # noqa: S311 -- reproducible data, not a secret
    row_of = {"cbf": _cbf_row, "focus": _focus_row}[form]
    with path.open("w", newline="", encoding="utf-8") as file:
        file.write(HEADERS[form] + "\n")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows(row_of(_Charge.drawn(draw)) for _ in range(rows))
    return CostFile(form, path, rows, path.stat().st_size)


@dataclass(frozen=True)
class _Charge:
    """What both forms tell in their own way."""

    number: int
    resource: int
    """Of some thousands: what belongs to a resource comes again and again."""
    start: datetime
    cost: Decimal
    effective: Decimal
    listed: Decimal
    amount: Decimal

    @classmethod
    def drawn(cls, draw: random.Random) -> _Charge:
        """One of any hour; three in ten are below their list price, one in ten is paid for by a commitment."""
        number = draw.getrandbits(64)
        cost = Decimal(draw.randrange(1, 10**10)).scaleb(-10)
        effective = cost * 7 / 10 if number % 10 == 0 else cost
        listed = cost * 5 / 4 if number % 10 in {1, 2, 3} else cost
        start = datetime(MONTH.year, MONTH.month, 1, tzinfo=UTC) + timedelta(hours=draw.randrange(28 * 24))
        amount = Decimal(draw.randrange(1, 10**9)).scaleb(-6)
        return cls(number, int(draw.paretovariate(0.5)) % 5000, start, cost, effective, listed, amount)

    @property
    def end(self) -> datetime:
        """An hour later."""
        return self.start + timedelta(hours=1)

    @property
    def tags(self) -> dict[str, str]:
        """Of the resource."""
        resource = self.resource
        return {
            "team": _TEAMS[resource % len(_TEAMS)],
            "env": ("prod", "staging")[resource % 2],
            "cost-center": f"CC-{resource % 90 + 1000}",
            "app": f"{_TEAMS[resource % len(_TEAMS)]}-{resource % 40}",
        }


def _at(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _cbf_row(charge: _Charge) -> Sequence[str]:
    service, _, family, _, kind, usage, unit = _SERVICES[charge.resource % len(_SERVICES)]
    region, _ = _REGIONS[charge.resource % len(_REGIONS)]
    return (
        f"{charge.number:016x}",
        "Usage",
        f"{usage} in {region}, ${charge.listed:.4f} at list price",
        "AWS",
        _at(charge.start),
        _at(charge.end),
        f"{kind}/{kind[:2]}-{charge.resource:017x}",
        service,
        f"{111122223333 + charge.resource % 30}",
        region,
        family,
        "RunInstances",
        usage,
        f"{charge.amount:f}",
        unit,
        f"{charge.cost:f}",
        f"{charge.cost:f}",
        f"{charge.effective:f}",
        f"{charge.effective:f}",
        f"{charge.listed:f}",
        "" if charge.number % 4 else "EUINEU26-1234567",
        *charge.tags.values(),
    )


def _focus_row(charge: _Charge) -> Sequence[str]:
    service, category, _, kind, short, usage, unit = _SERVICES[charge.resource % len(_SERVICES)]
    region, region_name = _REGIONS[charge.resource % len(_REGIONS)]
    committed = charge.cost != charge.effective
    account = f"{111122223333 + charge.resource % 30}"
    values = {
        "AvailabilityZone": f"{region}a",
        "BilledCost": f"{charge.cost:f}",
        "BillingAccountId": "999988887777",
        "BillingAccountName": "Payer",
        "BillingCurrency": "USD",
        "BillingPeriodEnd": "2026-03-01T00:00:00Z",
        "BillingPeriodStart": "2026-02-01T00:00:00Z",
        "ChargeCategory": "Usage",
        "ChargeDescription": f"{usage} in {region}, ${charge.listed:.4f} at list price",
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodEnd": _at(charge.end),
        "ChargePeriodStart": _at(charge.start),
        "ConsumedQuantity": f"{charge.amount:f}",
        "ConsumedUnit": unit,
        "ContractedCost": f"{charge.cost:f}",
        "ContractedUnitPrice": "0.192",
        "EffectiveCost": f"{charge.effective:f}",
        "InvoiceIssuerName": "Amazon Web Services, Inc.",
        "ListCost": f"{charge.listed:f}",
        "ListUnitPrice": "0.24",
        "PricingCategory": "Committed" if committed else "Standard",
        "PricingQuantity": f"{charge.amount:f}",
        "PricingUnit": unit,
        "ProviderName": "AWS",
        "PublisherName": "Amazon Web Services, Inc.",
        "RegionId": region,
        "RegionName": region_name,
        "ResourceId": f"arn:aws:{short}:{region}:{account}:{short}/{short[:2]}-{charge.resource:017x}",
        "ResourceName": f"{short}-{charge.resource}",
        "ResourceType": kind,
        "ServiceCategory": category,
        "ServiceName": service,
        "SkuId": f"{usage}-{charge.resource % 200:012X}",
        "SkuPriceId": f"{usage}-{charge.resource % 200:012X}.JRTCKXETXF",
        "SubAccountId": account,
        "SubAccountName": f"account {account[-2:]}",
        "Tags": json.dumps(charge.tags),
    }
    if committed:
        values |= {
            "CommitmentDiscountCategory": "Spend",
            "CommitmentDiscountId": "arn:aws:savingsplans::999988887777:savingsplan/0b1c",
            "CommitmentDiscountName": "Compute Savings Plan",
            "CommitmentDiscountStatus": "Used",
            "CommitmentDiscountType": "Compute Savings Plan",
        }
    return [values.get(name, "") for name in FOCUS_HEADER.split(",")]


# --- row by row -------------------------------------------------------------------------------------------------------


def rowwise(form: str, file: Path, folder: Path) -> Packed:
    """Pack with the standard library and pydantic, as one would at first."""
    model, cells_of = _models()[form]
    watch = Watch()
    total = Decimal(0)
    count = 0
    bodies = _Bodies(folder)
    with file.open(newline="", encoding="utf-8") as text:
        for row in csv.DictReader(text):
            charge = model.model_validate({name: value for name, value in row.items() if value})
            cost, cells = cells_of(charge)
            bodies.add(json.dumps(cells, separators=(",", ":")).encode())
            total += cost
            count += 1
    bodies.close()
    return Packed(watch.stop(count), bodies.count, bodies.bytes, f"{total:f}")


class _Bodies:
    """Bodies that are written as they fill; no hour is kept together."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rows: list[bytes] = []
        self._size = 0
        self._head = b'{"month":"2026-02-01T00:00:00Z","operation":"sum","data":['
        self._tail = b"]}"
        self.count = 0
        self.bytes = 0
        self.hashes: list[str] = []

    def add(self, row: bytes) -> None:
        if self._rows and len(self._head) + self._size + len(row) + len(self._tail) > BODY_BYTES:
            self.close()
        self._rows.append(row)
        self._size += len(row) + 1

    def close(self) -> None:
        body = self._head + b",".join(self._rows) + self._tail
        self.count += 1
        self.bytes += len(body)
        self.hashes.append(sha256(body).hexdigest())
        (self._folder / f"{self.count}.json").write_bytes(body)
        self._rows, self._size = [], 0


CellsOf = Any  # a function from a model of the form to its cost and the cells that are sent


def _models() -> Mapping[str, tuple[type[BaseModel], CellsOf]]:
    """The model of each form, and what is sent of one."""
    from pydantic import BaseModel, ConfigDict, Field, Json  # noqa: PLC0415 -- each kind pays for its own

    class Cbf(BaseModel):
        model_config = ConfigDict(extra="allow")  # tags

        id: str | None = Field(None, alias="lineitem/id")
        type: str | None = Field(None, alias="lineitem/type")
        description: str | None = Field(None, alias="lineitem/description")
        cloud_provider: str | None = Field(None, alias="lineitem/cloud_provider")
        usage_start: datetime = Field(alias="time/usage_start")
        usage_end: datetime | None = Field(None, alias="time/usage_end")
        resource: str | None = Field(None, alias="resource/id")
        service: str | None = Field(None, alias="resource/service")
        account: str | None = Field(None, alias="resource/account")
        region: str | None = Field(None, alias="resource/region")
        usage_family: str | None = Field(None, alias="resource/usage_family")
        operation: str | None = Field(None, alias="action/operation")
        usage_type: str | None = Field(None, alias="action/usage_type")
        amount: Decimal | None = Field(None, alias="usage/amount")
        units: str | None = Field(None, alias="usage/units")
        cost: Decimal = Field(alias="cost/cost")
        discounted_cost: Decimal | None = Field(None, alias="cost/discounted_cost")
        amortized_cost: Decimal | None = Field(None, alias="cost/amortized_cost")
        discounted_amortized_cost: Decimal | None = Field(None, alias="cost/discounted_amortized_cost")
        on_demand_cost: Decimal | None = Field(None, alias="cost/on_demand_cost")
        invoice_id: str | None = Field(None, alias="bill/invoice_id")

    def cbf_cells(row: Cbf) -> tuple[Decimal, Mapping[str, Any]]:
        return row.cost, row.model_dump(mode="json", by_alias=True, exclude_unset=True)

    class Focus(BaseModel):
        """The columns that are sent, and those that say how; others are passed over."""

        BilledCost: Decimal
        BillingAccountId: str | None = None
        BillingCurrency: str
        ChargeCategory: str
        ChargeClass: str | None = None
        ChargeDescription: str | None = None
        ChargePeriodEnd: datetime | None = None
        ChargePeriodStart: datetime
        CommitmentDiscountId: str | None = None
        CommitmentDiscountStatus: str | None = None
        ConsumedQuantity: Decimal | None = None
        ConsumedUnit: str | None = None
        EffectiveCost: Decimal | None = None
        ListCost: Decimal | None = None
        ProviderName: str | None = None
        RegionId: str | None = None
        ResourceId: str | None = None
        ResourceType: str | None = None
        ServiceName: str | None = None
        SkuId: str | None = None
        SubAccountId: str | None = None
        Tags: Json[dict[str, str]] = {}

    def focus_cells(row: Focus) -> tuple[Decimal, Mapping[str, Any]]:
        billed = f"{row.BilledCost:f}"
        effective = None if row.EffectiveCost is None else f"{row.EffectiveCost:f}"
        resource = None
        if row.ResourceId:
            resource = f"{row.ResourceType or 'resource'}/{row.ResourceId.replace(':', '_').replace('/', '_')}"
        kind = row.ChargeCategory
        if row.ChargeClass == "Correction":
            kind = "Adjustment"
        elif row.CommitmentDiscountStatus == "Unused":
            kind = "Usage"
        elif kind == "Purchase" and row.CommitmentDiscountId:
            kind = "CommittedUsePurchase"
        cells = {
            "time/usage_start": _at(row.ChargePeriodStart),
            "time/usage_end": _at(row.ChargePeriodEnd) if row.ChargePeriodEnd else None,
            "cost/cost": billed,
            "cost/discounted_cost": billed,
            "cost/amortized_cost": effective,
            "cost/discounted_amortized_cost": effective,
            "cost/on_demand_cost": None if row.ListCost is None else f"{row.ListCost:f}",
            "usage/amount": None if row.ConsumedQuantity is None else f"{row.ConsumedQuantity:f}",
            "usage/units": row.ConsumedUnit,
            "lineitem/type": kind,
            "lineitem/description": row.ChargeDescription,
            "lineitem/cloud_provider": row.ProviderName,
            "resource/id": resource,
            "resource/service": row.ServiceName,
            "resource/account": row.SubAccountId or row.BillingAccountId,
            "resource/region": row.RegionId or "no-region",
            "action/usage_type": row.SkuId,
            **{f"resource/tag:{key}": value for key, value in row.Tags.items()},
        }
        return row.BilledCost, {name: value for name, value in cells.items() if value is not None}

    return {"cbf": (Cbf, cbf_cells), "focus": (Focus, focus_cells)}


# --- ours -------------------------------------------------------------------------------------------------------------


def ours(form: str, file: Path, folder: Path) -> Packed:
    """Pack as the preparing job does, with every check."""
    from finops_relay.cloudzero.connect import CLIENTS  # noqa: PLC0415 -- each kind pays for its own
    from finops_relay.cloudzero.records import ContractName  # noqa: PLC0415 -- as above
    from finops_relay.formats.archives import Budget  # noqa: PLC0415 -- as above
    from finops_relay.formats.cost_files import CostFileReader, open_cost_file  # noqa: PLC0415 -- as above
    from finops_relay.formats.rejected_rows import RejectedRow  # noqa: PLC0415 -- as above
    from finops_relay.jobs.billing.packing import Packing  # noqa: PLC0415 -- as above

    def reject(row: RejectedRow) -> None:
        raise SystemExit(f"a good row was rejected: {row}")

    watch = Watch()
    reader, budget = CostFileReader(file.name, MONTH), Budget()
    client = CLIENTS[ContractName.LIVE]
    with Packing(client, MONTH, whole_month=True, appends_only=False) as packing:
        with file.open("rb") as source, open_cost_file(file.name, source, file.stat().st_size, budget) as stream:
            packing.add_file(0, reader, stream, reject)
        bodies = list(packing.bodies(_writer(folder)))
        total = packing.totals["cost/cost"]
        if packing.refused or reader.form != form or sum(hour.rows for hour in packing.hours.values()) != packing.rows:
            raise SystemExit("the file was not packed as it should be")
        return Packed(watch.stop(packing.rows), len(bodies), sum(body.bytes for body in bodies), f"{total:f}")


def _writer(folder: Path) -> Callable[[int], Callable[[bytes], object]]:
    """Give what writes a body to a file of its own."""

    def write(seq: int) -> Callable[[bytes], object]:
        path = folder / f"{seq}.json"
        path.unlink(missing_ok=True)

        def append(data: bytes) -> None:
            with path.open("ab") as file:
                file.write(data)

        return append

    return write


# --- both -------------------------------------------------------------------------------------------------------------


def pack(folder: Path, form: str, size_mb: int, repeats: int) -> Packings:
    """Write a file that fills bodies of *size_mb*, and pack it with each kind in turn, *repeats* times."""
    rows = size_mb * 1_000_000 // ROW_BYTES[form]
    small, file = (write_costs(folder / f"{form}-{count}.csv", form, count) for count in (SMALL_ROWS, rows))
    done = Packings(form, file.rows, file.bytes)
    for _ in range(repeats):
        for kind in KINDS:
            done.packed[kind].append(_pack_once(kind, small, file, folder))
    sums = {(packed.read.rows, Decimal(packed.cost)) for each in done.packed.values() for packed in each}
    if len(sums) > 1:
        raise SystemExit(f"the two ways do not agree on the rows of {form} and what they cost: {sums}")
    return done


def _pack_once(kind: str, small: CostFile, file: CostFile, folder: Path) -> Packed:
    with tempfile.TemporaryDirectory(dir=folder) as bodies:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.costs", kind, file.form, str(small.file), str(file.file), bodies],
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
    return Packed(**{**found, "read": Read(**found["read"])})


def main(kind: str, form: str, small: str, file: str, folder: str) -> None:
    """Pack a small file, so that everything is loaded; then pack *file* and print what it came to."""
    packing = {"rowwise": rowwise, "ours": ours}[kind]
    packing(form, Path(small), Path(folder))
    print(json.dumps(asdict(packing(form, Path(file), Path(folder)))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

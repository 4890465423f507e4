"""Small files of costs in every form, and one way to read them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import pytest
from finops_relay.errors import InputRefused
from finops_relay.formats.archives import Budget
from finops_relay.formats.cost_files import COST_BLOCK_BYTES, CostFileReader
from finops_relay.formats.cost_rows import CostRow
from finops_relay.formats.csv_rows import Readable, csv_line
from finops_relay.formats.rejected_rows import RejectedRow
from hypothesis import strategies as st

MONTH = date(2026, 2, 1)
HOUR = 491_712
"""2026-02-04T00:00:00Z in hours since the epoch."""

HOSTILE = st.text(
    st.sampled_from("ab/,:\"\n\r\u2028\u0085\x0b\x00é😀\udcff\udc80\ufeff ;=\t{}[]$(-).0159eE+ZTNUL'\\"), max_size=12
)
"""Text of whatever breaks naive readers; lone surrogates stand for bytes that are not UTF-8."""

CBF: Mapping[str, str] = {
    "time/usage_start": "2026-02-04T00:00:00Z",
    "cost/cost": "1.25",
    "lineitem/type": "Usage",
    "resource/id": "instance/i-1",
    "resource/region": "eu-west-1",
    "resource/tag:team": "core",
}
"""One good row of the Common Bill Format."""

FOCUS: Mapping[str, str] = {
    "BilledCost": "1.25",
    "BillingAccountId": "111122223333",
    "BillingCurrency": "USD",
    "ChargeCategory": "Usage",
    "ChargeClass": "NULL",
    "ChargeDescription": "an hour of t3.micro",
    "ChargePeriodEnd": "2026-02-04T01:00:00Z",
    "ChargePeriodStart": "2026-02-04T00:00:00Z",
    "CommitmentDiscountId": "",
    "CommitmentDiscountStatus": "null",
    "ConsumedQuantity": "1",
    "ConsumedUnit": "Hrs",
    "EffectiveCost": "1.25",
    "ListCost": "1.5",
    "ProviderName": "AWS",
    "RegionId": "eu-west-1",
    "ResourceId": "i-1",
    "ResourceType": "Instance",
    "ServiceName": "Amazon EC2",
    "ServiceSubcategory": "Virtual Machines",
    "SkuId": "SKU1",
    "SkuMeter": "NULL",
    "SubAccountId": "444455556666",
    "Tags": '{"team": "core"}',
    "x_Own": "passed over",
}
"""One good row of FOCUS 1.2, with a column of a provider's own."""

ITEM: Mapping[str, str] = {
    "timestamp": "2026-02-04T00:00:00Z",
    "cost": "1.25",
    "service": "Support desk",
    "description": "February",
}
"""One good line item without metadata."""


@dataclass
class Read:
    """What became of a file."""

    reader: CostFileReader
    all: list[CostRow | RejectedRow]

    @property
    def rows(self) -> list[CostRow]:
        """The rows that were accepted."""
        return [row for row in self.all if isinstance(row, CostRow)]

    @property
    def rejected(self) -> list[RejectedRow]:
        """The rows that were not."""
        return [row for row in self.all if isinstance(row, RejectedRow)]


def read(  # noqa: PLR0913 -- a file, and what is special about reading it this time
    data: bytes,
    mended: Mapping[int, Mapping[str, str]] | None = None,
    *,
    refused: Mapping[int, tuple[str, str]] | None = None,
    stream: Readable | None = None,
    budget: Budget | None = None,
    block_bytes: int = COST_BLOCK_BYTES,
) -> Read:
    """Reads one file for February 2026."""
    reader = CostFileReader("costs", MONTH, mended, refused=refused, budget=budget, block_bytes=block_bytes)
    done = Read(reader, list(reader.rows(stream or io.BytesIO(data))))
    assert reader.rows_in == len(done.all)
    assert all(row.error and row.fix and not row.error.endswith(".") for row in done.rejected)
    return done


def refused(data: bytes, mended: Mapping[int, Mapping[str, str]] | None = None) -> InputRefused:
    """Reads a file that must be refused."""
    with pytest.raises(InputRefused) as refusal:
        read(data, mended)
    assert refusal.value.file == "costs"
    assert refusal.value.fix, "a refusal says what to do"
    return refusal.value


def table(*rows: Mapping[str, str], end: str = "\n") -> bytes:
    """A CSV file of rows with the same names."""
    return sheet(list(rows[0]), *([row[name] for name in rows[0]] for row in rows), end=end)


def sheet(header: Sequence[str], *rows: Iterable[str], end: str = "\n") -> bytes:
    """A CSV file; lone surrogates in its cells become the bytes that they stand for."""
    lines = [csv_line(header), *map(csv_line, rows)]
    return "".join(line + end for line in lines).encode(errors="surrogateescape")


def quoted(*rows: Mapping[str, str]) -> bytes:
    """The same file as of :func:`table`, with quotes around every cell."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def cbf(**changes: str) -> dict[str, str]:
    """A good CBF row with some cells changed; a name has ``__`` for its slash."""
    return {**CBF, **{name.replace("__", "/"): value for name, value in changes.items()}}


def only(data: bytes) -> CostRow:
    """The only row of a file, accepted."""
    done = read(data)
    assert done.rejected == []
    [row] = done.rows
    return row


def fault(data: bytes) -> RejectedRow:
    """The only row of a file, rejected."""
    done = read(data)
    assert done.rows == []
    [row] = done.rejected
    return row

"""The receipt: what became of every row of one delivery (design: decisions, "Receipt" and "The law")."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, model_validator

RECEIPT_VERSION = 1


class Outcome(StrEnum):
    """What became of a delivery; everything but ``pending`` and ``held`` is final."""

    PENDING = "pending"
    DELIVERED = "delivered"
    UNCHANGED = "unchanged"
    PARTLY_DELIVERED = "partly_delivered"
    REJECTED = "rejected"
    HELD = "held"
    SUPERSEDED = "superseded"
    STALE = "stale"
    FAILED = "failed"

    @property
    def final(self) -> bool:
        """True when nothing more will happen to the delivery by itself or by a decision."""
        return self not in {Outcome.PENDING, Outcome.HELD}


class Frozen(BaseModel):
    """Base of the models that are kept: frozen, and tolerant of fields that a later version wrote."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Rows(Frozen):
    """Counts of input rows, before any aggregation."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    in_: int = Field(default=0, ge=0, alias="in")
    accepted: int = Field(default=0, ge=0)
    filtered: int = Field(default=0, ge=0)
    rejected: int = Field(default=0, ge=0)
    owed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _law(self) -> Self:
        """Rows in = accepted + filtered + rejected + owed; a receipt that breaks it cannot be made."""
        if self.in_ != self.accepted + self.filtered + self.rejected + self.owed:
            msg = f"the law is broken: {self.in_} rows in, but {self!r}"
            raise ValueError(msg)
        return self


def _plain(amount: Decimal) -> str:
    """Return *amount* in digits: whoever reads a receipt may know no exponents."""
    return format(amount, "f")


Dollars = Annotated[Decimal, PlainSerializer(_plain, return_type=str, when_used="json")]
"""US dollars, exact."""
Quantity = Annotated[Decimal, PlainSerializer(_plain, return_type=str, when_used="json")]
"""In a stream's unit, exact."""


class ColumnMoney(Frozen):
    """What one column of costs adds up to; None where it is not known, or not yet."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    in_: Dollars | None = Field(default=None, alias="in")
    sent: Dollars | None = None
    read_back: Dollars | None = None
    difference: Dollars | None = None
    """``read_back`` less ``sent``."""


class Money(Frozen):
    """US dollars of ``cost/cost``, exact; all None for kinds that carry no money."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    in_: Dollars | None = Field(default=None, alias="in")
    sent: Dollars | None = None
    read_back: Dollars | None = None
    rejected: Dollars | None = None
    """Of the rejected rows whose amount could be read."""
    difference: Dollars | None = None
    """``read_back`` less ``sent``."""
    by_column: dict[str, ColumnMoney] = Field(default_factory=dict)
    """The same by each column of costs that any row had, by its name such as ``cost/amortized_cost``."""


class Usage(Frozen):
    """What records of telemetry add up to, in their stream's unit, exact; all None for kinds that carry none."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    in_: Quantity | None = Field(default=None, alias="in")
    """Of the rows that could be read and are not rejected."""
    sent: Quantity | None = None
    """Of the bodies that were taken; where the contract is told whole periods, with what they held already."""


class Part(Frozen):
    """One pinned object of a folder drop."""

    key: str
    version: str = ""
    etag: str = ""
    bytes: int = 0


class Source(Frozen):
    """What was dropped: one object version, and the parts it pinned."""

    bucket: str
    key: str
    """Decoded."""
    version: str = ""
    etag: str = ""
    sequencer: str = ""
    sha256: str = ""
    """Of the object's bytes as dropped, where they were read to the end."""
    bytes: int = 0
    parts: tuple[Part, ...] = ()


class Unit(Frozen):
    """One thing that a vendor is asked to take: a file of a book, an organization's activation, a body."""

    seq: int
    name: str = ""
    rows: int = 0
    bytes: int = 0
    sha256: str = ""
    attempts: int = 0
    vendor_id: str = ""
    request_id: str = ""
    """The vendor's id of the request that settled this unit."""
    status: str = "owed"
    """``owed``, then what the vendor did: ``accepted``, ``activated``, ``ready``, ``refused: …``."""
    spool_key: str = ""


class Receipt(Frozen):
    """One object per delivery, rewritten as it goes: ``receipts/{kind}/{yyyy}/{mm}/{dd}/{id}.json``."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: int = RECEIPT_VERSION
    id: str
    kind: str
    source: Source
    target: str
    outcome: Outcome
    reason: str = ""
    """Why the outcome is what it is, in words; empty for the ordinary good ones."""
    rows: Rows
    money: Money
    usage: Usage = Usage()
    units: tuple[Unit, ...]
    filtered_by: dict[str, int]
    """Rows left out, by the setting that left them out."""
    rejected_rows: str
    """``s3://`` address of the rejected-rows file, empty when there is none."""
    plan: dict[str, Any] | None
    warnings: tuple[str, ...]
    times: dict[str, datetime]
    """``received`` first; then what happened, in order. UTC."""
    versions: dict[str, str]
    """Of relay, of the configuration used, of the ledger item."""
    next_command: str
    """What a person would type next; empty when nothing is to be done."""

    def as_json(self) -> bytes:
        """Return the receipt as it is stored: indented JSON, UTF-8."""
        return self.model_dump_json(by_alias=True, indent=2).encode() + b"\n"


def receipt_key(kind: str, received: datetime, delivery: str) -> str:
    """Return the key of a delivery's receipt in the drops bucket."""
    return f"receipts/{kind}/{received:%Y/%m/%d}/{delivery}.json"


def rejected_key(delivery: str) -> str:
    """Return the key of a delivery's rejected rows in the drops bucket."""
    return f"rejected/{delivery}.csv"

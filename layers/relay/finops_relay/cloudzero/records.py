"""What is sent to CloudZero and what it answers, named alike under both contracts.

Amounts are Decimals in US dollars, values of usage are Decimals in the stream's own unit, times are aware. A field that
one contract lacks says so; giving it under that contract raises NotInContract.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from finops_relay.http.redact import one_line

MAX_MAGNITUDE = 30
"""Digits before or behind the point that an amount may have: beyond is a mistake, or an attempt to fill memory."""


MAX_READ_MAGNITUDE = 400
"""As far as the noise goes that adding up floats leaves at the vendor."""
SECONDS_DIGITS = 10
MILLISECONDS_DIGITS = 13
"""Of the epoch's time from 2001 to 2286."""


def _bounded(amount: Decimal) -> Decimal:
    return _within(amount, MAX_MAGNITUDE)


def bounded_as_read(amount: Decimal) -> Decimal:
    """Return *amount*, which is finite and of a size that an answer may have. Raises ValueError."""
    return _within(amount, MAX_READ_MAGNITUDE)


def _within(amount: Decimal, most: int) -> Decimal:
    exponent = amount.as_tuple().exponent
    if not isinstance(exponent, int) or exponent < -most or amount.adjusted() > most:
        msg = f"an amount has at most {most} digits before and behind the point"
        raise ValueError(msg)
    return amount


def _utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        msg = "the time is beyond the calendar in UTC"
        raise ValueError(msg) from None


def _whole(count: object) -> object:
    """Let no Decimal become an int before its size is known: 1E+10000000 takes seconds."""
    if isinstance(count, Decimal) and not (count.is_finite() and abs(count.adjusted()) < MAX_MAGNITUDE):
        msg = "a count is a whole number of ordinary size"
        raise ValueError(msg)
    return count


def _text(found: object) -> object:
    """Read nothing as an empty text."""
    return "" if found is None else found


def _no_float(amount: object) -> object:
    if isinstance(amount, float):
        msg = "an amount is a Decimal, an int or text: a float has lost digits already"
        raise ValueError(msg)  # noqa: TRY004 -- pydantic turns ValueErrors into its own
    return amount


def _aware(moment: object) -> object:
    """Read a time or a day without an offset as UTC, and (milli)seconds of the epoch: ``live`` answers all of them."""
    if isinstance(moment, str):
        text = moment.strip()
        number = text.partition(".")[0]
        if number.isascii() and number.isdecimal() and len(number) != len("20260201"):
            if len(number) not in {SECONDS_DIGITS, MILLISECONDS_DIGITS}:
                msg = "the number is no time"
                raise ValueError(msg)
            return datetime.fromtimestamp(int(number[:SECONDS_DIGITS]), UTC)
        moment = datetime.fromisoformat(text)
    if isinstance(moment, datetime) and moment.tzinfo is None:
        return moment.replace(tzinfo=UTC)
    return moment


Amount = Annotated[Decimal, BeforeValidator(_no_float), AfterValidator(_bounded)]
"""Exact, finite, and never from a float."""
ReadAmount = Annotated[Decimal, AfterValidator(bounded_as_read)]
"""As CloudZero answers it."""
Count = Annotated[int, BeforeValidator(_whole)]
"""As CloudZero answers it."""
Text = Annotated[str, BeforeValidator(_text)]
"""As CloudZero answers it: empty where it answers null."""
Moment = Annotated[AwareDatetime, AfterValidator(_utc)]
"""Aware; kept in UTC."""
ReadMoment = Annotated[AwareDatetime, BeforeValidator(_aware), AfterValidator(_utc)]
"""As CloudZero answers it: UTC where it names no offset."""
Words = Annotated[str, AfterValidator(one_line)]
"""What the vendor says, short, printable and redacted."""


def plain(amount: Decimal) -> str:
    """Return *amount* in digits, never in exponent form."""
    return format(amount, "f")


class _Sent(BaseModel):
    """Frozen; what is not a field is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class _Read(BaseModel):
    """Frozen; tolerant of what we do not know."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class ContractName(StrEnum):
    """The two contracts."""

    OPENAPI = "openapi"
    LIVE = "live"


AUTO = "auto"
"""The setting by which a tenant's contract is found out."""


# --- billing: costs and dimensions ------------------------------------------------------------------------------------


class Dimension(_Read):
    """Something that costs can be grouped and filtered by."""

    id: str = Field(min_length=1)
    name: Text = ""
    type: Text = ""
    """Empty where the contract does not say."""


class CostGranularity(StrEnum):
    """Length of a period of costs."""

    HOURLY = "hourly"
    """``live`` only."""
    DAILY = "daily"
    WEEKLY = "weekly"
    """``live`` only."""
    MONTHLY = "monthly"
    YEARLY = "yearly"
    """``live`` only."""
    CUMULATIVE = "cumulative"
    """``openapi`` only."""


class CostType(StrEnum):
    """Which cost is asked for, by the names of ``openapi``; ``live`` adds ``_cost`` to all but the last."""

    BILLED = "billed"
    DISCOUNTED = "discounted"
    DISCOUNTED_AMORTIZED = "discounted_amortized"
    AMORTIZED = "amortized"
    INVOICED_AMORTIZED = "invoiced_amortized"
    REAL = "real"
    ON_DEMAND = "on_demand"
    USAGE_AMOUNT = "usage_amount"
    """``live`` only: an amount of usage instead of dollars."""


class CostQuery(_Sent):
    """A question about costs."""

    start: Moment
    end: Moment
    """Behind the last moment that counts."""
    group_by: tuple[str, ...] = ()
    """Ids of dimensions."""
    filters: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    """Values that count, by the id of their dimension."""
    granularity: CostGranularity | None = None
    cost_type: CostType | None = None


class CostRow(_Read):
    """One amount."""

    at: ReadMoment | None = None
    """Begin of the period; None for a cumulative amount without one."""
    value: ReadAmount
    """US dollars, or usage where that was asked for."""
    group: Mapping[str, str] = Field(default_factory=dict)
    """Value of each dimension that was grouped by."""


# --- insights ---------------------------------------------------------------------------------------------------------


class InsightChange(_Sent):
    """A new insight, or what changes of one."""

    title: str | None = Field(default=None, min_length=1)
    """``name`` under ``openapi``."""
    description: str | None = None
    filters: dict[str, Any] | None = None
    """``openapi`` only."""
    group_by: tuple[str, ...] | None = None
    """``openapi`` only."""
    category: str | None = None
    """``live`` only, as the five below."""
    status: str | None = None
    effort: str | None = None
    cost_impact: Amount | None = None
    """US dollars."""
    link: str | None = None


class Insight(InsightChange):
    """An insight as CloudZero holds it."""

    model_config = ConfigDict(extra="ignore")

    id: str = Field(min_length=1)
    title: Text = ""
    cost_impact: ReadAmount | None = None
    created_at: ReadMoment | None = None
    updated_at: ReadMoment | None = None


# --- budgets ----------------------------------------------------------------------------------------------------------


class Period(StrEnum):
    """Length of a budget under ``openapi``."""

    MONTHLY = "monthly"
    QUARTERLY = "quarterly"
    ANNUAL = "annual"


class Notification(_Sent):
    """Who is told when a budget is used to a share (``openapi``)."""

    threshold: Amount | None = None
    """Percent."""
    recipients: tuple[str, ...] = ()
    """Addresses of e-mail."""


class HeldNotification(Notification):
    """A notification as CloudZero holds it."""

    model_config = ConfigDict(extra="ignore")

    threshold: ReadAmount | None = None


class BudgetChange(_Sent):
    """A new budget, or what changes of one."""

    name: str | None = Field(default=None, min_length=1)
    view_id: str | None = None
    """The linked view; required of a new one under ``live``. An empty one takes it away (``openapi``)."""
    amount: Amount | None = None
    """US dollars a period; ``openapi`` only, as the two below."""
    period: Period | None = None
    notifications: tuple[Notification, ...] | None = None
    monthly_limits: Mapping[date, Amount] | None = None
    """US dollars by the first day of a month; ``live`` only, as the one below."""
    alerts: Mapping[str, str] | None = None
    """By percent, such as ``{"80": "N"}``; the letters are the vendor's."""

    @field_validator("monthly_limits")
    @classmethod
    def _by_month(cls, limits: Mapping[date, Decimal] | None) -> Mapping[date, Decimal] | None:
        if any(day.day != 1 for day in limits or ()):
            msg = "a month is named by its first day"
            raise ValueError(msg)
        return limits


class Budget(BudgetChange):
    """A budget as CloudZero holds it."""

    model_config = ConfigDict(extra="ignore")

    id: str = Field(min_length=1)
    name: Text = ""
    amount: ReadAmount | None = None
    period: str | None = None  # type: ignore[assignment]  # wider on purpose: others are kept as they were read
    notifications: tuple[HeldNotification, ...] | None = None
    monthly_limits: Mapping[date, ReadAmount] | None = None
    created_at: ReadMoment | None = None
    updated_at: ReadMoment | None = None


# --- telemetry --------------------------------------------------------------------------------------------------------


class Granularity(StrEnum):
    """Length of the period that a record of telemetry stands for."""

    HOURLY = "HOURLY"
    """Of metrics under ``openapi`` only: ``live`` takes days and months, so add the hours up first."""
    DAILY = "DAILY"
    MONTHLY = "MONTHLY"


class MetricRecord(_Sent):
    """How much of something there was in a period."""

    timestamp: Moment
    value: Amount
    """In the stream's unit. ``live`` takes more than 0 with at most 15 significant digits; to set 0, delete."""
    granularity: Granularity
    dimensions: Mapping[str, str] = Field(default_factory=dict, max_length=5)


class AllocationRecord(_Sent):
    """How much of something an element used in a period."""

    timestamp: Moment
    value: Amount
    granularity: Granularity
    element_name: str = ""
    """Whose share it is; required under ``live``, and not in ``openapi``, where the dimensions name it."""
    dimensions: Mapping[str, tuple[str, ...]] = Field(default_factory=dict, max_length=5)
    """What costs it is a share of; several values for one name under ``live`` only."""

    @field_validator("dimensions", mode="before")
    @classmethod
    def _several(cls, given: object) -> object:
        """Let a single value stand for a tuple of one."""
        if not isinstance(given, Mapping):
            return given
        return {name: (value,) if isinstance(value, str) else value for name, value in given.items()}


class RecordKey(_Sent):
    """Which records are deleted: those that match everything that is named."""

    timestamp: Moment
    granularity: Granularity | None = None
    """May be left out for metrics under ``openapi`` only."""
    element_name: str = ""
    """``live`` only, as the dimensions."""
    dimensions: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)


class StoredRecord(_Read):
    """A record of telemetry as CloudZero holds it (``live`` only)."""

    timestamp: ReadMoment
    value: ReadAmount
    granularity: Text = ""
    element_name: Text = ""
    dimensions: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)


# --- billing drops ----------------------------------------------------------------------------------------------------


class DropOperation(StrEnum):
    """What a drop does to what its connection holds already."""

    REPLACE_DROP = "replace_drop"
    """Wipes the connection's WHOLE month first; ``live`` only."""
    REPLACE_HOURLY = "replace_hourly"
    """Wipes the hours that the body has rows of; ``live`` only."""
    SUM = "sum"
    """Appends, whatever stands there; the only one under ``openapi``."""


CBF_COLUMNS = frozenset(
    f"{group}/{name}"
    for group, names in {
        "lineitem": "id type description cloud_provider",
        "time": "usage_end",
        "resource": "id service account region usage_family",
        "action": "operation usage_type account region",
        "usage": "amount units",
        "cost": "discounted_cost amortized_cost discounted_amortized_cost on_demand_cost",
        "bill": "invoice_id",
        "k8s": "cluster namespace deployment labels",
    }.items()
    for name in names.split()
)
"""Columns of the Common Bill Format beside ``time/usage_start`` and ``cost/cost`` (contract page)."""
COST_COLUMNS = (
    "cost/cost",
    "cost/discounted_cost",
    "cost/amortized_cost",
    "cost/discounted_amortized_cost",
    "cost/on_demand_cost",
)
"""The columns of money, in the order of :attr:`HeldHour.costs`."""
TAG_COLUMN = re.compile(r"resource/tag:[A-Za-z0-9_.:/=+@-]+")


class BillingRow(_Sent):
    """One row of costs in the Common Bill Format."""

    usage_start: Moment
    """``time/usage_start``, on the hour."""
    cost: Amount
    """``cost/cost``, US dollars; credits and discounts are negative."""
    columns: Mapping[str, str] = Field(default_factory=dict)
    """Every other column by its CBF name, such as ``resource/service`` or ``resource/tag:team``.

    A blank one is not sent: blank is what CBF means by a column that is not there, and ``0`` is not.
    """

    @field_validator("usage_start")
    @classmethod
    def _on_the_hour(cls, moment: datetime) -> datetime:
        if moment.minute or moment.second or moment.microsecond:
            msg = "usage_start is on the hour"
            raise ValueError(msg)
        return moment

    @field_validator("columns")
    @classmethod
    def _without_blanks(cls, columns: Mapping[str, str]) -> Mapping[str, str]:
        strange = sorted(name for name in columns if not (name in CBF_COLUMNS or TAG_COLUMN.fullmatch(name)))
        if strange:
            msg = f"the Common Bill Format has no column {strange[0]!r} beside usage_start and cost"
            raise ValueError(msg)
        return {name: value for name, value in columns.items() if value}

    @property
    def cells(self) -> dict[str, str]:
        """All its columns as text."""
        start = self.usage_start.strftime("%Y-%m-%dT%H:%M:%SZ")
        return {"time/usage_start": start, "cost/cost": plain(self.cost), **self.columns}

    @property
    def month(self) -> date:
        """The first day of its month, UTC."""
        return self.usage_start.date().replace(day=1)


class HeldRow(BillingRow):
    """A row as CloudZero holds it, whoever sent it."""

    usage_start: ReadMoment
    cost: ReadAmount

    @field_validator("usage_start")
    @classmethod
    def _on_the_hour(cls, moment: datetime) -> datetime:
        return moment

    @field_validator("columns")
    @classmethod
    def _without_blanks(cls, columns: Mapping[str, str]) -> Mapping[str, str]:
        return columns


@dataclass(frozen=True)
class HeldHour:
    """What CloudZero holds of one hour, added up to the last digit, whoever sent it."""

    rows: int
    costs: tuple[Decimal | None, ...]
    """US dollars in the order of ``COST_COLUMNS``; None where no row has the column, which is not zero."""


@dataclass(frozen=True, slots=True)
class SentRow:
    """A row as it stands in a drop's body, and what counts of it."""

    hour: int
    """Since the epoch."""
    costs: tuple[Decimal | None, ...]
    """US dollars in the order of ``COST_COLUMNS``; None where the row has none."""
    raw: bytes


class BillingDrop(_Sent):
    """The rows of one body."""

    rows: tuple[BillingRow, ...]
    """None at all, with a month and ``replace_drop``, empty the month (``live``)."""
    operation: DropOperation
    """Has no default on purpose: the vendor's wipes a month."""
    month: date | None = None
    """Its first day, under ``live``; the rows' own month unless given. Every row has to be of it."""

    @model_validator(mode="after")
    def _of_one_month(self) -> Self:
        if self.month is not None and self.month.day != 1:
            msg = "a month is named by its first day"
            raise ValueError(msg)
        if not self.rows and (self.month is None or self.operation is not DropOperation.REPLACE_DROP):
            msg = "a drop without rows says which month it empties, by replace_drop"
            raise ValueError(msg)
        if self.month is not None and any(row.month != self.month for row in self.rows):
            msg = f"every row has to be of the month {self.month:%Y-%m}"
            raise ValueError(msg)
        return self


class DropAccepted(_Read):
    """What CloudZero said of a drop that it took."""

    request_id: str = ""
    drop_id: str = ""
    """``live`` only, as the two below."""
    month: str = ""
    row_count: Count | None = None


class DropSummary(_Read):
    """One drop of a connection's list (``live`` only)."""

    drop_id: Text = ""
    month: Text = ""
    row_count: Count | None = None
    operation: Text = ""


class DropCheck(_Read):
    """What CloudZero would say of a drop (``live`` only)."""

    is_valid: bool
    errors: tuple[Words, ...] = ()

    @field_validator("errors", mode="before")
    @classmethod
    def _in_words(cls, found: object) -> object:
        """Take whatever the reasons are: the vendor's documentation does not say."""
        if found is None:
            return ()
        return [each if isinstance(each, str) else repr(each) for each in found] if isinstance(found, list) else found

"""Who may do what at the CloudZero stand-in, the behaviour on order, and the record of what was taken in."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from local.standins.standin import Call, Refusal

if TYPE_CHECKING:
    from werkzeug.wrappers import Request

    from local.standins.document import Operation

Contract = Literal["openapi", "live"]

IDEMPOTENCY_KEY = "cloudzero-idempotency-key"
TEST_KEY = "cloudzero-test-key"
CONNECTION = "c1000000-0000-4000-8000-000000000001"
CONNECTIONS = tuple(f"c1000000-0000-4000-8000-00000000000{number}" for number in range(1, 10))
"""What the stack on one machine knows: one for each source of costs, as tenants have them."""
"""The AnyCost Stream connection that is there when nothing else is said."""
MAX_BODY_BYTES = 5_000_000
"""Of a drop, and of a telemetry request."""

_UNAUTHORIZED, _FORBIDDEN, _TOO_LARGE = 401, 403, 413
_LIMITED = ("/billing_drops", "/validate_billing_drop", "/v1/telemetry/")
"""What the address of an operation with a limited body has in it."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Key(_Strict):
    """An API key, and what it may not do."""

    key: str = Field(min_length=1, repr=False)
    lacks: frozenset[str] = frozenset()
    """The operationIds that it has no scope for."""


class Dimension(_Strict):
    """A dimension that costs can be grouped by."""

    id: str
    name: str
    type: str = "native"
    """Only shown under openapi."""


class CostRow(_Strict):
    """The cost of an hour or a day, in no contract's words."""

    at: datetime
    """A time, or a day; UTC unless it says otherwise."""
    cost: Decimal
    """US dollars."""
    dimensions: dict[str, str] = {}
    """Dimension id to value."""
    by_type: dict[str, Decimal] = {}
    """Cost type, without the suffix `_cost`, to its amount, where it differs from `cost`; also `usage_amount`."""

    @property
    def time(self) -> datetime:
        """When the cost was incurred, in UTC."""
        return (self.at if self.at.tzinfo else self.at.replace(tzinfo=UTC)).astimezone(UTC)


DIMENSIONS = (
    Dimension(id="Account", name="Account"),
    Dimension(id="Service", name="Service"),
    Dimension(id="Region", name="Region"),
    Dimension(id="User:Defined:Team", name="Team", type="custom"),
)
COSTS = tuple(
    CostRow(
        at=datetime(2026, 2, day, tzinfo=UTC), cost=Decimal(cost), dimensions={"Account": account, "Service": service}
    )
    for day, account, service, cost in (
        (1, "111111111111", "AmazonEC2", "10.25"),
        (1, "111111111111", "AmazonS3", "0.000000000000015"),
        (1, "222222222222", "AmazonEC2", "7.10"),
        (2, "111111111111", "AmazonEC2", "11.75"),
        (2, "222222222222", "AmazonEC2", "-1.05"),
        (3, "222222222222", "AmazonS3", "0"),
    )
)


class Config(_Strict):
    """The behaviour that `/_config` changes."""

    keys: tuple[Key, ...] = ()
    bearer: bool = False
    """Whether `Bearer <key>` is accepted, beside the bare key."""
    connections: tuple[str, ...] = (CONNECTION,)
    month_rows: int = Field(default=1_000_000, ge=0)
    """How many rows a connection may hold for a month."""
    month_bytes: int = Field(default=70_000_000, ge=0)
    """How many bytes of compact JSON they may be."""
    rows_in_state: bool = True
    """Whether `/_state` shows the rows themselves; without them it is fast with a million."""
    read_lag_reads: int = Field(default=0, ge=0)
    """How many reads of a month after a change still show its former content."""
    delete_lag_reads: int = Field(default=0, ge=0)
    """How many requests to a stream still find it after its deletion (live)."""
    burst: int | None = Field(default=None, ge=1)
    """How many telemetry records are taken within a second before the next request is told to slow down."""
    costs: tuple[CostRow, ...] = COSTS
    costs_page_rows: int = Field(default=10_000, ge=1)
    """Rows (live) or series (openapi) of costs on a page."""
    costs_per_day: int = Field(default=60, ge=0)
    """How many cost queries are answered until the next reset (live); pages after the first are free."""
    cursors_expired: bool = False
    """While set, every cursor of a cost query is too old (live)."""
    dimensions: tuple[Dimension, ...] = DIMENSIONS
    page_items: int = Field(default=100, ge=1)
    """Insights or budgets on a page, unless the request says."""


@dataclass(frozen=True)
class Post:
    """A body that was taken in, as `/_state` shows it."""

    seq: int
    """Its place among all, from 1."""
    operation: str
    target: str
    """The connection, or the stream."""
    mode: str
    """`replace_drop`, `replace_hourly`, `sum`, `append`, `replace` or `delete`."""
    rows: int
    bytes: int
    sha256: str
    idempotency_key: str | None
    test_key: str | None
    request_id: str


class Account:
    """One tenant, which speaks one contract.

    Args:
        contract: The contract.
        config: The behaviour at the start.
    """

    def __init__(self, contract: Contract, config: Config) -> None:
        self.contract = contract
        self._first_config = config
        self.forget()

    @property
    def live(self) -> bool:
        """Whether the tenant speaks the vendor's own contract."""
        return self.contract == "live"

    def forget(self) -> None:
        """Return to the start."""
        self.config = self._first_config
        self._posts: list[Post] = []

    def key(self, request: Request) -> Key:
        """Find the key of a request.

        Raises:
            Refusal: 401 (openapi) or 403 (live), when there is none or it is not known.
        """
        given = request.headers.get("Authorization", "")
        if self.config.bearer:
            given = given.removeprefix("Bearer ")
        for known in self.config.keys:
            if known.key == given:
                return known
        raise Refusal(_FORBIDDEN if self.live else _UNAUTHORIZED, "The API key is missing or not known.")

    def admit(self, operation: Operation, request: Request, size_bytes: int = 0) -> None:
        """Let a known key with the operation's scope pass, and a body that is not too large.

        Raises:
            Refusal: Neither key nor body gets further.
        """
        if operation.id in self.key(request).lacks:
            raise Refusal(_FORBIDDEN, "The API key lacks the scope that this operation needs.")
        if size_bytes > MAX_BODY_BYTES and any(part in operation.path for part in _LIMITED):
            raise Refusal(_TOO_LARGE, f"The body has {size_bytes} bytes; {MAX_BODY_BYTES} are the limit.")

    def took(self, call: Call, target: str, mode: str, rows: int) -> None:
        """Write down a body that was taken in."""
        body = call.request.get_data()
        self._posts.append(
            Post(
                seq=len(self._posts) + 1,
                operation=call.operation.id,
                target=target,
                mode=mode,
                rows=rows,
                bytes=len(body),
                sha256=hashlib.sha256(body).hexdigest(),
                idempotency_key=call.request.headers.get(IDEMPOTENCY_KEY),
                test_key=call.request.headers.get(TEST_KEY),
                request_id=call.request_id,
            )
        )

    def posts(self) -> list[dict[str, Any]]:
        """Give the bodies that were taken in, as `/_state` shows them."""
        return [asdict(post) for post in self._posts]

    def sandbox(self, call: Call) -> str:
        """Name the sandbox that a request is for; empty for the tenant's real data."""
        return call.request.headers.get(TEST_KEY, "") if self.live else ""

"""What the ledger remembers: deliveries and their targets (design: Storage).

Every item carries a version; saving one that somebody else saved in between raises LedgerConflict, so that two runs
for one delivery can never both go on.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pydantic import Field

from finops_relay import __version__
from finops_relay.delivery.receipt import Frozen, Money, Outcome, Receipt, Rows, Source, Unit, Usage, receipt_key

LEDGER_SCHEMA = 1
"""Raised when a field changes its meaning; new fields with defaults do not need it (faults: row 27)."""

MAX_ATTEMPTS = 5
"""Tries of one step that ended without a word (a crash, a time-out) before the delivery is quarantined (row 23)."""


MAX_REASON = 4_000
MAX_WARNING = 1_000
MAX_WARNINGS = 100
"""Characters and number of what a receipt says in words: strangers choose them, and an item holds 400 KB."""


def clip(words: str, most: int) -> str:
    """Return *words* with at most *most* characters."""
    return words if len(words) <= most else f"{words[: most - 3]}..."


class Delivery(Frozen):
    """One delivery: what is owed, what was done, and what comes next."""

    ledger_schema: int = LEDGER_SCHEMA
    version: int = 0
    """Raised by every save."""
    id: str
    kind: str
    target: str = ""
    group: str = ""
    """FIFO message group: deliveries of one group never interleave."""
    order: str = ""
    """Sorts the deliveries of one target; see identity.order_of."""
    dry_run: bool = False
    source: Source
    stage: str = "preparing"
    """``preparing``, ``prepared``, ``queued``, ``delivering``, ``naming`` (what the vendor refused), ``finished``."""
    intent: str = ""
    """The call that was about to be made; found after a crash, its outcome is unknown."""
    attempts: int = 0
    """Tries since something last went well or was answered."""
    waits: int = 0
    """Waits since the last step that went well; they lengthen the next one."""
    outcome: Outcome = Outcome.PENDING
    reason: str = ""
    rows: Rows = Rows()
    money: Money = Money()
    usage: Usage = Usage()
    units: tuple[Unit, ...] = ()
    filtered_by: dict[str, int] = Field(default_factory=dict)
    rejected_rows: str = ""
    plan: dict[str, Any] | None = None
    warnings: tuple[str, ...] = ()
    times: dict[str, datetime]
    config_version: str = ""
    next_command: str = ""
    fingerprint: str = ""
    """SHA-256 of the prepared content."""
    work: dict[str, Any] = Field(default_factory=dict, repr=False)
    """What only this kind of delivery remembers; its job gives it a model. Never shown: it may hold an address."""
    announced: bool = False
    """True once the last receipt was written and the bus was told."""

    def but(self, **changes: Any) -> Delivery:  # noqa: ANN401 -- the fields of this model; pydantic checks them
        """Return a copy with *changes*, checked."""
        return Delivery.model_validate({**dict(self), **changes})

    def warn(self, *warnings: str) -> Delivery:
        """Return a copy with *warnings* added, each once."""
        clipped = (clip(warning, MAX_WARNING) for warning in warnings)
        return self.but(warnings=tuple(dict.fromkeys((*self.warnings, *clipped)))[:MAX_WARNINGS])

    def at(self, name: str, when: datetime) -> Delivery:
        """Return a copy that remembers when *name* first happened."""
        return self.but(times=self.times | {name: when.astimezone(UTC)}) if name not in self.times else self

    @property
    def received(self) -> datetime:
        """When the delivery was first seen, UTC."""
        return self.times["received"]

    @property
    def receipt_key(self) -> str:
        """Where the receipt stands in the drops bucket."""
        return receipt_key(self.kind, self.received, self.id)

    def receipt(self) -> Receipt:
        """Return the receipt as things stand."""
        return Receipt(
            id=self.id,
            kind=self.kind,
            source=self.source,
            target=self.target,
            outcome=self.outcome,
            reason=self.reason,
            rows=self.rows,
            money=self.money,
            usage=self.usage,
            units=self.units,
            filtered_by=self.filtered_by,
            rejected_rows=self.rejected_rows,
            plan=self.plan,
            warnings=self.warnings,
            times=dict(sorted(self.times.items(), key=lambda item: (item[0] != "received", item[1]))),
            versions={"relay": __version__, "config": self.config_version, "ledger": str(self.version)},
            next_command=self.next_command,
        )

    def ended(self, outcome: Outcome, when: datetime, reason: str = "", next_command: str = "") -> Delivery:
        """Return a copy that is over (or held), with nothing announced yet."""
        return self.but(
            stage="finished" if outcome.final else self.stage,
            outcome=outcome,
            reason=clip(reason, MAX_REASON),
            next_command=next_command,
            intent="",
            attempts=0,
            waits=0,
            announced=False,
        ).at("ended" if outcome.final else str(outcome), when)


class Target(Frozen):
    """What deliveries go to, one at a time: a provider's price books of an enterprise, a policy, a connection."""

    ledger_schema: int = LEDGER_SCHEMA
    version: int = 0
    name: str
    newest_order: str = ""
    newest_delivery: str = ""
    """The newest delivery that was prepared; older ones that still wait end as superseded."""
    applied_order: str = ""
    applied_delivery: str = ""
    applied_fingerprint: str = ""
    """Of the content that the vendor holds through us."""
    applied_at: datetime | None = None
    content: dict[str, Any] = Field(default_factory=dict)
    """What only this kind of target remembers; its job gives it a model."""

    def but(self, **changes: Any) -> Target:  # noqa: ANN401 -- as Delivery.but
        """Return a copy with *changes*, checked."""
        return Target.model_validate({**dict(self), **changes})


class Record(Frozen):
    """What is remembered under a name of its own, such as the hours that were sent to a connection in a month."""

    ledger_schema: int = LEDGER_SCHEMA
    version: int = 0
    name: str
    content: dict[str, Any] = Field(default_factory=dict)
    """Whoever keeps it gives it a model."""

    def but(self, **changes: Any) -> Record:  # noqa: ANN401 -- as Delivery.but
        """Return a copy with *changes*, checked."""
        return Record.model_validate({**dict(self), **changes})


def contract_note(api: str) -> str:
    """Return the name of the note that says which contract the API at the address *api* speaks."""
    return f"contract#{api.rstrip('/')}"

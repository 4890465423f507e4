"""Whether a plan may be applied by itself, or a person is asked first.

Source: faults, row 16; the issue of tags and custom properties, "Guards". No set is too small to be guarded: a list of
three that loses one has lost a third.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from finops_relay.sync.plan import Plan
from finops_relay.sync.state import State

MAX_SHARE_REMOVED = 0.3
"""What octodns takes for safe too (docs, "MAX_SAFE_DELETE_PCENT")."""
_ISO = re.compile(r"\d{4}-\d{2}-\d{2}(?!\d)")
NAMED = 10
"""Lookalikes that a verdict names."""
_A_DATE = "write a date such as 2026-12-31"


class Guard(StrEnum):
    """The guards, by the names that overrides call them."""

    SHARE_REMOVED = "share_removed"
    NUMBER_REMOVED = "number_removed"
    SOURCE_EMPTY = "source_empty"
    SOURCE_SHRUNK = "source_shrunk"
    SOURCE_GROWN = "source_grown"
    LOOKALIKES = "lookalikes"
    NEW_TAG = "new_tag"
    DRIFT = "drift"
    COLUMNS_REMOVED = "columns_removed"
    SHARE_EMPTIED = "share_emptied"
    OTHERS_LOST = "others_lost"


class Override(BaseModel):
    """A guard that is to let a plan pass, for a while, and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    guard: Guard
    until: datetime
    """When it ends; a date alone is that whole day. UTC unless it says otherwise."""
    reason: str = Field(min_length=3, max_length=500)
    """Goes into every receipt of a delivery that it lets pass."""

    @field_validator("until", mode="before")
    @classmethod
    def _end_of_day(cls, given: object) -> object:
        """Read a date alone as its end, and a moment without a zone as UTC."""
        if isinstance(given, str):
            if not _ISO.match(given):
                msg = "write a date such as 2026-12-31"
                raise ValueError(msg)
            if len(given) == len("2026-12-31"):
                given = date.fromisoformat(given)
        if isinstance(given, date) and not isinstance(given, datetime) and given < date.max:
            return datetime.combine(given + timedelta(days=1), time(), UTC)
        if isinstance(given, date | int | float) and not isinstance(given, datetime):
            raise ValueError(_A_DATE)  # noqa: TRY004 -- pydantic takes no TypeError
        return given

    @field_validator("until")
    @classmethod
    def _aware(cls, until: datetime) -> datetime:
        try:
            return until.replace(tzinfo=UTC) if until.tzinfo is None else until.astimezone(UTC)
        except OverflowError:
            raise ValueError(_A_DATE) from None


class Guards(BaseModel):
    """What the guards let pass, as relay.yaml has it. Strict: YAML reads `yes` as true, which would be a share of 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_share_removed: float = Field(default=MAX_SHARE_REMOVED, ge=0, le=1, strict=True)
    """Of what stands there (0.3 is 30 %)."""
    max_number_removed: int = Field(default=100, ge=0, strict=True)
    max_share_shrunk: float = Field(default=MAX_SHARE_REMOVED, ge=0, le=1, strict=True)
    """Of the rows that the source had when it was last applied."""
    max_times_grown: float = Field(default=3.0, ge=1, allow_inf_nan=False, strict=True)
    """Rows of the source, for each that it had when it was last applied."""
    overrides: tuple[Override, ...] = ()


class Facts(BaseModel):
    """What the guards look at beside the plan."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    rows: int
    """That the source has now."""
    rows_before: int | None = None
    """That it had when it was last applied; None before the first time."""
    noun: str = "values"
    """What the items are called."""
    new: str = ""
    """What would be made that is not there, where a person should say so first."""
    lost: str = ""
    """Why nobody can tell what was changed by hand since."""
    others_lost: str = ""
    """What stood beside ours before our last write, and does not now."""
    columns_removed: tuple[str, ...] = ()
    """Of custom properties."""
    filled: int = 0
    """Cells of custom properties that have something so far."""
    emptied: int = 0
    """Of those, the ones that would have nothing although their key and their column stay."""


class Verdict(BaseModel):
    """What one guard says to one plan."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    guard: Guard
    says: str
    override: Override | None = None
    """The one that lets it pass."""

    @property
    def refuses(self) -> bool:
        """Whether a person must be asked."""
        return self.override is None

    def shown(self) -> dict[str, Any]:
        """Return it for a receipt."""
        found: dict[str, Any] = {"guard": self.guard.value, "says": self.says, "verdict": "held"}
        if self.override is not None:
            until = self.override.until.isoformat().replace("+00:00", "Z")
            found |= {"verdict": "overridden", "override": {"until": until, "reason": self.override.reason}}
        return found


def judge(found: Plan, desired: State, facts: Facts, guards: Guards, now: datetime) -> tuple[Verdict, ...]:
    """Return what the guards object to; none for a plan that may be applied by itself.

    Args:
        found: the plan.
        desired: what it leads to.
        facts: what else is known.
        guards: the limits, and their overrides.
        now: decides which overrides are in force.
    """
    return tuple(
        Verdict(guard=guard, says=says, override=_override(guards.overrides, guard, now))
        for guard, says in _objections(found, desired, facts, guards)
    )


def expired(overrides: Sequence[Override], now: datetime) -> list[str]:
    """Return a warning for each override that is over: it does nothing any more."""
    return [
        f"the override of guard {one.guard.value} ended on {one.until:%Y-%m-%d %H:%M} UTC and does nothing any more"
        for one in overrides
        if one.until <= now
    ]


def _override(overrides: Sequence[Override], guard: Guard, now: datetime) -> Override | None:
    return next((one for one in overrides if one.guard is guard and now < one.until), None)


def _of(limit: float, count: int) -> Decimal:
    """Return *limit* times *count* as a person would reckon: 0.29 of 100 is 29, which floats miss."""
    return Decimal(str(limit)) * count


def _removals(found: Plan, desired: State, facts: Facts, guards: Guards) -> Iterable[tuple[Guard, str]]:
    """Yield what is said to what would be removed."""
    removed, noun = len(found.removed), facts.noun
    if not desired.items:
        yield Guard.SOURCE_EMPTY, f"the source has no {noun} at all"
    elif removed > _of(guards.max_share_removed, found.before):
        most = f"{guards.max_share_removed:.0%} may go at once"
        share = f"{removed:,} of {found.before:,} {noun} would be removed ({removed / found.before:.0%}; {most})"
        yield Guard.SHARE_REMOVED, share
    if removed > guards.max_number_removed:
        most = f"{guards.max_number_removed:,} may go at once"
        yield Guard.NUMBER_REMOVED, f"{removed:,} {noun} would be removed ({most})"


def _sizes(desired: State, facts: Facts, guards: Guards) -> Iterable[tuple[Guard, str]]:
    """Yield what is said to how many rows the source has, beside how many it had."""
    before, now = facts.rows_before, facts.rows
    if not before:
        return
    if desired.items and before - now > _of(guards.max_share_shrunk, before):
        lost = f"{(before - now) / before:.0%} less; {guards.max_share_shrunk:.0%} may be missing"
        yield Guard.SOURCE_SHRUNK, f"the source has {now:,} rows, and had {before:,} ({lost})"
    if now > _of(guards.max_times_grown, before):
        most = f"{guards.max_times_grown:g} times as many may come"
        grown = f"the source has {now:,} rows, and had {before:,} ({now / before:.1f} times; {most})"
        yield Guard.SOURCE_GROWN, f"{grown}: a filter that the source ignores looks like this"


def _cells(facts: Facts, guards: Guards) -> Iterable[tuple[Guard, str]]:
    """Yield what is said to properties that would vanish from keys that stay."""
    if facts.columns_removed:
        names = ", ".join(map(repr, facts.columns_removed[:NAMED]))
        yield Guard.COLUMNS_REMOVED, f"the columns {names} would be removed, with the properties of every key"
    if facts.emptied > _of(guards.max_share_removed, facts.filled):
        most = f"{guards.max_share_removed:.0%} may be emptied at once"
        share = f"{facts.emptied / facts.filled:.0%}; {most}"
        yield Guard.SHARE_EMPTIED, f"{facts.emptied:,} of {facts.filled:,} properties would be emptied ({share})"


def _objections(found: Plan, desired: State, facts: Facts, guards: Guards) -> Iterable[tuple[Guard, str]]:
    yield from _removals(found, desired, facts, guards)
    yield from _sizes(desired, facts, guards)
    yield from _cells(facts, guards)
    alike = lookalikes(desired.items, found.added)
    if alike:
        more = f" and {len(alike) - NAMED:,} more" if len(alike) > NAMED else ""
        said = "; ".join(" and ".join(map(repr, group[:3])) for group in alike[:NAMED])
        yield Guard.LOOKALIKES, f"{facts.noun} differ in case or punctuation only: {said}{more}"
    if facts.new:
        yield Guard.NEW_TAG, facts.new
    if facts.others_lost:
        yield Guard.OTHERS_LOST, facts.others_lost
    if facts.lost:
        yield Guard.DRIFT, facts.lost
    elif found.drift:
        names = ", ".join(repr(one.name) for one in found.drift[:5])
        many = f"{len(found.drift):,} things were" if len(found.drift) > 1 else "something was"
        yield Guard.DRIFT, f"{many} changed at the vendor since we last applied it: {names}"


def lookalikes(names: Iterable[str], added: Iterable[str]) -> list[tuple[str, ...]]:
    """Return the groups of names that only case or punctuation tells apart, where one of them is new.

    What stands side by side already was looked at once, and is not held again and again.
    """
    new: dict[str, list[str]] = {}
    for name in added:
        key = _plain(name)
        if key:
            new.setdefault(key, [])
    if not new:
        return []
    for name in names:
        group = new.get(_plain(name))
        if group is not None:
            group.append(name)
    return [tuple(sorted(group)) for _, group in sorted(new.items()) if len(group) > 1]


def _plain(name: str) -> str:
    """Return a name without what people write differently: case, punctuation, spaces, width."""
    if name.isascii() and name.isalnum():
        return name.lower()
    return "".join(char for char in unicodedata.normalize("NFKC", name).casefold() if char.isalnum())

"""The difference between what is and what is wanted, as a value that can be read, judged, applied and tested.

Source: design, "The functions" (read, plan, guard, apply, verify); faults, rows 17 and 18.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ConfigDict

from finops_relay.sync.state import Setting, State

SHOWN = 50
"""Items of each kind that a receipt shows; a file has all of them where there are more."""
MAX_SHOWN_CHARS = 120
"""Of one value in a receipt: strangers choose them, and an item of the ledger holds 400 KB."""
ABSENT, PRESENT = "absent", "present"
"""How a value without content is written."""


class Change(BaseModel):
    """One thing that is there before and after, and says something else."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    before: Setting
    after: Setting


class Drift(BaseModel):
    """One thing that was changed at the vendor since we last applied it, with the three values of it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    applied: Setting
    """What we last applied; None where it was not there."""
    remote: Setting
    desired: Setting


class Plan(BaseModel):
    """What would be done to make the remote what is desired; names are sorted."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[Change, ...] = ()
    """Items that stay, with other content."""
    settings: tuple[Change, ...] = ()
    before: int = 0
    """Items at the remote."""
    after: int = 0
    drift: tuple[Drift, ...] = ()

    @property
    def nothing(self) -> bool:
        """Whether the remote is what is desired already."""
        return not (self.added or self.removed or self.changed or self.settings)

    def lines(self) -> list[str]:
        """Return it in words, a line for each kind of change."""
        said = []
        for verb, names in (("add", self.added), ("remove", self.removed)):
            if names:
                said.append(f"{verb} {len(names):,}: {_few(names)}")
        if self.changed:
            said.append(f"change {len(self.changed):,}: {_few(change.name for change in self.changed)}")
        said += [
            f"set {change.name} from {_shown(change.before)} to {_shown(change.after)}" for change in self.settings
        ]
        return said

    def shown(self) -> dict[str, Any]:
        """Return it for a receipt: counts, and the first `SHOWN` of each kind."""
        found: dict[str, Any] = {
            "before": self.before,
            "after": self.after,
            "added": _listed(self.added),
            "removed": _listed(self.removed),
            "changed": {"count": len(self.changed), "first": [_change(one) for one in self.changed[:SHOWN]]},
            "settings": [_change(one) for one in self.settings],
        }
        if self.drift:
            first = [_drift(one) for one in self.drift[:SHOWN]]
            found["drift"] = {"count": len(self.drift), "first": first}
        return found

    @property
    def fits(self) -> bool:
        """Whether a receipt shows all of it."""
        return max(map(len, (self.added, self.removed, self.changed, self.drift))) <= SHOWN


def plan(remote: State, desired: State, applied: State | None) -> Plan:
    """Return what is to be done, and what somebody else has changed.

    Args:
        remote: what the vendor holds now.
        desired: what it is to hold; settings that it does not name are nobody's business here.
        applied: what we last applied; None before the first time, when nothing can have drifted.
    """
    is_there, wanted = remote.items, desired.items
    now = remote.owned(desired.settings).settings
    return Plan(
        added=tuple(sorted(wanted.keys() - is_there.keys())),
        removed=tuple(sorted(is_there.keys() - wanted.keys())),
        changed=tuple(
            Change(name=name, before=is_there[name], after=wanted[name])
            for name in sorted(is_there.keys() & wanted.keys())
            if is_there[name] != wanted[name]
        ),
        settings=tuple(
            Change(name=name, before=now[name], after=after)
            for name, after in sorted(desired.settings.items())
            if now[name] != after
        ),
        before=len(is_there),
        after=len(wanted),
        drift=() if applied is None else tuple(_drifted(remote, desired, applied)),
    )


def apply(found: Plan, remote: State, desired: State) -> State:
    """Return what the remote is once *found* was applied: what it means, for tests and for what is sent."""
    removed = set(found.removed)
    items = {name: content for name, content in remote.items.items() if name not in removed}
    items |= {name: desired.items[name] for name in (*found.added, *(change.name for change in found.changed))}
    return State(items=items, settings=remote.settings | {change.name: change.after for change in found.settings})


def _drifted(remote: State, desired: State, applied: State) -> Iterable[Drift]:
    """Yield what is no longer as we left it, unless it is just what is wanted: then nobody's change is undone."""
    for name in sorted({name for name, _ in applied.items.items() ^ remote.items.items()}):
        was, now, goal = applied.items.get(name), remote.items.get(name), desired.items.get(name)
        if now != goal:
            yield Drift(name=name, applied=was, remote=now, desired=goal)
    for name in sorted(applied.settings.keys() & desired.settings.keys()):
        was_set, is_set, goal_set = applied.settings[name], remote.settings.get(name), desired.settings[name]
        if is_set not in {was_set, goal_set}:
            yield Drift(name=name, applied=was_set, remote=is_set, desired=goal_set)


def _few(names: Iterable[str]) -> str:
    """Return the first names of a list in words."""
    found = list(names)
    more = f" and {len(found) - 5:,} more" if len(found) > 5 else ""  # noqa: PLR2004 -- a line's worth
    return ", ".join(map(_clipped, found[:5])) + more


def _listed(names: tuple[str, ...]) -> dict[str, Any]:
    return {"count": len(names), "first": [_clipped(name) for name in names[:SHOWN]]}


def _change(one: Change) -> dict[str, Any]:
    return {"name": _clipped(one.name), "before": _shown(one.before), "after": _shown(one.after)}


def _drift(one: Drift) -> dict[str, Any]:
    said = {"last_applied": one.applied, "remote": one.remote, "desired": one.desired}
    return {"name": _clipped(one.name), **{name: _shown(value) for name, value in said.items()}}


def _shown(value: Setting) -> str:
    """Return a value in words: an item without content is there, or it is not."""
    if value is None:
        return ABSENT
    if value == "":
        return PRESENT
    return str(value).lower() if isinstance(value, bool) else _clipped(value)


def _clipped(text: str) -> str:
    """Return *text* as a receipt may show it."""
    plain = "".join(char if char.isprintable() else "�" for char in text[:MAX_SHOWN_CHARS])
    return plain if len(text) <= MAX_SHOWN_CHARS else f"{plain}…"

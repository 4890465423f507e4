"""Setting the allowed values of one tag: one read, one PATCH of the whole array, one verification."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from finops_relay.errors import InputRefused
from finops_relay.infracost.checks import SUGGESTED_VALUES
from finops_relay.infracost.models import HeldTag, Tag, TaggingPolicy, ValueType

NOTHING: Mapping[str, object] = {}
"""No further attributes of a tag."""


@dataclass(frozen=True)
class AllowedValues:
    """What became of setting the allowed values of one tag."""

    policy: TaggingPolicy
    """As it was read last."""
    added: tuple[str, ...]
    removed: tuple[str, ...]
    warnings: tuple[str, ...]
    changed: bool
    """Whether a PATCH was sent."""
    request_id: str = ""
    """Of the PATCH."""


def tags_with(
    policy: TaggingPolicy, key: str, values: tuple[str, ...], settings: Mapping[str, object] = NOTHING, *, adopt: bool
) -> tuple[Tag, ...]:
    """Return all tags of *policy* with allowed values and *settings* of *key*; everything else stays as it was read.

    Raises InputRefused when there is no such tag or it is no LIST, unless *adopt*.
    """
    held = policy.attributes.tags or ()
    keys = [tag.key for tag in held]
    if keys.count(key) > 1:
        reason = f"the policy {policy.attributes.name!r} holds tag {key!r} {keys.count(key)} times"
        raise InputRefused(reason, fix="take away all but one in the dashboard: nobody can tell which one counts")
    if key not in keys:
        if not adopt:
            reason = f"the policy {policy.attributes.name!r} has no tag {key!r}"
            raise InputRefused(reason, value=", ".join(keys), fix="check the key's case, or ask for it to be added")
        new_one = {"mandatory": True, **settings, "key": key, "value_type": ValueType.LIST, "allowed_values": values}
        return (*held, Tag.model_validate(new_one))
    former = policy.tags[key]
    if former.value_type != ValueType.LIST and not adopt:
        reason = f"tag {key!r} of policy {policy.attributes.name!r} is of type {former.value_type}, not LIST"
        raise InputRefused(reason, fix="ask for it to be made a LIST, if that is meant")
    new = former.model_copy(update={**settings, "allowed_values": values, "value_type": ValueType.LIST})
    return tuple(new if tag.key == key else tag for tag in held)


def is_set(policy: TaggingPolicy, key: str, values: tuple[str, ...], settings: Mapping[str, object] = NOTHING) -> bool:
    """Return whether the tag allows just *values*, in whatever order, and has the *settings*."""
    tag = policy.tags.get(key)
    if tag is None or tag.value_type != ValueType.LIST or _unset(tag, settings):
        return False
    return sorted(tag.allowed_values or ()) == list(values)


def difference(
    policy: TaggingPolicy, key: str, wanted: tuple[str, ...], settings: Mapping[str, object] = NOTHING
) -> str:
    """Return in words how a tag differs from what was sent."""
    tag = policy.tags.get(key)
    if tag is None or tag.value_type != ValueType.LIST:
        return f"tag {key!r} is not there, or no LIST"
    other = _unset(tag, settings)
    if other:
        return f"tag {key!r} does not show the {', '.join(other)} that was sent"
    held = set(tag.allowed_values or ())
    missing, besides = sorted(set(wanted) - held)[:5], sorted(held - set(wanted))[:5]
    return f"tag {key!r} lacks {missing} of what was sent, and has {besides} besides (five of each at most)"


BESIDE = ("name", "message", "pr_comment", "block_pr", "filters")
"""Of a policy: what we know of it beside its tags. Times of changes change with each."""


def beside(policy: TaggingPolicy, key: str, ours: Iterable[str] = ()) -> dict[str, Any]:
    """Return what a policy holds beside what is ours of one tag, as JSON: what setting it must leave as it is.

    Args:
        policy: as it was read.
        key: of our tag.
        ours: its attributes that are set, beside the values and their type.
    """
    kept = policy.attributes.model_dump(exclude_none=True, include=set(BESIDE))
    own = policy.tags.get(key)
    mine = own.model_dump(exclude_none=True, include={"message", "mandatory"} - set(ours)) if own else {}
    others = {tag.key: tag.model_dump(exclude_none=True) for tag in policy.attributes.tags or () if tag.key != key}
    found: dict[str, Any] = _plain({"policy": kept, "tag": mine, "tags": others})
    return found


def lost_beside(kept: Mapping[str, Any], policy: TaggingPolicy, key: str) -> list[str]:
    """Return what is not as it was of *kept*, in words; what the vendor added by itself is no loss."""
    now = beside(policy, key)
    lost = [f"tag {name}" for name, said in kept["tags"].items() if not _within(said, now["tags"].get(name, {}))]
    lost += [f"{name} of tag {key}" for name, said in kept["tag"].items() if now["tag"].get(name) != said]
    return lost + [
        f"{name} of the policy" for name, said in kept["policy"].items() if not _within({name: said}, now["policy"])
    ]


def _plain(found: object) -> Any:  # noqa: ANN401 -- JSON
    """Return what can be kept as JSON, each number in one spelling: one may come back written otherwise."""
    match found:
        case dict():
            return {str(name): _plain(value) for name, value in found.items()}
        case list() | tuple():
            return [_plain(value) for value in found]
        case bool() | str() | None:
            return found
        case _:
            return f"{Decimal(str(found)).normalize():f}"


def _unset(tag: HeldTag, settings: Mapping[str, object]) -> list[str]:
    """Return the settings that a tag does not have; an empty text is none."""
    return [name for name, value in settings.items() if _some(getattr(tag, name)) != _some(value)]


def _some(value: object) -> object:
    return None if value == "" else value


def _within(part: Mapping[str, Any], whole: Mapping[str, Any]) -> bool:
    return all(name in whole and _alike(value, whole[name]) for name, value in part.items())


def _alike(one: object, other: object) -> bool:
    """Return whether two values say the same, lists in whatever order."""
    if not (isinstance(one, tuple | list) and isinstance(other, tuple | list)):
        return one == other
    if all(isinstance(each, str) for each in (*one, *other)):
        return sorted(one) == sorted(other)
    # What is no text may come back written otherwise, as 1e16 does, so that no order can be relied on.
    left = list(other)
    for each in one:
        if each not in left:
            return False
        left.remove(each)
    return not left


def warnings_of(tag: HeldTag | None) -> tuple[str, ...]:
    """Return what a person should know of a list."""
    if tag is None or tag.message or len(tag.allowed_values or ()) <= SUGGESTED_VALUES:
        return ()
    said = (
        f"tag {tag.key!r} allows {len(tag.allowed_values or ()):,} values and has no message: beyond {SUGGESTED_VALUES}"
        " Infracost suggests none and shows the first five only"
    )
    return (said,)

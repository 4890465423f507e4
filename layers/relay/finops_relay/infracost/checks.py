"""What Infracost would take and what would then do harm: refused before anything is sent.

Source: contract page, "Tagging policies", "Guardrails" and "Custom properties".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from finops_relay.errors import InputRefused
from finops_relay.infracost.models import GuardrailAttributes, GuardrailChange, HeldTag, PolicyChange, Tag, ValueType

THRESHOLDS = {"increase_threshold", "increase_percentage_threshold", "total_threshold"}
SUGGESTED_VALUES = 250
"""Values up to which Infracost suggests the nearest one; beyond, it shows the first five only."""


def list_of(key: str, values: Iterable[str]) -> tuple[str, ...]:
    """Return *values* as they are sent: each once, and sorted, since the first five are shown. Raises InputRefused."""
    if isinstance(values, str):
        reason = f"tag {key!r}: the values are one text, whose letters would be taken for values"
        raise InputRefused(reason, value=values, fix="give a list")
    found = tuple(sorted(set(values)))
    odd = next((value for value in found if value != value.strip() or not value.isprintable()), None)
    if odd is not None:
        reason = f"tag {key!r}: a value has white space around it, or characters that cannot be seen"
        raise InputRefused(
            reason, value=repr(odd), fix="trim it: nobody could type it, and a vendor may trim it itself"
        )
    if not found or "" in found:
        reason = f"tag {key!r}: " + ("an allowed value is empty" if found else "the list of allowed values is empty")
        fix = "an empty list fails every value, and can block every pull request: give the values, or use type ANY"
        raise InputRefused(reason, fix=fix)
    return found


def checked_tag(tag: Tag) -> Tag:
    """Return *tag* as it is sent. Raises InputRefused. One that was read, and is as it was, goes back as it is."""
    if isinstance(tag, HeldTag) and not tag.edited:
        return tag
    if tag.value_type is not None and tag.value_type not in set(ValueType) and not isinstance(tag, HeldTag):
        reason = f"tag {tag.key!r}: there is no such type"
        raise InputRefused(reason, value=tag.value_type, fix=f"use {', '.join(ValueType)}")
    if tag.value_type == ValueType.LIST or (tag.value_type is None and tag.allowed_values is not None):
        return tag.model_copy(update={"allowed_values": list_of(tag.key, tag.allowed_values or ())})
    if tag.value_type == ValueType.REGEX:
        check_regex(tag.key, tag.allowed_regex or "")
    return tag


def check_regex(key: str, pattern: str) -> None:
    """Refuse a pattern that Infracost's engine cannot compile: it would let every value pass, silently."""
    import re2  # noqa: PLC0415 -- 1.5 MB of code that few calls need

    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(pattern, options)
    except UnicodeEncodeError:
        reason = f"tag {key!r}: the regular expression is no text that can be written as UTF-8"
        raise InputRefused(reason, fix="write it anew") from None
    except re2.error as error:
        said = error.args[0].decode("utf-8", "replace") if error.args and isinstance(error.args[0], bytes) else ""
        reason = f"tag {key!r}: RE2 cannot compile its regular expression ({said})"
        fix = "write it without look-around and back-references; as it is, Infracost lets every value pass"
        raise InputRefused(reason, value=pattern, fix=fix) from None
    if not pattern:
        reason = f"tag {key!r}: the regular expression is empty"
        raise InputRefused(reason, fix="an empty one lets every value pass: use type ANY to say so")


def checked_policy(change: PolicyChange) -> PolicyChange:
    """Return *change* as it is sent. Raises InputRefused."""
    if change.tags is None:
        return change
    keys = [tag.key for tag in change.tags]
    doubled = sorted({key for key in keys if keys.count(key) > 1})
    if doubled:
        reason = "a tag stands twice in one policy"
        raise InputRefused(reason, value=", ".join(doubled), fix="name each tag once")
    return change.model_copy(update={"tags": tuple(map(checked_tag, change.tags))})


def check_new_guardrail(change: GuardrailChange) -> None:
    """Refuse a guardrail without a name or a scope, and one that would never trigger. Raises InputRefused."""
    if not change.name or not change.scope:
        reason = "a new guardrail needs a name and a scope"
        raise InputRefused(reason, value=change.name or "", fix="give both; the scope is PULL_REQUEST or PROJECT")
    if not change.thresholds:
        reason = f"guardrail {change.name!r} has no threshold, so it would never trigger"
        raise InputRefused(reason, fix="set increase_threshold, increase_percentage_threshold or total_threshold")


def takes_threshold_away(change: GuardrailChange) -> bool:
    """Return whether *change* empties a threshold."""
    return any(getattr(change, name) is None for name in THRESHOLDS & change.model_fields_set)


def check_thresholds(held: GuardrailAttributes, change: GuardrailChange) -> None:
    """Refuse a change after which a guardrail would have no threshold left. Raises InputRefused."""
    after = {name: getattr(held, name) for name in THRESHOLDS}
    after |= {name: getattr(change, name) for name in THRESHOLDS & change.model_fields_set}
    if all(value is None for value in after.values()):
        reason = f"guardrail {held.name!r} would have no threshold left, so it would never trigger"
        raise InputRefused(reason, fix="set another threshold, or delete the guardrail")


def check_not_empty(body: Mapping[str, object], what: str) -> None:
    """Refuse a change that names nothing. Raises InputRefused."""
    if not body:
        reason = f"the change of the {what} names nothing"
        raise InputRefused(reason, fix="set what is to change")


def check_properties(csv: bytes) -> None:
    """Refuse a file that would empty the custom properties, or be read as something else. Raises InputRefused.

    A full check of rows and columns belongs to whoever has the file's name; this is what can be told from its bytes.
    """
    try:
        text = csv.decode("utf-8")
    except UnicodeDecodeError as error:
        line = csv.count(b"\n", 0, error.start) + 1
        reason = "the custom properties are not UTF-8"
        raise InputRefused(reason, line=line, fix="save the file as UTF-8") from None
    if "\r" in text:
        line = text[: text.index("\r")].count("\n") + 1
        reason = "the custom properties have carriage returns"
        raise InputRefused(reason, line=line, fix="end lines with \\n alone")
    if len([line for line in text.split("\n") if line.strip()]) <= 1:
        reason = "the custom properties are one line or none, and would empty what Infracost holds"
        fix = "send a header and rows; newlines that were stripped look like this too (curl: use --data-binary)"
        raise InputRefused(reason, value=text[:60], fix=fix)

"""What Infracost would take and what would then do harm: refused before anything is sent.

Source: contract page, "Tagging policies", "Guardrails" and "Custom properties".
"""

from __future__ import annotations

from collections.abc import Iterable

from finops_relay.errors import InputRefused
from finops_relay.infracost.models import GuardrailChange, HeldTag, PolicyChange, Tag, ValueType

SUGGESTED_VALUES = 250
"""Values up to which Infracost suggests the nearest one; beyond, it shows the first five only."""


def list_of(key: str, values: Iterable[str]) -> tuple[str, ...]:
    """Return *values* as they are sent: each once, and sorted, since the first five are shown. Raises InputRefused."""
    found = tuple(sorted(set(values)))
    if not found or "" in found:
        reason = f"tag {key!r}: " + ("an allowed value is empty" if found else "the list of allowed values is empty")
        fix = "an empty list fails every value, and can block every pull request: give the values, or use type ANY"
        raise InputRefused(reason, fix=fix)
    return found


def checked_tag(tag: Tag) -> Tag:
    """Return *tag* as it is sent. Raises InputRefused. One that was read goes back as it is."""
    if isinstance(tag, HeldTag):
        return tag
    if tag.value_type == ValueType.LIST:
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

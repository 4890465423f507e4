"""What a row of cost must be: a row of the Common Bill Format under live, a line item under openapi.

Each rule says what is wrong with a row, in a few microseconds, because it is asked for every row of every drop.
"""

from __future__ import annotations

import functools
import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

CBF_COSTS = (
    "cost/cost",
    "cost/discounted_cost",
    "cost/amortized_cost",
    "cost/discounted_amortized_cost",
    "cost/on_demand_cost",
)
_CBF_TEXTS = frozenset(
    {
        "lineitem/id",
        "lineitem/description",
        "lineitem/cloud_provider",
        "resource/id",
        "resource/service",
        "resource/account",
        "resource/region",
        "resource/usage_family",
        "action/operation",
        "action/usage_type",
        "action/account",
        "action/region",
        "usage/units",
        "bill/invoice_id",
        "k8s/cluster",
        "k8s/namespace",
        "k8s/deployment",
        "k8s/labels",
    }
)
_DECIMAL = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_CBF_SHAPES = {
    "lineitem/type": re.compile(r"Usage|Tax|Support|Purchase|CommittedUsePurchase|Discount|Credit|Fee|Adjustment"),
    "time/usage_start": re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:00:00(\.0+)?(Z|\+00:00)"),
    "time/usage_end": re.compile(
        r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([+-][0-9]{2}:[0-9]{2}|Z)?"
    ),
    "usage/amount": _DECIMAL,
    **dict.fromkeys(CBF_COSTS, _DECIMAL),
}
_CBF_TAG = re.compile(r"resource/tag:[A-Za-z0-9_.:/=+@-]+")
_START = "time/usage_start"
_CBF_NEEDED = (_START, "cost/cost")

_ITEM_TEXTS = ("service", "description")
_ITEM_MEMBERS = frozenset({"timestamp", "cost", "metadata", *_ITEM_TEXTS})


def cbf_fault(row: object) -> str:
    """Say what is wrong with a row of the Common Bill Format; nothing when it is right."""
    if not isinstance(row, dict):
        return "is not an object"
    for name, value in row.items():
        if name in _CBF_TEXTS and isinstance(value, str):
            continue
        fault = _cell_fault(name, value)
        if fault:
            return fault
    return _missing(row)


def _cell_fault(name: str, value: object) -> str:
    if not isinstance(value, str):
        return f"has a {name[:60]} that is not a string"
    shape = _CBF_SHAPES.get(name)
    if shape is None:
        return "" if _CBF_TAG.fullmatch(name) else f"has a column that there is not: {name[:60]!r}"
    if shape.fullmatch(value) is None or (name == _START and hour_of(value) is None):
        return f"has an invalid {name}: {value[:60]!r}"
    return ""


def _missing(row: dict[str, str]) -> str:
    for name in _CBF_NEEDED:
        if name not in row:
            return f"lacks {name}"
    if not row.get("resource/id") and any(name.startswith("resource/tag:") for name in row):
        return "has a tag but no resource/id"
    return ""


def item_fault(row: object) -> str:
    """Say what is wrong with a line item; nothing when it is right."""
    if not isinstance(row, dict):
        return "is not an object"
    return next((fault for fault, rule in _ITEM_RULES.items() if not rule(row)), "")


@functools.lru_cache(maxsize=4096)
def hour_of(time: str) -> str | None:
    """Give the hour of a time, in UTC and in one spelling; None when it is none, or has no offset."""
    try:
        moment = datetime.fromisoformat(time)
    except ValueError:
        return None
    if moment.tzinfo is None or "T" not in time:
        return None
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:00:00Z")


_ITEM_RULES: dict[str, Callable[[dict[str, Any]], bool]] = {
    "has a member that there is not": lambda row: row.keys() <= _ITEM_MEMBERS,
    "lacks a cost that is a number": lambda row: isinstance(row.get("cost"), Decimal),
    "lacks a timestamp that is a date and time with an offset": lambda row: (
        isinstance(row.get("timestamp"), str) and hour_of(row["timestamp"]) is not None
    ),
    "has a metadata that is not an object of strings": lambda row: (
        isinstance(row.get("metadata", {}), dict)
        and all(isinstance(value, str) for value in row.get("metadata", {}).values())
    ),
    "has a service or description that is not a string": lambda row: all(
        isinstance(row.get(name, ""), str) for name in _ITEM_TEXTS
    ),
}
"""What is wrong with a line item that does not keep the rule."""

"""FOCUS 1.0 to 1.2 as the Common Bill Format. No public mapping exists; the contract page of CloudZero has ours.

What FOCUS calls null is an empty cell or the word NULL, as exports write it. Columns that the mapping does not name,
such as a provider's own (``x_…``), are passed over.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from itertools import product

from finops_relay.errors import InputRefused
from finops_relay.formats.cost_cells import TAG, CellFault, Cells, Tags, Times, check_tag_key, resource_id, segment
from finops_relay.formats.cost_rows import (
    COST,
    END,
    REGION,
    RESOURCE,
    START,
    TYPE,
    CostColumns,
    CostPlan,
)
from finops_relay.formats.json_items import DECODER, HALF, Doubled, scalar_text

REQUIRED = ("ChargePeriodStart", "BilledCost", "BillingCurrency", "ChargeCategory")
"""Columns without which a row cannot be understood; FOCUS has them mandatory."""

_SAME: Mapping[str, str] = {
    START: "ChargePeriodStart",
    END: "ChargePeriodEnd",
    COST: "BilledCost",
    "cost/discounted_cost": "BilledCost",
    "cost/amortized_cost": "EffectiveCost",
    "cost/discounted_amortized_cost": "EffectiveCost",
    "cost/on_demand_cost": "ListCost",
    "resource/service": "ServiceName",
    "resource/usage_family": "ServiceSubcategory",
    "usage/amount": "ConsumedQuantity",
    "usage/units": "ConsumedUnit",
    "lineitem/description": "ChargeDescription",
    "lineitem/cloud_provider": "ProviderName",
}
"""Columns whose values stay as they are."""

_FIRST_OF: Mapping[str, tuple[str, str]] = {
    "resource/account": ("SubAccountId", "BillingAccountId"),
    "action/usage_type": ("SkuMeter", "SkuId"),
}
"""Columns that take the first value of two that is not null."""

_CATEGORIES = ("Usage", "Purchase", "Tax", "Credit", "Adjustment")
_NULLS = frozenset({"NULL", "null", " "})
"""What stands for null beside an empty cell; a space is what some exports write for one."""


def _line_type(category: str, correction: bool, unused: bool, committed: bool) -> str:  # noqa: FBT001 -- a key's parts
    """The ``lineitem/type`` of a charge. A stream has no CommittedUseVacancy, so an unused commitment is Usage."""
    if correction:
        return "Adjustment"
    if unused:
        return "Usage"
    return "CommittedUsePurchase" if category == "Purchase" and committed else category


_SAME_TYPES = frozenset(_CATEGORIES)
_BOTH = (False, True)
_TYPES = {key: _line_type(*key) for key in product(_CATEGORIES, _BOTH, _BOTH, _BOTH)}


class FocusForm:
    """The mapping and the checks of one FOCUS file.

    Args:
        file: its name, for messages.
        line: 1-based line of its header.
        header: the names of its columns, each once.
        month: the first day of the month that every row must be in.

    Raises:
        InputRefused: the header lacks a column that the mapping needs.
    """

    name = "focus"

    def __init__(self, file: str, line: int, header: Sequence[str], month: date) -> None:
        self._places = {name.strip(): place for place, name in enumerate(header) if name.strip()}
        missing = [name for name in REQUIRED if name not in self._places]
        if missing:
            reason = f"the header has no column {', '.join(missing)}"
            fix = "export FOCUS 1.0 to 1.2 with all its mandatory columns"
            raise InputRefused(reason, file=file, line=line, fix=fix)
        shown = {name: column for name, column in _SAME.items() if column in self._places}
        shown |= {
            name: " or ".join(columns)
            for name, columns in _FIRST_OF.items()
            if any(column in self._places for column in columns)
        }
        shown |= {TYPE: "ChargeCategory", REGION: "RegionId"}
        shown |= {RESOURCE: "ResourceId"} if "ResourceId" in self._places else {}
        self._names = list(shown)
        times = Times(month, naive=True, floored=True)
        self._plan = CostPlan(self._names, list(shown.values()), times, ready=frozenset({TYPE, RESOURCE}))
        self._tags: Cells[str, Tags] = Cells(read_tags)
        self._ids: Cells[tuple[str, str], str] = Cells(_resource)

    def read(self, columns: Sequence[Sequence[str]]) -> CostColumns:
        """Maps and checks some rows."""
        given = _Given(self._places, columns)
        _check_currency(given["BillingCurrency"])
        mapped = {name: given[column] for name, column in _SAME.items() if name in self._names}
        for name, (first, second) in _FIRST_OF.items():
            mapped[name] = given.first(first, second)
        mapped[TYPE] = _types(given)
        mapped[REGION] = [region or "no-region" for region in given["RegionId"]]
        mapped[RESOURCE] = self._resources(given)
        tags = list(map(self._tags.__getitem__, given["Tags"])) if "Tags" in self._places else None
        return self._plan.read([mapped[name] for name in self._names], tags)

    def _resources(self, given: _Given) -> Sequence[str]:
        """``type/name`` of each row."""
        ids = given["ResourceId"]
        if not any(ids):
            return ids
        return self._ids.column("ResourceId", zip(given["ResourceType"], ids, strict=True))


class _Given:
    """Some rows of a FOCUS file, by column name; null is empty, and so is a column that the file does not have."""

    def __init__(self, places: Mapping[str, int], columns: Sequence[Sequence[str]]) -> None:
        self._places = places
        self._columns = columns
        self._known: dict[str, Sequence[str]] = {}

    def __getitem__(self, name: str) -> Sequence[str]:
        if name not in self._known:
            place = self._places.get(name)
            self._known[name] = [""] * len(self._columns[0]) if place is None else _without_nulls(self._columns[place])
        return self._known[name]

    def first(self, name: str, other: str) -> Sequence[str]:
        """The values of *name*, and where they are null those of *other*."""
        column = self[name]
        if all(column):
            return column
        return [value or instead for value, instead in zip(column, self[other], strict=True)]


def _without_nulls(column: Sequence[str]) -> Sequence[str]:
    if _NULLS.isdisjoint(column):
        return column
    return ["" if cell in _NULLS else cell for cell in column]


def _check_currency(currencies: Iterable[str]) -> None:
    """Refuses every currency but the dollar: CloudZero knows no other."""
    others = set(currencies) - {"USD"}
    for currency in sorted(others):
        if not currency:
            raise CellFault("BillingCurrency is empty", "write USD, if the costs are US dollars")
        raise CellFault(
            f"BillingCurrency is {currency[:20]}, and CloudZero takes US dollars only",
            "export the costs in USD, or convert all amounts",
            whole_file=True,
        )


def _types(given: _Given) -> Sequence[str]:
    """The ``lineitem/type`` of each row."""
    columns = (
        given["ChargeCategory"],
        given["ChargeClass"],
        given["CommitmentDiscountStatus"],
        given["CommitmentDiscountId"],
    )
    categories, classes, statuses, commitments = columns
    corrections = [cell == "Correction" for cell in classes]
    unused = [cell == "Unused" for cell in statuses]
    keys = zip(categories, corrections, unused, map(bool, commitments), strict=True)
    if not (any(corrections) or any(unused) or any(commitments)) and _SAME_TYPES.issuperset(categories):
        return categories
    try:
        return list(map(_TYPES.__getitem__, keys))
    except KeyError as error:
        category = error.args[0][0]
        said = f"is {category[:40]!r}, which is none of FOCUS's" if category else "is empty"
        raise CellFault(f"ChargeCategory {said}", f"write one of {', '.join(_CATEGORIES)}") from None


def _resource(type_and_id: tuple[str, str]) -> str:
    """``type/name``; a resource whose type is null is a ``resource``, unless its id begins with a type."""
    kind, whole = type_and_id
    if not whole:
        return ""
    name = segment(whole)
    if not name:
        raise CellFault("has no name in it", "write the resource's id, or leave it empty")
    kind = segment(kind)
    if kind:
        return f"{kind}/{name}"
    try:
        return resource_id(whole)
    except CellFault:  # one segment, and so a name
        return f"resource/{name}"


def read_tags(text: str) -> Tags:
    """The tags of one row under their full names, sorted.

    Args:
        text: a JSON object; its values are texts, numbers or true (a tag without a value), and null for no tag.

    Raises:
        CellFault: it is something else, or a key is not one that CloudZero takes.
    """
    if not text.strip():
        return Tags({})
    fix = 'write the tags as a JSON object of texts, such as {"team": "platform"}'
    try:
        found = DECODER.decode(text)
    except (json.JSONDecodeError, RecursionError):
        raise CellFault("Tags is no JSON", fix) from None
    if not isinstance(found, dict):
        raise CellFault("Tags is no JSON object", fix)
    if isinstance(found, Doubled):
        raise CellFault(f"Tags has the key {found.name[:60]!r} twice", "keep one of the two")
    tags: dict[str, str] = {}
    for key, value in sorted(found.items()):
        cell = scalar_text(value)
        if cell is None:
            raise CellFault(f"Tags has a list or an object as the value of {key[:60]!r}", fix)
        if HALF.search(key + cell):
            raise CellFault(f"Tags has half of a character in {key[:60]!a}", "write the whole character")
        if cell and not cell.isspace():
            check_tag_key(key)
            tags[TAG + key] = cell
    return Tags(tags)

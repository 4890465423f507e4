"""Plain line items as the Common Bill Format: ``timestamp, cost, service, description``, and metadata as tags.

A name that is a whole column of the Common Bill Format (``resource/id``, ``cost/amortized_cost``) is that column: this
is how the client writes such columns into ``metadata`` under openapi. Every other name is a tag.
"""

from __future__ import annotations

from collections.abc import Sequence

from finops_relay.formats.cbf import NAMELESS
from finops_relay.formats.cost_cells import TAG, CellFault, Cells, Times, check_tag_key, segment
from finops_relay.formats.cost_rows import (
    CBF_COLUMNS,
    COST,
    RESOURCE,
    START,
    CostColumns,
    CostPlan,
    without_white_space,
)

OWN: dict[str, str] = {
    "timestamp": START,
    "cost": COST,
    "service": "resource/service",
    "description": "lineitem/description",
}
"""The members of a line item (openapi) and their columns (contract page)."""

REQUIRED = ("timestamp", "cost")


class LineItemForm:
    """The mapping and the checks of line items under one header.

    Args:
        columns: the names of the columns, ``timestamp`` and ``cost`` among them.
        times: reads the file's times.
    """

    name = "line_items"

    def __init__(self, columns: Sequence[str], times: Times) -> None:
        self.faults: dict[int, CellFault] = {}
        """Columns that may have no values, by place, and why."""
        self._places: dict[str, int] = {}
        for place, column in enumerate(columns):
            try:
                goal = _goal(column)
                if goal in self._places:
                    error = f"{columns[self._places[goal]]!r} and {column!r} are one column"
                    raise CellFault(error, "use one of the two names")  # noqa: TRY301 -- the third of three such faults
            except CellFault as fault:
                self.faults[place] = fault
            else:
                self._places[goal] = place
        self._tags = [place for goal, place in self._places.items() if goal.startswith(TAG)]
        self._names = list(self._places)
        if self._tags and RESOURCE not in self._places:
            self._names.append(RESOURCE)
        shown = [columns[self._places[name]] if name in self._places else RESOURCE for name in self._names]
        self._plan = CostPlan(self._names, shown, times)
        self._made: Cells[str, str] = Cells(_made_resource)

    def read(self, columns: Sequence[Sequence[str]]) -> CostColumns:
        """Maps and checks some rows."""
        for place, fault in self.faults.items():
            if any(map(str.strip, columns[place])):
                raise fault
        given = {name: columns[place] for name, place in self._places.items()}
        if self._tags:
            given[RESOURCE] = self._resources(columns, given)
        return self._plan.read([given[name] for name in self._names])

    def _resources(self, columns: Sequence[Sequence[str]], given: dict[str, Sequence[str]]) -> Sequence[str]:
        """The resource of each row.

        CloudZero takes tags only on a row with a ``resource/id``, and a plain line item has no place for one. So a row
        with tags and without a resource gets one that is made from its service: rejecting it would reject every line
        item with metadata, and the same service always gives the same resource.
        """
        count = len(columns[0])
        tagged = zip(*(without_white_space(columns[place]) for place in self._tags), strict=True)
        services = given.get(OWN["service"], [""] * count)
        resources = without_white_space(given.get(RESOURCE, [""] * count))
        return [
            resource or (self._made[service] if any(tags) else "")
            for resource, service, tags in zip(resources, services, tagged, strict=True)
        ]


def own_name(column: str) -> str | None:
    """The line item's own member that *column* names, in any case; None for metadata."""
    name = column.strip().lower()
    return name if name in OWN else None


def _goal(column: str) -> str:
    """The column of the Common Bill Format that *column* becomes."""
    own = own_name(column)
    if own is not None:
        return OWN[own]
    name = column.strip()
    if not name:
        raise NAMELESS
    if name in {START, COST}:
        raise CellFault(f"{name} is the Common Bill Format's name", "write timestamp and cost in line items")
    if name.lower() == "metadata":
        raise CellFault("metadata is no object", "write each of its keys as a column or member of its own")
    if name in CBF_COLUMNS:
        return name
    key = name.removeprefix(TAG)
    check_tag_key(key)
    return TAG + key


def _made_resource(service: str) -> str:
    return f"line-item/{segment(service) or 'unknown'}"

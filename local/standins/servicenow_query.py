"""ServiceNow's encoded queries: what cannot be understood is left out of the query, and nobody is told."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from local.standins.servicenow_rows import text, walk

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


def _compared(held: str, given: str) -> int:
    """Say where *held* stands, as numbers if both are: -1 before *given*, 0 beside it, 1 after it."""
    try:
        one, other = Decimal(held), Decimal(given)
        return (one > other) - (one < other)
    except InvalidOperation:
        return (held > given) - (held < given)


_HOLDS: dict[str, Callable[[str, str], bool]] = {
    "NOT IN": lambda held, given: held not in given.split(","),
    "NOT LIKE": lambda held, given: given not in held,
    "ISNOTEMPTY": lambda held, _: held != "",
    "ISEMPTY": lambda held, _: held == "",
    "STARTSWITH": lambda held, given: held.startswith(given),
    "ENDSWITH": lambda held, given: held.endswith(given),
    "LIKE": lambda held, given: given in held,
    "IN": lambda held, given: held in given.split(","),
    "!=": lambda held, given: held != given,
    ">=": lambda held, given: held != "" and _compared(held, given) >= 0,
    "<=": lambda held, given: held != "" and _compared(held, given) <= 0,
    "=": lambda held, given: held == given,
    ">": lambda held, given: held != "" and _compared(held, given) > 0,
    "<": lambda held, given: held != "" and _compared(held, given) < 0,
}
"""Whether what a row holds and what was given go together; no operator stands before a longer one that it begins."""
_CONDITION = re.compile(rf"([a-z0-9_.]+)({'|'.join(_HOLDS)})(.*)", re.DOTALL)
_ORDER = re.compile(r"ORDERBY(DESC)?([a-z0-9_.]+)")
_END = "EQ"
"""What queries that were copied from a list's address end with."""


@dataclass(frozen=True)
class Condition:
    """One comparison; letters count alike, large or small."""

    field: str
    operator: str
    operand: str

    def holds(self, row: Mapping[str, Any]) -> bool:
        """Whether it holds for a row; a field that the row lacks is empty."""
        return _HOLDS[self.operator](_held(row, self.field), self.operand.casefold())


@dataclass(frozen=True)
class Query:
    """A query, as far as it was understood."""

    sections: Sequence[Sequence[Sequence[Condition]]]
    """A row is found by any of the sections; in one, each group must have a condition that holds, or none at all."""
    orders: Sequence[tuple[str, bool]]
    """The fields to order by, and whether downwards."""
    ignored: Sequence[str]
    """The parts that were not understood."""

    def find(self, rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Give the rows that are found, in order."""
        found = [row for row in rows if any(_found(section, row) for section in self.sections)]
        for field, downwards in reversed(self.orders):
            found.sort(key=lambda row: _held(row, field), reverse=downwards)
        return found


def parse(written: str, fields: frozenset[str]) -> Query:
    """Read a query.

    Args:
        written: The conditions, between `^` (and), `^OR` (or, with the condition before it) and `^NQ` (or, with the
            whole query before it); and orders.
        fields: The fields that there are.
    """
    sections: list[list[list[Condition]]] = []
    orders: list[tuple[str, bool]] = []
    ignored: list[str] = []
    for section in written.split("^NQ"):
        groups: list[list[Condition]] = []
        sections.append(groups)
        for part in filter(None, section.split("^")):
            order = _ORDER.fullmatch(part)
            if order and order[2] in fields:
                orders.append((order[2], order[1] is not None))
                continue
            either = part.startswith("OR") and not part.startswith("ORDERBY")
            if not (either and groups):
                groups.append([])
            condition = _CONDITION.fullmatch(part.removeprefix("OR"))
            if condition and condition[1] in fields:
                groups[-1].append(Condition(condition[1], condition[2], condition[3]))
            elif part != _END:
                ignored.append(part)
    return Query(sections, orders, ignored)


def _found(groups: Sequence[Sequence[Condition]], row: Mapping[str, Any]) -> bool:
    return all(not group or any(condition.holds(row) for condition in group) for group in groups)


def _held(row: Mapping[str, Any], field: str) -> str:
    try:
        return text(walk(row, field)).casefold()
    except KeyError:
        return ""

"""Rows as the ServiceNow stand-in holds them, and as its Table API shows them: every value is text.

A value that is a mapping is a reference to a row of another table, whose fields can be walked to: `owned_by.name`. With
nothing but `value` and `display_value` in it, it is a choice.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

_CHOICE = {"value", "display_value"}
_HIDDEN = "_hidden"
"""The member that takes a row out of every answer; no field."""


def is_reference(value: object) -> bool:
    """Whether a value is another row."""
    return isinstance(value, Mapping) and value.keys() != _CHOICE


def text(value: Any) -> str:  # noqa: ANN401 - whatever a row holds
    """Give a value as the database has it."""
    if isinstance(value, Mapping):
        return text(value["sys_id" if is_reference(value) else "value"])
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def display(value: Any) -> str:  # noqa: ANN401 - as for text
    """Give a value as a person sees it."""
    if isinstance(value, Mapping):
        return text(value.get("name" if is_reference(value) else "display_value", ""))
    return text(value)


def walk(row: Mapping[str, Any], field: str) -> Any:  # noqa: ANN401 - as for text
    """Follow a field's name through references; what lies behind an empty one is empty.

    Raises:
        KeyError: The row has no such field.
    """
    value: Any = row
    for step in field.split("."):
        if value is None or value == "":
            return ""
        if not is_reference(value):
            raise KeyError(field)
        value = value[step]
    return value


class Table:
    """The rows of one table; those without a `sys_id` have one that their content makes."""

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        seen: Counter[str] = Counter()
        self.rows = [_identified(row, seen) for row in rows]
        self.hidden = {row["sys_id"] for row, given in zip(self.rows, rows, strict=True) if given.get(_HIDDEN)}
        self.fields = frozenset(field for row in self.rows for field in _fields(row))
        """Every name that can be asked for, those behind references too."""


def _identified(row: Mapping[str, Any], seen: Counter[str]) -> dict[str, Any]:
    """Copy a row, and give it and the rows that it refers to a `sys_id`; each of several alike has its own."""
    known = {
        name: _identified(value, Counter()) if is_reference(value) else value
        for name, value in row.items()
        if name != _HIDDEN
    }
    if "sys_id" not in known:
        content = json.dumps(known, sort_keys=True, default=str)
        known["sys_id"] = hashlib.sha256(f"{seen[content]}{content}".encode()).hexdigest()[:32]
        seen[content] += 1
    return known


def _fields(row: Mapping[str, Any]) -> Iterator[str]:
    for name, value in row.items():
        yield name
        if is_reference(value):
            yield from (f"{name}.{below}" for below in _fields(value))


@dataclass(frozen=True)
class View:
    """How an answer shows rows."""

    fields: Sequence[str]
    """Only these; none means all of the row's own."""
    display: Literal["false", "true", "all"]
    links: bool
    """Whether a reference says where its row is."""
    base: str
    """The address of the table of references."""

    def row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Show a row; a field that it does not have is left out."""
        shown = {}
        for field in self.fields or row:
            try:
                shown[field] = self._value(walk(row, field))
            except KeyError:
                continue
        return shown

    def _value(self, value: Any) -> str | dict[str, str]:  # noqa: ANN401 - as for text
        link = {"link": f"{self.base}/{quote(text(value))}"} if self.links and is_reference(value) else {}
        match self.display:
            case "all":
                return {"display_value": display(value), "value": text(value), **link}
            case "true":
                return {"display_value": display(value), **link} if link else display(value)
            case "false":
                return {"value": text(value), **link} if link else text(value)

"""What relay.yaml says is read from a source of truth, checked; it loads no HTTP, for prepare reads relay.yaml too."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self
from urllib.parse import unquote

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from finops_relay.sources.expressions import checked

_CONDITION = re.compile(r"(?:[^^]|\^\^)+")
"""Of an encoded query: what stands between single carets; a double one is a caret in a value."""
_OURS = ("ORDERBY", "GROUPBY")
"""Of conditions, which would change the order that pages are told apart by."""
_STEP = r"(?:[\w.~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})+"
_PATH = re.compile(rf"/?{_STEP}(?:/{_STEP})*/?", re.ASCII)
"""RFC 3986, 3.3; braces are none of its letters, so that a path is a template without names."""


def _query(text: str) -> str:
    """Return an encoded query that our own paging can be added to. Raises ValueError."""
    parts = _parts(text)
    conditions = [condition for part in parts for condition in part]
    if not text.isprintable():
        msg = "the query holds line ends or other unprintable characters: write it in one line"
    elif any(condition.upper().startswith(_OURS) for condition in conditions):
        msg = "the query orders or groups its rows: leave ORDERBY and GROUPBY out, rows are read in the order of sys_id"
    elif "sysparm_" in text.lower():
        msg = "the query holds a sysparm_ parameter: give the encoded query alone"
    elif "javascript:" in text.lower():
        msg = "the query holds a script (javascript:), which is not sent: write the values out"
    elif any(part and part[0].startswith("OR") for part in parts):
        msg = "the query, or a part of it after ^NQ, begins with OR: there is nothing before it"
    elif len(parts) > 1 and not all(parts):
        msg = "the query has an empty part beside ^NQ, which would find every row"
    else:
        return text
    raise ValueError(msg)


def _parts(query: str) -> list[list[str]]:
    """Return the conditions of each part of a query between ``^NQ``, without the ``^EQ`` that ends a copied one."""
    parts: list[list[str]] = [[]]
    for found in _CONDITION.findall(query):
        if found.startswith("NQ"):
            parts.append([])
        condition = found.removeprefix("NQ")
        if condition not in {"", "EQ"}:
            parts[-1].append(condition)
    return parts


def _path(text: str) -> str:
    """Return a path with a slash before it, or none at all. Raises ValueError."""
    if not text:
        return text
    if not _PATH.fullmatch(text):
        msg = "a path of letters, digits and slashes is wanted: no host, no query (see params), blanks as %20"
        raise ValueError(msg)
    if {".", ".."} & set(re.split(r"[/\\]", unquote(text))):
        msg = "the path holds . or .., and would lead elsewhere"
        raise ValueError(msg)
    return f"/{text.removeprefix('/')}"


def _checked_or_empty(text: str) -> str:
    """Return an expression, or nothing. Raises ValueError."""
    return checked(text) if text else text


Jmespath = Annotated[str, Field(max_length=2_000), AfterValidator(checked)]
"""An expression."""
OptionalJmespath = Annotated[str, Field(max_length=2_000), AfterValidator(_checked_or_empty)]
Column = Annotated[str, Field(min_length=1, max_length=200)]
"""Name of a column as we hand it on."""
TableField = Annotated[str, Field(pattern=r"^[a-z0-9_]+(\.[a-z0-9_]+){0,8}$", max_length=400)]
"""A field of a table, or through references one of another (``owned_by.user_name``)."""
CatalogFilter = Annotated[str, Field(min_length=1, max_length=2_000, pattern=r"^[^\x00-\x1f]+$")]


class Ask(BaseModel):
    """Frozen, and an unknown key is an error: a misspelt setting must not be ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TableAsk(Ask):
    """Rows of a table of ServiceNow."""

    table: Annotated[str, Field(pattern=r"^[a-z0-9_]+$", max_length=80)]
    """Name as in the address of its list (``cmdb_ci_business_app``), not its label."""
    columns: Annotated[dict[Column, TableField], Field(min_length=1)]
    """The field that each column is read from."""
    query: Annotated[str, Field(max_length=4_000), AfterValidator(_query)] = ""
    """An encoded query. ServiceNow ignores a part of it that it cannot read, and then finds more."""
    display_values: bool = False
    """Whether references and choices are read as people see them, dates in the user's own form."""
    page_rows: Annotated[int, Field(ge=1, le=10_000, strict=True)] = 1_000
    """Rows asked for at once; fewer when the instance cancels the transaction."""

    @property
    def alternatives(self) -> tuple[str, ...]:
        """The parts of the query, of which a row fits one at least; one empty part when all rows are asked for."""
        return tuple("^".join(part) for part in _parts(self.query))


class CatalogAsk(Ask):
    """Entities of a Backstage catalog."""

    filters: Annotated[tuple[CatalogFilter, ...], Field(min_length=1)]
    """Sets of conditions (``kind=component,spec.type=service``); an entity fits one at least."""
    columns: Annotated[dict[Column, Jmespath], Field(min_length=1)]
    """JMESPath over an entity, for each column."""
    refs: dict[Column, Literal["full", "name"]] = Field(default_factory=dict)
    """Columns that hold a reference to an entity: as ``group:default/team-a``, or as its name alone."""
    page_items: Annotated[int, Field(ge=1, le=500, strict=True)] = 500

    @model_validator(mode="after")
    def _refs_are_columns(self) -> Self:
        unknown = sorted(self.refs.keys() - self.columns.keys())
        if unknown:
            msg = f"refs names {unknown[0]!r}, which is none of the columns"
            raise ValueError(msg)
        return self


class JsonAsk(Ask):
    """Items of a list that some address answers with."""

    path: Annotated[str, Field(max_length=1_000), AfterValidator(_path)] = ""
    """Added to the address of the source."""
    params: dict[str, str] = Field(default_factory=dict)
    """The query of the first page; a cursor is added to it, an address replaces it."""
    items: Jmespath = "@"
    """JMESPath to the list in an answer."""
    columns: Annotated[dict[Column, Jmespath], Field(min_length=1)]
    """JMESPath over an item, for each column."""
    next: OptionalJmespath = ""
    """JMESPath to the address of the next page in an answer; it must be on the source's own host."""
    cursor: OptionalJmespath = ""
    """JMESPath to what is sent as `cursor_param` to get the next page."""
    cursor_param: Annotated[str, Field(min_length=1, max_length=200)] = "cursor"
    link_header: bool = False
    """Whether the next page's address is in the header ``Link`` (RFC 8288)."""

    @model_validator(mode="after")
    def _one_way_on(self) -> Self:
        if [bool(self.next), bool(self.cursor), self.link_header].count(True) > 1:
            msg = "next, cursor and link_header are three ways to the next page: name one"
            raise ValueError(msg)
        return self

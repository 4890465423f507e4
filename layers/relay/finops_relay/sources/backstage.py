"""Entities of a Backstage catalog.

Source: contract page, "Where desired values come from". Without an order of our own the catalog keeps to that of its
internal ids, which a cursor goes on from; ordered by a field, some versions give an entity twice (backstage/backstage,
pull request 29368).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from finops_relay.errors import AnswerNotUnderstood
from finops_relay.http.answers import Answer
from finops_relay.http.client import HttpClient
from finops_relay.http.pages import Next, pages
from finops_relay.sources.answers import readable
from finops_relay.sources.asks import CatalogAsk
from finops_relay.sources.expressions import Expression, Path
from finops_relay.sources.records import MAX_BYTES, MAX_RECORDS, Record, record_of, text_of

ENTITIES = "/api/catalog/entities/by-query"
DEFAULT_NAMESPACE = "default"
KINDS: Mapping[str, str] = {
    "system": "system",
    "domain": "domain",
    "subdomainOf": "domain",
    "subcomponentOf": "component",
}
"""The kind that a reference without one has, by the field that holds it; an owner is a group, and so is any other."""

_REFERENCE = re.compile(r"(?:([^:/]+):)?(?:([^:/]+)/)?([^:/]+)")
_NAMED: frozenset[Path] = frozenset({("kind",), ("metadata", "name"), ("metadata", "namespace")})
"""What an entity's own reference is made of."""
_PLAIN_KEY = re.compile(r"[\w-]+", re.ASCII)
_NAME = re.compile(r"[\w.-]{1,100}", re.ASCII)

Entity = Mapping[str, Any]


@dataclass(frozen=True)
class Backstage:
    """A client for one catalog; it only reads, so that every call is safe to repeat.

    Args:
        http: the core, with the backend's address.
        at_most: entities of one read.
    """

    http: HttpClient
    at_most: int = MAX_RECORDS

    def records(self, ask: CatalogAsk) -> Iterator[Record]:
        """Yield the entities that fit the filters, a page in memory at a time, each once.

        Its iterator must come to its end: only then all is read.

        Raises:
            AnswerNotUnderstood: fewer came than the catalog counted, for it changed while it was read, or it gives
                more than `at_most`.
            VendorError: as for `pages`.
        """
        readers = {column: _reader(ask, column, Expression(text)) for column, text in ask.columns.items()}
        number = came = 0
        former = ""
        for answer in map(readable, self._pages(ask)):
            for entity in answer.listed("items"):
                if not isinstance(entity, dict):
                    msg = "an item of the answer is no entity"
                    raise AnswerNotUnderstood(msg, answer.call)
                came += 1
                if came > self.at_most:
                    msg = f"the catalog gives more than {self.at_most:,} entities: narrow the filters"
                    raise AnswerNotUnderstood(msg, answer.call)
                name = _name(entity)
                if name and name == former:  # some versions repeat an entity, which is counted by them too
                    continue
                former = name
                number += 1
                yield record_of(number, name or f"item {came}", entity, readers)
        total = answer.json().get("totalItems")
        if isinstance(total, int) and total > came:
            msg = f"{came:,} entities came, and the catalog counted {total:,}: it changed while it was read"
            raise AnswerNotUnderstood(msg, answer.call)

    def _pages(self, ask: CatalogAsk) -> Iterator[Answer]:
        """Yield the pages; filters belong to the first call, and a cursor carries them on."""
        fields = _fields(ask)
        kept = {"limit": str(ask.page_items), **({"fields": fields} if fields else {})}

        def following(answer: Answer) -> Next | None:
            info = readable(answer).under("pageInfo")
            cursor = info.get("nextCursor") if isinstance(info, dict) else info
            if cursor is None or cursor == "":
                return None
            if not isinstance(cursor, str):
                msg = "the answer has a next page, but no cursor for it"
                raise AnswerNotUnderstood(msg, answer.call)
            return Next("?" + urlencode({**kept, "cursor": cursor}))

        params = {"filter": ask.filters, **kept}
        return pages(self.http, "GET", ENTITIES, following, params=params, at_most_whole_bytes=MAX_BYTES)


def full_reference(reference: str, kind: str, namespace: str) -> str:
    """Return *reference* as ``kind:namespace/name``, spelt as the catalog compares it; an empty one stays empty.

    Args:
        reference: ``[kind:][namespace/]name``.
        kind: of a reference without one.
        namespace: likewise; that of the entity which refers.

    Raises:
        ValueError: it is no reference.
    """
    if not reference.strip():
        return ""
    found = _REFERENCE.fullmatch(reference.strip())
    if not found:
        msg = "it is no reference to an entity ([kind:][namespace/]name)"
        raise ValueError(msg)
    return f"{found[1] or kind}:{found[2] or namespace}/{found[3]}".lower()


def _reader(ask: CatalogAsk, column: str, expression: Expression) -> Callable[[Entity], object]:
    """Return what reads a column of an entity."""
    form = ask.refs.get(column)
    if form is None:
        return expression.of
    kind = KINDS.get(expression.last_key, "group")

    def read(entity: Entity) -> str:
        full = full_reference(text_of(expression.of(entity)), kind, _namespace(entity))
        return full if form == "full" else full.rpartition("/")[2]

    return read


def _metadata(entity: Entity) -> Entity:
    """Return what stands under ``metadata``."""
    found = entity.get("metadata")
    return found if isinstance(found, dict) else {}


def _namespace(entity: Entity) -> str:
    """Return the namespace that an entity is in."""
    found = _metadata(entity).get("namespace")
    return found if isinstance(found, str) and found else DEFAULT_NAMESPACE


def _name(entity: Entity) -> str:
    """Return an entity's own reference; empty when it lacks a part of it."""
    parts = [entity.get("kind"), _namespace(entity), _metadata(entity).get("name")]
    if not all(isinstance(part, str) and _NAME.fullmatch(part) for part in parts):
        return ""
    kind, namespace, name = parts
    return f"{kind}:{namespace}/{name}".lower()


def _fields(ask: CatalogAsk) -> str:
    """Return the parts of an entity that are needed; empty, for all of it, where an expression does not tell.

    Keys are separated by dots there, so that one which holds a dot itself (an annotation) is asked for with all beside
    it.
    """
    wanted: set[Path] = set(_NAMED)
    for text in ask.columns.values():
        paths = Expression(text).paths()
        if paths is None:
            return ""
        wanted |= {_plain(path) for path in paths}
    if () in wanted:
        return ""
    return ",".join(sorted(".".join(path) for path in wanted))


def _plain(path: Path) -> Path:
    """Return *path* up to its first key that is not plain."""
    plain: list[str] = []
    for key in path:
        if not _PLAIN_KEY.fullmatch(key):
            break
        plain.append(key)
    return tuple(plain)

"""Entities as the Backstage stand-in holds them: what filters see of them, and the parts of them that are asked for."""

from __future__ import annotations

import copy
import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_MAX_VALUE = 200
"""Characters of a value that filters and orders see; a longer one is there, and matches nothing."""


@dataclass(frozen=True)
class Entity:
    """One entity."""

    content: dict[str, Any]
    terms: Mapping[str, Sequence[str | None]]
    """What is searched: values by dotted path, all in small letters; None for what is there and cannot be compared."""

    @property
    def uid(self) -> str:
        """What decides its place among all when nothing else does."""
        return str(self.content["metadata"]["uid"])

    def term(self, path: str) -> str | None:
        """Give the value to order by, if there is one."""
        return next(iter(self.terms.get(path.lower(), ())), None)

    def part(self, fields: Sequence[str]) -> dict[str, Any]:
        """Give the parts at dotted paths, or all of it when there are none.

        A path that goes on past what there is gives what there is: that of an annotation with dots in its name gives
        all annotations.
        """
        if not fields:
            return self.content
        part: dict[str, Any] = {}
        for field in fields:
            _copy(self.content, _steps(self.content, field), part)
        return part


def catalog(entities: Sequence[Mapping[str, Any]]) -> list[Entity]:
    """Complete entities as the catalog does (`namespace`, `uid`), and put them in its order, which is nobody's.

    Raises:
        ValueError: One has no kind or name, or two have the same reference.
    """
    known: dict[str, Entity] = {}
    for given in entities:
        content = copy.deepcopy(dict(given))
        try:
            metadata = content["metadata"] = {"namespace": "default", **content["metadata"]}
            reference = f"{content['kind']}:{metadata['namespace']}/{metadata['name']}".lower()
        except KeyError as missing:
            raise ValueError(f"an entity has no {missing}") from None
        if reference in known:
            raise ValueError(f"there are two entities {reference}")
        metadata.setdefault("uid", hashlib.sha256(reference.encode()).hexdigest()[:32])
        terms = defaultdict[str, list[str | None]](list)
        for path, value in _terms("", content):
            terms[path.lower()].append(value)
        known[reference] = Entity(content, dict(terms))
    return sorted(known.values(), key=lambda entity: entity.uid)


def find(entities: Sequence[Entity], filters: Sequence[str]) -> list[Entity]:
    """Give the entities that obey any of the filters; without any, all.

    In a filter each path must have one of the values that are given for it: `kind=a,kind=b` is either kind.
    """
    wanted = [read for read in map(_read, filters) if read]
    return [entity for entity in entities if not wanted or any(_obeys(entity, each) for each in wanted)]


def _read(written: str) -> Mapping[str, set[str | None]]:
    """Give the values that a filter wants, by path; none means any."""
    wanted = defaultdict[str, set[str | None]](set)
    for condition in filter(None, (part.strip() for part in written.split(","))):
        path, equals, value = condition.partition("=")
        values = wanted[path.strip().lower()]
        if equals:
            values.add(value.strip().lower())
    return wanted


def _obeys(entity: Entity, wanted: Mapping[str, set[str | None]]) -> bool:
    terms = entity.terms
    return all(path in terms and (not values or not values.isdisjoint(terms[path])) for path, values in wanted.items())


def _terms(path: str, value: Any) -> Iterator[tuple[str, str | None]]:  # noqa: ANN401 - whatever JSON holds
    match value:
        case dict():
            for name, member in value.items():
                if not path and name == "relations":
                    yield from ((f"relations.{each['type']}", each["targetRef"].lower()) for each in member)
                else:
                    yield from _terms(f"{path}.{name}" if path else name, member)
        case list():
            for item in value:
                yield from _terms(path, item)
                if isinstance(item, str):
                    yield f"{path}.{item}", "true"
        case None:
            yield path, None
        case _:
            text = str(value).lower()
            yield path, text if len(text) <= _MAX_VALUE else None


def _steps(content: Mapping[str, Any], field: str) -> list[str]:
    """Follow a dotted path as far as it goes. What does not lead on is put before the next step, without the dot."""
    steps: list[str] = []
    at: Any = content
    unread = ""
    for step in field.split("."):
        unread += step
        if isinstance(at, Mapping) and unread in at:
            steps.append(unread)
            at, unread = at[unread], ""
    return steps


def _copy(source: Any, steps: Sequence[str], goal: dict[str, Any]) -> None:  # noqa: ANN401 - whatever JSON holds
    for step in steps[:-1]:
        source, goal = source[step], goal.setdefault(step, {})
    if steps:
        goal[steps[-1]] = copy.deepcopy(source[steps[-1]])

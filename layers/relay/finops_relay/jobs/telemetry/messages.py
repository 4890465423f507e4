"""One message of an application: a JSON object that is one record, checked by the rules of its stream."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from finops_relay.formats.cost_cells import CellFault
from finops_relay.formats.json_items import DECODER, HALF, Doubled, scalar_text
from finops_relay.formats.telemetry import (
    ELEMENT,
    KINDS,
    Dialect,
    Ident,
    Shape,
    differing,
    granularity_of,
    is_stream,
    keys_of,
    labels_of,
    period_of,
    value_of,
)
from finops_relay.jobs.telemetry.totals import Counted

MEMBERS = frozenset({"stream", "kind", "timestamp", "granularity", "value", "dimensions", ELEMENT, "id"})
MAX_ID = 256
"""Characters of a record's own id."""
_EXAMPLE = (
    '{"stream": "orders", "kind": "metric", "timestamp": "2026-03-01T05:00:00Z", "granularity": "DAILY", "value": 1}'
)

Members = dict[str, Any]


class Nature(NamedTuple):
    """What the first record of a stream freezes: all others are of this kind and shape."""

    kind: str
    shape: Shape

    def __str__(self) -> str:
        """Say it to a person."""
        return f"{self.kind} {self.shape}"


def members_of(body: str) -> Members:
    """Return what a message says, numbers as the digits that stood there. Raises CellFault."""
    fix = f"send one JSON object, such as {_EXAMPLE}"
    try:
        found = DECODER.decode(body)
    except (json.JSONDecodeError, RecursionError):
        raise CellFault("the message is no JSON", fix) from None
    if not isinstance(found, dict):
        raise CellFault("the message is no JSON object", fix)
    return found


def stream_of(members: Members) -> str:
    """Return the stream that a message is for. Raises CellFault."""
    stream = members.get("stream")
    if isinstance(members, Doubled) and members.name == "stream":
        raise CellFault("'stream' stands twice", "keep one of the two")
    if not isinstance(stream, str) or not is_stream(stream):
        raise CellFault(
            "the message names no stream", "write it under stream: up to 256 letters, digits, points, dashes and _"
        )
    return stream


def record_of(members: Members, message_id: str, *, live: bool, nature: Nature | None) -> tuple[Counted, Nature]:
    """Return the record that a message is, and what it has in common with its stream.

    Args:
        members: of the message.
        message_id: SQS's own; a record without an id counts by that.
        live: whether the vendor's own contract is spoken.
        nature: of its stream; None where the record is the first.

    Raises:
        CellFault: it cannot be sent.
    """
    if isinstance(members, Doubled):
        raise CellFault(f"{members.name[:60]!a} stands twice", "keep one of the two")
    if not members.keys() <= MEMBERS:
        unknown = min(members.keys() - MEMBERS)
        fix = f"write what it is of under dimensions; a record has {', '.join(sorted(MEMBERS))} and nothing else"
        raise CellFault(f"{unknown[:60]!a} is no member of a record", fix)
    kind = _text(members, "kind").strip().lower()
    if kind not in KINDS:
        raise CellFault("kind is neither metric nor allocation", "write one of them")
    if nature is not None and kind != nature.kind:
        raise CellFault(f"the stream is one of {nature.kind} records, and keeps its kind", "use a stream of its own")
    dialect = Dialect(kind, live)
    granularity = granularity_of(_text(members, "granularity"))
    period, _ = period_of(_text(members, "timestamp"), granularity)
    value = value_of(_text(members, "value"), dialect)
    element = _text(members, ELEMENT)
    dimensions = _dimensions(members.get("dimensions"), dialect)
    shape = Shape(granularity, keys_of(dimensions, dialect, element=bool(element.strip())))
    if nature is not None and shape != nature.shape:
        raise differing(shape, nature.shape)
    labels = labels_of(shape.keys, dimensions, element, dialect)
    known = _known(members.get("id"), message_id)
    return Counted.of(known, Ident(period, labels), value), Nature(kind, shape)


def has_id(members: Members) -> bool:
    """Whether a record has an id of its own."""
    return members.get("id") is not None


def _text(members: Members, name: str) -> str:
    text = scalar_text(members.get(name))
    if text is None:
        raise CellFault(f"{name} is a list or an object", "write a text or a number")
    return text


def _known(own: object, message_id: str) -> str:
    """Return what a record is known by: its own id or, apart from all such, its message's."""
    if own is None:
        return f"message:{message_id}"
    if not isinstance(own, str) or not 0 < len(own) <= MAX_ID or HALF.search(own):
        raise CellFault(f"id is no text of 1 to {MAX_ID} characters", "write one that no other record of the day has")
    return f"id:{own}"


def _dimensions(found: object, dialect: Dialect) -> Mapping[str, str]:
    """Return dimensions by name, the values of each as one text."""
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise CellFault("dimensions is no object", 'write names and values, such as {"team": "search"}')
    if isinstance(found, Doubled):
        raise CellFault(f"the dimension {found.name[:60]!a} stands twice", "keep one of the two")
    return {name: _value(name, value, dialect) for name, value in found.items()}


def _value(name: str, value: object, dialect: Dialect) -> str:
    text = scalar_text(value)
    if text is not None:
        return text
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise CellFault(f"{name[:60]!a} is neither a text nor a list of texts", "write its value")
    if len(value) > 1 and not dialect.several:
        raise CellFault(f"{name[:60]!a} has several values, and CloudZero takes one", "write a record for each")
    if dialect.several and any("|" in each or not each.strip() for each in value):
        raise CellFault(f"{name[:60]!a} has an empty value, or one with a bar", "write values without bars")
    return "|".join(value)

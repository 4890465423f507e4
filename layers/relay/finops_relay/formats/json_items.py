"""JSON as records of text: an array of objects, a document that holds one, or an object a line (NDJSON).

Numbers stay the digits that stood in the file. What is nested (under ``metadata``, in line items) is laid beside the
rest. What the objects are, a :class:`Kind` says.
"""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from finops_relay.errors import InputRefused
from finops_relay.formats.cost_cells import TAG, CellFault
from finops_relay.formats.cost_records import Mending, RowBatch
from finops_relay.formats.csv_rows import Readable, RecordReader
from finops_relay.formats.rejected_rows import RejectedRow

JSON_BYTES = 10_000_000
"""Largest JSON document, in bytes: it is held in memory whole, as objects, which takes some ten times as much."""

MAX_NAMES = 500
"""Different names in one file; each is a column for all rows. CloudZero's limits on tags are far below."""

OWN_NAMES = ("timestamp", "cost", "service", "description")
"""The members of a line item beside ``metadata`` (openapi)."""

_BATCH_ITEMS = 2_000
_READ_BYTES = 256 * 1024
_BOM = b"\xef\xbb\xbf"
HALF = re.compile("[\ud800-\udfff]")
"""A lone surrogate: half of a character, or a byte that is not UTF-8."""
ESCAPED_HALF = re.compile("[\ud800-\udc7f\udd00-\udfff]")
"""Half of a character, which only an escape (``\\ud83d``) can put into a text; the others stand for stray bytes."""

_SPLIT = "drop it as NDJSON (one object a line) or as CSV, which may be of any size"


class Doubled(dict[str, Any]):
    """A JSON object that names one member twice: which of the two was meant, nobody can say."""

    def __init__(self, pairs: Sequence[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        counts = Counter(name for name, _ in pairs)
        self.name = next(name for name, count in counts.items() if count > 1)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else Doubled(pairs)


DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=str, parse_int=str, parse_constant=str)
"""Reads JSON with every number as the text that stood there."""


def scalar_text(value: object) -> str | None:
    """A JSON value as the text of a cell; None for a list or an object. Null is an empty cell."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else None


class Kind(Protocol):
    """What the objects of a file are, and how one is laid out as cells."""

    noun: str
    """What several of them are called."""
    example: str
    """One of them."""
    names: tuple[str, ...]
    """Columns that a file has in any case."""
    few: str
    """What to do when a file has more names than anybody means."""

    inside: str
    """The member of a document that is the list of them."""
    around: str
    """The member of a document that is a list of such documents; empty for none."""
    alone: frozenset[str]
    """An object with these members is one of them, also where a document was looked for."""
    nested: tuple[str, ...]
    """Members that are objects, whose members become cells."""

    def column(self, name: str, within: str) -> str:
        """The column of the member *name*, which stands in the nested member *within*, or in the object if empty."""

    def cell(self, column: str, value: object) -> tuple[str | None, CellFault | None]:
        """A *value* as the text of a cell, None where it cannot be one; and what is wrong with it otherwise."""


class LineItems:
    """Line items (openapi), whose tags are nested under ``metadata``."""

    noun = "line items"
    example = '{"timestamp": "2026-02-01T13:00:00Z", "cost": 1.25}'
    names: tuple[str, ...] = OWN_NAMES
    few = "metadata is for tags: a few names that many items share, and their values"
    inside = "line_items"
    around = "billing_drops"
    alone = frozenset({"timestamp", "cost"})
    nested: tuple[str, ...] = ("metadata",)

    def column(self, name: str, within: str) -> str:
        """The name; one in ``metadata`` that is named like a line item's own is told apart as a tag."""
        return TAG + name if within and name.strip().lower() in {*self.names, *self.nested} else name

    def cell(self, column: str, value: object) -> tuple[str | None, CellFault | None]:  # noqa: ARG002 -- all are alike
        """A scalar as its text."""
        return scalar_text(value), None


def open_json(name: str, stream: Readable, mending: Mending, kind: Kind) -> JsonItems:
    """Finds out which shape of JSON a file has, and opens it.

    Args:
        name: the file's name, for messages.
        stream: its decoded bytes, from the beginning; they begin with a bracket, white space left aside.
        mending: what was mended.
        kind: of its objects.

    Raises:
        InputRefused: it is a document that is too large, is no JSON, or does not hold such objects.
    """
    head = b""
    while b"\n" not in head.lstrip() and len(head) <= JSON_BYTES and (more := stream.read(_READ_BYTES)):
        head += more
    first = head.removeprefix(_BOM).lstrip().partition(b"\n")[0].strip()
    if first.startswith(b"{") and first.endswith(b"}") and not _is_document(first, kind):
        return NdjsonItems(name, RecordReader(name, Resumed(head, stream)), mending, kind)
    while len(head) <= JSON_BYTES and (more := stream.read(_READ_BYTES)):
        head += more
    if len(head) > JSON_BYTES:
        raise InputRefused(f"the JSON document is larger than {JSON_BYTES:,} bytes", file=name, fix=_SPLIT)
    return JsonItems(name, _items(name, head.removeprefix(_BOM), kind), mending, kind)


class Resumed:
    """A stream of which the first bytes were read already, from its beginning again."""

    def __init__(self, head: bytes, rest: Readable) -> None:
        self._head = head
        self._rest = rest

    def read(self, size: int, /) -> bytes:
        """At most *size* bytes, none only at the end."""
        if not self._head:
            return self._rest.read(size)
        data, self._head = self._head[:size], self._head[size:]
        return data


def _is_document(line: bytes, kind: Kind) -> bool:
    """Whether the first line of a file is an object that holds such objects, and none of them."""
    try:
        found = DECODER.decode(line.decode(errors="surrogateescape"))
    except (json.JSONDecodeError, RecursionError):
        return False
    return isinstance(found, dict) and bool({kind.inside, kind.around or kind.inside, "data"} & found.keys())


def _items(name: str, data: bytes, kind: Kind) -> list[Any]:
    """The elements of a JSON document."""
    fix = f'drop an array of objects, or {{"{kind.inside}": [...]}}'
    try:
        found = DECODER.decode(data.decode(errors="surrogateescape"))
    except json.JSONDecodeError as error:
        reason = f"the JSON cannot be read ({error.msg})"
        raise InputRefused(reason, file=name, line=error.lineno, fix="export it again, whole") from error
    except RecursionError:
        raise InputRefused("the JSON is nested too deeply", file=name, fix=fix) from None
    items = _listed(found, kind)
    if items is None:
        raise InputRefused(f"the JSON has no {kind.noun} where they are looked for", file=name, fix=fix)
    return items


def _listed(found: object, kind: Kind) -> list[Any] | None:
    """The objects of a document; None when it has another shape."""
    if isinstance(found, list):
        return found
    if not isinstance(found, dict) or isinstance(found, Doubled):
        return None
    if kind.inside in found:
        return found[kind.inside] if isinstance(found[kind.inside], list) else None
    if not kind.around or kind.around not in found:
        return [found] if kind.alone <= found.keys() else None
    around = found[kind.around]
    lists = [_listed(one, kind) if isinstance(one, dict) and kind.inside in one else None for one in around or ()]
    return [item for items in lists for item in items or ()] if isinstance(around, list) and None not in lists else None


class JsonItems:
    """The elements of a JSON document as records.

    Args:
        name: the file's name, for messages.
        items: the elements.
        mending: what was mended.
        kind: of the objects.
    """

    def __init__(self, name: str, items: Sequence[Any], mending: Mending, kind: Kind) -> None:
        self._name = name
        self._items = items
        self._mending = mending
        self._kind = kind
        self._lines: list[int] = []
        self._values: list[list[str]] = []
        self._places = {own: place for place, own in enumerate(kind.names)}
        self.columns: tuple[str, ...] = kind.names
        self.header_line = 1

    def batches(self) -> Iterator[RowBatch | RejectedRow]:
        """Every element.

        Raises:
            InputRefused: the file has too many names, or cannot be read.
        """
        for number, item in enumerate(self._items, 1):
            yield from self._take(number, item)
        yield from self._flush()

    def _take(self, line: int, item: object) -> Iterator[RowBatch | RejectedRow]:
        """Puts one more element behind the others; they go out when they are many or when it has another name."""
        cells, fault = _flat(item, self._kind)
        written = self._mending.take(line)
        if written is not None:
            cells, fault = {**cells, **{self._kind.column(name, ""): text for name, text in written.items()}}, None
        if not cells.keys() <= self._places.keys():
            yield from self._flush()
            self._add_names(cells, line)
        values = [cells.get(column, "") for column in self.columns]
        if fault is not None:
            yield from self._flush()
            shown = [] if cells else [_shown(item)]
            yield RejectedRow(line, self.columns, (*values, *shown), fault.error, fault.fix)
            return
        self._lines.append(line)
        self._values.append(values)
        if len(self._lines) >= _BATCH_ITEMS:
            yield from self._flush()

    def _flush(self) -> Iterator[RowBatch]:
        if self._lines:
            yield RowBatch(self.columns, self._lines, self._values, odd=True, blanks=False)
            self._lines, self._values = [], []

    def _add_names(self, cells: Mapping[str, str], line: int) -> None:
        for column in cells:
            self._places.setdefault(column, len(self._places))
        self.columns = tuple(self._places)
        if len(self.columns) > MAX_NAMES:
            reason = f"the {self._kind.noun} have more than {MAX_NAMES} different names"
            raise InputRefused(reason, file=self._name, line=line, fix=self._kind.few)


class NdjsonItems(JsonItems):
    """The lines of an NDJSON file as records.

    Args:
        name: the file's name, for messages.
        reader: cuts it into whole lines.
        mending: what was mended.
        kind: of the objects.
    """

    def __init__(self, name: str, reader: RecordReader, mending: Mending, kind: Kind) -> None:
        super().__init__(name, (), mending, kind)
        self._reader = reader

    def batches(self) -> Iterator[RowBatch | RejectedRow]:
        """Every line that is not blank."""
        for block in self._reader.blocks():
            for line, text in enumerate(io.StringIO(block.text, newline=None), block.first_line):
                if not text.isspace():
                    yield from self._take(line, _object_of(text))
        yield from self._flush()


class _Unreadable(str):
    """A line that is no JSON, as it stood."""

    __slots__ = ()


def _object_of(text: str) -> object:
    try:
        return DECODER.decode(text)
    except (json.JSONDecodeError, RecursionError):
        return _Unreadable(text.rstrip("\n"))


def _flat(item: object, kind: Kind) -> tuple[dict[str, str], CellFault | None]:
    """The members of an element as cells by column, and what is wrong with its shape."""
    if not isinstance(item, dict):
        what = "the line is no JSON" if isinstance(item, _Unreadable) else "the element is no JSON object"
        return {}, CellFault(what, f"write an object, such as {kind.example}")
    cells: dict[str, str] = {}
    faults: list[CellFault] = []
    nested = {name: item[name] for name in kind.nested if isinstance(item.get(name), dict)}
    for within, owner in {"": item, **nested}.items():
        if isinstance(owner, Doubled):
            faults.append(CellFault(f"{owner.name[:60]!r} stands twice", "keep one of the two"))
        for name, value in owner.items():
            if not within and name in kind.nested and (value is None or name in nested):
                continue
            column = kind.column(name, within)
            text, fault = kind.cell(column, value)
            if fault is not None:
                faults.append(fault)
            if text is None:
                faults.append(CellFault(f"{name[:60]!r} is a list or an object", "write a text or a number"))
            elif column in cells:
                faults.append(CellFault(f"{column[:60]!r} stands twice", "keep one of the two"))
            elif ESCAPED_HALF.search(column + text):
                faults.append(CellFault(f"{column[:60]!a} has half of a character", "write the whole character"))
                cells[escaped(column)] = escaped(text)
            else:
                cells[column] = text
    return cells, faults[0] if faults else None


def escaped(text: str) -> str:
    """*text* with each half of a character as the escape that it came from."""
    return ESCAPED_HALF.sub(lambda half: f"\\u{ord(half[0]):04x}", text)


def _shown(item: object) -> str:
    """An element without cells, as text for a person."""
    return escaped(item if isinstance(item, str) else json.dumps(item))[:1000]

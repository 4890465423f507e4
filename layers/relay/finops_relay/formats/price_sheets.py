"""Price sheets rewritten as Infracost's contract wants them, every value untouched.

How it is fast: nearly all rows of a real sheet are plain, complete and valid, and one regular expression, made for the
file's header, says so for a whole block at once while it picks the row apart for the new order of columns. Lines that
it does not accept are parsed and judged one by one, and so is a block in which records span lines. Which way a row took
never shows in the result.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING, BinaryIO

from finops_relay.errors import InputRefused
from finops_relay.formats.csv_rows import BLOCK_BYTES, Record, RecordReader, csv_line, is_blank, single_lines
from finops_relay.formats.price_columns import (
    AWS_HEADER,
    AZURE_HEADER,
    HEADER_RECORDS,
    Columns,
    Provider,
    find_columns,
)
from finops_relay.formats.rejected_rows import RejectedFile, RejectedRow, read_mended, rejected_csv_header

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from finops_relay.formats.archives import Budget
    from finops_relay.formats.csv_rows import Block

__all__ = [
    "AWS_HEADER",
    "AZURE_HEADER",
    "MemberCounts",
    "PriceBookReader",
    "Provider",
    "RejectedFile",
    "RejectedRow",
    "SheetRules",
    "read_mended",
    "rejected_csv_header",
]

DEFAULT_PRICE_TYPE = "Consumption"
"""What a row without a price type is: sheets had no such column before reservations were priced in them."""

_PRICE_TYPE_ALIASES = {"reservation": "reservedinstance"}
"""The same thing under two names in Azure's own documents, normalised."""


MAX_REASONS = 50
"""Filter reasons that are told apart in one file; an honest sheet has a handful."""
MAX_REASON = 100
"""Characters of each."""


@dataclass(frozen=True)
class SheetRules:
    """What a price book takes from the sheets."""

    provider: Provider

    price_types: frozenset[str] | None = frozenset({DEFAULT_PRICE_TYPE})
    """Azure price types to keep, compared without case, spaces, hyphens and underscores; None keeps all.

    The price of a ReservedInstance row is that of the whole commitment, on the same meter as the hourly one.
    """

    offers: frozenset[str] | None = None
    """Azure offers (OfferId) to keep, compared exactly; None keeps all."""


@dataclass(frozen=True)
class MemberCounts:
    """What became of the rows of one file; rows_in = written + filtered + rejected."""

    rows_in: int
    written: int
    filtered: int
    rejected: int
    filtered_by: Mapping[str, int]
    """Filtered rows by reason, such as ``price type ReservedInstance``."""
    variant: str
    """Which of the known exports the file is."""
    ignored_columns: tuple[str, ...]
    """The file's columns for which the contract has no place, as they stood."""
    warnings: tuple[str, ...]


class PriceBookReader:
    """Rewrites the files of one price book, one after another.

    Args:
        rules: which rows the book takes.
        budget: what the book has used of its ceilings; rows are counted in it.
        block_bytes: how much is read at once; it never shows in the result.
    """

    def __init__(self, rules: SheetRules, budget: Budget, *, block_bytes: int = BLOCK_BYTES) -> None:
        self.rules = rules
        self._budget = budget
        self._block_bytes = block_bytes
        self.currency: str | None = None
        """Currency code of the book's first row that was kept; all others must have it. None before, and for AWS."""

    def rewrite(
        self,
        member_name: str,
        stream: BinaryIO,
        write: Callable[[bytes], object],
        reject: Callable[[RejectedRow], None],
        mended: Mapping[int, Mapping[str, str]] | None = None,
    ) -> MemberCounts:
        """Reads one file and writes it under the contract's header, in constant memory.

        Args:
            member_name: the file's name, for messages.
            stream: its decoded bytes.
            write: takes the new file's bytes, piece by piece: UTF-8, LF, quotes only where needed.
            reject: takes each row that is not delivered.
            mended: values by column name that replace, before any check, those of the row that begins at this line.

        Returns:
            What became of the rows.

        Raises:
            InputRefused: the file is no price sheet of the provider, cannot be parsed, or passes a ceiling; or a mended
                row does not belong to it.
        """
        reader = RecordReader(member_name, stream, block_bytes=self._block_bytes)
        blocks = reader.blocks()
        records: list[Record] = []
        while len(records) < HEADER_RECORDS and (block := next(blocks, None)):
            records += reader.records(block)
        place, columns = find_columns(self.rules.provider, member_name, records)
        member = _MemberRewriter(self, member_name, columns, _Sinks(write, reject), dict(mended or {}))
        member.take_records(records[place + 1 :])
        for block in blocks:
            member.take_block(reader, block)
        return member.finish()

    def count_rows(self, member_name: str, count: int) -> None:
        """Counts rows against the book's ceiling."""
        self._budget.count_rows(member_name, count)


@dataclass(frozen=True)
class _Sinks:
    """Where a rewritten file's bytes and its rejected rows go."""

    write: Callable[[bytes], object]
    reject: Callable[[RejectedRow], None]


@dataclass
class _Tally:
    """Counts that grow while a file is read."""

    written: int = 0
    rejected: int = 0
    filtered_by: Counter[str] = field(default_factory=Counter)

    def filter(self, why: str, count: int) -> None:
        """Count filtered rows; beyond the first reasons they are counted together."""
        known = why in self.filtered_by or len(self.filtered_by) < MAX_REASONS
        self.filtered_by[why[:MAX_REASON] if known else "other price types or offers"] += count


class _MemberRewriter:
    """Rewrites one file: block by block where its rows are plain, record by record where they are not."""

    def __init__(
        self,
        book: PriceBookReader,
        name: str,
        columns: Columns,
        sinks: _Sinks,
        mended: dict[int, Mapping[str, str]],
    ) -> None:
        rules = book.rules
        self._name = name
        self._columns = columns
        self._sinks = sinks
        self._mended = mended
        self._book = book
        self._filter = _Filter(rules, columns)
        self._checks = _checks(rules.provider, columns)
        self._order = [columns.index.get(column, -1) for column in _header(rules.provider)]
        self._provider = rules.provider
        self._mended_lines = sorted(mended)
        self._pattern: _RowPattern | None = None
        self._seen_currency = "" if rules.provider is Provider.AWS else None
        self._tally = _Tally()
        sinks.write((csv_line(_header(rules.provider)) + "\n").encode())
        self._refuse_unknown_columns()

    def take_block(self, reader: RecordReader, block: Block) -> None:
        """Rewrites the rows of one block, the fast way if that is possible."""
        pattern = self._row_pattern()
        text = block.text.replace("\r\n", "\n") if "\r" in block.text else block.text
        if pattern is None or "\r" in text or self._has_mended(block):
            self.take_records(reader.records(block))
            return
        text = text if text.endswith("\n") else text + "\n"
        rows = pattern.rows(text) if block.decodable else None
        if rows is not None:
            self._emit(self._take_plain(pattern, rows))
        else:
            self._take_lines(pattern, reader, block, text.split("\n")[:-1])

    def take_records(self, records: Sequence[Record]) -> None:
        """Rewrites parsed records one by one."""
        self._emit([line for record in records if (line := self._take(record)) is not None])

    def finish(self) -> MemberCounts:
        """The counts, once all blocks were taken."""
        if self._mended:
            line = min(self._mended)
            fix = "keep the line column as it was, and drop the mended file for the sheet that it came from"
            raise InputRefused("a mended row is for a line on which no row begins", file=self._name, line=line, fix=fix)
        tally = self._tally
        filtered = tally.filtered_by.total()
        rows_in = tally.written + filtered + tally.rejected
        warnings = self._filter.warnings if rows_in else ["the file has a header and no rows"]
        return MemberCounts(
            rows_in=rows_in,
            written=tally.written,
            filtered=filtered,
            rejected=tally.rejected,
            filtered_by=dict(tally.filtered_by),
            variant=self._columns.variant,
            ignored_columns=self._columns.ignored,
            warnings=tuple(warnings),
        )

    def _emit(self, lines: list[str]) -> None:
        if lines:
            self._tally.written += len(lines)
            # No line has a separator of its own left: a row with a control character is rejected.
            self._sinks.write(("\n".join(lines) + "\n").replace(_HELD_COMMA, ",").encode())

    def _row_pattern(self) -> _RowPattern | None:
        """The expression for this file's rows, with the book's currency or, while no row was kept, the first seen."""
        currency = self._book.currency or self._seen_currency
        if currency is not None and (self._pattern is None or self._pattern.currency != currency):
            self._pattern = _RowPattern(self._provider, self._columns, self._filter, currency)
        return self._pattern

    def _has_mended(self, block: Block) -> bool:
        """Whether a mended row is for a line of this block."""
        at = bisect_left(self._mended_lines, block.first_line)
        return at < len(self._mended_lines) and self._mended_lines[at] < block.first_line + block.lines

    def _take_plain(self, pattern: _RowPattern, rows: list[tuple[str, ...]]) -> list[str]:
        """The output lines of rows that the expression accepted, after the filters."""
        self._book.count_rows(self._name, len(rows))
        if not self._filter.always_passes:
            keys = list(map(pattern.filter_key, rows))
            counts = Counter(keys)
            reasons = {key: self._filter.reason(*pattern.type_and_offer(key)) for key in counts}
            dropped = {key: why for key, why in reasons.items() if why is not None}
            for key, why in dropped.items():
                self._tally.filter(why, counts[key])
            if dropped:
                rows = [row for row, key in zip(rows, keys, strict=True) if key not in dropped]
        if rows and self._provider is Provider.AZURE:
            self._book.currency = pattern.currency
        return pattern.lines(rows)

    def _take_lines(self, pattern: _RowPattern, reader: RecordReader, block: Block, lines: list[str]) -> None:
        """Rewrites a block of which some lines are not plain, or all of it when a record spans lines."""
        matches = list(map(pattern.line.fullmatch, lines))
        odd = single_lines([line for line, match in zip(lines, matches, strict=True) if match is None])
        if odd is None or pattern.currency != (self._book.currency or ""):
            self.take_records(reader.records(block))
            return
        parsed = iter(odd)
        plain: list[tuple[str, ...]] = []
        taken: list[str] = []
        for number, match in enumerate(matches, block.first_line):
            if match is not None:
                plain.append(match.groups())
                continue
            taken += self._take_plain(pattern, plain)
            plain = []
            line = self._take(Record(number, next(parsed)))
            taken += [] if line is None else [line]
        self._emit(taken + self._take_plain(pattern, plain))

    def _take(self, record: Record) -> str | None:
        """The output line of one record; None when it is blank, filtered or rejected."""
        values = record.values
        if record.line in self._mended:
            values = self._mend(values, self._mended.pop(record.line))
        elif is_blank(values):
            return None
        self._book.count_rows(self._name, 1)
        refusal = self._unreadable(values)
        if refusal is None and self._seen_currency is None and _is_currency(code := self._currency_of(values)):
            self._seen_currency = code
        if refusal is None and (why := self._filter.reason_for(values)) is not None:
            self._tally.filter(why, 1)
            return None
        refusal = refusal or self._wrong(values)
        if refusal is not None:
            self._tally.rejected += 1
            self._sinks.reject(RejectedRow(record.line, self._columns.header, tuple(values), *refusal))
            return None
        if self._provider is Provider.AZURE and self._book.currency is None:
            self._book.currency = self._currency_of(values)
        return csv_line([values[place] if place >= 0 else "" for place in self._order])

    def _currency_of(self, values: Sequence[str]) -> str:
        return values[self._columns.index["CurrencyCode"]]

    def _unreadable(self, values: Sequence[str]) -> tuple[str, str] | None:
        """What is wrong with a row whatever the filters say of it."""
        width = len(self._columns.header)
        if len(values) != width:
            return (
                f"the row has {len(values)} values, the header has {width} names",
                "put quotes around a value that has commas, and keep all the columns",
            )
        for name, value in zip(self._columns.header, values, strict=True):
            if _UNDECODABLE.search(value):
                return f"{name} has bytes that are not UTF-8", "write the text again and save the file as CSV UTF-8"
        return None

    def _wrong(self, values: Sequence[str]) -> tuple[str, str] | None:
        """What is wrong with a row that the filters let through, and what to write instead."""
        for name, value in zip(self._columns.header, values, strict=True):
            if _CONTROL.search(value):
                return f"{name} has a control character", "delete it; only tabs and line breaks may stand in a value"
        for check in self._checks:
            if (refusal := check(values)) is not None:
                return refusal
        if self._provider is Provider.AZURE:
            return _currency_refusal(self._currency_of(values), self._book.currency)
        return None

    def _mend(self, values: list[str], replacement: Mapping[str, str]) -> list[str]:
        """The row with the values that a person wrote for it; a column left out of the mended file stays as it was."""
        header = self._columns.header
        former = values if len(values) == len(header) else [""] * len(header)
        return [replacement.get(name, old) if name else old for name, old in zip(header, former, strict=True)]

    def _refuse_unknown_columns(self) -> None:
        known = set(self._columns.header)
        for line, values in self._mended.items():
            unknown = [name for name, value in values.items() if value and name not in known]
            if unknown:
                reason = f"the mended row for line {line} has a value in a column that the sheet does not have"
                fix = "keep the column names of the rejected-rows file"
                raise InputRefused(reason, file=self._name, value=unknown[0], fix=fix)


def _header(provider: Provider) -> tuple[str, ...]:
    return AZURE_HEADER if provider is Provider.AZURE else AWS_HEADER


# --- filters ----------------------------------------------------------------------------------------------------------


class _Filter:
    """Which rows a book leaves out, and why."""

    def __init__(self, rules: SheetRules, columns: Columns) -> None:
        azure = rules.provider is Provider.AZURE
        types = rules.price_types if azure else None
        self._types = None if types is None else frozenset(map(_price_type, types))
        self._offers = rules.offers if azure else None
        self.type_at = columns.index.get("PriceType") if self._types is not None else None
        self.offer_at = columns.index.get("OfferId") if self._offers is not None else None
        self.warnings: list[str] = []
        self._reasons: dict[tuple[str, str], str | None] = {}
        if self._types is not None and self.type_at is None:
            self._warn(f"the sheet has no PriceType column: its rows are taken for {DEFAULT_PRICE_TYPE}")

    @property
    def always_passes(self) -> bool:
        """Whether no row can be left out."""
        return self._types is None and self._offers is None

    def reason_for(self, values: Sequence[str]) -> str | None:
        """Why a whole row is left out; None when it is kept."""
        if self.always_passes:
            return None
        price_type = "" if self.type_at is None else values[self.type_at]
        return self.reason(price_type, "" if self.offer_at is None else values[self.offer_at])

    def reason(self, price_type: str, offer: str) -> str | None:
        """Why rows of this price type and offer are left out; None when they are kept."""
        key = (price_type, offer)
        if key not in self._reasons:
            if len(self._reasons) >= MAX_REASONS:  # a column of a million values is none that filters are for
                self._reasons.clear()
            self._reasons[key] = self._judge(price_type, offer)
        return self._reasons[key]

    def _judge(self, price_type: str, offer: str) -> str | None:
        if self._types is not None:
            if self.type_at is not None and not price_type.strip():
                self._warn(f"rows without a price type are taken for {DEFAULT_PRICE_TYPE}")
            shown = price_type.strip() or DEFAULT_PRICE_TYPE
            if _price_type(shown) not in self._types:
                return f"price type {shown}"
        if self._offers is not None and offer not in self._offers:
            return f"offer {offer}" if offer else "no offer"
        return None

    def _warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)


def _price_type(text: str) -> str:
    """A price type as it is compared: ``Reserved Instance``, ``reserved-instance`` and ``Reservation`` are one."""
    bare = "".join(c for c in text.casefold() if c not in "-_" and not c.isspace())
    return _PRICE_TYPE_ALIASES.get(bare, bare)


# --- row checks -------------------------------------------------------------------------------------------------------

_UNDECODABLE = re.compile("[\udc80-\udcff]")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_PRICE = r"[0-9]++(?:\.[0-9]++)?"
_is_price = re.compile(_PRICE).fullmatch
_is_currency = re.compile("[A-Za-z]{3}").fullmatch

_PRICE_FAULTS: tuple[tuple[str, str, str], ...] = (
    (r"\s*", "is empty", "write the price, 0 if it is free"),
    (r"\s*[0-9]+(\.[0-9]+)?\s*", "has spaces around it", "delete the spaces"),
    (r"\s*[-+].*", "has a sign", "write the price without a sign; a book has no negative prices"),
    (
        r".*[0-9.][eE][-+]?[0-9]+\s*",
        "has an exponent",
        "write all its digits, as the export had them: 0.00001, not 1E-05",
    ),
    (r".*[$€£¥].*|.*[0-9]\s*[A-Za-z]{3}\s*|\s*[A-Za-z]{3}\s*[0-9].*", "has a currency", "write the number alone"),
    (r"[0-9\s]*,[0-9]+", "has a comma", "write a point before the decimals: 0.25, not 0,25"),
    (r".*,.*", "has a comma", "write the price without thousands separators and with a point: 1234.5"),
    (r"[0-9]+(\s[0-9]+)+(\.[0-9]+)?", "has spaces in it", "write the price without thousands separators"),
    (r"\.[0-9]+", "begins with a point", "write a 0 before the point"),
    (r"[0-9]+\.", "ends with a point", "delete the point or write the decimals"),
)
"""What spreadsheets and people make of a price: pattern, what is wrong, what to write. The first that fits is told."""


def _price_refusal(column: str, value: str) -> tuple[str, str]:
    """Why *value* is no plain decimal, and what to write."""
    for pattern, fault, fix in _PRICE_FAULTS:
        if re.fullmatch(pattern, value, re.DOTALL):
            return f"{column} {fault}", fix
    return f"{column} is not a plain decimal number", "write digits with a point before the decimals, such as 0.0125"


def _currency_refusal(value: str, currency: str | None) -> tuple[str, str] | None:
    """Why a row's currency does not fit the book; None when it does, or when it may become the book's."""
    if not _is_currency(value):
        return "CurrencyCode is not a three-letter code", "write the code of the sheet's currency, such as USD"
    if currency is not None and value != currency:
        fix = f"drop the rows in {value} as a book of their own; one book has one currency"
        return f"CurrencyCode is {value}, the book's is {currency}", fix
    return None


def _checks(provider: Provider, columns: Columns) -> list[Callable[[Sequence[str]], tuple[str, str] | None]]:
    """The checks of one row's values, in the order in which a person would mend them."""
    index = columns.index
    if provider is Provider.AWS:
        named = [index[column] for column in ("instancetype", "description") if column in index]
        return [
            _present(
                named,
                "instancetype and description are empty",
                "write the instance type, or the usage type as description",
            ),
            _price("hourlyprice", index["hourlyprice"], required=True),
        ]
    optional = [column for column in ("BasePrice", "MarketPrice") if column in index]
    return [
        _present([index["MeterId"]], "MeterId is empty", "write the meter's id, or delete the row"),
        _price("UnitPrice", index["UnitPrice"], required=True),
        *(_price(column, index[column], required=False) for column in optional),
    ]


def _present(places: Sequence[int], error: str, fix: str) -> Callable[[Sequence[str]], tuple[str, str] | None]:
    """A check that one of the values at *places* is there."""
    return lambda values: None if any(values[place].strip() for place in places) else (error, fix)


def _price(column: str, place: int, *, required: bool) -> Callable[[Sequence[str]], tuple[str, str] | None]:
    """A check that the value at *place* is a plain non-negative decimal, or empty where it need not be there."""

    def check(values: Sequence[str]) -> tuple[str, str] | None:
        value = values[place]
        fine = _is_price(value) or (not value and not required)
        return None if fine else _price_refusal(column, value)

    return check


# --- the fast way -----------------------------------------------------------------------------------------------------

_CONTROLS = bytes(range(0x20)) + b"\x7f"
_HELD_COMMA = "\x1f"
"""Stands for a comma inside quotes while a block is taken apart at its commas: ASCII's own separator of units."""

# What a line that goes out as it came in cannot hold: quotes (but those around a value with commas), control characters
# and bytes that are not UTF-8.
_UNFIT = '"\\x00-\\x1f\\x7f\udc80-\udcff'
_LINE_FIELDS = {
    "any": f'(?:"[^,{_UNFIT}]*+,[^{_UNFIT}]*+"|[^,{_UNFIT}]*+)',
    "bare": f"[^,{_UNFIT}]*+",
    "some": rf"[^\s,{_UNFIT}][^,{_UNFIT}]*+",
}
# The same for a block whose quotes were judged by _hold_commas and whose control characters are counted afterwards. A
# field but the first and the last may run over the end of its line here: then there are fewer matches than lines. That
# is what makes the expression fast: the next comma is searched for, and not each character looked up in a set. (The
# first may not: lines without commas would be searched to the block's end from each of their beginnings.)
_BLOCK_FIELDS = {"any": "[^,]*+", "bare": r'[^,"\n]*+', "some": r'[^\s,"][^,]*+'}
_BLOCK_EDGE_FIELDS = {"any": r"[^,\n]*+", "bare": r'[^,"\n]*+', "some": r'[^\s,"][^,\n]*+'}


class _RowPattern:
    """One expression that accepts exactly the rows of a file that are fit to be written as they are.

    Its groups are the stretches of columns that stand side by side in the file and in the contract alike (for an EA
    export that is the whole row), the columns that filters look at, and an empty one for columns that the file has not.
    """

    def __init__(self, provider: Provider, columns: Columns, filters: _Filter, currency: str) -> None:
        self.currency = currency
        self._width = len(columns.header)
        self._special = _special_fields(provider, columns.index, currency)
        asked = (filters.type_at, filters.offer_at)
        self._filtered = [place for place in asked if place is not None]
        stretches = _stretches([columns.index.get(column) for column in _header(provider)])
        self._opens = {stretch[0] for stretch in stretches if stretch}
        self._closes = {stretch[1] for stretch in stretches if stretch}
        groups, line = self._expression(_LINE_FIELDS, _LINE_FIELDS)
        self.line = re.compile(line)
        self._block = re.compile(f"(?m)^{self._expression(_BLOCK_FIELDS, _BLOCK_EDGE_FIELDS)[1]}$")
        missing = self._block.groups - 1
        self._pick = itemgetter(*(groups["stretch", stretch[0]] if stretch else missing for stretch in stretches))
        self._one = len(stretches) == 1
        # One column is looked at far more often than two, and a bare string is counted twice as fast as a tuple.
        self._offer_only = asked[0] is None
        self.filter_key: Callable[[tuple[str, ...]], str | tuple[str, str]] = itemgetter(
            *([groups["filter", place] for place in self._filtered] or [missing])
        )

    def rows(self, text: str) -> list[tuple[str, ...]] | None:
        """The groups of every line of *text*, or None when some line is not fit or is not a record of its own.

        Each match covers whole lines, so that as many matches as line ends are one for each line; and as many line ends
        as control characters are no other control characters.
        """
        held = _hold_commas(text)
        if held is None:
            return None
        data = text.encode()
        rows = self._block.findall(held)
        return rows if len(rows) == len(data) - len(data.translate(None, _CONTROLS)) else None

    def type_and_offer(self, key: str | tuple[str, str]) -> tuple[str, str]:
        """What :attr:`filter_key` gave for a row, as price type and offer; empty where no filter looks."""
        if isinstance(key, tuple):
            return key
        return ("", key) if self._offer_only else (key, "")

    def lines(self, rows: Sequence[tuple[str, ...]]) -> list[str]:
        """The output lines of accepted rows."""
        picked = map(self._pick, rows)
        return list(picked) if self._one else list(map(",".join, picked))

    def _expression(
        self, kinds: Mapping[str, str], edge_kinds: Mapping[str, str]
    ) -> tuple[dict[tuple[str, int], int], str]:
        """Which group holds what, and the expression for one line."""
        groups: dict[tuple[str, int], int] = {}
        count = 0
        parts: list[str] = []
        for place in range(self._width):
            field = self._special.get(place, "{bare}" if place in self._filtered else "{any}")
            for kind, marked in (("stretch", place in self._opens), ("filter", place in self._filtered)):
                if marked:
                    groups[kind, place] = count
                    count += 1
            count += field.count("(?P<")
            for kind, expression in (edge_kinds if place in {0, self._width - 1} else kinds).items():
                field = field.replace(f"{{{kind}}}", expression)
            field = f"({field})" if place in self._filtered else field
            parts.append("(" * (place in self._opens) + field + ")" * (place in self._closes))
        return groups, ",".join(parts) + "()"


def _hold_commas(text: str) -> str | None:
    """*text* with :data:`_HELD_COMMA` for each comma inside quotes and without quotes that are not needed.

    None when quotes stand anywhere but around a whole field, or when a quoted field has a quote or a line break in it.
    """
    parts = text.split('"')
    if len(parts) == 1:
        return text
    quoted = parts[1::2]
    inner = parts[2:-1:2]
    if len(parts) % 2 == 0 or parts[0][-1:] not in _BEFORE or parts[-1][0] not in _AFTER:
        return None
    if not all(part and part[0] in _AFTER and part[-1] in _BEFORE for part in inner) or "\n" in "".join(quoted):
        return None
    parts[1::2] = [f'"{part.replace(",", _HELD_COMMA)}"' if "," in part else part for part in quoted]
    return "".join(parts)


_BEFORE = ("", ",", "\n")
_AFTER = (",", "\n")


def _special_fields(provider: Provider, index: Mapping[str, int], currency: str) -> dict[int, str]:
    """What must stand in the columns that are checked, by place; ``{any}`` is any field, ``{some}`` one not blank."""
    if provider is Provider.AZURE:
        wanted = {
            "MeterId": "{some}",
            "UnitPrice": _PRICE,
            "BasePrice": f"(?:{_PRICE})?",
            "MarketPrice": f"(?:{_PRICE})?",
            "CurrencyCode": currency,
        }
        return {index[column]: field for column, field in wanted.items() if column in index}
    special = {index["hourlyprice"]: _PRICE}
    named = sorted(index[column] for column in ("instancetype", "description") if column in index)
    special[named[0]] = "{some}" if len(named) == 1 else "(?:(?P<named>{some})|)"
    if len(named) > 1:
        special[named[1]] = "(?(named){any}|{some})"
    return special


def _stretches(order: Sequence[int | None]) -> list[tuple[int, int] | None]:
    """The contract's columns as stretches (first and last place) of neighbours in the file; None for a missing column.

    Args:
        order: the place in the file of each of the contract's columns.
    """
    stretches: list[tuple[int, int] | None] = []
    for place in order:
        former = stretches[-1] if stretches else None
        if place is None:
            stretches.append(None)
        elif former is not None and former[1] + 1 == place:
            stretches[-1] = (former[0], place)
        else:
            stretches.append((place, place))
    return stretches

"""The headers of price sheets: what the contract wants, what people really send, and how one maps to the other."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from finops_relay.errors import InputRefused
from finops_relay.formats.csv_rows import csv_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from finops_relay.formats.csv_rows import Record

AZURE_HEADER: tuple[str, ...] = (
    "EnrollmentNumber",
    "MeterId",
    "MeterName",
    "MeterType",
    "MeterCategory",
    "MeterSubCategory",
    "ServiceFamily",
    "Product",
    "SkuID",
    "ProductID",
    "MeterRegion",
    "UnitOfMeasure",
    "PartNumber",
    "EffectiveStartDate",
    "EffectiveEndDate",
    "UnitPrice",
    "BasePrice",
    "MarketPrice",
    "CurrencyCode",
    "IncludedQuantity",
    "OfferId",
    "Term",
    "PriceType",
)
"""The 23 columns of Infracost's contract for Azure price books, in its order."""

AWS_HEADER: tuple[str, ...] = (
    "productcode",
    "instancetype",
    "databaseengine",
    "operatingsystem",
    "deploymentoption",
    "licensemodel",
    "hourlyprice",
    "vcpu",
    "memory",
    "region",
    "databaseedition",
    "description",
)
"""The 12 columns of Infracost's contract for AWS price books, in its order."""

HEADER_RECORDS = 20
"""Records in which a header is looked for; downloads of the old EA portal have a title and an empty line before it."""

_FEWEST_NAMES = 2
"""Names that a line must share with a contract to be taken for a header: a title line may happen to be one of them."""


class Provider(StrEnum):
    """Whose prices a book holds; also the name of the folder."""

    AWS = "aws"
    AZURE = "azure"


@dataclass(frozen=True)
class Columns:
    """How the columns of one file become the contract's."""

    header: tuple[str, ...]
    """The file's header as it stood."""

    index: Mapping[str, int]
    """Position in the file of each of the contract's columns that the file has."""

    variant: str
    """Which of the known exports this is, for the receipt."""

    @property
    def ignored(self) -> tuple[str, ...]:
        """The file's columns that the contract has no place for, as they stood."""
        used = set(self.index.values())
        return tuple(name for i, name in enumerate(self.header) if i not in used and name)


@dataclass(frozen=True)
class _Contract:
    """What a provider's files must and may have."""

    header: tuple[str, ...]
    required: tuple[str, ...]
    aliases: Mapping[str, str]
    """Other names, normalised, that stand for a column of the contract where its own name is missing."""


def normalised(name: str) -> str:
    """A column name without what exports and spreadsheets change: case, spaces, hyphens, underscores, a BOM."""
    return "".join(c for c in name.casefold() if c not in "-_\ufeff" and not c.isspace())


_CONTRACTS = {
    # A price without its unit says nothing, so the unit is as necessary as the price.
    Provider.AZURE: _Contract(
        AZURE_HEADER, ("MeterId", "UnitOfMeasure", "UnitPrice", "CurrencyCode"), {"currency": "CurrencyCode"}
    ),
    Provider.AWS: _Contract(AWS_HEADER, ("productcode", "hourlyprice", "region"), {}),
}
_OTHER = {Provider.AWS: Provider.AZURE, Provider.AZURE: Provider.AWS}


def find_columns(provider: Provider, name: str, records: Sequence[Record]) -> tuple[int, Columns]:
    """Finds the header among the first records of a file.

    Args:
        provider: whose sheet this ought to be.
        name: the file's name, for messages.
        records: the first records of the file.

    Returns:
        The header's place in *records*, and its columns.

    Raises:
        InputRefused: there is no header, it is another provider's, it lacks columns or has one twice, or it is not
            separated by commas.
    """
    first = records[:HEADER_RECORDS]
    own = [_known(provider, record.values) for record in first]
    other = [_known(_OTHER[provider], record.values) for record in first]
    if max(other, default=0) >= _FEWEST_NAMES and max(other) > max(own):
        raise _wrong_folder(provider, name, first[other.index(max(other))])
    if max(own, default=0) < _FEWEST_NAMES:
        raise _no_header(provider, name, first)
    # The first whole header counts, however full a later one is: rows between the two are rows, and are named as such.
    whole = [place for place, record in enumerate(first) if _is_whole(provider, record.values)]
    place = whole[0] if whole else own.index(max(own))
    return place, _columns(provider, name, first[place], titled=any(any(r.values) for r in first[:place]))


def _is_whole(provider: Provider, values: Sequence[str]) -> bool:
    """Whether a record names every column that the provider's sheets must have."""
    names = _names(provider)
    return {names.get(normalised(value)) for value in values} >= set(_CONTRACTS[provider].required)


def _names(provider: Provider) -> dict[str, str]:
    """The contract's columns and their aliases by normalised name."""
    contract = _CONTRACTS[provider]
    return {normalised(column): column for column in contract.header} | dict(contract.aliases)


def _known(provider: Provider, values: Sequence[str]) -> int:
    """How many of *values* are names of the provider's columns."""
    names = _names(provider)
    return sum(normalised(value) in names for value in values)


def _columns(provider: Provider, name: str, record: Record, *, titled: bool) -> Columns:
    """The columns of the header *record*, complete and each once."""
    header = tuple(value.strip("\ufeff") for value in record.values)
    names = _names(provider)
    index: dict[str, int] = {}
    for place, text in enumerate(header):
        column = names.get(normalised(text))
        if column is None or (
            normalised(text) in _CONTRACTS[provider].aliases and normalised(column) in _normal(header)
        ):
            continue
        if column in index:
            raise _twice(name, record.line, header[index[column]], text)
        index[column] = place
    _refuse_same_names(name, record.line, header)
    _refuse_missing(provider, name, record, index)
    return Columns(header, index, _variant(provider, header, index, titled=titled))


def _normal(header: Sequence[str]) -> set[str]:
    return {normalised(name) for name in header}


def _refuse_same_names(name: str, line: int, header: Sequence[str]) -> None:
    """A mended row is put back by column names, so they must differ; a spreadsheet's trailing commas are nameless."""
    seen: set[str] = set()
    for column in header:
        if column in seen and column:
            raise _twice(name, line, column, column)
        seen.add(column)


def _twice(name: str, line: int, first: str, second: str) -> InputRefused:
    reason = f"the header has two columns for one thing: {first!r} and {second!r}"
    return InputRefused(reason, file=name, line=line, fix="delete one of the two columns")


def _refuse_missing(provider: Provider, name: str, record: Record, index: Mapping[str, int]) -> None:
    missing = [column for column in _CONTRACTS[provider].required if column not in index]
    if provider is Provider.AWS and not {"instancetype", "description"} & index.keys():
        missing.append("instancetype or description")
    if missing:
        reason = f"the header has no column for {', '.join(missing)}"
        fix = "export the price sheet again with all its columns, under their English names"
        raise InputRefused(reason, file=name, line=record.line, value=csv_line(record.values), fix=fix)


def _wrong_folder(provider: Provider, name: str, record: Record) -> InputRefused:
    right = _OTHER[provider]
    reason = f"this is a price sheet of {_TITLES[right]} in the folder of {_TITLES[provider]}"
    fix = f"drop it under incoming/price-books/{right}/"
    return InputRefused(reason, file=name, line=record.line, fix=fix)


_TITLES = {Provider.AWS: "AWS", Provider.AZURE: "Azure"}
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


def _no_header(provider: Provider, name: str, records: Sequence[Record]) -> InputRefused:
    """The refusal of a file without a header that we know, as helpful as its first lines allow."""
    for record in records:
        text = ",".join(record.values)
        for separator, title in _SEPARATORS.items():
            if _known(provider, text.replace('"', "").split(separator)) >= _FEWEST_NAMES:
                reason = f"the columns are separated by {title}, not by commas"
                fix = (
                    "save it with commas between the columns and points in the prices, or drop the export as downloaded"
                )
                return InputRefused(reason, file=name, line=record.line, value=text, fix=fix)
    widest = max(records, key=lambda record: len(record.values), default=None)
    found = csv_line(widest.values) if widest else ""
    reason = f"no header of an {_TITLES[provider]} price sheet in the first {HEADER_RECORDS} lines"
    fix = f"drop the export as downloaded, with its header in English ({', '.join(_CONTRACTS[provider].required)}, …)"
    return InputRefused(reason, file=name, line=widest.line if widest else None, value=found, fix=fix)


def _variant(provider: Provider, header: Sequence[str], index: Mapping[str, int], *, titled: bool) -> str:
    """Which of the known exports a header is; a name for the receipt, nothing depends on it."""
    if provider is Provider.AWS:
        return "AWS" if tuple(header) == AWS_HEADER else "AWS, other column order or names"
    if tuple(header) == AZURE_HEADER:
        return "Azure as in Infracost's contract"
    if {"billingprofileid", "tierminimumunits"} & _normal(header):
        return "Azure MCA download" if "unitPrice" in header else "Azure MCA export"
    if titled or any(" " in column.strip() for column in header):
        return "Azure EA legacy"
    if "EnrollmentNumber" in index:
        return "Azure EA export"
    return "Azure EA as documented in 2025"

"""Whether an uploaded price file is one that Infracost could ingest."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_PLAIN_DECIMAL = re.compile(r"[0-9]+(\.[0-9]+)?")
"""Open in the contract; exponents, decimal commas, signs and currency marks are what goes wrong in the wild."""


@dataclass(frozen=True)
class Format:
    """The file format of a provider."""

    columns: tuple[str, ...]
    price: str
    """The column whose price must be there."""
    more_prices: tuple[str, ...] = ()
    """Columns that hold a price or nothing."""

    @property
    def header(self) -> bytes:
        """The file's first line: exactly these bytes."""
        return (",".join(self.columns) + "\n").encode()


FORMATS = {
    # Source of the columns: the contract's section "Price Books".
    "AWS": Format(
        columns=(
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
        ),
        price="hourlyprice",
    ),
    "AZURE": Format(
        columns=(
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
        ),
        price="UnitPrice",
        more_prices=("BasePrice", "MarketPrice"),
    ),
}


def problem(path: Path, layout: Format) -> str:
    """Say what keeps a file from being ingested; nothing when it is good.

    Args:
        path: The file.
        layout: The format that it must have.
    """
    try:
        with path.open(encoding="utf-8", newline="") as text:
            header = layout.header.decode()
            if text.readline(len(header) + 1) != header:
                return "The first line is not the expected header."
            return _rows_problem(csv.reader(text, strict=True), layout)
    except UnicodeDecodeError:
        return "The file is not UTF-8."
    except csv.Error as error:
        return f"The file is not valid CSV: {error}."
    except FileNotFoundError:
        return "The file was replaced while it was read."


def _rows_problem(rows: Iterable[list[str]], layout: Format) -> str:
    width = len(layout.columns)
    price = layout.columns.index(layout.price)
    more = [layout.columns.index(name) for name in layout.more_prices]
    plain = _PLAIN_DECIMAL.fullmatch
    number = 0
    for number, row in enumerate(rows, 1):
        if len(row) != width:
            return f"Row {number} has {len(row)} columns instead of {width}."
        if not plain(row[price]):
            return f"Row {number}: {layout.price} is not a decimal number."
        for column in more:
            if row[column] and not plain(row[column]):
                return f"Row {number}: {layout.columns[column]} is not a decimal number."
    return "" if number else "The file has no rows."

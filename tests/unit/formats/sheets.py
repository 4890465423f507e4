"""Price sheets as they are met in the wild, small: one header for each variant, and rows to go with it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence


def _names(header: str) -> list[str]:
    return header.split(",")


METER = "000a794b-bdb0-58be-a0cd-0c3a0f222923"

EA_EXPORT = _names(
    "EnrollmentNumber,MeterID,MeterName,MeterType,MeterCategory,MeterSubCategory,ServiceFamily,Product,SkuID,ProductID,"
    "MeterRegion,UnitOfMeasure,PartNumber,EffectiveStartDate,EffectiveEndDate,UnitPrice,BasePrice,MarketPrice,"
    "CurrencyCode,IncludedQuantity,OfferID,Term,PriceType"
)
"""EA, Cost Management export, version 2023-05-01."""

EA_2025 = _names(
    "BasePrice,CurrencyCode,EffectiveEndDate,EffectiveStartDate,IncludedQuantity,MarketPrice,MeterId,MeterCategory,"
    "MeterName,MeterSubCategory,MeterRegion,MeterType,PartNumber,priceType,Product,ProductID,ServiceFamily,SkuID,Term,"
    "UnitOfMeasure,UnitPrice"
)
"""EA as documented in 2025: 21 columns, nearly alphabetical."""

MCA_EXPORT = _names(
    "BillingAccountId,BillingAccountName,BillingProfileId,BillingProfileName,ServiceFamily,Product,ProductId,SkuId,"
    "UnitOfMeasure,MeterId,MeterName,MeterType,MeterCategory,MeterSubCategory,MeterRegion,TierMinimumUnits,"
    "EffectiveStartDate,EffectiveEndDate,UnitPrice,BasePrice,MarketPrice,Currency,BillingCurrency,Term,PriceType"
)
"""MCA, Cost Management export, version 2023-05-01."""

MCA_DOWNLOAD = _names(
    "basePrice,billingAccountId,billingAccountName,billingCurrency,billingProfileId,billingProfileName,currency,discount,"
    "effectiveEndDate,effectiveStartDate,includedQuantity,marketPrice,meterId,meterCategory,meterName,meterSubCategory,"
    "meterType,meterRegion,priceType,Product,productId,serviceFamily,SkuID,Term,tierMinimumUnits,unitOfMeasure,unitPrice"
)
"""MCA download from the portal."""

EA_LEGACY = _names(
    "Meter ID,Meter name,Meter type,Meter category,Meter sub-category,Meter region,Unit of measure,Part number,"
    "Unit price,Currency code,Included quantity,Offer Id,Term,Price type"
)
"""The old EA portal: 14 spaced names, under a title line and an empty one."""

AZURE = {
    "EnrollmentNumber": "100",
    "MeterId": METER,
    "MeterName": "D2 v3",
    "MeterType": "Compute",
    "MeterCategory": "Virtual Machines",
    "MeterSubCategory": "Dv3/DSv3 Series",
    "ServiceFamily": "Compute",
    "Product": "Virtual Machines, Dv3/DSv3 Series, D2 v3, US East",
    "SkuID": "DZH318Z0BQ4B",
    "ProductID": "DZH318Z0BQ4B/00G1",
    "MeterRegion": "US East",
    "UnitOfMeasure": "10 Hours ",
    "PartNumber": "AAA-12345",
    "EffectiveStartDate": "2025-06-01T00:00:00.0000000Z",
    "EffectiveEndDate": "2025-06-30T00:00:00.0000000Z",
    "UnitPrice": "0.812340000000001",
    "BasePrice": "0.9",
    "MarketPrice": "0.96",
    "CurrencyCode": "USD",
    "IncludedQuantity": "0.000000000000000",
    "OfferId": "MS-AZR-0017P",
    "Term": "",
    "PriceType": "Consumption",
}
"""One good row under the contract's names and in its order."""

AWS = {
    "productcode": "AmazonEC2",
    "instancetype": "m5.large",
    "databaseengine": "",
    "operatingsystem": "Linux",
    "deploymentoption": "",
    "licensemodel": "",
    "hourlyprice": "0.0961234567890123",
    "vcpu": "2",
    "memory": "8 GiB",
    "region": "us-east-1",
    "databaseedition": "",
    "description": "",
}
"""One good row under the contract's names and in its order."""

AZURE_NAMES = list(AZURE)
AWS_NAMES = list(AWS)


def bare(name: str) -> str:
    """A column name without case, spaces, hyphens and underscores."""
    return name.replace(" ", "").replace("-", "").replace("_", "").lower()


def row(names: Sequence[str], values: Mapping[str, str] = AZURE, **changes: str) -> list[str]:
    """The values of one row under *names*, however they are written; what the row lacks is ``other``."""
    known = {bare(name): value for name, value in {**values, **changes}.items()}
    known |= {"currency": known.get("currencycode", "")}
    return [known.get(bare(name), "other") for name in names]


def azure(**changes: str) -> list[str]:
    """A good Azure row in the contract's order, with some values changed."""
    return row(AZURE_NAMES, AZURE, **changes)


def aws(**changes: str) -> list[str]:
    """A good AWS row in the contract's order, with some values changed."""
    return row(AWS_NAMES, AWS, **changes)


def sheet(header: Iterable[str], *rows: Iterable[str], end: str = "\n", before: str = "") -> bytes:
    """A CSV file of these rows; lone surrogates in them become the bytes that they stand for."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=end).writerows([list(header), *map(list, rows)])
    return (before + text.getvalue()).encode(errors="surrogateescape")

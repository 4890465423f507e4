"""Price sheets of any size, for the benchmarks, the demo and the tests: the same bytes for the same seed.

The rows look like those of a real agreement: about one product name in three has commas and so is quoted, prices carry
up to 15 decimals, and reservation and savings plan rows stand among the pay-as-you-go ones. Meter ids and prices are
random, so that gzip shrinks a sheet six times and not to nothing.
"""

from __future__ import annotations

import random
from typing import BinaryIO

EA_HEADER = (
    "EnrollmentNumber,MeterID,MeterName,MeterType,MeterCategory,MeterSubCategory,ServiceFamily,Product,SkuID,ProductID,"
    "MeterRegion,UnitOfMeasure,PartNumber,EffectiveStartDate,EffectiveEndDate,UnitPrice,BasePrice,MarketPrice,CurrencyCode,"
    "IncludedQuantity,OfferID,Term,PriceType"
)
"""The 23 names of an EA export of Cost Management, version 2023-05-01."""

AWS_HEADER = (
    "productcode,region,instancetype,operatingsystem,databaseengine,databaseedition,deploymentoption,licensemodel,vcpu,"
    "memory,description,hourlyprice"
)
"""The 12 names in the order of Infracost's own sample, which is not the order of its contract."""

_BLOCK_ROWS = 2_000
"""Rows written at once: about half a megabyte."""

_METERS = (
    ("Virtual Machines", "Dv3/DSv3 Series", "Compute", "D2 v3/D2s v3", "1 Hour"),
    ("Virtual Machines", "Ev5/ESv5 Series", "Compute", "E8 v5/E8s v5 Spot", "10 Hours"),
    ("Storage", "Tiered Block Blob", "Storage", "Hot LRS Data Stored", "1 GB/Month"),
    ("Storage", "Premium SSD Managed Disks", "Storage", "P30 LRS Disk", "1 /Month"),
    ("SQL Database", "Single/Elastic Pool General Purpose - Compute Gen5", "Databases", "vCore", "1 Hour"),
    ("Bandwidth", "Inter-Region", "Networking", "Inter Continent Data Transfer Out", "1 GB"),
    ("Azure Kubernetes Service", "", "Containers", "Standard Uptime SLA", "1 Hour"),
    ("Azure Cosmos DB", "", "Databases", "100 RU/s", "100 RU/s/Hour"),
    ("Event Hubs", "", "Internet of Things", "Basic Throughput Unit", "10K "),
    ("Azure NetApp Files", "", "Storage", "Ultra Capacity", "1 PiB/Hour"),
)
_REGIONS = ("US East", "US West 2", "EU West", "EU North", "AP Southeast", "UK South", "BR South", "")
_PRICE_TYPES = (("", "Consumption"),) * 17 + (
    ("P1Y", "ReservedInstance"),
    ("P3Y", "ReservedInstance"),
    ("P1Y", "SavingsPlan"),
)
_ENROLLMENTS = ("10012345", "10012346", "10012347")
_DECIMALS = (15, 15, 15, 15, 10, 6, 4, 2)


def write_ea_sheet(  # noqa: PLR0913 -- each of the switches is one thing that real files differ in
    stream: BinaryIO, target_bytes: int, seed: int = 1, *, bom: bool = False, crlf: bool = False, currency: str = "USD"
) -> int:
    """Writes an EA price sheet of at least *target_bytes* and at most some kilobytes more.

    Args:
        stream: where the bytes go.
        target_bytes: size of the sheet in bytes, before any compression.
        seed: the same seed gives the same bytes.
        bom: begin with a UTF-8 byte order mark, as spreadsheets and some exports do.
        crlf: end lines with CRLF instead of LF.
        currency: the currency code of every row.

    Returns:
        The number of rows, without the header.
    """
    draw = random.Random(seed)  # noqa: S311 -- reproducible data, not a secret
    end = "\r\n" if crlf else "\n"
    written = stream.write(("\ufeff" if bom else "").encode() + (EA_HEADER + end).encode())
    rows = 0
    while written < target_bytes:
        average = written / rows if rows else 400
        count = min(_BLOCK_ROWS, int((target_bytes - written) / average) + 1)
        written += stream.write(end.join([_ea_row(draw, currency) for _ in range(count)] + [""]).encode())
        rows += count
    return rows


def write_aws_sheet(stream: BinaryIO, target_bytes: int, seed: int = 1, *, crlf: bool = True) -> int:
    """Writes a sheet in the shape of Infracost's AWS sample, at least *target_bytes* long.

    Args:
        stream: where the bytes go.
        target_bytes: size of the sheet in bytes, before any compression.
        seed: the same seed gives the same bytes.
        crlf: end lines with CRLF, as the sample does, instead of LF.

    Returns:
        The number of rows, without the header.
    """
    draw = random.Random(seed)  # noqa: S311 -- reproducible data, not a secret
    end = "\r\n" if crlf else "\n"
    written = stream.write((AWS_HEADER + end).encode())
    rows = 0
    while written < target_bytes:
        count = min(_BLOCK_ROWS, (target_bytes - written) // 60 + 1)
        written += stream.write(end.join([_aws_row(draw) for _ in range(count)] + [""]).encode())
        rows += count
    return rows


def _ea_row(draw: random.Random, currency: str) -> str:
    """One row of an EA sheet, without its line end."""
    noise = draw.randbytes(16).hex()
    meter_id = f"{noise[:8]}-{noise[8:12]}-{noise[12:16]}-{noise[16:20]}-{noise[20:]}"
    number = int(noise, 16)
    category, subcategory, family, name, unit = _METERS[number % len(_METERS)]
    region = _REGIONS[number >> 8 & 7]
    term, price_type = _PRICE_TYPES[(number >> 16) % len(_PRICE_TYPES)]
    if (number >> 24) % 3:
        product = f"{category} {subcategory} - {name} - {region}"
    else:
        product = f'"{category}, {subcategory}, {name}, {region}"'
    price = f"{(number >> 32) % 40}.{(number >> 40) % 10**15:015d}"
    price = price[: len(price) - 15 + _DECIMALS[number >> 28 & 7]]
    sku = noise[:12].upper()
    part = f"{noise[3:6].upper()}-{(number >> 50) % 100_000:05d}"
    included = (number >> 60) % 5
    return (
        f"{_ENROLLMENTS[number % 3]},{meter_id},{name},{category},{category},{subcategory},{family},{product},"
        f"DZH318Z0{sku},DZH318Z0{sku[:4]}/00{sku[:2]},{region},{unit},{part},2025-06-01T00:00:00.0000000Z,"
        f"2025-06-30T00:00:00.0000000Z,"
        f"{price},{price},{price}1,{currency},{included}.000000000000000,MS-AZR-0017P,{term},{price_type}"
    )


def _aws_row(draw: random.Random) -> str:
    """One row of an AWS sheet, without its line end."""
    number = draw.getrandbits(64)
    region = ("us-east-1", "eu-central-1", "ap-south-1", "sa-east-1")[number & 3]
    price = f"{(number >> 8) % 30}.{(number >> 16) % 10**10:010d}"
    if number >> 4 & 7 == 0:
        return f"AWSLambda,{region},,,,,,,,,USE1-Lambda-GB-Second-{number >> 40},{price}"
    size = ("large", "xlarge", "4xlarge")[(number >> 6) % 3]
    return f"AmazonEC2,{region},m{number >> 40}.{size},Linux,,,,,16,64 GiB,,{price}"

"""Price sheets for tests: small, of any number of rows, with as many bad and left-out rows as a test wants."""

from __future__ import annotations

import io
import zipfile

from finops_relay.formats.price_columns import AWS_HEADER, AZURE_HEADER


def aws_sheet(rows: int = 1, price: str = "0.1", bad: int = 0) -> bytes:
    """An AWS sheet of *rows* good rows at *price*, then *bad* ones without a price."""
    lines = [",".join(AWS_HEADER)]
    lines += [f"AmazonEC2,m{number}.large,,Linux,,,{price},2,4,us-east-1,," for number in range(rows)]
    lines += [f"AmazonEC2,bad{number}.large,,Linux,,,,2,4,us-east-1,," for number in range(bad)]
    return ("\n".join(lines) + "\n").encode()


def azure_row(meter: str, price: str = "0.5", price_type: str = "Consumption") -> str:
    """One line of an Azure sheet."""
    values = dict.fromkeys(AZURE_HEADER, "")
    values |= {"EnrollmentNumber": "100", "MeterId": meter, "MeterName": "P10 Disks", "UnitOfMeasure": "10 Hours"}
    values |= {"UnitPrice": price, "CurrencyCode": "EUR", "OfferId": "MS-AZR-0017P", "PriceType": price_type}
    return ",".join(values.values())


def azure_sheet(rows: int = 1, price: str = "0.5", *, bad: int = 0, reserved: int = 0, name: str = "m") -> bytes:
    """An Azure sheet: *rows* good ones, *bad* ones with a signed price, *reserved* ones that the default leaves out."""
    lines = [",".join(AZURE_HEADER)]
    lines += [azure_row(f"{name}-{number}", price) for number in range(rows)]
    lines += [azure_row(f"{name}-bad-{number}", "-1") for number in range(bad)]
    lines += [azure_row(f"{name}-reserved-{number}", "900", "ReservedInstance") for number in range(reserved)]
    return ("\n".join(lines) + "\n").encode()


def zipped(**members: bytes) -> bytes:
    """A zip of CSV files, by their names without ``.csv``."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.csv", content)
    return buffer.getvalue()

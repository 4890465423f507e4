"""The rows of a body that was made ahead, read again: hours, money and the very bytes."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal

import pytest
from finops_relay.cloudzero.client import CloudZero
from finops_relay.cloudzero.connect import CLIENTS
from finops_relay.cloudzero.records import COST_COLUMNS, ContractName, DropOperation
from finops_relay.errors import InputRefused
from hypothesis import given
from hypothesis import strategies as st

MARCH = date(2026, 3, 1)
HOUR = 492_317
"""2026-03-01T05:00Z in hours since the epoch."""
BOTH = pytest.mark.parametrize("client", list(CLIENTS.values()))
CELLS = {"time/usage_start": "2026-03-01T05:00:00Z", "cost/cost": "1.5", "resource/service": "EC2"}


def operation(client: type[CloudZero]) -> DropOperation:
    """Return what a body of either contract can do."""
    return DropOperation.REPLACE_HOURLY if client.name is ContractName.LIVE else DropOperation.SUM


def body(client: type[CloudZero], *rows: bytes) -> bytes:
    """Return a body of rows."""
    head, tail = client.drop_envelope(operation(client), MARCH)
    return head + b",".join(rows) + tail


@BOTH
def test_rows_come_back_as_the_bytes_that_they_are(client: type[CloudZero]) -> None:
    rows = [
        client.drop_row({**CELLS, "lineitem/description": 'a, "b" and \\ ü\u2028 {[('}),
        client.drop_row({**CELLS, "time/usage_start": "2026-03-31T23:00:00Z", "cost/cost": "-0.10"}),
    ]
    found = client.sent_rows(body(client, *rows))
    assert [row.raw for row in found] == rows
    assert [row.hour for row in found] == [HOUR, HOUR + 30 * 24 + 18]
    assert [row.costs[0] for row in found] == [Decimal("1.5"), Decimal("-0.10")]
    assert body(client, *(row.raw for row in found)) == body(client, *rows)


@BOTH
def test_each_column_of_money_stands_at_its_place_and_a_missing_one_is_none(client: type[CloudZero]) -> None:
    for place, column in enumerate(COST_COLUMNS):
        cells = {**CELLS, column: "0.000000000000000000000000000001"}
        (row,) = client.sent_rows(body(client, client.drop_row(cells)))
        expected: list[Decimal | None] = [Decimal("1.5"), None, None, None, None]
        expected[place] = Decimal("1E-30")
        assert list(row.costs) == expected


@BOTH
def test_a_zero_is_a_zero_and_a_tag_of_any_name_is_no_money(client: type[CloudZero]) -> None:
    tags = {"resource/id": "i/1", "resource/tag:cost": "7", "resource/tag:amortized_cost": "8"}
    (row,) = client.sent_rows(body(client, client.drop_row({**CELLS, "cost/cost": "0", **tags})))
    assert row.costs == (Decimal(0), None, None, None, None)


@BOTH
def test_a_body_without_rows_has_none(client: type[CloudZero]) -> None:
    assert client.sent_rows(body(client)) == ()


@BOTH
@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b'{"data":[',
        b"[" * 100_000,
        b'{"records":[]}',
        b'{"billing_drops":[{"line_items":[{}]}]}',
        b'{"month":"2026-03-01T00:00:00Z","operation":"sum","data":[{}]}',
        b'{"month":"2026-03-01T00:00:00Z","operation":"erase","data":[]}',
    ],
)
def test_what_is_no_drop_of_the_contract_is_refused(client: type[CloudZero], wrong: bytes) -> None:
    with pytest.raises(InputRefused, match="no billing drop of this contract"):
        client.sent_rows(wrong)


def test_a_body_of_the_other_contract_is_refused() -> None:
    live, openapi = CLIENTS[ContractName.LIVE], CLIENTS[ContractName.OPENAPI]
    for one, other in ((live, openapi), (openapi, live)):
        with pytest.raises(InputRefused):
            one.sent_rows(body(other, other.drop_row(CELLS)))


@BOTH
@given(
    amounts=st.lists(st.decimals(-(10**25), 10**25, places=12), min_size=1, max_size=5),
    text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30),
)
def test_money_is_read_to_the_last_digit_whatever_stands_beside_it(
    client: type[CloudZero], amounts: list[Decimal], text: str
) -> None:
    cells = {
        **CELLS,
        "resource/service": text,
        **{name: f"{amount:f}" for name, amount in zip(COST_COLUMNS, amounts, strict=False)},
    }
    raw = client.drop_row(cells)
    assert b"\n" not in raw
    (row,) = client.sent_rows(body(client, raw))
    assert list(row.costs[: len(amounts)]) == amounts
    assert json.loads(row.raw)

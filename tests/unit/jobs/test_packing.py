"""Files of costs become bodies: every row once, every sum exact, and what cannot be sent is named."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from finops_relay.cloudzero.client import CloudZero
from finops_relay.cloudzero.connect import CLIENTS
from finops_relay.cloudzero.records import ContractName
from finops_relay.delivery.packer import Body, Duplicates
from finops_relay.formats.cost_files import CostFileReader
from finops_relay.formats.cost_rows import COSTS, CostBatch
from finops_relay.formats.rejected_rows import RejectedRow
from finops_relay.jobs.billing.packing import HourTotals, Packing
from hypothesis import given, settings
from hypothesis import strategies as st

MONTH = date(2026, 2, 1)
FIRST = 491_640
"""2026-02-01T00:00:00Z in hours since the epoch."""
LIVE, OPENAPI = CLIENTS[ContractName.LIVE], CLIENTS[ContractName.OPENAPI]
HEADER = ("time/usage_start", *COSTS, "resource/service", "resource/id", "resource/tag:team")

Row = Mapping[str, str]


@dataclass
class Packed:
    """What became of some files."""

    bodies: list[Body]
    texts: list[bytes]
    rejected: list[RejectedRow]
    refused: dict[int, dict[int, tuple[str, str]]]
    rows: int
    totals: Mapping[str, Decimal]
    hours: Mapping[int, HourTotals]
    duplicates: Duplicates

    @property
    def sent(self) -> list[Row]:
        """The rows of all bodies, in their order (`live`)."""
        return [row for text in self.texts for row in json.loads(text)["data"]]


def file(rows: Sequence[Row], header: Sequence[str] = HEADER) -> bytes:
    """A CBF file."""
    text = io.StringIO(newline="")
    text.write(",".join(header) + "\n")
    for row in rows:
        text.write(",".join('"' + row.get(name, "").replace('"', '""') + '"' for name in header) + "\n")
    return text.getvalue().encode()


def row(hour: int = 0, cost: str = "1.25", **others: str) -> Row:
    """A good row; a name has ``__`` for its slash."""
    start = f"2026-02-{hour // 24 + 1:02d}T{hour % 24:02d}:00:00Z"
    return {"time/usage_start": start, "cost/cost": cost, **{k.replace("__", "/"): v for k, v in others.items()}}


def packed(
    *files: bytes,
    client: type[CloudZero] = LIVE,
    whole_month: bool = False,
    max_bytes: int = 1_000,
    refused: Mapping[int, Mapping[int, tuple[str, str]]] | None = None,
    block_bytes: int = 50_000,
) -> Packed:
    """Pack files, the first of which is number 0."""
    texts: list[bytearray] = []
    rejected: list[RejectedRow] = []

    def write(seq: int) -> Callable[[bytes], object]:
        assert seq == len(texts) + 1
        texts.append(bytearray())
        return texts[-1].extend

    appends_only = client.name is ContractName.OPENAPI
    with Packing(client, MONTH, whole_month=whole_month, appends_only=appends_only, max_bytes=max_bytes) as packing:
        for member, data in enumerate(files):
            reader = CostFileReader("costs", MONTH, refused=(refused or {}).get(member), block_bytes=block_bytes)
            packing.add_file(member, reader, io.BytesIO(data), rejected.append)
        bodies = list(packing.bodies(write))
        sums = packing.totals, packing.hours
        return Packed(
            bodies, list(map(bytes, texts)), rejected, packing.refused, packing.rows, *sums, packing.duplicates
        )


AMOUNTS = st.decimals(allow_nan=False, allow_infinity=False, places=12, min_value=-(10**20), max_value=10**20).map(
    lambda value: f"{value:f}"
)
ROWS = st.lists(
    st.builds(
        row,
        st.integers(0, 5),
        AMOUNTS,
        cost__discounted_cost=st.just("") | AMOUNTS,
        cost__amortized_cost=st.just(""),
        cost__on_demand_cost=st.sampled_from(["", "0", "1.5"]),
        resource__service=st.text(st.sampled_from('ab"\\\t\n é\u2028😀'), max_size=6),
    ),
    min_size=1,
    max_size=40,
)


# --- every row once ---------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(st.lists(ROWS, min_size=1, max_size=3), st.integers(40, 2_000))
def test_every_row_is_in_the_bodies_once_and_its_origin_says_where_it_stood(
    files: list[list[Row]], block_bytes: int
) -> None:
    done = packed(*map(file, files), block_bytes=block_bytes)
    origins = [Packing.origin_of(origin) for body in done.bodies for origin in body.origins]
    lines = [_lines_of(rows) for rows in files]
    assert sorted(origins) == sorted((member, line) for member, at in enumerate(lines) for line in at)
    for (member, line), sent in zip(origins, done.sent, strict=True):
        stood = files[member][lines[member].index(line)]
        assert sent["cost/cost"] == stood["cost/cost"]
        assert sent.get("resource/service", "") == (stood["resource/service"] if _shown(stood) else "")
    assert done.rows == len(origins)
    hours = [hour for body in done.bodies for hour in body.hours]
    assert hours == sorted(hours)
    assert all(body.bytes <= 1_000 for body in done.bodies)


def _lines_of(rows: Sequence[Row]) -> list[int]:
    """The line on which each row begins."""
    at = [2]
    for one in rows:
        at.append(at[-1] + 1 + one["resource/service"].count("\n"))
    return at[:-1]


def _shown(stood: Row) -> bool:
    return not stood["resource/service"].isspace()


@given(ROWS, st.integers(40, 2_000))
def test_how_a_file_is_read_never_shows_in_the_bodies(rows: list[Row], block_bytes: int) -> None:
    assert packed(file(rows), block_bytes=block_bytes).texts == packed(file(rows)).texts


@settings(max_examples=60)
@given(ROWS)
def test_rows_are_written_as_the_client_writes_them(rows: list[Row]) -> None:
    """The faster way of `live`, and the only one of `openapi`."""
    batches = list(CostFileReader("costs", MONTH).batches(io.BytesIO(file(rows))))
    cells = [each for batch in batches if isinstance(batch, CostBatch) for each in batch.columns.by_row()]
    for client in (LIVE, OPENAPI):
        done = packed(file(rows), client=client)
        written = list(map(client.drop_row, cells))
        for body, text in zip(done.bodies, done.texts, strict=True):
            lines = _lines_of(rows)
            expected = [written[lines.index(Packing.origin_of(origin)[1])] for origin in body.origins]
            pieces = [text[piece.offset : piece.offset + piece.length] for piece in body.pieces]
            assert b",".join(pieces) == b",".join(expected)


def test_tags_of_focus_are_written_as_the_client_writes_them() -> None:
    header = "ChargePeriodStart,BilledCost,BillingCurrency,ChargeCategory,ResourceId,Tags\n"
    start = "2026-02-01T00:00:00Z,1.5,USD,Usage"
    tags = '"{""b"": ""say \\""hi\\"", \\\\ \\n"", ""a"": 1}"'
    data = f"{header}{start},i-1,{tags}\n{start},i-1,\n{start},,\n".encode()
    [batch] = CostFileReader("costs", MONTH).batches(io.BytesIO(data))
    assert isinstance(batch, CostBatch)
    rows = batch.columns.as_json()
    assert rows == list(map(LIVE.drop_row, batch.columns.by_row()))
    assert json.loads(rows[0])["resource/tag:b"] == 'say "hi", \\ \n'
    assert "resource/tag:a" not in json.loads(rows[1])
    assert packed(data).sent == list(map(json.loads, rows))


def test_an_origin_is_one_number_for_a_member_and_a_line() -> None:
    for member, line in ((0, 1), (0, 2**40 - 1), (2**24 - 1, 7), (3, 0)):
        assert Packing.origin_of(Packing.origin(member, line)) == (member, line)
        assert 0 <= Packing.origin(member, line) < 2**64


def test_equal_rows_of_an_hour_are_named_by_their_origin() -> None:
    done = packed(file([row(), row(1)]), file([row(1), row(), row()]))
    assert done.duplicates.rows == 3
    named = [(hour - FIRST, *Packing.origin_of(origin)) for hour, origin in done.duplicates.examples]
    assert named == [(0, 1, 3), (0, 1, 4), (1, 1, 2)]


# --- money ------------------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(st.lists(ROWS, min_size=1, max_size=2), st.integers(40, 2_000))
def test_totals_and_hours_are_the_sums_of_what_was_sent(files: list[list[Row]], block_bytes: int) -> None:
    done = packed(*map(file, files), block_bytes=block_bytes)
    assert {name: Fraction(total) for name, total in done.totals.items()} == _sums(done.sent)
    starts = {f"2026-02-01T{hour:02d}:00:00Z": FIRST + hour for hour in range(6)}
    by_hour: dict[int, list[Row]] = {}
    for sent in done.sent:
        by_hour.setdefault(starts[sent["time/usage_start"]], []).append(sent)
    assert list(done.hours) == sorted(by_hour)
    for hour, rows in by_hour.items():
        found = done.hours[hour]
        named = zip(COSTS, found.costs, strict=True)
        assert found.rows == len(rows)
        assert {name: Fraction(total) for name, total in named if total is not None} == _sums(rows)


def _sums(rows: Sequence[Row]) -> dict[str, Fraction]:
    """Column by column."""
    held = {name: [Fraction(sent[name]) for sent in rows if name in sent] for name in COSTS}
    return {name: sum(values, Fraction()) for name, values in held.items() if values}


def test_a_sum_keeps_thirty_digits_before_the_point_and_thirty_behind() -> None:
    large, small = "9" * 30, "0." + "0" * 29 + "1"
    done = packed(file([row(0, large), row(1, small), row(1, f"-{small}"), row(1, small)]))
    assert f"{done.totals['cost/cost']:f}" == f"{large}.{small[2:]}"
    assert done.hours[FIRST + 1] == HourTotals(3, (Decimal(small), None, None, None, None))


def test_blank_is_no_sum_and_zero_is_one() -> None:
    done = packed(file([row(0, cost__on_demand_cost="0"), row(1)]))
    assert done.totals == {"cost/cost": Decimal("2.50"), "cost/on_demand_cost": Decimal(0)}
    assert [hour.costs[4] for hour in done.hours.values()] == [Decimal(0), None]


def test_nothing_packed_is_no_money() -> None:
    done = packed(file([row(0, "x")]))
    assert (done.rows, done.totals, done.hours, done.bodies) == (0, {}, {}, [])
    assert [(bad.line, bad.values[1]) for bad in done.rejected] == [(2, "x")]


# --- what the bodies do -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("client", "whole_month", "operations"),
    [
        (LIVE, True, {"replace_drop": 1, "replace_hourly": 1}),
        (LIVE, False, {"replace_hourly": 2}),
    ],
)
def test_bodies_replace_the_month_or_their_hours(
    *, client: type[CloudZero], whole_month: bool, operations: dict[str, int]
) -> None:
    rows = [row(hour, resource__service="x" * 400) for hour in range(4)]
    done = packed(file(rows), client=client, whole_month=whole_month, max_bytes=1_200)
    said = [json.loads(text) for text in done.texts]
    assert Counter(body["operation"] for body in said) == operations
    assert said[0]["operation"] == ("replace_drop" if whole_month else "replace_hourly")
    assert {body["month"] for body in said} == {"2026-02-01T00:00:00Z"}


def test_the_rest_of_an_hour_that_is_larger_than_a_body_is_added() -> None:
    done = packed(file([row(0, resource__service="x" * 400)] * 5), max_bytes=1_200)
    assert [json.loads(text)["operation"] for text in done.texts] == ["replace_hourly", "sum", "sum"]
    assert done.duplicates.rows == 4


def test_a_contract_that_only_appends_is_asked_for_nothing_else() -> None:
    done = packed(file([row(0), row(1)]), client=OPENAPI, whole_month=True)
    found: dict[str, Any] = json.loads(done.texts[0])
    assert [item["cost"] for item in found["billing_drops"][0]["line_items"]] == [1.25, 1.25]


# --- what cannot be sent ----------------------------------------------------------------------------------------------

CLASHING = (*HEADER, "resource/tag:resource/id")
"""A tag has the name of a column: `openapi` would write both as one entry of the metadata."""


def test_a_row_that_the_contract_cannot_express_is_named_and_not_packed() -> None:
    clash = {"resource__id": "vm/1", "resource/tag:resource/id": "x"}
    rows = [row(n % 3, str(n), **clash) if n in {1, 4} else row(n % 3, str(n)) for n in range(6)]
    data = file(rows, CLASHING)
    done = packed(file([row()]), data, client=OPENAPI)
    assert set(done.refused) == {1}
    assert set(done.refused[1]) == {3, 6}
    for error, fix in done.refused[1].values():
        assert "resource/id" in error
        assert "rename the tag" in fix
    assert done.rows == 5
    assert done.totals["cost/cost"] == Decimal("1.25") + 0 + 2 + 3 + 5
    assert packed(file([row()]), data).refused == {}, "live can"
    again = packed(file([row()]), data, client=OPENAPI, refused=done.refused)
    assert again.refused == {}
    assert [(bad.line, bad.error, bad.fix) for bad in again.rejected] == [
        (line, *said) for line, said in done.refused[1].items()
    ]
    assert again.texts == done.texts


def test_a_row_that_no_body_can_hold_is_named_and_not_packed() -> None:
    done = packed(file([row(0), row(1, resource__service="x" * 950), row(2)]))
    [(line, (error, fix))] = done.refused[0].items()
    assert line == 3
    assert "a body holds" in error
    assert "shorten" in fix
    assert [hour - FIRST for hour in done.hours] == [0, 2]
    assert done.rows == 2

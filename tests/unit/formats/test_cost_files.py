from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import tracemalloc
import zipfile
from decimal import Decimal
from pathlib import Path

import pytest
from finops_relay.errors import InputRefused, ShortRead
from finops_relay.formats.archives import Budget, Ceilings
from finops_relay.formats.cost_files import CostFileReader, open_cost_file, readable_cost
from finops_relay.formats.cost_rows import CostRow
from finops_relay.formats.csv_rows import csv_line
from finops_relay.formats.rejected_rows import RejectedFile, RejectedRow, read_mended
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit.formats.costs import CBF, FOCUS, HOSTILE, ITEM, MONTH, cbf, quoted, read, refused, sheet, table
from tests.unit.formats.test_csv_rows import Trickle

BOM = b"\xef\xbb\xbf"
JSON_ITEM = json.dumps(dict(ITEM)).encode()
FORMS = {
    "cbf": table(CBF, CBF),
    "focus": table(FOCUS, FOCUS),
    "line_items": table(ITEM, ITEM),
    "line_items, an array": b"[" + JSON_ITEM + b"," + JSON_ITEM + b"]",
    "line_items, a document": b'{"line_items": [' + JSON_ITEM + b",\n" + JSON_ITEM + b"]}",
    "line_items, NDJSON": JSON_ITEM + b"\n" + JSON_ITEM,
}


def opened(data: bytes, name: str = "in/costs", budget: Budget | None = None) -> bytes:
    with open_cost_file(name, io.BytesIO(data), len(data), budget or Budget()) as stream:
        return stream.read()


def unopened(data: bytes, budget: Budget | None = None) -> InputRefused:
    with pytest.raises(InputRefused) as refusal:
        opened(data, budget=budget)
    assert refusal.value.file == "in/costs"
    assert "price" not in refusal.value.fix
    return refusal.value


# --- recognition ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("before", [b"", b"\xef\xbb\xbf", b"\n \r\n", b"\xef\xbb\xbf\n"])
def test_the_form_of_a_file_is_told_by_its_content(form: str, before: bytes) -> None:
    plain = read(FORMS[form])
    done = read(before + FORMS[form])
    assert done.reader.form == form.partition(",")[0]
    assert [row.columns for row in done.rows] == [row.columns for row in plain.rows]
    assert len(done.rows) == 2
    assert done.rejected == []


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["a.csv", "a.json.gz", "a.parquet"])
def test_a_file_is_opened_by_its_content_and_not_by_its_name(form: str, name: str) -> None:
    assert opened(FORMS[form], name) == FORMS[form]
    assert opened(gzip.compress(FORMS[form]), name) == FORMS[form]


def _zip(name: str) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr(name, FORMS["cbf"])
    return target.getvalue()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (gzip.compress(b""), "empty"),
        (_zip("a.csv"), "zip archive"),
        (_zip("[Content_Types].xml"), "Excel workbook"),
        (b"PK\x03\x04broken", "damaged"),
        (b"PAR1....", "Parquet"),
        (gzip.compress(b"PAR1...."), "Parquet"),
        (bz2.compress(FORMS["cbf"]), "bzip2"),
        (FORMS["cbf"].decode().encode("utf-16"), "UTF-16"),
        (gzip.compress(FORMS["cbf"])[:-4], "truncated"),
        (gzip.compress(gzip.compress(FORMS["cbf"])), "archive inside"),
    ],
)
def test_what_is_no_file_of_costs_is_not_opened(data: bytes, said: str) -> None:
    assert said in unopened(data).reason


def test_the_ceilings_of_a_delivery_hold_for_its_files() -> None:
    with pytest.raises(InputRefused, match="decoded bytes"):
        opened(gzip.compress(b"x" * 1000), budget=Budget(Ceilings(decoded_bytes=999)))
    with pytest.raises(InputRefused, match="rows"):
        read(FORMS["cbf"], budget=Budget(Ceilings(rows=1)))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b"\xef\xbb\xbf \n", "empty"),
        (b"PAR1....", "Parquet"),
        (table(CBF).split(b"\n")[0], "no rows"),
        (table(FOCUS).split(b"\n")[0] + b"\n\n , ,\n", "no rows"),
        (b"a,b\n1,2\n", "no header"),
        (table(CBF).replace(b",", b";"), "semicolons"),
        (table(ITEM).replace(b",", b"\t"), "tabs"),
        (table(ITEM).replace(b"timestamp", b"time"), "no header"),
        (sheet([*ITEM, "x", "x"], [*ITEM.values(), "", ""]), "two columns of one name"),
        (table(CBF) + b'"', "cannot be read"),
    ],
)
def test_a_file_that_is_in_no_known_form_is_refused(data: bytes, said: str) -> None:
    assert said in refused(data).reason


def test_an_error_of_the_stream_passes_unchanged() -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            if not data:
                raise ShortRead("12 of 34 bytes")
            return data

    with pytest.raises(ShortRead):
        read(b"", stream=Broken(FORMS["cbf"]))


# --- the same rows, however they come ---------------------------------------------------------------------------------


@settings(max_examples=150)
@given(
    rows=st.lists(st.lists(HOSTILE, min_size=2, max_size=2), max_size=8),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    bom=st.sampled_from([b"", BOM]),
    sizes=st.lists(st.integers(1, 9), max_size=5),
    block_bytes=st.integers(3, 200),
)
@example(rows=[['a"b,c', "\u2028"], ["x\ny", "1"]], end="\n", bom=BOM, sizes=[1], block_bytes=3)
def test_the_rows_are_the_same_for_any_chunking(
    rows: list[list[str]],
    end: str,
    bom: bytes,
    sizes: list[int],
    block_bytes: int,
) -> None:
    """Fault row 5."""
    header = ["time/usage_start", "cost/cost", "resource/service", "lineitem/description"]
    cells = [["2026-02-04T00:00:00Z", "1.5", *row] for row in rows]
    data = bom + sheet(header, ["2026-02-04", "1", "a", "b"], *cells, end=end)
    whole = read(data)
    assert read(data, stream=Trickle(data, sizes), block_bytes=block_bytes).all == whole.all
    expected = {2: ["a", "b"]} | {row.line: list(row.values[2:]) for row in whole.rejected}
    for row in whole.rows:
        expected[row.line] = [row.columns.get(name, "") for name in header[2:]]
    assert len(expected) == len(rows) + 1
    sent = [[cell if cell.strip() or cell_is_odd(row) else "" for cell in row] for row in rows]
    assert [expected[line] for line in sorted(expected)][1:] == sent


def cell_is_odd(row: list[str]) -> bool:
    """Whether a row is rejected, and so stands in the answer as it stood in the file."""
    return any(not (c.isprintable() or c in "\t\n\r\u2028\u0085\ufeff") for cell in row for c in cell)


@given(st.lists(st.text(st.sampled_from('ab,"{}: '), max_size=8), min_size=1, max_size=30), st.integers(3, 300))
def test_quotes_around_every_cell_or_only_where_needed_are_the_same(cells: list[str], block_bytes: int) -> None:
    rows = [cbf(resource__service=cell) for cell in cells]
    assert read(quoted(*rows), block_bytes=block_bytes).all == read(table(*rows)).all


@pytest.mark.parametrize(
    "line", ['2026-02-04,1,a"b', '2026-02-04,1,"a"', '2026-02-04,1,""', '2026-02-04,1,""""', '"2026-02-04",1,"a,b"']
)
def test_a_block_is_read_as_the_csv_parser_reads_it(line: str) -> None:
    header = "time/usage_start,cost/cost,resource/service\n"
    cell = next(csv.reader([line]))[2]
    rows = read((header + f"{line}\n" * 3).encode(), block_bytes=64).rows
    assert [row.columns.get("resource/service", "") for row in rows] == [cell] * 3


def test_a_line_break_in_quotes_is_part_of_its_cell_and_counts_as_a_line() -> None:
    done = read(table(cbf(resource__service="a\nb"), cbf(resource__service="")))
    assert [(row.line, row.columns.get("resource/service")) for row in done.rows] == [(2, "a\nb"), (4, None)]


def test_bad_rows_anywhere_are_found_one_by_one() -> None:
    good, bad = dict(CBF), cbf(cost__cost="x")
    rows = [bad if n % 7 == 0 or n > 990 else good for n in range(1000)]
    done = read(table(*rows), block_bytes=5000)
    assert [isinstance(row, RejectedRow) for row in done.all] == [row is bad for row in rows]
    assert [row.line for row in done.all] == list(range(2, 1002))


# --- mended rows ------------------------------------------------------------------------------------------------------


def test_a_rejected_row_that_was_mended_and_dropped_back_is_delivered() -> None:
    data = table(CBF, cbf(cost__cost="1,5"), CBF, cbf(lineitem__type="CommittedUseVacancy"))
    with RejectedFile() as file:
        for row in read(data).rejected:
            file.add("costs", row)
        written = io.BytesIO()
        file.write_to(written.write)
    text = written.getvalue().decode().replace('"1,5"', "1.5").replace("CommittedUseVacancy,", "Usage,")
    mended = read_mended(io.BytesIO(text.encode()), "mended")[""]
    done = read(data, mended)
    assert done.rejected == []
    assert [row.columns["cost/cost"] for row in done.rows] == ["1.25", "1.5", "1.25", "1.25"]


@settings(max_examples=60)
@given(st.dictionaries(st.integers(2, 61), st.sampled_from(["7", "x"]), min_size=1), st.integers(30, 600))
def test_mended_rows_replace_what_stands_there_and_nothing_else(costs: dict[int, str], block_bytes: int) -> None:
    data = table(*(cbf(cost__cost=str(n)) for n in range(60)))
    done = read(data, {line: {"cost/cost": cost} for line, cost in costs.items()}, block_bytes=block_bytes)
    assert [row.line for row in done.rejected] == sorted(line for line, cost in costs.items() if cost == "x")
    for row in done.rows:
        assert row.columns["cost/cost"] == costs.get(row.line, str(row.line - 2))


def test_a_row_of_another_width_and_a_blank_one_can_be_mended() -> None:
    data = table(CBF) + b"1,2,3\n\n"
    done = read(data, {3: dict(CBF), 4: dict(CBF)})
    assert [row.line for row in done.rows] == [2, 3, 4]


def test_a_mended_row_that_was_emptied_is_rejected_again_and_does_not_vanish() -> None:
    done = read(table(CBF, CBF) + b"\n,,,,,\n", {3: dict.fromkeys(CBF, "")})
    assert [(row.line, row.error) for row in done.rejected] == [(3, "time/usage_start is empty")]
    assert [row.line for row in done.rows] == [2]


@pytest.mark.parametrize(
    ("mended", "said"),
    [({9: {"cost/cost": "1"}}, "no row begins"), ({2: {"price": "1"}}, "column that the file does not have")],
)
def test_a_mended_row_that_is_not_of_this_file_is_refused(mended: dict[int, dict[str, str]], said: str) -> None:
    assert said in refused(table(CBF), mended).reason


def test_a_mended_item_that_there_is_not_is_refused() -> None:
    assert "no row begins" in refused(JSON_ITEM, {2: {"cost": "1"}}).reason


# --- rows that somebody else refused ----------------------------------------------------------------------------------

SAID = ("the vendor refused the row", "mend it")


@settings(max_examples=60)
@given(st.sets(st.integers(2, 61)), st.sets(st.integers(2, 61), max_size=5), st.integers(30, 600))
def test_a_refused_row_is_rejected_as_it_stood_and_its_neighbours_are_not(
    lines: set[int], bad: set[int], block_bytes: int
) -> None:
    """Whatever else is right or wrong with it, and however the file is read."""
    rows = [cbf(cost__cost="x" if n in bad else str(n), resource__service="a,b" * (n % 2)) for n in range(2, 62)]
    done = read(table(*rows), refused=dict.fromkeys(lines, SAID), block_bytes=block_bytes)
    assert [row.line for row in done.all] == list(range(2, 62))
    assert {row.line for row in done.rejected} == lines | bad
    for row in done.rejected:
        assert row.values == tuple(rows[row.line - 2].values())
        assert ((row.error, row.fix) == SAID) == (row.line in lines)


@pytest.mark.parametrize("form", FORMS)
def test_a_row_of_any_form_can_be_refused(form: str) -> None:
    first, second = read(FORMS[form]).rows
    done = read(FORMS[form], refused={second.line: SAID})
    assert done.rows == [first]
    [row] = done.rejected
    assert (row.line, row.error, row.fix) == (second.line, *SAID)
    assert "1.25" in dict(zip(row.columns, row.values, strict=True)).values()


def test_a_row_that_spans_lines_or_has_no_cells_can_be_refused() -> None:
    spans = read(table(cbf(resource__service="a\nb"), cbf(resource__service="c")), refused={2: SAID})
    assert [(row.line, row.error) for row in spans.rejected] == [(2, SAID[0])]
    assert [row.line for row in spans.rows] == [4]
    [unreadable] = read(JSON_ITEM + b"\n{x\n", refused={2: SAID}).rejected
    assert (unreadable.error, unreadable.values[-1]) == (SAID[0], "{x")


def test_a_mended_row_that_is_refused_again_shows_what_was_written() -> None:
    [row] = read(table(CBF), {2: {"cost/cost": "7"}}, refused={2: SAID}).rejected
    assert row.values[1] == "7"


# --- what rejected rows cost ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "columns", "values", "cost"),
    [
        ("cbf", ["time/usage_start", " cost/cost"], ["", "-1.50"], Decimal("-1.50")),
        ("cbf", ["cost/cost", "cost/amortized_cost"], ["$ 1,200.00", "7"], Decimal(1200)),
        ("focus", ["BilledCost", "EffectiveCost"], ["1E-7", "7"], Decimal("0.0000001")),
        ("line_items", ["Timestamp", "Cost", "resource/tag:cost"], ["", "(2)", "7"], Decimal(-2)),
        ("line_items", ["cost", "Cost"], ["", "5"], Decimal(5)),
        ("line_items", ["cost", "Cost"], ["5", "5"], None),
        ("cbf", ["cost/cost"], ["0"], Decimal(0)),
        ("cbf", ["cost/cost"], [" "], None),
        ("cbf", ["cost/cost"], ["1,200"], None),
        ("cbf", ["cost/cost"], ["1\udcff"], None),
        ("cbf", ["cost"], ["1"], None),
        ("focus", ["BilledCost"], ["NULL"], None),
        ("cbf", ["time/usage_start", "cost/cost"], ["a", "b", "1"], None),
        ("cbf", ["time/usage_start", "cost/cost"], ["1"], None),
        ("", ["cost/cost"], ["1"], None),
    ],
)
def test_a_rejected_row_costs_what_can_be_read_for_certain(
    form: str, columns: list[str], values: list[str], cost: Decimal | None
) -> None:
    assert readable_cost(form, RejectedRow(2, tuple(columns), tuple(values), "x", "y")) == cost


@pytest.mark.parametrize("form", FORMS)
def test_a_row_of_any_form_costs_the_same_rejected_or_not(form: str) -> None:
    row = read(FORMS[form]).rows[0]
    [rejected] = read(FORMS[form], refused={row.line: SAID}).rejected
    assert readable_cost(form.partition(",")[0], rejected) == row.costs[0] == Decimal("1.25")


# --- money and memory -------------------------------------------------------------------------------------------------


@given(
    st.lists(
        st.decimals(allow_nan=False, allow_infinity=False, places=30, min_value=-(10**25), max_value=10**25),
        min_size=2,
        max_size=20,
    ).map(lambda values: [value for value in values if value.as_tuple().exponent == -30] or [Decimal(1)])
)
def test_totals_are_exact_to_the_last_digit(values: list[Decimal]) -> None:
    rows = [
        cbf(cost__cost=f"{value:f}", cost__amortized_cost=f"{other:f}")
        for value, other in zip(values, reversed(values), strict=True)
    ]
    assert read(table(*rows), block_bytes=300).reader.warnings == ()
    [warning] = read(table(*rows, cbf(cost__cost="0", cost__amortized_cost="0." + "0" * 29 + "1"))).reader.warnings
    assert "totals" in warning


@pytest.mark.parametrize("form", ["cbf", "focus", "line_items"])
def test_memory_does_not_grow_with_the_file(form: str, tmp_path: Path) -> None:
    """Fault row 7: what is remembered of cells is bounded, also when every cell is new."""
    row = {"cbf": CBF, "focus": FOCUS, "line_items": ITEM}[form]
    own = {"cbf": "resource/id", "focus": "ResourceId", "line_items": "service"}[form]
    path = tmp_path / "costs.csv"
    count = 20_000
    with path.open("w", newline="", encoding="utf-8") as file:
        file.write(csv_line(row) + "\n")
        for n in range(count):
            file.write(csv_line({**row, own: f"a/{n:0500d}"}.values()) + "\n")
    reader = CostFileReader("costs", MONTH)
    tracemalloc.start()
    with path.open("rb") as stream:
        accepted = sum(isinstance(one, CostRow) for one in reader.rows(stream))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert accepted == count
    assert peak < 12_000_000
    assert path.stat().st_size > 10_000_000

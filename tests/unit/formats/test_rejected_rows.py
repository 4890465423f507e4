from __future__ import annotations

import csv
import io
import tracemalloc
from collections.abc import Sequence

import pytest
from finops_relay.errors import InputRefused
from finops_relay.formats.archives import Budget
from finops_relay.formats.price_sheets import (
    PriceBookReader,
    Provider,
    RejectedFile,
    RejectedRow,
    SheetRules,
    read_mended,
    rejected_csv_header,
)
from finops_relay.formats.rejected_rows import MENDED_BYTES
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.formats.sheets import AZURE_NAMES, azure, sheet


def rejected(line: int, columns: Sequence[str], values: Sequence[str]) -> RejectedRow:
    return RejectedRow(line, tuple(columns), tuple(values), "is wrong", "write it right")


def written(file: RejectedFile) -> bytes:
    pieces: list[bytes] = []
    file.write_to(pieces.append)
    return b"".join(pieces)


def mended_of(data: bytes) -> dict[str, dict[int, dict[str, str]]]:
    return {m: {k: dict(v) for k, v in rows.items()} for m, rows in read_mended(io.BytesIO(data), "mended.csv").items()}


def refusal(data: bytes) -> InputRefused:
    with pytest.raises(InputRefused) as refused:
        mended_of(data)
    assert refused.value.file == "mended.csv"
    assert refused.value.fix
    return refused.value


def test_a_rejected_row_stands_under_its_own_columns_with_line_error_and_fix() -> None:
    with RejectedFile() as file:
        file.add("a.csv", rejected(7, ["x", "y"], ["1,5", "two\nlines"]))
        assert written(file) == b'x,y,line,error,fix\n"1,5","two\nlines",7,is wrong,write it right\n'
        assert (file.rows, file.omitted) == (1, 0)


def test_bytes_that_are_not_utf8_stand_in_the_file_as_they_came() -> None:
    with RejectedFile() as file:
        file.add("a.csv", rejected(2, ["x"], ["a\udcff\udc80b"]))
        assert b"\na\xff\x80b,2," in written(file)


def test_files_with_different_headers_share_one_file_and_lines_name_their_file() -> None:
    with RejectedFile(several=True) as file:
        file.add("b.zip!1.csv", rejected(2, ["x", "y"], ["1", "2"]))
        file.add("b.zip!2.csv", rejected(3, ["z", "x"], ["3", "4"]))
        assert written(file) == (
            b"x,y,z,line,error,fix\n"
            b"1,2,,b.zip!1.csv:2,is wrong,write it right\n"
            b"4,,3,b.zip!2.csv:3,is wrong,write it right\n"
        )


def test_values_without_a_column_are_told_in_the_error_and_missing_ones_are_empty() -> None:
    with RejectedFile() as file:
        file.add("a.csv", rejected(2, ["x", "y"], ["1", "2", "3", "4,5"]))
        file.add("a.csv", rejected(3, ["x", "y"], ["1"]))
        rows = list(csv.reader(io.StringIO(written(file).decode())))
    assert rows[1][:4] == ["1", "2", "2", 'is wrong; beyond the last column: 3,"4,5"']
    assert rows[2][:3] == ["1", "", "3"]


def test_columns_of_the_input_that_are_named_like_ours_or_not_at_all_are_left_out() -> None:
    assert rejected_csv_header(["x", "Line", "", "Fix ", "y"]) == b"x,y,line,error,fix\n"
    with RejectedFile() as file:
        file.add("a.csv", rejected(2, ["x", "Line", "", "y"], ["1", "2", "3", "4"]))
        assert written(file).splitlines()[1].startswith(b"1,4,2,")


def test_the_file_can_be_written_twice_and_added_to_in_between() -> None:
    with RejectedFile() as file:
        file.add("a.csv", rejected(2, ["x"], ["1"]))
        first = written(file)
        file.add("a.csv", rejected(3, ["x"], ["2"]))
        assert written(file) == first + b"2,3,is wrong,write it right\n"


def test_rows_beyond_the_ceiling_are_counted_and_not_kept() -> None:
    with RejectedFile(ceiling_bytes=1_000) as file:
        for line in range(2, 102):
            file.add("a.csv", rejected(line, ["x"], ["1"]))
        assert file.rows + file.omitted == 100
        assert 0 < file.rows < 30
        assert len(written(file).splitlines()) == file.rows + 1


def test_tens_of_thousands_of_rejected_rows_take_a_few_megabytes_of_memory() -> None:
    row = rejected(2, AZURE_NAMES, azure(UnitPrice="x"))
    sizes: list[int] = []
    tracemalloc.start()
    with RejectedFile() as file:
        for _ in range(20_000):
            file.add("a.csv", row)
        file.write_to(lambda piece: sizes.append(len(piece)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(sizes) > 6_000_000
    assert peak < 4_000_000


SHEET = sheet(
    AZURE_NAMES, azure(), azure(UnitPrice="1E-05"), azure()[:-1], azure(Product="\udcff", UnitPrice=""), azure()
)


def test_mended_rows_complete_the_sheet_that_they_were_rejected_from() -> None:
    """The round trip: rejected, mended by a person, read back, and the sheet is whole."""
    with RejectedFile() as file:
        reader = PriceBookReader(SheetRules(Provider.AZURE), Budget())
        reader.rewrite("a.csv", io.BytesIO(SHEET), lambda _: None, lambda row: file.add("a.csv", row))
        text = written(file).decode(errors="surrogateescape")
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["line"] for row in rows] == ["3", "4", "5"]
    for row in rows:
        row.update(UnitPrice="0.00001", PriceType="Consumption", Product="mended")
    target = io.StringIO(newline="")
    writer = csv.DictWriter(target, [*reversed(rows[0].keys())], delimiter=",")
    writer.writeheader()
    writer.writerows(rows)
    as_a_spreadsheet_saves_it = b"\xef\xbb\xbf" + target.getvalue().encode()
    output: list[bytes] = []
    counts = PriceBookReader(SheetRules(Provider.AZURE), Budget()).rewrite(
        "a.csv", io.BytesIO(SHEET), output.append, lambda _: None, mended_of(as_a_spreadsheet_saves_it)[""]
    )
    mended = azure(UnitPrice="0.00001", Product="mended")
    assert b"".join(output) == sheet(AZURE_NAMES, azure(), mended, mended, mended, azure())
    assert (counts.written, counts.rejected) == (5, 0)


COLUMN = st.text(st.characters(codec="utf-8", exclude_characters="\ufeff"), min_size=1, max_size=5).filter(
    lambda name: name.strip("\ufeff \t").lower() not in {"line", "error", "fix"} and name.strip()
)
CELL = st.text(st.sampled_from('ab,"\n\r é\udcff=\u2028'), max_size=6)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), several=st.booleans())
def test_what_was_rejected_is_read_back_value_by_value(data: st.DataObject, several: bool) -> None:  # noqa: FBT001 -- drawn
    headers = data.draw(st.lists(st.lists(COLUMN, min_size=1, max_size=4, unique=True), min_size=1, max_size=3))
    headers = headers if several else headers[:1]
    expected: dict[str, dict[int, dict[str, str]]] = {}
    with RejectedFile(several=several) as file:
        for number, header in enumerate(headers):
            member = f"a:b{number}.csv" if several else ""
            for line in data.draw(st.lists(st.integers(1, 10**9), min_size=1, max_size=3, unique=True)):
                values = data.draw(st.lists(CELL, min_size=len(header), max_size=len(header)))
                file.add(member, rejected(line, header, values))
                expected.setdefault(member, {})[line] = dict(zip(header, values, strict=True))
        columns = file.columns()
        read = mended_of(written(file))
    for rows in expected.values():
        for row in rows.values():
            row.update({name: "" for name in columns if name not in row})
    assert read == expected


def test_spreadsheets_may_reorder_columns_drop_trailing_cells_and_leave_blank_lines() -> None:
    data = b"\xef\xbb\xbfLINE,y,x,Error,Fix\r\n,,,,\r\n7,1\r\n\r\n9,,2,e,f\r\n"
    assert mended_of(data) == {"": {7: {"y": "1", "x": ""}, 9: {"y": "", "x": "2"}}}


@pytest.mark.parametrize(
    ("data", "line", "said"),
    [
        (b"x,y\n1,2\n", 1, "no column is named line"),
        (b"x;line\n1;2\n", 1, "no column is named line"),
        (b"x,x,line\n1,2,3\n", 1, "twice"),
        (b"x,line,Line\n1,2,3\n", 1, "twice"),
        (b"x,line\n1,2\n\n3,2\n", 4, "both for line 2"),
        (b"x,line\n1,a.csv:2\n3,a.csv:2\n", 3, "both for line 2"),
        (b"x,line\n1,\n", 2, "no line number"),
        (b"x,line\n1,two\n", 2, "no line number"),
        (b"x,line\n1,2.0\n", 2, "no line number"),
        (b"x,line\n1,-2\n", 2, "no line number"),
        (b"x,line\n1,0\n", 2, "no line number"),
        ("x,line\n1,٢\n".encode(), 2, "no line number"),
        (b"x,line\n1,2,3\n", 2, "3 values, the header has 2 names"),
        (b"x,line\n", None, "no rows"),
        (b"", None, "no rows"),
        (b'x,line\n1,2\n"3,4\n', 3, "cannot be read"),
    ],
)
def test_a_mended_file_that_cannot_be_applied_is_refused_with_its_line(
    data: bytes, line: int | None, said: str
) -> None:
    refused = refusal(data)
    assert said in refused.reason
    assert refused.line == line


def test_a_mended_file_that_is_too_large_for_memory_is_refused() -> None:
    rows = (b"%d,%s\n" % (number, b"x" * 1000) for number in range(2, 3 + MENDED_BYTES // 1000))
    assert "larger than" in refusal(b"line,x\n" + b"".join(rows)).reason

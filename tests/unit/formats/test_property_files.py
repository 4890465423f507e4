"""Custom properties: byte for byte as they were dropped, and only what can do no harm."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping

import pytest
from finops_relay.errors import InputRefused
from finops_relay.formats.csv_rows import csv_line
from finops_relay.formats.property_files import MAX_BYTES, PropertyFile, checked, made, whole, wire_form
from finops_relay.formats.rejected_rows import RejectedRow
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit.formats.test_csv_rows import Trickle

BOM = b"\xef\xbb\xbf"
EXAMPLES = settings(max_examples=150)
CELL = st.text(st.sampled_from('ab,"\n\u2028\u0085\x0bé\U0001f600\udcff\ufeff ;'), max_size=5)
"""What may stand in a cell: lone surrogates stand for bytes that are not UTF-8."""
Mended = Mapping[int, Mapping[str, str]]


def judged(data: bytes, mended: Mended | None = None) -> tuple[PropertyFile, list[RejectedRow]]:
    """Return what is sent of a file in its wire form, and its rejected rows."""
    rejects: list[RejectedRow] = []
    return checked("p.csv", data, rejects.append, mended), rejects


def refused(data: bytes, mended: Mended | None = None) -> InputRefused:
    """Return why a file is refused."""
    with pytest.raises(InputRefused) as refusal:
        judged(data, mended)
    assert refusal.value.file == "p.csv"
    assert refusal.value.fix
    return refusal.value


def parsed(body: bytes) -> list[list[str]]:
    """Return the rows of a CSV as somebody else reads it."""
    text = body.decode(errors="surrogateescape")
    return [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]


# --- byte for byte ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"service,team\na,x\nb,y\n",
        b"service,team\na,x\nb,y",
        b'service,"team"\n"a",x\nb,"y, z"\n',
        b'service,team\na,"two\nlines"\n\nb,\n\n',
        "service,team\na,caf\u00e9\u2028\nb,\U0001f600\x0b\n".encode(),
        b" service ,team\n a , x \n",
    ],
)
def test_a_good_file_is_sent_byte_for_byte(data: bytes) -> None:
    found, rejects = judged(data)
    assert found.body == data
    assert wire_form(data) == (data, [])
    assert (rejects, found.rejected, found.warnings) == ([], 0, [])
    assert found.rows_in == len(found.rows) == len(parsed(data)) - 1


@EXAMPLES
@given(rows=st.lists(st.tuples(CELL, CELL), max_size=6), quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]))
@example(rows=[("", "")], quoting=csv.QUOTE_ALL)
def test_whatever_is_left_out_the_rest_is_sent_as_it_stood_and_every_row_is_counted(
    rows: list[tuple[str, str]],
    quoting: int,
) -> None:
    """The law, and its bytes: what is sent has the rows that are good, and they alone, as they were written."""
    out = io.StringIO()
    csv.writer(out, quoting=quoting, lineterminator="\n").writerows([("key", "value"), *rows])  # type: ignore[arg-type] # one of csv's constants
    data = out.getvalue().encode(errors="surrogateescape")
    found, rejects = judged(data)
    kept = parsed(found.body)[1:]
    good: dict[str, str] = {}
    for key, value in rows:
        is_text = not any("\ud800" <= char <= "\udfff" for char in key + value)
        if key.strip() and is_text and key not in good:
            good[key] = value
    assert kept == [list(pair) for pair in good.items()]
    assert found.rows == {key: csv_line((key, value)) for key, value in good.items()}
    assert found.rows_in == len(found.rows) + len(rejects)
    assert found.rows_in == sum(1 for row in rows if "".join(row).strip())
    assert judged(found.body)[0].rows == found.rows
    found.body.decode()
    if len(good) == len(rows):
        assert found.body == data


@EXAMPLES
@given(rows=st.dictionaries(CELL.filter(lambda cell: "\udcff" not in cell), st.sampled_from(["", "x", 'a"b', "c\nd"])))
def test_the_same_rows_of_a_source_give_the_same_bytes_in_whatever_order(rows: dict[str, str]) -> None:
    lines = {key: csv_line((key, value)) for key, value in rows.items()}
    body = made(("key", "value"), lines)
    assert body == made(("key", "value"), dict(reversed(lines.items())))
    assert parsed(body) == [["key", "value"], *([key, rows[key]] for key in sorted(rows))]
    assert body.endswith(b"\n")


# --- the wire form ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "body", "said"),
    [
        (BOM + b"k,v\na,1\n", b"k,v\na,1\n", ["byte order mark"]),
        (BOM + BOM + b"k,v\na,1\n", b"k,v\na,1\n", ["byte order mark"]),
        (b"k,v\r\na,1\r\n", b"k,v\na,1\n", ["carriage returns"]),
        (b"k,v\ra,1\r", b"k,v\na,1\n", ["carriage returns"]),
        (BOM + b'k,v\r\na,"x\r\ny"\r\n', b'k,v\na,"x\ny"\n', ["byte order mark", "carriage returns"]),
        (b"k,v\na,\xef\xbb\xbf1\n", b"k,v\na,\xef\xbb\xbf1\n", []),
    ],
)
def test_what_infracost_does_not_take_is_mended_and_said(data: bytes, body: bytes, said: list[str]) -> None:
    """Row 5: a byte order mark and carriage returns, which spreadsheets write."""
    found, warnings = wire_form(data)
    assert found == body
    assert [words in warning for words, warning in zip(said, warnings, strict=True)] == [True] * len(said)


def test_lines_with_nothing_but_commas_are_left_out_and_said() -> None:
    """A spreadsheet saves its empty rows too, and Infracost would read a row without a key."""
    found, rejects = judged(b",,\nk,v,w\na,1,2\n, ,\n\nb,3,4\n,,\n")
    assert found.body == b"k,v,w\na,1,2\n\nb,3,4\n"
    assert (found.rows_in, rejects) == (2, [])
    assert found.warnings == ["3 lines with nothing but commas and blanks were left out"]


# --- rows that are left out -------------------------------------------------------------------------------------------


def test_a_bad_row_is_named_with_its_line_and_the_others_stay_as_they_are() -> None:
    data = b'key,value\na,1\n"b",2\na,3\n,4\nc\nd,5,6\ne,\xff\n"f\n",7\n'
    found, rejects = judged(data)
    assert [(row.line, row.values, row.error) for row in rejects] == [
        (4, ("a", "3"), "the key 'a' stands in a row before"),
        (5, ("", "4"), "the key (key) is empty"),
        (6, ("c",), "the row has 1 values, the header has 2 names"),
        (7, ("d", "5", "6"), "the row has 3 values, the header has 2 names"),
        (8, ("e", "\udcff"), "the row has bytes that are not UTF-8"),
    ]
    assert all(row.fix and row.columns == ("key", "value") for row in rejects)
    assert found.body == b'key,value\na,1\n"b",2\n"f\n",7\n'
    assert (found.rows_in, found.rejected) == (8, 5)


def test_the_first_of_two_rows_with_one_key_is_the_one_that_counts() -> None:
    found, _ = judged(b"k,v\na,1\nb,2\na,3\n")
    assert found.rows == {"a": "a,1", "b": "b,2"}


@pytest.mark.parametrize("keys", [("a", "A"), ("a", " a"), ("a", "a ")])
def test_keys_are_compared_exactly(keys: tuple[str, str]) -> None:
    found, rejects = judged(f"k,v\n{keys[0]},1\n{keys[1]},2\n".encode())
    assert (len(found.rows), rejects) == (2, [])


# --- files that are refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b"k,v,v", "a column stands twice"),
        (b"k,v, v ", "a column stands twice"),
        (b"k,,v", "a column has no name"),
        (b"k,v,", "a column has no name"),
        (b"k,v\xff", "a column has no name"),
        (b"k,v\x00", "a column has no name"),
        (b"k", "there is a key, but no property"),
    ],
)
def test_a_header_that_cannot_be_used_refuses_the_file(header: bytes, reason: str) -> None:
    refusal = refused(b"\n" + header + b"\na,1,2\n")
    assert (refusal.reason, refusal.line) == (reason, 2)


def test_a_quote_that_is_never_closed_refuses_the_file_with_its_line() -> None:
    assert refused(b'k,v\na,1\n"b,2\nc,3\n').line == 3


@pytest.mark.parametrize("data", [b"", b"\n", b"k,v", b"k,v\n", b"k,v\n,\n"])
def test_a_file_without_rows_has_none(data: bytes) -> None:
    found, rejects = judged(data)
    assert (found.rows, found.rows_in, rejects) == ({}, 0, [])


def test_a_file_is_read_whole_however_it_is_handed_out() -> None:
    """Row 5: pieces of one byte, or of any size."""
    data = "k,v\na,\U0001f600\n".encode()
    assert whole("p.csv", Trickle(data, [1])) == whole("p.csv", io.BytesIO(data)) == data


def test_a_file_without_an_end_is_refused_before_it_fills_the_memory() -> None:
    """Row 7: it would be held in memory, and sent as one body."""
    given_bytes = 0

    class Endless:
        def read(self, size: int, /) -> bytes:
            nonlocal given_bytes
            given_bytes += size
            return b"\n" * size

    with pytest.raises(InputRefused, match="the file is larger than 20,000,000 bytes"):
        whole("p.csv", Endless())
    assert given_bytes < MAX_BYTES + (2 << 20)


# --- mended rows ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "mended", "body"),
    [
        (b"k,v\na,1\n,2\nc,3", {3: {"k": "b", "v": "2"}}, b"k,v\na,1\nb,2\nc,3"),
        (b'k,v\n"a",1\nb,2,3\n', {3: {"k": "b", "v": "2, 3"}}, b'k,v\n"a",1\nb,"2, 3"\n'),
        (b"k,v\na,1\nb", {3: {"k": "b", "v": "2"}}, b"k,v\na,1\nb,2\n"),
        (b"k,v\na,1\nb,\xff\n", {3: {"k": "b", "v": "2"}}, b"k,v\na,1\nb,2\n"),
        (b"k,v\na,1\n,2\n", {3: {"k": "b", "v": "2\r\n3\r"}}, b'k,v\na,1\nb,"2\n3\n"\n'),
        (b"k,line\na,1\n,2\n", {3: {"k": "b"}}, b"k,line\na,1\nb,2\n"),
    ],
)
def test_a_mended_row_stands_in_the_place_of_the_one_in_the_file(data: bytes, mended: Mended, body: bytes) -> None:
    found, rejects = judged(data, mended)
    assert found.body == body
    assert rejects == []
    assert judged(body)[0].rows == found.rows


def test_a_mended_row_that_is_still_bad_is_named_again() -> None:
    found, rejects = judged(b"k,v\na,1\n,2\n", {3: {"k": "a", "v": "2"}})
    assert [(row.line, row.error) for row in rejects] == [(3, "the key 'a' stands in a row before")]
    assert found.body == b"k,v\na,1\n"


def test_a_mended_row_that_belongs_to_no_row_is_refused_and_never_ignored() -> None:
    assert refused(b"k,v\na,1\n", {7: {"k": "b"}}).reason == "a mended row is for a line on which no row begins"
    assert refused(b"k,v\na,1\n", {1: {"k": "b"}}).reason == "a mended row is for a line on which no row begins"
    assert "a column that the file does not have" in refused(b"k,v\n,1\n", {2: {"k": "b", "w": "2"}}).reason

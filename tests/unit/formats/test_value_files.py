"""Lists of allowed values: CSV, JSON and plain text, each row with the line that names it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping

import pytest
from finops_relay.errors import InputRefused, ShortRead
from finops_relay.formats.rejected_rows import RejectedFile, RejectedRow, read_mended
from finops_relay.formats.value_files import MAX_BYTES, MAX_MESSAGE_CHARS, ValueFile, ValueRow, open_values
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.formats.test_csv_rows import HOSTILE, Trickle

BOM = b"\xef\xbb\xbf"
TAG = "CostCenter"
EXAMPLES = settings(max_examples=150)
Mended = Mapping[int, Mapping[str, str]]


def opened(name: str, data: bytes, mended: Mended | None = None) -> tuple[list[ValueRow], ValueFile]:
    """Return the rows of a list, and what else it says."""
    found = open_values(name, TAG, io.BytesIO(data), mended)
    return list(found.rows), found


def values(name: str, data: bytes, mended: Mended | None = None) -> list[tuple[int, str]]:
    """Return the line and the value of each row; none has a problem."""
    rows, _ = opened(name, data, mended)
    assert [row.problem for row in rows] == [""] * len(rows)
    return [(row.line, row.value) for row in rows]


def refused(name: str, data: bytes, mended: Mended | None = None) -> InputRefused:
    """Return why a list is refused."""
    with pytest.raises(InputRefused) as refusal:
        opened(name, data, mended)
    assert refusal.value.file == name
    assert refusal.value.fix
    str(refusal.value).encode()  # it goes into a receipt
    return refusal.value


# --- CSV --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header", ["value", "Value", " VALUES ", "allowed_value", "allowedValues", "allowed_values", "costcenter", TAG]
)
def test_the_column_of_the_values_is_found_by_its_name_or_the_tags(header: str) -> None:
    assert values("a.csv", f"name,{header}\nA,a\nB,b\n".encode()) == [(2, "a"), (3, "b")]


def test_a_column_named_value_is_meant_also_beside_one_named_after_the_tag() -> None:
    assert values("a.csv", b"CostCenter,value\n1,a\n") == [(2, "a")]


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("name,owner", "no column of the first line is named value"),
        ("app-1", "no column of the first line is named value"),
        ("value,values", "several columns could be the one of the values"),
        ("value,value", "several columns could be the one of the values"),
        ("na\udcffme", "no column of the first line is named value"),
    ],
)
def test_a_csv_without_one_column_of_values_is_refused_with_the_way_to_say_it(header: str, reason: str) -> None:
    refusal = refused("a.csv", f"\n{header}\na,b\n".encode(errors="surrogateescape"))
    assert (refusal.reason, refusal.line) == (reason, 2)
    assert "a list without a header is dropped as .txt" in refusal.fix


@pytest.mark.parametrize("name", ["a.csv", "A.CSV", "incoming/x/b.Csv"])
def test_a_csv_is_read_as_spreadsheets_write_it(name: str) -> None:
    """Row 5: BOM, CRLF, quotes, blank lines and separators alone."""
    data = BOM + b'\r\nname,value\r\n"A, Inc.","a ""1"""\r\n,\r\n\r\nB,b\r\n'
    assert values(name, data) == [(3, 'a "1"'), (6, "b")]


def test_a_row_that_is_too_short_has_no_value_and_one_that_is_too_long_has_a_problem() -> None:
    rows, _ = opened("a.csv", b"name,value\nA\nB,b,surplus\nC,c\n")
    assert [(row.line, row.value, row.problem) for row in rows] == [
        (2, "", ""),
        (3, "b", "the row has 3 values, the header has 2 names"),
        (4, "c", ""),
    ]
    assert rows[1].cells == ("B", "b", "surplus")
    assert rows[1].fix == "quote a value that has commas"


def test_a_quote_that_is_never_closed_is_named_by_its_line() -> None:
    assert refused("a.csv", b'value\na\n"b\nc\n').line == 3


@EXAMPLES
@given(found=st.lists(HOSTILE, max_size=6), sizes=st.lists(st.integers(1, 9), min_size=1, max_size=3))
def test_a_csv_gives_the_same_rows_however_it_is_handed_out(found: list[str], sizes: list[int]) -> None:
    """Row 5: a character across a read border, or a newline inside a quoted field, changes nothing."""
    out = io.StringIO()
    csv.writer(out, quoting=csv.QUOTE_ALL).writerows([("value", "x"), *((value, "x") for value in found)])
    data = out.getvalue().encode(errors="surrogateescape")
    whole, _ = opened("a.csv", data)
    assert [row.value for row in whole] == found
    assert list(open_values("a.csv", TAG, Trickle(data, sizes)).rows) == whole


# --- plain text -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("last", [True, False])
def test_a_text_has_a_value_on_each_line_that_is_not_blank(end: bytes, *, last: bool) -> None:
    """Row 5: BOM, and the line ends of every system."""
    data = BOM + end.join([b"a", b"", b"b, c", b"  ", b" d "]) + (end if last else b"")
    assert values("a.txt", data) == [(1, "a"), (3, "b, c"), (5, " d ")]


def test_no_other_character_ends_a_line_and_every_byte_survives() -> None:
    """Row 5: U+2028 stays within its value; a line that is not UTF-8 keeps its number and its bytes."""
    data = "a\u2028b\u0085c\x0bd\n".encode() + b"caf\xe9\n" + b"e\n"
    found = values("a.txt", data)
    assert found == [(1, "a\u2028b\u0085c\x0bd"), (2, "caf\udce9"), (3, "e")]
    assert found[1][1].encode(errors="surrogateescape") == b"caf\xe9"


@EXAMPLES
@given(data=st.binary(max_size=60) | HOSTILE.map(lambda text: text.encode(errors="surrogateescape")))
def test_a_text_of_any_bytes_gives_its_lines_back(data: bytes) -> None:
    """Row 5: for whatever was dropped, nothing is lost and nothing made up."""
    found = values("a.txt", data)
    lines = data.removeprefix(BOM).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    assert [(line, value.encode(errors="surrogateescape")) for line, value in found] == [
        (number, line) for number, line in enumerate(lines, 1) if line.strip()
    ]
    pieces = open_values("a.txt", TAG, Trickle(data, [1, 3]))
    assert [(row.line, row.value) for row in pieces.rows] == found


@pytest.mark.parametrize("name", ["a.csv", "a.txt"])
@pytest.mark.parametrize("data", [b"", BOM, b"\n\r\n  \n"])
def test_an_empty_list_has_no_rows(name: str, data: bytes) -> None:
    assert opened(name, data)[0] == []


# --- JSON -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["values", "allowed_values", "allowedValues"])
def test_a_json_list_stands_alone_or_under_its_name(name: str) -> None:
    assert values("a.json", BOM + b' ["a", "b"] ') == [(1, "a"), (2, "b")]
    assert values("a.json", json.dumps({name: ["a", "b"]}).encode()) == [(1, "a"), (2, "b")]


def test_a_json_value_is_the_text_that_stood_there() -> None:
    data = b'["a", 7, 1.50, 1e5, true, null, "\\ud83d\\ude00", 100000000000000000000000000000000]'
    found = ["a", "7", "1.50", "1e5", "true", "", "\U0001f600", "100000000000000000000000000000000"]
    assert [value for _, value in values("a.json", data)] == found


def test_a_json_item_that_is_no_value_is_named_by_its_place() -> None:
    rows, _ = opened("a.json", b'["a", ["b"], {"value": "c"}, {"a": 1, "a": 2}, "d\\ud83d", "e"]')
    assert [row.problem for row in rows] == [
        "",
        "item 2 is a list, not a value",
        "item 3 is an object, not a value",
        "item 4 is an object, not a value",
        "item 5 has half of a character",
        "",
    ]
    assert [row.cells for row in rows[1:5]] == [("a list",), ("an object",), ("an object",), ("d\\ud83d",)]
    assert all(row.fix for row in rows if row.problem)


def test_a_json_object_may_say_more_of_its_tag() -> None:
    said = {"message": "see the wiki", "mandatory": False, "values": ["a"]}
    assert opened("a.json", json.dumps(said).encode())[1].settings == {"message": "see the wiki", "mandatory": False}
    longest = {"message": "x" * MAX_MESSAGE_CHARS, "values": []}
    assert opened("a.json", json.dumps(longest).encode())[1].settings == {"message": "x" * MAX_MESSAGE_CHARS}


@pytest.mark.parametrize(
    ("text", "reason", "value"),
    [
        ('{"values": ["a"], "colour": "red"}', "a member is no setting of a tag", "colour: red"),
        ('{"values": ["a"], "value_type": "ANY"}', "a member is no setting of a tag", "value_type: ANY"),
        ('{"values": ["a"], "mandatory": "yes"}', "a member is no setting of a tag", "mandatory: yes"),
        ('{"values": ["a"], "mandatory": 1}', "a member is no setting of a tag", "mandatory: 1"),
        ('{"values": ["a"], "message": null}', "a member is no setting of a tag", "message: None"),
        ('{"values": ["a"], "message": ["x"]}', "a member is no setting of a tag", "message: ['x']"),
        ('{"values": ["a"], "\\ud83d": "x"}', "a member is no setting of a tag", "\ud83d: x"),
        ('{"values": ["a"], "message": "\\ud83d"}', "the message has half of a character", "message: \ud83d"),
        ('{"values": ["a"], "message": "a", "message": "b"}', "a member stands twice", "message"),
        ('{"values": ["a"], "allowed_values": ["b"]}', "the object has no list of values", "values, allowed_values"),
        ('{"value": ["a"]}', "the object has no list of values", "value"),
        ("{}", "the object has no list of values", ""),
        ('{"values": "a, b"}', "the values are no list", "a, b"),
        ('"a"', "the values are no list", "a"),
        ("7", "the values are no list", "7"),
        ("", "the file is no JSON", ""),
        ("a, b", "the file is no JSON", ""),
        ('["a",]', "the file is no JSON", ""),
        ('["a"]["b"]', "the file is no JSON", ""),
        ("[" * 100_000, "the file is nested too deeply", ""),
    ],
)
def test_a_json_that_is_something_else_is_refused_by_what_it_says(text: str, reason: str, value: str) -> None:
    refusal = refused("a.json", text.encode())
    assert refusal.reason.startswith(reason)
    assert refusal.value == value


def test_a_message_that_nobody_would_read_is_refused() -> None:
    said = {"values": ["a"], "message": "x" * (MAX_MESSAGE_CHARS + 1)}
    assert "more than 2,000 characters" in refused("a.json", json.dumps(said).encode()).reason


def test_a_json_that_is_not_utf8_or_has_a_fault_is_named_by_its_line() -> None:
    """Row 5: the bytes of a JSON text cannot be told apart by rows, so that the whole of it is refused."""
    assert refused("a.json", b'["a",\n"b\xff"]').line == 2
    assert refused("a.json", b'["a",\n\n"b" "c"]').line == 3
    assert refused("a.json", '["a"]'.encode("utf-16")).reason == "the file is not UTF-8"


# --- how much there may be --------------------------------------------------------------------------------------------


class Endless:
    """A stream of one byte without an end."""

    def __init__(self, byte: bytes) -> None:
        self.given = 0
        self._piece = byte * (1 << 20)

    def read(self, size: int, /) -> bytes:
        self.given += min(size, len(self._piece))
        return self._piece[:size]


@pytest.mark.parametrize("name", ["a.txt", "a.json"])
def test_a_list_without_an_end_is_refused_before_it_fills_the_memory(name: str) -> None:
    """Row 7: a ceiling on bytes, said in the refusal."""
    stream = Endless(b"\n")
    with pytest.raises(InputRefused, match="the list is larger than 10,000,000 bytes"):
        open_values(name, TAG, stream)
    assert stream.given < MAX_BYTES + (2 << 20)


def test_a_csv_of_one_line_without_an_end_is_refused() -> None:
    """Row 7: what has no line end at all is told long before the ceiling on bytes."""
    stream = Endless(b"x")
    with pytest.raises(InputRefused, match="longer than 1,048,576 bytes"):
        list(open_values("a.csv", TAG, stream).rows)
    assert stream.given < (4 << 20)


@pytest.mark.parametrize("name", ["a.csv", "a.txt", "a.json"])
def test_a_stream_that_breaks_is_never_taken_for_a_whole_list(name: str) -> None:
    """Row 6: what was read so far is no list."""

    class Broken:
        def read(self, _: int, /) -> bytes:
            msg = "broke off"
            raise ShortRead(msg)

    with pytest.raises(ShortRead):
        list(open_values(name, TAG, Broken()).rows)


# --- mended rows ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "data", "bad", "written", "after"),
    [
        ("a.csv", b"name,value\nA,a\nB,b,x\nC,c\n", 3, {"name": "B", "value": "bb"}, [(2, "a"), (3, "bb"), (4, "c")]),
        ("a.csv", b"name,value\nA,a\nB,b!\n", 3, {"value": "bb"}, [(2, "a"), (3, "bb")]),
        ("a.txt", b"a\n\nb!\nc\n", 3, {"value": "bb"}, [(1, "a"), (3, "bb"), (4, "c")]),
        ("a.json", b'["a", {"x": 1}, "c"]', 2, {"value": "bb"}, [(1, "a"), (2, "bb"), (3, "c")]),
    ],
)
def test_a_mended_row_stands_in_the_place_of_the_one_in_the_file(
    name: str, data: bytes, bad: int, written: dict[str, str], after: list[tuple[int, str]]
) -> None:
    assert values(name, data, {bad: written}) == after


@pytest.mark.parametrize(
    ("name", "data"), [("a.csv", b"value\na\nb\n"), ("a.txt", b"a\nb\n"), ("a.json", b'["a", "b"]')]
)
def test_a_mended_row_that_belongs_to_no_row_is_refused_and_never_ignored(name: str, data: bytes) -> None:
    assert refused(name, data, {9: {"value": "c"}}).reason == "a mended row is for a line on which no row begins"
    assert "a column that the file does not have" in refused(name, data, {2: {"valeu": "c"}}).reason


@EXAMPLES
@given(found=st.lists(HOSTILE.filter(str.strip), min_size=1, max_size=5, unique=True))
def test_rejected_rows_that_come_back_as_they_went_change_nothing(found: list[str]) -> None:
    out = io.StringIO()
    csv.writer(out, quoting=csv.QUOTE_ALL).writerows([("name", "value"), *(("x", value) for value in found)])
    data = out.getvalue().encode(errors="surrogateescape")
    rows, _ = opened("a.csv", data)
    mended = io.BytesIO()
    with RejectedFile() as rejects:
        for row in rows:
            rejects.add("", RejectedRow(row.line, row.columns, row.cells, "bad", "mend it"))
        rejects.write_to(mended.write)
    mended.seek(0)
    assert values("a.csv", data, read_mended(mended, "m.csv")[""]) == [(row.line, row.value) for row in rows]

from __future__ import annotations

import csv
import io

import pytest
from finops_relay.errors import InputRefused, ShortRead
from finops_relay.formats.csv_rows import RECORD_BYTES, RecordReader, csv_line, is_blank, single_lines
from hypothesis import given, settings
from hypothesis import strategies as st

HOSTILE = st.text(st.sampled_from('ab,"\n\r\u2028\u0085\x0b\x00é😀\udcff\udc80\ufeff ;=\t'), max_size=12)
"""Text of whatever breaks naive readers; lone surrogates stand for bytes that are not UTF-8."""


class Trickle(io.RawIOBase):
    """A stream that hands out as few bytes at once as *sizes* say."""

    def __init__(self, data: bytes, sizes: list[int]) -> None:
        self._data = io.BytesIO(data)
        self._sizes = sizes or [1]
        self._turn = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        self._turn += 1
        return self._data.read(min(size, self._sizes[self._turn % len(self._sizes)]))


def read(data: bytes, block_bytes: int = 256 * 1024) -> list[tuple[int, list[str]]]:
    reader = RecordReader("sheet.csv", io.BytesIO(data), block_bytes=block_bytes)
    return [(record.line, record.values) for record in reader]


def test_a_record_carries_the_physical_line_on_which_it_begins() -> None:
    assert read(b'a,b\n"1\n2",3\n\nx,y') == [(1, ["a", "b"]), (2, ["1\n2", "3"]), (4, []), (5, ["x", "y"])]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_kind_of_line_end_separates_rows_and_counts_as_one_line(end: str) -> None:
    data = end.join(["a,b", "1,2", '"x' + end + 'y",4', "5,6"]).encode()
    assert read(data, 5) == [(1, ["a", "b"]), (2, ["1", "2"]), (3, [f"x{end}y", "4"]), (5, ["5", "6"])]


def test_a_bom_is_no_part_of_the_first_name_and_inside_the_file_it_stays() -> None:
    assert read(b"\xef\xbb\xbfa,b\n\xef\xbb\xbf1,2\n") == [(1, ["a", "b"]), (2, ["\ufeff1", "2"])]


def test_separators_of_unicode_are_no_line_ends() -> None:
    text = "a\u2028b,c\u0085d,e\x0bf,g\x1ch\n"
    assert read(text.encode()) == [(1, ["a\u2028b", "c\u0085d", "e\x0bf", "g\x1ch"])]


def test_bytes_that_are_not_utf8_survive() -> None:
    data = b"a\xff\xfe,\xed\xa0\x80,b\n"
    [(_, values)] = read(data)
    assert (csv_line(values) + "\n").encode(errors="surrogateescape") == data


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(st.lists(HOSTILE, min_size=1, max_size=4), max_size=8),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    sizes=st.lists(st.integers(1, 9), max_size=5),
    block_bytes=st.integers(3, 40),
)
def test_the_rows_are_the_same_for_any_chunking_of_the_stream(
    rows: list[list[str]], end: str, sizes: list[int], block_bytes: int
) -> None:
    """Fault row 5: neither what the stream gives at once nor where blocks are cut shows in the records."""
    data = end.join(map(csv_line, rows)).encode(errors="surrogateescape")
    reader = RecordReader("sheet.csv", Trickle(data, sizes), block_bytes=block_bytes)
    assert [(record.line, record.values) for record in reader] == read(data)


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(st.lists(HOSTILE, min_size=2, max_size=4), max_size=8),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    block_bytes=st.integers(3, 40),
)
def test_what_was_written_is_read_again_byte_for_byte(rows: list[list[str]], end: str, block_bytes: int) -> None:
    data = end.join(map(csv_line, rows)).encode(errors="surrogateescape")
    if data.startswith(b"\xef\xbb\xbf"):
        data = b"\xef\xbb\xbf" + data
    assert [values for _, values in read(data, block_bytes)] == rows


@settings(max_examples=100, deadline=None)
@given(lines=st.lists(st.text(st.sampled_from('a,"'), max_size=6), max_size=8))
def test_lines_are_only_taken_one_by_one_when_each_is_a_record_of_its_own(lines: list[str]) -> None:
    try:
        expected = [next(csv.reader([line], strict=True)) for line in lines]
    except csv.Error:
        assert single_lines(lines) is None
    else:
        assert single_lines(lines) == expected


def test_an_unclosed_quote_is_refused_with_the_line_on_which_its_record_begins() -> None:
    with pytest.raises(InputRefused, match="close the quote") as refusal:
        read(b'a,b\n1,2\n3,"4\n5,6\n7,8\n', 8)
    assert (refusal.value.file, refusal.value.line) == ("sheet.csv", 3)


def test_text_behind_a_closing_quote_is_refused_with_its_line() -> None:
    with pytest.raises(InputRefused) as refusal:
        read(b'a,b\n1,"2"x\n' + b"3,4\n" * 600_000)
    assert refusal.value.line == 2
    assert "expected after" in refusal.value.reason


class Endless(io.RawIOBase):
    """A gigabyte of one thing, which remembers how much of it was read."""

    def __init__(self, start: bytes, repeated: bytes) -> None:
        self._start = start
        self._repeated = repeated
        self.given = 0

    def read(self, size: int = -1, /) -> bytes:
        if self.given >= 1_000_000_000:
            return b""
        if self._start:
            data, self._start = self._start, b""
        else:
            data = self._repeated * (size // len(self._repeated))
        self.given += len(data)
        return data


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("start", "repeated"),
    [(b'a,b\n"', b"x" * 80 + b"\n"), (b'a,b\n"', b"x"), (b"a,b\n", b"x"), (b'a,b\n"x', b'\n","x')],
    ids=["a quoted field of many lines", "a quoted field without a line end", "one line", "a record of many fields"],
)
def test_a_record_without_an_end_is_refused_long_before_it_is_read_whole(start: bytes, repeated: bytes) -> None:
    """Fault row 7: a gigabyte that is one quoted field costs a few megabytes."""
    stream = Endless(start, repeated)
    with pytest.raises(InputRefused) as refusal:
        list(RecordReader("sheet.csv", stream))
    assert refusal.value.line == 2
    assert stream.given < 3 * RECORD_BYTES


def test_an_error_of_the_stream_passes_unchanged() -> None:
    class Broken(io.RawIOBase):
        def read(self, _size: int = -1, /) -> bytes:
            raise ShortRead("12 of 34 bytes")

    with pytest.raises(ShortRead):
        list(RecordReader("sheet.csv", Broken()))


@pytest.mark.parametrize("values", [[], [""], ["", " ", "\t"], ["\u00a0", ""]])
def test_a_line_of_separators_and_white_space_is_blank(values: list[str]) -> None:
    assert is_blank(values)


def test_a_line_with_anything_in_it_is_not_blank() -> None:
    assert not is_blank(["", "0"])


def test_quotes_stand_only_where_a_value_needs_them() -> None:
    assert csv_line(["a b", "c,d", 'e"f', "g\nh", "i\rj", ""]) == 'a b,"c,d","e""f","g\nh","i\rj",'

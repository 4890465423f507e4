from __future__ import annotations

import contextlib
import gzip
import io
import random
import struct
import tracemalloc
import zipfile
import zlib
from typing import BinaryIO

import pytest
from finops_relay.errors import InputRefused, ShortRead, SourceGone
from finops_relay.formats.archives import DIRECTORY_BYTES, Budget, Ceilings, csv_members, printable
from hypothesis import given, settings
from hypothesis import strategies as st

CSV = b"a,b\n1,2\n"
NOISE = random.Random(1).randbytes(300_000).hex().encode()  # noqa: S311 -- content that does not shrink, no secret


def read(data: bytes, name: str = "in/sheet.csv", budget: Budget | None = None) -> dict[str, bytes]:
    """Every member's name and content."""
    budget = budget or Budget()
    source = io.BufferedReader(io.BytesIO(data))
    members: dict[str, bytes] = {}
    for member in csv_members(name, source, len(data), budget):
        with member.open() as stream:
            members[member.name] = stream.read()
    return members


def drain(source: BinaryIO, encoded_bytes: int, budget: Budget) -> None:
    """Reads every member and keeps nothing."""
    for member in csv_members("in/sheet.csv", source, encoded_bytes, budget):
        with member.open() as stream:
            while stream.read(100_000):
                pass


def zipped(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return target.getvalue()


def refusal(data: bytes, budget: Budget | None = None) -> InputRefused:
    with pytest.raises(InputRefused) as refused:
        read(data, budget=budget)
    assert refused.value.fix, "a refusal says what to do"
    assert refused.value.file.startswith("in/sheet.csv")
    return refused.value


@pytest.mark.parametrize("name", ["in/sheet.csv", "in/sheet.csv.gz", "in/sheet.zip", "in/sheet"])
def test_the_kind_of_a_file_is_told_by_its_content_and_not_by_its_name(name: str) -> None:
    assert read(CSV, name) == {name: CSV}
    assert read(gzip.compress(CSV), name) == {name: CSV}
    assert read(zipped(("part.csv", CSV)), name) == {f"{name}!part.csv": CSV}


def test_a_gzip_of_several_members_is_one_file() -> None:
    assert read(gzip.compress(b"a,b\n") + gzip.compress(b"") + gzip.compress(b"1,2\n") + b"\0" * 600) == {
        "in/sheet.csv": CSV
    }


def test_an_empty_gzip_member_in_the_middle_is_not_the_end_of_the_file() -> None:
    first = NOISE[:100_000]
    assert read(gzip.compress(first) + gzip.compress(b"") * 3 + gzip.compress(CSV)) == {"in/sheet.csv": first + CSV}


@pytest.mark.parametrize("lost", [1, 4, 8, 12, 20])
def test_a_truncated_gzip_is_never_taken_for_a_whole_one(lost: int) -> None:
    """Fault row 6."""
    data = gzip.compress(NOISE[:2000])
    assert "truncated" in refusal(data[:-lost]).reason
    assert "truncated" in refusal(gzip.compress(CSV) + data[:-lost]).reason


def test_a_gzip_with_a_wrong_checksum_or_rubbish_behind_it_is_damaged() -> None:
    data = gzip.compress(CSV)
    assert "damaged" in refusal(data[:-8] + bytes([data[-8] ^ 1]) + data[-7:]).reason
    assert "damaged" in refusal(data + b"rubbish").reason


def test_the_members_of_a_zip_come_in_its_order_and_litter_is_passed_over() -> None:
    data = zipped(
        ("folder/", b""),
        ("b.csv", b"b"),
        ("__MACOSX/._b.csv", b"x"),
        (".DS_Store", b"x"),
        ("folder/_SUCCESS", b""),
        ("folder/A.CSV", b"a"),
        ("_c.csv", b"c"),
    )
    assert list(read(data).items()) == [
        ("in/sheet.csv!b.csv", b"b"),
        ("in/sheet.csv!folder/A.CSV", b"a"),
        ("in/sheet.csv!_c.csv", b"c"),
    ]


def test_stored_members_are_read_as_well() -> None:
    assert read(zipped(("a.csv", CSV), method=zipfile.ZIP_STORED)) == {"in/sheet.csv!a.csv": CSV}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (gzip.compress(b""), "empty"),
        (zipped(("a.csv", b"")), "empty"),
        (zipped(("[Content_Types].xml", b"x"), ("xl/workbook.xml", b"x")), "Excel"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100), "Excel"),
        (b"PAR1" + bytes(100), "Parquet"),
        ("a,b\n".encode("utf-16"), "UTF-16"),
        (b"\xfe\xff" + "a,b\n".encode("utf-16-be"), "UTF-16"),
        ("a,b\n".encode("utf-16-le"), "UTF-16"),
        ("a,b\n".encode("utf-32"), "UTF-32"),
        (gzip.compress("a,b\n".encode("utf-16")), "UTF-16"),
        (b"BZh91AY", "bzip2"),
        (b"7z\xbc\xaf\x27\x1c", "7-Zip"),
        (gzip.compress(gzip.compress(CSV)), "archive inside"),
        (gzip.compress(zipped(("a.csv", CSV))), "archive inside"),
        (zipped(("a.csv", gzip.compress(CSV))), "archive inside"),
        (zipped(("a.csv.gz", gzip.compress(CSV))), "archive inside"),
        (zipped(("a.zip", zipped(("a.csv", CSV)))), "archive inside"),
        (zipped(("a.csv", CSV), ("readme.txt", b"x")), "no .csv"),
        (zipped(), "no CSV"),
        (zipped(("folder/", b""), ("._a.csv", CSV)), "no CSV"),
        (zipped(("a.csv", CSV), method=zipfile.ZIP_BZIP2), "method 12"),
        (zipped(("a.csv", CSV), method=zipfile.ZIP_LZMA), "method 14"),
    ],
)
def test_what_is_no_csv_is_refused_by_what_it_is(data: bytes, said: str) -> None:
    assert said in refusal(data).reason


def test_members_of_one_name_are_refused() -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        data = zipped(("a.csv", CSV), ("a.csv", CSV))
    assert "two members" in refusal(data).reason


def test_an_encrypted_member_is_refused() -> None:
    data = bytearray(zipped(("a.csv", CSV)))
    data[data.index(b"PK\x01\x02") + 8] |= 1
    assert refusal(bytes(data)).reason == "the zip member is encrypted"


@pytest.mark.parametrize("name", ["../../etc/a.csv", "/etc/a.csv", "C:\\a.csv", "a\x07\n\u202eb.csv", "ä😀.csv"])
def test_odd_names_of_members_do_no_harm_and_are_shown_printable(name: str) -> None:
    """Fault row 7: a name is only ever shown."""
    [(shown, content)] = read(zipped((name, CSV))).items()
    assert content == CSV
    assert shown == f"in/sheet.csv!{printable(name)}"
    assert shown.isprintable()


def test_a_name_that_is_not_utf8_is_refused_or_shown_but_never_harms() -> None:
    data = zipped(("\u00e4.csv", CSV)).replace("\u00e4.csv".encode(), b"\xff\xfe.csv")
    assert "damaged" in refusal(data).reason


def test_more_members_than_the_ceiling_are_refused_over_all_files_of_a_book() -> None:
    budget = Budget(Ceilings(members=3))
    read(zipped(("a.csv", CSV), ("b.csv", CSV)), budget=budget)
    read(CSV, budget=budget)
    refused = refusal(CSV, budget)
    assert "4 CSV files" in refused.reason
    assert "limit is 3" in refused.reason


def test_decoded_bytes_are_counted_over_all_files_of_a_book() -> None:
    budget = Budget(Ceilings(decoded_bytes=2 * len(CSV)))
    read(gzip.compress(CSV), budget=budget)
    read(CSV, budget=budget)
    assert "decoded bytes" in refusal(CSV, budget).reason


def test_rows_are_counted_over_all_files_of_a_book() -> None:
    budget = Budget(Ceilings(rows=10))
    budget.count_rows("a.csv", 10)
    with pytest.raises(InputRefused, match=r"b\.csv: the book has 11 rows so far, the limit is 10"):
        budget.count_rows("b.csv", 1)


@pytest.mark.parametrize("kind", ["gzip", "zip"])
def test_a_bomb_is_refused_soon_and_in_constant_memory(kind: str) -> None:
    """Fault row 7: bytes that expand a thousand times are refused after some 80 MB, with a few megabytes of memory."""
    engine = zlib.compressobj(9, wbits=31)
    bomb = b"".join([engine.compress(b"\n" * 1_000_000) for _ in range(400)] + [engine.flush()])
    data = bomb if kind == "gzip" else zipped(("a.csv", b"\n" * 120_000_000))
    budget = Budget()
    tracemalloc.start()
    with pytest.raises(InputRefused, match="expands"):
        drain(io.BytesIO(data), len(data), budget)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert budget.decoded_bytes < 90_000_000
    assert peak < 8_000_000


def test_a_zip_that_states_more_than_the_ceiling_is_refused_before_any_of_it_is_read() -> None:
    budget = Budget(Ceilings(decoded_bytes=10))
    assert "decoded bytes" in refusal(zipped(("a.csv", CSV), ("b.csv", CSV)), budget).reason
    assert budget.decoded_bytes == 0


@pytest.mark.parametrize("stated", [len(CSV) - 1, len(CSV) + 1, 1])
def test_a_member_that_is_not_as_long_as_stated_is_refused(stated: int) -> None:
    data = bytearray(zipped(("a.csv", CSV)))
    struct.pack_into("<I", data, data.index(b"PK\x01\x02") + 24, stated)
    struct.pack_into("<I", data, 22, stated)
    refusal(bytes(data))


def test_a_member_with_a_wrong_checksum_is_refused() -> None:
    data = bytearray(zipped(("a.csv", CSV)))
    data[data.index(b"PK\x01\x02") + 16] ^= 1
    assert "damaged" in refusal(bytes(data)).reason


def test_overlapping_members_are_refused() -> None:
    data = bytearray(zipped(("a.csv", CSV), ("b.csv", CSV)))
    second = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 1)
    struct.pack_into("<I", data, second + 42, 0)
    assert "overlap" in refusal(bytes(data)).reason


def test_a_zip_directory_of_any_stated_size_is_not_read_whole() -> None:
    data = bytearray(b"PK\x03\x04" + bytes(2 * DIRECTORY_BYTES)) + zipped(("a.csv", CSV))
    struct.pack_into("<I", data, len(data) - 22 + 12, 2 * DIRECTORY_BYTES)
    assert "directory is larger than" in refusal(bytes(data)).reason


@pytest.mark.parametrize("kept", [4, 10, 30, 60, -1, -10])
def test_a_truncated_zip_is_refused(kept: int) -> None:
    refusal(zipped(("a.csv", CSV), ("b.csv", CSV))[:kept])


@settings(max_examples=300, deadline=None)
@given(changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4), data=st.data())
def test_a_damaged_archive_gives_its_content_or_a_refusal_and_nothing_else(
    changes: list[tuple[int, int]], data: st.DataObject
) -> None:
    sound = data.draw(
        st.sampled_from([zipped(("a.csv", CSV), ("b.csv", CSV * 9)), gzip.compress(CSV), gzip.compress(CSV) * 2])
    )
    damaged = bytearray(sound)
    for place, value in changes:
        damaged[place % len(damaged)] = value
    with contextlib.suppress(InputRefused):
        read(bytes(damaged))


class Failing(io.BytesIO):
    """A source that fails once *good* bytes were read."""

    def __init__(self, data: bytes, good: int, error: Exception) -> None:
        super().__init__(data)
        self._good = good
        self._error = error

    def read(self, size: int | None = -1, /) -> bytes:
        self._good -= size or 0
        if self._good < 0:
            raise self._error
        return super().read(size)


@pytest.mark.parametrize("error", [ShortRead("1 of 2 bytes"), SourceGone("v1"), OSError("disk")])
@pytest.mark.parametrize("good", [0, 5_000, 70_000, 400_000])
@pytest.mark.parametrize("kind", ["plain", "gzip", "zip"])
def test_errors_of_the_source_pass_unchanged(kind: str, good: int, error: Exception) -> None:
    """A broken stream is tried again; turned into a refusal it would be lost."""
    data = {"plain": NOISE, "gzip": gzip.compress(NOISE, 1), "zip": zipped(("a.csv", NOISE))}[kind]
    with pytest.raises(type(error)) as raised:
        drain(Failing(data, good, error), len(data), Budget())
    assert raised.value is error


def test_a_member_can_be_opened_again_and_counts_again() -> None:
    budget = Budget()
    [member] = csv_members("in/sheet.csv", io.BytesIO(gzip.compress(CSV)), 1, budget)
    assert member.open().read() == member.open().read() == CSV
    assert budget.decoded_bytes == 2 * len(CSV)

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import tracemalloc
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

import pytest
from finops_relay.errors import InputRefused, ShortRead
from finops_relay.formats.archives import Budget, Ceilings
from finops_relay.formats.cost_cells import CellFault
from finops_relay.formats.csv_rows import Readable
from finops_relay.formats.json_items import JSON_BYTES
from finops_relay.formats.rejected_rows import RejectedFile, RejectedRow, read_mended
from finops_relay.formats.telemetry import (
    ALLOCATION,
    DAILY,
    HOURLY,
    METRIC,
    MONTHLY,
    Dialect,
    Ident,
    Shape,
    Total,
    keys_of,
    labels_of,
    period_of,
    value_of,
)
from finops_relay.formats.telemetry_files import (
    MAX_RECORDS,
    TELEMETRY_BLOCK_BYTES,
    TelemetryReader,
    open_telemetry_file,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.formats.costs import HOSTILE, sheet
from tests.unit.formats.test_csv_rows import Trickle

LIVE_METRIC, METRIC_ONLY = Dialect(METRIC, live=True), Dialect(METRIC, live=False)
LIVE_ALLOCATION, ALLOCATION_ONLY = Dialect(ALLOCATION, live=True), Dialect(ALLOCATION, live=False)
DIALECTS = (LIVE_METRIC, METRIC_ONLY, LIVE_ALLOCATION, ALLOCATION_ONLY)

BOM = b"\xef\xbb\xbf"
DAY = "2026-03-01T00:00:00Z"
MARCH = 492_312
"""The same in hours since the epoch."""
SAID = ("the vendor refused the record", "mend it")

Row = Mapping[str, str]
Writer = Callable[[Sequence[object]], bytes]

ROW: Row = {"timestamp": DAY, "value": "1.5", "granularity": "DAILY", "filter.team": "core"}
"""One good row of a metric."""
STREAM = Shape(DAILY, ("team",))
CORE = Ident(MARCH, ("core",))


def row(**changes: str) -> dict[str, str]:
    """A good row with some cells changed; a name has ``__`` for its point."""
    return {**ROW, **{name.replace("__", "."): value for name, value in changes.items()}}


def table(*rows: Row, end: str = "\n") -> bytes:
    """A CSV file of rows with the same names."""
    return sheet(list(rows[0]), *([each[name] for name in rows[0]] for each in rows), end=end)


def nested(flat: Mapping[str, object], within: str = "filter") -> dict[str, object]:
    """A row as an object with its dimensions inside."""
    inside = {name.partition(".")[2]: value for name, value in flat.items() if "." in name}
    return {**{name: value for name, value in flat.items() if "." not in name}, **({within: inside} if inside else {})}


def array(objects: Sequence[object]) -> bytes:
    return json.dumps(objects).encode()


def document(objects: Sequence[object]) -> bytes:
    return json.dumps({"records": objects}).encode()


def indented(objects: Sequence[object]) -> bytes:
    return json.dumps({"records": objects}, indent=1).encode()


def ndjson(objects: Sequence[object]) -> bytes:
    return "".join(json.dumps(one) + "\n" for one in objects).encode()


SHAPES: tuple[Writer, ...] = (array, document, indented, ndjson)


@dataclass
class Read:
    """What became of a file."""

    reader: TelemetryReader
    totals: dict[Ident, Total]
    rejected: list[RejectedRow]

    @property
    def sums(self) -> dict[Ident, tuple[Decimal, int]]:
        """What is the same wherever rows stand."""
        return {ident: (total.value, total.rows) for ident, total in self.totals.items()}

    @property
    def errors(self) -> list[tuple[int, str]]:
        """What was wrong, by line."""
        return [(rejected.line, rejected.error) for rejected in self.rejected]


def read(  # noqa: PLR0913 -- a file, and what is special about reading it this time
    data: bytes,
    dialect: Dialect = LIVE_METRIC,
    stream: Shape | None = None,
    mended: Mapping[int, Row] | None = None,
    *,
    deletion: bool = False,
    refused: Mapping[Ident, tuple[str, str]] | None = None,
    only: frozenset[int] | None = None,
    budget: Budget | None = None,
    source: Readable | None = None,
    block_bytes: int = TELEMETRY_BLOCK_BYTES,
) -> Read:
    """Reads one file; no row of it is lost or counted twice."""
    reader = TelemetryReader(
        "usage",
        dialect,
        stream,
        mended,
        deletion=deletion,
        refused=refused,
        only=only,
        budget=budget,
        block_bytes=block_bytes,
    )
    rejected: list[RejectedRow] = []
    totals = reader.totals(source or io.BytesIO(data), rejected.append)
    assert reader.rows_in == sum(total.rows for total in totals.values()) + len(rejected)
    assert all(one.error and one.fix and not one.error.endswith(".") for one in rejected)
    assert (reader.shape is None) == (not totals)
    return Read(reader, totals, rejected)


def refusal(
    data: bytes, dialect: Dialect = LIVE_METRIC, stream: Shape | None = None, *, deletion: bool = False
) -> InputRefused:
    """Reads a file that must be refused."""
    with pytest.raises(InputRefused) as refused:
        read(data, dialect, stream, deletion=deletion)
    assert refused.value.file == "usage"
    assert refused.value.fix, "a refusal says what to do"
    return refused.value


# --- opening ----------------------------------------------------------------------------------------------------------

FORMS = {
    "CSV": table(ROW, ROW),
    "an array": array([nested(ROW), nested(ROW)]),
    "a document": document([nested(ROW), nested(ROW)]),
    "NDJSON": ndjson([nested(ROW), nested(ROW)]),
}


def opened(data: bytes, budget: Budget | None = None) -> bytes:
    with open_telemetry_file("in/usage", io.BytesIO(data), len(data), budget or Budget()) as stream:
        return stream.read()


def _zip(name: str) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr(name, FORMS["CSV"])
    return target.getvalue()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("before", [b"", BOM, b"\n \r\n", BOM + b"\n"])
def test_the_form_of_a_file_is_told_by_its_content(form: str, before: bytes) -> None:
    for data in (FORMS[form], gzip.compress(before + FORMS[form])):
        done = read(opened(data))
        assert done.sums == {CORE: (Decimal(3), 2)}
        assert done.reader.shape == STREAM
        assert done.reader.columns == tuple(ROW)


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
        (bz2.compress(FORMS["CSV"]), "bzip2"),
        (FORMS["CSV"].decode().encode("utf-16"), "UTF-16"),
        (gzip.compress(FORMS["CSV"])[:-4], "truncated"),
        (gzip.compress(gzip.compress(FORMS["CSV"])), "archive inside"),
    ],
)
def test_what_is_no_file_of_telemetry_is_not_opened(data: bytes, said: str) -> None:
    with pytest.raises(InputRefused) as refused:
        opened(data)
    assert said in refused.value.reason
    assert not {"price", "costs"} & set(refused.value.fix.split())


def test_the_ceilings_of_a_delivery_hold_for_its_file() -> None:
    with pytest.raises(InputRefused, match="decoded bytes"):
        opened(gzip.compress(b"x" * 1000), Budget(Ceilings(decoded_bytes=999)))
    with pytest.raises(InputRefused, match="rows"):
        read(table(ROW, row(value="x")), budget=Budget(Ceilings(rows=1)))


def test_an_error_of_the_stream_passes_unchanged() -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            if not data:
                raise ShortRead("12 of 34 bytes")
            return data

    with pytest.raises(ShortRead):
        read(b"", source=Broken(FORMS["CSV"]))


# --- the same records, however they come ------------------------------------------------------------------------------

LABELS = st.sampled_from(["a", "b", " a", "b|a", "a|b", "", "é"]) | HOSTILE
TIMES = st.sampled_from([DAY, "2026-03-01T00:00:00+00:00", "2026-03-02T00:00:00Z", "2026-03-01T07:00:00Z", "soon", ""])
VALUES = (
    st.decimals(0, 10**9, places=6, allow_nan=False, allow_infinity=False).map("{:f}".format)
    | st.sampled_from(["1", "1", "0", "-2", "1e3", ".5", "x", "", "0.1234567890123456", " 7 "])
    | HOSTILE
)


@dataclass(frozen=True)
class Drawn:
    """A file's records, before they are written down."""

    dialect: Dialect
    keys: tuple[str, ...]
    rows: tuple[tuple[str, str, str, tuple[str, ...]], ...]
    """Timestamp, value, element's name (empty for none) and the values of the keys of each."""

    def flat(self) -> list[dict[str, str]]:
        """Each row by column."""
        return [
            {
                "timestamp": timestamp,
                "value": value,
                "granularity": DAILY,
                **({"element_name": element} if self.dialect.kind == ALLOCATION else {}),
                **{f"filter.{key}": label for key, label in zip(self.keys, labels, strict=True)},
            }
            for timestamp, value, element, labels in self.rows
        ]

    def expected(self) -> tuple[dict[Ident, tuple[Decimal, int]], list[dict[str, str]]]:
        """What they add up to, one after the other, and which are bad."""
        sums: dict[Ident, tuple[Decimal, int]] = {}
        bad: list[dict[str, str]] = []
        keys = keys_of(self.keys, self.dialect, element=self.dialect.kind == ALLOCATION)
        for flat, (timestamp, written, element, labels) in zip(self.flat(), self.rows, strict=True):
            values = dict(zip(self.keys, labels, strict=True))
            try:
                ident = Ident(period_of(timestamp, DAILY)[0], labels_of(keys, values, element, self.dialect))
                value = value_of(written, self.dialect)
            except CellFault:
                bad.append(flat)
                continue
            if any(map(odd, flat.values())):
                bad.append(flat)
                continue
            former, count = sums.get(ident, (Decimal(0), 0))
            sums[ident] = former + value, count + 1
        return sums, bad


def odd(cell: str) -> bool:
    """Whether it has what can be sent nowhere, also at its ends, where white space is passed over."""
    return any((c < " " and c not in "\t\n\r") or c == "\x7f" or "\ud800" <= c <= "\udfff" for c in cell)


@st.composite
def files(draw: st.DrawFn) -> Drawn:
    dialect = draw(st.sampled_from(DIALECTS))
    keys = tuple(sorted(draw(st.sets(st.sampled_from(["team", "a.b", "Team", "value"]), max_size=3))))
    elements = st.sampled_from(["cart", "cart", "shop", " "]) if dialect.kind == ALLOCATION else st.just("")
    labels = st.tuples(*(LABELS for _ in keys))
    return Drawn(
        dialect, keys, tuple(draw(st.lists(st.tuples(TIMES, VALUES, elements, labels), min_size=1, max_size=9)))
    )


SPELLINGS = st.sampled_from([str.lower, str.upper, str.title, " {} ".format])


@settings(max_examples=250)
@given(
    files(),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from([b"", BOM]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.lists(st.integers(1, 9), max_size=5),
    st.integers(3, 300),
    st.randoms(use_true_random=False),
    SPELLINGS,
)
def test_a_csv_file_gives_the_same_records_however_it_is_written_and_read(  # noqa: PLR0913, PLR0917 -- all that may differ
    drawn: Drawn,
    end: str,
    bom: bytes,
    quoting: int,
    sizes: list[int],
    block_bytes: int,
    random: object,
    spelt: Callable[[str], str],
) -> None:
    """Fault row 5."""
    flat = drawn.flat()
    names = list(flat[0])
    random.shuffle(names)  # type: ignore[attr-defined]  # hypothesis gives a Random, and types it so in its stubs only
    header = [spelt(name) if "." not in name else name.replace("filter.", "element.") for name in names]
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=quoting, lineterminator=end)  # type: ignore[arg-type]  # one of csv's constants
    writer.writerow(header)
    writer.writerows([each[name] for name in names] for each in flat)
    data = bom + text.getvalue().encode(errors="surrogateescape")
    sums, bad = drawn.expected()
    whole = read(data, drawn.dialect)
    assert whole.sums == sums
    assert [one.values for one in whole.rejected] == [tuple(each[name] for name in names) for each in bad]
    pieces = read(data, drawn.dialect, whole.reader.shape, source=Trickle(data, sizes), block_bytes=block_bytes)
    assert (pieces.totals, pieces.rejected) == (whole.totals, whole.rejected)
    assert list(pieces.totals) == list(whole.totals)
    assert pieces.reader.warnings == whole.reader.warnings


@settings(max_examples=250)
@given(
    files(),
    st.sampled_from(SHAPES),
    st.sampled_from(["", "filter", "element", "associated_cost", "dimensions"]),
    st.lists(st.integers(1, 9), max_size=5),
)
def test_every_shape_of_json_gives_the_records_of_the_csv(
    drawn: Drawn, write: Writer, within: str, sizes: list[int]
) -> None:
    objects = [nested(each, within) if within else each for each in drawn.flat()]
    data = write(objects)
    done = read(data, drawn.dialect, source=Trickle(gzip.decompress(gzip.compress(data)), sizes))
    sums, bad = drawn.expected()
    assert done.sums == sums
    assert len(done.rejected) == len(bad)


@given(st.lists(st.decimals(0, 10**25, places=30, allow_nan=False, allow_infinity=False), min_size=1, max_size=30))
def test_totals_are_exact_to_the_last_digit(values: list[Decimal]) -> None:
    rows = [row(value=f"{value:f}") for value in values]
    done = read(table(*rows), METRIC_ONLY, block_bytes=300)
    assert [Fraction(total.value) for total in done.totals.values()] == [sum(map(Fraction, values))]


def test_a_total_says_where_its_first_row_begins() -> None:
    rows = [row(filter__team="a\u2028b"), row(value="x"), row(), row(filter__team='"a",b'), row()]
    lines = {ident.labels[0]: total.line for ident, total in read(table(*rows)).totals.items()}
    assert lines == {"a\u2028b": 2, "core": 4, '"a",b': 5}


def test_rows_that_were_added_up_and_times_that_were_cut_are_told() -> None:
    rows = [row(), row(timestamp="2026-03-01T00:00:01Z"), row(timestamp="2026-03-01T23:00:00Z", filter__team="b")]
    assert read(table(*rows, row(value="x"))).reader.warnings == (
        "2 timestamps were cut to the beginning of their period",
        "1 records have several rows, which were added up",
    )
    assert read(table(ROW)).reader.warnings == ()


@pytest.mark.parametrize(("granularity", "hours"), [(HOURLY, 5), (DAILY, 0), (MONTHLY, -24)])
def test_hours_days_and_months_begin_where_they_do_in_utc(granularity: str, hours: int) -> None:
    data = table(row(timestamp="2026-03-02T05:59:59.5Z", granularity=granularity))
    [ident] = read(data).totals
    assert ident.period == MARCH + 24 + hours


# --- dimensions -------------------------------------------------------------------------------------------------------


def test_an_allocation_has_the_element_first_and_its_values_sorted() -> None:
    live = {**row(filter__team="b|a"), "element_name": "cart"}
    assert list(read(table(live), LIVE_ALLOCATION).totals) == [Ident(MARCH, ("cart", "a|b"))]
    listed = {**nested(live), "filter": {"team": ["b", "a"]}}
    assert list(read(array([listed]), LIVE_ALLOCATION).totals) == [Ident(MARCH, ("cart", "a|b"))]


def test_where_an_elements_name_has_no_place_of_its_own_it_is_a_dimension() -> None:
    flat = {**ROW, "element_name": "cart"}
    for data in (
        table(flat),
        table({**ROW, "filter.element_name": "cart"}),
        array([nested(flat, "element")]),
        array([nested({**ROW, "filter.element_name": "cart"})]),
    ):
        done = read(data, ALLOCATION_ONLY)
        assert done.reader.shape == Shape(DAILY, ("element_name", "team"))
        assert list(done.totals) == [Ident(MARCH, ("cart", "core"))]


@pytest.mark.parametrize(
    ("dialect", "values", "said"),
    [
        (LIVE_METRIC, ["a", "b"], "CloudZero takes one"),
        (METRIC_ONLY, ["a", "b"], "CloudZero takes one"),
        (ALLOCATION_ONLY, ["a", "b"], "CloudZero takes one"),
        (LIVE_ALLOCATION, ["a|b"], "a bar in a value"),
        (ALLOCATION_ONLY, ["a|b"], "a bar in a value"),
        (LIVE_ALLOCATION, ["a", " "], "empty value between its bars"),
        (LIVE_ALLOCATION, ["a", ["b"]], "a list or an object among its values"),
        (LIVE_ALLOCATION, [], "team is empty"),
        (LIVE_METRIC, None, "team is empty"),
        (LIVE_METRIC, " ", "team is empty"),
        (LIVE_METRIC, {"a": "b"}, "'team' is a list or an object"),
    ],
)
def test_a_list_of_values_is_taken_only_where_it_means_something(dialect: Dialect, values: object, said: str) -> None:
    element = {"element_name": "cart"} if dialect.kind == ALLOCATION else {}
    good = {**nested(ROW), **element}
    done = read(array([good, {**good, "filter": {"team": values}}]), dialect)
    [(line, error)] = done.errors
    assert said in error
    assert line == 2


def test_one_value_in_a_list_is_that_value_and_other_scalars_are_their_text() -> None:
    for values, label in ((["core"], "core"), (["a|b"], "a|b"), (7, "7"), (1.10, "1.1"), (True, "true")):
        [ident] = read(array([{**nested(ROW), "filter": {"team": values}}])).totals
        assert ident.labels == (label,)


def test_a_json_record_without_a_key_of_the_stream_or_with_another_is_rejected() -> None:
    objects = [nested(ROW), {**nested(ROW), "filter": {}}, nested({**ROW, "filter.x": "1"}), nested(ROW)]
    done = read(ndjson(objects))
    [missing, beyond] = done.rejected
    assert (missing.line, missing.error) == (2, "team is empty, and all records of a stream have its keys")
    assert "keys team, x, and the stream DAILY with the keys team:" in beyond.error
    assert done.sums == {CORE: (Decimal(3), 2)}
    assert done.reader.columns == (*ROW, "filter.x")


def test_a_blank_dimension_is_rejected_and_never_makes_a_stream_without_it() -> None:
    bad = {**nested(ROW), "filter": {"team": "core", "env": ""}}
    good = {**nested(ROW), "filter": {"team": "core", "env": "prod"}}
    done = read(ndjson([bad, good]))
    assert done.errors == [(1, "env is empty, and all records of a stream have its keys")]
    assert done.reader.shape == Shape(DAILY, ("env", "team"))
    assert read(table(row(filter__team=" "), ROW)).errors == [
        (2, "team is empty, and all records of a stream have its keys")
    ]


def test_a_dimension_that_stands_twice_in_an_object_is_rejected() -> None:
    for twice in (
        {**nested(ROW), "filter.team": "x"},
        {**nested(ROW), "element": {"team": "x"}},
        {**nested(ROW), "Value": 2},
    ):
        [(_, error)] = read(ndjson([nested(ROW), twice])).errors
        assert error.endswith("stands twice")
    doubled = b'{"timestamp":"2026-03-01T00:00:00Z","value":1,"granularity":"DAILY","filter":{"a":"1","a":"2"}}'
    assert read(doubled).errors == [(1, "'a' stands twice")]


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"value": None}, "value is empty"),
        ({"value": float("nan")}, "value is no plain number"),
        ({"value": True}, "value is no plain number"),
        ({"value": [1]}, "'value' is a list or an object"),
        ({"value": 0}, "not more than 0"),
        ({"timestamp": None}, "timestamp is empty"),
        ({"timestamp": 1772323200}, "timestamp is no ISO 8601"),
        ({"timestamp": "2026-03-01"}, "timestamp has no offset"),
        ({"granularity": "weekly"}, "granularity is none of"),
        ({"granularity": ""}, "granularity is empty"),
        ({"granularity": "HOURLY"}, "the record is HOURLY, and the stream DAILY"),
        ({"element_name": "x"}, "a metric has no element_name"),
        ({"service": "x"}, "telemetry has no column 'service'"),
        ({"filter": "x"}, "filter is no object"),
        ({"filter": {"": "x"}}, "a dimension is called ''"),
        ({"filter": {"team": "core", **{f"k{n}": "v" for n in range(5)}}}, "more than 5 dimensions"),
        ({"filter": {"team": "a\x00b"}}, "control character"),
        ({"filter": {"team": "\ud83d"}}, "half of a character"),
    ],
)
@pytest.mark.parametrize("write", SHAPES)
def test_a_faulty_record_is_rejected_with_its_number_and_its_neighbours_are_not(
    members: dict[str, object], said: str, write: Writer
) -> None:
    good = nested(ROW)
    done = read(write([good, good, {**good, **members}, good]))
    [(line, error)] = done.errors
    assert said in error
    assert line == 3
    assert done.sums == {CORE: (Decimal("4.5"), 3)}


def test_what_is_no_object_is_rejected_and_a_member_without_a_value_is_nothing() -> None:
    done = read(ndjson([nested(ROW), ["x"], {**nested(ROW), "service": None, "element_name": ""}]) + b"{x\n")
    assert done.errors == [(2, "the element is no JSON object"), (4, "the line is no JSON")]
    assert done.rejected[1].values[-1] == "{x"


def test_a_member_that_is_none_of_telemetrys_is_said_how_to_write() -> None:
    [rejected] = read(ndjson([nested(ROW), {**nested(ROW), "service": "x"}])).rejected
    assert "filter.service" in rejected.fix
    assert "value" in refusal(table({**ROW, "values": "1"})).fix


def test_undecodable_bytes_and_rows_of_another_width_are_rejected_with_their_line() -> None:
    """Fault row 5."""
    data = table(ROW, row(filter__team="a\udcff"), ROW) + b"1,2,3\n\n"
    done = read(data)
    assert [line for line, _ in done.errors] == [3, 5]
    assert "not UTF-8" in done.errors[0][1]
    assert done.rejected[0].values[-1] == "a\udcff"
    assert done.sums == {CORE: (Decimal(3), 2)}


def test_bad_rows_anywhere_are_found_one_by_one_and_nothing_counts_twice() -> None:
    rows = [row(value="x") if n % 7 == 0 or n > 990 else row(value="1") for n in range(1000)]
    done = read(table(*rows), block_bytes=5000)
    assert [line for line, _ in done.errors] == [n + 2 for n in range(1000) if n % 7 == 0 or n > 990]
    assert done.sums == {CORE: (Decimal(1000 - len(done.errors)), 1000 - len(done.errors))}
    assert done.totals[CORE].line == 3


def test_a_file_of_bad_rows_only_is_read_to_its_end() -> None:
    done = read(table(row(value="x"), row(timestamp="")))
    assert done.totals == {}
    assert len(done.rejected) == 2
    assert done.reader.shape is None


# --- the stream's shape -----------------------------------------------------------------------------------------------


def test_where_nobody_knows_the_stream_its_first_good_record_says_what_it_is() -> None:
    rows = [row(value="x", granularity="HOURLY"), row(), row(granularity="HOURLY"), row(granularity="daily ")]
    done = read(table(*rows))
    assert done.reader.shape == STREAM
    assert [line for line, _ in done.errors] == [2, 4]
    assert "the record is HOURLY, and the stream DAILY" in done.errors[1][1]


@settings(max_examples=150)
@given(
    st.lists(
        st.tuples(st.booleans(), st.sampled_from([HOURLY, DAILY]), st.frozensets(st.sampled_from("ab"))),
        min_size=1,
        max_size=12,
    ),
    st.integers(30, 600),
)
def test_the_first_good_record_decides_wherever_it_stands(
    rows: list[tuple[bool, str, frozenset[str]]], block_bytes: int
) -> None:
    objects = [
        {"timestamp": DAY, "value": int(good), "granularity": granularity, "filter": dict.fromkeys(keys, "x")}
        for good, granularity, keys in rows
    ]
    shapes = [Shape(granularity, tuple(sorted(keys))) for _, granularity, keys in rows]
    first = next((shape for shape, (good, *_) in zip(shapes, rows, strict=True) if good), None)
    done = read(ndjson(objects), block_bytes=block_bytes)
    assert done.reader.shape == first
    accepted = [n for n, shape in enumerate(shapes, 1) if rows[n - 1][0] and shape == first]
    assert [line for line, _ in done.errors] == [n for n in range(1, len(rows) + 1) if n not in accepted]
    flat = [row(value=str(int(good)), granularity=granularity) for good, granularity, _ in rows]
    in_csv = read(table(*flat), block_bytes=block_bytes)
    assert (in_csv.reader.shape and in_csv.reader.shape.granularity) == (first and first.granularity)


def test_what_a_known_stream_is_counts_for_every_row() -> None:
    done = read(table(row(granularity="HOURLY"), row()), stream=STREAM)
    assert [line for line, _ in done.errors] == [2]
    objects = [nested({**ROW, "filter.x": "1"}), nested(ROW)]
    assert [line for line, _ in read(ndjson(objects), stream=STREAM).errors] == [1]


def test_a_row_without_a_granularity_has_the_streams() -> None:
    rest = {name: value for name, value in ROW.items() if name != "granularity"}
    for data in (table(rest), table(row(granularity=" ")), array([nested(rest)])):
        done = read(data, stream=STREAM)
        assert (list(done.totals), done.reader.shape) == ([CORE], STREAM)
    assert "no column granularity" in refusal(table(rest)).reason
    assert read(array([nested(rest)])).errors == [(1, "granularity is empty")]


def test_a_csv_file_with_other_keys_than_its_stream_is_refused_whole() -> None:
    refused = refusal(table({**ROW, "filter.x": "1"}), stream=STREAM)
    assert "keys team, x, and the stream DAILY with the keys team:" in refused.reason
    assert refused.line == 1


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (BOM + b" \n", "empty"),
        (b"PAR1....", "Parquet"),
        (table(ROW).split(b"\n")[0], "no rows"),
        (table(ROW).split(b"\n")[0] + b"\n\n , ,\n", "no rows"),
        (b"a,b\n1,2\n", "no header of telemetry"),
        (table(ROW).replace(b",", b";"), "semicolons"),
        (table(ROW).replace(b",", b"\t"), "tabs"),
        (table(ROW).replace(b"timestamp", b"Value2"), "no column 'Value2'"),
        (table({"timestamp": DAY, "granularity": "DAILY"}), "no column value"),
        (table({"value": "1", "granularity": "DAILY"}), "no column timestamp"),
        (table({**ROW, "team": "x"}), "no column 'team'"),
        (table({**ROW, "filter": "x"}), "filter is no object"),
        (table({**ROW, "Timestamp": "x"}), "'timestamp' and 'Timestamp' are one column"),
        (table({**ROW, "element.team": "x"}), "'filter.team' and 'element.team' are one column"),
        (table({**ROW, "filter.": "x"}), "a dimension is called ''"),
        (table({**ROW, **{f"filter.k{n}": "x" for n in range(5)}}), "more than 5 dimensions"),
        (sheet([*ROW, "filter.team"], [*ROW.values(), ""]), "two columns of one name"),
        (table(ROW) + b'"', "cannot be read"),
        (b'{"data": [1]}', "no records"),
        (b'{\n"records": {}\n}', "no records"),
        (b'{"records": []}', "no rows"),
        (b"[{]", "cannot be read"),
        (b"[" + b" " * JSON_BYTES, "larger than"),
    ],
)
def test_a_file_whose_beginning_is_wrong_is_refused(data: bytes, said: str) -> None:
    assert said in refusal(data).reason


def test_an_allocation_needs_the_column_that_its_contract_wants() -> None:
    assert "no column element_name" in refusal(table(ROW), LIVE_ALLOCATION).reason
    assert read(table(ROW), ALLOCATION_ONLY).totals
    assert [error for _, error in read(array([nested(ROW)]), LIVE_ALLOCATION).errors] == [
        "element_name is empty, and CloudZero demands it"
    ]


def test_a_column_without_a_name_may_be_there_and_have_no_values() -> None:
    header = [*ROW, ""]
    done = read(sheet(header, [*ROW.values(), ""], [*ROW.values(), "x"]))
    assert done.errors == [(3, "a column without a name has a value")]


def test_a_single_object_is_one_record_on_one_line_or_on_many() -> None:
    assert read(json.dumps(nested(ROW)).encode()).sums == read(json.dumps(nested(ROW), indent=1).encode()).sums


# --- deletions --------------------------------------------------------------------------------------------------------

DELETED: Row = {"timestamp": DAY, "granularity": "DAILY"}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("stream", [None, STREAM])
def test_a_deletion_names_each_period_once(dialect: Dialect, stream: Shape | None) -> None:
    later = {**DELETED, "timestamp": "2026-03-02T07:00:00Z"}
    for data in (table(DELETED, later, DELETED), *(write([DELETED, later, DELETED]) for write in SHAPES)):
        done = read(data, dialect, stream, deletion=True)
        assert done.sums == {Ident(MARCH, ()): (Decimal(0), 2), Ident(MARCH + 24, ()): (Decimal(0), 1)}
        assert done.reader.shape == Shape(DAILY, ())
        assert done.reader.columns == ("timestamp", "granularity")
        assert done.reader.warnings == ("1 timestamps were cut to the beginning of their period",)


@pytest.mark.parametrize("more", [{"value": "1"}, {"filter.team": "core"}, {"element_name": "x"}, {"id": "1"}])
def test_a_deletion_that_says_more_than_periods_is_refused_whole(more: Row) -> None:
    """Somebody who names a record means that one, and would lose all the others of the period."""
    for data in (table({**DELETED, **more}), ndjson([DELETED, nested({**DELETED, **more})])):
        assert "deletes whole periods" in refusal(data, deletion=True).reason


def test_a_period_of_another_granularity_is_rejected_from_a_deletion() -> None:
    done = read(table({**DELETED, "granularity": "HOURLY"}, DELETED), stream=STREAM, deletion=True)
    assert "the record is HOURLY, and the stream DAILY" in done.errors[0][1]
    assert list(done.totals) == [Ident(MARCH, ())]


# --- mended, refused and chosen rows ----------------------------------------------------------------------------------


def mended_as(rejected: Iterable[RejectedRow], mend: Callable[[str], str]) -> Mapping[int, Row]:
    """The rejected rows after the file of them was mended and dropped back."""
    with RejectedFile() as file:
        for one in rejected:
            file.add("usage", one)
        written = io.BytesIO()
        file.write_to(written.write)
    return read_mended(io.BytesIO(mend(written.getvalue().decode()).encode()), "mended")[""]


@pytest.mark.parametrize(
    "write", [lambda rows: table(*rows), *(lambda rows, w=w: w(list(map(nested, rows))) for w in SHAPES)]
)
def test_a_rejected_row_that_was_mended_and_dropped_back_is_counted(write: Callable[[list[Row]], bytes]) -> None:
    data = write([ROW, row(value="1,5"), ROW, row(filter__team=" ")])
    rejected = read(data).rejected
    assert len(rejected) == 2
    mended = mended_as(rejected, lambda text: text.replace('"1,5"', "1.5").replace(", ,", ",core,"))
    done = read(data, mended=mended)
    assert done.rejected == []
    assert done.sums == {CORE: (Decimal(6), 4)}


def test_a_mended_object_keeps_the_names_of_others_empty() -> None:
    data = ndjson([nested(ROW), nested({**ROW, "filter.x": "1"}), nested(row(value="-"))])
    mended = mended_as(read(data).rejected, lambda text: text.replace(",-,", ",7,").replace("core,1,", "core,,"))
    assert read(data, mended=mended).sums == {CORE: (Decimal(10), 3)}


@pytest.mark.parametrize(
    ("mended", "said"), [({9: {"value": "1"}}, "no row begins"), ({2: {"price": "1"}}, "the file does not have")]
)
def test_a_mended_row_that_is_not_of_this_file_is_refused(mended: Mapping[int, Row], said: str) -> None:
    with pytest.raises(InputRefused, match=said):
        read(table(ROW), mended=mended)


@settings(max_examples=60)
@given(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=60), st.integers(30, 600))
def test_every_row_of_a_refused_record_is_rejected_and_no_other(teams: list[str], block_bytes: int) -> None:
    rows = [row(filter__team=team) for team in teams]
    done = read(table(*rows), refused={Ident(MARCH, ("b",)): SAID}, block_bytes=block_bytes)
    assert [line for line, _ in done.errors] == [n for n, team in enumerate(teams, 2) if team == "b"]
    assert {(one.error, one.fix) for one in done.rejected} <= {SAID}
    assert {ident.labels[0]: total.rows for ident, total in done.totals.items()} == {
        team: teams.count(team) for team in teams if team != "b"
    }


def test_a_refused_period_of_a_deletion_is_rejected() -> None:
    done = read(table(DELETED), deletion=True, refused={Ident(MARCH, ()): SAID})
    assert done.errors == [(2, SAID[0])]


@settings(max_examples=60)
@given(st.frozensets(st.integers(1, 40)), st.integers(30, 600))
def test_only_the_chosen_rows_are_read_and_counted(only: frozenset[int], block_bytes: int) -> None:
    rows = [row(value="x" if n % 5 == 0 else str(n)) for n in range(2, 32)]
    done = read(table(*rows), only=only, block_bytes=block_bytes)
    chosen = [n for n in range(2, 32) if n in only]
    assert done.reader.rows_in == len(chosen)
    assert [line for line, _ in done.errors] == [n for n in chosen if n % 5 == 0]
    good = [n for n in chosen if n % 5]
    assert done.sums == ({CORE: (Decimal(sum(good)), len(good))} if good else {})


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_more_records_than_are_held_in_memory_are_refused_with_advice() -> None:
    """Fault row 7."""
    lines = "".join(f"{DAY},1,DAILY,{n}\n" for n in range(MAX_RECORDS + 1))
    refused = refusal(f"{','.join(ROW)}\n{lines}".encode())
    assert "more than 500,000 different records" in refused.reason
    assert "by period" in refused.fix


def test_memory_depends_on_the_records_and_not_on_the_rows() -> None:
    """Fault row 7: also when every timestamp and every value is new."""

    def lines(count: int) -> Iterable[bytes]:
        yield ",".join(ROW).encode() + b"\n"
        for n in range(count):
            yield f"2026-03-01T07:00:00.{n:06d}Z,1.{n:08d},DAILY,{n % 10}\n".encode()

    peaks = []
    for count in (5_000, 20_000):
        source = _Lines(lines(count))
        reader = TelemetryReader("usage", METRIC_ONLY, None)
        tracemalloc.start()
        totals = reader.totals(source, lambda rejected: pytest.fail(rejected.error))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert (len(totals), reader.rows_in) == (10, count)
    assert peaks[1] < peaks[0] * 1.1 + 8_000_000


class _Lines:
    """A stream of lines that are made when they are read."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._lines = iter(lines)
        self._left = b""

    def read(self, size: int, /) -> bytes:
        """At most *size* bytes."""
        while len(self._left) < size and (line := next(self._lines, b"")):
            self._left += line
        data, self._left = self._left[:size], self._left[size:]
        return data


MEMBERS = st.sampled_from(["timestamp", "value", "granularity", "element_name", "filter", "element.a", "filter.team"])
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | HOSTILE | st.just(DAY),
    lambda values: st.lists(values, max_size=2) | st.dictionaries(HOSTILE, values, max_size=3),
    max_leaves=5,
)


@settings(max_examples=200)
@given(
    st.lists(
        ANY | st.dictionaries(MEMBERS | HOSTILE, ANY, max_size=4).map(lambda drawn: {**nested(ROW), **drawn}),
        max_size=6,
    ),
    st.sampled_from(DIALECTS),
    st.sampled_from([None, STREAM]),
)
def test_any_object_is_either_counted_or_rejected(
    objects: list[object], dialect: Dialect, stream: Shape | None
) -> None:
    """Fuzzed: nothing that stands in an object ends the reading of the others."""
    done = read(ndjson([nested(ROW), *objects]), dialect, stream)
    assert done.reader.rows_in == len(objects) + 1
    in_array = read(array([nested(ROW), *objects]), dialect, stream)
    assert (in_array.totals, in_array.errors) == (done.totals, done.errors)
    for rejected in done.rejected:
        "".join(rejected.values).encode(errors="surrogateescape")

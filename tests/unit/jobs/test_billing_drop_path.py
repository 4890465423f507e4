"""Keys below billing/: what each means, and what is said of those that mean nothing."""

from __future__ import annotations

from datetime import date

import pytest
from finops_relay.errors import InputRefused
from finops_relay.jobs.billing.drop_path import DropPath, Meaning, is_folder, is_part, parse, place
from hypothesis import example, given
from hypothesis import strategies as st

MARCH = "incoming/billing/conn-1/2026-03/"
DELIVERY = "0123456789abcdef" * 4


def refused(key: str) -> InputRefused:
    """Return why *key* is refused."""
    with pytest.raises(InputRefused) as caught:
        parse(key)
    assert caught.value.file == key
    assert caught.value.fix
    return caught.value


@pytest.mark.parametrize(
    ("key", "meaning", "whole_month"),
    [
        ("costs.csv", Meaning.FILE, False),
        ("no suffix at all", Meaning.FILE, False),
        ("_costs.csv.gz", Meaning.FILE, False),
        ("manifest.json", Meaning.FILE, False),
        ("month/costs.ndjson", Meaning.FILE, True),
        ("month/month", Meaning.FILE, True),
        ("month/focus/_SUCCESS", Meaning.MARKER, True),
        ("month/focus/part-1.csv", Meaning.PART, True),
        ("month/focus/_committed_1", Meaning.PART, True),
        ("month/focus/_temporary/0/part-1.csv", Meaning.PART, True),
        ("month/month/_SUCCESS", Meaning.MARKER, True),
        (f"mended/{DELIVERY}.csv", Meaning.MENDED, False),
        (f"month/mended/{DELIVERY}.csv", Meaning.MENDED, True),
        (f"month/focus/mended/{DELIVERY}.csv", Meaning.MENDED, True),
    ],
)
@pytest.mark.parametrize("root", ["incoming", "plan"])
def test_a_key_says_whose_month_it_is_and_how_much_of_it_is_replaced(
    root: str, key: str, meaning: Meaning, *, whole_month: bool
) -> None:
    base = MARCH.replace("incoming", root)
    folder = f"{base}{key}".rpartition("/")[0] + "/"
    mends = DELIVERY if meaning is Meaning.MENDED else ""
    expected = DropPath(meaning, "conn-1", date(2026, 3, 1), whole_month, root == "plan", folder, mends)
    assert parse(f"{base}{key}") == expected


@pytest.mark.parametrize("key", ["", "2026-03/", "2026-03/month/", "2026-03/month/focus/", "no month/"])
def test_a_folder_by_itself_is_nothing(key: str) -> None:
    assert parse(f"incoming/billing/{key}").meaning is Meaning.NOTHING


@pytest.mark.parametrize(
    ("key", "reason", "value", "fix"),
    [
        ("incoming/costs/x.csv", "not a folder of billing drops", "", "incoming/billing/{connection}/{YYYY-MM}/"),
        ("receipts/billing/x.csv", "not a folder of billing drops", "", "incoming/billing/{connection}/{YYYY-MM}/"),
        ("incoming/billing/x.csv", "which connection", "", "incoming/billing/{connection}/{YYYY-MM}/"),
        ("plan/billing/x.csv", "which connection", "", "plan/billing/{connection}/{YYYY-MM}/"),
        ("incoming/billing/conn/x.csv", "which month", "", "incoming/billing/conn/{YYYY-MM}/"),
        ("plan/billing/conn/x.csv", "which month", "", "plan/billing/conn/{YYYY-MM}/"),
        ("incoming/billing/a b/2026-03/x.csv", "not the id of a connection", "a b", "Settings > Connections"),
        ("incoming/billing/../2026-03/x.csv", "not the id of a connection", "..", "Settings > Connections"),
        ("incoming/billing/ü/2026-03/x.csv", "not the id of a connection", "ü", "Settings > Connections"),
        ("incoming/billing/a\n/2026-03/x.csv", "not the id of a connection", "a\n", "Settings > Connections"),
        ("incoming/billing/conn/202603/x.csv", "not a month", "202603", "2026-02/"),
        ("incoming/billing/conn/2026-3/x.csv", "not a month", "2026-3", "2026-02/"),
        ("incoming/billing/conn/2026-13/x.csv", "not a month", "2026-13", "2026-02/"),
        ("incoming/billing/conn/2026-00/x.csv", "not a month", "2026-00", "2026-02/"),
        ("incoming/billing/conn/2026-03-01/x.csv", "not a month", "2026-03-01", "2026-02/"),
        ("incoming/billing/conn/2026-03\n/x.csv", "not a month", "2026-03\n", "2026-02/"),
        ("incoming/billing/conn/٢٠٢٦-03/x.csv", "not a month", "٢٠٢٦-03", "2026-02/"),
        ("incoming/billing/conn/1999-12/x.csv", "not between 2000-01 and 2100-12", "1999-12", "2026-02/"),
        ("incoming/billing/conn/2101-01/x.csv", "not between 2000-01 and 2100-12", "2101-01", "2026-02/"),
        (f"{MARCH}_SUCCESS", "a marker completes a folder of its own", "", f"{MARCH}month/<folder>/_SUCCESS"),
        (f"{MARCH}month/_SUCCESS", "a marker completes a folder of its own", "", f"{MARCH}month/<folder>/_SUCCESS"),
        (f"{MARCH}focus/x.csv", "no folder is looked into", "focus", f"{MARCH}month/<folder>/"),
        (f"{MARCH}focus/_SUCCESS", "no folder is looked into", "focus", f"{MARCH}month/<folder>/"),
        (f"{MARCH}Month/x.csv", "no folder is looked into", "Month", f"{MARCH}month/<folder>/"),
        (f"{MARCH}/x.csv", "no folder is looked into", "", f"{MARCH}month/<folder>/"),
        (f"{MARCH}month//x.csv", "the folder has no name", "", f"{MARCH}month/<folder>/"),
        (f"{MARCH}.DS_Store", "a tool's bookkeeping", ".DS_Store", "delete"),
        (f"{MARCH}month/._costs.csv", "a tool's bookkeeping", "._costs.csv", "delete"),
        (f"{MARCH}_committed_1", "a tool's bookkeeping", "_committed_1", "delete"),
        (f"{MARCH}month", "the name of a folder", "month", f"{MARCH}month/<file>"),
        (f"{MARCH}mended", "the name of a folder", "mended", f"{MARCH}mended/<file>"),
        (f"{MARCH}mended/rows.csv", "which delivery it mends", "rows.csv", "{delivery id}.csv"),
        (f"{MARCH}month/focus/mended/{DELIVERY}", "which delivery it mends", DELIVERY, "{delivery id}.csv"),
        (f"{MARCH}mended/{DELIVERY}.csv\n", "which delivery it mends", f"{DELIVERY}.csv\n", "{delivery id}.csv"),
    ],
)
def test_a_key_that_means_nothing_is_refused_with_the_way_to_say_it(
    key: str, reason: str, value: str, fix: str
) -> None:
    error = refused(key)
    assert reason in error.reason
    assert error.value == value
    assert fix in error.fix


@pytest.mark.parametrize("name", ["day-1/x.csv", "day-1/_SUCCESS", "day-1/2/x.csv", "/x.csv", "_temporary/_SUCCESS"])
def test_what_lies_below_a_folder_s_folder_is_refused_for_nothing_would_ever_read_it(name: str) -> None:
    assert f"{MARCH}month/focus/" in refused(f"{MARCH}month/focus/{name}").fix


@pytest.mark.parametrize(
    "key",
    ["focus/_SUCCESS", "focus/part.csv", f"focus/mended/{DELIVERY}.csv"],
)
def test_a_drop_belongs_to_one_place_planned_or_not_mended_or_not(key: str) -> None:
    for root in ("incoming", "plan"):
        assert place(f"{root}/billing/conn-1/2026-03/month/{key}") == "billing/conn-1/2026-03/month/focus/"


def test_hours_a_month_and_its_folders_are_different_places() -> None:
    keys = ["x.csv", "month/x.csv", "month/a/x.csv", "month/mended/x.csv", "month/amended/x.csv"]
    places = [place(f"{MARCH}{key}").removeprefix("billing/conn-1/2026-03/") for key in keys]
    assert places == ["", "month/", "month/a/", "month/", "month/amended/"]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (f"{MARCH}month/focus/", True),
        (f"{MARCH}month/", False),
        (MARCH, False),
        (f"{MARCH}focus/", False),
        (f"{MARCH}month/mended/", False),
        (f"{MARCH}month/focus/mended/", False),
        (f"{MARCH}month/focus/more/", False),
        ("incoming/billing/conn-1/March/month/focus/", False),
    ],
)
def test_only_a_folder_below_month_waits_for_a_marker(path: str, *, found: bool) -> None:
    assert is_folder(path) is found


def test_everything_is_a_part_but_the_marker_and_what_a_tool_keeps_for_itself() -> None:
    names = ["a.csv", "A.JSONL.GZ", "data", "_a.csv", ".b.json.gz", "manifest.json"]
    others = ["_SUCCESS", "_committed_1", ".part-0.csv.crc", "._a.csv", ".DS_Store", "_metadata"]
    assert [name for name in names + others if is_part(name)] == names


WORDS = st.sampled_from(
    ["incoming", "plan", "billing", "conn", "..", "2026-03", "0000-01", "month", "mended", "_SUCCESS", "x.csv", "", "."]
)


@given(st.one_of(st.text(), st.lists(WORDS | st.text(max_size=3), max_size=9).map("/".join)))
@example(f"{MARCH}\ud800.csv")
@example(f"{MARCH}month/" + "a/" * 400)
def test_any_key_is_understood_or_refused(key: str) -> None:
    try:
        found = parse(key)
    except InputRefused:
        return
    assert key.startswith("plan/" if found.dry_run else "incoming/")
    if found.meaning is not Meaning.NOTHING:
        assert key.startswith(
            f"{'plan' if found.dry_run else 'incoming'}/billing/{found.connection}/{found.month:%Y-%m}/"
        )
        assert key.startswith(found.folder)
        assert bool(found.mends) is (found.meaning is Meaning.MENDED)


@pytest.mark.parametrize("name", ["a\nb.csv", "month/run\n1/_SUCCESS", "tab\there.csv", "bell\x07.csv", "\u2028.csv"])
def test_a_key_that_would_be_two_lines_of_a_command_is_refused(name: str) -> None:
    """Row 7: a receipt names the next command, and somebody types it into a shell."""
    assert "cannot be shown" in str(refused(f"incoming/billing/conn-1/2026-03/{name}"))

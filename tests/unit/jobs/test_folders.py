"""Folders, their parts and mended rows: what all kinds of drops share, here with the folders of billing drops."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from finops_relay.delivery.ledger import Delivery
from finops_relay.errors import InputRefused
from finops_relay.jobs.billing import drop_path
from finops_relay.jobs.folders import sweep
from finops_relay.jobs.mended import MAX_MENDS, Mending, folder_of, mend_command, mending, version_of
from finops_relay.jobs.opening import Opened, opened
from finops_relay.jobs.pinning import pinned, pinned_parts

from tests.world.relay import DROPS, World, world
from tests.world.sheets import aws_sheet

KIND = "billing"
MARCH = "incoming/billing/conn-1/2026-03/"
FOLDER = f"{MARCH}month/focus/"
HELD_AFTER = timedelta(hours=24)


@pytest.fixture
def w() -> Iterator[World]:
    with world() as found:
        yield found


def begun(w: World, key: str, body: bytes = b"", **known: Any) -> Delivery:  # noqa: ANN401 -- fields of a delivery
    """Drop a file and begin its delivery."""
    found = opened(w.ports, w.drop(key, body), kind=KIND)
    assert isinstance(found, Opened)
    return w.ledger.save(found.delivery.but(**known))


def swept(w: World) -> list[Delivery]:
    """Look for folders without a marker, a day later; S3's dates are the real clock's."""
    w.time[0] = datetime.now(UTC) + HELD_AFTER + timedelta(hours=1)
    return sweep(w.ports, DROPS, HELD_AFTER, KIND, drop_path.FOLDERS)


def pin(w: World, delivery: Delivery, most: int = 10) -> Delivery:
    """Pin the parts of a billing folder."""
    return pinned(w.ports, delivery, is_part=drop_path.is_part, most=most, noun="file of costs")


def names(delivery: Delivery) -> list[str]:
    """Return the names of a delivery's parts."""
    return [part.key.rpartition("/")[2] for part in delivery.source.parts]


# --- folders without a marker ---------------------------------------------------------------------------------------


def test_a_folder_of_costs_without_a_marker_is_held_until_its_marker_comes(w: World) -> None:
    for key in ("a.csv", "b.csv", "_committed_1", f"mended/{'0' * 64}.csv"):
        w.drop(f"{FOLDER}{key}", b"x")
    (held,) = swept(w)
    receipt = w.receipt(held)
    assert (receipt["kind"], receipt["outcome"]) == (KIND, "held")
    assert "2 parts wait" in receipt["reason"]
    assert "there is no _SUCCESS; drop" in receipt["reason"]
    assert receipt["next_command"].endswith(f"--key {FOLDER}_SUCCESS")
    pin(w, begun(w, f"{FOLDER}_SUCCESS"))
    assert w.receipt(held)["outcome"] == "superseded"
    assert swept(w) == []


def test_files_that_need_no_marker_are_no_folder(w: World) -> None:
    for key in ("a.csv", "month/a.csv", "elsewhere/a.csv", "month/mended/a.csv", "month/_SUCCESS"):
        w.drop(f"{MARCH}{key}", b"x")
    w.drop("incoming/billing/conn-1/March/month/focus/a.csv", b"x")
    assert swept(w) == []


# --- parts ----------------------------------------------------------------------------------------------------------


def test_the_parts_of_a_folder_are_those_that_lay_there_when_they_were_pinned(w: World) -> None:
    for key in ("b", "a.csv", "_committed_1", "more/c.csv", f"mended/{'0' * 64}.csv"):
        w.drop(f"{FOLDER}{key}", b"old")
    done = pin(w, begun(w, f"{FOLDER}_SUCCESS"))
    assert names(done) == ["a.csv", "b"]
    w.drop(f"{FOLDER}a.csv", b"newer")
    w.drop(f"{FOLDER}late.csv", b"newer")
    saved = w.ledger.delivery(done.id)
    assert saved is not None
    again = pin(w, saved)
    assert again == done
    for part in pinned_parts(again):
        with w.ports.drops.open(part) as stream:
            assert stream.read() == b"old"


def test_a_folder_with_no_part_or_too_many_is_refused(w: World) -> None:
    w.drop(f"{FOLDER}_committed_1", b"")
    marker = begun(w, f"{FOLDER}_SUCCESS")
    with pytest.raises(InputRefused, match="the folder holds no file of costs"):
        pin(w, marker)
    for key in ("a.csv", "b.csv"):
        w.drop(f"{FOLDER}{key}", b"x")
    with pytest.raises(InputRefused, match=r"the folder holds 2 parts.*keep to 1"):
        pin(w, marker, most=1)


# --- mended rows ----------------------------------------------------------------------------------------------------


def mend(w: World, key: str, mends: str, body: bytes = b"line,cost\n2,1\n", kind: str = KIND) -> Mending:
    """Drop a file of mended rows, and read it with those before it."""
    file = w.drop(key, body)
    return mending(w.ports, file, mends, kind=kind, place=drop_path.place, whole="file of costs")


def test_rows_mended_twice_are_read_with_the_first_file_and_the_newest_has_the_last_word(w: World) -> None:
    first = begun(w, f"{MARCH}a.csv", rejected_rows="s3://drops/rejected/1.csv")
    second = begun(
        w,
        f"{MARCH}mended/{first.id}.csv",
        b"line,cost\n2,one\n3,2\n",
        work={"mends": first.id},
        rejected_rows="s3://drops/rejected/2.csv",
    )
    found = mend(w, f"{MARCH}mended/{second.id}.csv", second.id)
    assert (found.original.id, found.base.id) == (second.id, first.id)
    assert found.rows == {"": {2: {"cost": "1"}, 3: {"cost": "2"}}}
    assert version_of(found.base).key == f"{MARCH}a.csv"


def test_rows_of_a_dry_run_may_be_mended_for_real(w: World) -> None:
    planned = begun(w, f"{MARCH.replace('incoming', 'plan')}a.csv", rejected_rows="s3://drops/rejected/1.csv")
    assert mend(w, f"{MARCH}mended/{planned.id}.csv", planned.id).base.id == planned.id


@pytest.mark.parametrize("folder", ["month/", "month/focus/", "../2026-02/"])
def test_rows_mended_in_another_place_than_their_delivery_s_are_refused(w: World, folder: str) -> None:
    first = begun(w, f"{MARCH}a.csv", rejected_rows="s3://drops/rejected/1.csv")
    with pytest.raises(InputRefused, match="no delivery of this folder to mend") as caught:
        mend(w, f"{MARCH}{folder}mended/{first.id}.csv", first.id)
    assert "drop the whole file of costs again" in caught.value.fix


def test_rows_of_another_kind_of_delivery_of_none_or_of_one_without_rejects_are_refused(w: World) -> None:
    first = begun(w, f"{MARCH}a.csv")
    for mends, kind in ((first.id, "price-books"), ("0" * 64, KIND)):
        with pytest.raises(InputRefused, match="no delivery of this folder to mend"):
            mend(w, f"{MARCH}mended/{mends}.csv", mends, kind=kind)
    with pytest.raises(InputRefused, match=r"has no rejected rows.*drop a new file of costs"):
        mend(w, f"{MARCH}mended/{first.id}.csv", first.id)


def test_mended_files_that_mend_one_another_without_end_are_refused(w: World) -> None:
    last = begun(w, f"{MARCH}a.csv", rejected_rows="s3://drops/rejected/1.csv")
    for _ in range(MAX_MENDS):
        assert mend(w, f"{MARCH}mended/{last.id}.csv", last.id)
        key = f"{MARCH}mended/{last.id}.csv"
        last = begun(w, key, b"line,cost\n2,1\n", work={"mends": last.id}, rejected_rows="s3://drops/rejected/1.csv")
    with pytest.raises(InputRefused, match="no delivery of this folder to mend"):
        mend(w, f"{MARCH}mended/{last.id}.csv", last.id)


@pytest.mark.parametrize("key", ["amended/x.csv", f"amended/mended/{'0' * 64}.csv"])
def test_a_folder_whose_name_only_ends_in_mended_is_a_folder_like_any_other(key: str) -> None:
    assert folder_of(f"{MARCH}month/{key}") == f"{MARCH}month/amended/"


def test_the_command_for_mended_rows_drops_them_where_they_are_understood(w: World) -> None:
    for key in ("a.csv", "month/a.csv", "month/amended/_SUCCESS"):
        delivery = begun(w, f"{MARCH}{key}")
        command = mend_command(delivery, folder_of(delivery.source.key))
        back = command.rpartition(f"s3://{DROPS}/")[2]
        assert drop_path.parse(back).mends == delivery.id
        assert drop_path.place(back) == drop_path.place(delivery.source.key)


def test_price_books_in_a_folder_called_amended_can_be_mended_too(w: World) -> None:
    folder = "incoming/price-books/aws/amended/"
    w.drop(f"{folder}a.csv", aws_sheet(1, bad=2))
    refused = w.deliver_file(f"{folder}_SUCCESS", b"")
    assert f"s3://{DROPS}/{folder}mended/{refused.id}.csv" in w.receipt(refused)["next_command"]

"""Price books beyond faults: dry runs, roll-backs, folders, mended rows, settings, tidying up."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from time import sleep
from typing import Any

import httpx
import pytest
from finops_relay.delivery.ledger import Delivery
from finops_relay.errors import Wait
from finops_relay.infracost.models import Provider
from finops_relay.jobs.config import in_force
from finops_relay.jobs.config_check import check_config
from finops_relay.jobs.price_books.folders import sweep

from local.standins.infracost import AWS_ORGANIZATION, AZURE_ORGANIZATION, ENTERPRISE, PRIMARY_ORGANIZATION, TOKEN
from tests.world.relay import DROPS, World, world
from tests.world.sheets import aws_sheet, azure_sheet

AWS = "incoming/price-books/aws/"
AZURE = "incoming/price-books/azure/"


@pytest.fixture
def w() -> Iterator[World]:
    with world() as found:
        yield found


def configured(w: World, text: str) -> Delivery:
    """Drop a relay.yaml; return its delivery."""
    found = check_config(w.drop("config/relay.yaml", text.encode()), w.ports, w.defaults)
    assert found is not None
    return found


def outcome(w: World, delivery: Delivery | None) -> str:
    """Return the outcome that stands in the receipt."""
    assert delivery is not None
    return str(w.receipt(delivery)["outcome"])


def uploaded(w: World, organization: str = AWS_ORGANIZATION) -> list[int]:
    """Return the rows of each file of the book that an organization uses."""
    active = w.active(organization)
    return [file["rows"] for book in w.state()["price_books"] if book["id"] == active for file in book["files"]]


def writes(w: World) -> dict[str, int]:
    """Return how often the vendor was asked to change anything."""
    return {name: count for name, count in w.state()["counts"].items() if not name.startswith(("get", "list"))}


# --- plan/ ----------------------------------------------------------------------------------------------------------


def test_a_dry_run_writes_nothing_at_the_vendor_and_says_what_would_be_done(w: World) -> None:
    done = w.deliver_file("plan/price-books/aws/sheet.csv", aws_sheet(3))
    receipt = w.receipt(done)
    assert receipt["outcome"] == "unchanged"
    assert receipt["plan"]["verdict"] == "would_deliver"
    assert receipt["rows"] == {"in": 3, "accepted": 0, "filtered": 0, "rejected": 0, "owed": 3}
    assert f"s3://drops/{AWS}sheet.csv" in receipt["next_command"]
    assert writes(w) == {}
    assert w.state()["price_books"] == []


def test_a_dry_run_neither_supersedes_nor_waits_behind_the_real_thing(w: World) -> None:
    real = w.prepare(w.drop(f"{AWS}sheet.csv", aws_sheet(3)))
    plan = w.prepare(w.drop("plan/price-books/aws/sheet.csv", aws_sheet(4)))
    assert real is not None
    assert plan is not None
    assert real.group != plan.group
    assert outcome(w, w.finish(plan.id)) == "unchanged"
    assert outcome(w, w.finish(real.id)) == "delivered"
    assert uploaded(w) == [3]


def test_a_dry_run_of_a_bad_sheet_says_why_it_would_be_refused(w: World) -> None:
    done = w.deliver_file("plan/price-books/aws/sheet.csv", azure_sheet(3))
    receipt = w.receipt(done)
    assert receipt["outcome"] == "rejected"
    assert receipt["plan"]["verdict"] == "would_be_rejected"
    assert w.state()["counts"] == {}


# --- roll-backs -----------------------------------------------------------------------------------------------------


def test_a_roll_back_goes_to_the_former_book_and_a_second_one_forth_again(w: World) -> None:
    w.deliver_file(f"{AWS}a.csv", aws_sheet(3))
    former = w.active(AWS_ORGANIZATION)
    w.deliver_file(f"{AWS}b.csv", aws_sheet(5))
    newer = w.active(AWS_ORGANIZATION)
    back = w.deliver_file(f"{AWS}rollback.json", b"{}")
    assert outcome(w, back) == "delivered"
    assert w.active(AWS_ORGANIZATION) == former
    assert outcome(w, w.deliver_file(f"{AWS}rollback.json", b"")) == "delivered"
    assert w.active(AWS_ORGANIZATION) == newer
    assert len(w.state()["price_books"]) == 2


def test_a_roll_back_to_a_named_book_activates_it(w: World) -> None:
    w.deliver_file(f"{AWS}a.csv", aws_sheet(3))
    first = w.active(AWS_ORGANIZATION)
    for rows in (4, 5):
        w.deliver_file(f"{AWS}a.csv", aws_sheet(rows))
    back = w.deliver_file(f"{AWS}rollback.json", json.dumps({"price_book_id": first}).encode())
    assert outcome(w, back) == "delivered"
    assert w.active(AWS_ORGANIZATION) == first
    assert uploaded(w) == [3]


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (b"{}", "no former price book"),
        (b'{"price_book_id": "11111111-1111-4111-8111-111111111111"}', "is not there any more"),
        (b'{"price_book": "x"}', "price_book"),
        (b"[]", "rollback.json"),
    ],
)
def test_a_roll_back_that_cannot_be_is_refused_and_changes_nothing(w: World, asked: bytes, reason: str) -> None:
    w.deliver_file(f"{AWS}a.csv", aws_sheet(3))
    active = w.active(AWS_ORGANIZATION)
    refused = w.deliver_file(f"{AWS}rollback.json", asked)
    assert outcome(w, refused) == "rejected"
    assert reason in w.receipt(refused)["reason"]
    assert w.active(AWS_ORGANIZATION) == active


def test_a_roll_back_to_a_book_of_the_other_provider_is_refused(w: World) -> None:
    w.deliver_file(f"{AWS}a.csv", aws_sheet(3))
    w.deliver_file(f"{AZURE}a.csv", azure_sheet(3))
    azure = w.active(AZURE_ORGANIZATION)
    refused = w.deliver_file(f"{AWS}rollback.json", json.dumps({"price_book_id": azure}).encode())
    assert outcome(w, refused) == "rejected"
    assert w.active(AWS_ORGANIZATION) != azure


# --- the same again -------------------------------------------------------------------------------------------------


def test_what_the_vendor_holds_already_is_not_sent_again(w: World) -> None:
    w.deliver_file(f"{AWS}a.csv", aws_sheet(3))
    before = writes(w)
    again = w.deliver_file(f"{AWS}other.csv", aws_sheet(3))
    receipt = w.receipt(again)
    assert receipt["outcome"] == "unchanged"
    assert receipt["rows"]["accepted"] == 3
    assert writes(w) == before


def test_a_then_b_then_a_again_puts_a_back(w: World) -> None:
    for sheet in (aws_sheet(3), aws_sheet(5), aws_sheet(3)):
        assert outcome(w, w.deliver_file(f"{AWS}a.csv", sheet)) == "delivered"
    assert uploaded(w) == [3]


# --- folders --------------------------------------------------------------------------------------------------------


def test_the_marker_is_the_delivery_and_the_parts_make_no_receipt(w: World) -> None:
    for number in (1, 2):
        part = w.drop(f"{AZURE}2026-03/part_{number}.csv", azure_sheet(number, name=f"p{number}"))
        assert w.prepare(part) is None
    assert w.receipts() == []
    done = w.deliver_file(f"{AZURE}2026-03/_SUCCESS", b"")
    receipt = w.receipt(done)
    assert receipt["outcome"] == "delivered"
    assert receipt["rows"]["accepted"] == 3
    assert [part["key"].rpartition("/")[2] for part in receipt["source"]["parts"]] == ["part_1.csv", "part_2.csv"]
    assert uploaded(w, AZURE_ORGANIZATION) == [1, 2]


def manifest(*blobs: tuple[str, int]) -> bytes:
    """Azure's manifest of an export, with the names and rows of its parts."""
    named = [{"blobName": f"exports/2026-03/{name}", "byteCount": None, "dataRowCount": rows} for name, rows in blobs]
    return json.dumps({"manifestVersion": "2024-04-01", "blobCount": len(blobs), "blobs": named}).encode()


def test_a_manifest_pins_its_parts_and_leaves_out_what_it_does_not_name(w: World) -> None:
    for name, rows in (("a.csv", 2), ("b.csv", 1), ("stray.csv", 9)):
        w.drop(f"{AZURE}2026-03/{name}", azure_sheet(rows, name=name))
    done = w.deliver_file(f"{AZURE}2026-03/manifest.json", manifest(("a.csv", 2), ("b.csv", 1)))
    receipt = w.receipt(done)
    assert receipt["rows"]["accepted"] == 3
    assert any("stray.csv" in warning for warning in receipt["warnings"])
    assert uploaded(w, AZURE_ORGANIZATION) == [2, 1]


@pytest.mark.parametrize(
    ("blobs", "reason"),
    [
        ((("a.csv", 2), ("b.csv", 1)), "a part that the manifest names is missing"),
        ((("a.csv", 3),), "the part has 2 rows, the manifest says 3"),
    ],
)
def test_a_missing_or_short_part_refuses_the_book(w: World, blobs: tuple[tuple[str, int], ...], reason: str) -> None:
    w.drop(f"{AZURE}2026-03/a.csv", azure_sheet(2))
    done = w.deliver_file(f"{AZURE}2026-03/manifest.json", manifest(*blobs))
    receipt = w.receipt(done)
    assert receipt["outcome"] == "rejected"
    assert reason in receipt["reason"]
    assert receipt["target"] == f"price-books/{ENTERPRISE}/azure"
    assert w.state()["counts"] == {}
    for key in w.keys("spool"):  # what was written before the part turned out to be short may expire
        assert w.s3.get_object_tagging(Bucket="spool", Key=key)["TagSet"] == [{"Key": "delivery", "Value": "finished"}]


def test_a_late_part_waits_for_a_new_marker(w: World) -> None:
    w.drop(f"{AZURE}2026-03/a.csv", azure_sheet(2))
    w.deliver_file(f"{AZURE}2026-03/_SUCCESS", b"")
    assert w.prepare(w.drop(f"{AZURE}2026-03/b.csv", azure_sheet(1, name="late"))) is None
    assert uploaded(w, AZURE_ORGANIZATION) == [2]
    w.deliver_file(f"{AZURE}2026-03/_SUCCESS", b"")
    assert uploaded(w, AZURE_ORGANIZATION) == [2, 1]


def test_parts_overwritten_after_the_marker_are_read_as_they_were_pinned(w: World) -> None:
    w.drop(f"{AZURE}2026-03/a.csv", azure_sheet(2))
    prepared = w.prepare(w.drop(f"{AZURE}2026-03/_SUCCESS", b""))
    assert prepared is not None
    w.drop(f"{AZURE}2026-03/a.csv", azure_sheet(7))
    assert w.receipt(w.finish(prepared.id))["rows"]["accepted"] == 2


def test_a_folder_without_a_marker_is_held_once_and_ended_by_its_marker(w: World) -> None:
    w.drop(f"{AZURE}2026-03/a.csv", azure_sheet(2))
    w.time[0] = datetime.now(UTC) + timedelta(hours=23)  # objects are dated by moto's clock, which is the real one
    assert sweep(w.ports, DROPS, timedelta(hours=24)) == []
    w.time[0] += timedelta(hours=2)
    (held,) = sweep(w.ports, DROPS, timedelta(hours=24))
    receipt = w.receipt(held)
    assert receipt["outcome"] == "held"
    assert "_SUCCESS" in receipt["next_command"]
    sweep(w.ports, DROPS, timedelta(hours=24))
    assert w.metrics.counts["DeliveryHeld"] == 1
    done = w.deliver_file(f"{AZURE}2026-03/_SUCCESS", b"")
    assert outcome(w, done) == "delivered"
    assert outcome(w, w.ledger.delivery(held.id)) == "superseded"


# --- mended rows ----------------------------------------------------------------------------------------------------


def mended(w: World, delivery: Delivery, **changes: str) -> bytes:
    """Return a delivery's rejected rows with values written into each."""
    text = w.text(w.receipt(delivery)["rejected_rows"].removeprefix(f"s3://{DROPS}/")).decode()
    reader = csv.DictReader(io.StringIO(text))
    out = io.StringIO()
    writer = csv.DictWriter(out, reader.fieldnames or [])
    writer.writeheader()
    for row in reader:
        writer.writerow(row | changes)
    return out.getvalue().encode()


def test_mended_rows_come_back_as_the_whole_book(w: World) -> None:
    first = w.deliver_file(f"{AWS}a.csv", aws_sheet(300, bad=2))
    receipt = w.receipt(first)
    assert receipt["outcome"] == "partly_delivered"
    assert receipt["rows"] == {"in": 302, "accepted": 300, "filtered": 0, "rejected": 2, "owed": 0}
    assert f"{AWS}mended/{first.id}.csv" in receipt["next_command"]
    again = w.deliver_file(f"{AWS}mended/{first.id}.csv", mended(w, first, hourlyprice="0.7"))
    receipt = w.receipt(again)
    assert receipt["outcome"] == "delivered"
    assert receipt["rows"] == {"in": 302, "accepted": 302, "filtered": 0, "rejected": 0, "owed": 0}
    assert uploaded(w) == [302]


def test_rows_mended_twice_keep_what_was_mended_first(w: World) -> None:
    first = w.deliver_file(f"{AWS}a.csv", aws_sheet(1, bad=2))
    assert outcome(w, first) == "rejected"
    lines = mended(w, first, hourlyprice="0.7").decode().splitlines()
    lines[2] = lines[2].replace("0.7", "nought")
    second = w.deliver_file(f"{AWS}mended/{first.id}.csv", "\n".join(lines).encode())
    assert w.receipt(second)["rows"] == {"in": 3, "accepted": 0, "filtered": 0, "rejected": 3, "owed": 0}
    third = w.deliver_file(f"{AWS}mended/{second.id}.csv", mended(w, second, hourlyprice="0.8"))
    assert w.receipt(third)["rows"] == {"in": 3, "accepted": 3, "filtered": 0, "rejected": 0, "owed": 0}
    assert uploaded(w) == [3]
    book = next(book for book in w.state()["price_books"] if book["id"] == w.active(AWS_ORGANIZATION))
    sent = w.wire.get(f"{w.vendor.url}/_files/{book['files'][0]['id']}").text
    assert [line.split(",")[6] for line in sent.splitlines()[1:]] == ["0.1", "0.7", "0.8"]


def test_mended_rows_of_an_older_book_never_replace_a_newer_one(w: World) -> None:
    first = w.deliver_file(f"{AWS}a.csv", aws_sheet(300, bad=2))
    w.deliver_file(f"{AWS}b.csv", aws_sheet(5))
    late = w.deliver_file(f"{AWS}mended/{first.id}.csv", mended(w, first, hourlyprice="0.7"))
    assert outcome(w, late) == "superseded"
    assert uploaded(w) == [5]


@pytest.mark.parametrize("name", ["mended/x.csv", f"mended/{'0' * 64}.csv"])
def test_mended_rows_of_nothing_are_refused(w: World, name: str) -> None:
    assert outcome(w, w.deliver_file(f"{AWS}{name}", aws_sheet(1))) == "rejected"
    assert w.state()["counts"] == {}


# --- settings -------------------------------------------------------------------------------------------------------


def test_an_organization_that_refuses_does_not_hold_up_the_other(w: World) -> None:
    unknown = "b0000000-0000-4000-8000-000000000009"
    configured(w, f"price_books: {{aws: {{organizations: [{unknown}, {AWS_ORGANIZATION}]}}}}\n")
    done = w.deliver_file(f"{AWS}a.csv", aws_sheet(3))
    receipt = w.receipt(done)
    assert receipt["outcome"] == "partly_delivered"
    assert receipt["rows"]["accepted"] == 3
    assert unknown in receipt["reason"]
    status = {unit["name"]: unit["status"] for unit in receipt["units"] if unit["name"].startswith("organization ")}
    assert status[f"organization {AWS_ORGANIZATION}"] == "activated"
    assert status[f"organization {unknown}"].startswith("refused: ")
    assert receipt["next_command"]
    assert uploaded(w) == [3]


def test_the_refused_organization_gets_the_book_when_the_sheet_is_dropped_again(w: World) -> None:
    configured(w, f"price_books: {{aws: {{organizations: [{AWS_ORGANIZATION}, {PRIMARY_ORGANIZATION}]}}}}\n")
    w.vendor.faults.add([{"operation": "updateOrganization", "after": 1, "fault": {"kind": "status", "status": 400}}])
    assert outcome(w, w.deliver_file(f"{AWS}a.csv", aws_sheet(3))) == "partly_delivered"
    assert outcome(w, w.deliver_file(f"{AWS}a.csv", aws_sheet(3))) == "delivered"
    assert w.active(PRIMARY_ORGANIZATION) == w.active(AWS_ORGANIZATION)
    assert len(w.state()["price_books"]) == 1


def test_without_activation_a_book_is_made_ready_and_the_former_one_stays(w: World) -> None:
    w.deliver_file(f"{AWS}a.csv", aws_sheet(3))
    former = w.active(AWS_ORGANIZATION)
    configured(w, "price_books: {aws: {activate: false}}\n")
    receipt = w.receipt(w.deliver_file(f"{AWS}a.csv", aws_sheet(5)))
    assert receipt["outcome"] == "delivered"
    assert receipt["rows"]["accepted"] == 5
    assert any("is ready" in warning for warning in receipt["warnings"])
    assert w.active(AWS_ORGANIZATION) == former
    assert [book["status"] for book in w.state()["price_books"]] == ["SUCCESS", "SUCCESS"]


def test_tidying_up_keeps_the_newest_unused_books_and_never_touches_one_in_use(w: World) -> None:
    theirs = w.client().create_price_book(ENTERPRISE, Provider.AWS).id
    configured(w, "price_books: {keep_unused: 1}\n")
    made: list[Any] = []
    for rows in range(1, 6):
        done = w.deliver_file(f"{AWS}a.csv", aws_sheet(rows))
        assert outcome(w, done) == "delivered"
        made.append(w.active(AWS_ORGANIZATION))
    left = {book["id"] for book in w.state()["price_books"]}
    # In use: the active one and the one to roll back to; kept: the newest unused one, and whatever is not ours.
    assert left == {theirs, made[4], made[3], made[2]}
    assert outcome(w, w.deliver_file(f"{AWS}rollback.json", b"{}")) == "delivered"
    assert w.active(AWS_ORGANIZATION) == made[3]


def test_a_bad_relay_yaml_is_refused_and_the_former_stays_in_force(w: World) -> None:
    good = configured(w, "price_books: {max_rejected_share: 1}\n")
    assert outcome(w, good) == "delivered"
    for text in ("version: 2\n", "price_book: {}\n", "a: [\n", "price_books: {max_rejected_share: 5}\n"):
        bad = configured(w, text)
        receipt = w.receipt(bad)
        assert receipt["outcome"] == "rejected"
        assert re.match(r"config/relay\.yaml:[12]: ", receipt["reason"])
        assert "fix: " in receipt["reason"]
    done = w.deliver_file(f"{AWS}a.csv", aws_sheet(3, bad=2))
    receipt = w.receipt(done)
    assert receipt["rows"] == {"in": 5, "accepted": 3, "filtered": 0, "rejected": 2, "owed": 0}
    assert receipt["versions"]["config"] == good.config_version


def test_one_organization_for_both_providers_is_refused(w: World) -> None:
    bad = configured(w, f"price_books: {{aws: {{organizations: [{AZURE_ORGANIZATION}]}}}}\n")
    assert outcome(w, bad) == "rejected"
    assert "holds one book" in w.receipt(bad)["reason"]


def test_without_an_enterprise_books_are_refused_with_the_way_to_name_one(w: World) -> None:
    w.defaults = replace(w.defaults, enterprise_id="")
    done = w.deliver_file(f"{AWS}a.csv", aws_sheet(3))
    assert outcome(w, done) == "rejected"
    assert "InfracostEnterpriseId" in w.receipt(done)["reason"]


def test_a_file_of_the_other_provider_is_refused_by_what_it_is(w: World) -> None:
    done = w.deliver_file(f"{AWS}a.csv", azure_sheet(3))
    assert outcome(w, done) == "rejected"
    assert w.state()["counts"] == {}


# --- what a review found --------------------------------------------------------------------------------------------


def fault(w: World, operation: str, times: int = 1, **kind: object) -> None:
    w.vendor.faults.add([{"operation": operation, "times": times, "fault": kind}])


def test_a_lost_answer_to_an_activation_never_lets_a_later_drop_end_as_unchanged(w: World) -> None:
    """A is active; B's activation is acted on and its answer lost; A dropped again must really put A back."""
    first = w.deliver_file(f"{AWS}a.csv", aws_sheet(3))
    fault(w, "updateOrganization", kind="lost_answer", times=2)
    b = w.prepare(w.drop(f"{AWS}b.csv", aws_sheet(4)))
    assert b is not None
    for _ in range(30):
        try:
            w.step(b.id)
        except Wait as wait:
            w.time[0] += timedelta(seconds=wait.seconds)
            if w.active(AWS_ORGANIZATION) != w.receipt(first)["units"][-1]["vendor_id"]:
                break
    again = w.prepare(w.drop(f"{AWS}a.csv", aws_sheet(3)))
    assert again is not None
    assert outcome(w, w.finish(b.id)) == "superseded"
    assert outcome(w, w.finish(again.id)) == "delivered"
    assert uploaded(w) == [3]


def test_an_organization_that_moves_to_another_provider_and_back_gets_its_book_again(w: World) -> None:
    """The shelf of one provider must not remember an organization that has since been given another one's book."""
    w.deliver_file(f"{AWS}a.csv", aws_sheet(3))
    moved = f"azure: {{organizations: [{AWS_ORGANIZATION}]}}\n  aws: {{organizations: []}}"
    configured(w, f"version: 1\nprice_books:\n  {moved}\n")
    w.deliver_file(f"{AZURE}z.csv", azure_sheet(2))
    assert uploaded(w) == [2]
    configured(w, "version: 1\n")
    assert outcome(w, w.deliver_file(f"{AWS}a.csv", aws_sheet(3))) == "delivered"
    assert uploaded(w) == [3]


def test_a_book_deleted_by_hand_is_made_again_and_not_called_unchanged(w: World) -> None:
    done = w.deliver_file(f"{AWS}a.csv", aws_sheet(3))
    book = w.receipt(done)["units"][-1]["vendor_id"]
    with httpx.Client(headers={"authorization": f"Bearer {TOKEN}"}, base_url=w.vendor.api_url) as by_hand:
        by_hand.patch(f"/organizations/{AWS_ORGANIZATION}", json={"customPriceBookId": None})
        by_hand.delete(f"/enterprises/{ENTERPRISE}/price-books/{book}")
    assert outcome(w, w.deliver_file(f"{AWS}a.csv", aws_sheet(3))) == "delivered"
    assert uploaded(w) == [3]


def test_an_organization_that_cannot_be_asked_holds_up_neither_the_others_nor_a_newer_drop(w: World) -> None:
    """403 for one organization waits; the other one is served, and a newer drop ends the wait."""
    configured(w, f"version: 1\nprice_books:\n  aws: {{organizations: [{PRIMARY_ORGANIZATION}, {AWS_ORGANIZATION}]}}\n")
    fault(w, "updateOrganization", kind="status", status=403, body={"message": "no"})
    first = w.prepare(w.drop(f"{AWS}a.csv", aws_sheet(3)))
    assert first is not None
    with pytest.raises(Wait):
        w.step(first.id)
    assert uploaded(w) == [3]
    assert w.active(PRIMARY_ORGANIZATION) is None
    newer = w.prepare(w.drop(f"{AWS}b.csv", aws_sheet(4)))
    assert newer is not None
    assert outcome(w, w.finish(first.id)) == "superseded"
    assert outcome(w, w.finish(newer.id)) == "delivered"
    assert w.active(PRIMARY_ORGANIZATION) == w.active(AWS_ORGANIZATION)


def test_tidying_up_that_is_refused_holds_up_nobody(w: World) -> None:
    configured(w, "version: 1\nprice_books: {keep_unused: 0}\n")
    for rows in (2, 3):
        w.deliver_file(f"{AWS}a.csv", aws_sheet(rows))
    fault(w, "deletePriceBook", kind="status", status=403, body={"message": "no"}, times=9)
    done = w.deliver_file(f"{AWS}a.csv", aws_sheet(4))
    receipt = w.receipt(done)
    assert receipt["outcome"] == "delivered"
    assert "tidying up is left to the next delivery" in " ".join(receipt["warnings"])


def test_a_part_replaced_after_its_marker_refuses_the_book_rather_than_mix(w: World) -> None:
    w.drop(f"{AZURE}2026-03/a.csv", azure_sheet(2))
    marker = w.drop(f"{AZURE}2026-03/_SUCCESS", b"")
    sleep(1.1)  # S3's dates are whole seconds
    w.drop(f"{AZURE}2026-03/a.csv", azure_sheet(7))
    refused = w.prepare(marker)
    assert refused is not None
    assert outcome(w, refused) == "rejected"
    assert "written after the marker" in w.receipt(refused)["reason"]
    assert outcome(w, w.deliver_file(f"{AZURE}2026-03/_SUCCESS", b"")) == "delivered"
    assert uploaded(w, AZURE_ORGANIZATION) == [7]


def test_a_roll_back_to_nowhere_ends_no_delivery_that_is_under_way(w: World) -> None:
    first = w.prepare(w.drop(f"{AWS}a.csv", aws_sheet(3)))
    assert first is not None
    refused = w.prepare(w.drop(f"{AWS}rollback.json", b"{}"))
    assert outcome(w, refused) == "rejected"
    assert outcome(w, w.finish(first.id)) == "delivered"
    assert uploaded(w) == [3]


def test_two_parts_of_one_name_in_a_manifest_are_refused(w: World) -> None:
    w.drop(f"{AZURE}m/part.csv", azure_sheet(2))
    blobs = [{"blobName": "x/part.csv"}, {"blobName": "y/part.csv"}]
    done = w.deliver_file(f"{AZURE}m/manifest.json", json.dumps({"blobs": blobs}).encode())
    assert "two parts of one name" in w.receipt(done)["reason"]


def test_the_next_command_of_a_planned_folder_drops_its_parts_before_its_marker(w: World) -> None:
    w.drop("plan/price-books/azure/m/a.csv", azure_sheet(2))
    command = w.receipt(w.deliver_file("plan/price-books/azure/m/_SUCCESS", b""))["next_command"]
    assert command.index(f"{AZURE}m/a.csv") < command.index(f"{AZURE}m/_SUCCESS")


def test_an_older_relay_yaml_checked_late_does_not_come_into_force(w: World) -> None:
    """Two checks at once: what counts is which file is newer, not which check ends last."""
    older = w.drop("config/relay.yaml", b"version: 1\nprice_books: {max_rejected_share: 0.5}\n")
    newer = w.drop("config/relay.yaml", b"version: 1\n")
    assert outcome(w, check_config(newer, w.ports, w.defaults)) == "delivered"
    late = replace(older, sequencer="")  # as if it had claimed its place before the newer one did
    assert outcome(w, check_config(late, w.ports, w.defaults)) == "stale"
    assert in_force(w.ledger, w.defaults).price_books.max_rejected_share == 0.01


def test_what_the_vendor_says_of_a_failed_book_is_redacted_and_short(w: World) -> None:
    secret = "https://bucket.s3.amazonaws.com/k?X-Amz-Signature=abcdef0123456789 " + "x" * 500_000
    w.vendor.configure({"final_status": "FAILED", "status_message": secret})
    receipt = w.receipt(w.deliver_file(f"{AWS}a.csv", aws_sheet(3)))
    assert receipt["outcome"] == "failed"
    assert "abcdef0123456789" not in json.dumps(receipt)
    assert len(receipt["reason"]) < 2_000

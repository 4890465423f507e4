"""The vendor in trouble: slow, down, refusing, or silent after it has acted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from time import sleep
from typing import Any

import pytest
from finops_relay.delivery.ledger import MAX_ATTEMPTS, Delivery
from finops_relay.delivery.waits import Looks
from finops_relay.errors import LedgerConflict, RateLimited, Wait
from finops_relay.http.client import Timeouts
from finops_relay.http.retry import RetryPolicy

from local.standins.infracost import AWS_ORGANIZATION, TOKEN
from tests.world.crashes import Fuse, SimulatedCrash
from tests.world.relay import World, world
from tests.world.sheets import aws_sheet, azure_sheet, zipped

FULL = os.environ.get("RELAY_CHAOS") == "full"
KEY = "incoming/price-books/aws/sheet.csv"
WHOLE = {"in": 3, "accepted": 3, "filtered": 0, "rejected": 0, "owed": 0}
OWED = {"in": 3, "accepted": 0, "filtered": 0, "rejected": 0, "owed": 3}
OPERATIONS = (
    "createPriceBook",
    "createPriceBookFile",
    "uploadPriceBookFile",
    "ingestPriceBook",
    "getPriceBook",
    "updateOrganization",
)


@pytest.fixture
def w() -> Iterator[World]:
    with world() as found:
        yield found


def fault(world: World, operation: str, kind: str, *, times: int = 1, **facts: Any) -> None:  # noqa: ANN401 -- the fault's
    """Order a fault at the stand-in."""
    world.vendor.faults.add([{"operation": operation, "times": times, "fault": {"kind": kind, **facts}}])


def dropped(w: World, rows: int = 3, price: str = "0.1", key: str = KEY) -> Delivery:
    """Drop and prepare a sheet."""
    prepared = w.prepare(w.drop(key, aws_sheet(rows, price)))
    assert prepared is not None
    assert prepared.stage == "queued"
    return prepared


def assert_active(w: World, delivery: Delivery, *rows: int) -> None:
    """Check that the vendor holds exactly what the delivery's receipt says, and uses it."""
    units = [unit for unit in w.receipt(delivery)["units"] if unit["spool_key"]]
    book = next(book for book in w.state()["price_books"] if book["id"] == w.active(AWS_ORGANIZATION))
    assert [file["rows"] for file in book["files"]] == list(rows) == [unit["rows"] for unit in units]
    assert [file["sha256"] for file in book["files"]] == [unit["sha256"] for unit in units]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_named_wait_is_kept_to_the_second_at_every_step(w: World, operation: str) -> None:
    """Row 8: a 429 with ``Retry-After`` in seconds makes the message wait that long, then the step is taken again."""
    fault(w, operation, "status", status=429, headers={"Retry-After": "1234"})
    done = w.finish(dropped(w).id)
    assert [wait.seconds for wait in w.waited] == [1234]
    assert w.receipt(done)["outcome"] == "delivered"
    assert w.receipt(done)["rows"] == WHOLE
    assert_active(w, done, 3)
    assert len(w.state()["price_books"]) == 1
    assert w.state()["counts"][operation] == 2


def test_a_wait_named_as_a_date_is_kept(w: World) -> None:
    """Row 8: ``Retry-After`` in its other form, a date, is understood, too."""
    when = format_datetime(datetime.now(UTC) + timedelta(hours=2), usegmt=True)
    fault(w, "createPriceBook", "status", status=503, headers={"Retry-After": when})
    done = w.finish(dropped(w).id)
    (wait,) = w.waited
    assert 7_100 < wait.seconds <= 7_200
    assert w.receipt(done)["rows"] == WHOLE


def test_no_wait_is_longer_than_sqs_can_hide_a_message(w: World) -> None:
    """Row 8: a vendor that asks for a week is asked again after 12 hours, the longest that SQS hides a message."""
    fault(w, "createPriceBook", "status", status=429, headers={"Retry-After": str(7 * 86_400)})
    done = w.finish(dropped(w).id)
    assert [wait.seconds for wait in w.waited] == [43_200]
    assert w.receipt(done)["rows"] == WHOLE


def test_waits_without_a_name_grow_to_their_cap(w: World) -> None:
    """Row 8: 429s and 503s without ``Retry-After`` lead to waits that double, with jitter, and never exceed the cap."""
    fault(w, "ingestPriceBook", "status", times=15, status=429)
    fault(w, "ingestPriceBook", "status", times=15, status=503)
    done = w.finish(dropped(w).id)
    seconds = [wait.seconds for wait in w.waited]
    assert len(seconds) == 15  # each message tries twice
    for number, wait in enumerate(seconds):
        longest = min(900, 10 * 2**number)
        assert longest / 2 <= wait <= longest
    assert w.receipt(done)["rows"] == WHOLE
    assert_active(w, done, 3)


def test_a_function_sleeps_no_longer_than_its_cap_however_long_the_vendor_asks(w: World) -> None:
    """Row 8: only waits of up to 5 seconds, and 15 in all, are slept in a call; any longer one is the queue's."""
    policy = RetryPolicy()
    error = next(_errors(w))
    for named in (0.0, 0.5, 5.0, 5.1, 60.0, 1e9):
        error.retry_after_s = named
        wait = policy.wait_s(error, 1, 0.0, safe=False)
        assert (wait == named) if named <= 5 else (wait is None)
    error.retry_after_s = 5.0
    assert policy.wait_s(error, 3, 10.1, safe=False) is None


def _errors(w: World) -> Iterator[Any]:
    fault(w, "listPriceBooks", "status", times=2, status=429)
    with pytest.raises(RateLimited) as caught:
        w.client().price_books("e0000000-0000-4000-8000-000000000001")
    yield caught.value


TROUBLES: dict[str, dict[str, Any]] = {
    "500": {"kind": "status", "status": 500},
    "502 html": {"kind": "html", "status": 502},
    "reset": {"kind": "reset"},
    "half read": {"kind": "half_read"},
}


@pytest.mark.parametrize(
    ("operation", "trouble"),
    [
        (operation, trouble)
        for row, operation in enumerate(OPERATIONS)
        for column, trouble in enumerate(TROUBLES)
        if FULL or row % len(TROUBLES) == column
    ],
)
def test_hours_of_an_outage_end_in_a_delivery(w: World, operation: str, trouble: str) -> None:
    """Row 9: dozens of failures in a row, hours of them, only make the message wait; then each row is delivered."""
    w.vendor.faults.add([{"operation": operation, "times": 36, "fault": TROUBLES[trouble]}])
    began = w.time[0]
    done = w.finish(dropped(w).id)
    receipt = w.receipt(done)
    assert receipt["outcome"] == "delivered"
    assert receipt["rows"] == WHOLE
    assert_active(w, done, 3)
    assert len(w.state()["price_books"]) == 1
    assert w.time[0] - began > timedelta(hours=1.5)
    assert w.metrics.counts.get("Quarantined", 0) == 0
    assert w.metrics.counts["VendorTrouble"] == len(w.waited)
    assert max(wait.seconds for wait in w.waited) <= 900


def test_a_vendor_that_hangs_is_left_alone_after_the_time_out(w: World) -> None:
    """Row 9: an answer that does not come in time is an unknown outcome: looked at, never sent again blindly."""
    w.timeouts = Timeouts(connect_s=1, read_s=0.2, total_s=1)
    fault(w, "ingestPriceBook", "delay", seconds=0.4)
    delivery = dropped(w)
    with pytest.raises(Wait, match="may have been acted on"):
        w.step(delivery.id)
    sleep(0.6)  # the vendor acts late, long before the message comes back
    assert w.receipt(w.finish(delivery.id))["rows"] == WHOLE
    assert w.state()["counts"]["ingestPriceBook"] == 1


def test_an_ingestion_that_began_late_is_found_out_when_it_is_asked_for_again(w: World) -> None:
    """Row 9: a vendor that acts after it was looked at refuses the second request; the ingestion is watched."""
    w.timeouts = Timeouts(connect_s=1, read_s=0.2, total_s=1)
    fault(w, "ingestPriceBook", "delay", seconds=0.35)
    w.vendor.faults.add([{"operation": "ingestPriceBook", "after": 1, "fault": {"kind": "delay", "seconds": 0.18}}])
    done = w.finish(dropped(w).id)
    assert w.receipt(done)["outcome"] == "delivered"
    assert w.receipt(done)["rows"] == WHOLE
    assert sorted(c["status"] for c in w.state()["calls"] if c["operation"] == "ingestPriceBook") == [200, 409]


def test_nobody_at_home_for_a_day_is_waited_for(w: World) -> None:
    """Row 9: a vendor whose address does not even answer is waited for, and the receipt says for what."""
    delivery = dropped(w)
    w.vendor.stop()
    for _ in range(20):
        with pytest.raises(Wait) as caught:
            w.step(delivery.id)
        w.time[0] += timedelta(seconds=caught.value.seconds)
    receipt = w.receipt(delivery)
    assert receipt["outcome"] == "pending"
    assert "could not reach" in receipt["reason"]
    assert receipt["rows"] == OWED


def test_a_wrong_credential_is_waited_out_and_all_goes_on_by_itself(w: World) -> None:
    """Row 12: a refused token is read afresh once a call; then the delivery waits and rings until it is mended."""
    delivery = dropped(w)
    w.token[0] = "wrong"
    for _ in range(8):
        with pytest.raises(Wait) as caught:
            w.step(delivery.id)
        w.time[0] += timedelta(seconds=caught.value.seconds)
    assert w.token_reads == [False, True] * 8
    assert w.metrics.counts["CredentialRefused"] == 8
    assert w.metrics.counts.get("Quarantined", 0) == 0
    receipt = w.receipt(delivery)
    assert receipt["outcome"] == "pending"
    assert receipt["rows"] == OWED
    assert "answered 401" in receipt["reason"]
    assert w.state()["price_books"] == []
    w.token[0] = TOKEN
    done = w.finish(delivery.id)
    assert w.receipt(done)["rows"] == WHOLE
    assert w.active(AWS_ORGANIZATION)


def test_a_missing_scope_and_a_missing_secret_wait_alike(w: World) -> None:
    """Row 12: 403 and "there is no secret" are credentials to mend, and wait as a 401 does."""
    delivery = dropped(w)
    fault(w, "createPriceBook", "status", status=403)
    with pytest.raises(Wait, match="answered 403"):
        w.step(delivery.id)
    w.token[0] = ""
    with pytest.raises(Wait, match="there is no secret"):
        w.step(delivery.id)
    assert w.metrics.counts["CredentialRefused"] == 2
    w.token[0] = TOKEN
    assert w.receipt(w.finish(delivery.id))["rows"] == WHOLE


def test_a_rotated_token_is_taken_up_without_a_wait(w: World) -> None:
    """Row 12: when the secret was changed, the fresh one is used in the same call."""
    delivery = dropped(w)
    token = w.token
    w.token = RotatedToken("old", TOKEN)
    done = w.step(delivery.id)
    w.token = token
    assert w.receipt(done)["rows"] == WHOLE
    assert w.token_reads[:2] == [False, True]
    assert w.waited == []


class RotatedToken(list[str]):
    """A cached token that is old until it is read afresh: the world reads item 0 for each call."""

    def __init__(self, old: str, fresh: str) -> None:
        super().__init__([old, fresh])
        self.reads = 0

    def __getitem__(self, _: Any) -> Any:  # noqa: ANN401 -- list's own signature
        self.reads += 1
        return super().__getitem__(0 if self.reads <= 2 else 1)


def test_an_expired_upload_address_leads_to_a_new_book(w: World) -> None:
    """Row 13: a slot whose address has expired is never ingested empty: another book is begun, this one named."""
    w.vendor.configure({"url_expiry_s": 0})
    fault(w, "uploadPriceBookFile", "status", times=2, status=503)
    delivery = dropped(w)
    with pytest.raises(Wait):
        w.step(delivery.id)
    w.vendor.configure({"url_expiry_s": 900})  # of the next address; the first one has expired while we waited
    done = w.finish(delivery.id)
    receipt = w.receipt(done)
    assert receipt["rows"] == WHOLE
    assert_active(w, done, 3)
    given_up, used = w.state()["price_books"]
    assert given_up["status"] == "WAITING_FOR_UPLOAD"
    assert given_up["id"] in " ".join(receipt["warnings"])
    assert used["id"] == w.active(AWS_ORGANIZATION)


def test_a_refused_upload_leads_to_a_new_book_with_all_its_files(w: World) -> None:
    """Row 13: a 403 on the second file gives the book up; the new one gets both files, and only it is ingested."""
    w.vendor.faults.add([{"operation": "uploadPriceBookFile", "after": 1, "fault": {"kind": "status", "status": 403}}])
    prepared = w.prepare(w.drop("incoming/price-books/aws/x.zip", zipped(a=aws_sheet(3), b=aws_sheet(2, "0.7"))))
    assert prepared is not None
    done = w.finish(prepared.id)
    assert w.receipt(done)["rows"]["accepted"] == 5
    assert_active(w, done, 3, 2)
    assert [book["status"] for book in w.state()["price_books"]] == ["WAITING_FOR_UPLOAD", "SUCCESS"]
    assert w.state()["counts"]["ingestPriceBook"] == 1


def test_uploads_that_are_always_refused_end_and_leave_the_former_book(w: World) -> None:
    """Row 13: after ten books given up the delivery fails, rather than litter; the former book stays active."""
    w.deliver_file(KEY, aws_sheet(2))
    former = w.active(AWS_ORGANIZATION)
    fault(w, "uploadPriceBookFile", "status", times=1000, status=403)
    done = w.finish(dropped(w).id)
    receipt = w.receipt(done)
    assert receipt["outcome"] == "failed"
    assert receipt["rows"] == OWED
    assert receipt["next_command"]
    assert len(w.state()["price_books"]) == 11
    assert all(book["id"] in " ".join(receipt["warnings"]) for book in w.state()["price_books"] if book["id"] != former)
    assert w.active(AWS_ORGANIZATION) == former


@pytest.mark.parametrize("status", ["FAILED", "EXPLODED", "SUCCESS_WITH_WARNINGS"])
def test_any_end_but_success_leaves_the_former_book_active(w: World, status: str) -> None:
    """Row 13: a failed ingestion, and any status that is not known, ends with the vendor's own words in the receipt."""
    w.deliver_file(KEY, aws_sheet(2))
    former = w.active(AWS_ORGANIZATION)
    w.vendor.configure({"final_status": status, "status_message": "row 2: the price is odd"})
    done = w.finish(dropped(w).id)
    receipt = w.receipt(done)
    assert receipt["outcome"] == "failed"
    assert receipt["rows"] == OWED
    assert f"{status}: row 2: the price is odd" in receipt["reason"]
    assert "the former price book stays active" in receipt["reason"]
    assert receipt["next_command"].startswith("aws s3api copy-object")
    assert w.active(AWS_ORGANIZATION) == former
    again = w.finish(dropped(w, 4).id)
    assert_active(w, again, 4)


def test_an_ingestion_without_end_is_given_up_after_a_day(w: World) -> None:
    """Row 13: polling slows down, is bounded, and ends after 24 hours with the former book active."""
    w.deliver_file(KEY, aws_sheet(2))
    former = w.active(AWS_ORGANIZATION)
    w.vendor.configure({"never_finish": True})
    w.polling = Looks(60, 1800, 86_400)
    began = w.time[0]
    done = w.finish(dropped(w).id)
    receipt = w.receipt(done)
    assert receipt["outcome"] == "failed"
    assert "still PROCESSING after 24 hours" in receipt["reason"]
    assert receipt["rows"] == OWED
    assert timedelta(hours=24) <= w.time[0] - began <= timedelta(hours=24, minutes=31)
    assert w.state()["counts"]["getPriceBook"] < 60
    assert w.active(AWS_ORGANIZATION) == former


def test_a_day_of_outage_in_mid_ingestion_is_not_taken_for_a_day_of_ingestion(w: World) -> None:
    """Row 9: hours in which the vendor could not be asked do not count towards the end of polling."""
    w.vendor.configure({"polls_needed": 3})
    delivery = dropped(w)
    with pytest.raises(Wait):
        w.step(delivery.id)
    fault(w, "getPriceBook", "status", times=3, status=429, headers={"Retry-After": "43200"})
    done = w.finish(delivery.id)
    assert w.time[0] - done.received > timedelta(hours=36)
    assert w.receipt(done)["outcome"] == "delivered"
    assert w.receipt(done)["rows"] == WHOLE
    assert_active(w, done, 3)


ACTED = ("lost_answer", "half_body", "empty")


@pytest.mark.parametrize("kind", [*ACTED, "lost_answer_status"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_answer_lost_after_the_vendor_acted_repeats_nothing_unsafe(w: World, operation: str, kind: str) -> None:
    """Row 14: the next try finds the intent, looks at what the vendor holds, and never ingests a book twice."""
    fault(w, operation, kind)
    done = w.finish(dropped(w).id)
    receipt = w.receipt(done)
    assert receipt["outcome"] == "delivered"
    assert receipt["rows"] == WHOLE
    assert_active(w, done, 3)
    state = w.state()
    accepted = [call for call in state["calls"] if call["operation"] == "ingestPriceBook" and call["status"] != 409]
    assert len(accepted) == 1
    orphans = [book["id"] for book in state["price_books"] if book["id"] != w.active(AWS_ORGANIZATION)]
    assert len(orphans) == (operation in {"createPriceBook", "createPriceBookFile"})
    assert all(orphan in " ".join(receipt["warnings"]) for orphan in orphans)


@pytest.mark.parametrize("operation", ["createPriceBook", "createPriceBookFile", "ingestPriceBook"])
def test_a_look_that_fails_after_a_lost_answer_settles_nothing(w: World, operation: str) -> None:
    """Row 14: when the vendor cannot even be looked at after a lost answer, the question stays open until it can."""
    fault(w, operation, "lost_answer")
    fault(w, "listPriceBooks", "status", times=4, status=429)
    fault(w, "getPriceBook", "status", times=4, status=429)
    done = w.finish(dropped(w).id)
    receipt = w.receipt(done)
    assert receipt["outcome"] == "delivered"
    assert receipt["rows"] == WHOLE
    state = w.state()
    assert state["counts"]["ingestPriceBook"] == 1
    orphans = [book["id"] for book in state["price_books"] if book["id"] != w.active(AWS_ORGANIZATION)]
    assert len(orphans) == (operation != "ingestPriceBook")
    assert all(orphan in " ".join(receipt["warnings"]) for orphan in orphans)


def test_a_state_that_could_not_be_saved_is_found_out(w: World) -> None:
    """Row 14: the vendor has ingested and the save failed: the next try reads the status, and ingests no more."""
    whole = Fuse()
    w.step(dropped(w, 3, "0.7").id, whole.ports(w), whole.client(w))
    fuse = Fuse(whole.calls.index("vendor.ingest_price_book") + 2)
    delivery = dropped(w)
    with pytest.raises(SimulatedCrash, match=r"ledger\.save"):
        w.step(delivery.id, fuse.ports(w), fuse.client(w))
    assert w.state()["counts"]["ingestPriceBook"] == 2
    done = w.finish(delivery.id)
    assert w.receipt(done)["rows"] == WHOLE
    assert w.state()["counts"]["ingestPriceBook"] == 2
    assert_active(w, done, 3)


def test_two_files_for_one_target_are_one_at_a_time_and_the_newer_wins(w: World) -> None:
    """Row 15: messages of one target are one FIFO group; the older file ends as superseded by the newer."""
    older = dropped(w, 3, "0.1", "incoming/price-books/aws/a.csv")
    newer = dropped(w, 2, "0.2", "incoming/price-books/aws/b.csv")
    messages = w.queued()
    assert len({message["Attributes"]["MessageGroupId"] for message in messages}) == 1
    first, second = w.finish(older.id), w.finish(newer.id)
    assert w.receipt(first)["outcome"] == "superseded"
    assert newer.id in w.receipt(first)["reason"]
    assert w.receipt(first)["rows"] == OWED
    assert w.receipt(second)["rows"]["accepted"] == 2
    assert_active(w, second, 2)
    assert len(w.state()["price_books"]) == 1


def test_a_newer_file_ends_one_that_is_being_ingested(w: World) -> None:
    """Row 15: an older book that the vendor still works on is never activated after a newer one was prepared."""
    w.vendor.configure({"never_finish": True})
    older = dropped(w, 3, "0.1")
    with pytest.raises(Wait):
        w.step(older.id)
    newer = dropped(w, 2, "0.2")
    w.vendor.configure({"never_finish": False})
    assert w.receipt(w.finish(older.id))["outcome"] == "superseded"
    done = w.finish(newer.id)
    assert_active(w, done, 2)
    activations = [known["activations"] for known in w.state()["organizations"] if known["id"] == AWS_ORGANIZATION]
    assert [entry["customPriceBookId"] for entry in activations[0]] == [w.active(AWS_ORGANIZATION)]


def test_targets_do_not_hold_each_other_up(w: World) -> None:
    """Row 15: an AWS book that waits is another group than an Azure book."""
    dropped(w)
    w.prepare(w.drop("incoming/price-books/azure/b.csv", azure_sheet(2)))
    assert len({message["Attributes"]["MessageGroupId"] for message in w.queued()}) == 2


def test_two_runs_of_one_delivery_at_once_cannot_both_go_on(w: World) -> None:
    """Row 15: the run that saves second is refused by the ledger before it has called anything."""
    delivery = dropped(w)
    stale = w.ledger.delivery(delivery.id)
    assert stale is not None
    w.finish(delivery.id)
    before = w.state()["counts"]
    with pytest.raises(LedgerConflict):
        w.ports.ledger.save(stale.but(stage="delivering"))
    assert w.state()["counts"] == before


def test_a_delivery_that_dies_again_and_again_is_quarantined_with_what_was_prepared(w: World) -> None:
    """Row 23: after five tries without a word the prepared bytes are put aside, with reason and next command."""
    delivery = dropped(w)
    for _ in range(MAX_ATTEMPTS):
        with pytest.raises(SimulatedCrash):
            w.step(delivery.id, Fuse(3).ports(w))  # right after the try was counted
    done = w.finish(delivery.id)
    receipt = w.receipt(done)
    assert receipt["outcome"] == "failed"
    assert "5 tries of step" in receipt["reason"]
    assert receipt["rows"] == OWED
    unit = receipt["units"][0]
    (copy,) = [key for key in w.keys("drops", f"quarantine/{done.id}/") if not key.endswith("reason.json")]
    assert w.text(copy) == w.text(unit["spool_key"], "spool")
    assert w.state()["price_books"] == []
    assert w.metrics.counts["Quarantined"] == 1


def test_an_open_upload_address_stands_in_no_repr_and_is_forgotten_in_the_end(w: World) -> None:
    """Row 29: a delivery that waits in the middle of an upload shows no address, and one that is over holds none."""
    fault(w, "uploadPriceBookFile", "status", times=2, status=503)
    delivery = dropped(w)
    with pytest.raises(Wait) as caught:
        w.step(delivery.id)
    waiting = w.ledger.delivery(delivery.id)
    assert waiting is not None
    assert "X-Amz-Signature" in str(waiting.work["slot"])  # it is kept, so that one file is redone instead of the book
    for shown in (repr(waiting), str(waiting), repr(caught.value), str(caught.value), str(w.receipt(waiting))):
        assert "X-Amz-" not in shown
    done = w.finish(delivery.id)
    assert w.receipt(done)["rows"] == WHOLE
    assert "X-Amz-" not in done.model_dump_json()

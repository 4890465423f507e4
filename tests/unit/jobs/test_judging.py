"""What is to become of a prepared billing drop, case by case; and what the vendor holds afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from hashlib import sha256
from itertools import pairwise

import pytest
from finops_relay.delivery.ledger import Delivery
from finops_relay.delivery.receipt import Source, Unit
from finops_relay.jobs.billing.judging import (
    MAX_KEYS,
    Answer,
    Case,
    Verdict,
    closed,
    named,
    over_limit,
    overtaken,
    replaces,
    settled,
)
from finops_relay.jobs.billing.remembered import (
    MONTH_BYTES,
    MONTH_ROWS,
    Hour,
    Manifest,
    Owner,
    SentHours,
    Work,
    runs_of,
)
from finops_relay.jobs.turns import Waiting
from hypothesis import given
from hypothesis import strategies as st

RECEIVED = datetime(2026, 3, 15, tzinfo=UTC)
ROW_BYTES = 100
BOTH = pytest.mark.parametrize("contract", ["live", "openapi"])


def hours_of(content: Mapping[int, str]) -> dict[int, Hour]:
    """Return hours whose rows are the letters of a word: ``{5: "ab"}`` has two rows in hour 5."""
    return {
        hour: Hour(rows=len(word), bytes=ROW_BYTES * len(word), sha256=sha256(word.encode()).hexdigest())
        for hour, word in content.items()
    }


@dataclass
class Month:
    """A month of a connection, and what is dropped into it one after the other."""

    contract: str
    sent: SentHours = field(default_factory=SentHours)
    manifests: dict[str, Manifest] = field(default_factory=dict)
    order: int = 0

    def case(  # noqa: PLR0913 -- what a delivery may be
        self,
        content: Mapping[int, str],
        key: str = "a",
        *,
        order: int = 0,
        whole_month: bool = False,
        adds_to: str = "",
        mended: tuple[str, ...] = (),
        overlap: str = "hold",
        decision: str = "",
        month: str = "2026-03",
    ) -> Case:
        """Return what was just dropped, beside what was sent before."""
        self.order += 1
        name = f"d{self.order}"
        self.manifests[name] = Manifest(
            delivery=name, contract=self.contract, connection="c", month=month, hours=hours_of(content), bodies={}
        )
        delivery = Delivery(
            id=name,
            kind="billing",
            order=f"{order or self.order:04}",
            source=Source(bucket="b", key=key),
            fingerprint=f"{sorted(content.items())} {whole_month} {adds_to}",
            times={"received": RECEIVED},
        )
        work = Work(
            connection="c",
            month=month,
            contract=self.contract,
            whole_month=whole_month,
            key=key,
            adds_to=adds_to,
            mended=mended,
            overlap=overlap,
            decision=decision,
            manifest=name,
        )
        return Case(delivery, work, self.manifests[name], self.sent, lambda owner: self.manifests[owner.manifest])

    def send(
        self,
        case: Case,
        *,
        doubtful: Iterable[int] = (),
        only: Iterable[int] | None = None,
        already: Iterable[int] = (),
    ) -> None:
        """Remember that a case was sent, all of it or only some hours."""
        unsure = frozenset(doubtful)
        accepted = (case.hours if only is None else frozenset(only)) - unsure - frozenset(already)
        self.sent = settled(case, accepted, unsure, wiped=case.live and case.work.whole_month)

    def sends(self, content: Mapping[int, str], key: str = "a", *, whole_month: bool = False) -> None:
        """Drop something, and send all of it."""
        self.send(self.case(content, key, whole_month=whole_month))

    def owned(self) -> dict[str, list[int]]:
        """Return the hours of each key."""
        return {owner.key: sorted(owner.hours) for owner in self.sent.owners}

    def size(self) -> tuple[int, int]:
        """Return rows and bytes that count towards the limits."""
        return self.sent.rows, self.sent.bytes


def held(case: Case) -> str:
    """Return why a case is held."""
    verdict = case.judged()
    assert verdict.answer is Answer.HELD, verdict
    return verdict.why


# --- what is to be done -----------------------------------------------------------------------------------------------


@BOTH
def test_what_meets_nothing_is_sent(contract: str) -> None:
    assert Month(contract).case({1: "a"}).judged() == Verdict(Answer.SEND)


@BOTH
def test_the_same_content_is_unchanged_whoever_brings_it(contract: str) -> None:
    month = Month(contract)
    month.sends({1: "a", 2: "b"})
    assert month.case({1: "a", 2: "b"}).judged().answer is Answer.UNCHANGED
    assert month.case({1: "a", 2: "b"}, "other").judged().answer is Answer.UNCHANGED
    assert month.case({1: "a", 2: "c"}, "other").judged().answer is Answer.HELD


@BOTH
@pytest.mark.parametrize("content", [{1: "b"}, {1: "b", 3: "c"}])
def test_what_a_person_had_sent_is_unchanged_when_it_is_dropped_again(contract: str, content: dict[int, str]) -> None:
    """A changed hour, and hours that the newer version lacks: the decision was made, and holds for this content."""
    month = Month(contract)
    month.send(month.case({1: "a", 2: "a"}))
    assert month.case(content).judged().answer is Answer.HELD
    month.send(month.case(content, decision="send"))
    assert month.case(content).judged().answer is Answer.UNCHANGED


@BOTH
def test_a_month_of_more_keys_than_can_be_remembered_is_refused_before_anything_is_sent(contract: str) -> None:
    month = Month(contract)
    month.sends({1: "a"}, "0")
    one = month.sent.owners[0]
    month.sent = SentHours(owners=tuple(one.model_copy(update={"key": str(key)}) for key in range(MAX_KEYS)))
    verdict = month.case({9: "b"}, "new").judged()
    assert verdict.answer is Answer.REJECTED
    assert "drop fewer and larger files" in verdict.why
    assert month.case({1: "a", 2: "b"}, "7", overlap="replace").judged().answer is Answer.SEND


def test_the_month_of_another_key_is_held_unless_files_may_overlap() -> None:
    month = Month("live")
    month.sends({1: "a"}, "month/a", whole_month=True)
    assert "would be erased" in held(month.case({2: "b"}, "month/b", whole_month=True))
    assert month.case({2: "b"}, "month/b", whole_month=True, overlap="replace").judged().answer is Answer.SEND
    assert month.case({2: "b"}, "month/a", whole_month=True).judged().answer is Answer.SEND


def test_what_was_not_read_back_is_sent_again_when_it_is_dropped_again() -> None:
    month = Month("live")
    case = month.case({1: "a"})
    month.sent = settled(case, case.hours, frozenset(), wiped=False, seen=False)
    assert month.case({1: "a"}).judged().answer is Answer.SEND


@BOTH
def test_what_arrived_in_part_is_not_unchanged(contract: str) -> None:
    month = Month(contract)
    month.send(month.case({1: "a", 2: "b"}), only=[1])
    assert month.case({1: "a", 2: "b"}).judged().answer is Answer.SEND
    unsure = Month(contract)
    unsure.send(unsure.case({1: "a", 2: "b"}), doubtful=[2])
    assert unsure.case({1: "a", 2: "b"}).judged().answer is (Answer.SEND if contract == "live" else Answer.HELD)


@BOTH
def test_an_older_version_of_a_key_or_of_the_month_is_superseded(contract: str) -> None:
    month = Month(contract)
    month.order = 10
    month.sends({1: "a"})
    assert month.case({1: "b"}, order=5).judged().answer is Answer.SUPERSEDED
    assert month.case({2: "b"}, "other", order=5).judged().answer is Answer.SEND
    month.sends({1: "a", 2: "b"}, "all", whole_month=True)
    assert month.case({9: "b"}, "other", order=5).judged().answer is Answer.SUPERSEDED


@BOTH
def test_a_person_may_send_whatever_is_held_but_not_what_is_superseded_or_too_large(contract: str) -> None:
    month = Month(contract)
    month.sends({1: "a"})
    assert month.case({1: "b"}, "other", decision="send").judged().answer is Answer.SEND
    assert month.case({1: "b"}, "other", decision="arrived").judged().answer is Answer.HELD
    assert month.case({9: "c"}, month="2020-01", decision="send").judged().answer is Answer.SEND
    assert month.case({1: "b"}, order=-5, decision="send").judged().answer is Answer.SUPERSEDED
    large = dict.fromkeys(range(10, 1_011), "x" * 1_000)
    assert month.case(large, "other", decision="send").judged().answer is Answer.REJECTED


@BOTH
def test_all_that_speaks_against_sending_is_said_before_a_person_decides(contract: str) -> None:
    month = Month(contract)
    month.sends({1: "a"})
    why = held(month.case({1: "b"}, "other", month="2026-01"))
    assert "2026-01 is closed" in why
    assert "were sent by 'a' (delivery d1)" in why


def test_hours_of_another_key_are_held_unless_files_may_overlap() -> None:
    month = Month("live")
    month.sends({1: "a", 2: "b", 3: "c"})
    assert "the hours 1970-01-01T02:00Z to 1970-01-01T03:00Z" in held(month.case({2: "x", 3: "y", 4: "z"}, "other"))
    assert month.case({2: "x", 4: "z"}, "other", overlap="replace").judged().answer is Answer.SEND
    assert month.case({4: "z"}, "other").judged().answer is Answer.SEND


def test_several_files_that_would_be_erased_are_counted() -> None:
    month = Month("live")
    for hour, key in enumerate("abc"):
        month.sends({hour: key}, key)
    assert "(and 2 other files)" in held(month.case({0: "x", 1: "y", 2: "z"}, "other"))


def test_hours_that_a_newer_version_lacks_are_held() -> None:
    month = Month("live")
    month.sends({1: "a", 2: "b"})
    assert "no row for the hours 1970-01-01T02:00Z" in held(month.case({1: "x"}))
    assert month.case({1: "x", 2: "y", 3: "z"}).judged().answer is Answer.SEND


def test_what_would_erase_something_newer_is_held_even_where_files_may_overlap() -> None:
    month = Month("live")
    month.order = 10
    month.sends({1: "a"}, "newer")
    assert "is older than delivery d11 of 'newer'" in held(month.case({1: "x"}, order=5, overlap="replace"))
    assert "has sent the month since" in held(month.case({2: "x"}, order=5, whole_month=True))
    assert month.case({2: "x"}, whole_month=True).judged().answer is Answer.SEND


# --- openapi ----------------------------------------------------------------------------------------------------------


def test_only_new_hours_of_a_growing_file_are_sent() -> None:
    month = Month("openapi")
    month.sends({1: "a", 2: "b"})
    verdict = month.case({1: "a", 2: "b", 3: "c"}).judged()
    assert (verdict.answer, verdict.already) == (Answer.SEND, frozenset({1, 2}))


@pytest.mark.parametrize("content", [{1: "x", 2: "b"}, {2: "b"}, {1: "aa", 2: "b"}, {2: "b", 3: "c"}])
def test_an_hour_that_changed_is_held(content: dict[int, str]) -> None:
    month = Month("openapi")
    month.sends({1: "a", 2: "b"})
    assert "the hours 1970-01-01T01:00Z were sent before and are others now" in held(month.case(content))


def test_a_month_sends_what_none_of_its_files_has_sent() -> None:
    month = Month("openapi")
    month.sends({1: "a"}, "a")
    month.sends({2: "b"}, "b")
    verdict = month.case({1: "a", 2: "b", 3: "c"}, "all", whole_month=True).judged()
    assert (verdict.answer, verdict.already) == (Answer.SEND, frozenset({1, 2}))
    assert "the hours 1970-01-01T02:00Z were sent before" in held(month.case({1: "a"}, "all", whole_month=True))


def test_an_hour_to_which_two_files_have_added_is_nobodys_own() -> None:
    month = Month("openapi")
    month.sends({1: "a"}, "a")
    month.sends({1: "b"}, "b")
    assert "were sent before and are others now" in held(month.case({1: "a"}, "all", whole_month=True))


def test_where_files_may_overlap_rows_are_added_beside_those_of_others() -> None:
    month = Month("openapi")
    month.sends({1: "a"}, "a")
    assert "and these rows would be added to them" in held(month.case({1: "b"}, "b"))
    assert month.case({1: "b"}, "b", overlap="replace").judged() == Verdict(Answer.SEND)


def test_mended_rows_go_beside_what_their_file_has_sent() -> None:
    month = Month("openapi")
    month.sends({1: "a"}, "a")
    case = month.case({1: "m", 2: "n"}, "mended/1", adds_to="a")
    assert case.judged() == Verdict(Answer.SEND)
    month.send(case)
    assert month.case({1: "m", 2: "n"}, "mended/1", adds_to="a").judged().answer is Answer.UNCHANGED
    again = month.case({1: "o"}, "mended/2", adds_to="a", mended=(case.delivery.id,))
    assert again.judged() == Verdict(Answer.SEND)
    sibling = month.case({1: "o"}, "mended/2", adds_to="a")
    assert "were sent by 'mended/1'" in held(sibling)  # it may have the same row, mended another time
    assert "were sent by" in held(month.case({2: "p"}, "mended/3", adds_to="somebody else"))


def test_mended_rows_of_a_month_are_no_month() -> None:
    month = Month("openapi")
    month.sends({1: "a", 2: "b"}, "all", whole_month=True)
    case = month.case({1: "m"}, "mended/1", adds_to="all", whole_month=True)
    assert case.judged() == Verdict(Answer.SEND)


def test_a_file_that_grows_after_some_of_its_rows_were_mended_is_no_overlap() -> None:
    month = Month("openapi")
    month.sends({1: "a"}, "a")
    month.send(month.case({1: "m"}, "mended/1", adds_to="a"))
    verdict = month.case({1: "a", 3: "c"}, "a", order=9).judged()
    assert (verdict.answer, verdict.already) == (Answer.SEND, frozenset({1}))


def test_a_doubt_is_held_for_as_long_as_it_lasts() -> None:
    month = Month("openapi")
    month.send(month.case({1: "a", 2: "b"}), doubtful=[2])
    assert "nobody knows what arrived of delivery d1" in held(month.case({1: "a", 2: "b", 3: "c"}))
    assert "nobody knows" in held(month.case({1: "a"}, "all", whole_month=True))
    live = Month("live")
    live.send(live.case({1: "a", 2: "b"}), doubtful=[2])
    assert live.case({1: "a", 2: "b", 3: "c"}).judged().answer is Answer.SEND  # it replaces whatever is there


# --- limits -----------------------------------------------------------------------------------------------------------


def test_a_month_is_full_at_its_limits_and_not_before() -> None:
    assert over_limit("2026-03", MONTH_ROWS, MONTH_BYTES) == ""
    assert over_limit("2026-03", 1, 1, MONTH_ROWS - 1, MONTH_BYTES - 1) == ""
    rows = over_limit("2026-03", MONTH_ROWS + 1, 5)
    assert "2026-03 would hold 1,000,001 rows and 5 bytes; an AnyCost Stream" in rows
    assert "sent before" not in rows
    size = over_limit("2026-03", 2, 1, 7, MONTH_BYTES)
    assert "would hold 9 rows and 70,000,001 bytes (7 rows, 70,000,000 bytes sent before)" in size
    assert all("nothing was sent; fix: " in why for why in (rows, size))


FULL = dict.fromkeys(range(10, 360), "x" * 2_000)
"""700,000 rows and 70,000,000 bytes: as many as a month takes."""


@BOTH
def test_what_was_sent_before_counts_towards_the_limit(contract: str) -> None:
    month = Month(contract)
    month.sends(FULL)
    assert month.size() == (700_000, MONTH_BYTES)
    verdict = month.case({1: "a"}, "other").judged()
    assert verdict.answer is Answer.REJECTED
    assert "700,001 rows" in verdict.why
    assert "70,000,000 bytes sent before" in verdict.why


def test_what_is_replaced_does_not_count() -> None:
    month = Month("live")
    month.sends(FULL)
    assert month.case({**FULL, 10: "y" * 2_000}).judged().answer is Answer.SEND
    assert month.case({**FULL, 10: "y" * 2_001}).judged().answer is Answer.REJECTED
    assert month.case({10: "y" * 2_001}, "other", overlap="replace").judged().answer is Answer.REJECTED
    assert month.case({**FULL, 10: "y"}, "all", whole_month=True).judged().answer is Answer.SEND


def test_what_is_added_counts_beside_what_it_changes() -> None:
    month = Month("openapi")
    month.sends({**FULL, 10: "x"})
    again = {**FULL, 10: "x", 11: "y" * 2_000}
    assert month.case(again, decision="send").judged().answer is Answer.REJECTED
    assert month.case({**FULL, 10: "x", 1: "z" * 1_999}).judged().answer is Answer.SEND


# --- months -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("month", "months_open", "is_open"),
    [
        ("2026-03", 1, True),
        ("2026-02", 1, True),
        ("2026-01", 1, False),
        ("2026-04", 1, False),
        ("2026-02", 0, False),
        ("2026-03", 0, True),
        ("2025-03", 12, True),
        ("2025-02", 12, False),
        ("2027-03", 12, False),
    ],
)
def test_this_month_and_so_many_before_it_are_open(month: str, months_open: int, *, is_open: bool) -> None:
    work = Work(connection="c", month=month, months_open=months_open)
    for day in (date(2026, 3, 1), date(2026, 3, 31)):
        assert (closed(work, day) == "") is is_open


def test_a_month_closes_over_the_turn_of_the_year() -> None:
    work = Work(connection="c", month="2025-12")
    assert closed(work, date(2026, 1, 31)) == ""
    assert closed(work, date(2026, 2, 1)).startswith("2025-12 is closed: this month and the 1 before")
    assert closed(work, date(2025, 11, 30)).startswith("2025-12 is still to come")


# --- who waits --------------------------------------------------------------------------------------------------------


def waiting(order: int, key: str = "a", **more: bool) -> Waiting:
    return Waiting(order=f"{order:04}", key=key, month="2026-03", **more)


def test_a_waiting_delivery_is_overtaken_by_a_newer_one_of_its_key_or_month() -> None:
    case = Month("live").case({1: "a"}, order=5)
    for other, overtakes in (
        (waiting(6), True),
        (waiting(4), False),
        (waiting(6, "b"), False),
        (waiting(6, "b", whole_month=True), True),
        (waiting(4, "b", whole_month=True), False),
        (waiting(6, addition=True), False),
        (waiting(6).model_copy(update={"month": "2026-02"}), False),
    ):
        assert overtaken(case.delivery, case.work, {"x": other}) == ("x" if overtakes else ""), other
    newest = {"x": waiting(6), "y": waiting(8), "z": waiting(7)}
    assert overtaken(case.delivery, case.work, newest) == "y"
    assert overtaken(case.delivery, case.work, {case.delivery.id: waiting(9)}) == ""


def test_mended_rows_are_overtaken_by_nobody_and_a_month_only_by_a_month() -> None:
    month = Month("openapi")
    added = month.case({1: "a"}, order=5, adds_to="b")
    assert overtaken(added.delivery, added.work, {"x": waiting(6, whole_month=True)}) == ""
    whole = month.case({1: "a"}, order=5, whole_month=True)
    assert overtaken(whole.delivery, whole.work, {"x": waiting(6)}) == ""
    assert overtaken(whole.delivery, whole.work, {"x": waiting(6, "b", whole_month=True)}) == "x"


def with_status(case: Case, status: str) -> Case:
    """Return a case whose only body has this status."""
    units = (Unit(seq=1, status=status),)
    return Case(case.delivery.but(units=units), case.work, case.manifest, case.sent, case.manifest_of)


@BOTH
@pytest.mark.parametrize("status", ["owed", "accepted", "in doubt"])
def test_a_newer_version_makes_the_decision_about_a_held_one_needless(contract: str, status: str) -> None:
    month = Month(contract)
    older = with_status(month.case({1: "a", 2: "b"}, order=5), status)
    untouched, live = status == "owed", contract == "live"
    assert replaces(month.case({1: "a", 2: "x"}, order=6), older) is (untouched or live)
    assert replaces(month.case({1: "a"}, order=6), older) is untouched  # it would leave an hour as it is
    assert replaces(month.case({9: "a"}, "all", order=6, whole_month=True), older) is (untouched or live)
    assert not replaces(month.case({1: "a", 2: "x"}, "b", order=6), older)
    assert not replaces(month.case({1: "a", 2: "x"}, order=4), older)
    assert not replaces(month.case({1: "a", 2: "x"}, order=6, month="2026-02"), older)
    assert not replaces(month.case({1: "a", 2: "x"}, order=6, adds_to="b"), older)


# --- what is there afterwards -----------------------------------------------------------------------------------------


def test_a_file_replaces_what_others_had_in_its_hours() -> None:
    month = Month("live")
    month.sends({1: "aa", 2: "bb", 3: "cc"}, "a")
    month.send(month.case({2: "x"}, "b"))
    assert month.owned() == {"a": [1, 3], "b": [2]}
    assert month.size() == (5, 500)
    assert not next(owner for owner in month.sent.owners if owner.key == "a").intact
    month.send(month.case({1: "y", 3: "z"}, "c"))
    assert month.owned() == {"b": [2], "c": [1, 3]}
    assert month.size() == (3, 300)


def test_a_month_is_all_that_is_there() -> None:
    month = Month("live")
    month.sends({1: "a"}, "a")
    month.sends({2: "b"}, "b")
    month.sends({3: "cc"}, "all", whole_month=True)
    assert month.owned() == {"all": [3]}
    assert month.size() == (2, 200)


def test_hours_that_a_newer_version_lacks_stay_the_keys() -> None:
    month = Month("live")
    month.sends({1: "aaa", 2: "b"})
    month.send(month.case({1: "x"}))
    assert month.owned() == {"a": [1, 2]}
    assert month.size() == (2, 200)
    month.send(month.case({1: "y", 2: "zz"}))
    assert month.size() == (3, 300)
    assert month.sent.owners[0].intact


def test_what_is_added_stays_beside_what_was_there() -> None:
    month = Month("openapi")
    month.sends({1: "aaa", 2: "b"})
    case = month.case({1: "xx", 2: "b"}, decision="send")
    month.send(case, already=[2])
    assert month.owned() == {"a": [1, 2]}
    assert month.size() == (6, 600)
    assert not month.sent.owners[0].intact
    month.send(month.case({1: "xx", 2: "b", 3: "c"}), only=[3])
    assert month.size() == (7, 700)


@BOTH
@pytest.mark.parametrize("whole_month", [False, True])
def test_saying_it_twice_changes_nothing(contract: str, *, whole_month: bool) -> None:
    month = Month(contract)
    month.sends({1: "aaa", 2: "b"}, "a")
    month.sends({3: "c"}, "b")
    case = month.case({1: "x", 3: "y"}, "b", whole_month=whole_month)
    month.send(case, only=[1])
    once = month.sent
    for _ in range(2):
        month.send(Case(case.delivery, case.work, case.manifest, month.sent, case.manifest_of), only=[1])
        assert month.sent == once


@BOTH
def test_nothing_sent_changes_nothing(contract: str) -> None:
    month = Month(contract)
    month.sends({1: "a"}, "a")
    before = month.sent
    month.send(month.case({1: "x"}, "b"), only=[])
    assert month.sent == before


@BOTH
def test_a_doubt_that_was_settled_is_none(contract: str) -> None:
    month = Month(contract)
    case = month.case({1: "a", 2: "b"})
    month.send(case, doubtful=[2])
    assert month.sent.owners[0].doubt
    month.send(Case(case.delivery, case.work, case.manifest, month.sent, case.manifest_of))
    assert not month.sent.owners[0].doubt
    assert month.sent.owners[0].intact


def test_a_doubt_about_hours_that_were_replaced_since_is_none() -> None:
    month = Month("live")
    month.send(month.case({1: "a", 2: "b"}), doubtful=[1, 2])
    month.send(month.case({1: "x", 2: "y"}))
    assert not month.sent.owners[0].doubt
    assert month.case({1: "x", 2: "y"}).judged().answer is Answer.UNCHANGED


CONTENT = st.dictionaries(st.integers(0, 5), st.text("xyz", min_size=1, max_size=3), min_size=1)


@given(drops=st.lists(st.tuples(st.sampled_from("ab"), CONTENT, st.booleans()), max_size=6))
def test_what_is_remembered_is_what_a_vendor_that_replaces_would_hold(
    drops: list[tuple[str, dict[int, str], bool]],
) -> None:
    month = Month("live")
    vendor: dict[int, str] = {}
    for key, content, whole_month in drops:
        month.send(month.case(content, key, whole_month=whole_month, overlap="replace", decision="send"))
        vendor = content if whole_month else vendor | content
        rows = sum(map(len, vendor.values()))
        assert month.size() == (rows, rows * ROW_BYTES)
        hours = [hour for owner in month.sent.owners for hour in owner.hours]
        assert sorted(hours) == sorted(vendor)  # each hour is one key's


@given(drops=st.lists(st.tuples(st.sampled_from("ab"), CONTENT), max_size=6))
def test_what_is_remembered_is_what_a_vendor_that_appends_would_hold(drops: list[tuple[str, dict[int, str]]]) -> None:
    month = Month("openapi")
    rows = 0
    for key, content in drops:
        case = month.case(content, key, decision="send")
        verdict = case.judged()
        if verdict.answer is Answer.SEND:
            month.send(case, already=verdict.already)
            rows += sum(len(word) for hour, word in content.items() if hour not in verdict.already)
        assert month.size() == (rows, rows * ROW_BYTES)


# --- words ------------------------------------------------------------------------------------------------------------


@given(st.sets(st.integers(0, 40)))
def test_runs_say_each_hour_once(hours: set[int]) -> None:
    runs = runs_of(hours)
    assert sorted(hour for first, last in runs for hour in range(first, last + 1)) == sorted(hours)
    assert all(last + 1 < first for (_, last), (first, _) in pairwise(runs))


def test_hours_are_named_as_a_person_reads_them() -> None:
    assert named([492_372]) == "the hours 2026-03-03T12:00Z"
    assert named([1, 2, 3, 7]) == "the hours 1970-01-01T01:00Z to 1970-01-01T03:00Z, 1970-01-01T07:00Z"
    assert named(range(0, 20, 2)).endswith("1970-01-01T08:00Z and 5 more runs of hours")


def test_an_owner_of_an_older_version_still_loads() -> None:
    """Row 27: what was remembered before a field was added means what it meant."""
    owner = Owner.model_validate(
        {
            "key": "a",
            "delivery": "d",
            "order": "1",
            "fingerprint": "f",
            "manifest": "m",
            "runs": [[1, 3]],
            "rows": 3,
            "bytes": 30,
            "of_a_later_version": 1,
        }
    )
    assert owner.hours == {1, 2, 3}
    assert (owner.intact, owner.doubt) == (True, False)

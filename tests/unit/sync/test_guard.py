"""The guards: where each begins to hold, what it says, and which override lets it pass."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from finops_relay.sync.guard import (
    Facts,
    Guard,
    Guards,
    Override,
    Verdict,
    expired,
    judge,
    lookalikes,
)
from finops_relay.sync.plan import plan
from finops_relay.sync.state import State
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

NOW = datetime(2026, 3, 1, 9, tzinfo=UTC)
EXAMPLES = settings(max_examples=150)
SHARES = st.integers(0, 100).map(lambda hundredth: hundredth / 100)
"""As people write them."""


def numbered(count: int, first: int = 0) -> State:
    """Return a state of so many values, none like another."""
    return State(items=dict.fromkeys((f"v{number:04}" for number in range(first, first + count)), ""))


def judged(remote: State, desired: State, limits: Guards | None = None, **facts: Any) -> tuple[Verdict, ...]:  # noqa: ANN401 -- fields of Facts
    """Return what the guards object to."""
    known = Facts.model_validate({"rows": len(desired.items), **facts})
    return judge(plan(remote, desired, None), desired, known, limits or Guards(), NOW)


def names(verdicts: tuple[Verdict, ...]) -> list[str]:
    """Return which guards object."""
    return [verdict.guard.value for verdict in verdicts]


def override(guard: Guard, until: str = "2026-03-01", reason: str = "moved to another source") -> Override:
    """Return an override as relay.yaml has it."""
    return Override.model_validate({"guard": guard, "until": until, "reason": reason})


# --- what is removed --------------------------------------------------------------------------------------------------


@EXAMPLES
@given(share=SHARES, before=st.integers(2, 400), removed=st.integers(1, 399))
def test_a_share_may_go_just_up_to_its_limit(share: float, before: int, removed: int) -> None:
    """Row 16: at the limit it passes, one value more is held; in whole numbers, whatever floats make of 0.29."""
    removed = min(removed, before - 1)
    limits = Guards(max_share_removed=share, max_number_removed=1_000, max_share_shrunk=1)
    held = names(judged(numbered(before), numbered(before - removed), limits))
    assert held == (["share_removed"] if removed * 100 > round(share * 100) * before else [])


@pytest.mark.parametrize(("before", "removed"), [(100, 29), (200, 58), (180, 63)])
def test_a_limit_that_floats_miss_by_a_hair_is_a_limit_still(before: int, removed: int) -> None:
    """Row 16: 0.29 of 100 is 29, not 28.999999999999996."""
    limits = Guards(max_share_removed=removed / before, max_share_shrunk=1)
    assert judged(numbered(before), numbered(before - removed), limits) == ()
    assert names(judged(numbered(before), numbered(before - removed - 1), limits)) == ["share_removed"]


@pytest.mark.parametrize(("before", "after"), [(3, 2), (2, 1)])
def test_no_set_is_too_small_to_be_guarded(before: int, after: int) -> None:
    """Row 16: a list of three that loses one has lost a third."""
    (verdict,) = judged(numbered(before), numbered(after))
    assert verdict.guard is Guard.SHARE_REMOVED
    share = {3: "33%", 2: "50%"}[before]
    assert verdict.says == f"1 of {before} values would be removed ({share}; 30% may go at once)"


@pytest.mark.parametrize(("removed", "held"), [(100, []), (101, ["number_removed"])])
def test_a_number_may_go_just_up_to_its_limit(removed: int, held: list[str]) -> None:
    """Row 16: of a long list a small share is many."""
    assert names(judged(numbered(10_000), numbered(10_000 - removed))) == held


def test_what_is_replaced_counts_as_removed() -> None:
    """Row 16: as many come as go, and all the same the old ones would fail."""
    assert names(judged(numbered(10), numbered(10, first=4))) == ["share_removed"]
    assert names(judged(numbered(10), numbered(10, first=3))) == []


@pytest.mark.parametrize("before", [0, 1, 3, 1_000])
def test_a_source_with_nothing_is_held_however_little_there_was(before: int) -> None:
    """Row 16: empty is a guard of its own."""
    found = judged(numbered(before), State())
    assert names(found) == ["source_empty", *(["number_removed"] if before > 100 else [])]
    assert found[0].says == "the source has no values at all"


# --- how large the source is ------------------------------------------------------------------------------------------


@EXAMPLES
@given(share=SHARES, before=st.integers(1, 400), now=st.integers(1, 400))
def test_a_source_may_shrink_just_to_its_limit(share: float, before: int, now: int) -> None:
    """Row 16: rows are counted, also where all of them give the same values."""
    limits = Guards(max_share_shrunk=share, max_times_grown=1_000)
    held = names(judged(numbered(2), numbered(2), limits, rows=now, rows_before=before))
    assert held == (["source_shrunk"] if (before - now) * 100 > round(share * 100) * before else [])


@EXAMPLES
@given(hundredths=st.integers(100, 500), before=st.integers(1, 400), now=st.integers(1, 2_100))
def test_a_source_may_grow_just_to_its_limit(hundredths: int, before: int, now: int) -> None:
    """Row 16: a query that the source ignores gives far more."""
    limits = Guards(max_share_shrunk=1, max_times_grown=hundredths / 100)
    held = names(judged(numbered(2), numbered(2), limits, rows=now, rows_before=before))
    assert held == (["source_grown"] if now * 100 > hundredths * before else [])


def test_what_is_said_of_sizes_has_the_figures() -> None:
    (shrunk,) = judged(numbered(2), numbered(2), rows=600, rows_before=1_000)
    assert shrunk.says == "the source has 600 rows, and had 1,000 (40% less; 30% may be missing)"
    (grown,) = judged(numbered(2), numbered(2), rows=3_001, rows_before=1_000)
    assert grown.says == (
        "the source has 3,001 rows, and had 1,000 (3.0 times; 3 times as many may come):"
        " a filter that the source ignores looks like this"
    )


@pytest.mark.parametrize("before", [None, 0])
def test_before_the_first_time_no_size_is_too_large_or_too_small(before: int | None) -> None:
    assert judged(numbered(1), numbered(300), rows=300, rows_before=before) == ()


@pytest.mark.parametrize("times", [float("inf"), float("nan"), 0.99])
def test_a_limit_is_a_number_that_can_be_kept(times: float) -> None:
    with pytest.raises(ValidationError):
        Guards(max_times_grown=times)


# --- lookalikes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("app-1", "App-1"),
        ("app-1", "app_1"),
        ("app-1", "app 1"),
        ("app-1", "app1"),
        ("straße", "STRASSE"),
        ("\uff57ide", "wide"),
        ("CC.1000", "cc1000"),
    ],
)
def test_values_that_only_case_or_punctuation_tells_apart_are_held_when_one_is_new(one: str, other: str) -> None:
    """Row 16: matching is exact, so that one of the two fails."""
    found = judged(State(items={one: ""}), State(items={one: "", other: ""}))
    assert names(found) == ["lookalikes"]
    assert repr(one) in found[0].says
    assert repr(other) in found[0].says


@pytest.mark.parametrize("pair", [("app-1", "app-2"), ("a", "b"), ("1.10", "1.11"), ("é", "e"), ("-", "_")])
def test_values_that_differ_in_a_letter_or_a_digit_are_no_lookalikes(pair: tuple[str, str]) -> None:
    assert judged(State(), State(items=dict.fromkeys(pair, ""))) == ()


def test_lookalikes_that_stand_there_already_are_not_held_again_and_again() -> None:
    there = State(items={"a-1": "", "A-1": ""})
    assert judged(there, State(items={**there.items, "b": ""})) == ()
    assert names(judged(there, State(items={**there.items, "a_1": ""}))) == ["lookalikes"]


def test_a_value_that_takes_the_place_of_its_lookalike_is_no_pair() -> None:
    """It is held for what is removed, not for being alike."""
    remote = State(items={**numbered(10).items, "a-1": ""})
    assert judged(remote, State(items={**numbered(10).items, "A-1": ""})) == ()


def test_of_many_lookalikes_some_are_named_and_all_are_counted() -> None:
    twins = dict.fromkeys((spelt for number in range(12) for spelt in (f"app-{number:02}", f"APP-{number:02}")), "")
    (verdict,) = judged(State(), State(items=twins))
    assert verdict.says.startswith("values differ in case or punctuation only: 'APP-00' and 'app-00'; 'APP-01' and")
    assert verdict.says.endswith(" and 2 more")
    assert len(lookalikes(twins, twins)) == 12


def test_what_lookalikes_are_called_cannot_hide_in_a_receipt() -> None:
    (verdict,) = judged(State(), State(items={"a\x1b\u202e": "", "a\u2028": ""}))
    assert verdict.says.isprintable()


# --- what only a person can know --------------------------------------------------------------------------------------


def test_what_would_be_made_anew_is_asked_first() -> None:
    found = judged(State(), numbered(1), new="the policy has no tag 'Costcentre'")
    assert [(one.guard, one.says) for one in found] == [(Guard.NEW_TAG, "the policy has no tag 'Costcentre'")]


def test_a_change_by_hand_is_named_with_what_was_changed() -> None:
    """Row 17: a change by hand is never undone without asking."""
    remote, desired = State(items={"a": "", "x": "", "y": ""}), State(items={"a": ""})
    for last, says in (
        (State(items={"a": "", "x": ""}), "something was changed at the vendor since we last applied it: 'y'"),
        (State(items={"a": ""}), "2 things were changed at the vendor since we last applied it: 'x', 'y'"),
    ):
        found = judge(plan(remote, desired, last), desired, Facts(rows=1), Guards(max_share_removed=1), NOW)
        assert [(one.guard, one.says) for one in found] == [(Guard.DRIFT, says)]


def test_where_nobody_can_tell_what_was_changed_a_person_is_asked() -> None:
    """Row 17: what was last applied is lost; drift cannot be ruled out."""
    found = judged(numbered(3), numbered(3), lost="what was last applied is lost")
    assert [(one.guard, one.says) for one in found] == [(Guard.DRIFT, "what was last applied is lost")]


def test_properties_that_would_vanish_from_keys_that_stay_are_guarded() -> None:
    """Row 16: a field that comes back blank for every row empties a column, and no key is removed."""
    (gone,) = judged(numbered(1), numbered(1), columns_removed=("env", "team"))
    assert gone.says == "the columns 'env', 'team' would be removed, with the properties of every key"
    assert judged(numbered(1), numbered(1), filled=10, emptied=3) == ()
    (emptied,) = judged(numbered(1), numbered(1), filled=10, emptied=4)
    assert emptied.says == "4 of 10 properties would be emptied (40%; 30% may be emptied at once)"


# --- overrides --------------------------------------------------------------------------------------------------------

OBJECTED: dict[Guard, tuple[State, State, dict[str, Any]]] = {
    Guard.SHARE_REMOVED: (numbered(3), numbered(2), {}),
    Guard.NUMBER_REMOVED: (numbered(1_000), numbered(899), {}),
    Guard.SOURCE_EMPTY: (numbered(3), State(), {}),
    Guard.SOURCE_SHRUNK: (numbered(2), numbered(2), {"rows": 6, "rows_before": 10}),
    Guard.SOURCE_GROWN: (numbered(2), numbered(2), {"rows": 31, "rows_before": 10}),
    Guard.LOOKALIKES: (numbered(1), State(items={"v0000": "", "V0000": ""}), {}),
    Guard.NEW_TAG: (State(), numbered(1), {"new": "no such tag"}),
    Guard.DRIFT: (numbered(1), numbered(1), {"lost": "lost"}),
    Guard.COLUMNS_REMOVED: (numbered(1), numbered(1), {"columns_removed": ("team",)}),
    Guard.SHARE_EMPTIED: (numbered(1), numbered(1), {"filled": 10, "emptied": 4}),
    Guard.OTHERS_LOST: (numbered(1), numbered(1), {"others_lost": "tag env"}),
}


@pytest.mark.parametrize("guard", Guard)
def test_each_guard_passes_by_an_override_of_its_own_name_and_by_no_other(guard: Guard) -> None:
    """Row 16: one named override, recorded with its end and its reason."""
    remote, desired, facts = OBJECTED[guard]
    (held,) = judged(remote, desired, **facts)
    assert held.guard is guard
    assert held.refuses
    assert held.shown() == {"guard": guard.value, "says": held.says, "verdict": "held"}

    (passed,) = judged(remote, desired, Guards(overrides=(override(guard),)), **facts)
    assert not passed.refuses
    assert passed.shown() == {
        "guard": guard.value,
        "says": held.says,
        "verdict": "overridden",
        "override": {"until": "2026-03-02T00:00:00Z", "reason": "moved to another source"},
    }

    others = tuple(override(other) for other in Guard if other is not guard)
    (still,) = judged(remote, desired, Guards(overrides=others), **facts)
    assert still == held


@pytest.mark.parametrize("guard", Guard)
def test_an_override_that_has_ended_does_nothing_and_is_warned_about(guard: Guard) -> None:
    remote, desired, facts = OBJECTED[guard]
    old = override(guard, until="2026-02-28")
    (verdict,) = judged(remote, desired, Guards(overrides=(old,)), **facts)
    assert verdict.refuses
    said = f"the override of guard {guard.value} ended on 2026-03-01 00:00 UTC and does nothing any more"
    assert expired([old, override(guard)], NOW) == [said]


def test_of_several_overrides_the_first_that_has_not_ended_counts() -> None:
    old, first, second = (
        override(Guard.SHARE_REMOVED, until, reason)
        for until, reason in (("2026-02-01", "the old one"), ("2026-03-01", "the first"), ("2026-12-31", "the second"))
    )
    (verdict,) = judged(numbered(3), numbered(2), Guards(overrides=(old, first, second)))
    assert verdict.override == first


@pytest.mark.parametrize(
    ("until", "ends"),
    [
        ("2026-03-01", datetime(2026, 3, 2, tzinfo=UTC)),
        ("2024-02-29", datetime(2024, 3, 1, tzinfo=UTC)),
        ("2026-12-31", datetime(2027, 1, 1, tzinfo=UTC)),
        ("2026-03-01T12:00:00", datetime(2026, 3, 1, 12, tzinfo=UTC)),
        ("2026-03-01T12:00:00+02:00", datetime(2026, 3, 1, 10, tzinfo=UTC)),
        (datetime(2026, 3, 1, tzinfo=UTC).date(), datetime(2026, 3, 2, tzinfo=UTC)),
        (datetime(2026, 3, 1, 12, tzinfo=UTC), datetime(2026, 3, 1, 12, tzinfo=UTC)),
    ],
)
def test_a_date_is_the_whole_day_and_a_moment_is_that_moment(until: object, ends: datetime) -> None:
    given = Override.model_validate({"guard": "drift", "until": until, "reason": "why"})
    assert given.until == ends
    assert given.until.tzinfo is UTC


@pytest.mark.parametrize(("left", "passes"), [(timedelta(microseconds=1), True), (timedelta(0), False)])
def test_an_override_ends_at_its_end(left: timedelta, *, passes: bool) -> None:
    one = Override(guard=Guard.SHARE_REMOVED, until=NOW + left, reason="why")
    (verdict,) = judged(numbered(3), numbered(2), Guards(overrides=(one,)))
    assert verdict.refuses is not passes
    assert (expired([one], NOW) == []) is passes


@pytest.mark.parametrize(
    "until", ["tomorrow", "2026-02-30", "", 1, 20260301, 1e9, True, None, "9999-12-31", "9999-12-31T23:00:00-05:00"]
)
def test_an_end_that_is_no_date_is_refused(until: object) -> None:
    with pytest.raises(ValidationError):
        Override.model_validate({"guard": "drift", "until": until, "reason": "why"})


@pytest.mark.parametrize(
    "given",
    [
        {"guard": "everything", "until": "2026-03-01", "reason": "why"},
        {"guard": "drift", "until": "2026-03-01"},
        {"guard": "drift", "reason": "for ever"},
        {"guard": "drift", "until": "2026-03-01", "reason": "x"},
        {"guard": "drift", "until": "2026-03-01", "reason": "why", "by": "me"},
    ],
)
def test_an_override_names_one_guard_an_end_and_a_reason(given: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        Override.model_validate(given)


def test_each_verdict_survives_being_kept() -> None:
    (verdict,) = judged(numbered(3), numbered(2), Guards(overrides=(override(Guard.SHARE_REMOVED),)))
    assert Verdict.model_validate_json(verdict.model_dump_json()) == verdict
    limits = Guards(overrides=(override(Guard.DRIFT),))
    assert Guards.model_validate(limits.model_dump(mode="json")) == limits

"""The difference between what is and what is wanted: what applying it gives, what is drift, what a receipt shows."""

from __future__ import annotations

import json

import pytest
from finops_relay.sync.plan import SHOWN, Change, Drift, Plan, apply, plan
from finops_relay.sync.state import Setting, State
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

NAMES = st.sampled_from(["a", "b", "c", "A", "é", "", "a b", "\ud83d", "\U0001f4be"])
"""Few, so that two states have some in common."""
CONTENTS = st.sampled_from(["", "a,1", "a,2"])
SETTINGS: st.SearchStrategy[Setting] = st.sampled_from([None, True, False, "", "true", "see the wiki", "LIST", "ANY"])
STATES = st.builds(
    State,
    items=st.dictionaries(NAMES, CONTENTS, max_size=8),
    settings=st.dictionaries(st.sampled_from(["message", "mandatory", "value_type"]), SETTINGS),
)
EXAMPLES = settings(max_examples=150)


def of(*names: str, **said: Setting) -> State:
    """Return a state of values."""
    return State(items=dict.fromkeys(names, ""), settings=said)


# --- what it does -----------------------------------------------------------------------------------------------------


@EXAMPLES
@given(remote=STATES, desired=STATES, applied=st.none() | STATES)
def test_applied_it_gives_what_is_wanted_of_ours_and_leaves_the_rest(
    remote: State, desired: State, applied: State | None
) -> None:
    after = apply(plan(remote, desired, applied), remote, desired)
    assert after.items == desired.items
    assert after.owned(desired.settings).settings == desired.settings
    others = {name: value for name, value in remote.settings.items() if name not in desired.settings}
    assert {name: value for name, value in after.settings.items() if name not in desired.settings} == others


@EXAMPLES
@given(remote=STATES, desired=STATES)
def test_it_is_nothing_just_where_the_remote_is_what_is_wanted(remote: State, desired: State) -> None:
    found = plan(remote, desired, None)
    ours = remote.owned(desired.settings)
    assert found.nothing == (ours == desired)
    assert found.nothing == (ours.fingerprint == desired.fingerprint)
    assert found.nothing == (not found.lines())


@EXAMPLES
@given(state=STATES, applied=st.none() | STATES)
def test_between_equal_states_it_is_nothing_and_nobody_has_to_be_asked(state: State, applied: State | None) -> None:
    found = plan(state, state, applied)
    assert found.nothing
    assert found.drift == ()


@EXAMPLES
@given(remote=STATES, desired=STATES)
def test_a_second_one_after_the_first_was_applied_is_nothing(remote: State, desired: State) -> None:
    after = apply(plan(remote, desired, None), remote, desired)
    assert plan(after, desired, desired).nothing


@EXAMPLES
@given(remote=STATES, desired=STATES)
def test_every_name_stands_in_it_once_and_in_order(remote: State, desired: State) -> None:
    found = plan(remote, desired, None)
    changed = tuple(change.name for change in found.changed)
    assert sorted({*found.added, *found.removed, *changed}) == sorted([*found.added, *found.removed, *changed])
    for names in (found.added, found.removed, changed):
        assert list(names) == sorted(names)
    assert (found.before, found.after) == (len(remote.items), len(desired.items))
    assert found.after == found.before + len(found.added) - len(found.removed)


# --- drift ------------------------------------------------------------------------------------------------------------


@EXAMPLES
@given(remote=STATES, desired=STATES, applied=STATES)
@example(remote=of("a", "x"), desired=of("a", "b"), applied=of("a", "b"))
@example(remote=of("a"), desired=of("a", "b"), applied=of("a", "b"))
def test_drift_is_just_what_somebody_made_neither_what_we_left_nor_what_is_wanted(
    remote: State, desired: State, applied: State
) -> None:
    """Row 17: each thing that is ours, looked at by itself, with its three values."""
    expected = []
    for name in sorted({*remote.items, *desired.items, *applied.items}):
        was, now, goal = applied.items.get(name), remote.items.get(name), desired.items.get(name)
        if now not in (was, goal):
            expected.append(Drift(name=name, applied=was, remote=now, desired=goal))
    for name in sorted({*desired.settings} & {*applied.settings}):
        left, is_set, wanted = applied.settings[name], remote.settings.get(name), desired.settings[name]
        if is_set not in (left, wanted):
            expected.append(Drift(name=name, applied=left, remote=is_set, desired=wanted))
    assert plan(remote, desired, applied).drift == tuple(expected)


@EXAMPLES
@given(remote=STATES, first=STATES, second=STATES)
def test_where_nobody_came_in_between_there_is_no_drift(remote: State, first: State, second: State) -> None:
    """Row 17: what we wrote ourselves is never taken for a change by hand, whatever comes next."""
    after = apply(plan(remote, first, None), remote, first)
    assert plan(after, second, first).drift == ()


def test_before_the_first_time_nothing_can_have_drifted() -> None:
    assert plan(of("a"), of("b"), None).drift == ()


def test_a_change_by_hand_that_is_just_what_is_wanted_is_no_drift() -> None:
    """Row 17: nobody's change would be undone."""
    assert plan(of("a", "b"), of("a", "b"), of("a")).drift == ()
    assert plan(of("a", message="new"), of("a", message="new"), of("a", message="old")).drift == ()


def test_a_setting_that_is_not_ours_any_more_may_be_anything() -> None:
    assert plan(of("a", message="theirs"), of("a"), of("a", message="ours")).nothing
    assert plan(of("a", message="theirs"), of("a"), of("a", message="ours")).drift == ()


def test_a_setting_that_has_just_become_ours_cannot_have_drifted() -> None:
    found = plan(of("a", message="theirs"), of("a", message="ours"), of("a"))
    assert found.settings == (Change(name="message", before="theirs", after="ours"),)
    assert found.drift == ()


# --- what a person is shown -------------------------------------------------------------------------------------------


def test_it_is_said_in_words_that_a_person_can_read() -> None:
    remote = State(items={"a": "a,1", "b": "b,1", "c": "c,1"}, settings={"message": None, "mandatory": False})
    desired = State(items={"b": "b,2", "c": "c,1", "d": "d,1"}, settings={"message": "ask us", "mandatory": True})
    assert plan(remote, desired, None).lines() == [
        "add 1: d",
        "remove 1: a",
        "change 1: b",
        "set mandatory from false to true",
        "set message from absent to ask us",
    ]
    many = of(*(f"{number:02}" for number in range(12)))
    assert plan(State(), many, None).lines() == ["add 12: 00, 01, 02, 03, 04 and 7 more"]


def test_the_three_values_of_a_drift_are_shown() -> None:
    """Row 17: last applied, remote and desired, of a value and of a setting."""
    found = plan(of("x", message="theirs"), of("b", message="new"), of("a", message="ours"))
    assert found.shown()["drift"] == {
        "count": 2,
        "first": [
            {"name": "x", "last_applied": "absent", "remote": "present", "desired": "absent"},
            {"name": "message", "last_applied": "ours", "remote": "theirs", "desired": "new"},
        ],
    }
    assert "drift" not in plan(of("a"), of("b"), of("a")).shown()


@pytest.mark.parametrize(("count", "fits"), [(SHOWN, True), (SHOWN + 1, False)])
def test_what_a_receipt_cannot_show_whole_is_counted_whole(count: int, *, fits: bool) -> None:
    names = [f"{number:03}" for number in range(count)]
    for found in (plan(State(), of(*names), None), plan(of(*names), State(), None)):
        assert found.fits is fits
        shown = found.shown()
        (kind,) = [kind for kind in ("added", "removed") if shown[kind]["count"]]
        assert shown[kind] == {"count": count, "first": names[:SHOWN]}


def size(found: Plan) -> int:
    """Return the bytes that what a receipt shows of a plan takes in an item of the ledger."""
    return len(json.dumps(found.shown() | {"steps": found.lines()}, ensure_ascii=False).encode())


@pytest.mark.parametrize("char", ["x", "\x00", "\x1b", "\ud83d", "\U0001f4be", '"', "\u2028", "\u202e"])
def test_a_receipt_stays_small_and_readable_whatever_strangers_call_their_values(char: str) -> None:
    def state(first: int, content: str) -> State:
        names = [f"{number:03}{char * 1_000}" for number in range(first, first + 200)]
        return State(items=dict.fromkeys(names, content * 1_000), settings={"message": char * 2_000 + content})

    found = plan(state(0, char), state(100, "2"), state(50, "3"))
    assert len(found.added) == len(found.removed) == len(found.changed) == 100
    assert len(found.drift) == 251
    assert size(found) < 300_000
    for text in (*found.lines(), *found.shown()["added"]["first"]):
        assert text.isprintable(), ascii(text)


def test_a_receipt_of_a_hundred_thousand_long_values_stays_small() -> None:
    long = "\x00" * 1_000
    found = plan(State(), State(items=dict.fromkeys((f"{number:06}{long}" for number in range(100_000)), "")), None)
    assert size(found) < 300_000
    assert found.shown()["added"]["count"] == 100_000


def test_a_plan_of_a_hundred_thousand_values_is_applied_in_one_go() -> None:
    remote, desired = (of(*(f"{number:06}" for number in range(start, start + 100_000))) for start in (0, 50_000))
    assert apply(plan(remote, desired, remote), remote, desired) == desired


# --- states -----------------------------------------------------------------------------------------------------------


@EXAMPLES
@given(one=STATES, other=STATES)
def test_two_states_have_one_fingerprint_just_where_they_say_the_same(one: State, other: State) -> None:
    assert (one.fingerprint == other.fingerprint) == (one == other)
    turned = State(items=dict(reversed(one.items.items())), settings=dict(reversed(one.settings.items())))
    assert turned.fingerprint == one.fingerprint


@EXAMPLES
@given(state=STATES)
def test_a_state_that_was_kept_as_json_is_the_same_state(state: State) -> None:
    said = [*state.items, *(value for value in state.settings.values() if isinstance(value, str))]
    assume(all(text.isprintable() or not text for text in said))
    assert State.model_validate_json(state.model_dump_json()) == state


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (State(items={"a": "b"}), State(items={"ab": ""})),
        (State(items={"a": ""}), State(settings={"a": ""})),
        (State(settings={"mandatory": True}), State(settings={"mandatory": "True"})),
        (State(settings={"message": None}), State()),
    ],
)
def test_what_only_looks_alike_has_another_fingerprint(one: State, other: State) -> None:
    assert one.fingerprint != other.fingerprint


def test_owned_settings_are_those_that_are_named_and_absent_ones_are_empty() -> None:
    assert of("a", message="x", mandatory=True).owned({"message": "y", "value_type": "LIST"}) == State(
        items={"a": ""}, settings={"message": "x", "value_type": None}
    )

"""How values become ours: trimmed, in one case, checked; what cannot be typed or seen is named."""

from __future__ import annotations

import pytest
from finops_relay.sync.rules import MAX_VALUE_CHARS, Rules
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

EXAMPLES = settings(max_examples=150)
RULES = st.builds(
    Rules,
    trim=st.booleans(),
    case=st.sampled_from(["keep", "lower", "upper"]),
    pattern=st.sampled_from(["", "[a-z]+", "(?i)cc-[0-9]{4}", ".*"]),
)


@pytest.mark.parametrize(
    ("rules", "given_value", "value"),
    [
        (Rules(), " app-1\t", "app-1"),
        (Rules(), "\u00a0app-1\u2003", "app-1"),
        (Rules(), "App-1", "App-1"),
        (Rules(case="lower"), "App-1", "app-1"),
        (Rules(case="upper"), "straße", "STRASSE"),
        (Rules(trim=False), " app-1", " app-1"),
        (Rules(), "two  words", "two  words"),
        (Rules(), " \n ", ""),
    ],
)
def test_a_value_is_trimmed_and_written_in_one_case(rules: Rules, given_value: str, value: str) -> None:
    assert rules.normalised(given_value) == value


@EXAMPLES
@given(rules=RULES, value=st.text(max_size=20))
def test_what_was_normalised_once_stays_as_it_is(rules: Rules, value: str) -> None:
    """The same value of a source gives the same value of ours every time, or each run would change the list."""
    once = rules.normalised(value)
    if rules.fault(once) is None:
        assert rules.normalised(once) == once
        assert rules.fault(rules.normalised(once)) is None


@EXAMPLES
@given(rules=RULES, value=st.text(max_size=20))
def test_a_good_value_is_one_that_can_be_seen_and_typed(rules: Rules, value: str) -> None:
    found = rules.normalised(value)
    if rules.fault(found) is None:
        assert found
        assert found.isprintable()
        assert found == found.strip()


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("", "the value is empty"),
        ("x" * (MAX_VALUE_CHARS + 1), "the value has 1,001 characters"),
        ("a\u2028b", "the value has characters that cannot be seen, or bytes that are not UTF-8"),
        ("a\nb", "the value has characters that cannot be seen, or bytes that are not UTF-8"),
        ("a\x00b", "the value has characters that cannot be seen, or bytes that are not UTF-8"),
        ("a\u200bb", "the value has characters that cannot be seen, or bytes that are not UTF-8"),
        ("\ufeffa", "the value has characters that cannot be seen, or bytes that are not UTF-8"),
        ("a\udcff", "the value has characters that cannot be seen, or bytes that are not UTF-8"),
        ("a ", "the value has white space around it"),
    ],
)
def test_a_bad_value_is_told_what_is_wrong_and_what_to_do(value: str, error: str) -> None:
    fault = Rules(trim=False).fault(value)
    assert fault is not None
    assert fault[0] == error
    assert fault[1]


@pytest.mark.parametrize("value", ["x" * MAX_VALUE_CHARS, "a b", "é", "\U0001f4be", "kubernetes.io/name", "-"])
def test_a_good_value_has_no_fault(value: str) -> None:
    assert Rules().fault(value) is None


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        ("CC-[0-9]{4}", ["CC-1000"], ["CC-100", "CC-10000", "xCC-1000", "cc-1000"]),
        ("a|bb", ["a", "bb"], ["ab", "b", "abb"]),
        (r"\w+", ["abc"], ["a b"]),
        ("(?i)app", ["APP", "App"], ["apps"]),
    ],
)
def test_a_pattern_is_met_by_the_whole_value(pattern: str, good: list[str], bad: list[str]) -> None:
    rules = Rules(pattern=pattern)
    assert [rules.fault(value) for value in good] == [None] * len(good)
    for value in bad:
        assert rules.fault(value) == (
            f"the value does not match the pattern {pattern}",
            "correct the value, or the rule's pattern",
        )


def test_a_pattern_is_met_after_trimming_and_case() -> None:
    rules = Rules(case="upper", pattern="CC-[0-9]{4}")
    assert rules.fault(rules.normalised(" cc-1000 ")) is None


def test_a_pattern_takes_no_longer_for_a_hostile_value() -> None:
    """RE2 is linear: with Python's own engine this value would take longer than the universe has."""
    assert Rules(pattern="(a+)+b").fault("a" * MAX_VALUE_CHARS) is not None


@pytest.mark.parametrize("pattern", ["(?=a)", r"(a)\1", "(", "[", "a{1001}", "\ud83d"])
def test_a_pattern_that_re2_cannot_compile_is_refused(pattern: str) -> None:
    with pytest.raises(ValidationError, match="RE2 cannot compile"):
        Rules(pattern=pattern)


@pytest.mark.parametrize("given_rules", [{"case": "title"}, {"duplicates": "keep"}, {"strip": True}, {"trim": "maybe"}])
def test_a_rule_that_does_not_exist_is_refused(given_rules: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Rules.model_validate(given_rules)

"""What a release file may say, and how it is told otherwise."""

from __future__ import annotations

import shlex

import pytest
from finops_relay.delivery.commands import DECISIONS, release
from finops_relay.delivery.identity import second_group
from finops_relay.delivery.receipt import Source
from finops_relay.jobs.release import Decision
from pydantic import ValidationError


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("send", "send"),
        (" Send ", "send"),
        ("drop", "drop"),
        ("mark as arrived", "arrived"),
        ("Mark_As-Arrived", "arrived"),
        ("mark  as\tarrived", "arrived"),
        ("arrived", "arrived"),
    ],
)
def test_a_decision_is_understood_however_it_is_spelt(said: str, meant: str) -> None:
    assert Decision(decision=said).decision == meant


@pytest.mark.parametrize("said", ["", "sent", "don't send", "drop it", "s e n d", "mark"])
def test_anything_else_decides_nothing(said: str) -> None:
    with pytest.raises(ValidationError, match="is none of send, drop, mark as arrived"):
        Decision(decision=said)


def test_a_decision_says_nothing_beside_itself() -> None:
    with pytest.raises(ValidationError, match="extra"):
        Decision.model_validate({"decision": "send", "delivery": "x"})


def test_the_command_of_a_receipt_writes_a_decision_that_is_understood() -> None:
    command = release(Source(bucket="drops", key="incoming/billing/c/2026-03/a b's.csv"), "d" * 64)
    before, _, comment = command.partition("  # ")
    words = shlex.split(before)
    assert words[0] == "echo"
    assert Decision.model_validate_json(words[1]).decision == "send"
    assert words[2:] == ["|", "aws", "s3", "cp", "-", f"s3://drops/incoming/release/{'d' * 64}.json"]
    for word in ("drop", "mark as arrived"):
        assert f'"{word}"' in comment
        assert word in DECISIONS


def test_what_goes_past_those_that_wait_has_a_group_of_its_own_for_each_target() -> None:
    assert second_group("billing/a") == second_group("billing/a")
    assert len({second_group("billing/a"), second_group("billing/b"), "billing/a", "billing/b"}) == 4

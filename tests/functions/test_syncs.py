"""Tags that follow their source of truth: whole lives, from a file or a source to what Infracost allows."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from finops_relay.delivery.ledger import Delivery
from finops_relay.delivery.receipt import Outcome
from finops_relay.errors import Wait
from finops_relay.jobs.custom_properties import prepare as properties
from finops_relay.jobs.release import release
from finops_relay.jobs.syncing.remembered import owned_of

from tests.functions.test_faults_reading import Dripping, TornS3, torn
from tests.world.relay import DROPS, START
from tests.world.syncs import (
    KEY,
    OTHER,
    POLICY,
    SLUG,
    TABLE,
    TAGS,
    StandIns,
    Syncs,
    applications,
    in_memory,
    over_aws,
    relay_yaml,
    standins,
)

READ, WRITE = "getTaggingPolicy", "updateTaggingPolicy"
ONCE = [READ, WRITE, READ]
"""The calls of a delivery that changes something."""
FIVE = ("a", "b", "c", "d", "e")


@pytest.fixture(scope="module")
def running() -> Iterator[StandIns]:
    with standins() as found:
        yield found


@pytest.fixture
def w(running: StandIns) -> Iterator[Syncs]:
    with in_memory(running) as found:
        yield found


@pytest.fixture
def on_aws(running: StandIns) -> Iterator[Syncs]:
    """The same over AWS's own interfaces."""
    with over_aws(running) as found:
        yield found


def outcome(w: Syncs, delivery: Delivery, expected: str = "delivered", **counts: int) -> dict[str, Any]:
    """Check how a delivery ended, and what became of its rows; return its receipt."""
    receipt = w.receipt(delivery)
    assert receipt["outcome"] == expected, (receipt["reason"], receipt["warnings"])
    for name, count in counts.items():
        assert receipt["rows"]["in" if name == "in_" else name] == count, receipt["rows"]
    return receipt


def dropped(w: Syncs, *values: str, key: str = KEY, name: str = "") -> Delivery:
    """Drop and prepare a list that can be delivered."""
    found = w.prepare(w.drop(name or f"{TAGS}/{key}.txt", "\n".join(values).encode()))
    assert found is not None
    assert found.stage == "queued", found.reason
    return found


def rejected(w: Syncs, delivery: Delivery) -> list[dict[str, str]]:
    """Return the rows that were rejected."""
    text = w.text(delivery.rejected_rows.removeprefix(f"s3://{DROPS}/")).decode(errors="surrogateescape")
    return list(csv.DictReader(io.StringIO(text, newline="")))


def by_hand(w: Syncs, *values: str, **said: Any) -> None:  # noqa: ANN401 -- JSON
    """Have somebody set the values of our tag, or an attribute of it, in the dashboard."""
    w.change_by_hand(lambda tag: tag.update({**({"allowedValues": list(values)} if values else {}), **said}))


def writes(w: Syncs) -> int:
    """Return how often the policy was written, by whomever."""
    return w.calls().count(WRITE)


def receipts(w: Syncs, kind: str = "tagging-policies") -> list[dict[str, Any]]:
    """Return the receipts of one kind."""
    return [receipt for receipt in w.receipts() if receipt["kind"] == kind]


def ours(said: str, policy: str = POLICY) -> str:
    """Return a relay.yaml that says this of our tag, whose values are dropped as files."""
    return f"tagging_policies: {{{policy}: {{tags: {{{KEY}: {{{said}}}}}}}}}"


# --- a list becomes the values ----------------------------------------------------------------------------------------


def test_a_list_becomes_the_values_and_everything_else_of_the_policy_stays(w: Syncs) -> None:
    before = w.state()["tagging_policies"][SLUG][0]
    done = w.deliver_values("d", "b", "a", "c", "e")
    receipt = outcome(w, done, in_=5, accepted=5)
    after = w.state()["tagging_policies"][SLUG][0]
    assert w.tags()[KEY] == {**before["attributes"]["tags"][1], "allowedValues": [*FIVE]}
    assert w.tags()["env"] == before["attributes"]["tags"][0]
    assert w.tags()["env"]["someNewFlag"] is False  # a member that no document knows
    assert {**after["attributes"], "tags": None} == {**before["attributes"], "tags": None}
    assert w.state()["dangers"] == []
    (unit,) = receipt["units"]
    assert (unit["name"], unit["status"], unit["attempts"]) == (f"tag {KEY} of policy {POLICY}", "accepted", 1)
    assert unit["request_id"]
    assert receipt["plan"]["steps"] == ["add 1: e"]
    assert (receipt["plan"]["verdict"], receipt["next_command"], receipt["warnings"]) == ("delivered", "", [])


@pytest.mark.parametrize("count", [1, 250, 5_000])
def test_however_many_values_there_are_they_take_one_write_and_as_many_calls(w: Syncs, count: int) -> None:
    values = [*"abcd", *(f"v{number:05}" for number in range(count))]
    outcome(w, w.deliver_values(*values), accepted=count + 4)
    assert w.calls() == ONCE
    assert w.values() == sorted(values)  # sorted: of a long list Infracost shows the first five


@pytest.mark.parametrize("values", [FIVE, ("e", "d", "c", "b", "a"), (*FIVE, "a"), (" a ", *FIVE[1:])])
def test_where_nothing_is_to_be_done_nothing_is_written(w: Syncs, values: tuple[str, ...]) -> None:
    w.deliver_values(*FIVE)
    before = len(w.calls())
    receipt = outcome(w, w.deliver_values(*values), "unchanged", accepted=5, owed=0)
    assert w.calls()[before:] == [READ]
    assert (receipt["reason"], receipt["plan"]["verdict"]) == ("nothing to do: no write", "unchanged")
    assert receipt["units"][0]["status"] == "unchanged"


def test_the_first_delivery_may_find_that_all_is_right_already(w: Syncs) -> None:
    outcome(w, w.deliver_values("a", "b", "c", "d"), "unchanged")
    assert w.calls() == [READ]
    by_hand(w, "a", "b", "c", "d", "x")  # and it remembers what is right
    outcome(w, w.deliver_values(*FIVE), "held")


def test_what_was_removed_is_removed_and_what_was_added_is_added(w: Syncs) -> None:
    receipt = outcome(w, w.deliver_values("a", "b", "c", "e", "f"))
    assert receipt["plan"]["steps"] == ["add 2: e, f", "remove 1: d"]
    assert (receipt["plan"]["before"], receipt["plan"]["after"]) == (4, 5)
    assert w.values() == ["a", "b", "c", "e", "f"]


def test_a_long_list_without_a_message_is_warned_about(w: Syncs) -> None:
    values = [*"abcd", *(f"v{number:03}" for number in range(247))]
    (warning,) = outcome(w, w.deliver_values(*values))["warnings"]
    assert "the list has 251 values and no message" in warning
    assert outcome(w, w.deliver_values(*values[:-1]))["warnings"] == []
    w.configure(ours("message: see the wiki"))
    assert outcome(w, w.deliver_values(*values))["warnings"] == []


# --- how lists are written --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "body"),
    [
        (f"{KEY}.csv", b"\xef\xbb\xbfname,Value\r\nA,a\r\nB,b\r\n,\r\nC,c\r\nD,d\r\nE,e\r\n"),
        (f"{KEY}.csv", b'costcenter,"owner, since"\n"a","x, y"\nb,\nc,\nd,\ne,'),
        (f"{KEY}.json", b'["a", "b", "c", "d", "e"]'),
        (f"{KEY}.JSON", b'\xef\xbb\xbf{"values": ["a", "b", "c", "d", "e"]}'),
        (f"{KEY}.txt", b"\xef\xbb\xbfa\r\nb\r\n\r\nc\rd\ne"),
        ("Cost%43enter.txt", b"a\nb\nc\nd\ne\n"),
    ],
)
def test_a_list_may_be_written_as_people_write_it(w: Syncs, name: str, body: bytes) -> None:
    """Row 5: BOM, CRLF, quotes; the suffix says which form it is."""
    outcome(w, w.deliver_file(f"{TAGS}/{name}", body), in_=5, accepted=5)
    assert w.values() == [*FIVE]


def test_a_key_that_cannot_be_a_files_name_is_percent_encoded(w: Syncs) -> None:
    w.configure(f'tagging_policies: {{{POLICY}: {{tags: {{"kubernetes.io/name": {{adopt: true}}}}}}}}')
    outcome(w, w.deliver_values("web", "db", key="kubernetes.io%2Fname"))
    assert w.values("kubernetes.io/name") == ["db", "web"]


def test_a_json_object_sets_attributes_of_its_tag_and_leaves_those_that_it_does_not_name(w: Syncs) -> None:
    said = {"values": [*FIVE], "message": "see the wiki"}
    receipt = outcome(w, w.deliver_file(f"{TAGS}/{KEY}.json", json.dumps(said).encode()))
    assert receipt["plan"]["steps"] == ["add 1: e", "set message from absent to see the wiki"]
    assert (w.tags()[KEY]["message"], w.tags()[KEY]["mandatory"]) == ("see the wiki", True)
    outcome(w, w.deliver_file(f"{TAGS}/{KEY}.json", json.dumps({"values": [*FIVE], "mandatory": False}).encode()))
    assert (w.tags()[KEY]["message"], w.tags()[KEY]["mandatory"]) == ("see the wiki", False)
    by_hand(w, message="see the portal")  # not ours any more: no drift
    outcome(w, w.deliver_values(*FIVE), "unchanged")
    assert w.tags()[KEY]["message"] == "see the portal"


def test_rows_that_say_the_same_are_filtered_and_counted(w: Syncs) -> None:
    receipt = outcome(w, w.deliver_values(*FIVE, "a", " b ", "a"), in_=8, accepted=5, filtered=3)
    assert receipt["filtered_by"] == {"duplicates": 3}


def test_a_bad_row_is_named_with_its_line_and_the_others_go(w: Syncs) -> None:
    """Row 5: a line that is not UTF-8, and characters that nobody sees, within their line."""
    body = "a\nb\nc\u2028d\n".encode() + b"caf\xe9\nc\n" + b"x" * 1_001 + b"\nd\n"
    done = w.deliver_file(f"{TAGS}/{KEY}.txt", body)
    receipt = outcome(w, done, "partly_delivered", in_=7, accepted=4, rejected=3)
    assert receipt["reason"] == "3 rows were rejected; mend them and drop them back"
    assert [(row["line"], row["error"]) for row in rejected(w, done)] == [
        ("3", "the value has characters that cannot be seen, or bytes that are not UTF-8"),
        ("4", "the value has characters that cannot be seen, or bytes that are not UTF-8"),
        ("6", "the value has 1,001 characters"),
    ]
    assert rejected(w, done)[1]["value"].encode(errors="surrogateescape") == b"caf\xe9"
    assert w.values() == ["a", "b", "c", "d"]


def test_half_of_a_character_in_a_json_is_named_and_the_others_go(w: Syncs) -> None:
    """Row 5: JSON can write what no file can hold."""
    done = w.deliver_file(f"{TAGS}/{KEY}.json", b'["a", "b", "c", "d", "\\ud83d", ["e"]]')
    outcome(w, done, "partly_delivered", accepted=4, rejected=2)
    assert [(row["line"], row["value"]) for row in rejected(w, done)] == [("5", "\\ud83d"), ("6", "a list")]


@pytest.mark.parametrize("chunk", [1, 7])
def test_the_same_values_come_out_whatever_the_chunks_are(on_aws: Syncs, chunk: int) -> None:
    """Row 5: a character across a read border."""
    body = "\ufeffvalue\r\na\r\ncafé\r\n\U0001f4be\r\nc\r\nd\r\n".encode() + b"caf\xe9\r\nb\r\n"
    source = on_aws.drop(f"{TAGS}/{KEY}.csv", body)
    prepared = on_aws.prepare(source, torn(on_aws, Dripping(on_aws.s3, chunk)))
    assert prepared is not None
    outcome(on_aws, on_aws.finish(prepared.id), "partly_delivered", in_=7, accepted=6, rejected=1)
    assert on_aws.values() == ["a", "b", "c", "café", "d", "\U0001f4be"]


@pytest.mark.parametrize(
    ("name", "body", "words"),
    [
        (f"{KEY}.csv", b"name,owner\na,b\n", "no column of the first line is named value"),
        (f"{KEY}.json", b"a, b", "the file is no JSON"),
        (f"{KEY}.json", b'{"values": ["a"], "\\ud83d": 1}', "a member is no setting of a tag"),
        (f"{KEY}.json", b'{"values": ["a"], "message": "\\ud83d"}', "the message has half of a character"),
        (f"{KEY}.xlsx", b"a", "the suffix is none that is read here"),
        (f"2026/{KEY}.txt", b"a", "the file is in a folder that means nothing"),
        (f"{KEY}.txt", b"\xff\n\x00\n", "every row was rejected"),
        (f"mended/{'0' * 64}.csv", b"value,line\na,1\n", "there is no delivery of this folder to mend"),
        ("mended/x.csv", b"value,line\na,1\n", "the name does not say which delivery it mends"),
        (f"{KEY}.sync", b"", "no source of truth is configured for it"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_way_to_say_it(w: Syncs, name: str, body: bytes, words: str) -> None:
    done = w.deliver_file(f"{TAGS}/{name}", body)
    receipt = outcome(w, done, "rejected")
    assert words in receipt["reason"]
    assert "fix: " in receipt["reason"] or receipt["next_command"]
    assert w.calls() == []


def test_a_policy_folder_made_in_a_console_is_nothing(w: Syncs) -> None:
    assert w.prepare(w.drop(f"{TAGS}/", b"")) is None
    assert w.receipts() == []


# --- rules, and rows that are mended ----------------------------------------------------------------------------------


def test_values_are_normalised_by_the_rules_of_their_tag(w: Syncs) -> None:
    w.configure(ours('rules: {case: upper, pattern: "[A-Z]"}, guards: {max_share_removed: 1}'))
    done = w.deliver_values(" a", "b ", "C", "c", "dd")
    outcome(w, done, "partly_delivered", in_=5, accepted=3, filtered=1, rejected=1)
    assert w.values() == ["A", "B", "C"]
    (row,) = rejected(w, done)
    assert (row["value"], row["line"], row["error"]) == ("dd", "5", "the value does not match the pattern [A-Z]")


def test_duplicates_may_be_rejected_by_name_instead(w: Syncs) -> None:
    w.configure(ours("rules: {duplicates: reject}"))
    done = w.deliver_values("a", "b", "a", "c", "d")
    outcome(w, done, "partly_delivered", accepted=4, rejected=1)
    assert rejected(w, done)[0]["error"] == "the value stands in row 1 already"


@pytest.mark.parametrize("root", ["incoming", "plan"])
def test_mended_rows_bring_the_whole_list(w: Syncs, root: str) -> None:
    w.configure(ours('rules: {pattern: "[a-z]"}'))
    body = b"name,value\nA,a\nB,b\nC,cc\nD,d\nE,ee\n"
    done = w.deliver_file(f"{TAGS}/{KEY}.csv", body)
    assert outcome(w, done, "partly_delivered", rejected=2)["next_command"].startswith("aws s3 cp s3://drops/rejected/")
    assert w.values() == ["a", "b", "d"]
    mended = "name,value,line,error,fix\r\nC,c,4,x,y\r\nE,e,6,x,y\r\n"
    again = w.deliver_file(f"{TAGS.replace('incoming', root)}/mended/{done.id}.csv", mended.encode())
    if root == "plan":
        assert w.plan(again)["verdict"] == "would_deliver"
        assert w.plan(again)["steps"] == ["add 2: c, e"]
        assert w.values() == ["a", "b", "d"]
    else:
        outcome(w, again, in_=5, accepted=5)
        assert w.values() == [*FIVE]


def test_mended_rows_that_are_still_bad_can_be_mended_again(w: Syncs) -> None:
    w.configure(ours('rules: {pattern: "[a-z]"}'))
    first = w.deliver_values("a", "b", "c", "dd", "ee")
    second = w.deliver_file(f"{TAGS}/mended/{first.id}.csv", b"value,line\nd,4\neee,5\n")
    outcome(w, second, "partly_delivered", accepted=4, rejected=1)
    third = w.deliver_file(f"{TAGS}/mended/{second.id}.csv", b"value,line\ne,5\n")
    outcome(w, third, in_=5, accepted=5)
    assert w.values() == [*FIVE]


def test_mended_rows_of_a_list_that_was_replaced_since_are_as_old_as_the_list(w: Syncs) -> None:
    """Row 15: a newer list is not put back by an older one's mended rows."""
    w.configure(ours('rules: {pattern: "[a-z]"}'))
    first = w.deliver_values("a", "b", "c", "dd")
    w.deliver_values("a", "b", "c", "d", "e")
    late = w.deliver_file(f"{TAGS}/mended/{first.id}.csv", b"value,line\nx,4\n")
    assert "the newer delivery" in outcome(w, late, "superseded")["reason"]
    assert w.values() == [*FIVE]


def test_a_mended_row_that_belongs_to_no_row_is_refused(w: Syncs) -> None:
    w.configure(ours('rules: {pattern: "[a-z]"}'))
    done = w.deliver_values("a", "b", "c", "dd")
    late = w.deliver_file(f"{TAGS}/mended/{done.id}.csv", b"value,line\nd,9\n")
    assert "a mended row is for a line on which no row begins" in outcome(w, late, "rejected")["reason"]


# --- looking before leaping -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        (FIVE, "would_deliver"),
        (("a", "b"), "would_be_held"),
        ((), "would_be_held"),
        (("a", "b", "c", "d"), "unchanged"),
        (("\x00",), "would_be_rejected"),
    ],
)
def test_a_plan_says_what_would_happen_and_writes_nothing(w: Syncs, values: tuple[str, ...], verdict: str) -> None:
    done = w.deliver_values(*values, root="plan")
    receipt = outcome(w, done, "rejected" if verdict == "would_be_rejected" else "unchanged")
    assert receipt["plan"]["verdict"] == verdict
    assert writes(w) == 0
    assert w.values() == ["a", "b", "c", "d"]
    assert w.keys(DROPS, "state/") == []
    if verdict != "would_be_rejected":
        assert f"incoming/tagging-policies/{POLICY}/{KEY}.txt" in receipt["next_command"]
    if verdict == "would_be_held":
        assert receipt["plan"]["why"]
        assert {said["verdict"] for said in receipt["plan"]["guards"]} == {"held"}


def test_a_plan_holds_up_nothing_and_is_remembered_nowhere(w: Syncs) -> None:
    held = w.deliver_values("a")
    plan = w.deliver_values("a", "b", "c", root="plan")
    assert w.plan(plan)["verdict"] == "would_deliver"
    assert plan.group != held.group  # nor does it wait behind what is being written
    outcome(w, held, "held")
    outcome(w, w.decide(held))
    assert w.values() == ["a"]


def test_a_plan_may_be_made_while_another_run_has_the_policy(w: Syncs) -> None:
    target = f"tagging-policy/{SLUG}/{POLICY}"
    until = w.time[0] + timedelta(minutes=10)
    w.ledger.save_target(w.ledger.target(target).but(content={"by": "another", "until": until.isoformat()}))
    assert w.plan(w.deliver_values(*FIVE, root="plan"))["verdict"] == "would_deliver"


def test_a_plan_of_a_policy_that_does_not_exist_says_so(w: Syncs) -> None:
    done = w.deliver_file(f"plan/tagging-policies/nobody/{KEY}.txt", b"a\n")
    receipt = outcome(w, done, "unchanged")
    assert receipt["plan"]["verdict"] == "would_fail"
    assert "404" in receipt["plan"]["why"]


def test_a_plan_too_long_for_a_receipt_stands_whole_in_a_file(w: Syncs) -> None:
    values = [*"abcd", *(f"v{number:03}" for number in range(51))]
    shown = w.plan(w.deliver_values(*values, root="plan"))
    assert (shown["added"]["count"], len(shown["added"]["first"])) == (51, 50)
    whole = json.loads(w.text(shown["whole_plan"].removeprefix(f"s3://{DROPS}/")))
    assert whole["added"] == sorted(values[4:])
    assert "whole_plan" not in w.plan(w.deliver_values(*values[:-1], root="plan"))


def test_hostile_values_stand_in_receipts_in_a_form_that_can_be_read(w: Syncs) -> None:
    w.configure(ours("guards: {max_number_removed: 1000}"))
    by_hand(w, *(f"\u202e{number:03}{'x' * 900}" for number in range(200)), message="\x1b[2J" * 300)
    held = w.deliver_file(f"{TAGS}/{KEY}.json", json.dumps({"values": ["a"], "message": "m" * 2_000}).encode())
    outcome(w, held, "held")
    size = len(w.text(held.receipt_key))
    assert size < 300_000
    assert "\x1b" not in json.dumps(w.plan(held), ensure_ascii=False)
    assert "\u202e" not in json.dumps(w.plan(held), ensure_ascii=False)


# --- guards and their overrides ---------------------------------------------------------------------------------------


def test_a_list_that_would_lose_too_much_is_held_with_its_plan_and_the_way_on(w: Syncs) -> None:
    """Row 16: a person is asked, and nothing is written meanwhile."""
    held = w.deliver_values("a", "b")
    receipt = outcome(w, held, "held", in_=2, owed=2)
    assert receipt["reason"] == "share_removed: 2 of 4 values would be removed (50%; 30% may go at once)"
    assert receipt["plan"]["verdict"] == "held"
    assert receipt["plan"]["removed"] == {"count": 2, "first": ["c", "d"]}
    assert w.guards(held) == {"share_removed": "held"}
    assert f"incoming/release/{held.id}.json" in receipt["next_command"]
    assert '{"decision": "send"}' in receipt["next_command"]
    assert writes(w) == 0


def test_a_list_of_three_that_loses_one_is_held(w: Syncs) -> None:
    """Row 16: no exemption for small sets."""
    by_hand(w, "a", "b", "c")
    assert w.guards(w.deliver_values("a", "b")) == {"share_removed": "held"}


@pytest.mark.parametrize(("suffix", "body"), [("txt", b"\n"), ("csv", b"value\n"), ("json", b"[]")])
def test_an_empty_list_is_held_and_never_sent_whoever_releases_it(w: Syncs, suffix: str, body: bytes) -> None:
    """Row 16: an empty list fails every value, and would block every pull request."""
    held = w.deliver_file(f"{TAGS}/{KEY}.{suffix}", body)
    receipt = outcome(w, held, "held")
    assert w.guards(held) == {"source_empty": "held"}
    assert receipt["next_command"].startswith("mend the list, which is empty; then: ")
    refused = outcome(w, w.decide(held), "rejected")
    assert "the list of allowed values is empty" in refused["reason"]
    w.configure(ours("guards: {overrides: [{guard: source_empty, until: 2026-12-31, reason: no idea}]}"))
    outcome(w, w.deliver_file(f"{TAGS}/{KEY}.txt", b""), "rejected")
    assert w.values() == ["a", "b", "c", "d"]
    assert writes(w) == 0
    assert w.state()["dangers"] == []


def test_a_source_that_shrinks_or_grows_is_held_by_its_rows(w: Syncs) -> None:
    """Row 16: rows are remembered from what was applied, whatever was dropped in between."""
    w.configure(ours("guards: {max_share_removed: 1}"))
    w.deliver_values(*FIVE, *FIVE)
    assert w.guards(w.deliver_values(*FIVE, "f")) == {"source_shrunk": "held"}
    outcome(w, w.deliver_values(*FIVE, "a", "b"), "unchanged")
    held = w.deliver_values(*FIVE, *(f"v{number}" for number in range(20)))
    assert w.guards(held) == {"source_grown": "held"}
    outcome(w, w.decide(held))
    outcome(w, w.deliver_values(*FIVE, *(f"v{number}" for number in range(19))))


def test_a_value_that_only_case_tells_from_another_is_held_once(w: Syncs) -> None:
    """Row 16: matching is exact; released, the two stand side by side and are not held again."""
    held = w.deliver_values("a", "A", "b", "c", "d")
    assert w.guards(held) == {"lookalikes": "held"}
    outcome(w, w.decide(held))
    outcome(w, w.deliver_values("a", "A", "b", "c", "d", "e"))


def test_a_tag_that_the_policy_does_not_have_is_made_only_when_somebody_says_so(w: Syncs) -> None:
    held = w.deliver_values("x", key="Costcenter")
    assert "the policy has no tag 'Costcenter' (it has CostCenter, env)" in outcome(w, held, "held")["reason"]
    assert w.plan(held)["settings"] == [
        {"name": "mandatory", "before": "absent", "after": "true"},
        {"name": "value_type", "before": "absent", "after": "LIST"},
    ]
    outcome(w, w.decide(held))
    assert w.tags()["Costcenter"] == {
        "key": "Costcenter",
        "mandatory": True,
        "valueType": "LIST",
        "allowedValues": ["x"],
        "someNewFlag": False,
    }
    outcome(w, w.deliver_values("x", key="Costcenter"), "unchanged")
    outcome(w, w.deliver_values("x", "y", key="Costcenter"))


@pytest.mark.parametrize("adopt", [True, False])
def test_a_tag_that_is_no_list_is_made_one_only_when_somebody_says_so(w: Syncs, adopt: bool) -> None:  # noqa: FBT001 -- a parameter
    by_hand(w, valueType="ANY", allowedValues=[])
    w.configure(ours(f"adopt: {str(adopt).lower()}"))
    done = w.deliver_values("a", "b")
    if not adopt:
        assert "is of type ANY, and would be made a LIST" in outcome(w, done, "held")["reason"]
        done = w.decide(done)
    outcome(w, done)
    assert (w.tags()[KEY]["valueType"], w.values()) == ("LIST", ["a", "b"])


OVERRIDE = "guards: {{overrides: [{{guard: {}, until: {}, reason: the EMEA unit is closed}}]}}"


def test_an_override_lets_its_guard_pass_and_is_recorded_with_its_end_and_its_reason(w: Syncs) -> None:
    """Row 16: one named override, in the receipt."""
    w.configure(ours(OVERRIDE.format("share_removed", "2026-03-01")))
    receipt = outcome(w, w.deliver_values("a", "b"))
    assert receipt["plan"]["guards"] == [
        {
            "guard": "share_removed",
            "says": "2 of 4 values would be removed (50%; 30% may go at once)",
            "verdict": "overridden",
            "override": {"until": "2026-03-02T00:00:00Z", "reason": "the EMEA unit is closed"},
        }
    ]
    assert w.values() == ["a", "b"]
    assert receipt["versions"]["config"]


def test_an_override_of_another_guard_helps_nothing(w: Syncs) -> None:
    """Row 16: each guard has its own."""
    w.configure(ours(OVERRIDE.format("number_removed", "2026-12-31")))
    held = w.deliver_values("a", "b")
    assert w.guards(held) == {"share_removed": "held"}
    assert outcome(w, held, "held")["warnings"] == []


def test_an_override_ends_with_its_day_and_is_warned_about_from_then_on(w: Syncs) -> None:
    """Row 16: a date alone is that whole day, UTC."""
    w.configure(ours(OVERRIDE.format("share_removed", "2026-03-01")))
    w.later(hours=14, minutes=59, seconds=58)
    outcome(w, w.deliver_values("a", "b"))
    by_hand(w, "a", "b", "c", "d")
    w.later(seconds=2)
    held = w.deliver_values("a", "b", "x")
    receipt = outcome(w, held, "held")
    assert w.guards(held)["share_removed"] == "held"
    said = "the override of guard share_removed ended on 2026-03-02 00:00 UTC and does nothing any more"
    assert receipt["warnings"] == [said]
    assert outcome(w, w.deliver_values("a", "b", "c", "d", "e"))["warnings"] == [said]


def test_an_override_of_all_syncs_serves_a_tag_too(w: Syncs) -> None:
    w.configure(f"sync: {{{OVERRIDE.format('share_removed', '2026-12-31')}}}")
    outcome(w, w.deliver_values("a", "b"))


def test_an_override_that_comes_after_a_delivery_was_held_is_for_the_next_one(w: Syncs) -> None:
    held = w.deliver_values("a", "b")
    w.configure(ours(OVERRIDE.format("share_removed", "2026-12-31")))
    outcome(w, held, "held")
    outcome(w, w.deliver_values("a", "b"))
    outcome(w, held, "superseded")


# --- held, and a person decides ---------------------------------------------------------------------------------------


def test_a_released_delivery_applies_the_very_plan_that_was_shown(w: Syncs) -> None:
    held = w.deliver_values("a", "b")
    done = w.decide(held)
    assert w.asked.deliveries == [held.id]  # the queue of the function that delivers it
    receipt = outcome(w, done, accepted=2)
    assert w.values() == ["a", "b"]
    assert w.guards(done) == {"share_removed": "released"}
    (said,) = receipt["plan"]["guards"]
    assert [said["released_by"]] == [receipt["id"] for receipt in receipts(w, "release")]
    assert receipt["plan"]["removed"] == {"count": 2, "first": ["c", "d"]}
    assert (receipt["plan"]["verdict"], receipt["next_command"]) == ("delivered", "")
    outcome(w, w.deliver_values("a", "b"), "unchanged")


def test_a_plan_that_is_released_late_is_held_anew_with_the_new_plan(w: Syncs) -> None:
    """Row 18: what a person released is not what would be done now."""
    held = w.deliver_values("a", "b")
    by_hand(w, "a", "b", "c", "x", "y")
    again = w.decide(held)
    receipt = outcome(w, again, "held", owed=2)
    assert receipt["reason"].startswith("the vendor's side has changed since the plan was made that you released")
    assert receipt["plan"]["removed"] == {"count": 3, "first": ["c", "x", "y"]}
    assert w.guards(again) == {"share_removed": "held"}
    assert w.values() == ["a", "b", "c", "x", "y"]
    assert f"incoming/release/{held.id}.json" in receipt["next_command"]
    outcome(w, w.decide(again))
    assert w.values() == ["a", "b"]


def test_a_late_plan_is_held_anew_also_where_no_guard_objects_any_more(w: Syncs) -> None:
    """Row 18: nobody has seen this plan."""
    held = w.deliver_values("a", "b")
    by_hand(w, "a")
    again = w.decide(held)
    receipt = outcome(w, again, "held")
    assert receipt["reason"] == "the vendor's side has changed since the plan was made that you released"
    assert receipt["plan"]["added"] == {"count": 1, "first": ["b"]}
    outcome(w, w.decide(again))
    assert w.values() == ["a", "b"]


def test_a_change_of_what_is_not_ours_makes_no_plan_late(w: Syncs) -> None:
    """Row 18: another tag, or an attribute that the list does not set, is nobody's business here; and it stays."""
    held = w.deliver_values("a", "b")
    by_hand(w, message="ask us")
    outcome(w, w.decide(held))
    assert (w.values(), w.tags()[KEY]["message"]) == (["a", "b"], "ask us")


def test_where_somebody_did_by_hand_what_was_held_the_release_finds_nothing_to_do(w: Syncs) -> None:
    held = w.deliver_values("a", "b")
    by_hand(w, "a", "b")
    outcome(w, w.decide(held), "unchanged", accepted=2)
    assert writes(w) == 1


def test_a_dropped_delivery_writes_nothing_and_the_same_list_is_held_again(w: Syncs) -> None:
    held = w.deliver_values("a", "b")
    receipt = outcome(w, w.decide(held, "drop"), "rejected", rejected=2, owed=0)
    assert "by a person's decision" in receipt["reason"]
    assert receipt["plan"]["verdict"] == "dropped"
    assert w.values() == ["a", "b", "c", "d"]
    outcome(w, w.deliver_values("a", "b"), "held")


def test_what_the_vendor_holds_can_be_taken_for_right(w: Syncs) -> None:
    """Row 17: after `mark as arrived` the change by hand is what we last applied, and the next run has no drift."""
    w.deliver_values(*FIVE)
    by_hand(w, *FIVE, "x")
    held = w.deliver_values(*FIVE, "f")
    receipt = outcome(w, w.decide(held, "mark as arrived"), "unchanged", in_=6, filtered=6, owed=0)
    assert receipt["filtered_by"] == {"left as it is": 6}
    assert receipt["units"][0]["status"] == "left as it is"
    assert w.values() == [*FIVE, "x"]
    outcome(w, w.deliver_values(*FIVE, "x", "f"))
    assert w.values() == [*FIVE, "f", "x"]


def test_a_held_delivery_holds_up_nobody_else(w: Syncs) -> None:
    """Row 15: another tag of the same policy goes on, and so does the held one afterwards."""
    held = w.deliver_values("a", "b")
    outcome(w, w.deliver_values("prod", "dev", "test", key="env"))
    assert w.values("env") == ["dev", "prod", "test"]
    outcome(w, w.decide(held))
    assert w.values("env") == ["dev", "prod", "test"]
    assert w.tags()["env"]["message"] == OTHER["message"]


def test_a_newer_list_ends_a_held_one(w: Syncs) -> None:
    """Row 15: it says what is to be there instead; a decision about the old one comes too late."""
    held = w.deliver_values("a", "b")
    outcome(w, w.deliver_values(*FIVE))
    assert "the newer delivery" in outcome(w, held, "superseded")["reason"]
    key = f"incoming/release/{held.id}.json"
    late = release(w.drop(key, b'{"decision": "send"}'), w.ports, w.waits, w.asked)
    assert late is not None
    assert late.outcome is Outcome.REJECTED
    assert "the delivery is not held: it is superseded" in late.reason
    assert w.values() == [*FIVE]


def test_a_newer_list_that_is_held_itself_ends_the_older_one_too(w: Syncs) -> None:
    """Row 15: one question at a time for one tag."""
    first = w.deliver_values("a", "b")
    second = w.deliver_values("a", "c")
    outcome(w, first, "superseded")
    outcome(w, second, "held")
    outcome(w, w.decide(second))
    assert w.values() == ["a", "c"]


def test_of_two_lists_that_wait_only_the_newer_one_is_sent(w: Syncs) -> None:
    """Row 15: however they come to their turn."""
    first, second = dropped(w, *FIVE, "old"), dropped(w, *FIVE, "new", name=f"{TAGS}/{KEY}.TXT")
    outcome(w, w.finish(first.id), "superseded")
    outcome(w, w.finish(second.id))
    assert w.values() == [*FIVE, "new"]
    assert writes(w) == 1


def test_an_older_list_that_comes_late_never_replaces_a_newer_one(w: Syncs) -> None:
    """Row 15: whichever file it stood in."""
    late = w.drop(f"{TAGS}/{KEY}.txt", b"a\nb\nc\nold\n")
    outcome(w, w.deliver_file(f"{TAGS}/{KEY}.csv", b"value\na\nb\nc\nd\nnew\n"))
    prepared = w.prepare(late)
    assert prepared is not None
    outcome(w, w.finish(prepared.id), "superseded")
    assert "new" in w.values()


# --- drift ------------------------------------------------------------------------------------------------------------


def test_a_change_by_hand_is_held_with_the_three_values(w: Syncs) -> None:
    """Row 17: last applied, remote and desired; nothing is overwritten in silence."""
    w.deliver_values(*FIVE)
    by_hand(w, "a", "b", "c", "d", "x")
    held = w.deliver_values(*FIVE, "f")
    receipt = outcome(w, held, "held")
    assert receipt["reason"] == "drift: 2 things were changed at the vendor since we last applied it: 'e', 'x'"
    assert receipt["plan"]["drift"] == {
        "count": 2,
        "first": [
            {"name": "e", "last_applied": "present", "remote": "absent", "desired": "present"},
            {"name": "x", "last_applied": "absent", "remote": "present", "desired": "absent"},
        ],
    }
    assert w.values() == ["a", "b", "c", "d", "x"]
    outcome(w, w.decide(held))
    assert w.values() == [*FIVE, "f"]
    outcome(w, w.deliver_values(*FIVE, "f"), "unchanged")


@pytest.mark.parametrize("change", [{"message": "theirs"}, {"valueType": "ANY"}, {"mandatory": False}])
def test_a_changed_attribute_that_is_ours_is_drift_too(w: Syncs, change: dict[str, Any]) -> None:
    """Row 17: message, mandatory and type, where the list sets them."""
    w.configure(ours("message: ours, mandatory: true, adopt: true"))
    w.deliver_values(*FIVE)
    by_hand(w, **change)
    held = w.deliver_values(*FIVE)
    assert w.guards(held) == {"drift": "held"}
    (drift,) = w.plan(held)["drift"]["first"]
    assert (
        drift["name"] == {"message": "message", "valueType": "value_type", "mandatory": "mandatory"}[next(iter(change))]
    )
    assert drift["last_applied"] == drift["desired"]


def test_a_tag_that_somebody_took_away_is_drift(w: Syncs) -> None:
    """Row 17: nobody's decision to remove the tag is undone without asking."""
    w.deliver_values(*FIVE)
    client = w.client()
    tags = [
        tag.model_dump(by_alias=True, exclude_none=True)
        for tag in client.tagging_policy(SLUG, POLICY).attributes.tags or ()
    ]
    body = {"data": {"type": "tagging-policies", "attributes": {"tags": [tag for tag in tags if tag["key"] != KEY]}}}
    client.http.request("PATCH", f"/orgs/{SLUG}/tagging-policies/{POLICY}", body=body, safe=True)
    held = w.deliver_values(*FIVE)
    assert w.guards(held) == {"new_tag": "held", "drift": "held"}
    assert KEY not in w.tags()


def test_a_change_by_hand_that_is_just_what_is_wanted_is_no_drift(w: Syncs) -> None:
    """Row 17: somebody was faster; nothing is to be done."""
    w.deliver_values(*FIVE)
    by_hand(w, *FIVE, "f")
    outcome(w, w.deliver_values(*FIVE, "f"), "unchanged")
    by_hand(w, *FIVE, "f", "g")
    outcome(w, w.deliver_values(*FIVE, "f", "g", "h"))


def test_a_change_by_hand_before_the_first_delivery_is_no_drift(w: Syncs) -> None:
    by_hand(w, "a", "b", "c", "d", "x")
    outcome(w, w.deliver_values("a", "b", "c", "d", "y"))


def test_drift_is_not_passed_by_a_release_for_another_reason(w: Syncs) -> None:
    """Row 17, Row 18: what was changed after the person had looked is looked at again."""
    w.deliver_values(*FIVE)
    held = w.deliver_values("a", "b")
    assert "drift" not in w.guards(held)
    by_hand(w, *FIVE, "x")
    again = w.decide(held)
    outcome(w, again, "held")
    assert w.guards(again)["drift"] == "held"
    assert w.values() == [*FIVE, "x"]


def test_drift_is_not_passed_by_an_override_of_another_guard(w: Syncs) -> None:
    """Row 17: each guard has its own."""
    w.configure(ours(OVERRIDE.format("share_removed", "2026-12-31")))
    w.deliver_values(*FIVE)
    by_hand(w, *FIVE, "x")
    assert w.guards(w.deliver_values(*FIVE[:3])) == {
        "share_removed": "overridden",
        "source_shrunk": "held",
        "drift": "held",
    }


def test_drift_that_is_overridden_is_recorded(w: Syncs) -> None:
    w.configure(ours(OVERRIDE.format("drift", "2026-12-31")))
    w.deliver_values(*FIVE)
    by_hand(w, *FIVE, "x")
    done = w.deliver_values(*FIVE)
    outcome(w, done)
    assert w.guards(done) == {"drift": "overridden"}
    assert w.plan(done)["drift"]["count"] == 1
    assert w.values() == [*FIVE]


def test_where_what_was_last_applied_is_lost_a_person_is_asked_once(on_aws: Syncs) -> None:
    """Row 17: nobody can tell what was changed by hand since."""
    on_aws.deliver_values(*FIVE)
    (state,) = on_aws.keys(DROPS, "state/")
    on_aws.s3.delete_object(Bucket=DROPS, Key=state)
    held = on_aws.deliver_values(*FIVE, "f")
    assert "what was last applied is lost" in outcome(on_aws, held, "held")["reason"]
    outcome(on_aws, on_aws.decide(held))
    outcome(on_aws, on_aws.deliver_values(*FIVE, "f", "g"))


def test_what_was_last_applied_is_kept_once_however_often_it_is_delivered(w: Syncs) -> None:
    for values in (FIVE, (*FIVE, "f"), (*FIVE, "f"), (*FIVE, "f", "g")):
        w.deliver_values(*values)
    assert len(w.keys(DROPS, "state/")) == 1
    held = w.deliver_values("a")
    w.decide(held, "drop")
    w.decide(w.deliver_values("b"), "mark as arrived")
    (key,) = w.keys(DROPS, "state/")
    assert owned_of(w.ledger.target(f"tagging-policy/{SLUG}/{POLICY}/tag/{KEY}")).state == key


# --- events, versions and reads ---------------------------------------------------------------------------------------


def test_a_duplicate_event_does_nothing(w: Syncs) -> None:
    """Row 4: at any time; not even a read."""
    source = w.drop(f"{TAGS}/{KEY}.txt", b"a\nb\nc\nd\ne\n")
    prepared = w.prepare(source)
    assert prepared is not None
    w.prepare(source)
    assert len(w.queued()) == 1
    done = w.finish(prepared.id)
    assert w.prepare(source) == done
    assert w.step(done.id) == done
    assert w.calls() == ONCE
    assert len(w.receipts()) == 1


def test_of_two_events_for_one_key_the_older_one_is_stale(w: Syncs) -> None:
    """Row 4: the sequencer decides, whatever came first."""
    older = w.drop(f"{TAGS}/{KEY}.txt", b"a\nb\nc\nold\n")
    outcome(w, w.deliver_values(*FIVE))
    late = w.prepare(older)
    assert late is not None
    outcome(w, late, "stale")
    assert w.values() == [*FIVE]


def test_an_overwritten_list_is_read_as_its_event_named_it(w: Syncs) -> None:
    """Row 3: each event's own version is read; the older one is superseded, and nothing is mixed."""
    first, second = (w.drop(f"{TAGS}/{KEY}.txt", body) for body in (b"a\nb\nc\nd\nold\n", b"a\nb\nc\nd\ne\nnew\n"))
    older, newer = w.prepare(first), w.prepare(second)
    assert older is not None
    assert newer is not None
    assert (older.rows.in_, newer.rows.in_) == (5, 6)
    outcome(w, w.finish(newer.id))
    outcome(w, w.finish(older.id), "superseded")
    assert w.values() == ["a", "b", "c", "d", "e", "new"]


def test_a_list_that_was_overwritten_where_there_are_no_versions_is_superseded(on_aws: Syncs) -> None:
    """Row 3: the ETag pins; what came after the event is never read as what it named."""
    on_aws.s3.create_bucket(Bucket="unversioned", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    first = on_aws.drop(f"{TAGS}/{KEY}.txt", b"a\nb\nc\nold\n", "unversioned")
    assert first.version_id == ""
    on_aws.drop(f"{TAGS}/{KEY}.txt", b"new\n", "unversioned")
    ended = on_aws.prepare(first)
    assert ended is not None
    outcome(on_aws, ended, "superseded", in_=0)


def test_a_broken_read_is_taken_up_and_one_that_never_ends_waits(on_aws: Syncs) -> None:
    """Row 6: a short list is never taken for a whole one; the values that it lacks would be removed."""
    body = "".join(f"v{number:04}\n" for number in range(500)).encode()
    source = on_aws.drop(f"{TAGS}/{KEY}.txt", body)
    with pytest.raises(Wait, match="broke off"):
        on_aws.prepare(source, torn(on_aws, TornS3(on_aws.s3, [1_000, 0, 0, 0, 0, 0])))
    (receipt,) = on_aws.receipts()
    assert (receipt["outcome"], receipt["rows"]["in"]) == ("pending", 0)
    prepared = on_aws.prepare(source, torn(on_aws, TornS3(on_aws.s3, [1_000, 5, 0])))
    assert prepared is not None
    assert prepared.rows.in_ == 500
    assert prepared.source.sha256


def test_a_list_that_is_gone_is_quarantined_with_the_reason(on_aws: Syncs) -> None:
    source = on_aws.drop(f"{TAGS}/{KEY}.txt", b"a\n")
    on_aws.s3.delete_object(Bucket=DROPS, Key=source.key, VersionId=source.version_id)
    ended = on_aws.prepare(source)
    assert ended is not None
    outcome(on_aws, ended, "failed")
    assert on_aws.keys(DROPS, "quarantine/")


def test_a_source_too_large_for_one_invocation_is_refused_while_there_is_time_to_say_so(w: Syncs) -> None:
    """Row 7: and not by a time-out."""
    w.servicenow.set_table(TABLE, applications(*(f"v{number:04}" for number in range(1_500)))[TABLE])
    w.configure(relay_yaml(w))
    w.remaining[0] = 19
    receipt = outcome(w, w.sync_now(), "rejected")
    assert "source 'cmdb' cannot be read within one invocation" in receipt["reason"]
    assert (
        f"narrow the query down, then: aws s3api put-object --bucket drops --key {TAGS}/{KEY}.sync" in receipt["reason"]
    )


# --- sources and schedules --------------------------------------------------------------------------------------------


def test_a_tag_follows_servicenow(w: Syncs) -> None:
    w.servicenow.set_table(TABLE, applications("a", "b", "c", "k", "", "k", " l ")[TABLE])
    w.configure(relay_yaml(w))
    done = w.sync_now()
    receipt = outcome(w, done, in_=7, accepted=5, filtered=2)
    assert receipt["filtered_by"] == {"duplicates": 1, "empty": 1}
    assert w.values() == ["a", "b", "c", "k", "l"]
    assert receipt["plan"]["steps"] == ["add 2: k, l", "remove 1: d"]
    outcome(w, w.sync_now(), "unchanged")


def test_a_bad_row_of_a_source_is_named_by_its_record_and_mended_there(w: Syncs) -> None:
    rows = [*applications("a", "b", "c", "d")[TABLE], {"sys_id": "f" * 32, "name": "odd", "u_cost_center": "e\u200b"}]
    w.servicenow.set_table(TABLE, rows)
    w.configure(relay_yaml(w))
    done = w.sync_now()
    receipt = outcome(w, done, "partly_delivered", rejected=1)
    again = f"aws s3api put-object --bucket drops --key {TAGS}/{KEY}.sync"
    assert receipt["next_command"] == f"correct the rejected rows at the source, then: {again}"
    assert [(row["record"], row["value"]) for row in rejected(w, done)] == [("f" * 32, "e\u200b")]
    late = w.deliver_file(f"{TAGS}/mended/{done.id}.csv", b"value,line\ne,5\n")
    assert "the rows came from a source of truth, not from a file" in outcome(w, late, "rejected")["reason"]


def test_a_source_with_nothing_is_held(w: Syncs) -> None:
    """Row 16: all rows hidden from the user, or a query that finds none."""
    w.servicenow.set_table(TABLE, [{**row, "_hidden": True} for row in applications("a", "b")[TABLE]])
    w.configure(relay_yaml(w))
    held = w.sync_now()
    assert w.guards(held) == {"source_empty": "held"}
    again = f"aws s3api put-object --bucket drops --key {TAGS}/{KEY}.sync"
    assert outcome(w, held, "held")["next_command"] == f"mend the source, which has nothing; then: {again}"


def test_rows_that_an_access_rule_begins_to_hide_are_held_as_a_shrunken_source(w: Syncs) -> None:
    """Row 16: they count in the source's own total, so that nothing but the guard notices."""
    rows = applications(*"abcdaaaddd")[TABLE]
    w.servicenow.set_table(TABLE, rows)
    w.configure(relay_yaml(w))
    w.sync_now()
    w.servicenow.set_table(TABLE, [{**row, "_hidden": row["u_cost_center"] == "d"} for row in rows])
    assert w.guards(w.sync_now()) == {"source_shrunk": "held"}


def test_a_part_of_a_query_that_servicenow_ignores_is_held_by_what_it_finds(w: Syncs) -> None:
    """Row 16: a typo gives the whole table; from the second run on it is far more than before."""
    rows = [
        {"name": f"app {number}", "u_cost_center": "abcde"[number % 5], "active": str(number < 4).lower()}
        for number in range(40)
    ]
    w.servicenow.set_table(TABLE, rows)
    w.configure(relay_yaml(w, query="active=true"))
    outcome(w, w.sync_now(), "unchanged", in_=4)
    w.configure(relay_yaml(w, query="actve=true"))
    held = w.sync_now()
    assert w.guards(held) == {"source_grown": "held"}
    assert w.servicenow.state()["ignored"]


BACKSTAGE = """
        backstage:
          source: portal
          filters: ["kind=component,spec.type=service"]
          columns: {value: spec.owner}
          refs: {value: name}
"""
HTTP_JSON = """
        http_json:
          source: apps
          path: api/catalog/entities/by-query
          params: {filter: "kind=component", limit: "2"}
          items: items
          columns: {value: metadata.name}
          cursor: pageInfo.nextCursor
"""


def following(w: Syncs, source: str) -> str:
    """Return a relay.yaml by which our tag follows another source than ServiceNow."""
    head, _, rest = relay_yaml(w).partition("        servicenow:")
    return head + source.strip("\n") + "\n" + rest.partition("u_cost_center}")[2]


def entity(name: str, owner: str = "team-a", kind: str = "service") -> dict[str, Any]:
    return {"kind": "Component", "metadata": {"name": name}, "spec": {"type": kind, "owner": owner}}


def test_a_tag_follows_backstage_however_owners_are_written(w: Syncs) -> None:
    owners = ["a", "group:b", "group:default/c", "default/d", "Group:default/d", "e"]
    w.backstage.set_entities(
        [*(entity(f"s{number}", owner) for number, owner in enumerate(owners)), entity("l", "x", "library")]
    )
    w.configure(following(w, BACKSTAGE))
    outcome(w, w.sync_now(), in_=6, accepted=5, filtered=1)
    assert w.values() == [*FIVE]


def test_a_tag_follows_any_address_that_answers_with_json(w: Syncs) -> None:
    w.backstage.set_entities([entity(name) for name in FIVE])
    w.configure(following(w, HTTP_JSON))
    outcome(w, w.sync_now(), in_=5, accepted=5)
    assert w.values() == [*FIVE]
    assert len(w.backstage.state()["asked"]) >= 3


def test_a_planned_run_reads_the_source_and_writes_nothing(w: Syncs) -> None:
    w.servicenow.set_table(TABLE, applications(*FIVE)[TABLE])
    w.configure(relay_yaml(w))
    done = w.sync_now(root="plan")
    receipt = outcome(w, done, "unchanged")
    assert receipt["plan"]["verdict"] == "would_deliver"
    assert receipt["next_command"] == f"aws s3api put-object --bucket drops --key {TAGS}/{KEY}.sync"
    assert writes(w) == 0


def test_a_policy_may_have_an_alias_and_be_meant_by_its_id_too(w: Syncs) -> None:
    w.configure(f"tagging_policies: {{standard: {{id: {POLICY}, tags: {{{KEY}: {{rules: {{case: lower}}}}}}}}}}")
    outcome(w, w.deliver_file(f"incoming/tagging-policies/standard/{KEY}.txt", b"A\nB\nC\nD\nE\n"))
    outcome(w, w.deliver_values("A", "B", "C", "D", "E"), "unchanged")
    by_hand(w, *FIVE, "x")
    outcome(w, w.deliver_values(*FIVE), "held")
    held = w.deliver_file(f"incoming/tagging-policies/standard/{KEY}.txt", b"A\nB\nC\nD\nE\n")
    outcome(w, held, "held")  # one tag, whatever its folder is called


def test_a_policy_of_another_organization_is_found_by_its_slug(w: Syncs) -> None:
    w.configure(f"tagging_policies: {{standard: {{id: {POLICY}, slug: nobody, tags: {{{KEY}: {{}}}}}}}}")
    done = w.deliver_file(f"incoming/tagging-policies/standard/{KEY}.txt", b"a\n")
    assert "404" in outcome(w, done, "failed")["reason"]
    assert done.target == f"tagging-policy/nobody/{POLICY}"


def test_without_an_organization_nothing_is_sent_and_the_way_to_name_one_is_said(w: Syncs) -> None:
    w.defaults = replace(w.defaults, slug="")
    assert "set the stack's parameter InfracostSlug" in outcome(w, w.deliver_values("a"), "rejected")["reason"]


def test_a_schedule_reads_its_source_once_a_day(w: Syncs) -> None:
    """Row 25: a doubled tick does nothing; the next day is another run."""
    w.configure(relay_yaml(w))
    at = START.replace(hour=3)
    for day, values in enumerate(["abcde", "abcdef"]):
        w.servicenow.set_table(TABLE, applications(*values)[TABLE])
        w.time[0] = at + timedelta(days=day)
        (done,) = w.scheduled(at + timedelta(days=day))
        outcome(w, done, accepted=len(values))
        assert done.source.key == f"schedule/tagging-policies/{POLICY}/{KEY}/2026-03-{day + 1:02}T03:00Z"
        assert w.scheduled(at + timedelta(days=day)) == []
        assert w.scheduled(at + timedelta(days=day, hours=2)) == []
    assert w.values() == list("abcdef")
    assert len(receipts(w)) == 2


def test_a_message_of_a_run_that_comes_twice_runs_it_once(w: Syncs) -> None:
    """Row 25: SQS may deliver a message again, at any stage of the run."""
    w.servicenow.set_table(TABLE, applications(*FIVE)[TABLE])
    w.configure(relay_yaml(w))
    (begun,) = w.tick(START.replace(hour=3))
    w.run(begun.id)
    assert w.run(begun.id).stage == "queued"
    done = w.finish(begun.id)
    assert w.run(begun.id) == done
    assert w.calls() == ONCE
    assert len(w.servicenow.state()["asked"]) <= 2


def test_a_missed_tick_is_caught_up_as_the_same_run(w: Syncs) -> None:
    """Row 25: within three hours; after that the next day's comes."""
    w.configure(relay_yaml(w))
    at = START.replace(hour=3)
    assert w.tick(at - timedelta(hours=1)) == []
    assert w.tick(at + timedelta(hours=3)) == []
    (begun,) = w.tick(at + timedelta(hours=2))
    assert begun.source.key.endswith("2026-03-01T03:00Z")


def test_a_schedule_that_only_plans_writes_nothing(w: Syncs) -> None:
    w.servicenow.set_table(TABLE, applications(*FIVE)[TABLE])
    w.configure(relay_yaml(w, tag="        plan_only: true"))
    (done,) = w.scheduled(START.replace(hour=3))
    receipt = outcome(w, done, "unchanged")
    assert receipt["plan"]["verdict"] == "would_deliver"
    assert receipt["next_command"] == f"aws s3api put-object --bucket drops --key {TAGS}/{KEY}.sync"
    assert writes(w) == 0
    outcome(w, w.sync_now())  # what a person asks for is done


def test_two_schedules_run_side_by_side_and_a_source_that_is_down_holds_up_none(w: Syncs) -> None:
    """Row 15: each run has a receipt of its own; the policy is written by one after the other."""
    w.servicenow.set_table(TABLE, applications(*FIVE)[TABLE])
    w.backstage.set_entities([entity(name) for name in ("prod", "dev", "test")])
    w.configure(
        relay_yaml(
            w, tag="      env:" + HTTP_JSON.replace("\n", "\n  ").rstrip().replace("\n          http", "\n        http")
        )
    )
    begun = w.tick(START.replace(hour=3))
    assert len(begun) == 2
    w.servicenow.faults.add([{"operation": "*", "times": 99, "fault": {"kind": "status", "status": 503}}])
    first, second = sorted(begun, key=lambda run: KEY not in run.source.key)
    with pytest.raises(Wait):
        w.run(first.id)
    w.run(second.id)
    outcome(w, w.finish(second.id))
    w.servicenow.faults.clear()
    w.run(first.id)
    outcome(w, w.finish(first.id))
    assert (w.values(), w.values("env")) == ([*FIVE], ["dev", "prod", "test"])


def test_a_run_that_still_waits_is_ended_by_the_next_days(w: Syncs) -> None:
    """Row 25: it would read the same; one run is enough."""
    w.configure(relay_yaml(w))
    w.servicenow.set_table(TABLE, applications(*FIVE)[TABLE])
    w.servicenow.faults.add([{"operation": "*", "times": 4, "fault": {"kind": "status", "status": 503}}])
    at = START.replace(hour=3)
    (old,) = w.tick(at)
    with pytest.raises(Wait):
        w.run(old.id)
    w.time[0] = at + timedelta(days=1)
    (new,) = w.tick(w.time[0])
    with pytest.raises(Wait):
        w.run(new.id)
    ended = w.run(old.id)
    assert f"the newer run {new.id} reads the same source" in outcome(w, ended, "superseded")["reason"]
    w.run(new.id)
    outcome(w, w.finish(new.id))


def test_a_planned_run_makes_no_other_needless(w: Syncs) -> None:
    """Row 25: a person who looks what a waiting run would do does not end it."""
    w.configure(relay_yaml(w))
    w.servicenow.set_table(TABLE, applications(*FIVE)[TABLE])
    w.servicenow.faults.add([{"operation": "*", "times": 2, "fault": {"kind": "status", "status": 503}}])
    (begun,) = w.tick(START.replace(hour=3))
    with pytest.raises(Wait):
        w.run(begun.id)
    assert w.plan(w.sync_now(root="plan"))["verdict"] == "would_deliver"
    w.run(begun.id)
    outcome(w, w.finish(begun.id))


def test_a_run_that_a_file_has_overtaken_is_superseded(w: Syncs) -> None:
    """Row 15: a schedule and a human; the newer one counts, whichever is ready first."""
    w.servicenow.set_table(TABLE, applications(*FIVE, "old")[TABLE])
    w.configure(relay_yaml(w))
    w.time[0] = START.replace(hour=3)
    (begun,) = w.tick(w.time[0])
    w.later(minutes=1)
    outcome(w, w.deliver_values(*FIVE, "new"))
    w.run(begun.id)
    outcome(w, w.finish(begun.id), "superseded")
    assert "new" in w.values()


@pytest.mark.parametrize("hours", [(None, 3), (5, 5)])
def test_a_source_is_read_at_its_own_hour_or_at_the_stacks(w: Syncs, hours: tuple[int | None, int]) -> None:
    own, due = hours
    text = relay_yaml(w)
    if own is not None:
        text = text.replace("{type: servicenow,", f"{{type: servicenow, hour_utc: {own},")
    w.configure(text)
    begun = {hour: w.tick(datetime(2026, 3, 2, hour, tzinfo=UTC)) for hour in range(24)}
    assert [hour for hour, runs in begun.items() if runs] == [due, due + 1, due + 2]
    assert len({run.id for runs in begun.values() for run in runs}) == 1  # sent again until it is under way


def test_a_tag_without_a_source_is_no_schedules_business(w: Syncs) -> None:
    w.configure(ours("mandatory: true"))
    assert w.tick(START.replace(hour=3)) == []


def test_a_run_of_a_tag_that_is_no_longer_configured_is_refused(w: Syncs) -> None:
    w.configure(relay_yaml(w))
    (begun,) = w.tick(START.replace(hour=3))
    w.configure("version: 1")
    ended = w.run(begun.id)
    assert "no source of truth is configured for it" in outcome(w, ended, "rejected")["reason"]


def test_what_is_no_message_of_ours_is_nobodys_run(w: Syncs) -> None:
    done = w.deliver_values(*FIVE)
    assert properties.run(done.id, w.around()) is None
    assert properties.run("0" * 64, w.around()) is None

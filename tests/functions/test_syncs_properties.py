"""Custom properties: whole lives, from a file or a source of truth to the bytes that Infracost was sent."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from finops_relay.delivery.ledger import Delivery
from finops_relay.errors import Wait

from tests.functions.test_faults_reading import Dripping, TornS3, torn
from tests.world.relay import DROPS, START
from tests.world.syncs import PROPERTIES, SLUG, TABLE, StandIns, Syncs, in_memory, over_aws, standins

SEND = "uploadCustomProperties"
KEY = f"{PROPERTIES}/p.csv"
A = b"service,team\na,x\nb,y\nc,z\n"
B = b"service,team\na,x\nb,y\nc,w\n"
FIRST = "nothing of ours was sent before, and Infracost cannot be asked: nobody can tell what this replaces"


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


def sent(w: Syncs) -> list[str]:
    """Return the hash of each file that the vendor has taken, in order."""
    return [upload["sha256"] for upload in w.state()["custom_properties"][SLUG]["uploads"]]


def held(w: Syncs) -> bytes:
    """Return the file that the vendor holds, as it came."""
    text: str = w.state()["custom_properties"][SLUG]["text"]
    return text.encode()


def rejected(w: Syncs, delivery: Delivery) -> list[dict[str, str]]:
    """Return the rows that were rejected."""
    text = w.text(delivery.rejected_rows.removeprefix(f"s3://{DROPS}/")).decode(errors="surrogateescape")
    return list(csv.DictReader(io.StringIO(text, newline="")))


def many(rows: int, *more: str) -> bytes:
    """Return a file of so many rows, and further lines."""
    lines = [f"s{number:04},team {number % 7}" for number in range(rows)]
    return "\n".join(["service,team", *lines, *more, ""]).encode(errors="surrogateescape")


def fault(w: Syncs, kind: str, times: int = 1, **facts: Any) -> None:  # noqa: ANN401 -- the fault's
    """Order a fault where a file is sent."""
    w.vendor.faults.add([{"operation": SEND, "times": times, "fault": {"kind": kind, **facts}}])


# --- byte for byte ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        A,
        A.rstrip(b"\n"),
        b'service,"team"\n"a","x, ""y"""\nb,"two\nlines"\n\nc,\n',
        "service,team\na,caf\u00e9\u2028\nb,\U0001f4be\n".encode(),
        b" service ,team\n a , x \nb,  \n",
    ],
)
def test_a_file_arrives_byte_for_byte_with_its_newlines(w: Syncs, body: bytes) -> None:
    """Row 5: a newline within quotes and U+2028 are content; nothing is written anew."""
    receipt = outcome(w, w.deliver_file(KEY, body))
    assert held(w) == body
    assert w.calls() == [SEND]
    assert (
        receipt["rows"]["accepted"]
        == receipt["rows"]["in"]
        == len(list(csv.reader(io.StringIO(body.decode())))) - 1 - (b"\n\n" in body)
    )
    assert receipt["warnings"] == [FIRST]
    assert w.state()["custom_properties"][SLUG]["emptied"] is False


@pytest.mark.parametrize("chunk", [1, 7])
def test_a_file_arrives_byte_for_byte_whatever_the_chunks_are(on_aws: Syncs, chunk: int) -> None:
    """Row 5: a character across a read border."""
    body = 'service,team\na,"caf\u00e9\n\U0001f4be"\n'.encode()
    prepared = on_aws.prepare(on_aws.drop(KEY, body), torn(on_aws, Dripping(on_aws.s3, chunk)))
    assert prepared is not None
    outcome(on_aws, on_aws.finish(prepared.id))
    assert held(on_aws) == body


@pytest.mark.parametrize(
    ("body", "warning"),
    [
        (b"\xef\xbb\xbf" + A, "the byte order mark at the beginning was left out"),
        (A.replace(b"\n", b"\r\n"), "line ends with carriage returns were made \\n, as Infracost wants them"),
        (A.replace(b"\n", b"\r"), "line ends with carriage returns were made \\n, as Infracost wants them"),
        (A + b",\n , \n", "2 lines with nothing but commas and blanks were left out"),
    ],
)
def test_what_infracost_does_not_take_is_mended_and_warned_about(w: Syncs, body: bytes, warning: str) -> None:
    """Row 5: what spreadsheets write."""
    receipt = outcome(w, w.deliver_file(KEY, body), in_=3, accepted=3)
    assert held(w) == A
    assert receipt["warnings"] == [warning, FIRST]


def test_however_many_rows_there_are_they_take_one_call(w: Syncs) -> None:
    outcome(w, w.deliver_file(KEY, many(5_000)), accepted=5_000)
    assert w.calls() == [SEND]


# --- unchanged by content ---------------------------------------------------------------------------------------------


def test_the_same_bytes_are_sent_once_whatever_the_file_is_called(w: Syncs) -> None:
    w.deliver_file(KEY, A)
    for key, body in ((KEY, A), (f"{PROPERTIES}/other.csv", A), (KEY, A.replace(b"\n", b"\r\n"))):
        receipt = outcome(w, w.deliver_file(key, body), "unchanged", accepted=3)
        assert receipt["reason"] == "nothing to do: no write"
    assert w.calls() == [SEND]


def test_a_former_content_that_comes_back_is_sent_again(w: Syncs) -> None:
    """It is the content that counts, and not the object: A, B, A are three changes."""
    for body in (A, B, A):
        outcome(w, w.deliver_file(KEY, body))
        assert held(w) == body
    assert len(sent(w)) == 3


def test_another_order_of_the_rows_is_another_content(w: Syncs) -> None:
    w.deliver_file(KEY, A)
    turned = b"service,team\nc,z\nb,y\na,x\n"
    outcome(w, w.deliver_file(KEY, turned))
    assert held(w) == turned


def test_the_plan_compares_with_what_was_sent_last_key_by_key(w: Syncs) -> None:
    first = w.deliver_file(KEY, A)
    assert w.plan(first)["steps"] == ["add 3: a, b, c"]
    done = w.deliver_file(KEY, b"service,team\na,x\nb,other\nc,z\nd,x\n")
    assert w.plan(done)["steps"] == ["add 1: d", "change 1: b"]
    assert w.plan(done)["changed"]["first"] == [{"name": "b", "before": '{"team": "y"}', "after": '{"team": "other"}'}]
    assert outcome(w, done)["warnings"] == []


def test_only_the_last_content_is_remembered(w: Syncs) -> None:
    for body in (A, B, A, B):
        w.deliver_file(KEY, body)
    assert len(w.keys(DROPS, "state/")) == 1


# --- files that would do harm -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\n",
        b"service,team",
        b"service,team\n",
        b"service,team\n\n\n",
        b"service,team\n,\n",
        A.replace(b"\n", b" "),
        A.replace(b"\n", b""),
    ],
)
def test_a_file_of_one_line_is_refused_with_the_advice_of_the_documentation(w: Syncs, body: bytes) -> None:
    """Row 16: it would empty what Infracost holds, as a file whose newlines were lost would."""
    w.deliver_file(KEY, A)
    reason = outcome(w, w.deliver_file(KEY, body), "rejected")["reason"]
    assert "one line or none, and would empty what Infracost holds" in reason
    assert "--data-binary" in reason
    assert KEY in reason
    assert held(w) == A


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"service,service\na,b\n", "a column stands twice"),
        (b"service,\na,b\n", "a column has no name"),
        (b"service\na\n", "there is a key, but no property"),
        (b'service,team\na,"x\nb,y\n', "cannot be read"),
        (b"service,team\n,x\n,y\n", "2 of 2 rows are bad"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_by_name(w: Syncs, body: bytes, words: str) -> None:
    assert words in outcome(w, w.deliver_file(KEY, body), "rejected")["reason"]
    assert w.calls() == []


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("s0001,again", "the key 's0001' stands in a row before"),
        (",team 1", "the key (service) is empty"),
        ("ragged", "the row has 1 values, the header has 2 names"),
        ("ragged,a,b", "the row has 3 values, the header has 2 names"),
        ("caf\udce9,a", "the row has bytes that are not UTF-8"),
    ],
)
def test_of_many_rows_a_bad_one_is_named_with_its_line_and_comes_back_mended(w: Syncs, line: str, error: str) -> None:
    """Row 5: the others go, while they are enough."""
    done = w.deliver_file(KEY, many(100, line))
    receipt = outcome(w, done, "partly_delivered", in_=101, accepted=100, rejected=1)
    (row,) = rejected(w, done)
    assert row["line"] == "102"
    assert row["error"].startswith(error)
    assert held(w) == many(100)
    assert f"{PROPERTIES}/mended/{done.id}.csv" in receipt["next_command"]
    again = w.deliver_file(f"{PROPERTIES}/mended/{done.id}.csv", b"service,team,line,error,fix\nnew,team 1,102,,\n")
    outcome(w, again, in_=101, accepted=101)
    assert held(w) == many(100, "new,team 1")


def test_too_large_a_share_of_bad_rows_refuses_the_file_and_names_them_all_the_same(w: Syncs) -> None:
    """Row 16: what is left out would lose its properties."""
    done = w.deliver_file(KEY, many(99, ",x", ",y"))
    receipt = outcome(w, done, "rejected", in_=101, rejected=101)
    assert "2 of 101 rows are bad (2.0%; 1.0% may be)" in receipt["reason"]
    assert [row["line"] for row in rejected(w, done)] == ["101", "102"]
    assert w.calls() == []
    again = w.deliver_file(f"{PROPERTIES}/mended/{done.id}.csv", b"service,team,line\nv,x,101\nw,y,102\n")
    outcome(w, again, accepted=101)
    w.configure("custom_properties: {max_rejected_share: 0.02}")
    outcome(w, w.deliver_file(KEY, many(99, ",x", ",y")), "partly_delivered", rejected=2)


def test_a_mended_row_keeps_a_column_that_is_called_like_one_of_ours(w: Syncs) -> None:
    """A column named line, error or fix is not in the file of rejected rows; its value stays as it was."""
    w.configure("custom_properties: {max_rejected_share: 1}")
    done = w.deliver_file(KEY, b"service,line\na,red\n,blue\n")
    outcome(w, w.deliver_file(f"{PROPERTIES}/mended/{done.id}.csv", b"service,line\nb,3\n"))
    assert held(w) == b"service,line\na,red\nb,blue\n"


def test_a_file_that_loses_too_many_keys_is_held(w: Syncs) -> None:
    """Row 16: a shrink beyond the guard; of what was sent last, since nothing can be read back."""
    w.deliver_file(KEY, A)
    done = w.deliver_file(KEY, b"service,team\na,x\nb,y\n")
    receipt = outcome(w, done, "held", owed=2)
    assert receipt["reason"].startswith("share_removed: 1 of 3 keys would be removed (33%; 30% may go at once)")
    assert held(w) == A
    outcome(w, w.decide(done), accepted=2)
    assert held(w) == b"service,team\na,x\nb,y\n"


def test_the_first_file_is_held_by_no_size_but_by_keys_that_look_alike(w: Syncs) -> None:
    """Row 16: before the first time there is nothing to compare with."""
    done = w.deliver_file(KEY, many(10, "S0001,x"))
    assert w.guards(done) == {"lookalikes": "held"}
    outcome(w, done, "held")
    outcome(w, w.deliver_file(KEY, many(1_000)))


def test_a_guard_of_the_properties_has_its_own_limits_and_overrides(w: Syncs) -> None:
    w.configure(
        "custom_properties: {guards: {max_share_shrunk: 1, overrides:"
        " [{guard: share_removed, until: 2026-03-31, reason: two of three are gone}]}}"
    )
    w.deliver_file(KEY, A)
    done = w.deliver_file(KEY, b"service,team\na,x\n")
    outcome(w, done)
    assert w.guards(done) == {"share_removed": "overridden"}


def test_a_newer_file_ends_a_held_one(w: Syncs) -> None:
    """Row 15: what is to be there instead is said."""
    w.deliver_file(KEY, A)
    done = w.deliver_file(KEY, b"service,team\na,x\n")
    outcome(w, w.deliver_file(KEY, B))
    outcome(w, done, "superseded")


def test_what_was_held_can_be_dropped_and_nothing_is_forgotten(w: Syncs) -> None:
    """Row 16: what was sent last is what was sent last, whatever a person decides about another file."""
    w.deliver_file(KEY, A)
    short = b"service,team\na,x\n"
    outcome(w, w.decide(w.deliver_file(KEY, short), "drop"), "rejected")
    outcome(w, w.deliver_file(KEY, short), "held")
    outcome(w, w.deliver_file(KEY, A), "unchanged")
    assert len(sent(w)) == 1


def test_a_file_that_a_person_says_is_there_is_what_the_next_one_is_compared_with(w: Syncs) -> None:
    """Row 16: nobody can ask what Infracost holds, so it is the file that is taken for ours."""
    w.deliver_file(KEY, A)
    short = b"service,team\na,x\n"
    outcome(w, w.decide(w.deliver_file(KEY, short), "mark as arrived"), "unchanged")
    outcome(w, w.deliver_file(KEY, short), "unchanged")
    assert w.plan(w.deliver_file(KEY, A))["steps"] == ["add 2: b, c"]
    assert len(sent(w)) == 2


def test_rows_under_another_header_are_other_properties(w: Syncs) -> None:
    """Row 16: the same lines mean something else, and the plan says so; a column less is a person's to decide."""
    w.deliver_file(KEY, b"service,team,env\na,x,p\nb,y,q\n")
    turned = w.deliver_file(KEY, b"service,env,team\na,x,p\nb,y,q\n")
    assert w.plan(turned)["steps"][0] == "change 2: a, b"
    held = w.deliver_file(KEY, b"service,env\na,x\nb,y\n")
    assert w.guards(held) == {"columns_removed": "held", "share_emptied": "held"} or w.guards(held) == {
        "columns_removed": "held"
    }
    blank = w.deliver_file(KEY, b"service,env,team\na,x,\nb,y,\n")
    assert w.guards(blank) == {"share_emptied": "held"}
    assert len(sent(w)) == 2


def test_a_good_status_with_errors_in_its_body_is_no_delivery(w: Syncs) -> None:
    """Row 10: it waits, and the file is sent again."""
    said = {"errors": [{"detail": "nothing was imported"}]}
    w.vendor.faults.add(
        [{"operation": "uploadCustomProperties", "fault": {"kind": "status", "status": 200, "body": said}}]
    )
    done = w.deliver_file(KEY, A)
    outcome(w, done)
    assert w.waited
    assert held(w) == A


def test_after_a_send_that_nobody_heard_of_the_guards_look_at_both_files(w: Syncs) -> None:
    """Row 16: nobody knows which of the two Infracost holds."""
    rows = [f"k{number},x" for number in range(30)]
    w.deliver_file(KEY, "\n".join(["service,team", *rows[:10], ""]).encode())
    prepared = w.prepare(w.drop(KEY, "\n".join(["service,team", *rows, ""]).encode()))
    assert prepared is not None
    lost = {"operation": "uploadCustomProperties", "fault": {"kind": "lost_answer"}, "times": 4}
    w.vendor.faults.add([lost])
    with pytest.raises(Wait):
        w.step(prepared.id)
    w.vendor.faults.clear()
    third = w.deliver_file(KEY, "\n".join(["service,team", *rows[:9], ""]).encode())
    outcome(w, third, "held")
    assert w.guards(third) == {"share_removed": "held"}


# --- looking before leaping -------------------------------------------------------------------------------------------


def test_a_plan_says_what_would_happen_and_sends_nothing(w: Syncs) -> None:
    w.deliver_file(KEY, A)
    plan = KEY.replace("incoming", "plan")
    for body, verdict in ((A, "unchanged"), (B, "would_deliver"), (b"service,team\na,x\n", "would_be_held")):
        done = w.deliver_file(plan, body)
        assert outcome(w, done, "unchanged")["plan"]["verdict"] == verdict
    assert w.plan(w.deliver_file(plan, b"service,team\n"))["verdict"] == "would_be_rejected"
    assert len(sent(w)) == 1


# --- from a source ----------------------------------------------------------------------------------------------------

SERVICENOW = """
  servicenow:
    source: cmdb
    table: cmdb_ci_business_app
    columns: {service: name, team: owned_by.name, tier: u_tier}
  rules: {team: {case: lower}, service: {pattern: "[a-z-]+"}}
  max_rejected_share: 0.5
"""


def configured(w: Syncs, said: str = SERVICENOW) -> None:
    """Have the properties follow a source."""
    w.configure(
        f"""
sources:
  cmdb: {{type: servicenow, url: "{w.servicenow.api_url}"}}
  portal: {{type: backstage, url: "{w.backstage.api_url}"}}
custom_properties:{said}"""
    )


def row(name: str, team: str, tier: str = "1") -> dict[str, Any]:
    return {"name": name, "owned_by": {"name": team}, "u_tier": tier}


def test_properties_follow_servicenow_with_a_mapping_of_columns(w: Syncs) -> None:
    w.servicenow.set_table(TABLE, [row("b", "Team B, Ltd."), row(" a ", "Team A", ""), row("c", "C")])
    configured(w)
    outcome(w, w.deliver_file(f"{PROPERTIES}/now.sync", b""), in_=3, accepted=3)
    assert held(w) == b'service,team,tier\na,team a,\nb,"team b, ltd.",1\nc,c,1\n'
    w.servicenow.set_table(TABLE, [row("c", "C"), row("a", "Team A", ""), row("b", "team b, Ltd. ")])
    outcome(w, w.deliver_file(f"{PROPERTIES}/now.sync", b""), "unchanged")


def test_properties_follow_backstage(w: Syncs) -> None:
    w.backstage.set_entities(
        [
            {"kind": "Component", "metadata": {"name": name}, "spec": {"type": "service", "owner": owner}}
            for name, owner in (("b", "group:default/x"), ("a", "x"))
        ]
    )
    configured(
        w,
        """
  backstage:
    source: portal
    filters: [kind=component]
    columns: {service: metadata.name, team: spec.owner}
    refs: {team: full}
""",
    )
    outcome(w, w.deliver_file(f"{PROPERTIES}/now.sync", b""))
    assert held(w) == b"service,team\na,group:default/x\nb,group:default/x\n"


def test_bad_rows_of_a_source_are_named_by_their_record(w: Syncs) -> None:
    rows = [
        row("a", "x"),
        row("b", "x"),
        row("c", "x"),
        row("", "x"),
        {**row("a", "x"), "sys_id": "f" * 32},
        row("D", "x"),
    ]
    w.servicenow.set_table(TABLE, rows)
    configured(w)
    done = w.deliver_file(f"{PROPERTIES}/now.sync", b"")
    receipt = outcome(w, done, "partly_delivered", in_=6, accepted=3, rejected=3)
    again = f"aws s3api put-object --bucket drops --key {PROPERTIES}/properties.sync"
    assert receipt["next_command"] == f"correct the rejected rows at the source, then: {again}"
    errors = {found["error"] for found in rejected(w, done)}
    assert errors == {
        "the key 'a' stands in a record before",
        "column 'service': the value is empty",
        "column 'service': the value does not match the pattern [a-z-]+",
    }
    late = w.deliver_file(f"{PROPERTIES}/mended/{done.id}.csv", b"service,line\ne,5\n")
    assert "the rows came from a source of truth" in outcome(w, late, "rejected")["reason"]


def test_a_source_with_nothing_is_held(w: Syncs) -> None:
    """Row 16: a header alone would empty what Infracost holds; a person's release sends it neither."""
    w.deliver_file(KEY, A)
    w.servicenow.set_table(TABLE, [{**row("a", "x"), "_hidden": True}])
    configured(w)
    done = w.deliver_file(f"{PROPERTIES}/now.sync", b"")
    outcome(w, done, "held")
    assert w.guards(done)["source_empty"] == "held"
    outcome(w, w.decide(done), "rejected")
    assert held(w) == A


def test_without_a_source_a_run_is_refused_with_the_fix(w: Syncs) -> None:
    done = w.deliver_file(f"{PROPERTIES}/now.sync", b"")
    assert "name one in config/relay.yaml" in outcome(w, done, "rejected")["reason"]


def test_a_schedule_reads_the_source_of_the_properties_too(w: Syncs) -> None:
    """Row 25: once a day; a doubled tick does nothing."""
    w.servicenow.set_table(TABLE, [row("a", "x"), row("b", "y")])
    configured(w)
    w.time[0] = START.replace(hour=3) + timedelta(days=1)
    (done,) = w.scheduled(w.time[0])
    outcome(w, done)
    assert done.source.key == "schedule/custom-properties/properties/2026-03-02T03:00Z"
    assert w.scheduled(w.time[0] + timedelta(hours=1)) == []
    configured(w, SERVICENOW + "  plan_only: true\n")
    w.servicenow.set_table(TABLE, [row("a", "x"), row("b", "z")])
    (planned,) = w.scheduled(w.time[0] + timedelta(days=1))
    assert w.plan(planned)["verdict"] == "would_deliver"
    assert len(sent(w)) == 1


# --- trouble ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["lost_answer", "lost_answer_status", "reset"])
def test_after_a_lost_answer_the_same_bytes_are_sent_again(w: Syncs, kind: str) -> None:
    """Row 10: whether they arrived or not; what is sent replaces everything."""
    fault(w, kind, times=2, **({"status": 502} if kind == "lost_answer_status" else {}))
    outcome(w, w.deliver_file(KEY, A))
    assert held(w) == A
    assert w.calls() == [SEND] * 3
    outcome(w, w.deliver_file(KEY, A), "unchanged")


@pytest.mark.parametrize("arrived", [True, False])
def test_after_a_lost_answer_a_former_content_is_never_taken_for_unchanged(w: Syncs, arrived: bool) -> None:  # noqa: FBT001 -- a parameter
    """Row 10: nobody knows whether B is there; A, which was sent before it, is sent again."""
    w.deliver_file(KEY, A)
    prepared = w.prepare(w.drop(KEY, B))
    assert prepared is not None
    fault(w, "lost_answer" if arrived else "reset", times=2)
    with pytest.raises(Wait):
        w.step(prepared.id)
    assert held(w) == (B if arrived else A)
    outcome(w, w.deliver_file(KEY, A))
    assert held(w) == A
    outcome(w, w.finish(prepared.id), "superseded")
    outcome(w, w.deliver_file(KEY, A), "unchanged")


def test_after_a_lost_answer_a_person_who_leaves_all_as_it_is_makes_nothing_known(w: Syncs) -> None:
    """Row 10: what stands there is not known by a decision about another file."""
    w.deliver_file(KEY, A)
    prepared = w.prepare(w.drop(KEY, B))
    assert prepared is not None
    fault(w, "lost_answer", times=2)
    with pytest.raises(Wait):
        w.step(prepared.id)
    outcome(w, w.decide(w.deliver_file(KEY, b"service,team\na,x\n"), "mark as arrived"), "unchanged")
    assert held(w) == B
    outcome(w, w.deliver_file(KEY, A))
    assert held(w) == A


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_a_file_that_infracost_refuses_ends_as_failed_and_what_was_sent_last_stays(w: Syncs, status: int) -> None:
    w.deliver_file(KEY, A)
    fault(w, "status", status=status, body={"message": "no"})
    receipt = outcome(w, w.deliver_file(KEY, B), "failed", owed=3)
    assert "copy-object" in receipt["next_command"]
    outcome(w, w.deliver_file(KEY, B))
    assert held(w) == B


def test_a_named_wait_is_kept(w: Syncs) -> None:
    """Row 8: and the bytes are the same afterwards."""
    fault(w, "status", status=429, headers={"Retry-After": "1234"})
    outcome(w, w.deliver_file(KEY, A))
    assert [wait.seconds for wait in w.waited] == [1234]
    assert held(w) == A


def test_a_mended_credential_is_enough(w: Syncs) -> None:
    """Row 12: the delivery waits, and goes on by itself."""
    good, w.token[0] = w.token[0], "revoked"
    prepared = w.prepare(w.drop(KEY, A))
    assert prepared is not None
    with pytest.raises(Wait, match="401"):
        w.step(prepared.id)
    assert w.metrics.counts["CredentialRefused"] == 1
    w.token[0] = good
    outcome(w, w.finish(prepared.id))


def test_a_short_read_is_never_taken_for_a_whole_file(on_aws: Syncs) -> None:
    """Row 6: half a file would take the properties of the other half."""
    source = on_aws.drop(KEY, many(500))
    with pytest.raises(Wait, match="broke off"):
        on_aws.prepare(source, torn(on_aws, TornS3(on_aws.s3, [1_000, 0, 0, 0, 0, 0])))
    prepared = on_aws.prepare(source, torn(on_aws, TornS3(on_aws.s3, [1_000, 5])))
    assert prepared is not None
    outcome(on_aws, on_aws.finish(prepared.id), accepted=500)
    assert held(on_aws) == many(500)


def test_an_overwritten_file_is_read_as_its_event_named_it(w: Syncs) -> None:
    """Row 3, Row 4: each version by itself; the older event is stale."""
    first, second = w.drop(KEY, A), w.drop(KEY, B)
    newer, older = w.prepare(second), w.prepare(first)
    assert newer is not None
    assert older is not None
    outcome(w, older, "stale")
    outcome(w, w.finish(newer.id))
    assert held(w) == B


def test_prepared_bytes_that_were_lost_are_not_sent_in_part(on_aws: Syncs) -> None:
    """Row 6: the spool's object must be what was prepared."""
    prepared = on_aws.prepare(on_aws.drop(KEY, A))
    assert prepared is not None
    (key,) = on_aws.keys("spool")
    on_aws.s3.put_object(Bucket="spool", Key=key, Body=A[:-5])
    receipt = outcome(on_aws, on_aws.finish(prepared.id), "failed", owed=3)
    assert "is not what was prepared" in receipt["reason"]
    assert on_aws.calls() == []

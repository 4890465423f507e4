"""Infracost and the sources in trouble while tags follow their source: slow, down, refusing, or silent after acting."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest
from finops_relay.delivery.ledger import Delivery
from finops_relay.errors import LedgerConflict, Wait
from finops_relay.http.auth import Credential
from finops_relay.infracost.client import Infracost
from finops_relay.jobs.config_check import check_config
from finops_relay.jobs.opening import change_target
from finops_relay.jobs.syncing.lease import LONGEST_S, MARGIN_S
from pydantic import SecretStr

from local.standins.infracost import TOKEN
from tests.world.relay import DROPS, LEDGER, SPOOL, START
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
    policy,
    relay_yaml,
    standins,
)

READ, WRITE, LIST = "getTaggingPolicy", "updateTaggingPolicy", "listRecords"
FIVE = ("a", "b", "c", "d", "e")
TARGET = f"tagging-policy/{SLUG}/{POLICY}"


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


def dropped(w: Syncs, *values: str, key: str = KEY) -> Delivery:
    """Drop and prepare a list that can be delivered."""
    found = w.prepare(w.drop(f"{TAGS}/{key}.txt", "\n".join(values).encode()))
    assert found is not None
    assert found.stage == "queued", found.reason
    return found


def fault(w: Syncs, operation: str, kind: str, times: int = 1, after: int = 0, **facts: Any) -> None:  # noqa: ANN401 -- the fault's
    """Order a fault, at the vendor or where a table is read."""
    order = {"operation": operation, "times": times, "after": after, "fault": {"kind": kind, **facts}}
    (w.servicenow if operation == LIST else w.vendor).faults.add([order])


def with_http(w: Syncs, **parts: Any) -> Infracost:  # noqa: ANN401 -- of the core under the client
    """Return the world's client of the vendor with some parts of its core exchanged."""
    return Infracost(replace(w.client().http, **parts))


def by_hand(w: Syncs, *values: str) -> None:
    """Have somebody set the values of our tag in the dashboard."""
    w.change_by_hand(lambda tag: tag.update(allowedValues=list(values)))


# --- the vendor -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("operation", [READ, WRITE])
def test_a_named_wait_is_kept_and_the_values_are_written_then(w: Syncs, status: int, operation: str) -> None:
    """Row 8: for as long as the vendor has named, at whatever call."""
    fault(w, operation, "status", status=status, headers={"Retry-After": "1234"})
    outcome(w, w.deliver_values(*FIVE))
    assert [wait.seconds for wait in w.waited] == [1234]
    assert w.values() == [*FIVE]


def test_without_a_named_wait_it_grows(w: Syncs) -> None:
    """Row 8: half of each wait is jitter, and it is never longer than the cap."""
    fault(w, READ, "status", times=12, status=429)
    outcome(w, w.deliver_values(*FIVE))
    waits = [wait.seconds for wait in w.waited]
    assert len(waits) == 6
    assert waits[3] > waits[0]
    assert all(5 <= wait <= 900 for wait in waits)


@pytest.mark.parametrize("kind", ["status", "reset", "html", "half_body", "empty"])
def test_a_vendor_that_is_down_for_hours_is_waited_for(w: Syncs, kind: str) -> None:
    """Row 9: nothing is dead-lettered for a vendor's outage; the receipt says what is waited for."""
    prepared = dropped(w, *FIVE)
    fault(w, READ, kind, times=99, **({"status": 500} if kind == "status" else {}))
    for _ in range(4):
        with pytest.raises(Wait):
            w.step(prepared.id)
        w.later(hours=6)
    assert w.receipt(prepared)["reason"].startswith("waits: GET /orgs/{orgSlug}/tagging-policies/{policyId}")
    assert w.metrics.counts["VendorTrouble"] == 4
    w.vendor.faults.clear()
    outcome(w, w.finish(prepared.id))
    assert w.values() == [*FIVE]


@pytest.mark.parametrize(
    ("kind", "facts"), [("lost_answer", {}), ("half_body", {}), ("lost_answer_status", {"status": 504}), ("reset", {})]
)
def test_after_a_lost_answer_the_policy_is_read_and_what_stands_there_counts(
    w: Syncs, kind: str, facts: dict[str, Any]
) -> None:
    """Row 10: written or not, it ends as delivered, and what comes next is no drift."""
    w.deliver_values("a", "b", "c", "d", "z")
    before = len(w.calls())
    fault(w, WRITE, kind, times=2, **facts)
    outcome(w, w.deliver_values(*FIVE), accepted=5)
    assert w.calls()[before:].count(WRITE) == (3 if kind == "reset" else 2)
    assert w.values() == [*FIVE]
    outcome(w, w.deliver_values("a", "b", "c", "d", "z"))  # not taken for a change by hand that is undone
    outcome(w, w.deliver_values("a", "b", "c", "d", "z"), "unchanged")
    assert len(w.keys(DROPS, "state/")) == 1


def test_after_a_lost_answer_a_newer_list_finds_no_drift(w: Syncs) -> None:
    """Row 10: what an older delivery may have written is ours, whichever it was."""
    w.deliver_values(*FIVE)
    old = dropped(w, *FIVE, "f")
    fault(w, WRITE, "lost_answer", times=2)
    with pytest.raises(Wait):
        w.step(old.id)
    outcome(w, w.deliver_values(*FIVE, "g"))
    outcome(w, w.finish(old.id), "superseded")
    assert w.values() == [*FIVE, "g"]


def test_after_a_lost_answer_a_change_by_hand_is_drift_still(w: Syncs) -> None:
    """Row 10, Row 17: neither what was there nor what we may have written."""
    w.deliver_values(*FIVE)
    old = dropped(w, *FIVE, "f")
    fault(w, WRITE, "lost_answer", times=2)
    with pytest.raises(Wait):
        w.step(old.id)
    by_hand(w, *FIVE, "f", "x")
    held = w.finish(old.id)
    outcome(w, held, "held")
    assert w.guards(held) == {"drift": "held"}


def test_after_a_lost_answer_a_released_delivery_goes_on_by_itself(w: Syncs) -> None:
    """Row 10: the remote has moved to just what the person released."""
    held = w.deliver_values("a", "b")
    fault(w, WRITE, "lost_answer", times=2)
    outcome(w, w.decide(held), accepted=2)
    assert w.values() == ["a", "b"]


def test_a_write_that_was_accepted_and_not_kept_is_seen_and_done_again(w: Syncs) -> None:
    w.vendor.configure({"drop_write": "policy"})
    done = w.deliver_values(*FIVE)
    outcome(w, done)
    assert w.values() == [*FIVE]
    (wait,) = w.waited
    assert "lacks ['e'] of what was sent" in wait.why
    assert w.calls() == [READ, WRITE, READ] * 2


def test_a_vendor_that_merges_tags_instead_of_replacing_them_holds_the_same(w: Syncs) -> None:
    w.vendor.configure({"patch_merges_tags": True})
    outcome(w, w.deliver_values("a", "b", "c", "e"))
    assert w.values() == ["a", "b", "c", "e"]
    assert {name: w.tags()["env"][name] for name in OTHER} == OTHER


def test_a_policy_that_does_not_exist_fails_with_what_to_do_next(w: Syncs) -> None:
    done = w.deliver_file(f"incoming/tagging-policies/nobody/{KEY}.txt", b"a\n")
    receipt = outcome(w, done, "failed", in_=1, owed=1)
    assert "answered 404" in receipt["reason"]
    assert f"incoming/tagging-policies/nobody/{KEY}.txt" in receipt["next_command"]
    w.configure(relay_yaml(w).replace(POLICY, "nobody"))
    done = w.deliver_file(f"incoming/tagging-policies/nobody/{KEY}.sync", b"")
    again = f"aws s3api put-object --bucket drops --key incoming/tagging-policies/nobody/{KEY}.sync"
    assert outcome(w, done, "failed")["next_command"] == again


@pytest.mark.parametrize("policy_id", ["..", "."])
def test_a_policy_that_would_be_another_address_is_never_asked_for(w: Syncs, policy_id: str) -> None:
    done = w.deliver_file(f"incoming/tagging-policies/{policy_id}/{KEY}.txt", b"a\n")
    assert "names nothing; nothing was sent" in outcome(w, done, "failed")["reason"]
    assert w.calls() == []


@pytest.mark.parametrize("status", [400, 409, 413, 422])
def test_a_refused_write_fails_and_leaves_everything_as_it_was(w: Syncs, status: int) -> None:
    fault(w, WRITE, "status", status=status, body={"errors": [{"detail": "no such value"}]})
    receipt = outcome(w, w.deliver_values(*FIVE), "failed", owed=5)
    assert f"answered {status}" in receipt["reason"]
    assert "no such value" in receipt["reason"]
    assert w.values() == ["a", "b", "c", "d"]
    outcome(w, w.deliver_values(*FIVE))


@pytest.mark.parametrize("token", ["revoked", ""])
def test_a_refused_credential_waits_and_goes_on_by_itself_once_it_is_mended(w: Syncs, token: str) -> None:
    """Row 12: the secret is read afresh once in each call; one alarm, and nothing is lost."""
    good, w.token[0] = w.token[0], token
    prepared = dropped(w, *FIVE)
    for _ in range(3):
        with pytest.raises(Wait, match="infracost/acme or infracost/default" if not token else "401"):
            w.step(prepared.id)
        w.later(minutes=15)
    assert w.metrics.counts["CredentialRefused"] == 3
    assert w.token_reads.count(True) == 3
    assert outcome(w, prepared, "pending")["reason"].startswith("waits: GET")
    w.token[0] = good
    outcome(w, w.finish(prepared.id))


def test_a_credential_that_may_only_read_waits_too(w: Syncs) -> None:
    """Row 12: 403 at the write; the plan is made anew when it goes on."""
    fault(w, WRITE, "status", times=2, status=403)
    done = w.deliver_values(*FIVE)
    outcome(w, done)
    assert w.metrics.counts["CredentialRefused"] == 2
    assert [wait.why.partition(" answered 403")[1] for wait in w.waited] == [" answered 403"] * 2


def test_a_secret_that_was_rotated_is_read_afresh_at_once(w: Syncs) -> None:
    """Row 12: nobody has to wait for a cache."""
    prepared, reads = dropped(w, *FIVE), list[bool]()

    def token(fresh: bool) -> SecretStr:  # noqa: FBT001 -- TokenSource is called by position
        reads.append(fresh)
        return SecretStr(TOKEN if fresh else "old")

    outcome(w, w.step(prepared.id, vendor=lambda _: with_http(w, auth=Credential(token, "infracost/acme"))))
    assert reads.count(True) == 3  # one for each call: the cache of the secret is not ours
    assert w.waited == []


def test_a_plan_with_a_refused_credential_says_so_and_does_not_wait(w: Syncs) -> None:
    w.token[0] = "revoked"
    done = w.deliver_values(*FIVE, root="plan")
    receipt = outcome(w, done, "unchanged")
    assert receipt["plan"]["verdict"] == "would_fail"
    assert "401" in receipt["plan"]["why"]


@pytest.mark.parametrize("key", [KEY, "env"])
def test_a_tag_that_stands_twice_is_never_guessed_about(w: Syncs, key: str) -> None:
    ours = policy([*"abcd"])["tags"][1]
    attributes = {"name": "Standard tags", "tags": [OTHER, ours, ours if key == KEY else OTHER]}
    double = {"id": POLICY, "type": "tagging-policies", "attributes": attributes}
    fault(w, READ, "status", times=9, status=200, body={"data": double})
    done = w.deliver_values(*FIVE)
    if key == KEY:
        receipt = outcome(w, done, "rejected", rejected=5)
        assert "holds tag 'CostCenter' 2 times" in receipt["reason"]
        assert WRITE not in w.calls()
    else:
        outcome(w, done, "failed")
        assert w.values() == ["a", "b", "c", "d"]


def test_what_was_prepared_and_is_lost_fails_with_the_way_on(on_aws: Syncs) -> None:
    prepared = dropped(on_aws, *FIVE)
    (key,) = on_aws.keys(SPOOL)
    on_aws.s3.delete_object(Bucket=SPOOL, Key=key)
    receipt = outcome(on_aws, on_aws.finish(prepared.id), "failed", owed=5)
    assert "something that was prepared is lost" in receipt["reason"]
    assert "copy-object" in receipt["next_command"]
    assert on_aws.calls() == []


# --- one at a time ----------------------------------------------------------------------------------------------------


def lease(w: Syncs, by: str, minutes: float) -> None:
    """Have somebody at the policy."""
    until = (w.time[0] + timedelta(minutes=minutes)).isoformat()
    change_target(w.ports, TARGET, lambda target: target.but(content={"by": by, "until": until}))


def test_a_second_run_for_a_policy_waits_until_the_first_has_ended(w: Syncs) -> None:
    """Row 15: a schedule and a human, two queues, a message that was sent afresh: whoever they are."""
    lease(w, "another", 10)
    prepared = dropped(w, *FIVE)
    with pytest.raises(Wait, match="delivery another is at the same target") as waiting:
        w.step(prepared.id)
    assert waiting.value.seconds <= 30
    assert w.calls() == []
    assert "is at the same target" in outcome(w, prepared, "pending")["reason"]
    lease(w, "", 0)
    outcome(w, w.step(prepared.id))
    assert w.ledger.target(TARGET).content["by"] == ""


def test_a_run_that_died_holds_up_the_next_one_no_longer_than_an_invocation(w: Syncs) -> None:
    """Row 15: its lease ends with it."""
    lease(w, "dead", LONGEST_S / 60)
    outcome(w, w.deliver_values(*FIVE))
    assert sum(wait.seconds for wait in w.waited) <= LONGEST_S + MARGIN_S + 30


def test_two_runs_at_once_for_two_tags_of_one_policy_never_undo_each_other(w: Syncs) -> None:
    """Row 15: both would write the whole array; the second one comes while the first is between read and write."""
    first, second = dropped(w, *FIVE), dropped(w, "prod", "dev", "test", key="env")
    came: list[str] = []

    class Wire:
        def send(self, request: httpx.Request, **named: Any) -> httpx.Response:  # noqa: ANN401 -- the wire's
            if request.method == "PATCH":
                with pytest.raises(Wait, match="is at the same target"):
                    w.step(second.id)
                came.append(second.id)
            return w.wire.send(request, **named)  # type: ignore[no-any-return] # the world's wire may be anything

        def build_request(self, *parts: Any, **named: Any) -> httpx.Request:  # noqa: ANN401 -- as above
            return w.wire.build_request(*parts, **named)  # type: ignore[no-any-return] # as above

    def meddling(_slug: str) -> Infracost:
        return with_http(w, wire=Wire())

    outcome(w, w.step(first.id, vendor=meddling))
    assert came == [second.id]
    outcome(w, w.finish(second.id))
    assert (w.values(), w.values("env")) == ([*FIVE], ["dev", "prod", "test"])


def test_the_same_delivery_twice_at_once_is_one(w: Syncs) -> None:
    """Row 15: the ledger's version tells the second that somebody else is at it."""
    prepared = dropped(w, *FIVE)

    def twice(_slug: str) -> Infracost:
        with suppress(LedgerConflict):
            w.step(prepared.id)
        return w.client()

    with pytest.raises(LedgerConflict):
        w.step(prepared.id, vendor=twice)
    outcome(w, w.finish(prepared.id))
    assert w.calls().count(WRITE) == 1


def test_another_policy_waits_for_nobody(w: Syncs) -> None:
    """Row 15: one at a time is per target."""
    lease(w, "another", 10)
    done = w.deliver_file(f"incoming/tagging-policies/nobody/{KEY}.txt", b"a\n")
    assert "404" in outcome(w, done, "failed")["reason"]
    assert w.waited == []


# --- the sources ------------------------------------------------------------------------------------------------------


def reading(w: Syncs, tries: int = 30) -> Delivery:
    """Have the tag's source read, and that taken to its end over all waits."""
    source = w.drop(f"{TAGS}/{KEY}.sync", b"")
    for _ in range(tries):
        try:
            prepared = w.prepare(source)
        except Wait as wait:
            w.waited.append(wait)
            w.later(seconds=wait.seconds)
            continue
        assert prepared is not None
        return prepared if prepared.outcome.final else w.finish(prepared.id)
    raise AssertionError(w.waited[-1])


@pytest.fixture
def s(w: Syncs) -> Syncs:
    """A world whose tag follows ServiceNow."""
    w.servicenow.set_table(TABLE, applications(*FIVE)[TABLE])
    w.configure(relay_yaml(w))
    return w


def test_a_source_that_names_a_wait_is_given_it(s: Syncs) -> None:
    """Row 8: 429 with Retry-After."""
    fault(s, LIST, "status", status=429, headers={"Retry-After": "1234"})
    outcome(s, reading(s))
    assert [wait.seconds for wait in s.waited] == [1234]
    assert s.values() == [*FIVE]


@pytest.mark.parametrize("kind", ["status", "reset", "lost_answer", "half_body", "html", "empty"])
def test_a_source_that_is_down_is_waited_for_and_the_list_stays_as_it_is(s: Syncs, kind: str) -> None:
    """Row 9: half a table is never taken for the whole."""
    fault(s, LIST, kind, times=4, **({"status": 500} if kind == "status" else {}))
    done = reading(s)
    outcome(s, done)
    assert s.metrics.counts["VendorTrouble"] == len(s.waited) >= 2
    assert s.values() == [*FIVE]
    assert s.calls() == [READ, WRITE, READ]


def test_a_page_that_came_in_part_is_never_taken_for_the_whole(s: Syncs) -> None:
    """Row 16: "Transaction cancelled" comes with 200 and some rows; what is missing would be removed."""
    s.servicenow.configure({"cancel_after_rows": 2})
    source = s.drop(f"{TAGS}/{KEY}.sync", b"")
    with pytest.raises(Wait, match="Transaction cancelled: maximum execution time exceeded"):
        s.prepare(source)
    (receipt,) = [receipt for receipt in s.receipts() if receipt["kind"] == "tagging-policies"]
    assert (receipt["outcome"], receipt["rows"]["in"]) == ("pending", 0)
    assert "page_rows" in receipt["reason"]
    s.servicenow.configure({"cancel_after_rows": None})
    prepared = s.prepare(source)
    assert prepared is not None
    outcome(s, s.finish(prepared.id))


def test_a_refused_credential_of_a_source_waits_and_is_enough_once_mended(s: Syncs) -> None:
    """Row 12: the alarm rings, the list stays, and the run goes on by itself."""
    good, s.password[0] = s.password[0], "expired"
    source = s.drop(f"{TAGS}/{KEY}.sync", b"")
    for _ in range(3):
        with pytest.raises(Wait, match=r"the source could not be read: GET /api/now/table/\{table\} answered 401"):
            s.prepare(source)
    assert s.metrics.counts["CredentialRefused"] == 3
    assert s.calls() == []
    s.password[0] = good
    prepared = s.prepare(source)
    assert prepared is not None
    outcome(s, s.finish(prepared.id))


@pytest.mark.parametrize("columns", ["u_cost_centre", "owned_by.name"])
def test_a_field_that_no_row_has_is_told_and_takes_no_value_away(s: Syncs, columns: str) -> None:
    """Row 16: a misspelt field would give a list of empty values."""
    s.configure(relay_yaml(s).replace("u_cost_center", columns))
    source = s.drop(f"{TAGS}/{KEY}.sync", b"")
    with pytest.raises(Wait, match=f"no row has {re.escape(columns)}: a field is misspelt, or an access rule hides it"):
        s.prepare(source)
    assert s.values() == ["a", "b", "c", "d"]


def test_a_table_that_does_not_exist_fails_with_the_command_that_tries_again(s: Syncs) -> None:
    s.configure(relay_yaml(s).replace(TABLE, "cmdb_ci_nothing"))
    receipt = outcome(s, reading(s), "failed")
    assert "Invalid table cmdb_ci_nothing" in receipt["reason"]
    assert receipt["next_command"] == f"aws s3api put-object --bucket drops --key {TAGS}/{KEY}.sync"


def test_a_plan_of_a_source_that_is_down_says_so_and_does_not_wait(s: Syncs) -> None:
    fault(s, LIST, "status", times=2, status=503)
    done = s.sync_now(root="plan")
    receipt = outcome(s, done, "unchanged")
    assert receipt["plan"]["verdict"] == "would_fail"
    assert "503" in receipt["plan"]["why"]
    assert s.waited == []


@pytest.mark.parametrize("empty", ["200", "404"])
def test_a_query_that_finds_nothing_is_held_whichever_way_the_instance_says_so(s: Syncs, empty: str) -> None:
    """Row 16: older instances answer 404 for an empty list."""
    s.servicenow.set_table(TABLE, [])
    s.servicenow.configure({"empty": empty})
    held = reading(s)
    outcome(s, held, "held")
    assert s.guards(held) == {"source_empty": "held"}


def test_a_catalog_that_refuses_the_token_waits(w: Syncs) -> None:
    """Row 12: as ServiceNow."""
    w.backstage.configure({"tokens": ["another"]})
    source = "\n        backstage: {source: portal, filters: [kind=component], columns: {value: metadata.name}}\n"
    head, _, _ = relay_yaml(w).partition("\n        servicenow:")
    w.configure(head + source)
    with pytest.raises(Wait, match=r"answered 401.*static one"):
        w.prepare(w.drop(f"{TAGS}/{KEY}.sync", b""))


def test_what_is_in_the_file_of_a_run_does_not_matter(s: Syncs) -> None:
    outcome(s, s.deliver_file(f"{TAGS}/{KEY}.sync", b"\xff\x00 whatever"))


# --- secrets ----------------------------------------------------------------------------------------------------------


def everything(w: Syncs) -> str:
    """Return all that anybody can read of us: every object but what was dropped, and every item of the ledger."""
    texts = [json.dumps(item, default=str) for item in w.dynamodb.scan(TableName=LEDGER)["Items"]]
    for bucket in (DROPS, SPOOL):
        for key in w.keys(bucket):
            texts += [] if key.startswith(("incoming/", "config/")) else [key, w.text(key, bucket).decode()]
    return "\n".join(texts)


def test_no_password_and_no_token_stands_in_any_receipt_item_or_state(
    on_aws: Syncs, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Row 29: refused or good, quoted by a server that repeats them or not."""
    on_aws.servicenow.set_table(TABLE, applications(*FIVE)[TABLE])
    on_aws.configure(relay_yaml(on_aws))
    secret = "geheim-7f3a91"
    caplog.set_level("DEBUG")
    on_aws.servicenow.configure({"users": {"relay": secret}})
    on_aws.password[0] = secret
    basic = "cmVsYXk6Z2VoZWltLTdmM2E5MQ=="
    echo = f"bad header Authorization: Basic {basic} for relay:{secret}"
    fault(on_aws, LIST, "status", times=2, status=500, body={"error": {"message": echo}})
    source = on_aws.drop(f"{TAGS}/{KEY}.sync", b"")
    with pytest.raises(Wait) as waiting:
        on_aws.prepare(source)
    fault(on_aws, LIST, "status", times=1, status=401, body={"error": {"message": echo}})
    with pytest.raises(Wait) as again:
        on_aws.prepare(source)
    prepared = on_aws.prepare(source)
    assert prepared is not None
    fault(on_aws, READ, "status", times=2, status=503, body={"message": f"Bearer {TOKEN} is throttled"})
    with pytest.raises(Wait) as third:
        on_aws.step(prepared.id)
    outcome(on_aws, on_aws.finish(prepared.id))
    fault(on_aws, WRITE, "status", status=400, body={"message": f"Bearer {TOKEN} may not"})
    outcome(on_aws, on_aws.deliver_values(*FIVE, "f"), "failed")
    by_hand(on_aws, "a")
    outcome(on_aws, on_aws.deliver_values("b"), "held")
    said = capfd.readouterr()
    texts = [
        everything(on_aws),
        caplog.text,
        said.out,
        said.err,
        repr(prepared),
        repr(on_aws.client()),
        str(on_aws.around().config()),
    ]
    texts += [str(raised.value) for raised in (waiting, again, third)]
    for text in texts:
        assert secret not in text
        assert basic not in text
        assert TOKEN not in text
    assert len(on_aws.receipts()) >= 4


def test_a_password_that_stands_in_relay_yaml_is_not_repeated(on_aws: Syncs) -> None:
    """Row 29: the refusal goes into a receipt, and the file was refused as a whole."""
    text = f'sources: {{cmdb: {{type: servicenow, url: "{on_aws.servicenow.api_url}", password: geheim-7f3a91}}}}'
    found = check_config(on_aws.drop("config/relay.yaml", text.encode()), on_aws.ports, on_aws.defaults)
    assert found is not None
    outcome(on_aws, found, "rejected")
    assert "geheim" not in everything(on_aws)


def test_a_schedules_run_in_trouble_waits_and_says_so(s: Syncs) -> None:
    """Row 9, Row 25: a run that waits is the same run; its receipt is there from the beginning."""
    fault(s, LIST, "status", times=4, status=503)
    (begun,) = s.tick(START.replace(hour=3))
    for _ in range(2):
        with pytest.raises(Wait, match="the source could not be read"):
            s.run(begun.id)
        s.later(minutes=5)
    assert outcome(s, begun, "pending")["reason"].startswith("waits: the source could not be read")
    assert s.tick(START.replace(hour=4)) == []
    s.run(begun.id)
    outcome(s, s.finish(begun.id))

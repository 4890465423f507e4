"""What a vendor that lags, loses or bends what it is told must not lead a sync to: harm that nobody was asked about."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from finops_relay.delivery.ledger import Delivery
from finops_relay.errors import Wait

from tests.world.relay import DROPS, START
from tests.world.syncs import KEY, OTHER, POLICY, SLUG, Syncs, in_memory, relay_yaml, standins

VALUES = ("a", "b", "c", "d", "e")
UUID = "5f1c0000-0000-4000-8000-00000000abcd"


@pytest.fixture(scope="module")
def running() -> Iterator[Any]:
    with standins(VALUES) as found:
        yield found


@pytest.fixture
def w(running: Any) -> Iterator[Syncs]:  # noqa: ANN401 -- the stand-ins
    with in_memory(running) as found:
        yield found


def bent(w: Syncs, bend: Callable[[dict[str, Any]], None], times: int = 1) -> None:
    """Let the next PATCHes be carried out otherwise than they were sent."""
    client, left = w.client(), [times]

    def hook(request: Any) -> None:  # noqa: ANN401 -- httpx's
        if request.method == "PATCH" and left[0]:
            left[0] -= 1
            said = json.loads(request.content)
            bend(said["data"]["attributes"])
            content = json.dumps(said).encode()
            request.stream = type(request.stream)(content)
            request.headers["content-length"] = str(len(content))

    client.http.wire.event_hooks["request"].append(hook)


def without_env(attributes: dict[str, Any]) -> None:
    attributes["tags"] = [tag for tag in attributes["tags"] if tag["key"] != "env"]


def test_another_tag_that_our_write_has_lost_is_a_persons_to_know_of(w: Syncs) -> None:
    """Row 16: the second look finds our own tag right, and is not taken in by that."""
    bent(w, without_env)
    done = w.deliver_values(*VALUES, "f")
    assert done.outcome == "held"
    assert w.guards(done) == {"others_lost": "held"}
    assert "tag env" in done.reason
    assert w.plan(done)["guards"][0]["says"] == "not as before our last write: tag env"
    again = w.decide(done)
    assert (again.outcome, w.values()) == ("delivered", [*VALUES, "f"])


def test_an_attribute_that_our_write_has_lost_is_too(w: Syncs) -> None:
    """Row 16: what the list does not set, and the policy's own, stays as it is or is named."""

    def softened(attributes: dict[str, Any]) -> None:
        attributes["blockPr"] = False
        for tag in attributes["tags"]:
            if tag["key"] == KEY:
                tag["mandatory"] = False

    bent(w, softened)
    done = w.deliver_values(*VALUES, "f")
    assert done.outcome == "held"
    assert f"mandatory of tag {KEY}, block_pr of the policy" in done.reason


def test_what_is_not_kept_is_not_written_for_ever(w: Syncs) -> None:
    """Row 16: a vendor that stores a value otherwise is asked five times, then a person is."""

    def trimmed(attributes: dict[str, Any]) -> None:
        for tag in attributes["tags"]:
            tag["allowedValues"] = [value.removesuffix(".") for value in tag["allowedValues"]]

    bent(w, trimmed, times=100)
    done = w.deliver_values(*VALUES, "Acme Inc.")
    assert done.outcome == "held"
    assert "5 times written and not kept" in done.reason or w.guards(done) == {"drift": "held"}
    assert w.calls().count("updateTaggingPolicy") <= 5


@pytest.mark.parametrize(
    "body",
    [
        {"data": {"id": POLICY, "attributes": {"name": "Standard tags"}}},
        {"data": {"id": "another", "attributes": {"name": "Another", "tags": []}}},
    ],
)
def test_a_read_that_is_no_whole_policy_is_never_written_back(w: Syncs, body: dict[str, Any]) -> None:
    """Row 16: what it does not show would be taken away."""
    w.vendor.faults.add(
        [{"operation": "getTaggingPolicy", "fault": {"kind": "status", "status": 200, "body": body}, "times": 4}]
    )
    prepared = w.prepare(w.drop(f"incoming/tagging-policies/{POLICY}/{KEY}.txt", b"a\nb\nc\nd\ne\nf\n"))
    assert prepared is not None
    with pytest.raises(Wait):
        w.step(prepared.id)
    assert "updateTaggingPolicy" not in w.calls()
    w.vendor.faults.clear()
    assert w.finish(prepared.id).outcome == "delivered"
    assert w.values("env") == OTHER["allowedValues"]


def test_a_tag_that_is_still_shown_as_it_was_before_our_last_write_is_not_written_back(w: Syncs) -> None:
    """Row 15: another tag of the policy was written a moment ago, and a replica lags behind."""
    stale = (
        w.client().http.request("GET", "/orgs/{s}/tagging-policies/{p}", ids={"s": SLUG, "p": POLICY}, safe=True).json()
    )
    assert w.deliver_values(*VALUES, "f").outcome == "delivered"
    w.vendor.faults.add(
        [{"operation": "getTaggingPolicy", "fault": {"kind": "status", "status": 200, "body": plain(stale)}}]
    )
    done = w.deliver_values("prod", "dev", "qa", key="env")
    assert done.outcome == "delivered"
    assert any("still shows tag" in wait.why for wait in w.waited)
    assert (w.values(), w.values("env")) == ([*VALUES, "f"], ["dev", "prod", "qa"])


def plain(found: object) -> Any:  # noqa: ANN401 -- JSON
    return json.loads(json.dumps(found, default=str))


def test_the_receipt_of_a_write_whose_answer_was_lost_has_the_plan_that_was_applied(w: Syncs) -> None:
    """Row 10: plan, guards and who released it are those of the write, not those of the look after it."""
    held = w.deliver_values("a", "b")
    lost = {"operation": "updateTaggingPolicy", "fault": {"kind": "lost_answer"}, "times": 2}
    w.vendor.faults.add([lost])
    done = w.decide(held)
    assert done.outcome == "delivered"
    assert w.plan(done)["steps"] == ["remove 3: c, d, e"]
    assert w.guards(done) == {"share_removed": "released"}


def test_a_write_whose_answer_was_lost_is_named_by_the_delivery_that_finds_it(w: Syncs) -> None:
    """Row 10: the same list again finds nothing to do, and says who has done it."""
    first = w.prepare(w.drop(f"incoming/tagging-policies/{POLICY}/{KEY}.txt", b"a\nb\nc\nd\ne\nf\n"))
    assert first is not None
    w.vendor.faults.add(
        [
            {"operation": "updateTaggingPolicy", "fault": {"kind": "lost_answer"}, "times": 2},
            {"operation": "getTaggingPolicy", "fault": {"kind": "reset"}, "after": 1, "times": 4},
        ]
    )
    with pytest.raises(Wait):
        w.step(first.id)
    w.vendor.faults.clear()
    second = w.deliver_values(*VALUES, "f")
    assert second.outcome == "unchanged"
    assert second.warnings == (f"delivery {first.id} has written this; its answer was lost",)


def test_a_policy_is_one_whatever_case_its_id_is_written_in(w: Syncs) -> None:
    """Row 15: one target, one list that is remembered, and the rules of relay.yaml."""
    w.configure(relay_yaml(w).replace(f"  {POLICY}:\n", f"  standard:\n    id: {UUID}\n"))
    seen = set()
    for folder in ("standard", UUID, UUID.upper()):
        prepared = w.prepare(w.drop(f"incoming/tagging-policies/{folder}/{KEY}.txt", b"a\nb\n"))
        assert prepared is not None
        seen.add((prepared.target, prepared.work["owned"], prepared.work["policy"], prepared.group))
    assert len(seen) == 1


def test_an_empty_message_takes_the_message_away_once(w: Syncs) -> None:
    """Nothing to do is no write, also where the vendor shows no message instead of an empty one."""
    body = json.dumps({"values": VALUES, "message": ""}).encode()
    w.change_by_hand(lambda tag: tag.update(message="ask us"))
    key = f"incoming/tagging-policies/{POLICY}/{KEY}.json"
    assert w.deliver_file(key, body).outcome == "delivered"
    assert w.deliver_file(key, body).outcome == "unchanged"
    assert not w.tags()[KEY].get("message")


def test_a_release_passes_no_guard_that_the_person_was_not_told_of(w: Syncs) -> None:
    """Row 18: what was last applied is lost since; that is another question, and is asked."""
    w.deliver_values(*VALUES)
    held = w.deliver_values("a", "b")
    for key in w.keys(DROPS, "state/"):
        w.ports.drops.remove(key)
    again = w.decide(held)
    assert again.outcome == "held"
    assert again.reason.startswith("you have released a plan to which drift did not object yet")
    assert w.decide(again).outcome == "delivered"


def test_a_run_that_was_rejected_overtakes_nobody(w: Syncs) -> None:
    """Row 25: the run that waits for its source goes on once the source is back."""
    w.configure(relay_yaml(w))
    w.password[0] = "wrong"
    (begun,) = w.tick(START.replace(hour=3))
    with pytest.raises(Wait):
        w.run(begun.id)
    w.configure(f"version: 1\ntagging_policies: {{{POLICY}: {{}}}}")
    assert w.sync_now().outcome == "rejected"
    w.configure(relay_yaml(w))
    w.password[0] = "password"
    assert w.run(begun.id).stage == "queued"


def test_custom_properties_without_a_row_are_never_sent_whatever_a_person_says(w: Syncs) -> None:
    """Row 16: a line break inside the header makes two lines of it."""
    w.deliver_file("incoming/custom-properties/p.csv", b"service,team\na,x\n")
    held = w.deliver_file("incoming/custom-properties/p.csv", b'"service\nid",team\n')
    done: Delivery = w.decide(held) if held.outcome == "held" else held
    assert done.outcome == "rejected"
    assert w.state()["custom_properties"][SLUG]["rows"] == 1

"""Tagging policies at Infracost, over the real wire, against the strict stand-in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

import httpx
import pytest
from finops_relay.errors import (
    AnswerNotUnderstood,
    ChangeNotKept,
    CredentialRefused,
    InputRefused,
    NotFound,
    OutcomeUnknown,
    RequestRefused,
)
from finops_relay.http.auth import Credential, fixed
from finops_relay.http.client import HttpClient
from finops_relay.infracost.client import API, POLICIES, Infracost, connect
from finops_relay.infracost.models import Filters, Names, PolicyChange, Tag, ValueType
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from local.standins.account import Token
from local.standins.infracost import AWS_ORGANIZATION, TOKEN, InfracostStandIn

SLUG = "primary"
POLICY = "b0000000-0000-4000-8000-000000000001"
UNKNOWN = "ffffffff-0000-4000-8000-00000000ffff"
ENV = {"key": "env", "mandatory": False, "valueType": "ANY", "allowedValues": None, "x-order": 7, "message": None}
APP = {
    "x-colour": {"red": 0.10, "names": ["a", None, True]},
    "key": "app_id",
    "mandatory": True,
    "valueType": "LIST",
    "allowedValues": ["web", "auth"],
    "message": "See the wiki.",
}
TEAM = {
    "key": "team",
    "mandatory": True,
    "valueType": "REGEX",
    "allowedRegex": "^(?!x)[a-z]+$",
    "allowedValues": ["a", "b"],
}
SIZE = {"key": "size", "valueType": "LIST", "allowedValues": ["s", "m", "l", "s"], "mandatory": True}
POLICIES_HELD = {
    SLUG: [
        {
            "id": POLICY,
            "name": "Tags",
            "message": "Tag it",
            "blockPr": True,
            "tags": [ENV, APP, TEAM, SIZE],
            "filters": {"repos": {"include": ["acme/*"], "exclude": []}, "x-moons": {"phase": 1}},
            "x-plan": "gold",
        }
    ]
}


@pytest.fixture
def vendor() -> Iterator[InfracostStandIn]:
    with InfracostStandIn(policies=POLICIES_HELD) as standin:
        yield standin


@pytest.fixture
def client(vendor: InfracostStandIn) -> Iterator[Infracost]:
    made = connect(SecretStr(TOKEN), vendor.url)
    with made.http.wire:
        yield made


def counts(vendor: InfracostStandIn) -> dict[str, int]:
    """Return how often each operation was called, after seeing that the vendor's contract was kept."""
    state = vendor.state()
    assert (state["violations"], state["response_violations"], state["dangers"]) == ([], [], [])
    found: dict[str, int] = state["counts"]
    return found


def attributes(vendor: InfracostStandIn, number: int = 0) -> dict[str, Any]:
    """Return what the vendor holds of a policy."""
    held: dict[str, Any] = vendor.state()["tagging_policies"][SLUG][number]["attributes"]
    return held


def tags(vendor: InfracostStandIn) -> list[dict[str, Any]]:
    held: list[dict[str, Any]] = attributes(vendor)["tags"]
    return held


def bodies(client: Infracost) -> list[Any]:
    """Return a list that takes down every body that is sent from now on."""
    sent: list[Any] = []

    def note(request: httpx.Request) -> None:
        if request.content:
            sent.append(json.loads(request.content))

    client.http.wire.event_hooks = {"request": [note]}
    return sent


# --- the five calls ------------------------------------------------------------------------------------------------


def test_a_policy_is_created_read_changed_and_deleted(vendor: InfracostStandIn, client: Infracost) -> None:
    new = PolicyChange(
        name="Owners",
        message="Who owns it?",
        pr_comment=True,
        block_pr=False,
        tags=(
            Tag(key="owner", mandatory=True, value_type=ValueType.LIST, allowed_values=("b", "a", "b")),
            Tag(key="ticket", value_type=ValueType.REGEX, allowed_regex=r"^[A-Z]+-\d+$"),
            Tag(key="note", value_type=ValueType.ANY),
        ),
        filters=Filters(repos=Names(include=("acme/*",)), base_branches=Names(include=("main",))),
    )
    made = client.create_tagging_policy(SLUG, new)
    assert client.tagging_policy(SLUG, made.id) == made
    assert (made.attributes.name, made.attributes.block_pr) == ("Owners", False)
    assert made.tags["owner"].allowed_values == ("a", "b")
    assert made.tags["ticket"].allowed_regex == r"^[A-Z]+-\d+$"
    assert attributes(vendor, 1)["filters"] == {
        "repos": {"include": ["acme/*"]},
        "baseBranches": {"include": ["main"]},
    }

    changed = client.update_tagging_policy(SLUG, made.id, PolicyChange(block_pr=True, message=None))
    assert (changed.attributes.block_pr, changed.attributes.message) == (True, None)
    assert changed.attributes.tags == made.attributes.tags
    assert [policy.id for policy in client.tagging_policies(SLUG)] == [POLICY, made.id]

    client.delete_tagging_policy(SLUG, made.id)
    with pytest.raises(NotFound, match="the policy's id"):
        client.delete_tagging_policy(SLUG, made.id)
    assert counts(vendor) == {
        "createTaggingPolicy": 1,
        "getTaggingPolicy": 1,
        "updateTaggingPolicy": 1,
        "listTaggingPolicies": 1,
        "deleteTaggingPolicy": 2,
    }


def test_a_change_sends_what_it_names_and_nothing_else(vendor: InfracostStandIn, client: Infracost) -> None:
    before = attributes(vendor)
    sent = bodies(client)
    client.update_tagging_policy(SLUG, POLICY, PolicyChange(message="New words"))
    assert sent == [{"data": {"type": "tagging-policies", "attributes": {"message": "New words"}}}]
    assert attributes(vendor) == {**before, "message": "New words"}


def test_what_a_policy_has_that_we_do_not_know_is_kept(client: Infracost) -> None:
    held = client.tagging_policy(SLUG, POLICY)
    assert held.attributes.model_extra is not None
    assert held.attributes.model_extra["x-plan"] == "gold"
    assert held.attributes.filters is not None
    assert held.attributes.filters.model_extra == {"x-moons": {"phase": 1}}
    assert held.tags["app_id"].model_extra == {
        "x-colour": {"red": Decimal("0.1"), "names": ["a", None, True]},
        "someNewFlag": False,
    }


def test_a_create_that_met_a_failing_vendor_is_not_repeated(vendor: InfracostStandIn, client: Infracost) -> None:
    vendor.faults.add([{"operation": "createTaggingPolicy", "fault": {"kind": "lost_answer_status", "status": 502}}])
    with pytest.raises(OutcomeUnknown, match="may have been acted on") as caught:
        client.create_tagging_policy(SLUG, PolicyChange(name="Once", tags=()))
    assert caught.value.call.status == 502
    assert [policy.attributes.name for policy in client.tagging_policies(SLUG)] == ["Tags", "Once"]


# --- the allowed values of one tag ---------------------------------------------------------------------------------

merging = pytest.mark.parametrize("merges", [False, True], ids=["replaces", "merges"])


@merging
def test_setting_the_values_of_one_tag_leaves_everything_else(
    vendor: InfracostStandIn, client: Infracost, *, merges: bool
) -> None:
    vendor.configure({"patch_merges_tags": merges})
    before = attributes(vendor)
    done = client.set_allowed_values(SLUG, POLICY, "app_id", ["pay", "auth", "Auth", "pay"])
    former = {tag["key"]: tag for tag in before["tags"]}
    expected = [*before["tags"]]
    expected[1] = {**former["app_id"], "allowedValues": ["Auth", "auth", "pay"]}
    assert attributes(vendor) == {**before, "tags": expected}
    assert (done.added, done.removed, done.changed, done.warnings) == (("Auth", "pay"), ("web",), True, ())
    assert done.policy.tags["app_id"].allowed_values == ("Auth", "auth", "pay")
    assert done.request_id in [call["request_id"] for call in vendor.state()["calls"] if call["method"] == "PATCH"]


def test_ten_thousand_values_are_one_read_one_change_and_one_verification(
    vendor: InfracostStandIn, client: Infracost
) -> None:
    sent = bodies(client)
    done = client.set_allowed_values(SLUG, POLICY, "app_id", (f"app-{number % 10_000}" for number in range(11_000)))
    assert counts(vendor) == {"getTaggingPolicy": 2, "updateTaggingPolicy": 1}
    assert [call["method"] for call in vendor.state()["calls"]] == ["GET", "PATCH", "GET"]
    (body,) = sent
    (values,) = [tag["allowedValues"] for tag in body["data"]["attributes"]["tags"] if tag["key"] == "app_id"]
    assert values == sorted({f"app-{number}" for number in range(10_000)})
    assert list(body["data"]["attributes"]) == ["tags"]
    assert len(done.added) == 10_000


@pytest.mark.parametrize("values", [["web", "auth"], ["auth", "web", "web"]])
def test_values_that_stand_there_already_are_not_sent(
    vendor: InfracostStandIn, client: Infracost, values: Sequence[str]
) -> None:
    done = client.set_allowed_values(SLUG, POLICY, "app_id", values)
    assert (done.changed, done.added, done.removed, done.request_id) == (False, (), (), "")
    assert counts(vendor) == {"getTaggingPolicy": 1}


def test_a_second_time_nothing_is_sent(vendor: InfracostStandIn, client: Infracost) -> None:
    assert client.set_allowed_values(SLUG, POLICY, "app_id", ["x"]).changed
    assert not client.set_allowed_values(SLUG, POLICY, "app_id", ["x"]).changed
    assert counts(vendor) == {"getTaggingPolicy": 3, "updateTaggingPolicy": 1}


def test_a_change_that_the_vendor_did_not_keep_is_told(vendor: InfracostStandIn, client: Infracost) -> None:
    vendor.configure({"drop_write": "policy"})
    with pytest.raises(ChangeNotKept, match=r"tag 'app_id' lacks \['[abc].* of what was sent") as caught:
        client.set_allowed_values(SLUG, POLICY, "app_id", ["a", "b", "c"])
    assert caught.value.call.method == "PATCH"
    assert caught.value.call.request_id
    assert caught.value.retryable
    assert client.set_allowed_values(SLUG, POLICY, "app_id", ["a", "b", "c"]).changed


def test_a_vendor_that_lost_another_tag_meanwhile_is_told_on() -> None:
    """The whole array goes out and comes back: what is no longer there, or is not what it was, has a name."""
    held = {"id": POLICY, "attributes": {"name": "Tags", "tags": [ENV, APP, TEAM]}}
    new = {**APP, "allowedValues": ["x"]}
    after = {"id": POLICY, "attributes": {"name": "Tags", "tags": [new, {**TEAM, "mandatory": False}]}}
    client = answering(iter([{"data": held}, {"data": after}, {"data": after}]))
    with pytest.raises(ChangeNotKept, match="not as before the change: tag env, tag team"):
        client.set_allowed_values(SLUG, POLICY, "app_id", ["x"])


@pytest.mark.parametrize("key", ["App_ID", "app_id ", "cost_centre"])
def test_an_unknown_key_is_refused_with_the_keys_that_there_are(
    vendor: InfracostStandIn, client: Infracost, key: str
) -> None:
    with pytest.raises(InputRefused, match="has no tag") as caught:
        client.set_allowed_values(SLUG, POLICY, key, ["a"])
    assert caught.value.value == "env, app_id, team, size"
    assert "case" in caught.value.fix
    assert counts(vendor) == {"getTaggingPolicy": 1}


@pytest.mark.parametrize(("key", "kind"), [("team", "REGEX"), ("env", "ANY")])
def test_a_tag_of_another_type_is_not_made_a_list_by_the_way(
    vendor: InfracostStandIn, client: Infracost, key: str, kind: str
) -> None:
    with pytest.raises(InputRefused, match=f"is of type {kind}, not LIST"):
        client.set_allowed_values(SLUG, POLICY, key, ["a"])
    assert counts(vendor) == {"getTaggingPolicy": 1}


@merging
def test_a_tag_that_is_adopted_is_added_at_the_end(
    vendor: InfracostStandIn, client: Infracost, *, merges: bool
) -> None:
    vendor.configure({"patch_merges_tags": merges})
    before = tags(vendor)
    done = client.set_allowed_values(SLUG, POLICY, "cost_centre", ["b", "a"], adopt=True)
    added = {"key": "cost_centre", "mandatory": True, "valueType": "LIST", "allowedValues": ["a", "b"]}
    assert tags(vendor) == [*before, {**added, "someNewFlag": False}]
    assert (done.added, done.removed) == (("a", "b"), ())
    counts(vendor)


@merging
def test_a_tag_of_another_type_that_is_adopted_becomes_a_list_and_keeps_the_rest(
    vendor: InfracostStandIn, client: Infracost, *, merges: bool
) -> None:
    vendor.configure({"patch_merges_tags": merges})
    before = tags(vendor)
    client.set_allowed_values(SLUG, POLICY, "team", ["b", "a"], adopt=True)
    assert tags(vendor) == [*before[:2], {**before[2], "valueType": "LIST", "allowedValues": ["a", "b"]}, before[3]]
    counts(vendor)


@pytest.mark.parametrize("values", [[], [""], ["a", ""]])
def test_no_value_at_all_and_an_empty_one_are_refused_before_anything_is_asked(
    vendor: InfracostStandIn, client: Infracost, values: Sequence[str]
) -> None:
    with pytest.raises(InputRefused, match="is empty") as caught:
        client.set_allowed_values(SLUG, POLICY, "app_id", values, adopt=True)
    assert "block every pull request" in caught.value.fix
    assert counts(vendor) == {}


@pytest.mark.parametrize(
    ("key", "total", "warned"), [("size", 251, True), ("size", 250, False), ("app_id", 251, False)]
)
def test_a_long_list_without_a_message_is_warned_of(client: Infracost, key: str, total: int, *, warned: bool) -> None:
    values = [str(number) for number in range(total)]
    for _ in ("when it is set", "when it is seen to be set"):
        done = client.set_allowed_values(SLUG, POLICY, key, values)
        assert [f"allows {total} values and has no message" in warning for warning in done.warnings] == [True] * warned


def test_a_number_that_comes_back_written_otherwise_is_no_loss(vendor: InfracostStandIn, client: Infracost) -> None:
    """1.3953926245398742e+16 comes back as 13953926245398742, which sorts elsewhere as text."""
    held = [
        {"key": "app_id", "valueType": "LIST", "allowedValues": ["x"]},
        {
            "key": "other",
            "valueType": "LIST",
            "allowedValues": ["x"],
            "x-more": [{"n": 1.3953926245398742e16}, {"n": 1}],
        },
    ]
    new = {"data": {"type": "tagging-policies", "attributes": {"name": "Any", "tags": held}}}
    made = client.http.request("POST", POLICIES, ids={"orgSlug": SLUG}, body=new, safe=False)
    assert client.set_allowed_values(SLUG, made.under("data", "id"), "app_id", ["y"]).changed
    assert vendor.state()["violations"] == []


# --- whatever is held, and whatever is set -------------------------------------------------------------------------

TEXT = st.text(min_size=1, max_size=12)
VALUE = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=12)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
HELD_TAG = st.builds(
    lambda kind, optional, unknown: {
        "valueType": kind,
        "allowedValues": ["x"],
        "allowedRegex": "x",
        **optional,
        **{f"x-{name}": value for name, value in unknown.items()},
    },
    st.sampled_from(list(ValueType)),
    st.fixed_dictionaries(
        {},
        optional={
            "mandatory": st.booleans(),
            "message": st.none() | st.text(max_size=10),
            "allowedValues": st.lists(TEXT, max_size=4),
        },
    ),
    st.dictionaries(st.text(max_size=5), ANYTHING, max_size=2),
)
HELD_TAGS = st.dictionaries(TEXT, HELD_TAG, min_size=1, max_size=4).map(
    lambda held: [{"key": key, **tag} for key, tag in held.items()]
)


@pytest.fixture(scope="module")
def anything() -> Iterator[tuple[InfracostStandIn, Infracost]]:
    """A vendor and a client for as many examples as there are."""
    with InfracostStandIn() as standin:
        made = connect(SecretStr(TOKEN), standin.url)
        with made.http.wire:
            yield standin, made


@settings(max_examples=50)
@given(held=HELD_TAGS, values=st.lists(VALUE, min_size=1, max_size=5), data=st.data(), merges=st.booleans())
def test_whatever_is_held_only_the_values_of_that_key_change(
    anything: tuple[InfracostStandIn, Infracost],
    *,
    held: list[dict[str, Any]],
    values: list[str],
    data: st.DataObject,
    merges: bool,
) -> None:
    vendor, client = anything
    key = data.draw(st.sampled_from([tag["key"] for tag in held]))
    vendor.reset()
    vendor.configure({"patch_merges_tags": merges})
    new = {"data": {"type": "tagging-policies", "attributes": {"name": "Any", "tags": held}}}
    made = client.http.request("POST", POLICIES, ids={"orgSlug": SLUG}, body=new, safe=False)
    before = tags(vendor)

    client.set_allowed_values(SLUG, made.under("data", "id"), key, values, adopt=True)

    wanted = {"valueType": "LIST", "allowedValues": sorted(set(values))}
    after = tags(vendor)
    assert [tag["key"] for tag in after] == [tag["key"] for tag in held]
    # Set already means left as it is, in whatever order it stands.
    found = [{**tag, "allowedValues": sorted(tag["allowedValues"])} if tag["key"] == key else tag for tag in after]
    assert found == [{**tag, **wanted} if tag["key"] == key else tag for tag in before]
    assert vendor.state()["violations"] == []


# --- what would do harm --------------------------------------------------------------------------------------------


def test_a_key_that_the_policy_holds_twice_is_not_guessed_at() -> None:
    twice = [{"key": "a", "valueType": "LIST", "allowedValues": [value]} for value in ("x", "y")]
    client = answering({"data": {"id": POLICY, "attributes": {"name": "P", "tags": [*twice, {"key": "b"}]}}})
    with client.http.wire, pytest.raises(InputRefused, match="holds tag 'a' 2 times"):
        client.set_allowed_values(SLUG, POLICY, "a", ["z"])


def test_another_key_that_the_policy_holds_twice_stays_twice() -> None:
    held = [{"key": "a", "valueType": "LIST", "allowedValues": ["x"]}, {"key": "b", "n": 1}, {"key": "b", "n": 2}]
    sent: list[Any] = []

    def vendor(request: httpx.Request) -> httpx.Response:
        if request.method == "PATCH":
            sent.append(json.loads(request.content)["data"]["attributes"]["tags"])
            held[:] = sent[0]
        return httpx.Response(200, json={"data": {"id": POLICY, "attributes": {"tags": held}}})

    with httpx.Client(transport=httpx.MockTransport(vendor)) as wire:
        auth = Credential(fixed(SecretStr(TOKEN)), "x")
        assert Infracost(HttpClient(API, auth, wire=wire)).set_allowed_values(SLUG, POLICY, "a", ["z"]).changed
    assert [(tag["key"], tag.get("n")) for tag in sent[0]] == [("a", None), ("b", 1), ("b", 2)]


def test_what_the_vendor_adds_to_another_tag_or_reorders_in_it_is_no_loss() -> None:
    held: list[dict[str, Any]] = [
        {"key": "a", "valueType": "LIST", "allowedValues": ["x"]},
        {"key": "b", "allowedValues": ["2", "1"]},
    ]

    def vendor(request: httpx.Request) -> httpx.Response:
        if request.method == "PATCH":
            held[0]["allowedValues"] = ["z"]
            held[1] |= {"allowedValues": ["1", "2"], "mandatory": False, "x-new": 1}
        return httpx.Response(200, json={"data": {"id": POLICY, "attributes": {"tags": held}}})

    with httpx.Client(transport=httpx.MockTransport(vendor)) as wire:
        auth = Credential(fixed(SecretStr(TOKEN)), "x")
        assert Infracost(HttpClient(API, auth, wire=wire)).set_allowed_values(SLUG, POLICY, "a", ["z"]).changed


@pytest.mark.parametrize("value", [" a", "a ", "a\t", "a\u200bb", "a\nb"])
def test_a_value_that_nobody_could_type_is_refused(vendor: InfracostStandIn, client: Infracost, value: str) -> None:
    with pytest.raises(InputRefused, match="white space around it, or characters that cannot be seen"):
        client.set_allowed_values(SLUG, POLICY, "app_id", ["good", value])
    assert counts(vendor) == {}


def test_one_text_is_no_list_of_values(vendor: InfracostStandIn, client: Infracost) -> None:
    with pytest.raises(InputRefused, match="give a list"):
        client.set_allowed_values(SLUG, POLICY, "app", "web")
    assert counts(vendor) == {}


def test_a_tag_that_was_read_and_edited_is_checked_like_any_other(vendor: InfracostStandIn, client: Infracost) -> None:
    size = client.tagging_policy(SLUG, POLICY).tags["size"]
    change = PolicyChange(tags=(size.model_copy(update={"allowed_values": ()}),))
    with pytest.raises(InputRefused, match="list of allowed values is empty"):
        client.update_tagging_policy(SLUG, POLICY, change)
    assert "updateTaggingPolicy" not in counts(vendor)


def test_a_change_that_names_nothing_is_refused(vendor: InfracostStandIn, client: Infracost) -> None:
    with pytest.raises(InputRefused, match="names nothing"):
        client.update_tagging_policy(SLUG, POLICY, PolicyChange())
    assert counts(vendor) == {}


@pytest.mark.parametrize("names", [{"include": [], "exclude": [], "new": 1}, {"include": ["a"], "exclude": None}])
def test_a_filter_that_knows_more_than_we_do_can_be_read(names: dict[str, Any]) -> None:
    client = answering({"data": {"id": POLICY, "attributes": {"tags": [], "filters": {"repos": names}}}})
    with client.http.wire:
        filters = client.tagging_policy(SLUG, POLICY).attributes.filters
    assert filters is not None
    assert filters.model_dump(by_alias=True, exclude_unset=True, mode="json") == {"repos": names}


def test_half_a_surrogate_pair_is_refused_in_words(vendor: InfracostStandIn, client: Infracost) -> None:
    with pytest.raises(RequestRefused, match="surrogate"):
        client.update_tagging_policy(SLUG, POLICY, PolicyChange(message="\ud800"))
    assert ["UTF-8" in reason for reason in writes(client, regex("\ud800"))] == [True, True]
    assert counts(vendor) == {}


LIST = Tag(key="app", value_type=ValueType.LIST, allowed_values=("a",))


def regex(pattern: str | None) -> Tag:
    return Tag(key="app", value_type=ValueType.REGEX, allowed_regex=pattern)


def writes(client: Infracost, *wanted: Tag) -> list[str]:
    """Try to create and to change a policy of these tags; return why it was refused."""
    reasons = []
    try:
        client.create_tagging_policy(SLUG, PolicyChange(name="New", tags=wanted))
    except InputRefused as refused:
        reasons.append(str(refused))
    try:
        client.update_tagging_policy(SLUG, POLICY, PolicyChange(tags=wanted))
    except InputRefused as refused:
        reasons.append(str(refused))
    return reasons


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (LIST.model_copy(update={"allowed_values": ()}), "the list of allowed values is empty"),
        (LIST.model_copy(update={"allowed_values": None}), "the list of allowed values is empty"),
        (LIST.model_copy(update={"allowed_values": ("a", "")}), "an allowed value is empty"),
        (regex("^(?!x)[a-z]+$"), "RE2 cannot compile its regular expression (invalid perl operator: (?!)"),
        (regex("(?=a)a"), "write it without look-around and back-references"),
        (regex("(?<=a)b"), "RE2 cannot compile"),
        (regex("(?<!a)b"), "RE2 cannot compile"),
        (regex(r"(a)\1"), "RE2 cannot compile its regular expression (invalid escape sequence: \\1)"),
        (regex("(?>a)b"), "RE2 cannot compile"),
        (regex("a++"), "RE2 cannot compile"),
        (regex("a{1001}"), "RE2 cannot compile"),
        (regex("[a-"), "RE2 cannot compile"),
        (regex("(a"), "got '(a'"),
        (regex(""), "the regular expression is empty"),
        (regex(None), "the regular expression is empty"),
    ],
    ids=lambda value: None if isinstance(value, str) else repr(value.allowed_regex or value.allowed_values),
)
def test_a_tag_that_would_fail_or_pass_everything_is_refused_and_nothing_is_sent(
    vendor: InfracostStandIn, client: Infracost, wanted: Tag, words: str
) -> None:
    reasons = writes(client, Tag(key="other", value_type=ValueType.ANY), wanted)
    assert len(reasons) == 2
    assert all("tag 'app'" in reason and words in reason for reason in reasons)
    assert counts(vendor) == {}


@pytest.mark.parametrize(
    "pattern", ["^[a-z]+$", r"^APP-\d{4,6}$", "(?i)^team-", "(?P<team>a|b)", r"\bx\b", r"\p{Greek}", "é+", "a{1000}"]
)
def test_an_expression_that_re2_compiles_is_sent_as_it_is(
    vendor: InfracostStandIn, client: Infracost, pattern: str
) -> None:
    assert writes(client, regex(pattern)) == []
    assert tags(vendor)[0]["allowedRegex"] == pattern
    counts(vendor)


def test_an_expression_that_is_no_good_says_nothing_on_the_terminal(
    client: Infracost, capfd: pytest.CaptureFixture[str]
) -> None:
    writes(client, regex("(?!"))
    assert capfd.readouterr() == ("", "")


def test_a_tag_that_stands_twice_is_refused_and_nothing_is_sent(vendor: InfracostStandIn, client: Infracost) -> None:
    reasons = writes(client, LIST, Tag(key="App", value_type=ValueType.ANY), LIST)
    assert len(reasons) == 2
    assert all("stands twice" in reason and "got 'app'" in reason for reason in reasons)
    assert counts(vendor) == {}


def test_a_list_is_sent_sorted_and_each_value_once(vendor: InfracostStandIn, client: Infracost) -> None:
    assert writes(client, LIST.model_copy(update={"allowed_values": ("b", "a", "B", "b")})) == []
    assert tags(vendor)[0]["allowedValues"] == ["B", "a", "b"]


def test_tags_that_were_read_go_back_as_they_are(vendor: InfracostStandIn, client: Infracost) -> None:
    before = tags(vendor)
    client.update_tagging_policy(
        SLUG, POLICY, PolicyChange(tags=tuple(client.tagging_policy(SLUG, POLICY).tags.values()))
    )
    assert tags(vendor) == before
    counts(vendor)


def test_a_field_that_is_misspelt_is_not_sent_along() -> None:
    with pytest.raises(ValueError, match="Extra inputs"):
        PolicyChange.model_validate({"blockPR": True})
    with pytest.raises(ValueError, match="Extra inputs"):
        Tag.model_validate({"key": "a", "allowed": ["x"]})


# --- refusals and lists --------------------------------------------------------------------------------------------


def test_a_refused_call_says_what_to_check(client: Infracost) -> None:
    with pytest.raises(NotFound, match=r"the organization's slug \(Org Settings > General\) and the policy's id"):
        client.tagging_policy("no-such-org", POLICY)
    with pytest.raises(NotFound, match="the end of its address in the dashboard"):
        client.set_allowed_values(SLUG, UNKNOWN, "app_id", ["a"])
    with pytest.raises(NotFound, match=r"slug \(Org Settings > General\) \(request id"):
        client.tagging_policies("no-such-org")


def test_a_token_of_another_organization_and_one_that_may_only_read_are_told_apart_from_a_wrong_one() -> None:
    tokens = [
        Token(token="elsewhere-token", organization=AWS_ORGANIZATION),
        Token(token="viewers-token", role="orgViewer"),
    ]
    with InfracostStandIn(policies=POLICIES_HELD, tokens=tokens) as vendor:
        for token, reads in (("elsewhere-token", False), ("viewers-token", True)):
            client = connect(SecretStr(token), vendor.url)
            with client.http.wire:
                if reads:
                    assert client.tagging_policy(SLUG, POLICY).id == POLICY
                with pytest.raises(
                    CredentialRefused, match="another organization, or its service account lacks"
                ) as caught:
                    client.set_allowed_values(SLUG, POLICY, "app_id", ["a"])
            assert caught.value.call.status == 403
            assert token not in str(caught.value)
        client = connect(SecretStr("ico-cli-token"), vendor.url)
        with client.http.wire, pytest.raises(CredentialRefused, match="CLI token") as caught:
            client.tagging_policies(SLUG)
        assert caught.value.call.status == 401


def five(link: str) -> InfracostStandIn:
    """Make a vendor of five policies, two a page."""
    held = [{"name": str(number), "tags": []} for number in range(5)]
    return InfracostStandIn(policies={SLUG: held}, list_page_size=2, next_link=link)


@pytest.mark.parametrize("link", ["absolute", "path"])
def test_a_list_is_read_to_its_last_page(link: str) -> None:
    with five(link) as vendor:
        client = connect(SecretStr(TOKEN), vendor.url)
        with client.http.wire:
            found = client.tagging_policies(SLUG)
        assert [policy.attributes.name for policy in found] == list("01234")
        assert counts(vendor) == {"listTaggingPolicies": 3}


@pytest.mark.parametrize(("link", "words", "calls"), [("other_host", "elsewhere", 1), ("loop", "read before", 4)])
def test_a_list_that_leads_elsewhere_or_nowhere_is_an_error(link: str, words: str, calls: int) -> None:
    with five(link) as vendor:
        client = connect(SecretStr(TOKEN), vendor.url)
        with client.http.wire, pytest.raises(AnswerNotUnderstood, match=words):
            client.tagging_policies(SLUG)
        assert counts(vendor) == {"listTaggingPolicies": calls}


# --- what the vendor answers ---------------------------------------------------------------------------------------


def answering(body: object) -> Infracost:
    """Make a client whose vendor always answers *body*, or one after the other what an iterator gives."""

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=next(body) if isinstance(body, Iterator) else body)

    wire = httpx.Client(transport=httpx.MockTransport(answer))
    return Infracost(HttpClient(API, Credential(fixed(SecretStr(TOKEN)), "infracost/acme"), wire=wire))


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"id": POLICY},
        {"id": "", "attributes": {}},
        {"id": POLICY, "attributes": {"tags": [{"mandatory": True}]}},
        {"id": POLICY, "attributes": {"tags": [{"key": "a", "allowedValues": "s3cr3t"}]}},
        {"id": POLICY, "attributes": {"tags": {"a": "s3cr3t"}}},
    ],
)
def test_an_answer_that_does_not_fit_is_named_by_its_fields_never_by_its_values(data: object) -> None:
    with pytest.raises(AnswerNotUnderstood) as caught:
        answering({"data": data}).set_allowed_values(SLUG, POLICY, "a", ["x"])
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize("kind", ["tagging-policies", "tagging-policy", None])
def test_the_type_of_an_answer_and_a_value_type_that_we_do_not_know_are_no_trouble(kind: str | None) -> None:
    tag = {"key": "a", "valueType": "RANGE", "allowedValues": None}
    body = {"data": {"id": "1", "type": kind, "attributes": {"name": "x", "tags": [tag], "filters": None}}}
    assert answering(body).tagging_policy(SLUG, "1").tags["a"].value_type == "RANGE"

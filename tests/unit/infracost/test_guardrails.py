"""Guardrails at Infracost, over the real wire, against the strict stand-in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import httpx
import pytest
from finops_relay.errors import (
    AnswerNotUnderstood,
    CredentialRefused,
    InputRefused,
    NotFound,
    OutcomeUnknown,
    RequestRefused,
)
from finops_relay.http.auth import Credential, fixed
from finops_relay.http.client import HttpClient
from finops_relay.infracost.client import API, Infracost, connect
from finops_relay.infracost.models import Filters, Guardrail, GuardrailAttributes, GuardrailChange, Names, Scope
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from local.standins.account import Token
from local.standins.infracost import AWS_ORGANIZATION, TOKEN, InfracostStandIn

SLUG = "primary"
GUARDRAIL = "c0000000-0000-4000-8000-000000000001"
UNKNOWN = "ffffffff-0000-4000-8000-00000000ffff"
SECRET = "s3cr3t-part-of-the-path"
WEBHOOK = f"https://hooks.example/services/{SECRET}?sig={SECRET}"
GUARDRAILS_HELD = {
    SLUG: [
        {
            "id": GUARDRAIL,
            "name": "Limit",
            "scope": "PULL_REQUEST",
            "increaseThreshold": 500,
            "increasePercentageThreshold": 12.5,
            "webhookUrl": WEBHOOK,
            "filters": {"repos": {"include": ["acme/*"], "exclude": []}},
            "x-plan": "gold",
        }
    ]
}
spelt = pytest.mark.parametrize("spelling", ["contract", "seen"])


@pytest.fixture
def vendor() -> Iterator[InfracostStandIn]:
    with InfracostStandIn(guardrails=GUARDRAILS_HELD) as standin:
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
    """Return what the vendor holds of a guardrail."""
    held: dict[str, Any] = vendor.state()["guardrails"][SLUG][number]["attributes"]
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


@spelt
def test_a_guardrail_is_created_read_changed_and_deleted(
    vendor: InfracostStandIn, client: Infracost, spelling: str
) -> None:
    vendor.configure({"guardrail_spelling": spelling})
    new = GuardrailChange(
        name="Jump",
        scope=Scope.PROJECT,
        increase_percentage_threshold=Decimal(20),
        message="Ask first",
        block_pr=True,
        webhook_url=SecretStr(WEBHOOK),
        filters=Filters(repos=Names(include=("acme/*",), exclude=("acme/lab",))),
    )
    made = client.create_guardrail(SLUG, new)
    assert client.guardrail(SLUG, made.id) == made
    held = attributes(vendor, 1)
    assert (held["increasePercentageThreshold"], held["scope"], held["webhookUrl"]) == (20, "PROJECT", WEBHOOK)
    assert held["filters"] == {"repos": {"include": ["acme/*"], "exclude": ["acme/lab"]}}

    changed = client.update_guardrail(SLUG, made.id, GuardrailChange(total_threshold=Decimal("99.5")))
    assert changed.attributes.thresholds == (Decimal(20), Decimal("99.5"))
    assert [guardrail.id for guardrail in client.guardrails(SLUG)] == [GUARDRAIL, made.id]

    client.delete_guardrail(SLUG, made.id)
    with pytest.raises(NotFound, match="the guardrail's id"):
        client.delete_guardrail(SLUG, made.id)
    assert counts(vendor) == {
        "createGuardrail": 1,
        "getGuardrail": 1,
        "updateGuardrail": 1,
        "listGuardrails": 1,
        "deleteGuardrail": 2,
    }


def test_both_spellings_read_alike(vendor: InfracostStandIn, client: Infracost) -> None:
    found = []
    for spelling in ("contract", "seen"):
        vendor.configure({"guardrail_spelling": spelling})
        found.append((client.guardrail(SLUG, GUARDRAIL), client.guardrails(SLUG)))
    assert found[0] == found[1]
    (held, listed) = found[1]
    assert listed == (held,)
    assert held.attributes.scope == Scope.PULL_REQUEST
    assert held.attributes.increase_percentage_threshold == Decimal("12.5")
    assert held.attributes.model_extra is not None
    assert held.attributes.model_extra["x-plan"] == "gold"
    assert not {"increasePercentThreshold", "increasePercentageThreshold"} & set(held.attributes.model_extra)
    counts(vendor)


@spelt
def test_a_change_sends_what_it_names_by_the_contracts_names_and_leaves_the_webhook(
    vendor: InfracostStandIn, client: Infracost, spelling: str
) -> None:
    vendor.configure({"guardrail_spelling": spelling})
    before = attributes(vendor)
    sent = bodies(client)
    change = GuardrailChange(increase_percentage_threshold=Decimal(15), scope=Scope.PULL_REQUEST)
    client.update_guardrail(SLUG, GUARDRAIL, change)
    named = {"increasePercentageThreshold": 15, "scope": "PULL_REQUEST"}
    assert sent == [{"data": {"type": "guardrails", "attributes": named}}]
    assert attributes(vendor) == {**before, **named}
    assert attributes(vendor)["webhookUrl"] == WEBHOOK
    counts(vendor)


def test_what_is_taken_away_is_sent_as_null(vendor: InfracostStandIn, client: Infracost) -> None:
    client.update_guardrail(SLUG, GUARDRAIL, GuardrailChange(increase_percentage_threshold=None))
    assert attributes(vendor)["increasePercentageThreshold"] is None
    assert client.guardrail(SLUG, GUARDRAIL).attributes.thresholds == (Decimal(500),)
    counts(vendor)


def test_a_new_guardrail_always_names_a_webhook(vendor: InfracostStandIn, client: Infracost) -> None:
    sent = bodies(client)
    client.create_guardrail(SLUG, GuardrailChange(name="a", scope=Scope.PROJECT, total_threshold=Decimal(1)))
    named = {"webhookUrl": "", "name": "a", "scope": "PROJECT", "totalThreshold": 1}
    assert sent == [{"data": {"type": "guardrails", "attributes": named}}]
    assert attributes(vendor, 1)["webhookUrl"] == ""
    counts(vendor)


def test_an_empty_address_takes_the_webhook_away(vendor: InfracostStandIn, client: Infracost) -> None:
    sent = bodies(client)
    client.update_guardrail(SLUG, GUARDRAIL, GuardrailChange(webhook_url=SecretStr("")))
    assert sent[0]["data"]["attributes"] == {"webhookUrl": ""}
    assert attributes(vendor)["webhookUrl"] == ""
    counts(vendor)


def test_a_webhook_is_rotated_by_naming_the_new_one(vendor: InfracostStandIn, client: Infracost) -> None:
    changed = client.update_guardrail(SLUG, GUARDRAIL, GuardrailChange(webhook_url=SecretStr("https://new.example/x")))
    assert attributes(vendor)["webhookUrl"] == "https://new.example/x"
    assert changed.attributes.webhook_url is not None
    assert changed.attributes.webhook_url.get_secret_value() == "https://new.example/x"


def test_a_create_whose_answer_was_lost_is_not_repeated(vendor: InfracostStandIn, client: Infracost) -> None:
    vendor.faults.add([{"operation": "createGuardrail", "fault": {"kind": "lost_answer"}}])
    with pytest.raises(OutcomeUnknown, match="may have been acted on"):
        client.create_guardrail(SLUG, GuardrailChange(name="b", scope=Scope.PROJECT, total_threshold=Decimal(1)))
    assert [guardrail.attributes.name for guardrail in client.guardrails(SLUG)] == ["Limit", "b"]
    assert counts(vendor)["createGuardrail"] == 1


# --- a guardrail that would never trigger --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("new", "words"),
    [
        (GuardrailChange(name="Never", scope=Scope.PROJECT), "'Never' has no threshold, so it would never trigger"),
        (GuardrailChange(name="Never", scope=Scope.PROJECT, increase_threshold=None), "has no threshold"),
        (GuardrailChange(scope=Scope.PROJECT, increase_threshold=Decimal(1)), "needs a name and a scope"),
        (GuardrailChange(name="", scope=Scope.PROJECT, increase_threshold=Decimal(1)), "needs a name and a scope"),
        (GuardrailChange(name="Where", increase_threshold=Decimal(1)), "needs a name and a scope; got 'Where'"),
    ],
)
def test_a_new_guardrail_that_would_never_trigger_is_refused_and_nothing_is_sent(
    vendor: InfracostStandIn, client: Infracost, new: GuardrailChange, words: str
) -> None:
    with pytest.raises(InputRefused, match=words) as caught:
        client.create_guardrail(SLUG, new)
    assert caught.value.fix
    assert counts(vendor) == {}


@pytest.mark.parametrize("field", ["increase_threshold", "increase_percentage_threshold", "total_threshold"])
@pytest.mark.parametrize("amount", ["0", "0.01"])
def test_any_one_threshold_is_enough(vendor: InfracostStandIn, client: Infracost, field: str, amount: str) -> None:
    new = GuardrailChange.model_validate({"name": "One", "scope": Scope.PROJECT, field: Decimal(amount)})
    assert client.create_guardrail(SLUG, new).attributes.thresholds == (Decimal(amount),)
    counts(vendor)


@pytest.mark.parametrize(
    "given_fields",
    [
        {"increaseThreshold": "NaN"},
        {"totalThreshold": "Infinity"},
        {"totalThreshold": float("nan")},
        {"increaseThreshold": "a lot"},
        {"increaseTreshold": 5},
    ],
)
def test_a_threshold_that_is_no_amount_and_a_misspelt_one_are_never_sent(given_fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"increaseT|totalT"):
        GuardrailChange.model_validate(given_fields)


# --- amounts -------------------------------------------------------------------------------------------------------


def fake(wire: Any) -> Infracost:  # noqa: ANN401 -- a function of the request, or the body of every answer
    """Make a client of a fake vendor."""
    answer = wire if callable(wire) else (lambda _: httpx.Response(200, json=wire))
    http = httpx.Client(transport=httpx.MockTransport(answer))
    return Infracost(HttpClient(API, Credential(fixed(SecretStr(TOKEN)), "infracost/acme"), wire=http))


def keeping(request: httpx.Request) -> httpx.Response:
    """Answer with the attributes that were sent, byte for byte."""
    sent = request.read().removeprefix(b'{"data":{')
    return httpx.Response(200, content=b'{"data":{"id":"1",' + sent)


AMOUNTS = st.decimals(allow_nan=False, allow_infinity=False, min_value=0, max_value=10**20, places=9)


@given(AMOUNTS, AMOUNTS, AMOUNTS)
def test_amounts_are_exact_to_the_last_digit(increase: Decimal, percentage: Decimal, total: Decimal) -> None:
    change = GuardrailChange(
        increase_threshold=increase, increase_percentage_threshold=percentage, total_threshold=total
    )
    after = fake(keeping).update_guardrail(SLUG, GUARDRAIL, change).attributes
    assert after.thresholds == (increase, percentage, total)
    assert [str(amount) for amount in after.thresholds] == [str(increase), str(percentage), str(total)]


def test_an_amount_is_no_binary_fraction(client: Infracost, vendor: InfracostStandIn) -> None:
    after = client.update_guardrail(SLUG, GUARDRAIL, GuardrailChange(increase_threshold=Decimal("0.1")))
    assert after.attributes.increase_threshold == Decimal("0.1")
    assert attributes(vendor)["increaseThreshold"] == 0.1


# --- the webhook's address is a secret -----------------------------------------------------------------------------


def shown(thing: Guardrail | GuardrailAttributes | GuardrailChange) -> str:
    """Return everything that a log line or a receipt may be made of."""
    dumps = (thing.model_dump(), thing.model_dump(by_alias=True), thing.model_dump(mode="json"))
    return f"{thing!r} {thing} {thing.model_dump_json()} {thing.model_dump_json(by_alias=True)} {dumps}"


@spelt
def test_a_webhooks_address_is_shown_nowhere(vendor: InfracostStandIn, client: Infracost, spelling: str) -> None:
    vendor.configure({"guardrail_spelling": spelling})
    change = GuardrailChange(webhook_url=SecretStr(WEBHOOK))
    held = client.update_guardrail(SLUG, GUARDRAIL, change)
    assert SECRET not in shown(held) + shown(held.attributes) + shown(change)
    assert SECRET not in repr(client.guardrails(SLUG)) + repr(client)
    assert held.attributes.webhook_url is not None
    assert held.attributes.webhook_url.get_secret_value() == WEBHOOK


@pytest.mark.parametrize(
    "held",
    [
        {"webhookUrl": WEBHOOK, "increaseThreshold": "a lot"},
        {"webhookUrl": [WEBHOOK]},
        {"webhookUrl": {"url": WEBHOOK}},
        {"webhookUrl": WEBHOOK, "filters": WEBHOOK},
        [WEBHOOK],
        WEBHOOK,
    ],
)
def test_an_answer_that_does_not_fit_is_named_by_its_fields_never_by_its_values(held: object) -> None:
    vendor = fake({"data": {"id": "1", "attributes": held}})
    with pytest.raises(AnswerNotUnderstood, match="does not fit the contract at: attributes") as caught:
        vendor.guardrail(SLUG, "1")
    assert SECRET not in str(caught.value) + repr(caught.value) + repr(caught.value.__cause__)
    with pytest.raises(AnswerNotUnderstood, match="does not fit the contract at: attributes") as caught:
        vendor.update_guardrail(SLUG, "1", GuardrailChange(name="a"))
    assert SECRET not in str(caught.value) + repr(caught.value) + repr(caught.value.__cause__)


def test_the_query_of_an_address_that_the_vendor_says_back_is_in_no_error() -> None:
    url = f"https://hooks.example/?sig={SECRET}"
    said = {"errors": [{"detail": f"{url} did not answer", "source": {"pointer": "/data/attributes/webhookUrl"}}]}
    with pytest.raises(RequestRefused, match="did not answer") as caught:
        fake(lambda _: httpx.Response(422, json=said)).update_guardrail(
            SLUG, GUARDRAIL, GuardrailChange(webhook_url=SecretStr(url))
        )
    assert SECRET not in str(caught.value) + repr(caught.value) + repr(caught.value.call)


# --- refusals and lists --------------------------------------------------------------------------------------------


def test_a_refused_call_says_what_to_check(client: Infracost) -> None:
    with pytest.raises(NotFound, match=r"the organization's slug \(Org Settings > General\) and the guardrail's id"):
        client.guardrail("no-such-org", GUARDRAIL)
    with pytest.raises(NotFound, match="the end of its address in the dashboard"):
        client.update_guardrail(SLUG, UNKNOWN, GuardrailChange(name="a"))
    with pytest.raises(NotFound, match=r"Check the organization's slug \(Org Settings > General\) \(request id"):
        client.guardrails("no-such-org")


def test_a_token_of_another_organization_is_told_so() -> None:
    token = Token(token="elsewhere-token", organization=AWS_ORGANIZATION)
    with InfracostStandIn(guardrails=GUARDRAILS_HELD, tokens=[token]) as vendor:
        client = connect(SecretStr("elsewhere-token"), vendor.url)
        with client.http.wire, pytest.raises(CredentialRefused, match="The token belongs to another organization"):
            client.guardrails(SLUG)


def five(link: str) -> InfracostStandIn:
    """Make a vendor of five guardrails, two a page."""
    held = [{"name": str(number), "scope": "PROJECT", "totalThreshold": number} for number in range(5)]
    return InfracostStandIn(guardrails={SLUG: held}, list_page_size=2, next_link=link)


@pytest.mark.parametrize("link", ["absolute", "path"])
def test_a_list_is_read_to_its_last_page(link: str) -> None:
    with five(link) as vendor:
        client = connect(SecretStr(TOKEN), vendor.url)
        with client.http.wire:
            assert [guardrail.attributes.name for guardrail in client.guardrails(SLUG)] == list("01234")
        assert counts(vendor) == {"listGuardrails": 3}


@pytest.mark.parametrize(("link", "words", "calls"), [("other_host", "elsewhere", 1), ("loop", "read before", 4)])
def test_a_list_that_leads_elsewhere_or_nowhere_is_an_error(link: str, words: str, calls: int) -> None:
    with five(link) as vendor:
        client = connect(SecretStr(TOKEN), vendor.url)
        with client.http.wire, pytest.raises(AnswerNotUnderstood, match=words):
            client.guardrails(SLUG)
        assert counts(vendor) == {"listGuardrails": calls}


# --- what would do harm ----------------------------------------------------------------------------------------------


def test_the_address_of_a_webhook_is_not_told_though_the_vendor_quotes_it() -> None:
    def vendor(request: httpx.Request) -> httpx.Response:
        said = f"webhookUrl {json.loads(request.content)['data']['attributes']['webhookUrl']} is not reachable"
        return httpx.Response(400, json={"errors": [{"detail": said}]})

    address = f"https://hooks.example/services/T/B/{SECRET}"
    change = GuardrailChange(webhook_url=SecretStr(address))
    with httpx.Client(transport=httpx.MockTransport(vendor)) as wire:
        client = Infracost(HttpClient(API, Credential(fixed(SecretStr(TOKEN)), "x"), wire=wire))
        new = change.model_copy(update={"name": "n", "scope": "PROJECT", "total_threshold": Decimal(1)})
        with pytest.raises(RequestRefused, match="is not reachable") as updating:
            client.update_guardrail(SLUG, GUARDRAIL, change)
        with pytest.raises(RequestRefused, match="is not reachable") as creating:
            client.create_guardrail(SLUG, new)
    assert SECRET not in f"{updating.value} {creating.value}"


def test_a_webhook_that_is_none_in_a_change_is_left_as_it_is(vendor: InfracostStandIn, client: Infracost) -> None:
    client.update_guardrail(SLUG, GUARDRAIL, GuardrailChange(block_pr=True, webhook_url=None))
    assert attributes(vendor)["webhookUrl"] == WEBHOOK
    counts(vendor)


def test_what_the_vendor_keeps_beside_is_not_shown() -> None:
    held = GuardrailAttributes.model_validate({"name": "n", "slackWebhookSecret": SECRET})
    assert SECRET not in repr(held)
    assert "slackWebhookSecret" in repr(held)


@pytest.mark.parametrize("given", [{"webhookURL": WEBHOOK}, {"webhookUrl": [WEBHOOK]}])
def test_a_webhook_that_is_given_in_a_wrong_way_is_not_told_either(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="webhook") as caught:
        GuardrailChange.model_validate(given)
    assert SECRET not in str(caught.value)


def test_a_guardrail_without_a_webhook_is_created_with_an_empty_one(
    vendor: InfracostStandIn, client: Infracost
) -> None:
    new = GuardrailChange(name="n", scope=Scope.PROJECT, total_threshold=Decimal(1), webhook_url=None)
    sent = bodies(client)
    client.create_guardrail(SLUG, new)
    assert sent[0]["data"]["attributes"]["webhookUrl"] == ""
    counts(vendor)


def test_the_last_threshold_of_a_guardrail_is_not_taken_away(vendor: InfracostStandIn, client: Infracost) -> None:
    both_gone = GuardrailChange(increase_threshold=None, increase_percentage_threshold=None)
    with pytest.raises(InputRefused, match="no threshold left"):
        client.update_guardrail(SLUG, GUARDRAIL, both_gone)
    client.update_guardrail(SLUG, GUARDRAIL, GuardrailChange(increase_threshold=None))
    assert counts(vendor) == {"getGuardrail": 2, "updateGuardrail": 1}
    assert client.guardrail(SLUG, GUARDRAIL).attributes.thresholds == (Decimal("12.5"),)


def test_a_change_that_names_nothing_is_refused(vendor: InfracostStandIn, client: Infracost) -> None:
    with pytest.raises(InputRefused, match="names nothing"):
        client.update_guardrail(SLUG, GUARDRAIL, GuardrailChange())
    assert counts(vendor) == {}


def test_the_spelling_that_holds_the_percentage_is_read_where_both_stand() -> None:
    both = {"increasePercentageThreshold": None, "increasePercentThreshold": 10}
    assert GuardrailAttributes.model_validate(both).increase_percentage_threshold == Decimal(10)

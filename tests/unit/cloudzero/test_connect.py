"""Which contract a tenant speaks: asked once, by one read, and never tried out."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import boto3
import httpx
import pytest
from finops_relay.aws.tables import ContractNotes, DynamoLedger
from finops_relay.cloudzero.advice import advice
from finops_relay.cloudzero.client import CloudZero
from finops_relay.cloudzero.connect import ProcessMemory, client_of, connect, credential
from finops_relay.errors import (
    AnswerNotUnderstood,
    ConfigRefused,
    CredentialRefused,
    NotFound,
    NotInContract,
    RelayError,
    VendorError,
    VendorUnavailable,
    VendorUnreachable,
)
from finops_relay.http.auth import fixed
from finops_relay.http.client import HttpClient
from hypothesis import given
from hypothesis import strategies as st
from moto import mock_aws
from pydantic import SecretStr

from local.standins.cloudzero import KEY
from tests.unit.cloudzero.conftest import Tenant
from tests.unit.cloudzero.wires import BASE, FOUR_TRIES, ONE_TRY, Vendor, answer, vendor

DIMENSIONS = "/v2/billing/dimensions"


def asked(
    wire: Vendor,
    contract: str = "auto",
    memory: ProcessMemory | ContractNotes | None = None,
    key: str = KEY,
    **more: Any,  # noqa: ANN401 -- whatever the core takes
) -> CloudZero:
    """Make a client over a fake wire as `connect` does over a real one."""
    http = HttpClient(
        BASE,
        credential(fixed(SecretStr(key)), "the key that was given"),
        advice,
        sleep=lambda _: None,
        wire=httpx.Client(transport=httpx.MockTransport(wire)),
        **{"retry": ONE_TRY, **more},
    )
    return client_of(http, contract, memory or ProcessMemory())


@pytest.fixture
def closing() -> Iterator[Callable[[CloudZero], CloudZero]]:
    """Close the connections of what `connect` made."""
    made: list[CloudZero] = []

    def kept(client: CloudZero) -> CloudZero:
        made.append(client)
        return client

    yield kept
    for client in made:
        client.close()


# --- what an API shows ------------------------------------------------------------------------------------------------


def test_auto_picks_the_contract_that_the_api_shows_by_one_read(
    tenant: Tenant, closing: Callable[[CloudZero], CloudZero]
) -> None:
    client = closing(connect(SecretStr(KEY), tenant.vendor.api_url))
    assert client.name == tenant.vendor.contract
    assert tenant.state()["counts"] == {"getBillingDimensions": 1}
    assert [known.id for known in client.dimensions()][:2] == ["Account", "Service"]


def test_a_slash_at_the_end_of_the_address_makes_no_other_api(
    tenant: Tenant, closing: Callable[[CloudZero], CloudZero]
) -> None:
    memory = ProcessMemory()
    for url in (tenant.vendor.api_url, tenant.vendor.api_url + "/", tenant.vendor.api_url + "//"):
        closing(connect(SecretStr(KEY), url, memory=memory)).dimensions()
    assert memory.known == {tenant.vendor.api_url: tenant.vendor.contract}
    assert tenant.count("getBillingDimensions") == 4


def test_an_empty_list_of_dimensions_tells_the_contract_too() -> None:
    assert asked(vendor({"data": []})).name == "openapi"
    assert asked(vendor({"dimensions": [], "pagination": {}})).name == "live"


@pytest.mark.parametrize(
    "said",
    [
        pytest.param({}, id="nothing"),
        pytest.param([], id="a-list"),
        pytest.param(None, id="null"),
        pytest.param("data", id="a-word"),
        pytest.param({"data": {"dimensions": []}}, id="no-list-under-data"),
        pytest.param({"dimensions": None}, id="no-list-under-dimensions"),
        pytest.param({"DATA": []}, id="another-spelling"),
        pytest.param({"data": [], "dimensions": []}, id="both"),
        pytest.param(b"", id="empty"),
        pytest.param(b"\x00\xff\xfe", id="bytes"),
        pytest.param(b'{"data": [', id="half"),
        pytest.param(b"OK", id="text"),
    ],
)
def test_an_api_that_shows_neither_contract_is_refused_and_nothing_is_remembered(said: object) -> None:
    wire, memory = vendor(answer(said) if isinstance(said, bytes) else said), ProcessMemory()
    with pytest.raises(AnswerNotUnderstood, match="speaks neither contract") as caught:
        asked(wire, memory=memory, retry=FOUR_TRIES)
    assert "CLOUDZERO_API_URL" in str(caught.value)
    assert "CLOUDZERO_CONTRACT" in str(caught.value)
    assert wire.calls == [("GET", DIMENSIONS)]
    assert memory.known == {}


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"data": [], "dimensions": []}, "has both"),
        ({}, "has neither"),
        ([], "no JSON object"),
        (b"OK", "not JSON: 'OK'"),
        (b"", "empty"),
    ],
)
def test_what_was_wrong_with_the_answer_is_said(said: object, words: str) -> None:
    with pytest.raises(AnswerNotUnderstood, match=words):
        asked(vendor(answer(said)))


def test_a_page_of_html_is_no_api() -> None:
    wire = vendor(httpx.Response(200, html="<h1>Sign in</h1>"))
    with pytest.raises(AnswerNotUnderstood, match="HTML"):
        asked(wire)
    assert len(wire.seen) == 1


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (404, NotFound, "CLOUDZERO_CONTRACT"),
        (401, CredentialRefused, "Settings > API Keys"),
        (403, CredentialRefused, "Settings > API Keys"),
        (500, VendorUnavailable, "answered 500"),
    ],
)
def test_a_refusal_is_told_as_it_is_and_the_other_contract_is_not_tried(
    status: int, error: type[VendorError], words: str
) -> None:
    wire, memory = vendor(answer({"dimensions": []}, status)), ProcessMemory()
    with pytest.raises(error, match=words):
        asked(wire, memory=memory)
    assert wire.calls == [("GET", DIMENSIONS)]
    assert memory.known == {}


def test_a_refused_key_is_told_at_the_real_wire_too(tenant: Tenant, wire: httpx.Client) -> None:
    auth = credential(fixed(SecretStr("another-secret-key")), "the key that was given")
    with pytest.raises(CredentialRefused) as caught:
        client_of(HttpClient(tenant.vendor.api_url, auth, advice, wire=wire), "auto", ProcessMemory())
    assert "another-secret-key" not in f"{caught.value} {caught.value!r}"
    assert tenant.count("getBillingDimensions") == 1


def test_nobody_at_the_address_is_told_as_such() -> None:
    with pytest.raises(VendorUnreachable):
        asked(vendor(httpx.ConnectError("no route")))


def test_a_busy_vendor_is_asked_again_with_the_same_question() -> None:
    wire = vendor(answer({}, 503), answer({}, 500), {"dimensions": []})
    assert asked(wire, retry=FOUR_TRIES).name == "live"
    assert wire.calls == [("GET", DIMENSIONS)] * 3


@given(st.recursive(st.none() | st.booleans() | st.text(max_size=4), lambda part: st.lists(part, max_size=3)))
def test_whatever_stands_under_the_two_names_only_one_list_tells(held: object) -> None:
    wire = vendor({"data": held, "dimensions": {"data": held}})
    if isinstance(held, list):
        assert asked(wire).name == "openapi"
    else:
        with pytest.raises(AnswerNotUnderstood):
            asked(wire)


# --- what is remembered -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("key", "contract"), [("data", "openapi"), ("dimensions", "live")])
def test_a_second_client_over_the_same_memory_asks_nothing(key: str, contract: str) -> None:
    wire, memory = vendor({key: []}), ProcessMemory()
    assert {asked(wire, memory=memory).name for _ in range(3)} == {contract}
    assert wire.calls == [("GET", DIMENSIONS)]
    assert memory.known == {BASE: contract}


@pytest.mark.parametrize("nonsense", ["", "LIVE", "auto", "v2", "openapi "])
def test_a_memory_that_holds_nonsense_is_asked_past_and_mended(nonsense: str) -> None:
    wire, memory = vendor({"dimensions": []}), ProcessMemory({BASE: nonsense})
    assert asked(wire, memory=memory).name == "live"
    assert len(wire.seen) == 1
    assert memory.known == {BASE: "live"}


def test_what_is_remembered_of_another_address_tells_nothing() -> None:
    wire, memory = vendor({"data": []}), ProcessMemory({"https://api.other.example": "live"})
    assert asked(wire, memory=memory).name == "openapi"
    assert len(wire.seen) == 1


def test_without_a_memory_each_client_asks() -> None:
    wire = vendor({"data": []})
    for _ in range(2):
        asked(wire)
    assert len(wire.seen) == 2


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> Iterator[ContractNotes]:
    """Notes in a ledger on DynamoDB."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        dynamodb = boto3.client("dynamodb", "eu-west-1")
        dynamodb.create_table(
            TableName="ledger",
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        )
        yield ContractNotes(DynamoLedger(dynamodb, "ledger", 400, lambda: datetime(2026, 3, 1, tzinfo=UTC)))
        dynamodb.close()


def test_the_ledger_remembers_and_the_log_says_so_once(notes: ContractNotes, caplog: pytest.LogCaptureFixture) -> None:
    wire = vendor({"dimensions": []})
    with caplog.at_level(logging.INFO):
        assert [asked(wire, memory=notes).name for _ in range(3)] == ["live"] * 3
    assert len(wire.seen) == 1
    said = [record.getMessage() for record in caplog.records if "contract" in record.getMessage()]
    assert said == ["the API's contract was found out and is remembered"]
    assert KEY not in caplog.text
    assert notes.contract(BASE) == "live"
    assert notes.contract("https://api.other.example") is None


def test_a_note_that_holds_nonsense_is_overwritten(notes: ContractNotes) -> None:
    notes.ledger.save_note(f"contract#{BASE}", {"contract": "v3"})
    assert asked(vendor({"data": []}), memory=notes).name == "openapi"
    assert notes.contract(BASE) == "openapi"
    notes.ledger.save_note(f"contract#{BASE}", {})
    assert asked(vendor({"dimensions": []}), memory=notes).name == "live"


# --- what a setting names ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("contract", ["openapi", "live"])
def test_a_named_contract_asks_nobody_and_remembers_nothing(contract: str) -> None:
    wire, memory = vendor(AssertionError("nothing is sent")), ProcessMemory({BASE: "auto"})
    assert asked(wire, contract, memory).name == contract
    assert wire.seen == []
    assert memory.known == {BASE: "auto"}


def test_a_named_contract_counts_more_than_what_is_remembered() -> None:
    assert asked(vendor({}), "live", ProcessMemory({BASE: "openapi"})).name == "live"


@pytest.mark.parametrize("name", ["", "Auto", "LIVE", "v2", "openapi,live", "live "])
def test_an_unknown_name_is_refused_with_the_way_out(name: str) -> None:
    wire = vendor({})
    with pytest.raises(ConfigRefused, match="CLOUDZERO_CONTRACT") as caught:
        asked(wire, name)
    assert caught.value.fix == "use auto, openapi or live"
    assert caught.value.value == name
    assert wire.seen == []


# --- how the key is sent ----------------------------------------------------------------------------------------------


@dataclass
class Listener:
    """Writes down the Authorization header; speaks openapi."""

    seen: list[str] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request.headers["authorization"])
        return httpx.Response(200, json={"data": []})


@pytest.mark.parametrize(("bearer", "header"), [(False, KEY), (True, f"Bearer {KEY}")])
def test_the_key_is_sent_bare_unless_a_setting_says_otherwise(bearer: bool, header: str) -> None:  # noqa: FBT001 -- a parameter
    listener = Listener()
    http = HttpClient(
        BASE,
        credential(fixed(SecretStr(KEY)), "k", bearer=bearer),
        wire=httpx.Client(transport=httpx.MockTransport(listener)),
    )
    client_of(http, "auto", ProcessMemory()).dimensions()
    assert listener.seen == [header, header]


def test_a_tenant_that_wants_bearer_gets_it_from_connect(
    live: Tenant, closing: Callable[[CloudZero], CloudZero]
) -> None:
    live.configure(bearer=True)
    client = closing(connect(SecretStr(KEY), live.vendor.api_url, bearer=True))
    live.configure(bearer=False)
    with pytest.raises(CredentialRefused):
        client.dimensions()
    assert live.count("getBillingDimensions") == 2


def test_the_key_is_in_no_representation_and_no_error() -> None:
    secret = "s3cr3t-Key/with+signs="
    echo = answer({"error": {"message": f"the key {secret} is not known"}}, 403)
    with pytest.raises(CredentialRefused) as caught:
        asked(vendor(echo), key=secret)
    client = asked(vendor({"data": []}), key=secret)
    texts = [str(caught.value), repr(caught.value), caught.value.call.detail, repr(client), str(client)]
    with pytest.raises(AnswerNotUnderstood) as odd:
        asked(vendor(f"your key is {secret}".encode()), key=secret)
    for text in [*texts, str(odd.value), odd.value.call.detail]:
        assert secret not in text


# --- connections ------------------------------------------------------------------------------------------------------


def test_a_client_closes_its_connections(tenant: Tenant) -> None:
    client = connect(SecretStr(KEY), tenant.vendor.api_url)
    client.dimensions()
    client.close()
    assert client.http.wire.is_closed
    client.close()


def opened_by(call: Callable[[], object]) -> list[httpx.Client]:
    """Return the wires that a call made, as far as anybody still holds them."""
    before = {id(held) for held in gc.get_objects() if type(held) is httpx.Client}
    with pytest.raises(RelayError) as caught:
        call()
    found = [held for held in gc.get_objects() if type(held) is httpx.Client and id(held) not in before]
    assert caught.value.__traceback__ is not None  # it holds the frames, and these the wires
    return found


@pytest.mark.parametrize("contract", ["auto", "v2"])
def test_connections_are_closed_when_there_is_no_client(tenant: Tenant, contract: str) -> None:
    tenant.fault("getBillingDimensions", "status", status=403)
    made = opened_by(lambda: connect(SecretStr(KEY), tenant.vendor.api_url, contract))
    assert [wire.is_closed for wire in made] == [True]


# --- the sandbox ------------------------------------------------------------------------------------------------------


def test_openapi_has_no_sandbox() -> None:
    wire = vendor({})
    with pytest.raises(NotInContract, match="sandbox"):
        replace(asked(wire, "openapi"), test_key="smoke")
    assert replace(asked(wire, "live"), test_key="smoke").test_key == "smoke"
    assert wire.seen == []

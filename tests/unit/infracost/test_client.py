"""Price books at Infracost, over the real wire, against the strict stand-in.

What holds for every operation alike (faults, error codes, repeating) is in tests/contracts/test_clients.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import repeat

import httpx
import pytest
from finops_relay.errors import (
    AnswerNotUnderstood,
    CredentialRefused,
    NotFound,
    OutcomeUnknown,
    RequestRefused,
    UploadRefused,
)
from finops_relay.http.auth import Credential
from finops_relay.http.client import HttpClient, Timeouts
from finops_relay.http.retry import RetryPolicy
from finops_relay.http.wire import new_wire
from finops_relay.infracost.advice import advice
from finops_relay.infracost.client import Infracost, api_base
from finops_relay.infracost.models import FileSlot, PriceBook, Provider
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from local.standins.account import Token
from local.standins.infracost import AWS_ORGANIZATION, ENTERPRISE, TOKEN, InfracostStandIn

SHEET = (
    b"productcode,instancetype,databaseengine,operatingsystem,deploymentoption,licensemodel,hourlyprice,vcpu,memory,region,"
    b"databaseedition,description\n"
    b"AmazonEC2,m5.large,,Linux,,,0.0815,2,8 GiB,us-east-1,,m5.large Linux\n"
)
UNKNOWN = "ffffffff-0000-4000-8000-00000000ffff"
BOOK = "b0000000-0000-4000-8000-000000000001"


@pytest.fixture
def vendor() -> Iterator[InfracostStandIn]:
    with InfracostStandIn(polls_needed=1) as standin:
        yield standin


@pytest.fixture
def client(vendor: InfracostStandIn) -> Iterator[Infracost]:
    with new_wire() as wire:
        yield made(wire, vendor.url)


def made(wire: httpx.Client, url: str, token: str = TOKEN) -> Infracost:
    """Make a client that waits next to nothing."""
    return Infracost(
        HttpClient(
            base_url=api_base(url),
            auth=Credential(lambda _: SecretStr(token), "infracost/acme"),
            advice=advice,
            retry=RetryPolicy(attempts=2, base_s=0.001, cap_s=0.01),
            timeouts=Timeouts(connect_s=2, read_s=1, total_s=2),
            wire=wire,
        )
    )


def filled(client: Infracost) -> PriceBook:
    """Create a price book and upload its one file."""
    book = client.create_price_book(ENTERPRISE, Provider.AWS)
    slot = client.add_price_book_file(ENTERPRISE, book.id)
    client.upload_price_book_file(slot.pre_signed_url, lambda: [SHEET], len(SHEET))
    return book


def counts(vendor: InfracostStandIn) -> dict[str, int]:
    """Return how often each operation was called, after seeing that the vendor's contract was kept."""
    state = vendor.state()
    assert state["violations"] == []
    assert state["response_violations"] == []
    found: dict[str, int] = state["counts"]
    return found


# --- each call -----------------------------------------------------------------------------------------------------


def test_a_price_book_goes_the_whole_way(vendor: InfracostStandIn, client: Infracost) -> None:
    book = client.create_price_book(ENTERPRISE, Provider.AWS)
    assert (book.provider, book.status) == ("AWS", "WAITING_FOR_UPLOAD")
    slot = client.add_price_book_file(ENTERPRISE, book.id)
    assert client.upload_price_book_file(
        slot.pre_signed_url, lambda: iter([SHEET[:9], SHEET[9:]]), len(SHEET)
    ).request_id
    client.ingest_price_book(ENTERPRISE, book.id)
    assert client.price_book(ENTERPRISE, book.id).status == "SUCCESS"
    assert [known.id for known in client.price_books(ENTERPRISE)] == [book.id]
    organization, request_id = client.activate_price_book(AWS_ORGANIZATION, book.id)
    assert organization.custom_price_book_id == book.id
    assert request_id
    active = {each["id"]: each["customPriceBookId"] for each in vendor.state()["organizations"]}
    assert active[AWS_ORGANIZATION] == book.id
    assert all(count == 1 for count in counts(vendor).values())


def test_deleting_twice_finds_nothing_the_second_time(vendor: InfracostStandIn, client: Infracost) -> None:
    book = client.create_price_book(ENTERPRISE, Provider.AZURE)
    client.delete_price_book(ENTERPRISE, book.id)
    with pytest.raises(NotFound):
        client.delete_price_book(ENTERPRISE, book.id)
    assert client.price_books(ENTERPRISE) == ()
    counts(vendor)


# --- an answer that was lost ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["lost_answer", "half_body", "empty"])
@pytest.mark.parametrize("operation", ["createPriceBook", "createPriceBookFile"])
def test_a_lost_answer_to_an_unsafe_call_leaves_one_thing_behind_and_says_so(
    vendor: InfracostStandIn, client: Infracost, operation: str, kind: str
) -> None:
    book = client.create_price_book(ENTERPRISE, Provider.AWS).id
    vendor.faults.add([{"operation": operation, "fault": {"kind": kind}}])
    with pytest.raises(OutcomeUnknown if kind != "empty" else AnswerNotUnderstood):  # noqa: PT012 -- the block is the subject
        if operation == "createPriceBook":
            client.create_price_book(ENTERPRISE, Provider.AWS)
        else:
            client.add_price_book_file(ENTERPRISE, book)
    books = vendor.state()["price_books"]
    assert len(books) == (2 if operation == "createPriceBook" else 1)


@pytest.mark.parametrize("kind", ["lost_answer", "half_body"])
def test_a_lost_answer_to_an_activation_is_asked_for_again(
    vendor: InfracostStandIn, client: Infracost, kind: str
) -> None:
    book = filled(client)
    client.ingest_price_book(ENTERPRISE, book.id)
    assert client.price_book(ENTERPRISE, book.id).status == "SUCCESS"
    vendor.faults.add([{"operation": "updateOrganization", "fault": {"kind": kind}}])
    assert client.activate_price_book(AWS_ORGANIZATION, book.id)[0].custom_price_book_id == book.id
    assert counts(vendor)["updateOrganization"] == 2


def test_a_wrong_token_is_told_from_a_missing_right(vendor: InfracostStandIn) -> None:
    with new_wire() as wire:
        with pytest.raises(CredentialRefused, match="CLI token") as caught:
            made(wire, vendor.url, token="nobodys-token").price_books(ENTERPRISE)
        assert caught.value.call.status == 401
        assert "nobodys-token" not in str(caught.value)
    with InfracostStandIn(tokens=[Token(token="members-token", role="orgViewer")]) as other, new_wire() as wire:
        with pytest.raises(CredentialRefused, match="orgAdmin") as caught:
            made(wire, other.url, token="members-token").price_books(ENTERPRISE)
        assert caught.value.call.status == 403


def test_an_unknown_id_says_where_to_look_it_up(client: Infracost) -> None:
    with pytest.raises(NotFound, match=r"Check the enterprise's id and the price book's id"):
        client.price_book(ENTERPRISE, UNKNOWN)
    with pytest.raises(NotFound, match=r"Check the organization's id \(a UUID, not the slug\)"):
        client.activate_price_book(UNKNOWN, BOOK)


@pytest.mark.parametrize("missing", ["", "..", "."])
def test_a_missing_id_is_never_sent(vendor: InfracostStandIn, client: Infracost, missing: str) -> None:
    with pytest.raises(RequestRefused, match="enterpriseId"):
        client.create_price_book(missing, Provider.AWS)
    assert counts(vendor) == {}


# --- what the vendor answers ---------------------------------------------------------------------------------------


def answering(body: object, status: int = 200, base_url: str = "https://api.infracost.io") -> Infracost:
    """Make a client whose vendor always answers *body*."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    wire = httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(status, content=content)))
    return made(wire, base_url)


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b"7", b"<html>", {}, {"data": None}, {"data": []}, {"data": {}},
     {"data": {"id": "", "status": "X"}},
     {"data": {"id": 7, "status": "X"}}, {"data": {"id": "a"}}, {"data": "s3cr3t"}],
)  # fmt: skip
def test_an_answer_that_does_not_fit_is_named_by_its_fields_never_by_its_values(body: object) -> None:
    with pytest.raises(AnswerNotUnderstood) as caught:
        answering(body).price_book(ENTERPRISE, BOOK)
    assert "s3cr3t" not in str(caught.value)
    with pytest.raises(OutcomeUnknown if body == b"<html>" else AnswerNotUnderstood):
        answering(body).create_price_book(ENTERPRISE, Provider.AWS)


@pytest.mark.parametrize("body", [{}, {"data": None}, {"data": {}}, {"data": [7]}, {"data": [{"id": "a"}]}, b"", b"[]"])
def test_a_list_that_is_none_is_not_taken_for_an_empty_one(body: object) -> None:
    with pytest.raises(AnswerNotUnderstood):
        answering(body).price_books(ENTERPRISE)


def test_fields_that_we_do_not_know_are_no_trouble() -> None:
    body: dict[str, object] = {
        "data": {"id": "a", "status": "NEW_ONE", "statusMessage": None, "sourceFiles": [{"id": "f", "x": 1}], "y": {}}
    }
    book = answering(body).price_book(ENTERPRISE, BOOK)
    assert (book.id, book.status) == ("a", "NEW_ONE")


def test_a_slots_address_is_shown_nowhere() -> None:
    url = "https://b.s3.amazonaws.com/k?X-Amz-Signature=5ec4e7"
    slot = answering({"data": {"file": {"id": "f"}, "preSignedUrl": url}}).add_price_book_file(ENTERPRISE, BOOK)
    assert slot.pre_signed_url.get_secret_value() == url
    assert "5ec4e7" not in repr(slot) + str(slot) + slot.model_dump_json()
    with pytest.raises(AnswerNotUnderstood) as caught:
        answering({"data": {"file": {}, "preSignedUrl": url}}).add_price_book_file(ENTERPRISE, BOOK)
    assert "5ec4e7" not in str(caught.value) + repr(caught.value)
    assert FileSlot.model_validate(slot).file.id == "f"


def test_an_activation_that_did_not_take_is_no_success() -> None:
    body = {"data": {"id": AWS_ORGANIZATION, "customPriceBookId": "another"}}
    with pytest.raises(AnswerNotUnderstood, match="another"):
        answering(body).activate_price_book(AWS_ORGANIZATION, BOOK)


@pytest.mark.parametrize(
    ("given", "base"),
    [
        ("https://api.infracost.io", "https://api.infracost.io/v1"),
        ("https://api.infracost.io/", "https://api.infracost.io/v1"),
        ("https://api.infracost.io/v1", "https://api.infracost.io/v1"),
        ("https://api.infracost.io/v2/", "https://api.infracost.io/v2"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080/v1"),
    ],
)
def test_the_base_address_is_under_v1_unless_it_names_a_path(given: str, base: str) -> None:
    assert api_base(given) == base


# --- uploads -------------------------------------------------------------------------------------------------------


def test_an_upload_goes_out_with_its_length_and_without_a_credential(
    vendor: InfracostStandIn, client: Infracost
) -> None:
    seen: list[httpx.Headers] = []
    client.http.wire.event_hooks = {"request": [lambda request: seen.append(request.headers)]}
    filled(client)
    upload = seen[-1]
    assert upload["content-length"] == str(len(SHEET))
    assert upload["content-type"] == "text/csv"
    assert not {"authorization", "transfer-encoding", "cookie"} & set(upload)
    counts(vendor)


@pytest.mark.parametrize("kind", ["reset", "half_read", "lost_answer"])
def test_an_upload_that_broke_is_repeated_from_its_beginning(
    vendor: InfracostStandIn, client: Infracost, kind: str
) -> None:
    vendor.faults.add([{"operation": "uploadPriceBookFile", "fault": {"kind": kind}}])
    filled(client)
    assert counts(vendor)["uploadPriceBookFile"] == 2
    (book,) = vendor.state()["price_books"]
    assert json.dumps(book).count('"rows": 1') == 1


def test_an_address_that_has_expired_says_so(client: Infracost) -> None:
    with InfracostStandIn(url_expiry_s=0) as standin, new_wire() as wire:
        slow = made(wire, standin.url)
        book = slow.create_price_book(ENTERPRISE, Provider.AWS)
        slot = slow.add_price_book_file(ENTERPRISE, book.id)
        with pytest.raises(UploadRefused) as caught:
            slow.upload_price_book_file(slot.pre_signed_url, lambda: [SHEET], len(SHEET))
    assert "X-Amz" not in str(caught.value)
    assert caught.value.call.path == "{preSignedUrl}"
    assert client.http.base_url.endswith("/v1")


def test_a_large_upload_is_streamed(vendor: InfracostStandIn, client: Infracost) -> None:
    book = client.create_price_book(ENTERPRISE, Provider.AWS)
    slot = client.add_price_book_file(ENTERPRISE, book.id)
    row = SHEET.splitlines(keepends=True)[1] * 1000
    long = replace(client.http, timeouts=Timeouts())
    head = SHEET.splitlines(keepends=True)[0]

    def chunks() -> Iterator[bytes]:
        yield head
        yield from repeat(row, 200)

    Infracost(long).upload_price_book_file(slot.pre_signed_url, chunks, len(head) + 200 * len(row))
    assert '"rows": 200000' in json.dumps(vendor.state()["price_books"])


def tries(base_url: str, url: str) -> list[str]:
    """Try to upload to *url*; return the hosts that anything was sent to."""
    sent: list[str] = []

    def wire(request: httpx.Request) -> httpx.Response:
        sent.append(request.url.host)
        return httpx.Response(200)

    client = made(httpx.Client(transport=httpx.MockTransport(wire)), base_url)
    try:
        client.upload_price_book_file(SecretStr(url), lambda: [b"x"], 1)
    except UploadRefused as error:
        assert sent == []
        assert "nothing was sent" in str(error)  # noqa: PT017 -- either may happen
        assert "s3cr3t" not in str(error)  # noqa: PT017 -- either may happen
    return sent


GOOD = [
    "s3.amazonaws.com",
    "bucket.s3.amazonaws.com",
    "buc.ket-1.s3.us-east-2.amazonaws.com",
    "s3.us-east-2.amazonaws.com",
    "bucket.s3-us-west-2.amazonaws.com",
    "bucket.s3.dualstack.eu-west-1.amazonaws.com",
    "bucket.s3-fips.us-gov-west-1.amazonaws.com",
    "bucket.s3-accelerate.amazonaws.com",
    "bucket.s3.cn-north-1.amazonaws.com.cn",
    "BUCKET.S3.US-EAST-2.AMAZONAWS.COM",
]
BAD = [
    "s3.amazonaws.com.evil.com",
    "evil-s3.amazonaws.com.example",
    "evil-s3.amazonaws.com",
    "evils3.amazonaws.com",
    "s3.amazonaws.com.",
    "s3.amazonaws.comx",
    "s3xamazonaws.com",
    "s3.amazonaws.com@evil.example",
    "user@s3.amazonaws.com",
    "user:pass@s3.amazonaws.com",
    ":@s3.amazonaws.com",
    "s3.amazonaws.com:8443",
    "s3.amazonaws.com:notaport",
    "s3-evil-123.us-east-1.elb.amazonaws.com",
    "s3.execute-api.us-east-1.amazonaws.com",
    "s3-1-2-3-4.compute.amazonaws.com",
    "ſ3.amazonaws.com",  # noqa: RUF001 -- a look-alike is the point
    "bucket.ｓ3.amazonaws.com",  # noqa: RUF001 -- a look-alike is the point
    "evil.example\\.s3.amazonaws.com",
    "evil.example#.s3.amazonaws.com",
    "evil.example?.s3.amazonaws.com",
    "169.254.169.254",
    "127.0.0.1",
    "[::1]",
    "[::1",
    "2852039166",
    "localhost",
    "",
    "api.infracost.io",
    "infracost.io",
]


@pytest.mark.parametrize("host", GOOD)
def test_an_upload_goes_to_s3(host: str) -> None:
    assert tries("https://api.infracost.io", f"https://{host}/key?X-Amz-Signature=s3cr3t") == [host.lower()]
    assert tries("https://api.infracost.io", f"https://{host}:443/key?X-Amz-Signature=s3cr3t") == [host.lower()]
    assert tries("https://api.infracost.io", f"http://{host}/key?X-Amz-Signature=s3cr3t") == []


@pytest.mark.parametrize("base", ["https://api.infracost.io/v1", "https://infracost.io", "https://eu.api.infracost.io"])
@pytest.mark.parametrize("host", BAD)
def test_an_upload_goes_nowhere_else(host: str, base: str) -> None:
    assert tries(base, f"https://{host}/key?X-Amz-Signature=s3cr3t") == []


@pytest.mark.parametrize(
    ("base", "url", "allowed"),
    [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080/up?s3cr3t", True),
        ("http://127.0.0.1:8080", "https://127.0.0.1:8443/up?s3cr3t", True),
        ("https://mock.example", "https://mock.example/up?s3cr3t", True),
        ("https://mock.example", "http://mock.example/up?s3cr3t", False),
        ("https://mock.example", "https://other.example/up?s3cr3t", False),
        ("https://mock.example", "https://mock.example@evil.example/up?s3cr3t", False),
        ("https://mock.example", "ftp://mock.example/up?s3cr3t", False),
        ("https://evilinfracost.io", "https://evilinfracost.io/up?s3cr3t", True),
        ("https://mock.example", "https://bucket.s3.amazonaws.com/up?s3cr3t", True),
    ],
)
def test_another_api_may_take_uploads_on_its_own_host(base: str, url: str, *, allowed: bool) -> None:
    assert bool(tries(base, url)) is allowed


@given(st.text(st.sampled_from("s3.amzonwc-:@/\\#?[]% eviluk\t\u017f\u212a"), max_size=40))
def test_whatever_the_address_only_s3_is_sent_to(authority: str) -> None:
    for host in tries("https://api.infracost.io", f"https://{authority}/key"):
        assert f".{host}".endswith((".amazonaws.com", ".amazonaws.com.cn"))

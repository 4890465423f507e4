"""One place for credentials, time-outs, retry, redaction and the words of errors."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal, DecimalTuple
from email.utils import format_datetime
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from finops_relay import __version__
from finops_relay.errors import (
    AnswerNotUnderstood,
    BodyTooLarge,
    Call,
    Conflict,
    CredentialRefused,
    Expired,
    NotFound,
    OutcomeUnknown,
    RateLimited,
    RequestRefused,
    ShortRead,
    UploadRefused,
    VendorError,
    VendorUnavailable,
    VendorUnreachable,
)
from finops_relay.http.answers import MAX_ANSWER_BYTES
from finops_relay.http.auth import Credential, basic
from finops_relay.http.client import CallRecord, HttpClient, Timeouts
from finops_relay.http.retry import RetryPolicy
from finops_relay.http.wire import new_wire
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import SecretStr

from tests.world.raw_server import answering, raw_server, resetting

TOKEN = "tok/en+with=all~kinds.of_letters-0123456789"
BASE = "https://vendor.example/v1"
FAST = Timeouts(connect_s=1, read_s=1, total_s=2)
ONE_TRY = RetryPolicy(attempts=1)
PASSWORD = "paß word:1"
USER = basic(lambda _: SecretStr(base64.b64encode(f"relay:{PASSWORD}".encode()).decode()), "servicenow")


@dataclass
class Vendor:
    """Answers from a list, the last one again and again; an exception is raised instead."""

    answers: list[httpx.Response | Exception]
    seen: list[httpx.Request] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.seen.append(request)
        answer = self.answers[min(len(self.seen), len(self.answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)


WIRES: list[httpx.Client] = []


@pytest.fixture(autouse=True)
def _wires_are_closed() -> Iterator[None]:
    yield
    while WIRES:
        WIRES.pop().close()


@dataclass
class Caller:
    """A client, and what it did besides calling."""

    client: HttpClient
    slept: list[float]
    told: list[CallRecord]
    reads: list[bool]


def caller(
    wire: Callable[[httpx.Request], httpx.Response] | None = None,
    base_url: str = BASE,
    transport: httpx.BaseTransport | None = None,
    tokens: tuple[str | None, ...] = (TOKEN,),
    **more: Any,  # noqa: ANN401 -- whatever the original takes or gives
) -> Caller:
    """Make a client; each fresh read of the token gives the next of *tokens*."""
    slept: list[float] = []
    told: list[CallRecord] = []
    reads: list[bool] = []

    def token(fresh: bool) -> SecretStr | None:  # noqa: FBT001 -- by position, as it is called
        reads.append(fresh)
        held = tokens[min(sum(reads), len(tokens) - 1)]
        return None if held is None else SecretStr(held)

    transport = httpx.MockTransport(wire) if wire else transport
    WIRES.append(httpx.Client(transport=transport) if transport else new_wire())
    client = HttpClient(
        base_url=base_url,
        sleep=slept.append,
        on_call=told.append,
        wire=WIRES[-1],
        **{"auth": Credential(token, "vendor/token"), "timeouts": FAST, **more},
    )
    return Caller(client, slept, told, reads)


def one_answer(status: int, content: bytes | str = b"", **headers: str) -> Vendor:
    return Vendor(
        [httpx.Response(status, headers={k.replace("_", "-"): v for k, v in headers.items()}, content=content)]
    )


def fails(client: HttpClient, *, safe: bool = True, method: str = "GET", **more: Any) -> VendorError:  # noqa: ANN401 -- whatever the original takes or gives
    with pytest.raises(VendorError) as caught:
        client.request(method, "/things/{id}", ids={"id": "7"}, safe=safe, **more)
    return caught.value


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (301, RequestRefused),
        (304, RequestRefused),
        (400, RequestRefused),
        (401, CredentialRefused),
        (403, CredentialRefused),
        (404, NotFound),
        (409, Conflict),
        (410, Expired),
        (413, BodyTooLarge),
        (422, RequestRefused),
        (429, RateLimited),
        (500, VendorUnavailable),
        (502, VendorUnavailable),
        (503, RateLimited),
        (504, VendorUnavailable),
        (599, VendorUnavailable),
    ],
)
def test_every_status_has_its_error_which_carries_the_facts(status: int, kind: type[VendorError]) -> None:
    made = caller(one_answer(status, '{"message": "no way"}', X_Request_Id="req-1"), retry=ONE_TRY)
    error = fails(made.client)
    assert type(error) is kind
    assert (error.call.method, error.call.path, error.call.status) == ("GET", "/things/{id}", status)
    assert error.call.request_id == "req-1"
    assert "req-1" in str(error)
    assert str(status) in str(error)


def test_a_good_answer_is_handed_over_with_the_vendors_request_id() -> None:
    made = caller(one_answer(201, '{"a": 1}', X_Amzn_RequestId="amzn-7"))
    answer = made.client.request("POST", "/things", body={"b": 2}, safe=False)
    assert (answer.status, answer.json(), answer.request_id) == (201, {"a": 1}, "amzn-7")


def test_a_request_says_who_we_are_and_what_it_holds() -> None:
    vendor = one_answer(200, "{}")
    caller(vendor).client.request("POST", "/t/{id}", ids={"id": "a/b?c#d e"}, params={"q": "1&2"}, body={}, safe=True)
    request = vendor.seen[0]
    assert str(request.url) == f"{BASE}/t/a%2Fb%3Fc%23d%20e?q=1%262"
    assert request.headers["user-agent"] == f"finops-relay/{__version__}"
    assert request.headers["authorization"] == f"Bearer {TOKEN}"
    assert request.headers["content-type"] == "application/json"
    assert request.content == b"{}"


@pytest.mark.parametrize("value", ["", ".", ".."])
def test_an_id_that_would_change_the_address_is_not_sent(value: str) -> None:
    vendor = one_answer(200, "{}")
    with pytest.raises(RequestRefused, match="nothing was sent"):
        caller(vendor).client.request("DELETE", "/things/{id}", ids={"id": value}, safe=True)
    assert vendor.seen == []


# --- what the vendor says ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('{"errors": [{"title": "T", "detail": "bad id", "source": {"pointer": "/data/id"}}]}', "bad id (at /data/id)"),
        ('{"errors": [{"title": "one"}, {"detail": "two"}]}', "one; two"),
        ('{"message": "said"}', "said"),
        ('{"error": "said"}', "said"),
        ('{"error": {"message": "deep"}}', "deep"),
        ('"just words"', "just words"),
        ('{"code": 7}', '{"code":7}'),
        ("<html><head><style>a{}</style></head><body><h1>502 Bad&nbsp;Gateway</h1></body></html>", "502 Bad Gateway"),
        ("plain\nwords\x00 here", "plain words here"),
        ("\xff\xfe", "ÿþ"),
        ("[" * 60_000, "[[["),
        ('{"error":' * 5_000 + "1" + "}" * 5_000, '{"error":'),
    ],
)  # fmt: skip
def test_the_vendors_words_are_kept_in_whatever_shape_they_come(body: str, words: str) -> None:
    error = fails(caller(one_answer(422, body.encode())).client)
    assert words in error.call.detail
    assert words in str(error)
    assert "\n" not in str(error)
    assert len(str(error)) < 1000


@pytest.mark.parametrize("body", ["", "null", "{}", "   ", "<html></html>"])
def test_an_answer_without_words_gets_ours(body: str) -> None:
    assert "the request was refused" in str(fails(caller(one_answer(400, body)).client))


def test_the_advice_for_a_status_follows_the_vendors_words() -> None:
    told: list[Call] = []

    def advice(call: Call) -> str:
        told.append(call)
        return "Check the id" if call.status == 404 else ""

    assert "nope. Check the id" in str(fails(caller(one_answer(404, '{"message": "nope."}'), advice=advice).client))
    assert (told[0].path, told[0].detail) == ("/things/{id}", "nope.")
    refused = str(fails(caller(one_answer(409, '{"message": "nope"}'), advice=advice).client))
    assert refused.endswith("nope")


def test_a_redirect_is_not_followed_and_the_token_stays_here() -> None:
    vendor = one_answer(302, "<h1>Moved</h1>", Location="https://evil.example/?t=1")
    error = fails(caller(vendor).client)
    assert "redirects are not followed" in str(error)
    assert len(vendor.seen) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>Welcome to the proxy</html>",
        b'{"data": ',
        b"\xff",
        b"NaN",
        b'{"cost": NaN}',
        b"[Infinity]",
        b"[-Infinity]",
        b"[" * 200_000,
        b"[" * 200_000 + b"]" * 200_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    ],
    ids=lambda body: repr(body[:12]),
)
def test_a_good_status_with_something_else_than_json_is_not_understood(body: bytes) -> None:
    client = caller(one_answer(200, body)).client
    with pytest.raises(AnswerNotUnderstood):
        client.request("GET", "/things", safe=True).json()


def test_what_is_missing_in_an_answer_is_named_by_its_keys() -> None:
    answer = caller(one_answer(200, '{"page": {"items": [1], "next": "s3cr3t"}}')).client.request(
        "GET", "/t", safe=True
    )
    assert answer.under("page", "items") == answer.listed("page", "items") == [1]
    with pytest.raises(AnswerNotUnderstood, match=r"nothing under 'page\.rows'"):
        answer.under("page", "rows")
    with pytest.raises(AnswerNotUnderstood, match=r"nothing under 'page\.items\.0'"):
        answer.under("page", "items", "0")
    with pytest.raises(AnswerNotUnderstood, match=r"no list under 'page\.next'") as caught:
        answer.listed("page", "next")
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(("header", "words"), [("1800", "It names a wait of 1,800 s"), ("", "It names no wait")])
def test_a_limited_rate_says_which_wait_was_named(status: int, header: str, words: str) -> None:
    headers = {"Retry-After": header} if header else {}
    error = fails(caller(one_answer(status, '{"message": "Slow down."}', **headers), retry=ONE_TRY).client)
    assert isinstance(error, RateLimited)
    assert f"Slow down. {words}" in str(error)
    assert error.retry_after_s == (1800 if header else None)


def test_a_body_that_is_too_large_says_how_many_bytes_were_sent() -> None:
    error = fails(caller(one_answer(413)).client, method="POST", body=b"x" * 1_234_567)
    assert isinstance(error, BodyTooLarge)
    assert "1,234,567 bytes were sent" in str(error)
    assert error.call.sent_bytes == 1_234_567


# --- retry ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "first",
    [
        httpx.Response(429),
        httpx.Response(503),
        httpx.ConnectError("[Errno 111] Connection refused"),
        httpx.ConnectTimeout("slow"),
    ],
)
def test_an_unsafe_call_is_repeated_where_the_vendor_cannot_have_acted(first: httpx.Response | Exception) -> None:
    vendor = Vendor([first, httpx.Response(201)])
    made = caller(vendor)
    assert made.client.request("POST", "/things", safe=False).status == 201
    assert len(vendor.seen) == 2
    assert made.told[0].attempts == 2


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(500),
        httpx.Response(502),
        httpx.Response(504),
        httpx.ReadTimeout("no answer"),
        httpx.ReadError("reset"),
        httpx.WriteError("reset"),
        httpx.RemoteProtocolError("disconnected"),
    ],
)
def test_an_unsafe_call_is_made_exactly_once_when_the_vendor_may_have_acted(
    answer: httpx.Response | Exception,
) -> None:
    vendor = Vendor([answer])
    made = caller(vendor)
    error = fails(made.client, safe=False, method="POST")
    assert len(vendor.seen) == 1
    assert isinstance(error, OutcomeUnknown)
    assert "may have been acted on" in str(error)
    assert (
        error.call.status == made.told[0].status == (answer.status_code if isinstance(answer, httpx.Response) else None)
    )
    safe = Vendor([answer, httpx.Response(200)])
    assert caller(safe).client.request("GET", "/things", safe=True).status == 200


def test_an_unsafe_call_that_met_a_failing_vendor_keeps_its_words_and_its_request_id() -> None:
    error = fails(caller(one_answer(502, '{"message": "oops"}', X_Request_Id="r-9")).client, safe=False, method="POST")
    assert isinstance(error, OutcomeUnknown)
    assert isinstance(error.__cause__, VendorUnavailable)
    assert "answered 502: oops" in str(error)
    assert (error.call.request_id, error.retryable) == ("r-9", True)


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_a_refusal_is_not_repeated_even_if_the_call_is_safe(status: int) -> None:
    vendor = one_answer(status)
    fails(caller(vendor).client)
    assert len(vendor.seen) == 1


def test_the_tries_end_and_the_waits_grow_to_the_cap() -> None:
    vendor = one_answer(500)
    made = caller(vendor, retry=RetryPolicy(attempts=5, base_s=1, cap_s=2, budget_s=100))
    fails(made.client)
    assert len(vendor.seen) == 5
    assert len(made.slept) == 4
    assert all(0 <= wait <= limit for wait, limit in zip(made.slept, (1, 2, 2, 2), strict=True))


class CountedDraws(RetryPolicy):
    """A policy that knows how often it was asked, and never gives the same wait twice."""

    def wait_s(self, error: Any, attempt: int, spent_s: float, **more: Any) -> float | None:  # noqa: ANN401, ARG002 -- whatever the original takes or gives
        DRAWS.append(0.001 * (len(DRAWS) + 1))
        return None if attempt >= self.attempts else DRAWS[-1]


DRAWS: list[float] = []


def test_the_wait_that_was_judged_is_the_wait_that_is_slept() -> None:
    DRAWS.clear()
    made = caller(one_answer(500), retry=CountedDraws(attempts=4))
    fails(made.client)
    assert len(DRAWS) == 4
    assert made.slept == DRAWS[:3]


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_the_wait_that_the_server_named_is_kept_in_either_form(form: str) -> None:
    named = "2" if form == "seconds" else format_datetime(datetime.now(UTC) + timedelta(seconds=2.9), usegmt=True)
    made = caller(Vendor([httpx.Response(429, headers={"Retry-After": named}), httpx.Response(200)]))
    made.client.request("GET", "/things", safe=True)
    assert made.slept == [pytest.approx(2, abs=1)]


def test_a_named_wait_beyond_the_cap_gives_the_call_up_and_is_handed_on() -> None:
    vendor = one_answer(429, Retry_After="3600")
    made = caller(vendor)
    error = fails(made.client)
    assert error.retry_after_s == 3600
    assert (len(vendor.seen), made.slept) == (1, [])


def test_no_wait_reaches_beyond_the_invocation() -> None:
    vendor = one_answer(429, Retry_After="4")
    made = caller(vendor, remaining_s=lambda: 5.0)
    fails(made.client)
    assert (len(vendor.seen), made.slept) == (1, [])


def test_headers_of_a_try_are_asked_for_before_each_and_told_what_became_of_the_one_before() -> None:
    vendor = Vendor([httpx.ConnectError("no route"), httpx.Response(429), httpx.Response(401), httpx.Response(201)])
    made = caller(vendor, tokens=("old-token", "new-token"))
    told: list[VendorError | None] = []

    def headers_of(former: VendorError | None) -> dict[str, str]:
        told.append(former)
        return {"try": str(len(told)), "authorization": "nobody's"}

    made.client.request("POST", "/things", body={}, headers_of=headers_of, safe=False)
    assert [type(former) for former in told] == [type(None), VendorUnreachable, RateLimited, CredentialRefused]
    assert [request.headers["try"] for request in vendor.seen] == ["1", "2", "3", "4"]
    assert {bearer(request) for request in vendor.seen} == {"old-token", "new-token"}


# --- bodies --------------------------------------------------------------------------------------------------------


def echo(request: httpx.Request) -> httpx.Response:
    """Answer with what was sent."""
    return httpx.Response(200, content=request.read())


DECIMALS = st.builds(
    Decimal,
    st.tuples(
        st.integers(0, 1), st.lists(st.integers(0, 9), min_size=1, max_size=30).map(tuple), st.integers(-60, 60)
    ).map(DecimalTuple._make),
)


@given(DECIMALS)
@example(Decimal("0.1"))
@example(Decimal(123456789012345678901234567890))
@example(Decimal("1.00000000000000000000000000000"))
@example(Decimal("-1E-400"))
def test_a_decimal_goes_out_and_comes_in_to_the_last_digit(amount: Decimal) -> None:
    sent = {"cost": amount, "rows": [[amount]]}
    back = caller(echo).client.request("POST", "/things", body=sent, safe=True).json()
    assert back == sent
    assert not isinstance(back["cost"], float)


def test_json_is_sent_compactly_with_decimals_as_numbers() -> None:
    vendor = one_answer(200)
    caller(vendor).client.request("POST", "/t", body={"a": Decimal("1.10"), "b": [1, "ü"]}, safe=True)
    assert vendor.seen[0].content == '{"a":1.10,"b":[1,"ü"]}'.encode()


@pytest.mark.parametrize("body", [b"a,b\n1,2\n", b"\xff\x00\r\n", b""])
def test_bytes_are_sent_as_they_are_under_their_media_type(body: bytes) -> None:
    vendor = one_answer(200)
    caller(vendor).client.request("POST", "/t", body=body, media_type="text/csv", safe=True)
    assert vendor.seen[0].content == body
    assert vendor.seen[0].headers["content-type"] == "text/csv"
    assert vendor.seen[0].headers["content-length"] == str(len(body))


def test_a_call_without_a_body_names_no_media_type() -> None:
    vendor = one_answer(200)
    caller(vendor).client.request("GET", "/t", params={"id": ["a", "b"]}, safe=True)
    assert "content-type" not in vendor.seen[0].headers
    assert vendor.seen[0].url.query == b"id=a&id=b"


# --- the token -----------------------------------------------------------------------------------------------------


def bearer(request: httpx.Request) -> str:
    return request.headers["authorization"].removeprefix("Bearer ")


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_token_is_read_once_more_and_the_new_one_is_used(status: int) -> None:
    vendor = Vendor([httpx.Response(status), httpx.Response(200)])
    made = caller(vendor, tokens=("old-token", "new-token"))
    assert made.client.request("POST", "/things", safe=False).status == 200
    assert [bearer(request) for request in vendor.seen] == ["old-token", "new-token"]
    assert made.reads == [False, True]


def test_a_refused_token_that_has_not_changed_is_not_tried_again() -> None:
    vendor = one_answer(401)
    made = caller(vendor, tokens=("old-token", "old-token"))
    assert isinstance(fails(made.client), CredentialRefused)
    assert (len(vendor.seen), made.reads) == (1, [False, True])


def test_a_token_that_is_refused_twice_ends_the_call() -> None:
    vendor = one_answer(401)
    assert isinstance(fails(caller(vendor, tokens=("one", "two", "three")).client), CredentialRefused)
    assert [bearer(request) for request in vendor.seen] == ["one", "two"]


def test_a_bare_key_is_sent_without_a_scheme() -> None:
    vendor = one_answer(401)
    client = replace(caller(vendor).client, auth=Credential(lambda _: SecretStr(TOKEN), "vendor/key", scheme=""))
    assert TOKEN not in str(fails(client))
    assert vendor.seen[0].headers["authorization"] == TOKEN


def test_a_missing_secret_is_called_what_the_vendor_calls_it() -> None:
    auth = Credential(lambda _: None, "vendor/key", noun="API key")
    assert "put the API key there" in str(fails(replace(caller(one_answer(200)).client, auth=auth)))


@pytest.mark.parametrize("held", [None, ""])
def test_a_missing_secret_is_named_and_nothing_is_sent(held: str | None) -> None:
    vendor = one_answer(200)
    error = fails(caller(vendor, tokens=(held,)).client)
    assert isinstance(error, CredentialRefused)
    assert "vendor/token" in str(error)
    assert vendor.seen == []


def test_a_missing_secret_is_looked_for_afresh() -> None:
    vendor = one_answer(200)
    caller(vendor, tokens=(None, "now-there")).client.request("GET", "/things", safe=True)
    assert bearer(vendor.seen[0]) == "now-there"


@pytest.mark.parametrize("held", ["two words", "line\nend", "tökén", "nul\x00", "export TOKEN=x"])
def test_a_secret_that_cannot_be_a_token_is_never_sent_nor_shown(held: str) -> None:
    vendor = one_answer(200)
    error = fails(caller(vendor, tokens=(held,)).client)
    assert isinstance(error, CredentialRefused)
    assert held not in str(error)
    assert vendor.seen == []


def test_a_user_and_a_password_are_sent_as_one_token() -> None:
    vendor = one_answer(200, "{}")
    caller(vendor, auth=USER).client.request("GET", "/things", safe=True)
    assert vendor.seen[0].headers["authorization"] == "Basic cmVsYXk6cGHDnyB3b3JkOjE="


def test_a_missing_user_is_asked_for_in_the_form_that_is_read() -> None:
    made = caller(one_answer(200), auth=basic(lambda _: None, "servicenow"))
    with pytest.raises(CredentialRefused, match=r"'servicenow'.*\{\"username\": \"…\", \"password\": \"…\"\}"):
        made.client.request("GET", "/things", safe=True)


# --- what an answer keeps of its headers ---------------------------------------------------------------------------


def test_an_answer_keeps_the_ways_to_the_next_page_and_no_other_header() -> None:
    vendor = one_answer(200, "{}", Link="</a>; rel=next", X_Total_Count="7", Set_Cookie="session=s3cr3t")
    answer = caller(vendor).client.request("GET", "/things", safe=True)
    assert answer.headers == {"link": "</a>; rel=next", "x-total-count": "7"}
    assert "rel=next" not in repr(answer)
    assert caller(one_answer(200, "{}")).client.request("GET", "/things", safe=True).headers == {}


def test_several_headers_of_one_name_are_one_and_a_long_one_is_cut() -> None:
    links = [("Link", "</a>; rel=prev"), ("Link", "</b>; rel=next"), ("Link", "x" * 9_000)]
    vendor = Vendor([httpx.Response(200, headers=links, content=b"{}")])
    kept = caller(vendor).client.request("GET", "/things", safe=True).headers["link"]
    assert kept.startswith("</a>; rel=prev, </b>; rel=next, xxx")
    assert len(kept) == 8_000


# --- no secret in anything that is read ----------------------------------------------------------------------------


def echoes(secret: str) -> list[str]:
    """Return the ways in which a vendor may say *secret* back."""
    in_json = json.dumps({"message": f"token {secret} is unknown"})
    return [
        f"token {secret} is unknown",
        in_json,
        in_json.replace("/", "\\/"),
        json.dumps({"unknown shape": [in_json]}),
        json.dumps({"errors": [{"detail": f"Authorization: Bearer {secret}"}]}),
        f"callback=https%3A%2F%2Fx.example%2F%3Ft%3D{quote(secret, safe='')}&x",
        f"<html><body><pre>{secret.replace('&', '&amp;')}</pre></body></html>",
        f"<Error><Code>SignatureDoesNotMatch</Code><SignatureProvided>{secret}</SignatureProvided></Error>",
        "<p>" * 21_000 + secret * 50,
    ]


@pytest.mark.parametrize("number", range(len(echoes(""))))
def test_a_token_that_the_vendor_says_back_is_in_no_error(number: int) -> None:
    body = echoes(TOKEN)[number]
    error = fails(caller(one_answer(422, body, X_Request_Id=f"id {TOKEN}")).client)
    for text in (str(error), repr(error), error.call.detail, repr(error.call), repr(error.args)):
        for part in (TOKEN, quote(TOKEN, safe=""), TOKEN.replace("/", "\\/"), TOKEN[:20], TOKEN[-20:]):
            assert part not in text


@pytest.mark.parametrize("number", range(len(echoes(""))))
def test_a_token_in_an_answer_that_is_not_understood_is_not_quoted(number: int) -> None:
    body = "no JSON: " + echoes(TOKEN)[number]
    answer = caller(one_answer(200, body)).client.request("GET", "/things", safe=True)
    with pytest.raises(AnswerNotUnderstood) as caught:
        answer.json()
    assert TOKEN not in str(caught.value)
    assert quote(TOKEN, safe="") not in str(caught.value)


@pytest.mark.parametrize("number", range(len(echoes(""))))
@pytest.mark.parametrize(
    "said", [PASSWORD, f"relay:{PASSWORD}", base64.b64encode(f"relay:{PASSWORD}".encode()).decode()]
)
def test_a_password_that_a_server_has_decoded_and_says_back_is_in_no_error(said: str, number: int) -> None:
    error = fails(caller(one_answer(422, echoes(said)[number], X_Request_Id="id"), auth=USER).client)
    answer = caller(one_answer(200, "no JSON: " + echoes(said)[number]), auth=USER).client.request(
        "GET", "/", safe=True
    )
    with pytest.raises(AnswerNotUnderstood) as caught:
        answer.json()
    for text in (str(error), repr(error), error.call.detail, str(caught.value), repr(answer)):
        for part in (said, PASSWORD, json.dumps(PASSWORD)[1:-1], quote(PASSWORD, safe="")):
            assert part not in text


def test_no_repr_shows_a_token_or_an_answers_body() -> None:
    made = caller(one_answer(200, f'{{"preSignedUrl": "https://x/?{TOKEN}"}}'))
    answer = made.client.request("GET", "/things", safe=True)
    assert TOKEN not in repr(made.client) + repr(made.client.auth) + repr(answer) + str(answer.call)


SIGNATURE = "c0ffee" * 10 + "1234"
SIGNED = (
    "https://bucket.s3.us-east-2.amazonaws.com/some/key?X-Amz-Algorithm=AWS4-HMAC-SHA256"
    f"&X-Amz-Credential=AKIDEXAMPLE%2F20260301%2Fus-east-2%2Fs3%2Faws4_request&X-Amz-Signature={SIGNATURE}"
)


@pytest.mark.parametrize("number", range(len(echoes(""))))
@pytest.mark.parametrize("secret", [SIGNED, SIGNATURE, "AKIDEXAMPLE/20260301/us-east-2/s3/aws4_request"])
def test_a_signed_address_that_the_store_says_back_is_in_no_error(secret: str, number: int) -> None:
    with pytest.raises(UploadRefused) as caught:
        caller(one_answer(403, echoes(secret)[number])).client.upload("{url}", SIGNED, lambda: [b"x"], 1, "text/csv")
    error = caught.value
    for text in (str(error), repr(error), error.call.detail, repr(error.__cause__)):
        assert SIGNATURE not in text
        assert "AKIDEXAMPLE" not in text


@pytest.mark.parametrize("url", ["https://s3.amazonaws.com:port/k?sig=abcdefghi", "https://s3\x00/k?sig=abcdefghi"])
def test_an_address_that_is_none_is_refused_without_being_quoted(url: str) -> None:
    with pytest.raises(UploadRefused, match="nothing was sent") as caught:
        caller(one_answer(200)).client.upload("{url}", url, lambda: [b"x"], 1, "text/csv")
    assert "abcdefghi" not in str(caught.value)


# --- uploads -------------------------------------------------------------------------------------------------------


def test_an_upload_carries_its_length_and_no_credential_and_starts_anew_for_each_try() -> None:
    vendor = Vendor([httpx.Response(500), httpx.Response(200, headers={"x-amz-request-id": "s3-1"})])
    made = caller(vendor)
    answer = made.client.upload("{url}", SIGNED, lambda: iter([b"abc", b"de"]), 5, "text/csv")
    assert answer.request_id == "s3-1"
    assert [request.content for request in vendor.seen] == [b"abcde", b"abcde"]
    for request in vendor.seen:
        assert request.headers["content-length"] == "5"
        assert request.headers["content-type"] == "text/csv"
        assert request.headers["user-agent"].startswith("finops-relay/")
        assert not {"authorization", "transfer-encoding"} & set(request.headers)
    assert made.reads == []


@pytest.mark.parametrize("status", [302, 307, 400, 401, 403, 404, 411, 413])
def test_an_upload_address_that_is_refused_says_so(status: int) -> None:
    vendor = one_answer(status, "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>")
    with pytest.raises(UploadRefused) as caught:
        caller(vendor).client.upload("{url}", SIGNED, lambda: [b"x"], 1, "text/csv")
    assert len(vendor.seen) == 1
    if status >= 400:
        assert "Request has expired" in str(caught.value)


def test_an_upload_is_tried_again_when_the_store_asks_to_slow_down() -> None:
    vendor = Vendor([httpx.Response(503), httpx.Response(200)])
    assert caller(vendor).client.upload("{url}", SIGNED, lambda: [b"x"], 1, "text/csv").status == 200


def test_an_error_of_the_bodys_source_comes_through_as_it_is() -> None:
    def broken() -> Iterator[bytes]:
        yield b"x"
        msg = "the spool broke off"
        raise ShortRead(msg)

    made = caller(one_answer(200))
    with pytest.raises(ShortRead):
        made.client.upload("{url}", SIGNED, broken, 2, "text/csv")
    assert made.told[0].status is None


@dataclass
class Drain(httpx.BaseTransport):
    """Takes a body chunk by chunk, and keeps nothing of it."""

    taken: int = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.SyncByteStream)
        self.taken = sum(len(chunk) for chunk in request.stream)
        return httpx.Response(200)


def test_an_upload_takes_constant_memory() -> None:
    megabyte = b"x" * 1_000_000
    peaks = []
    for count in (5, 40):
        drain = Drain()
        made = caller(transport=drain)
        tracemalloc.start()
        made.client.upload("{url}", SIGNED, partial(repeat, megabyte, count), count * len(megabyte), "text/csv")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert drain.taken == count * len(megabyte)
    assert peaks[1] < peaks[0] + 500_000


# --- the hook ------------------------------------------------------------------------------------------------------


def test_the_hook_is_told_once_a_call_whatever_its_end() -> None:
    made = caller(Vendor([httpx.Response(500), httpx.Response(200), httpx.Response(404), httpx.ReadTimeout("")]))
    made.client.request("GET", "/good", safe=True)
    fails(made.client)
    fails(made.client, safe=False)
    assert [(told.path, told.status, told.attempts) for told in made.told] == [
        ("/good", 200, 2),
        ("/things/{id}", 404, 1),
        ("/things/{id}", None, 1),
    ]
    assert all(told.seconds >= 0 for told in made.told)


# --- the wire ------------------------------------------------------------------------------------------------------

HEAD = b"HTTP/1.1 200 OK\r\n"


def on_the_wire(url: str, **more: Any) -> Caller:  # noqa: ANN401 -- whatever the original takes or gives
    return caller(base_url=url, **{"retry": ONE_TRY, **more})


@pytest.mark.parametrize(
    "answer",
    [
        answering(HEAD + b"Content-Length: 100\r\n\r\n{"),
        answering(HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhal"),
        answering(b"HTTP/1.1 20"),
        answering(b"SMTP ready\r\n\r\n"),
        answering(HEAD + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope"),
        answering(),
        resetting,
    ],
    ids=["half body", "half chunk", "half head", "another protocol", "not gzip", "nothing", "reset"],
)
def test_an_answer_that_does_not_come_whole_leaves_the_outcome_unknown(answer: Callable[..., None]) -> None:
    with raw_server(answer) as server:
        made = on_the_wire(server.url, retry=RetryPolicy(base_s=0.001))
        error = fails(made.client, safe=False, method="POST", body={"a": 1})
        assert isinstance(error, OutcomeUnknown)
        assert "may have been acted on" in str(error)
        assert len(server.requests) == 1


def test_a_lost_answer_to_a_safe_call_is_asked_for_again() -> None:
    with raw_server(resetting, answering(HEAD + b"Content-Length: 2\r\n\r\n{}")) as server:
        made = on_the_wire(server.url, retry=RetryPolicy(base_s=0.001))
        assert made.client.request("GET", "/things", safe=True).json() == {}
        assert len(server.requests) == 2


@pytest.mark.parametrize(
    "slow",
    [
        answering(HEAD + b"Content-Length: 1000\r\n\r\n", *[b"x"] * 40, pause_s=0.1),
        answering(HEAD, *[b"X-A: b\r\n"] * 40, pause_s=0.1),
        answering(*[bytes([letter]) for letter in HEAD + b"X-Long: " + b"x" * 20], pause_s=0.1),
    ],
    ids=["body", "headers", "first line"],
)
def test_a_server_that_trickles_cannot_hold_us_beyond_the_total_time(slow: Callable[..., None]) -> None:
    with raw_server(slow) as server:
        made = on_the_wire(server.url, timeouts=Timeouts(connect_s=1, read_s=1, total_s=0.5))
        started = time.monotonic()
        assert isinstance(fails(made.client, safe=False), OutcomeUnknown)
        assert time.monotonic() - started < 1


def test_a_silent_server_is_given_up_after_the_time_for_one_read() -> None:
    with raw_server(answering(b"", pause_s=0.6)) as server:
        made = on_the_wire(server.url, timeouts=Timeouts(connect_s=1, read_s=0.2, total_s=9))
        started = time.monotonic()
        assert isinstance(fails(made.client), OutcomeUnknown)
        assert time.monotonic() - started < 0.55


def test_a_try_ends_before_the_invocation_does() -> None:
    trickle = answering(HEAD + b"Content-Length: 1000\r\n\r\n", *[b"x"] * 40, pause_s=0.1)
    with raw_server(trickle) as server:
        made = on_the_wire(server.url, timeouts=Timeouts(connect_s=1, read_s=30, total_s=60), remaining_s=lambda: 3.0)
        started = time.monotonic()
        assert isinstance(fails(made.client), OutcomeUnknown)
        assert time.monotonic() - started < 2.5


def test_an_answer_beyond_the_ceiling_is_not_read() -> None:
    vendor = one_answer(200, b"x" * (MAX_ANSWER_BYTES + 1))
    with pytest.raises(AnswerNotUnderstood, match="larger than"):
        caller(vendor).client.request("GET", "/things", safe=True)


@pytest.mark.parametrize(("size", "read"), [(10, True), (11, False)])
def test_a_call_may_name_its_own_ceiling(size: int, *, read: bool) -> None:
    client = caller(one_answer(200, b"x" * size)).client
    if read:
        assert client.request("GET", "/things", at_most_bytes=10, safe=True).body == b"x" * size
    else:
        assert "larger than 10 bytes" in str(fails(client, at_most_bytes=10))


def test_a_call_may_ask_for_more_than_is_usual() -> None:
    size = MAX_ANSWER_BYTES + 1
    answer = caller(one_answer(200, b"x" * size)).client.request("GET", "/things", at_most_bytes=size, safe=True)
    assert len(answer.body) == size


def test_a_refused_connection_says_where_to_look() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    error = fails(on_the_wire(f"http://127.0.0.1:{port}").client)
    assert isinstance(error, VendorUnreachable)
    assert "127.0.0.1" in str(error)
    assert "refused" in str(error)
    assert "the way out of the network" in str(error)


NO_NAME = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
NO_TLS = ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number")


def because_of(cause: BaseException) -> httpx.ConnectError:
    """Return what httpx raises, two layers above *cause*."""
    between, error = OSError(str(cause)), httpx.ConnectError(str(cause))
    between.__context__, error.__cause__ = cause, between
    return error


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (NO_NAME, "its name was not resolved: check the address, and the DNS of the network"),
        (NO_TLS, "TLS failed: check the address, its certificate, and whether a proxy stands in between"),
        (ConnectionRefusedError(111, "refused"), "check the address, and the way out of the network"),
    ],
)
def test_what_stood_in_the_way_of_a_connection_has_its_own_words(cause: OSError, words: str) -> None:
    error = fails(caller(Vendor([because_of(cause)])).client, safe=False)
    assert isinstance(error, VendorUnreachable)
    assert f"could not reach vendor.example ({cause}); {words}" in str(error)


def test_a_server_without_tls_says_so() -> None:
    with raw_server(answering(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as server:
        error = fails(on_the_wire(server.url.replace("http:", "https:")).client, safe=False)
    assert isinstance(error, VendorUnreachable)
    assert "SSL" in str(error)
    assert "TLS failed" in str(error)


def test_a_certificate_of_somebody_else_says_so(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somebody.example")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(hours=1))
    pem = tmp_path / "somebody.pem"
    pem.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + made.sign(key, SHA256()).public_bytes(Encoding.PEM)
    )
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pem)
    with raw_server(answering(HEAD + b"\r\n"), tls=tls) as server:
        error = fails(on_the_wire(server.url.replace("http:", "https:")).client, safe=False)
        assert server.requests == []
    assert isinstance(error, VendorUnreachable)
    assert "CERTIFICATE_VERIFY_FAILED" in str(error)


@pytest.mark.parametrize("url", ["ftp://vendor.example", "vendor.example"])
def test_an_address_of_another_kind_is_unreachable(url: str) -> None:
    assert isinstance(fails(on_the_wire(url).client), VendorUnreachable)


def test_proxies_of_the_environment_are_not_given_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        raw_server(answering(HEAD + b"Content-Length: 2\r\n\r\n{}")) as server,
        raw_server(answering(HEAD + b"Content-Length: 2\r\n\r\n[]")) as proxy,
    ):
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.setenv("no_proxy", "")
        assert on_the_wire(server.url).client.request("GET", "/things", safe=True).json() == {}
        assert proxy.requests == []

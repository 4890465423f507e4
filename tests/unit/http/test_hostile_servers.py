"""A server that means harm gets no more of our time, memory and secrets than one that is broken."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
import traceback
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import pytest
from finops_relay.errors import (
    AnswerNotUnderstood,
    CredentialRefused,
    OutcomeUnknown,
    RateLimited,
    RequestRefused,
    VendorError,
    VendorUnreachable,
)
from finops_relay.http.answers import Answer
from finops_relay.http.auth import Credential, fixed
from finops_relay.http.client import HttpClient, Timeouts
from finops_relay.http.pages import Next, pages
from finops_relay.http.redact import one_line, redacted
from finops_relay.http.retry import MAX_NAMED_S, RetryPolicy, retry_after_s
from finops_relay.http.wire import new_wire
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from tests.world.raw_server import Handler, answering, raw_server, resetting

TOKEN = "tok/en+with=all~kinds.of_letters-0123456789"
BASE = "https://vendor.example/v1"
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
WHOLE = OK + b"Content-Length: 2\r\nConnection: close\r\n\r\n{}"
TOTAL_S = 0.4
LITTLE_S = 2.0
GIVES_UP_S = 3.0
"""A server's own patience: it ends even if the client never does."""


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
        return httpx.Response(answer.status_code, headers=answer.headers, stream=httpx.ByteStream(answer.read()))


def client(
    url: str,
    wire: httpx.Client,
    **more: Any,  # noqa: ANN401 -- whatever the original takes
) -> HttpClient:
    settings: dict[str, Any] = {"retry": RetryPolicy(attempts=1), "timeouts": Timeouts(2, 5, 5)}
    return HttpClient(url, Credential(fixed(SecretStr(TOKEN)), "k"), sleep=lambda _: None, wire=wire, **settings | more)


def over(wire: Callable[[httpx.Request], httpx.Response], **more: Any) -> HttpClient:  # noqa: ANN401 -- as `client`
    """Return a client over a fake wire."""
    return client(BASE, httpx.Client(transport=httpx.MockTransport(wire)), **more)


@pytest.fixture
def wire() -> Iterator[httpx.Client]:
    """The real one."""
    with new_wire() as made:
        yield made


# --- compressed answers -----------------------------------------------------------------------------------------------

PACKED = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "GZIP": gzip.compress,
    "deflate": zlib.compress,
    "br": zlib.compress,
    "zstd": zlib.compress,
    "identity, gzip": gzip.compress,
    "gzip, gzip": lambda body: gzip.compress(gzip.compress(body)),
    "theirs": zlib.compress,
}


def compressed(coding: str, body: bytes, status: int = 200) -> bytes:
    """Return an answer as it stands on the wire."""
    head = f"HTTP/1.1 {status} So\r\nContent-Type: application/json\r\nContent-Encoding: {coding}\r\n"
    packed = PACKED[coding](body)
    return f"{head}Content-Length: {len(packed)}\r\nConnection: close\r\n\r\n".encode() + packed


@pytest.mark.parametrize("coding", PACKED)
@pytest.mark.parametrize("safe", [True, False])
def test_an_answer_that_is_compressed_unasked_is_refused(wire: httpx.Client, coding: str, *, safe: bool) -> None:
    error = AnswerNotUnderstood if safe else OutcomeUnknown
    with raw_server(answering(compressed(coding, b'{"a": 1}'))) as server:
        with pytest.raises(error, match="compressed, which was not asked for"):
            client(server.url, wire).request("GET" if safe else "POST", "/things", safe=safe)
        assert len(server.requests) == 1


def test_a_bomb_is_not_unpacked(wire: httpx.Client) -> None:
    bomb = compressed("gzip", b"0" * 50_000_000)
    assert len(bomb) < 100_000
    with raw_server(answering(bomb)) as server:
        asked = client(server.url, wire)
        tracemalloc.start()
        try:
            with pytest.raises(AnswerNotUnderstood, match="compressed"):
                asked.request("GET", "/things", safe=True)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 3_000_000


def test_nobody_is_asked_to_compress(wire: httpx.Client) -> None:
    with raw_server(answering(WHOLE)) as server:
        asked = client(server.url, wire)
        asked.request("POST", "/things", body={"a": 1}, safe=False)
        asked.upload("/upload", f"{server.url}/put", lambda: [b"abc"], 3, "text/csv")
        for request in server.requests:
            (line,) = [line for line in request.lower().split(b"\r\n") if line.startswith(b"accept-encoding:")]
            assert line == b"accept-encoding: identity"
        assert len(server.requests) == 2


@pytest.mark.parametrize("coding", ["identity", "", " Identity "])
def test_an_answer_that_says_that_it_is_as_it_is_is_read(wire: httpx.Client, coding: str) -> None:
    said = OK + f"Content-Encoding: {coding}\r\nContent-Length: 8\r\nConnection: close\r\n\r\n".encode() + b'{"a": 1}'
    with raw_server(answering(said)) as server:
        assert client(server.url, wire).request("GET", "/things", safe=True).json() == {"a": 1}


# --- time -------------------------------------------------------------------------------------------------------------


def endless(first: bytes, again: bytes, pause_s: float) -> Handler:
    """Send something, and then something else again and again until the other side has enough."""

    def handle(connection: socket.socket, _request: bytes) -> None:
        connection.sendall(first)
        ends = time.monotonic() + GIVES_UP_S
        while time.monotonic() < ends:
            connection.sendall(again)
            time.sleep(pause_s)

    return handle


CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
ENDLESS = {
    "continues": endless(b"", CONTINUE, 0.05),
    "a-flood-of-continues": endless(b"", CONTINUE * 1000, 0),
    "early-hints": endless(b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", 0.05),
    "a-status-line": endless(b"HTTP/1.1 200 ", b"O", 0.05),
    "a-header": endless(OK + b"X-Long: ", b"x", 0.05),
    "headers": endless(OK, b"X-More: 1\r\n", 0.05),
    "a-body": endless(OK + b"Content-Length: 1000000\r\n\r\n", b"x", 0.05),
    "a-body-without-length": endless(OK + b"\r\n", b" ", 0.05),
    "chunks": endless(CHUNKED, b"1\r\nx\r\n", 0.05),
    "a-chunk": endless(CHUNKED + b"FFFFFF\r\n", b"x", 0.05),
    "the-name-of-a-chunk": endless(CHUNKED + b"1;", b"a", 0.05),
    "trailers": endless(CHUNKED + b"0\r\n", b"X-More: 1\r\n", 0.05),
    "an-error": endless(b"HTTP/1.1 500 No\r\nContent-Length: 1000000\r\n\r\n", b"x", 0.05),
}


@pytest.mark.parametrize("handler", ENDLESS.values(), ids=ENDLESS)
@pytest.mark.parametrize("safe", [True, False])
def test_whatever_a_server_sends_now_and_then_a_try_ends_in_time(
    wire: httpx.Client, handler: Handler, *, safe: bool
) -> None:
    with raw_server(handler) as server:
        asked = client(server.url, wire, timeouts=Timeouts(connect_s=2, read_s=2, total_s=TOTAL_S))
        started = time.monotonic()
        with pytest.raises(OutcomeUnknown, match="may have been acted on"):
            asked.request("GET" if safe else "POST", "/things", safe=safe)
        assert TOTAL_S * 0.9 < time.monotonic() - started < TOTAL_S + LITTLE_S


@contextmanager
def reading_slowly(pause_s: float) -> Iterator[str]:
    """Serve: of one request, a thousand bytes are read now and then, and it is never answered."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.settimeout(GIVES_UP_S)
        over = threading.Event()

        def serve() -> None:
            with suppress(OSError):
                connection, _ = listener.accept()
                ends = time.monotonic() + GIVES_UP_S
                with connection:
                    connection.settimeout(GIVES_UP_S)
                    while time.monotonic() < ends and connection.recv(1000) and not over.wait(pause_s):
                        pass

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            over.set()
            thread.join()


@pytest.mark.parametrize("pause_s", [0.001, 0.1])
def test_a_server_that_reads_a_large_body_slowly_ends_in_time(wire: httpx.Client, pause_s: float) -> None:
    with reading_slowly(pause_s) as url:
        asked = client(url, wire, timeouts=Timeouts(connect_s=2, read_s=2, total_s=TOTAL_S))
        started = time.monotonic()
        with pytest.raises(OutcomeUnknown, match="WriteTimeout"):
            asked.request("POST", "/things", body=b"x" * 20_000_000, safe=False)
        assert time.monotonic() - started < TOTAL_S + LITTLE_S


def test_each_try_has_its_own_time_and_a_slow_one_is_followed_by_a_good_one(wire: httpx.Client) -> None:
    with raw_server(ENDLESS["a-body"], answering(WHOLE)) as server:
        limits = Timeouts(connect_s=2, read_s=2, total_s=TOTAL_S)
        asked = client(server.url, wire, timeouts=limits, retry=RetryPolicy(attempts=2))
        assert asked.request("GET", "/things", safe=True).json() == {}
        assert len(server.requests) == 2


# --- cookies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cookie",
    [
        "session=s3cr3t",
        "session=s3cr3t; Path=/; Max-Age=86400",
        "session=s3cr3t; Domain=127.0.0.1; Path=/",
        "session=s3cr3t; Domain=.localhost; HttpOnly; SameSite=None",
        "session=s3cr3t; Version=1",
    ],
)
@pytest.mark.parametrize("status", [200, 302, 401, 503])
def test_a_cookie_of_an_answer_is_never_sent_again(wire: httpx.Client, cookie: str, status: int) -> None:
    head = f"HTTP/1.1 {status} So\r\nSet-Cookie: {cookie}\r\nSet-Cookie2: {cookie}\r\nLocation: /things\r\n"
    said = f"{head}Content-Length: 2\r\nConnection: close\r\n\r\n{{}}".encode()
    with raw_server(answering(said)) as server:
        asked = client(server.url, wire)
        for method in ("GET", "POST", "GET"):
            with suppress(VendorError):
                asked.request(method, "/things", safe=method == "GET")
        with suppress(VendorError):
            asked.upload("/upload", f"{server.url}/put", lambda: [b"abc"], 3, "text/csv")
        assert len(server.requests) == 4
        for request in server.requests:
            assert b"s3cr3t" not in request
            assert b"\r\ncookie" not in request.lower()
    assert len(wire.cookies) == 0


# --- what an error holds ----------------------------------------------------------------------------------------------


def chain(error: BaseException) -> list[BaseException]:
    """Return an error with all that it came from."""
    found: list[BaseException] = []
    further = [error]
    while further:
        each = further.pop()
        found.append(each)
        further += [cause for cause in (each.__cause__, each.__context__) if cause and cause not in found]
    return found


def without_the_credential(error: BaseException, *secrets: str) -> None:
    """See that nothing that hangs on an error leads to the request, or says a secret."""
    for each in chain(error):
        assert not isinstance(each, httpx.RequestError | httpx.HTTPStatusError), "it holds the request"
        held = vars(each)
        assert not any(isinstance(part, httpx.Request | httpx.Response) for part in (*held.values(), *each.args))
        for secret in (TOKEN, *secrets):
            assert secret not in f"{each} {each!r} {held!r} {each.args!r}"


TRANSPORT_ERRORS = [
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ReadTimeout,
    httpx.WriteTimeout,
    httpx.ReadError,
    httpx.WriteError,
    httpx.CloseError,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
    httpx.LocalProtocolError,
    httpx.RemoteProtocolError,
    httpx.DecodingError,
]


@pytest.mark.parametrize("kind", TRANSPORT_ERRORS)
@pytest.mark.parametrize("safe", [True, False])
def test_what_a_broken_connection_leaves_behind_holds_no_request(kind: type[httpx.RequestError], *, safe: bool) -> None:
    def broken(request: httpx.Request) -> httpx.Response:
        said = f"broken near {request.headers['authorization']}"
        raise kind(said, request=request) from RuntimeError("the socket")

    asked = over(broken, retry=RetryPolicy(attempts=2, base_s=0, cap_s=0))
    with pytest.raises((VendorUnreachable, OutcomeUnknown)) as caught:
        asked.request("GET" if safe else "POST", "/things", body={"a": 1}, safe=safe)
    without_the_credential(caught.value)


def silent(connection: socket.socket, _request: bytes) -> None:
    """Say nothing until the other side has enough."""
    connection.recv(1)


BROKEN: dict[str, Handler] = {
    "reset": resetting,
    "nothing": answering(),
    "garbage": answering(b"\x00\x01\x02 no protocol\r\n\r\n"),
    "half-a-body": answering(OK + b"Content-Length: 10\r\n\r\n{"),
    "too-slow": ENDLESS["a-body"],
    "silent": silent,
    "no-json": answering(OK + b"Content-Length: 4\r\n\r\nnope"),
    "500": answering(b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\n{}"),
    "401": answering(b"HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\n{}"),
    "html": answering(OK + b"Content-Length: 6\r\n\r\n<html>"),
    "compressed": answering(compressed("gzip", b"{}")),
}


@pytest.mark.parametrize("handler", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("safe", [True, False])
def test_what_a_real_failure_leaves_behind_holds_no_request(
    wire: httpx.Client, handler: Handler, *, safe: bool
) -> None:
    with raw_server(handler) as server:
        asked = client(server.url, wire, timeouts=Timeouts(connect_s=0.3, read_s=0.2, total_s=0.3))
        with pytest.raises(VendorError) as caught:
            asked.request("GET" if safe else "POST", "/things", safe=safe).json()
    without_the_credential(caught.value)


def test_a_refused_connection_leaves_no_request_behind(wire: httpx.Client) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(VendorUnreachable) as caught:
        client(f"http://127.0.0.1:{port}", wire).request("GET", "/things", safe=True)
    without_the_credential(caught.value)


@pytest.mark.parametrize("handler", [resetting, answering(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")])
def test_what_a_failed_upload_leaves_behind_holds_no_signature(wire: httpx.Client, handler: Handler) -> None:
    with raw_server(handler) as server:
        address = f"{server.url}/put?X-Amz-Signature=5ec4e75ec4e7"
        with pytest.raises(VendorError) as caught:
            client(server.url, wire).upload("/upload", address, lambda: [b"abc"], 3, "text/csv")
    without_the_credential(caught.value, "5ec4e75ec4e7")


# --- Retry-After ------------------------------------------------------------------------------------------------------

FAR = [
    "Fri, 31 Dec 9999 23:59:59 GMT",
    "Fri, 31 Dec 9999 23:59:59 -1200",
    "Thu, 01 Jan 2099 00:00:00 GMT",
    "9" * 20,
    "9" * 5000,
    "1000000000",
]


@pytest.mark.parametrize("named", FAR, ids=lambda named: named[:30])
@pytest.mark.parametrize("status", [429, 503])
def test_a_wait_that_ends_far_in_the_future_is_capped(named: str, status: int) -> None:
    assert retry_after_s(named) == MAX_NAMED_S == 999_999_999
    vendor = Vendor([httpx.Response(status, headers={"retry-after": named})])
    with pytest.raises(RateLimited, match="a wait of 999,999,999 s") as caught:
        over(vendor, retry=RetryPolicy()).request("GET", "/things", safe=True)
    assert caught.value.retry_after_s == 999_999_999
    assert len(vendor.seen) == 1, "such a wait is not made inside an invocation"


@given(st.text(max_size=40) | st.datetimes().map("{:%a, %d %b %Y %H:%M:%S GMT}".format) | st.integers().map(str))
def test_whatever_a_wait_is_said_to_be_it_is_one_or_none(said: str) -> None:
    found = retry_after_s(said)
    assert found is None or 0 <= found <= MAX_NAMED_S
    if found == MAX_NAMED_S and not said.strip().isdigit():
        assert parsedate_to_datetime(said).year > 2050


# --- redaction --------------------------------------------------------------------------------------------------------

SECRET = "s3cr3tTOKEN"
WEBHOOKS = {
    "slack": f"https://hooks.slack.com/services/T01/B02/{SECRET}",
    "slack-workflow": f"https://hooks.slack.com/workflows/T01/A02/{SECRET}",
    "slack-shouted": f"HTTPS://HOOKS.SLACK.COM/services/T01/B02/{SECRET}",
    "teams": f"https://acme.webhook.office.com/webhookb2/a@b/IncomingWebhook/{SECRET}/c",
    "teams-with-a-port": f"https://acme-x.webhook.office.com:443/webhookb2/a@b/IncomingWebhook/{SECRET}/c",
    "power-automate": f"https://prod-1.westeurope.logic.azure.com:443/workflows/{SECRET}/triggers/manual/paths/invoke",
}
AROUND: dict[str, Callable[[str], str]] = {
    "plain": str,
    "in-words": "could not post to {} (404)".format,
    "at-the-end": "no such hook: {}".format,
    "in-brackets": "<{}>".format,
    "in-json": lambda address: json.dumps({"errors": [{"url": address}]}),
    "in-json-with-escaped-slashes": lambda address: json.dumps({"url": address}).replace("/", "\\/"),
    "in-json-in-json": lambda address: json.dumps(json.dumps({"url": address})),
    "twice": "{0} and {0}".format,
}


@pytest.mark.parametrize("around", AROUND.values(), ids=AROUND)
@pytest.mark.parametrize("address", WEBHOOKS.values(), ids=WEBHOOKS)
def test_the_address_of_a_webhook_is_known_by_its_host(address: str, around: Callable[[str], str]) -> None:
    for line in (redacted(around(address)), one_line(around(address))):
        assert SECRET not in line
        assert "T01" not in line
    if around is not AROUND["in-brackets"]:  # a tag, for a line
        assert "REDACTED" in one_line(around(address))


OWN = f"https://chat.example/hook/{SECRET}"
FIELDS = ["webhookUrl", "webhook_url", "webhook-url", "webhook", "slackWebhookUrl", "WEBHOOKURL", "teamsWebhook"]


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("value", [OWN, OWN.replace("/", "\\/"), SECRET])
def test_the_address_of_a_webhook_is_known_by_the_name_of_its_field(name: str, value: str) -> None:
    for said in (
        f'{{"{name}":"{value}"}}',
        f'no: {{"id": 1, "{name}" : "{value}", "name": "x"}}',
        f'"{name}":"{value}',
    ):
        for line in (redacted(said), one_line(said)):
            assert SECRET not in line
            assert "REDACTED" in line


@pytest.mark.parametrize(
    "said",
    [
        {"message": f'cannot set {{"webhookUrl":"{OWN}"}}'},
        {"errors": [{"detail": f'cannot set {{"webhookUrl": "{OWN}"}}', "source": {"pointer": "/data"}}]},
        {"code": 7, "given": {"webhookUrl": OWN}},
        {"code": 7, "given": json.dumps({"webhookUrl": OWN})},
        {"code": 7, "given": json.dumps({"url": WEBHOOKS["slack"]})},
        [{"webhookUrl": OWN}],
    ],
    ids=["in-words", "in-errors", "as-it-was-given", "as-text", "slack-as-text", "in-a-list"],
)
@pytest.mark.parametrize("cut", [False, True])
def test_a_vendor_that_quotes_what_it_was_given_tells_nobody_the_address_of_a_webhook(
    said: object, *, cut: bool
) -> None:
    body = json.dumps(said).encode()
    vendor = Vendor([httpx.Response(422, content=body[: -2 if cut else None])])
    with pytest.raises(RequestRefused) as caught:
        over(vendor).request("POST", "/things", safe=False)
    assert SECRET not in f"{caught.value} {caught.value.call.detail}"


# --- answers that are cut short ---------------------------------------------------------------------------------------

CUT = [
    f'{{"webhookUrl": "{OWN}", "name": "x"'.encode(),
    f'{{"data": [{{"attributes": {{"url": "{OWN}'.encode(),
    f'["{OWN}",'.encode(),
    f'\n  {{"url": "{OWN}", }}'.encode(),
    f'{{"url": "{OWN}"}} {{'.encode(),
    b'{"url": "\xff' + OWN.encode() + b'"}',
]


@pytest.mark.parametrize("body", CUT)
def test_json_that_is_cut_short_is_not_quoted(body: bytes) -> None:
    answer = over(Vendor([httpx.Response(200, content=body)])).request("GET", "/things", safe=True)
    with pytest.raises(AnswerNotUnderstood, match="cut short or malformed") as caught:
        answer.json()
    assert "chat.example" not in f"{caught.value} {caught.value!r} {caught.value.call}"
    assert "chat.example" not in "".join(traceback.format_exception(caught.value))


# --- lists ------------------------------------------------------------------------------------------------------------


def following(answer: Answer) -> Next | None:
    """Read a cursor."""
    cursor = answer.json().get("cursor")
    return Next(params={"cursor": cursor}) if cursor else None


def page(number: int, last: int) -> httpx.Response:
    """Make a page of 1,000 bytes."""
    body = json.dumps({"cursor": str(number + 1) if number < last else None})
    return httpx.Response(200, content=body.ljust(1000).encode())


@pytest.mark.parametrize("left", [0.0, -5.0, 2.0])
def test_a_list_ends_with_an_error_when_the_invocation_has_no_time_left(left: float) -> None:
    vendor = Vendor([page(n, 3) for n in range(4)])
    found = pages(over(vendor, remaining_s=lambda: left), "GET", "/things", following)
    assert next(found).status == 200
    with pytest.raises(VendorUnreachable, match="no time left for the next page"):
        next(found)
    assert len(vendor.seen) == 1


def test_a_list_of_one_page_needs_no_time_for_another() -> None:
    found = pages(over(Vendor([page(3, 3)]), remaining_s=lambda: 0), "GET", "/things", following)
    assert [answer.status for answer in found] == [200]


def test_a_list_goes_on_for_as_long_as_there_is_time() -> None:
    vendor = Vendor([page(n, 9) for n in range(10)])
    left = iter([60.0] * 5)
    with pytest.raises(VendorUnreachable, match="no time left"):
        list(pages(over(vendor, remaining_s=lambda: next(left, 0.0)), "GET", "/things", following))
    assert 1 < len(vendor.seen) < 10


@pytest.mark.parametrize(("limit", "read"), [(999, 0), (1000, 1), (2999, 2), (3999, 3)])
def test_a_list_whose_pages_are_too_large_together_ends_with_an_error(limit: int, read: int) -> None:
    vendor = Vendor([page(n, 3) for n in range(4)])
    found = pages(over(vendor), "GET", "/things", following, at_most_whole_bytes=limit)
    for _ in range(read):
        next(found)
    with pytest.raises(AnswerNotUnderstood, match=f"more than {limit:,} bytes"):
        next(found)
    assert len(vendor.seen) == read + 1


def test_a_list_of_just_the_limit_is_read() -> None:
    found = pages(over(Vendor([page(n, 3) for n in range(4)])), "GET", "/things", following, at_most_whole_bytes=4000)
    assert len(list(found)) == 4


# --- credentials ------------------------------------------------------------------------------------------------------


def test_a_vendor_that_echoes_the_request_does_not_get_the_credential_into_an_error() -> None:
    def echo(request: httpx.Request) -> httpx.Response:
        said = "".join(f"{name}: {value}\n" for name, value in request.headers.items())
        return httpx.Response(403, content=said.encode(), headers={"x-request-id": request.headers["authorization"]})

    with pytest.raises(CredentialRefused) as caught:
        over(echo).request("GET", "/things", safe=True)
    without_the_credential(caught.value)

"""One place for credentials, time-outs, retry, redaction and the words of errors."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import quote, urljoin, urlsplit

import httpx
import msgspec
import tenacity

from finops_relay import __version__
from finops_relay.errors import (
    AnswerNotUnderstood,
    BodyTooLarge,
    Call,
    CredentialRefused,
    NotFound,
    OutcomeUnknown,
    RelayError,
    RequestRefused,
    UploadRefused,
    VendorError,
    VendorUnavailable,
    VendorUnreachable,
)
from finops_relay.http.answers import MAX_ANSWER_BYTES, Advice, Answer, Terms, answer_of, secrets_of
from finops_relay.http.auth import Credential
from finops_relay.http.redact import one_line
from finops_relay.http.retry import GIVE_UP, RetryPolicy
from finops_relay.http.wire import ONE_SHOT, Until, new_wire

USER_AGENT = f"finops-relay/{__version__}"
JSON = "application/json"
MARGIN_S = 2.0
"""Of the invocation, left to save what became of the last try."""
PORTS = {"http": 80, "https": 443}

Params = Mapping[str, "str | Sequence[str]"]
"""A query; a sequence repeats its name."""
HeadersOfTry = Callable[["VendorError | None"], Mapping[str, str]]
"""Gives the headers of the next try, told what became of the one before; None before the first."""

encoded = msgspec.json.Encoder(decimal_format="number").encode
"""JSON as it is sent, Decimals as exact numbers."""


@dataclass(frozen=True)
class Timeouts:
    """Seconds; `total_s` bounds one try, from the first byte sent to the last byte read, uploads excepted.

    However the server trickles: each read and write ends with its try (see `wire`), and the try with the invocation.
    Only the system's resolving of a name is not bounded.
    """

    connect_s: float = 5.0
    read_s: float = 30.0
    total_s: float = 60.0


@dataclass(frozen=True)
class CallRecord:
    """What the metrics hook is told after each call, whatever its end."""

    method: str
    path: str
    status: int | None
    attempts: int
    seconds: float


@dataclass(frozen=True)
class _Request:
    """One call, the same for all its tries."""

    method: str
    path: str
    url: str
    safe: bool
    params: Params | None
    headers: Mapping[str, str]
    content: bytes | None
    at_most_bytes: int
    headers_of: HeadersOfTry
    secrets: tuple[str, ...]

    @property
    def call(self) -> Call:
        """The facts known before an answer."""
        return Call(self.method, self.path, sent_bytes=len(self.content or b""))


def _nothing(_: CallRecord) -> None:
    """Tell nobody."""


def _no_more(_: VendorError | None) -> Mapping[str, str]:
    """Give no further headers."""
    return {}


@dataclass(frozen=True)
class HttpClient:
    """Calls to one API.

    Args:
        base_url: of the API, without a slash at its end.
        auth: where the credential comes from, and how it is sent.
        advice: what to do about a refused call; said after the vendor's own words.
        remaining_s: seconds left in the invocation; a call never plans beyond them.
        on_call: told about each call.
    """

    base_url: str
    auth: Credential
    advice: Advice = lambda _: ""
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    timeouts: Timeouts = field(default_factory=Timeouts)
    remaining_s: Callable[[], float] = lambda: float("inf")
    on_call: Callable[[CallRecord], None] = _nothing
    sleep: Callable[[float], None] = time.sleep
    wire: httpx.Client = field(default_factory=new_wire, repr=False)

    def request(  # noqa: PLR0913 -- one keyword for each part of a request
        self,
        method: str,
        path: str,
        *,
        safe: bool,
        ids: Mapping[str, str] | None = None,
        params: Params | None = None,
        body: object = None,
        media_type: str = JSON,
        headers_of: HeadersOfTry = _no_more,
        at: str = "",
        at_most_bytes: int = MAX_ANSWER_BYTES,
        secrets: tuple[str, ...] = (),
        alone: bool = False,
    ) -> Answer:
        """Make one call.

        Args:
            method: HTTP method.
            path: template such as ``/orgs/{slug}``; it names the call in errors and metrics.
            safe: True when repeating the call cannot do harm. An unsafe one is only repeated after a refusal to act
                (429, 503) or when it never arrived.
            ids: values of the template, quoted here.
            params: query.
            body: sent as JSON unless None, Decimals as exact numbers; bytes are sent as they are.
            media_type: of the body.
            headers_of: gives the headers that belong to one try.
            at: the address of a further page, to be called instead of the path's; it must be on the API's own host.
            at_most_bytes: of an answer.
            secrets: what the body holds that must never be quoted, besides the credential.
            alone: the vendor takes one such call at a time: when no answer came, it is not repeated here, for it may
                still be under way.

        Raises:
            VendorError: as the class tree in `errors` says; OutcomeUnknown when the call may have been acted on.
        """
        self._check_ids(method, path, ids or {})
        try:
            url = self.base_url + path.format_map({name: quote(value, safe="") for name, value in (ids or {}).items()})
            content = body if isinstance(body, bytes) or body is None else encoded(body)
        except UnicodeEncodeError:
            msg = (
                "what was to be sent is no text that can be written as UTF-8 (half a surrogate pair); nothing was sent"
            )
            raise RequestRefused(msg, Call(method, path)) from None
        headers = {"accept": JSON, "accept-encoding": "identity", "user-agent": USER_AGENT}
        if content is not None:
            headers["content-type"] = media_type
        if at:
            url, params = self._on_our_host(url, at, Call(method, path)), None
        asked = _Request(method, path, url, safe, params, headers, content, at_most_bytes, headers_of, secrets)
        return self._repeating(lambda former: self._authorised(asked, former), method, path, safe=safe, alone=alone)

    def upload(
        self, path: str, url: str, chunks: Callable[[], Iterable[bytes]], length: int, content_type: str
    ) -> Answer:
        """PUT *length* bytes to a pre-signed address, in constant memory; safe to repeat.

        No Authorization header, no redirects, explicit Content-Length. *chunks* starts the body anew for each try.

        Raises:
            UploadRefused: the address was refused (any 4xx): it expired or does not fit.
            VendorError: as for `request`.
        """
        headers = {"content-type": content_type, "content-length": str(length), "user-agent": USER_AGENT}
        headers["accept-encoding"] = "identity"
        call = Call("PUT", path, sent_bytes=length)

        def once(_former: VendorError | None) -> Answer:
            try:
                request = self.wire.build_request("PUT", url, headers=headers, content=chunks())
            except httpx.InvalidURL:
                msg = "the upload address is no address; nothing was sent"
                raise UploadRefused(msg, call) from None
            return self._exchange(request, Terms(call, self._deadline(whole=False), secrets_of(url)))

        try:
            return self._repeating(once, "PUT", path, safe=True)
        except (CredentialRefused, NotFound, BodyTooLarge, RequestRefused) as error:
            msg = "the upload address was refused; it has expired or does not fit this upload"
            raise UploadRefused(f"{msg}. {error.call.detail}".rstrip(". "), error.call) from error

    @staticmethod
    def _check_ids(method: str, path: str, ids: Mapping[str, str]) -> None:
        """Refuse an id with which the address would be that of something else. Raises RequestRefused."""
        for name, value in ids.items():
            if value in {"", ".", ".."}:
                msg = f"{name} is {value!r}, which names nothing; nothing was sent"
                raise RequestRefused(msg, Call(method, path))

    def _on_our_host(self, first: str, at: str, call: Call) -> str:
        """Return the address of a further page. Raises AnswerNotUnderstood when it is not the API's own host."""
        try:
            url = urljoin(first, at)
            if _origin(self.base_url) == _origin(url):
                return str(httpx.URL(url))
            where = f"elsewhere ({one_line(url)[:100]})"
        except (ValueError, httpx.InvalidURL):
            where = "at an address that is none"
        msg = f"the next page is said to be {where}; it was not asked for"
        raise AnswerNotUnderstood(msg, call)

    def _repeating(
        self,
        once: Callable[[VendorError | None], Answer],
        method: str,
        path: str,
        *,
        safe: bool,
        alone: bool = False,
    ) -> Answer:
        """Call *once* until it goes well or the policy gives up; then tell the hook."""
        started = time.monotonic()
        attempts = 0
        former: VendorError | None = None

        def spent() -> float:
            return time.monotonic() - started

        def wait_of(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            if not isinstance(error, RelayError) or (alone and _may_go_on(error)):
                return GIVE_UP
            wait = self.retry.wait_s(error, state.attempt_number, spent(), safe=safe)
            return wait if wait is not None and wait < self.remaining_s() - self.timeouts.connect_s else GIVE_UP

        # tenacity asks for the wait first and keeps it: the draw is made once, and `stop` judges that very wait.
        loop = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(VendorError),
            wait=wait_of,
            stop=lambda state: state.upcoming_sleep == GIVE_UP,
            sleep=self.sleep,
            reraise=True,
        )
        status: int | None = None
        try:
            for attempt in loop:
                with attempt:
                    attempts = attempt.retry_state.attempt_number
                    try:
                        answer = once(former)
                    except VendorError as error:
                        former = error
                        raise
                    status = answer.status
        except (VendorUnavailable, AnswerNotUnderstood) as error:
            status = error.call.status
            if safe:
                raise
            msg = f"{error.reason}; the request may have been acted on"
            raise OutcomeUnknown(msg, error.call) from error
        except VendorError as error:
            status = error.call.status
            raise
        finally:
            self.on_call(CallRecord(method, path, status, attempts, spent()))
        return answer

    def _authorised(self, asked: _Request, former: VendorError | None) -> Answer:
        """Send with the token; a refused token is read once more, and a changed one is tried."""
        token = self.auth.token() or self.auth.token(fresh=True)
        if not token:
            msg = (
                f"there is no secret {self.auth.kept_in!r}, it is empty, or it may not be read;"
                f" put the {self.auth.noun} there"
            )
            raise CredentialRefused(msg, asked.call)
        try:
            return self._send(asked, token, former)
        except CredentialRefused as error:
            fresh = self.auth.token(fresh=True)
            if not fresh or fresh == token:
                raise
            return self._send(asked, fresh, error)

    def _send(self, asked: _Request, token: str, former: VendorError | None) -> Answer:
        """Send one try. Raises VendorError."""
        if not (token.isascii() and token.isprintable()) or " " in token:  # httpx would quote it in its complaint
            msg = f"the secret {self.auth.kept_in!r} holds more than a token (spaces, line ends or other characters)"
            raise CredentialRefused(msg, asked.call)
        headers = {**asked.headers, **asked.headers_of(former), **self.auth.headers(token)}
        try:
            request = self.wire.build_request(
                asked.method, asked.url, params=asked.params, content=asked.content, headers=headers
            )
        except httpx.InvalidURL:
            msg = "the address of the API is none, or too long with these ids; nothing was sent"
            raise RequestRefused(msg, asked.call) from None
        request.extensions[ONE_SHOT] = not asked.safe
        secrets = (*self.auth.secrets(token), *asked.secrets)
        terms = Terms(asked.call, self._deadline(whole=True), secrets, asked.at_most_bytes, self.advice)
        return self._exchange(request, terms)

    def _exchange(self, request: httpx.Request, terms: Terms) -> Answer:
        """Send one request and read its answer to the end. Raises VendorError."""
        limits = {"connect": self.timeouts.connect_s, "pool": self.timeouts.connect_s}
        limits |= {"read": self.timeouts.read_s, "write": self.timeouts.read_s}
        times = {name: Until(seconds, terms.deadline) for name, seconds in limits.items()}
        request.extensions = {**request.extensions, "timeout": times}
        try:
            response = self.wire.send(request, stream=True)
            try:
                return answer_of(response, terms)
            finally:
                response.close()
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol) as error:
            said = one_line(str(error), *terms.secrets) or type(error).__name__
            msg = f"could not reach {request.url.host} ({said}); {_way_out(error)}"
            failure: VendorError = VendorUnreachable(msg, terms.call)
        except (httpx.TransportError, httpx.DecodingError) as error:
            msg = f"no whole answer came ({type(error).__name__}); the request may have been acted on"
            failure = OutcomeUnknown(msg, terms.call)
        raise failure  # outside: httpx's error holds the request, and that the credential

    def _deadline(self, *, whole: bool) -> float:
        """Return when a try has to end, by the monotonic clock; only an upload, not *whole*, takes its time."""
        left = max(MARGIN_S, self.remaining_s() - MARGIN_S)
        return time.monotonic() + (min(self.timeouts.total_s, left) if whole else left)


def _origin(url: str) -> tuple[str, str, int | None]:
    """Return scheme, host and port of *url*. Raises ValueError when it is no address, or names a user."""
    parts = urlsplit(url)
    if "@" in parts.netloc:
        msg = "an address with credentials in it"
        raise ValueError(msg)
    return parts.scheme, parts.hostname or "", parts.port or PORTS.get(parts.scheme)


def _way_out(error: BaseException) -> str:
    """Return what to look at when a host could not be reached."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, socket.gaierror):
            return "its name was not resolved: check the address, and the DNS of the network that the function is in"
        if isinstance(cause, ssl.SSLError):
            return "TLS failed: check the address, its certificate, and whether a proxy stands in between"
        cause = cause.__cause__ or cause.__context__
    return "check the address, and the way out of the network (route, NAT gateway, security group)"


def _may_go_on(error: RelayError) -> bool:
    """Return whether the vendor may still be at a call that failed: nobody has heard it end."""
    gateway = {HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT}
    return isinstance(error, OutcomeUnknown) or (isinstance(error, VendorError) and error.call.status in gateway)

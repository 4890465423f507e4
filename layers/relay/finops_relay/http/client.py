"""One place for credentials, time-outs, retry, redaction and the words of errors."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, unquote_plus

import httpx
import tenacity

from finops_relay import __version__
from finops_relay.errors import (
    AnswerNotUnderstood,
    BodyTooLarge,
    Call,
    CredentialRefused,
    NotFound,
    OutcomeUnknown,
    RateLimited,
    RelayError,
    RequestRefused,
    UploadRefused,
    VendorError,
    VendorUnavailable,
    VendorUnreachable,
)
from finops_relay.http.auth import BearerAuth
from finops_relay.http.redact import one_line
from finops_relay.http.retry import GIVE_UP, RetryPolicy, retry_after_s
from finops_relay.http.wire import Until, new_wire

USER_AGENT = f"finops-relay/{__version__}"
REQUEST_ID_HEADERS = ("x-request-id", "x-amzn-requestid", "x-amz-request-id", "request-id", "cf-ray")
MAX_ANSWER_BYTES = 32_000_000
"""An answer beyond this is not read: no call of ours has a larger one, and memory is not the vendor's to fill."""
MAX_ERROR_BYTES = 200_000
"""Of an error's body that are looked at: more than `redact` looks at, which must see where it cuts."""
SECRET_CHARS = 8
"""Shortest value in a query that is taken for a secret."""
MARGIN_S = 2.0
"""Of the invocation, left to save what became of the last try."""


@dataclass(frozen=True)
class Timeouts:
    """Seconds; `total_s` bounds one try, from the first byte sent to the last byte read, uploads excepted.

    However the server trickles: each read and write ends with its try (see `wire`), and the try with the invocation.
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
class Answer:
    """A 2xx answer, read to its end."""

    status: int
    body: bytes = field(repr=False)
    """May hold a pre-signed address."""
    request_id: str
    call: Call
    secrets: tuple[str, ...] = field(default=(), repr=False, compare=False)
    """What must not be quoted from the body."""

    def json(self) -> Any:  # noqa: ANN401 -- JSON; a pydantic model checks it right after
        """Return the parsed body. Raises AnswerNotUnderstood."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            said = one_line(self.body.decode("utf-8", "replace"), *self.secrets)[:100]
            msg = f"the answer is not JSON: {said!r}" if said else "the answer is empty where JSON was promised"
            raise AnswerNotUnderstood(msg, self.call) from None


def _nothing(_: CallRecord) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class HttpClient:
    """Calls to one API.

    Args:
        base_url: of the API, without a slash at its end.
        auth: the bearer token's source.
        advice: what to do about a status, by status; said after the vendor's own words.
        remaining_s: seconds left in the invocation; a call never plans beyond them.
        on_call: told about each call.
    """

    base_url: str
    auth: BearerAuth
    advice: Mapping[int, str] = field(default_factory=dict)
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
        params: Mapping[str, str] | None = None,
        body: object = None,
    ) -> Answer:
        """Make one call.

        Args:
            method: HTTP method.
            path: template such as ``/orgs/{slug}``; it names the call in errors and metrics.
            safe: True when repeating the call cannot do harm. An unsafe one is only repeated after a refusal to act
                (429, 503) or when it never arrived.
            ids: values of the template, quoted here.
            params: query.
            body: sent as JSON unless None.

        Raises:
            VendorError: as the class tree in `errors` says; OutcomeUnknown when the call may have been acted on.
        """
        for name, value in (ids or {}).items():
            if value in {"", ".", ".."}:  # the address would be that of something else
                msg = f"{name} is {value!r}, which names nothing; nothing was sent"
                raise RequestRefused(msg, Call(method, path))
        url = self.base_url + path.format_map({name: quote(value, safe="") for name, value in (ids or {}).items()})
        content = json.dumps(body).encode() if body is not None else None
        headers = {"accept": "application/json", "user-agent": USER_AGENT}
        if content is not None:
            headers["content-type"] = "application/json"

        def once() -> Answer:
            return self._authorised(method, path, url, headers, params, content)

        return self._repeating(once, method, path, safe=safe)

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
        secrets = (url, *_values_of_query(url))

        def once() -> Answer:
            try:
                request = self.wire.build_request("PUT", url, headers=headers, content=chunks())
            except httpx.InvalidURL:
                msg = "the upload address is no address; nothing was sent"
                raise UploadRefused(msg, Call("PUT", path)) from None
            return self._exchange("PUT", path, request, secrets)

        try:
            return self._repeating(once, "PUT", path, safe=True)
        except (CredentialRefused, NotFound, BodyTooLarge, RequestRefused) as error:
            msg = "the upload address was refused; it has expired or does not fit this upload"
            raise UploadRefused(f"{msg}. {error.call.detail}".rstrip(". "), error.call) from error

    def _repeating(self, once: Callable[[], Answer], method: str, path: str, *, safe: bool) -> Answer:
        """Call *once* until it goes well or the policy gives up; then tell the hook."""
        started = time.monotonic()
        attempts = 0

        def spent() -> float:
            return time.monotonic() - started

        def wait_of(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            if not isinstance(error, RelayError):
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
                    answer = once()
                    status = answer.status
        except VendorError as error:
            status = error.call.status
            raise
        finally:
            self.on_call(CallRecord(method, path, status, attempts, spent()))
        return answer

    def _authorised(  # noqa: PLR0913, PLR0917 -- the parts of a request, handed on
        self,
        method: str,
        path: str,
        url: str,
        headers: Mapping[str, str],
        params: Mapping[str, str] | None,
        content: bytes | None,
    ) -> Answer:
        """Send with the token; a refused token is read once more, and a changed one is tried."""

        def send(token: str) -> Answer:
            if not (token.isascii() and token.isprintable()) or " " in token:  # httpx would quote it in its complaint
                msg = (
                    f"the secret {self.auth.kept_in!r} holds more than a token (spaces, line ends or other characters)"
                )
                raise CredentialRefused(msg, Call(method, path))
            request = self.wire.build_request(
                method, url, params=params, content=content, headers={**headers, "authorization": f"Bearer {token}"}
            )
            return self._exchange(method, path, request, (token,))

        token = self.auth.token() or self.auth.token(fresh=True)
        if not token:
            msg = (
                f"there is no secret {self.auth.kept_in!r}, it is empty, or it may not be read;"
                " put the service account token there"
            )
            raise CredentialRefused(msg, Call(method, path))
        try:
            return send(token)
        except CredentialRefused:
            fresh = self.auth.token(fresh=True)
            if not fresh or fresh == token:
                raise
            return send(fresh)

    def _exchange(self, method: str, path: str, request: httpx.Request, secrets: tuple[str, ...]) -> Answer:
        """Send one request and read its answer to the end. Raises VendorError."""
        deadline = self._deadline(whole=request.method != "PUT")
        limits = {"connect": self.timeouts.connect_s, "pool": self.timeouts.connect_s}
        limits |= {"read": self.timeouts.read_s, "write": self.timeouts.read_s}
        request.extensions["timeout"] = {name: Until(seconds, deadline) for name, seconds in limits.items()}
        call = Call(method, path)
        try:
            response = self.wire.send(request, stream=True)
            try:
                body = _read(response, deadline, call)
            finally:
                response.close()
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol) as error:
            said = one_line(str(error), *secrets) or type(error).__name__
            msg = (
                f"could not reach {request.url.host} ({said}); check the address, DNS, the certificate and the way out"
            )
            raise VendorUnreachable(msg, call) from None
        except (httpx.TransportError, httpx.DecodingError) as error:
            msg = f"no whole answer came ({type(error).__name__}); the request may have been acted on"
            raise OutcomeUnknown(msg, call) from None
        request_id = _request_id(response.headers, secrets)
        facts = Call(method, path, response.status_code, request_id)
        if response.is_success:
            return Answer(response.status_code, body, request_id, facts, secrets)
        raise self._error(response, body, facts, secrets)

    def _deadline(self, *, whole: bool) -> float:
        """Return when a try has to end, by the monotonic clock; only an upload, not *whole*, takes its time."""
        left = max(MARGIN_S, self.remaining_s() - MARGIN_S)
        return time.monotonic() + (min(self.timeouts.total_s, left) if whole else left)

    def _error(self, response: httpx.Response, body: bytes, call: Call, secrets: tuple[str, ...]) -> VendorError:
        """Turn an answer that is not 2xx into the error that the tree has for it."""
        detail = _detail(body, secrets)
        status = response.status_code
        kind, fallback = _KINDS.get(status, (VendorUnavailable, "the vendor is failing") if status >= 500 else _REFUSED)  # noqa: PLR2004 -- 5xx
        if response.is_redirect:
            detail, fallback = "", "redirects are not followed; check the address of the API"
        words = ". ".join(part for part in (detail, self.advice.get(status, "" if detail else fallback)) if part)
        after = retry_after_s(response.headers.get("retry-after", "")) if kind is RateLimited else None
        facts = Call(call.method, call.path, status, call.request_id, detail)
        return kind(words or fallback, facts, retry_after_s=after)


_REFUSED = (RequestRefused, "the request was refused")
_KINDS: Mapping[int, tuple[type[VendorError], str]] = {
    HTTPStatus.UNAUTHORIZED: (CredentialRefused, "the credential was refused"),
    HTTPStatus.FORBIDDEN: (CredentialRefused, "the credential lacks a permission"),
    HTTPStatus.NOT_FOUND: (NotFound, "there is no such thing"),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: (BodyTooLarge, "the body is too large"),
    HTTPStatus.TOO_MANY_REQUESTS: (RateLimited, "too many requests"),
    HTTPStatus.SERVICE_UNAVAILABLE: (RateLimited, "the vendor asks to slow down"),
}


def _read(response: httpx.Response, deadline: float, call: Call) -> bytes:
    """Read an answer, bounded in bytes and time. Raises AnswerNotUnderstood, OutcomeUnknown."""
    body = bytearray()
    for chunk in response.iter_bytes():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            msg = f"the answer is larger than {MAX_ANSWER_BYTES:,} bytes"
            raise AnswerNotUnderstood(msg, call)
        if time.monotonic() > deadline:
            msg = "the answer did not end in time; the request may have been acted on"
            raise OutcomeUnknown(msg, call)
    return bytes(body)


def _request_id(headers: httpx.Headers, secrets: tuple[str, ...]) -> str:
    """Return the vendor's own id of the request, shortened; empty when it sent none."""
    return next((one_line(headers[name], *secrets)[:100] for name in REQUEST_ID_HEADERS if name in headers), "")


def _values_of_query(url: str) -> tuple[str, ...]:
    """Return the values in an address's query that are long enough to be secrets, as written there and decoded."""
    pairs = (pair.partition("=")[2] for pair in url.partition("?")[2].partition("#")[0].split("&"))
    return tuple(text for value in pairs if len(value) >= SECRET_CHARS for text in {value, unquote_plus(value)})


def _detail(body: bytes, secrets: tuple[str, ...]) -> str:
    """Return what an error body says, in whichever of the shapes seen; one redacted line, may be empty."""
    text = body[:MAX_ERROR_BYTES].decode("utf-8", "replace")
    try:
        return one_line(_words(json.loads(text)), *secrets)
    except (ValueError, RecursionError):
        return one_line(text, *secrets)


def _words(said: object) -> str:
    """Return the words of a JSON error: ``errors[]``, ``message``, ``error``, or the JSON itself."""
    match said:
        case {"errors": [*errors]} if errors:
            words = "; ".join(_words(error) for error in errors)
        case {"source": {"pointer": str(pointer)}, **rest} if rest:
            words = f"{_words(rest)} (at {pointer})"
        case {"detail": str(text)} | {"message": str(text)} | {"title": str(text)} | {"error": str(text)} | str(text):
            words = text
        case {"error": dict(inner)}:
            words = _words(inner)
        case _:
            words = json.dumps(said, ensure_ascii=False) if said else ""
    return words

"""What came back: an answer that was read to its end, or the error that the tree has for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import cached_property
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import unquote_plus

import httpx
import msgspec
from pydantic import BaseModel, ValidationError

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
    VendorError,
    VendorUnavailable,
)
from finops_relay.http.redact import one_line
from finops_relay.http.retry import retry_after_s

Model = TypeVar("Model", bound=BaseModel)
Advice = Callable[[Call], str]
"""What to do about a refused call, said after the vendor's own words; empty when there is nothing to add."""

REQUEST_ID_HEADERS = ("x-request-id", "x-amzn-requestid", "x-amz-request-id", "request-id", "cf-ray")
MAX_ANSWER_BYTES = 32_000_000
"""An answer beyond this is not read unless a call asks for more: memory is not the vendor's to fill."""
HEADERS = ("link", "x-total-count")
"""What an answer keeps of its headers: ways to the next page."""
MAX_HEADER_CHARS = 8_000
MAX_ERROR_BYTES = 200_000
"""Of an error's body that are looked at: more than `redact` looks at, which must see where it cuts."""
SEEN_FOR_HTML = 1_000
"""Bytes of an answer, white space before a page's first tag included."""
SECRET_CHARS = 8
"""Shortest value in a query that is taken for a secret."""

_exact = msgspec.json.Decoder(float_hook=Decimal)


@dataclass(frozen=True)
class Answer:
    """A 2xx answer, read to its end."""

    status: int
    body: bytes | bytearray = field(repr=False)
    """May hold a pre-signed address. As it was read: a month of cost rows is 150 MB, and no copy of it is made."""
    request_id: str
    call: Call
    secrets: tuple[str, ...] = field(default=(), repr=False, compare=False)
    """What must not be quoted from the body."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    """Those of `HEADERS` that came, each cut to `MAX_HEADER_CHARS`; their addresses may hold what is secret."""

    def json(self) -> Any:  # noqa: ANN401 -- JSON; a pydantic model checks it right after
        """Return the parsed body, fractions as Decimal to the last digit. Raises AnswerNotUnderstood.

        Parsed once: a page is asked for its rows and for the page after it.
        """
        return self._parsed

    @cached_property
    def _parsed(self) -> Any:  # noqa: ANN401 -- as `json`
        try:
            return _exact.decode(self.body)
        except (msgspec.DecodeError, ValueError, RecursionError, ArithmeticError):  # a number beyond any Decimal
            text = self.body.strip()
            msg = "the answer is JSON that is cut short or malformed"  # not quoted: it may hold a webhook's address
            if not text.startswith((b"{", b"[")):
                said = one_line(text.decode("utf-8", "replace"), *self.secrets)[:100]
                msg = f"the answer is not JSON: {said!r}" if said else "the answer is empty where JSON was promised"
            raise AnswerNotUnderstood(msg, self.call) from None

    def under(self, *names: str) -> Any:  # noqa: ANN401 -- as `json`
        """Return what stands under the keys *names*, one inside the other. Raises AnswerNotUnderstood."""
        found = self.json()
        for name in names:
            if not isinstance(found, dict) or name not in found:
                msg = f"the answer has nothing under {'.'.join(names)!r}"
                raise AnswerNotUnderstood(msg, self.call)
            found = found[name]
        return found

    def listed(self, *names: str) -> list[Any]:
        """Return the list under the keys *names*. Raises AnswerNotUnderstood."""
        found = self.under(*names)
        if not isinstance(found, list):
            msg = f"the answer has no list under {'.'.join(names)!r}"
            raise AnswerNotUnderstood(msg, self.call)
        return found

    def fitted(self, model: type[Model], found: object) -> Model:
        """Return *found* as *model*; what does not fit is named without its value, which may be a secret."""
        try:
            return model.model_validate(found)
        except ValidationError as error:
            problems = error.errors(include_url=False, include_context=False, include_input=False)
            fields = ", ".join(sorted({".".join(map(str, problem["loc"])) or "the whole" for problem in problems}))
            msg = f"the answer does not fit the contract at: {one_line(fields, *self.secrets)}"
            raise AnswerNotUnderstood(msg, self.call) from None


@dataclass(frozen=True)
class Terms:
    """How an answer is to be read."""

    call: Call
    """The facts known before it."""
    deadline: float
    """By the monotonic clock."""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """What must not be quoted from it."""
    at_most_bytes: int = MAX_ANSWER_BYTES
    advice: Advice = lambda _: ""


def answer_of(response: httpx.Response, terms: Terms) -> Answer:
    """Read *response*, which is being streamed, to its end; closing it is the caller's.

    Raises:
        VendorError: the answer is not 2xx, too large, or did not end in time.
    """
    request_id = _request_id(response.headers, terms.secrets)
    facts = replace(terms.call, status=response.status_code, request_id=request_id)
    body = _read(response, terms, facts)
    if response.is_success:
        if "html" in response.headers.get("content-type", "").lower() or body[:SEEN_FOR_HTML].lstrip()[:1] == b"<":
            msg = "the answer is a page of HTML: something on the way answered instead of the vendor"
            raise AnswerNotUnderstood(msg, facts)
        headers = {name: response.headers[name][:MAX_HEADER_CHARS] for name in HEADERS if name in response.headers}
        return Answer(response.status_code, body, request_id, facts, terms.secrets, headers)
    raise _error(response, body, facts, terms)


def secrets_of(url: str) -> tuple[str, ...]:
    """Return a pre-signed address, and the values in its query that are long enough to be secrets, also decoded."""
    pairs = (pair.partition("=")[2] for pair in url.partition("?")[2].partition("#")[0].split("&"))
    values = (text for value in pairs if len(value) >= SECRET_CHARS for text in {value, unquote_plus(value)})
    return (url, *values)


def _error(response: httpx.Response, body: bytes | bytearray, facts: Call, terms: Terms) -> VendorError:
    """Turn an answer that is not 2xx into the error that the tree has for it."""
    status = response.status_code
    kind, fallback = _KINDS.get(status, _FAILING if status >= HTTPStatus.INTERNAL_SERVER_ERROR else _REFUSED)
    detail = _detail(body, terms.secrets)
    if response.is_redirect:
        detail, fallback = "", "redirects are not followed; check the address of the API"
    said = replace(facts, detail=detail)
    parts = [detail or fallback]
    after = None
    if kind is RateLimited:
        after = retry_after_s(response.headers.get("retry-after", ""))
        parts.append(f"It names a wait of {after:,.0f} s" if after is not None else "It names no wait")
    elif kind is BodyTooLarge:
        parts.append(f"{facts.sent_bytes:,} bytes were sent")
    parts.append(terms.advice(said))
    return kind(". ".join(part.rstrip(".") for part in parts if part), said, retry_after_s=after)


_REFUSED: tuple[type[VendorError], str] = (RequestRefused, "the request was refused")
_FAILING: tuple[type[VendorError], str] = (VendorUnavailable, "the vendor is failing")
_KINDS: Mapping[int, tuple[type[VendorError], str]] = {
    HTTPStatus.UNAUTHORIZED: (CredentialRefused, "the credential was refused"),
    HTTPStatus.FORBIDDEN: (CredentialRefused, "the credential lacks a permission"),
    HTTPStatus.NOT_FOUND: (NotFound, "there is no such thing"),
    HTTPStatus.CONFLICT: (Conflict, "its present state does not allow this"),
    HTTPStatus.GONE: (Expired, "it is no longer kept"),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: (BodyTooLarge, "the body is too large"),
    HTTPStatus.TOO_MANY_REQUESTS: (RateLimited, "too many requests"),
    HTTPStatus.SERVICE_UNAVAILABLE: (RateLimited, "the vendor asks to slow down"),
}


def _read(response: httpx.Response, terms: Terms, facts: Call) -> bytes | bytearray:
    """Read an answer, bounded in bytes and time. Raises AnswerNotUnderstood, OutcomeUnknown."""
    body = bytearray()
    if response.headers.get("content-encoding", "identity").strip().lower() not in {"", "identity"}:
        if not response.is_success:
            return b""  # its status says enough
        msg = "the answer is compressed, which was not asked for"  # a few bytes could be gigabytes
        raise AnswerNotUnderstood(msg, facts)
    for chunk in response.iter_bytes():
        body += chunk
        if len(body) > terms.at_most_bytes:
            msg = f"the answer is larger than {terms.at_most_bytes:,} bytes"
            raise AnswerNotUnderstood(msg, facts)
        if time.monotonic() > terms.deadline:
            msg = "the answer did not end in time; the request may have been acted on"
            raise OutcomeUnknown(msg, terms.call)
    return body


def _request_id(headers: httpx.Headers, secrets: tuple[str, ...]) -> str:
    """Return the vendor's own id of the request, shortened; empty when it sent none."""
    return next((one_line(headers[name], *secrets)[:100] for name in REQUEST_ID_HEADERS if name in headers), "")


def _detail(body: bytes | bytearray, secrets: tuple[str, ...]) -> str:
    """Return what an error body says, in whichever of the shapes seen; one redacted line, may be empty."""
    text = body[:MAX_ERROR_BYTES].decode("utf-8", "replace")
    try:
        return one_line(_words(msgspec.json.decode(text)), *secrets)
    except (msgspec.DecodeError, ValueError, RecursionError):
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
            words = msgspec.json.encode(said).decode() if said else ""
    return words

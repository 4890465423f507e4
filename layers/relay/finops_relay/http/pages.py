"""Lists that come in pages: the next one by its address, or by a cursor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from finops_relay.errors import AnswerNotUnderstood, VendorUnreachable
from finops_relay.http.answers import MAX_ANSWER_BYTES, Answer
from finops_relay.http.client import HttpClient, Params

MAX_PAGES = 10_000
"""A list that goes on for longer has no end: 10,000 rows a page would be 100 million."""


MAX_LIST_BYTES = 64_000_000
"""Of a list that is held whole; what is used page by page may be larger."""


@dataclass(frozen=True)
class Next:
    """How the next page is asked for: by its address, or by further parameters."""

    address: str = ""
    params: Mapping[str, str] = field(default_factory=dict)


def pages(  # noqa: PLR0913 -- the parts of a request
    http: HttpClient,
    method: str,
    path: str,
    next_of: Callable[[Answer], Next | None],
    *,
    ids: Mapping[str, str] | None = None,
    params: Params | None = None,
    body: object = None,
    at_most_bytes: int = MAX_ANSWER_BYTES,
    at_most_whole_bytes: int = MAX_LIST_BYTES,
) -> Iterator[Answer]:
    """Yield the pages of a list, each one call that is safe to repeat; a body is sent again with each.

    Args:
        http: the client.
        method: HTTP method.
        path: template.
        next_of: tells from a page how the next is asked for; None after the last.
        ids: values of the template.
        params: query of the first page; a cursor is added to it, an address replaces it.
        body: sent as JSON unless None.
        at_most_bytes: of one page.
        at_most_whole_bytes: of all pages together.

    Raises:
        AnswerNotUnderstood: the list leads to another host, never ends, or is too large.
        VendorUnreachable: the invocation has no time left for another page.
        VendorError: as for `HttpClient.request`.
    """
    seen: set[str] = set()
    whole = 0
    further = Next()
    for _ in range(MAX_PAGES):
        answer = http.request(
            method,
            path,
            safe=True,
            ids=ids,
            params={**(params or {}), **further.params} or None,
            body=body,
            at=further.address,
            at_most_bytes=at_most_bytes,
        )
        whole += len(answer.body)
        if whole > at_most_whole_bytes:
            msg = f"the pages of the list are more than {at_most_whole_bytes:,} bytes"
            raise AnswerNotUnderstood(msg, answer.call)
        yield answer
        found = next_of(answer)
        if found is None:
            return
        if http.remaining_s() <= http.timeouts.connect_s:
            msg = "the invocation has no time left for the next page"
            raise VendorUnreachable(msg, answer.call)
        mark = repr(found)
        if mark in seen:
            msg = "the list leads back to a page that was read before"
            raise AnswerNotUnderstood(msg, answer.call)
        seen.add(mark)
        further = found
    msg = f"the list has more than {MAX_PAGES:,} pages"
    raise AnswerNotUnderstood(msg, answer.call)

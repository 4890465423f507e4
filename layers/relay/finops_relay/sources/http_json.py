"""Items of a list that any address answers with, as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from finops_relay.errors import AnswerNotUnderstood
from finops_relay.http.answers import MAX_HEADER_CHARS, Answer
from finops_relay.http.client import HttpClient
from finops_relay.http.pages import Next, pages
from finops_relay.sources.answers import readable
from finops_relay.sources.asks import JsonAsk
from finops_relay.sources.expressions import Expression
from finops_relay.sources.links import address_of
from finops_relay.sources.records import MAX_BYTES, MAX_RECORDS, Record, record_of, text_of


@dataclass(frozen=True)
class HttpJson:
    """A client for one source; it only reads, so that every call is safe to repeat.

    The further pages of a list are asked for on the source's own host, or not at all.

    Args:
        http: the core, with the source's address.
        at_most: items of one read.
    """

    http: HttpClient
    at_most: int = MAX_RECORDS

    def records(self, ask: JsonAsk) -> Iterator[Record]:
        """Yield the items, a page in memory at a time. Its iterator must come to its end: only then all is read.

        Raises:
            AnswerNotUnderstood: an answer has no list where one is said to be, or there are more than `at_most` items.
            VendorError: as for `pages`.
        """
        readers = {column: Expression(text).of for column, text in ask.columns.items()}
        listed = Expression(ask.items)
        found = pages(
            self.http, "GET", ask.path, _next_of(ask), params=ask.params or None, at_most_whole_bytes=MAX_BYTES
        )
        number = 0
        for answer in map(readable, found):
            items = _found(listed, answer)
            if not isinstance(items, list):
                msg = f"the answer has no list at {ask.items!r} (where null means none: {ask.items} || `[]`)"
                raise AnswerNotUnderstood(msg, answer.call)
            for item in items:
                number += 1
                if number > self.at_most:
                    msg = f"the list has more than {self.at_most:,} items"
                    raise AnswerNotUnderstood(msg, answer.call)
                yield record_of(number, f"item {number}", item, readers)


def _next_of(ask: JsonAsk) -> Callable[[Answer], Next | None]:
    """Return what tells from a page how the next one is asked for."""
    if ask.link_header:
        return _linked
    expression = Expression(ask.next or ask.cursor or "null")

    def following(answer: Answer) -> Next | None:
        found = _found(expression, readable(answer))
        if found is None or found is False or found == "":
            return None
        if ask.next and not isinstance(found, str):
            msg = f"the answer has a next page, but no address of it at {ask.next!r}"
            raise AnswerNotUnderstood(msg, answer.call)
        try:
            text = text_of(found)
        except ValueError as error:
            msg = f"the answer has a next page, but no cursor for it at {ask.cursor!r}: {error}"
            raise AnswerNotUnderstood(msg, answer.call) from None
        return Next(text) if ask.next else Next(params={ask.cursor_param: text})

    return following


def _linked(answer: Answer) -> Next | None:
    """Return the next page by the header ``Link``. Raises AnswerNotUnderstood."""
    header = answer.headers.get("link", "")
    address = address_of(header, "next")
    if not address and len(header) >= MAX_HEADER_CHARS:
        msg = f"its header Link is longer than {MAX_HEADER_CHARS:,} characters, and may name a next page there"
        raise AnswerNotUnderstood(msg, answer.call)
    return Next(address) if address else None


def _found(expression: Expression, answer: Answer) -> Any:  # noqa: ANN401 -- JSON
    """Return what *expression* finds in an answer. Raises AnswerNotUnderstood."""
    try:
        return expression.of(answer.json())
    except ValueError as error:
        msg = f"{expression.text!r} finds nothing in the answer: {error}"
        raise AnswerNotUnderstood(msg, answer.call) from None

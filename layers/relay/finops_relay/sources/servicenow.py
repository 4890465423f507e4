"""Rows of ServiceNow's Table API, none of them lost however the table changes while it is read.

Source: contract page, "Where desired values come from". Rows are read in the order of ``sys_id``, and each page begins
above the last row that was seen: a row that is deleted or added meanwhile shifts no other. Offsets would, so they are
the last resort.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from finops_relay.errors import AnswerNotUnderstood, Call, NotFound, VendorUnreachable
from finops_relay.http.answers import Answer
from finops_relay.http.client import HttpClient
from finops_relay.http.redact import one_line
from finops_relay.sources.answers import readable
from finops_relay.sources.asks import TableAsk
from finops_relay.sources.links import address_of
from finops_relay.sources.records import MAX_RECORDS, Record, record_of

TABLE = "/api/now/table/{table}"
KEY = "sys_id"
MAX_EMPTY_PAGES = 2_000
"""In a row, each said to be followed by more: of 1,000 rows each, 2 million rows that the user may not read."""

_KEY = re.compile(r"[\w.-]{1,64}", re.ASCII)
_HEX = re.compile(r"[0-9A-Fa-f]{32}")
_LAST_HEX = "f" * 32
_NO_ROWS = re.compile(r"no records? found|records? matching query not found|record doesn'?t exist", re.IGNORECASE)
"""What older instances answer with 404 instead of an empty list."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class _Stretch:
    """The rows to be looked at next: those above *after*, not above *until* (unless empty), from the *skip*-th on."""

    after: str = ""
    until: str = ""
    skip: int = 0

    def query(self, alternatives: tuple[str, ...]) -> str:
        """Return the encoded query: the stretch's bounds belong to each alternative, for ``^NQ`` begins anew."""
        bounds = [f"{KEY}>{self.after}"] if self.after else []
        bounds += [f"{KEY}<={self.until}"] if self.until else []
        parts = ["^".join([*filter(None, [part]), *bounds]) for part in alternatives]
        return "^".join([*filter(None, ["^NQ".join(parts)]), f"ORDERBY{KEY}"])

    def above(self, key: str) -> _Stretch:
        """Return what remains above a row that was seen."""
        return _Stretch(key, self.until if _order(key) < self.until else "")

    def narrower(self, looked_at: int) -> _Stretch:
        """Return where to look after a page without rows of a stretch that has more of them, hidden ones at least.

        Half of the stretch, until a page holds the whole of it: then nothing is missed. Only where keys cannot be
        halved, or the instance ignores the upper bound, hidden rows are gone past by their number, which a row that is
        deleted just then may shift.
        """
        if not self.skip and (not self.after or _HEX.fullmatch(self.after)):
            low, high = int(self.after or "0", 16), int(self.until or _LAST_HEX, 16)
            if high - low > 1:
                return replace(self, until=f"{(low + high) // 2:032x}")
        return _Stretch(self.after, skip=self.skip + looked_at)

    def beyond(self) -> _Stretch | None:
        """Return what remains after a stretch in which there is nothing more; None after the last."""
        if not self.until:
            return None
        low, high = int(self.after, 16) if _HEX.fullmatch(self.after) else 0, int(self.until, 16)
        next_end = high + 2 * (high - low)
        return _Stretch(self.until, f"{next_end:032x}" if next_end < int(_LAST_HEX, 16) else "")


@dataclass(frozen=True)
class _Page:
    """Of a stretch: the rows that the user may read, and whether more rows are said to follow those looked at."""

    rows: list[Any]
    more: bool
    call: Call


@dataclass(frozen=True)
class ServiceNow:
    """A client for one instance; it only reads, so that every call is safe to repeat.

    Args:
        http: the core, with the instance's address.
        at_most: rows of one read.
    """

    http: HttpClient
    at_most: int = MAX_RECORDS

    def records(self, ask: TableAsk) -> Iterator[Record]:
        """Yield the rows of a table that its user may read, a page in memory at a time, each row once.

        Rows that come or go meanwhile may be read or not. Its iterator must come to its end: only then all is read.
        An instance that answers 404 for "no rows" does not say whether rows follow a page that is all hidden.

        Raises:
            AnswerNotUnderstood: a page came in part (the transaction was cancelled), its rows do not follow those
                before, a column's field is in none of them, or there are more than `at_most`.
            VendorUnreachable: the invocation has no time left for another page.
            VendorError: as for `HttpClient.request`.
        """
        readers: dict[str, Callable[[Row], object]] = {name: _reader(field) for name, field in ask.columns.items()}
        missing = set(ask.columns.values())
        last, number = "", 0
        for page in self._pages(ask):
            for row in page.rows:
                last = _key_above(last, row, page.call)
                missing.difference_update(row)
                number += 1
                if number > self.at_most:
                    msg = f"the table gives more than {self.at_most:,} rows: narrow the query"
                    raise AnswerNotUnderstood(msg, page.call)
                yield record_of(number, last, row, readers)
        if number and missing:
            msg = f"no row has {', '.join(sorted(missing))}: a field is misspelt, or an access rule hides it"
            raise AnswerNotUnderstood(msg, page.call)

    def _pages(self, ask: TableAsk) -> Iterator[_Page]:
        """Yield pages until one is empty and nothing follows it: a short page is not the end, it may hide rows."""
        stretch: _Stretch | None = _Stretch()
        empty = 0
        while stretch:
            page = self._page(ask, stretch)
            yield page
            if page.rows:
                stretch, empty = stretch.above(str(page.rows[-1][KEY])), 0
            else:
                stretch, empty = stretch.narrower(ask.page_rows) if page.more else stretch.beyond(), empty + 1
            if empty > MAX_EMPTY_PAGES:
                msg = f"{empty:,} pages in a row have no row that the user may read: give it a role that may read them"
                raise AnswerNotUnderstood(msg, page.call)
            if stretch and self.http.remaining_s() <= self.http.timeouts.connect_s:
                msg = "the invocation has no time left for the next page"
                raise VendorUnreachable(msg, page.call)

    def _page(self, ask: TableAsk, stretch: _Stretch) -> _Page:
        """Return one page. Raises VendorError."""
        params = {
            "sysparm_query": stretch.query(ask.alternatives),
            "sysparm_fields": ",".join(dict.fromkeys([KEY, *ask.columns.values()])),
            "sysparm_display_value": "true" if ask.display_values else "false",
            "sysparm_exclude_reference_link": "true",
            "sysparm_limit": str(ask.page_rows),
        }
        if stretch.skip:
            params["sysparm_offset"] = str(stretch.skip)
        try:
            answer = readable(self.http.request("GET", TABLE, safe=True, ids={"table": ask.table}, params=params))
        except NotFound as error:
            if not _NO_ROWS.search(error.call.detail):
                raise
            return _Page([], more=False, call=error.call)
        _check_whole(answer)
        return _Page(answer.listed("result"), _more(answer, stretch.skip + ask.page_rows), answer.call)


def _reader(field: str) -> Callable[[Row], object]:
    """Return what reads a field of a row; ServiceNow leaves out what it does not know."""
    return lambda row: row.get(field)


def _order(key: str) -> str:
    """Return what a key is ordered by: the database compares letters alike, large or small."""
    return key.lower()


def _key_above(last: str, row: object, call: Call) -> str:
    """Return the key of *row*, which is above the *last* one. Raises AnswerNotUnderstood."""
    key = row.get(KEY) if isinstance(row, dict) else None
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        msg = f"a row has no {KEY} that could be one"
        raise AnswerNotUnderstood(msg, call)
    if _order(key) <= _order(last):
        msg = f"row {key} does not follow {last}: the instance keeps to neither {KEY}> nor ORDERBY{KEY}"
        raise AnswerNotUnderstood(msg, call)
    return key


def _check_whole(answer: Answer) -> None:
    """Refuse an answer that tells of an error beside its rows. Raises AnswerNotUnderstood."""
    said = answer.json()
    error = said.get("error") if isinstance(said, dict) else None
    if error:
        words = one_line(str(error.get("message") if isinstance(error, dict) else error), *answer.secrets)
        msg = f"the page came in part: {words}. Ask for fewer rows at once (page_rows), or by indexed fields"
        raise AnswerNotUnderstood(msg, answer.call)


def _more(answer: Answer, looked_at: int) -> bool:
    """Return whether either header says that rows follow the first *looked_at*, such that are hidden counted in."""
    total = answer.headers.get("x-total-count", "")
    counted = total.isascii() and total.isdigit() and len(total) < len(str(MAX_RECORDS)) * 2 and int(total) > looked_at
    return counted or address_of(answer.headers.get("link", ""), "next") is not None

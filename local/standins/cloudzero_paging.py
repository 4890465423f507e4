"""Pages at the CloudZero stand-in: by number and with addresses (openapi), by opaque cursors (live)."""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from local.standins.standin import Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from werkzeug.wrappers import Request

_BAD_REQUEST = 400


def numbered(items: Sequence[Any], request: Request, size: int) -> tuple[Sequence[Any], dict[str, Any]]:
    """Give the page that a request's `page` and `page_size` mean, and its `pagination`.

    Args:
        items: All items.
        request: The request.
        size: The items on a page, unless the request says.
    """
    number = int(request.args.get("page", 1))
    size = int(request.args.get("page_size", size))
    start = (number - 1) * size
    pagination: dict[str, Any] = {"total": len(items)}
    for name, other in (("previous", number - 1), ("next", number + 1)):
        if 0 < other <= math.ceil(len(items) / size):
            pagination[name] = f"{request.base_url}?{urlencode({'page': other, 'page_size': size})}"
    return items[start : start + size], pagination


@dataclass(frozen=True)
class _Opened:
    items: Sequence[Any]
    start: int
    size: int
    query: dict[str, list[str]]


class Cursors:
    """Cursors that were given out; what they page through is as it was then."""

    def __init__(self) -> None:
        self._opened: dict[str, _Opened] = {}

    def first(
        self, items: Sequence[Any], size: int, query: dict[str, list[str]]
    ) -> tuple[Sequence[Any], dict[str, Any]]:
        """Give the first page and its `pagination`; *query* is what the answer is to."""
        return self._page(_Opened(items, 0, size, query))

    def at(self, cursor: str, query: dict[str, list[str]]) -> tuple[Sequence[Any], dict[str, Any]]:
        """Give the page at a cursor and its `pagination`.

        Raises:
            Refusal: 400 for a cursor that was never given out (it must be URL-encoded), or for another query.
        """
        opened = self._opened.get(cursor)
        if opened is None:
            raise Refusal(_BAD_REQUEST, "The cursor is not known; was it URL-encoded?")
        if any(opened.query.get(name) != values for name, values in query.items()):
            raise Refusal(_BAD_REQUEST, "The cursor belongs to a query with other parameters.")
        return self._page(opened)

    def _page(self, opened: _Opened) -> tuple[Sequence[Any], dict[str, Any]]:
        items, start, size = opened.items, opened.start, opened.size
        after = self._open(opened, start + size) if start + size < len(items) else None
        before = self._open(opened, max(0, start - size)) if start else None
        page = items[start : start + size]
        return page, {
            "page_count": math.ceil(len(items) / size),
            "item_count": len(page),
            "total_count": len(items),
            "cursor": {
                "next_cursor": after,
                "previous_cursor": before,
                "has_next": after is not None,
                "has_previous": before is not None,
            },
        }

    def _open(self, opened: _Opened, start: int) -> str:
        # The vendor's cursors are base64. Here each has all characters that mean something else in an address.
        cursor = f"+/{secrets.token_urlsafe(12)}&=="
        self._opened[cursor] = _Opened(opened.items, start, opened.size, opened.query)
        return cursor

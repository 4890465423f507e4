"""Lists in pages, the next one named by `links.next`: an honest address, or on order one that is a trap."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from local.standins.standin import Call, Refusal

if TYPE_CHECKING:
    from local.standins.account import Config

_BAD_REQUEST = 400
_NAMES = ("127.0.0.1", "localhost")


def page(call: Call, items: list[dict[str, Any]], config: Config) -> dict[str, Any]:
    """Give the page of *items* that a call asks for.

    Args:
        call: A call of an operation that lists.
        items: The whole list.
        config: How large pages are, and which address the next one has.

    Raises:
        Refusal: 400, for a `page` that did not come from here.
    """
    start = _start(call)
    if config.list_page_size is None:
        return {"data": items[start:]}
    following = start + config.list_page_size
    more = following < len(items)
    if not more and config.next_link == "loop":
        following, more = 0, True
    return {
        "data": items[start : start + config.list_page_size],
        "links": {"next": _address(call, following, config) if more else None},
    }


def _start(call: Call) -> int:
    """Read where the page begins."""
    text = call.request.args.get("page")
    if text is None:
        return 0
    try:
        operation, start = base64.urlsafe_b64decode(text).decode().split(":")
        if operation == call.operation.id:
            return int(start)
    except ValueError:  # base64's and Unicode's errors are ValueErrors too
        pass
    raise Refusal(_BAD_REQUEST, "There is no such page; pages are named by links.next only.")


def _address(call: Call, start: int, config: Config) -> str:
    name = base64.urlsafe_b64encode(f"{call.operation.id}:{start}".encode()).decode()
    path = f"{call.request.path}?{urlencode({'page': name})}"
    host = call.request.host
    match config.next_link:
        case "path":
            return path
        case "other_host":
            # Another name of this very server: a client that follows is answered, and seen among the calls.
            former, port = host.rpartition(":")[::2]
            host = f"{_NAMES[former == _NAMES[0]]}:{port}"
    return f"{call.request.scheme}://{host}{path}"

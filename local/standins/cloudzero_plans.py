"""What people keep at CloudZero, at its stand-in: insights and budgets."""

from __future__ import annotations

import time
import uuid
from collections import defaultdict
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from werkzeug.wrappers import Response

from local.standins.cloudzero_json import dump, plain
from local.standins.cloudzero_paging import Cursors, numbered
from local.standins.standin import Call, Refusal, now

if TYPE_CHECKING:
    from collections.abc import Callable

    from local.standins.cloudzero_account import Account

_OK, _CREATED, _NO_CONTENT, _BAD_REQUEST, _NOT_FOUND = 200, 201, 204, 400, 404

Thing = dict[str, Any]
"""An insight or a budget, as the contract shows it."""


@dataclass(frozen=True)
class Sort:
    """One sort of thing that is kept."""

    name: str
    """`insight` or `budget`, as in addresses and members."""
    deleted_too: tuple[str, ...] = ()
    """Lists that the live answer to a deletion has beside the thing."""

    @property
    def plural(self) -> str:
        """The name of many."""
        return f"{self.name}s"

    @property
    def title(self) -> str:
        """The name in operationIds."""
        return self.name.capitalize()


INSIGHTS = Sort("insight", deleted_too=("comments",))
BUDGETS = Sort("budget")


class Plans:
    """The operations of one sort of thing.

    Args:
        account: Whose things.
        sort: Which sort.
    """

    def __init__(self, account: Account, sort: Sort) -> None:
        self._account = account
        self._sort = sort
        self.forget()

    def handlers(self) -> dict[str, Callable[[Call], Response]]:
        """Give the handler of each operation."""
        title = self._sort.title
        return {
            f"get{title}s": self.list,
            f"create{title}": self.create,
            f"getOne{title}": self.get,
            f"updateOne{title}": self.update,
            f"deleteOne{title}": self.delete,
        }

    def forget(self) -> None:
        """Drop all of them."""
        self._things: dict[str, dict[str, Thing]] = defaultdict(dict)
        self._cursors = Cursors()

    def holdings(self) -> list[Thing]:
        """Give them as `/_state` shows them, numbers as strings; those of a sandbox are not among them."""
        shown: list[Thing] = _with_numbers_as_strings([*self._things[""].values()])
        return shown

    # The operations.

    def list(self, call: Call) -> Response:
        """Give a page."""
        things = [*self._things[self._account.sandbox(call)].values()]
        size = self._account.config.page_items
        if not self._account.live:
            page, pagination = numbered(things, call.request, size)
            return _answer({"data": page, "pagination": pagination})
        asked = {name: call.request.args.getlist(name) for name in call.request.args if name != "cursor"}
        cursor = call.request.args.get("cursor")
        if cursor is None:
            page, pagination = self._cursors.first(things, int(call.request.args.get("limit", size)), asked)
        else:
            page, pagination = self._cursors.at(cursor, asked)
        return _answer({self._sort.plural: page, "pagination": pagination})

    def create(self, call: Call) -> Response:
        """Keep one more."""
        things = self._things[self._account.sandbox(call)]
        thing = {"id": str(uuid.uuid4()), **self._stamps(), **self._content(call)}
        self._check_name(things, thing)
        things[thing["id"]] = thing
        return _answer(self._wrapped(thing), _OK if self._account.live else _CREATED)

    def get(self, call: Call) -> Response:
        """Read one."""
        return _answer(self._wrapped(self._find(call)))

    def update(self, call: Call) -> Response:
        """Change what the body names (live), or all (openapi)."""
        things = self._things[self._account.sandbox(call)]
        before = self._find(call)
        made, changed = self._stamps()
        kept = before if self._account.live else {name: before[name] for name in ("id", made)}
        thing = {**kept, changed: self._stamps()[changed], **self._content(call)}
        self._check_name(things, thing)
        things[thing["id"]] = thing
        return _answer(self._wrapped(thing))

    def delete(self, call: Call) -> Response:
        """Drop one."""
        thing = self._find(call)
        del self._things[self._account.sandbox(call)][thing["id"]]
        if not self._account.live:
            return Response(status=_NO_CONTENT)
        return _answer({self._sort.name: {"id": thing["id"]}} | {name: [] for name in self._sort.deleted_too})

    # Parts of them.

    def _find(self, call: Call) -> Thing:
        key = call.parameters[f"{self._sort.name}_id"]
        thing = self._things[self._account.sandbox(call)].get(key)
        if thing is None:
            raise Refusal(_NOT_FOUND, f"There is no {self._sort.name} {key}.")
        return thing

    def _wrapped(self, thing: Thing) -> dict[str, Thing]:
        return {self._sort.name if self._account.live else "data": thing}

    def _stamps(self) -> dict[str, str]:
        """Give the times of creation and change."""
        if self._account.live:
            return dict.fromkeys(("created", "last_updated"), f"{time.time():.6f}")
        return dict.fromkeys(("created_at", "updated_at"), now())

    def _content(self, call: Call) -> Thing:
        """Give what the body says, and what the vendor adds."""
        content: Thing = dict(call.body)
        if not self._account.live:
            return content
        if isinstance(content.get("cost_impact"), Decimal):
            content["cost_impact"] = plain(content["cost_impact"])
        added = {"cost_type": "real_cost", "granularity": "monthly"} if self._sort is BUDGETS else {}
        return content | added

    def _check_name(self, things: dict[str, Thing], thing: Thing) -> None:
        """Refuse a second budget of one name in one View (live)."""
        if not self._account.live or self._sort is not BUDGETS:
            return
        for other in things.values():
            same = other["name"] == thing["name"] and other["view"] == thing["view"]
            if same and other["id"] != thing["id"]:
                raise Refusal(_BAD_REQUEST, "The View has a budget of this name.", "/name")


def _answer(body: object, status: int = _OK) -> Response:
    return Response(dump(body), status=status, content_type="application/json")


def _with_numbers_as_strings(value: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
    if isinstance(value, Decimal):
        return plain(value)
    if isinstance(value, dict):
        return {name: _with_numbers_as_strings(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_with_numbers_as_strings(item) for item in value]
    return value

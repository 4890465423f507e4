"""A strict stand-in for ServiceNow: the Table API, read only, with the habits that its readers stumble over.

In process, for tests:

    with ServiceNowStandIn({"cmdb_ci_business_app": [{"name": "Payments"}]}) as server:
        httpx.get(f"{server.api_url}/api/now/table/cmdb_ci_business_app", auth=("relay", "password"))

As a process: `python -m local.standins.servicenow --port N --token T ...`; it prints a line of JSON with its address
when it is ready, and ends on SIGTERM.

`POST /_tables` with `{"<table>": [<row>, ...]}` changes what it holds while it runs. The operation is named by
`docs/openapi/servicenow.yaml`; rows are in `servicenow_rows`, queries in `servicenow_query`.
"""

from __future__ import annotations

import argparse
import hashlib
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from local.standins.cloudzero_document import SampledDocument
from local.standins.servicenow_query import Query, parse
from local.standins.servicenow_rows import Table, View
from local.standins.standin import Call, Refusal, StandIn, answer, serve_until_told

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from werkzeug.wrappers import Request, Response

DOCUMENT = "servicenow.yaml"
TABLE = "cmdb_ci_business_app"
TOKEN = "standin-servicenow-token"  # noqa: S105 - made up, good at the stand-in only
USERS = {"relay": "password"}

_APPS = "auth billing catalog checkout fraud identity ledger orders payments reports search shipping"
TABLES = {
    TABLE: [
        {
            "name": app.title(),
            "number": f"APM{number:07}",
            "u_app_id": f"app-{app}-prod",
            "u_cost_center": f"CC-{1000 + number}",
            "operational_status": {"value": "1", "display_value": "Operational"},
            "owned_by": {"name": f"Team {app.title()}", "email": f"{app}@example.com"},
        }
        for number, app in enumerate(_APPS.split(), start=1)
    ]
}
"""What is there when nothing else is said."""

_HOST = "https://instance.service-now.com"
_BAD_REQUEST, _UNAUTHORIZED, _NOT_FOUND = 400, 401, 404
_NOT_AUTHENTICATED, _NO_RECORD = "User Not Authenticated", "No Record found"
_DETAILS = {
    _NOT_AUTHENTICATED: "Required to provide Auth information",
    _NO_RECORD: "Records matching query not found.",
}
_CANCELLED = "Transaction cancelled: maximum execution time exceeded"
_CHECK_LOGS = "Check logs for error trace or enable glide.rest.debug property to verify REST request processing"
_GIVEN_TABLES = TypeAdapter(dict[str, list[dict[str, Any]]])


class Config(BaseModel):
    """The behaviour that `/_config` changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    users: dict[str, str] = Field(default=USERS, repr=False)
    """Passwords by name."""
    tokens: tuple[str, ...] = Field(default=(TOKEN,), repr=False)
    default_limit: int = Field(default=10_000, ge=1)
    """Rows on a page, unless the request says."""
    empty: Literal["200", "404"] = "200"
    """The status of an answer without rows; the older habit is 404."""
    invalid_query: Literal["ignored", "no_rows"] = "ignored"
    """What a part of a query that is not understood does; an instance can be set to give no rows for it."""
    cancel_after_rows: int | None = Field(default=None, ge=0)
    """Of a page with more rows only so many come, with an error behind them, and 200."""
    headers: bool = True
    """Whether `Link` and `X-Total-Count` come through; some proxies take them away."""
    bogus_prev: bool = True
    """Whether the first of several pages has a `prev`, with a negative offset."""
    shuffled: bool = False
    """Whether the rows of a query without ORDERBY have another order for every page."""
    hidden: frozenset[str] = frozenset()
    """`sys_id` of rows that access rules hide: taken from their page, and counted all the same."""


class ServiceNowStandIn(StandIn):
    """A ServiceNow instance on loopback.

    Args:
        tables: Rows by table; a row with a true `_hidden` is hidden by access rules.
        users: Passwords by name (Basic).
        tokens: Tokens that are known (Bearer).
        port: The port, or 0 for a free one.
        **config: The behaviour at the start, as in `/_config`.
    """

    def __init__(
        self,
        tables: Mapping[str, Sequence[Mapping[str, Any]]] = TABLES,
        *,
        users: Mapping[str, str] = USERS,
        tokens: Sequence[str] = (TOKEN,),
        port: int = 0,
        **config: Any,  # noqa: ANN401 - checked by Config
    ) -> None:
        # What may be refused comes before the server, which would stay behind.
        self._first_config = Config.model_validate({"users": users, "tokens": tokens, **config})
        self._first_tables = {name: Table(rows) for name, rows in tables.items()}
        self._config = self._first_config
        self.forget()
        super().__init__(SampledDocument(DOCUMENT, {_HOST: ""}), port)

    @property
    def api_url(self) -> str:
        """The instance's address."""
        return self.url

    def set_table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Hold these rows in a table from now on."""
        table = Table(rows)
        with self.lock:
            self._tables[name] = table

    def handlers(self) -> Mapping[str, Callable[[Call], Response]]:
        """Give the handler of the operation."""
        return {"listRecords": self._list}

    def authorize(self, request: Request) -> None:
        """Let known users and tokens pass."""
        given = request.authorization
        with self.lock:
            config = self._config
        if given is not None and given.type == "basic" and given.username in config.users:
            known = config.users[given.username] == given.password
        else:
            known = given is not None and given.type == "bearer" and given.token in config.tokens
        if not known:
            raise Refusal(_UNAUTHORIZED, _NOT_AUTHENTICATED)

    def holdings(self) -> dict[str, Any]:
        """Give how many rows each table has, what was asked, and which parts of queries were not understood."""
        return {
            "tables": {name: len(table.rows) for name, table in self._tables.items()},
            "asked": list(self._asked),
            "ignored": list(self._ignored),
        }

    def configure(self, wanted: object) -> None:
        """Change what *wanted* names, and leave the rest."""
        if not isinstance(wanted, dict):
            raise ValueError("the configuration is an object")  # noqa: TRY004 - pydantic's errors are ValueErrors too
        with self.lock:
            self._config = Config.model_validate(self._config.model_dump() | wanted)

    def configuration(self) -> dict[str, Any]:
        """Give the behaviour, without users and tokens."""
        with self.lock:
            return self._config.model_dump(mode="json", exclude={"users", "tokens"})

    def forget(self) -> None:
        """Return to the start."""
        self._config = self._first_config
        self._tables = dict(self._first_tables)
        self._asked: list[dict[str, str]] = []
        self._ignored: list[str] = []
        self._last: tuple[Table, str, Query, list[Mapping[str, Any]]] | None = None
        """What was found last: a reader pages through it, and would else wait for the whole table again and again."""

    def control(self, request: Request) -> Response | None:
        """Answer `POST /_tables`: hold the rows that it has, and leave other tables."""
        if (request.method, request.path) != ("POST", "/_tables"):
            return None
        for name, rows in _GIVEN_TABLES.validate_json(request.get_data()).items():
            self.set_table(name, rows)
        return answer(self.holdings()["tables"])

    def _list(self, call: Call) -> Response:
        """Answer a page of a table."""
        given, config, name = call.request.args, self._config, call.parameters["table"]
        self._asked.append({"table": name, **given})
        table = self._tables.get(name)
        if table is None:
            raise Refusal(_BAD_REQUEST, f"Invalid table {name}")
        limit, offset = int(given.get("sysparm_limit", config.default_limit)), int(given.get("sysparm_offset", 0))
        found = self._found(table, given.get("sysparm_query", ""), offset)
        page = found[offset : offset + limit]
        if not page and config.empty == "404":
            raise Refusal(_NOT_FOUND, _NO_RECORD)
        view = View(
            fields=[field for field in given.get("sysparm_fields", "").split(",") if field],
            display=given.get("sysparm_display_value", "false"),  # type: ignore[arg-type] # the document's enum
            links=given.get("sysparm_exclude_reference_link") != "true",
            base=f"{call.request.url_root}api/now/table/sys_user",
        )
        rows = [view.row(row) for row in page if row["sys_id"] not in table.hidden | config.hidden]
        body: dict[str, Any] = {"result": rows}
        if config.cancel_after_rows is not None and len(rows) > config.cancel_after_rows:
            error = {"message": _CANCELLED, "detail": f"{_CANCELLED} {_CHECK_LOGS}"}
            body = {"result": rows[: config.cancel_after_rows], "error": error, "status": "failure"}
        response = answer(body)
        if config.headers:
            response.headers["X-Total-Count"] = str(len(found))
            if len(found) > len(page):
                response.headers["Link"] = _links(call.request, len(found), limit, offset, bogus=config.bogus_prev)
        return response

    def _found(self, table: Table, written: str, offset: int) -> list[Mapping[str, Any]]:
        """Give all rows that a query finds, those that are hidden too."""
        if self._last is None or self._last[:2] != (table, written):
            query = parse(written, table.fields)
            self._last = table, written, query, query.find(table.rows)
        query, found = self._last[2:]
        self._ignored += query.ignored
        if query.ignored and self._config.invalid_query == "no_rows":
            return []
        if self._config.shuffled and not query.orders:
            return sorted(found, key=lambda row: hashlib.sha256(f"{offset}{row['sys_id']}".encode()).digest())
        return found

    def _refuse(self, refusal: Refusal) -> Response:
        """Answer with an error as ServiceNow does."""
        message = " ".join(detail for detail, _ in refusal.details)
        return answer(
            {"error": {"message": message, "detail": _DETAILS.get(message)}, "status": "failure"}, refusal.status
        )


def _links(request: Request, total: int, limit: int, offset: int, *, bogus: bool) -> str:
    """Name the pages around one; commas within the addresses stand as they are, like those between them."""
    offsets = {"first": 0, "prev": max(0, offset - limit), "next": offset + limit, "last": (total - 1) // limit * limit}
    if offset == 0 and bogus:
        offsets["prev"] = -1
    elif offset == 0:
        del offsets["prev"]
    if offset + limit >= total:
        del offsets["next"]
    kept = [
        f"{name}={quote(value, safe=',')}"
        for name, value in request.args.items()
        if name not in {"sysparm_limit", "sysparm_offset"}
    ]
    address = f"{request.base_url}?{''.join(f'{each}&' for each in kept)}sysparm_limit={limit}"
    return ",".join(f'<{address}&sysparm_offset={at}>;rel="{name}"' for name, at in offsets.items())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run as a process."""
    parser = argparse.ArgumentParser(prog="python -m local.standins.servicenow", description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=0, help="0 (the default) takes a free one")
    parser.add_argument("--user", action="append", metavar="NAME:PASSWORD", help="a user; may be repeated")
    parser.add_argument("--token", action="append", help="a bearer token; may be repeated")
    given = parser.parse_args(arguments)
    standin = ServiceNowStandIn(
        users=dict(each.split(":", 1) for each in given.user) if given.user else USERS,
        tokens=given.token or (TOKEN,),
        port=given.port,
    )
    serve_until_told(standin, api_url=standin.api_url)


if __name__ == "__main__":
    main()

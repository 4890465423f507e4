"""A strict stand-in for Backstage: the catalog's entities by query, in pages that cursors name.

In process, for tests:

    with BackstageStandIn() as server:
        httpx.get(f"{server.api_url}/api/catalog/entities/by-query", headers={"Authorization": f"Bearer {TOKEN}"})

As a process: `python -m local.standins.backstage --port N --token T ...`; it prints a line of JSON with its address
when it is ready, and ends on SIGTERM.

`POST /_entities` with `[<entity>, ...]` changes what it holds while it runs. The operation is named by
`docs/openapi/backstage.yaml`; filters and the parts of entities are in `backstage_catalog`.
"""

from __future__ import annotations

import argparse
import base64
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from local.standins.backstage_catalog import Entity, catalog, find
from local.standins.cloudzero_document import SampledDocument
from local.standins.standin import Call, Refusal, StandIn, answer, serve_until_told

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from werkzeug.wrappers import Request, Response

DOCUMENT = "backstage.yaml"
TOKEN = "standin-backstage-token"  # noqa: S105 - made up, good at the stand-in only

_COMPONENTS = "auth billing catalog checkout fraud identity ledger orders payments reports search shipping"
ENTITIES = [
    {
        "apiVersion": "backstage.io/v1alpha1",
        "kind": "Component",
        "metadata": {
            "name": f"{name}-service",
            "annotations": {"example.com/app-id": f"app-{name}-prod", "example.com/cost-center": f"CC-{1000 + number}"},
            "tags": ["python"],
        },
        "spec": {
            "type": "service",
            "lifecycle": "production",
            "owner": f"team-{name}" if number % 2 else f"group:default/team-{name}",
        },
    }
    for number, name in enumerate(_COMPONENTS.split(), start=1)
]
"""What is there when nothing else is said; owners are short or whole, as their authors wrote them."""

_HOST = "https://backstage.example.com"
_BAD_REQUEST, _UNAUTHORIZED = 400, 401
_NAMES = {_BAD_REQUEST: "InputError", _UNAUTHORIZED: "AuthenticationError", 404: "NotFoundError"}
_GIVEN_ENTITIES = TypeAdapter(list[dict[str, Any]])


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Config(_Strict):
    """The behaviour that `/_config` changes."""

    tokens: tuple[str, ...] = Field(default=(TOKEN,), repr=False)
    default_limit: int = Field(default=20, ge=1)
    """Entities on a page, unless the request says; newer catalogs have 200."""


class _Cursor(_Strict):
    """Where a page begins, and all that the first request said."""

    filters: list[str]
    order: str
    """A path, or empty: then the order is that of the uids."""
    downwards: bool
    total: int
    """Counted once, for the first page."""
    first: tuple[str | None, str] | None = None
    """The place of the first entity of all, when there was a page before."""
    beside: tuple[str | None, str] | None = None
    """The place next to the page; None for the first page."""
    before: bool = False
    """Whether the page is the one before that place."""

    def place(self, entity: Entity) -> tuple[str | None, str]:
        """Say where an entity stands."""
        return entity.term(self.order) if self.order else "", entity.uid

    def text(self, **changed: object) -> str:
        """Write it down, for one side of the page."""
        return base64.b64encode(self.model_copy(update=changed).model_dump_json().encode()).decode()


class BackstageStandIn(StandIn):
    """A Backstage backend on loopback.

    Args:
        entities: What the catalog holds.
        tokens: Tokens that are known.
        port: The port, or 0 for a free one.
        **config: The behaviour at the start, as in `/_config`.
    """

    def __init__(
        self,
        entities: Sequence[Mapping[str, Any]] = ENTITIES,
        *,
        tokens: Sequence[str] = (TOKEN,),
        port: int = 0,
        **config: Any,  # noqa: ANN401 - checked by Config
    ) -> None:
        # What may be refused comes before the server, which would stay behind.
        self._first_config = Config.model_validate({"tokens": tokens, **config})
        self._first_entities = catalog(entities)
        self._config = self._first_config
        self.forget()
        super().__init__(SampledDocument(DOCUMENT, {_HOST: ""}), port)

    @property
    def api_url(self) -> str:
        """The backend's address."""
        return self.url

    def set_entities(self, entities: Sequence[Mapping[str, Any]]) -> None:
        """Hold these entities from now on, and no other."""
        known = catalog(entities)
        with self.lock:
            self._entities = known

    def handlers(self) -> Mapping[str, Callable[[Call], Response]]:
        """Give the handler of the operation."""
        return {"getEntitiesByQuery": self._query}

    def authorize(self, request: Request) -> None:
        """Let known tokens pass."""
        given = request.authorization
        if given is None or given.type != "bearer":
            raise Refusal(_UNAUTHORIZED, "Missing credentials")
        with self.lock:
            if given.token not in self._config.tokens:
                raise Refusal(_UNAUTHORIZED, "Illegal token")

    def holdings(self) -> dict[str, Any]:
        """Give how many entities there are, and what was asked."""
        return {"entities": len(self._entities), "asked": list(self._asked)}

    def configure(self, wanted: object) -> None:
        """Change what *wanted* names, and leave the rest."""
        if not isinstance(wanted, dict):
            raise ValueError("the configuration is an object")  # noqa: TRY004 - pydantic's errors are ValueErrors too
        with self.lock:
            self._config = Config.model_validate(self._config.model_dump() | wanted)

    def configuration(self) -> dict[str, Any]:
        """Give the behaviour, without tokens."""
        with self.lock:
            return self._config.model_dump(mode="json", exclude={"tokens"})

    def forget(self) -> None:
        """Return to the start."""
        self._config = self._first_config
        self._entities = self._first_entities
        self._asked: list[dict[str, list[str]]] = []

    def control(self, request: Request) -> Response | None:
        """Answer `POST /_entities`: hold what it has, and nothing else."""
        if (request.method, request.path) != ("POST", "/_entities"):
            return None
        self.set_entities(_GIVEN_ENTITIES.validate_json(request.get_data()))
        return answer({"entities": self.holdings()["entities"]})

    def _query(self, call: Call) -> Response:
        """Answer a page."""
        given = call.request.args
        self._asked.append(given.to_dict(flat=False))
        limit = int(given.get("limit", self._config.default_limit))
        # With a cursor nothing else of the query counts, except how much of what is to be shown.
        cursor = _read(given["cursor"]) if "cursor" in given else self._begin(call.request)
        rows = _beside(cursor, find(self._entities, cursor.filters))
        more = limit > 0 and (cursor.before or len(rows) > limit)
        page = rows[max(0, len(rows) - limit) :] if cursor.before else rows[:limit]
        info = {}
        if page:
            first, last = cursor.place(page[0]), cursor.place(page[-1])
            beginning = cursor.first or first
            if more:
                info["nextCursor"] = cursor.text(first=beginning, beside=last, before=False)
            if cursor.first and first != cursor.first:
                info["prevCursor"] = cursor.text(beside=first, before=True)
        fields = [field.strip() for field in given.get("fields", "").split(",") if field.strip()]
        return answer({"items": [entity.part(fields) for entity in page], "totalItems": cursor.total, "pageInfo": info})

    def _begin(self, request: Request) -> _Cursor:
        """Read a query that has no cursor; of several orders only the first counts."""
        filters = request.args.getlist("filter")
        order, _, direction = request.args.get("orderField", "").partition(",")
        return _Cursor(
            filters=filters, order=order, downwards=direction == "desc", total=len(find(self._entities, filters))
        )

    def _refuse(self, refusal: Refusal) -> Response:
        """Answer with an error as Backstage does, but for the request, which it repeats."""
        message = "; ".join(detail for detail, _ in refusal.details)
        error = {"name": _NAMES.get(refusal.status, "Error"), "message": message}
        return answer({"error": error, "response": {"statusCode": int(refusal.status)}}, refusal.status)


def _read(text: str) -> _Cursor:
    try:
        return _Cursor.model_validate_json(base64.b64decode(text, validate=True))
    except (ValueError, ValidationError):
        raise Refusal(_BAD_REQUEST, "Malformed cursor, could not be parsed") from None


def _beside(cursor: _Cursor, entities: Sequence[Entity]) -> list[Entity]:
    """Give the entities of a cursor's side, in order.

    Those without a value to order by come last, and no cursor leads to them: what is not on the first page is lost.
    """
    places = [(cursor.place(entity), entity) for entity in entities]
    known = [((value, uid), entity) for (value, uid), entity in places if value is not None]
    known.sort(key=itemgetter(0), reverse=cursor.downwards)
    if cursor.beside is None:
        return [entity for _, entity in known] + [entity for (value, _), entity in places if value is None]
    value, uid = cursor.beside
    if value is None:
        return []
    at, above = (value, uid), cursor.before == cursor.downwards
    return [entity for place, entity in known if place != at and (place > at) == above]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run as a process."""
    parser = argparse.ArgumentParser(prog="python -m local.standins.backstage", description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=0, help="0 (the default) takes a free one")
    parser.add_argument("--token", action="append", help="a token; may be repeated")
    given = parser.parse_args(arguments)
    standin = BackstageStandIn(tokens=given.token or (TOKEN,), port=given.port)
    serve_until_told(standin, api_url=standin.api_url)


if __name__ == "__main__":
    main()

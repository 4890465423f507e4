"""Things of one kind that organizations hold at the Infracost stand-in, in the shape of JSON:API."""

from __future__ import annotations

import copy
import uuid
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from werkzeug.wrappers import Response

from local.standins.paging import page
from local.standins.standin import Call, Refusal, answer, now

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from local.standins.account import Account

_CREATED, _NO_CONTENT, _BAD_REQUEST, _NOT_FOUND = 201, 204, 400, 404
_UNDOCUMENTED = "someNewFlag"


@dataclass(frozen=True)
class Thing:
    """One of the things, as it is at a moment."""

    attributes: dict[str, Any]
    """Under the contract's names; never changed in place."""
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    created_at: str = field(default_factory=now)
    updated_at: str = field(default_factory=now)


def with_undocumented(attributes: dict[str, Any]) -> dict[str, Any]:
    """Add a member that the document does not know; the one that is there stays, for whoever sends it back."""
    return {_UNDOCUMENTED: False, **attributes}


class Collection(ABC):
    """The operations of one kind of thing.

    Args:
        account: Whose things.
        start: Attributes of the things at the start, by slug of their organization; `id` may be among them.
    """

    kind: ClassVar[str]
    """Their `type`, and the last step of their address."""
    noun: ClassVar[str]
    """What one is called in an error."""
    parameter: ClassVar[str]
    """The path's parameter that holds the id."""
    droppable: ClassVar[Literal["policy", "guardrail"]]
    """The `drop_write` that means them."""
    defaults: ClassVar[Mapping[str, Any]]
    """Attributes of a new one that does not name them."""

    def __init__(self, account: Account, start: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        self._account = account
        self._start = start
        self._things: dict[str, dict[str, Thing]] = {}
        self.dangers: list[dict[str, str]] = []
        """Every write that was accepted and does what nobody wants, in the order of time."""
        self.forget()

    def forget(self) -> None:
        """Return to the start."""
        self.dangers = []
        self._things = {slug: {} for slug in self._account.slugs()}
        for slug, several in self._start.items():
            if slug not in self._things:
                raise ValueError(f"no organization has the slug {slug!r}")
            for given in several:
                attributes = {**self.defaults, **copy.deepcopy(dict(given))}
                key = attributes.pop("id", None) or str(uuid.uuid4())
                self._things[slug][key] = Thing(self.completed(attributes), key)

    def holdings(self) -> dict[str, list[dict[str, Any]]]:
        """Give the things by slug, as `/_state` shows them: under the contract's names, whatever answers say."""
        return {
            slug: [
                {
                    "id": thing.id,
                    "createdAt": thing.created_at,
                    "updatedAt": thing.updated_at,
                    "attributes": thing.attributes,
                }
                for thing in things.values()
            ]
            for slug, things in self._things.items()
        }

    # What a kind says of itself.

    @abstractmethod
    def dangers_in(self, attributes: Mapping[str, Any]) -> list[str]:
        """Say what a thing does that nobody wants, although it is accepted."""

    def check(self, wanted: Mapping[str, Any]) -> None:
        """Raise a `Refusal` for attributes that the document allows and the vendor does not."""
        del wanted  # nothing, unless a kind says otherwise

    def completed(self, attributes: dict[str, Any]) -> dict[str, Any]:
        """Add what the vendor adds."""
        return with_undocumented(attributes)

    def changed(self, former: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Give the attributes after a change."""
        return {**former, **wanted}

    def shown(self, thing: Thing) -> dict[str, Any]:
        """Give a thing as the API shows it."""
        times = {"createdAt": thing.created_at, "updatedAt": thing.updated_at}
        return {"id": thing.id, "type": self.kind, "attributes": {**thing.attributes, **times}}

    # The operations.

    def list(self, call: Call) -> Response:
        """List an organization's things."""
        slug = self._account.admit_to_organization(call, write=False).slug
        return answer(page(call, [self.shown(thing) for thing in self._things[slug].values()], self._account.config))

    def create(self, call: Call) -> Response:
        """Create a thing."""
        slug = self._account.admit_to_organization(call, write=True).slug
        wanted = call.body["data"]["attributes"]
        self.check(wanted)
        thing = Thing(self.completed({**self.defaults, **wanted}))
        self._keep(slug, thing)
        return answer({"data": self.shown(thing)}, _CREATED)

    def get(self, call: Call) -> Response:
        """Read a thing."""
        _, thing = self._find(call, write=False)
        return answer({"data": self.shown(thing)})

    def update(self, call: Call) -> Response:
        """Change the attributes that are named."""
        slug, thing = self._find(call, write=True)
        data = call.body["data"]
        if data.get("id", thing.id) != thing.id:
            raise Refusal(_BAD_REQUEST, "The id is not the one in the address.", "/data/id")
        self.check(data["attributes"])
        attributes = self.completed(self.changed(thing.attributes, data["attributes"]))
        after = Thing(attributes, thing.id, thing.created_at)
        config = self._account.config
        if config.drop_write == self.droppable:
            self._account.config = config.model_copy(update={"drop_write": None})
        else:
            self._keep(slug, after)
        return answer({"data": self.shown(after)})

    def delete(self, call: Call) -> Response:
        """Delete a thing."""
        slug, thing = self._find(call, write=True)
        del self._things[slug][thing.id]
        return Response(status=_NO_CONTENT)

    # What they stand on.

    def _find(self, call: Call, *, write: bool) -> tuple[str, Thing]:
        slug = self._account.admit_to_organization(call, write=write).slug
        thing = self._things[slug].get(call.parameters[self.parameter])
        if thing is None:
            raise Refusal(_NOT_FOUND, f"The {self.noun} does not exist.")
        return slug, thing

    def _keep(self, slug: str, thing: Thing) -> None:
        self._things[slug][thing.id] = thing
        self.dangers += [
            {"organization": slug, "kind": self.kind, "id": thing.id, "time": thing.updated_at, "detail": detail}
            for detail in self.dangers_in(thing.attributes)
        ]

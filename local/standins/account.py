"""Who may do what at the Infracost stand-in: enterprise, organizations, tokens; and the behaviour on order."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from local.standins.standin import Call, Refusal, answer, now

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from werkzeug.wrappers import Request, Response

    from local.standins.price_books import PriceBooks

_CLI_TOKEN = "ico-"  # noqa: S105 - a prefix: what tokens of the command line tool begin with
_UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _BAD_REQUEST = 401, 403, 404, 400


class Token(BaseModel):
    """A token, and what it may do."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    token: str = Field(min_length=1, repr=False)
    role: Literal["orgAdmin", "orgEditor", "orgViewer"] = "orgAdmin"
    organization: str | None = None
    """The organization that the token belongs to; None is the enterprise's primary one (see `tokens_reach_all`)."""


class Config(BaseModel):
    """The behaviour that `/_config` changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    process_s: float = Field(default=0.3, ge=0)
    """How long an ingestion takes at least, in seconds."""
    polls_needed: int | None = Field(default=None, ge=1)
    """When set, an ingestion ends at this many reads of the book instead of after a time."""
    url_expiry_s: int = Field(default=900, ge=0)
    """For how long an upload address can be used, in seconds."""
    tokens: tuple[Token, ...] = ()
    tokens_reach_all: bool = True
    """Whether a token that names no organization is good for what each of them has, not only for the primary one."""
    final_status: str | None = Field(default=None, min_length=1)
    """How the next book to be ingested ends, whatever its files say; once."""
    status_message: str = ""
    """The statusMessage that goes with `final_status`."""
    never_finish: bool = False
    """While set, no book leaves PROCESSING."""
    patch_merges_tags: bool = False
    """Whether the tags in a change of a tagging policy are merged by key, instead of replacing what was there."""
    guardrail_spelling: Literal["contract", "seen"] = "contract"
    """Whether answers name a guardrail's type, scope and percentage as the contract does, or as was seen."""
    list_page_size: int | None = Field(default=None, ge=1)
    """How many things a page of any list has at most; None: one page, without `links`."""
    next_link: Literal["absolute", "path", "other_host", "loop"] = "absolute"
    """How `links.next` looks; `other_host` is another name of this server, `loop` goes back to the first page."""
    properties_limit_bytes: int = Field(default=5_000_000, ge=0)
    """The largest file of custom properties."""
    drop_write: Literal["policy", "guardrail"] | None = None
    """The next change of such a thing is answered as if it were kept, and is not; once."""


@dataclass
class Organization:
    """An organization of the enterprise."""

    id: str
    name: str
    created_at: str = field(default_factory=now)
    updated_at: str = field(default_factory=now)
    price_book: str | None = None
    activations: list[dict[str, str | None]] = field(default_factory=list)
    """Each change of the price book, with its time."""

    @property
    def slug(self) -> str:
        """The name as it stands in addresses."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")

    def shown(self) -> dict[str, Any]:
        """Give the organization as the API shows it."""
        return {
            "id": self.id,
            "name": self.name,
            "slug": self.slug,
            "customPriceBookId": self.price_book,
            "createdAt": self.created_at,
            "updatedAt": self.updated_at,
        }


class Account:
    """One enterprise with its organizations and tokens.

    Args:
        enterprise: The enterprise's id.
        primary_organization: The organization whose admins govern the enterprise.
        organizations: Name of each organization by id.
        config: The behaviour at the start.

    Raises:
        ValueError: Two organizations' names make the same slug.
    """

    def __init__(
        self, enterprise: str, primary_organization: str, organizations: Mapping[str, str], config: Config
    ) -> None:
        self.enterprise = enterprise
        self.primary_organization = primary_organization
        self._names = {primary_organization: "Primary"} | dict(organizations)
        self._first_config = config
        self.forget()
        if len(set(self.slugs())) < len(self._names):
            raise ValueError(f"two organizations have the same slug: {self.slugs()}")

    def forget(self) -> None:
        """Return to the start."""
        self.config = self._first_config
        self.organizations = {key: Organization(key, name) for key, name in self._names.items()}

    def token(self, request: Request) -> Token:
        """Find the token of a request.

        Raises:
            Refusal: 401, when there is none or it is not known.
        """
        scheme, _, text = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not text:
            raise Refusal(_UNAUTHORIZED, "A service account token is needed.")
        if text.startswith(_CLI_TOKEN):
            raise Refusal(_UNAUTHORIZED, "This is a CLI token; a service account token is needed.")
        for known in self.config.tokens:
            if known.token == text:
                return known
        raise Refusal(_UNAUTHORIZED, "The token is not valid.")

    def admit(self, call: Call) -> None:
        """Let only an orgAdmin of the enterprise's primary organization pass.

        Raises:
            Refusal: 404 for an enterprise that is not known, 403 for any other token.
        """
        if call.parameters.get("enterpriseId", self.enterprise) != self.enterprise:
            raise Refusal(_NOT_FOUND, "The enterprise does not exist.")
        token = self.token(call.request)
        home = token.organization or self.primary_organization
        if token.role != "orgAdmin" or home != self.primary_organization:
            raise Refusal(_FORBIDDEN, "The token needs the orgAdmin role in the enterprise's primary organization.")

    def slugs(self) -> list[str]:
        """Name the organizations as they stand in addresses."""
        return [each.slug for each in self.organizations.values()]

    def admit_to_organization(self, call: Call, *, write: bool) -> Organization:
        """Let only tokens of the organization in the address pass; an orgViewer's only to read.

        Raises:
            Refusal: 404 for a slug that is not known, 403 for any other token.
        """
        slug = call.parameters["orgSlug"]
        organization = next((each for each in self.organizations.values() if each.slug == slug), None)
        if organization is None:
            raise Refusal(_NOT_FOUND, "The organization does not exist.")
        token = self.token(call.request)
        reaches_all = token.organization is None and self.config.tokens_reach_all
        if not reaches_all and (token.organization or self.primary_organization) != organization.id:
            raise Refusal(_FORBIDDEN, "The token belongs to another organization.")
        if write and token.role == "orgViewer":
            raise Refusal(_FORBIDDEN, "The token needs the role orgAdmin or orgEditor.")
        return organization

    def users_of(self, price_book: str) -> list[str]:
        """Name the organizations that use a price book."""
        return [each.id for each in self.organizations.values() if each.price_book == price_book]


class Organizations:
    """The organizations' operations.

    Args:
        account: Whose organizations.
        books: The price books that they may use.
    """

    def __init__(self, account: Account, books: PriceBooks) -> None:
        self._account = account
        self._books = books

    def handlers(self) -> dict[str, Callable[[Call], Response]]:
        """Give the handler of each operation."""
        return {"updateOrganization": self.update}

    def update(self, call: Call) -> Response:
        """Choose the price book of an organization."""
        self._account.admit(call)
        organization = self._account.organizations.get(call.parameters["organizationId"])
        if organization is None:
            raise Refusal(_NOT_FOUND, "The organization does not exist.")
        wanted = call.body["customPriceBookId"]
        if wanted is not None:
            book = self._books.held(wanted)
            if book is None:
                raise Refusal(_BAD_REQUEST, "The price book does not exist in this enterprise.", "/customPriceBookId")
            if book.status != "SUCCESS":
                detail = f"The price book is {book.status}; only one that is SUCCESS can be used."
                raise Refusal(_BAD_REQUEST, detail, "/customPriceBookId")
        organization.price_book = wanted
        organization.updated_at = now()
        organization.activations.append({"time": organization.updated_at, "customPriceBookId": wanted})
        return answer({"data": organization.shown()})

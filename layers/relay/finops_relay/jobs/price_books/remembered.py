"""What a price-book delivery and its target remember in the ledger, beyond what every delivery does."""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic import Field, SecretStr, field_serializer

from finops_relay.delivery.receipt import Frozen

KIND = "price-books"
"""Of the deliveries, their receipts and their messages."""

MAX_BOOKS = 500
"""Books of ours that a target remembers; an item of the ledger holds 400 KB. Older ones are never deleted by us."""


class Slot(Frozen):
    """A file slot at the vendor that is being filled."""

    seq: int
    file_id: str
    url: SecretStr
    """Pre-signed: lets a crash in the middle of an upload redo one file instead of the whole book."""

    @field_serializer("url", when_used="always")
    def _kept(self, url: SecretStr) -> str:
        """Write the address itself: the ledger is encrypted, and nothing else is made from this model."""
        return url.get_secret_value()


class Work(Frozen):
    """How far a price-book delivery is. Kept as ``Delivery.work``."""

    provider: str
    """``aws`` or ``azure``."""
    enterprise_id: str
    slug: str
    organizations: tuple[str, ...] = ()
    activate: bool = True
    keep_unused: int | None = None
    currency: str = ""
    mends: str = ""
    """The delivery whose rejected rows this one mends."""
    rollback: bool = False
    rollback_to: str = ""
    """The book to go back to; empty means each organization's former one."""
    step: str = "check"
    book_id: str = ""
    slot: Slot | None = Field(default=None, repr=False)
    orphans: tuple[str, ...] = ()
    """Books that this delivery began and gave up."""
    restarts: int = 0
    suspects: tuple[str, ...] = ()
    """Empty books at the vendor that we do not know, seen after answers to "create price book" were lost."""
    polls: int = 0
    watched_s: float = 0.0
    """Seconds waited between looks at the ingestion."""
    to_activate: dict[str, str] = Field(default_factory=dict)
    """Organization -> book."""
    activated: dict[str, str] = Field(default_factory=dict)
    """Organization -> ``activated`` or ``refused: …``."""


class Book(Frozen):
    """A price book that we made."""

    id: str
    delivery: str
    fingerprint: str = ""
    status: str = ""
    at: datetime


def target_name(enterprise_id: str, provider: str) -> str:
    """Return the name of the target that a provider's books of an enterprise are."""
    return f"price-books/{enterprise_id}/{provider}"


class InUse(Frozen):
    """The book that we last gave an organization, and the one before."""

    active: str = ""
    former: str = ""
    pending: str = ""
    """The book that we asked for without having heard that it was given: either may be the active one."""
    at: datetime = datetime(1970, 1, 1, tzinfo=UTC)


class Shelf(Frozen):
    """What a target remembers. Kept as ``Target.content``."""

    applied_book: str = ""
    books: tuple[Book, ...] = ()
    """Oldest first."""
    organizations: dict[str, InUse] = Field(default_factory=dict)

    def with_book(self, book: Book) -> Shelf:
        """Return the shelf with *book* on it, in place of what it knew of it."""
        others = tuple(known for known in self.books if known.id != book.id)
        return self.model_copy(update={"books": (*others, book)[-MAX_BOOKS:]})

    def without_book(self, book_id: str) -> Shelf:
        """Return the shelf without a book."""
        return self.model_copy(update={"books": tuple(known for known in self.books if known.id != book_id)})

    def with_active(self, organization: str, book_id: str, at: datetime) -> Shelf:
        """Return the shelf with *book_id* active for *organization*; saying it twice changes nothing."""
        known = self.organizations.get(organization, InUse())
        if known.active == book_id:
            return self.without_pending(organization)
        return self._with_use(organization, InUse(active=book_id, former=known.active, at=at))

    def with_pending(self, organization: str, book_id: str) -> Shelf:
        """Return the shelf with *book_id* asked for; what is active is unknown until the answer is remembered."""
        known = self.organizations.get(organization, InUse())
        return self._with_use(organization, known.model_copy(update={"pending": book_id}))

    def without_pending(self, organization: str) -> Shelf:
        """Return the shelf with nothing asked for."""
        known = self.organizations.get(organization, InUse())
        return self._with_use(organization, known.model_copy(update={"pending": ""}))

    def without_organization(self, organization: str) -> Shelf:
        """Return the shelf without an organization: it uses no book of this target any more."""
        others = {org: use for org, use in self.organizations.items() if org != organization}
        return self.model_copy(update={"organizations": others})

    def _with_use(self, organization: str, use: InUse) -> Shelf:
        return self.model_copy(update={"organizations": {**self.organizations, organization: use}})

    def unused(self, keep: int, *besides: str) -> tuple[Book, ...]:
        """Return our unused books beyond the newest *keep*; one active, a roll-back's goal or named is in use."""
        used = {*besides, self.applied_book}
        for use in self.organizations.values():
            used |= {use.active, use.former, use.pending}
        free = [book for book in self.books if book.id not in used]
        return tuple(free[: max(0, len(free) - keep)])

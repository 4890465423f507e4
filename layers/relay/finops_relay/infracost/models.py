"""What Infracost is sent and what it answers (contract: Infracost API; tolerant of fields that we do not know).

What is written (`Tag`, `PolicyChange`, `GuardrailChange`) refuses unknown fields; what was read (`HeldTag`,
`PolicyAttributes`, `GuardrailAttributes`) keeps them, so that sending it back loses nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    PrivateAttr,
    SecretStr,
    SerializeAsAny,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel

from finops_relay.http.redact import one_line


class Provider(StrEnum):
    """Cloud provider of a price book, as the API spells it."""

    AWS = "AWS"
    AZURE = "AZURE"


class _Read(BaseModel):
    """Frozen, read by the API's names, unknown fields ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True)


class _Written(BaseModel):
    """Frozen, written by the API's names; a field that was not given is not sent."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        hide_input_in_errors=True,  # a webhook's address is a secret
    )

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Show what we know; what else the vendor keeps may be a secret."""
        known = type(self).model_fields
        return ((name, value if name in known else "…") for name, value in super().__repr_args__())

    def body(self) -> dict[str, Any]:
        """Return what is sent; a webhook's address in the clear, so this is for the wire only."""
        given = self.model_dump(by_alias=True, exclude_unset=True)
        return {name: _in_the_clear(value) for name, value in given.items()}


def _in_the_clear(value: object) -> object:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


# --- price books and organizations ------------------------------------------------------------------------------------


class PriceBookFile(_Read):
    """One file slot of a price book."""

    id: str = Field(min_length=1)


class FileSlot(_Read):
    """A new slot and the address to PUT its file to."""

    file: PriceBookFile
    pre_signed_url: SecretStr
    """A credential until it expires: never shown."""


class PriceBook(_Read):
    """A price book; ``SUCCESS`` is the only status that can be activated."""

    id: str = Field(min_length=1)
    provider: Annotated[str, BeforeValidator(lambda found: found or "")] = ""
    status: str
    """WAITING_FOR_UPLOAD, PROCESSING and SUCCESS are known; any other is terminal."""
    status_message: str | None = None
    source_files: Annotated[tuple[PriceBookFile, ...], FailFast()] | None = None

    @field_validator("status", "status_message")
    @classmethod
    def _redacted(cls, said: str | None) -> str | None:
        """Keep what the vendor says short, printable and without addresses' secrets: it goes into receipts."""
        return said if said is None else one_line(said)


class Organization(_Read):
    """What activating a price book answers."""

    id: str = Field(min_length=1)
    custom_price_book_id: str | None = None


# --- filters ----------------------------------------------------------------------------------------------------------


class Names(_Written):
    """Names that a filter lets in and keeps out."""

    model_config = ConfigDict(extra="allow")

    include: Annotated[tuple[str, ...], FailFast()] | None = ()
    exclude: Annotated[tuple[str, ...], FailFast()] | None = ()


class Filters(_Written):
    """What a policy or a guardrail looks at; what is not named is not filtered.

    The contract names ``repos`` only; the others were seen at policies.
    """

    model_config = ConfigDict(extra="allow")

    repos: Names | None = None
    projects: Names | None = None
    base_branches: Names | None = None
    resources: Names | None = None


# --- tagging policies -------------------------------------------------------------------------------------------------


class ValueType(StrEnum):
    """What values of a tag are allowed (LIST is documented; the others were seen)."""

    LIST = "LIST"
    ANY = "ANY"
    REGEX = "REGEX"


class Tag(_Written):
    """One tag that a policy asks for."""

    key: str = Field(min_length=1)
    mandatory: bool | None = None
    value_type: str | None = None
    """One of `ValueType`; others are kept as they were read."""
    allowed_values: tuple[str, ...] | None = None
    """For LIST: compared exactly, case included."""
    allowed_regex: str | None = None
    """For REGEX: in RE2's syntax."""
    message: str | None = None
    """Shown to an engineer whose value is not allowed."""


class HeldTag(Tag):
    """A tag as Infracost holds it, with whatever else stands there."""

    model_config = ConfigDict(extra="allow", coerce_numbers_to_str=True)

    key: str
    allowed_values: Annotated[tuple[str, ...], FailFast()] | None = None

    _as_read: dict[str, Any] = PrivateAttr(default_factory=dict)

    def model_post_init(self, _context: object, /) -> None:
        """Note what was read; a copy with changes keeps the note."""
        self._as_read = self.model_dump()

    @property
    def edited(self) -> bool:
        """Whether it is no longer what was read."""
        return self.model_dump() != self._as_read


class PolicyChange(_Written):
    """A new tagging policy, or what changes of one."""

    name: str | None = None
    message: str | None = None
    pr_comment: bool | None = None
    block_pr: bool | None = None
    tags: tuple[SerializeAsAny[Tag], ...] | None = None
    """All tags of the policy: one that is left out is taken away."""
    filters: Filters | None = None


class PolicyAttributes(PolicyChange):
    """A tagging policy as Infracost holds it, with whatever else stands there."""

    model_config = ConfigDict(extra="allow")

    tags: Annotated[tuple[SerializeAsAny[HeldTag], ...], FailFast()] | None = None


class TaggingPolicy(_Read):
    """A tagging policy; ``type`` is not looked at."""

    id: str = Field(min_length=1)
    attributes: PolicyAttributes

    @property
    def tags(self) -> dict[str, HeldTag]:
        """The tags by key."""
        return {tag.key: tag for tag in self.attributes.tags or ()}


# --- guardrails -------------------------------------------------------------------------------------------------------


class Scope(StrEnum):
    """What a guardrail is evaluated for."""

    PULL_REQUEST = "PULL_REQUEST"
    PROJECT = "PROJECT"


class GuardrailChange(_Written):
    """A new guardrail, or what changes of one; amounts in the organization's currency a month.

    Several thresholds must all be crossed; comparisons are strict; the percentage is rounded to a whole number first;
    the total fires only when a change crosses it from below.
    """

    name: str | None = None
    scope: str | None = None
    """One of `Scope`; others are kept as they were read."""
    increase_threshold: Decimal | None = None
    increase_percentage_threshold: Decimal | None = Field(
        default=None,
        validation_alias=AliasChoices(
            "increasePercentageThreshold", "increasePercentThreshold", "increase_percentage_threshold"
        ),
        serialization_alias="increasePercentageThreshold",
    )
    total_threshold: Decimal | None = None
    message: str | None = None
    pr_comment: bool | None = None
    block_pr: bool | None = None
    webhook_url: SecretStr | None = None
    """Whoever holds any token of the organization can read it; an empty one takes the webhook away."""
    filters: Filters | None = None

    def body(self) -> dict[str, Any]:
        """Return what is sent; a webhook that is None is left as it is, an empty one takes it away."""
        given = super().body()
        return {name: value for name, value in given.items() if name != "webhookUrl" or value is not None}

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must never be quoted."""
        return (self.webhook_url.get_secret_value(),) if self.webhook_url else ()

    @property
    def thresholds(self) -> tuple[Decimal, ...]:
        """The thresholds that are set."""
        found = (self.increase_threshold, self.increase_percentage_threshold, self.total_threshold)
        return tuple(each for each in found if each is not None)


class GuardrailAttributes(GuardrailChange):
    """A guardrail as Infracost holds it, with whatever else stands there."""

    model_config = ConfigDict(extra="allow")

    @model_validator(mode="before")
    @classmethod
    def _either_spelling(cls, found: object) -> object:
        """Take the spelling that holds the percentage, where the other one is there and empty."""
        if isinstance(found, dict) and found.get("increasePercentageThreshold") is None:
            return {name: value for name, value in found.items() if name != "increasePercentageThreshold"}
        return found

    @field_validator("scope")
    @classmethod
    def _contracts_name(cls, scope: str | None) -> str | None:
        """Read the name that was seen as the contract's, or every comparison would show a difference."""
        return Scope.PULL_REQUEST if scope == "REPO" else scope


class Guardrail(_Read):
    """A guardrail; ``type`` is not looked at, since the singular was seen too."""

    id: str = Field(min_length=1)
    attributes: GuardrailAttributes

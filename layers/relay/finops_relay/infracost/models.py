"""What Infracost answers, tolerant of fields that we do not know (contract: Infracost API, "Price Books")."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator
from pydantic.alias_generators import to_camel

from finops_relay.http.redact import one_line


class Provider(StrEnum):
    """Cloud provider of a price book, as the API spells it."""

    AWS = "AWS"
    AZURE = "AZURE"


class _Read(BaseModel):
    """Frozen, read by the API's names, unknown fields ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True)


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
    provider: str = ""
    status: str
    """WAITING_FOR_UPLOAD, PROCESSING and SUCCESS are known; any other is terminal."""
    status_message: str | None = None
    source_files: tuple[PriceBookFile, ...] | None = None

    @field_validator("status", "status_message")
    @classmethod
    def _redacted(cls, said: str | None) -> str | None:
        """Keep what the vendor says short, printable and without addresses' secrets: it goes into receipts."""
        return said if said is None else one_line(said)


class Organization(_Read):
    """What activating a price book answers."""

    id: str = Field(min_length=1)
    custom_price_book_id: str | None = None

"""What a target holds of what we own: a list of named items, and settings beside it.

The allowed values of a tag are items without content, its ``message`` a setting; the rows of a file of custom
properties are items by their key, and their content is the row.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256

from pydantic import BaseModel, ConfigDict, Field

Setting = str | bool | None


class State(BaseModel):
    """Items and settings, as somebody holds them or wants them."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    items: dict[str, str] = Field(default_factory=dict)
    """By name; the content of each, empty where the name is all there is to it."""
    settings: dict[str, Setting] = Field(default_factory=dict)
    """By name; one that is not named is not ours."""

    def owned(self, settings: Mapping[str, Setting]) -> State:
        """Return it with only those settings that *settings* names; one that is not held is None."""
        return self.model_copy(update={"settings": {name: self.settings.get(name) for name in settings}})

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what it says, whatever the order in which it says it."""
        told = sha256()
        for part in (self.items, self.settings):
            for name in sorted(part):
                for text in (name, repr(part[name])):
                    told.update(f"{len(text)}:".encode())
                    told.update(text.encode("utf-8", "surrogatepass"))
            told.update(b"/")
        return told.hexdigest()

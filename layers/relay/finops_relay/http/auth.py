"""A bearer token that is fetched when first needed, and once more when it was refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pydantic import SecretStr

TokenSource = Callable[[bool], SecretStr | None]
"""Called with True when a cached token was refused and must be read afresh; None when there is no secret."""


@dataclass(frozen=True)
class BearerAuth:
    """Where the token comes from and where to say it is kept; the token itself is never an attribute."""

    source: TokenSource
    kept_in: str
    """Name of the secret, for messages."""

    def token(self, *, fresh: bool = False) -> str | None:
        """Return the token, or None when the secret does not exist or is empty."""
        secret = self.source(fresh)
        return secret.get_secret_value() if secret is not None else None

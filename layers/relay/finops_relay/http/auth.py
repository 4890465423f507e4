"""A credential that is fetched when first needed, and once more when it was refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pydantic import SecretStr

TokenSource = Callable[[bool], SecretStr | None]
"""Called with True when a cached token was refused and must be read afresh; None when there is no secret."""


@dataclass(frozen=True)
class Credential:
    """Where a token comes from, where to say it is kept, and how it is sent; the token itself is never an attribute."""

    source: TokenSource
    kept_in: str
    """Name of the secret, for messages."""
    scheme: str = "Bearer"
    """What stands before the token in the Authorization header; empty for a bare key."""
    noun: str = "service account token"
    """What the vendor calls it, for messages."""

    def token(self, *, fresh: bool = False) -> str | None:
        """Return the token, or None when the secret does not exist or is empty."""
        secret = self.source(fresh)
        return secret.get_secret_value() if secret is not None else None

    def header(self, token: str) -> str:
        """Return the value of the Authorization header."""
        return f"{self.scheme} {token}".lstrip()


def fixed(token: SecretStr) -> TokenSource:
    """Return a source that always gives *token*, for use as a library; a refused one stays refused."""
    return lambda _fresh: token

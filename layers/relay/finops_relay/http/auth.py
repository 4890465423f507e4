"""A credential that is fetched when first needed, and once more when it was refused."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import SecretStr

BASIC = "Basic"
"""The scheme of RFC 7617."""
ANONYMOUS = "anonymous"
"""A scheme of ours: no credential is sent."""
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

    def headers(self, token: str) -> dict[str, str]:
        """Return the Authorization header; none where nobody asks for one."""
        return {} if self.scheme == ANONYMOUS else {"authorization": f"{self.scheme} {token}".lstrip()}

    def secrets(self, token: str) -> tuple[str, ...]:
        """Return what must not be quoted: the token, and of a Basic one also what it says."""
        if self.scheme == ANONYMOUS:
            return ()
        if self.scheme != BASIC:
            return (token,)
        try:
            said = base64.b64decode(token, validate=True).decode("utf-8")
        except ValueError:
            return (token,)
        return (token, said, said.partition(":")[2])


NOBODY = Credential(lambda _fresh: SecretStr("nobody"), "no secret", scheme=ANONYMOUS)
"""For an address that asks nobody who they are: no header is sent."""


def basic(source: TokenSource, kept_in: str) -> Credential:
    """Return the credential of a user: *source* gives ``user:password`` in base64."""
    return Credential(source, kept_in, BASIC, 'user as JSON, {"username": "…", "password": "…"},')


def fixed(token: SecretStr) -> TokenSource:
    """Return a source that always gives *token*, for use as a library; a refused one stays refused."""
    return lambda _fresh: token

"""Tokens from Secrets Manager, cached for a short time, and read afresh on demand."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from aws_lambda_powertools.utilities.parameters import SecretsProvider
from aws_lambda_powertools.utilities.parameters.exceptions import GetParameterError
from botocore.exceptions import ClientError
from pydantic import SecretStr

from finops_relay.http.auth import TokenSource

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

CACHE_S = 300
ABSENT = frozenset({"ResourceNotFoundException", "InvalidRequestException"})
"""InvalidRequestException: the secret is being deleted."""
DENIED = frozenset({"AccessDeniedException", "DecryptionFailure"})
"""The secret is there and we may not read it: there is no token, and the next name must not stand in for it."""


def token_source(client: SecretsManagerClient, *names: str) -> TokenSource:
    """Return a source that reads the first of *names* that exists.

    A secret is the token itself, or JSON with it under ``token``.
    """
    provider = SecretsProvider(boto3_client=client)

    def read(fresh: bool) -> SecretStr | None:  # noqa: FBT001 -- TokenSource is called by position
        for name in names:
            try:
                text = provider.get(name, max_age=CACHE_S, force_fetch=fresh)
            except GetParameterError as error:
                code = _code(error)
                if code in ABSENT:
                    continue
                if code in DENIED:
                    return None
                raise
            if token := _token(text or ""):
                return SecretStr(token)
        return None

    return read


def _code(error: GetParameterError) -> str:
    """Return the service's own code for what went wrong; empty when it did not answer."""
    cause = error.__cause__ or error.__context__
    return str(cause.response.get("Error", {}).get("Code")) if isinstance(cause, ClientError) else ""


def _token(held: str | bytes | dict[str, object]) -> str:
    """Return the token that a secret holds, as text or as bytes; empty when it holds none."""
    text = held.decode("utf-8", "replace") if isinstance(held, bytes) else str(held)
    text = text.strip()
    if not text.startswith("{"):
        return text
    try:
        found = json.loads(text).get("token", "")
    except (ValueError, RecursionError):
        return ""
    return found.strip() if isinstance(found, str) else ""

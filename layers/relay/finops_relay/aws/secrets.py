"""Tokens from Secrets Manager, cached for a short time, and read afresh on demand."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
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


def token_source(client: SecretsManagerClient, *names: str, basic: bool = False) -> TokenSource:
    """Return a source that reads the first of *names* that exists.

    A secret is the token itself, or JSON with it under ``token``; if *basic*, JSON with ``username`` and ``password``.
    """
    token_of = _basic_token if basic else _token
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
            if token := token_of(text or ""):
                return SecretStr(token)
        return None

    return read


def _code(error: GetParameterError) -> str:
    """Return the service's own code for what went wrong; empty when it did not answer."""
    cause = error.__cause__ or error.__context__
    return str(cause.response.get("Error", {}).get("Code")) if isinstance(cause, ClientError) else ""


def _token(held: str | bytes | dict[str, object]) -> str:
    """Return the token that a secret holds, as text or as bytes; empty when it holds none."""
    text = _text(held)
    if not text.startswith("{"):
        return text
    found = _members(text).get("token", "")
    return found.strip() if isinstance(found, str) else ""


def _basic_token(held: str | bytes | dict[str, object]) -> str:
    """Return ``username:password`` in base64; empty when a secret does not hold both, or holds what cannot be sent so.

    RFC 7617: a colon would end the name, and neither may hold control characters.
    """
    members = _members(_text(held))
    name, password = members.get("username"), members.get("password")
    if not (isinstance(name, str) and name and isinstance(password, str) and password):
        return ""
    if ":" in name or not (name + password).isprintable():
        return ""
    return base64.b64encode(f"{name}:{password}".encode()).decode()


def _text(held: str | bytes | dict[str, object]) -> str:
    """Return a secret as text, without the white space around it."""
    text = held.decode("utf-8", "replace") if isinstance(held, bytes) else str(held)
    return text.strip()


def _members(text: str) -> Mapping[str, object]:
    """Return the members of a JSON object; none when *text* is something else."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}

"""Tokens from Secrets Manager, cached for a short time, and read afresh on demand."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from aws_lambda_powertools.utilities.parameters.exceptions import GetParameterError
from botocore.exceptions import ClientError
from finops_relay.aws.secrets import token_source
from mypy_boto3_secretsmanager import SecretsManagerClient


@pytest.fixture
def manager(aws: str) -> Iterator[SecretsManagerClient]:
    client = boto3.client("secretsmanager", aws)
    yield client
    client.close()


NAMES = ("infracost/acme", "infracost/default")


def read(manager: SecretsManagerClient, *, fresh: bool = False) -> str | None:
    found = token_source(manager, *NAMES)(fresh)
    return found.get_secret_value() if found else None


@pytest.mark.parametrize(
    ("held", "token"),
    [
        ("plain-token", "plain-token"),
        (" plain-token\n", "plain-token"),
        (json.dumps({"token": "json-token"}), "json-token"),
        (json.dumps({"token": " json-token\n", "note": "x"}), "json-token"),
        (json.dumps({"other": "x"}), None),
        (json.dumps({"token": 7}), None),
        (json.dumps({"token": None}), None),
        ("{not json", None),
        ('{"token":' + "[" * 100_000, None),
        ("  ", None),
    ],
)
def test_a_token_is_read_from_each_form(manager: SecretsManagerClient, held: str, token: str | None) -> None:
    if len(held) > 65_536:
        held = held[:60_000]
    manager.create_secret(Name=NAMES[0], SecretString=held)
    assert read(manager) == token


def test_a_token_that_was_stored_as_bytes_is_read_as_text(manager: SecretsManagerClient) -> None:
    manager.create_secret(Name=NAMES[0], SecretBinary=b"bytes-token\n")
    assert read(manager) == "bytes-token"


def test_no_secret_is_none(manager: SecretsManagerClient) -> None:
    assert read(manager) is None
    assert read(manager, fresh=True) is None


def test_the_organizations_own_secret_goes_first_and_the_default_serves_without(manager: SecretsManagerClient) -> None:
    manager.create_secret(Name=NAMES[1], SecretString="default-token")
    assert read(manager) == "default-token"
    manager.create_secret(Name=NAMES[0], SecretString="own-token")
    assert read(manager) == "own-token"
    manager.put_secret_value(SecretId=NAMES[0], SecretString="{}")
    assert read(manager) == "default-token"
    manager.put_secret_value(SecretId=NAMES[0], SecretString="own-token")
    manager.delete_secret(SecretId=NAMES[0])
    assert read(manager) == "default-token"


def test_a_token_is_kept_until_it_is_asked_for_afresh(manager: SecretsManagerClient) -> None:
    manager.create_secret(Name=NAMES[0], SecretString="old")
    source = token_source(manager, *NAMES)

    def value(*, fresh: bool) -> str:
        found = source(fresh)
        assert found is not None
        assert found.get_secret_value() not in repr(found)
        return found.get_secret_value()

    assert value(fresh=False) == "old"
    manager.put_secret_value(SecretId=NAMES[0], SecretString="new")
    assert value(fresh=False) == "old"
    assert value(fresh=True) == "new"
    assert value(fresh=False) == "new"


@pytest.mark.parametrize(
    ("held", "login"),
    [
        ({"username": "relay", "password": "p"}, "relay:p"),
        ({"username": "relay", "password": " p:ß ", "engine": "mysql"}, "relay: p:ß "),
        ({"username": "relay"}, None),
        ({"password": "p"}, None),
        ({"username": "", "password": "p"}, None),
        ({"username": "relay", "password": ""}, None),
        ({"username": "re:lay", "password": "p"}, None),
        ({"username": "relay", "password": "p\n"}, None),
        ({"username": "relay", "password": "\ud800"}, None),
        ({"username": "relay", "password": 7}, None),
        ({"token": "relay:p"}, None),
        (["username", "password"], None),
        ("relay:p", None),
    ],
)
def test_a_user_is_read_as_what_basic_authentication_sends(
    manager: SecretsManagerClient, held: object, login: str | None
) -> None:
    manager.create_secret(Name="servicenow", SecretString=json.dumps(held))
    found = token_source(manager, "servicenow", basic=True)(False)  # noqa: FBT003 -- called by position
    said = base64.b64decode(found.get_secret_value(), validate=True).decode() if found else None
    assert said == login


def test_a_user_is_no_token(manager: SecretsManagerClient) -> None:
    manager.create_secret(Name=NAMES[0], SecretString=json.dumps({"username": "relay", "password": "p"}))
    assert read(manager) is None


class Refusing:
    """A manager that answers with an error."""

    def __init__(self, code: str) -> None:
        self.code = code
        self.asked: list[str] = []

    def get_secret_value(self, **asked: str) -> None:
        self.asked.append(asked["SecretId"])
        raise ClientError({"Error": {"Code": self.code, "Message": "no"}}, "GetSecretValue")


@pytest.mark.parametrize("code", ["AccessDeniedException", "DecryptionFailure"])
def test_a_secret_that_may_not_be_read_is_no_token_and_no_other_one_stands_in_for_it(code: str) -> None:
    refusing: Any = Refusing(code)
    assert token_source(refusing, "infracost/acme", "infracost/default")(False) is None  # noqa: FBT003 -- called by position
    assert refusing.asked == ["infracost/acme"]


def test_trouble_of_the_secret_store_is_not_absence() -> None:
    refusing: Any = Refusing("InternalServiceError")
    with pytest.raises(GetParameterError):
        token_source(refusing, "infracost/acme", "infracost/default")(False)  # noqa: FBT003 -- called by position

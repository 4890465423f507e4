"""IAM is enforced: a function can do what its role in the template allows, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from botocore.exceptions import ClientError

from tests.stack.probes import probe

if TYPE_CHECKING:
    from local.stack import Stack

CALLER = """
    import boto3
    from botocore.exceptions import ClientError

    def lambda_handler(event, context):
        client = boto3.client(event["service"])
        try:
            getattr(client, event["method"])(**event["arguments"])
        except ClientError as error:
            return error.response["Error"]["Code"] + ": " + error.response["Error"]["Message"]
        return "allowed"
"""
TOKEN = {"service": "secretsmanager", "method": "get_secret_value", "arguments": {"SecretId": "infracost/default"}}


def test_only_the_function_that_delivers_can_read_the_vendors_credential(stack: Stack) -> None:
    with probe(stack, CALLER, role_of="InfracostDeliverFunction") as deliver:
        assert deliver(TOKEN) == "allowed"
    with probe(stack, CALLER, role_of="PriceBookPrepareFunction") as prepare:
        refusal = prepare(TOKEN)
    assert refusal.startswith("AccessDenied")
    assert stack.resources["PriceBookPrepareRole"] in refusal


@pytest.mark.parametrize("key", ["incoming/price-books/aws/made-up.csv", "config/relay.yaml", "state/x.json"])
def test_no_function_can_write_where_a_drop_would_start_it_again(stack: Stack, key: str) -> None:
    arguments = {"Bucket": stack.outputs["DropsBucket"], "Key": key, "Body": ""}
    with probe(stack, CALLER, role_of="PriceBookPrepareFunction") as prepare:
        refusal = prepare({"service": "s3", "method": "put_object", "arguments": arguments})
    assert refusal.startswith("AccessDenied")


def test_a_key_that_nobody_has_been_given_opens_nothing(stack: Stack) -> None:
    stranger = stack.client_as("s3", "AKIAIOSFODNN7EXAMPLE", "made-up")
    with pytest.raises(ClientError) as refusal:
        stranger.list_objects_v2(Bucket=stack.outputs["DropsBucket"])
    assert refusal.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403

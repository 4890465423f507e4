"""IAM is enforced: a function can do what its role in the template allows, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError
from finops_relay.jobs.telemetry.collect import INBOX

from tests.stack.probes import probe

if TYPE_CHECKING:
    from collections.abc import Iterator

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
INFRACOST = "infracost/default"
CLOUDZERO = "cloudzero"
SOURCE = "sources/made-up"
DELIVERY = "d1"
RECORDS = "incoming/telemetry/metric/s/replace/"
SYNCS = [
    ("TaggingPolicyPrepare", "tagging-policies", "custom-properties"),
    ("CustomPropertiesPrepare", "custom-properties", "tagging-policies"),
]
"""Each function that reads sources of truth: the kind that it prepares, and the one that it does not."""


def secret(name: str) -> dict[str, Any]:
    """The call that reads a secret."""
    return {"service": "secretsmanager", "method": "get_secret_value", "arguments": {"SecretId": name}}


def s3(method: str, bucket: str, key: str, **more: str) -> dict[str, Any]:
    """A call that reads or writes an object."""
    return {"service": "s3", "method": method, "arguments": {"Bucket": bucket, "Key": key, **more}}


def message(url: str, **more: str) -> dict[str, Any]:
    """The call that puts a message, which nobody understands, into a queue."""
    return {"service": "sqs", "method": "send_message", "arguments": {"QueueUrl": url, "MessageBody": "{}", **more}}


@pytest.fixture
def there(stack: Stack) -> Iterator[None]:
    """Objects where nothing starts when they are written."""
    drops, spool = stack.outputs["DropsBucket"], stack.outputs["SpoolBucket"]
    kept = [
        (drops, "state/billing/made-up.json"),
        (drops, "state/tagging-policies/made-up.json"),
        (drops, "state/custom-properties/made-up.csv"),
        (spool, "billing/made-up"),
        (spool, "price-books/made-up"),
        (spool, "telemetry/made-up"),
        (spool, "tagging-policies/made-up"),
        (spool, "custom-properties/made-up"),
    ]
    for bucket, key in kept:
        stack.client("s3").put_object(Bucket=bucket, Key=key, Body=b"")
    yield
    for bucket, key in kept:
        stack.client("s3").delete_object(Bucket=bucket, Key=key)


@pytest.mark.parametrize(
    ("deliver", "prepare", "own", "other"),
    [
        (
            "InfracostDeliver",
            ["PriceBookPrepare", "TaggingPolicyPrepare", "CustomPropertiesPrepare"],
            INFRACOST,
            CLOUDZERO,
        ),
        ("CloudZeroDeliver", ["BillingDropPrepare", "TelemetryPrepare", "TelemetryCollect"], CLOUDZERO, INFRACOST),
    ],
)
def test_only_the_function_that_delivers_can_read_the_vendors_credential(
    stack: Stack, deliver: str, prepare: list[str], own: str, other: str
) -> None:
    with probe(stack, CALLER, role_of=f"{deliver}Function") as delivering:
        assert delivering(secret(own)) == "allowed"
        assert delivering(secret(other)).startswith("AccessDenied")
    for name in (*prepare, "Release", "ConfigCheck"):
        with probe(stack, CALLER, role_of=f"{name}Function") as reading:
            refusal = reading(secret(own))
        assert refusal.startswith("AccessDenied")
        assert stack.resources[f"{name}Role"] in refusal


def test_the_credential_of_a_source_of_truth_is_read_by_what_reads_sources_and_by_nothing_else(stack: Stack) -> None:
    stack.client("secretsmanager").create_secret(Name=SOURCE, SecretString="made-up")
    try:
        for name, *_ in SYNCS:
            with probe(stack, CALLER, role_of=f"{name}Function") as prepare:
                assert prepare(secret(SOURCE)) == "allowed"
                assert prepare(secret(CLOUDZERO)).startswith("AccessDenied")
        for name in ("PriceBookPrepare", "BillingDropPrepare", "InfracostDeliver", "CloudZeroDeliver", "Release"):
            with probe(stack, CALLER, role_of=f"{name}Function") as stranger:
                assert stranger(secret(SOURCE)).startswith("AccessDenied"), name
    finally:
        stack.client("secretsmanager").delete_secret(SecretId=SOURCE, ForceDeleteWithoutRecovery=True)


def test_the_credential_of_cloudzero_opens_by_its_exact_name_only(stack: Stack) -> None:
    secrets = stack.client("secretsmanager")
    others = ("cloudzero-billing", "cloudzero-abcdef", "cloudzero/other", "cloudzero2")
    for name in others:
        secrets.create_secret(Name=name, SecretString="made-up")
    try:
        with probe(stack, CALLER, role_of="CloudZeroDeliverFunction") as deliver:
            for name in others:
                assert deliver(secret(name)).startswith("AccessDenied"), name
    finally:
        for name in others:
            secrets.delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)


@pytest.mark.usefixtures("there")
def test_what_delivers_to_cloudzero_reads_and_cuts_what_was_prepared_and_never_what_was_dropped(
    stack: Stack,
) -> None:
    drops, spool = stack.outputs["DropsBucket"], stack.outputs["SpoolBucket"]
    with probe(stack, CALLER, role_of="CloudZeroDeliverFunction") as deliver:
        for kind in ("billing", "telemetry"):
            assert deliver(s3("get_object", spool, f"{kind}/made-up")) == "allowed"
            assert deliver(s3("put_object", spool, f"{kind}/made-up", Body="")) == "allowed"
        assert deliver(s3("get_object", drops, "state/billing/made-up.json")) == "allowed"
        assert deliver(s3("put_object", drops, "state/billing/made-up.json", Body="")) == "allowed"
        for refused in (
            s3("get_object", drops, "incoming/billing/c/2026-02/made-up.csv"),
            s3("get_object", drops, "plan/billing/c/2026-02/made-up.csv"),
            s3("get_object", drops, f"{RECORDS}made-up.csv"),
            s3("get_object", drops, f"{INBOX}made-up.json.gz"),
            s3("put_object", drops, f"{INBOX}made-up.json.gz", Body=""),
            s3("get_object", drops, f"incoming/release/{DELIVERY}.json"),
            s3("get_object", drops, "config/relay.yaml"),
            s3("get_object", spool, "price-books/made-up"),
            s3("get_object", drops, "rejected/made-up.csv"),
            s3("put_object", drops, "rejected/made-up.csv", Body=""),
            s3("put_object", drops, "state/made-up.json", Body=""),
            s3("put_object", spool, "price-books/made-up", Body=""),
        ):
            assert deliver(refused).startswith("AccessDenied"), refused


@pytest.mark.usefixtures("there")
def test_what_prepares_billing_drops_reads_those_only_and_takes_nothing_out_of_the_spool(
    stack: Stack,
) -> None:
    drops, spool = stack.outputs["DropsBucket"], stack.outputs["SpoolBucket"]
    with probe(stack, CALLER, role_of="BillingDropPrepareFunction") as prepare:
        # Allowed to look, so that what is gone is known to be gone.
        for key in ("incoming/billing/c/2026-02/made-up.csv", "rejected/made-up.csv"):
            assert prepare(s3("get_object", drops, key)).startswith("NoSuchKey")
        assert prepare(s3("put_object", drops, "state/billing/made-up.json", Body="")) == "allowed"
        for refused in (
            s3("get_object", drops, "incoming/price-books/aws/made-up.csv"),
            s3("get_object", drops, f"incoming/release/{DELIVERY}.json"),
            s3("get_object", spool, "billing/made-up"),
            s3("put_object", spool, "price-books/made-up", Body=""),
            s3("put_object", drops, "state/made-up.json", Body=""),
        ):
            assert prepare(refused).startswith("AccessDenied"), refused


@pytest.mark.usefixtures("there")
def test_what_prepares_telemetry_reads_that_only_and_removes_nothing_but_what_it_has_counted(stack: Stack) -> None:
    drops, spool = stack.outputs["DropsBucket"], stack.outputs["SpoolBucket"]
    with probe(stack, CALLER, role_of="TelemetryPrepareFunction") as prepare:
        # Allowed to look, so that what is gone is known to be gone.
        for key in (f"{RECORDS}made-up.csv", "rejected/made-up.csv", f"{INBOX}made-up.json.gz"):
            assert prepare(s3("get_object", drops, key)).startswith("NoSuchKey")
        assert prepare(s3("delete_object", drops, f"{INBOX}made-up.json.gz")) == "allowed"
        assert prepare(s3("get_object", spool, "telemetry/made-up")) == "allowed"
        assert prepare(s3("put_object", spool, "telemetry/made-up", Body="")) == "allowed"
        for refused in (
            s3("get_object", drops, "incoming/billing/c/2026-02/made-up.csv"),
            s3("get_object", drops, f"incoming/release/{DELIVERY}.json"),
            s3("get_object", drops, "state/billing/made-up.json"),
            s3("get_object", spool, "billing/made-up"),
            s3("put_object", spool, "billing/made-up", Body=""),
            s3("put_object", drops, f"{INBOX}made-up.json.gz", Body=""),
            s3("put_object", drops, "receipts/billing/made-up.json", Body=""),
            s3("delete_object", drops, f"{RECORDS}made-up.csv"),
            s3("delete_object", drops, "receipts/telemetry/made-up.json"),
            s3("delete_object", spool, "telemetry/made-up"),
        ):
            assert prepare(refused).startswith("AccessDenied"), refused


@pytest.mark.usefixtures("there")
@pytest.mark.parametrize(("function", "kind", "other"), SYNCS)
def test_what_reads_sources_of_truth_reads_drops_of_its_kind_only_and_no_state(
    stack: Stack, function: str, kind: str, other: str
) -> None:
    """What was last applied is the business of what delivers: what prepares could forge it."""
    drops, spool = stack.outputs["DropsBucket"], stack.outputs["SpoolBucket"]
    with probe(stack, CALLER, role_of=f"{function}Function") as prepare:
        # Allowed to look, so that what is gone is known to be gone.
        for top in ("incoming", "plan"):
            assert prepare(s3("get_object", drops, f"{top}/{kind}/made-up.csv")).startswith("NoSuchKey")
        assert prepare(s3("put_object", spool, f"{kind}/made-up", Body="")) == "allowed"
        for refused in (
            s3("get_object", drops, f"incoming/{other}/made-up.csv"),
            s3("get_object", drops, "incoming/price-books/aws/made-up.csv"),
            s3("get_object", drops, f"incoming/release/{DELIVERY}.json"),
            s3("get_object", drops, f"state/{kind}/made-up.json"),
            s3("put_object", drops, f"state/{kind}/made-up.json", Body=""),
            s3("put_object", drops, f"receipts/{other}/made-up.json", Body=""),
            s3("get_object", spool, f"{kind}/made-up"),
            s3("put_object", spool, f"{other}/made-up", Body=""),
            s3("delete_object", drops, f"incoming/{kind}/made-up.csv"),
        ):
            assert prepare(refused).startswith("AccessDenied"), refused


@pytest.mark.usefixtures("there")
def test_what_delivers_to_infracost_keeps_what_was_applied_and_never_reads_what_was_dropped(stack: Stack) -> None:
    drops, spool = stack.outputs["DropsBucket"], stack.outputs["SpoolBucket"]
    with probe(stack, CALLER, role_of="InfracostDeliverFunction") as deliver:
        for kind in ("price-books", "tagging-policies", "custom-properties"):
            assert deliver(s3("get_object", spool, f"{kind}/made-up")) == "allowed"
        for state in ("state/tagging-policies/made-up.json", "state/custom-properties/made-up.csv"):
            for method, more in (("get_object", {}), ("put_object", {"Body": ""}), ("delete_object", {})):
                assert deliver(s3(method, drops, state, **more)) == "allowed", (method, state)
            # Allowed to look, so that what was never applied is known to be so.
            assert deliver(s3("get_object", drops, state)).startswith("NoSuchKey")
        for refused in (
            *(
                s3("get_object", drops, f"{top}/{kind}/made-up.csv")
                for top in ("incoming", "plan")
                for kind in ("price-books", "tagging-policies", "custom-properties")
            ),
            s3("get_object", drops, "config/relay.yaml"),
            s3("get_object", drops, "state/billing/made-up.json"),
            s3("put_object", drops, "state/billing/made-up.json", Body=""),
            s3("delete_object", drops, "state/billing/made-up.json"),
            s3("delete_object", drops, "receipts/tagging-policies/made-up.json"),
            s3("put_object", drops, "rejected/made-up.csv", Body=""),
            s3("get_object", spool, "billing/made-up"),
            s3("put_object", spool, "tagging-policies/made-up", Body=""),
            s3("delete_object", spool, "custom-properties/made-up"),
        ):
            assert deliver(refused).startswith("AccessDenied"), refused


@pytest.mark.usefixtures("there")
def test_what_collects_records_writes_into_the_inbox_and_can_do_nothing_else(stack: Stack) -> None:
    """Whoever sends records reaches a function that could tell nobody anything, and change nothing but the inbox."""
    drops, spool = stack.outputs["DropsBucket"], stack.outputs["SpoolBucket"]
    item = {"TableName": stack.outputs["LedgerTable"], "Key": {"pk": {"S": "made-up"}}}
    with probe(stack, CALLER, role_of="TelemetryCollectFunction") as collect:
        for refused in (
            s3("get_object", drops, f"{INBOX}made-up.json.gz"),
            s3("delete_object", drops, f"{INBOX}made-up.json.gz"),
            s3("get_object", drops, f"{RECORDS}made-up.csv"),
            s3("put_object", drops, "state/billing/made-up.json", Body=""),
            s3("put_object", drops, "quarantine/made-up/message", Body=""),
            s3("put_object", spool, "telemetry/made-up", Body=""),
            {"service": "s3", "method": "list_objects_v2", "arguments": {"Bucket": drops}},
            {"service": "dynamodb", "method": "get_item", "arguments": item},
            message(stack.resources["TelemetryPrepareQueue"]),
            message(stack.resources["TelemetryQueue"]),
        ):
            assert collect(refused).startswith("AccessDenied"), refused


@pytest.mark.usefixtures("there")
def test_what_takes_decisions_reads_decisions_only(stack: Stack) -> None:
    drops, spool = stack.outputs["DropsBucket"], stack.outputs["SpoolBucket"]
    with probe(stack, CALLER, role_of="ReleaseFunction") as release:
        assert release(s3("get_object", drops, f"incoming/release/{DELIVERY}.json")).startswith("NoSuchKey")
        for refused in (
            s3("get_object", drops, "incoming/billing/c/2026-02/made-up.csv"),
            s3("get_object", drops, "state/billing/made-up.json"),
            s3("get_object", spool, "billing/made-up"),
            s3("put_object", spool, "billing/made-up", Body=""),
            s3("get_object", drops, f"{RECORDS}made-up.csv"),
            s3("get_object", spool, "telemetry/made-up"),
            s3("get_object", drops, "incoming/tagging-policies/p/made-up.csv"),
            s3("get_object", drops, "state/tagging-policies/made-up.json"),
            s3("get_object", spool, "custom-properties/made-up"),
        ):
            assert release(refused).startswith("AccessDenied"), refused


@pytest.mark.parametrize(
    ("function", "to", "stranger"),
    [
        ("BillingDropPrepare", "CloudZeroDeliverQueue", "InfracostDeliverQueue"),
        ("CloudZeroDeliver", "BillingDropPrepareQueue", "InfracostDeliverQueue"),
        ("TelemetryPrepare", "CloudZeroDeliverQueue", "BillingDropPrepareQueue"),
        ("CloudZeroDeliver", "TelemetryPrepareQueue", "TelemetryQueue"),
        ("Release", "CloudZeroDeliverQueue", "BillingDropPrepareQueue"),
        ("Release", "InfracostDeliverQueue", "TaggingPolicyPrepareQueue"),
        ("TaggingPolicyPrepare", "InfracostDeliverQueue", "CustomPropertiesPrepareQueue"),
        ("TaggingPolicyPrepare", "TaggingPolicyPrepareQueue", "CloudZeroDeliverQueue"),
        ("CustomPropertiesPrepare", "InfracostDeliverQueue", "TaggingPolicyPrepareQueue"),
        ("CustomPropertiesPrepare", "CustomPropertiesPrepareQueue", "CloudZeroDeliverQueue"),
    ],
)
def test_a_function_hands_over_to_the_queue_that_it_is_told_and_to_no_other(
    stack: Stack, function: str, to: str, stranger: str
) -> None:
    order = {"MessageGroupId": "made-up", "MessageDeduplicationId": f"{function} {to}"}
    with probe(stack, CALLER, role_of=f"{function}Function") as sender:
        for queue, allowed in ((to, True), (stranger, False)):
            url = stack.resources[queue]
            answer = sender(message(url, **(order if url.endswith(".fifo") else {})))
            assert (answer == "allowed") is allowed, answer


WRITING = [
    "PriceBookPrepare",
    "BillingDropPrepare",
    "TelemetryPrepare",
    "TelemetryCollect",
    "TaggingPolicyPrepare",
    "CustomPropertiesPrepare",
    "InfracostDeliver",
    "CloudZeroDeliver",
    "Release",
]
WATCHED = [
    "incoming/price-books/aws/made-up.csv",
    "incoming/billing/c/2026-02/made-up.csv",
    "incoming/release/made-up.json",
    "plan/billing/c/2026-02/made-up.csv",
    "incoming/telemetry/metric/s/replace/made-up.csv",
    "plan/telemetry/metric/s/replace/made-up.csv",
    "incoming/tagging-policies/p/made-up.csv",
    "plan/tagging-policies/p/made-up.csv",
    "incoming/custom-properties/made-up.csv",
    "plan/custom-properties/made-up.csv",
    "config/relay.yaml",
]


@pytest.mark.parametrize("function", WRITING)
def test_no_function_can_write_where_a_drop_would_start_it_again(stack: Stack, function: str) -> None:
    with probe(stack, CALLER, role_of=f"{function}Function") as writer:
        for key in (*WATCHED, "state/x.json"):
            refusal = writer(s3("put_object", stack.outputs["DropsBucket"], key, Body=""))
            assert refusal.startswith("AccessDenied"), key


def test_a_key_that_nobody_has_been_given_opens_nothing(stack: Stack) -> None:
    stranger = stack.client_as("s3", "AKIAIOSFODNN7EXAMPLE", "made-up")
    with pytest.raises(ClientError) as refusal:
        stranger.list_objects_v2(Bucket=stack.outputs["DropsBucket"])
    assert refusal.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403

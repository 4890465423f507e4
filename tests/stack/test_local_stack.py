"""The local stack is what the template says, although ministack leaves parts of it out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.stack.probes import probe

if TYPE_CHECKING:
    from local.stack import Stack

IMPORTER = """
    import importlib

    def lambda_handler(event, context):
        found = []
        for name in event["modules"]:
            try:
                importlib.import_module(name)
            except ImportError:
                continue
            found.append(name)
        return found
"""


def test_every_checked_property_is_what_the_services_report(stack: Stack) -> None:
    assert stack.differences() == []


def test_finished_deliveries_expire_and_everything_can_be_restored(stack: Stack) -> None:
    dynamodb, table = stack.client("dynamodb"), stack.outputs["LedgerTable"]
    ttl = dynamodb.describe_time_to_live(TableName=table)["TimeToLiveDescription"]
    assert ttl == {"TimeToLiveStatus": "ENABLED", "AttributeName": "expires_at"}
    backups = dynamodb.describe_continuous_backups(TableName=table)["ContinuousBackupsDescription"]
    assert backups["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"] == "ENABLED"
    assert dynamodb.describe_table(TableName=table)["Table"]["SSEDescription"]["Status"] == "ENABLED"


def test_the_spool_expires_only_what_a_finished_delivery_has_tagged(stack: Stack) -> None:
    answer = stack.client("s3").get_bucket_lifecycle_configuration(Bucket=stack.outputs["SpoolBucket"])
    expiring = [rule for rule in answer["Rules"] if "Expiration" in rule]
    assert [rule["Filter"] for rule in expiring] == [{"Tag": {"Key": "delivery", "Value": "finished"}}]
    assert [rule["Expiration"] for rule in expiring] == [{"Days": 30}]


def test_only_the_three_watched_folders_start_anything(stack: Stack) -> None:
    answer = stack.client("s3").get_bucket_notification_configuration(Bucket=stack.outputs["DropsBucket"])
    prefixes = {
        rule["Value"].split("/")[0]
        for queue in answer["QueueConfigurations"]
        for rule in queue["Filter"]["Key"]["FilterRules"]
    }
    assert prefixes == {"incoming", "plan", "config"}


def test_a_function_finds_the_runtimes_modules_and_its_layers_and_no_others(stack: Stack) -> None:
    modules = ["boto3", "botocore", "httpx", "pydantic", "finops_relay", "moto", "ministack", "pytest", "yaml"]
    with probe(stack, IMPORTER, role_of="PriceBookPrepareFunction") as bare:
        assert bare({"modules": modules}) == ["boto3", "botocore"]
    with probe(stack, IMPORTER, role_of="PriceBookPrepareFunction", layers=True) as layered:
        assert layered({"modules": modules}) == ["boto3", "botocore", "httpx", "pydantic", "finops_relay", "yaml"]

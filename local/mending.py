"""Hold what ministack created against the template, by API, and mend what it left out.

It says CREATE_COMPLETE and leaves some properties out (a table's TTL, a bucket's lifecycle ...). Every property of the
resource types below is read back through the service's own API; one that differs is set through the API and read again.
What differs and cannot be set, and what nobody here knows how to read, is an error: a stack that only looks like the
template would make the tests lie.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Client = Callable[[str], Any]
    View = Callable[[Client, str], dict[str, Any]]

# Said about the outside of a resource, or consumed when it was made: nothing to read back.
_NOT_COMPARED = {"Tags", "Code", "Description"}


class MendingError(Exception):
    """Raised when the created stack is not what the template says and cannot be made so."""


@dataclass(frozen=True)
class Resource:
    """One created resource: its names, its type, and its properties with every function resolved."""

    logical_id: str
    physical_id: str
    type: str
    properties: dict[str, Any]


@dataclass(frozen=True)
class Difference:
    """One property that is not as the template says."""

    resource: Resource
    name: str
    wanted: Any
    found: Any

    def __str__(self) -> str:
        return f"{self.resource.logical_id}.{self.name}: wanted {self.wanted!r}, found {self.found!r}"


@dataclass(frozen=True)
class _Setter:
    """The API call that sets one property."""

    service: str
    method: str
    id_argument: str
    value_argument: str

    def set(self, client: Client, physical_id: str, wanted: Any) -> None:  # noqa: ANN401 - JSON
        call = getattr(client(self.service), self.method)
        call(**{self.id_argument: physical_id, self.value_argument: wanted})


def differences(client: Client, resources: list[Resource]) -> list[Difference]:
    """Every property of *resources* that the services do not report as the template has it."""
    return [difference for resource in resources for difference in _of_resource(client, resource)]


def mend(client: Client, resources: list[Resource]) -> list[Difference]:
    """Set what differs, and make sure that nothing differs any more; what was set."""
    found = differences(client, resources)
    for difference in found:
        setter = _MENDS.get((difference.resource.type, difference.name))
        if setter is None:
            raise MendingError(f"the local stack cannot hold {difference}")
        setter.set(client, difference.resource.physical_id, difference.wanted)
    left = differences(client, [difference.resource for difference in found])
    if left:
        raise MendingError(f"the local stack did not keep {left[0]}")
    return found


def _of_resource(client: Client, resource: Resource) -> Iterator[Difference]:
    view = _VIEWS.get(resource.type)
    if view is None:
        return
    actual = view(client, resource.physical_id)
    for name, value in resource.properties.items():
        if name in _NOT_COMPARED or name in _NAMES:
            continue
        if name not in actual:
            raise MendingError(f"{resource.type}.{name} is read by nobody; teach it to local/mending.py")
        translate = _IN_API_WORDS.get((resource.type, name))
        wanted = translate(value) if translate else value
        if not _matches(wanted, actual[name]):
            yield Difference(resource, name, wanted, actual[name])


# A name that the template gives is the physical id, which create_stack has answered with.
_NAMES = {"TableName", "BucketName", "QueueName", "FunctionName", "LogGroupName", "AlarmName"}


def _matches(wanted: Any, found: Any) -> bool:  # noqa: ANN401 - two pieces of JSON
    """Whether *found* says at least what *wanted* says; services write numbers and flags as text."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        return all(_matches(value, found.get(key)) for key, value in wanted.items())
    if isinstance(wanted, list) and isinstance(found, list):
        return len(wanted) == len(found) and all(
            any(_matches(item, candidate) for candidate in found) for item in wanted
        )
    if isinstance(wanted, bool) or isinstance(found, bool):
        return str(wanted).lower() == str(found).lower()
    with contextlib.suppress(TypeError, ValueError):
        return float(wanted) == float(found)
    return bool(wanted == found)


def _or_none(call: Callable[..., dict[str, Any]], **arguments: str) -> dict[str, Any]:
    """The answer of *call*; empty when the service says that there is no such configuration."""
    try:
        return call(**arguments)
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code.startswith("NoSuch") or code.endswith("NotFoundError"):
            return {}
        raise


# --- what the services say: the template's property names, the API's words under them ---


def _table(client: Client, name: str) -> dict[str, Any]:
    dynamodb = client("dynamodb")
    table = dynamodb.describe_table(TableName=name)["Table"]
    ttl = dynamodb.describe_time_to_live(TableName=name)["TimeToLiveDescription"]
    backups = dynamodb.describe_continuous_backups(TableName=name)["ContinuousBackupsDescription"]
    recovery = backups["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"]
    return {
        "BillingMode": table.get("BillingModeSummary", {}).get("BillingMode", "PROVISIONED"),
        "AttributeDefinitions": table["AttributeDefinitions"],
        "KeySchema": table["KeySchema"],
        "GlobalSecondaryIndexes": table.get("GlobalSecondaryIndexes", []),
        "StreamSpecification": table.get("StreamSpecification"),
        "DeletionProtectionEnabled": table.get("DeletionProtectionEnabled", False),
        "SSESpecification": {"Enabled": table.get("SSEDescription", {}).get("Status") == "ENABLED"},
        "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": recovery == "ENABLED"},
        "TimeToLiveSpecification": {
            "AttributeName": ttl.get("AttributeName"),
            "Enabled": ttl["TimeToLiveStatus"] == "ENABLED",
        },
    }


def _bucket(client: Client, name: str) -> dict[str, Any]:
    s3 = client("s3")
    encryption = _or_none(s3.get_bucket_encryption, Bucket=name)
    blocked = _or_none(s3.get_public_access_block, Bucket=name)
    lifecycle = _or_none(s3.get_bucket_lifecycle_configuration, Bucket=name)
    return {
        "VersioningConfiguration": {"Status": s3.get_bucket_versioning(Bucket=name).get("Status")},
        "BucketEncryption": encryption.get("ServerSideEncryptionConfiguration"),
        "LifecycleConfiguration": {"Rules": lifecycle.get("Rules", [])},
        "OwnershipControls": _or_none(s3.get_bucket_ownership_controls, Bucket=name).get("OwnershipControls"),
        "PublicAccessBlockConfiguration": blocked.get("PublicAccessBlockConfiguration"),
        "NotificationConfiguration": s3.get_bucket_notification_configuration(Bucket=name),
    }


def _encryption(template: dict[str, Any]) -> dict[str, Any]:
    rules = template["ServerSideEncryptionConfiguration"]
    return {"Rules": [{"ApplyServerSideEncryptionByDefault": rule["ServerSideEncryptionByDefault"]} for rule in rules]}


def _notification(template: dict[str, Any]) -> dict[str, Any]:
    if unknown := set(template) - {"QueueConfigurations"}:
        raise MendingError(f"notifications {sorted(unknown)} are read by nobody; teach it to local/mending.py")
    return {
        "QueueConfigurations": [
            {
                "Events": [queue["Event"]],
                "QueueArn": queue["Queue"],
                "Filter": {"Key": {"FilterRules": queue["Filter"]["S3Key"]["Rules"]}},
            }
            for queue in template["QueueConfigurations"]
        ]
    }


def _lifecycle(template: dict[str, Any]) -> dict[str, Any]:
    return {"Rules": [_lifecycle_rule(dict(rule)) for rule in template["Rules"]]}


def _lifecycle_rule(rule: dict[str, Any]) -> dict[str, Any]:
    api: dict[str, Any] = {"ID": rule.pop("Id"), "Status": rule.pop("Status")}
    tags, prefix = rule.pop("TagFilters", []), rule.pop("Prefix", "")
    if len(tags) + bool(prefix) > 1:
        api["Filter"] = {"And": {"Tags": tags, "Prefix": prefix}}
    else:
        api["Filter"] = {"Tag": tags[0]} if tags else {"Prefix": prefix}
    if days := rule.pop("ExpirationInDays", None):
        api["Expiration"] = {"Days": int(days)}
    if rule.pop("ExpiredObjectDeleteMarker", False):
        api["Expiration"] = {"ExpiredObjectDeleteMarker": True}
    for name in ("NoncurrentVersionExpiration", "AbortIncompleteMultipartUpload"):
        if counted := rule.pop(name, None):
            api[name] = {key: int(value) for key, value in counted.items()}
    if rule:
        raise MendingError(f"lifecycle {sorted(rule)} is set by nobody; teach it to local/mending.py")
    return api


def _queue(client: Client, url: str) -> dict[str, Any]:
    attributes = client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    redrive = attributes.get("RedrivePolicy", "{}")
    unset = {"FifoQueue": "false", "ContentBasedDeduplication": "false", "KmsMasterKeyId": None}
    return {**unset, **attributes, "RedrivePolicy": json.loads(redrive)}


def _function(client: Client, name: str) -> dict[str, Any]:
    function = client("lambda").get_function(FunctionName=name)
    configuration = function["Configuration"]
    return {
        **configuration,
        "Layers": [layer["Arn"] for layer in configuration.get("Layers", [])],
        "Environment": {"Variables": configuration.get("Environment", {}).get("Variables", {})},
        "ReservedConcurrentExecutions": function.get("Concurrency", {}).get("ReservedConcurrentExecutions"),
        "DeadLetterConfig": configuration.get("DeadLetterConfig"),
    }


def _mapping(client: Client, uuid: str) -> dict[str, Any]:
    mapping = client("lambda").get_event_source_mapping(UUID=uuid)
    name = mapping["FunctionArn"].rsplit(":", 1)[-1]
    unset: dict[str, Any] = {"FunctionResponseTypes": [], "ScalingConfig": {}, "FilterCriteria": {}}
    return {**unset, **mapping, "FunctionName": name, "Enabled": mapping["State"] in {"Enabled", "Enabling"}}


def _log_group(client: Client, name: str) -> dict[str, Any]:
    groups = client("logs").describe_log_groups(logGroupNamePrefix=name)["logGroups"]
    group = next(group for group in groups if group["logGroupName"] == name)
    return {"RetentionInDays": group.get("retentionInDays")}


def _alarm(client: Client, name: str) -> dict[str, Any]:
    return dict(client("cloudwatch").describe_alarms(AlarmNames=[name])["MetricAlarms"][0])


_VIEWS: dict[str, View] = {
    "AWS::DynamoDB::Table": _table,
    "AWS::S3::Bucket": _bucket,
    "AWS::SQS::Queue": _queue,
    "AWS::Lambda::Function": _function,
    "AWS::Lambda::EventSourceMapping": _mapping,
    "AWS::Logs::LogGroup": _log_group,
    "AWS::CloudWatch::Alarm": _alarm,
}

_IN_API_WORDS: dict[tuple[str, str], Callable[[Any], Any]] = {
    ("AWS::Lambda::Function", "ReservedConcurrentExecutions"): int,
    ("AWS::DynamoDB::Table", "SSESpecification"): lambda template: {"Enabled": template["SSEEnabled"]},
    ("AWS::S3::Bucket", "BucketEncryption"): _encryption,
    ("AWS::S3::Bucket", "LifecycleConfiguration"): _lifecycle,
    ("AWS::S3::Bucket", "NotificationConfiguration"): _notification,
}

# service, method, the argument that takes the physical id, the argument that takes the value
_MENDS = {
    ("AWS::DynamoDB::Table", "TimeToLiveSpecification"): _Setter(
        "dynamodb", "update_time_to_live", "TableName", "TimeToLiveSpecification"
    ),
    ("AWS::DynamoDB::Table", "PointInTimeRecoverySpecification"): _Setter(
        "dynamodb", "update_continuous_backups", "TableName", "PointInTimeRecoverySpecification"
    ),
    ("AWS::DynamoDB::Table", "SSESpecification"): _Setter("dynamodb", "update_table", "TableName", "SSESpecification"),
    ("AWS::S3::Bucket", "BucketEncryption"): _Setter(
        "s3", "put_bucket_encryption", "Bucket", "ServerSideEncryptionConfiguration"
    ),
    ("AWS::S3::Bucket", "LifecycleConfiguration"): _Setter(
        "s3", "put_bucket_lifecycle_configuration", "Bucket", "LifecycleConfiguration"
    ),
    ("AWS::S3::Bucket", "OwnershipControls"): _Setter(
        "s3", "put_bucket_ownership_controls", "Bucket", "OwnershipControls"
    ),
    ("AWS::Lambda::Function", "ReservedConcurrentExecutions"): _Setter(
        "lambda", "put_function_concurrency", "FunctionName", "ReservedConcurrentExecutions"
    ),
    ("AWS::Lambda::Function", "DeadLetterConfig"): _Setter(
        "lambda", "update_function_configuration", "FunctionName", "DeadLetterConfig"
    ),
}

CHECKED_TYPES = frozenset(_VIEWS)
"""Resource types whose every property is compared."""

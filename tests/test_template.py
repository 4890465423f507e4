"""What is deployed: queues, dead letters, rights, alarms and buckets of `template.yaml`, and the built artefact."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from finops_relay.jobs.telemetry.collect import INBOX

from local import build
from local.bootstrap import BootstrapError

ROOT = Path(__file__).resolve().parents[1]
DAY_S = 86_400


class CloudFormation(yaml.SafeLoader):
    """YAML with CloudFormation's short forms, turned into the long ones."""


def _long(loader: CloudFormation, suffix: str, node: yaml.Node) -> dict[str, Any]:
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
        if suffix == "GetAtt":
            value = str(value).split(".")
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        assert isinstance(node, yaml.MappingNode)
        value = loader.construct_mapping(node, deep=True)
    return {suffix if suffix in {"Ref", "Condition"} else f"Fn::{suffix}": value}


CloudFormation.add_multi_constructor("!", _long)

TEMPLATE: dict[str, Any] = yaml.load((ROOT / "template.yaml").read_text(), CloudFormation)  # noqa: S506 -- it is a SafeLoader
RESOURCES: dict[str, dict[str, Any]] = TEMPLATE["Resources"]
PARAMETERS: dict[str, dict[str, Any]] = TEMPLATE["Parameters"]


def of_type(kind: str) -> dict[str, dict[str, Any]]:
    """Return the properties of each resource of a type, by logical name."""
    return {name: found.get("Properties", {}) for name, found in RESOURCES.items() if found["Type"] == kind}


FUNCTIONS = {
    name: {**TEMPLATE["Globals"]["Function"], **properties}
    for name, properties in of_type("AWS::Serverless::Function").items()
}
QUEUES = of_type("AWS::SQS::Queue")
ALARMS = of_type("AWS::CloudWatch::Alarm")
BUCKETS = of_type("AWS::S3::Bucket")
ROLES = of_type("AWS::IAM::Role")

COLLECT = "TelemetryCollectFunction"
"""It keeps what applications send, whole batches at a time, and waits for nothing: some rules are others for it."""

every_function = pytest.mark.parametrize("name", sorted(FUNCTIONS))
every_function_that_waits = pytest.mark.parametrize("name", sorted(FUNCTIONS.keys() - {COLLECT}))
every_bucket = pytest.mark.parametrize("name", sorted(BUCKETS))


def named(value: Any) -> str:  # noqa: ANN401 -- whatever the original takes or gives
    """Return the logical name that a Ref or GetAtt points to."""
    match value:
        case {"Ref": str(name)} | {"Fn::GetAtt": [str(name), *_]}:
            return name
        case {"Fn::Sub": str(text)}:
            return str(re.findall(r"\$\{([A-Za-z]+)", text)[0])
    raise AssertionError(f"no reference: {value!r}")


def as_list(value: Any) -> list[Any]:  # noqa: ANN401 -- whatever the original takes or gives
    return value if isinstance(value, list) else [value]


def sources(name: str) -> list[dict[str, Any]]:
    """Return what triggers a function."""
    return list(FUNCTIONS[name].get("Events", {}).values())


def queue_of(name: str) -> tuple[str, dict[str, Any]]:
    """Return the queue that feeds a function."""
    queue = named(sources(name)[0]["Properties"]["Queue"])
    return queue, QUEUES[queue]


def statements(name: str) -> list[dict[str, Any]]:
    """Return the rights of a function."""
    role = ROLES[named(FUNCTIONS[name]["Role"])]
    return [statement for policy in role["Policies"] for statement in policy["PolicyDocument"]["Statement"]]


def variables(name: str) -> dict[str, Any]:
    """Return what a function alone finds in its environment."""
    found: dict[str, Any] = FUNCTIONS[name]["Environment"]["Variables"]
    return found


def senders(queue: str) -> dict[str, dict[str, Any]]:
    """Return what the policy of a queue lets services do, by the service."""
    return {
        statement["Principal"]["Service"]: statement
        for policy in of_type("AWS::SQS::QueuePolicy").values()
        for statement in policy["PolicyDocument"]["Statement"]
        if named(statement["Resource"]) == queue
    }


def notifications() -> list[dict[str, Any]]:
    """Return what the buckets tell queues."""
    return [
        found
        for bucket in BUCKETS.values()
        for found in bucket.get("NotificationConfiguration", {}).get("QueueConfigurations", [])
    ]


def alarms(**wanted: object) -> list[dict[str, Any]]:
    """Return the alarms whose properties are as *wanted*."""
    return [alarm for alarm in ALARMS.values() if all(alarm.get(key) == value for key, value in wanted.items())]


def walked(value: Any) -> Iterator[Any]:  # noqa: ANN401 -- whatever the original takes or gives
    """Yield *value* and everything in it."""
    yield value
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for child in children:
        yield from walked(child)


# --- queues --------------------------------------------------------------------------------------------------------


def test_there_are_functions_to_look_at() -> None:
    assert {found["CodeUri"].removeprefix("functions/") for found in FUNCTIONS.values()} == {
        path.parent.name for path in (ROOT / "functions").glob("*/app.py")
    }


@every_function
def test_a_function_is_fed_by_a_queue_of_its_own_and_by_nothing_else(name: str) -> None:
    assert [source["Type"] for source in sources(name)] == ["SQS"]
    queue, _ = queue_of(name)
    assert [other for other in FUNCTIONS if queue_of(other)[0] == queue] == [name]
    assert named(FUNCTIONS[name]["Environment"]["Variables"]["QUEUE_URL"]) == queue


@every_function
def test_a_message_is_never_in_two_runs_and_partial_failures_are_reported(name: str) -> None:
    _, queue = queue_of(name)
    assert queue["VisibilityTimeout"] >= 6 * FUNCTIONS[name]["Timeout"]
    # telemetry_collect takes a batch whole: where it cannot be kept the function fails, which an alarm counts.
    alone = ["ReportBatchItemFailures"] if name != COLLECT else None
    assert sources(name)[0]["Properties"].get("FunctionResponseTypes") == alone


@every_function_that_waits
def test_one_message_a_batch_so_that_a_wait_holds_up_nobody_else(name: str) -> None:
    assert sources(name)[0]["Properties"]["BatchSize"] == 1


def test_records_of_applications_are_taken_by_the_batch_for_they_wait_for_nothing() -> None:
    """Ten thousand is the most that Lambda hands over, and more than ten only after at least a second's gathering.

    A batch is kept or comes back as a whole, so that nothing in it holds up anything else.
    """
    source, (_, queue) = sources(COLLECT)[0]["Properties"], queue_of(COLLECT)
    gathering = PARAMETERS[named(source["MaximumBatchingWindowInSeconds"])]
    assert source["BatchSize"] == 10_000
    assert gathering["MinValue"] >= 1
    # Lambda holds messages while it gathers, and their time runs.
    assert queue["VisibilityTimeout"] >= 6 * FUNCTIONS[COLLECT]["Timeout"] + gathering["MaxValue"]


@every_function
def test_waiting_is_free_and_what_cannot_be_taken_is_kept_longer_than_it_waited(name: str) -> None:
    _, queue = queue_of(name)
    dead = QUEUES[named(queue["RedrivePolicy"]["deadLetterTargetArn"])]
    # What comes back to telemetry_collect waits for S3 alone, each time as long: a week of that, and it never expires.
    receives = queue["RedrivePolicy"]["maxReceiveCount"]
    assert receives == 100 or (name == COLLECT and 7 * DAY_S < receives * queue["VisibilityTimeout"] < 9 * DAY_S)
    assert queue["MessageRetentionPeriod"] == 10 * DAY_S
    assert dead["MessageRetentionPeriod"] == 14 * DAY_S
    assert dead.get("FifoQueue", False) is queue.get("FifoQueue", False)
    assert "RedrivePolicy" not in dead


def test_every_queue_is_fed_to_a_function_or_takes_its_dead_letters_for_one_queue_only() -> None:
    fed = {queue_of(name)[0] for name in FUNCTIONS}
    dead = Counter(named(QUEUES[queue]["RedrivePolicy"]["deadLetterTargetArn"]) for queue in fed)
    assert set(QUEUES) == fed | set(dead)
    assert set(dead.values()) == {1}
    assert all(queue["SqsManagedSseEnabled"] is True for queue in QUEUES.values())


def test_a_fifo_queue_leaves_other_groups_alone() -> None:
    for queue in (queue for queue in QUEUES.values() if queue.get("FifoQueue") and "RedrivePolicy" in queue):
        assert (queue["DeduplicationScope"], queue["FifoThroughputLimit"]) == ("messageGroup", "perMessageGroupId")
        assert queue["ContentBasedDeduplication"] is False


def test_schedules_go_to_queues_that_take_them() -> None:
    for name, rule in of_type("AWS::Events::Rule").items():
        assert len({target["Id"] for target in rule["Targets"]}) == len(rule["Targets"])
        for target in rule["Targets"]:
            by_the_rule = {"ArnEquals": {"aws:SourceArn": {"Fn::GetAtt": [name, "Arn"]}}}
            assert by_the_rule in [taken["Condition"] for taken in senders(named(target["Arn"])).values()]


def test_the_sweep_reaches_every_function_that_waits_for_folders() -> None:
    waiting = {queue_of(name)[0] for name in FUNCTIONS if "FOLDER_WAIT_S" in variables(name)}
    assert waiting == {named(target["Arn"]) for target in of_type("AWS::Events::Rule")["FolderSweep"]["Targets"]}


def test_the_records_of_applications_are_counted_every_few_minutes() -> None:
    rule = of_type("AWS::Events::Rule")["TelemetrySend"]
    assert {named(target["Arn"]) for target in rule["Targets"]} == {queue_of("TelemetryPrepareFunction")[0]}
    assert PARAMETERS[named(rule["ScheduleExpression"])]["Default"] == "rate(5 minutes)"


def test_whatever_reads_sources_of_truth_is_woken_by_the_hour_and_told_which_hour_is_theirs() -> None:
    rule = of_type("AWS::Events::Rule")["SyncTick"]
    reading = {queue_of(name)[0] for name in FUNCTIONS if "SYNC_HOUR_UTC" in variables(name)}
    assert {named(target["Arn"]) for target in rule["Targets"]} == reading
    assert PARAMETERS[named(rule["ScheduleExpression"])]["Default"] == "cron(0 * * * ? *)"
    hour = PARAMETERS["SyncHourUtc"]
    assert (hour["MinValue"], hour["Default"], hour["MaxValue"]) == (0, 3, 23)


def test_a_function_that_prepares_for_itself_sends_to_its_own_queue() -> None:
    """A tick becomes a message for each source of truth that is due: one that waits holds up none of the others."""
    for name in FUNCTIONS:
        if "SYNC_HOUR_UTC" in variables(name):
            assert named(variables(name)["PREPARE_QUEUE_URL"]) == queue_of(name)[0]


def test_a_queue_that_the_bucket_notifies_takes_its_messages_before_the_bucket_is_made() -> None:
    notified = {named(found["Queue"]) for found in notifications()}
    assert notified
    policies = {
        name: named(queue) for name, policy in of_type("AWS::SQS::QueuePolicy").items() for queue in policy["Queues"]
    }
    assert {policies[name] for name in RESOURCES["DropsBucket"]["DependsOn"]} == notified
    for queue in notified:
        assert senders(queue)["s3.amazonaws.com"]["Condition"] == {
            "StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}
        }


def test_functions_send_to_one_another_by_their_roles_alone() -> None:
    """A queue policy that named a role would be a circle: the roles name the queues."""
    assert {sender for queue in QUEUES for sender in senders(queue)} == {"s3.amazonaws.com", "events.amazonaws.com"}
    for name in FUNCTIONS:
        told = {named(url) for key, url in variables(name).items() if key.endswith("QUEUE_URL")}
        if name == COLLECT:  # it gives a batch back whole, and sends nothing afresh
            told.remove(queue_of(name)[0])
        assert told == {
            named(resource)
            for statement in statements(name)
            for resource in as_list(statement["Resource"])
            if "sqs:SendMessage" in as_list(statement["Action"])
        }


def test_a_queue_takes_messages_of_this_account_or_one_rule_only() -> None:
    for policy in of_type("AWS::SQS::QueuePolicy").values():
        for statement in policy["PolicyDocument"]["Statement"]:
            assert set(statement["Principal"]) == {"Service"}
            assert statement["Action"] == "sqs:SendMessage"
            conditions = {key for condition in statement["Condition"].values() for key in condition}
            assert conditions & {"aws:SourceAccount", "aws:SourceArn"}
            assert named(statement["Resource"]) in {named(queue) for queue in policy["Queues"]}


def test_who_may_send_records_is_said_by_the_policies_of_those_who_send() -> None:
    """Without a policy of its own a queue takes messages from its own account only, of whoever has sqs:SendMessage."""
    queue, _ = queue_of(COLLECT)
    assert senders(queue) == {}
    told = {name: named(output["Value"]) for name, output in TEMPLATE["Outputs"].items() if "Queue" in name}
    assert told == {"TelemetryQueueUrl": queue, "TelemetryQueueArn": queue}


# --- functions -----------------------------------------------------------------------------------------------------


@every_function
def test_a_function_runs_on_the_runtime_that_is_tested(name: str) -> None:
    function = FUNCTIONS[name]
    assert function["Runtime"] == "python3.13"
    assert function["Handler"] == "app.lambda_handler"
    assert function["Tracing"] == "Active"
    assert function["Timeout"] <= 900


@every_function
def test_a_function_has_a_log_group_that_forgets(name: str) -> None:
    logs = of_type("AWS::Logs::LogGroup")
    group = named(FUNCTIONS[name]["LoggingConfig"]["LogGroup"])
    assert logs[group]["RetentionInDays"]
    assert [n for n in FUNCTIONS if named(FUNCTIONS[n]["LoggingConfig"]["LogGroup"]) == group] == [name]


@every_function
def test_a_function_has_a_role_of_its_own_that_only_functions_assume(name: str) -> None:
    role = named(FUNCTIONS[name]["Role"])
    assert [other for other in FUNCTIONS if named(FUNCTIONS[other]["Role"]) == role] == [name]
    assert "ManagedPolicyArns" not in ROLES[role]
    trusted = ROLES[role]["AssumeRolePolicyDocument"]["Statement"]
    assert [statement["Principal"] for statement in trusted] == [{"Service": "lambda.amazonaws.com"}]


@every_function
def test_no_right_is_a_wildcard(name: str) -> None:
    for statement in statements(name):
        assert statement["Effect"] == "Allow"
        assert not {"NotAction", "NotResource", "NotPrincipal"} & set(statement)
        actions = as_list(statement["Action"])
        assert not [action for action in actions if "*" in action]
        if not all(action.startswith("xray:") for action in actions):
            assert "*" not in as_list(statement["Resource"])


@every_function
def test_rights_on_a_bucket_stop_at_a_prefix(name: str) -> None:
    for statement in statements(name):
        actions = {action for action in as_list(statement["Action"]) if action.startswith("s3:")}
        for resource in as_list(statement["Resource"]) if actions - {"s3:ListBucket"} else ():
            assert re.fullmatch(r"\$\{(Drops|Spool)Bucket\.Arn\}/[a-z/-]+/\*", resource["Fn::Sub"])


@every_function
def test_a_function_takes_from_its_own_queue_only_and_its_own_logs(name: str) -> None:
    taking = {"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility"}
    needed = taking - {"sqs:ChangeMessageVisibility"} if name == COLLECT else taking  # a batch sets no waits
    for statement in statements(name):
        goals = {named(resource) for resource in as_list(statement["Resource"]) if resource != "*"}
        if taking & set(as_list(statement["Action"])):
            assert goals == {queue_of(name)[0]}
        if any(action.startswith("logs:") for action in as_list(statement["Action"])):
            assert goals == {named(FUNCTIONS[name]["LoggingConfig"]["LogGroup"])}
    granted = {action for statement in statements(name) for action in as_list(statement["Action"])}
    assert taking & granted == needed


def test_no_function_can_trigger_us_by_what_it_writes() -> None:
    prefixes = trigger_prefixes()
    for name in FUNCTIONS:
        for statement in statements(name):
            for resource in as_list(statement["Resource"]) if "s3:PutObject" in as_list(statement["Action"]) else ():
                written = resource["Fn::Sub"].partition("/")[2].removesuffix("*")
                assert not [p for p in prefixes if written.startswith(p) or p.startswith(written)], (name, written)


def test_nothing_is_deleted_but_what_functions_of_ours_have_put_below_state() -> None:
    """Row 28: nothing below state/ starts a function, and what was dropped is never deleted."""

    def may(action: str) -> set[tuple[str, str]]:
        return {
            (name, resource["Fn::Sub"])
            for name in FUNCTIONS
            for statement in statements(name)
            if action in as_list(statement["Action"])
            for resource in as_list(statement["Resource"])
        }

    inbox = f"${{DropsBucket.Arn}}/{INBOX}*"
    applied = {f"${{DropsBucket.Arn}}/state/{kind}/*" for kind in ("tagging-policies", "custom-properties")}
    assert may("s3:DeleteObject") == {
        ("TelemetryPrepareFunction", inbox),
        *(("InfracostDeliverFunction", state) for state in applied),
    }
    assert may("s3:DeleteObjectVersion") == set()
    assert {name for name, written in may("s3:PutObject") if written in applied} == {"InfracostDeliverFunction"}
    assert {written for name, written in may("s3:PutObject") if name == COLLECT} == {inbox}
    assert not [prefix for prefix in trigger_prefixes() if "state/".startswith(prefix) or prefix.startswith("state/")]


def test_a_vendors_credential_is_read_by_what_delivers_to_it_and_a_sources_by_what_reads_sources() -> None:
    readers = {
        (FUNCTIONS[name]["CodeUri"].removeprefix("functions/"), resource["Fn::Sub"].partition(":secret:")[2])
        for name in FUNCTIONS
        for statement in statements(name)
        if any(action.startswith("secretsmanager:") for action in as_list(statement["Action"]))
        for resource in as_list(statement["Resource"])
    }
    # Secrets Manager ends an ARN with a hyphen and six characters of its own.
    assert readers == {
        ("infracost_deliver", "infracost/*"),
        ("cloudzero_deliver", "cloudzero-??????"),
        ("tagging_policy_prepare", "sources/*"),
        ("custom_properties_prepare", "sources/*"),
    }


def test_what_people_drop_is_read_by_the_function_that_is_told_of_it_and_by_no_other() -> None:
    told = {
        (named(found["Queue"]), rule["Value"])
        for found in notifications()
        for rule in found["Filter"]["S3Key"]["Rules"]
    }
    read = {
        (queue_of(name)[0], resource["Fn::Sub"].partition("/")[2].removesuffix("*"))
        for name in FUNCTIONS
        for statement in statements(name)
        if "s3:GetObject" in as_list(statement["Action"])
        for resource in as_list(statement["Resource"])
        if named(resource) == "DropsBucket"
    }
    ours = ("state/", "rejected/")
    assert {found for found in read if not found[1].startswith(ours)} == told


def test_no_environment_variable_holds_a_secret() -> None:
    everywhere = TEMPLATE["Globals"]["Function"]["Environment"]["Variables"]
    for function in FUNCTIONS.values():
        for name, value in {**everywhere, **function["Environment"]["Variables"]}.items():
            assert not re.search(r"TOKEN|SECRET|PASSWORD|API_KEY|CREDENTIAL", name)
            assert "resolve:" not in json.dumps(value)
    assert not [name for name in PARAMETERS if re.search(r"Token|Secret|Password|ApiKey", name)]


# --- alarms --------------------------------------------------------------------------------------------------------


def test_every_alarm_reaches_the_topic_and_says_where_to_read_on() -> None:
    topics = set(of_type("AWS::SNS::Topic"))
    for name, alarm in ALARMS.items():
        assert {named(action) for action in alarm["AlarmActions"]} <= topics, name
        assert alarm["AlarmActions"], name
        assert "runbook" in alarm["AlarmDescription"], name
        assert alarm["TreatMissingData"] in {"notBreaching", "breaching"}, name
        days = alarm["EvaluationPeriods"]
        if isinstance(days, dict):
            days = PARAMETERS[named(days)]["MaxValue"]
        assert alarm["Period"] * days <= 7 * DAY_S, name


@every_function
def test_a_function_that_crashes_or_is_throttled_rings(name: str) -> None:
    for metric in ("Errors", "Throttles"):
        (alarm,) = [
            a for a in alarms(Namespace="AWS/Lambda", MetricName=metric) if named(a["Dimensions"][0]["Value"]) == name
        ]
        assert (alarm["Threshold"], alarm["Statistic"]) == (1, "Sum")


@every_function
def test_messages_that_age_and_dead_letters_ring(name: str) -> None:
    queue, properties = queue_of(name)
    dead = named(properties["RedrivePolicy"]["deadLetterTargetArn"])

    def watching(metric: str, watched: str) -> dict[str, Any]:
        found = alarms(Namespace="AWS/SQS", MetricName=metric, Statistic="Maximum")
        (alarm,) = [each for each in found if named(each["Dimensions"][0]["Value"]) == watched]
        return alarm

    assert watching("ApproximateAgeOfOldestMessage", queue)["Threshold"] < 10 * DAY_S
    assert watching("ApproximateNumberOfMessagesVisible", dead)["Threshold"] == 1
    assert watching("ApproximateAgeOfOldestMessage", dead)["Threshold"] < 14 * DAY_S


def test_silence_rings_after_a_week_at_most() -> None:
    (alarm,) = alarms(MetricName="DeliverySucceeded")
    assert (alarm["Period"], alarm["ComparisonOperator"], alarm["Threshold"]) == (DAY_S, "LessThanThreshold", 1)
    assert alarm["TreatMissingData"] == "breaching"
    assert alarm["Dimensions"] == [{"Name": "service", "Value": "infracost-deliver"}], "not everybody uses both vendors"
    days = PARAMETERS[named(alarm["EvaluationPeriods"])]
    assert (days["MinValue"], days["MaxValue"]) == (1, 7)
    assert 1 <= days["Default"] <= 7


READS_SOURCES = ("tagging-policy-prepare", "custom-properties-prepare")
"""To what they count, a source of truth is a vendor."""
NEEDS_A_PERSON = {
    "CredentialRefused": {"infracost-deliver", "cloudzero-deliver", *READS_SOURCES},
    "VendorTrouble": {"infracost-deliver", "cloudzero-deliver", *READS_SOURCES},
    "DeliveryHeld": {"price-book-prepare", "billing-drop-prepare", "infracost-deliver", "cloudzero-deliver"},
    # What a schedule reads nobody has dropped: nobody looks for its receipt.
    "DeliveryFailed": {"infracost-deliver", "cloudzero-deliver", *READS_SOURCES},
    "Quarantined": {
        *("price-book-prepare", "billing-drop-prepare", "telemetry-prepare", "config-check", "release"),
        *("infracost-deliver", "cloudzero-deliver", *READS_SOURCES),
    },
}
"""The services that count each metric."""


@pytest.mark.parametrize("metric", sorted(NEEDS_A_PERSON))
def test_what_needs_a_person_rings(metric: str) -> None:
    watched = [alarm["Dimensions"] for alarm in alarms(Namespace="FinOpsRelay", MetricName=metric)]
    assert sorted(each["Value"] for (each,) in watched) == sorted(NEEDS_A_PERSON[metric])


def test_an_alarm_watches_a_service_that_exists() -> None:
    services = {function["Environment"]["Variables"]["POWERTOOLS_SERVICE_NAME"] for function in FUNCTIONS.values()}
    for alarm in alarms(Namespace="FinOpsRelay"):
        assert {d["Value"] for d in alarm["Dimensions"] if d["Name"] == "service"} <= services


# --- storage -------------------------------------------------------------------------------------------------------


@every_bucket
def test_a_bucket_is_versioned_encrypted_and_closed(name: str) -> None:
    bucket = BUCKETS[name]
    assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
    (rule,) = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert rule["ServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert len(bucket["PublicAccessBlockConfiguration"]) == 4
    assert bucket["OwnershipControls"]["Rules"] == [{"ObjectOwnership": "BucketOwnerEnforced"}]


@every_bucket
def test_a_bucket_is_reached_over_tls_only(name: str) -> None:
    (policy,) = [p for p in of_type("AWS::S3::BucketPolicy").values() if named(p["Bucket"]) == name]
    (statement,) = [s for s in policy["PolicyDocument"]["Statement"] if s["Sid"] == "TlsOnly"]
    assert (statement["Effect"], statement["Principal"], statement["Action"]) == ("Deny", "*", "s3:*")
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert [named(resource) for resource in statement["Resource"]] == [name, name]


def test_what_holds_data_outlives_the_stack() -> None:
    for name in [*BUCKETS, *of_type("AWS::DynamoDB::Table")]:
        assert (RESOURCES[name]["DeletionPolicy"], RESOURCES[name]["UpdateReplacePolicy"]) == ("Retain", "Retain")


def test_a_body_in_the_spool_expires_only_once_its_delivery_is_over() -> None:
    rules = BUCKETS["SpoolBucket"]["LifecycleConfiguration"]["Rules"]
    for rule in (rule for rule in rules if "ExpirationInDays" in rule):
        assert rule["TagFilters"] == [{"Key": "delivery", "Value": "finished"}]
    assert PARAMETERS["SpoolDays"]["MinValue"] >= 30


def test_nothing_that_was_dropped_expires_by_itself() -> None:
    assert not [r for r in BUCKETS["DropsBucket"]["LifecycleConfiguration"]["Rules"] if "ExpirationInDays" in r]


def test_the_ledger_expires_encrypts_and_can_be_put_back() -> None:
    (ledger,) = of_type("AWS::DynamoDB::Table").values()
    assert ledger["TimeToLiveSpecification"] == {"AttributeName": "expires_at", "Enabled": True}
    assert ledger["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert ledger["SSESpecification"] == {"SSEEnabled": True}


def trigger_prefixes() -> set[str]:
    """Return the prefixes whose objects trigger a function."""
    return {
        rule["Value"]
        for found in notifications()
        for rule in found["Filter"]["S3Key"]["Rules"]
        if rule["Name"] == "prefix"
    }


def test_no_drop_starts_two_functions() -> None:
    prefixes = [rule["Value"] for found in notifications() for rule in found["Filter"]["S3Key"]["Rules"]]
    for prefix in prefixes:
        assert [other for other in prefixes if other.startswith(prefix)] == [prefix]


def test_only_what_others_drop_triggers_us() -> None:
    assert trigger_prefixes()
    for prefix in trigger_prefixes():
        assert re.fullmatch(r"(incoming|plan)/[a-z-]+/|config/", prefix)
    for bucket in BUCKETS.values():
        told = bucket.get("NotificationConfiguration", {})
        assert set(told) <= {"QueueConfigurations"}
        for each in told.get("QueueConfigurations", []):
            assert each["Event"] == "s3:ObjectCreated:*"
            assert any(rule["Name"] == "prefix" for rule in each["Filter"]["S3Key"]["Rules"])


def test_what_can_be_dropped_can_be_tried_out_but_for_a_decision() -> None:
    incoming = {prefix.removeprefix("incoming/") for prefix in trigger_prefixes() if prefix.startswith("incoming/")}
    plan = {prefix.removeprefix("plan/") for prefix in trigger_prefixes() if prefix.startswith("plan/")}
    assert incoming - {"release/"} == plan


def test_nothing_is_public() -> None:
    kinds = {resource["Type"] for resource in RESOURCES.values()}
    assert not {
        kind for kind in kinds if re.search(r"ApiGateway|Serverless::(Http)?Api|ElasticLoadBal|CloudFront", kind)
    }
    assert not of_type("AWS::Lambda::Permission")
    for function in FUNCTIONS.values():
        assert "FunctionUrlConfig" not in function
    for resource in RESOURCES.values():
        for found in walked(resource):
            if isinstance(found, dict) and found.get("Effect") == "Allow" and "Principal" in found:
                assert found["Principal"] not in ("*", {"AWS": "*"})


# --- parameters ----------------------------------------------------------------------------------------------------


def test_every_parameter_is_described_grouped_once_and_used() -> None:
    groups = TEMPLATE["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    grouped = Counter(name for group in groups for name in group["Parameters"])
    assert grouped == Counter(dict.fromkeys(PARAMETERS, 1))
    assert all(group["Label"]["default"] for group in groups)
    undescribed = {name for name, parameter in PARAMETERS.items() if not parameter.get("Description")}
    assert undescribed == set()
    text = json.dumps({key: value for key, value in TEMPLATE.items() if key not in {"Parameters", "Metadata"}})
    unused = {n for n in PARAMETERS if f'{{"Ref": "{n}"}}' not in text and f"${{{n}}}" not in text}
    assert unused == set()


def test_a_first_deployment_needs_no_answer() -> None:
    assert {name for name, parameter in PARAMETERS.items() if "Default" not in parameter} == set()
    for name, parameter in PARAMETERS.items():
        if "AllowedPattern" in parameter:
            assert re.fullmatch(parameter["AllowedPattern"].strip("^$"), parameter["Default"]) or re.search(
                parameter["AllowedPattern"], parameter["Default"]
            ), name
        if "AllowedValues" in parameter:
            assert parameter["Default"] in parameter["AllowedValues"], name
        assert parameter.get("MinValue", 0) <= (parameter["Default"] if parameter["Type"] == "Number" else 0) or (
            parameter["Type"] != "Number"
        ), name


def test_the_deployment_file_agrees_with_the_template() -> None:
    config = tomllib.loads((ROOT / "samconfig.toml").read_text())
    deploy = config["default"]["deploy"]["parameters"]
    named_roles = [name for name, role in ROLES.items() if "RoleName" in role]
    assert deploy["capabilities"] == ("CAPABILITY_NAMED_IAM" if named_roles else "CAPABILITY_IAM")
    assert deploy["resolve_s3"] is True
    assert config["default"]["global"]["parameters"]["stack_name"]
    overrides = deploy.get("parameter_overrides", [])
    overrides = overrides.split() if isinstance(overrides, str) else overrides
    assert {override.partition("=")[0] for override in overrides} <= set(PARAMETERS)


def test_the_layers_package_reads_every_variable_that_the_template_sets() -> None:
    settings = (ROOT / "layers" / "relay" / "finops_relay" / "aws" / "settings.py").read_text()
    everywhere = TEMPLATE["Globals"]["Function"]["Environment"]["Variables"]
    for function in FUNCTIONS.values():
        for name in {**everywhere, **function["Environment"]["Variables"]}:
            assert name.startswith("POWERTOOLS_") or f"    {name.lower()}: " in settings, name


# --- recorded events ----------------------------------------------------------------------------------------------


@every_function
def test_a_function_has_recorded_events_from_its_own_queue(name: str) -> None:
    folder = ROOT / "events" / FUNCTIONS[name]["CodeUri"].removeprefix("functions/")
    queue = variables(name)["POWERTOOLS_SERVICE_NAME"] + (".fifo" if queue_of(name)[1].get("FifoQueue") else "")
    records = [record for path in folder.glob("*.json") for record in json.loads(path.read_text())["Records"]]
    assert records
    for record in records:
        assert record["eventSourceARN"].rpartition(":")[2] == queue
        assert record["md5OfBody"] == hashlib.md5(record["body"].encode(), usedforsecurity=False).hexdigest()


# --- the artefact --------------------------------------------------------------------------------------------------

LAMBDA_HAS = ("boto3", "botocore", "s3transfer", "jmespath", "python-dateutil", "six", "urllib3")
"""Of what we use, what the runtime brings along (Lambda developer guide, "Runtime-included SDK")."""


@pytest.fixture(scope="session")
def built() -> Path:
    """The built artefact, made current."""
    if sys.version_info[:2] != (3, 13) or platform.machine() != "x86_64":
        pytest.skip("the artefact is built for Python 3.13 on x86_64")
    try:
        build.build()
    except BootstrapError as error:
        pytest.fail(f"the artefact could not be built: {error}")
    return build.BUILT


@pytest.fixture(scope="session")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the Lambda runtime has, and nothing else."""
    folder = tmp_path_factory.mktemp("runtime")
    for name in LAMBDA_HAS:
        distribution = importlib.metadata.distribution(name)
        tops = {file.parts[0] for file in distribution.files or () if not file.parts[0].startswith("..")}
        for top in tops:
            (folder / top).symlink_to(Path(str(distribution.locate_file(top))))
    return folder


@every_function
def test_a_handler_imports_from_the_built_artefact_under_a_clean_path(name: str, built: Path, runtime: Path) -> None:
    paths = [str(built / name), str(built / "RelayLayer" / "python"), str(runtime)]
    script = (
        f"import sys; sys.path[:0] = {paths!r}; import app, finops_relay; assert callable(app.lambda_handler);"
        "print(app.__file__, finops_relay.__file__, *sorted({name.split('.')[0] for name in sys.modules}))"
    )
    ran = subprocess.run(  # noqa: S603 -- our own interpreter and script
        [sys.executable, "-I", "-S", "-W", "error", "-c", script],
        capture_output=True, text=True, timeout=60, check=False, env={"AWS_REGION": "eu-west-1"},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    app, package, *loaded = ran.stdout.split()
    assert (Path(app).parent, Path(package).parents[1]) == (built / name, built / "RelayLayer" / "python")
    unneeded = {"boto3"} if "deliver" in FUNCTIONS[name]["CodeUri"] else {"boto3", "httpx"}
    assert not unneeded & set(loaded), "start-up pays for what the first message may not need"


def test_the_built_artefact_holds_nothing_that_the_runtime_has(built: Path) -> None:
    top = {path.name for path in (built / "RelayLayer" / "python").iterdir()}
    assert not {"boto3", "botocore", "s3transfer"} & top
    assert {"finops_relay", "httpx", "pydantic", "tenacity", "yaml", "aws_lambda_powertools"} <= top
    for name in FUNCTIONS:
        assert {path.name for path in (built / name).iterdir()} - {"__pycache__"} == {"app.py"}

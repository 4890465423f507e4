"""A function's client for CloudZero: its key from the secret, its contract from the ledger."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import boto3
import pytest
from finops_relay.aws.settings import Settings
from finops_relay.aws.wiring import Relay, _boto_client, now
from finops_relay.delivery.ports import Clock
from finops_relay.errors import ConfigRefused, CredentialRefused

from local.standins.cloudzero import KEY, CloudZeroStandIn

Process = Callable[..., AbstractContextManager[Relay]]


@pytest.fixture
def vendor() -> Iterator[CloudZeroStandIn]:
    with CloudZeroStandIn("live") as standin:
        yield standin


@pytest.fixture
def process(aws: str, vendor: CloudZeroStandIn) -> Iterator[Process]:
    """A process of a function; the next one knows nothing but what AWS keeps."""
    _boto_client.cache_clear()
    dynamodb = boto3.client("dynamodb", aws)
    dynamodb.create_table(
        TableName="ledger",
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
    )
    manager = boto3.client("secretsmanager", aws)
    manager.create_secret(Name="cloudzero", SecretString=json.dumps({"token": KEY}))

    @contextmanager
    def started(**more: str) -> Iterator[Relay]:
        settings = {
            "ledger_table": "ledger",
            "drops_bucket": "d",
            "spool_bucket": "s",
            "bus_name": "b",
            "queue_url": "q",
        }
        relay = Relay(Settings.model_validate({**settings, "cloudzero_api_url": vendor.api_url + "/", **more}))
        try:
            yield relay
        finally:
            relay._wire.close()  # noqa: SLF001 -- a process ends without closing what it keeps

    yield started
    for client in (dynamodb, manager, _boto_client("dynamodb"), _boto_client("secretsmanager")):
        client.close()
    _boto_client.cache_clear()


CLOCK = Clock(now, lambda: 60.0)


def test_the_contract_is_found_out_once_for_all_processes_and_said_once(
    process: Process, vendor: CloudZeroStandIn, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        with process() as relay:
            assert relay.cloudzero(CLOCK).name == "live"
    assert vendor.state()["counts"] == {"getBillingDimensions": 1}
    said = caplog.text
    assert said.count("contract was found out") == 1
    assert KEY not in said


def test_a_named_contract_asks_nobody(process: Process, vendor: CloudZeroStandIn) -> None:
    with process(cloudzero_contract="openapi") as relay:
        assert relay.cloudzero(CLOCK).name == "openapi"
    assert vendor.state()["calls"] == []


def test_a_contract_that_nobody_knows_is_refused(process: Process) -> None:
    with process(cloudzero_contract="v2") as relay, pytest.raises(ConfigRefused, match="auto, openapi or live"):
        relay.cloudzero(CLOCK)


def test_a_key_that_was_replaced_is_read_once_more(process: Process, vendor: CloudZeroStandIn, aws: str) -> None:
    with process() as relay:
        client = relay.cloudzero(CLOCK)
        vendor.configure({"keys": [{"key": "another"}]})
        with pytest.raises(CredentialRefused, match="API key"):
            client.dimensions()
        manager = boto3.client("secretsmanager", aws)
        manager.put_secret_value(SecretId="cloudzero", SecretString="another")
        manager.close()
        assert client.dimensions()

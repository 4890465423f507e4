"""The stack and all that it takes to make a drop end in a receipt: stand-ins, secrets, relay.yaml, short waits."""

from __future__ import annotations

import json
import secrets
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from local.bootstrap import ROOT
from local.stack import Stack, StackError
from local.standins.backstage import BackstageStandIn
from local.standins.cloudzero import CONNECTIONS, CloudZeroStandIn
from local.standins.infracost import (
    AWS_ORGANIZATION,
    AZURE_ORGANIZATION,
    ENTERPRISE,
    ORGANIZATIONS,
    PRIMARY_ORGANIZATION,
    InfracostStandIn,
)
from local.standins.servicenow import ServiceNowStandIn

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from local.standins.cloudzero_account import Contract

HIGHEST_PORT = 65_535
CONFIG_S = 30.0
PORTS = 5
"""How many ports ``RELAY_PORT_BASE`` counts from: AWS, Infracost, CloudZero, ServiceNow, Backstage."""

SLUG = "acme"
SLUGS = {PRIMARY_ORGANIZATION: SLUG, **ORGANIZATIONS}
"""Name of each organization, which its slug is made of."""
INFRACOST_SECRET = "infracost/default"  # noqa: S105 - the secret's name
CLOUDZERO_SECRET = "cloudzero"  # noqa: S105 - the secret's name
SERVICENOW_SECRET = "sources/servicenow"  # noqa: S105 - the secret's name
SERVICENOW_USER = "relay"
BACKSTAGE_SECRET = "sources/backstage"  # noqa: S105 - the secret's name
CONTRACTS = ("auto", "openapi", "live")
"""What ``CLOUDZERO_CONTRACT`` may name; with ``auto`` the stack finds out by itself."""

PARAMETERS = {
    "InfracostEnterpriseId": ENTERPRISE,
    "InfracostSlug": SLUG,
    "InfracostAwsOrganizationId": AWS_ORGANIZATION,
    "InfracostAzureOrganizationId": AZURE_ORGANIZATION,
    # Minutes and hours in production.
    "PollFirstSeconds": "1",
    "PollCapSeconds": "2",
    "PollEndSeconds": "60",
    "ReadBackEndSeconds": "10",
    "RetryFirstSeconds": "1",
    "RetryCapSeconds": "2",
    # A rule fires by the minute at the finest.
    "TelemetrySchedule": "rate(1 minute)",
    "TelemetryBatchSeconds": "1",
    # Likewise. A source of truth that names no hour still has the default one, once a day.
    "SyncSchedule": "rate(1 minute)",
}
"""Who we are at the stand-in, and waits that a person can watch."""


class SettingsError(Exception):
    """Raised when the environment asks for something impossible."""


@dataclass(frozen=True)
class Settings:
    """What the environment may change."""

    infracost_api_url: str = ""
    """Another server instead of the stand-in."""
    infracost_api_token: str = ""
    """Stands in the stack's secret; a made-up one when empty."""
    cloudzero_api_url: str = ""
    """Another server instead of the stand-in."""
    cloudzero_api_key: str = ""
    """Stands in the stack's secret; a made-up one when empty."""
    cloudzero_contract: str = "auto"
    """One of CONTRACTS; the stand-in speaks ``live`` unless ``openapi`` is named."""
    relay_config: Path = ROOT / "local" / "relay.yaml"
    port_base: int = 0
    """0: free ports."""

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Read them. Raises SettingsError."""
        config = Path(environ.get("RELAY_CONFIG") or cls.relay_config)
        if not config.is_file():
            raise SettingsError(f"RELAY_CONFIG: there is no file {config}")
        base = environ.get("RELAY_PORT_BASE") or "0"
        if not base.isdecimal() or int(base) + PORTS - 1 > HIGHEST_PORT:
            raise SettingsError(f"RELAY_PORT_BASE: {base!r} is no port")
        contract = environ.get("CLOUDZERO_CONTRACT") or cls.cloudzero_contract
        if contract not in CONTRACTS:
            raise SettingsError(f"CLOUDZERO_CONTRACT: {contract!r} is none of {', '.join(CONTRACTS)}")
        return cls(
            infracost_api_url=environ.get("INFRACOST_API_URL", ""),
            infracost_api_token=environ.get("INFRACOST_API_TOKEN", ""),
            cloudzero_api_url=environ.get("CLOUDZERO_API_URL", ""),
            cloudzero_api_key=environ.get("CLOUDZERO_API_KEY", ""),
            cloudzero_contract=contract,
            relay_config=config,
            port_base=int(base),
        )

    def port(self, offset: int) -> int:
        """The port at *offset* from the base; 0, which is a free one, without a base."""
        return self.port_base + offset if self.port_base else 0


@dataclass(frozen=True)
class Local:
    """Everything that runs."""

    stack: Stack
    infracost_api_url: str
    standin: InfracostStandIn | None
    """None when another server takes its place."""
    cloudzero_api_url: str
    cloudzero: CloudZeroStandIn | None
    """None when another server takes its place."""
    servicenow: ServiceNowStandIn
    backstage: BackstageStandIn

    @property
    def drops_bucket(self) -> str:
        """Where files are dropped."""
        return self.stack.outputs["DropsBucket"]

    def described(self) -> dict[str, str]:
        """What a person or a check needs to use it."""
        return {
            "aws": self.stack.endpoint,
            "region": self.stack.region,
            "access_key": self.stack.access_key,
            "secret_key": self.stack.secret_key,
            "drops_bucket": self.drops_bucket,
            "infracost": self.infracost_api_url,
            "cloudzero": self.cloudzero_api_url,
            "telemetry_queue_url": self.stack.outputs["TelemetryQueueUrl"],
            "servicenow": self.servicenow.api_url,
            "backstage": self.backstage.api_url,
        }


@contextmanager
def serving(settings: Settings, parameters: Mapping[str, str] | None = None) -> Iterator[Local]:
    """Start everything, yield it, and stop everything, whatever happens; *parameters* go over the local defaults."""
    token = settings.infracost_api_token or secrets.token_urlsafe(24)
    key = settings.cloudzero_api_key or secrets.token_urlsafe(24)
    password, backstage_token = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
    with ExitStack() as running:
        infracost, infracost_url = None, settings.infracost_api_url
        if not infracost_url:
            infracost = running.enter_context(
                InfracostStandIn(tokens=[token], organizations=SLUGS, port=settings.port(1))
            )
            infracost_url = infracost.api_url
        cloudzero, cloudzero_url = None, settings.cloudzero_api_url
        if not cloudzero_url:
            speaks: Contract = "openapi" if settings.cloudzero_contract == "openapi" else "live"
            cloudzero = running.enter_context(
                CloudZeroStandIn(speaks, keys=[key], connections=CONNECTIONS, port=settings.port(2))
            )
            cloudzero_url = cloudzero.api_url
        servicenow = running.enter_context(
            ServiceNowStandIn(users={SERVICENOW_USER: password}, tokens=(), port=settings.port(3))
        )
        backstage = running.enter_context(BackstageStandIn(tokens=(backstage_token,), port=settings.port(4)))
        vendors = {
            "InfracostApiUrl": infracost_url,
            "CloudZeroApiUrl": cloudzero_url,
            "CloudZeroContract": settings.cloudzero_contract,
        }
        stack = running.enter_context(Stack.start(PARAMETERS | vendors | dict(parameters or {}), port=settings.port(0)))
        user = json.dumps({"username": SERVICENOW_USER, "password": password})
        kept = {
            INFRACOST_SECRET: token,
            CLOUDZERO_SECRET: key,
            SERVICENOW_SECRET: user,
            BACKSTAGE_SECRET: backstage_token,
        }
        for name, value in kept.items():
            stack.client("secretsmanager").create_secret(Name=name, SecretString=value)
        local = Local(stack, infracost_url, infracost, cloudzero_url, cloudzero, servicenow, backstage)
        put_config(local, settings.relay_config.read_bytes(), settings.relay_config.name)
        yield local


def put_config(local: Local, text: bytes, name: str) -> None:
    """Drop a relay.yaml, and wait until it was checked: what is dropped next must already be read under it."""
    s3 = local.stack.client("s3")
    version = s3.put_object(Bucket=local.drops_bucket, Key="config/relay.yaml", Body=text)["VersionId"]
    deadline = time.monotonic() + CONFIG_S
    while time.monotonic() < deadline:
        for entry in s3.list_objects_v2(Bucket=local.drops_bucket, Prefix="receipts/config/").get("Contents", []):
            receipt = json.loads(s3.get_object(Bucket=local.drops_bucket, Key=entry["Key"])["Body"].read())
            if receipt["source"]["version"] != version or receipt["outcome"] == "pending":
                continue
            if receipt["outcome"] == "rejected":
                print(f"local: {name} is refused, defaults serve: {receipt['reason']}", file=sys.stderr)
            return
        time.sleep(0.1)
    raise StackError(
        f"config/relay.yaml was not checked within {CONFIG_S:.0f} s: {local.stack.logs('ConfigCheckFunction')[-1000:]}"
    )

"""The project's own ``template.yaml`` on this machine: ministack as a child process, IAM enforced.

>>> with Stack.start({"LogLevel": "DEBUG"}) as stack:
...     stack.client("s3").list_objects_v2(Bucket=stack.outputs["DropsBucket"])
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import secrets
import shutil
import signal
import site
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import boto3
import botocore.config

from local import mending, packaging
from local.bootstrap import ROOT
from local.template import Resolver, load

if TYPE_CHECKING:
    from collections.abc import Mapping

REGION = "us-east-1"
ACCOUNT = "000000000000"
STACK_NAME = "finops-relay"
HOST = "127.0.0.1"
READY_S = 30.0
CREATE_S = 60.0

# What Lambda's own Python runtime has beside the standard library: functions see these and the layer, nothing else.
RUNTIME_MODULES = ("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "six.py", "urllib3")


class StackError(Exception):
    """Raised when the stack cannot be started; its message says why."""


def free_port() -> int:
    """A port on loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Stack:
    """A running stack; stop it, or use it as a context manager."""

    endpoint: str
    access_key: str
    secret_key: str
    parameters: dict[str, str]
    region: str = REGION
    account: str = ACCOUNT
    resources: dict[str, str] = field(default_factory=dict)
    """Physical ids by logical id: a queue's URL, a function's, table's, bucket's or role's name."""
    outputs: dict[str, str] = field(default_factory=dict)
    mended: list[mending.Difference] = field(default_factory=list)
    """What ministack had left out of the template."""
    _server: _Server | None = None
    _clients: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def start(
        cls, parameters: Mapping[str, str] | None = None, *, port: int = 0, template: Path = ROOT / "template.yaml"
    ) -> Self:
        """Start ministack on *port* (0: a free one), deploy *template* with *parameters*, mend what is left out."""
        server = _Server.start(port or free_port())
        try:
            stack = cls(server.endpoint, server.access_key, server.secret_key, dict(parameters or {}))
            stack._server = server
            stack._deploy(template)
        except BaseException:
            server.stop()
            raise
        return stack

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End ministack and every function it runs, and remove what they kept on disk."""
        if self._server:
            self._server.stop()
            self._server = None

    @property
    def pid(self) -> int:
        """Id of the server's process and of its process group, in which functions run too."""
        if self._server is None:
            raise StackError("the stack is stopped")
        return self._server.process.pid

    def is_alive(self) -> bool:
        """Whether ministack runs."""
        return self._server is not None and self._server.process.poll() is None

    def client(self, service: str) -> Any:  # noqa: ANN401 - botocore makes its clients at run time
        """A boto3 client for the stack, with all permissions."""
        if service not in self._clients:
            self._clients[service] = self.client_as(service, self.access_key, self.secret_key)
        return self._clients[service]

    def client_as(self, service: str, access_key: str, secret_key: str, session_token: str | None = None) -> Any:  # noqa: ANN401 - botocore makes its clients at run time
        """A boto3 client for the stack with somebody's credentials."""
        session: Any = boto3.Session()  # its stub wants the service's name literally
        return session.client(
            service,
            endpoint_url=self.endpoint,
            region_name=self.region,
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
            aws_session_token=session_token,
            config=botocore.config.Config(retries={"total_max_attempts": 2}, s3={"addressing_style": "path"}),
        )

    def logs(self, logical_id: str) -> str:
        """Everything that a function (by logical id) has written so far, platform lines included, oldest first."""
        configuration = self.client("lambda").get_function_configuration(FunctionName=self.resources[logical_id])
        name = configuration["FunctionName"]
        group = configuration.get("LoggingConfig", {}).get("LogGroup") or f"/aws/lambda/{name}"
        pages = self.client("logs").get_paginator("filter_log_events").paginate(logGroupName=group)
        events = [event for page in pages for event in page["events"]]
        return "\n".join(event["message"] for event in sorted(events, key=lambda event: event["timestamp"]))

    def server_log(self) -> str:
        """What ministack itself has written so far."""
        return self._server.log.read_text(errors="replace") if self._server else ""

    def differences(self) -> list[mending.Difference]:
        """What in the stack is not as the template says, read by API now."""
        return mending.differences(self.client, self._created())

    def _deploy(self, path: Path) -> None:
        template = _for_plain_http(load(path))
        bucket = f"{STACK_NAME}-artifacts"
        s3 = self.client("s3")
        s3.create_bucket(Bucket=bucket)
        for key, body in packaging.package(template, path.parent, bucket).items():
            s3.put_object(Bucket=bucket, Key=key, Body=body)
        # By address, since a template in the request may have 51,200 bytes only.
        s3.put_object(Bucket=bucket, Key="template.json", Body=json.dumps(template, default=str).encode())
        self._create(f"{self.endpoint}/{bucket}/template.json")
        self.mended = mending.mend(self.client, self._created())

    def _create(self, template_url: str) -> None:
        cloudformation = self.client("cloudformation")
        cloudformation.create_stack(
            StackName=STACK_NAME,
            TemplateURL=template_url,
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in self.parameters.items()],
            Capabilities=["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"],
        )
        deadline = time.monotonic() + CREATE_S
        while (stack := cloudformation.describe_stacks(StackName=STACK_NAME)["Stacks"][0])["StackStatus"].endswith(
            "IN_PROGRESS"
        ):
            if time.monotonic() > deadline:
                raise StackError(f"the stack is not made within {CREATE_S:.0f} s")
            time.sleep(0.05)
        if stack["StackStatus"] != "CREATE_COMPLETE":
            raise StackError(self._why_not_created())
        self.parameters = {item["ParameterKey"]: item["ParameterValue"] for item in stack.get("Parameters", [])}
        self.outputs = {item["OutputKey"]: item["OutputValue"] for item in stack.get("Outputs", [])}
        self.resources = {item["LogicalResourceId"]: item["PhysicalResourceId"] for item in self._resource_summaries()}

    def _why_not_created(self) -> str:
        events = self.client("cloudformation").describe_stack_events(StackName=STACK_NAME)["StackEvents"]
        causes = [
            f"{event['LogicalResourceId']}: {event.get('ResourceStatusReason', 'no reason given')}"
            for event in reversed(events)
            if event["ResourceStatus"].endswith("FAILED")
        ]
        return f"the template was not created: {'; '.join(causes) or 'no reason given'}"

    def _resource_summaries(self) -> list[dict[str, Any]]:
        pages = self.client("cloudformation").get_paginator("list_stack_resources").paginate(StackName=STACK_NAME)
        return [summary for page in pages for summary in page["StackResourceSummaries"]]

    def _created(self) -> list[mending.Resource]:
        """The stack's resources with their properties resolved, as the transformed template has them."""
        template = self.client("cloudformation").get_template(StackName=STACK_NAME, TemplateStage="Processed")
        body = template["TemplateBody"]
        processed = json.loads(body) if isinstance(body, str) else body
        resolver = Resolver(
            region=self.region,
            account=self.account,
            stack_name=STACK_NAME,
            parameters=self.parameters,
            physical_ids=self.resources,
            types={name: resource["Type"] for name, resource in processed["Resources"].items()},
            conditions=processed.get("Conditions", {}),
        )
        checked = {
            logical_id: resource
            for logical_id, resource in processed["Resources"].items()
            if logical_id in self.resources and resource["Type"] in mending.CHECKED_TYPES
        }
        return [
            mending.Resource(name, self.resources[name], each["Type"], resolver.resolve(each.get("Properties", {})))
            for name, each in checked.items()
        ]


@dataclass
class _Server:
    """ministack as a child in a process group of its own, with a folder of its own."""

    process: subprocess.Popen[bytes]
    endpoint: str
    access_key: str
    secret_key: str
    folder: Path
    log: Path

    @classmethod
    def start(cls, port: int) -> Self:
        """Start it and wait until it answers."""
        folder = Path(tempfile.mkdtemp(prefix="finops-relay-"))
        access_key, secret_key = f"LKIA{secrets.token_hex(8).upper()}", secrets.token_urlsafe(30)
        log = folder / "ministack.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [_base_python(), str(ROOT / "local" / "server.py"), _site_packages(), str(folder)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=folder,
                env=cls._environ(folder, port, access_key, secret_key),
            )
        server = cls(process, f"http://{HOST}:{port}", access_key, secret_key, folder, log)
        atexit.register(server.stop)
        try:
            server.wait_until_ready()
        except BaseException:
            server.stop()
            raise
        return server

    @staticmethod
    def _environ(folder: Path, port: int, access_key: str, secret_key: str) -> dict[str, str]:
        """An environment of its own: functions inherit it, so nothing of the user's may be in it."""
        runtime = folder / "runtime"
        runtime.mkdir()
        for name in RUNTIME_MODULES:
            (runtime / name).symlink_to(Path(_site_packages()) / name)
        scratch = folder / "tmp"
        scratch.mkdir()
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(folder),
            "TMPDIR": str(scratch),
            "LANG": "C.UTF-8",
            "TZ": "UTC",
            "PYTHONPATH": str(runtime),
            "PYTHONNOUSERSITE": "1",
            "PYTHONUNBUFFERED": "1",
            "AUTH": "true",
            "BIND_HOST": HOST,
            "GATEWAY_PORT": str(port),
            "MINISTACK_HOST": HOST,
            "MINISTACK_REGION": REGION,
            "MINISTACK_ACCOUNT_ID": ACCOUNT,
            "AWS_ACCESS_KEY_ID": access_key,
            "AWS_SECRET_ACCESS_KEY": secret_key,
            "AWS_DEFAULT_REGION": REGION,
            # An MQTT listener on a fixed port, which nothing here uses.
            "IOT_MTLS_ENABLED": "0",
            "STATE_DIR": str(folder / "state"),
            "S3_DATA_DIR": str(folder / "s3"),
        }

    def wait_until_ready(self) -> None:
        """Return once it answers; StackError when it ends or stays silent."""
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise StackError(f"ministack ended at once: {self.log.read_text(errors='replace').strip()[-500:]}")
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{self.endpoint}/_ministack/health", timeout=5).close()  # noqa: S310 - ours, http
                return
            time.sleep(0.05)
        raise StackError(f"ministack did not answer within {READY_S:.0f} s")

    def stop(self) -> None:
        """End the process group and remove the folder; harmless when it has been done."""
        atexit.unregister(self.stop)
        # Nothing that it holds is kept, so it is not asked; functions are in its group, which may outlive its leader.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if self.process.stdin:
            self.process.stdin.close()
        # A function that is just dying may still hold up the first try.
        for _ in range(20):
            shutil.rmtree(self.folder, ignore_errors=True)
            if not self.folder.exists():
                break
            time.sleep(0.05)


def _for_plain_http(template: dict[str, Any]) -> dict[str, Any]:
    """Take the "TLS only" statements out of bucket policies: they are enforced, and ministack speaks plain http."""
    tls_only = {"Bool": {"aws:SecureTransport": "false"}}
    for resource in template["Resources"].values():
        if resource["Type"] == "AWS::S3::BucketPolicy":
            document = resource["Properties"]["PolicyDocument"]
            document["Statement"] = [each for each in document["Statement"] if each.get("Condition") != tls_only]
    return template


def _base_python() -> str:
    """The interpreter under this virtual environment, which sees none of its packages."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def _site_packages() -> str:
    """Where this environment keeps ministack and boto3."""
    return next(path for path in site.getsitepackages() if (Path(path) / "ministack").is_dir())

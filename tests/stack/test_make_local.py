"""What `make local` promises: one line, staying, settings from the environment, and nothing left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from local.bootstrap import ROOT
from local.stack import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

PROC = Path("/proc")
STOP_S = 10.0
KEYS = ["aws", "region", "access_key", "secret_key", "drops_bucket", "infracost", "cloudzero", "telemetry_queue_url"]
KEYS += ["servicenow", "backstage"]
OURS = ("AWS_", "INFRACOST_", "CLOUDZERO_", "RELAY_", "MAKE")
"""How the names of variables begin that would reach into what is started."""


@contextlib.contextmanager
def started(**environ: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """`make local`'s process and its line of JSON."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(OURS)}
    process = subprocess.Popen(
        [sys.executable, "-m", "local"],
        cwd=ROOT,
        env=kept | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process:
        try:
            line = process.stdout.readline()
            assert line, process.communicate()[1]
            yield process, json.loads(line)
        finally:
            process.kill()


def processes() -> dict[int, tuple[str, int]]:
    """State and parent of every process; one that is dead and not yet collected has the state Z."""
    found = {}
    for entry in PROC.glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            state, parent = entry.read_text().rpartition(") ")[2].split()[:2]
            found[int(entry.parent.name)] = (state, int(parent))
    return found


def family(pid: int) -> set[int]:
    """The processes that descend from *pid*, itself included."""
    parents = {child: parent for child, (_, parent) in processes().items()}
    found = {pid}
    while grown := {child for child, parent in parents.items() if parent in found} - found:
        found |= grown
    return found


def alive(pids: set[int]) -> set[int]:
    """Those of *pids* that still run."""
    return {pid for pid, (state, _) in processes().items() if pid in pids and state != "Z"}


def wait_until_gone(pids: set[int]) -> None:
    deadline = time.monotonic() + STOP_S
    while left := alive(pids):
        assert time.monotonic() < deadline, f"still running: {left}"
        time.sleep(0.05)


needs_proc = pytest.mark.skipif(not PROC.is_dir(), reason="counts processes, which only Linux lists as files")


@needs_proc
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_everything_within_seconds_with_status_0(number: signal.Signals, tmp_path: Path) -> None:
    with started(TMPDIR=str(tmp_path)) as (process, line):
        assert list(line) == KEYS
        time.sleep(1)
        assert process.poll() is None
        pids = family(process.pid)
        assert len(pids) > 1
        process.send_signal(number)
        rest, _ = process.communicate(timeout=STOP_S)
        assert process.returncode == 0
        assert rest == ""
        wait_until_gone(pids)
        assert list(tmp_path.iterdir()) == []


@needs_proc
def test_killed_outright_it_leaves_no_process_and_no_server_folder(tmp_path: Path) -> None:
    with started(TMPDIR=str(tmp_path)) as (process, _):
        pids = family(process.pid)
        process.kill()
        process.wait()
        wait_until_gone(pids)
        deadline = time.monotonic() + STOP_S
        while left := list(tmp_path.glob("finops-relay-*")):
            assert time.monotonic() < deadline, left
            time.sleep(0.05)


def client(service: str, line: dict[str, Any]) -> Any:  # noqa: ANN401 -- botocore makes its clients at run time
    """An AWS client made of nothing but the line of JSON."""
    session: Any = boto3.Session(line["access_key"], line["secret_key"], region_name=line["region"])
    return session.client(service, endpoint_url=line["aws"])


def secret(name: str, line: dict[str, Any]) -> str:
    """What stands in a secret of the stack."""
    return str(client("secretsmanager", line).get_secret_value(SecretId=name)["SecretString"])


def variables(service: str, line: dict[str, Any]) -> dict[str, str]:
    """The environment of the function of *service*."""
    for function in client("lambda", line).list_functions()["Functions"]:
        found: dict[str, str] = function["Environment"]["Variables"]
        if found["POWERTOOLS_SERVICE_NAME"] == service:
            return found
    raise AssertionError(f"no function is {service}")


def asked(line: dict[str, Any]) -> dict[str, Any]:
    """What CloudZero, wherever it is, answers to the question that tells the contracts apart."""
    key = secret("cloudzero", line)
    request = urllib.request.Request(f"{line['cloudzero']}/v2/billing/dimensions", headers={"Authorization": key})  # noqa: S310 -- ours, http
    with urllib.request.urlopen(request, timeout=STOP_S) as answer:  # noqa: S310 -- ours, http
        found: dict[str, Any] = json.load(answer)
        return found


def test_the_environment_names_ports_servers_credentials_and_config(tmp_path: Path) -> None:
    config = tmp_path / "relay.yaml"
    config.write_text("version: 1\n# mine\n")
    port = free_port()
    environ = {
        "INFRACOST_API_URL": "http://127.0.0.1:9/v1",
        "INFRACOST_API_TOKEN": "a-token-of-mine",
        "CLOUDZERO_API_URL": "http://127.0.0.1:9",
        "CLOUDZERO_API_KEY": "a-key-of-mine",
        "CLOUDZERO_CONTRACT": "openapi",
        "RELAY_CONFIG": str(config),
        "RELAY_PORT_BASE": str(port),
    }
    with started(**environ) as (process, line):
        assert line["aws"] == f"http://127.0.0.1:{port}"
        assert line["infracost"] == "http://127.0.0.1:9/v1"
        assert line["cloudzero"] == "http://127.0.0.1:9"
        assert secret("infracost/default", line) == "a-token-of-mine"
        assert secret("cloudzero", line) == "a-key-of-mine"
        for service in ("billing-drop-prepare", "cloudzero-deliver"):
            told = variables(service, line)
            assert (told["CLOUDZERO_API_URL"], told["CLOUDZERO_CONTRACT"]) == ("http://127.0.0.1:9", "openapi")
        stored = client("s3", line).get_object(Bucket=line["drops_bucket"], Key="config/relay.yaml")
        assert stored["Body"].read() == config.read_bytes()
        process.terminate()
        assert process.wait(STOP_S) == 0


@pytest.mark.parametrize(
    ("environ", "speaks", "told"),
    [
        ({}, "dimensions", "auto"),
        ({"CLOUDZERO_API_KEY": "a-key-of-mine", "CLOUDZERO_CONTRACT": "openapi"}, "data", "openapi"),
    ],
)
def test_the_stand_in_of_cloudzero_knows_the_key_and_speaks_the_contract(
    environ: dict[str, str], speaks: str, told: str
) -> None:
    with started(**environ) as (process, line):
        assert list(asked(line)) == [speaks]
        key = secret("cloudzero", line)
        assert key
        assert key == environ.get("CLOUDZERO_API_KEY", key)
        deliver = variables("cloudzero-deliver", line)
        assert (deliver["CLOUDZERO_API_URL"], deliver["CLOUDZERO_CONTRACT"]) == (line["cloudzero"], told)
        process.terminate()
        assert process.wait(STOP_S) == 0


@pytest.mark.parametrize(
    "environ",
    [
        {"RELAY_CONFIG": "nowhere/relay.yaml"},
        {"RELAY_PORT_BASE": "http"},
        {"RELAY_PORT_BASE": "65534"},
        {"CLOUDZERO_CONTRACT": "seed"},
    ],
)
def test_an_impossible_setting_is_refused_in_one_line(environ: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "local"],
        cwd=ROOT,
        env=os.environ | environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(f"local: {next(iter(environ))}")
    assert len(done.stderr.splitlines()) == 1

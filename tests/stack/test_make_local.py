"""What `make local` promises: one line, staying, settings from the environment, and nothing left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
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
KEYS = ["aws", "region", "access_key", "secret_key", "drops_bucket", "infracost"]


@contextlib.contextmanager
def started(**environ: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """`make local`'s process and its line of JSON."""
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "INFRACOST_", "RELAY_", "MAKE"))
    }
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


def test_the_environment_names_ports_server_token_and_config(tmp_path: Path) -> None:
    config = tmp_path / "relay.yaml"
    config.write_text("version: 1\n# mine\n")
    port = free_port()
    environ = {
        "INFRACOST_API_URL": "http://127.0.0.1:9/v1",
        "INFRACOST_API_TOKEN": "a-token-of-mine",
        "RELAY_CONFIG": str(config),
        "RELAY_PORT_BASE": str(port),
    }
    with started(**environ) as (process, line):
        assert line["aws"] == f"http://127.0.0.1:{port}"
        assert line["infracost"] == "http://127.0.0.1:9/v1"
        session = boto3.Session(line["access_key"], line["secret_key"], region_name=line["region"])
        secrets = session.client("secretsmanager", endpoint_url=line["aws"])
        assert secrets.get_secret_value(SecretId="infracost/default")["SecretString"] == "a-token-of-mine"
        stored = session.client("s3", endpoint_url=line["aws"]).get_object(
            Bucket=line["drops_bucket"], Key="config/relay.yaml"
        )
        assert stored["Body"].read() == config.read_bytes()
        process.terminate()
        assert process.wait(STOP_S) == 0


@pytest.mark.parametrize(
    "environ", [{"RELAY_CONFIG": "nowhere/relay.yaml"}, {"RELAY_PORT_BASE": "http"}, {"RELAY_PORT_BASE": "65535"}]
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

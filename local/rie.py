"""A built function under the Runtime Interface Emulator: AWS's own runtime client, start-up, time-out and crash.

>>> with emulated("ConfigCheckFunction", {"LEDGER_TABLE": "ledger"}) as function:
...     function.invoke({"Records": []})
...     function.init_ms

The emulator comes with the SAM CLI and runs without Docker. It starts the function when it is first invoked, and takes
one event at a time. It does not enforce the memory limit.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from local.bootstrap import ENVIRONMENTS, ROOT
from local.build import BUILT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LAYER = "RelayLayer"
HOST = "127.0.0.1"
REGION = "us-east-1"
READY_S = 10.0
DIE_S = 10.0
NOTHING_BUILT = "nothing has been built: make build"
_INVOCATIONS = "/2015-03-31/functions/function/invocations"
_INIT = re.compile(r"INIT REPORT\(durationMs: ([0-9.]+)\)")
_MACHINES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}

# What Lambda's Python runtime has beside the standard library. A function sees these and its layer, nothing else.
_RUNTIME = (
    "awslambdaric",
    "boto3",
    "botocore",
    "dateutil",
    "jmespath",
    "s3transfer",
    "simplejson",
    "six.py",
    "snapshot_restore_py",
    "snapshot_restore_py.py",
    "urllib3",
)


class EmulatorError(Exception):
    """Raised when the emulator cannot be started, or is not there; its message says why."""


class FunctionDied(Exception):
    """Raised by an invocation whose function or emulator was gone before it answered."""


@dataclass
class Emulated:
    """A function under the emulator."""

    address: tuple[str, int]
    process: subprocess.Popen[bytes]
    log: Path

    def invoke(self, event: Mapping[str, Any], within_s: float = 120.0) -> Any:  # noqa: ANN401 -- what the handler returns
        """Invoke once and return the answer: JSON, or text when the function ran out of time.

        Raises:
            FunctionDied: the function or the emulator ended before it answered.
        """
        connection = http.client.HTTPConnection(*self.address, timeout=within_s)
        try:
            connection.request("POST", _INVOCATIONS, json.dumps(event))
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise FunctionDied(f"no answer ({error!r}); {self._last_words()}") from error
        finally:
            connection.close()
        if answer.status != http.client.OK:
            raise FunctionDied(f"the emulator answered {answer.status}; {self._last_words()}")
        try:
            return json.loads(body)
        except ValueError:
            return body.decode(errors="replace")

    @property
    def init_ms(self) -> float | None:
        """Milliseconds from the start of the interpreter until the handler was there; None before an invocation."""
        found = _INIT.search(self.output())
        return float(found[1]) if found else None

    def output(self) -> str:
        """Everything that the function and the emulator have written so far."""
        return self.log.read_text(errors="replace")

    def kill(self) -> None:
        """End the emulator and the function at once, as ``kill -9`` does; harmless when they have ended."""
        if self.process.poll() is not None:
            return
        # Stopped, it neither starts another process nor answers for a function whose end it saw.
        self.process.send_signal(signal.SIGSTOP)
        runtime = _descendants(self.process.pid)
        for pid in runtime:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait(DIE_S)
        deadline = time.monotonic() + DIE_S
        while any(map(_is_alive, runtime)):
            if time.monotonic() > deadline:
                raise EmulatorError(f"the processes {sorted(runtime)} do not end")
            time.sleep(0.01)

    def _last_words(self) -> str:
        return "its last words: " + " | ".join(self.output().splitlines()[-5:])


@contextlib.contextmanager
def emulated(  # noqa: PLR0913 -- each is one thing that the template says of a function
    function: str,
    environ: Mapping[str, str],
    *,
    timeout_s: int = 60,
    memory_mb: int = 256,
    built: Path = BUILT,
    handler: str = "app.lambda_handler",
) -> Iterator[Emulated]:
    """Start the emulator for a function, yield it, and end both, whatever happens.

    Args:
        function: the function's folder in *built*; its logical id, for what ``sam build`` has made.
        environ: its variables, beside those that the runtime sets.
        timeout_s: its time-out.
        memory_mb: its memory, which it is told and which nothing enforces.
        built: what ``sam build`` has made, with the layer.
        handler: module and function.

    Raises:
        EmulatorError: there is no emulator, no artefact, or no interpreter for it.
    """
    why = missing(built)
    if why:
        raise EmulatorError(why)
    from local.stack import free_port  # noqa: PLC0415 -- it loads boto3, which whoever only asks `missing` need not

    with tempfile.TemporaryDirectory(prefix="finops-relay-rie-", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        code = built / function
        port = free_port()
        given = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": scratch,
            "TMPDIR": scratch,
            "LANG": "en_US.UTF-8",
            "TZ": ":UTC",
            # Lambda's /var/task and /opt are read-only: bytecode that the artefact does not bring is never kept.
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONNOUSERSITE": "1",
            "PYTHONPATH": os.pathsep.join(map(str, (code, built / LAYER / "python", _runtime(folder)))),
            "LAMBDA_TASK_ROOT": str(code),
            "AWS_LAMBDA_FUNCTION_NAME": function,
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_TIMEOUT": str(timeout_s),
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(memory_mb),
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "made-up",
            "AWS_SECRET_ACCESS_KEY": "made-up",
            **environ,
        }
        addresses = [
            *("--runtime-interface-emulator-address", f"{HOST}:{port}"),
            *("--runtime-api-address", f"{HOST}:{free_port()}"),
        ]
        log = folder / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [str(_emulator()), *addresses, str(_interpreter()), "-m", "awslambdaric", handler],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=code,
                env=given,
            )
        running = Emulated((HOST, port), process, log)
        try:
            _wait_until_ready(running)
            yield running
        finally:
            running.kill()


def missing(built: Path = BUILT) -> str:
    """What keeps functions from running under the emulator here; empty when nothing does."""
    if not sys.platform.startswith("linux"):
        return "the Runtime Interface Emulator runs on Linux only"
    if sys.version_info[:2] != (3, 13):
        return "the built functions need Python 3.13"
    if not _emulator().is_file():
        return "the Runtime Interface Emulator is not installed: make build"
    if not (built / LAYER / "python").is_dir():
        return NOTHING_BUILT
    return ""


def _emulator() -> Path:
    """The emulator's binary, which the SAM CLI brings."""
    name = f"aws-lambda-rie-{_MACHINES.get(platform.machine().lower(), platform.machine())}"
    pattern = f"lib/python*/site-packages/samcli/local/rapid/{name}"
    return next(ENVIRONMENTS["sam"].folder.glob(pattern), ROOT / name)


def _interpreter() -> str:
    """The interpreter under this virtual environment, which sees none of its packages."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def _runtime(folder: Path) -> Path:
    """A folder below *folder* with what Lambda's runtime has, out of this environment."""
    here = next(path for path in map(Path, sys.path) if (path / "awslambdaric").is_dir())
    runtime = folder / "runtime"
    runtime.mkdir()
    for found in [here / name for name in _RUNTIME] + sorted(here.glob("runtime_client.*.so")):
        if found.exists():
            (runtime / found.name).symlink_to(found)
    return runtime


def _wait_until_ready(running: Emulated) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        if running.process.poll() is not None:
            raise EmulatorError(f"the emulator ended at once: {running.output().strip()[-500:]}")
        connection = http.client.HTTPConnection(*running.address, timeout=1)
        try:
            connection.connect()
        except OSError:
            time.sleep(0.01)
        else:
            return
        finally:
            connection.close()
    raise EmulatorError(f"the emulator did not listen within {READY_S:.0f} s")


def _descendants(pid: int) -> set[int]:
    """Ids of the children of a process, and of theirs (Linux)."""
    children: dict[int, set[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            # The name stands in brackets and may hold anything; the state and the parent's id follow it.
            parent = int(entry.read_text(errors="replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, set()).add(int(entry.parent.name))
    found: set[int] = set()
    coming = [pid]
    while coming:
        more = children.get(coming.pop(), set()) - found
        found |= more
        coming += more
    return found


def _is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has buried does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state != "Z"

"""Start-up of the built functions under the Runtime Interface Emulator, beside a handler that does next to nothing."""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from local.build import BUILT
from local.rie import LAYER, EmulatorError, emulated

BASELINE = "Baseline"
_BASELINE_SOURCE = '''"""What every function of this kind pays: an S3 client of boto3's, and Powertools' logger."""

import boto3
from aws_lambda_powertools import Logger

logger = Logger()
s3 = boto3.client("s3")


def lambda_handler(event, context):
    return {"batchItemFailures": []}
'''
ENVIRON = {
    "LEDGER_TABLE": "ledger",
    "DROPS_BUCKET": "drops",
    "SPOOL_BUCKET": "spool",
    "BUS_NAME": "bus",
    "QUEUE_URL": "http://127.0.0.1:9/000000000000/queue",
    "POWERTOOLS_METRICS_NAMESPACE": "FinOpsRelay",
    "POWERTOOLS_SERVICE_NAME": "benchmark",
}
"""Nothing of it is called: the event has no message."""


_UNCHECKED_HASH = 0b01
"""The flags of a module that was compiled with ``PycInvalidationMode.UNCHECKED_HASH`` (PEP 552)."""


@dataclass
class StartUps:
    """All start-ups of one function, in milliseconds."""

    function: str
    init_ms: list[float] = field(default_factory=list)
    """From the start of the interpreter until the handler is there: the emulator's INIT REPORT."""
    answer_ms: list[float] = field(default_factory=list)
    """Until the answer to a first event without a message: clients that are made when first needed are in it."""

    @property
    def median_init_ms(self) -> float:
        """The median of the start-ups."""
        return median(self.init_ms)

    @property
    def median_answer_ms(self) -> float:
        """The median of the first answers."""
        return median(self.answer_ms)


def functions() -> list[str]:
    """Logical ids of the functions that were built."""
    return sorted(path.parent.name for path in BUILT.glob("*Function/app.py"))


def start_ups(repeats: int) -> tuple[list[StartUps], bool]:
    """Start the baseline and every function *repeats* times, in turn; and say whether the layer brings bytecode.

    Raises:
        EmulatorError: a function does not start, or does not answer.
    """
    found = [StartUps(name) for name in (BASELINE, *functions())]
    with tempfile.TemporaryDirectory(prefix="finops-relay-bench-") as scratch:
        # A copy, so that a build beside this run changes nothing in the middle of it; without what an interpreter
        # that ran in the folder has left there, which `sam build` does not make and a deployment must not count on.
        built = Path(scratch) / "build"
        shutil.copytree(BUILT, built, ignore=_without_leftovers)
        (built / BASELINE).mkdir()
        (built / BASELINE / "app.py").write_text(_BASELINE_SOURCE)
        bytecode = next((built / LAYER).rglob("*.pyc"), None) is not None
        for repeat in range(repeats + 1):
            for each in found:
                init_ms, answer_ms = _start(each.function, built)
                if repeat:  # the first round reads the files from disk
                    each.init_ms.append(init_ms)
                    each.answer_ms.append(answer_ms)
    return found, bytecode


def _without_leftovers(folder: str, names: list[str]) -> list[str]:
    """Bytecode that an import has left behind. What a build ships is marked as never to be checked (PEP 552)."""
    return [
        name
        for name in names
        if name.endswith(".pyc") and (Path(folder) / name).read_bytes()[4:8] != _UNCHECKED_HASH.to_bytes(4, "little")
    ]


def _start(function: str, built: Path) -> tuple[float, float]:
    with emulated(function, ENVIRON, built=built) as running:
        started = time.perf_counter()
        answer = running.invoke({"Records": []})
        answer_ms = (time.perf_counter() - started) * 1000
        # telemetry_collect answers nothing: it takes a batch whole, or fails.
        if answer not in ({"batchItemFailures": []}, None) or running.init_ms is None:
            raise EmulatorError(f"{function} answered {answer}: {running.output()[-2000:]}")
        return running.init_ms, answer_ms

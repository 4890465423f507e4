"""``make local``: the stack, empty, until it is told to stop.

One line of JSON on standard output when it is ready; everything else goes to standard error. From the environment:

* ``INFRACOST_API_URL``, ``CLOUDZERO_API_URL``: other servers instead of the stand-ins;
* ``INFRACOST_API_TOKEN``: what stands in the stack's secret ``infracost/default``;
* ``CLOUDZERO_API_KEY``: what stands in the stack's secret ``cloudzero``;
* ``CLOUDZERO_CONTRACT``: ``auto``, ``openapi`` or ``live``; the stand-in speaks ``live`` unless ``openapi`` is named;
* ``RELAY_CONFIG``: a relay.yaml instead of ``local/relay.yaml``;
* ``RELAY_PORT_BASE``: fixed ports from there on (AWS, Infracost, CloudZero, ServiceNow, Backstage), not free ones.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, NoReturn

from local.bootstrap import BootstrapError
from local.mending import MendingError
from local.packaging import PackagingError
from local.serve import Settings, SettingsError, serving
from local.stack import StackError
from local.template import TemplateError

if TYPE_CHECKING:
    from types import FrameType

    from local.stack import Stack

LOOK_S = 0.5


class _Told(BaseException):
    """Raised by the first signal, wherever the process is; no ``except Exception`` may swallow it."""


def _on_signal(number: int, frame: FrameType | None) -> NoReturn:
    """Stop, and let nothing interrupt the stopping: make sends a second signal after its own."""
    del number, frame
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise _Told


def _stay(stack: Stack) -> None:
    """Return when the make that started this is gone; StackError when ministack has ended by itself."""
    parent = os.getppid()
    under_make = "MAKELEVEL" in os.environ
    while stack.is_alive():
        if under_make and os.getppid() != parent:
            return
        time.sleep(LOOK_S)
    raise StackError("ministack ended by itself")


def main() -> int:
    """Serve; the exit status."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, _on_signal)
    try:
        with serving(Settings.from_environ(os.environ)) as local:
            print(json.dumps(local.described()), flush=True)
            _stay(local.stack)
    except _Told:
        print("local: stopped", file=sys.stderr)
    except (BootstrapError, MendingError, OSError, PackagingError, SettingsError, StackError, TemplateError) as error:
        print(f"local: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

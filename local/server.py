"""Run ministack so that it leaves nothing behind: ``python server.py <site-packages> <folder>``.

Started by ``local/stack.py`` on the base interpreter of the environment. Functions run on the interpreter that runs
ministack; this one sees only what PYTHONPATH names (boto3, as in Lambda's own runtime), so that a dependency missing
from the layer fails here as it would in AWS. ministack itself is in *site-packages*, which functions never see.

Standard input is a lifeline: when its other end closes, however the parent ended, the whole process group ends.
"""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import site
import sys
import threading


def end_with_parent(folder: str) -> None:
    """Wait for the lifeline to close; then remove *folder* and end the group, functions included."""
    while os.read(sys.stdin.fileno(), 1024):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    """Serve until the lifeline closes or a signal comes."""
    site_packages, folder = sys.argv[1:]
    threading.Thread(target=end_with_parent, args=(folder,), daemon=True).start()
    site.addsitedir(site_packages)
    sys.argv = ["ministack"]
    importlib.import_module("ministack.app").main()


if __name__ == "__main__":
    main()

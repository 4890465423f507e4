"""Run ministack so that it leaves nothing behind: ``python server.py <site-packages> <folder>``.

Started by ``local/stack.py`` on the base interpreter of the environment. Functions run on the interpreter that runs
ministack; this one sees only what PYTHONPATH names (boto3, as in Lambda's own runtime), so that a dependency missing
from the layer fails here as it would in AWS. ministack itself is in *site-packages*, which functions never see.

Standard input is a lifeline: when its other end closes, however the parent ended, the whole process group ends.
"""

from __future__ import annotations

import importlib
import os
import site
import subprocess
import sys
import threading

# In a session of its own, because it ends the group that starts it; what is being written to cannot be removed before.
END = """
import os, shutil, signal, sys, time
group, folder = int(sys.argv[1]), sys.argv[2]
os.killpg(group, signal.SIGKILL)
for _ in range(40):
    shutil.rmtree(folder, ignore_errors=True)
    if not os.path.exists(folder):
        break
    time.sleep(0.05)
"""


def end_with_parent(folder: str) -> None:
    """Wait for the lifeline to close; then end the group, functions included, and remove *folder*."""
    while os.read(sys.stdin.fileno(), 1024):
        pass
    subprocess.Popen([sys.executable, "-I", "-c", END, str(os.getpgrp()), folder], start_new_session=True)


def main() -> None:
    """Serve until the lifeline closes or a signal comes."""
    site_packages, folder = sys.argv[1:]
    threading.Thread(target=end_with_parent, args=(folder,), daemon=True).start()
    site.addsitedir(site_packages)
    sys.argv = ["ministack"]
    importlib.import_module("ministack.app").main()


if __name__ == "__main__":
    main()

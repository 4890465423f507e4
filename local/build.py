"""``make build``: ``sam build`` without Docker, and only when something that goes into it has changed.

SAM looks for ``python3.13`` on PATH and trips over a pyenv shim, so the real interpreter's folder goes first.
``--where-possible`` ends with 0 on a machine without Python 3.13, so that the tests which need no artefact can run.
"""

from __future__ import annotations

import compileall
import hashlib
import os
import py_compile
import sys
from pathlib import Path

from local.bootstrap import ENVIRONMENTS, ROOT, BootstrapError, run

BUILT = ROOT / ".aws-sam" / "build"
_STAMP = ROOT / ".aws-sam" / "built-from"
_SOURCES = ("template.yaml", "functions", "layers")
_BUILD_S = 600.0


def _say(message: str) -> None:
    print(f"build: {message}", file=sys.stderr, flush=True)


def sources_fingerprint() -> str:
    """A hash of everything that the artefact is made from."""
    digest = hashlib.sha256(ENVIRONMENTS["sam"].fingerprint().encode())
    for name in _SOURCES:
        top = ROOT / name
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                body = hashlib.sha256(path.read_bytes()).hexdigest()
                digest.update(f"{path.relative_to(ROOT).as_posix()} {body}\n".encode())
    return digest.hexdigest()


def build() -> None:
    """Make ``.aws-sam/build`` current. Raises BootstrapError."""
    fingerprint = sources_fingerprint()
    if _STAMP.is_file() and _STAMP.read_text() == fingerprint:
        return
    interpreter = Path(os.path.realpath(getattr(sys, "_base_executable", sys.executable)))
    sam = ENVIRONMENTS["sam"].folder / "bin" / "sam"
    path = os.pathsep.join([str(interpreter.parent), os.environ.get("PATH", os.defpath)])
    _say("sam build")
    _STAMP.unlink(missing_ok=True)
    command = [str(sam), "build", "--template", "template.yaml", "--build-dir", str(BUILT.relative_to(ROOT))]
    run(command, timeout_s=_BUILD_S, PATH=path, SAM_CLI_TELEMETRY="0")
    # A function's disk is read-only: without bytecode in the artefact every cold start compiles the whole layer anew.
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(str(BUILT), quiet=2, stripdir=str(BUILT), invalidation_mode=unchecked)
    _STAMP.write_text(fingerprint)


def main(arguments: list[str]) -> int:
    """Build; the exit status."""
    if sys.version_info[:2] != (3, 13):
        _say("the built artefact needs Python 3.13")
        return 0 if "--where-possible" in arguments else 1
    try:
        build()
    except BootstrapError as error:
        _say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

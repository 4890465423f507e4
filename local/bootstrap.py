"""Make the environments that every command runs in: ``python3 local/bootstrap.py dev sam``.

Started by whichever Python 3.11 or later the machine has, with nothing installed, so it uses the standard library only
and no syntax newer than 3.11. It finds Python 3.13 (the version the functions run on), creates ``.venv`` (``dev``) and
``.venv-sam`` (``sam``), and installs the hashed lock files. A stamp in each environment makes the next run immediate.

``python3 local/bootstrap.py lock`` writes the lock files anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ROOT / "build" / "tools"
WANTED = (3, 13)
OLDEST = (3, 11)
UV_VERSION = "0.13.8"
FETCH_S = 180.0
INSTALL_S = 1800.0
SELF_DESCRIPTION = (
    "import json, os, sys, venv;"
    "path = os.path.realpath(getattr(sys, '_base_executable', sys.executable));"
    "print(json.dumps([sys.version_info[:3], path]))"
)


class BootstrapError(Exception):
    """Raised when the environments cannot be made; its message is the one line that the user sees."""


@dataclass(frozen=True)
class Interpreter:
    """A Python that was run and answered."""

    version: tuple[int, int, int]
    path: Path

    @property
    def is_wanted(self) -> bool:
        """Whether it is the version that the functions run on."""
        return self.version[:2] == WANTED

    @property
    def label(self) -> str:
        """Its version as people write it."""
        return ".".join(map(str, self.version))


@dataclass(frozen=True)
class Environment:
    """One virtual environment and the lock file that fills it."""

    folder: Path
    lock: Path

    @property
    def python(self) -> Path:
        """The environment's interpreter."""
        return self.folder / "bin" / "python"

    @property
    def stamp(self) -> Path:
        """Where it is written down what is installed."""
        return self.folder / "bootstrap.json"

    def fingerprint(self) -> str:
        """What the stamp has to hold for the environment to be current."""
        return hashlib.sha256(self.lock.read_bytes()).hexdigest()

    def holds_its_lock(self) -> bool:
        """Whether what is installed is what the lock file names."""
        return self.recorded().get("lock") == self.fingerprint()

    def recorded(self) -> dict[str, str]:
        """What the stamp holds; empty when there is none or the interpreter behind the environment is gone."""
        if not self.python.exists():
            return {}
        try:
            stamp: dict[str, str] = json.loads(self.stamp.read_text())
        except (OSError, ValueError):
            return {}
        return stamp


ENVIRONMENTS = {
    "dev": Environment(ROOT / ".venv", ROOT / "local" / "requirements-dev.txt"),
    "sam": Environment(ROOT / ".venv-sam", ROOT / "local" / "requirements-sam.txt"),
}


def say(message: str) -> None:
    """One line on standard error; standard output belongs to the command that follows."""
    print(f"bootstrap: {message}", file=sys.stderr, flush=True)


def clean_environ(**extra: str) -> dict[str, str]:
    """This process's environment without another project's virtual environment in it."""
    foreign = {"VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "PYTHONHOME", "__PYVENV_LAUNCHER__"}
    return {key: value for key, value in os.environ.items() if key not in foreign} | extra


def last_line(text: str) -> str:
    """The last line that says something, which is where pip and uv put the cause."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no output"


def run(command: list[str], *, timeout_s: float, **environ: str) -> None:
    """Run *command*; BootstrapError with its last line of output unless it ends with 0."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
            check=False,
            env=clean_environ(**environ),
            cwd=ROOT,
        )
    except subprocess.TimeoutExpired:
        raise BootstrapError(f"{Path(command[0]).name} did not end within {timeout_s:.0f} s") from None
    except OSError as error:
        raise BootstrapError(f"{Path(command[0]).name} could not be started ({error.strerror})") from None
    if done.returncode:
        raise BootstrapError(f"{Path(command[0]).name}: {last_line(done.stdout)}")


def ask(candidate: Path) -> Interpreter | None:
    """Run *candidate* and let it say what it is; None when it does not run (a pyenv shim may exist and fail)."""
    try:
        answer = subprocess.run(
            [str(candidate), "-c", SELF_DESCRIPTION],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
            env=clean_environ(),
        )
        version, path = json.loads(answer.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return Interpreter((version[0], version[1], version[2]), Path(path))


def on_path(name: str) -> Iterator[Path]:
    """Every file called *name* on PATH, in its order; the first may be a shim that fails."""
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        candidate = Path(folder or ".") / name
        if candidate.is_file() and os.access(candidate, os.X_OK):
            yield candidate


def kept_apart(pattern: str) -> Iterator[Path]:
    """Interpreters that pyenv and uv keep outside PATH, newest first; *pattern* is such as ``3.13*``."""
    home = Path.home()
    data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    pyenv = Path(os.environ.get("PYENV_ROOT") or home / ".pyenv")
    managed = Path(os.environ.get("UV_PYTHON_INSTALL_DIR") or data / "uv" / "python")
    for folder, glob in ((pyenv / "versions", pattern), (managed, f"cpython-{pattern}")):
        yield from sorted(folder.glob(f"{glob}/bin/python3"), reverse=True)


def first_wanted(candidates: Iterable[Path]) -> Interpreter | None:
    """The first of *candidates* that runs and is Python 3.13."""
    for candidate in candidates:
        found = ask(candidate)
        if found and found.is_wanted:
            return found
    return None


def wanted_candidates() -> Iterator[Path]:
    """Where Python 3.13 may be on this machine, the likeliest first."""
    if sys.version_info[:2] == WANTED:
        yield Path(sys.executable)
    yield from on_path("python3.13")
    yield from kept_apart("3.13*")
    yield from on_path("python3")


def newest_served() -> Interpreter:
    """The newest Python on the machine from the oldest that serves on; the one running this is among them."""
    names = [f"python3.{minor}" for minor in range(OLDEST[1], 20)] + ["python3"]
    candidates = [path for name in names for path in on_path(name)] + [Path(sys.executable)]
    candidates += [path for minor in range(OLDEST[1], 20) for path in kept_apart(f"3.{minor}.*")]
    found = [interpreter for interpreter in map(ask, candidates) if interpreter and interpreter.version[:2] >= OLDEST]
    if not found:
        raise BootstrapError("no Python from 3.11 on was found; install Python 3.13")
    return max(found, key=lambda interpreter: interpreter.version)


def uv() -> Path:
    """The uv that installs: a pinned one in an environment of its own, else the machine's."""
    binary = TOOLS / "bin" / "uv"
    stamp = TOOLS / "uv-version"
    if binary.exists() and stamp.exists() and stamp.read_text() == UV_VERSION:
        return binary
    try:
        run([sys.executable, "-m", "venv", "--clear", str(TOOLS)], timeout_s=120)
        run([str(TOOLS / "bin" / "python"), "-m", "pip", "install", "-q", f"uv=={UV_VERSION}"], timeout_s=FETCH_S)
    except BootstrapError as error:
        on_machine = shutil.which("uv")
        if on_machine:
            return Path(on_machine)
        raise BootstrapError(f"uv could not be installed ({error})") from None
    stamp.write_text(UV_VERSION)
    return binary


def fetch_wanted() -> Interpreter | None:
    """Python 3.13 as uv fetches it; None when it cannot, as on a machine without internet."""
    try:
        run([str(uv()), "python", "install", "--no-bin", "3.13"], timeout_s=FETCH_S, UV_HTTP_RETRIES="0")
    except BootstrapError:
        return None
    return first_wanted(kept_apart("3.13*"))


def install(environment: Environment, interpreter: Interpreter) -> None:
    """Make *environment* hold exactly its lock file, on *interpreter*."""
    say(f"installing {environment.lock.relative_to(ROOT)} into {environment.folder.name} (Python {interpreter.label})")
    present = ask(environment.python)
    kept = present is not None and present == interpreter
    try:
        install_with_uv(environment, interpreter, kept=kept)
    except BootstrapError as uv_error:
        try:
            install_with_pip(environment, interpreter)
        except BootstrapError as pip_error:
            raise BootstrapError(
                f"{environment.lock.relative_to(ROOT)} could not be installed: {uv_error}; {pip_error}"
            ) from None
    environment.stamp.write_text(json.dumps({"lock": environment.fingerprint(), "python": interpreter.label}))


def install_with_uv(environment: Environment, interpreter: Interpreter, *, kept: bool) -> None:
    """The quick way; uv does not read pip's configuration, so a machine with a mirror may refuse it."""
    offline = {"UV_PYTHON_DOWNLOADS": "never"}
    tool = str(uv())
    if not kept:
        venv = [tool, "venv", "-q", "--clear", "--python", str(interpreter.path), str(environment.folder)]
        run(venv, timeout_s=120, **offline)
    sync = [tool, "pip", "sync", "-q", "--require-hashes", "--python", str(environment.python), str(environment.lock)]
    run(sync, timeout_s=INSTALL_S, **offline)


def install_with_pip(environment: Environment, interpreter: Interpreter) -> None:
    """The slow way, which knows every mirror that pip knows."""
    run([str(interpreter.path), "-m", "venv", "--clear", str(environment.folder)], timeout_s=120)
    pip = [str(environment.python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    run([*pip, "--require-hashes", "-r", str(environment.lock)], timeout_s=INSTALL_S)


@contextmanager
def only_one_at_a_time() -> Iterator[None]:
    """Two commands that start together must not fill one environment at once."""
    (ROOT / "build").mkdir(exist_ok=True)
    with (ROOT / "build" / "bootstrap.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def ensure(names: list[str]) -> None:
    """Bring the named environments up to date; immediate when they are."""
    stale = [ENVIRONMENTS[name] for name in names if not is_current(ENVIRONMENTS[name])]
    if not stale:
        return
    with only_one_at_a_time():
        interpreter = first_wanted(wanted_candidates())
        if not interpreter and all(environment.holds_its_lock() for environment in stale):
            say_what_serves(stale[0].recorded()["python"])
            return
        interpreter = interpreter or fetch_wanted() or newest_served()
        if not interpreter.is_wanted:
            say_what_serves(interpreter.label)
        for environment in stale:
            if not environment.holds_its_lock() or environment.recorded()["python"] != interpreter.label:
                install(environment, interpreter)


def say_what_serves(label: str) -> None:
    """The line that a machine without Python 3.13 shows on every command."""
    say(f"Python 3.13 is neither here nor to be fetched: Python {label} serves instead")


def is_current(environment: Environment) -> bool:
    """Whether *environment* holds its lock file on Python 3.13; one on a stand-in is looked at again each time."""
    return environment.holds_its_lock() and environment.recorded()["python"].startswith("3.13.")


def write_locks() -> None:
    """Write the three lock files anew, the layer's constrained by the development one."""
    environ = {"UV_CUSTOM_COMPILE_COMMAND": "make lock", "UV_PYTHON_DOWNLOADS": "never"}
    compile_ = [str(uv()), "pip", "compile", "--universal", "--python-version", "3.11", "--generate-hashes", "-q"]
    dev, layer, sam = "local/requirements-dev.txt", "layers/relay/requirements.txt", "local/requirements-sam.txt"
    for arguments in (
        ["pyproject.toml", "--group", "dev", "-o", dev],
        ["pyproject.toml", "-c", dev, "--no-annotate", "-o", layer],
        ["--group", "sam", "-o", sam],
    ):
        say(f"writing {arguments[-1]}")
        run([*compile_, *arguments], timeout_s=INSTALL_S, **environ)


def main(arguments: list[str]) -> int:
    """Make the named environments, or ``lock``; the exit status."""
    if sys.version_info[:2] < OLDEST:
        say(f"Python 3.11 or later has to start this; this one is {sys.version.split()[0]}")
        return 1
    unknown = set(arguments) - {"lock", *ENVIRONMENTS}
    if unknown or not arguments:
        say("usage: bootstrap.py [dev] [sam] | lock")
        return 2
    try:
        if "lock" in arguments:
            write_locks()
        ensure([name for name in arguments if name != "lock"])
    except BootstrapError as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        say("stopped")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

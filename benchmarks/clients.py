"""The clients of both vendors: what importing one costs, what a call costs over bare httpx, what a long list costs.

Each figure is taken in a process of its own: ``python -m benchmarks.clients calls ADDRESS COUNT`` and ``… policy WAY
ADDRESS COUNT`` (a way is bare or client) print JSON; ``… serve`` is the plain server that is called, and ends with its
standard input.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

from local.bootstrap import ROOT, clean_environ
from local.standins.infracost import TOKEN, InfracostStandIn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import httpx

RELAY = "finops_relay."
ENTRANCES = {"infracost.client": "cloudzero", "cloudzero.connect": "infracost"}
"""The module that makes a client of each vendor, and the package that importing it must leave alone."""
BASELINE = "httpx, pydantic"
VALUES = 10_000
EXPECTED = Counter({"getTaggingPolicy": 2, "updateTaggingPolicy": 1})
"""One read, one PATCH, one verification."""
WAYS = ("bare", "client")
BLOCK_CALLS = 50
"""Calls of one kind in a row: what else the machine does meets all kinds alike."""

_IMPORT = re.compile(r"^import time: +(\d+) \| +(\d+) \| ( *)(\S+)$", re.MULTILINE)
"""Self and cumulative microseconds, depth and name of a module, as ``-X importtime`` writes them."""
_HOST = "127.0.0.1"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_ANSWER = b'{"data":{"id":"1","type":"things","attributes":{"name":"one"}}}'
_WHOLE_ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(_ANSWER) + _ANSWER
)
_BODY = {"data": {"type": "things", "attributes": {"name": "one", "price": 1}}}
_SLUG, _POLICY = "primary", "1"
_PATH = f"/orgs/{_SLUG}/tagging-policies/{_POLICY}"
_KEY = "app_id"
_TAG = {"key": _KEY, "valueType": "LIST", "mandatory": True, "allowedValues": ["a"]}


@dataclass
class Imports:
    """All imports of one thing, each in a fresh interpreter; microseconds."""

    what: str
    whole_us: list[int] = field(default_factory=list)
    own_us: list[int] = field(default_factory=list)
    """Of the layer's own modules, without what they import."""
    foreign: list[str] = field(default_factory=list)
    """Modules of the other vendor's package that were imported as well."""

    @property
    def median_us(self) -> float:
        """The median of the imports."""
        return median(self.whole_us)

    @property
    def median_own_us(self) -> float:
        """The median of the layer's own part."""
        return median(self.own_us)


@dataclass(frozen=True)
class Calls:
    """Calls of one method, bare and through the client; medians in milliseconds."""

    method: str
    count: int
    """Of each kind."""
    bare_ms: float
    client_ms: float

    @property
    def over_ms(self) -> float:
        """What the client costs."""
        return self.client_ms - self.bare_ms


@dataclass
class Policy:
    """Setting a long list of values in one tagging policy, by hand and through the client."""

    values: int
    patch_bytes: int = 0
    """Of the client's PATCH."""
    seconds: dict[str, list[float]] = field(default_factory=lambda: {way: [] for way in WAYS})
    counts: list[dict[str, int]] = field(default_factory=list)
    """The client's calls by operation, as the stand-in counted them, of each run."""

    def median_s(self, way: str) -> float:
        """The median of one way."""
        return median(self.seconds[way])

    @property
    def astray(self) -> int:
        """Calls too many or too few in the worst run."""
        return max(((Counter(counts) - EXPECTED) + (EXPECTED - Counter(counts))).total() for counts in self.counts)


@dataclass(frozen=True)
class Clients:
    """All figures of the clients."""

    imports: list[Imports]
    """The baseline first."""
    calls: list[Calls]
    policy: Policy


def measure(imports: int, calls: int, policies: int) -> Clients:
    """Measure *imports* imports, *calls* calls of each kind and *policies* settings of a long list."""
    return Clients(_imports(imports), _calls(calls), _policies(policies))


def _imports(repeats: int) -> list[Imports]:
    found = [Imports(what) for what in (BASELINE, *(RELAY + entrance for entrance in ENTRANCES))]
    with tempfile.TemporaryDirectory(prefix="finops-relay-bench-") as scratch:
        for repeat in range(repeats + 1):
            for each in found:
                _import(each, scratch, counted=repeat > 0)  # the first round compiles, and reads from disk
    return found


def _import(each: Imports, bytecode: str, *, counted: bool) -> None:
    """Import once more, with bytecode as the built layer has it, whatever the environment says of it."""
    kept = {"PYTHONPYCACHEPREFIX": bytecode, "PYTHONDONTWRITEBYTECODE": ""}
    text = _python("-X", "importtime", "-c", f"import {each.what}", **kept).stderr
    modules = [(int(own), int(whole), not depth, name) for own, whole, depth, name in _IMPORT.findall(text)]
    away = RELAY + ENTRANCES.get(each.what.removeprefix(RELAY), "none")
    each.foreign = sorted({*each.foreign, *(name for *_, name in modules if f"{name}.".startswith(f"{away}."))})
    if counted:
        asked = each.what.split(", ")
        each.whole_us.append(sum(whole for _, whole, outermost, name in modules if outermost and name in asked))
        each.own_us.append(sum(own for own, *_, name in modules if f"{name}.".startswith(RELAY)))


def _calls(count: int) -> list[Calls]:
    with _served() as address:
        done = _python("-m", "benchmarks.clients", "calls", address, str(count))
    return [Calls(**each) for each in json.loads(done.stdout)]


def _policies(repeats: int) -> Policy:
    found = Policy(VALUES)
    held = {"id": _POLICY, "name": "Tags", "tags": [_TAG]}
    with InfracostStandIn(policies={_SLUG: [held]}) as standin:
        for repeat in range(repeats + 1):
            for way in WAYS:
                done = _python("-m", "benchmarks.clients", "policy", way, standin.api_url, str(VALUES))
                told = json.loads(done.stdout)
                if repeat:  # the first round warms the stand-in up
                    found.seconds[way].append(told["seconds"])
                if way == "client":
                    found.patch_bytes = told["patch_bytes"]
                    found.counts.append(standin.state()["counts"])
                standin.reset()
    return found


def _python(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run an interpreter that finds the layer, to its end."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=clean_environ(PYTHONPATH=os.pathsep.join([str(ROOT / "layers" / "relay"), str(ROOT)]), **environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
    return done


@contextmanager
def _served() -> Iterator[str]:
    """Run the plain server in a process of its own; its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.clients", "serve"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:  # leaving it closes the server's standard input, which ends it
        if process.stdout is None:
            raise AssertionError
        yield process.stdout.readline().strip()


# What runs in the processes.


def serve() -> None:
    """Answer every request on loopback alike until standard input ends."""
    listener = socket.create_server((_HOST, 0))
    threading.Thread(target=_accept, args=(listener,), daemon=True).start()
    print(f"http://{_HOST}:{listener.getsockname()[1]}", flush=True)
    sys.stdin.read()


def _accept(listener: socket.socket) -> None:
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=_answer, args=(connection,), daemon=True).start()


def _answer(connection: socket.socket) -> None:
    """Answer the requests of one connection, one after the other."""
    seen = b""
    while chunk := connection.recv(65536):
        seen += chunk
        head, end, rest = seen.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if end and len(rest) >= int(length[1] if length else 0):
            seen = b""
            connection.sendall(_WHOLE_ANSWER)


def call(address: str, count: int) -> list[dict[str, Any]]:
    """Call the plain server *count* times with each method, bare and through the client, in blocks in turn."""
    import httpx  # noqa: PLC0415 -- the processes that import nothing of it are measured, or must be quick
    from finops_relay.http.auth import Credential, fixed  # noqa: PLC0415 -- as above
    from finops_relay.http.client import HttpClient  # noqa: PLC0415 -- as above
    from pydantic import SecretStr  # noqa: PLC0415 -- as above

    path = "/orgs/{slug}/things/{id}"
    ids = {"slug": "primary", "id": "1"}
    url = address + path.format_map(ids)
    bare, client = httpx.Client(trust_env=False), HttpClient(address, Credential(fixed(SecretStr("made-up")), "none"))
    kinds: dict[tuple[str, str], Callable[[], object]] = {
        ("GET", "bare"): lambda: bare.get(url),
        ("GET", "client"): lambda: client.request("GET", path, ids=ids, safe=True),
        ("POST", "bare"): lambda: bare.post(url, json=_BODY),
        ("POST", "client"): lambda: client.request("POST", path, ids=ids, body=_BODY, safe=False),
    }
    seconds: dict[tuple[str, str], list[float]] = {kind: [] for kind in kinds}
    for block in range(-1, -(-count // BLOCK_CALLS)):
        for kind, once in kinds.items():
            taken = [_seconds(once) for _ in range(BLOCK_CALLS)]
            if block >= 0:  # the first connects, and warms caches up
                seconds[kind] += taken
    return [
        {"method": method, "count": len(seconds[method, "bare"])}
        | {f"{way}_ms": median(seconds[method, way]) * 1000 for way in WAYS}
        for method in ("GET", "POST")
    ]


def set_values(way: str, api_url: str, count: int) -> dict[str, float]:
    """Set *count* values in the policy once; the seconds, and the bytes of the PATCH."""
    import httpx  # noqa: PLC0415 -- as in `call`
    from finops_relay.infracost.client import connect  # noqa: PLC0415 -- as above
    from pydantic import SecretStr  # noqa: PLC0415 -- as above

    values = [f"application-{number:05d}" for number in range(count)]
    sent: list[int] = []

    def note(request: httpx.Request) -> None:
        if request.method == "PATCH":
            sent.append(int(request.headers["content-length"]))

    if way == "client":
        client = connect(SecretStr(TOKEN), api_url)
        client.http.wire.event_hooks = {"request": [note]}
        seconds = _seconds(lambda: client.set_allowed_values(_SLUG, _POLICY, _KEY, values))
    else:
        bare = httpx.Client(
            headers={"authorization": f"Bearer {TOKEN}"}, event_hooks={"request": [note]}, trust_env=False
        )
        seconds = _seconds(lambda: _by_hand(bare, api_url + _PATH, values))
    return {"seconds": seconds, "patch_bytes": sum(sent)}


def _by_hand(bare: httpx.Client, url: str, values: list[str]) -> None:
    """The same three requests with httpx alone."""
    tags = bare.get(url).raise_for_status().json()["data"]["attributes"]["tags"]
    tags = [tag | {"allowedValues": values} if tag["key"] == _KEY else tag for tag in tags]
    bare.patch(url, json={"data": {"type": "tagging-policies", "attributes": {"tags": tags}}}).raise_for_status()
    after = bare.get(url).raise_for_status().json()["data"]["attributes"]["tags"]
    if after[0]["allowedValues"] != values:
        raise SystemExit("the stand-in does not show the values that were sent")


def _seconds(once: Callable[[], object]) -> float:
    started = time.perf_counter()
    once()
    return time.perf_counter() - started


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve"]:
            serve()
        case ["calls", address, count]:
            print(json.dumps(call(address, int(count))))
        case ["policy", way, address, count]:
            print(json.dumps(set_values(way, address, int(count))))

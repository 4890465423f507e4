"""Imports point one way: the table of the design, kept by the syntax trees of everything that is deployed.

An import counts wherever it stands: at the top, inside a function, or under TYPE_CHECKING.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYER = ROOT / "layers" / "relay"
FUNCTIONS = ROOT / "functions"
PACKAGE = "finops_relay"

CLIENTS = ("infracost", "cloudzero", "sources")

ALLOWED: dict[str, dict[str, str]] = {
    "errors": {},
    "http": {"errors": "a call ends in an error of the tree"},
    **{client: {"http": "calls are made through the core", "errors": "and end in its errors"} for client in CLIENTS},
    "formats": {"errors": "a hostile file is refused with a reason"},
    "delivery": {"errors": "the ports say what they raise"},
    "sync": {"errors": "a guard refuses"},
    "jobs": {
        "errors": "stories end in outcomes",
        "delivery": "the ports, the ledger's items, the receipt",
        "formats": "prepare reads and writes files",
        "sync": "plans and verdicts",
        **dict.fromkeys(CLIENTS, "deliver calls a vendor, prepare a source of truth"),
    },
    "aws": {"errors": "AWS's refusals become ours", "delivery": "its ports are implemented here"},
    "functions": {
        "jobs": "a handler turns one event into one job call",
        "aws": "where its event and its ports come from",
        "errors": "what it may catch",
        "delivery": "the names of what it hands from one to the other",
    },
}
"""Which area may import which other one, and why. Itself, and the package's version, each may."""

ALLOWED_FOR_ONE: dict[tuple[str, str], str] = {
    **{("finops_relay.aws.wiring", area): "the parts are put together in one place" for area in ("http", *CLIENTS)},
    ("finops_relay.aws.secrets", "http"): "TokenSource is the shape of what it returns",
    ("finops_relay.aws.logs", "http"): "CallRecord is what it writes down; the name only, never loaded",
}
"""Modules that may import one more area than theirs."""

ALLOWED_OUTSIDE: dict[str, dict[str, str]] = {
    "errors": {},
    "http": {
        "httpx": "the wire",
        "httpcore": "the connections under it, for deadlines",
        "tenacity": "the loop of the retry",
        "msgspec": "JSON that reads and writes Decimals to the last digit",
        "pydantic": "SecretStr, and answers that are fitted to models",
    },
    **{client: {"pydantic": "models of what a vendor says"} for client in CLIENTS},
    "cloudzero": {
        "pydantic": "as above",
        "msgspec": "what a body made ahead says",
        "typing_extensions": "override, until 3.12 is the oldest Python",
    },
    "sources": {"pydantic": "what is asked for is checked", "jmespath": "how relay.yaml names a part of an answer"},
    "infracost": {"pydantic": "as above", "re2": "the engine that compiles a tag's expression at the vendor"},
    "formats": {"isal": "gzip is half of the reading time of a compressed sheet with the standard library"},
    "delivery": {"pydantic": "what is kept is checked"},
    "sync": {"pydantic": "plans are kept", "re2": "a pattern of relay.yaml, in linear time whatever the value"},
    "jobs": {
        "pydantic": "relay.yaml, and what a job remembers",
        "yaml": "relay.yaml",
        "msgspec": "the pages of a stream's book, a hundred thousand lines at a time",
        "typing_extensions": "as above",
    },
    "aws": {
        "boto3": "the service's clients",
        "botocore": "their errors",
        "aws_lambda_powertools": "batches, logs, metrics, secrets",
        "pydantic": "events and settings",
        "mypy_boto3_dynamodb": "types",
        "mypy_boto3_events": "types",
        "mypy_boto3_s3": "types",
        "mypy_boto3_secretsmanager": "types",
        "mypy_boto3_sqs": "types",
    },
    "functions": {"aws_lambda_powertools": "the type of a batch's response"},
}
"""What each area may import that is neither ours nor Python's, and why."""

ENVIRONMENT = {"finops_relay.aws.settings": "the only reader of os.environ"}
NETWORK = {"socket", "ssl", "http.client", "urllib.request", "ftplib", "smtplib", "asyncio", "subprocess", "requests"}
"""Python's own ways out; only the core under the clients may use one."""
NAMELESS = {"utils", "util", "helpers", "helper", "common", "misc", "shared", "tools"}


@dataclass(frozen=True)
class Module:
    """One module, and what it imports, by full name."""

    name: str
    path: Path
    imports: frozenset[str]

    @property
    def area(self) -> str:
        """Its row of the table."""
        return _area(self.name)


def _area(name: str) -> str:
    parts = name.split(".")
    if parts[0] != PACKAGE:
        return parts[0]
    return PACKAGE if len(parts) == 1 or parts[1].startswith("_") else parts[1]


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield the full name of everything that *tree* imports, wherever it does."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written in full, so that they can be searched for"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"__import__", "exec", "eval"}, "an import that nobody can see"


def _modules() -> dict[str, Module]:
    paths = {
        ".".join(path.relative_to(LAYER).with_suffix("").parts).removesuffix(".__init__"): path
        for path in (LAYER / PACKAGE).rglob("*.py")
    }
    paths |= {f"functions.{path.parent.name}.{path.stem}": path for path in FUNCTIONS.rglob("*.py")}
    return {
        name: Module(name, path, frozenset(imported(ast.parse(path.read_text(encoding="utf-8")))))
        for name, path in sorted(paths.items())
    }


MODULES = _modules()


def ours(name: str) -> str | None:
    """Return the module of ours that an imported name is, or is part of."""
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name or None


def wrong_edges(module: Module) -> list[str]:
    """Return what *module* imports against the table."""
    return [f"{module.name} imports {name}" for name in sorted(module.imports) if not _allowed(module, name)]


def _allowed(module: Module, name: str) -> bool:
    top = name.split(".", maxsplit=1)[0]
    if top in {PACKAGE, "functions"}:
        goal = _area(name)
        known = goal in {module.area, PACKAGE} or goal in ALLOWED[module.area]
        return known or (module.name, goal) in ALLOWED_FOR_ONE
    if top not in sys.stdlib_module_names:
        return top in ALLOWED_OUTSIDE[module.area]
    if top == "os":
        return module.name in ENVIRONMENT
    return module.area == "http" or not any(f"{name}.".startswith(f"{way}.") for way in NETWORK)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_module_imports_only_what_the_table_allows(name: str) -> None:
    if name != PACKAGE:
        assert wrong_edges(MODULES[name]) == []


def test_the_package_itself_imports_nothing() -> None:
    assert MODULES[PACKAGE].imports == frozenset()


def test_every_area_has_its_row_in_the_table() -> None:
    areas = {module.area for module in MODULES.values()} - {PACKAGE}
    assert areas <= set(ALLOWED)
    assert set(ALLOWED) == set(ALLOWED_OUTSIDE)


def test_nothing_imports_in_a_circle() -> None:
    edges = {
        module.name: {goal for name in module.imports if (goal := ours(name)) and goal != module.name}
        for module in MODULES.values()
    }
    tuple(TopologicalSorter(edges).static_order())  # raises CycleError, which names the circle


def test_a_module_is_named_after_the_thing_it_knows() -> None:
    parts = {part for module in MODULES.values() for part in module.name.split(".")}
    assert not parts & NAMELESS
    local = {path.stem for path in (ROOT / "local").rglob("*.py")}
    assert not local & NAMELESS


def test_the_exceptions_are_still_needed() -> None:
    needed = {(module.name, _area(name)) for module in MODULES.values() for name in module.imports}
    existing = {module.area for module in MODULES.values()}
    unneeded = {edge for edge in ALLOWED_FOR_ONE if edge not in needed and edge[1] in existing}
    assert unneeded == set()


def test_what_is_loaded_only_when_needed_is_never_imported_at_the_top() -> None:
    """A function that calls no vendor must not pay for httpx, and no start-up for boto3."""
    for module in MODULES.values():
        if module.area not in {"aws", "functions"}:
            continue
        tree = ast.parse(module.path.read_text(encoding="utf-8"))
        loaded: list[ast.stmt] = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        top = set(imported(ast.Module(loaded, [])))
        assert not {name for name in top if name.split(".")[0] in {"boto3", "httpx"}}, module.name
        assert not {name for name in top if name.startswith("finops_relay.http.client")}, module.name


def test_a_function_is_one_module_with_one_handler() -> None:
    for folder in sorted(path for path in FUNCTIONS.iterdir() if path.is_dir() and path.name != "__pycache__"):
        files = [path.name for path in folder.iterdir() if path.name != "__pycache__"]
        assert files == ["app.py"], folder.name
        tree = ast.parse((folder / "app.py").read_text(encoding="utf-8"))
        assert [n.name for n in tree.body if isinstance(n, ast.FunctionDef) and n.name.endswith("_handler")] == [
            "lambda_handler"
        ]
        assert not [node for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler)], folder.name


def test_the_stand_ins_share_no_code_with_the_clients() -> None:
    for path in sorted((ROOT / "local" / "standins").rglob("*.py")):
        tops = {name.split(".")[0] for name in imported(ast.parse(path.read_text(encoding="utf-8")))}
        assert not tops & {PACKAGE, "functions"}, path.name


@pytest.mark.parametrize(
    ("area", "source"),
    [
        ("jobs", "import boto3"),
        ("jobs", "import httpx"),
        ("jobs", "from os import environ"),
        ("jobs", "from aws_lambda_powertools import Logger"),
        ("jobs", "from finops_relay.aws import objects"),
        ("jobs", "from finops_relay.http.client import HttpClient"),
        ("delivery", "def f():\n    from finops_relay.jobs import opening"),
        (
            "delivery",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from finops_relay.formats import csv_rows",
        ),
        ("formats", "import pydantic"),
        ("formats", "import urllib.request"),
        ("infracost", "from finops_relay.cloudzero import client"),
        ("infracost", "import httpx"),
        ("http", "from finops_relay.delivery import waits"),
        ("aws", "from finops_relay.jobs import opening"),
        ("aws", "from finops_relay.infracost import client"),
        ("aws", "import os"),
        ("errors", "from finops_relay import http"),
        ("functions", "import boto3"),
    ],
)
def test_the_table_would_be_seen_to_be_broken(area: str, source: str) -> None:
    name = f"{area}.made_up.app" if area == "functions" else f"{PACKAGE}.{area}.made_up"
    assert wrong_edges(Module(name, Path(), frozenset(imported(ast.parse(source))))) != []

"""The documents say what is so: the table of faults, the links between pages, and the examples."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from finops_relay.jobs.config import parse

from tests.test_fault_matrix import REQUIRED, rows_named

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_table_of_faults_names_for_each_row_exactly_the_tests_that_name_it() -> None:
    table = (ROOT / "docs" / "guarantees.md").read_text()
    rows = {
        int(row): re.findall(r"`(test_\w+)`", tests)
        for row, tests in re.findall(r"^\| (\d+) \|.*?\| (.*) \|$", table, re.MULTILINE)
    }
    assert set(rows) == REQUIRED
    named = rows_named()
    assert rows == {row: named[row] for row in REQUIRED}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_between_our_pages_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text())
    broken = [link for link in links if not (page.parent / link).exists()]
    assert not broken, f"{page.name} links to {broken}"


def test_the_example_configuration_is_good() -> None:
    config = parse((ROOT / "docs" / "examples" / "relay.yaml").read_bytes())
    assert config.price_books.azure.price_types == ("Consumption",)


def test_every_alarm_has_its_place_in_the_runbook() -> None:
    """An alarm says "see docs/runbook.md": the words to look for must stand there."""
    runbook = (ROOT / "docs" / "runbook.md").read_text().lower()
    for words in (
        "dead letters",
        "errors or throttles",
        "a message is old",
        "credential refused",
        "no success",
        "quarantine",
        "vendor trouble",
        "alarm: failed",
        "held",
    ):
        assert words in runbook, words


def test_nothing_in_the_tree_names_a_machine_path_or_a_registry() -> None:
    """A lock file or a document with either would only be true on one machine."""
    path = re.compile(r"(?<![\w.-])/(?:work|root|farm)/")
    host = re.compile(r"://[^\s\"')>]*(?:pypi|pythonhosted|npmjs|debian)\b", re.IGNORECASE)
    own = Path(__file__).resolve()
    for file in sorted(ROOT.rglob("*")):
        parts = file.relative_to(ROOT).parts
        if not file.is_file() or parts[0] in {".git", ".venv", ".venv-sam", ".aws-sam", "build"} or file == own:
            continue
        if any(part.endswith("cache") or part.startswith((".hypothesis", "__pycache__")) for part in parts[:-1]):
            continue
        try:
            text = file.read_text()
        except UnicodeDecodeError:
            continue
        assert not path.search(text), f"{file.relative_to(ROOT)} names a machine path"
        if file.suffix in {".txt", ".lock", ".toml", ".json", ".yaml"}:
            assert not host.search(text), f"{file.relative_to(ROOT)} names a registry"

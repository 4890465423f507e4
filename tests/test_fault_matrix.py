"""The fault matrix is whole: every row that what we deliver must survive has a test that names it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).resolve().parent
REQUIRED = {*range(1, 19), *range(23, 27), 28, 29}


def rows_named() -> dict[int, list[str]]:
    """Return the tests of each row, by what the first words of their docstrings say."""
    found: dict[int, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef) or not node.name.startswith("test_"):
                continue
            head, colon, _ = (ast.get_docstring(node) or "").partition(":")
            if colon and re.fullmatch(r"Row \d+(, Row \d+)*", head):
                for number in re.findall(r"\d+", head):
                    found.setdefault(int(number), []).append(node.name)
    return found


def test_every_row_of_the_fault_matrix_has_a_test_that_names_it() -> None:
    missing = REQUIRED - set(rows_named())
    assert not missing, f"no test's docstring begins with Row N for {sorted(missing)}"

"""What holds for every test."""

from __future__ import annotations

import pytest
from hypothesis import settings

# A machine that does other things at the same time is no failure: pytest's time-out ends what hangs.
settings.register_profile("here", deadline=None)
settings.load_profile("here")

ONE_AT_A_TIME = ("tests/stack/", "tests/test_template.py")
"""Tests that start the stack, or build what is deployed: there is one of either."""


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Name bytes by their argument: what they hold may be of this second, and processes must agree on names."""
    del config
    return argname if isinstance(val, bytes) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a file in one process, where several run side by side: they share what it makes."""
    for item in items:
        file = item.nodeid.partition("::")[0]
        group = ONE_AT_A_TIME[0] if file.startswith(ONE_AT_A_TIME) else file
        item.add_marker(pytest.mark.xdist_group(group))

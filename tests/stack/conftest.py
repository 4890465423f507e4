"""The whole stack, started once a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from local.serve import Local, Settings, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from local.stack import Stack


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/stack/" in item.nodeid:
            item.add_marker(pytest.mark.stack)


@pytest.fixture(scope="session")
def running() -> Iterator[Local]:
    """The stack with the Infracost stand-in, its secret and relay.yaml, as `make local` starts them."""
    with serving(Settings()) as local:
        yield local


@pytest.fixture(scope="session")
def stack(running: Local) -> Stack:
    return running.stack

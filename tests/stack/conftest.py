"""The whole stack, started once a run, and the built functions."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from local.build import BUILT, build
from local.rie import NOTHING_BUILT, missing
from local.serve import Local, Settings, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``sam build`` makes of the tree as it is now; a copy, which no other command builds anew meanwhile."""
    why = missing()
    if why and why != NOTHING_BUILT:
        pytest.skip(why)
    build()
    return shutil.copytree(BUILT, tmp_path_factory.mktemp("artefact") / "build")

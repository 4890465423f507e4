"""Ports and clients that die on order: the process ends at one call, and from then on nothing of it runs any more.

A crash *after* a call is a crash *before* the next one, as nothing between two calls reaches the outside; so the calls
are counted, and a fuse that blows before the n-th, for every n, is every crash that there is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

from finops_relay.cloudzero.client import CloudZero
from finops_relay.delivery.ports import Ports
from finops_relay.http.client import HttpClient
from finops_relay.infracost.client import Infracost

from tests.world.billing import Billing
from tests.world.relay import Aws, World


class SimulatedCrash(BaseException):
    """The process is gone: no ``except Exception`` sees this, as none would see a kill."""


@dataclass
class Fuse:
    """Counts the calls that leave the process, and blows before the n-th."""

    at: int = 0
    """0 never blows."""
    calls: list[str] = field(default_factory=list)
    blown: bool = False
    graves: list[object] = field(default_factory=list)
    """What a killed process never closed: kept, so that the garbage collector closes it only after the test."""

    def tick(self, name: str) -> None:
        """Count a call. Raises SimulatedCrash."""
        if self.blown:
            raise SimulatedCrash(name)
        self.calls.append(name)
        if len(self.calls) == self.at:
            self.blown = True
            raise SimulatedCrash(name)

    def mend(self) -> None:
        """Begin another process, which lives."""
        self.blown, self.at = False, 0

    def ports(self, world: Aws) -> Ports:
        """Return the world's ports behind this fuse."""
        return world.with_ports(lambda name, port: Fragile(self, name, port))

    def client(self, world: World) -> Callable[[str], Infracost]:
        """Return a maker of the vendor's client behind this fuse."""
        found: Callable[[str], Any] = lambda slug: Fragile(self, "vendor", world.client(slug))  # noqa: E731 -- a typed one
        return found

    def cloudzero(self, world: Billing) -> Callable[[], CloudZero]:
        """Return a maker of CloudZero's client whose calls are behind this fuse."""

        def wrapped(http: HttpClient) -> HttpClient:
            return cast("HttpClient", Fragile(self, "vendor", http))

        return lambda: world.client(wrapped)


class Fragile:
    """Anything, its calls behind a fuse; so is what they give, if that is a context, a stream or an iterator."""

    def __init__(self, fuse: Fuse, name: str, inner: Any, ticks: frozenset[str] | None = None) -> None:  # noqa: ANN401 -- anything
        self._fuse = fuse
        self._name = name
        self._inner = inner
        self._ticks = ticks

    def __getattr__(self, attribute: str) -> Any:  # noqa: ANN401 -- anything
        found = getattr(self._inner, attribute)
        name = f"{self._name}.{attribute}"
        if not callable(found) or (self._ticks is not None and attribute not in self._ticks):
            return found

        def call(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401 -- anything
            self._fuse.tick(name)
            return _behind(self._fuse, name, found(*arguments, **named))

        return call


def _behind(fuse: Fuse, name: str, result: Any) -> Any:  # noqa: ANN401 -- anything
    if hasattr(result, "__next__"):
        return _Halves(fuse, name, result)
    if hasattr(result, "__exit__"):
        return _Context(fuse, name, result)
    return result


@dataclass
class _Context:
    """A context whose beginning and end are calls; a dead process ends none."""

    fuse: Fuse
    name: str
    inner: Any

    def __enter__(self) -> Any:  # noqa: ANN401 -- anything
        return Fragile(self.fuse, self.name, self.inner.__enter__(), frozenset({"read", "write"}))

    def __exit__(self, *error: object) -> Any:  # noqa: ANN401 -- as the context itself
        if self.fuse.blown:
            self.fuse.graves.append(self.inner)
            return False
        try:
            self.fuse.tick(f"{self.name}.exit")
        except SimulatedCrash:
            self.fuse.graves.append(self.inner)
            raise
        return self.inner.__exit__(*error)


@dataclass
class _Halves:
    """An iterator of chunks that gives halves, so that there is a middle to crash in; each is a call."""

    fuse: Fuse
    name: str
    inner: Iterator[Any]
    held: Any = None

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:  # noqa: ANN401 -- anything
        self.fuse.tick(f"{self.name}.next")
        if self.held is not None:
            second, self.held = self.held, None
            return second
        chunk = next(self.inner)
        if not isinstance(chunk, bytes) or len(chunk) < 2:
            return chunk
        middle = len(chunk) // 2
        self.held = chunk[middle:]
        return chunk[:middle]

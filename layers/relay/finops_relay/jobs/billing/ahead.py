"""The next body is fetched, checked and added up while the one before it is on its way: an answer takes long."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field

from finops_relay.delivery.receipt import Unit
from finops_relay.jobs.billing.remembered import Costs


@dataclass(frozen=True)
class Loaded:
    """A body in hand."""

    data: bytes
    costs: Costs
    """Added up from *data*."""


@dataclass
class Ahead:
    """Loads bodies, one of them ahead.

    Args:
        load: loads one; called from a thread of *pool*.
        pool: None loads each when it is asked for.
    """

    load: Callable[[Unit], Loaded]
    pool: Executor | None = None
    coming: dict[str, Future[Loaded]] = field(default_factory=dict)

    def begin(self, unit: Unit | None) -> None:
        """Begin to load what will be asked for next."""
        if self.pool is not None and unit is not None and unit.spool_key not in self.coming:
            self.coming[unit.spool_key] = self.pool.submit(self.load, unit)

    def take(self, unit: Unit) -> Loaded:
        """Return a body. Raises what loading raises."""
        coming = self.coming.pop(unit.spool_key, None)
        return self.load(unit) if coming is None else coming.result()

    def close(self) -> None:
        """Forget what was loaded for nothing; nothing of it goes on afterwards."""
        for coming in self.coming.values():
            if not coming.cancel():
                coming.exception()  # waits for it; who would need its body will load it anew
        self.coming.clear()

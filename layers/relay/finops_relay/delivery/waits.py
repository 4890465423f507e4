"""How long a delivery waits before its next try; arithmetic, shared by the jobs and the queue."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

MAX_WAIT_S = 43_200.0
"""SQS keeps a message invisible for 12 hours at most (SQS developer guide, "Visibility timeout")."""


@dataclass(frozen=True)
class Waits:
    """How long waits are, in seconds; short on one machine, minutes in production."""

    first_s: float = 30.0
    cap_s: float = 900.0

    def after(self, waits: int, named_s: float | None = None, draw: Callable[[], float] = random.random) -> float:
        """Return the next wait after *waits* earlier ones: what the vendor named, else doubling, half of it jitter."""
        if named_s is not None:
            return min(MAX_WAIT_S, max(1.0, named_s))
        return min(self.cap_s, self.first_s * 2.0 ** min(max(waits, 0), 20)) * (0.5 + draw() / 2)


@dataclass(frozen=True)
class Looks:
    """Waits between looks at what a vendor does in its own time, in seconds, and how long it is looked at all."""

    first_s: float = 10.0
    cap_s: float = 300.0
    end_s: float = 3600.0

    def after(self, looks: int) -> float:
        """Return the wait after *looks* looks."""
        return min(self.cap_s, self.first_s * 2.0 ** min(looks, 20))

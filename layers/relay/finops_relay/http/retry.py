"""When to try again, as arithmetic without sleeping; the loop itself is tenacity's."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from finops_relay.errors import OutcomeUnknown, RateLimited, RelayError, VendorUnavailable, VendorUnreachable

MAX_NAMED_S = 999_999_999.0
"""Longest wait that is believed to be one."""
GIVE_UP = math.inf
"""As a wait: never."""
AFTER_UNSAFE = (VendorUnreachable, RateLimited)
"""Failures after which even an unsafe call may be repeated: the vendor cannot have acted on it."""
AFTER_SAFE = (*AFTER_UNSAFE, VendorUnavailable, OutcomeUnknown)


@dataclass(frozen=True)
class RetryPolicy:
    """Limits on tries *and* on time, for one call in one invocation; longer waits are the queue's business."""

    attempts: int = 4
    base_s: float = 0.4
    cap_s: float = 5.0
    """Longest wait inside an invocation; a longer Retry-After gives the call up, and the message waits instead."""
    budget_s: float = 15.0

    def wait_s(
        self,
        error: RelayError,
        attempt: int,
        spent_s: float,
        *,
        safe: bool,
        draw: Callable[[], float] = random.random,
    ) -> float | None:
        """Return seconds to wait after failed *attempt* (1-based); None means give up. Full jitter."""
        if not isinstance(error, AFTER_SAFE if safe else AFTER_UNSAFE) or attempt >= self.attempts:
            return None
        named = getattr(error, "retry_after_s", None)
        wait: float = named if named is not None else draw() * min(self.cap_s, self.base_s * 2 ** (attempt - 1))
        return wait if wait <= self.cap_s and spent_s + wait <= self.budget_s else None


def retry_after_s(header: str, now: datetime | None = None) -> float | None:
    """Return the seconds that a ``Retry-After`` header names, in either form (RFC 9110, 10.2.3); None if unusable."""
    text = header.strip()
    if text.isascii() and text.isdigit():
        return min(MAX_NAMED_S, float(text[:10]))
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    aware = when if when.tzinfo else when.replace(tzinfo=UTC)
    return min(MAX_NAMED_S, max(0.0, (aware - (now or datetime.now(UTC))).total_seconds()))

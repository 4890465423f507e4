"""CloudZero's idempotency key, which is scoped to path and method, not to the body, and remembers errors too.

Source: contract page, "Drops, live contract". So a key belongs to one body and one try; it stays the same only where
no answer to the former try came: then the vendor answers as it did, or acts for the first time.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from finops_relay.errors import OutcomeUnknown, VendorError, VendorUnreachable

HEADER = "cloudzero-idempotency-key"


def new_key() -> str:
    """Return a key that nobody used before."""
    return str(uuid.uuid4())


@dataclass
class IdempotencyKeys:
    """The keys for one body; not for another, not even with the same path.

    After OutcomeUnknown `current` is the key to send this very body with again; keep it with the intent.
    """

    current: str = field(default_factory=new_key)
    make: Callable[[], str] = new_key

    def __call__(self, former: VendorError | None) -> Mapping[str, str]:
        """Return the header of the next try, told what became of the one before."""
        unanswered = isinstance(former, OutcomeUnknown | VendorUnreachable) and former.call.status is None
        if former is not None and not unanswered:
            self.current = self.make()
        return {HEADER: self.current}

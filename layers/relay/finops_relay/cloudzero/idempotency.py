"""CloudZero's idempotency key, which is scoped to path and method, not to the body, and remembers errors too.

Source: contract page, "Drops, live contract". So a key belongs to one body and one try; it stays the same only where
no answer to the former try came: then the vendor answers as it did, or acts for the first time.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from finops_relay.errors import AnswerNotUnderstood, OutcomeUnknown, VendorError, VendorUnavailable

HEADER = "cloudzero-idempotency-key"


def new_key() -> str:
    """Return a key that nobody used before."""
    return str(uuid.uuid4())


@dataclass
class IdempotencyKeys:
    """The keys for one body; not for another, not even with the same path.

    When no answer came, `current` is the key to send this very body with again: keep it with the intent. A key whose
    outcome is unknown is never given up by a call that is unsafe to repeat, whatever is answered to it later; after a
    5xx it gives that 5xx again, and only reading back can tell.
    """

    current: str = ""
    """One that was kept is in doubt; without one, it is a new one."""
    in_doubt: bool = field(default=False, init=False)
    """Whether the vendor may have acted under `current`."""
    doubted: bool = field(default=False, init=False)
    """Whether the vendor may have acted under any key so far: the body may be there whatever was answered since."""
    make: Callable[[], str] = new_key

    def __post_init__(self) -> None:
        """Begin with the key that was kept, or with a new one."""
        self.in_doubt = self.doubted = bool(self.current)
        self.current = self.current or self.make()

    def hear(self, error: VendorError, *, safe: bool) -> None:
        """Take note of what became of a try.

        Args:
            error: how it failed.
            safe: whether the call is safe to repeat: then another key can do no harm.
        """
        if isinstance(error, OutcomeUnknown | AnswerNotUnderstood):
            self.in_doubt = True
        if isinstance(error, OutcomeUnknown | AnswerNotUnderstood | VendorUnavailable):
            self.doubted = True
        answered = error.call.status is not None
        if answered and (safe or not self.in_doubt):
            self.current, self.in_doubt = self.make(), False

    @property
    def header(self) -> Mapping[str, str]:
        """The header of the next try."""
        return {HEADER: self.current}

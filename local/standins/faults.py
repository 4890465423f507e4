"""Faults on order: what a stand-in does wrong, to which call, and how many times."""

from __future__ import annotations

import threading
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

_JSON = "application/json"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Status(_Strict):
    """Does not act; answers with this status."""

    kind: Literal["status"]
    status: int = Field(ge=200, le=599)
    headers: dict[str, str] = {}
    body: str | dict[str, Any] | list[Any] = ""
    """Text as it stands, or anything else as JSON."""
    content_type: str = _JSON


class Delay(_Strict):
    """Waits, then acts and answers as ever, whether or not the client still listens."""

    kind: Literal["delay"]
    seconds: float = Field(ge=0)


class Reset(_Strict):
    """Resets the connection without having acted; an upload at its very beginning, any other call when it was read."""

    kind: Literal["reset"]


class HalfRead(_Strict):
    """Reads half of the request's body, then resets the connection without having acted."""

    kind: Literal["half_read"]


class Html(_Strict):
    """Does not act; answers with an HTML page, as a proxy in front of the vendor would."""

    kind: Literal["html"]
    status: int = Field(default=502, ge=200, le=599)
    headers: dict[str, str] = {}


class LostAnswer(_Strict):
    """Acts, then ends the connection without an answer."""

    kind: Literal["lost_answer"]


class LostAnswerStatus(_Strict):
    """Acts, then answers with an error status all the same."""

    kind: Literal["lost_answer_status"]
    status: Literal[500, 502, 503, 504] = 502


class HalfBody(_Strict):
    """Acts, then sends half of the answer's body under its full length, and ends the connection."""

    kind: Literal["half_body"]


class Empty(_Strict):
    """Acts, then answers with the status it would have had and no body."""

    kind: Literal["empty"]


Fault = Annotated[
    Status | Delay | Reset | HalfRead | Html | LostAnswer | LostAnswerStatus | HalfBody | Empty,
    Field(discriminator="kind"),
]


class Scheduled(_Strict):
    """A fault, and the calls that it is meant for."""

    operation: str
    """An operationId, or `*` for any."""
    times: int = Field(default=1, ge=1)
    after: int = Field(default=0, ge=0)
    """How many calls of the operation go well before the first fault."""
    fault: Fault


_SCHEDULES: TypeAdapter[list[Scheduled]] = TypeAdapter(list[Scheduled])


class FaultPlan:
    """The faults that are still to come. Safe to use from many threads.

    Args:
        operations: The operationIds that a fault may be meant for.
    """

    def __init__(self, operations: frozenset[str]) -> None:
        self._operations = operations | {"*"}
        self._lock = threading.Lock()
        self._coming: list[Scheduled] = []

    def add(self, orders: object) -> None:
        """Schedule faults.

        Args:
            orders: What was posted: a list in the shape of `Scheduled`.

        Raises:
            ValueError: The list has another shape, or names an operation that does not exist.
        """
        scheduled = _SCHEDULES.validate_python(orders)
        unknown = sorted({order.operation for order in scheduled} - self._operations)
        if unknown:
            raise ValueError(
                f"no such operation: {', '.join(unknown)}; there are {', '.join(sorted(self._operations))}"
            )
        with self._lock:
            self._coming += scheduled

    def take(self, operation: str) -> Fault | None:
        """Say what goes wrong with this call of *operation*, and count it.

        Every schedule that still has calls to skip counts this one; of the others the oldest strikes.
        """
        struck: Fault | None = None
        coming: list[Scheduled] = []
        with self._lock:
            for order in self._coming:
                left: Scheduled | None = order
                if order.operation in {"*", operation}:
                    if order.after:
                        left = order.model_copy(update={"after": order.after - 1})
                    elif struck is None:
                        struck = order.fault
                        left = order.model_copy(update={"times": order.times - 1}) if order.times > 1 else None
                if left is not None:
                    coming.append(left)
            self._coming = coming
        return struck

    def remaining(self) -> list[dict[str, Any]]:
        """Give the faults still to come, in the shape in which they were posted."""
        with self._lock:
            return [order.model_dump(mode="json") for order in self._coming]

    def clear(self) -> None:
        """Forget every fault still to come."""
        with self._lock:
            self._coming = []

"""A strict stand-in for CloudZero, in either contract: costs, insights, budgets, telemetry, billing drops.

In process, for tests:

    with CloudZeroStandIn("live") as server:
        httpx.get(f"{server.api_url}/v2/billing/dimensions", headers={"Authorization": KEY})

As a process: `python -m local.standins.cloudzero --contract live --port N --key K`; it prints a line of JSON with its
address when it is ready, and ends on SIGTERM.

An area of the API is a class with handlers by operationId; `docs/openapi/cloudzero-openapi.yaml` and
`docs/openapi/cloudzero-live.yaml` name the operations, and this module brings them together.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, get_args

from local.standins import faults
from local.standins.cloudzero_account import CONNECTION, CONNECTIONS, Account, Config, Contract, Key
from local.standins.cloudzero_costs import Costs
from local.standins.cloudzero_document import SampledDocument
from local.standins.cloudzero_drops import Drops, Turns
from local.standins.cloudzero_json import parse
from local.standins.cloudzero_plans import BUDGETS, INSIGHTS, Plans
from local.standins.cloudzero_replays import Replays, Scope
from local.standins.cloudzero_telemetry import Telemetry
from local.standins.standin import Call, CallRecord, Refusal, StandIn, answer, serve_until_told

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from werkzeug.wrappers import Request, Response

    from local.standins.document import Operation

__all__ = ["CONNECTION", "CONNECTIONS", "KEY", "CloudZeroStandIn"]

KEY = "standin-cloudzero-key"
"""Made up, good at the stand-in only."""

_HOST = "https://api.cloudzero.com"
_BAD_REQUEST, _NOT_FOUND, _GONE, _TOO_MANY = 400, 404, 410, 429
_TYPES = {
    _BAD_REQUEST: "bad_request",
    _NOT_FOUND: "not_found",
    _GONE: "expired",
    _TOO_MANY: "rate_limit",
}
"""The `type` of the live errors that have one."""
_INSTEAD = {"status", "html", "lost_answer_status"}
"""Faults that put an answer of their own in the place of the vendor's."""


class CloudZeroStandIn(StandIn):
    """CloudZero on loopback, with one tenant.

    Args:
        contract: The contract that the tenant speaks.
        keys: Keys that are known; strings may do everything.
        port: The port, or 0 for a free one.
        **config: The behaviour at the start, as in `/_config`.
    """

    def __init__(
        self,
        contract: Contract = "live",
        *,
        keys: Sequence[str | Key] = (KEY,),
        port: int = 0,
        **config: Any,  # noqa: ANN401 - checked by Config
    ) -> None:
        super().__init__(SampledDocument(f"cloudzero-{contract}.yaml", {_HOST: ""}), port)
        known = [Key(key=key) if isinstance(key, str) else key for key in keys]
        self._account = Account(contract, Config.model_validate({"keys": known, **config}))
        self._turns = Turns()
        self._replays = Replays()
        self._drops = Drops(self._account)
        self._telemetry = Telemetry(self._account)
        self._costs = Costs(self._account)
        self._insights = Plans(self._account, INSIGHTS)
        self._budgets = Plans(self._account, BUDGETS)
        areas = (self._drops, self._telemetry, self._costs, self._insights, self._budgets)
        self._handlers = {name: handler for area in areas for name, handler in area.handlers().items()}

    @property
    def contract(self) -> Contract:
        """The contract that the tenant speaks."""
        return self._account.contract

    @property
    def api_url(self) -> str:
        """The API's base address."""
        return self.url

    def handlers(self) -> Mapping[str, Callable[[Call], Response]]:
        """Give the handler of each operation."""
        return self._handlers

    def authorize(self, request: Request) -> None:
        """Let known keys pass; what each may do is asked where the operation is known."""
        with self.lock:
            self._account.key(request)

    def holdings(self) -> dict[str, Any]:
        """Give all that was sent, and how."""
        return {
            "contract": self.contract,
            **self._drops.holdings(),
            "posts": self._account.posts(),
            "overlaps": list(self._turns.overlaps),
            "replays": self._replays.count,
            "telemetry": self._telemetry.holdings(),
            "insights": self._insights.holdings(),
            "budgets": self._budgets.holdings(),
        }

    def configure(self, wanted: object) -> None:
        """Change what *wanted* names, and leave the rest."""
        if not isinstance(wanted, dict):
            raise ValueError("the configuration is an object")  # noqa: TRY004 - pydantic's errors are ValueErrors too
        with self.lock:
            former = self._account.config.model_dump()
            self._account.config = Config.model_validate(former | wanted)

    def configuration(self) -> dict[str, Any]:
        """Give the behaviour; of the keys only what they lack."""
        with self.lock:
            return self._account.config.model_dump(mode="json", exclude={"keys": {"__all__": {"key"}}})

    def forget(self) -> None:
        """Return to the start."""
        self._account.forget()
        self._turns.overlaps.clear()
        self._replays.forget()
        for area in (self._drops, self._telemetry, self._costs, self._insights, self._budgets):
            area.forget()

    def decode(self, body: bytes) -> Any:  # noqa: ANN401 - whatever JSON holds
        """Decode a JSON body with exact numbers."""
        try:
            return parse(body)
        except ValueError as error:
            raise Refusal(_BAD_REQUEST, str(error)) from None

    # What comes before an operation: turns, idempotency keys, scopes and sizes.

    def _served(self, call: Call, record: CallRecord) -> Response:
        """Answer a call that has its connection for itself, and keep what is the first answer to an idempotency key."""
        scope = self._scope(call.operation, call.request)
        with self._turns.taken(call) as alone, self._replays.first(scope) as first:
            if alone:
                response = super()._served(call, record)
            else:
                response = self._refuse(Refusal(_TOO_MANY, "Another request on this connection is under way."))
                record.status = response.status_code
            if scope and first and (not alone or record.fault in _INSTEAD):
                self._replays.keep(scope, response)
        return response

    def _instead(self, fault: faults.Fault | None, operation: Operation, request: Request) -> Response | None:
        """Do what a fault does before the vendor acts, unless the answer was given long ago."""
        if isinstance(fault, faults.Status | faults.Html):
            again = self._replays.again(self._scope(operation, request))
            if again is not None:
                return again
        return super()._instead(fault, operation, request)

    def _act(self, call: Call, record: CallRecord) -> Response:
        """Do as the vendor would: nothing, for a key that has its answer."""
        scope = self._scope(call.operation, call.request)
        response = self._replays.again(scope)
        if response is None:
            response = super()._act(call, record)
            if scope and record.fault != "lost_answer_status":
                self._replays.keep(scope, response)
        return response

    def _scope(self, operation: Operation, request: Request) -> Scope | None:
        """Say what the idempotency key of a request stands for; None without one, and for a stranger's."""
        try:
            with self.lock:
                self._account.admit(operation, request)
        except Refusal:
            return None
        return self._replays.scope(request) if self._account.live else None

    def _lawful(self, call: Call, body: bytes, record: CallRecord) -> Response:
        """Answer a call after asking for its scope and size, and then for the document."""
        try:
            with self.lock:
                self._account.admit(call.operation, call.request, len(body))
        except Refusal as refusal:
            return self._refuse(refusal)
        return super()._lawful(call, body, record)

    def _refuse(self, refusal: Refusal) -> Response:
        """Answer with an error as the contract does; under openapi, which does not say how, with a message."""
        message = " ".join(f"{pointer}: {detail}" if pointer else detail for detail, pointer in refusal.details)
        kind = _TYPES.get(refusal.status)
        if self._account.live and kind is not None:
            return answer({"error": {"message": message, "type": kind}}, refusal.status)
        return answer({"message": message}, refusal.status)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run as a process."""
    parser = argparse.ArgumentParser(prog="python -m local.standins.cloudzero", description=__doc__.partition("\n")[0])
    parser.add_argument("--contract", choices=get_args(Contract), default="live", help="which contract it speaks")
    parser.add_argument("--port", type=int, default=0, help="0 (the default) takes a free one")
    parser.add_argument("--key", action="append", help="an API key that may do everything; may be repeated")
    parser.add_argument("--bearer", action="store_true", help="accept `Bearer <key>` too")
    parser.add_argument("--connection", action="append", help="the id of an AnyCost Stream connection; may be repeated")
    given = parser.parse_args(arguments)
    standin = CloudZeroStandIn(
        given.contract,
        keys=given.key or (KEY,),
        port=given.port,
        bearer=given.bearer,
        connections=given.connection or (CONNECTION,),
    )
    serve_until_told(standin, api_url=standin.api_url, contract=standin.contract)


if __name__ == "__main__":
    main()

"""Which contract a tenant speaks: told by a setting, or found out once by a read that changes nothing, and remembered.

Source: contract page, "Which one a tenant speaks". One contract is never tried after the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from pydantic import SecretStr

from finops_relay.cloudzero.advice import advice
from finops_relay.cloudzero.client import CloudZero
from finops_relay.cloudzero.contracts.live import DIMENSIONS, LiveCloudZero
from finops_relay.cloudzero.contracts.openapi import OpenapiCloudZero
from finops_relay.cloudzero.records import AUTO, ContractName
from finops_relay.errors import AnswerNotUnderstood, ConfigRefused
from finops_relay.http.auth import Credential, TokenSource, fixed
from finops_relay.http.client import HttpClient

API = "https://api.cloudzero.com"
CLIENTS: Mapping[ContractName, type[CloudZero]] = {
    ContractName.OPENAPI: OpenapiCloudZero,
    ContractName.LIVE: LiveCloudZero,
}
TELLS = {"data": ContractName.OPENAPI, "dimensions": ContractName.LIVE}
"""The key of the list of dimensions, and the contract that it belongs to."""


class Memory(Protocol):
    """Where the contract that an API was found to speak is kept."""

    def contract(self, api: str) -> str | None:
        """Return what was remembered of the API at the address *api*."""

    def remember_contract(self, api: str, contract: str) -> None:
        """Keep it, and say so once."""


@dataclass
class ProcessMemory:
    """Remembers for as long as the process lives."""

    known: dict[str, str] = field(default_factory=dict)

    def contract(self, api: str) -> str | None:
        """Return what was remembered."""
        return self.known.get(api)

    def remember_contract(self, api: str, contract: str) -> None:
        """Keep it."""
        self.known[api] = contract


def connect(
    key: SecretStr, url: str = API, contract: str = AUTO, *, memory: Memory | None = None, bearer: bool = False
) -> CloudZero:
    """Return a client for one API key; ``auto`` asks the API once for its dimensions unless *memory* knows.

    Args:
        key: of the API.
        url: of the API, without a path.
        contract: ``auto``, ``openapi`` or ``live``.
        memory: where what was found out is kept.
        bearer: send the key as a bearer token; the vendor's own way is bare.

    Raises:
        AnswerNotUnderstood: the API speaks neither contract.
        ConfigRefused: *contract* is none of the three.
        VendorError: the API cannot be asked.
    """
    http = HttpClient(url.rstrip("/"), credential(fixed(key), "the key that was given", bearer=bearer), advice)
    try:
        return client_of(http, contract, memory or ProcessMemory())
    except BaseException:
        http.wire.close()
        raise


def credential(source: TokenSource, kept_in: str, *, bearer: bool = False) -> Credential:
    """Return how a key is sent."""
    return Credential(source, kept_in, scheme="Bearer" if bearer else "", noun="API key")


def client_of(http: HttpClient, contract: str, memory: Memory) -> CloudZero:
    """Return the client of the contract that the tenant speaks. Raises as `connect`."""
    return CLIENTS[chosen(http, contract, memory)](http)


def chosen(http: HttpClient, contract: str, memory: Memory) -> ContractName:
    """Return the contract that a setting names, that is remembered, or that the API shows. Raises as `connect`."""
    if contract != AUTO:
        try:
            return ContractName(contract)
        except ValueError:
            reason = "CLOUDZERO_CONTRACT names no contract"
            raise ConfigRefused(reason, value=contract, fix="use auto, openapi or live") from None
    known = memory.contract(http.base_url)
    if known in set(ContractName):
        return ContractName(known)
    found = shown(http)
    memory.remember_contract(http.base_url, found)
    return found


def shown(http: HttpClient) -> ContractName:
    """Ask the API for its dimensions, and return the contract that the answer belongs to. Safe to repeat.

    Raises AnswerNotUnderstood when it belongs to neither.
    """
    answer = http.request("GET", DIMENSIONS, safe=True)
    try:
        found = answer.json()
        said = "its answer has neither" if isinstance(found, dict) else "its answer is no JSON object"
    except AnswerNotUnderstood as error:
        found, said = {}, error.reason
    told = {name for key, name in TELLS.items() if isinstance(found, dict) and isinstance(found.get(key), list)}
    if len(told) == 1:
        return told.pop()
    msg = (
        "this API speaks neither contract: a list of dimensions under 'data' is openapi, under 'dimensions' live, and"
        f" {'its answer has both' if told else said}; check CLOUDZERO_API_URL, or set CLOUDZERO_CONTRACT"
    )
    raise AnswerNotUnderstood(msg, replace(answer.call, detail=""))

"""Which contract a tenant speaks, for a job that may not ask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import cast

import pytest
from finops_relay.cloudzero.records import ContractName
from finops_relay.delivery.ledger import Delivery, contract_note
from finops_relay.delivery.ports import Ports
from finops_relay.delivery.receipt import Source
from finops_relay.errors import Call, ConfigRefused, CredentialRefused, VendorUnavailable
from finops_relay.jobs.contract import KIND, Tenant, ask, find_out, known_contract

API = "https://api.vendor.example"
TENANT = Tenant(API)


@dataclass
class Outside:
    """The few ports that are used here."""

    notes: dict[str, Mapping[str, str]] = field(default_factory=dict)
    sent: list[tuple[Delivery, str]] = field(default_factory=list)
    counts: list[str] = field(default_factory=list)

    @property
    def ports(self) -> Ports:
        """Return them as ports."""
        ledger = SimpleNamespace(note=lambda name: self.notes.get(name, {}), save_note=self.notes.__setitem__)
        queue = SimpleNamespace(send=lambda delivery, nonce: self.sent.append((delivery, nonce)))
        return cast(
            "Ports", SimpleNamespace(ledger=ledger, queue=queue, metrics=SimpleNamespace(count=self.counts.append))
        )


@pytest.fixture
def outside() -> Outside:
    return Outside()


def delivery(version: int = 1) -> Delivery:
    return Delivery(
        id="d1",
        kind="billing",
        group="the connection's",
        version=version,
        source=Source(bucket="b", key="k"),
        times={"received": datetime(2026, 3, 1, tzinfo=UTC)},
    )


@pytest.mark.parametrize("setting", ["openapi", "live"])
def test_a_contract_that_is_set_is_known_whatever_was_found_out(outside: Outside, setting: str) -> None:
    outside.notes[contract_note(API)] = {"contract": "live"}
    assert known_contract(outside.ports, Tenant(API, setting)) == ContractName(setting)


@pytest.mark.parametrize("api", [API, f"{API}/"])
def test_what_was_found_out_is_known_however_the_address_ends(outside: Outside, api: str) -> None:
    assert known_contract(outside.ports, Tenant(api)) is None
    outside.notes[contract_note(API)] = {"contract": "openapi"}
    assert known_contract(outside.ports, Tenant(api)) is ContractName.OPENAPI
    assert known_contract(outside.ports, Tenant("https://other.example")) is None


@pytest.mark.parametrize("setting", ["Live", "", "v2"])
def test_a_setting_that_names_no_contract_is_refused(outside: Outside, setting: str) -> None:
    with pytest.raises(ConfigRefused, match="auto, openapi or live"):
        known_contract(outside.ports, Tenant(API, setting))


def test_asking_sends_a_message_of_its_own_kind_and_group_once_a_try(outside: Outside) -> None:
    said = ask(outside.ports, TENANT, delivery())
    assert said == "it is not known yet which contract the CloudZero tenant speaks, and is being found out"
    ask(outside.ports, TENANT, delivery())
    ask(outside.ports, TENANT, delivery(version=2))
    assert {question.kind for question, _ in outside.sent} == {KIND}
    assert {question.id for question, _ in outside.sent} == {"d1"}
    (group,) = {question.group for question, _ in outside.sent}
    assert group != delivery().group  # a connection that waits does not hold the question up
    nonces = [nonce for _, nonce in outside.sent]
    assert nonces[0] == nonces[1] != nonces[2]


@pytest.mark.parametrize(
    ("error", "counter"), [(CredentialRefused, "CredentialRefused"), (VendorUnavailable, "VendorTrouble")]
)
def test_a_failure_to_find_out_is_told_to_those_who_ask_next(
    outside: Outside, error: type[CredentialRefused | VendorUnavailable], counter: str
) -> None:
    def fails() -> None:
        raise error("not now", Call("GET", "/v2/billing/dimensions", status=403))

    find_out(outside.ports, TENANT, fails)
    assert outside.counts == [counter]
    assert ask(outside.ports, TENANT, delivery()).endswith(
        "; the last try failed: GET /v2/billing/dimensions answered 403: not now"
    )
    assert "the last try" not in ask(outside.ports, Tenant("https://other.example"), delivery())


def test_a_success_counts_nothing_and_a_fault_of_ours_is_not_swallowed(outside: Outside) -> None:
    find_out(outside.ports, TENANT, lambda: None)
    assert outside.counts == []
    with pytest.raises(ZeroDivisionError):
        find_out(outside.ports, TENANT, lambda: 1 // 0)

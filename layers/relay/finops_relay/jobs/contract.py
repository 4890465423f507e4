"""Which contract a CloudZero tenant speaks, for jobs that hold no credential and cannot ask it.

What the delivering function found out stands in the ledger; otherwise that function is asked to find out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from finops_relay.cloudzero.records import AUTO, ContractName
from finops_relay.delivery.identity import digest
from finops_relay.delivery.ledger import Delivery, contract_note
from finops_relay.delivery.packer import MAX_BODY_BYTES
from finops_relay.delivery.ports import Ports
from finops_relay.errors import ConfigRefused, CredentialRefused, RelayError

KIND = "contract"
"""Of the message that asks for it."""


@dataclass(frozen=True)
class Tenant:
    """Whom we talk to."""

    api: str
    """Address of the API, without a path."""
    setting: str = AUTO
    """``auto``, ``openapi`` or ``live`` (CLOUDZERO_CONTRACT)."""
    body_bytes: int = MAX_BODY_BYTES
    """Of the largest body that it takes."""

    @property
    def trouble(self) -> str:
        """Name of the note that says why the contract could not be found out."""
        return f"{contract_note(self.api)}#trouble"


def known_contract(ports: Ports, tenant: Tenant) -> ContractName | None:
    """Return the contract that is set or was found out. Raises ConfigRefused where the setting names none."""
    known = ports.ledger.note(contract_note(tenant.api)).get("contract") if tenant.setting == AUTO else tenant.setting
    if known is None:
        return None
    try:
        return ContractName(known)
    except ValueError:
        reason = "CLOUDZERO_CONTRACT names no contract"
        raise ConfigRefused(reason, value=known, fix="set it to auto, openapi or live") from None


def ask(ports: Ports, tenant: Tenant, delivery: Delivery) -> str:
    """Ask the delivering function to find out; return what a receipt says meanwhile."""
    group = digest(KIND, tenant.api)
    ports.queue.send(delivery.but(kind=KIND, group=group), nonce=f"{delivery.id}/{KIND}/{delivery.version}")
    why = ports.ledger.note(tenant.trouble).get("why", "")
    said = "it is not known yet which contract the CloudZero tenant speaks, and is being found out"
    return f"{said}; the last try failed: {why}" if why else said


def find_out(ports: Ports, tenant: Tenant, vendor: Callable[[], object]) -> None:
    """Ask the tenant, once; a failure is remembered for the receipts of those who wait, and they ask again.

    Args:
        ports: everything outside.
        tenant: whom.
        vendor: makes the client, which asks and remembers.
    """
    try:
        vendor()
    except RelayError as error:
        ports.metrics.count("CredentialRefused" if isinstance(error, CredentialRefused) else "VendorTrouble")
        ports.ledger.save_note(tenant.trouble, {"why": str(error)[:1000]})

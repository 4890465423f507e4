"""What to do when Infracost refuses a call (contract: Infracost API, "Troubleshooting")."""

from __future__ import annotations

from http import HTTPStatus

from finops_relay.errors import Call

WHERE = {
    "orgSlug": "the organization's slug (Org Settings > General)",
    "policyId": "the policy's id (the end of its address in the dashboard)",
    "guardrailId": "the guardrail's id (the end of its address in the dashboard)",
    "enterpriseId": "the enterprise's id",
    "priceBookId": "the price book's id",
    "organizationId": "the organization's id (a UUID, not the slug)",
}
"""What each part of an address is, and where to find it."""


def advice(call: Call) -> str:
    """Return what to do about a refused *call*; empty where the vendor's words have to do."""
    named = [where for name, where in WHERE.items() if f"{{{name}}}" in call.path]
    match call.status:
        case HTTPStatus.UNAUTHORIZED:
            return (
                "This is a CLI token or an expired one: create a service account under Org Settings > API tokens and"
                " put its token into the secret"
            )
        case HTTPStatus.FORBIDDEN if "{orgSlug}" in call.path:
            return "The token belongs to another organization, or its service account lacks the role for this"
        case HTTPStatus.FORBIDDEN:
            return "The service account needs orgAdmin of the enterprise's primary organization"
        case HTTPStatus.NOT_FOUND if named:
            return f"Check {' and '.join(named)}"
        case HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return "Infracost names no limit; leave out what is not needed"
        case _:
            return ""

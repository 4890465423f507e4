"""What to do when a source of truth refuses a call."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from finops_relay.errors import Call

_SERVICENOW: Mapping[int, str] = {
    HTTPStatus.BAD_REQUEST: "Check the table's name (as in the address of its list, not its label) and the query",
    HTTPStatus.UNAUTHORIZED: (
        "Check the user's name and password in the secret; an OAuth access token lasts 30 minutes, so prefer a user"
    ),
    HTTPStatus.FORBIDDEN: (
        "The user lacks a role that may read the table through REST (often snc_platform_rest_api_access), or an access"
        " rule (ACL) of the table stands in the way"
    ),
    HTTPStatus.NOT_FOUND: "Check the instance's address and the table's name",
}
_BACKSTAGE: Mapping[int, str] = {
    HTTPStatus.BAD_REQUEST: "Check the filters",
    HTTPStatus.UNAUTHORIZED: (
        "The token is wrong or expired: put a static one (backend.auth.externalAccess) into the secret"
    ),
    HTTPStatus.FORBIDDEN: "The token may not read the catalog: allow it catalog.entity.read",
    HTTPStatus.NOT_FOUND: "Check the address: the backend's, not that of the page people see, and without /api/catalog",
}
_HTTP_JSON: Mapping[int, str] = {
    HTTPStatus.UNAUTHORIZED: "Check the source's secret",
    HTTPStatus.FORBIDDEN: "Check the source's secret, and what it allows",
    HTTPStatus.NOT_FOUND: "Check the source's address and path",
}


def servicenow(call: Call) -> str:
    """Return what to do about a *call* that ServiceNow refused; empty where its own words have to do."""
    return _SERVICENOW.get(call.status or 0, "")


def backstage(call: Call) -> str:
    """Return what to do about a *call* that Backstage refused; empty where its own words have to do."""
    return _BACKSTAGE.get(call.status or 0, "")


def http_json(call: Call) -> str:
    """Return what to do about a *call* that any other source refused; empty where its own words have to do."""
    return _HTTP_JSON.get(call.status or 0, "")

"""What to do when CloudZero refuses a call (source: contract page; the vendor documents few causes)."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from finops_relay.errors import Call

MAX_BODY_BYTES = 5_000_000
"""Of a drop or of telemetry; whether the vendor's 5 MB are decimal or binary is not said."""
WHERE = {
    "connection_id": "the connection's id (Settings > Connections)",
    "insight_id": "the insight's id",
    "budget_id": "the budget's id",
    "stream_name": "the stream's name",
    "month": "the month",
}


SAYINGS: Mapping[int, str] = {
    HTTPStatus.UNAUTHORIZED: (
        "The API key is wrong or was revoked: create one under Settings > API Keys and put it into the secret"
    ),
    HTTPStatus.FORBIDDEN: "The API key is wrong, or lacks the scope for this call: see Settings > API Keys",
    HTTPStatus.GONE: "A cursor lives for 24 hours: ask again from the first page",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: f"The limit is {MAX_BODY_BYTES:,} bytes a body, uncompressed; send less in it",
}


def advice(call: Call) -> str:
    """Return what to do about a refused *call*; empty where the vendor's words have to do."""
    if call.status == HTTPStatus.NOT_FOUND:
        named = [where for name, where in WHERE.items() if f"{{{name}}}" in call.path]
        return f"Check {', '.join(named or ['the address of the API'])}, and CLOUDZERO_CONTRACT"
    if call.status == HTTPStatus.TOO_MANY_REQUESTS and call.path.endswith("/billing/costs"):
        return "60 questions a day are answered; further pages of one do not count"
    return SAYINGS.get(call.status or 0, "")

"""What deliveries of custom properties remember, and what their target is called."""

from __future__ import annotations

from finops_relay.jobs.syncing.remembered import SyncWork

KIND = "custom-properties"
"""Of the deliveries, their receipts and their messages."""


class Work(SyncWork):
    """How far a delivery is. Kept as ``Delivery.work``."""


def target_name(slug: str) -> str:
    """Return the name of the target that an organization's custom properties are: every file replaces them whole."""
    return f"custom-properties/{slug}"


def owned_name(slug: str) -> str:
    """Return the name of what we own of them: everything."""
    return f"{target_name(slug)}/whole"

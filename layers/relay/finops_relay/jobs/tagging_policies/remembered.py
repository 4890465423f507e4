"""What deliveries of allowed values remember, and what their targets are called."""

from __future__ import annotations

from finops_relay.jobs.syncing.remembered import SyncWork

KIND = "tagging-policies"
"""Of the deliveries, their receipts and their messages."""


class Work(SyncWork):
    """How far a delivery is. Kept as ``Delivery.work``."""

    policy: str
    """What its folder calls it."""
    policy_id: str
    """At Infracost."""
    key: str
    """Of the tag, case included."""
    adopt: bool = False
    """Whether the tag may be made, or made a LIST, without asking."""


def target_name(slug: str, policy_id: str) -> str:
    """Return the name of the target that a policy is: its tags are written together, so one delivery at a time."""
    return f"tagging-policy/{slug}/{policy_id}"


def owned_name(slug: str, policy_id: str, key: str) -> str:
    """Return the name of what we own of a policy: one tag."""
    return f"{target_name(slug, policy_id)}/tag/{key}"

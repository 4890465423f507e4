"""What the template's parameters say about who we are; the settings read it, and relay.yaml goes over it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Defaults:
    """What the template's parameters say; each is empty where nothing was said."""

    enterprise_id: str = ""
    slug: str = ""
    aws_organization_id: str = ""
    azure_organization_id: str = ""

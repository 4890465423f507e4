"""What the template tells each function, read once at start-up and checked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from finops_relay.delivery.defaults import Defaults


class Settings(BaseModel):
    """Environment of a function. A missing one fails at start-up, by name."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    ledger_table: str = Field(min_length=1)
    ledger_days: int = 400
    """Days that finished deliveries stay in the ledger."""
    drops_bucket: str = Field(min_length=1)
    spool_bucket: str = Field(min_length=1)
    bus_name: str = Field(min_length=1)
    queue_url: str = Field(min_length=1)
    """The function's own queue."""
    deliver_queue_url: str = ""
    """The vendor's FIFO queue, for a function that prepares or releases."""
    infracost_deliver_queue_url: str = ""
    """Infracost's, for the function that releases what is held for both vendors; the one above is CloudZero's."""
    prepare_queue_url: str = ""
    """The queue of the function that prepares, for one that delivers and asks it to write the rejected rows; its own,
    for one that prepares and sends itself a message for each source of truth that is due."""
    telemetry_prepare_queue_url: str = ""
    """Likewise, of the one that prepares telemetry."""
    retry_first_s: float = 30.0
    retry_cap_s: float = 900.0
    folder_wait_s: float = 86_400.0
    sync_hour_utc: int = Field(default=3, ge=0, le=23)
    """Hour of the day, UTC, at which a source of truth is read unless relay.yaml names another: off-peak."""
    poll_first_s: float = 10.0
    poll_cap_s: float = 300.0
    poll_end_s: float = 86_400.0
    read_back_end_s: float = 3600.0
    """Seconds after which rows that were sent and are not seen, or seen differently, hold their delivery."""
    cloudzero_api_url: str = "https://api.cloudzero.com"
    cloudzero_contract: str = "auto"
    """``auto``, ``openapi`` or ``live``."""
    cloudzero_bearer: bool = False
    """Send the API key as a bearer token; the vendor's own way is bare."""
    infracost_api_url: str = "https://api.infracost.io/v1"
    infracost_enterprise_id: str = ""
    infracost_slug: str = ""
    infracost_aws_organization_id: str = ""
    infracost_azure_organization_id: str = ""

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read the settings. Raises pydantic.ValidationError, which names what is missing."""
        return cls.model_validate(
            {name: environment[name.upper()] for name in cls.model_fields if name.upper() in environment}
        )

    @property
    def defaults(self) -> Defaults:
        """What relay.yaml may override."""
        return Defaults(
            self.infracost_enterprise_id,
            self.infracost_slug,
            self.infracost_aws_organization_id,
            self.infracost_azure_organization_id,
        )

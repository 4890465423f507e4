"""Where sources of truth are, as relay.yaml says it; like `asks`, it loads no HTTP."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

SourceName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
SecretName = Annotated[str, Field(pattern=r"^sources/[A-Za-z0-9/_+=.@-]{1,200}$")]
"""Below `sources/`: the only secrets that the functions which read sources may read."""
SourceUrl = Annotated[
    str, Field(pattern=r"^(https://[^\s/@?#]+|http://(127\.0\.0\.1|localhost)(:[0-9]+)?)(/[^\s?#]*)?$")
]
"""https, without credentials in it; plain http on this machine only."""
HourUtc = Annotated[int, Field(ge=0, le=23, strict=True)]


class SourceBase(BaseModel):
    """Where desired values are read. Frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: SourceUrl
    secret: SecretName | None = None
    """Name of its secret in Secrets Manager; `sources/{name of the source}` when left out."""
    hour_utc: HourUtc | None = None
    """At which it is read every day; the stack's SyncHourUtc when left out."""


class ServiceNowSource(SourceBase):
    """An instance of ServiceNow."""

    type: Literal["servicenow"]
    auth: Literal["basic", "bearer"] = "basic"
    """What its secret holds: `username` and `password`, or a token."""


class BackstageSource(SourceBase):
    """The backend of Backstage."""

    type: Literal["backstage"]


class JsonSource(SourceBase):
    """Any address that answers with JSON."""

    type: Literal["http_json"]
    auth: Literal["bearer", "basic", "none"] = "bearer"


AnySource = Annotated[ServiceNowSource | BackstageSource | JsonSource, Field(discriminator="type")]

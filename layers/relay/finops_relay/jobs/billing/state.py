"""The manifests of prepared billing drops, in ``state/`` of the drops bucket: they outlive the bodies."""

from __future__ import annotations

from finops_relay.delivery.ports import Ports
from finops_relay.errors import SourceGone
from finops_relay.jobs.billing.remembered import Manifest

MAX_MANIFEST_BYTES = 16_000_000


def manifest_key(delivery: str, rewritten: int = 0) -> str:
    """Return where the manifest of a delivery stands; each time its bodies are made anew it has another one."""
    return f"state/billing/{delivery}{f'.{rewritten}' if rewritten else ''}.json"


def put_manifest(ports: Ports, key: str, manifest: Manifest) -> None:
    """Keep a manifest."""
    ports.drops.put(key, manifest.model_dump_json().encode(), "application/json")


def manifest_of(ports: Ports, bucket: str, key: str) -> Manifest:
    """Return a manifest. Raises SourceGone, ShortRead."""
    with ports.drops.open(ports.drops.pin(bucket, key)) as stream:
        text = stream.read(MAX_MANIFEST_BYTES)
    try:
        return Manifest.model_validate_json(text)
    except ValueError:
        msg = f"s3://{bucket}/{key} is no manifest of a billing drop any more"
        raise SourceGone(msg) from None

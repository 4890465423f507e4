"""A dropped relay.yaml: checked, and in force only if it is good (design: Storage, `config/relay.yaml`)."""

from __future__ import annotations

from finops_relay.delivery.defaults import Defaults
from finops_relay.delivery.identity import ObjectVersion, order_of
from finops_relay.delivery.ledger import Delivery
from finops_relay.delivery.ports import Ports
from finops_relay.delivery.receipt import Outcome
from finops_relay.delivery.telling import conclude
from finops_relay.errors import InputRefused
from finops_relay.jobs.config import CONFIG_KEY, CONFIG_NOTE, MAX_CONFIG_BYTES, effective, parse
from finops_relay.jobs.opening import Opened, opened

KIND = "config"


def check_config(source: ObjectVersion, ports: Ports, defaults: Defaults) -> Delivery | None:
    """Check one dropped file under ``config/``; return its delivery, None for a folder made in a console.

    A good relay.yaml is in force for every delivery that is prepared from now on; a bad one is refused with a receipt
    and the former stays in force.
    """
    if source.key.endswith("/"):
        return None
    found = opened(ports, source, kind=KIND, target=CONFIG_KEY)
    if not isinstance(found, Opened):
        return found
    delivery = found.delivery
    try:
        if source.key != CONFIG_KEY:
            raise InputRefused("nothing reads this file", file=source.key, fix=f"drop it as {CONFIG_KEY}")  # noqa: TRY301 -- one way out for all that is refused
        with ports.drops.open(source) as stream:
            text = stream.read(MAX_CONFIG_BYTES + 1)
        effective(parse(text), defaults)
    except InputRefused as error:
        return conclude(ports, delivery.ended(Outcome.REJECTED, ports.clock.now(), str(error)))
    kept = {"version_id": source.version_id, "text": text.decode("utf-8-sig")}
    if not ports.ledger.save_note(CONFIG_NOTE, kept, order_of(source)):
        reason = "a newer relay.yaml is in force already"
        return conclude(ports, delivery.ended(Outcome.STALE, ports.clock.now(), reason))
    return conclude(ports, delivery.but(config_version=source.version_id).ended(Outcome.DELIVERED, ports.clock.now()))

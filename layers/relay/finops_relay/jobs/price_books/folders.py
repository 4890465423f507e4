"""Folders of price sheets whose marker never came: reported as held, so that nothing is forgotten."""

from __future__ import annotations

from datetime import timedelta

from finops_relay.delivery.ledger import Delivery
from finops_relay.delivery.ports import Ports
from finops_relay.jobs import folders
from finops_relay.jobs.price_books.drop_path import FOLDERS
from finops_relay.jobs.price_books.remembered import KIND


def sweep(ports: Ports, bucket: str, patience: timedelta) -> list[Delivery]:
    """Report folders that have waited for their marker for longer than *patience*; return what is held."""
    return folders.sweep(ports, bucket, patience, KIND, FOLDERS)

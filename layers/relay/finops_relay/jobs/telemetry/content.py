"""The records of a delivery in the spool: written by whoever prepares it, read by whoever delivers it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from hashlib import sha256
from itertools import groupby

from finops_relay.delivery import commands
from finops_relay.delivery.identity import digest
from finops_relay.delivery.ledger import Delivery
from finops_relay.delivery.ports import Ports
from finops_relay.delivery.receipt import rejected_key
from finops_relay.errors import InputRefused
from finops_relay.formats.cost_cells import SUM_CONTEXT
from finops_relay.formats.telemetry import Ident, Total, day_of
from finops_relay.jobs.telemetry.books import Line, Page, Verb, decoded, encoded
from finops_relay.jobs.telemetry.remembered import Work, content_key, target_name
from finops_relay.jobs.turns import Waiting, turns

MAX_DAYS = 400
"""Days that one delivery may have records of: each is an object in the spool and two names in the ledger, 400 KB."""

MAX_A_DAY = 150_000
"""Different records of one day of a stream: a page of its book is held in memory whole, 2 KB for each (measured)."""


LABEL_CHARS = 400
"""Characters of labels that come with a record at no extra weight."""


def weight(ident: Ident) -> int:
    """Return for how many records one counts in `MAX_A_DAY`: long labels take room, too."""
    return 1 + sum(map(len, ident.labels)) // LABEL_CHARS


def crowded(days: Mapping[str, int]) -> str:
    """Return what a person is told of days with too many records, by what they weigh; empty when none has too many."""
    found = [day for day, count in days.items() if count > MAX_A_DAY]
    if not found:
        return ""
    return (
        f"{found[0]} would have {days[found[0]]:,} different records (more for long labels), and a day of a stream has"
        f" {MAX_A_DAY:,} at most: leave out a dimension, or divide the records among several streams"
    )


def written(ports: Ports, delivery: Delivery, totals: Mapping[Ident, Total]) -> tuple[tuple[str, ...], str]:
    """Write a delivery's records into the spool; return their days and the hash of all.

    Raises:
        InputRefused: they are of too many days.
    """
    lines = [Line(*ident, total.value, total.rows, total.line) for ident, total in sorted(totals.items())]
    days = {day: list(same) for day, same in groupby(lines, lambda line: day_of(line.period))}
    if len(days) > MAX_DAYS:
        fix = f"drop at most {MAX_DAYS:,} days in one file"
        raise InputRefused(f"the records are of {len(days):,} days", file=delivery.source.key, fix=fix)
    hashes = []
    for day, same in days.items():
        data = encoded(same)
        hashes.append(sha256(data).hexdigest())
        with ports.spool.writer(content_key(delivery.id, day), "application/json") as out:
            out.write(data)
    return tuple(days), digest(*days, *hashes)


def lines_of(ports: Ports, delivery: str, day: str) -> list[Line]:
    """Return a delivery's records of a day. Raises SourceGone, ShortRead."""
    key = content_key(delivery, day)
    return decoded(b"".join(ports.spool.chunks(key)), list[Line], key)


def page_of(ports: Ports, key: str) -> Page:
    """Return a page of a book; an empty one where there is no key. Raises SourceGone, ShortRead."""
    return decoded(b"".join(ports.spool.chunks(key)), Page, key) if key else Page()


def put_page(ports: Ports, key: str, page: Page) -> str:
    """Keep a page; return its key."""
    with ports.spool.writer(key, "application/json") as out:
        out.write(encoded(page))
    return key


def let_go(ports: Ports, keys: Iterable[str]) -> None:
    """Let objects of the spool expire."""
    for key in keys:
        ports.spool.release(key)


def total_of(values: Iterable[Decimal]) -> Decimal:
    """Return the exact sum of some values."""
    found = Decimal(0)
    for value in values:
        found = SUM_CONTEXT.add(found, value)
    return found


def entry_of(delivery: Delivery) -> Waiting:
    """Return what those that wait for the same stream are to know of a delivery."""
    work = Work.model_validate(delivery.work)
    erases = "stream" if work.whole_stream else "periods" if work.verb is Verb.DELETE else ""
    return Waiting(order=delivery.order, erases=erases, optional=not erases)


def erasing(ports: Ports, stream: str, order: str = "") -> str:
    """Return what a deletion that waits for its turn will delete of a stream: ``stream``, ``periods``, or nothing.

    Args:
        ports: everything outside.
        stream: its name.
        order: only deletions that are older than this count; empty for all.
    """
    waiting = turns(ports, target_name(stream)).waiting.values()
    found = {entry.erases for entry in waiting if not order or entry.order < order}
    return "stream" if "stream" in found else "periods" if "periods" in found else ""


def send_again(delivery: Delivery) -> str:
    """Return the command that fetches the rejected messages of a delivery, and what is to be done with them."""
    address = f"s3://{delivery.source.bucket}/{rejected_key(delivery.id)}"
    fetch = commands.copy(address, f"{delivery.id}.csv")
    return f"{fetch}  # mend what stands under body, and send it to the application queue again"

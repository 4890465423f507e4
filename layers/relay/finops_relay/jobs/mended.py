"""Rejected rows that a person has mended: what was dropped is read again, with these in the place of the bad ones."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from finops_relay.delivery import commands
from finops_relay.delivery.identity import ObjectVersion
from finops_relay.delivery.ledger import Delivery
from finops_relay.delivery.ports import Ports
from finops_relay.delivery.receipt import rejected_key
from finops_relay.errors import InputRefused
from finops_relay.formats.rejected_rows import RejectedFile, read_mended

MENDED = "mended"
"""The folder for mended rows, in the one that their delivery was dropped into."""
MAX_MENDS = 20
"""Mended files of mended files: beyond this a new file is the better way."""
_NAME = re.compile(r"([0-9a-f]{64})\.csv")

Rows = dict[str, dict[int, Mapping[str, str]]]
"""Mended rows: member's name (empty where there is one) -> line -> values by column."""


@dataclass(frozen=True)
class Mending:
    """What a file of mended rows is about."""

    original: Delivery
    """The delivery whose rejected rows were mended."""
    base: Delivery
    """The one whose source is read again; another than *original* where that one had mended rows too."""
    rows: Rows
    """Of all files between them; the newest has the last word."""


def mending(  # noqa: PLR0913 -- two of them say where a file belongs, two what a person calls it
    ports: Ports, file: ObjectVersion, mends: str, *, kind: str, place: Callable[[str], str], whole: str
) -> Mending:
    """Read a file of mended rows, and those that its delivery was mended with before.

    Args:
        ports: everything outside.
        file: the mended rows.
        mends: the delivery whose rejected rows they were; a delivery with mended rows names its own in its work.
        kind: of the deliveries that it may be.
        place: where a key belongs; a file mends only what was dropped in the same place.
        whole: what is dropped whole, as a person would call it.

    Raises:
        InputRefused: there is no such delivery here, it has no rejected rows, or too many files mend one another.
        SourceGone, SourceForbidden, SourceChanged, ShortRead: one of the files cannot be read.
    """
    chain, files, at = list[Delivery](), [file], mends
    while True:
        known = ports.ledger.delivery(at)
        same_place = known is not None and place(known.source.key) == place(file.key)
        if known is None or known.kind != kind or not same_place or len(chain) >= MAX_MENDS:
            fix = f"drop the whole {whole} again, or put the file into {MENDED}/ beside what {at[:12]}… came from"
            raise InputRefused("there is no delivery of this folder to mend", file=file.key, value=at, fix=fix)
        chain.append(known)
        at = str(known.work.get("mends", ""))
        if not at:
            break
        files.append(version_of(known))
    if not chain[0].rejected_rows:
        raise InputRefused("the delivery it mends has no rejected rows", file=file.key, fix=f"drop a new {whole}")
    rows = Rows()
    for version in reversed(files):
        with ports.drops.open(version) as stream:
            for member, lines in read_mended(stream, version.key).items():
                rows.setdefault(member, {}).update(lines)
    return Mending(chain[0], chain[-1], rows)


def mended_delivery(key: str) -> str:
    """Return the delivery that a file in a folder ``mended/`` mends, by its name. Raises InputRefused."""
    name = key.rpartition("/")[2]
    found = _NAME.fullmatch(name)
    if found is None:
        fix = "keep the name of the rejected-rows file: {delivery id}.csv"
        raise InputRefused("the name does not say which delivery it mends", file=key, value=name, fix=fix)
    return found[1]


def folder_of(key: str) -> str:
    """Return the folder that a file was dropped into, with its slash; of mended rows, the one of what they mend."""
    folder = key.rpartition("/")[0]
    return f"{folder.removesuffix(f'/{MENDED}')}/"


def mend_command(delivery: Delivery, folder: str) -> str:
    """Return the commands that fetch the rejected rows, and drop them back below *folder* once they are mended."""
    bucket, name = delivery.source.bucket, f"{delivery.id}.csv"
    back = f"s3://{bucket}/{folder}{MENDED}/{name}"
    fetch = commands.copy(f"s3://{bucket}/{rejected_key(delivery.id)}", name)
    return f"{fetch}  # mend it, then: {commands.copy(name, back)}"


def version_of(delivery: Delivery) -> ObjectVersion:
    """Return the object version that a delivery is about."""
    source = delivery.source
    return ObjectVersion(source.bucket, source.key, source.version, source.etag, source.bytes)


def with_rejects(ports: Ports, delivery: Delivery, rejects: RejectedFile) -> Delivery:
    """Return a delivery with its rejected rows written, if there are any."""
    if not rejects.rows:
        return delivery
    key = rejected_key(delivery.id)
    with ports.drops.writer(key, "text/csv") as out:
        rejects.write_to(out.write)
    command = mend_command(delivery, folder_of(delivery.source.key))
    delivery = delivery.but(rejected_rows=f"s3://{delivery.source.bucket}/{key}", next_command=command)
    if not rejects.omitted:
        return delivery
    return delivery.warn(f"the rejected-rows file is full: {rejects.omitted:,} more rejected rows are not in it")

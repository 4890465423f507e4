"""What a key under ``telemetry/`` means.

    {root}/telemetry/{metric|allocation}/{stream}/{replace|sum|delete}/<file>
    {root}/telemetry/{metric|allocation}/{stream}/delete/stream.json            the stream itself is deleted
    {root}/telemetry/…/{replace|sum|delete}/mended/{delivery}.csv               rejected rows, mended

with root ``incoming`` or ``plan``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from finops_relay.errors import InputRefused
from finops_relay.formats.telemetry import KINDS, is_stream
from finops_relay.jobs.folders import is_bookkeeping
from finops_relay.jobs.mended import MENDED, folder_of, mended_delivery
from finops_relay.jobs.telemetry.books import Verb

ROOTS = ("incoming", "plan")
STREAM_FILE = "stream.json"
SUFFIXES = tuple(f"{form}{packed}" for form in (".csv", ".json", ".ndjson", ".jsonl") for packed in ("", ".gz"))
"""Of names that are never taken for a tool's bookkeeping."""


class Meaning(StrEnum):
    """What a dropped object is."""

    FILE = "file"
    MENDED = "mended"
    STREAM = "stream"
    """A stream that is to be deleted."""
    NOTHING = "nothing"


@dataclass(frozen=True)
class DropPath:
    """A key, understood."""

    meaning: Meaning
    kind: str = ""
    stream: str = ""
    verb: Verb = Verb.REPLACE
    dry_run: bool = False
    mends: str = ""
    """The delivery whose rejected rows were mended."""


def place(key: str) -> str:
    """Return the folder that a drop belongs to, whether it was planned or dropped for real, mended or not."""
    return folder_of(key).partition("/")[2]


def parse(key: str) -> DropPath:
    """Return what *key* means. Raises InputRefused with the way to say it."""
    root, _, rest = key.partition("/telemetry/")
    shown = f"{root}/telemetry/{{metric|allocation}}/{{stream}}/{{replace|sum|delete}}/<file>"
    if root not in ROOTS:
        raise InputRefused("not a folder of telemetry", file=key, fix=shown.replace(root, "incoming", 1))
    if not key.rpartition("/")[2]:
        return DropPath(Meaning.NOTHING, dry_run=root == "plan")
    if not key.isprintable():  # a line end would be one in the command that a receipt tells a person to type
        fix = "drop it under a name of letters, digits and spaces"
        raise InputRefused("the key has characters that cannot be shown", file=key, value=key, fix=fix)
    *folders, name = rest.split("/")
    kind, stream, verb = (*folders, "", "", "")[:3]
    _refuse(kind not in KINDS, "the folder does not say metric or allocation", key, kind, shown)
    fix = "name the folder by the stream: 1 to 256 letters, digits, dots, hyphens and underscores"
    _refuse(not is_stream(stream), "not the name of a stream", key, stream, fix)
    _refuse(verb not in set(Verb), "the folder does not say replace, sum or delete", key, verb, shown)
    below = folders[3:]
    _refuse(below not in ([], [MENDED]), "no folder is looked into here", key, "/".join(below), shown)
    meaning = Meaning.MENDED if below else Meaning.FILE
    if meaning is Meaning.FILE:
        fix = "drop records under a name without _ or . in front; delete what a tool has left there"
        bookkeeping = is_bookkeeping(name, SUFFIXES)
        _refuse(bookkeeping, "a tool's bookkeeping by its name, and no records", key, name, fix)
        _refuse(name == MENDED, "this is the name of a folder here", key, name, f"{key}/<file>")
        if name == STREAM_FILE and verb == Verb.DELETE:
            meaning = Meaning.STREAM
    mends = mended_delivery(key) if meaning is Meaning.MENDED else ""
    return DropPath(meaning, kind, stream, Verb(verb), dry_run=root == "plan", mends=mends)


def _refuse(wrong: bool, reason: str, key: str, value: str, fix: str) -> None:  # noqa: FBT001 -- one refusal a line above
    if wrong:
        raise InputRefused(reason, file=key, value=value, fix=fix)

"""What a key under ``billing/`` means.

    {root}/billing/{connection}/{YYYY-MM}/<file>                    the hours in the file are replaced
    {root}/billing/{connection}/{YYYY-MM}/month/<file>              the whole month is replaced
    {root}/billing/{connection}/{YYYY-MM}/month/<folder>/_SUCCESS   likewise, by the folder's parts
    {root}/billing/{connection}/{YYYY-MM}/…/mended/{delivery}.csv   rejected rows, mended

with root ``incoming`` or ``plan``. A file may have any name: what it is, its content says.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from enum import StrEnum

from finops_relay.errors import InputRefused
from finops_relay.jobs.folders import SUCCESS, Shape, is_bookkeeping
from finops_relay.jobs.mended import MENDED, folder_of, mended_delivery

ROOTS = ("incoming", "plan")
MONTH = "month"
"""The folder for what replaces a whole month."""
MARKERS = (SUCCESS,)
SUFFIXES = tuple(f"{form}{packed}" for form in (".csv", ".json", ".ndjson", ".jsonl") for packed in ("", ".gz"))
"""Of names that are never taken for a tool's bookkeeping."""
FIRST_YEAR, LAST_YEAR = 2000, 2100
_CONNECTION = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_MONTH = re.compile(r"([0-9]{4})-(0[1-9]|1[0-2])")


class Meaning(StrEnum):
    """What a dropped object is."""

    FILE = "file"
    MARKER = "marker"
    PART = "part"
    """Or what a tool keeps beside the parts: neither is a delivery."""
    MENDED = "mended"
    NOTHING = "nothing"


@dataclass(frozen=True)
class DropPath:
    """A key, understood."""

    meaning: Meaning
    connection: str = ""
    month: date = date.min
    """Its first day; ``date.min`` where the key means nothing."""
    whole_month: bool = False
    """Whether the month is replaced, and not only the hours that are there."""
    dry_run: bool = False
    folder: str = ""
    """The prefix that holds the object, with its slash."""
    mends: str = ""
    """The delivery whose rejected rows were mended."""


def is_part(name: str) -> bool:
    """Return whether an object of a folder, by its name there, is a part of its month."""
    return name not in MARKERS and not is_bookkeeping(name, SUFFIXES)


def is_folder(path: str) -> bool:
    """Return whether a prefix, with its slash, is a folder that a marker would complete."""
    try:
        return parse(f"{path}{SUCCESS}").meaning is Meaning.MARKER
    except InputRefused:
        return False


def place(key: str) -> str:
    """Return the folder that a drop belongs to, whether it was planned or dropped for real, mended or not."""
    return folder_of(key).partition("/")[2]


def for_real(key: str) -> str:
    """Return the key that what was planned would be dropped as; of anything else, its own."""
    return f"incoming/{key.removeprefix('plan/')}" if key.startswith("plan/") else key


def parse(key: str) -> DropPath:
    """Return what *key* means. Raises InputRefused with the way to say it."""
    root, _, rest = key.partition("/billing/")
    if root not in ROOTS:
        fix = "drop it under incoming/billing/{connection}/{YYYY-MM}/"
        raise InputRefused("not a folder of billing drops", file=key, fix=fix)
    folder, _, name = key.rpartition("/")
    if not name:
        return DropPath(Meaning.NOTHING, dry_run=root == "plan")
    *words, _ = rest.split("/")
    connection, month = (*words, "", "")[:2]
    folders = words[2:]
    _refuse_no_connection(key, root, connection)
    first_day = _month(key, root, connection, month)
    meaning = _meaning(key, f"{root}/billing/{connection}/{month}/", folders, name)
    mends = mended_delivery(key) if meaning is Meaning.MENDED else ""
    if not key.isprintable():  # a line end would be one in the command that a receipt tells a person to type
        fix = "drop it under a name of letters, digits and spaces"
        raise InputRefused("the key has characters that cannot be shown", file=key, value=key, fix=fix)
    return DropPath(
        meaning,
        connection,
        first_day,
        whole_month=folders[:1] == [MONTH],
        dry_run=root == "plan",
        folder=f"{folder}/",
        mends=mends,
    )


def _refuse_no_connection(key: str, root: str, word: str) -> None:
    """Refuse what cannot be a connection: it becomes a segment of an address."""
    if not word:
        fix = f"drop it under {root}/billing/{{connection}}/{{YYYY-MM}}/"
        raise InputRefused("the folder does not say which connection's costs these are", file=key, fix=fix)
    if not _CONNECTION.fullmatch(word) or not word.strip("."):
        fix = "name the folder by the connection's id (Settings > Connections): 1 to 128 of A-Z a-z 0-9 _ . -"
        raise InputRefused("not the id of a connection", file=key, value=word, fix=fix)


def _month(key: str, root: str, connection: str, word: str) -> date:
    """Return the first day of the month that *word* names."""
    fix = f"drop it under {root}/billing/{connection}/{{YYYY-MM}}/, such as 2026-02/"
    if not word:
        raise InputRefused("the folder does not say which month's costs these are", file=key, fix=fix)
    found = _MONTH.fullmatch(word)
    if found is None:
        raise InputRefused("not a month", file=key, value=word, fix=fix)
    if not FIRST_YEAR <= int(found[1]) <= LAST_YEAR:
        reason = f"the month is not between {FIRST_YEAR}-01 and {LAST_YEAR}-12"
        raise InputRefused(reason, file=key, value=word, fix=fix)
    return date(int(found[1]), int(found[2]), 1)


def _meaning(key: str, base: str, folders: list[str], name: str) -> Meaning:
    """Return what a file is by its name and the folders between it and its month's, *base*."""
    match folders:
        case [] | ["month"]:
            _refuse_names_of_no_file(key, base, folders, name)
            return Meaning.FILE
        case ["mended"] | ["month", "mended"] | ["month", _, "mended"]:
            return Meaning.MENDED
        case ["month", ""]:
            raise InputRefused("the folder has no name", file=key, fix=f"drop the parts under {base}month/<folder>/")
        case ["month", _]:
            return Meaning.MARKER if name in MARKERS else Meaning.PART
        case ["month", _, below, *_] if is_bookkeeping(below, SUFFIXES) and name not in MARKERS:
            return Meaning.PART  # as Spark's _temporary/, where each part stands before it is one
        case ["month", inner, *_]:
            fix = f"move it up, into {base}month/{inner}/, and drop the {SUCCESS} there again"
        case _:
            fix = (
                f"to replace the hours in a file, drop it as {base}<file>; to replace the whole month by several "
                f"files, under {base}month/<folder>/ with a {SUCCESS} after them"
            )
    raise InputRefused("no folder is looked into here", file=key, value="/".join(folders), fix=fix)


def _refuse_names_of_no_file(key: str, base: str, folders: list[str], name: str) -> None:
    """Refuse a file whose name says that it holds no costs, or that it was to go elsewhere."""
    if name in MARKERS:
        raise InputRefused("a marker completes a folder of its own", file=key, fix=f"{base}month/<folder>/{name}")
    if is_bookkeeping(name, SUFFIXES):
        fix = "drop a file of costs under a name without _ or . in front; delete what a tool has left there"
        raise InputRefused("a tool's bookkeeping by its name, and no file of costs", file=key, value=name, fix=fix)
    if name == MENDED or (name == MONTH and not folders):  # and what month/ replaces is not what a file would
        fix = f"put a slash and the file's name behind it: {key}/<file>"
        raise InputRefused("this is the name of a folder here", file=key, value=name, fix=fix)


FOLDERS = Shape(prefixes=("incoming/billing/",), markers=MARKERS, is_part=is_part, is_folder=is_folder)
"""Where the files of one month are put together."""

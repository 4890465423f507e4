"""What a key under ``price-books/`` means.

    {root}/price-books/{provider}/<file>                    a book of one
    {root}/price-books/{provider}/<folder>/…/<marker>       a book of the folder's parts
    {root}/price-books/{provider}/…/mended/{delivery}.csv   rejected rows, mended
    {root}/price-books/{provider}/rollback.json             back to the former book

with root ``incoming`` or ``plan`` and provider ``aws`` or ``azure``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from finops_relay.errors import InputRefused
from finops_relay.formats.price_sheets import Provider

MARKERS = frozenset({"_SUCCESS", "manifest.json"})
ROLLBACK = "rollback.json"
MENDED = "mended"
SUFFIXES = (".csv", ".csv.gz", ".zip")
ROOTS = ("incoming", "plan")
_DELIVERY = re.compile(r"[0-9a-f]{64}\.csv")


class Meaning(StrEnum):
    """What a dropped object is."""

    BOOK = "book"
    MARKER = "marker"
    PART = "part"
    MENDED = "mended"
    ROLLBACK = "rollback"
    NOTHING = "nothing"


@dataclass(frozen=True)
class DropPath:
    """A key, understood."""

    meaning: Meaning
    provider: Provider | None = None
    dry_run: bool = False
    folder: str = ""
    """The prefix that holds the object, with its slash."""
    mends: str = ""
    """The delivery whose rejected rows were mended."""


def is_sheet(name: str) -> bool:
    """Return whether a file's name is one that a sheet may have."""
    return name.lower().endswith(SUFFIXES)


def is_hidden(name: str) -> bool:
    """Return whether a name is bookkeeping of the tool that wrote the folder (``_committed_1``); no sheet's is."""
    return name.startswith("._") or (name.startswith(("_", ".")) and not is_sheet(name))


def parse(key: str) -> DropPath:
    """Return what *key* means. Raises InputRefused with the way to say it."""
    root, _, rest = key.partition("/price-books/")
    if root not in ROOTS:
        raise InputRefused(
            "not a folder of price books", file=key, fix="drop it under incoming/price-books/azure/ or aws/"
        )
    folder, _, name = key.rpartition("/")
    if not name:
        return DropPath(Meaning.NOTHING)
    word, *folders = rest.split("/")[:-1] or [""]
    if word not in set(Provider):
        fix = f"drop it as {root}/price-books/azure/{name} or {root}/price-books/aws/{name}"
        raise InputRefused("the folder does not say whose prices these are", file=key, value=word, fix=fix)

    meaning = _meaning(key, folders, folder, name)
    mends = name.removesuffix(".csv") if meaning is Meaning.MENDED else ""
    return DropPath(meaning, Provider(word), dry_run=root == "plan", folder=f"{folder}/", mends=mends)


def _meaning(key: str, folders: list[str], folder: str, name: str) -> Meaning:
    """Return what a file is by its name and the folders between it and its provider's."""
    if folders and folders[-1] == MENDED:
        if not _DELIVERY.fullmatch(name):
            fix = "keep the name of the rejected-rows file: {delivery id}.csv"
            raise InputRefused("the name does not say which delivery it mends", file=key, value=name, fix=fix)
        return Meaning.MENDED
    if folders:
        return Meaning.MARKER if name in MARKERS else Meaning.PART
    if name == ROLLBACK:
        return Meaning.ROLLBACK
    if name in MARKERS:
        raise InputRefused("a marker completes a folder of its own", file=key, fix=f"{folder}/<book>/{name}")
    if is_sheet(name):
        return Meaning.BOOK
    raise InputRefused(
        "not a price sheet by its name", file=key, value=name, fix="drop a .csv, .csv.gz or .zip of CSVs"
    )

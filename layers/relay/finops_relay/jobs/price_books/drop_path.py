"""What a key under ``price-books/`` means.

    {root}/price-books/{provider}/<file>                    a book of one
    {root}/price-books/{provider}/<folder>/…/<marker>       a book of the folder's parts
    {root}/price-books/{provider}/…/mended/{delivery}.csv   rejected rows, mended
    {root}/price-books/{provider}/rollback.json             back to the former book

with root ``incoming`` or ``plan`` and provider ``aws`` or ``azure``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from finops_relay.errors import InputRefused
from finops_relay.formats.price_sheets import Provider
from finops_relay.jobs.folders import SUCCESS, Shape, is_bookkeeping
from finops_relay.jobs.mended import MENDED, folder_of, mended_delivery

MARKERS = (SUCCESS, "manifest.json")
ROLLBACK = "rollback.json"
SUFFIXES = (".csv", ".csv.gz", ".zip")
ROOTS = ("incoming", "plan")


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


def is_part(name: str) -> bool:
    """Return whether an object of a folder, by its name there, may be a part of its book."""
    return name not in MARKERS and not is_bookkeeping(name, SUFFIXES)


def is_folder(path: str) -> bool:
    """Return whether a prefix, with its slash, is a folder that a marker would complete."""
    try:
        return parse(f"{path}{SUCCESS}").meaning is Meaning.MARKER
    except InputRefused:
        return False


def place(key: str) -> str:
    """Return the folder that a book belongs to, whether it was planned or dropped for real, mended or not."""
    return folder_of(key).partition("/")[2]


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
    mends = mended_delivery(key) if meaning is Meaning.MENDED else ""
    return DropPath(meaning, Provider(word), dry_run=root == "plan", folder=f"{folder}/", mends=mends)


def _meaning(key: str, folders: list[str], folder: str, name: str) -> Meaning:
    """Return what a file is by its name and the folders between it and its provider's."""
    if folders and folders[-1] == MENDED:
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


FOLDERS = Shape(
    prefixes=tuple(f"incoming/price-books/{provider.value}/" for provider in Provider),
    markers=MARKERS,
    is_part=is_part,
    is_folder=is_folder,
)
"""Where sheets of one book are put together."""

"""What a key under ``tagging-policies/`` or ``custom-properties/`` means.

    {root}/tagging-policies/{policy}/{key}.csv|json|txt     the allowed values of a tag
    {root}/tagging-policies/{policy}/{key}.sync             read them from their source now
    {root}/tagging-policies/{policy}/mended/{delivery}.csv  rejected rows, mended
    {root}/custom-properties/<file>.csv                     all custom properties
    {root}/custom-properties/<file>.sync                    read them from their source now
    {root}/custom-properties/mended/{delivery}.csv          rejected rows, mended

with root ``incoming`` or ``plan``. A key that cannot be a file's name is percent-encoded: ``kubernetes.io%2Fname``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import quote, unquote

from finops_relay.delivery import commands
from finops_relay.errors import InputRefused
from finops_relay.jobs.mended import MENDED, folder_of, mended_delivery

ROOTS = ("incoming", "plan")
RUN = ".sync"
"""Suffix of a file that has a source read at once; what is in it does not matter."""
_POLICY = re.compile(r"[A-Za-z0-9_.-]{1,128}")


class Meaning(StrEnum):
    """What a dropped object is."""

    FILE = "file"
    RUN = "run"
    MENDED = "mended"
    NOTHING = "nothing"


@dataclass(frozen=True)
class DropPath:
    """A key, understood."""

    meaning: Meaning
    dry_run: bool = False
    policy: str = ""
    """The folder's name: what relay.yaml calls the policy, or its id at Infracost."""
    name: str = ""
    """Of the file, decoded and without its suffix: the tag's key."""
    mends: str = ""
    """The delivery whose rejected rows were mended."""


def parse_tag(key: str, suffixes: Sequence[str]) -> DropPath:
    """Return what *key* means under ``tagging-policies/``. Raises InputRefused with the way to say it."""
    root, rest = _below(key, "tagging-policies")
    policy, *further = rest.split("/")
    if not further:
        if not policy:
            return DropPath(Meaning.NOTHING)
        fix = f"drop it as {root}/tagging-policies/<policy>/{policy}"
        raise InputRefused("the key does not say which policy is meant", file=key, fix=fix)
    if not _POLICY.fullmatch(policy):
        fix = "name the folder as relay.yaml calls the policy, or by the policy's id at Infracost"
        raise InputRefused("the folder is no name of a policy", file=key, value=policy, fix=fix)
    return _file(key, root, further, suffixes, policy, "<tag key>")


def parse_properties(key: str, suffixes: Sequence[str]) -> DropPath:
    """Return what *key* means under ``custom-properties/``. Raises InputRefused with the way to say it."""
    root, rest = _below(key, "custom-properties")
    return _file(key, root, rest.split("/"), suffixes, "", "<file>")


def place(key: str) -> str:
    """Return the folder that a file belongs to, whether it was planned or dropped for real, mended or not."""
    return folder_of(key).partition("/")[2]


def run_command(bucket: str, folder: str, name: str) -> str:
    """Return the command that has a source read at once."""
    return commands.put_empty(bucket, f"incoming/{folder}/{quote(name, safe=' :@+=,')}{RUN}")


def _below(key: str, folder: str) -> tuple[str, str]:
    """Return the root and what stands below the folder of the kind. Raises InputRefused."""
    root, _, rest = key.partition(f"/{folder}/")
    if root not in ROOTS:
        raise InputRefused(f"not a folder of {folder}", file=key, fix=f"drop it under incoming/{folder}/")
    return root, rest


def _file(key: str, root: str, parts: list[str], suffixes: Sequence[str], policy: str, called: str) -> DropPath:  # noqa: PLR0913, PLR0917 -- the parts of one key
    """Return what a file is by its name and the folder that it is in. Raises InputRefused."""
    *folders, name = parts
    dry_run = root == "plan"
    if not name:
        return DropPath(Meaning.NOTHING)
    if folders == [MENDED]:
        return DropPath(Meaning.MENDED, dry_run, policy, mends=mended_delivery(key))
    where = f"{root}/{key.split('/')[1]}/{policy + '/' if policy else ''}{called}"
    if folders:
        raise InputRefused("the file is in a folder that means nothing", file=key, fix=f"drop it as {where}.csv")
    for suffix in (*suffixes, RUN):
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            meaning = Meaning.RUN if suffix == RUN else Meaning.FILE
            return DropPath(meaning, dry_run, policy, unquote(name[: -len(suffix)]))
    fix = f"drop it as {where}{', '.join(suffixes)}, or as {where}{RUN} to read its source"
    raise InputRefused("the suffix is none that is read here", file=key, value=name, fix=fix)

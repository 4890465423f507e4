"""Commands that a receipt tells a person to type. File names are hostile: every word is quoted for a shell."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from urllib.parse import quote

from finops_relay.delivery.receipt import Source


def copy(origin: str, goal: str) -> str:
    """Return the command that copies a file from or to a bucket."""
    return shlex.join(["aws", "s3", "cp", origin, goal])


def put_empty(bucket: str, key: str) -> str:
    """Return the command that drops an empty object, such as a folder's marker."""
    return shlex.join(["aws", "s3api", "put-object", "--bucket", bucket, "--key", key])


def drop_again(source: Source) -> str:
    """Return the command that drops the same version once more, as a new delivery."""
    origin = quote(f"{source.bucket}/{source.key}") + (f"?versionId={source.version}" if source.version else "")
    words = ["aws", "s3api", "copy-object", "--bucket", source.bucket, "--key", source.key, "--copy-source", origin]
    return shlex.join([*words, "--metadata-directive", "REPLACE"])


DECISIONS: Mapping[str, str] = {"send": "send", "drop": "drop", "mark as arrived": "arrived", "arrived": "arrived"}
"""What a person may decide about a held delivery, and what it is called with us."""


def release(source: Source, delivery: str) -> str:
    """Return the command that decides about a held delivery: to send it. The other decisions stand behind it."""
    goal = f"s3://{source.bucket}/incoming/release/{delivery}.json"
    said = shlex.join(["echo", json.dumps({"decision": "send"})])
    others = " or ".join(json.dumps(word) for word in ("drop", "mark as arrived"))
    return f'{said} | {copy("-", goal)}  # or {others} instead of "send"'


def drop_for_real(source: Source) -> str:
    """Return the commands that drop what was planned under ``incoming/``: the parts of a folder before its marker."""
    drops = [*(part.key for part in source.parts), source.key]
    goals = ["incoming/" + key.removeprefix("plan/") for key in drops]
    bucket = f"s3://{source.bucket}/"
    return " && ".join(copy(bucket + key, bucket + goal) for key, goal in zip(drops, goals, strict=True))

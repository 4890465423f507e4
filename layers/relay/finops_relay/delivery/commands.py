"""Commands that a receipt tells a person to type. File names are hostile: every word is quoted for a shell."""

from __future__ import annotations

import shlex
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

"""Keep secrets out of everything that people or machines read."""

from __future__ import annotations

import re
from html import unescape

# Query of an address (pre-signed URLs carry their signature there), bearer tokens, and AWS's own parameters on their own.
_SECRET_SHAPES = (
    (re.compile(r"(https?://[^\s?\"'<>]+)\?[^\s\"'<>]*"), r"\1?REDACTED"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}"), r"\1 REDACTED"),
    (re.compile(r"(?i)\b(x-amz-(?:signature|credential|security-token))=[^&\s\"'<>]+"), r"\1=REDACTED"),
)
_TAGS = re.compile(r"<(script|style)\b.*?</\1\s*>|<[^>]*>", re.IGNORECASE | re.DOTALL)
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")

MAX_DETAIL = 500
"""Characters of a vendor's own words that an error keeps."""


def redacted(text: str, *secrets: str) -> str:
    """Return *text* without *secrets*, queries of addresses and bearer tokens."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "REDACTED")
    for shape, replacement in _SECRET_SHAPES:
        text = shape.sub(replacement, text)
    return text


def one_line(text: str, *secrets: str) -> str:
    """Return what a vendor said as one short, printable, redacted line; tags of an HTML page are dropped."""
    plain = unescape(_TAGS.sub(" ", text[: 20 * MAX_DETAIL]))
    line = " ".join(_UNPRINTABLE.sub(" ", redacted(plain, *secrets)).split())
    return line if len(line) <= MAX_DETAIL else line[: MAX_DETAIL - 3] + "..."

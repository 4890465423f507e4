"""Keep secrets out of everything that people or machines read."""

from __future__ import annotations

import json
import re
from html import escape, unescape
from urllib.parse import quote, quote_plus

# The query of an address (a pre-signed one carries its signature there), also where slashes are escaped as in JSON or
# the whole is encoded as in a query; bearer tokens; and the secret parameters of pre-signed addresses on their own.
_SECRET_SHAPES = (
    (re.compile(r"(?i)(https?:(?:\\?/){2}[^\s?\"'<>]{1,2000}+)\?[^\s\"'<>]*"), r"\1?REDACTED"),
    (re.compile(r"(?i)(https?%3A%2F%2F[^\s?&\"'<>]{1,2000}?)%3F[^\s&\"'<>]*"), r"\1%3FREDACTED"),
    # Webhooks carry their secret in the path: Slack's, Teams' and Power Automate's by their hosts, others by what
    # stands in front of them; also in JSON that stands as text in JSON, where quotes and slashes are escaped.
    (
        re.compile(
            r"(?i)((?:hooks\.slack\.com|(?<![a-z0-9])webhook\.office\.com|outlook\.office(?:365)?\.com(?:\\{0,8}/|%2F)webhook"
            r"|\.(?:logic\.azure|powerplatform)\.com)(?:(?::|%3A)\d{1,5})?(?:\\{0,8}/|%2F))[^\s\"'<>]{1,2000}+"
        ),
        r"\1REDACTED",
    ),
    (
        re.compile(
            r"(?i)(webhook[a-z_-]{0,40}+\\{0,8}+\"\s{0,5}+:\s{0,5}+\\{0,8}+\")"
            r"(?:[^\"\\]|\\[^\"\\]|\\\\(?!\\*\")){1,4000}"
        ),
        r"\1REDACTED",
    ),
    (
        re.compile(r"(?i)(webhook[a-z_-]{0,40}+[^a-z0-9]{1,20}+https?:(?:\\{0,8}/){2})[^\s\"'<>,\]}]{1,2000}+"),
        r"\1REDACTED",
    ),
    (re.compile(r"(?i)\b(bearer|basic)((?:\s|%20|\+)+)[A-Za-z0-9._~+/=%-]{6,}"), r"\1\2REDACTED"),
    (
        re.compile(
            r"(?i)(x-amz-(?:signature|credential|security-token)|awsaccesskeyid|signature)(=|%(?:25)?3D)[^&%\s\"'<>]+"
            r"(?:%(?!26|(?:25)?26)[^&%\s\"'<>]*)*"
        ),
        r"\1\2REDACTED",
    ),
)
# Neither looks further than it takes: a page of opening tags costs no more than any other.
_TAGS = re.compile(r"<(script|style)\b.*?(?:</\1\s*>|\Z)|<[^<>]*>", re.IGNORECASE | re.DOTALL)
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")

MAX_DETAIL = 500
"""Characters of a vendor's own words that an error keeps."""
MAX_LOOK = 40_000
"""Characters that are looked at to find them: a page may begin with many tags."""


def _spellings(secret: str) -> set[str]:
    """Return the ways in which an answer may quote *secret*: as it is, in an address, in JSON, in HTML."""
    in_json = json.dumps(secret)[1:-1]
    return {
        secret,
        quote(secret),
        quote(secret, safe=""),
        quote_plus(secret),
        in_json,
        in_json.replace("/", "\\/"),
        escape(secret),
    }


def redacted(text: str, *secrets: str) -> str:
    """Return *text* without *secrets*, however spelt, queries of addresses and bearer tokens."""
    spellings = {spelling for secret in secrets if secret for spelling in _spellings(secret)}
    for spelling in sorted(spellings, key=len, reverse=True):  # the longest first: none leaves a rest of another
        text = text.replace(spelling, "REDACTED")
    for shape, replacement in _SECRET_SHAPES:
        text = shape.sub(replacement, text)
    return text


def one_line(text: str, *secrets: str) -> str:
    """Return what a vendor said as one short, printable, redacted line; tags of an HTML page are dropped."""
    seen = redacted(text[:MAX_LOOK], *secrets)
    if len(text) > MAX_LOOK:  # what was cut in two could not be recognised
        seen = seen[: -max(map(len, secrets), default=0) * 6 or None]
    plain = redacted(unescape(_TAGS.sub(" ", seen)), *secrets)
    line = " ".join(_UNPRINTABLE.sub(" ", plain).split())
    return line if len(line) <= MAX_DETAIL else line[: MAX_DETAIL - 3] + "..."

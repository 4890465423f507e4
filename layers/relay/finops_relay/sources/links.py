"""The header ``Link`` (RFC 8288), whose addresses may hold commas, semicolons and even ``>``."""

from __future__ import annotations

import re

_LINK = re.compile(r"<([^<]*?)>((?:\s*+;\s*+[\w*-]++(?:\s*+=\s*+(?:\"[^\"]*+\"|[^\s\",;<]*+))?+)++)", re.ASCII)
_REL = re.compile(r";\s*+rel\s*+=\s*+(?:\"([^\"]*+)\"|([^\s\",;<]*+))", re.ASCII | re.IGNORECASE)


def address_of(header: str, relation: str) -> str | None:
    """Return the address that *header* names as ``next``, ``prev``, …; None when it names none."""
    for address, parameters in _LINK.findall(header):
        found = _REL.search(parameters)
        if found and relation in (found[1] or found[2] or "").lower().split():
            return str(address).strip()
    return None

"""Answers of sources, whose texts other people wrote: half a surrogate pair in one of them must not cost the rest."""

from __future__ import annotations

import re
from dataclasses import replace

from finops_relay.errors import AnswerNotUnderstood
from finops_relay.http.answers import Answer

_ESCAPES = re.compile(
    rb"\\(?:u[dD][89abAB][0-9A-Fa-f]{2}\\u[dD][c-fC-F][0-9A-Fa-f]{2}|(u[dD][89a-fA-F][0-9A-Fa-f]{2})|.)", re.DOTALL
)
"""Of a JSON text, each whole; in the group those that are half a pair."""


def readable(answer: Answer) -> Answer:
    r"""Return *answer*; in one that cannot be parsed, halves of surrogate pairs are NUL, which `text_of` refuses.

    Names are cut within a letter beyond the first plane by databases that count in halves; JavaScript then writes
    ``\ud83d``.
    """
    try:
        answer.json()
    except AnswerNotUnderstood:
        return replace(answer, body=_ESCAPES.sub(lambda found: rb"\u0000" if found[1] else found[0], answer.body))
    return answer

"""How a value of a source becomes a value of ours: trimmed, in one case, checked; the same every time."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, field_validator

MAX_VALUE_CHARS = 1_000
"""Of one value. A tag value of a cloud has 256 at most; what is far longer is something else."""

Case = Literal["keep", "lower", "upper"]


class Rules(BaseModel):
    """Normalising rules, as relay.yaml has them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trim: bool = True
    """Take white space off both ends. Without it, a value that has some is rejected."""
    case: Case = "keep"
    """Matching is exact, case included: choose the one that your tags are written in."""
    pattern: str = ""
    """A regular expression (RE2) that the whole value must match, after trimming and case; empty matches all."""
    duplicates: Literal["filter", "reject"] = "filter"
    """What becomes of a value that stands there already: left out and counted, or rejected by name."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        if pattern:
            _compiled(pattern)
        return pattern

    def normalised(self, value: str) -> str:
        """Return *value* as it is compared and sent, before it is checked."""
        plain = value.strip() if self.trim else value
        return {"keep": plain, "lower": plain.lower(), "upper": plain.upper()}[self.case]

    def fault(self, value: str) -> tuple[str, str] | None:
        """Return what is wrong with a normalised value and what to do about it; None for a good one."""
        if not value:
            return "the value is empty", "write a value, or take the row out"
        if len(value) > MAX_VALUE_CHARS:
            return f"the value has {len(value):,} characters", f"write one of at most {MAX_VALUE_CHARS:,}"
        if not value.isprintable():
            return "the value has characters that cannot be seen, or bytes that are not UTF-8", "type it anew, as UTF-8"
        if value != value.strip():
            return "the value has white space around it", "trim it: nobody could type it"
        if self.pattern and not _compiled(self.pattern).fullmatch(value):
            return f"the value does not match the pattern {self.pattern}", "correct the value, or the rule's pattern"
        return None


@lru_cache(maxsize=64)
def _compiled(pattern: str) -> Any:  # noqa: ANN401 -- re2 has no types
    """Return a compiled expression, in linear time whatever the value. Raises ValueError."""
    import re2  # noqa: PLC0415 -- 1.5 MB of code that only a pattern needs

    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except (re2.error, UnicodeEncodeError):
        msg = f"RE2 cannot compile the expression {pattern!r}: write it without look-around and back-references"
        raise ValueError(msg) from None

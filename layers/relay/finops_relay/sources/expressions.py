"""JMESPath as sources use it: checked when relay.yaml is read, and exact where an answer has fractions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError, JMESPathTypeError, LexerError, ParseError
from jmespath.functions import Functions, signature

Path = tuple[str, ...]
"""Keys, one inside the other."""

_INNER = frozenset({"subexpression", "index_expression", "projection", "value_projection", "filter_projection"})
"""What looks into the result of its first part, and nowhere else."""
_BESIDE = frozenset({"or_expression", "and_expression", "not_expression", "comparator", "multi_select_list"})
"""What looks with each of its parts into the same thing."""


class _Exact(Functions):  # type: ignore[misc]  # the library has no types
    """The functions of JMESPath, for answers whose fractions are Decimals.

    Arithmetic on fractions (``sum``, ``avg``, …) is refused by the library's own check of types.
    """

    @signature({"types": []})  # type: ignore[untyped-decorator]  # as above
    def _func_to_string(self, arg: object) -> Any:  # noqa: ANN401 -- as the library's
        return f"{arg:f}" if isinstance(arg, Decimal) else super()._func_to_string(arg)

    @signature({"types": []})  # type: ignore[untyped-decorator]  # as above
    def _func_to_number(self, arg: object) -> Any:  # noqa: ANN401 -- as the library's, which would cut 1.5 to 1
        return arg if isinstance(arg, Decimal) else super()._func_to_number(arg)

    @signature({"types": []})  # type: ignore[untyped-decorator]  # as above
    def _func_type(self, arg: object) -> Any:  # noqa: ANN401 -- as the library's
        return "number" if isinstance(arg, Decimal) else super()._func_type(arg)


_OPTIONS = jmespath.Options(custom_functions=_Exact())


@dataclass(frozen=True)
class Expression:
    """One expression."""

    text: str

    def of(self, value: object) -> Any:  # noqa: ANN401 -- whatever stands there
        """Return what the expression finds in *value*. Raises ValueError, which quotes nothing of the value."""
        try:
            return self._parsed.search(value, options=_OPTIONS)
        except JMESPathTypeError as error:
            msg = f"{error.function_name}() cannot take what is there ({error.actual_type})"
        except (ValueError, TypeError, ArithmeticError, RecursionError) as error:
            msg = f"the expression fails ({type(error).__name__})"
        raise ValueError(msg)

    @cached_property
    def _parsed(self) -> Any:  # noqa: ANN401 -- the library has no types
        return jmespath.compile(self.text)

    @property
    def last_key(self) -> str:
        """The key that the expression ends in; empty when it ends in something else."""
        return _last_key(self._parsed.parsed)

    def paths(self) -> frozenset[Path] | None:
        """Return all that the expression can look at, each with what is below; None where that cannot be told."""
        return _paths(self._parsed.parsed)


def checked(text: str) -> str:
    """Return *text*, which is JMESPath. Raises ValueError, which names the character where it is not."""
    try:
        parsed = jmespath.compile(text).parsed
    except ParseError as error:
        said = error.message if isinstance(error, LexerError) else error.msg
        msg = f"{text!r} is no JMESPath expression, from character {error.lex_position + 1} on ({said})"
        raise ValueError(msg) from None
    except (JMESPathError, RecursionError):
        msg = f"{text!r} is no JMESPath expression, from character 1 on (it is empty, or nested too deeply)"
        raise ValueError(msg) from None
    unknown = next((name for name in _functions(parsed) if name not in _Exact.FUNCTION_TABLE), None)
    if unknown is not None:
        msg = f"JMESPath has no function {unknown}(), at character {text.find(unknown) + 1} of {text!r}"
        raise ValueError(msg)
    return text


def _functions(node: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of the functions that a tree calls."""
    if node["type"] == "function_expression":
        yield node["value"]
    for child in node["children"]:
        yield from _functions(child)


def _last_key(node: Mapping[str, Any]) -> str:
    """Return the key that a tree ends in."""
    if node["type"] == "field":
        return str(node["value"])
    return _last_key(node["children"][-1]) if node["type"] == "subexpression" else ""


def _paths(node: Mapping[str, Any]) -> frozenset[Path] | None:
    """Return what a tree looks at, from the outermost value on."""
    kind, children = node["type"], node["children"]
    if kind == "field":
        return frozenset({(node["value"],)})
    if kind == "literal":
        return frozenset()
    if kind == "subexpression" and all(child["type"] == "field" for child in children):
        return frozenset({tuple(child["value"] for child in children)})
    if kind in _INNER or kind in {"pipe", "flatten"}:
        return _paths(children[0])
    if kind in _BESIDE or (kind == "function_expression" and children):
        found = [_paths(child) for child in children]
        known = [paths for paths in found if paths is not None]
        return frozenset().union(*known) if len(known) == len(found) else None
    return None

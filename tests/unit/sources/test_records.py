"""Whatever a source says, a value is exact text or a problem that names its column."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from finops_relay.errors import AnswerNotUnderstood, Call
from finops_relay.http.answers import Answer
from finops_relay.sources.answers import readable
from finops_relay.sources.expressions import Expression
from finops_relay.sources.records import Record, record_of, text_of
from hypothesis import given
from hypothesis import strategies as st


def parsed(text: bytes) -> Any:  # noqa: ANN401 -- JSON
    return readable(Answer(200, text, "", Call("GET", "/"))).json()


@pytest.mark.parametrize(
    ("json", "text"),
    [
        (b"null", ""),
        (b'""', ""),
        (b'" a b\\n"', " a b\n"),
        (b"true", "true"),
        (b"false", "false"),
        (b"7", "7"),
        (b"-7", "-7"),
        (b"1.0", "1.0"),
        (b"1.10", "1.10"),
        (b"1e5", "100000"),
        (b"1E-7", "0.0000001"),
        (b"0.1234567890123456789012345678901234567890", "0.1234567890123456789012345678901234567890"),
        (b"123456789012345678901234567890", "123456789012345678901234567890"),
    ],
)
def test_a_value_becomes_text_exactly(json: bytes, text: str) -> None:
    assert text_of(parsed(json)) == text


@pytest.mark.parametrize(
    ("json", "words"),
    [
        (b"[]", "it is a list"),
        (b'["a"]', "it is a list"),
        (b"{}", "it is an object"),
        (b'"a\\u0000b"', "NUL or half a surrogate"),
        (b'"a\\ud83d"', "NUL or half a surrogate"),
        (b'"\\uDE00\\ud83d"', "NUL or half a surrogate"),
        (b"1e999999999", "more than 400 digits"),
        (b"1e-999999999", "more than 400 digits"),
        (b"0e-999999999", "more than 400 digits"),
        (b"9" * 600, "more than 400 digits"),
    ],
)
def test_what_is_no_text_is_a_problem(json: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        text_of(parsed(json))


@pytest.mark.parametrize("value", [float("inf"), float("nan"), Decimal("NaN"), Decimal("Infinity"), object(), "\ud800"])
def test_what_no_json_holds_is_a_problem_too(value: object) -> None:
    with pytest.raises(ValueError, match="it "):
        text_of(value)


@given(st.decimals(allow_nan=False, allow_infinity=False, places=20) | st.integers() | st.floats(-1e300, 1e300))
def test_any_number_is_read_back_as_it_was(number: Decimal | float) -> None:
    text = text_of(number)
    assert "e" not in text.lower()
    assert (float(text) if isinstance(number, float) else Decimal(text)) == number


def test_a_problem_costs_its_own_column_only() -> None:
    def fails(_: object) -> object:
        msg = "it is no reference"
        raise ValueError(msg)

    found = record_of(3, "item 3", {"a": [1], "b": " x "}, {"A": lambda i: i["a"], "B": lambda i: i["b"], "C": fails})
    problem = "column 'A': it is a list, where one value is wanted; column 'C': it is no reference"
    assert found == Record(3, "item 3", {"A": "", "B": " x ", "C": ""}, problem)


# --- half a surrogate pair -----------------------------------------------------------------------------------------


def test_half_a_surrogate_pair_costs_its_own_value_only() -> None:
    held = rb'{"a": "cut \ud83d", "b": "\ud83d\ude00", "c": "\\ud83d", "d": "\\\ud83d"}'
    assert parsed(held) == {"a": "cut \0", "b": "😀", "c": "\\ud83d", "d": "\\\0"}


@pytest.mark.parametrize("text", [b'{"a": "\xff"}', b'{"a": "\\ud83d"', b'{"a": \\ud83d}'])
def test_what_is_no_json_stays_none(text: bytes) -> None:
    with pytest.raises(AnswerNotUnderstood):
        parsed(text)


# --- expressions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("to_string(price)", "1.50"),
        ("to_string(count)", "7"),
        ("to_string(name)", "app"),
        ("to_number(price)", Decimal("1.50")),
        ("to_number(count)", 7),
        ("type(price)", "number"),
        ("type(name)", "string"),
        ("price > `1` && name", "app"),
        ("price == `1.5`", True),
        ("missing.below", None),
        ("join('-', [name, to_string(price)])", "app-1.50"),
    ],
)
def test_an_expression_keeps_fractions_exact(expression: str, found: object) -> None:
    item = {"price": Decimal("1.50"), "count": 7, "name": "app"}
    assert Expression(expression).of(item) == found


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("join('-', secret)", r"^join\(\) cannot take what is there \(string\)$"),
        ("sum([price])", "^sum"),
        ("length(count)", r"^length\(\) cannot take what is there \(number\)$"),
        ("abs(name, name)", "ArityError"),
        ("list[::0]", "the expression fails"),
        ("sort_by(mixed, &a)", "sort_by"),
    ],
)
def test_an_expression_that_fails_says_so_and_quotes_nothing(expression: str, words: str) -> None:
    item = {
        "price": Decimal("1.50"),
        "count": 7,
        "name": "app",
        "secret": "s3cr3t",
        "list": [1],
        "mixed": [{"a": 1}, {"a": "s3cr3t"}],
    }
    with pytest.raises(ValueError, match=words) as caught:
        Expression(expression).of(item)
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize(
    ("expression", "paths"),
    [
        ("kind", {("kind",)}),
        ("metadata.name", {("metadata", "name")}),
        ('metadata.annotations."a.b/c"', {("metadata", "annotations", "a.b/c")}),
        ("metadata.title || metadata.name", {("metadata", "title"), ("metadata", "name")}),
        ("metadata.tags[0]", {("metadata",)}),
        ("tags[0].name", {("tags",)}),
        ("join(',', tags)", {("tags",)}),
        ("relations[?type=='ownedBy'].targetRef | [0]", {("relations",)}),
        ("tags[] | sort(@)", {("tags",)}),
        ("'fixed'", set()),
        ("@", None),
        ("*.name", None),
        ("{a: kind}", None),
        ("keys(@)", None),
        ("map(&name, tags)", None),
    ],
)
def test_what_an_expression_looks_at_is_told_or_said_to_be_unknown(expression: str, paths: set[Any] | None) -> None:
    assert Expression(expression).paths() == (None if paths is None else frozenset(paths))

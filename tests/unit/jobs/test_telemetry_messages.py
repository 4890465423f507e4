"""One message of an application: what a record must have, and what is wrong with those that are none."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any

import pytest
from finops_relay.formats.cost_cells import CellFault
from finops_relay.formats.telemetry import Shape, moment_of
from finops_relay.jobs.telemetry.messages import Nature, has_id, members_of, record_of, stream_of
from finops_relay.jobs.telemetry.totals import Counted
from hypothesis import given
from hypothesis import strategies as st

from tests.world.applications import record


def said(
    body: object, *, live: bool = True, nature: Nature | None = None, message: str = "m1"
) -> tuple[Counted, Nature]:
    text = body if isinstance(body, str) else json.dumps(body)
    members = members_of(text)
    stream_of(members)
    return record_of(members, message, live=live, nature=nature)


def beginning(error: str) -> str:
    return f"^{re.escape(error)}"


def allocation(**more: object) -> dict[str, Any]:
    return record("a", **{"kind": "allocation", "element_name": "checkout", **more})  # type: ignore[arg-type]  # members are anything


def test_a_record_is_its_period_its_labels_and_its_value() -> None:
    found, nature = said(record("a", value=1.5, timestamp="2026-03-01T23:30:00-01:00"))
    assert moment_of(found.ident.period).isoformat() == "2026-03-02T00:00:00+00:00"
    assert found.ident.labels == ("search",)
    assert found.value == Decimal("1.5")
    assert nature == Nature("metric", Shape("DAILY", ("team",)))


@pytest.mark.parametrize("digits", ["0.1", "12345678901.2345", "1e3", "1E-3", "100000000000000"])
def test_a_number_keeps_the_digits_that_it_was_sent_with(digits: str) -> None:
    as_number = json.dumps(record("a")).replace('"value": 1', f'"value": {digits}')
    assert said(as_number)[0].value == Decimal(digits)
    assert said(record("a", value=digits))[0].value == Decimal(digits)


def test_an_element_stands_apart_under_one_contract_and_among_the_dimensions_under_the_other() -> None:
    """Both contracts take the same record of an application."""
    live, live_nature = said(allocation(), live=True)
    openapi, openapi_nature = said(allocation(), live=False)
    assert (live.ident.labels, live_nature.shape.keys) == (("checkout", "search"), ("team",))
    assert (openapi.ident.labels, openapi_nature.shape.keys) == (("checkout", "search"), ("element_name", "team"))


def test_several_values_of_a_dimension_are_a_set() -> None:
    one, _ = said(allocation(team=["b", "a", "b"]))
    other, _ = said(allocation(team="a|b"))
    assert one.ident.labels == other.ident.labels == ("checkout", "a|b")
    assert said(record("a", team=["only"]))[0].ident.labels == ("only",)


def test_a_record_may_be_without_dimensions() -> None:
    for dimensions in (dict[str, str](), None):
        assert said(record("a", dimensions=dimensions))[0].ident.labels == ()


def test_a_record_counts_by_its_id_and_without_one_by_its_message() -> None:
    def id_of(body: dict[str, Any], message: str) -> bytes:
        return said(body, message=message)[0].id

    assert id_of(record("a"), "m1") == id_of(record("a", value=2), "m2")
    assert id_of(record("a"), "m1") != id_of(record("b"), "m1")
    assert id_of(record(), "m1") == id_of(record(id=None), "m1") != id_of(record(), "m2")
    assert id_of(record("m1"), "m2") != id_of(record(), "m1")  # an id that looks like a message's is none
    assert not has_id(members_of(json.dumps(record())))
    assert has_id(members_of(json.dumps(record("a"))))


def test_the_same_record_has_the_same_content_however_its_number_is_written() -> None:
    once, again, other = (said(record("a", value=value))[0].content for value in ("1.50", "1.5", "1.6"))
    assert once == again != other


FAULTS = {
    "no JSON": "the message is no JSON",
    "": "the message is no JSON",
    '{"stream": ': "the message is no JSON",
    "[" * 100_000: "the message is no JSON",
    '{"stream":' * 100_000: "the message is no JSON",
    "[1]": "the message is no JSON object",
    '"text"': "the message is no JSON object",
    "null": "the message is no JSON object",
    "{}": "the message names no stream",
    '{"stream": null}': "the message names no stream",
    '{"stream": ["a"]}': "the message names no stream",
    '{"stream": "a/b"}': "the message names no stream",
    '{"stream": ".."}': "the message names no stream",
    '{"stream": "\\ud83d"}': "the message names no stream",
    '{"stream": "a", "stream": "b"}': "'stream' stands twice",
    '{"stream": "a", "value": 1, "value": 1}': "'value' stands twice",
    '{"stream": "a"}': "kind is neither metric nor allocation",
}


@pytest.mark.parametrize(("body", "error"), FAULTS.items(), ids=[f"body{number}" for number in range(len(FAULTS))])
def test_a_message_that_is_no_record_is_named_with_what_is_wrong(body: str, error: str) -> None:
    with pytest.raises(CellFault) as caught:
        said(body)
    assert caught.value.error == error
    assert caught.value.fix


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"kind": "gauge"}, "kind is neither metric nor allocation"),
        ({"kind": ["metric"]}, "kind is a list or an object"),
        ({"granularity": "WEEKLY"}, "granularity is none of"),
        ({"granularity": None}, "granularity is none of"),
        ({"timestamp": "yesterday"}, "timestamp is no ISO 8601 time"),
        ({"timestamp": "2026-03-01T05:00:00"}, "timestamp has no offset"),
        ({"timestamp": {}}, "timestamp is a list or an object"),
        ({"value": None}, "value is empty"),
        ({"value": True}, "value is no plain number"),
        ({"value": "1,5"}, "value is no plain number"),
        ({"value": float("nan")}, "value is no plain number"),
        ({"value": float("inf")}, "value is no plain number"),
        ({"value": [1]}, "value is a list or an object"),
        ({"value": 0}, "value is not more than 0"),
        ({"value": -1}, "value is not more than 0"),
        ({"value": "1234567890.123456"}, "value has more than 15 significant digits"),
        ({"extra": 1}, "'extra' is no member of a record"),
        ({"\ud83d": 1}, "'\\ud83d' is no member of a record"),
        ({"dimensions": ["team"]}, "dimensions is no object"),
        ({"dimensions": {"": "a"}}, "a dimension is called ''"),
        ({"dimensions": {str(n): "a" for n in range(6)}}, "a record has more than 5 dimensions"),
        ({"team": None}, "team is empty"),
        ({"team": ""}, "team is empty"),
        ({"team": []}, "team is empty"),
        ({"team": {"a": "b"}}, "'team' is neither a text nor a list of texts"),
        ({"team": ["a", None]}, "'team' is neither a text nor a list of texts"),
        ({"team": ["a", "b"]}, "'team' has several values"),
        ({"team": "a\nb"}, "team has a control character"),
        ({"team": "\ud83d"}, "team has a control character, or bytes that are not UTF-8"),
        ({"element_name": "checkout"}, "a metric has no element_name"),
        ({"id": ""}, "id is no text of 1 to 256 characters"),
        ({"id": "x" * 257}, "id is no text"),
        ({"id": True}, "id is no text"),
        ({"id": ["a"]}, "id is no text"),
        ({"id": "\ud83d"}, "id is no text"),
    ],
)
def test_a_bad_record_is_named_with_what_is_wrong(change: dict[str, Any], error: str) -> None:
    with pytest.raises(CellFault, match=beginning(error)) as caught:
        said(
            {
                **record("a", **{k: v for k, v in change.items() if k == "team"}),
                **{k: v for k, v in change.items() if k != "team"},
            }
        )
    assert caught.value.fix


@pytest.mark.parametrize(
    ("body", "live", "error"),
    [
        (allocation(team=["a", "b"]), False, "'team' has several values"),
        (allocation(team="a|b"), False, "team has several values"),
        (allocation(team=["a", " "]), True, "'team' has an empty value"),
        (allocation(team=["a|b"]), True, "'team' has an empty value, or one with a bar"),
        (allocation(element_name=""), True, "element_name is empty"),
        (allocation(dimensions={"element_name": "a"}), False, "element_name stands twice"),
    ],
)
def test_what_a_contract_has_no_place_for_is_named(body: dict[str, Any], live: bool, error: str) -> None:  # noqa: FBT001 -- a parameter
    with pytest.raises(CellFault, match=beginning(error)):
        said(body, live=live)


def test_a_dimension_that_stands_twice_is_named() -> None:
    body = json.dumps(record("a")).replace('{"team": "search"}', '{"team": "a", "team": "b"}')
    with pytest.raises(CellFault, match="'team' stands twice"):
        said(body)


NATURE = Nature("metric", Shape("DAILY", ("team",)))


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (allocation(), "the stream is one of metric records, and keeps its kind"),
        (record("a", granularity="MONTHLY"), "the record is MONTHLY"),
        (record("a", dimensions={"tenant": "x"}), "the record "),
        (record("a", dimensions={}), "the record "),
    ],
)
def test_a_record_that_is_not_as_the_first_of_its_stream_is_named(body: dict[str, Any], error: str) -> None:
    with pytest.raises(CellFault, match=beginning(error)):
        said(body, nature=NATURE)
    assert said(record("b"), nature=NATURE)[1] == NATURE


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from([*record("a"), "element_name", "odd"]), json_values, st.booleans())
def test_whatever_a_member_is_the_record_is_good_or_named(name: str, value: object, live: bool) -> None:  # noqa: FBT001 -- drawn
    """Row 1: no message of a stranger ends in anything but a record or a named fault."""
    fault, found = None, None
    try:
        found, _ = said({**record("a"), name: value}, live=live)
    except CellFault as error:
        fault = error
    assert (found is not None and found.value.is_finite()) or (fault is not None and fault.error.encode() and fault.fix)


@given(st.text(st.characters()))
def test_whatever_a_message_is_it_is_a_record_or_named(body: str) -> None:
    with pytest.raises(CellFault):
        said(body)

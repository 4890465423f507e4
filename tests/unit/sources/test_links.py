"""The header ``Link``, as servers write it and as they get it wrong."""

from __future__ import annotations

import pytest
from finops_relay.sources.links import address_of
from hypothesis import given
from hypothesis import strategies as st

TABLE = "https://instance.example/api/now/table/a?sysparm_fields=sys_id,name&sysparm_query=a=1%5Esys_id%3Eb"
SERVICENOW = (
    f'<{TABLE}&sysparm_offset=0>;rel="first",<{TABLE}&sysparm_offset=-1>;rel="prev",'
    f'<{TABLE}&sysparm_offset=10>;rel="next",<{TABLE}&sysparm_offset=20>;rel="last"'
)


@pytest.mark.parametrize(
    ("header", "address"),
    [
        (SERVICENOW, f"{TABLE}&sysparm_offset=10"),
        ("", None),
        ("</a>; rel=next", "/a"),
        ("</a>;rel='next'", None),
        ('</a>; rel="prev", </b?x=1,2>; title="a, b; <c>"; rel="NEXT last"', "/b?x=1,2"),
        ('</a>; REL="next"', "/a"),
        ('</a> ; type="x" ; rel = "next"', "/a"),
        ('</a>; rel="nextish", </b>; rel="context"', None),
        ('</a>; title="rel=next"; rel="prev"', None),
        ('<https://h.example/t?q=sys_id>abc&o=1>;rel="next"', "https://h.example/t?q=sys_id>abc&o=1"),
        ("</a>", None),
        ('</a; rel="next"', None),
    ],
)
def test_the_next_page_is_found_or_there_is_none(header: str, address: str | None) -> None:
    assert address_of(header, "next") == address


@given(st.lists(st.tuples(st.text("abc/?=&,;%- ", min_size=1), st.sampled_from(["next", "prev", "last"])), max_size=5))
def test_any_addresses_are_told_apart(links: list[tuple[str, str]]) -> None:
    header = ", ".join(f'<{address}>; rel="{relation}"' for address, relation in links)
    wanted = next((address.strip() for address, relation in links if relation == "next"), None)
    assert address_of(header, "next") == wanted


@pytest.mark.parametrize(
    "header",
    [
        "<" * 8_000,
        "<a" + ">" * 8_000,
        "<a>" + ";a=" * 2_600,
        "<a>;a" + " " * 8_000,
        "<a>;a=" + " ;" * 4_000,
        '<a>;rel="' + "a " * 4_000,
        ('<a>;b="' * 1_200),
    ],
)
def test_a_hostile_header_names_no_page_and_is_soon_read(header: str) -> None:
    assert address_of(header, "next") is None

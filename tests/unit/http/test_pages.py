"""Lists in pages: every page is asked for, and none of them anywhere else than at the API's own host."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import pytest
from finops_relay.errors import AnswerNotUnderstood, RequestRefused
from finops_relay.http.answers import Answer
from finops_relay.http.auth import Credential, fixed
from finops_relay.http.client import HttpClient
from finops_relay.http.pages import Next, pages
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

TOKEN = "a-token-for-the-vendor-only"
BASE = "https://vendor.example/v1"
THINGS = f"{BASE}/orgs/acme/things"


class Listing:
    """A vendor with one page an address; it writes down every request, whichever host it was meant for."""

    def __init__(self, held: Mapping[str, object]) -> None:
        self.held = held
        self.seen: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.seen.append(request)
        page = self.held.get(str(request.url))
        return httpx.Response(404) if page is None else httpx.Response(200, json=page)

    @property
    def addresses(self) -> list[str]:
        return [str(request.url) for request in self.seen]


def client(wire: Callable[[httpx.Request], httpx.Response], base_url: str = BASE) -> HttpClient:
    return HttpClient(
        base_url=base_url,
        auth=Credential(fixed(SecretStr(TOKEN)), "vendor/token"),
        sleep=lambda _: None,
        wire=httpx.Client(transport=httpx.MockTransport(wire)),
    )


def by_address(answer: Answer) -> Next | None:
    address = answer.json().get("next")
    return Next(address) if address else None


def by_cursor(answer: Answer) -> Next | None:
    cursor = answer.json().get("cursor")
    return Next(params={"cursor": cursor}) if cursor is not None else None


def items(
    wire: Callable[[httpx.Request], httpx.Response],
    next_of: Callable[[Answer], Next | None] = by_address,
    method: str = "GET",
    **more: Any,  # noqa: ANN401 -- whatever the original takes
) -> list[object]:
    """Return what all pages hold."""
    found = pages(client(wire), method, "/orgs/{slug}/things", next_of, ids={"slug": "acme"}, **more)
    return [item for answer in found for item in answer.listed("items")]


# --- by address ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("named", "address"),
    [
        (f"{THINGS}?page=2", f"{THINGS}?page=2"),
        ("https://VENDOR.example:443/v1/orgs/acme/things?page=2", f"{THINGS}?page=2"),
        ("/v1/orgs/acme/things?page=2", f"{THINGS}?page=2"),
        ("//vendor.example/v1/orgs/acme/things?page=2", f"{THINGS}?page=2"),
        ("?page=2", f"{THINGS}?page=2"),
        ("things/2", f"{BASE}/orgs/acme/things/2"),
        ("../acme/more?a=%2B%2F%3D%26&b=1+2", f"{BASE}/orgs/acme/more?a=%2B%2F%3D%26&b=1+2"),
        ("/elsewhere", "https://vendor.example/elsewhere"),
    ],
)
def test_the_next_page_is_asked_for_at_the_address_that_was_named(named: str, address: str) -> None:
    first = f"{THINGS}?limit=2"
    vendor = Listing({first: {"items": [1, 2], "next": named}, address: {"items": [3]}})
    assert items(vendor, params={"limit": "2"}) == [1, 2, 3]
    assert vendor.addresses == [first, address]
    assert {request.headers["authorization"] for request in vendor.seen} == {f"Bearer {TOKEN}"}


def test_a_page_that_names_no_other_is_the_last() -> None:
    vendor = Listing({THINGS: {"items": [1]}})
    assert items(vendor) == [1]
    assert len(vendor.seen) == 1


def test_an_empty_page_in_between_ends_nothing() -> None:
    vendor = Listing(
        {
            THINGS: {"items": [1], "next": "?page=2"},
            f"{THINGS}?page=2": {"items": [], "next": "?page=3"},
            f"{THINGS}?page=3": {"items": [2]},
        }
    )
    assert items(vendor) == [1, 2]


ELSEWHERE = [
    "https://evil.example/v1/orgs/acme/things?page=2",
    "//evil.example/v1/orgs/acme/things?page=2",
    "https://vendor.example.evil.example/v1?page=2",
    "https://evil.example/?https://vendor.example/",
    "https://sub.vendor.example/?page=2",
    "https://vendor.example./?page=2",
    "https://vendor.example:8443/?page=2",
    "https://vendor.example:80/?page=2",
    "https://vendor.example:port/?page=2",
    "https://vendor.example:99999/?page=2",
    "http://vendor.example/?page=2",
    "http://vendor.example:443/?page=2",
    "ftp://vendor.example/?page=2",
    "https://user@vendor.example/?page=2",
    "https://user:pass@vendor.example/?page=2",
    "https://@vendor.example/?page=2",
    "https://vendor.example@evil.example/?page=2",
    "https://vendor.example:443@evil.example/?page=2",
    "https://vendor.example\\@evil.example/?page=2",
    "https://vendor.example\\.evil.example/?page=2",
    "https://ｖendor.example/?page=2",  # noqa: RUF001 -- a look-alike is the point
    "https://ᵛendor.example/?page=2",
    "javascript:alert(1)",
    "https://[::1/x",
    "https://vendor.example/?page=\x00",
    "https://vendor.example/" + "x" * 70_000,
    "mailto:somebody@vendor.example",
]


@pytest.mark.parametrize("address", ELSEWHERE)
def test_a_next_page_elsewhere_is_refused_and_never_asked_for(address: str) -> None:
    vendor = Listing({THINGS: {"items": [1], "next": address}})
    with pytest.raises(AnswerNotUnderstood, match="it was not asked for") as caught:
        items(vendor)
    assert vendor.addresses == [THINGS]
    assert (caught.value.call.method, caught.value.call.path) == ("GET", "/orgs/{slug}/things")


@given(st.text(st.sampled_from("[]\x00htps:/\\?#@%. vendor.examplEevi1\u017f\u212a5443"), max_size=40))
def test_whatever_the_address_no_other_host_is_called(text: str) -> None:
    seen: list[httpx.URL] = []

    def vendor(request: httpx.Request) -> httpx.Response:
        seen.append(request.url)
        return httpx.Response(200)

    try:
        client(vendor).request("GET", "/things", at=f"https://vendor.example{text}", safe=True)
    except AnswerNotUnderstood:
        assert seen == []
    assert all((url.scheme, url.host, url.port) == ("https", "vendor.example", None) for url in seen)


def test_what_an_address_carries_in_its_query_is_not_told() -> None:
    with pytest.raises(AnswerNotUnderstood) as caught:
        items(Listing({THINGS: {"items": [], "next": "https://evil.example/list?key=s3cr3t"}}))
    assert "evil.example/list" in str(caught.value)
    assert "s3cr3t" not in str(caught.value)


def test_a_port_that_is_not_the_usual_one_is_kept_to() -> None:
    base = "http://127.0.0.1:8080/v1"
    held = {f"{base}/things": {"items": [1], "next": "?page=2"}, f"{base}/things?page=2": {"next": "http://127.0.0.1/"}}
    vendor = Listing(held)
    with pytest.raises(AnswerNotUnderstood, match="elsewhere"):
        list(pages(client(vendor, base), "GET", "/things", by_address))
    assert vendor.addresses == list(held)


# --- by cursor -----------------------------------------------------------------------------------------------------


def counting(total: int, seen: list[httpx.Request]) -> Callable[[httpx.Request], httpx.Response]:
    """Make a vendor of *total* pages whose cursors have all the letters of base64, and more."""

    def vendor(request: httpx.Request) -> httpx.Response:
        request.read()
        seen.append(request)
        cursor = request.url.params.get("cursor")
        page = 1 if cursor is None else int(cursor.removeprefix(AWKWARD))
        more = {"cursor": f"{AWKWARD}{page + 1}"} if page < total else {}
        return httpx.Response(200, json={"items": [page], **more})

    return vendor


AWKWARD = base64.b64encode(bytes([251, 239, 190, 255, 255])).decode() + "&a=b+c %2B#?ü"


def test_a_cursor_arrives_as_it_was_given_and_the_other_parameters_stay() -> None:
    seen: list[httpx.Request] = []
    assert {"+", "/", "=", "&"} <= set(AWKWARD)
    assert items(counting(3, seen), by_cursor, params={"limit": "1", "tag": ["x&y", "z"]}) == [1, 2, 3]
    assert [request.url.params.multi_items() for request in seen] == [
        [("limit", "1"), ("tag", "x&y"), ("tag", "z")],
        [("limit", "1"), ("tag", "x&y"), ("tag", "z"), ("cursor", f"{AWKWARD}2")],
        [("limit", "1"), ("tag", "x&y"), ("tag", "z"), ("cursor", f"{AWKWARD}3")],
    ]


@given(st.text(min_size=1))
def test_whatever_a_cursor_is_it_arrives_as_it_was_given(cursor: str) -> None:
    arrived: list[str] = []

    def vendor(request: httpx.Request) -> httpx.Response:
        arrived.extend(request.url.params.get_list("cursor"))
        return httpx.Response(200, json={"items": [], **({} if arrived else {"cursor": cursor})})

    items(vendor, by_cursor)
    assert arrived == [cursor]


def test_a_body_is_sent_again_with_each_page() -> None:
    seen: list[httpx.Request] = []
    items(counting(3, seen), by_cursor, method="POST", body={"filter": "a"})
    assert [(request.method, json.loads(request.content)) for request in seen] == [("POST", {"filter": "a"})] * 3


# --- the end -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("following", [["?page=2", "?page=2"], ["?page=2", "?page=3", "?page=2"]])
def test_a_list_that_leads_back_ends_with_an_error(following: list[str]) -> None:
    held = {
        THINGS + here: {"items": [], "next": there} for here, there in zip(["", *following], following, strict=False)
    }
    vendor = Listing(held)
    with pytest.raises(AnswerNotUnderstood, match="read before"):
        items(vendor)
    assert len(vendor.seen) == len(following)


def test_a_cursor_that_never_moves_ends_with_an_error() -> None:
    def stuck(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"items": [], "cursor": "same"})

    with pytest.raises(AnswerNotUnderstood, match="read before"):
        items(stuck, by_cursor)


def test_a_page_is_asked_for_again_after_trouble_and_the_list_goes_on() -> None:
    answers: list[httpx.Response | Exception] = [
        httpx.Response(200, json={"items": [1], "next": "?page=2"}),
        httpx.Response(503),
        httpx.ReadError("reset"),
        httpx.Response(200, json={"items": [2]}),
    ]
    seen: list[str] = []

    def vendor(request: httpx.Request) -> httpx.Response:
        seen.append(str(request.url))
        answer = answers[len(seen) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert items(vendor) == [1, 2]
    assert seen == [THINGS] + [f"{THINGS}?page=2"] * 3


def test_a_page_that_is_refused_ends_the_list() -> None:
    def vendor(request: httpx.Request) -> httpx.Response:
        return (
            httpx.Response(200, json={"items": [1], "next": "?page=2"})
            if not request.url.query
            else httpx.Response(400)
        )

    with pytest.raises(RequestRefused):
        items(vendor)


def test_a_page_beyond_the_ceiling_is_not_read() -> None:
    with pytest.raises(AnswerNotUnderstood, match="larger than 20 bytes"):
        items(Listing({THINGS: {"items": ["x" * 20]}}), at_most_bytes=20)


def test_pages_are_asked_for_as_they_are_read() -> None:
    seen: list[httpx.Request] = []
    found = pages(client(counting(9, seen)), "GET", "/things", by_cursor)
    assert seen == []
    next(found)
    next(found)
    assert len(seen) == 2

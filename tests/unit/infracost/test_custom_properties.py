"""Custom properties at Infracost, over the real wire, against the strict stand-in."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from finops_relay.errors import BodyTooLarge, CredentialRefused, InputRefused, NotFound, RateLimited
from finops_relay.http.auth import Credential, fixed
from finops_relay.http.client import HttpClient
from finops_relay.infracost.client import API, Infracost, connect
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from local.standins.account import Token
from local.standins.infracost import AWS_ORGANIZATION, TOKEN, InfracostStandIn

SLUG = "primary"
CSV = 'service_id,team\nauth,identity\npay,"pay, ments"\nüb,Ünicode ☃\n'.encode()


@pytest.fixture
def vendor() -> Iterator[InfracostStandIn]:
    with InfracostStandIn() as standin:
        yield standin


@pytest.fixture
def client(vendor: InfracostStandIn) -> Iterator[Infracost]:
    made = connect(SecretStr(TOKEN), vendor.url)
    with made.http.wire:
        yield made


def held(vendor: InfracostStandIn) -> dict[str, Any]:
    """Return what the vendor holds, after seeing that its contract was kept."""
    state = vendor.state()
    assert (state["violations"], state["response_violations"]) == ([], [])
    found: dict[str, Any] = state["custom_properties"][SLUG]
    return found


def uploads(vendor: InfracostStandIn) -> int:
    """Return how often the operation was called."""
    held(vendor)
    return int(vendor.state()["counts"].get("uploadCustomProperties", 0))


@pytest.mark.parametrize("csv", [CSV, CSV.rstrip(b"\n"), b"\xef\xbb\xbf" + CSV, CSV + b"\n\n", b'k,v\n1,"a\nb"\n'])
def test_the_bytes_arrive_as_they_were_given(vendor: InfracostStandIn, client: Infracost, csv: bytes) -> None:
    seen: list[httpx.Request] = []
    client.http.wire.event_hooks = {"request": [seen.append]}
    request_id = client.upload_custom_properties(SLUG, csv)
    assert request_id in [call["request_id"] for call in vendor.state()["calls"]]
    assert (held(vendor)["bytes"], held(vendor)["sha256"]) == (len(csv), hashlib.sha256(csv).hexdigest())
    assert not held(vendor)["emptied"]
    assert seen[0].headers["content-type"] == "text/csv"
    assert seen[0].headers["content-length"] == str(len(csv))
    assert "content-encoding" not in seen[0].headers


def test_a_later_file_takes_the_place_of_the_former(vendor: InfracostStandIn, client: Infracost) -> None:
    client.upload_custom_properties(SLUG, CSV)
    client.upload_custom_properties(SLUG, b"service_id,team\nauth,other\n")
    assert (held(vendor)["rows"], len(held(vendor)["uploads"])) == (1, 2)


@pytest.mark.parametrize(
    ("csv", "line", "reason", "fix"),
    [
        (b"", None, "one line or none", "send a header and rows"),
        (b"\n\n \n", None, "one line or none", "send a header and rows"),
        (b"service_id,team\n", None, "would empty what Infracost holds", "send a header and rows"),
        (b"service_id,team\n\n  \n", None, "would empty what Infracost holds", "send a header and rows"),
        (CSV.replace(b"\n", b""), None, "one line or none", "newlines that were stripped look like this too"),
        (CSV.replace(b"\n", b" "), None, "one line or none", "curl: use --data-binary"),
        (CSV.replace(b"\n", b"\r\n"), 1, "carriage returns", r"end lines with \n alone"),
        (CSV.replace(b"identity", b"iden\rtity"), 2, "carriage returns", r"end lines with \n alone"),
        (CSV.replace(b"\n", b"\r"), 1, "carriage returns", r"end lines with \n alone"),
        (CSV.replace(b"identity", b"\xff"), 2, "not UTF-8", "save the file as UTF-8"),
        (CSV.decode().replace("☃", "").encode("latin-1"), 4, "not UTF-8", "save the file as UTF-8"),
        (CSV.decode().encode("utf-16"), 1, "not UTF-8", "save the file as UTF-8"),
        (CSV[:-3], 4, "not UTF-8", "save the file as UTF-8"),
    ],
    ids=[
        "nothing", "blank lines", "header only", "header and blank lines", "newlines stripped", "newlines to spaces",
        "CRLF", "a carriage return", "CR alone", "a broken byte", "Latin-1", "UTF-16", "cut in a letter",
    ],
)  # fmt: skip
def test_a_file_that_would_empty_everything_or_be_misread_is_refused_and_nothing_is_sent(  # noqa: PLR0913 -- facts of a case
    vendor: InfracostStandIn, client: Infracost, *, csv: bytes, line: int | None, reason: str, fix: str
) -> None:
    with pytest.raises(InputRefused) as caught:
        client.upload_custom_properties(SLUG, csv)
    assert reason in caught.value.reason
    assert fix in caught.value.fix
    assert caught.value.line == line
    assert uploads(vendor) == 0


@given(st.binary(max_size=60) | st.text('a,\n\r " ☃', max_size=40).map(str.encode))
def test_whatever_the_bytes_they_are_sent_as_they_are_or_refused(csv: bytes) -> None:
    sent: list[bytes] = []

    def vendor(request: httpx.Request) -> httpx.Response:
        sent.append(request.read())
        return httpx.Response(204)

    wire = httpx.Client(transport=httpx.MockTransport(vendor))
    client = Infracost(HttpClient(API, Credential(fixed(SecretStr(TOKEN)), "infracost/acme"), wire=wire))
    try:
        client.upload_custom_properties(SLUG, csv)
    except InputRefused:
        assert sent == []
    else:
        assert sent == [csv]
        assert csv.decode().strip().count("\n") >= 1


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_any_good_status_and_no_body_is_success(vendor: InfracostStandIn, client: Infracost, status: int) -> None:
    fault = {"kind": "status", "status": status, "headers": {"x-request-id": "req-1"}}
    vendor.faults.add([{"operation": "uploadCustomProperties", "fault": fault}])
    assert client.upload_custom_properties(SLUG, CSV) == "req-1"


def test_a_file_that_is_too_large_says_its_size(client: Infracost, vendor: InfracostStandIn) -> None:
    vendor.configure({"properties_limit_bytes": 1_000})
    csv = b"k,v\n" + b"a,b\n" * 1_000
    with pytest.raises(BodyTooLarge, match=r"4,004 bytes were sent\. Infracost names no limit") as caught:
        client.upload_custom_properties(SLUG, csv)
    assert caught.value.call.sent_bytes == 4_004
    assert uploads(vendor) == 1


def test_a_lost_answer_is_asked_for_again_since_that_is_safe(vendor: InfracostStandIn, client: Infracost) -> None:
    vendor.faults.add([{"operation": "uploadCustomProperties", "fault": {"kind": "lost_answer_status", "status": 502}}])
    Infracost(replace(client.http, sleep=lambda _: None)).upload_custom_properties(SLUG, CSV)
    assert [upload["sha256"] for upload in held(vendor)["uploads"]] == [hashlib.sha256(CSV).hexdigest()] * 2


def test_a_wait_beyond_ours_is_left_to_the_caller(vendor: InfracostStandIn, client: Infracost) -> None:
    fault = {"kind": "status", "status": 429, "headers": {"Retry-After": "1800"}}
    vendor.faults.add([{"operation": "uploadCustomProperties", "fault": fault}])
    with pytest.raises(RateLimited, match="It names a wait of 1,800 s"):
        client.upload_custom_properties(SLUG, CSV)
    assert held(vendor)["text"] is None


def test_a_refused_call_says_what_to_check(client: Infracost) -> None:
    with pytest.raises(NotFound, match=r"Check the organization's slug \(Org Settings > General\)"):
        client.upload_custom_properties("no-such-org", CSV)
    for token in (
        Token(token="elsewhere-token", organization=AWS_ORGANIZATION),
        Token(token="viewers-token", role="orgViewer"),
    ):
        with InfracostStandIn(tokens=[token]) as other:
            stranger = connect(SecretStr(token.token), other.url)
            with stranger.http.wire, pytest.raises(CredentialRefused, match="or its service account lacks the role"):
                stranger.upload_custom_properties(SLUG, CSV)

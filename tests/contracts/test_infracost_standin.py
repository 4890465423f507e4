"""The Infracost stand-in is as strict as the vendor, and fails on order."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import httpx
import openapi_spec_validator
import pytest
import yaml

from local.standins.account import Token
from local.standins.infracost import (
    AWS_ORGANIZATION,
    AZURE_ORGANIZATION,
    ENTERPRISE,
    PRIMARY_ORGANIZATION,
    TOKEN,
    InfracostStandIn,
)
from local.standins.standin import answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from werkzeug.wrappers import Response

    from local.standins.standin import Call

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "openapi" / "infracost.yaml"
UNKNOWN = "ffffffff-0000-4000-8000-00000000ffff"
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")

AWS_HEADER = (
    "productcode,instancetype,databaseengine,operatingsystem,deploymentoption,licensemodel,hourlyprice,vcpu,memory,region,"
    "databaseedition,description\n"
)
AZURE_HEADER = (
    "EnrollmentNumber,MeterId,MeterName,MeterType,MeterCategory,MeterSubCategory,ServiceFamily,Product,SkuID,ProductID,"
    "MeterRegion,UnitOfMeasure,PartNumber,EffectiveStartDate,EffectiveEndDate,UnitPrice,BasePrice,MarketPrice,CurrencyCode,"
    "IncludedQuantity,OfferId,Term,PriceType\n"
)


def aws_row(price: str = "0.0416", description: str = "") -> str:
    return f"AmazonEC2,t3.medium,,Linux,,,{price},2,4,us-east-1,,{description}\n"


def azure_row(unit: str = "0.000000000000015", base: str = "1", market: str = "") -> str:
    return (
        "100,m-1,P10 Disks,,Storage,Disks,Storage,Premium SSD,s,p,EU West,10 Hours,AAA-1,2026-01-01,2026-12-31,"
        f"{unit},{base},{market},EUR,0,MS-AZR-0017P,,Consumption\n"
    )


AWS_FILE = (AWS_HEADER + aws_row() + aws_row("12")).encode()
AZURE_FILE = (AZURE_HEADER + azure_row()).encode()


@dataclass(frozen=True)
class Api:
    """A plain client: each method is one request, and gives what came back."""

    server: InfracostStandIn
    http: httpx.Client
    plain: httpx.Client
    """Without a token."""

    @property
    def books(self) -> str:
        return f"{self.server.api_url}/enterprises/{ENTERPRISE}/price-books"

    def create(self, provider: str = "AWS") -> str:
        return str(self.http.post(self.books, json={"provider": provider}).raise_for_status().json()["data"]["id"])

    def add_file(self, book: str) -> tuple[str, str]:
        data = self.http.post(f"{self.books}/{book}/files").raise_for_status().json()["data"]
        return data["file"]["id"], data["preSignedUrl"]

    def put(self, url: str, content: bytes, headers: Mapping[str, str] | None = None) -> httpx.Response:
        return self.plain.put(url, content=content, headers={"Content-Type": "text/csv", **(headers or {})})

    def ingest(self, book: str) -> httpx.Response:
        return self.http.post(f"{self.books}/{book}/ingest")

    def get(self, book: str) -> dict[str, Any]:
        data: dict[str, Any] = self.http.get(f"{self.books}/{book}").raise_for_status().json()["data"]
        return data

    def activate(self, organization: str, book: str | None) -> httpx.Response:
        return self.http.patch(f"{self.server.api_url}/organizations/{organization}", json={"customPriceBookId": book})

    def ingested(self, *contents: bytes, provider: str = "AWS") -> dict[str, Any]:
        """Go all the way to the end of the ingestion."""
        book = self.create(provider)
        for content in contents:
            assert self.put(self.add_file(book)[1], content).status_code == 200
        assert self.ingest(book).status_code == 200
        return self.get(book)

    def control(self, method: str, path: str, body: object = None) -> httpx.Response:
        return self.plain.request(method, f"{self.server.url}{path}", json=body)

    def fault(self, operation: str, fault: dict[str, Any], **more: int) -> None:
        self.control("POST", "/_faults", [{"operation": operation, "fault": fault, **more}]).raise_for_status()

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = self.control("GET", "/_state").raise_for_status().json()
        return state


@pytest.fixture
def server() -> Iterator[InfracostStandIn]:
    tokens: list[str | Token] = [
        TOKEN,
        Token(token="editor", role="orgEditor"),
        Token(token="elsewhere", organization=AWS_ORGANIZATION),
        Token(token="ico-known"),
    ]
    with InfracostStandIn(tokens=tokens, polls_needed=1) as running:
        yield running
        assert running.state()["response_violations"] == []


@pytest.fixture(scope="module")
def clients() -> Iterator[tuple[httpx.Client, httpx.Client]]:
    """With a token and without; made once, because each reads the machine's certificates."""
    with httpx.Client(headers={"Authorization": f"Bearer {TOKEN}"}) as client, httpx.Client() as plain:
        yield client, plain


@pytest.fixture
def api(server: InfracostStandIn, clients: tuple[httpx.Client, httpx.Client]) -> Api:
    return Api(server, *clients)


def error_of(response: httpx.Response) -> dict[str, Any]:
    (error,) = response.json()["errors"]
    assert error["status"] == str(response.status_code)
    assert isinstance(error, dict)
    return error


# --- the document ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(DOCUMENT.read_text(encoding="utf-8"))
    return content


def test_the_document_is_valid_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")
    openapi_spec_validator.validate(document)


def test_every_operation_and_every_shared_part_of_the_document_names_its_source(document: dict[str, Any]) -> None:
    parts = {
        f"{method} {path}": item[method]
        for path, item in document["paths"].items()
        for method in ("get", "put", "post", "patch", "delete")
        if method in item
    }
    assert len(parts) == 19
    for kind, members in document["components"].items():
        parts |= {f"{kind} {name}": member for name, member in members.items()}
    for name, part in parts.items():
        assert re.match(r"contract: |open: ", part.get("x-source", "")), name


def test_the_stand_in_handles_exactly_the_operations_of_the_document(
    document: dict[str, Any], server: InfracostStandIn
) -> None:
    documented = {
        part["operationId"]
        for item in document["paths"].values()
        for part in item.values()
        if isinstance(part, dict) and "operationId" in part
    }
    assert set(server.handlers()) == documented


# --- who may come in ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "authorization", [None, "Bearer unknown", f"Basic {TOKEN}", "Bearer", "Bearer ico-known"], ids=str
)
def test_a_missing_unknown_or_cli_token_is_answered_401(api: Api, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    response = api.plain.get(api.books, headers=headers)
    assert response.status_code == 401
    assert "token" in error_of(response)["detail"]


@pytest.mark.parametrize("token", ["editor", "elsewhere"])
def test_a_token_that_is_no_org_admin_of_the_primary_organization_is_answered_403(api: Api, token: str) -> None:
    response = api.plain.post(api.books, json={"provider": "AWS"}, headers={"Authorization": f"Bearer {token}"})
    assert response.status_code == 403
    patch = api.plain.patch(
        f"{api.server.api_url}/organizations/{AWS_ORGANIZATION}",
        json={"customPriceBookId": None},
        headers={"Authorization": f"Bearer {token}"},
    )
    assert patch.status_code == 403
    assert api.state()["price_books"] == []


def test_a_token_can_be_exchanged_while_the_server_runs(api: Api) -> None:
    shown = api.control("POST", "/_config", {"tokens": [{"token": "new"}]})
    assert shown.json()["tokens"] == [{"role": "orgAdmin", "organization": None}]
    assert api.http.get(api.books).status_code == 401
    assert api.plain.get(api.books, headers={"Authorization": "Bearer new"}).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"/enterprises/{UNKNOWN}/price-books"),
        ("GET", f"/enterprises/{ENTERPRISE}/price-books/{UNKNOWN}"),
        ("DELETE", f"/enterprises/{ENTERPRISE}/price-books/{UNKNOWN}"),
        ("POST", f"/enterprises/{ENTERPRISE}/price-books/{UNKNOWN}/files"),
        ("POST", f"/enterprises/{ENTERPRISE}/price-books/{UNKNOWN}/ingest"),
    ],
)
def test_an_unknown_enterprise_or_price_book_is_answered_404(api: Api, method: str, path: str) -> None:
    response = api.http.request(method, api.server.api_url + path)
    assert response.status_code == 404
    assert "does not exist" in error_of(response)["detail"]


def test_an_unknown_organization_is_answered_404(api: Api) -> None:
    assert api.activate(UNKNOWN, None).status_code == 404


# --- the document's law ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "pointer"),
    [
        ({"json": {"provider": "GCP"}}, "/provider"),
        ({"json": {"provider": "AWS", "name": "x"}}, None),
        ({"json": {}}, None),
        ({"json": ["AWS"]}, None),
        ({}, None),
        ({"content": b'{"provider": ', "headers": {"Content-Type": "application/json"}}, None),
        ({"content": b'{"provider": "AWS"}', "headers": {"Content-Type": "text/plain"}}, None),
        ({"json": {"provider": "AWS"}, "params": {"dryRun": "1"}}, None),
    ],
    ids=["value", "extra field", "no field", "array", "no body", "broken JSON", "content type", "query"],
)
def test_a_request_that_breaks_the_document_is_answered_400_and_listed(
    api: Api, sent: dict[str, Any], pointer: str | None
) -> None:
    response = api.http.post(api.books, **sent)
    assert response.status_code == 400
    error = error_of(response)
    assert error.get("source") == (pointer and {"pointer": pointer})
    state = api.state()
    (violation,) = state["violations"]
    assert violation["operation"] == "createPriceBook"
    assert violation["detail"] == error["detail"]
    assert violation["request_id"] == response.headers["x-request-id"]
    assert state["price_books"] == []


def test_a_body_where_the_document_has_none_is_a_violation(api: Api) -> None:
    book = api.create()
    assert api.http.post(f"{api.books}/{book}/files", json={}).status_code == 400
    assert [each["operation"] for each in api.state()["violations"]] == ["createPriceBookFile"]


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/v1/nowhere", 404), ("PUT", f"/v1/organizations/{UNKNOWN}", 405)]
)
def test_an_address_outside_the_document_is_a_violation(api: Api, method: str, path: str, status: int) -> None:
    assert api.http.request(method, api.server.url + path).status_code == status
    (violation,) = api.state()["violations"]
    assert violation["operation"] is None


class Careless(InfracostStandIn):
    """Answers one operation against the document, and fails at another."""

    def handlers(self) -> Mapping[str, Callable[[Call], Response]]:
        def incomplete(_call: Call) -> Response:
            return answer({"data": [{"id": UNKNOWN}], "total": 1})

        def broken(_call: Call) -> Response:
            raise ZeroDivisionError

        return {**super().handlers(), "listPriceBooks": incomplete, "createPriceBook": broken}


def test_an_answer_of_ours_that_breaks_the_document_is_listed() -> None:
    with Careless() as server, httpx.Client(headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        client.get(f"{server.api_url}/enterprises/{ENTERPRISE}/price-books")
        details = [each["detail"] for each in server.state()["response_violations"]]
    assert "'provider' is a required property" in details
    assert "Additional properties are not allowed ('total' was unexpected)" in details


def test_a_failure_of_the_stand_in_is_answered_500_and_listed() -> None:
    with Careless() as server, httpx.Client(headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        response = client.post(f"{server.api_url}/enterprises/{ENTERPRISE}/price-books", json={"provider": "AWS"})
        (violation,) = server.state()["response_violations"]
    assert response.status_code == 500
    assert "ZeroDivisionError" in violation["detail"]


# --- price books ----------------------------------------------------------------------------------------------------


def test_a_new_price_book_waits_for_upload_and_has_the_contracts_fields(api: Api) -> None:
    response = api.http.post(api.books, json={"provider": "AZURE"})
    assert response.status_code == 201
    book = response.json()["data"]
    assert UUID.fullmatch(book.pop("id"))
    assert TIME.fullmatch(book.pop("createdAt"))
    assert TIME.fullmatch(book.pop("updatedAt"))
    assert book == {
        "enterpriseId": ENTERPRISE,
        "provider": "AZURE",
        "status": "WAITING_FOR_UPLOAD",
        "statusMessage": "",
        "sourceFiles": [],
    }


def test_a_file_slot_has_the_contracts_fields_and_an_upload_address_on_the_same_server(api: Api) -> None:
    book = api.create()
    response = api.http.post(f"{api.books}/{book}/files")
    assert response.status_code == 201
    data = response.json()["data"]
    assert set(data) == {"file", "preSignedUrl"}
    assert set(data["file"]) == {"id", "createdAt", "updatedAt", "enterpriseId", "priceBookId"}
    assert (data["file"]["enterpriseId"], data["file"]["priceBookId"]) == (ENTERPRISE, book)
    url = urlsplit(data["preSignedUrl"])
    assert f"{url.scheme}://{url.netloc}" == api.server.url
    assert re.fullmatch(rf"/[a-z-]+/{ENTERPRISE}/{book}/{data['file']['id']}\.csv", url.path)
    query = parse_qs(url.query)
    assert query["X-Amz-Expires"] == ["900"]
    assert {"X-Amz-Algorithm", "X-Amz-Date", "X-Amz-SignedHeaders", "X-Amz-Signature"} <= set(query)


@pytest.mark.parametrize(("provider", "content"), [("AWS", AWS_FILE), ("AZURE", AZURE_FILE)])
def test_a_good_file_makes_a_price_book_a_success(api: Api, provider: str, content: bytes) -> None:
    book = api.ingested(content, provider=provider)
    assert (book["status"], book["statusMessage"]) == ("SUCCESS", "")
    assert len(book["sourceFiles"]) == 1


def test_several_good_files_make_one_price_book(api: Api) -> None:
    book = api.ingested(AWS_FILE, AWS_FILE)
    assert book["status"] == "SUCCESS"
    assert len(book["sourceFiles"]) == 2


def test_quoted_commas_and_newlines_are_part_of_a_field(api: Api) -> None:
    content = (AWS_HEADER + aws_row(description='"a, ""b""\r\nc"') + aws_row()).encode()
    assert api.ingested(content)["status"] == "SUCCESS"
    (book,) = api.state()["price_books"]
    assert book["files"][0]["rows"] == 2


def test_a_quoted_field_may_cross_the_borders_at_which_the_upload_is_read(api: Api) -> None:
    content = (AWS_HEADER + aws_row(description='"' + "\r\n" * 800_000 + '"')).encode()
    api.put(api.add_file(api.create())[1], content)
    (file,) = api.state()["price_books"][0]["files"]
    assert (file["rows"], file["bytes"]) == (1, len(content))


def test_a_file_without_a_final_newline_is_good(api: Api) -> None:
    assert api.ingested(AWS_FILE.rstrip(b"\n"))["status"] == "SUCCESS"
    assert api.state()["price_books"][0]["files"][0]["rows"] == 2


BAD_FILES = {
    "BOM": (b"\xef\xbb\xbf" + AWS_FILE, "first line"),
    "CRLF header": (AWS_FILE.replace(b"\n", b"\r\n", 1), "first line"),
    "CRLF row": (AWS_FILE + aws_row().replace("\n", "\r\n").encode(), "line ends"),
    "other order": (AWS_FILE.replace(b"productcode,instancetype", b"instancetype,productcode"), "first line"),
    "other case": (AWS_FILE.replace(b"productcode", b"ProductCode"), "first line"),
    "other provider": (AZURE_FILE, "first line"),
    "title line": (b"Prices\n\n" + AWS_FILE, "first line"),
    "gzip": (b"\x1f\x8b\x08\x00" + bytes(40), "first line"),
    "empty file": (b"", "first line"),
    "header without its newline": (AWS_HEADER.rstrip().encode(), "first line"),
    "no rows": (AWS_HEADER.encode(), "no rows"),
    "no price": (AWS_FILE + aws_row("").encode(), "Row 3: hourlyprice"),
    "exponent": (AWS_FILE + aws_row("1.5E-05").encode(), "Row 3: hourlyprice"),
    "decimal comma": (AWS_FILE + aws_row('"0,5"').encode(), "Row 3: hourlyprice"),
    "currency mark": (AWS_FILE + aws_row("$1").encode(), "Row 3: hourlyprice"),
    "space": (AWS_FILE + aws_row(" 1").encode(), "Row 3: hourlyprice"),
    "column missing": (AWS_FILE + aws_row().replace(",,", ",", 1).encode(), "Row 3 has 11 columns"),
    "column too many": (AWS_FILE + aws_row(description="a,b").encode(), "Row 3 has 13 columns"),
    "blank line": (AWS_FILE + b"\n", "Row 3 has 0 columns"),
    "Latin-1": (AWS_FILE + aws_row(description="é").encode("latin-1"), "UTF-8"),
    "open quote": (AWS_FILE + aws_row(description='"a').encode(), "CSV"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_fails_the_ingestion_with_a_message(api: Api, name: str) -> None:
    content, words = BAD_FILES[name]
    book = api.ingested(content)
    assert book["status"] == "FAILED"
    assert words in book["statusMessage"]


@pytest.mark.parametrize(
    ("row", "column"),
    [(azure_row(unit=""), "UnitPrice"), (azure_row(base="x"), "BasePrice"), (azure_row(market="1e3"), "MarketPrice")],
)
def test_a_bad_azure_price_fails_the_ingestion(api: Api, row: str, column: str) -> None:
    book = api.ingested(AZURE_FILE + row.encode(), provider="AZURE")
    assert book["status"] == "FAILED"
    assert f"Row 2: {column}" in book["statusMessage"]


def test_an_empty_slot_fails_the_ingestion(api: Api) -> None:
    book = api.create()
    api.put(api.add_file(book)[1], AWS_FILE)
    empty, _ = api.add_file(book)
    api.ingest(book)
    shown = api.get(book)
    assert shown["status"] == "FAILED"
    assert empty in shown["statusMessage"]


def test_an_ingestion_without_a_file_is_answered_400(api: Api) -> None:
    book = api.create()
    assert api.ingest(book).status_code == 400
    assert api.get(book)["status"] == "WAITING_FOR_UPLOAD"


def test_a_second_ingestion_or_a_late_file_is_answered_409(api: Api) -> None:
    book = api.ingested(AWS_FILE)["id"]
    assert api.ingest(book).status_code == 409
    assert api.http.post(f"{api.books}/{book}/files").status_code == 409


def test_an_ingestion_is_processing_until_its_time_has_passed(api: Api) -> None:
    api.control("POST", "/_config", {"polls_needed": None, "process_s": 0.2}).raise_for_status()
    book = api.create()
    api.put(api.add_file(book)[1], AWS_FILE)
    began = time.monotonic()
    assert api.ingest(book).json()["data"]["status"] == "PROCESSING"
    while api.get(book)["status"] == "PROCESSING":
        assert time.monotonic() < began + 10
        time.sleep(0.02)
    assert time.monotonic() >= began + 0.2
    assert api.get(book)["status"] == "SUCCESS"


def test_an_ingestion_can_be_made_to_need_a_number_of_polls(api: Api) -> None:
    api.control("POST", "/_config", {"polls_needed": 3}).raise_for_status()
    book = api.create()
    api.put(api.add_file(book)[1], AWS_FILE)
    api.ingest(book)
    assert [api.get(book)["status"] for _ in range(4)] == ["PROCESSING", "PROCESSING", "SUCCESS", "SUCCESS"]


def test_a_final_status_on_order_ends_the_next_ingestion_only(api: Api) -> None:
    order = {"final_status": "QUARANTINED", "status_message": "odd prices"}
    api.control("POST", "/_config", order).raise_for_status()
    first, second = api.ingested(AWS_FILE), api.ingested(AWS_FILE)
    assert (first["status"], first["statusMessage"]) == ("QUARANTINED", "odd prices")
    assert second["status"] == "SUCCESS"


def test_an_ingestion_can_be_made_never_to_end(api: Api) -> None:
    api.control("POST", "/_config", {"never_finish": True}).raise_for_status()
    book = api.ingested(AWS_FILE)
    assert [api.get(book["id"])["status"] for _ in range(3)] == ["PROCESSING"] * 3
    api.control("POST", "/_config", {"never_finish": False}).raise_for_status()
    assert api.get(book["id"])["status"] == "SUCCESS"


def test_the_list_has_every_price_book_in_one_page(api: Api) -> None:
    books = [api.create() for _ in range(60)]
    page = api.http.get(api.books).json()
    assert [book["id"] for book in page["data"]] == books
    assert "links" not in page


def test_a_price_book_in_use_cannot_be_deleted(api: Api) -> None:
    book = api.ingested(AWS_FILE)["id"]
    api.activate(AWS_ORGANIZATION, book)
    refused = api.http.delete(f"{api.books}/{book}")
    assert refused.status_code == 409
    assert AWS_ORGANIZATION in error_of(refused)["detail"]
    api.activate(AWS_ORGANIZATION, None)
    assert api.http.delete(f"{api.books}/{book}").status_code == 204


def test_a_deleted_price_book_is_gone_with_its_files(api: Api) -> None:
    book = api.create()
    slot, url = api.add_file(book)
    api.put(url, AWS_FILE)
    response = api.http.delete(f"{api.books}/{book}")
    assert (response.status_code, response.content) == (204, b"")
    assert api.http.get(f"{api.books}/{book}").status_code == 404
    assert api.http.delete(f"{api.books}/{book}").status_code == 404
    assert api.http.get(api.books).json()["data"] == []
    assert api.put(url, AWS_FILE).status_code == 404
    assert api.control("GET", f"/_files/{slot}").status_code == 404


# --- organizations --------------------------------------------------------------------------------------------------


def test_an_activation_answers_the_organization_and_is_remembered(api: Api) -> None:
    book = api.ingested(AWS_FILE)["id"]
    response = api.activate(AWS_ORGANIZATION, book)
    assert response.status_code == 200
    organization = response.json()["data"]
    assert set(organization) == {"id", "name", "slug", "customPriceBookId", "createdAt", "updatedAt"}
    assert (organization["id"], organization["customPriceBookId"]) == (AWS_ORGANIZATION, book)


def test_an_organization_holds_one_book_and_its_history_is_kept(api: Api) -> None:
    first, second = api.ingested(AWS_FILE)["id"], api.ingested(AWS_FILE)["id"]
    for book in (first, second, None, first):
        assert api.activate(AWS_ORGANIZATION, book).status_code == 200
    organizations = {each["id"]: each for each in api.state()["organizations"]}
    assert set(organizations) == {PRIMARY_ORGANIZATION, AWS_ORGANIZATION, AZURE_ORGANIZATION}
    changed = organizations[AWS_ORGANIZATION]
    assert changed["customPriceBookId"] == first
    assert [each["customPriceBookId"] for each in changed["activations"]] == [first, second, None, first]
    assert all(TIME.fullmatch(each["time"]) for each in changed["activations"])
    assert organizations[AZURE_ORGANIZATION]["customPriceBookId"] is None


def test_only_a_successful_book_can_be_activated(api: Api) -> None:
    waiting, failed = api.create(), api.ingested(b"x")["id"]
    for book, words in ((waiting, "WAITING_FOR_UPLOAD"), (failed, "FAILED"), (UNKNOWN, "does not exist")):
        response = api.activate(AWS_ORGANIZATION, book)
        assert response.status_code == 400
        error = error_of(response)
        assert words in error["detail"]
        assert error["source"] == {"pointer": "/customPriceBookId"}
    assert all(each["customPriceBookId"] is None for each in api.state()["organizations"])


# --- uploads --------------------------------------------------------------------------------------------------------


def xml_code(response: httpx.Response) -> str:
    assert response.headers["content-type"].startswith("application/xml")
    found = re.search(r"<Code>(\w+)</Code>", response.text)
    assert found
    return found[1]


def test_what_was_uploaded_can_be_seen_and_read_back(api: Api) -> None:
    slot, url = api.add_file(api.create())
    assert api.put(url, AWS_FILE).status_code == 200
    (file,) = api.state()["price_books"][0]["files"]
    assert file == {
        "id": slot,
        "puts": 1,
        "bytes": len(AWS_FILE),
        "rows": 2,
        "sha256": hashlib.sha256(AWS_FILE).hexdigest(),
        "header_ok": True,
    }
    assert api.control("GET", f"/_files/{slot}").content == AWS_FILE


def test_a_second_upload_replaces_the_first(api: Api) -> None:
    slot, url = api.add_file(api.create())
    api.put(url, b"first")
    api.put(url, AWS_FILE)
    (file,) = api.state()["price_books"][0]["files"]
    assert (file["puts"], file["header_ok"]) == (2, True)
    assert api.control("GET", f"/_files/{slot}").content == AWS_FILE


def test_an_expired_address_is_answered_403_in_xml(api: Api) -> None:
    api.control("POST", "/_config", {"url_expiry_s": 0}).raise_for_status()
    _, url = api.add_file(api.create())
    response = api.put(url, AWS_FILE)
    assert response.status_code == 403
    assert xml_code(response) == "AccessDenied"
    assert "<Message>Request has expired</Message>" in response.text
    assert api.state()["price_books"][0]["files"][0]["puts"] == 0


@pytest.mark.parametrize(
    ("pattern", "replacement"),
    [
        (r"X-Amz-Expires=900", "X-Amz-Expires=9000"),
        (r"X-Amz-Signature=.", "X-Amz-Signature=z"),
        (r"$", "&x-id=PutObject"),
        (r"$", "&X-Amz-Expires=900"),
    ],
    ids=["later expiry", "other signature", "more", "twice"],
)
def test_a_tampered_query_is_answered_403_in_xml(api: Api, pattern: str, replacement: str) -> None:
    _, url = api.add_file(api.create())
    response = api.put(re.sub(pattern, replacement, url, count=1), AWS_FILE)
    assert (response.status_code, xml_code(response)) == (403, "SignatureDoesNotMatch")


def test_an_address_is_good_for_its_own_slot_only(api: Api) -> None:
    book = api.create()
    (first, url), (second, _) = api.add_file(book), api.add_file(book)
    assert xml_code(api.put(url.replace(first, second), AWS_FILE)) == "SignatureDoesNotMatch"
    assert api.put(url.partition("?")[0], AWS_FILE).status_code == 403


@pytest.mark.parametrize("content_type", ["application/octet-stream", "text/csv; charset=utf-8"])
def test_another_content_type_is_answered_403_in_xml(api: Api, content_type: str) -> None:
    _, url = api.add_file(api.create())
    response = api.put(url, AWS_FILE, {"Content-Type": content_type})
    assert (response.status_code, xml_code(response)) == (403, "SignatureDoesNotMatch")


def test_an_upload_with_an_authorization_header_is_answered_400_in_xml(api: Api) -> None:
    _, url = api.add_file(api.create())
    response = api.put(url, AWS_FILE, {"Authorization": f"Bearer {TOKEN}"})
    assert (response.status_code, xml_code(response)) == (400, "InvalidArgument")
    assert TOKEN not in json.dumps(api.state())


def test_a_chunked_upload_is_answered_501_in_xml(api: Api) -> None:
    _, url = api.add_file(api.create())
    response = api.plain.put(url, content=iter([AWS_FILE]), headers={"Content-Type": "text/csv"})
    assert (response.status_code, xml_code(response)) == (501, "NotImplemented")
    assert api.state()["price_books"][0]["files"][0]["puts"] == 0


def upload_head(url: str, *headers: str) -> bytes:
    parts = urlsplit(url)
    lines = [f"PUT {parts.path}?{parts.query} HTTP/1.1", f"Host: {parts.netloc}", "Content-Type: text/csv", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    assert parts.port
    return socket.create_connection(("127.0.0.1", parts.port), timeout=10)


def test_an_upload_without_a_content_length_is_answered_411_in_xml(api: Api) -> None:
    _, url = api.add_file(api.create())
    with connect(url) as connection:
        connection.sendall(upload_head(url))
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    assert received.startswith(b"HTTP/1.1 411 ")
    assert b"<Code>MissingContentLength</Code>" in received


def test_an_upload_that_the_client_breaks_off_stores_nothing(api: Api) -> None:
    _, url = api.add_file(api.create())
    with connect(url) as connection:
        connection.sendall(upload_head(url, f"Content-Length: {len(AWS_FILE)}") + AWS_FILE[:-1])
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(65536) == b""
    state = api.state()
    assert state["price_books"][0]["files"][0]["puts"] == 0
    assert state["calls"][-1]["fault"] == "client_broke_off"


def test_an_answer_to_an_upload_comes_even_when_its_body_was_not_wanted(api: Api) -> None:
    _, url = api.add_file(api.create())
    response = api.put(url.partition("?")[0], bytes(8_000_000))
    assert (response.status_code, xml_code(response)) == (403, "AccessDenied")


# --- what the server shows of itself --------------------------------------------------------------------------------


def test_calls_are_recorded_with_their_template_status_and_id_and_without_secrets(api: Api) -> None:
    book = api.create()
    _, url = api.add_file(book)
    api.put(url, AWS_FILE)
    missing = api.http.get(f"{api.books}/{UNKNOWN}")
    state = api.state()
    seen = [(call["method"], call["operation"], call["status"]) for call in state["calls"]]
    assert seen == [
        ("POST", "createPriceBook", 201),
        ("POST", "createPriceBookFile", 201),
        ("PUT", "uploadPriceBookFile", 200),
        ("GET", "getPriceBook", 404),
    ]
    assert state["calls"][3]["path_template"] == "/v1/enterprises/{enterpriseId}/price-books/{priceBookId}"
    assert state["calls"][3]["request_id"] == missing.headers["x-request-id"]
    assert TIME.fullmatch(state["calls"][3]["time"])
    assert state["counts"] == {
        "createPriceBook": 1,
        "createPriceBookFile": 1,
        "uploadPriceBookFile": 1,
        "getPriceBook": 1,
    }
    text = json.dumps(state)
    assert TOKEN not in text
    assert "X-Amz" not in text


def test_every_answer_has_a_request_id_of_its_own(api: Api) -> None:
    api.fault("listPriceBooks", {"kind": "html"})
    _, url = api.add_file(api.create())
    responses = [
        api.http.get(api.books),
        api.http.get(api.books),
        api.plain.get(api.books),
        api.http.get(f"{api.server.url}/nowhere"),
        api.put(url, AWS_FILE),
        api.put(url + "x", AWS_FILE),
        api.control("GET", "/_state"),
    ]
    assert [response.status_code for response in responses] == [502, 200, 401, 404, 200, 403, 200]
    assert len({response.headers["x-request-id"] for response in responses}) == len(responses)


def test_a_connection_is_kept_for_the_next_request(api: Api) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", urlsplit(api.server.url).port, timeout=10)
    connection.connect()
    kept = connection.sock
    for body in (b'{"provider": "AWS"}', b"{", b'{"provider": "AZURE"}'):
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        connection.request("POST", urlsplit(api.books).path, body, headers)
        connection.getresponse().read()
        assert connection.sock is kept
    connection.close()
    assert [book["provider"] for book in api.state()["price_books"]] == ["AWS", "AZURE"]


def test_a_nonsensical_content_length_is_answered_400(api: Api) -> None:
    with connect(api.server.url) as connection:
        connection.sendall(b"POST /v1/x HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 400 ")


def test_many_callers_at_once_lose_nothing(api: Api) -> None:
    with ThreadPoolExecutor(8) as pool:
        books = list(pool.map(lambda _: api.create(), range(64)))
    state = api.state()
    assert len(set(books)) == 64
    assert {book["id"] for book in state["price_books"]} == set(books)
    assert state["counts"] == {"createPriceBook": 64}


def test_a_reset_forgets_everything(api: Api) -> None:
    slot, url = api.add_file(api.create())
    api.put(url, AWS_FILE)
    api.http.post(api.books)
    api.fault("*", {"kind": "reset"})
    api.control("POST", "/_config", {"never_finish": True}).raise_for_status()
    assert api.control("POST", "/_reset").status_code == 200
    state = api.state()
    assert (state["price_books"], state["calls"], state["violations"]) == ([], [], [])
    assert api.control("GET", "/_faults").json() == []
    assert api.control("GET", "/_config").json()["never_finish"] is False
    assert api.control("GET", f"/_files/{slot}").status_code == 404


@pytest.mark.parametrize("wanted", [{"proces_s": 1}, {"process_s": -1}, [], {"tokens": "x"}], ids=str)
def test_a_configuration_that_makes_no_sense_is_refused(api: Api, wanted: object) -> None:
    before = api.control("GET", "/_config").json()
    assert api.control("POST", "/_config", wanted).status_code == 400
    assert api.control("GET", "/_config").json() == before


# --- faults ---------------------------------------------------------------------------------------------------------


def providers(api: Api) -> list[str]:
    return [book["provider"] for book in api.state()["price_books"]]


def test_a_status_fault_answers_without_acting(api: Api) -> None:
    fault = {"kind": "status", "status": 429, "headers": {"Retry-After": "7"}, "body": {"message": "slow down"}}
    api.fault("createPriceBook", fault)
    response = api.http.post(api.books, json={"provider": "AWS"})
    assert (response.status_code, response.headers["retry-after"]) == (429, "7")
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {"message": "slow down"}
    assert providers(api) == []
    api.create("AZURE")
    assert providers(api) == ["AZURE"]
    assert [call["fault"] for call in api.state()["calls"]] == ["status", None]


def test_a_status_fault_can_speak_the_storages_language(api: Api) -> None:
    _, url = api.add_file(api.create())
    xml = "<Error><Code>SlowDown</Code></Error>"
    api.fault("uploadPriceBookFile", {"kind": "status", "status": 503, "body": xml, "content_type": "application/xml"})
    assert xml_code(api.put(url, AWS_FILE)) == "SlowDown"
    assert api.put(url, AWS_FILE).status_code == 200


def test_a_delay_fault_answers_late(api: Api) -> None:
    api.fault("createPriceBook", {"kind": "delay", "seconds": 0.3})
    began = time.monotonic()
    api.create()
    assert time.monotonic() - began >= 0.3
    assert providers(api) == ["AWS"]


def test_a_delayed_call_acts_although_the_client_gave_up(api: Api) -> None:
    api.fault("createPriceBook", {"kind": "delay", "seconds": 0.2})
    with pytest.raises(httpx.ReadTimeout):
        api.http.post(api.books, json={"provider": "AWS"}, timeout=0.05)
    deadline = time.monotonic() + 10
    while not providers(api):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_stopping_server_does_not_wait_for_a_delayed_call() -> None:
    with InfracostStandIn() as server:
        client = httpx.Client(headers={"Authorization": f"Bearer {TOKEN}"})
        api = Api(server, client, client)
        api.fault("createPriceBook", {"kind": "delay", "seconds": 60})
        failures: list[Exception] = []

        def call() -> None:
            try:
                api.create()
            except httpx.TransportError as error:
                failures.append(error)

        caller = threading.Thread(target=call)
        caller.start()
        while not server.state()["calls"]:
            time.sleep(0.01)
    caller.join(10)
    api.http.close()
    assert len(failures) == 1


def test_a_reset_fault_breaks_the_connection_before_acting(api: Api) -> None:
    api.fault("createPriceBook", {"kind": "reset"})
    with pytest.raises(httpx.ReadError) as broken:
        api.http.post(api.books, json={"provider": "AWS"})
    assert "reset" in str(broken.value).lower()
    assert providers(api) == []
    assert api.state()["calls"][0]["status"] is None
    api.create()


def test_a_lost_answer_fault_acts_and_answers_nothing(api: Api) -> None:
    api.fault("createPriceBook", {"kind": "lost_answer"})
    with pytest.raises(httpx.RemoteProtocolError):
        api.http.post(api.books, json={"provider": "AWS"})
    assert providers(api) == ["AWS"]
    assert api.state()["calls"][0]["status"] == 201


@pytest.mark.parametrize("status", [500, 502, 504])
def test_a_lost_answer_status_fault_acts_and_answers_an_error(api: Api, status: int) -> None:
    api.fault("createPriceBook", {"kind": "lost_answer_status", "status": status})
    assert api.http.post(api.books, json={"provider": "AWS"}).status_code == status
    assert providers(api) == ["AWS"]


def test_a_half_body_fault_acts_and_breaks_off_in_the_answer(api: Api) -> None:
    api.fault("createPriceBook", {"kind": "half_body"})
    with api.http.stream("POST", api.books, json={"provider": "AWS"}) as response:
        announced = int(response.headers["content-length"])
        received: list[bytes] = []
        with pytest.raises(httpx.RemoteProtocolError, match="without sending complete message body"):
            received.extend(response.iter_raw())
    assert sum(map(len, received)) == announced // 2
    assert providers(api) == ["AWS"]


def test_an_html_fault_answers_a_page_without_acting(api: Api) -> None:
    api.fault("createPriceBook", {"kind": "html", "status": 503})
    response = api.http.post(api.books, json={"provider": "AWS"})
    assert response.status_code == 503
    assert response.headers["content-type"].startswith("text/html")
    assert "<h1>503 Service Unavailable</h1>" in response.text
    assert providers(api) == []


def test_an_empty_fault_acts_and_answers_success_without_a_body(api: Api) -> None:
    api.fault("createPriceBook", {"kind": "empty"})
    response = api.http.post(api.books, json={"provider": "AWS"})
    assert (response.status_code, response.content) == (201, b"")
    assert providers(api) == ["AWS"]


def test_a_half_read_fault_breaks_an_upload_in_its_middle(api: Api) -> None:
    _, url = api.add_file(api.create())
    api.fault("uploadPriceBookFile", {"kind": "half_read"})
    with pytest.raises(httpx.TransportError):
        api.put(url, AWS_FILE + bytes(16_000_000))
    assert api.state()["price_books"][0]["files"][0]["puts"] == 0
    assert api.put(url, AWS_FILE).status_code == 200


def test_a_lost_answer_to_an_upload_leaves_the_file_stored(api: Api) -> None:
    _, url = api.add_file(api.create())
    api.fault("uploadPriceBookFile", {"kind": "lost_answer"})
    with pytest.raises(httpx.RemoteProtocolError):
        api.put(url, AWS_FILE)
    assert api.state()["price_books"][0]["files"][0]["puts"] == 1


def test_a_fault_strikes_its_operation_only_after_and_as_often_as_ordered(api: Api) -> None:
    api.fault("createPriceBook", {"kind": "html"}, after=1, times=2)
    api.http.get(api.books).raise_for_status()
    statuses = [api.http.post(api.books, json={"provider": "AWS"}).status_code for _ in range(4)]
    assert statuses == [201, 502, 502, 201]


def test_a_fault_can_be_meant_for_any_operation(api: Api) -> None:
    api.fault("*", {"kind": "html"}, times=2)
    assert api.http.get(api.books).status_code == 502
    assert api.activate(AWS_ORGANIZATION, None).status_code == 502
    assert api.http.get(api.books).status_code == 200


def test_several_faults_for_one_operation_strike_one_after_another(api: Api) -> None:
    orders = [
        {"operation": "listPriceBooks", "fault": {"kind": "html", "status": 502}},
        {"operation": "listPriceBooks", "fault": {"kind": "status", "status": 429}},
    ]
    api.control("POST", "/_faults", orders).raise_for_status()
    assert [api.http.get(api.books).status_code for _ in range(3)] == [502, 429, 200]


def test_the_faults_still_to_come_are_shown_and_can_be_cleared(api: Api) -> None:
    api.fault("listPriceBooks", {"kind": "html"}, times=3)
    api.http.get(api.books)
    (left,) = api.control("GET", "/_faults").json()
    assert (left["operation"], left["times"], left["fault"]["kind"]) == ("listPriceBooks", 2, "html")
    assert api.control("DELETE", "/_faults").json() == []
    assert api.http.get(api.books).status_code == 200


@pytest.mark.parametrize(
    "orders",
    [
        [{"operation": "createPricebook", "fault": {"kind": "reset"}}],
        [{"operation": "*", "fault": {"kind": "rest"}}],
        [{"operation": "*", "time": 2, "fault": {"kind": "reset"}}],
        {"operation": "*", "fault": {"kind": "reset"}},
        [{"operation": "*", "fault": {"kind": "status"}}],
    ],
    ids=["operation", "kind", "extra field", "no list", "field missing"],
)
def test_an_order_for_a_fault_that_makes_no_sense_is_refused(api: Api, orders: object) -> None:
    assert api.control("POST", "/_faults", orders).status_code == 400
    assert api.control("GET", "/_faults").json() == []


# --- as a process ---------------------------------------------------------------------------------------------------


@pytest.fixture
def process() -> Iterator[subprocess.Popen[str]]:
    arguments = ["--port", "0", "--token", "mine", "--enterprise", UNKNOWN, "--primary-org", AWS_ORGANIZATION]
    arguments += ["--organization", f"{AZURE_ORGANIZATION}:Azure: prices"]
    with subprocess.Popen(  # noqa: S603 - this interpreter, and arguments written here
        [sys.executable, "-m", "local.standins.infracost", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as started:
        yield started
        started.kill()


def test_as_a_process_it_says_its_address_serves_large_uploads_in_constant_memory_and_ends_on_sigterm(
    process: subprocess.Popen[str],
) -> None:
    assert process.stdout
    ready = json.loads(process.stdout.readline())
    assert ready["api_url"] == f"{ready['url']}/v1"
    books = f"{ready['api_url']}/enterprises/{UNKNOWN}/price-books"
    block = aws_row().encode() * 20_000
    size = len(AWS_HEADER) + 100 * len(block)

    def content() -> Iterator[bytes]:
        yield AWS_HEADER.encode()
        for _ in range(100):
            yield block

    with httpx.Client(headers={"Authorization": "Bearer mine"}, timeout=60) as client:
        book = client.post(books, json={"provider": "AWS"}).raise_for_status().json()["data"]["id"]
        url = client.post(f"{books}/{book}/files").raise_for_status().json()["data"]["preSignedUrl"]
        before = peak_bytes(process.pid)
        httpx.put(
            url, content=content(), headers={"Content-Type": "text/csv", "Content-Length": str(size)}, timeout=60
        ).raise_for_status()
        grown = peak_bytes(process.pid) - before
        state = client.get(f"{ready['url']}/_state").json()
    assert size > 90_000_000
    assert grown < 16_000_000
    assert (state["price_books"][0]["files"][0]["bytes"], state["price_books"][0]["files"][0]["rows"]) == (
        size,
        2_000_000,
    )
    assert [(each["id"], each["name"]) for each in state["organizations"]] == [
        (AWS_ORGANIZATION, "Primary"),
        (AZURE_ORGANIZATION, "Azure: prices"),
    ]
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(10) == 0


def peak_bytes(pid: int) -> int:
    """The most memory that a process has held, as Linux counts it."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(encoding="utf-8"))
    assert found
    return int(found[1]) * 1024


def test_control_addresses_answer_below_the_base_path_too() -> None:
    """Who was given the API's address finds the state beside it."""
    with InfracostStandIn() as server:
        assert httpx.get(f"{server.api_url}/_state").json()["price_books"] == []
        assert httpx.get(f"{server.url}/_state").json()["price_books"] == []

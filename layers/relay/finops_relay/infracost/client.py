"""The calls of the Infracost Cloud API that price books need (contract: Infracost API, "Price Books")."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, SecretStr, ValidationError

from finops_relay.errors import AnswerNotUnderstood, Call, UploadRefused
from finops_relay.http.client import Answer, HttpClient
from finops_relay.infracost.models import FileSlot, Organization, PriceBook, Provider

Model = TypeVar("Model", bound=BaseModel)

ADVICE = {
    401: (
        "This is a CLI token or an expired one: create a service account under Org Settings > API tokens and put its"
        " token into the secret"
    ),
    403: "The service account needs orgAdmin of the enterprise's primary organization",
    404: "Check the enterprise id, the organization id and the organization slug (Org Settings > General)",
    413: "The file is larger than the vendor takes",
}

_REGION = r"[a-z]{2}(?:-[a-z]+)+-[0-9]+"
S3_HOST = re.compile(
    r"(?:[a-z0-9._-]+\.)?"  # a bucket
    r"s3(?:-fips|-accelerate|-accesspoint|-accesspoint-fips|-external-1)?(?:\.dualstack)?"
    rf"(?:[.-]{_REGION})?\.amazonaws\.com(?:\.cn)?"
)
"""Hosts that S3 answers on: virtual-hosted and path style, regional, dual-stack, China (S3 user guide, endpoints).

Not every name under amazonaws.com: load balancers, gateways and machines of anybody have theirs there too.
"""
HTTPS_PORT = 443

BOOK = "/enterprises/{enterpriseId}/price-books/{priceBookId}"


def api_base(url: str) -> str:
    """Return the base address of the API: without a slash at its end, and under ``/v1`` if *url* names no path."""
    base = url.rstrip("/")
    return base if urlsplit(base).path else f"{base}/v1"


@dataclass(frozen=True)
class Infracost:
    """A client for one enterprise's or organization's token; each method is one call."""

    http: HttpClient

    def create_price_book(self, enterprise_id: str, provider: Provider) -> PriceBook:
        """Create an empty price book. NOT safe to repeat: each call makes another one.

        Raises OutcomeUnknown when a book may have been made.
        """
        path = "/enterprises/{enterpriseId}/price-books"
        answer = self.http.request(
            "POST", path, ids={"enterpriseId": enterprise_id}, body={"provider": provider.value}, safe=False
        )
        return _data(answer, PriceBook)

    def add_price_book_file(self, enterprise_id: str, price_book_id: str) -> FileSlot:
        """Add a file slot to a price book. NOT safe to repeat: each call makes another one."""
        ids = {"enterpriseId": enterprise_id, "priceBookId": price_book_id}
        return _data(self.http.request("POST", BOOK + "/files", ids=ids, safe=False), FileSlot)

    def upload_price_book_file(self, url: SecretStr, chunks: Callable[[], Iterable[bytes]], length: int) -> Answer:
        """PUT a file of *length* bytes to the address of its slot. Safe to repeat: it replaces.

        Raises UploadRefused when the address is not one to upload to, has expired or does not fit.
        """
        self._check_upload_address(url.get_secret_value())
        return self.http.upload("{preSignedUrl}", url.get_secret_value(), chunks, length, "text/csv")

    def ingest_price_book(self, enterprise_id: str, price_book_id: str) -> PriceBook:
        """Start the ingestion. NOT safe to repeat blindly: read the status first."""
        ids = {"enterpriseId": enterprise_id, "priceBookId": price_book_id}
        return _data(self.http.request("POST", BOOK + "/ingest", ids=ids, safe=False), PriceBook)

    def price_book(self, enterprise_id: str, price_book_id: str) -> PriceBook:
        """Return a price book with its status. Safe to repeat."""
        ids = {"enterpriseId": enterprise_id, "priceBookId": price_book_id}
        return _data(self.http.request("GET", BOOK, ids=ids, safe=True), PriceBook)

    def price_books(self, enterprise_id: str) -> tuple[PriceBook, ...]:
        """Return the first page of price books; no further page is documented. Safe to repeat."""
        path = "/enterprises/{enterpriseId}/price-books"
        answer = self.http.request("GET", path, ids={"enterpriseId": enterprise_id}, safe=True)
        found = answer.json()
        books = found.get("data") if isinstance(found, dict) else None
        if not isinstance(books, list):
            msg = "the answer has no list under 'data'"
            raise AnswerNotUnderstood(msg, answer.call)
        return tuple(_model(answer, PriceBook, book) for book in books)

    def delete_price_book(self, enterprise_id: str, price_book_id: str) -> None:
        """Delete a price book. Safe to repeat: a second time it is not found."""
        ids = {"enterpriseId": enterprise_id, "priceBookId": price_book_id}
        self.http.request("DELETE", BOOK, ids=ids, safe=True)

    def activate_price_book(self, organization_id: str, price_book_id: str) -> tuple[Organization, str]:
        """Make an organization use a price book; return it and the request's id. Safe to repeat: it sets a value."""
        answer = self.http.request(
            "PATCH",
            "/organizations/{organizationId}",
            ids={"organizationId": organization_id},
            body={"customPriceBookId": price_book_id},
            safe=True,
        )
        organization = _data(answer, Organization)
        if organization.custom_price_book_id != price_book_id:
            msg = f"the organization now names {organization.custom_price_book_id!r} instead of the book asked for"
            raise AnswerNotUnderstood(msg, answer.call)
        return organization, answer.request_id

    def _check_upload_address(self, url: str) -> None:
        """Refuse an address that is not https on an S3 host, or on the API's own host if that is not the vendor's."""
        call = Call("PUT", "{preSignedUrl}")
        try:
            parts, own = urlsplit(url), urlsplit(self.http.base_url)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            msg = "the vendor gave an upload address that is no address; nothing was sent"
            raise UploadRefused(msg, call) from None
        if "@" in parts.netloc:
            msg = "the vendor gave an upload address with credentials in it; nothing was sent"
            raise UploadRefused(msg, call)
        vendors_own = f".{own.hostname}".endswith(".infracost.io")
        if not vendors_own and host and host == own.hostname and parts.scheme in {"https", own.scheme}:
            return
        if parts.scheme != "https" or port not in {None, HTTPS_PORT} or not S3_HOST.fullmatch(host):
            msg = f"the vendor gave an upload address that is not https on S3 (host {host[:100]!r}); nothing was sent"
            raise UploadRefused(msg, call)


def _data(answer: Answer, model: type[Model]) -> Model:
    """Return what stands under ``data``, checked. Raises AnswerNotUnderstood."""
    found = answer.json()
    return _model(answer, model, found.get("data") if isinstance(found, dict) else None)


def _model(answer: Answer, model: type[Model], found: object) -> Model:
    """Return *found* as *model*; what does not fit is named without its value, which may be a secret."""
    try:
        return model.model_validate(found)
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, problem["loc"])) or "data" for problem in error.errors())
        msg = f"the answer does not fit the contract at: {fields}"
        raise AnswerNotUnderstood(msg, answer.call) from None

"""A client for Infracost Cloud, whole: each method is one call, and says whether repeating it can do harm.

Contract: Infracost API (docs/openapi/infracost.yaml has every operation, with the source of each part).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, SecretStr

from finops_relay.errors import AnswerNotUnderstood, ChangeNotKept
from finops_relay.http.answers import Answer
from finops_relay.http.auth import Credential, fixed
from finops_relay.http.client import HttpClient
from finops_relay.http.pages import Next, pages
from finops_relay.infracost.advice import advice
from finops_relay.infracost.allowed_values import (
    NOTHING,
    AllowedValues,
    beside,
    difference,
    is_set,
    lost_beside,
    tags_with,
    warnings_of,
)
from finops_relay.infracost.checks import (
    check_new_guardrail,
    check_not_empty,
    check_properties,
    check_thresholds,
    checked_policy,
    list_of,
    takes_threshold_away,
)
from finops_relay.infracost.models import (
    FileSlot,
    Guardrail,
    GuardrailChange,
    Organization,
    PolicyChange,
    PriceBook,
    Provider,
    TaggingPolicy,
)
from finops_relay.infracost.upload_address import UPLOAD, check_upload_address

Model = TypeVar("Model", bound=BaseModel)

API = "https://api.infracost.io/v1"

BOOKS = "/enterprises/{enterpriseId}/price-books"
BOOK = BOOKS + "/{priceBookId}"
POLICIES = "/orgs/{orgSlug}/tagging-policies"
POLICY = POLICIES + "/{policyId}"
GUARDRAILS = "/orgs/{orgSlug}/guardrails"
GUARDRAIL = GUARDRAILS + "/{guardrailId}"
PROPERTIES = "/orgs/{orgSlug}/custom-properties"


def api_base(url: str) -> str:
    """Return the base address of the API: without a slash at its end, and under ``/v1`` if *url* names no path."""
    base = url.rstrip("/")
    return base if urlsplit(base).path else f"{base}/v1"


def connect(token: SecretStr, url: str = API) -> Infracost:
    """Return a client for one service account token; nothing is sent yet."""
    return Infracost(HttpClient(api_base(url), Credential(fixed(token), "the token that was given"), advice))


@dataclass(frozen=True)
class Infracost:
    """A client for one token: an organization's own, or for enterprise calls its primary organization's.

    Each method raises VendorError, as the tree in `finops_relay.errors` says, besides what it names itself.
    """

    http: HttpClient

    def close(self) -> None:
        """Close the connections."""
        self.http.wire.close()

    # --- tagging policies (contract: "Tagging policies") ------------------------------------------------------------

    def tagging_policies(self, slug: str) -> tuple[TaggingPolicy, ...]:
        """Return all tagging policies of an organization. Safe to repeat."""
        return self._all(POLICIES, {"orgSlug": slug}, TaggingPolicy)

    def tagging_policy(self, slug: str, policy_id: str) -> TaggingPolicy:
        """Return a tagging policy. Safe to repeat."""
        return _data(self._tagging_policy(slug, policy_id), TaggingPolicy)

    def whole_tagging_policy(self, slug: str, policy_id: str) -> TaggingPolicy:
        """Return a tagging policy whose tags are going to be written back, all of them. Safe to repeat.

        Raises AnswerNotUnderstood when the answer is about another policy, or names no list of tags: written back, it
        would take away what it does not show.
        """
        answer = self._tagging_policy(slug, policy_id)
        found = _data(answer, TaggingPolicy)
        if found.id.lower() != policy_id.lower():
            msg = f"the answer is about policy {found.id!r}, not about the one that was asked for"
            raise AnswerNotUnderstood(msg, answer.call)
        if found.attributes.tags is None:
            raise AnswerNotUnderstood("the answer names no list of tags", answer.call)
        return found

    def _tagging_policy(self, slug: str, policy_id: str) -> Answer:
        return self.http.request("GET", POLICY, ids=_policy(slug, policy_id), safe=True)

    def create_tagging_policy(self, slug: str, new: PolicyChange) -> TaggingPolicy:
        """Create a tagging policy. NOT safe to repeat: each call makes another one.

        Raises InputRefused for a list without values and for an expression that RE2 cannot compile.
        """
        body = _resource("tagging-policies", checked_policy(new).body())
        return _data(self.http.request("POST", POLICIES, ids={"orgSlug": slug}, body=body, safe=False), TaggingPolicy)

    def update_tagging_policy(self, slug: str, policy_id: str, change: PolicyChange) -> TaggingPolicy:
        """Set what *change* names. Safe to repeat: it sets values.

        ``tags`` are all tags of the policy: read them first, or use `set_allowed_values`.
        Raises InputRefused as `create_tagging_policy`.
        """
        given = checked_policy(change).body()
        check_not_empty(given, "policy")
        body = _resource("tagging-policies", given)
        answer = self.http.request("PATCH", POLICY, ids=_policy(slug, policy_id), body=body, safe=True)
        return _data(answer, TaggingPolicy)

    def delete_tagging_policy(self, slug: str, policy_id: str) -> None:
        """Delete a tagging policy. Safe to repeat: a second time it is not found."""
        self.http.request("DELETE", POLICY, ids=_policy(slug, policy_id), safe=True)

    def set_allowed_values(  # noqa: PLR0913 -- what names the tag, and what is set of it
        self,
        slug: str,
        policy_id: str,
        key: str,
        values: Iterable[str],
        *,
        adopt: bool = False,
        settings: Mapping[str, object] = NOTHING,
        before: TaggingPolicy | None = None,
    ) -> AllowedValues:
        """Set the allowed values of one tag; all other tags, and what else the tag has, stay. Safe to repeat.

        They stay as the first read shows them: what somebody else changes between the two is undone.

        One read, one PATCH of the whole array (whether the vendor replaces or merges it is not documented), one read
        to verify; when the values stand there already, the first read is all.

        Args:
            slug: of the organization.
            policy_id: of the tagging policy.
            key: of the tag, case included.
            values: all allowed values; sent sorted, each once.
            adopt: also add the tag where it is missing, and make it a LIST where it is none.
            settings: further attributes of the tag to set, by the names of `Tag`.
            before: the policy, where it was just read; then the PATCH is the first call.

        Raises:
            InputRefused: there are no values; there is no such tag or it is no LIST, unless *adopt*.
            ChangeNotKept: the vendor shows something else afterwards.
        """
        wanted = list_of(key, values)
        before = before or self.whole_tagging_policy(slug, policy_id)
        tags = tags_with(before, key, wanted, settings, adopt=adopt)
        former = set(before.tags[key].allowed_values or ()) if key in before.tags else set()
        if is_set(before, key, wanted, settings):
            return AllowedValues(before, (), (), warnings_of(before.tags[key]), changed=False)
        body = _resource("tagging-policies", PolicyChange(tags=tags).body())
        answer = self.http.request("PATCH", POLICY, ids=_policy(slug, policy_id), body=body, safe=True)
        after = self.whole_tagging_policy(slug, policy_id)
        lost = lost_beside(beside(before, key, settings), after, key)
        if lost or not is_set(after, key, wanted, settings):
            said = difference(after, key, wanted, settings)
            msg = f"not as before the change: {', '.join(lost)}" if lost else said
            raise ChangeNotKept(msg, answer.call)
        return AllowedValues(
            after,
            added=tuple(value for value in wanted if value not in former),
            removed=tuple(sorted(former.difference(wanted))),
            warnings=warnings_of(after.tags[key]),
            changed=True,
            request_id=answer.request_id,
        )

    # --- guardrails (contract: "Guardrails") ------------------------------------------------------------------------

    def guardrails(self, slug: str) -> tuple[Guardrail, ...]:
        """Return all guardrails of an organization. Safe to repeat."""
        return self._all(GUARDRAILS, {"orgSlug": slug}, Guardrail)

    def guardrail(self, slug: str, guardrail_id: str) -> Guardrail:
        """Return a guardrail. Safe to repeat."""
        return _data(self.http.request("GET", GUARDRAIL, ids=_guardrail(slug, guardrail_id), safe=True), Guardrail)

    def create_guardrail(self, slug: str, new: GuardrailChange) -> Guardrail:
        """Create a guardrail. NOT safe to repeat: each call makes another one.

        ``webhookUrl`` is always sent, empty when there is none, as the vendor's own client does.
        Raises InputRefused for one without a name or a threshold: it would never trigger.
        """
        check_new_guardrail(new)
        body = _resource("guardrails", {"webhookUrl": "", **new.body()})
        ids = {"orgSlug": slug}
        answer = self.http.request("POST", GUARDRAILS, ids=ids, body=body, secrets=new.secrets, safe=False)
        return _data(answer, Guardrail)

    def update_guardrail(self, slug: str, guardrail_id: str, change: GuardrailChange) -> Guardrail:
        """Set what *change* names, and nothing else. Safe to repeat: it sets values.

        A threshold that is None is taken away; then the guardrail is read first.
        Raises InputRefused when none would be left: it would never trigger.
        """
        given = change.body()
        check_not_empty(given, "guardrail")
        if takes_threshold_away(change):
            check_thresholds(self.guardrail(slug, guardrail_id).attributes, change)
        ids, body = _guardrail(slug, guardrail_id), _resource("guardrails", given)
        answer = self.http.request("PATCH", GUARDRAIL, ids=ids, body=body, secrets=change.secrets, safe=True)
        return _data(answer, Guardrail)

    def delete_guardrail(self, slug: str, guardrail_id: str) -> None:
        """Delete a guardrail. Safe to repeat: a second time it is not found."""
        self.http.request("DELETE", GUARDRAIL, ids=_guardrail(slug, guardrail_id), safe=True)

    # --- custom properties (contract: "Custom properties") ----------------------------------------------------------

    def upload_custom_properties(self, slug: str, csv: bytes) -> str:
        r"""Replace all custom properties by a CSV, sent as it is; return the request's id. Safe to repeat.

        There is no way to read them back.

        Args:
            slug: of the organization.
            csv: UTF-8, lines ended by ``\n``, a header and at least one row.

        Raises:
            InputRefused: it would empty what Infracost holds, or is not UTF-8.
        """
        check_properties(csv)
        ids = {"orgSlug": slug}
        answer = self.http.request("POST", PROPERTIES, ids=ids, body=csv, media_type="text/csv", safe=True)
        said = answer.json() if answer.body.lstrip()[:1] == b"{" else None
        if isinstance(said, dict) and (said.get("errors") or said.get("error")):
            raise AnswerNotUnderstood("the answer is a good one by its status, and names errors", answer.call)
        return answer.request_id

    # --- price books (contract: "Price Books") ----------------------------------------------------------------------

    def create_price_book(self, enterprise_id: str, provider: Provider) -> PriceBook:
        """Create an empty price book. NOT safe to repeat: each call makes another one.

        Raises OutcomeUnknown when a book may have been made.
        """
        ids, body = {"enterpriseId": enterprise_id}, {"provider": provider.value}
        return _data(self.http.request("POST", BOOKS, ids=ids, body=body, safe=False), PriceBook)

    def add_price_book_file(self, enterprise_id: str, price_book_id: str) -> FileSlot:
        """Add a file slot to a price book. NOT safe to repeat: each call makes another one."""
        ids = _book(enterprise_id, price_book_id)
        return _data(self.http.request("POST", BOOK + "/files", ids=ids, safe=False), FileSlot)

    def upload_price_book_file(self, url: SecretStr, chunks: Callable[[], Iterable[bytes]], length: int) -> Answer:
        """PUT a file of *length* bytes to the address of its slot. Safe to repeat: it replaces.

        Raises UploadRefused when the address is not one to upload to, has expired or does not fit.
        """
        address = url.get_secret_value()
        check_upload_address(address, self.http.base_url)
        return self.http.upload(UPLOAD, address, chunks, length, "text/csv")

    def ingest_price_book(self, enterprise_id: str, price_book_id: str) -> PriceBook:
        """Start the ingestion. NOT safe to repeat blindly: read the status first."""
        ids = _book(enterprise_id, price_book_id)
        return _data(self.http.request("POST", BOOK + "/ingest", ids=ids, safe=False), PriceBook)

    def price_book(self, enterprise_id: str, price_book_id: str) -> PriceBook:
        """Return a price book with its status. Safe to repeat."""
        return _data(self.http.request("GET", BOOK, ids=_book(enterprise_id, price_book_id), safe=True), PriceBook)

    def price_books(self, enterprise_id: str) -> tuple[PriceBook, ...]:
        """Return all price books of an enterprise. Safe to repeat."""
        return self._all(BOOKS, {"enterpriseId": enterprise_id}, PriceBook)

    def delete_price_book(self, enterprise_id: str, price_book_id: str) -> None:
        """Delete a price book. Safe to repeat: a second time it is not found."""
        self.http.request("DELETE", BOOK, ids=_book(enterprise_id, price_book_id), safe=True)

    # --- organizations (contract: "Price Books", activation) --------------------------------------------------------

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
        if (organization.custom_price_book_id or "").lower() != price_book_id.lower():
            msg = f"the organization now names {organization.custom_price_book_id!r} instead of the book asked for"
            raise AnswerNotUnderstood(msg, answer.call)
        return organization, answer.request_id

    def _all(self, path: str, ids: Mapping[str, str], model: type[Model]) -> tuple[Model, ...]:
        """Return what a list holds, all its pages."""
        found = pages(self.http, "GET", path, _next, ids=ids)
        return tuple(answer.fitted(model, item) for answer in found for item in answer.listed("data"))


def _next(answer: Answer) -> Next | None:
    """Return JSON:API's next page; none is documented, so there may never be one. Raises AnswerNotUnderstood."""
    links = answer.json().get("links")
    address = links.get("next") if isinstance(links, dict) else None
    if isinstance(address, dict):  # JSON:API lets a link be an object
        address = address.get("href")
    if address is None or address == "":
        return None
    if not isinstance(address, str):
        msg = "the answer has a next page, but no address of it"
        raise AnswerNotUnderstood(msg, answer.call)
    return Next(address)


def _data(answer: Answer, model: type[Model]) -> Model:
    """Return what stands under ``data``, checked. Raises AnswerNotUnderstood."""
    return answer.fitted(model, answer.under("data"))


def _resource(kind: str, attributes: Mapping[str, object]) -> dict[str, object]:
    """Return the body of a call on a JSON:API resource."""
    return {"data": {"type": kind, "attributes": attributes}}


def _policy(slug: str, policy_id: str) -> dict[str, str]:
    return {"orgSlug": slug, "policyId": policy_id}


def _guardrail(slug: str, guardrail_id: str) -> dict[str, str]:
    return {"orgSlug": slug, "guardrailId": guardrail_id}


def _book(enterprise_id: str, price_book_id: str) -> dict[str, str]:
    return {"enterpriseId": enterprise_id, "priceBookId": price_book_id}

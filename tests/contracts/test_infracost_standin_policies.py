"""Tagging policies, guardrails, custom properties and pages at the Infracost stand-in: strict, and awkward on order."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import pytest

from local.standins.account import Token
from local.standins.infracost import (
    AWS_ORGANIZATION,
    AZURE_ORGANIZATION,
    ENTERPRISE,
    PRIMARY_ORGANIZATION,
    TOKEN,
    InfracostStandIn,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

PRIMARY, AWS, AZURE = "primary", "aws-prices", "azure-prices"
"""Slugs: what the stand-in makes of the organizations' names."""
POLICY = "b0000000-0000-4000-8000-000000000001"
UNKNOWN = "ffffffff-0000-4000-8000-00000000ffff"
WEBHOOK = "https://hooks.example/secret"
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")

APP = {
    "key": "app_id",
    "mandatory": True,
    "valueType": "LIST",
    "allowedValues": ["app-a", "app-b"],
    "someNewFlag": True,
}
TEAM = {"key": "team", "mandatory": False, "valueType": "REGEX", "allowedRegex": "^(?!x)[a-z]+$"}
START = {
    PRIMARY: [{"id": POLICY, "name": "Tags", "message": "See the wiki.", "tags": [APP, TEAM], "someNewFlag": True}]
}
CSV = b"service_id,team\nauth,identity\npay,payments\n"


@dataclass(frozen=True)
class Api:
    """A plain client: each method is one request, and gives what came back."""

    server: InfracostStandIn
    http: httpx.Client

    def call(
        self, method: str, path: str, body: object = None, *, token: str = TOKEN, slug: str = PRIMARY
    ) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"}
        return self.http.request(method, f"{self.server.api_url}/orgs/{slug}{path}", json=body, headers=headers)

    def data(self, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401 - decoded JSON
        return self.call(method, path, body).raise_for_status().json()["data"]

    def create(self, kind: str, **attributes: object) -> httpx.Response:
        return self.call("POST", f"/{kind}", {"data": {"type": kind, "attributes": attributes}})

    def guardrail(self, **attributes: object) -> dict[str, Any]:
        wanted = {"name": "Limit", "scope": "PULL_REQUEST", "increaseThreshold": 500, **attributes}
        data: dict[str, Any] = self.create("guardrails", **wanted).raise_for_status().json()["data"]
        return data

    def change(self, path: str, **attributes: object) -> httpx.Response:
        return self.call("PATCH", path, {"data": {"attributes": attributes}})

    def change_tags(self, *tags: object) -> httpx.Response:
        return self.change(f"/tagging-policies/{POLICY}", tags=tags)

    def upload(
        self, content: bytes, *, slug: str = PRIMARY, token: str = TOKEN, media: str = "text/csv"
    ) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": media}
        return self.http.post(f"{self.server.api_url}/orgs/{slug}/custom-properties", content=content, headers=headers)

    def configure(self, **config: object) -> None:
        self.http.post(f"{self.server.url}/_config", json=config).raise_for_status()

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = self.http.get(f"{self.server.url}/_state").raise_for_status().json()
        return state

    def policy(self) -> dict[str, Any]:
        """The policy of the start, as the stand-in holds it."""
        (held,) = self.state()["tagging_policies"][PRIMARY]
        attributes: dict[str, Any] = held["attributes"]
        return attributes


@pytest.fixture
def server() -> Iterator[InfracostStandIn]:
    tokens: list[str | Token] = [
        TOKEN,
        Token(token="primary-editor", role="orgEditor", organization=PRIMARY_ORGANIZATION),
        Token(token="primary-viewer", role="orgViewer", organization=PRIMARY_ORGANIZATION),
        Token(token="aws-admin", organization=AWS_ORGANIZATION),
    ]
    with InfracostStandIn(tokens=tokens, policies=START) as running:
        yield running
        assert running.state()["response_violations"] == []


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    """Made once, because it reads the machine's certificates."""
    with httpx.Client() as made:
        yield made


@pytest.fixture
def api(server: InfracostStandIn, client: httpx.Client) -> Api:
    return Api(server, client)


def pointer_of(response: httpx.Response) -> str:
    assert response.status_code == 400
    (error,) = response.json()["errors"]
    return str(error["source"]["pointer"])


# --- who may come in ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/tagging-policies", f"/tagging-policies/{POLICY}", "/guardrails"])
@pytest.mark.parametrize("slug", ["acme", PRIMARY_ORGANIZATION], ids=["unknown", "id"])
def test_what_is_no_slug_of_an_organization_is_answered_404(api: Api, path: str, slug: str) -> None:
    response = api.call("GET", path, slug=slug)
    assert response.status_code == 404
    assert "organization" in response.json()["errors"][0]["detail"]
    assert api.upload(CSV, slug=slug).status_code == 404


@pytest.mark.parametrize("token", ["ico-cli", "unknown"])
def test_a_cli_token_and_an_unknown_one_are_answered_401(api: Api, token: str) -> None:
    assert api.call("GET", "/guardrails", token=token).status_code == 401
    assert api.upload(CSV, token=token).status_code == 401


def test_a_token_without_an_organization_reaches_every_one(api: Api) -> None:
    for slug in (PRIMARY, AWS, AZURE):
        assert api.call("GET", "/tagging-policies", slug=slug).status_code == 200
        assert api.upload(CSV, slug=slug).status_code == 204


def test_a_token_without_an_organization_can_be_held_to_the_primary_one(api: Api) -> None:
    api.configure(tokens_reach_all=False)
    assert api.call("GET", "/guardrails").status_code == 200
    assert api.call("GET", "/guardrails", slug=AWS).status_code == 403
    assert api.upload(CSV, slug=AWS).status_code == 403


def test_a_token_of_one_organization_is_answered_403_at_another(api: Api) -> None:
    assert api.call("GET", "/guardrails", slug=AWS, token="aws-admin").status_code == 200
    for method, path in [
        ("GET", "/tagging-policies"),
        ("GET", f"/tagging-policies/{POLICY}"),
        ("DELETE", f"/tagging-policies/{POLICY}"),
        ("GET", "/guardrails"),
    ]:
        assert api.call(method, path, token="aws-admin").status_code == 403
    assert api.upload(CSV, token="aws-admin").status_code == 403
    assert len(api.state()["tagging_policies"][PRIMARY]) == 1


def test_a_viewer_reads_and_does_not_write(api: Api) -> None:
    body = {"data": {"attributes": {"name": "Other"}}}
    path = f"/tagging-policies/{POLICY}"
    assert api.call("GET", path, token="primary-viewer").status_code == 200
    assert api.call("PATCH", path, body, token="primary-viewer").status_code == 403
    assert api.call("DELETE", path, token="primary-viewer").status_code == 403
    assert api.upload(CSV, token="primary-viewer").status_code == 403
    assert api.policy()["name"] == "Tags"


def test_an_editor_writes_but_not_the_enterprises_price_books(api: Api) -> None:
    body = {"data": {"attributes": {"name": "Other"}}}
    assert api.call("PATCH", f"/tagging-policies/{POLICY}", body, token="primary-editor").status_code == 200
    assert api.upload(CSV, token="primary-editor").status_code == 204
    headers = {"Authorization": "Bearer primary-editor"}
    books = api.http.get(f"{api.server.api_url}/enterprises/{ENTERPRISE}/price-books", headers=headers)
    assert books.status_code == 403


# --- tagging policies -----------------------------------------------------------------------------------------------


def test_a_policy_of_the_start_is_listed_and_read_with_what_the_document_does_not_know(api: Api) -> None:
    (listed,) = api.data("GET", "/tagging-policies")
    read = api.data("GET", f"/tagging-policies/{POLICY}")
    assert listed == read
    assert (read["id"], read["type"]) == (POLICY, "tagging-policies")
    attributes = read["attributes"]
    assert TIME.fullmatch(attributes.pop("createdAt"))
    assert TIME.fullmatch(attributes.pop("updatedAt"))
    assert attributes == {
        "name": "Tags",
        "message": "See the wiki.",
        "prComment": True,
        "blockPr": False,
        "tags": [APP, {**TEAM, "someNewFlag": False}],
        "filters": {},
        "someNewFlag": True,
    }


def test_a_created_policy_can_be_read_and_deleted(api: Api) -> None:
    filters = {"repos": {"include": ["infra"], "exclude": []}, "baseBranches": {"include": ["main"]}}
    response = api.create("tagging-policies", name="New", tags=[TEAM], blockPr=True, filters=filters)
    assert response.status_code == 201
    created = response.json()["data"]
    assert UUID.fullmatch(created["id"])
    assert (created["attributes"]["blockPr"], created["attributes"]["filters"]) == (True, filters)
    path = f"/tagging-policies/{created['id']}"
    assert api.data("GET", path) == created
    assert [each["id"] for each in api.data("GET", "/tagging-policies")] == [POLICY, created["id"]]
    deleted = api.call("DELETE", path)
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert api.call("GET", path).status_code == 404
    assert api.call("DELETE", path).status_code == 404


def test_an_organizations_policies_are_not_anothers(api: Api) -> None:
    assert api.call("GET", f"/tagging-policies/{POLICY}", slug=AWS).status_code == 404
    assert api.call("GET", "/tagging-policies", slug=AWS).json()["data"] == []
    assert api.state()["tagging_policies"][AWS] == []


@pytest.mark.parametrize("kind", ["tagging-policies", "guardrails"])
def test_an_unknown_id_is_answered_404(api: Api, kind: str) -> None:
    assert api.call("GET", f"/{kind}/{UNKNOWN}").status_code == 404
    assert api.call("DELETE", f"/{kind}/{UNKNOWN}").status_code == 404
    assert api.change(f"/{kind}/{UNKNOWN}", name="x").status_code == 404


def test_a_change_needs_neither_type_nor_id_and_leaves_what_it_does_not_name(api: Api) -> None:
    before = api.policy()
    response = api.change(f"/tagging-policies/{POLICY}", message="Other.")
    assert response.status_code == 200
    assert api.policy() == {**before, "message": "Other."}
    assert response.json()["data"]["attributes"]["message"] == "Other."
    whole = {"data": {"id": POLICY, "type": "tagging-policies", "attributes": {"message": "Third."}}}
    assert api.call("PATCH", f"/tagging-policies/{POLICY}", whole).status_code == 200


def test_an_id_that_is_not_the_addresss_is_answered_400(api: Api) -> None:
    body = {"data": {"id": UNKNOWN, "attributes": {"message": "Other."}}}
    assert pointer_of(api.call("PATCH", f"/tagging-policies/{POLICY}", body)) == "/data/id"


def test_the_tags_of_a_change_replace_the_former_ones(api: Api) -> None:
    wanted = {"key": "app_id", "valueType": "LIST", "allowedValues": ["app-c"]}
    assert api.change_tags(wanted).status_code == 200
    assert api.policy()["tags"] == [{**wanted, "someNewFlag": False}]


def test_the_tags_of_a_change_are_merged_by_key_on_order(api: Api) -> None:
    api.configure(patch_merges_tags=True)
    wanted = {"key": "app_id", "valueType": "LIST", "allowedValues": ["app-c"]}
    new = {"key": "owner", "valueType": "ANY"}
    assert api.change_tags(new, wanted).status_code == 200
    assert api.policy()["tags"] == [
        {**APP, "allowedValues": ["app-c"]},
        {**TEAM, "someNewFlag": False},
        {**new, "someNewFlag": False},
    ]


def test_all_tags_sent_back_mean_the_same_whether_they_replace_or_merge(api: Api) -> None:
    (policy,) = api.data("GET", "/tagging-policies")
    tags = policy["attributes"]["tags"]
    tags[0]["allowedValues"] = ["app-c"]
    for merges in (False, True):
        api.configure(patch_merges_tags=merges)
        assert api.change_tags(*tags).status_code == 200
        assert api.policy()["tags"] == tags


def test_a_tag_keeps_what_the_document_does_not_know_when_it_is_sent_back(api: Api) -> None:
    assert api.change_tags({**APP, "more": {"a": 1}}).status_code == 200
    assert api.policy()["tags"] == [{**APP, "more": {"a": 1}}]


def test_a_regex_is_stored_as_it_is(api: Api) -> None:
    assert api.change_tags({"key": "x", "valueType": "REGEX", "allowedRegex": "(("}).status_code == 200
    assert api.policy()["tags"][0]["allowedRegex"] == "(("
    assert api.state()["dangers"] == []


@pytest.mark.parametrize(
    ("tags", "pointer"),
    [
        ([{"key": "x", "valueType": "LIST"}], "0/allowedValues"),
        ([TEAM, {"key": "x", "valueType": "LIST", "allowedValues": None}], "1/allowedValues"),
        ([{"key": "x", "valueType": "REGEX"}], "0/allowedRegex"),
        ([TEAM, TEAM], "1/key"),
        ([{"key": "x", "valueType": "SET"}], "0/valueType"),
        ([{"key": "x", "valueType": "LIST", "allowedValues": ["a", 1]}], "0/allowedValues/1"),
        ([{"key": "", "valueType": "ANY"}], "0/key"),
    ],
    ids=["no list", "null list", "no regex", "same key", "value type", "number", "empty key"],
)
def test_a_tag_that_makes_no_sense_is_answered_400_and_changes_nothing(
    api: Api, tags: list[dict[str, Any]], pointer: str
) -> None:
    before = api.policy()
    assert pointer_of(api.change_tags(*tags)) == f"/data/attributes/tags/{pointer}"
    assert pointer_of(api.create("tagging-policies", name="x", tags=tags)) == f"/data/attributes/tags/{pointer}"
    assert api.policy() == before


@pytest.mark.parametrize("blocks", [False, True])
def test_an_empty_list_of_values_is_accepted_and_listed_as_a_danger(api: Api, *, blocks: bool) -> None:
    api.change(f"/tagging-policies/{POLICY}", blockPr=blocks).raise_for_status()
    assert api.change_tags({"key": "app_id", "valueType": "LIST", "allowedValues": []}).status_code == 200
    (danger,) = api.state()["dangers"]
    assert TIME.fullmatch(danger.pop("time"))
    assert ("blocks every pull request" in danger.pop("detail")) is blocks
    assert danger == {"organization": PRIMARY, "kind": "tagging-policies", "id": POLICY}
    api.change_tags(APP).raise_for_status()
    assert len(api.state()["dangers"]) == 1, "what was once dangerous stays listed"


@pytest.mark.parametrize(
    "body",
    [
        {"data": {"attributes": {"nmae": "x"}}},
        {"data": {"attributes": {"createdAt": "2026-02-06T11:42:20.692Z"}}},
        {"data": {"attributes": {}}},
        {"data": {"type": "guardrails", "attributes": {"name": "x"}}},
        {"data": {"name": "x"}},
        {"tags": []},
        None,
    ],
    ids=["unknown attribute", "undocumented attribute", "nothing", "other type", "flat", "no data", "no body"],
)
def test_a_change_that_breaks_the_document_is_answered_400_and_listed(api: Api, body: object) -> None:
    before = api.policy()
    assert api.call("PATCH", f"/tagging-policies/{POLICY}", body).status_code == 400
    state = api.state()
    assert {each["operation"] for each in state["violations"]} == {"updateTaggingPolicy"}
    assert api.policy() == before


@pytest.mark.parametrize(
    ("droppable", "path", "kind"),
    [("policy", f"/tagging-policies/{POLICY}", "tagging_policies"), ("guardrail", None, "guardrails")],
)
def test_a_dropped_write_is_answered_as_if_it_were_kept_once(
    api: Api, droppable: str, path: str | None, kind: str
) -> None:
    path = path or f"/guardrails/{api.guardrail()['id']}"
    before = api.state()[kind]
    api.configure(drop_write=droppable)
    response = api.change(path, name="Wanted")
    assert (response.status_code, response.json()["data"]["attributes"]["name"]) == (200, "Wanted")
    assert api.state()[kind] == before
    api.change(path, name="Wanted").raise_for_status()
    assert api.state()[kind][PRIMARY][0]["attributes"]["name"] == "Wanted"


def test_a_dropped_write_of_one_kind_does_not_drop_the_other(api: Api) -> None:
    path = f"/guardrails/{api.guardrail()['id']}"
    api.configure(drop_write="policy")
    api.change(path, name="Kept").raise_for_status()
    assert api.data("GET", path)["attributes"]["name"] == "Kept"
    api.change(f"/tagging-policies/{POLICY}", name="Dropped").raise_for_status()
    assert api.policy()["name"] == "Tags"


# --- guardrails -----------------------------------------------------------------------------------------------------


def test_a_created_guardrail_has_the_contracts_attributes_and_more(api: Api) -> None:
    response = api.create(
        "guardrails",
        name="Production Cost Limit",
        scope="PULL_REQUEST",
        increaseThreshold=500,
        message="Ask first.",
        prComment=True,
        blockPr=False,
        webhookUrl=WEBHOOK,
        filters={"repos": {"include": ["production-infra"], "exclude": []}},
    )
    assert response.status_code == 201
    created = response.json()["data"]
    assert api.data("GET", f"/guardrails/{created['id']}") == created
    assert api.data("GET", "/guardrails") == [created]
    assert created["type"] == "guardrails"
    attributes = created["attributes"]
    assert TIME.fullmatch(attributes.pop("createdAt"))
    assert TIME.fullmatch(attributes.pop("updatedAt"))
    assert attributes == {
        "name": "Production Cost Limit",
        "scope": "PULL_REQUEST",
        "increaseThreshold": 500,
        "increasePercentageThreshold": None,
        "totalThreshold": None,
        "message": "Ask first.",
        "prComment": True,
        "blockPr": False,
        "webhookUrl": WEBHOOK,
        "filters": {"repos": {"include": ["production-infra"], "exclude": []}},
        "someNewFlag": False,
    }


def test_a_guardrail_is_deleted_once(api: Api) -> None:
    path = f"/guardrails/{api.guardrail()['id']}"
    assert [api.call("DELETE", path).status_code for _ in range(2)] == [204, 404]
    assert api.state()["guardrails"] == {PRIMARY: [], AWS: [], AZURE: []}


def test_a_change_of_a_guardrail_leaves_the_webhook_unless_it_names_it(api: Api) -> None:
    path = f"/guardrails/{api.guardrail(webhookUrl=WEBHOOK)['id']}"
    assert api.change(path, increaseThreshold=100).json()["data"]["attributes"]["webhookUrl"] == WEBHOOK
    assert api.state()["guardrails"][PRIMARY][0]["attributes"]["webhookUrl"] == WEBHOOK
    api.change(path, webhookUrl="").raise_for_status()
    assert api.data("GET", path)["attributes"]["webhookUrl"] == ""


def test_a_threshold_is_taken_away_by_null(api: Api) -> None:
    path = f"/guardrails/{api.guardrail(totalThreshold=9.5)['id']}"
    api.change(path, increaseThreshold=None).raise_for_status()
    attributes = api.data("GET", path)["attributes"]
    assert (attributes["increaseThreshold"], attributes["totalThreshold"]) == (None, 9.5)


def test_a_guardrail_without_a_threshold_is_accepted_and_listed_as_a_danger(api: Api) -> None:
    made = api.guardrail(increaseThreshold=None)["id"]
    zero = api.guardrail(increaseThreshold=0)["id"]
    api.change(f"/guardrails/{zero}", increaseThreshold=None).raise_for_status()
    dangers = api.state()["dangers"]
    assert [(each["kind"], each["id"]) for each in dangers] == [("guardrails", made), ("guardrails", zero)]
    assert "never triggers" in dangers[0]["detail"]


@pytest.mark.parametrize(
    ("attributes", "pointer"),
    [
        ({"increasePercentThreshold": 5}, "/data/attributes"),
        ({"scope": "REPO"}, "/data/attributes/scope"),
        ({"increaseThreshold": "500"}, "/data/attributes/increaseThreshold"),
        ({"webhookUrl": None}, "/data/attributes/webhookUrl"),
        ({"filters": {"repos": ["a"]}}, "/data/attributes/filters/repos"),
    ],
    ids=["seen name", "seen scope", "text", "null webhook", "flat filter"],
)
def test_a_guardrail_is_written_under_the_contracts_names_only(
    api: Api, attributes: dict[str, Any], pointer: str
) -> None:
    for spelling in ("contract", "seen"):
        api.configure(guardrail_spelling=spelling)
        made = api.create("guardrails", **{"name": "x", "scope": "PROJECT", **attributes})
        assert pointer_of(made) == pointer
    assert api.state()["guardrails"][PRIMARY] == []


def test_guardrails_are_answered_as_they_were_seen_on_order_and_held_under_the_contracts_names(api: Api) -> None:
    api.configure(guardrail_spelling="seen")
    created = api.guardrail(increasePercentageThreshold=25)
    assert created["type"] == "guardrail"
    assert (created["attributes"]["scope"], created["attributes"]["increasePercentThreshold"]) == ("REPO", 25)
    assert "increasePercentageThreshold" not in created["attributes"]
    assert api.data("GET", "/guardrails") == [created]
    project = api.change(f"/guardrails/{created['id']}", scope="PROJECT", increasePercentageThreshold=30)
    assert project.json()["data"]["attributes"]["scope"] == "PROJECT"
    assert project.json()["data"]["attributes"]["increasePercentThreshold"] == 30
    (held,) = api.state()["guardrails"][PRIMARY]
    assert (held["attributes"]["scope"], held["attributes"]["increasePercentageThreshold"]) == ("PROJECT", 30)


# --- custom properties ----------------------------------------------------------------------------------------------


def test_a_file_is_taken_whole_and_a_later_one_replaces_it(api: Api) -> None:
    first = api.upload(CSV)
    assert (first.status_code, first.content) == (204, b"")
    second = 'service_id,note\r\nauth,"two\nlines, é"\r\n'.encode()
    assert api.upload(second, media="text/csv; charset=utf-8").status_code == 204
    held = api.state()["custom_properties"][PRIMARY]
    assert held["text"].encode() == second
    assert (held["bytes"], held["rows"], held["emptied"]) == (len(second), 1, False)
    assert [(each["sha256"], each["rows"]) for each in held["uploads"]] == [
        (hashlib.sha256(CSV).hexdigest(), 2),
        (hashlib.sha256(second).hexdigest(), 1),
    ]
    assert held["sha256"] == held["uploads"][1]["sha256"]
    assert api.state()["custom_properties"][AWS]["uploads"] == []


@pytest.mark.parametrize(
    "content",
    [b"service_id,team\n", b"service_id,team", CSV.replace(b"\n", b""), b"service_id,team\n\n\r\n", b"\n"],
    ids=["header", "header without its newline", "newlines stripped", "blank lines", "newline"],
)
def test_a_file_without_rows_is_accepted_and_empties_the_data(api: Api, content: bytes) -> None:
    api.upload(CSV).raise_for_status()
    assert api.upload(content).status_code == 204
    held = api.state()["custom_properties"][PRIMARY]
    assert (held["emptied"], held["rows"]) == (True, 0)
    assert [each["emptied"] for each in held["uploads"]] == [False, True]


def refused(api: Api, content: bytes, media: str = "text/csv") -> int:
    """Upload what is refused, after a good file; give the status."""
    api.upload(CSV).raise_for_status()
    status = api.upload(content, media=media).status_code
    held = api.state()["custom_properties"][PRIMARY]
    assert (held["text"], len(held["uploads"])) == (CSV.decode(), 1)
    return status


@pytest.mark.parametrize(
    ("content", "media"),
    [
        (CSV + "é,x\n".encode("latin-1"), "text/csv"),
        (b"", "text/csv"),
        (CSV, "application/octet-stream"),
        (b"a,b\n" + b"x" * 200_000 + b",1\n", "text/csv"),
    ],
    ids=["Latin-1", "empty", "other type", "endless field"],
)
def test_what_is_no_csv_in_utf_8_is_answered_400_and_replaces_nothing(api: Api, content: bytes, media: str) -> None:
    assert refused(api, content, media) == 400


def test_a_file_over_the_limit_is_answered_413_and_replaces_nothing(api: Api) -> None:
    api.configure(properties_limit_bytes=len(CSV))
    assert refused(api, CSV + b"\n") == 413


def test_the_limit_is_five_million_bytes(api: Api) -> None:
    row = b"x,1\n"
    assert api.upload(row * 1_250_000).status_code == 204
    assert api.upload(row * 1_250_000 + b"\n").status_code == 413


# --- pages ----------------------------------------------------------------------------------------------------------

LISTS = {
    "price books": f"/enterprises/{ENTERPRISE}/price-books",
    "tagging policies": f"/orgs/{AZURE}/tagging-policies",
    "guardrails": f"/orgs/{AZURE}/guardrails",
}


@pytest.fixture
def many(client: httpx.Client) -> Iterator[Api]:
    """Five of everything that can be listed, and pages of two."""
    policies = [{"id": f"p{number}", "name": f"Policy {number}"} for number in range(5)]
    guardrails = [{"id": f"g{number}", "name": f"Guardrail {number}", "scope": "PROJECT"} for number in range(5)]
    with InfracostStandIn(policies={AZURE: policies}, guardrails={AZURE: guardrails}, list_page_size=2) as running:
        api = Api(running, client)
        for _ in range(5):
            get(api, LISTS["price books"], "POST", json={"provider": "AWS"}).raise_for_status()
        yield api
        assert running.state()["response_violations"] == []


def get(api: Api, url: str, method: str = "GET", **sent: Any) -> httpx.Response:  # noqa: ANN401 - passed on
    """Ask for an address, or for a path below the API's base."""
    address = url if url.startswith("http") else api.server.api_url + url
    return api.http.request(method, address, headers={"Authorization": f"Bearer {TOKEN}"}, **sent)


def walk(api: Api, url: str, limit: int = 10) -> tuple[list[str], list[str]]:
    """Follow `links.next`; give the ids, and the addresses."""
    ids: list[str] = []
    addresses: list[str] = []
    following: str | None = url
    while following is not None and len(addresses) < limit:
        shown = get(api, following).raise_for_status().json()
        ids += [each["id"] for each in shown["data"]]
        following = shown["links"]["next"]
        addresses += [following] if following else []
    return ids, addresses


@pytest.mark.parametrize("name", LISTS)
def test_a_list_in_pages_names_the_next_one_until_the_last(many: Api, name: str) -> None:
    ids, addresses = walk(many, LISTS[name])
    assert (len(ids), len(set(ids)), len(addresses)) == (5, 5, 2)
    assert {urlsplit(each)[:3] for each in addresses} == {urlsplit(many.server.api_url + LISTS[name])[:3]}
    many.configure(list_page_size=None)
    whole = get(many, LISTS[name]).json()
    assert "links" not in whole
    assert [each["id"] for each in whole["data"]] == ids


@pytest.mark.parametrize("size", [5, 9])
def test_a_list_that_fits_its_page_has_no_next_one(many: Api, size: int) -> None:
    many.configure(list_page_size=size)
    ids, addresses = walk(many, LISTS["guardrails"])
    assert (ids, addresses) == (["g0", "g1", "g2", "g3", "g4"], [])


def test_the_next_page_can_be_a_path(many: Api) -> None:
    many.configure(next_link="path")
    following = get(many, LISTS["guardrails"]).json()["links"]["next"]
    assert following.startswith(f"/v1{LISTS['guardrails']}?page=")
    shown = get(many, many.server.url + following).json()["data"]
    assert [each["id"] for each in shown] == ["g2", "g3"]


def test_the_next_page_can_be_on_another_host_where_a_client_that_follows_is_seen(many: Api) -> None:
    many.configure(next_link="other_host")
    following = get(many, LISTS["guardrails"]).json()["links"]["next"]
    there, here = urlsplit(following), urlsplit(many.server.url)
    assert (there.hostname, there.port) == ("localhost", here.port)
    back = get(many, f"http://localhost:{here.port}/v1{LISTS['guardrails']}").json()["links"]["next"]
    assert urlsplit(back).hostname == "127.0.0.1"
    assert many.state()["counts"]["listGuardrails"] == 2


def test_the_next_pages_can_go_round(many: Api) -> None:
    many.configure(next_link="loop")
    ids, addresses = walk(many, LISTS["guardrails"], limit=7)
    assert ids == ["g0", "g1", "g2", "g3", "g4", "g0", "g1", "g2", "g3", "g4", "g0", "g1", "g2", "g3"][: len(ids)]
    assert (len(addresses), len(set(addresses))) == (7, 3)
    many.configure(list_page_size=9)
    assert len(walk(many, LISTS["guardrails"], limit=3)[1]) == 3


@pytest.mark.parametrize("page", ["2", "bm90LWEtcGFnZQ==", "é", ""], ids=["number", "foreign", "no ASCII", "empty"])
def test_a_page_that_no_list_named_is_answered_400(many: Api, page: str) -> None:
    assert get(many, LISTS["guardrails"], params={"page": page}).status_code == 400


def test_a_page_of_another_list_is_answered_400(many: Api) -> None:
    following = get(many, LISTS["guardrails"]).json()["links"]["next"]
    other = f"{LISTS['tagging policies']}?{urlsplit(following).query}"
    assert get(many, other).status_code == 400


# --- the stand-in as a whole ----------------------------------------------------------------------------------------


def test_a_reset_brings_back_the_policies_of_the_start_and_nothing_else(api: Api) -> None:
    api.change_tags({"key": "x", "valueType": "LIST", "allowedValues": []}).raise_for_status()
    api.guardrail()
    api.upload(CSV).raise_for_status()
    api.configure(drop_write="policy")
    api.http.post(f"{api.server.url}/_reset").raise_for_status()
    assert [tag["key"] for tag in api.policy()["tags"]] == ["app_id", "team"]
    state = api.state()
    assert (state["guardrails"][PRIMARY], state["dangers"]) == ([], [])
    assert state["custom_properties"][PRIMARY] == {
        "bytes": 0,
        "sha256": None,
        "rows": 0,
        "emptied": False,
        "time": None,
        "text": None,
        "uploads": [],
    }
    assert api.http.get(f"{api.server.url}/_config").json()["drop_write"] is None


def test_things_at_the_start_need_an_organization_that_exists() -> None:
    with pytest.raises(ValueError, match="acme"):
        InfracostStandIn(policies={"acme": []})


def test_the_name_of_an_organization_makes_its_slug(client: httpx.Client) -> None:
    names = {PRIMARY_ORGANIZATION: "Acme", AWS_ORGANIZATION: "Acme: AWS"}
    with InfracostStandIn(organizations=names) as running:
        api = Api(running, client)
        assert api.call("GET", "/guardrails", slug="acme").status_code == 200
        assert api.call("GET", "/guardrails", slug="acme-aws").status_code == 200
        assert api.call("GET", "/guardrails", slug=PRIMARY).status_code == 404


def test_two_organizations_of_one_slug_are_refused() -> None:
    with pytest.raises(ValueError, match="same slug"):
        InfracostStandIn(organizations={AWS_ORGANIZATION: "Prices", AZURE_ORGANIZATION: "prices!"})


def test_the_new_operations_fail_on_order_as_all_others(api: Api) -> None:
    orders = [{"operation": "updateTaggingPolicy", "fault": {"kind": "lost_answer"}}]
    api.http.post(f"{api.server.url}/_faults", json=orders).raise_for_status()
    with pytest.raises(httpx.RemoteProtocolError):
        api.change_tags(APP)
    assert [tag["key"] for tag in api.policy()["tags"]] == ["app_id"]

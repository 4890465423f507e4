"""docs/sync.md is true: its examples are dropped and synced against the stand-ins, its tables are tried."""

from __future__ import annotations

import json
import re
import shlex
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from finops_relay.aws.secrets import token_source
from finops_relay.delivery.identity import ObjectVersion, delivery_id
from finops_relay.delivery.ledger import Delivery
from finops_relay.delivery.receipt import Outcome
from finops_relay.errors import InputRefused, Wait
from finops_relay.formats import property_files, value_files
from finops_relay.infracost.checks import SUGGESTED_VALUES
from finops_relay.infracost.models import PolicyChange
from finops_relay.jobs.config import MAX_CONFIG_BYTES, ServiceNowAsk, TagSync, parse
from finops_relay.jobs.custom_properties import prepare as properties_prepare
from finops_relay.jobs.mended import MAX_MENDS
from finops_relay.jobs.release import Decision
from finops_relay.jobs.syncing.drop_path import Meaning, parse_properties, parse_tag
from finops_relay.jobs.syncing.preparing import CATCH_UP
from finops_relay.sources.settings import AnySource
from finops_relay.sync.guard import Guard, Guards
from finops_relay.sync.plan import SHOWN
from finops_relay.sync.rules import MAX_VALUE_CHARS, Rules
from pydantic import TypeAdapter, ValidationError
from typing_extensions import override

from local.standins.infracost import InfracostStandIn
from tests.world.memory import MemoryBucket
from tests.world.raw_server import raw_server
from tests.world.relay import DROPS, REGION
from tests.world.schedules import Parts
from tests.world.syncs import (
    KEY,
    ORGANIZATION,
    POLICY,
    PROPERTIES,
    SLUG,
    TABLE,
    TAGS,
    Syncs,
    applications,
    policy,
    syncs,
)

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "sync.md").read_text()
PROSE = " ".join(PAGE.split())
"""The same, wherever its lines are broken."""
VALUES = ("CC-1001", "CC-1002", "CC-1003", "CC-1004")
"""What the tag allows at the start of every example."""
POLICY_ON_PAGE = "5f1c0f52-7c1e-4f7b-9d0e-3a6b8e1c2d47"
SERVICENOW, BACKSTAGE, REGISTRY = (
    "https://acme.service-now.com",
    "https://backstage.example.com",
    "https://apps.example.com",
)
PROPERTIES_FILE = f"{PROPERTIES}/apps.csv"


# --- reading the page -------------------------------------------------------------------------------------------------


def parts() -> dict[str, str]:
    """Return what stands below each heading of the page."""
    found = re.split(r"^#{2,3} (.+)\n", PAGE, flags=re.MULTILINE)
    return dict(zip(found[1::2], found[2::2], strict=True))


def blocks(text: str) -> list[tuple[str, str, str]]:
    """Return the fenced blocks of a text: their language, what else the fence says, and what stands in them."""
    return re.findall(r"^```(\w+) ([\w.$-]+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def said(words: str) -> list[str]:
    """Return what stands in the blocks whose fences say so."""
    return [text for _, fence, text in blocks(PAGE) if fence == words]


def table(first: str, second: str = "") -> list[list[str]]:
    """Return the cells of the table whose header begins with these words, without the header."""
    header = re.escape(f"| {first} | {second}")
    found = re.search(rf"^{header}.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    assert found is not None, f"the page has no table {first!r}, {second!r}"
    return [re.split(r" \| ?", line.removeprefix("| ").removesuffix("|")) for line in found[1].splitlines()]


def spans(cell: str) -> list[str]:
    """Return what stands in the code spans of a cell."""
    return re.findall(r"`([^`]+)`", cell)


def ids(rows: list[list[str]]) -> list[str]:
    """Return names for the tests of a table's rows."""
    return [re.sub(r"[^\w.=+-]+", "_", "-".join(row[:2])).strip("_")[:70] for row in rows]


# --- worlds -----------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class InMemory(Syncs):
    """The same with a ledger and buckets in memory: there are a hundred lives here, and moto takes 4 ms a call."""

    drops: MemoryBucket

    @override
    def drop(self, key: str, body: bytes, bucket: str = DROPS) -> ObjectVersion:
        self.sequencer += 0x10
        self.time[0] += timedelta(milliseconds=5)
        version = self.drops.upload(key, body)
        return ObjectVersion(bucket, key, version, version, len(body), f"{self.sequencer:018X}", self.time[0])

    @override
    def text(self, key: str, bucket: str = DROPS) -> bytes:
        return self.drops.latest(key)

    @override
    def receipt(self, delivery: Delivery) -> dict[str, Any]:
        receipt: dict[str, Any] = json.loads(self.text(delivery.receipt_key))
        rows = receipt["rows"]
        assert rows["in"] == rows["accepted"] + rows["filtered"] + rows["rejected"] + rows["owed"]
        return receipt

    def known(self, delivery: Delivery) -> Delivery:
        """Return a delivery as the ledger has it now."""
        found = self.ports.ledger.delivery(delivery.id)
        assert found is not None
        return found

    def waiting(self, key: str, body: bytes = b"") -> Delivery:
        """Drop a file that has to wait, for its source or for Infracost; return its delivery."""
        source = self.drop(key, body)
        with pytest.raises(Wait):
            self.step(delivery_id(source) if self.prepare(source) else "")
        found = self.ports.ledger.delivery(delivery_id(source))
        assert found is not None
        return found


@pytest.fixture(scope="module")
def over_aws() -> Iterator[Syncs]:
    """A world over AWS's own interfaces, and the stand-ins that all tests use one after the other."""
    with syncs(VALUES) as found:
        yield found


@pytest.fixture
def w(over_aws: Syncs) -> InMemory:
    """A world in which nothing has happened yet."""
    for standin in (over_aws.vendor, over_aws.servicenow, over_aws.backstage):
        standin.reset()
    life = Parts()
    shared = {known.name: getattr(over_aws, known.name) for known in fields(over_aws)}
    own: dict[str, Any] = {
        "ledger": life.ledger,
        "drops": life.drops,
        "ports": life.ports(over_aws.metrics),
        "time": life.time,
    }
    return InMemory(**{**shared, **own, "asked": life.asked, "waited": [], "password": list(over_aws.password)})


@contextmanager
def answers(known: Mapping[str, tuple[object, str]]) -> Iterator[str]:
    """Answer with JSON, and a header ``Link`` where one is given, by path and query; yield the address."""

    def handle(connection: socket.socket, request: bytes) -> None:
        found, link = known.get(request.split(b" ", 2)[1].decode(), (None, ""))
        body = json.dumps(found).encode()
        head = (
            f"HTTP/1.1 {200 if found else 404} .\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        )
        head += f"Link: {link}\r\n" if link else ""
        connection.sendall(f"{head}Connection: close\r\n\r\n".encode() + body)

    with raw_server(handle) as server:
        yield server.url


def here(w: Syncs, text: str, registry: str = REGISTRY) -> str:
    """Return a relay.yaml of the page for this world: its addresses, and its policy's id."""
    for address, ours in ((SERVICENOW, w.servicenow.api_url), (BACKSTAGE, w.backstage.api_url), (REGISTRY, registry)):
        text = text.replace(address, ours)
    return text.replace(POLICY_ON_PAGE, POLICY)


# --- living the examples ----------------------------------------------------------------------------------------------


@dataclass
class Reader:
    """Somebody who does what the page says, one thing after the other, and compares."""

    w: InMemory
    registry: str = REGISTRY
    delivery: Delivery | None = None
    file: tuple[str, bytes] = ("", b"")
    compared: set[str] = field(default_factory=set)

    def follow(self, language: str, words: str, text: str) -> None:
        """Do what one block says, or compare what it shows."""
        todo: dict[str, Callable[[str], object]] = {
            "drop": self.commands,
            "relay.yaml": lambda text: self.w.configure(here(self.w, text, self.registry)),
            "servicenow": lambda text: self.w.servicenow.set_table(TABLE, json.loads(text)),
            "backstage": lambda text: self.w.backstage.set_entities(json.loads(text)),
            "dashboard": self.by_hand,
        }
        shows = {"receipt": self.receipt, "holds": self.holds, "rejected": self.rejected, "sent": self.sent}
        if words in todo:
            todo[words](text)
        elif words in shows:
            self.compared.add(words)
            shows[words](text)
        elif "." in words:
            self.file = (words, text.encode())
        else:
            assert f"{language} {words}" in {"sh config", "sh secret", "sh now", "json answers", "text warning"}

    def commands(self, text: str) -> None:
        """Do what each command does."""
        for line in text.replace("$POLICY", POLICY).replace("$DROPS", DROPS).splitlines():
            self.command(shlex.split(line))

    def command(self, words: list[str]) -> None:
        """Do what one command does."""
        match words:
            case ["aws", "s3", "cp", name, goal] if goal.startswith(f"s3://{DROPS}/"):
                assert name == self.file[0]
                key = goal.removeprefix(f"s3://{DROPS}/")
                self.drop(key + name if key.endswith("/") else key, self.file[1])
            case ["aws", "s3api", "put-object", "--bucket", bucket, "--key", key]:
                assert bucket == DROPS
                self.drop(key, b"")
            case ["echo", decision, "|", "aws", "s3", "cp", "-", goal]:
                assert goal == f"s3://{DROPS}/incoming/release/$DELIVERY.json"
                assert self.delivery is not None
                self.delivery = self.w.decide(self.delivery, json.loads(decision)["decision"])
            case _:
                raise AssertionError(words)

    def drop(self, key: str, body: bytes) -> None:
        """Drop a file and take it to its end."""
        former = self.delivery.id if self.delivery else ""
        self.delivery = self.w.deliver_file(key.replace("$DELIVERY", former), body)

    def by_hand(self, text: str) -> None:
        """Change our tag in the dashboard."""
        [(_, values)] = lists(text).items()
        self.w.change_by_hand(lambda tag: tag.update(allowedValues=values))

    def receipt(self, shown: str) -> None:
        assert self.delivery is not None
        found, wanted = self.w.receipt(self.delivery), json.loads(shown)
        assert part_of(found, wanted) == wanted

    def holds(self, shown: str) -> None:
        for key, values in lists(shown).items():
            assert self.w.values(key) == values

    def sent(self, shown: str) -> None:
        assert self.w.state()["custom_properties"][SLUG]["text"] == shown

    def rejected(self, shown: str) -> None:
        assert self.delivery is not None
        assert rejected_rows(self.w, self.delivery) == shown


def lists(text: str) -> dict[str, list[str]]:
    """Return what the page shows of tags: their values by key."""
    return {key: values.split(", ") for key, values in (line.split(": ") for line in text.splitlines())}


def rejected_rows(w: InMemory, delivery: Delivery) -> str:
    """Return the file of rejected rows of a delivery."""
    return w.text(delivery.rejected_rows.removeprefix(f"s3://{DROPS}/")).decode()


def part_of(found: Any, shown: Any) -> Any:  # noqa: ANN401 -- JSON
    """Return those members of something that an example shows."""
    if isinstance(shown, dict):
        return {name: part_of(found[name], shown[name]) for name in shown}
    if isinstance(shown, list) and len(found) == len(shown):
        return [part_of(each, like) for each, like in zip(found, shown, strict=True)]
    return found


LIVED = {heading: blocks(text) for heading, text in parts().items() if "```sh drop" in text}


@pytest.mark.parametrize("heading", LIVED)
def test_what_an_example_shows_is_what_comes_of_it(heading: str, w: InMemory) -> None:
    served = [(path, said) for _, words, text in LIVED[heading] if words == "answers" for path, said in load(text)]
    with answers({path: (said, "") for path, said in served}) as registry:
        reader = Reader(w, registry)
        for language, words, text in LIVED[heading]:
            reader.follow(language, words, text)
    assert reader.compared, "an example that shows nothing"


def load(text: str) -> list[tuple[str, Any]]:
    """Return the members of an object."""
    return list(json.loads(text).items())


def test_there_is_an_example_of_every_way_in() -> None:
    assert {"One value a line", "CSV", "JSON"} <= parts().keys()
    assert {"First list in two minutes", "CSV", "JSON", "Rejected rows", "Custom properties", "ServiceNow"} <= set(
        LIVED
    )
    assert {"Backstage", "Any address that answers with JSON", "Look before you leap", "Guards", "Drift"} <= set(LIVED)


@pytest.mark.parametrize("text", said("relay.yaml"))
def test_every_relay_yaml_of_the_page_is_good_as_it_stands(text: str) -> None:
    assert parse(text.encode()).version == 1


def test_the_secrets_are_what_the_functions_read(over_aws: Syncs) -> None:
    assert over_aws.s3, "AWS is here, or the commands would go to the real one"
    manager = boto3.client("secretsmanager", REGION)
    files = {f"file://{name}": text for _, name, text in blocks(PAGE) if name == "cmdb.json"}
    kinds = {name: known for text in said("relay.yaml") for name, known in parse(text.encode()).sources.items()}
    found = []
    for command in said("secret"):
        *words, name, option, value = shlex.split(command)
        assert words == ["aws", "secretsmanager", "create-secret", "--name"]
        assert option == "--secret-string"
        manager.create_secret(Name=name, SecretString=files.get(value, value))
        source = kinds[name.removeprefix("sources/")]
        basic = getattr(source, "auth", "bearer") == "basic"
        assert basic == (value in files)
        assert token_source(manager, name, basic=basic)(False) is not None  # noqa: FBT003 -- TokenSource is called by position
        found.append(name)
    manager.close()
    assert found == ["sources/cmdb", "sources/portal", "sources/registry"]


def test_each_kind_of_source_has_the_ways_to_show_who_we_are_that_the_page_says() -> None:
    source: TypeAdapter[Any] = TypeAdapter(AnySource)
    for named, ways, _ in table("`type`", "`auth`"):
        given = {"type": spans(named)[0], "url": SERVICENOW}
        if "default" in ways:
            assert source.validate_python(given).auth == spans(ways)[0]
        for way in spans(ways):
            assert source.validate_python({**given, "auth": way}).auth == way
    with pytest.raises(ValidationError):
        source.validate_python({"type": "backstage", "url": BACKSTAGE, "auth": "basic"})
    with pytest.raises(ValidationError, match="secret"):
        source.validate_python({"type": "backstage", "url": BACKSTAGE, "secret": "infracost/default"})


# --- paths and files --------------------------------------------------------------------------------------------------


def test_each_path_means_what_the_page_says() -> None:
    meanings = []
    for row in table("under `incoming/`"):
        for name in spans(row[0]):
            key = name.replace("{policy}", POLICY).replace("{key}", KEY).replace("{any name}", "any")
            key = "incoming/" + key.replace("{delivery id}", "a" * 64).replace(
                "….", f"tagging-policies/{POLICY}/{KEY}."
            )
            if "custom-properties" in key:
                meanings.append(parse_properties(key, properties_prepare.SUFFIXES).meaning)
            else:
                meanings.append(parse_tag(key, value_files.SUFFIXES).meaning)
    file, run, mended = Meaning.FILE, Meaning.RUN, Meaning.MENDED
    assert meanings == [file, file, file, run, mended, file, run, mended]


@pytest.mark.parametrize("row", table("tag", "file"), ids=ids(table("tag", "file")))
def test_a_key_is_encoded_as_the_page_says(row: list[str]) -> None:
    [key], [name] = map(spans, row)
    assert parse_tag(f"{TAGS}/{name}", value_files.SUFFIXES).name == key


NAMES = spans(parts()["CSV"].partition(" or after ")[0])


def test_every_name_of_a_column_of_values_is_on_the_page() -> None:
    assert {name.lower() for name in NAMES} == value_files.VALUE_COLUMNS


@pytest.mark.parametrize("name", [*NAMES, KEY.upper()])
def test_a_column_of_values_may_have_each_of_its_names(w: InMemory, name: str) -> None:
    body = f"owner,{name}\n" + "".join(f"a,{value}\n" for value in VALUES)
    assert w.deliver_file(f"{TAGS}/{KEY}.csv", body.encode()).outcome == "unchanged"


@pytest.mark.parametrize("name", ["values", "allowed_values", "allowedValues"])
def test_a_json_list_may_have_each_of_its_names(w: InMemory, name: str) -> None:
    assert w.deliver_file(f"{TAGS}/{KEY}.json", json.dumps({name: VALUES}).encode()).outcome == "unchanged"


def test_what_a_file_says_of_its_tag_goes_before_what_relay_yaml_says(w: InMemory) -> None:
    w.configure(f"tagging_policies: {{{POLICY}: {{tags: {{{KEY}: {{message: of the settings}}}}}}}}")
    w.deliver_file(f"{TAGS}/{KEY}.json", json.dumps({"values": VALUES, "message": "of the file"}).encode())
    assert w.tags()[KEY]["message"] == "of the file"
    w.deliver_values(*VALUES)
    assert w.tags()[KEY]["message"] == "of the settings"


REFUSED = table("dropped as", "with the first line")


@pytest.mark.parametrize("row", REFUSED, ids=ids(REFUSED))
def test_a_file_is_refused_as_the_page_says(row: list[str], w: InMemory) -> None:
    [name], [first], [why] = map(spans, row)
    found = w.deliver_file(f"{TAGS}/{name}", first.encode())
    assert found.outcome == "rejected"
    assert why in found.reason
    assert w.values() == list(VALUES)


PROPERTY_FILES = table("a file", "is refused:")


@pytest.mark.parametrize("row", PROPERTY_FILES, ids=ids(PROPERTY_FILES))
def test_a_file_of_properties_is_refused_as_the_page_says(row: list[str], w: InMemory) -> None:
    [text], [why] = map(spans, row)
    found = w.deliver_file(PROPERTIES_FILE, text.replace("\\n", "\n").encode())
    assert found.outcome == "rejected"
    assert why in found.reason
    assert w.calls() == []


def test_properties_are_sent_again_when_their_bytes_are_others(w: InMemory) -> None:
    assert w.deliver_file(PROPERTIES_FILE, b"app,team\na,x\nb,y\n").outcome == "delivered"
    assert w.deliver_file(f"{PROPERTIES}/other.csv", b"app,team\na,x\nb,y\n").outcome == "unchanged"
    assert w.deliver_file(PROPERTIES_FILE, b"app,team\nb,y\na,x\n").outcome == "delivered"


def test_what_else_than_rows_is_taken_out_of_properties_is_told_of(w: InMemory) -> None:
    found = w.deliver_file(PROPERTIES_FILE, b"\xef\xbb\xbfapp,team\r\na,x\r\n,\r\n")
    assert w.state()["custom_properties"][SLUG]["text"] == "app,team\na,x\n"
    assert len(found.warnings) == 4, "and that nobody can tell what was there before"


def test_of_many_properties_a_bad_row_is_left_out_and_named(w: InMemory) -> None:
    body = "app,team\n" + "".join(f"app-{number},x\n" for number in range(200))
    found = w.deliver_file(PROPERTIES_FILE, f"{body}app-7,y\n".encode())
    assert (found.outcome, found.rows.rejected) == ("partly_delivered", 1)
    assert w.state()["custom_properties"][SLUG]["text"] == body
    assert "app-7,y,202,the key 'app-7' stands in a row before" in rejected_rows(w, found)


# --- sources ----------------------------------------------------------------------------------------------------------


QUERIES = table("`query`", "is refused")


@pytest.mark.parametrize("row", QUERIES, ids=ids(QUERIES))
def test_a_query_is_refused_as_the_page_says(row: list[str]) -> None:
    [query], [why] = map(spans, row)
    with pytest.raises(ValidationError, match=re.escape(why)):
        ServiceNowAsk(source="cmdb", table=TABLE, columns={"value": "u_cost_center"}, query=query)


def test_a_misspelt_part_of_a_query_finds_too_much_which_is_held_from_the_second_run_on(w: InMemory) -> None:
    rows = [{"u_cost_center": value, "active": "true"} for value in VALUES]
    rows += [{"u_cost_center": f"old-{number}", "active": "false"} for number in range(20)]
    w.servicenow.set_table(TABLE, rows)
    w.configure(servicenow(w, "active=true"))
    assert w.sync_now().outcome == "unchanged"
    w.configure(servicenow(w, "actve=true"))
    assert w.guards(w.sync_now()) == {"source_grown": "held"}
    w.servicenow.configure({"invalid_query": "no_rows"})
    assert w.guards(w.sync_now()) == {"source_empty": "held"}


def test_a_page_that_came_in_part_is_never_taken_for_the_whole(w: InMemory) -> None:
    w.configure(servicenow(w))
    w.servicenow.configure({"cancel_after_rows": 2})
    assert "Transaction cancelled" in w.waiting(f"{TAGS}/{KEY}.sync").reason
    assert w.values() == list(VALUES)


def servicenow(w: Syncs, query: str = "", more: str = "", column: str = "u_cost_center") -> str:
    """Return a relay.yaml by which our tag follows ServiceNow; *more* is added to the tag."""
    ask = f'{{source: cmdb, table: {TABLE}, columns: {{value: {column}}}, query: "{query}"}}'
    source = f'sources: {{cmdb: {{type: servicenow, url: "{w.servicenow.api_url}"}}}}\n'
    return f"{source}tagging_policies: {{{POLICY}: {{tags: {{{KEY}: {{servicenow: {ask}{more}}}}}}}}}"


@pytest.mark.parametrize("owner", ["team-a", "group:team-a", "group:default/team-a"])
@pytest.mark.parametrize(("form", "reference"), [("full", "group:default/team-a"), ("name", "team-a")])
def test_references_are_alike_however_they_are_written(w: InMemory, owner: str, form: str, reference: str) -> None:
    assert f"`{owner}`" in parts()["Backstage"]
    assert f"`{form}`" in PROSE
    assert f"`{reference}`" in parts()["Backstage"]
    w.backstage.set_entities([{"kind": "Component", "metadata": {"name": "a"}, "spec": {"owner": owner}}])
    ask = f"{{source: p, filters: [kind=component], columns: {{value: spec.owner}}, refs: {{value: {form}}}}}"
    source = f'sources: {{p: {{type: backstage, url: "{w.backstage.api_url}"}}}}\n'
    w.configure(f"{source}tagging_policies: {{{POLICY}: {{tags: {{team: {{adopt: true, backstage: {ask}}}}}}}}}")
    assert w.sync_now("team").outcome == "delivered"
    assert w.values("team") == [reference]


WAYS = table("the first page of the list", "`relay.yaml`")


@pytest.mark.parametrize("row", WAYS, ids=["address", "cursor", "header"])
def test_there_are_three_ways_to_the_next_page(row: list[str], w: InMemory) -> None:
    [body, *header], [way], [following] = map(spans, row)
    first = (json.loads(body), header[0].removeprefix("Link: ") if header else "")
    with answers({"/api/v1/apps?status=active": first, following: ({"apps": ["b"]}, "")}) as registry:
        source = f'sources: {{r: {{type: http_json, url: "{registry}/api"}}}}\n'
        ask = f'{{source: r, path: v1/apps, params: {{status: active}}, items: apps, columns: {{value: "@"}}, {way}}}'
        w.configure(f"{source}tagging_policies: {{{POLICY}: {{tags: {{app: {{adopt: true, http_json: {ask}}}}}}}}}")
        assert w.sync_now("app").outcome == "delivered"
    assert w.values("app") == ["a", "b"]


def test_a_second_way_to_the_next_page_and_another_host_are_refused(w: InMemory) -> None:
    text = next(text for text in said("relay.yaml") if "next: links.next" in text)
    both = text.replace("next: links.next", "link_header: true\n          next: links.next")
    with pytest.raises(InputRefused, match="three ways to the next page"):
        parse(both.encode())
    page = {"apps": [], "links": {"next": "https://elsewhere.example/api"}}
    with answers({"/api/v1/apps?status=active": (page, "")}) as registry:
        w.configure(here(w, text, registry))
        found = w.waiting("incoming/tagging-policies/standard/CostCenter.sync")
    assert "elsewhere" in found.reason


# --- rules ------------------------------------------------------------------------------------------------------------


RULES = table("`rules`", "stands there")


@pytest.mark.parametrize("row", RULES, ids=ids(RULES))
def test_a_value_becomes_what_the_page_says(row: list[str]) -> None:
    rules = Rules.model_validate(yaml.safe_load(spans(row[0])[0]))
    given = "" if row[1] == "nothing" else spans(row[1])[0]
    value = rules.normalised(given)
    fault = rules.fault(value)
    [shown] = spans(row[2])
    assert shown == (fault[0] if fault else value)
    assert row[2].startswith("rejected") == (fault is not None)


def test_the_defaults_of_the_rules_are_those_of_the_code() -> None:
    shown = {spans(row[0])[0]: row[1] for row in table("rule", "default")}
    defaults = {name: json.dumps(value) if isinstance(value, bool) else value for name, value in Rules()}
    assert shown == {name: f"`{value}`" if value else "none" for name, value in defaults.items()}


# --- schedules --------------------------------------------------------------------------------------------------------


def day(number: int, hour: int, minute: int = 0) -> datetime:
    """Return a moment of the month in which the tests live."""
    return datetime(2026, 3, number, hour, minute, tzinfo=UTC)


def its_hour(w: InMemory) -> None:
    assert w.scheduled(day(2, 2)) == []
    [run] = w.scheduled(day(2, 3))
    assert run.outcome == "unchanged"
    assert w.receipt(run)["source"]["key"] == f"schedule/tagging-policies/{POLICY}/{KEY}/2026-03-02T03:00Z"


def twice(w: InMemory) -> None:
    assert len(w.scheduled(day(2, 3))) == 1
    assert w.scheduled(day(2, 3)) == []


def late(w: InMemory) -> None:
    [run] = w.scheduled(day(2, 5, 59))
    assert run.source.key.endswith("/2026-03-02T03:00Z")
    assert w.scheduled(day(2, 5, 59)) == []


def too_late(w: InMemory) -> None:
    assert w.scheduled(day(2, 3) + CATCH_UP) == []
    assert len(w.scheduled(day(3, 3))) == 1


def down(w: InMemory) -> Delivery:
    w.servicenow.faults.add([{"operation": "listRecords", "times": 9, "fault": {"kind": "status", "status": 503}}])
    [run] = w.tick(day(2, 3))
    with pytest.raises(Wait):
        w.run(run.id)
    assert w.known(run).outcome == "pending"
    assert w.values() == list(VALUES)
    return run


def down_for_a_day(w: InMemory) -> None:
    run = down(w)
    w.later(days=1)
    w.servicenow.reset()
    assert len(w.scheduled(day(3, 3))) == 1
    assert w.run(run.id).outcome == "superseded"


def plan_only(w: InMemory) -> None:
    w.servicenow.set_table(TABLE, applications(*VALUES, "CC-1005")[TABLE])
    w.configure(servicenow(w, more=", plan_only: true"))
    [run] = w.scheduled(day(2, 3))
    assert w.plan(run)["verdict"] == "would_deliver"
    assert w.values() == list(VALUES)
    assert run.next_command == f"aws s3api put-object --bucket {DROPS} --key {TAGS}/{KEY}.sync"


WHEN = table("what happens", "what follows")
SCHEDULED = (its_hour, twice, late, too_late, down, down_for_a_day, plan_only)
"""In the order of the page's table."""


def test_every_line_about_schedules_is_tried() -> None:
    assert len(WHEN) == len(SCHEDULED)
    assert f"up to {CATCH_UP // timedelta(hours=1)} hours after its hour" in PROSE


@pytest.mark.parametrize("number", range(len(SCHEDULED)), ids=ids(WHEN))
def test_a_schedule_does_what_the_page_says(number: int, w: InMemory) -> None:
    w.configure(servicenow(w))
    SCHEDULED[number](w)


def test_a_source_may_have_an_hour_of_its_own_and_a_run_at_once(w: InMemory) -> None:
    [text] = [text for text in said("relay.yaml") if "hour_utc: 22" in text]
    w.configure(here(w, text))
    assert w.tick(day(2, 3)) == []
    [run] = w.scheduled(day(2, 22))
    assert run.dry_run
    for command in said("now")[0].splitlines():
        bucket, key = re.fullmatch(r"aws s3api put-object --bucket (\S+) --key (\S+)", command).groups()  # type: ignore[union-attr] # a line that is none fails here, too
        assert bucket == "$DROPS"
        assert w.prepare(w.drop(key, b"")) is not None


def test_what_the_page_says_of_the_schedule_is_what_the_template_has() -> None:
    template = (ROOT / "template.yaml").read_text()
    for parameter in ("SyncHourUtc", "SyncSchedule"):
        default = re.search(rf"^  {parameter}:\n    Type: \w+\n    Default: (.+)$", template, re.MULTILINE)
        assert default is not None
        assert re.search(rf"`{parameter}` \(`?{re.escape(default[1])}`?\)", PROSE)
    for function in ("TaggingPolicyPrepareFunction", "CustomPropertiesPrepareFunction"):
        own = re.search(rf"^  {function}:\n((?:    .*\n|\n)+)", template, re.MULTILINE)
        assert own is not None
        assert "Timeout: " not in own[1], "it has that of all functions"
    assert "\n    Timeout: 900\n" in template.partition("\nGlobals:\n")[2].partition("\nResources:\n")[0]
    assert "within one invocation of its function (15 minutes)" in PROSE


# --- guards -----------------------------------------------------------------------------------------------------------

MANY = tuple(f"{number:04}" for number in range(500))
TEN = (*VALUES, *MANY[:6])


def first(w: InMemory, *values: str) -> None:
    """Have a list applied, whatever the guards say."""
    found = w.deliver_values(*values)
    assert (w.decide(found) if found.outcome == "held" else found).outcome in {"delivered", "unchanged"}


def share_removed(w: InMemory) -> Callable[[], Delivery]:
    first(w, *TEN)
    return lambda: w.deliver_values(*TEN[:6])


def number_removed(w: InMemory) -> Callable[[], Delivery]:
    first(w, *MANY)
    return lambda: w.deliver_values(*MANY[:399])


def source_empty(w: InMemory) -> Callable[[], Delivery]:
    return w.deliver_values


def source_grown(w: InMemory) -> Callable[[], Delivery]:
    first(w, *VALUES)
    return lambda: w.deliver_values(*VALUES, *MANY[:9])


def lookalikes(w: InMemory) -> Callable[[], Delivery]:
    return lambda: w.deliver_values(*VALUES, "cc1001")


def new_tag(w: InMemory) -> Callable[[], Delivery]:
    return lambda: w.deliver_values("CC-1001", key="costcenter")


def no_list(w: InMemory) -> Callable[[], Delivery]:
    w.change_by_hand(lambda tag: tag.update(valueType="ANY"))
    return lambda: w.deliver_values(*VALUES)


def drift(w: InMemory) -> Callable[[], Delivery]:
    first(w, *VALUES)
    w.change_by_hand(lambda tag: tag.update(allowedValues=[*VALUES, "CC-9999"]))
    return lambda: w.deliver_values(*VALUES)


def others_lost(w: InMemory) -> Callable[[], Delivery]:
    first(w, *VALUES)
    prepared = w.prepare(w.drop(f"{TAGS}/{KEY}.txt", "\n".join([*VALUES, "CC-1005", ""]).encode()))
    assert prepared is not None
    for operation, kind in (("updateTaggingPolicy", "lost_answer"), ("getTaggingPolicy", "reset")):
        after = int(operation.startswith("get"))
        w.vendor.faults.add([{"operation": operation, "fault": {"kind": kind}, "after": after, "times": 4}])
    with pytest.raises(Wait):
        w.step(prepared.id)
    w.vendor.faults.clear()
    client = w.client()
    ours = tuple(tag for tag in client.tagging_policy(SLUG, POLICY).attributes.tags or () if tag.key == KEY)
    client.update_tagging_policy(SLUG, POLICY, PolicyChange(tags=ours))
    return lambda: w.deliver_values(*VALUES, "CC-1006")


def columns_removed(w: InMemory) -> Callable[[], Delivery]:
    w.deliver_file(f"{PROPERTIES}/p.csv", b"service,team,env\na,x,p\nb,y,q\n")
    return lambda: w.deliver_file(f"{PROPERTIES}/p.csv", b"service,team\na,x\nb,y\n")


def share_emptied(w: InMemory) -> Callable[[], Delivery]:
    w.deliver_file(f"{PROPERTIES}/p.csv", b"service,team\na,x\nb,x\nc,x\nd,x\n")
    return lambda: w.deliver_file(f"{PROPERTIES}/p.csv", b"service,team\na,x\nb,x\nc,\nd,\n")


OBJECTED = (
    share_removed,
    number_removed,
    source_empty,
    share_removed,
    source_grown,
    lookalikes,
    new_tag,
    no_list,
    drift,
    others_lost,
    columns_removed,
    share_emptied,
)
"""In the order of the page's table."""
GUARDS = table("guard", "objects to")


def test_every_guard_is_on_the_page_with_its_limit() -> None:
    assert {spans(row[0])[0] for row in GUARDS} == set(Guard)
    limits = {name: value for row in GUARDS for name, value in (each.split(": ") for each in spans(row[2]))}
    assert limits == {name: str(value) for name, value in Guards() if name != "overrides"}


@pytest.mark.parametrize("number", range(len(GUARDS)), ids=ids(GUARDS))
def test_a_guard_says_what_the_page_says_and_holds(number: int, w: InMemory) -> None:
    [guard], [says] = spans(GUARDS[number][0]), spans(GUARDS[number][3])
    found = OBJECTED[number](w)()
    assert found.outcome == "held"
    assert says in [said["says"] for said in w.plan(found)["guards"] if said["guard"] == guard]
    assert f"{guard}: {says}" in found.reason


@pytest.mark.parametrize("number", range(len(GUARDS)), ids=ids(GUARDS))
def test_an_override_lets_one_guard_pass_until_its_day_is_over(number: int, w: InMemory) -> None:
    [guard] = spans(GUARDS[number][0])
    again = OBJECTED[number](w)
    others = [other for other in w.guards(again()) if other != guard]
    w.configure(overrides({guard: "2026-03-01", **dict.fromkeys(others, "2026-12-31")}))
    w.time[0] = day(1, 23, 59)
    passed = again()
    assert passed.outcome == ("rejected" if guard == Guard.SOURCE_EMPTY else "delivered"), passed.reason
    [shown] = [said for said in w.plan(passed)["guards"] if said["guard"] == guard]
    assert (shown["verdict"], shown["override"]["reason"]) == ("overridden", "a test")


def overrides(until: Mapping[str, str]) -> str:
    """Return a relay.yaml with an override for each guard that is named, and its last day."""
    listed = ", ".join(f"{{guard: {guard}, until: {day}, reason: a test}}" for guard, day in until.items())
    return f"sync: {{guards: {{overrides: [{listed}]}}}}"


def test_an_override_that_is_over_does_nothing_and_a_warning_says_so(w: InMemory) -> None:
    w.configure(overrides({"lookalikes": "2026-02-28"}))
    found = lookalikes(w)()
    assert found.outcome == "held"
    assert any("does nothing any more" in warning for warning in found.warnings)


def test_a_released_list_that_is_empty_is_not_sent(w: InMemory) -> None:
    found = w.decide(w.deliver_values())
    assert found.outcome == "rejected"
    assert w.values() == list(VALUES)


def test_of_custom_properties_the_guards_speak_of_keys(w: InMemory) -> None:
    assert w.deliver_file(PROPERTIES_FILE, b"app,team\na,x\nb,y\n").outcome == "delivered"
    found = w.deliver_file(PROPERTIES_FILE, b"app,team\na,x\n")
    assert "1 of 2 keys would be removed" in found.reason
    assert w.decide(found).outcome == "delivered"


def test_a_long_list_without_a_message_is_told_of_and_not_held(w: InMemory) -> None:
    [warning] = said("warning")
    found = w.deliver_values(*VALUES, *MANY[:296])
    assert found.outcome == "delivered"
    assert list(found.warnings) == [warning.strip()]
    assert f"more than {SUGGESTED_VALUES} values" in PROSE


def test_limits_that_a_tag_does_not_name_are_those_of_all_syncs() -> None:
    [text] = [text for text in said("relay.yaml") if "max_share_shrunk: 0.6" in text]
    config = parse(text.encode())
    assert config.sync.guards == Guards(), "they are the defaults"
    [(_, _, tag)] = config.synced_tags()
    in_force = tag.guards.over(config.sync.guards)
    assert (in_force.max_share_shrunk, in_force.max_share_removed) == (0.6, 0.3)


def test_a_plan_that_is_long_stands_whole_in_a_file(w: InMemory) -> None:
    found = w.deliver_values(*VALUES, *MANY[: SHOWN + 1])
    plan = w.plan(found)
    assert (plan["added"]["count"], len(plan["added"]["first"])) == (SHOWN + 1, SHOWN)
    whole = json.loads(w.text(plan["whole_plan"].removeprefix(f"s3://{DROPS}/")))
    assert len(whole["added"]) == SHOWN + 1
    assert f"the first {SHOWN} of each kind" in PROSE


# --- decisions --------------------------------------------------------------------------------------------------------

DECISIONS = table("decision", "what is done")


def test_the_decisions_are_understood() -> None:
    assert [Decision.model_validate_json(text).decision for text in (said("release")[0], said("release")[2])] == [
        "send",
        "drop",
    ]
    assert Decision.model_validate_json(said("release")[1]).decision == "arrived"
    assert {spans(row[0])[0] for row in DECISIONS} == {json.loads(text)["decision"] for text in said("release")[:3]}
    command = said("release")[3].strip()
    assert command == f"echo '{said('release')[0].strip()}' | aws s3 cp - s3://$DROPS/incoming/release/$DELIVERY.json"


@pytest.mark.parametrize("row", DECISIONS, ids=ids(DECISIONS))
def test_a_decision_about_drift_does_what_the_page_says(row: list[str], w: InMemory) -> None:
    [decision], [again] = spans(row[0]), spans(row[2])
    next_time = drift(w)
    found = next_time()
    shown = next(line for line in found.next_command.splitlines() if "echo" in line)
    assert shown.startswith(said("release")[3].partition(" s3://")[0])
    decided = w.decide(found, decision)
    assert decided.outcome == {"send": "delivered", "drop": "rejected", "mark as arrived": "unchanged"}[decision]
    assert ("CC-9999" in w.values()) == (decision != "send")
    assert next_time().outcome == again


def test_a_plan_that_is_released_late_is_held_anew(w: InMemory) -> None:
    found = drift(w)()
    w.change_by_hand(lambda tag: tag.update(allowedValues=["CC-1001", "CC-8888"]))
    again = w.decide(found)
    assert again.outcome == "held"
    assert spans(parts()["What is held, and how it goes on"].partition("**held again**")[2])[0] in again.reason
    assert w.values() == ["CC-1001", "CC-8888"]
    assert w.decide(again).outcome == "delivered"


def test_what_is_held_holds_up_no_other_tag_of_its_policy(w: InMemory) -> None:
    assert drift(w)().outcome == "held"
    assert w.deliver_values("prod", "dev", "test", key="env").outcome == "delivered"


def test_a_change_by_hand_that_is_wanted_or_not_ours_is_no_drift(w: InMemory) -> None:
    first(w, *VALUES)
    w.change_by_hand(lambda tag: tag.update(allowedValues=[*VALUES, "CC-1005"], message="by hand"))
    assert w.deliver_values(*VALUES, "CC-1005").outcome == "unchanged"
    assert w.tags()[KEY]["message"] == "by hand"


def test_what_was_last_applied_and_is_lost_is_asked_about(w: InMemory) -> None:
    first(w, *VALUES)
    for kept in list(w.drops.listing(DROPS, "state/")):
        w.drops.remove(kept.key)
    found = w.deliver_values(*VALUES, "CC-1005")
    assert w.guards(found) == {"drift": "held"}
    assert "what was last applied is lost" in found.reason


# --- outcomes ---------------------------------------------------------------------------------------------------------


def other_order(w: InMemory) -> Delivery:
    first(w, *VALUES)
    return w.deliver_values(*reversed(VALUES))


def newer_list(w: InMemory) -> Delivery:
    held = share_removed(w)()
    newer = w.deliver_values(*TEN, "CC-1005")
    assert w.known(held).outcome == "superseded"
    return newer


def lost_answer(w: InMemory) -> Delivery:
    w.vendor.faults.add([{"operation": "updateTaggingPolicy", "fault": {"kind": "lost_answer"}}])
    found = w.deliver_values(*VALUES, "CC-1005")
    assert w.values() == [*VALUES, "CC-1005"]
    return found


def not_kept(w: InMemory) -> Delivery:
    w.vendor.configure({"drop_write": "policy"})
    waiting = w.waiting(f"{TAGS}/{KEY}.txt", "\n".join([*VALUES, "CC-1005"]).encode())
    w.vendor.configure({"drop_write": None})
    assert w.finish(waiting.id).outcome == "delivered"
    return waiting


def no_policy(w: InMemory) -> Delivery:
    return w.deliver_file(f"incoming/tagging-policies/nobody/{KEY}.txt", b"CC-1001\n")


def tag_twice(w: InMemory) -> Delivery:
    doubled = policy(VALUES)
    doubled["tags"].append({**doubled["tags"][1], "mandatory": False})
    with InfracostStandIn(policies={SLUG: [doubled]}, organizations={ORGANIZATION: SLUG}) as w.vendor:
        return w.deliver_values(*VALUES, "CC-1005")


def source_refuses(w: InMemory) -> Delivery:
    w.configure(servicenow(w))
    w.password[0] = "wrong"
    return w.waiting(f"{TAGS}/{KEY}.sync")


def no_table(w: InMemory) -> Delivery:
    w.configure(servicenow(w).replace(TABLE, "cmdb_ci_nothing"))
    return w.sync_now()


def no_field(w: InMemory) -> Delivery:
    w.configure(servicenow(w, column="u_cost_centre"))
    waiting = w.waiting(f"{TAGS}/{KEY}.sync")
    assert "a field is misspelt" in waiting.reason
    return waiting


def no_source(w: InMemory) -> Delivery:
    return w.sync_now()


CASES: dict[str, Callable[[InMemory], Delivery]] = {
    "the same values, in another order": other_order,
    "a newer list, while one is held": newer_list,
    "the answer to the write is lost": lost_answer,
    "Infracost takes the write and shows something else": not_kept,
    "the policy does not exist": no_policy,
    "the tag stands twice in the policy": tag_twice,
    "the source refuses the credential": source_refuses,
    "the source has no such table": no_table,
    "no row has the field": no_field,
    "there is no source in `relay.yaml`, and `.sync` is dropped": no_source,
}
ENDS = table("what happens", "outcome")


def test_every_line_about_outcomes_is_tried() -> None:
    assert [row[0] for row in ENDS] == list(CASES)
    assert {spans(row[0])[0] for row in table("outcome", "of a sync it means")} == set(Outcome)


@pytest.mark.parametrize("row", ENDS, ids=ids(ENDS))
def test_it_ends_as_the_page_says(row: list[str], w: InMemory) -> None:
    assert CASES[row[0]](w).outcome == spans(row[1])[0]


def test_however_many_values_there_are_the_calls_are_as_many_as_the_page_says(w: InMemory) -> None:
    first(w, *VALUES, *MANY)
    assert w.calls() == ["getTaggingPolicy", "updateTaggingPolicy", "getTaggingPolicy"]
    first(w, *VALUES, *MANY)
    assert w.calls()[3:] == ["getTaggingPolicy"]


def test_the_numbers_are_those_of_the_code() -> None:
    longest = "x" * value_files.MAX_MESSAGE_CHARS
    assert TagSync(message=longest).message
    with pytest.raises(ValidationError):
        TagSync(message=f"{longest}x")
    for words in (
        f"| rows of a list, or of a source of values | {value_files.MAX_ROWS:,} |",
        f"| bytes of a list | {value_files.MAX_BYTES:,} |",
        f"{property_files.MAX_BYTES:,} bytes, {property_files.MAX_ROWS:,} rows of a source",
        f"| {MAX_VALUE_CHARS:,} and {value_files.MAX_MESSAGE_CHARS:,} |",
        f"| mended files of mended files | {MAX_MENDS} |",
        f"| `relay.yaml` | {MAX_CONFIG_BYTES:,} bytes |",
        f"{ServiceNowAsk.model_fields['page_rows'].default:,} rows are asked for at once, up to 10,000",
    ):
        assert words in PROSE, words

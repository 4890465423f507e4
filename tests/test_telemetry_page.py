"""docs/telemetry.md is true: its examples are dropped and sent, its tables are tried, under both contracts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, get_args

import pytest
from finops_relay.delivery.identity import ObjectVersion
from finops_relay.delivery.ledger import Delivery
from finops_relay.delivery.packer import MAX_BODY_BYTES
from finops_relay.delivery.receipt import Outcome
from finops_relay.errors import Wait
from finops_relay.formats.cost_cells import MAX_DIGITS, CellFault
from finops_relay.formats.json_items import JSON_BYTES
from finops_relay.formats.telemetry import ELEMENT, KINDS, MAX_KEYS, MAX_STREAM, MAX_TEXT, MAX_VALUES, SIGNIFICANT
from finops_relay.formats.telemetry_files import MAX_RECORDS
from finops_relay.jobs.release import Decision
from finops_relay.jobs.telemetry.books import Verb
from finops_relay.jobs.telemetry.collect import Sent, collect
from finops_relay.jobs.telemetry.content import MAX_DAYS
from finops_relay.jobs.telemetry.drop_path import STREAM_FILE
from finops_relay.jobs.telemetry.merge import merge
from finops_relay.jobs.telemetry.messages import MAX_ID, MEMBERS, members_of, record_of, stream_of
from finops_relay.jobs.telemetry.remembered import BURST, PACE
from typing_extensions import override

from local.standins.cloudzero import KEY
from tests.world.memory import MemoryBucket
from tests.world.relay import DROPS, REGION
from tests.world.schedules import Parts
from tests.world.telemetry import REPLACES, SUMS, Telemetry, allocation, folder, metric, telemetry

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "telemetry.md").read_text()
PROSE = " ".join(PAGE.split())
"""The same, wherever its lines are broken."""
Contract = Literal["live", "openapi"]
CONTRACTS: tuple[Contract, ...] = get_args(Contract)


# --- reading the page -------------------------------------------------------------------------------------------------


def part(heading: str) -> str:
    """Return what stands below a heading of the page."""
    found = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    assert found, f"the page has no part {heading!r}"
    return found


def blocks(text: str) -> list[tuple[str, str, str]]:
    """Return the fenced blocks of a text: their language, what else the fence says, and what stands in them."""
    return re.findall(r"^```(\w+) ([\w.-]+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def block(words: str) -> str:
    """Return what stands in the block whose fence says so."""
    [text] = [text for _, said, text in blocks(PAGE) if said == words]
    return text


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
    return [re.sub(r"[^\w.=+-]+", "_", row[0]).strip("_")[:70] for row in rows]


# --- worlds -----------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class InMemory(Telemetry):
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


@pytest.fixture(scope="module", params=CONTRACTS)
def over_aws(request: pytest.FixtureRequest) -> Iterator[Telemetry]:
    """A world of a contract, over AWS's own interfaces."""
    with telemetry(request.param) as found:
        yield found


@pytest.fixture(scope="module")
def w(over_aws: Telemetry) -> Telemetry:
    """One world for all tests of a contract, each of which has streams of its own."""
    life = Parts()
    shared = {known.name: getattr(over_aws, known.name) for known in fields(over_aws)}
    ports = life.ports(over_aws.metrics)
    own = {"ledger": life.ledger, "drops": life.drops, "ports": ports, "time": life.time, "asked": life.asked}
    return InMemory(**{**shared, **own})


# --- living the examples ----------------------------------------------------------------------------------------------


@dataclass
class Reader:
    """Somebody who does what the examples say, one after the other, and compares."""

    w: Telemetry
    delivery: Delivery | None = None
    file: tuple[str, bytes] = ("", b"")
    messages: int = 0
    compared: set[str] = field(default_factory=set)

    def follow(self, language: str, words: str, text: str) -> None:
        """Do what one block says, or compare what it shows."""
        if words == "drop":
            self.drop(text)
        elif words == "messages":
            self.delivery = self.send(text.splitlines())
        elif "." in words:
            self.file = (words, text.encode())
        elif words in {self.w.contract, "receipt", "holds", "rejected"}:
            self.compared.add(f"{language} {words}")
            {"json": self.receipt, "text": self.holds, "csv": self.rejected}[language](text)

    def drop(self, command: str) -> None:
        """Drop the file that was shown last, where the command puts it."""
        found = re.fullmatch(r"aws s3 cp (\S+) s3://\$DROPS/(\S+)\n", command)
        assert found is not None, command
        name, goal = found.groups()
        assert name == self.file[0]
        if self.delivery is not None:
            goal = goal.replace("$DELIVERY", self.delivery.id)
        self.delivery = self.w.deliver_file(goal + name if goal.endswith("/") else goal, self.file[1])

    def send(self, messages: list[str]) -> Delivery:
        """Send messages of one stream to the queue, and let the schedule fire."""
        self.messages += len(messages)
        sent = [Sent(f"message-{self.messages}-{n}", text, n) for n, text in enumerate(messages)]
        return counted(self.w, sent)

    def receipt(self, shown: str) -> None:
        assert self.delivery is not None
        found, wanted = self.w.receipt(self.delivery), json.loads(shown)
        assert part_of(found, wanted) == wanted

    def holds(self, shown: str) -> None:
        assert self.delivery is not None
        assert held(self.w, self.delivery.work["stream"]) == ([] if shown == "nothing\n" else shown.splitlines())

    def rejected(self, shown: str) -> None:
        assert self.delivery is not None
        assert self.w.rejected(self.delivery) == shown


def counted(w: Telemetry, sent: list[Sent]) -> Delivery:
    """Collect messages of one stream, count them, and take what follows to its end."""
    collect(sent, w.ports)
    w.time[0] += timedelta(minutes=5)
    [delivery] = merge(w.ports, DROPS, w.tenant())
    return delivery if delivery.outcome.final else w.finish(delivery.id)


def held(w: Telemetry, stream: str) -> list[str]:
    """Return the records that CloudZero holds of a stream, as the page shows them."""
    holding = w.streams().get(stream, {"records": {}})
    lines = []
    for key, value in holding["records"].items():
        timestamp, _, labels, element = json.loads(key)
        when = f"{timestamp[:10]} {timestamp[11:16]}" if holding["granularity"] == "HOURLY" else timestamp[:10]
        words = [label if isinstance(label, str) else "|".join(label) for _, label in sorted(labels.items())]
        lines.append(" ".join([when, *filter(None, [element]), *words, format(Decimal(value).normalize(), "f")]))
    return sorted(lines)


def part_of(found: Any, shown: Any) -> Any:  # noqa: ANN401 -- JSON
    """Return those members of something that an example shows."""
    if isinstance(shown, dict):
        return {name: part_of(found[name], shown[name]) for name in shown}
    if isinstance(shown, list) and len(found) == len(shown):
        return [part_of(each, like) for each, like in zip(found, shown, strict=True)]
    return found


# --- the examples -----------------------------------------------------------------------------------------------------


def test_the_examples_come_out_as_the_page_shows(over_aws: Telemetry) -> None:
    reader = Reader(over_aws)
    for language, words, text in blocks(part("Examples")):
        reader.follow(language, words, text)
    assert {"json live", "json openapi", "json receipt", "text holds", "csv rejected"} - reader.compared == {
        f"json {'openapi' if over_aws.live else 'live'}"
    }


def test_there_is_an_example_of_every_way_in() -> None:
    goals = [text.split("/telemetry/")[1] for _, words, text in blocks(part("Examples")) if words == "drop"]
    ways = {goal.split("/")[2].strip() for goal in goals}
    assert ways == set(Verb)
    assert {goal.split("/")[0] for goal in goals} == set(KINDS)
    assert any("/mended/" in goal for goal in goals)
    assert [words for _, words, _ in blocks(part("Examples"))].count("messages") == 2
    rows = [spans(row[0])[0] for row in table("under `incoming/telemetry/{metric\\|allocation}/{stream}/`")]
    assert rows[:4] == [*(f"{verb.value}/<file>" for verb in Verb), f"delete/{STREAM_FILE}"]


def test_dimensions_may_be_nested_under_the_names_that_the_page_has(w: Telemetry) -> None:
    [row] = [row for row in table("column of CSV, or member of JSON") if "filter.<name>" in row[0]]
    nested = ["filter", *(word for word in spans(row[1]) if re.fullmatch(r"\w+", word))]
    assert len(nested) == 4
    common = {"timestamp": "2026-03-01T00:00:00Z", "value": 1, "granularity": "DAILY"}
    records = [common | {name: {"team": "a"}} for name in nested] + [common | {"element.team": "a"}]
    done = w.deliver_records("nested", json.dumps(records).encode())
    assert done.rows.accepted == 5
    assert held(w, "nested") == ["2026-03-01 a 5"]


def test_the_granularity_may_be_missing_once_the_stream_exists(w: Telemetry) -> None:
    body = b"timestamp,value,filter.team\n2026-03-01T00:00:00Z,2,a\n"
    assert w.deliver_records("known", body).outcome == "rejected"
    w.deliver_records("known", metric(("01T00", "1", "a")))
    assert w.deliver_records("known", body).outcome == "delivered"


# --- what services send -----------------------------------------------------------------------------------------------


def test_the_python_emitter_repeats_what_was_not_taken_and_nothing_counts_twice(
    w: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the first call two messages are answered as failed: one of them had arrived all the same."""
    queue = w.sqs.create_queue(QueueName="telemetry-collect")["QueueUrl"]
    monkeypatch.setenv("TELEMETRY_QUEUE_URL", queue)
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    emitter: dict[str, Any] = {}
    exec(compile(block("emit.py"), "emit.py", "exec"), emitter)  # noqa: S102 -- our own page
    failing = [["3", "7"]]

    def some_failed(parsed: dict[str, Any], **_: object) -> None:
        if failing:
            failed = failing.pop()
            parsed["Successful"] = [entry for entry in parsed["Successful"] if entry["Id"] not in failed]
            parsed["Failed"] = [{"Id": each, "SenderFault": False, "Code": "InternalError"} for each in failed]

    emitter["sqs"].meta.events.register("after-call.sqs.SendMessageBatch", some_failed)
    at = datetime(2026, 3, 5, 9, 0, tzinfo=UTC)
    emitter["emit"]([emitter["checkout"](number, "berlin", at) for number in range(23)])
    sent = received(w, queue)
    assert len(sent) == 25
    assert set(json.loads(sent[0].body)) <= MEMBERS
    done = counted(w, sent)
    assert (done.outcome, done.rows.in_, done.rows.accepted, done.filtered_by) == (
        "delivered",
        25,
        23,
        {"duplicates": 2},
    )
    assert held(w, "emitted") == ["2026-03-05 berlin 23"]


def test_the_python_emitter_says_what_was_not_taken_in_the_end(w: Telemetry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELEMETRY_QUEUE_URL", w.sqs.create_queue(QueueName="telemetry-collect")["QueueUrl"])
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    emitter: dict[str, Any] = {}
    exec(compile(block("emit.py"), "emit.py", "exec"), emitter)  # noqa: S102 -- our own page

    def all_failed(parsed: dict[str, Any], **_: object) -> None:
        parsed["Failed"] = [{"Id": entry["Id"]} for entry in parsed.pop("Successful")]

    emitter["sqs"].meta.events.register("after-call.sqs.SendMessageBatch", all_failed)
    with pytest.raises(RuntimeError, match="2 records were not taken"):
        emitter["emit"]([{"id": "a"}, {"id": "b"}], tries=1)


def received(w: Telemetry, queue: str) -> list[Sent]:
    """Take all messages from a queue, as its function would be given them."""
    found = []
    while batch := w.sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, AttributeNames=["All"]).get(
        "Messages"
    ):
        for message in batch:
            w.sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
            body = message["Body"].replace('"checkouts"', '"emitted"')  # the examples have that stream
            found.append(Sent(message["MessageId"], body, int(message["Attributes"]["SentTimestamp"])))
    return found


def test_the_node_emitter_sends_what_the_python_one_does() -> None:
    python, node = block("emit.py"), block("emit.mjs")
    body = re.search(r"=> \(\{\n(.*?)\n\}\);", node, re.DOTALL)
    assert body is not None
    members = dict(re.findall(r"^  (\w+): (.+),$", body[1], re.MULTILINE))
    theirs = dict(re.findall(r'^        "(\w+)": ([^#\n]+),', python, re.MULTILINE))
    assert members.keys() == theirs.keys() == MEMBERS - {ELEMENT}
    same = ("stream", "kind", "granularity", "value")
    assert {name: members[name] for name in same} == {name: theirs[name] for name in same}
    assert members["id"] == "`order-${order}`"
    assert theirs["id"] == 'f"order-{order}"'
    for words in ("TELEMETRY_QUEUE_URL", "Failed", "tries = 5", "first += 10"):
        assert words in node
    for words in ("TELEMETRY_QUEUE_URL", "Failed", "tries=5", "len(records), 10"):
        assert words in python


def test_what_the_command_line_sends_counts(w: Telemetry) -> None:
    alone = re.search(r"--message-body '(.*)'$", block("send"), re.MULTILINE)
    assert alone is not None
    bodies = [alone[1], *(entry["MessageBody"] for entry in json.loads(block("entries.json")))]
    found = [body.replace('"checkouts"', '"typed"') for body in bodies]  # the examples have that stream
    done = counted(w, [Sent(f"by-hand-{n}", body, n) for n, body in enumerate(found)])
    assert (done.outcome, done.rows.accepted, done.warnings) == ("delivered", 3, ())


def test_the_policy_allows_to_send_and_nothing_else() -> None:
    [statement] = json.loads(block("policy"))["Statement"]
    assert statement == {"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": "<TelemetryQueueArn>"}
    template = (ROOT / "template.yaml").read_text()
    for output in ("TelemetryQueueArn", "TelemetryQueueUrl"):
        assert f"\n  {output}:\n" in template
        assert output in PAGE


def test_every_member_of_a_record_is_told() -> None:
    assert {spans(row[0])[0] for row in table("member")} == MEMBERS


GOOD = {
    "stream": "checkouts",
    "kind": "metric",
    "timestamp": "2026-03-01T09:10:00Z",
    "granularity": "DAILY",
    "value": 1,
    "dimensions": {"shop": "berlin"},
    "id": "order-1001",
}
REFUSED = table("a record of the metric above with", "contract")


@pytest.mark.parametrize("contract", CONTRACTS)
@pytest.mark.parametrize("row", REFUSED, ids=ids(REFUSED))
def test_a_record_is_rejected_as_the_page_says(row: list[str], contract: Contract) -> None:
    [change], [error], live = spans(row[0]), spans(row[2]), contract == "live"

    def read(text: str, nature: Any = None) -> Any:  # noqa: ANN401 -- a pair that only the reader looks into
        members = members_of(text)
        assert stream_of(members) == "checkouts"
        return record_of(members, "m", live=live, nature=nature)

    nature = read(json.dumps(GOOD))[1]
    changed = json.dumps(GOOD | dict.fromkeys(json.loads(change), "<>"))
    for name in json.loads(change):  # numbers keep the digits that stand on the page
        digits = re.search(rf'"{name}": (.*)}}$', change)
        assert digits is not None
        changed = changed.replace('"<>"', digits[1])
    if contract not in row[1] and row[1] != "both":
        read(changed, nature)
        return
    with pytest.raises(CellFault) as caught:
        read(changed, nature)
    assert caught.value.error == error


# --- what differs -----------------------------------------------------------------------------------------------------

ONE = metric(("01T00", "1", "a"))
GONE = b"timestamp,granularity\n2026-03-01T00:00:00Z,DAILY\n"


def then(w: Telemetry, stream: str, *bodies: bytes, verb: str = "replace", kind: str = "metric") -> Delivery:
    """Deliver one file after the other; the last of them does something else, if *verb* says so."""
    for body in bodies[:-1]:
        assert w.deliver_records(stream, body, kind=kind).outcome == "delivered"
    return w.deliver_records(stream, bodies[-1], verb, kind, name="b.csv")


def replaced(w: Telemetry, stream: str) -> Delivery:
    found = then(w, stream, metric(("01T00", "1", "a"), ("01T00", "2", "b")), metric(("01T00", "5", "a")))
    assert [unit.name for unit in found.units] == ["replace: 1 records" if w.live else "renew: 2 records"]
    assert held(w, stream) == ["2026-03-01 a 5", "2026-03-01 b 2"]
    return found


def beside_others(w: Telemetry, stream: str) -> Delivery:
    w.deliver_records(stream, ONE)
    labels = {"associated_cost" if w.live else "filter": {"team": "theirs"}}
    theirs = {"timestamp": "2026-03-01T00:00:00Z", "value": 9, "granularity": "DAILY"} | labels
    w.client().add_metric_records(stream, json.dumps({"records": [theirs]}).encode())
    assert "2026-03-01 theirs 9" in held(w, stream)
    found = w.deliver_records(stream, metric(("01T00", "2", "a")), name="b.csv")
    assert held(w, stream) == ["2026-03-01 a 2", *(["2026-03-01 theirs 9"] if w.live else [])]
    return found


def hours(w: Telemetry, stream: str) -> Delivery:
    found = then(w, stream, metric(("01T00", "1", "a"), ("01T01", "2", "a"), granularity="HOURLY"))
    assert len(held(w, stream)) == (1 if w.live else 2)
    return found


def zero(w: Telemetry, stream: str) -> Delivery:
    return then(w, stream, metric(("01T00", "0", "a")))


def many_digits(w: Telemetry, stream: str) -> Delivery:
    return then(w, stream, metric(("01T00", "1234567890.123456", "a")))


def long_total(w: Telemetry, stream: str) -> Delivery:
    found = then(w, stream, metric(("01T00", "123456789012345", "a"), ("01T00", "0.25", "a")))
    assert held(w, stream) == [f"2026-03-01 a 123456789012345{'' if w.live else '.25'}"]
    return found


def nameless(w: Telemetry, stream: str) -> Delivery:
    return then(w, stream, ONE, kind="allocation")


def several(w: Telemetry, stream: str) -> Delivery:
    return then(w, stream, allocation(w.contract, ("01T00", "1", "red", "EC2|EKS")), kind="allocation")


def misshapen(w: Telemetry, stream: str) -> Delivery:
    return then(w, stream, ONE, metric(("01T00", "1", "x"), keys=("region",)))


def lost(w: Telemetry, operation: str) -> None:
    w.fault("lost_answer", operation=operation)


def lost_replacement(w: Telemetry, stream: str) -> Delivery:
    w.deliver_records(stream, ONE)
    lost(w, REPLACES[w.contract])
    found = w.deliver_records(stream, metric(("01T00", "5", "a")), name="b.csv")
    assert held(w, stream) == ["2026-03-01 a 5"]
    return found


def lost_deletion(w: Telemetry, stream: str) -> Delivery:
    w.deliver_records(stream, ONE)
    lost(w, "deleteMetricTelemetry")
    found = w.deliver_records(stream, GONE, "delete")
    assert held(w, stream) == []
    return found


def lost_sum(w: Telemetry, stream: str) -> Delivery:
    lost(w, SUMS[w.contract][0])
    found = w.deliver_records(stream, ONE, "sum")
    assert held(w, stream) == ["2026-03-01 a 1"], "it arrived once, whoever knows it"
    return found


def slowed(w: Telemetry, stream: str) -> Delivery:
    w.fault("status", operation=SUMS[w.contract][0], status=503, headers={"Retry-After": "77"})
    found = w.deliver_records(stream, ONE, "sum")
    assert w.waited[-1].seconds == 77
    return found


def key_refused(w: Telemetry, stream: str) -> Delivery:
    delivery = w.dropped(stream, ONE)
    w.key[0] = "wrong"
    with pytest.raises(Wait):
        w.step(delivery.id)
    w.key[0] = KEY
    waiting = w.ledger.delivery(delivery.id)
    assert waiting is not None
    assert waiting.outcome == "pending"
    assert w.finish(delivery.id).outcome == "delivered"
    return waiting


def unknown_stream(w: Telemetry, stream: str) -> Delivery:
    found = erased(w, stream)
    assert "there was nothing to delete" in found.warnings[0]
    return found


def erased(w: Telemetry, stream: str) -> Delivery:
    return w.deliver_file(f"{folder(stream, 'delete')}stream.json", json.dumps({"stream": stream}).encode())


CASES: dict[str, Callable[[Telemetry, str], Delivery]] = {
    "a record is replaced": replaced,
    "somebody else has put records into the period": beside_others,
    "hours of a metric": hours,
    "a value of 0": zero,
    "a value of 16 digits": many_digits,
    "a total of more than 15 digits": long_total,
    "an allocation without `element_name`": nameless,
    "an allocation with several values of a dimension": several,
    "records of another shape than the stream's": misshapen,
    "the answer to a replacement is lost": lost_replacement,
    "the answer to a deletion is lost": lost_deletion,
    "the answer to a `sum` is lost": lost_sum,
    'CloudZero answers 503, "slow down"': slowed,
    "the key is refused": key_refused,
    "a stream is deleted that CloudZero does not know": unknown_stream,
}
DIFFERENCES = table("what happens", "`live`")


def test_every_line_that_compares_the_contracts_is_tried() -> None:
    assert [row[0] for row in DIFFERENCES] == list(CASES)


@pytest.mark.parametrize("row", DIFFERENCES, ids=ids(DIFFERENCES))
def test_the_contracts_differ_as_the_page_says(row: list[str], w: Telemetry) -> None:
    case = CASES[row[0]]
    found = case(w, f"differ-{case.__name__}")
    assert found.outcome == spans(row[1 + CONTRACTS.index(contract_of(w))])[0], found.reason


def contract_of(w: Telemetry) -> Contract:
    """Return which contract a world's tenant speaks."""
    return "live" if w.live else "openapi"


# --- in which order ---------------------------------------------------------------------------------------------------

AB = metric(("01T00", "1", "a"), ("01T00", "2", "b"))


def late(w: Telemetry, stream: str, body: bytes, verb: str, *newer: tuple[str, bytes]) -> Delivery:
    """Drop a file, deliver *newer* ones, and only then the first."""
    older = w.drop(f"{folder(stream, verb)}late.csv", body)
    for number, (done, records) in enumerate(newer):
        assert w.deliver_records(stream, records, done, name=f"{number}.csv").outcome == "delivered"
    prepared = w.prepare(older)
    assert prepared is not None
    return w.finish(prepared.id)


def late_replacement(w: Telemetry, stream: str) -> Delivery:
    found = late(w, stream, ONE, "replace", ("replace", metric(("01T00", "5", "a"))))
    assert (found.filtered_by, held(w, stream)) == ({"superseded": 1}, ["2026-03-01 a 5"])
    return found


def late_in_part(w: Telemetry, stream: str) -> Delivery:
    found = late(w, stream, AB, "replace", ("replace", metric(("01T00", "5", "a"))))
    assert (found.filtered_by, held(w, stream)) == ({"superseded": 1}, ["2026-03-01 a 5", "2026-03-01 b 2"])
    return found


def late_sum_of_replaced(w: Telemetry, stream: str) -> Delivery:
    found = late(w, stream, ONE, "sum", ("replace", metric(("01T00", "5", "a"))))
    assert held(w, stream) == ["2026-03-01 a 5"]
    return found


def late_sum(w: Telemetry, stream: str) -> Delivery:
    found = late(w, stream, ONE, "sum", ("sum", metric(("01T00", "5", "a"))))
    assert held(w, stream) == ["2026-03-01 a 6"]
    return found


def late_over_sum(w: Telemetry, stream: str) -> Delivery:
    w.deliver_records(stream, AB)
    return late(w, stream, ONE, "replace", ("sum", metric(("01T00", "5", "a"))))


def late_deletion(w: Telemetry, stream: str) -> Delivery:
    w.deliver_records(stream, AB)
    found = late(w, stream, GONE, "delete", ("replace", metric(("01T00", "5", "a"))))
    assert held(w, stream) == ["2026-03-01 a 5"]
    return found


def late_after_the_end(w: Telemetry, stream: str) -> Delivery:
    older = w.drop(f"{folder(stream)}late.csv", ONE)
    assert erased(w, stream).outcome == "delivered"
    prepared = w.prepare(older)
    assert prepared is not None
    return w.finish(prepared.id)


def late_end(w: Telemetry, stream: str) -> Delivery:
    older = w.drop(f"{folder(stream, 'delete')}stream.json", json.dumps({"stream": stream}).encode())
    w.deliver_records(stream, ONE)
    prepared = w.prepare(older)
    assert prepared is not None
    return w.finish(prepared.id)


ORDERS: dict[str, Callable[[Telemetry, str], Delivery]] = {
    "a replacement of records that newer drops have replaced": late_replacement,
    "a replacement of some such records, and of others": late_in_part,
    "a `sum` to records that were replaced since": late_sum_of_replaced,
    "a `sum` to records that were added to since": late_sum,
    "a replacement of records that were added to since": late_over_sum,
    "a deletion of a period of which some records were replaced since": late_deletion,
    "anything, after a newer drop has deleted the stream": late_after_the_end,
    "a deletion of a stream that newer drops have put records into": late_end,
}
LATE = table("what comes late", "it ends")


def test_every_line_about_order_is_tried() -> None:
    assert [row[0] for row in LATE] == list(ORDERS)


@pytest.mark.parametrize("row", LATE, ids=ids(LATE))
def test_what_comes_late_ends_as_the_page_says(row: list[str], w: Telemetry) -> None:
    case = ORDERS[row[0]]
    found = case(w, f"order-{case.__name__}")
    assert found.outcome == spans(row[1])[0], found.reason


# --- files and the queue ----------------------------------------------------------------------------------------------


def emitted(w: Telemetry, stream: str, *records: tuple[str, int]) -> Delivery:
    """Send records of one day, each an id and a value, and take what follows to its end."""
    bodies = [GOOD | {"stream": stream, "id": known, "value": value} for known, value in records]
    at = int(w.time[0].timestamp() * 1000)
    return counted(w, [Sent(f"{stream}-{at}-{number}", json.dumps(body), at) for number, body in enumerate(bodies)])


def of_a_file(value: str) -> bytes:
    return metric(("01T00", value, "berlin"), keys=("shop",))


def test_a_total_replaces_what_a_file_has_put_there_when_the_next_record_comes(w: Telemetry) -> None:
    emitted(w, "ways", ("a", 1))
    w.deliver_records("ways", of_a_file("50"))
    w.deliver_records("ways", of_a_file("5"), "sum", name="b.csv")
    assert held(w, "ways") == ["2026-03-01 berlin 55"]
    assert emitted(w, "ways", ("b", 2)).outcome == "delivered"
    assert held(w, "ways") == ["2026-03-01 berlin 3"]


def test_what_a_file_has_deleted_stays_so_and_the_total_begins_anew(w: Telemetry) -> None:
    emitted(w, "anew", ("a", 1), ("b", 2))
    w.deliver_records("anew", GONE, "delete")
    assert held(w, "anew") == []
    assert emitted(w, "anew", ("a", 1)).outcome == "unchanged"
    emitted(w, "anew", ("c", 4))
    assert held(w, "anew") == ["2026-03-01 berlin 4"]


def test_a_refused_record_of_the_queue_is_named_and_goes_with_the_next_one(w: Telemetry) -> None:
    w.fault("status", operation=REPLACES[w.contract], status=400, body={"message": "no such shop"})
    refused = emitted(w, "refused", ("a", 1))
    assert (refused.outcome, held(w, "refused")) == ("rejected", [])
    assert "do not send them again" in refused.reason  # sent again under another id, they would count twice
    assert "do not send them again" in refused.next_command
    named = w.text(f"rejected/{refused.id}.records.csv").decode()
    assert "no such shop" in named
    assert emitted(w, "refused", ("b", 2)).outcome == "delivered"
    assert held(w, "refused") == ["2026-03-01 berlin 3"]


def test_an_id_counts_once_in_the_day_on_which_its_period_begins(w: Telemetry) -> None:
    first = emitted(w, "once", ("a", 1), ("a", 2))
    assert (first.filtered_by, len(first.warnings)) == ({"duplicates": 1}, 1)
    w.time[0] += timedelta(days=300)
    assert emitted(w, "once", ("a", 1)).outcome == "unchanged"


# --- what is held -----------------------------------------------------------------------------------------------------

HELD: tuple[Callable[[Telemetry, str], Delivery], ...] = (lost_sum, late_over_sum, late_end)
"""In the order of the page's table."""
REASONS = table("`reason` says", "`send`")


def test_every_reason_to_hold_is_tried() -> None:
    assert len(REASONS) == len(HELD)


@pytest.mark.parametrize("decision", ["send", "mark as arrived", "drop"])
@pytest.mark.parametrize("number", range(len(REASONS)))
def test_a_held_delivery_says_why_and_goes_on_as_decided(number: int, decision: str, w: Telemetry) -> None:
    stream = f"held-{number}-{decision[:4]}"
    found = HELD[number](w, stream)
    assert found.outcome == "held"
    assert spans(REASONS[number][0])[0] in found.reason
    assert f"incoming/release/{found.id}.json" in found.next_command
    before = held(w, stream)
    decided = w.decide(found, decision)
    assert decided.rows.owed == 0
    goes_on = decision == "send" or (decision == "mark as arrived" and HELD[number] is lost_sum)
    assert decided.outcome == ("delivered" if goes_on else "rejected"), decided.reason
    assert (held(w, stream) != before) == (decision == "send")


@pytest.mark.parametrize("arrived", [True, False])
def test_a_replacement_is_right_whatever_has_arrived_of_a_sum_that_was_dropped(w: Telemetry, arrived: bool) -> None:  # noqa: FBT001 -- a parameter
    """The runbook's way out, where nobody can tell."""
    stream = f"either-{arrived}"
    w.deliver_records(stream, AB)
    w.fault("lost_answer" if arrived else "reset", operation=SUMS[w.contract][0])
    doubtful = w.deliver_records(stream, ONE, "sum")
    assert held(w, stream)[0] == f"2026-03-01 a {2 if arrived else 1}"
    w.decide(doubtful, "drop")
    assert w.deliver_records(stream, ONE, name="c.csv").outcome == "delivered"
    assert held(w, stream) == ["2026-03-01 a 1", "2026-03-01 b 2"]


def test_the_decisions_are_understood() -> None:
    said = [text for _, words, text in blocks(PAGE) if words == "release"]
    assert [Decision.model_validate_json(text).decision for text in said] == ["send", "arrived", "drop"]


# --- outcomes, numbers, settings --------------------------------------------------------------------------------------


def test_every_outcome_is_told() -> None:
    assert {spans(row[0])[0] for row in table("outcome", "of telemetry it means")} == set(Outcome)


def test_the_numbers_are_those_of_the_code() -> None:
    for words in (
        f"has 1 to {MAX_STREAM} letters",
        f"at most {MAX_KEYS}, the same names",
        f"| dimensions of a stream | {MAX_KEYS} |",
        f"at most {MAX_TEXT:,} characters",
        f"up to {MAX_VALUES} values",
        f"a text of 1 to {MAX_ID} characters",
        f"{SIGNIFICANT} significant ones",
        f"up to {MAX_DIGITS} before and {MAX_DIGITS} behind the point",
        f"{MAX_RECORDS:,}; rows of one record",
        f"| days that one file has records of | {MAX_DAYS:,} |",
        f"beyond {MAX_DAYS} days",
        f"{JSON_BYTES:,} bytes; NDJSON",
        f"{MAX_BODY_BYTES:,} bytes; larger",
        f"{PACE:.0f} records a second for each stream, with a day's worth ({BURST:,.0f})",
    ):
        assert words in PROSE, words


def test_what_the_page_says_of_the_schedule_is_what_the_template_has() -> None:
    template = (ROOT / "template.yaml").read_text()
    for parameter in ("TelemetryBatchSeconds", "TelemetrySchedule"):
        default = re.search(rf"^  {parameter}:\n    Type: \w+\n    Default: (.+)$", template, re.MULTILINE)
        assert default is not None
        assert re.search(rf"`{parameter}` \(`?{re.escape(default[1])}`?\)", PROSE)
    queue = template.partition("\n  TelemetryQueue:\n")[2]
    days = int(queue.partition("MessageRetentionPeriod: ")[2].partition("\n")[0]) // 86_400
    assert f"kept in the queue for {days} days" in PROSE

"""The ledger on DynamoDB: every save is conditional on the version that was read."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import boto3
import pytest
from botocore.exceptions import ClientError
from finops_relay.aws.tables import DAY_S, MAX_PLAIN, DynamoLedger
from finops_relay.delivery.identity import ObjectVersion
from finops_relay.delivery.ledger import Delivery, Record, Target
from finops_relay.delivery.receipt import Outcome, Source
from finops_relay.errors import LedgerConflict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mypy_boto3_dynamodb import DynamoDBClient

NOW = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)
TABLE = "ledger"


@pytest.fixture
def dynamodb(aws: str) -> Iterator[DynamoDBClient]:
    client = boto3.client("dynamodb", aws)
    client.create_table(
        TableName=TABLE,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
    )
    yield client
    client.close()


@pytest.fixture
def ledger(dynamodb: DynamoDBClient) -> DynamoLedger:
    return DynamoLedger(dynamodb, TABLE, 400, lambda: NOW)


def delivery(delivery_id: str = "d1") -> Delivery:
    return Delivery(id=delivery_id, kind="price-book", source=Source(bucket="b", key="k"), times={"received": NOW})


def test_what_was_saved_is_what_is_read(ledger: DynamoLedger) -> None:
    assert ledger.delivery("d1") is None
    saved = ledger.save(delivery())
    assert saved.version == 1
    assert ledger.delivery("d1") == saved
    assert ledger.delivery("d1") == ledger.delivery("d1")
    assert ledger.save(saved.but(stage="queued")).version == 2


def test_two_runs_for_one_delivery_cannot_both_go_on(ledger: DynamoLedger) -> None:
    ledger.save(delivery())
    one, other = ledger.delivery("d1"), ledger.delivery("d1")
    assert one is not None
    assert other is not None
    kept = ledger.save(one.but(stage="queued"))
    with pytest.raises(LedgerConflict, match="delivery#d1"):
        ledger.save(other.but(stage="delivering"))
    with pytest.raises(LedgerConflict):
        ledger.save(delivery())
    assert ledger.delivery("d1") == kept


def test_a_version_that_was_never_saved_cannot_be_followed(ledger: DynamoLedger) -> None:
    with pytest.raises(LedgerConflict):
        ledger.save(delivery().but(version=3))
    assert ledger.delivery("d1") is None


def test_targets_conflict_alike(ledger: DynamoLedger) -> None:
    new = ledger.target("t")
    assert new == Target(name="t")
    saved = ledger.save_target(new.but(newest_delivery="d1"))
    with pytest.raises(LedgerConflict, match="target#t"):
        ledger.save_target(new.but(newest_delivery="d2"))
    assert ledger.target("t") == saved


@pytest.mark.parametrize("outcome", list(Outcome))
def test_only_a_finished_delivery_expires(ledger: DynamoLedger, dynamodb: DynamoDBClient, outcome: Outcome) -> None:
    ledger.save(delivery().but(outcome=outcome))
    item = dynamodb.get_item(TableName=TABLE, Key={"pk": {"S": "delivery#d1"}})["Item"]
    if outcome.final:
        assert int(item["expires_at"]["N"]) == int((NOW + timedelta(days=400)).timestamp())
        assert DAY_S == 86_400
    else:
        assert "expires_at" not in item
    assert item["outcome"]["S"] == outcome.value


def test_targets_sequencers_and_notes_never_expire(ledger: DynamoLedger, dynamodb: DynamoDBClient) -> None:
    ledger.save_target(ledger.target("t").but(newest_delivery="d1"))
    ledger.claim(ObjectVersion("b", "k", sequencer="01"))
    ledger.save_note("n", {"a": "1"})
    items = dynamodb.scan(TableName=TABLE)["Items"]
    assert len(items) == 3
    assert not [item for item in items if "expires_at" in item]


def test_notes_are_overwritten_and_empty_at_first(ledger: DynamoLedger) -> None:
    assert ledger.note("n") == {}
    ledger.save_note("n", {"a": "1"})
    ledger.save_note("n", {"b": "ü\n"})
    assert ledger.note("n") == {"b": "ü\n"}


def test_another_refusal_of_the_table_is_no_conflict(aws: str) -> None:
    client = boto3.client("dynamodb", aws)
    ledger = DynamoLedger(client, "no-such-table", 400, lambda: NOW)
    for call in (lambda: ledger.save(delivery()), lambda: ledger.claim(ObjectVersion("b", "k", sequencer="01"))):
        with pytest.raises(ClientError):
            call()
    client.close()


# --- records ----------------------------------------------------------------------------------------------------------


def test_records_conflict_alike(ledger: DynamoLedger) -> None:
    new = ledger.record("hours#c#2026-03")
    assert new == Record(name="hours#c#2026-03")
    saved = ledger.save_record(new.but(content={"owners": [{"key": "a"}]}))
    assert saved.version == 1
    assert ledger.record("hours#c#2026-03") == saved
    with pytest.raises(LedgerConflict, match="hours#c#2026-03"):
        ledger.save_record(new.but(content={}))
    assert ledger.save_record(saved.but(content={})).version == 2
    assert ledger.record("hours#c#2026-04").version == 0


def test_a_long_record_is_packed_and_a_short_one_can_be_read_by_a_person(
    ledger: DynamoLedger, dynamodb: DynamoDBClient
) -> None:
    long = {"owners": [{"key": f"incoming/billing/c/2026-03/a-{n:05}.csv", "runs": [[n, n]]} for n in range(8_000)]}
    record = Record(name="hours#c#2026-03")
    for content, packed in (({"owners": []}, False), (long, True), ({"owners": ["ü\u2028"]}, False)):
        record = ledger.save_record(record.but(content=content))
        assert ledger.record(record.name) == record
        item = dynamodb.get_item(TableName=TABLE, Key={"pk": {"S": record.name}})["Item"]
        assert ("packed" in item) is packed
        assert (item["body"]["S"] == "") is packed
        assert len(item["packed"]["B"] if packed else item["body"]["S"]) < 400_000  # that an item holds
        assert int(item["version"]["N"]) == record.version
    assert len(str(long)) > 400_000


def test_a_record_at_the_border_is_read_either_way(ledger: DynamoLedger) -> None:
    empty = len(Record(name="r", version=1, content={"x": ""}).model_dump_json())
    for version, size in enumerate((MAX_PLAIN - 1, MAX_PLAIN, MAX_PLAIN + 1)):
        record = ledger.save_record(Record(name="r", version=version, content={"x": "y" * (size - empty)}))
        assert ledger.record("r") == record


def test_records_never_expire(ledger: DynamoLedger, dynamodb: DynamoDBClient) -> None:
    ledger.save_record(Record(name="hours#c#2026-03"))
    (item,) = dynamodb.scan(TableName=TABLE)["Items"]
    assert "expires_at" not in item


# --- sequencers -------------------------------------------------------------------------------------------------------


def as_number(sequencer: str) -> int:
    """Compare as S3 documents it: the shorter one padded on the right."""
    return int(sequencer.ljust(64, "0"), 16)


SEQUENCERS = st.text("0123456789abcdefABCDEF", min_size=1, max_size=64)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sequencers=st.lists(SEQUENCERS, min_size=1, max_size=8))
def test_an_event_is_taken_unless_a_higher_sequencer_of_its_key_was_seen(
    ledger: DynamoLedger, sequencers: list[str]
) -> None:
    key = uuid4()  # of each example its own: they share the table
    highest = -1
    for sequencer in sequencers:
        taken = ledger.claim(ObjectVersion("b", str(key), sequencer=sequencer))
        assert taken is (as_number(sequencer) >= highest)
        highest = max(highest, as_number(sequencer))


def test_sequencers_of_different_keys_do_not_compare(ledger: DynamoLedger) -> None:
    assert ledger.claim(ObjectVersion("b", "k1", sequencer="FF"))
    assert ledger.claim(ObjectVersion("b", "k2", sequencer="01"))
    assert ledger.claim(ObjectVersion("c", "k1", sequencer="01"))
    assert not ledger.claim(ObjectVersion("b", "k1", sequencer="01"))


def test_an_event_without_a_sequencer_is_taken(ledger: DynamoLedger, dynamodb: DynamoDBClient) -> None:
    assert ledger.claim(ObjectVersion("b", "k"))
    assert dynamodb.scan(TableName=TABLE)["Items"] == []

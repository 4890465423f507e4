"""What triggers us, checked at the border."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from finops_relay.aws.events import NotUnderstoodError, Pointer, Sweep, drops_and_sweeps, pointer
from finops_relay.delivery.identity import ObjectVersion, order_of
from hypothesis import given
from hypothesis import strategies as st


def notification(**of_object: object) -> dict[str, Any]:
    """Return what S3 sends (S3 user guide, "Event message structure")."""
    found = {"key": "incoming/a.csv", "size": 7, "eTag": "e7", "versionId": "v1", "sequencer": "0055AED6", **of_object}
    return {
        "Records": [
            {
                "eventVersion": "2.1",
                "eventSource": "aws:s3",
                "eventTime": "2026-03-01T09:00:00.000Z",
                "eventName": "ObjectCreated:Put",
                "s3": {"bucket": {"name": "drops"}, "object": found},
            }
        ]
    }


def test_a_notification_names_the_version_that_was_dropped() -> None:
    assert drops_and_sweeps(json.dumps(notification())) == (
        ObjectVersion("drops", "incoming/a.csv", "v1", "e7", 7, "0055AED6", datetime(2026, 3, 1, 9, 0, tzinfo=UTC)),
    )


@pytest.mark.parametrize(
    ("sent", "key"),
    [
        ("incoming/a+b.csv", "incoming/a b.csv"),
        ("incoming/a%2Bb.csv", "incoming/a+b.csv"),
        ("incoming/%C3%A4%E2%82%AC.csv", "incoming/ä€.csv"),
        ("incoming/100%25.csv", "incoming/100%.csv"),
        ("incoming/%0A.csv", "incoming/\n.csv"),
    ],
)
def test_a_key_is_decoded_once(sent: str, key: str) -> None:
    (found,) = drops_and_sweeps(json.dumps(notification(key=sent)))
    assert isinstance(found, ObjectVersion)
    assert found.key == key


def test_a_bucket_without_versions_has_none() -> None:
    body = notification()
    del body["Records"][0]["s3"]["object"]["versionId"]
    (found,) = drops_and_sweeps(json.dumps(body))
    assert isinstance(found, ObjectVersion)
    assert (found.version_id, found.etag) == ("", "e7")


def test_s3s_test_event_is_nothing_to_do() -> None:
    assert drops_and_sweeps(json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "drops"})) == ()


def test_a_schedule_asks_for_a_sweep_at_its_time() -> None:
    body = {"source": "aws.events", "detail-type": "Scheduled Event", "time": "2026-03-01T10:00:00+01:00"}
    assert drops_and_sweeps(json.dumps(body)) == (Sweep(datetime(2026, 3, 1, 9, 0, tzinfo=UTC)),)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "not json",
        "null",
        "[]",
        "7",
        '"text"',
        "{}",
        '{"Records": 7}',
        '{"Records": [{}]}',
        '{"Records": [null]}',
        '{"source": "aws.events"}',
        '{"source": "aws.events", "time": "yesterday"}',
        '{"source": "aws.events", "time": "0001-01-01T00:00:00+14:00"}',
        '{"source": "aws.events", "time": 1e999}',
        json.dumps(notification(sequencer="0" * 65)),
        json.dumps(notification(key="")),
        json.dumps(notification(key="\ud800")),
        json.dumps(notification()).replace("2026-03-01T09:00:00.000Z", "0001-01-01T00:00:00+14:00"),
        "[" * 200_000,
        '{"a":' * 100_000,
        "1" * 5_000,
        "\x00",
        "\ud800",
    ],
)
def test_what_is_no_event_is_not_understood(body: str) -> None:
    with pytest.raises(NotUnderstoodError):
        drops_and_sweeps(body)
    with pytest.raises(NotUnderstoodError):
        pointer(body)


def test_a_time_without_a_zone_is_utc() -> None:
    body = json.dumps(notification()).replace("09:00:00.000Z", "09:00:00")
    (found,) = drops_and_sweeps(body)
    assert isinstance(found, ObjectVersion)
    assert order_of(found).startswith("2026-03-01T09:00:00.000+00:00#")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
LIKE_EVENTS = st.fixed_dictionaries(
    {},
    optional={
        "Records": st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "eventTime": JSON | st.datetimes().map(str) | st.just("2026-03-01T09:00:00.000Z"),
                    "s3": st.fixed_dictionaries(
                        {},
                        optional={
                            "bucket": JSON | st.fixed_dictionaries({"name": st.text()}),
                            "object": JSON
                            | st.fixed_dictionaries({"key": st.text()}, optional={"sequencer": JSON, "size": JSON}),
                        },
                    ),
                },
            )
            | JSON,
            max_size=3,
        )
        | JSON,
        "source": st.just("aws.events") | JSON,
        "time": JSON,
        "Event": JSON,
        "kind": JSON,
        "delivery": JSON,
    },
)


@given(
    JSON.map(json.dumps) | LIKE_EVENTS.map(json.dumps) | st.text() | st.binary().map(lambda raw: raw.decode("latin-1"))
)
def test_whatever_a_message_holds_it_is_read_or_not_understood(body: str) -> None:
    try:
        for found in drops_and_sweeps(body):
            assert isinstance(found, ObjectVersion | Sweep)
            if isinstance(found, ObjectVersion):
                assert found.bucket
                assert order_of(found)
    except NotUnderstoodError:
        pass
    with contextlib.suppress(NotUnderstoodError):
        assert pointer(body).delivery


def test_a_pointer_names_a_delivery() -> None:
    assert pointer('{"kind": "price-book", "delivery": "d1", "more": 1}') == Pointer(kind="price-book", delivery="d1")
    with pytest.raises(NotUnderstoodError):
        pointer(json.dumps({"kind": "price-book", "delivery": "d" * 5000}))

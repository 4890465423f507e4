"""Who a delivery is, which of two is newer, and how long a wait is."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

from finops_relay.delivery.identity import ObjectVersion, delivery_id, digest, order_of, padded
from finops_relay.delivery.waits import MAX_WAIT_S, Waits
from hypothesis import given
from hypothesis import strategies as st

TEXTS = st.text(st.characters(exclude_characters="\x00"), max_size=30)
VERSIONS = st.builds(ObjectVersion, bucket=TEXTS, key=TEXTS, version_id=TEXTS, etag=TEXTS, sequencer=TEXTS)
HEX = st.text("0123456789ABCDEFabcdef", max_size=64)
TIMES = st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 -- hypothesis wants them bare


@given(VERSIONS)
def test_an_identity_is_64_hexadecimal_digits_and_always_the_same(source: ObjectVersion) -> None:
    assert re.fullmatch(r"[0-9a-f]{64}", delivery_id(source))
    assert delivery_id(source) == delivery_id(replace(source, at=datetime(2029, 1, 1, tzinfo=UTC), size_bytes=9))


@given(VERSIONS, VERSIONS)
def test_two_versions_have_two_identities(one: ObjectVersion, other: ObjectVersion) -> None:
    def named_by(source: ObjectVersion) -> tuple[str, ...]:
        kept = (source.version_id,) if source.version_id else ("", source.etag, source.sequencer)
        return (source.bucket, source.key, *kept)

    if named_by(one) != named_by(other) and not {one.version_id[:5], other.version_id[:5]} & {"etag:"}:
        assert (
            (one.etag, one.sequencer) == (other.etag, other.sequencer)
            or ":" in one.etag + other.etag
            or (delivery_id(one) != delivery_id(other))
        )
    if named_by(one) == named_by(other):
        assert delivery_id(one) == delivery_id(other)


def test_a_then_b_then_a_again_are_three_deliveries() -> None:
    versions = [ObjectVersion("b", "k", version, etag) for version, etag in (("1", "a"), ("2", "b"), ("3", "a"))]
    assert len({delivery_id(version) for version in versions}) == 3


def test_an_event_that_comes_twice_is_one_delivery() -> None:
    source = ObjectVersion("b", "k", "v1", "e", 7, "01")
    assert delivery_id(source) == delivery_id(replace(source, sequencer="02"))


@given(st.lists(TEXTS, max_size=5), st.lists(TEXTS, max_size=5))
def test_parts_cannot_be_shifted_into_one_another(one: list[str], other: list[str]) -> None:
    joined = one == other or (one in ([], [""]) and other in ([], [""]))
    assert (digest(*one) == digest(*other)) is joined


@given(HEX, HEX)
def test_padded_sequencers_compare_as_the_numbers_that_they_are(one: str, other: str) -> None:
    numbers = [int(each.ljust(64, "0"), 16) for each in (one, other)]
    assert (padded(one) < padded(other)) is (numbers[0] < numbers[1])
    assert (padded(one) == padded(other)) is (numbers[0] == numbers[1])


@given(TIMES, TIMES, HEX, HEX, st.integers(-12, 12))
def test_deliveries_sort_by_the_time_of_their_source_then_by_sequencer(
    one: datetime, other: datetime, first: str, second: str, offset: int
) -> None:
    moved = other.astimezone(timezone(timedelta(hours=offset)))
    orders = [order_of(ObjectVersion("b", "k", sequencer=s, at=at)) for s, at in ((first, one), (second, moved))]
    millis = [at.replace(microsecond=at.microsecond // 1000 * 1000) for at in (one, other)]
    keys = [(at, padded(s)) for at, s in zip(millis, (first, second), strict=True)]
    assert (orders[0] < orders[1]) is (keys[0] < keys[1])


@given(st.integers(-3, 10**6), st.floats(0, 1, exclude_max=True), st.floats(0.1, 100), st.floats(100, 43_200))
def test_a_wait_grows_to_its_cap_with_jitter_of_a_half(waits: int, drawn: float, first: float, cap: float) -> None:
    policy = Waits(first, cap)
    wait = policy.after(waits, draw=lambda: drawn)
    assert first / 2 <= wait <= cap
    assert policy.after(waits + 1, draw=lambda: drawn) >= wait


@given(st.integers(0, 50), st.floats(0, 1e12))
def test_a_wait_that_the_vendor_named_is_kept_up_to_what_a_queue_can_hold(waits: int, named: float) -> None:
    assert Waits().after(waits, named) == min(MAX_WAIT_S, max(1.0, named))

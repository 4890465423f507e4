"""When to try again, as arithmetic without sleeping."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from finops_relay.errors import (
    AnswerNotUnderstood,
    BodyTooLarge,
    Call,
    CredentialRefused,
    NotFound,
    OutcomeUnknown,
    RateLimited,
    RelayError,
    RequestRefused,
    ShortRead,
    UploadRefused,
    VendorUnavailable,
    VendorUnreachable,
)
from finops_relay.http.retry import RetryPolicy, retry_after_s
from hypothesis import given
from hypothesis import strategies as st

CALL = Call("GET", "/things")
NOW = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)
POLICIES = st.builds(
    RetryPolicy,
    attempts=st.integers(1, 20),
    base_s=st.floats(0.001, 10),
    cap_s=st.floats(0.001, 60),
    budget_s=st.floats(0, 600),
)
NAMED = st.none() | st.floats(0, 1e9)
DRAWS = st.floats(0, 1, exclude_max=True, allow_subnormal=False)


@given(POLICIES, NAMED, st.integers(1, 30), st.floats(0, 1000), DRAWS, st.booleans())
def test_no_wait_breaks_a_limit(  # noqa: PLR0913, PLR0917 -- what hypothesis draws
    policy: RetryPolicy, named: float | None, attempt: int, spent_s: float, drawn: float, safe: bool  # noqa: FBT001 -- by position, as it is called
) -> None:  # fmt: skip
    error = RateLimited("slow down", CALL, retry_after_s=named)
    wait = policy.wait_s(error, attempt, spent_s, safe=safe, draw=lambda: drawn)
    if wait is None:
        return
    assert attempt < policy.attempts
    assert 0 <= wait <= policy.cap_s
    assert spent_s + wait <= policy.budget_s
    assert wait == named if named is not None else wait <= policy.base_s * 2 ** (attempt - 1)


@given(POLICIES, st.floats(0, 1e9), st.integers(1, 30), st.floats(0, 1000))
def test_a_wait_that_the_server_named_is_kept_exactly_or_the_call_is_given_up(
    policy: RetryPolicy, named: float, attempt: int, spent_s: float
) -> None:
    error = RateLimited("slow down", CALL, retry_after_s=named)
    wait = policy.wait_s(error, attempt, spent_s, safe=False)
    possible = attempt < policy.attempts and named <= policy.cap_s and spent_s + named <= policy.budget_s
    assert wait == (named if possible else None)


@given(DRAWS, st.integers(1, 3))
def test_jitter_is_full(drawn: float, attempt: int) -> None:
    wait = RetryPolicy().wait_s(VendorUnavailable("", CALL), attempt, 0, safe=True, draw=lambda: drawn)
    assert wait == pytest.approx(drawn * 0.4 * 2 ** (attempt - 1))


@pytest.mark.parametrize(
    ("error", "when_safe", "when_unsafe"),
    [
        (VendorUnreachable("", CALL), True, True),
        (RateLimited("", CALL), True, True),
        (VendorUnavailable("", CALL), True, False),
        (OutcomeUnknown("", CALL), True, False),
        (CredentialRefused("", CALL), False, False),
        (NotFound("", CALL), False, False),
        (BodyTooLarge("", CALL), False, False),
        (RequestRefused("", CALL), False, False),
        (UploadRefused("", CALL), False, False),
        (AnswerNotUnderstood("", CALL), False, False),
        (ShortRead(), False, False),
        (RelayError(), False, False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, RelayError) else str(value),
)
def test_what_is_repeated_depends_on_whether_the_vendor_may_have_acted(
    error: RelayError, *, when_safe: bool, when_unsafe: bool
) -> None:
    assert (RetryPolicy().wait_s(error, 1, 0, safe=True) is not None) is when_safe
    assert (RetryPolicy().wait_s(error, 1, 0, safe=False) is not None) is when_unsafe


@given(st.datetimes(datetime(2026, 1, 1), datetime(2026, 12, 31)), st.integers(-12, 12))  # noqa: DTZ001 -- hypothesis wants them bare
def test_a_date_names_the_time_until_then_and_never_less_than_none(when: datetime, offset: int) -> None:
    aware = when.replace(microsecond=0, tzinfo=timezone(timedelta(hours=offset)))
    assert retry_after_s(format_datetime(aware), NOW) == max(0.0, (aware - NOW).total_seconds())


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        (" 7 ", 7),
        ("9" * 40, 999_999_999),
        ("Sun, 01 Mar 2026 09:01:30 GMT", 90),
        ("Sunday, 01-Mar-26 09:01:30 GMT", 90),
        ("Sun, 01 Mar 2026 08:00:00 GMT", 0),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
        ("١٢", None),
        ("Sun, 99 Mar 2026 09:01:30 GMT", None),
        ("Sun, 01 Mar 99999999999999999999 09:01:30 GMT", None),
        ("Sun, 01 Mar 2026 09:01:30 +9999999999", None),
    ],
)
def test_both_forms_are_read_and_others_are_not(header: str, seconds: float | None) -> None:
    assert retry_after_s(header, NOW) == seconds


@given(
    st.text(max_size=60) | st.from_regex(r"[A-Z][a-z]{2}, \d{1,2} [A-Z][a-z]{2} \d{1,12} \d\d:\d\d:\d\d [+-]?\w{0,12}")
)
def test_no_header_is_a_crash(header: str) -> None:
    found = retry_after_s(header, NOW)
    assert found is None or found >= 0

"""One SQS batch: each message on its own, waiting by visibility, and partial batch responses."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError
from finops_relay.aws.batch import MAX_AGE_S, MAX_HIDDEN_S, MAX_RECEIVES, Batch, Message
from finops_relay.delivery.waits import MAX_WAIT_S, Waits
from finops_relay.errors import ShortRead, Wait

STANDARD = "https://sqs.eu-west-1.amazonaws.com/1/prepare"
FIFO = "https://sqs.eu-west-1.amazonaws.com/1/deliver.fifo"


@dataclass
class Sqs:
    """Remembers how long each message was hidden."""

    hidden: dict[str, int] = field(default_factory=dict)
    sent: list[dict[str, str]] = field(default_factory=list)

    def change_message_visibility(self, QueueUrl: str, ReceiptHandle: str, VisibilityTimeout: int) -> None:  # noqa: N803 -- boto3's names
        assert QueueUrl in {STANDARD, FIFO}
        self.hidden[ReceiptHandle.removeprefix("handle-")] = VisibilityTimeout

    def send_message(self, **message: str) -> None:
        self.sent.append(message)


def event(*ids: str, url: str = STANDARD, receives: int = 1, age_s: float = 0, group: str = "g") -> dict[str, Any]:
    """Return what Lambda's poller hands over."""
    sent_ms = int((time.time() - age_s) * 1000)
    fifo = {"MessageGroupId": group, "MessageDeduplicationId": "x"} if url == FIFO else {}
    return {
        "Records": [
            {
                "messageId": message_id,
                "receiptHandle": f"handle-{message_id}",
                "body": f"body of {message_id}",
                "attributes": {"ApproximateReceiveCount": str(receives), "SentTimestamp": str(sent_ms), **fifo},
                "messageAttributes": {},
                "eventSource": "aws:sqs",
                "eventSourceARN": f"arn:aws:sqs:eu-west-1:1:{url.rpartition('/')[2]}",
                "awsRegion": "eu-west-1",
            }
            for message_id in ids
        ]
    }


def failing(errors: dict[str, Exception], seen: list[str]) -> Callable[[Message], None]:
    """Return a job that fails for some messages."""

    def handle(message: Message) -> None:
        seen.append(message.id)
        if message.id in errors:
            raise errors[message.id]

    return handle


def run(batch: Batch, given: dict[str, Any], errors: dict[str, Exception] | None = None) -> tuple[list[str], list[str]]:
    """Process a batch; return the messages that were handled, and those that were given back."""
    seen: list[str] = []
    response = batch.process(given, failing(errors or {}, seen))
    return seen, [str(each["itemIdentifier"]) for each in response["batchItemFailures"]]


def batch(sqs: Sqs, url: str = STANDARD) -> Batch:
    client: Any = sqs
    return Batch(client, url, Waits(10, 900))


def test_a_bad_message_is_returned_alone_and_its_neighbours_are_done() -> None:
    sqs = Sqs()
    seen, back = run(batch(sqs), event("a", "b", "c"), {"b": ShortRead("broke off")})
    assert (seen, back) == (["a", "b", "c"], ["b"])
    assert set(sqs.hidden) == {"b"}
    assert 5 <= sqs.hidden["b"] <= 10


def test_a_batch_of_which_everything_fails_is_no_crash() -> None:
    seen, back = run(batch(Sqs()), event("a", "b"), {"a": KeyError("bug"), "b": ShortRead("x")})
    assert (seen, back) == (["a", "b"], ["a", "b"])


def test_a_batch_that_goes_well_gives_nothing_back() -> None:
    sqs = Sqs()
    assert run(batch(sqs), event("a", "b")) == (["a", "b"], [])
    assert sqs.hidden == {}


def test_a_message_that_waits_is_hidden_for_as_long_as_it_waits() -> None:
    sqs = Sqs()
    _, back = run(batch(sqs), event("a"), {"a": Wait(123.4, "the vendor is down")})
    assert back == ["a"]
    assert sqs.hidden == {"a": 123}


@pytest.mark.parametrize(("seconds", "hidden"), [(0, 0), (-5, 0), (MAX_WAIT_S, MAX_HIDDEN_S), (1e9, MAX_HIDDEN_S)])
def test_a_wait_stays_below_what_sqs_allows_counted_from_the_receipt(seconds: float, hidden: float) -> None:
    sqs = Sqs()
    run(batch(sqs), event("a"), {"a": Wait(seconds, "x")})
    assert sqs.hidden == {"a": hidden}
    assert MAX_HIDDEN_S + 900 <= 43_200


def test_failures_without_a_wait_of_their_own_wait_longer_and_longer_up_to_the_cap() -> None:
    waits = []
    for receives in (1, 3, 6, 40):
        sqs = Sqs()
        run(batch(sqs), event("a", receives=receives), {"a": KeyError("bug")})
        waits.append(sqs.hidden["a"])
    assert 5 <= waits[0] <= 10
    assert 20 <= waits[1] <= 40
    assert 160 <= waits[2] <= 320
    assert 450 <= waits[3] <= 900


def test_in_a_fifo_batch_what_comes_after_a_failure_is_given_back_untouched() -> None:
    sqs = Sqs()
    seen, back = run(batch(sqs, FIFO), event("a", "b", "c", url=FIFO), {"b": Wait(5, "x")})
    assert (seen, back) == (["a", "b"], ["b", "c"])
    assert sqs.hidden == {"b": 5}


OLD = [(MAX_RECEIVES, 0), (1, MAX_AGE_S + 1)]


@pytest.mark.parametrize("error", [Wait(5, "x"), KeyError("the table may not be read")], ids=["waits", "fails"])
@pytest.mark.parametrize(("receives", "age_s"), OLD)
def test_a_message_that_has_come_back_for_long_is_sent_afresh_before_its_queue_loses_it(
    receives: int, age_s: float, error: Exception
) -> None:
    sqs = Sqs()
    given = event("a", url=FIFO, receives=receives, age_s=age_s)
    _, back = run(batch(sqs, FIFO), given, {"a": error})
    assert (back, sqs.hidden) == ([], {})
    afresh = {"MessageGroupId": "g", "MessageDeduplicationId": f"a-{receives}"}
    assert sqs.sent == [{"QueueUrl": FIFO, "MessageBody": "body of a", **afresh}]


def test_a_message_that_others_wait_for_is_sent_afresh_past_them() -> None:
    sqs = Sqs()
    given = event("a", url=FIFO, receives=MAX_RECEIVES)
    run(batch(sqs, FIFO), given, {"a": Wait(5, "x", "past those that wait")})
    assert sqs.sent[0]["MessageGroupId"] == "past those that wait"


def test_a_message_of_a_standard_queue_is_sent_afresh_without_a_group() -> None:
    sqs = Sqs()
    _, back = run(batch(sqs), event("a", age_s=MAX_AGE_S + 1), {"a": KeyError("bug")})
    assert (back, sqs.sent) == ([], [{"QueueUrl": STANDARD, "MessageBody": "body of a"}])


@pytest.mark.parametrize("error", [Wait(5, "x"), KeyError("bug")], ids=["waits", "fails"])
def test_a_message_that_cannot_be_sent_afresh_is_given_back(error: Exception) -> None:
    down: Any = Down()
    given = event("a", url=FIFO, age_s=MAX_AGE_S + 1)
    assert run(Batch(down, FIFO, Waits()), given, {"a": error})[1] == ["a"]


@pytest.mark.parametrize(("receives", "age_s"), [(MAX_RECEIVES - 1, 0), (1, MAX_AGE_S - 60)])
def test_a_message_that_has_not_waited_long_stays(receives: int, age_s: float) -> None:
    sqs = Sqs()
    given = event("a", url=FIFO, receives=receives, age_s=age_s)
    _, back = run(batch(sqs, FIFO), given, {"a": Wait(5, "x")})
    assert (back, sqs.sent, sqs.hidden) == (["a"], [], {"a": 5})


def test_the_limits_stay_below_those_of_the_queue() -> None:
    assert MAX_RECEIVES < 100
    assert MAX_AGE_S + MAX_HIDDEN_S < 10 * 86_400


class Down:
    """SQS that does not answer."""

    def change_message_visibility(self, **_: object) -> None:
        raise EndpointConnectionError(endpoint_url="https://sqs")

    send_message = change_message_visibility


@pytest.mark.parametrize("error", [Wait(5, "x"), KeyError("bug")], ids=["waits", "fails"])
def test_a_message_whose_wait_cannot_be_set_is_given_back_all_the_same(error: Exception) -> None:
    down: Any = Down()
    seen, back = run(Batch(down, STANDARD, Waits()), event("a", "b"), {"a": error})
    assert (seen, back) == (["a", "b"], ["a"])


# --- a batch as a whole -----------------------------------------------------------------------------------------------


def test_a_batch_that_is_taken_whole_is_handed_over_once_and_nothing_of_it_comes_back() -> None:
    seen: list[Sequence[Message]] = []
    batch(Sqs()).process_whole(event("a", "b", age_s=60), seen.append)
    ((first, second),) = seen
    assert (first.id, first.body, second.id) == ("a", "body of a", "b")
    assert 59 < time.time() - first.sent_ms / 1000 < 90


@pytest.mark.parametrize("error", [Wait(5, "x"), KeyError("bug")], ids=["waits", "fails"])
def test_a_batch_that_fails_as_a_whole_fails_the_function_so_that_all_of_it_comes_back(error: Exception) -> None:
    def failing_whole(_: Sequence[Message]) -> None:
        raise error

    sqs = Sqs()
    with pytest.raises(type(error)):
        batch(sqs).process_whole(event("a", "b"), failing_whole)
    assert (sqs.hidden, sqs.sent) == ({}, [])

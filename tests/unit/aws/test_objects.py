"""Buckets: pinned, resumable reads and constant-memory writes."""

from __future__ import annotations

import io
import os
import random
import tracemalloc
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, IncompleteReadError, ReadTimeoutError
from finops_relay.aws.objects import PART_BYTES, READ_AHEAD_BYTES, REOPENINGS, PinnedReader, S3Drops, S3Spool, written
from finops_relay.delivery.identity import ObjectVersion
from finops_relay.errors import RelayError, ShortRead, SourceChanged, SourceForbidden, SourceGone
from mypy_boto3_s3 import S3Client

BUCKET = "bucket"


def dropped(s3: S3Client, body: bytes, key: str = "incoming/a.csv") -> ObjectVersion:
    """Upload a file; return what its event names."""
    put = s3.put_object(Bucket=BUCKET, Key=key, Body=body)
    return ObjectVersion(BUCKET, key, put["VersionId"], put["ETag"].strip('"'), len(body))


@dataclass
class Breaking:
    """A stream that gives so many bytes and then fails in its way."""

    inner: Any
    left: int
    error: Exception | None

    def read(self, count: int) -> bytes:
        if self.left <= 0:
            if self.error is not None:
                raise self.error
            return b""
        data: bytes = self.inner.read(min(count, self.left))
        self.left -= len(data)
        return data

    def close(self) -> None:
        self.inner.close()


@dataclass
class Flaky:
    """S3 whose streams break; everything else is the real client's."""

    s3: S3Client
    breaks: list[tuple[int, Exception | None]]
    """After how many bytes each opened stream breaks, and how; later ones are whole."""
    ignores_range: bool = False
    opened: list[str] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 -- whatever the original takes or gives
        return getattr(self.s3, name)

    def get_object(self, **asked: Any) -> Any:  # noqa: ANN401 -- whatever the original takes or gives
        self.opened.append(asked["Range"])
        found = self.s3.get_object(**{k: v for k, v in asked.items() if k != "Range" or not self.ignores_range})
        if self.breaks:
            left, error = self.breaks.pop(0)
            torn: Any = Breaking(found["Body"], left, error)
            found["Body"] = torn
        return found


BREAKS: list[Exception | None] = [
    None,
    OSError("reset"),
    ReadTimeoutError(endpoint_url="s3"),
    IncompleteReadError(actual_bytes=1, expected_bytes=2),
    EndpointConnectionError(endpoint_url="s3"),
]


@pytest.mark.parametrize("error", BREAKS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("ignores_range", [False, True])
def test_a_broken_stream_is_taken_up_again_at_the_byte_reached(
    s3: S3Client, error: Exception | None, *, ignores_range: bool
) -> None:  # fmt: skip
    body = random.Random(1).randbytes(300_000)  # noqa: S311 -- repeatable, and no secret
    source = dropped(s3, body)
    flaky = Flaky(s3, [(100_000, error), (50_000, error), (0, error)], ignores_range)
    with io.BufferedReader(PinnedReader(flaky, source), 4096) as reader:  # type: ignore[arg-type] # a stand-in client
        assert reader.read() == body
    assert flaky.opened[0] == "bytes=0-"
    assert flaky.opened[1] == "bytes=100000-"


def test_a_stream_that_keeps_breaking_is_never_taken_for_a_whole_one(s3: S3Client) -> None:
    source = dropped(s3, b"x" * 1000)
    flaky: Any = Flaky(s3, [(100, None), *[(0, OSError())] * (REOPENINGS + 1)])
    with (
        io.BufferedReader(PinnedReader(flaky, source), 4096) as reader,
        pytest.raises(ShortRead, match="byte 100 of 1,000"),
    ):
        reader.read()


def test_a_version_is_read_even_when_the_object_was_overwritten(s3: S3Client) -> None:
    first = dropped(s3, b"first")
    dropped(s3, b"second")
    with S3Drops(s3, BUCKET).open(first) as stream:
        assert stream.read() == b"first"


def test_an_object_without_versions_that_was_overwritten_is_refused(s3: S3Client) -> None:
    first = replace(dropped(s3, b"first"), version_id="")
    dropped(s3, b"second")
    with pytest.raises(SourceChanged, match=r"s3://bucket/incoming/a\.csv"), S3Drops(s3, BUCKET).open(first):
        pass


def test_an_object_overwritten_between_two_reads_is_not_a_mixture(s3: S3Client) -> None:
    source = ObjectVersion(BUCKET, "incoming/a.csv")
    dropped(s3, b"a" * 100_000)
    flaky: Any = Flaky(s3, [(10_000, None)])
    with io.BufferedReader(PinnedReader(flaky, source), 4096) as reader:
        assert reader.read(4096) == b"a" * 4096
        dropped(s3, b"b" * 100_000)
        with pytest.raises(SourceChanged):
            reader.read()


def test_what_is_gone_is_gone_in_each_way(s3: S3Client) -> None:
    source = dropped(s3, b"x")
    deleted = s3.delete_object(Bucket=BUCKET, Key=source.key)
    s3.create_bucket(Bucket="other", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    gone = [
        ObjectVersion(BUCKET, "no/such/key"),
        ObjectVersion(BUCKET, source.key),
        ObjectVersion(BUCKET, source.key, deleted["VersionId"]),
        ObjectVersion("no-such-bucket", source.key),
    ]
    s3.delete_object(Bucket=BUCKET, Key=source.key, VersionId=source.version_id)
    for each in [*gone, source]:
        with pytest.raises(SourceGone), S3Drops(s3, BUCKET).open(each):
            pass


@dataclass
class Refusing:
    """S3 that answers everything with one error."""

    code: str
    status: int

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 -- whatever the original takes or gives
        def refuse(**_: object) -> None:
            raise ClientError({"Error": {"Code": self.code}, "ResponseMetadata": {"HTTPStatusCode": self.status}}, name)  # type: ignore[typeddict-item] # what matters

        return refuse


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("403", SourceForbidden),
        ("AccessDenied", SourceForbidden),
        ("InvalidObjectState", SourceForbidden),
        ("404", SourceGone),
        ("405", SourceGone),
        ("NoSuchVersion", SourceGone),
        ("412", SourceChanged),
        ("SlowDown", ClientError),
    ],
)
def test_a_refusal_of_the_store_has_its_error(code: str, kind: type[Exception]) -> None:
    refusing: Any = Refusing(code, 400)
    with pytest.raises(kind):
        PinnedReader(refusing, ObjectVersion(BUCKET, "k"))
    with pytest.raises(kind):
        S3Drops(refusing, BUCKET).pin(BUCKET, "k")
    with pytest.raises(kind):
        S3Drops(refusing, BUCKET).quarantine("id", ObjectVersion(BUCKET, "k"))


def test_a_reader_moves_as_a_file_does(s3: S3Client) -> None:
    body = bytes(range(256)) * 40
    source = dropped(s3, body)
    dice = random.Random(7)  # noqa: S311 -- repeatable, and no secret
    model = io.BytesIO(body)
    with S3Drops(s3, BUCKET).open(source) as stream:
        for _ in range(200):
            count = dice.randrange(0, 900)
            match dice.randrange(4):
                case 0:
                    place = dice.randrange(0, len(body) + 50)
                    assert stream.seek(place) == model.seek(place)
                case 1:
                    assert stream.seek(-count, io.SEEK_END) == model.seek(-count, io.SEEK_END)
                case _:
                    assert stream.read(count) == model.read(count)
            assert stream.tell() == model.tell()


# --- writing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES + 5])
def test_what_is_written_is_what_is_read_for_any_size(s3: S3Client, size: int) -> None:
    body = os.urandom(size)
    with S3Spool(s3, BUCKET).writer("prepared/1", "text/csv") as writer:
        for start in range(0, size, 3_000_001):
            writer.write(body[start : start + 3_000_001])
    assert b"".join(S3Spool(s3, BUCKET).chunks("prepared/1")) == body
    assert s3.head_object(Bucket=BUCKET, Key="prepared/1")["ContentType"] == "text/csv"


@pytest.mark.parametrize("size", [10, PART_BYTES + 10])
def test_an_exception_leaves_nothing_behind(s3: S3Client, size: int) -> None:
    with pytest.raises(KeyError), written(s3, BUCKET, "prepared/1", "text/csv") as writer:  # noqa: PT012 -- the block is the subject
        writer.write(b"x" * size)
        raise KeyError
    assert "Contents" not in s3.list_objects_v2(Bucket=BUCKET)
    assert not s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads")


@dataclass
class NoAbort:
    """S3 that cannot clear up."""

    s3: S3Client

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 -- whatever the original takes or gives
        return getattr(self.s3, name)

    def abort_multipart_upload(self, **_: object) -> None:
        raise EndpointConnectionError(endpoint_url="s3")


def test_the_reason_of_a_failure_is_not_hidden_by_what_clearing_up_says(s3: S3Client) -> None:
    stuck: Any = NoAbort(s3)
    with pytest.raises(RelayError) as caught, written(stuck, BUCKET, "prepared/1", "text/csv") as writer:  # noqa: PT012 -- the block is the subject
        writer.write(b"x" * (PART_BYTES + 1))
        raise RelayError
    assert "left behind" in caught.value.__notes__[0]


class Swallowing:
    """S3 that keeps nothing."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 -- whatever the original takes or gives
        return lambda **_: {"UploadId": "u", "ETag": "e"}


def test_a_write_takes_memory_for_its_parts_not_for_its_whole() -> None:
    swallowing: Any = Swallowing()
    peaks = []
    for count in (4, 16):
        tracemalloc.start()
        with written(swallowing, BUCKET, "k", "text/csv") as writer:
            for _ in range(count * PART_BYTES // 1_000_000):
                writer.write(b"x" * 1_000_000)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 1_000_000
    assert peaks[1] < 5 * PART_BYTES


def test_a_read_takes_memory_for_its_buffer_not_for_its_whole(s3: S3Client) -> None:
    dropped(s3, b"x" * 12 * READ_AHEAD_BYTES, "prepared/1")
    sizes = {len(chunk) for chunk in S3Spool(s3, BUCKET).chunks("prepared/1")}
    assert max(sizes) <= READ_AHEAD_BYTES


# --- the rest ------------------------------------------------------------------------------------------------------


def test_an_object_that_is_removed_is_listed_no_more_and_its_version_stays(s3: S3Client) -> None:
    first = dropped(s3, b"first", "state/a")
    drops = S3Drops(s3, BUCKET)
    drops.remove("state/a")
    drops.remove("state/a")
    drops.remove("state/never")
    assert list(drops.listing(BUCKET, "state/")) == []
    with pytest.raises(SourceGone):
        drops.pin(BUCKET, "state/a")
    with drops.open(first) as stream:
        assert stream.read() == b"first"


def test_a_copy_in_quarantine_holds_the_bytes_of_that_version(s3: S3Client) -> None:
    first = dropped(s3, b"first", "incoming/price-books/aws/" + "ä" * 490 + ".csv")
    dropped(s3, b"second", first.key)
    address = S3Drops(s3, BUCKET).quarantine("d" * 64, first)
    key = address.removeprefix(f"s3://{BUCKET}/")
    assert key.startswith(f"quarantine/{'d' * 64}/")
    assert key.endswith("ä.csv")
    assert len(key.encode()) <= 1024
    assert s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() == b"first"


def test_a_released_object_is_tagged_and_a_missing_one_is_no_trouble(s3: S3Client) -> None:
    dropped(s3, b"x", "prepared/1")
    spool = S3Spool(s3, BUCKET)
    spool.release("prepared/1")
    spool.release("prepared/gone")
    tags = s3.get_object_tagging(Bucket=BUCKET, Key="prepared/1")["TagSet"]
    assert tags == [{"Key": "delivery", "Value": "finished"}]


def test_what_is_pinned_and_what_is_listed_name_the_same_object(s3: S3Client) -> None:
    drops = S3Drops(s3, BUCKET)
    drops.put("receipts/1", b"{}", "application/json")
    pinned = drops.pin(BUCKET, "receipts/1")
    (listed,) = drops.listing(BUCKET, "receipts/")
    assert pinned.version_id
    assert (listed.key, listed.etag, listed.size_bytes, listed.at) == (pinned.key, pinned.etag, 2, pinned.at)
    with drops.open(pinned) as stream:
        assert stream.read() == b"{}"

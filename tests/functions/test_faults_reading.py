"""What is read: overwritten, repeated, torn, hostile, or larger than anything should be."""

from __future__ import annotations

import gzip
import io
import random
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError, ResponseStreamingError
from finops_relay.aws.objects import S3Drops, S3Spool
from finops_relay.delivery.identity import ObjectVersion
from finops_relay.delivery.ports import Ports
from finops_relay.errors import Wait

from local.standins.infracost import AWS_ORGANIZATION, AZURE_ORGANIZATION
from tests.world.relay import DROPS, World, world
from tests.world.sheets import aws_sheet, azure_sheet, zipped

KEY = "incoming/price-books/aws/sheet.csv"


@pytest.fixture
def w() -> Iterator[World]:
    with world() as found:
        yield found


def rows(**counts: int) -> dict[str, int]:
    """The counts of a receipt, those not named being 0."""
    found = dict.fromkeys(("in", "accepted", "filtered", "rejected", "owed"), 0)
    named = {("in" if name == "in_" else name): count for name, count in counts.items()}
    return found | named


def uploaded(w: World, organization: str = AWS_ORGANIZATION) -> list[int]:
    """Return the rows of each file of the book that an organization uses."""
    active = w.active(organization)
    return [file["rows"] for book in w.state()["price_books"] if book["id"] == active for file in book["files"]]


# --- row 3 ----------------------------------------------------------------------------------------------------------


def test_an_overwritten_object_is_read_as_its_event_named_it(w: World) -> None:
    """Row 3: with versions, each event's own version is read; the older one is superseded and nothing is mixed."""
    first = w.drop(KEY, aws_sheet(3, "0.1"))
    second = w.drop(KEY, aws_sheet(5, "0.2"))
    older, newer = w.prepare(first), w.prepare(second)
    assert older is not None
    assert newer is not None
    assert (older.rows.in_, newer.rows.in_) == (3, 5)
    assert w.receipt(w.finish(older.id))["outcome"] == "superseded"
    assert w.receipt(w.finish(newer.id))["rows"] == rows(in_=5, accepted=5)
    assert uploaded(w) == [5]


def test_an_object_overwritten_between_two_reads_ends_as_superseded_where_there_are_no_versions(w: World) -> None:
    """Row 3: without versions the ETag pins: what was overwritten after its event is never read, not even in part."""
    bucket = "unversioned"
    w.s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    first = w.drop(KEY, aws_sheet(3), bucket)
    assert first.version_id == ""
    second = w.drop(KEY, aws_sheet(5), bucket)
    ended = w.prepare(first)
    assert ended is not None
    assert w.receipt(ended)["outcome"] == "superseded"
    assert w.receipt(ended)["rows"] == rows()
    newer = w.prepare(second)
    assert newer is not None
    assert w.receipt(w.finish(newer.id))["rows"] == rows(in_=5, accepted=5)
    assert uploaded(w) == [5]


def test_an_object_overwritten_in_mid_read_is_never_a_mixture(w: World) -> None:
    """Row 3: a stream that breaks after an overwrite is not taken up in the new object, and ends as superseded."""
    bucket = "unversioned"
    w.s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    source = w.drop(KEY, aws_sheet(2_000), bucket)

    def overwrite() -> None:
        w.s3.put_object(Bucket=bucket, Key=KEY, Body=aws_sheet(2_000, "9"))

    ended = w.prepare(source, torn(w, TornS3(w.s3, [50_000], then=overwrite)))
    assert ended is not None
    assert w.receipt(ended)["outcome"] == "superseded"
    assert w.keys("spool") == []
    assert w.state()["price_books"] == []


# --- row 4 ----------------------------------------------------------------------------------------------------------


def test_a_duplicate_event_sends_nothing(w: World) -> None:
    """Row 4: the same event again, at any time, neither prepares nor queues nor uploads again."""
    source = w.drop(KEY, aws_sheet(3))
    prepared = w.prepare(source)
    assert prepared is not None
    w.prepare(source)
    assert len(w.queued()) == 1
    done = w.finish(prepared.id)
    before = w.state()["counts"]
    again = w.prepare(source)
    assert again == done
    assert w.queued() == []
    assert w.state()["counts"] == before
    assert w.receipt(done)["rows"] == rows(in_=3, accepted=3)
    assert len(w.receipts()) == 1


@pytest.mark.parametrize(
    ("older", "newer"),
    [("0055AED6DCD90281E5", "0055AED6DCD90281E6"), ("0055AED6DCD90281E5", "0055AED6DCD90281E501"), ("55", "56")],
)
def test_events_out_of_order_are_told_by_the_sequencer(w: World, older: str, newer: str) -> None:
    """Row 4: of two events for one key the higher sequencer wins, padded where lengths differ; the other is stale."""
    first = replace(w.drop(KEY, aws_sheet(3)), sequencer=older)
    second = replace(w.drop(KEY, aws_sheet(5)), sequencer=newer)
    prepared, stale = w.prepare(second), w.prepare(first)
    assert prepared is not None
    assert stale is not None
    assert w.receipt(stale)["outcome"] == "stale"
    assert w.receipt(stale)["rows"] == rows()
    assert w.receipt(w.finish(prepared.id))["rows"] == rows(in_=5, accepted=5)
    assert uploaded(w) == [5]
    assert len(w.state()["price_books"]) == 1


# --- row 5 ----------------------------------------------------------------------------------------------------------

ODD = "AmazonEC2,,,Linux,,,0.5,2,4,us-east-1,,"


@pytest.mark.parametrize("chunk", [1, 7, 1_000])
def test_the_same_rows_come_out_whatever_the_chunks_are(w: World, chunk: int) -> None:
    """Row 5: BOM, CRLF, U+2028, quoted newlines and characters across a border give the same rows for any chunking."""
    lines = ["\ufeff" + aws_sheet(0).decode().strip()]
    lines += [ODD + f'"disk ü€\U0001f4be {number}\u2028 of, ""size""\n{number}"' for number in range(40)]
    content = "\r\n".join(lines).encode()
    body = content + b"\r\n" + ODD.encode() + b"bytes \xff\xfe\r\n"
    drip = Dripping(w.s3, chunk)
    prepared = w.prepare(w.drop(KEY, body), torn(w, drip))
    assert prepared is not None
    receipt = w.receipt(prepared)
    # One bad row of 41 is more than the share of 1 %: the book is refused whole, and the row is named with its line.
    assert receipt["outcome"] == "rejected"
    assert receipt["rows"] == rows(in_=41, rejected=41)
    named = w.text(receipt["rejected_rows"].removeprefix("s3://drops/")).splitlines()
    assert len(named) == 2
    assert b"bytes \xff\xfe" in named[1]
    assert b",82," in named[1]
    again = w.prepare(w.drop(KEY, content), torn(w, drip))
    assert again is not None
    done = w.finish(again.id)
    assert w.receipt(done)["rows"] == rows(in_=40, accepted=40)
    unit = w.receipt(done)["units"][0]
    assert unit["sha256"] == DIGEST.setdefault("", unit["sha256"])


DIGEST: dict[str, str] = {}
"""Of what was uploaded, the same for every chunking."""


# --- row 6 ----------------------------------------------------------------------------------------------------------


@dataclass
class TornS3:
    """An S3 client whose bodies break at chosen places, over the real one."""

    inner: Any
    breaks: list[int]
    """Bytes after which a body breaks, one for each body; then they hold."""
    then: Any = None
    """Called when a body breaks."""
    error: Exception | None = None
    """None ends the body early and in silence."""
    opened: list[str] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 -- the client's
        return getattr(self.inner, name)

    def get_object(self, **named: Any) -> dict[str, Any]:  # noqa: ANN401 -- the client's
        self.opened.append(named["Range"])
        found: dict[str, Any] = self.inner.get_object(**named)
        if self.breaks:
            found["Body"] = _TornBody(self, found["Body"], self.breaks.pop(0))
        return found


@dataclass
class _TornBody:
    owner: TornS3
    inner: Any
    left: int

    def read(self, size: int) -> bytes:
        data: bytes = self.inner.read(min(size, self.left)) if self.left else b""
        self.left -= len(data)
        if data:
            return data
        if self.owner.then:
            self.owner.then()
        if self.owner.error:
            raise self.owner.error
        return b""

    def close(self) -> None:
        self.inner.close()


@dataclass
class Dripping:
    """An S3 client whose bodies give at most so many bytes at once."""

    inner: Any
    size: int

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 -- the client's
        return getattr(self.inner, name)

    def get_object(self, **named: Any) -> dict[str, Any]:  # noqa: ANN401 -- the client's
        found: dict[str, Any] = self.inner.get_object(**named)
        body, size = found["Body"], self.size

        class Body:
            def read(self, wanted: int) -> bytes:
                data: bytes = body.read(min(wanted, size))
                return data

            def close(self) -> None:
                body.close()

        found["Body"] = Body()
        return found


def torn(w: World, s3: Any) -> Ports:  # noqa: ANN401 -- a client
    """Return the world's ports, with drops read through *s3*."""
    return replace(w.ports, drops=S3Drops(s3, DROPS))


BREAKS: dict[str, Exception | None] = {
    "ends early": None,
    "times out": ReadTimeoutError(endpoint_url="s3"),
    "is reset": ResponseStreamingError(error=ConnectionResetError()),
}


@pytest.mark.parametrize("way", BREAKS)
@pytest.mark.parametrize("packed", [False, True])
def test_a_stream_that_breaks_is_taken_up_at_the_byte_reached(w: World, way: str, *, packed: bool) -> None:
    """Row 6: a broken stream is opened again at the byte reached, pinned to the version, and every row comes once."""
    noise = random.Random(6)  # noqa: S311 -- prices that do not compress
    body = b"".join(aws_sheet(1, f"0.{noise.getrandbits(60)}").splitlines(keepends=True)[1] for _ in range(3_000))
    content = aws_sheet(0) + body
    content = gzip.compress(content) if packed else content
    client = TornS3(w.s3, [1_000, 0, 5_000, 1], error=BREAKS[way])
    source = w.drop(f"{KEY}.gz" if packed else KEY, content)
    prepared = w.prepare(source, torn(w, client))
    assert prepared is not None
    done = w.finish(prepared.id)
    receipt = w.receipt(done)
    assert receipt["rows"] == rows(in_=3_000, accepted=3_000)
    assert receipt["source"]["bytes"] == len(content)
    assert len(client.opened) >= 5
    assert len(set(client.opened)) >= 3
    assert uploaded(w) == [3_000]


def test_a_stream_that_always_breaks_waits_and_is_never_taken_for_whole(w: World) -> None:
    """Row 6: after five breaks at one place the message waits; no row is taken until the object reads to its end."""
    source = w.drop(KEY, aws_sheet(500))
    with pytest.raises(Wait, match="broke off 5 times at byte 2,000"):
        w.prepare(source, torn(w, TornS3(w.s3, [2_000, 0, 0, 0, 0, 0])))
    (receipt,) = w.receipts()
    assert receipt["outcome"] == "pending"
    assert receipt["rows"] == rows()
    assert w.queued() == []
    prepared = w.prepare(source)
    assert prepared is not None
    assert w.receipt(w.finish(prepared.id))["rows"] == rows(in_=500, accepted=500)


@pytest.mark.parametrize("cut", [1, 8, 100])
def test_a_truncated_gzip_is_refused_and_nothing_is_created(w: World, cut: int) -> None:
    """Row 6: a gzip file that ends early is never taken for a whole one."""
    content = gzip.compress(aws_sheet(500))
    ended = w.deliver_file(f"{KEY}.gz", content[:-cut])
    receipt = w.receipt(ended)
    assert receipt["outcome"] == "rejected"
    assert "truncated" in receipt["reason"]
    assert receipt["rows"]["accepted"] == receipt["rows"]["owed"] == 0
    assert w.state()["counts"] == {}
    assert w.queued() == []
    assert w.keys("spool") == []


def test_a_truncated_zip_is_refused_and_nothing_is_created(w: World) -> None:
    """Row 6: a zip without its end is damaged, and refused."""
    ended = w.deliver_file("incoming/price-books/aws/x.zip", zipped(a=aws_sheet(500))[:-30])
    assert w.receipt(ended)["outcome"] == "rejected"
    assert w.state()["counts"] == {}


def test_a_spool_that_reads_short_sends_nothing_short(w: World) -> None:
    """Row 6: a prepared body that breaks off is not uploaded as a whole file; the delivery waits, and goes on."""
    prepared = w.prepare(w.drop(KEY, aws_sheet(500)))
    assert prepared is not None
    short = replace(w.ports, spool=S3Spool(TornS3(w.s3, [2_000, 0, 0, 0, 0, 0]), "spool"))  # type: ignore[arg-type] # a fake client
    with pytest.raises(Wait):
        w.step(prepared.id, short)
    assert [file["bytes"] for book in w.state()["price_books"] for file in book["files"]] == [None]
    assert w.receipt(w.finish(prepared.id))["rows"] == rows(in_=500, accepted=500)
    assert uploaded(w) == [500]


# --- row 7 ----------------------------------------------------------------------------------------------------------


def bomb(size: int) -> bytes:
    """A zip of one CSV that is all alike."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
        archive.open("a.csv", "w") as out,
    ):
        out.write(aws_sheet(0))
        line = b"AmazonEC2," + b"x" * 990 + b",,Linux,,,0.1,2,4,us-east-1,,\n"
        for _ in range(size // len(line)):
            out.write(line)
    return buffer.getvalue()


@pytest.mark.parametrize("packing", ["zip", "gz"])
def test_a_bomb_is_refused_by_its_ratio_and_leaves_nothing(w: World, packing: str) -> None:
    """Row 7: a file that expands far more than any sheet does is refused with a receipt before it fills anything."""
    content = bomb(70_000_000)
    if packing == "gz":
        content = gzip.compress(aws_sheet(0) + b"AmazonEC2,x,,Linux,,,0.1,2,4,us-east-1,,\n" * 1_700_000, 9)
    assert len(content) < 350_000
    ended = w.deliver_file(f"incoming/price-books/aws/x.{'zip' if packing == 'zip' else 'csv.gz'}", content)
    receipt = w.receipt(ended)
    assert receipt["outcome"] == "rejected"
    assert "expands" in receipt["reason"]
    assert w.state()["counts"] == {}
    assert w.keys("spool") == []


def test_a_zip_of_too_many_files_is_refused(w: World) -> None:
    """Row 7: the ceiling on files of one book is named in the refusal."""
    members = {f"m{number}": aws_sheet(1) for number in range(201)}
    receipt = w.receipt(w.deliver_file("incoming/price-books/aws/x.zip", zipped(**members)))
    assert receipt["outcome"] == "rejected"
    assert "the limit is 200" in receipt["reason"]
    assert w.state()["counts"] == {}


def test_odd_member_names_are_only_ever_shown(w: World) -> None:
    """Row 7: a member named as a path out of the archive is read as any other, and written nowhere by that name."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("../../etc/\x07passwd.csv", azure_sheet(2))
    done = w.deliver_file("incoming/price-books/azure/x.zip", buffer.getvalue())
    receipt = w.receipt(done)
    assert receipt["rows"] == rows(in_=2, accepted=2)
    assert uploaded(w, AZURE_ORGANIZATION) == [2]
    assert receipt["units"][0]["spool_key"] == f"price-books/{done.id}/0001.csv"
    assert "\x07" not in receipt["units"][0]["name"]


def test_a_forbidden_object_is_waited_for_and_quarantined_in_the_end(w: World) -> None:
    """Row 23: an object that we may not read waits for a day of growing waits, then it is put aside."""
    source = w.drop(KEY, aws_sheet(3))
    denied = torn(w, Forbidden(w.s3))
    for number in range(100):
        with pytest.raises(Wait) as caught:
            w.prepare(source, denied)
        assert min(900, 10 * 2**number) / 2 <= caught.value.seconds <= 900
    ended = w.prepare(source, denied)
    assert ended is not None
    receipt = w.receipt(ended)
    assert receipt["outcome"] == "failed"
    assert receipt["next_command"]
    assert w.text(f"quarantine/{ended.id}/reason.json")


@dataclass
class Forbidden:
    """An S3 client whose heads are all denied."""

    inner: Any

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 -- the client's
        return getattr(self.inner, name)

    def head_object(self, **_: object) -> None:
        raise ClientError({"Error": {"Code": "403", "Message": "Forbidden"}}, "HeadObject")


def test_a_source_version_is_what_identifies(w: World) -> None:
    """Row 4: the same bytes dropped again are another delivery; the same version is not."""
    first, second = w.drop(KEY, aws_sheet(1)), w.drop(KEY, aws_sheet(1))
    assert isinstance(first, ObjectVersion)
    one, two = w.prepare(first), w.prepare(second)
    assert one is not None
    assert two is not None
    assert one.id != two.id

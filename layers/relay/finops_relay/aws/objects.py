"""Buckets: pinned, resumable reads and constant-memory writes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    IncompleteReadError,
    ResponseStreamingError,
)
from botocore.exceptions import (
    ConnectionError as BotoConnectionError,
)

from finops_relay.delivery.identity import ObjectVersion
from finops_relay.errors import ShortRead, SourceChanged, SourceForbidden, SourceGone

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

READ_AHEAD_BYTES = 1_048_576
PART_BYTES = 8_388_608
"""Of a multipart upload: at least 5 MiB, and 10,000 of them make 84 GB (S3 user guide, "Multipart upload limits")."""
REOPENINGS = 5
"""Times that one read is taken up again where its stream broke."""
STREAM_FAILURES = (BotoConnectionError, HTTPClientError, IncompleteReadError, ResponseStreamingError, OSError)
GONE = frozenset({"NoSuchKey", "NoSuchVersion", "NoSuchBucket", "404", "MethodNotAllowed", "405"})
"""MethodNotAllowed: the version is a delete marker. An answer to HEAD has no body, so its code is the bare status."""
FORBIDDEN = frozenset({"AccessDenied", "403", "InvalidObjectState", "KMS.DisabledException"})
"""InvalidObjectState: the object was archived."""
NAME_CHARS = 200
"""Of a file's name in quarantine: a key holds 1,024 bytes, and what is put before the name is longer than what was."""
CHANGED = frozenset({"PreconditionFailed", "412"})


@contextmanager
def _named(uri: str) -> Iterator[None]:
    """Turn the service's refusals into ours, which name the object."""
    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code in GONE:
            msg = f"{uri} is not there any more ({code})"
            raise SourceGone(msg) from error
        if code in FORBIDDEN:
            msg = f"{uri} may not be read ({code}); check the bucket's policy, and the key it is encrypted with"
            raise SourceForbidden(msg) from error
        if code in CHANGED:
            msg = f"{uri} was overwritten after its event"
            raise SourceChanged(msg) from error
        raise


class PinnedReader(io.RawIOBase):
    """One version of one object as a seekable stream; a broken stream is taken up again at the byte reached.

    Raises SourceGone, SourceForbidden, SourceChanged when opened; ShortRead when the stream keeps breaking.
    """

    def __init__(self, s3: S3Client, source: ObjectVersion) -> None:
        self._s3 = s3
        self._source = source
        self._at = 0
        self._body: Any = None  # first of all: a reader that is refused below is closed, too
        self._pin: dict[str, Any] = {"Bucket": source.bucket, "Key": source.key}
        if source.version_id and source.version_id != "null":
            self._pin["VersionId"] = source.version_id
        with _named(source.uri):
            head = s3.head_object(**self._pin)
        # Without a version the ETag pins: the event's, so that a later overwrite cannot slip in.
        if source.etag and source.etag.strip('"') != head["ETag"].strip('"'):
            msg = f"{source.uri} was overwritten after its event"
            raise SourceChanged(msg)
        self._pin["IfMatch"] = head["ETag"]
        self.size = head["ContentLength"]

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Return the position in bytes."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move; the next read opens the object there."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        target = max(0, base + offset)
        if target != self._at:
            self._drop()
            self._at = target
        return target

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 -- a writable buffer, as io defines it
        """Read as much as the stream gives at once, at most the buffer. Raises ShortRead."""
        view = memoryview(buffer).cast("B")
        if self._at >= self.size or not len(view):
            return 0
        for _ in range(REOPENINGS):
            try:
                data = self._stream().read(len(view))
            except STREAM_FAILURES:
                self._drop()
                continue
            if data:
                view[: len(data)] = data
                self._at += len(data)
                return len(data)
            self._drop()  # it ended early
        msg = f"{self._source.uri} broke off {REOPENINGS} times at byte {self._at:,} of {self.size:,}"
        raise ShortRead(msg)

    def close(self) -> None:
        """Close the stream below."""
        self._drop()
        super().close()

    def _stream(self) -> Any:  # noqa: ANN401 -- botocore's StreamingBody
        if self._body is None:
            with _named(self._source.uri):
                found = self._s3.get_object(**self._pin, Range=f"bytes={self._at}-")
            self._body = found["Body"]
            if self._at and not found.get("ContentRange", "").startswith(f"bytes {self._at}-"):
                self._skip(self._at)  # some stores ignore Range for a version: never read from a wrong place
        return self._body

    def _skip(self, count: int) -> None:
        """Read past bytes that were not asked for; a stream that ends before is retried as any that breaks."""
        while count and (passed := len(self._body.read(min(count, READ_AHEAD_BYTES)))):
            count -= passed

    def _drop(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None


class MultipartWriter:
    """Writes one object in parts; small ones in a single put. Nothing is visible before `finish`.

    While one part is being sent the next one is filled, so that the store's answer costs the rows no time. A part that
    fails raises at the next part, or in `finish`.
    """

    def __init__(self, s3: S3Client, bucket: str, key: str, content_type: str) -> None:
        self._s3 = s3
        self._where = {"Bucket": bucket, "Key": key}
        self._type = content_type
        # Two buffers for all parts: botocore's reference cycles keep a body alive until the collector comes by, and a
        # buffer that grows costs a tenth of a price book's time.
        self._part, self._other = bytearray(PART_BYTES), bytearray()
        self._filled = 0
        self._upload = ""
        self._count = 0
        self._parts: list[dict[str, Any]] = []
        self._sender: ThreadPoolExecutor | None = None
        self._sending: Future[dict[str, Any]] | None = None

    def write(self, data: bytes) -> int:
        """Take more bytes; return how many."""
        left = memoryview(data)
        while left:
            taken = left[: PART_BYTES - self._filled]
            self._part[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            left = left[len(taken) :]
            if self._filled == PART_BYTES:
                self._send(self._part)
                self._part, self._other = self._other or bytearray(PART_BYTES), self._part
                self._filled = 0
        return len(data)

    def finish(self) -> None:
        """Make the object visible."""
        if not self._upload:
            body = bytes(self._part[: self._filled])
            self._s3.put_object(**cast("Any", self._where), Body=body, ContentType=self._type)
            return
        if self._filled:
            self._send(self._part[: self._filled])
        self._sent()
        self._s3.complete_multipart_upload(
            **cast("Any", self._where), UploadId=self._upload, MultipartUpload={"Parts": cast("Any", self._parts)}
        )

    def abandon(self) -> None:
        """Leave nothing behind."""
        self.close()
        if self._upload:
            self._s3.abort_multipart_upload(**cast("Any", self._where), UploadId=self._upload)

    def close(self) -> None:
        """End the sending thread; what it still does is waited for, so that nothing is sent after an abort."""
        if self._sender is not None:
            self._sender.shutdown(wait=True)

    def _send(self, part: bytearray) -> None:
        """Begin to send a part, once the one before has arrived."""
        self._sent()
        if not self._upload or self._sender is None:
            where = cast("Any", self._where)
            self._upload = self._s3.create_multipart_upload(**where, ContentType=self._type)["UploadId"]
            self._sender = ThreadPoolExecutor(1, "part")
        self._count += 1
        self._sending = self._sender.submit(self._send_part, self._count, part)

    def _send_part(self, number: int, part: bytearray) -> dict[str, Any]:
        where, body = cast("Any", self._where), cast("Any", part)
        sent = self._s3.upload_part(**where, UploadId=self._upload, PartNumber=number, Body=body)
        return {"ETag": sent["ETag"], "PartNumber": number}

    def _sent(self) -> None:
        """Wait for the part under way. Raises what sending it raised."""
        if self._sending is not None:
            sending, self._sending = self._sending, None
            self._parts.append(sending.result())


@contextmanager
def written(s3: S3Client, bucket: str, key: str, content_type: str) -> Iterator[MultipartWriter]:
    """Write one object; an exception leaves nothing behind."""
    writer = MultipartWriter(s3, bucket, key, content_type)
    try:
        yield writer
        writer.finish()
    except BaseException as error:
        try:
            writer.abandon()
        except (ClientError, BotoCoreError) as left:  # the reason is what counts; the bucket's rule clears up
            error.add_note(f"parts of s3://{bucket}/{key} were left behind: {left}")
        raise
    finally:
        writer.close()


class S3Drops:
    """The drops bucket."""

    def __init__(self, s3: S3Client, bucket: str) -> None:
        self._s3 = s3
        self._bucket = bucket

    def pin(self, bucket: str, key: str) -> ObjectVersion:
        """Return the present version of an object. Raises SourceGone, SourceForbidden."""
        with _named(f"s3://{bucket}/{key}"):
            head = self._s3.head_object(Bucket=bucket, Key=key)
        return ObjectVersion(
            bucket, key, head.get("VersionId", ""), head["ETag"], head["ContentLength"], at=head["LastModified"]
        )

    @contextmanager
    def open(self, source: ObjectVersion) -> Iterator[BinaryIO]:
        """Open a seekable reader of one version."""
        with io.BufferedReader(PinnedReader(self._s3, source), READ_AHEAD_BYTES) as reader:
            yield cast("BinaryIO", reader)

    def listing(self, bucket: str, prefix: str) -> Iterator[ObjectVersion]:
        """Yield the present objects below *prefix*, in key order."""
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        for page in pages:
            for found in page.get("Contents", []):
                yield ObjectVersion(bucket, found["Key"], "", found["ETag"], found["Size"], at=found["LastModified"])

    def put(self, key: str, body: bytes, content_type: str) -> str:
        """Write a small object of ours; return its address."""
        self._s3.put_object(Bucket=self._bucket, Key=key, Body=body, ContentType=content_type)
        return f"s3://{self._bucket}/{key}"

    @contextmanager
    def writer(self, key: str, content_type: str) -> Iterator[MultipartWriter]:
        """Write a large object of ours in constant memory."""
        with written(self._s3, self._bucket, key, content_type) as writer:
            yield writer

    def quarantine(self, name: str, source: ObjectVersion) -> str:
        """Copy one version, bytes untouched, to quarantine. Raises SourceGone, SourceForbidden."""
        key = f"quarantine/{name}/{source.key.rpartition('/')[2][-NAME_CHARS:]}"
        origin: dict[str, str] = {"Bucket": source.bucket, "Key": source.key}
        if source.version_id and source.version_id != "null":
            origin["VersionId"] = source.version_id
        with _named(source.uri):
            self._s3.copy_object(
                Bucket=self._bucket, Key=key, CopySource=cast("Any", origin), TaggingDirective="REPLACE"
            )
        return f"s3://{self._bucket}/{key}"

    def remove(self, key: str) -> None:
        """Remove an object of ours: a delete marker, in a bucket with versions."""
        self._s3.delete_object(Bucket=self._bucket, Key=key)


class S3Spool:
    """The spool bucket."""

    def __init__(self, s3: S3Client, bucket: str) -> None:
        self._s3 = s3
        self._bucket = bucket

    @contextmanager
    def writer(self, key: str, content_type: str) -> Iterator[MultipartWriter]:
        """Write an object in constant memory."""
        with written(self._s3, self._bucket, key, content_type) as writer:
            yield writer

    def chunks(self, key: str) -> Iterator[bytes]:
        """Yield an object's bytes."""
        with PinnedReader(self._s3, ObjectVersion(self._bucket, key)) as reader:
            while chunk := reader.read(READ_AHEAD_BYTES):
                yield chunk

    def version(self, key: str) -> ObjectVersion:
        """Return the present version of an object, unread."""
        return ObjectVersion(self._bucket, key)

    def release(self, key: str) -> None:
        """Tag an object so that the bucket's lifecycle rule may expire it (template: SpoolBucket)."""
        try:
            with _named(key):
                self._s3.put_object_tagging(
                    Bucket=self._bucket, Key=key, Tagging={"TagSet": [{"Key": "delivery", "Value": "finished"}]}
                )
        except SourceGone:
            return

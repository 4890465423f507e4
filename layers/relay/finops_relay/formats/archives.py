"""What was dropped, as streams of CSV bytes: plain, gzip, or a zip of several, told apart by content and not by name.

Nothing here trusts a size that an archive states, nothing reads a member whole, and nothing is written to a file
system, so that a member's name (``../..``, absolute, unprintable) is only ever shown.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, BinaryIO

from isal import isal_zlib

from finops_relay.errors import InputRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

READ_BYTES = 256 * 1024
"""Decoded bytes asked for at once. Measured on 100 MB sheets: more only costs cache misses."""

RATIO_FREE_BYTES = 50_000_000
"""Decoded bytes of a file before its ratio is judged: a small, very regular file harms nobody."""

DIRECTORY_BYTES = 4 * 1024 * 1024
"""Largest zip directory that is read. It is read whole; 200 members with long names need a tenth of it."""

_ENCODED_BYTES = 64 * 1024
"""Gzip bytes read at once. What follows the end of a member is copied: many tiny members cost this much each."""

_HEAD_BYTES = 4096

_LOCAL_HEADER_BYTES = 30
"""Fixed part of what stands before each member of a zip (PKWARE APPNOTE 4.3.7)."""

_ENCRYPTED = 0x1 | 0x40
"""Zip general purpose flags: encrypted, strongly encrypted (PKWARE APPNOTE 4.4.4)."""

_BROKEN_ZIP = (
    zipfile.BadZipFile,
    OSError,
    zlib.error,
    struct.error,
    EOFError,
    RuntimeError,
    ValueError,
    OverflowError,
    IndexError,
)
"""What the standard library raises on a zip that is damaged or made to harm (NotImplementedError is a RuntimeError)."""

_SAVE_AS_CSV = "save the sheet as CSV UTF-8 and drop the .csv, .csv.gz or a .zip of .csv files"
_SAVE_AS_UTF8 = "save the sheet as CSV UTF-8 (not Unicode text) and drop it again"
_UNPACK = "unpack it and drop the .csv, .csv.gz or one .zip of .csv files"

_NOT_CSV: tuple[tuple[bytes, str, str], ...] = (
    (b"\xff\xfe\x00\x00", "the file is UTF-32, not UTF-8", _SAVE_AS_UTF8),
    (b"\x00\x00\xfe\xff", "the file is UTF-32, not UTF-8", _SAVE_AS_UTF8),
    (b"\xff\xfe", "the file is UTF-16, not UTF-8", _SAVE_AS_UTF8),
    (b"\xfe\xff", "the file is UTF-16, not UTF-8", _SAVE_AS_UTF8),
    (b"PAR1", "this is a Parquet file, not CSV", "export the price sheet as CSV and drop that"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "this is an Excel workbook (.xls), not CSV", _SAVE_AS_CSV),
    (b"BZh", "the file is compressed with bzip2", _UNPACK),
    (b"\xfd7zXZ\x00", "the file is compressed with xz", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "the file is compressed with zstd", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "this is a 7-Zip archive", _UNPACK),
    (b"Rar!\x1a\x07", "this is a RAR archive", _UNPACK),
    (b"%PDF-", "this is a PDF file, not CSV", _SAVE_AS_CSV),
)
"""First bytes of what people drop by mistake, what it is, and what to do; UTF-32 before UTF-16, which begins it."""

_GZIP = b"\x1f\x8b"
_ZIP = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")


@dataclass(frozen=True)
class Ceilings:
    """How much one book may hold before it is refused rather than read on."""

    decoded_bytes: int = 5_000_000_000
    """Bytes of a whole book after decompression: what one S3 PUT can carry, and a book is uploaded by single PUTs."""

    rows: int = 50_000_000
    """Rows of a whole book."""

    ratio: int = 200
    """Decoded bytes for one encoded byte of a file; real sheets shrink 6 to 30 times."""

    members: int = 200
    """CSV files in a book. An official download has a file for each 75 MB."""


@dataclass
class Budget:
    """What a book has used of its ceilings so far, over all its files and members."""

    ceilings: Ceilings = field(default_factory=Ceilings)
    decoded_bytes: int = 0
    rows: int = 0
    members: int = 0
    tick: Callable[[str], None] = lambda _: None
    """Called with the file's name for every piece that is read; what it raises ends the reading."""

    def count_decoded(self, name: str, count: int) -> None:
        """Counts *count* decoded bytes that came out of *name*.

        Raises:
            InputRefused: the book is larger than its ceiling.
        """
        self.tick(name)
        self.decoded_bytes += count
        if self.decoded_bytes > self.ceilings.decoded_bytes:
            raise _over("decoded bytes", self.decoded_bytes, self.ceilings.decoded_bytes, name)

    def count_rows(self, name: str, count: int) -> None:
        """Counts *count* rows read from *name*.

        Raises:
            InputRefused: the book has more rows than its ceiling.
        """
        self.rows += count
        if self.rows > self.ceilings.rows:
            raise _over("rows", self.rows, self.ceilings.rows, name)

    def count_member(self, name: str) -> None:
        """Counts one more CSV file of the book.

        Raises:
            InputRefused: the book has more files than its ceiling.
        """
        self.members += 1
        if self.members > self.ceilings.members:
            raise _over("CSV files", self.members, self.ceilings.members, name)

    def check_ratio(self, name: str, decoded: int, encoded: int) -> None:
        """Judges how much *decoded* bytes came out of *encoded* bytes of one file.

        Raises:
            InputRefused: the file expands more than any price sheet does.
        """
        if decoded > RATIO_FREE_BYTES and decoded > self.ceilings.ratio * encoded:
            reason = f"the file expands {decoded // max(encoded, 1)} times, the limit is {self.ceilings.ratio} times"
            raise InputRefused(reason, file=name, fix="drop the sheet uncompressed, if it really is a price sheet")


@dataclass(frozen=True)
class Member:
    """One CSV file of what was dropped."""

    name: str
    """The file's name, with ``!member`` appended inside a zip; always printable."""

    open: Callable[[], BinaryIO]
    """Gives the decoded bytes from their beginning. Members of a file are read in turn; each opening counts anew."""


def csv_members(name: str, source: BinaryIO, encoded_bytes: int, budget: Budget) -> Iterator[Member]:
    """Finds the CSV files in one dropped file; what can be judged without decoding is judged before the first is given.

    Args:
        name: the decoded key of the file, for messages and for the members' names.
        source: seekable bytes of the file; stays open, and errors of its own pass through unchanged.
        encoded_bytes: the length of *source*.
        budget: what the book has used so far; goes on counting while members are read.

    Returns:
        The members in the archive's order; one for a file that is no archive.

    Raises:
        InputRefused: it is not CSV, gzip or a sound zip of CSVs, or a ceiling is passed.
    """
    shown = printable(name)
    head = _head(source)
    if not head:
        raise InputRefused("the file is empty", file=shown, fix="export the sheet again and check that it has rows")
    if head.startswith(_ZIP):
        return iter(_zip_members(shown, source, encoded_bytes, budget))
    if not head.startswith(_GZIP):
        refuse_other_kinds(shown, head)
    budget.count_member(shown)
    inflate = head.startswith(_GZIP)

    def open_file() -> BinaryIO:
        source.seek(0)
        chunks = _gunzip(shown, source) if inflate else iter(lambda: source.read(READ_BYTES), b"")
        return _decoded(shown, chunks, encoded_bytes, budget)

    return iter([Member(shown, open_file)])


def printable(name: str) -> str:
    """A file's or member's name that is safe to show: unprintable characters are escaped, nothing else changes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def refuse_other_kinds(name: str, head: bytes) -> None:
    """Refuses what is not CSV by its first bytes.

    Args:
        name: the printable name, for the message.
        head: the first bytes of the decoded content, a few thousand where there are that many.

    Raises:
        InputRefused: the content is another kind of file, with what to do about it.
    """
    for magic, what, fix in _NOT_CSV:
        if head.startswith(magic):
            raise InputRefused(what, file=name, fix=fix)
    if head.startswith((_GZIP, *_ZIP)):
        raise InputRefused("this is an archive inside an archive", file=name, fix="pack the .csv files once, not twice")
    if head.count(0) * 4 > len(head):
        raise InputRefused("the file is binary or UTF-16, not UTF-8 text", file=name, fix=_SAVE_AS_UTF8)


def _over(what: str, figure: int, limit: int, name: str) -> InputRefused:
    """The refusal of a book that passes a ceiling."""
    reason = f"the book has {figure:,} {what} so far, the limit is {limit:,}"
    return InputRefused(
        reason, file=name, fix="drop only the parts of one price sheet, or raise the limit in relay.yaml"
    )


def _head(source: BinaryIO) -> bytes:
    """The first bytes of *source*, which is left at its beginning."""
    source.seek(0)
    head = b""
    while len(head) < _HEAD_BYTES and (more := source.read(_HEAD_BYTES - len(head))):
        head += more
    source.seek(0)
    return head


class _Decoded(io.RawIOBase):
    """Decoded bytes as a raw stream, counted on their way."""

    def __init__(self, name: str, chunks: Iterator[bytes], encoded_bytes: int, budget: Budget) -> None:
        self._name = name
        self._chunks = chunks
        self._encoded = encoded_bytes
        self._budget = budget
        self._count = 0
        self._held = memoryview(b"")

    def readable(self) -> bool:
        """True: this is what BufferedReader asks."""
        return True

    def prime(self) -> bytes:
        """The first bytes, which stay to be read."""
        head = b""
        while len(head) < _HEAD_BYTES and (more := self._pull()):
            head += more
        self._held = memoryview(head)
        return head

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]  # Buffer came with 3.12
        """Fills *buffer* from what is held, pulling the next chunk when nothing is; 0 is the end."""
        held = self._held or memoryview(self._pull())
        target = memoryview(buffer).cast("B")
        count = min(len(held), len(target))
        target[:count] = held[:count]
        self._held = held[count:]
        return count

    def _pull(self) -> bytes:
        """The next decoded chunk, counted; empty at the end."""
        chunk = next(filter(None, self._chunks), b"")
        self._count += len(chunk)
        self._budget.count_decoded(self._name, len(chunk))
        self._budget.check_ratio(self._name, self._count, self._encoded)
        return chunk


def _decoded(name: str, chunks: Iterator[bytes], encoded_bytes: int, budget: Budget) -> BinaryIO:
    """A readable stream over *chunks*, refused when they are no CSV."""
    raw = _Decoded(name, chunks, encoded_bytes, budget)
    head = raw.prime()
    if not head:
        raise InputRefused("the file is empty", file=name, fix="export the sheet again and check that it has rows")
    refuse_other_kinds(name, head)
    return io.BufferedReader(raw, READ_BYTES)


def _gunzip(name: str, source: BinaryIO) -> Iterator[bytes]:
    """The content of a gzip file of one or more members (scheduled exports append them), in bounded chunks."""
    encoded = source.read(_ENCODED_BYTES)
    while encoded:
        if not _GZIP.startswith(encoded[: len(_GZIP)]):
            reason = "the gzip file is damaged (what follows its end is no gzip)"
            raise InputRefused(reason, file=name, fix="compress and upload it again")
        engine = isal_zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)  # 16: with gzip's header and checksum
        while not engine.eof:
            try:
                chunk = engine.decompress(encoded, READ_BYTES)
            except isal_zlib.error as error:  # type: ignore[misc]  # its stubs give an instance for the class
                reason = f"the gzip file is damaged ({error})"
                raise InputRefused(reason, file=name, fix="compress and upload it again") from error
            yield chunk
            encoded = engine.unconsumed_tail
            if engine.eof or encoded or len(chunk) == READ_BYTES:  # a full chunk may have more behind it
                continue
            encoded = source.read(_ENCODED_BYTES)
            if not encoded:
                raise InputRefused("the gzip file is truncated", file=name, fix="upload it again, whole")
        encoded = _skip_padding(engine.unused_data, source)


def _skip_padding(encoded: bytes, source: BinaryIO) -> bytes:
    """What follows a gzip member and the zeros that tape drives and some tools put behind it."""
    encoded = encoded.lstrip(b"\0")
    while not encoded and (more := source.read(_ENCODED_BYTES)):
        encoded = more.lstrip(b"\0")
    return encoded


class _ZipSource:
    """The file under a zip: bounds what is read at once, and remembers the source's own errors.

    ``zipfile`` reads the directory whole, of whatever size the archive states, and turns an ``OSError`` of the source
    into "not a zip file". Neither may happen.
    """

    def __init__(self, name: str, source: BinaryIO, size: int) -> None:
        self._name = name
        self._source = source
        self._size = size
        self.failure: Exception | None = None

    def seekable(self) -> bool:
        """True: ``zipfile`` asks."""
        return True

    def tell(self) -> int:
        """The position in the file, in bytes."""
        return self._source.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves in the file; a target before its beginning is an OSError of the archive's making, not the source's."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.tell(), io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError("seek before the beginning")
        with self._remembered():
            return self._source.seek(base + offset)

    def read(self, count: int = -1) -> bytes:
        """Reads *count* bytes (or the rest), unless that is more than any sound zip needs at once."""
        wanted = count if 0 <= count <= DIRECTORY_BYTES else DIRECTORY_BYTES + 1
        with self._remembered():
            data = self._source.read(wanted)
        if len(data) > DIRECTORY_BYTES:
            reason = f"the zip directory is larger than {DIRECTORY_BYTES:,} bytes"
            raise InputRefused(reason, file=self._name, fix="zip only the .csv files of one price sheet")
        return data

    @contextmanager
    def _remembered(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.failure = error
            raise


@contextmanager
def _sound(name: str, source: _ZipSource) -> Iterator[None]:
    """Turns the standard library's complaints about a zip into a refusal, and lets the source's own errors pass."""
    try:
        yield
    except _BROKEN_ZIP as error:
        if source.failure is not None:
            raise source.failure from None
        reason = f"the zip file is damaged ({printable(str(error)) or type(error).__name__})"
        raise InputRefused(reason, file=name, fix="zip the .csv files again and upload the archive whole") from error


def _zip_members(name: str, source: BinaryIO, encoded_bytes: int, budget: Budget) -> list[Member]:
    """The CSV files of a zip, after all checks that its directory allows."""
    guarded = _ZipSource(name, source, encoded_bytes)
    with _sound(name, guarded):
        archive = zipfile.ZipFile(guarded)
    infos: list[zipfile.ZipInfo] = archive.infolist()
    _refuse_workbook(name, infos)
    kept = [info for info in infos if not _is_litter(info.filename)]
    if not kept:
        raise InputRefused("the zip holds no CSV file", file=name, fix="zip the .csv files of the price sheet")
    for info in kept:
        budget.count_member(_member_name(name, info))
        _refuse_member(_member_name(name, info), info)
    _refuse_duplicates(name, kept)
    _refuse_overlaps(name, infos, encoded_bytes)
    _refuse_stated_sizes(name, kept, budget)

    def member(info: zipfile.ZipInfo) -> Member:
        shown = _member_name(name, info)
        return Member(shown, lambda: _decoded(shown, _unzip(shown, guarded, archive, info), info.compress_size, budget))

    return [member(info) for info in kept]


def _unzip(name: str, source: _ZipSource, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    """The content of one member in bounded chunks; ``zipfile`` verifies its checksum at its end, we its length."""
    count = 0
    with _sound(name, source):
        stream = archive.open(info)
    with stream:
        while True:
            with _sound(name, source):
                chunk = stream.read(READ_BYTES)
            if not chunk:
                break
            count += len(chunk)
            yield chunk
    if count != info.file_size:
        reason = f"the zip states {info.file_size:,} bytes for this member and holds {count:,}"
        raise InputRefused(reason, file=name, fix="zip the .csv files again and upload the archive whole")


def _member_name(name: str, info: zipfile.ZipInfo) -> str:
    return f"{name}!{printable(info.filename)}"


def _is_litter(filename: str) -> bool:
    """Whether a member is none of the sender's: folders, and what macOS, editors and exporters add."""
    last = PurePosixPath(filename.replace("\\", "/")).name
    hidden = last.startswith("._") or (last.startswith((".", "_")) and not last.lower().endswith(".csv"))
    return filename.endswith("/") or filename.startswith("__MACOSX/") or hidden


def _refuse_workbook(name: str, infos: Iterable[zipfile.ZipInfo]) -> None:
    if any(info.filename == "[Content_Types].xml" for info in infos):
        raise InputRefused("this is an Excel workbook (.xlsx), not CSV", file=name, fix=_SAVE_AS_CSV)


def _refuse_member(name: str, info: zipfile.ZipInfo) -> None:
    """Refuses a member that is no CSV, or that cannot be decoded, by what the directory says of it."""
    if not info.filename.lower().endswith(".csv"):
        nested = info.filename.lower().endswith((".gz", ".zip"))
        reason = "an archive inside the zip" if nested else "a member of the zip is no .csv file"
        raise InputRefused(reason, file=name, fix="zip only .csv files, each as it is")
    if info.flag_bits & _ENCRYPTED:
        raise InputRefused("the zip member is encrypted", file=name, fix="zip the .csv files without a password")
    if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        reason = (
            f"the zip member is compressed by method {info.compress_type}, only stored (0) and deflate (8) are read"
        )
        raise InputRefused(reason, file=name, fix="zip it with the standard method (deflate), or gzip each .csv file")


def _refuse_duplicates(name: str, infos: Iterable[zipfile.ZipInfo]) -> None:
    """Two members of one name would be one line in a receipt, and nobody could say which was meant."""
    seen: set[str] = set()
    for info in infos:
        shown = printable(info.filename)
        if shown in seen:
            raise InputRefused(
                "the zip holds two members of this name", file=f"{name}!{shown}", fix="zip each file once"
            )
        seen.add(shown)


def _refuse_overlaps(name: str, infos: Iterable[zipfile.ZipInfo], encoded_bytes: int) -> None:
    """Members that share bytes are how a small zip becomes a huge one; no tool writes them by accident."""
    end = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        start, end = end, info.header_offset + _LOCAL_HEADER_BYTES + info.compress_size
        if info.header_offset < start or end > encoded_bytes:
            reason = "members of the zip overlap or reach past its end"
            raise InputRefused(reason, file=_member_name(name, info), fix="zip the .csv files again")


def _refuse_stated_sizes(name: str, infos: Iterable[zipfile.ZipInfo], budget: Budget) -> None:
    """Refuses at once what would be refused anyway after gigabytes; the true sizes are counted while reading."""
    stated = budget.decoded_bytes + sum(info.file_size for info in infos)
    if stated > budget.ceilings.decoded_bytes:
        raise _over("decoded bytes", stated, budget.ceilings.decoded_bytes, name)

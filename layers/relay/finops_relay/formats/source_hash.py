"""The SHA-256 of a file, taken while something else reads it."""

from __future__ import annotations

import io
from hashlib import sha256
from typing import BinaryIO

_READ_BYTES = 1_048_576


class HashedSource(io.BufferedIOBase):
    """Passes reads and seeks on to *source*, and hashes each byte when it is first read in order.

    A zip is read back and forth, so `hexdigest` reads what was passed over.
    """

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._hashed = sha256()
        self._upto = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Read from the source."""
        at = self._source.tell()
        data = self._source.read(-1 if size is None else size)
        if at <= self._upto < at + len(data):
            self._hashed.update(memoryview(data)[self._upto - at :])
            self._upto = at + len(data)
        return data

    read1 = read

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move in the source."""
        return self._source.seek(offset, whence)

    def tell(self) -> int:
        """Return the position in the source, in bytes."""
        return self._source.tell()

    def hexdigest(self) -> str:
        """Return the SHA-256 of the whole source; reads what nobody has read."""
        self.seek(self._upto)
        while self.read(_READ_BYTES):
            pass
        return self._hashed.hexdigest()

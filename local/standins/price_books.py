"""Price books at the Infracost stand-in: created, filled, ingested in the background, read, deleted."""

from __future__ import annotations

import threading
import time
import uuid
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from werkzeug.wrappers import Response

from local.standins import price_file
from local.standins.paging import page
from local.standins.standin import Call, Refusal, answer, now
from local.standins.storage import BUCKET, Storage, StorageRefusal, Upload

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from local.standins.account import Account

_WAITING, _PROCESSING, _SUCCESS, _FAILED = "WAITING_FOR_UPLOAD", "PROCESSING", "SUCCESS", "FAILED"
_CREATED, _NO_CONTENT, _BAD_REQUEST, _NOT_FOUND, _CONFLICT = 201, 204, 400, 404, 409


@dataclass
class Slot:
    """A place for one file of a book."""

    enterprise: str
    book: str
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    created_at: str = field(default_factory=now)
    puts: int = 0
    """How many uploads were stored."""
    upload: Upload | None = None
    """The last one."""

    def shown(self) -> dict[str, Any]:
        """Give the slot as the API shows it."""
        return {
            "id": self.id,
            "createdAt": self.created_at,
            "updatedAt": self.created_at,
            "enterpriseId": self.enterprise,
            "priceBookId": self.book,
        }


@dataclass
class Book:
    """A price book."""

    enterprise: str
    provider: str
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    created_at: str = field(default_factory=now)
    updated_at: str = field(default_factory=now)
    status: str = _WAITING
    message: str = ""
    slots: list[Slot] = field(default_factory=list)
    ingested_s: float = 0
    """When the ingestion began, on the monotonic clock."""
    polls: int = 0
    """Reads since the ingestion began."""
    verdict: Future[str] = field(default_factory=Future)
    """What keeps the files from being ingested; empty when nothing does."""
    forced: tuple[str, str] | None = None
    """The final status and message on order, whatever the verdict."""

    @property
    def layout(self) -> price_file.Format:
        """The format that the book's files must have."""
        return price_file.FORMATS[self.provider]

    def shown(self) -> dict[str, Any]:
        """Give the book as the API shows it."""
        return {
            "id": self.id,
            "enterpriseId": self.enterprise,
            "createdAt": self.created_at,
            "updatedAt": self.updated_at,
            "provider": self.provider,
            "status": self.status,
            "statusMessage": self.message,
            "sourceFiles": [slot.shown() for slot in self.slots],
        }

    def end(self, status: str, message: str) -> None:
        """Take the final status."""
        self.status, self.message, self.updated_at = status, message, now()


class PriceBooks:
    """The price books' operations, the uploads among them.

    Args:
        account: Whose books.
        storage: Where the files go.
        lock: Held by whoever reads or changes the stand-in's state.
    """

    def __init__(self, account: Account, storage: Storage, lock: AbstractContextManager[Any]) -> None:
        self._account = account
        self._storage = storage
        self._lock = lock
        self._books: dict[str, Book] = {}

    def handlers(self) -> dict[str, Callable[[Call], Response]]:
        """Give the handler of each operation."""
        return {
            "createPriceBook": self.create,
            "listPriceBooks": self.list,
            "getPriceBook": self.get,
            "deletePriceBook": self.delete,
            "createPriceBookFile": self.add_file,
            "ingestPriceBook": self.ingest,
            "uploadPriceBookFile": self.upload,
        }

    def forget(self) -> None:
        """Drop every book and its files."""
        for book in self._books.values():
            _remove_files(book)
        self._books = {}

    def held(self, key: str) -> Book | None:
        """Find a book, its status brought up to date."""
        book = self._books.get(key)
        if book is not None:
            self._settle(book)
        return book

    def uploaded(self, slot_id: str) -> Upload | None:
        """Find what was uploaded to a slot."""
        slot = self._slot(slot_id)
        return None if slot is None else slot.upload

    def holdings(self) -> list[dict[str, Any]]:
        """Give the books and their files, as `/_state` shows them."""
        for book in self._books.values():
            self._settle(book)
        return [
            book.shown() | {"files": [_file_holding(slot, book.layout) for slot in book.slots]}
            for book in self._books.values()
        ]

    # The operations.

    def create(self, call: Call) -> Response:
        """Create a book that waits for its files."""
        self._account.admit(call)
        book = Book(self._account.enterprise, call.body["provider"])
        self._books[book.id] = book
        return answer({"data": book.shown()}, _CREATED)

    def list(self, call: Call) -> Response:
        """List all books."""
        self._account.admit(call)
        for book in self._books.values():
            self._settle(book)
        return answer(page(call, [book.shown() for book in self._books.values()], self._account.config))

    def get(self, call: Call) -> Response:
        """Read a book; this is what moves it on when polls are counted."""
        book = self._find(call)
        book.polls += 1
        self._settle(book)
        return answer({"data": book.shown()})

    def delete(self, call: Call) -> Response:
        """Delete a book that no organization uses."""
        book = self._find(call)
        users = self._account.users_of(book.id)
        if users:
            raise Refusal(_CONFLICT, f"The price book is in use by the organization {', '.join(users)}.")
        _remove_files(self._books.pop(book.id))
        return Response(status=_NO_CONTENT)

    def add_file(self, call: Call) -> Response:
        """Make a slot, and an address to upload to."""
        book = self._find(call)
        if book.status != _WAITING:
            raise Refusal(_CONFLICT, f"The price book is {book.status}; it takes no more files.")
        slot = Slot(book.enterprise, book.id)
        book.slots.append(slot)
        book.updated_at = now()
        url = self._storage.presign(
            call.request.host_url.rstrip("/"),
            call.request.host,
            f"/{BUCKET}/{book.enterprise}/{book.id}/{slot.id}.csv",
            self._account.config.url_expiry_s,
        )
        return answer({"data": {"file": slot.shown(), "preSignedUrl": url}}, _CREATED)

    def ingest(self, call: Call) -> Response:
        """Start the ingestion, which reads the files in the background."""
        book = self._find(call)
        if book.status != _WAITING:
            raise Refusal(_CONFLICT, f"The price book is {book.status}; it cannot be ingested again.")
        if not book.slots:
            raise Refusal(_BAD_REQUEST, "The price book has no files.")
        book.status, book.updated_at, book.ingested_s = _PROCESSING, now(), time.monotonic()
        config = self._account.config
        if config.final_status is not None:
            book.forced = (config.final_status, config.status_message)
            self._account.config = config.model_copy(update={"final_status": None, "status_message": ""})
        files = [(slot.id, slot.upload) for slot in book.slots]
        threading.Thread(target=_judge, args=(book, files), name="ingestion", daemon=True).start()
        return answer({"data": book.shown()})

    def upload(self, call: Call) -> Response:
        """Take in a file at a pre-signed address; without the lock, for it may take long."""
        try:
            self._storage.check(call.request)
            self._check_slot(call)
            upload = self._storage.take(call.request.stream)
        except StorageRefusal as refusal:
            return refusal.response(call.request_id)
        with self._lock:
            slot = self._slot(call.parameters["fileId"])
            former = upload if slot is None else slot.upload
            if slot is not None:
                slot.upload = upload
                slot.puts += 1
        if former is not None:  # replaced; or the book was deleted while its file came in
            former.path.unlink(missing_ok=True)
        headers = {"x-amz-request-id": call.request_id, "ETag": f'"{upload.sha256[:32]}"'}
        return Response(b"", 200, headers, content_type="application/xml")

    # What they stand on.

    def _find(self, call: Call) -> Book:
        self._account.admit(call)
        book = self.held(call.parameters["priceBookId"])
        if book is None:
            raise Refusal(_NOT_FOUND, "The price book does not exist.")
        return book

    def _check_slot(self, call: Call) -> None:
        slot = self._slot(call.parameters["fileId"])
        if slot is None:
            raise StorageRefusal(_NOT_FOUND, "NoSuchKey", "The specified key does not exist.")

    def _slot(self, slot_id: str) -> Slot | None:
        with self._lock:
            return next((slot for book in self._books.values() for slot in book.slots if slot.id == slot_id), None)

    def _settle(self, book: Book) -> None:
        """Give a book its final status once that is due."""
        config = self._account.config
        if book.status != _PROCESSING or config.never_finish:
            return
        if config.polls_needed is None:
            if time.monotonic() < book.ingested_s + config.process_s or not book.verdict.done():
                return
        elif book.polls < config.polls_needed:
            return
        problem = book.verdict.result()  # waits only when polls are counted, so that their number is exact
        if book.forced is not None:
            book.end(*book.forced)
        elif problem:
            book.end(_FAILED, problem)
        else:
            book.end(_SUCCESS, "")


def _judge(book: Book, files: list[tuple[str, Upload | None]]) -> None:
    """Read a book's files to the first problem."""
    try:
        problems = (_problem(key, upload, book.layout) for key, upload in files)
        book.verdict.set_result(next(filter(None, problems), ""))
    except BaseException as error:
        book.verdict.set_exception(error)
        raise


def _problem(key: str, upload: Upload | None, layout: price_file.Format) -> str:
    if upload is None:
        return f"File {key}: nothing was uploaded."
    if upload.header != layout.header:
        return f"File {key}: The first line is not the expected header."
    if upload.carriage_returns:
        return f"File {key}: The line ends are not LF."
    problem = price_file.problem(upload.path, layout)
    return problem and f"File {key}: {problem}"


def _file_holding(slot: Slot, layout: price_file.Format) -> dict[str, Any]:
    upload = slot.upload
    return {
        "id": slot.id,
        "puts": slot.puts,
        "bytes": upload and upload.size_bytes,
        "rows": upload and upload.rows,
        "sha256": upload and upload.sha256,
        "header_ok": upload and upload.header == layout.header,
    }


def _remove_files(book: Book) -> None:
    for slot in book.slots:
        if slot.upload is not None:
            slot.upload.path.unlink(missing_ok=True)

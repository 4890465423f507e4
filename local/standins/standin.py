"""What the stand-ins of all vendors have in common: routing, the document's law, faults, the record of calls, control.

A vendor's stand-in gives its document and one handler per operation. Under `/_` lies what is ours, for tests and us:

* `GET /_state`: what the vendor holds, every call, and every breach of the document;
* `POST /_reset`: as if just started;
* `GET` and `POST /_config`: behaviour;
* `GET`, `POST` and `DELETE /_faults`: what goes wrong next.
"""

from __future__ import annotations

import json
import signal
import threading
import traceback
import uuid
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Self

from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Request, Response

from local.standins import faults
from local.standins.serving import ClientBrokeOff, Dropped, LoopbackServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import TracebackType
    from wsgiref.types import StartResponse, WSGIEnvironment

    from local.standins.document import Document, Operation

_BAD = HTTPStatus.BAD_REQUEST
_HTML = "<!DOCTYPE html><html><head><title>{0}</title></head><body><center><h1>{0}</h1></center></body></html>"


def now() -> str:
    """The time, as the vendors write it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Refusal(Exception):
    """Raised by a handler to answer with an error.

    Args:
        status: The answer's status.
        detail: What is wrong.
        pointer: JSON pointer to the part of the body that is wrong, if one is.
    """

    def __init__(self, status: int, detail: str, pointer: str = "") -> None:
        super().__init__(detail)
        self.status = status
        self.details = [(detail, pointer)]


@dataclass(frozen=True)
class Call:
    """One call of an operation, its request obeying the document."""

    operation: Operation
    parameters: dict[str, str]
    """The path's parameters."""
    request: Request
    body: Any
    """The decoded JSON body; None when there is none."""
    request_id: str


@dataclass
class CallRecord:
    """A call as `/_state` shows it; no header, no query, no body."""

    operation: str | None
    method: str
    path_template: str | None
    path: str
    time: str
    request_id: str
    status: int | None = None
    """What was answered, or would have been; None while under way, and for a call dropped before it acted."""
    fault: str | None = None
    """The kind of fault that struck this call, or `client_broke_off`."""


def answer(body: object, status: int = 200) -> Response:
    """Answer with JSON."""
    return Response(json.dumps(body), status=status, content_type="application/json")


class StandIn(ABC):
    """A vendor's server on loopback, to be used as a context manager or with `start` and `stop`.

    Args:
        document: The API's document.
        port: The port, or 0 for a free one.
    """

    streamed: frozenset[str] = frozenset()
    """Operations that read and check their request themselves: it is too large to hold, or no part of the API."""

    def __init__(self, document: Document, port: int = 0) -> None:
        self.document = document
        self.lock = threading.RLock()
        self.faults = faults.FaultPlan(frozenset(document.operations))
        self._calls: list[CallRecord] = []
        self._violations: list[dict[str, Any]] = []
        self._response_violations: list[dict[str, Any]] = []
        self._stopping = threading.Event()
        self._server = LoopbackServer(self, port)

    # What a vendor's stand-in says of itself.

    @abstractmethod
    def handlers(self) -> Mapping[str, Callable[[Call], Response]]:
        """Give the handler of each operation."""

    @abstractmethod
    def authorize(self, request: Request) -> None:
        """Raise a `Refusal` unless the credential is one that the vendor knows."""

    @abstractmethod
    def holdings(self) -> dict[str, Any]:
        """Give what the vendor now holds."""

    @abstractmethod
    def configure(self, wanted: object) -> None:
        """Change the behaviour; raise a `ValueError` when *wanted* is nonsense."""

    @abstractmethod
    def configuration(self) -> dict[str, Any]:
        """Give the behaviour in force, without secrets."""

    @abstractmethod
    def forget(self) -> None:
        """Return to what the vendor held at the start, and to the behaviour given then."""

    def control(self, request: Request) -> Response | None:
        """Answer a control address that only this vendor's stand-in has."""
        del request
        return None

    def decode(self, body: bytes) -> Any:  # noqa: ANN401 - whatever JSON holds
        """Decode a JSON body that obeys the document."""
        return json.loads(body)

    # Life.

    @property
    def url(self) -> str:
        """The address of the server, without the API's base path."""
        return self._server.url

    def start(self) -> None:
        """Begin to answer."""
        self._server.start()

    def stop(self) -> None:
        """Stop answering, and wake the calls that a fault delays."""
        self._stopping.set()
        self._server.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def reset(self) -> None:
        """Forget everything: holdings, calls, breaches and faults."""
        with self.lock:
            self._calls, self._violations, self._response_violations = [], [], []
            self.faults.clear()
            self.forget()

    def state(self) -> dict[str, Any]:
        """Give what `/_state` shows."""
        with self.lock:
            return {
                **self.holdings(),
                "calls": [asdict(call) for call in self._calls],
                "counts": dict(Counter(call.operation or "unknown" for call in self._calls)),
                "violations": list(self._violations),
                "response_violations": list(self._response_violations),
            }

    # One request.

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request (WSGI)."""
        # Control addresses answer below the API's base path too, for whoever was given only that.
        base, slash, control = environ.get("PATH_INFO", "").partition("/_")
        if slash and base == "/v1":
            environ["PATH_INFO"] = slash + control
        request = Request(environ)
        request_id = str(uuid.uuid4())
        response = self._control(request) if request.path.startswith("/_") else self._vendor(request, request_id)
        response.headers.setdefault("x-request-id", request_id)
        return response(environ, start_response)

    def _control(self, request: Request) -> Response:
        try:
            shown = self._controlled(request)
        except ValueError as error:
            return answer({"error": str(error)}, 400)
        return shown if isinstance(shown, Response) else answer(shown)

    def _controlled(self, request: Request) -> object:
        """Do what a control address says; give what it shows."""
        match request.method, request.path:
            case "GET", "/_state":
                return self.state()
            case "POST", "/_reset":
                self.reset()
                return self.configuration()
            case ("GET" | "POST") as method, "/_config":
                if method == "POST":
                    self.configure(json.loads(request.get_data()))
                return self.configuration()
            case ("GET" | "POST" | "DELETE") as method, "/_faults":
                if method == "POST":
                    self.faults.add(json.loads(request.get_data()))
                elif method == "DELETE":
                    self.faults.clear()
                return self.faults.remaining()
        return self.control(request) or answer({"error": "There is no such control address."}, 404)

    def _vendor(self, request: Request, request_id: str) -> Response:
        record = CallRecord(None, request.method, None, request.path, now(), request_id)
        with self.lock:
            self._calls.append(record)
        try:
            operation, parameters = self.document.match(request.method, request.path)
        except HTTPException as missing:
            record.status = missing.code or _BAD
            self._violate(record, f"{missing.name}: no operation {request.method} {request.path}")
            return self._refuse(Refusal(record.status, "There is no such operation."))
        record.operation, record.path_template = operation.id, operation.path
        return self._served(Call(operation, parameters, request, None, request_id), record)

    def _served(self, call: Call, record: CallRecord) -> Response:
        """Answer a call of an operation, or fail at it as a fault orders."""
        fault = self.faults.take(call.operation.id)
        record.fault = None if fault is None else fault.kind
        response = self._instead(fault, call.operation, call.request)
        if response is None:
            response = self._act(call, record)
            record.status = response.status_code
            return self._after(fault, response, record)
        record.status = response.status_code
        return response

    def _act(self, call: Call, record: CallRecord) -> Response:
        """Do as the vendor would."""
        body = b""
        try:
            if call.operation.id in self.streamed:
                return self.handlers()[call.operation.id](call)
            body = call.request.get_data()
            response = self._lawful(call, body, record)
            for breach in self.document.response_breaches(call.request, body, response):
                self._violate(record, breach, ours=True)
        except ClientBrokeOff:
            record.fault = "client_broke_off"
            raise
        except Exception:  # noqa: BLE001 - a bug of the stand-in: kept where tests look, and answered like a vendor's bug
            self._violate(record, traceback.format_exc(), ours=True)
            return self._refuse(Refusal(500, "The stand-in failed; see response_violations in its state."))
        return response

    def _lawful(self, call: Call, body: bytes, record: CallRecord) -> Response:
        """Answer a call after checking it against the document."""
        try:
            self.authorize(call.request)
            breaches = self.document.request_breaches(call.operation, call.request, body)
            if breaches:
                refusal = Refusal(_BAD, "")
                refusal.details = [(breach.detail, breach.pointer) for breach in breaches]
                for breach in breaches:
                    self._violate(record, breach.detail, breach.pointer)
                raise refusal
            decoded = self.decode(body) if body and call.request.mimetype == "application/json" else None
            with self.lock:
                return self.handlers()[call.operation.id](replace(call, body=decoded))
        except Refusal as refusal:
            return self._refuse(refusal)

    def _instead(self, fault: faults.Fault | None, operation: Operation, request: Request) -> Response | None:
        """Do what a fault does before the vendor acts; an answer means that it does not act at all."""
        match fault:
            case faults.Status(status=status, headers=headers, body=body, content_type=content_type):
                text = body if isinstance(body, str) else json.dumps(body)
                return Response(text, status, headers, content_type=content_type)
            case faults.Html(status=status, headers=headers):
                title = f"{status} {HTTPStatus(status).phrase}"
                return Response(_HTML.format(title), status, headers, content_type="text/html")
            case faults.Delay(seconds=seconds):
                if self._stopping.wait(seconds):
                    raise Dropped(reset=True)
            case faults.Reset():
                if operation.id not in self.streamed:  # a client that still writes would not see the reset as one
                    request.get_data()
                raise Dropped(reset=True)
            case faults.HalfRead():
                half = (request.content_length or 0) // 2
                while half > 0:
                    half -= len(request.stream.read(min(half, 1 << 20)))
                raise Dropped(reset=True)
        return None

    def _after(self, fault: faults.Fault | None, response: Response, record: CallRecord) -> Response:
        """Do what a fault does to the answer of a vendor that has acted."""
        match fault:
            case faults.LostAnswer():
                raise Dropped(reset=False)
            case faults.LostAnswerStatus(status=status):
                record.status = status
                return self._refuse(Refusal(status, "The vendor is in trouble."))
            case faults.Empty():
                response.set_data(b"")
            case faults.HalfBody():
                whole = response.get_data()
                torn = Response(_torn(whole), response.status_code, response.headers)
                torn.headers["Content-Length"] = str(len(whole))
                return torn
        return response

    def _refuse(self, refusal: Refusal) -> Response:
        """Answer with an error in the vendor's way; JSON:API's here."""
        errors = []
        for detail, pointer in refusal.details:
            error: dict[str, Any] = {
                "status": str(int(refusal.status)),
                "title": HTTPStatus(refusal.status).phrase,
                "detail": detail,
            }
            if pointer:
                error["source"] = {"pointer": pointer}
            errors.append(error)
        return answer({"errors": errors}, refusal.status)

    def _violate(self, record: CallRecord, detail: str, pointer: str = "", *, ours: bool = False) -> None:
        violation = {
            "operation": record.operation,
            "method": record.method,
            "path": record.path,
            "detail": detail,
            "pointer": pointer,
            "request_id": record.request_id,
        }
        with self.lock:
            (self._response_violations if ours else self._violations).append(violation)


def _torn(whole: bytes) -> Iterator[bytes]:
    """Half of an answer's body, and then nothing more."""
    yield whole[: len(whole) // 2]
    raise Dropped(reset=False)


def serve_until_told(standin: StandIn, **more: str) -> None:
    """Serve from a process of its own: print one line of JSON when ready, and end on SIGTERM or SIGINT."""
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # before any thread starts, so that all of them leave these to us
    with standin:
        print(json.dumps({"url": standin.url, **more}), flush=True)
        signal.sigwait(ends)

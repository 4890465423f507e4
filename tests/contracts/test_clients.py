"""Every operation of every document has its method; every call keeps its document, and ends as it should.

One call after the other is made over the real wire against the strict stand-ins, once as it should go and once under
each fault and each error that the document has.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest
from finops_relay.cloudzero.client import CloudZero
from finops_relay.errors import (
    AnswerNotUnderstood,
    BodyTooLarge,
    Conflict,
    CredentialRefused,
    Expired,
    NotFound,
    OutcomeUnknown,
    RateLimited,
    RequestRefused,
    UploadRefused,
    VendorError,
    VendorUnavailable,
)
from finops_relay.http.client import Timeouts
from finops_relay.http.retry import RetryPolicy
from finops_relay.http.wire import new_wire
from finops_relay.infracost.client import Infracost

from local.standins.cloudzero import KEY
from local.standins.infracost import TOKEN
from local.standins.standin import StandIn
from tests.world.clients import DOCUMENTS, Calling, Document, Made

CASES = [(document, calling) for document in DOCUMENTS for calling in document.calls]
every_call = pytest.mark.parametrize(
    ("document", "calling"), CASES, ids=[f"{document.name}-{calling.operation}" for document, calling in CASES]
)
OWN_ERRORS: dict[int, type[VendorError]] = {
    400: RequestRefused,
    401: CredentialRefused,
    403: CredentialRefused,
    404: NotFound,
    409: Conflict,
    410: Expired,
    413: BodyTooLarge,
    429: RateLimited,
    503: RateLimited,
}
UPLOAD = "uploadPriceBookFile"


@pytest.fixture(scope="module")
def wire() -> Iterator[httpx.Client]:
    with new_wire() as made:
        yield made


@pytest.fixture(scope="module")
def vendors() -> Iterator[dict[str, StandIn]]:
    running = {document.name: document.standin() for document in DOCUMENTS}
    for vendor in running.values():
        vendor.start()
    yield running
    for vendor in running.values():
        vendor.stop()


@dataclass
class Scene:
    """One call, about to be made against a vendor that holds just what it needs."""

    vendor: StandIn
    client: Infracost | CloudZero
    made: Made
    calling: Calling

    def under(self, fault: dict[str, Any], times: int = 1) -> None:
        """Let the next calls of the operation go wrong."""
        self.vendor.faults.add([{"operation": self.calling.operation, "times": times, "fault": fault}])

    def go(self) -> object:
        """Make the call."""
        return self.calling.do(self.client, self.made)

    @property
    def count(self) -> int:
        """How often the vendor saw the operation; every request and answer has kept the document."""
        state = self.vendor.state()
        assert state["violations"] == []
        assert state["response_violations"] == []
        return int(state["counts"].get(self.calling.operation, 0))

    def fails(self) -> VendorError:
        """Make the call, which fails, and return how; no secret is told."""
        with pytest.raises(VendorError) as caught:
            self.go()
        for text in (str(caught.value), repr(caught.value), repr(self.client)):
            assert TOKEN not in text
            assert KEY not in text
        return caught.value


def staged(vendor: StandIn, document: Document, calling: Calling, client: Infracost | CloudZero) -> Scene:
    """Return the scene, everything that the call needs made."""
    vendor.reset()
    made = Made(client, document.makers)
    for need in calling.needs:
        getattr(made, need)
    seen = vendor.state()["counts"].get(calling.operation, 0)
    assert seen == 0, "what the call needs is made by other operations"
    return Scene(vendor, client, made, calling)


@pytest.fixture
def scene(vendors: dict[str, StandIn], wire: httpx.Client, document: Document, calling: Calling) -> Scene:
    vendor = vendors[document.name]
    return staged(vendor, document, calling, document.client(vendor, wire))


# --- documents and methods --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_every_operation_of_a_document_has_a_client_method_and_the_reverse(
    vendors: dict[str, StandIn], document: Document
) -> None:
    assert {calling.operation for calling in document.calls} == set(vendors[document.name].document.operations)
    public = {name for name, held in vars(document.interface).items() if callable(held) and not name.startswith("_")}
    classmethods = {name for name, held in vars(document.interface).items() if isinstance(held, classmethod)}
    methods = (public | classmethods) - {"_lacks", "_refuse_lacking", "_send"}
    assert {calling.method for calling in document.calls} == methods - document.beside
    assert len({calling.operation for calling in document.calls}) == len(document.calls)


@every_call
def test_a_call_is_valid_under_its_document_and_is_one_request(scene: Scene) -> None:
    scene.go()
    assert scene.count == 1


@every_call
def test_a_methods_docstring_says_whether_it_is_safe_to_repeat(document: Document, calling: Calling) -> None:
    said = (getattr(document.interface, calling.method).__doc__ or "").replace("\n", " ")
    if calling.method == "create_billing_drop":  # it depends on the operation, and the docstring says so for both
        assert "UNSAFE for ``sum``" in said
        assert "Safe for the two" in said
        return
    assert ("Safe" in said) == calling.safe
    assert ("NOT safe" in said or "UNSAFE" in said) != calling.safe


# --- errors that the documents have -----------------------------------------------------------------------------------


def _documented() -> Iterator[tuple[Document, Calling, int]]:
    for document in DOCUMENTS:
        with document.standin() as vendor:
            operations = {
                operation["operationId"]: operation
                for path in vendor.document.content["paths"].values()
                for method, operation in path.items()
                if method in {"get", "put", "post", "patch", "delete"}
            }
        for calling in document.calls:
            for code in operations[calling.operation]["responses"]:
                if not code.startswith("2"):
                    yield document, calling, 500 if code == "5XX" else int(code)


DOCUMENTED = list(_documented())


@pytest.mark.parametrize(
    ("document", "calling", "status"),
    DOCUMENTED,
    ids=[f"{document.name}-{calling.operation}-{status}" for document, calling, status in DOCUMENTED],
)
def test_every_documented_error_reaches_the_caller_as_its_own(scene: Scene, calling: Calling, status: int) -> None:
    said = {"errors": [{"detail": "It is blue", "source": {"pointer": "/data/colour"}}]}
    scene.under({"kind": "status", "status": status, "body": said, "headers": {"x-request-id": "req-7"}}, times=9)
    error = scene.fails()
    expected = OWN_ERRORS.get(status, VendorUnavailable if calling.safe else OutcomeUnknown)
    if calling.operation == UPLOAD and status < 500:
        expected = UploadRefused
    assert type(error) is expected
    assert (error.call.status, error.call.request_id) == (status, "req-7")
    assert "It is blue (at /data/colour)" in str(error)
    retried = expected is RateLimited or expected is VendorUnavailable
    assert scene.count == (2 if retried else 1)


# --- faults -----------------------------------------------------------------------------------------------------------

PAST = format_datetime(datetime.now(UTC) - timedelta(minutes=5), usegmt=True)
BUSY = [
    pytest.param({"kind": "status", "status": 429, "headers": {"Retry-After": "0"}}, id="429-seconds"),
    pytest.param({"kind": "status", "status": 429, "headers": {"Retry-After": PAST}}, id="429-date"),
    pytest.param({"kind": "status", "status": 429}, id="429-bare"),
    pytest.param({"kind": "status", "status": 503, "headers": {"Retry-After": "0"}}, id="503-seconds"),
    pytest.param({"kind": "html", "status": 503}, id="503-html"),
]


@every_call
@pytest.mark.parametrize("fault", BUSY)
def test_a_call_is_made_again_after_the_wait_that_a_busy_vendor_named(scene: Scene, fault: dict[str, Any]) -> None:
    scene.under(fault)
    scene.go()
    assert scene.count == 2


@every_call
@pytest.mark.parametrize("form", ["seconds", "date"])
@pytest.mark.parametrize("status", [429, 503])
def test_a_long_wait_is_left_to_the_caller(scene: Scene, status: int, form: str) -> None:
    in_an_hour = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    named = "3600" if form == "seconds" else in_an_hour
    scene.under({"kind": "status", "status": status, "headers": {"Retry-After": named}})
    error = scene.fails()
    assert type(error) is RateLimited
    assert error.retry_after_s == pytest.approx(3600, abs=60)
    assert scene.count == 1


REFUSED_TO_SAY = [
    pytest.param({"kind": "status", "status": 500}, id="500"),
    pytest.param({"kind": "html", "status": 502}, id="502-html"),
    pytest.param({"kind": "status", "status": 504, "body": "<h1>Gateway Timeout</h1>"}, id="504"),
    pytest.param({"kind": "reset"}, id="reset"),
]


@every_call
@pytest.mark.parametrize("fault", REFUSED_TO_SAY)
def test_after_trouble_a_safe_call_recovers_and_an_unsafe_one_is_made_once(
    scene: Scene, calling: Calling, fault: dict[str, Any]
) -> None:
    scene.under(fault)
    if calling.safe and not (calling.alone and fault.get("status") != 500):
        scene.go()
        assert scene.count == 2
    else:
        assert type(scene.fails()) is (VendorUnavailable if calling.safe and "status" in fault else OutcomeUnknown)
        assert scene.count == 1


ACTED = [
    pytest.param({"kind": "lost_answer"}, id="lost-answer"),
    pytest.param({"kind": "lost_answer_status", "status": 502}, id="lost-answer-502"),
]


@every_call
@pytest.mark.parametrize("fault", ACTED)
def test_after_a_lost_answer_an_unsafe_call_was_made_exactly_once(
    scene: Scene, calling: Calling, fault: dict[str, Any]
) -> None:
    scene.under(fault)
    if not calling.safe:
        error = scene.fails()
        assert type(error) is OutcomeUnknown
        assert "may have been acted on" in str(error)
        assert scene.count == 1
    elif calling.alone:
        assert isinstance(scene.fails(), OutcomeUnknown | VendorUnavailable)
        assert scene.count == 1
    elif calling.gone and not (calling.replayed and fault["kind"] == "lost_answer"):
        assert type(scene.fails()) is NotFound
        assert scene.count == 2
    else:
        scene.go()
        assert scene.count == 2


SAYING = [(document, calling) for document, calling in CASES if calling.says]


@pytest.mark.parametrize(
    ("document", "calling"), SAYING, ids=[f"{document.name}-{calling.operation}" for document, calling in SAYING]
)
def test_half_an_answer_is_no_answer(scene: Scene, calling: Calling) -> None:
    scene.under({"kind": "half_body"})
    if calling.safe and not calling.alone:
        scene.go()
        assert scene.count == 2
    else:
        assert type(scene.fails()) is OutcomeUnknown
        assert scene.count == 1


@every_call
def test_an_empty_answer_is_not_taken_for_one(scene: Scene, calling: Calling) -> None:
    scene.under({"kind": "empty"})
    if calling.reads:
        assert type(scene.fails()) is AnswerNotUnderstood
    else:
        scene.go()  # its contract promises no body
    assert scene.count == 1


@every_call
def test_a_page_of_html_is_not_taken_for_the_vendors_answer(scene: Scene, calling: Calling) -> None:
    scene.under({"kind": "html", "status": 200})
    error = scene.fails()
    assert type(error) is (AnswerNotUnderstood if calling.safe else OutcomeUnknown)
    assert "HTML" in str(error)
    assert scene.count == 1


@every_call
def test_after_a_time_out_a_safe_call_recovers_and_an_unsafe_one_is_made_once(
    wire: httpx.Client, document: Document, calling: Calling
) -> None:
    retry = RetryPolicy(attempts=9, base_s=0.2, cap_s=0.2, budget_s=9)
    with document.standin() as vendor:
        client = document.client(vendor, wire, retry, Timeouts(connect_s=2, read_s=0.15, total_s=4))
        scene = staged(vendor, document, calling, client)
        scene.under({"kind": "delay", "seconds": 0.3})
        if calling.safe and not (calling.gone or calling.alone):
            scene.go()
            assert scene.count >= 2
        elif calling.safe and not calling.alone:
            with contextlib.suppress(NotFound):  # whichever of the two arrives first deletes
                scene.go()
            assert scene.count >= 2
        else:
            assert type(scene.fails()) is OutcomeUnknown
            assert scene.count == 1

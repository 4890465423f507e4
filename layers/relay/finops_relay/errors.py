"""The error tree. Every class completes the sentence "raised when".

RelayError                      anything of ours goes wrong
├── InputRefused                what somebody dropped cannot be delivered, and no retry will change that
│   └── ConfigRefused           relay.yaml or the template parameters contradict themselves
├── SourceGone                  an object, or the pinned version of it, is no longer there
├── SourceForbidden             we may not read an object
├── SourceChanged               an object without versions was overwritten after its event
├── ShortRead                   a stream ended before the length that its store announced
├── LedgerConflict              somebody else saved the same item in between
├── Wait                        the next step has to wait; not a failure
├── NotInContract               the tenant's contract with its vendor has no such call or field; nothing was sent
└── VendorError                 a vendor's API did not do what was asked
    ├── VendorUnreachable       no answer came, and the request cannot have been acted on (DNS, TLS, refused)
    ├── OutcomeUnknown          no answer came, or a 5xx to a call that is unsafe to repeat: it may have been acted on
    ├── VendorUnavailable       the vendor answered 5xx to a call that is safe to repeat
    ├── RateLimited             the vendor answered 429, or 503 "slow down"
    ├── CredentialRefused       the vendor answered 401 or 403, also with a freshly read secret, or there is no secret
    ├── NotFound                the vendor answered 404
    ├── BodyTooLarge            the vendor answered 413
    ├── RequestRefused          the vendor answered another 4xx
    │   ├── Conflict            409: the present state of the thing does not allow it
    │   └── Expired             410: what was asked for was kept for a while, and is gone
    ├── UploadRefused           a pre-signed upload address was refused (expired, mismatched)
    ├── AnswerNotUnderstood     the vendor answered 2xx with a body that is not what its contract says
    └── ChangeNotKept           the vendor accepted a change, and shows something else when it is read again
"""

from __future__ import annotations

from dataclasses import dataclass


class RelayError(Exception):
    """Anything of ours goes wrong."""

    retryable: bool = False
    """True when the same call may succeed later without anybody mending anything."""


class InputRefused(RelayError):
    """What somebody dropped cannot be delivered, and no retry will change that.

    Args:
        reason: what is wrong, in one sentence without a full stop.
        file: the decoded key, with ``!member`` appended for a member of an archive.
        line: 1-based physical line in the decoded file, where there is one.
        value: the offending value, shortened to 120 characters.
        fix: what the person should do next.
    """

    def __init__(self, reason: str, *, file: str = "", line: int | None = None, value: str = "", fix: str = "") -> None:
        self.reason = reason
        self.file = file
        self.line = line
        self.value = value if len(value) <= 120 else value[:117] + "..."  # noqa: PLR2004 -- stated in the docstring
        self.fix = fix
        where = f"{file}:{line}" if line is not None else file
        parts = [f"{where}: {reason}" if where else reason]
        if value:
            parts.append(f"got {self.value!r}")
        if fix:
            parts.append(f"fix: {fix}")
        super().__init__("; ".join(parts))


class ConfigRefused(InputRefused):
    """relay.yaml or the template parameters contradict themselves."""


class SourceGone(RelayError):
    """An object, or the pinned version of it, is no longer there."""


class SourceForbidden(RelayError):
    """We may not read an object."""

    retryable = True


class SourceChanged(RelayError):
    """An object without versions was overwritten after its event."""


class ShortRead(RelayError):
    """A stream ended before the length that its store announced."""

    retryable = True


class LedgerConflict(RelayError):
    """Somebody else saved the same item in between."""

    retryable = True


class Wait(RelayError):
    """The next step has to wait; not a failure.

    Args:
        seconds: how long, at most 12 hours (the ceiling of SQS).
        why: shown in the receipt while waiting.
        group: the FIFO group that its message is sent afresh to, should that be needed; empty for the one it has.
    """

    retryable = True

    def __init__(self, seconds: float, why: str, group: str = "") -> None:
        self.seconds = seconds
        self.why = why
        self.group = group
        super().__init__(f"waits {seconds:.0f} s: {why}")


class NotInContract(RelayError):
    """The tenant's contract with its vendor has no such call or field; nothing was sent."""


@dataclass(frozen=True)
class Call:
    """The facts about one request that every vendor error carries; nothing in it is secret."""

    method: str
    path: str
    """Path template, without host, query or identifiers of secrets."""
    status: int | None = None
    request_id: str = ""
    """The vendor's own id of the request, empty when it sent none."""
    detail: str = ""
    """What the vendor said, redacted and shortened."""
    sent_bytes: int = 0
    """Size of the request's body."""


class VendorError(RelayError):
    """A vendor's API did not do what was asked."""

    def __init__(self, message: str, call: Call, *, retry_after_s: float | None = None) -> None:
        self.reason = message
        self.call = call
        self.retry_after_s = retry_after_s
        status = f" answered {call.status}" if call.status is not None else ""
        request_id = f" (request id {call.request_id})" if call.request_id else ""
        super().__init__(f"{call.method} {call.path}{status}: {message}{request_id}")


class VendorUnreachable(VendorError):
    """No answer came, and the request cannot have been acted on (DNS, TLS, refused)."""

    retryable = True


class OutcomeUnknown(VendorError):
    """No answer came, or a 5xx to a call that is unsafe to repeat: it may have been acted on."""

    retryable = True


class VendorUnavailable(VendorError):
    """The vendor answered 5xx to a call that is safe to repeat."""

    retryable = True


class RateLimited(VendorError):
    """The vendor answered 429, or 503 "slow down"."""

    retryable = True


class CredentialRefused(VendorError):
    """The vendor answered 401 or 403, also with a freshly read secret, or there is no secret."""

    retryable = True


class NotFound(VendorError):
    """The vendor answered 404."""


class BodyTooLarge(VendorError):
    """The vendor answered 413."""


class RequestRefused(VendorError):
    """The vendor answered another 4xx."""


class Conflict(RequestRefused):
    """The vendor answered 409: the present state of the thing does not allow it."""


class Expired(RequestRefused):
    """The vendor answered 410: what was asked for was kept for a while, and is gone."""


class UploadRefused(VendorError):
    """A pre-signed upload address was refused (expired, mismatched)."""


class AnswerNotUnderstood(VendorError):
    """The vendor answered 2xx with a body that is not what its contract says."""

    retryable = True


class ChangeNotKept(VendorError):
    """The vendor accepted a change, and shows something else when it is read again."""

    retryable = True

"""The object storage behind pre-signed upload addresses; it answers as Amazon S3 does, in XML."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode
from xml.sax.saxutils import escape

from werkzeug.wrappers import Response

if TYPE_CHECKING:
    from typing import IO

    from werkzeug.wrappers import Request

BUCKET = "infracost-prod-price-books"
CONTENT_TYPE = "text/csv"
_ALGORITHM = "AWS4-HMAC-SHA256"
_SIGNED_HEADERS = "content-type;host"
_TIME = "%Y%m%dT%H%M%SZ"
_CHUNK_BYTES = 1 << 20
_HEADER_LIMIT_BYTES = 4096


class StorageRefusal(Exception):
    """Raised to answer with an XML error."""

    def __init__(self, status: int, code: str, message: str, **more: str) -> None:
        super().__init__(message)
        self.status = status
        self.fields = {"Code": code, "Message": message, **more}

    def response(self, request_id: str) -> Response:
        """Give the error in S3's XML."""
        fields = "".join(
            f"<{name}>{escape(text)}</{name}>" for name, text in {**self.fields, "RequestId": request_id}.items()
        )
        xml = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{fields}</Error>'
        headers = {"x-amz-request-id": request_id, "Connection": "close"}  # S3 does so too, after an error
        return Response(xml, self.status, headers, content_type="application/xml")


@dataclass(frozen=True)
class Upload:
    """A whole upload, and what was seen of it while it went by."""

    path: Path
    size_bytes: int
    sha256: str
    rows: int
    """Lines outside quotes, less the header."""
    header: bytes
    """The first line, with its end; cut when it is absurdly long."""
    carriage_returns: bool
    """Whether a line outside quotes ends in CRLF, or holds a CR."""


class Storage:
    """Signs upload addresses, and takes in what comes to them.

    Args:
        folder: Where the uploads are kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = secrets.token_bytes(32)

    def presign(self, address: str, host: str, path: str, expiry_s: int) -> str:
        """Make an address that takes one PUT of `text/csv` until it expires.

        Args:
            address: The storage's scheme and host.
            host: The Host header with which a client will come.
            path: The object's path.
            expiry_s: For how long it can be used, in seconds.
        """
        signed_at = datetime.now(UTC).strftime(_TIME)
        query = {
            "X-Amz-Algorithm": _ALGORITHM,
            "X-Amz-Credential": f"STANDIN/{signed_at[:8]}/us-east-2/s3/aws4_request",
            "X-Amz-Date": signed_at,
            "X-Amz-Expires": str(expiry_s),
            "X-Amz-SignedHeaders": _SIGNED_HEADERS,
        }
        query["X-Amz-Signature"] = self._signature(path, query, CONTENT_TYPE, host)
        return f"{address}{path}?{urlencode(query, quote_via=quote)}"

    def _signature(self, path: str, query: dict[str, str], content_type: str, host: str) -> str:
        rest = sorted((name, text) for name, text in query.items() if name != "X-Amz-Signature")
        signed = "\n".join(["PUT", path, urlencode(rest), f"content-type:{content_type}", f"host:{host}"])
        return hmac.new(self._key, signed.encode(), hashlib.sha256).hexdigest()

    def check(self, request: Request) -> None:
        """Refuse a PUT that S3 would refuse.

        Raises:
            StorageRefusal: What S3 would answer.
        """
        query = request.args.to_dict()
        if "Authorization" in request.headers:
            raise StorageRefusal(
                400,
                "InvalidArgument",
                "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string "
                "parameter or the Authorization header should be specified",
                ArgumentName="Authorization",
            )
        if "Transfer-Encoding" in request.headers:
            raise StorageRefusal(
                501,
                "NotImplemented",
                "A header you provided implies functionality that is not implemented",
                Header="Transfer-Encoding",
            )
        if request.content_length is None:
            raise StorageRefusal(411, "MissingContentLength", "You must provide the Content-Length HTTP header.")
        signature = query.get("X-Amz-Signature")
        if signature is None:
            raise StorageRefusal(403, "AccessDenied", "Access Denied")
        self._check_expiry(query)
        expected = self._signature(request.path, query, request.headers.get("Content-Type", ""), request.host)
        if not hmac.compare_digest(signature.encode(), expected.encode()) or len(query) != len(
            list(request.args.items(multi=True))
        ):
            raise StorageRefusal(
                403,
                "SignatureDoesNotMatch",
                "The request signature we calculated does not match the signature you provided. Check your key and "
                "signing method.",
            )

    @staticmethod
    def _check_expiry(query: dict[str, str]) -> None:
        try:
            signed_at = datetime.strptime(query["X-Amz-Date"], _TIME).replace(tzinfo=UTC)
            expires = signed_at + timedelta(seconds=int(query["X-Amz-Expires"]))
        except (KeyError, ValueError, OverflowError):
            raise StorageRefusal(
                400,
                "AuthorizationQueryParametersError",
                "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, "
                "X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters.",
            ) from None
        moment = datetime.now(UTC)
        if moment >= expires:
            raise StorageRefusal(
                403,
                "AccessDenied",
                "Request has expired",
                **{"X-Amz-Expires": query["X-Amz-Expires"]},
                Expires=expires.isoformat().replace("+00:00", "Z"),
                ServerTime=moment.isoformat(timespec="seconds").replace("+00:00", "Z"),
            )

    def take(self, body: IO[bytes]) -> Upload:
        """Store a body in constant memory.

        Raises:
            ClientBrokeOff: The body ended early; nothing is stored.
        """
        descriptor, name = tempfile.mkstemp(dir=self._folder, suffix=".csv")
        path = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                seen = _Seen()
                while chunk := body.read(_CHUNK_BYTES):
                    file.write(chunk)
                    seen.see(chunk)
        except BaseException:
            path.unlink()
            raise
        return seen.upload(path)


class _Seen:
    """What can be said of a file while its bytes go by."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._bytes = 0
        self._line_ends = 0
        self._quoted = False
        self._carriage_returns = False
        self._header = b""
        self._last = b""

    def see(self, chunk: bytes) -> None:
        self._digest.update(chunk)
        self._bytes += len(chunk)
        if not self._header.endswith(b"\n") and len(self._header) < _HEADER_LIMIT_BYTES:
            first, end, _ = chunk[:_HEADER_LIMIT_BYTES].partition(b"\n")
            self._header += first + end
        pieces = chunk.split(b'"')  # each quote mark turns quoting on or off; a doubled one does both
        outside = pieces[1::2] if self._quoted else pieces[::2]
        self._line_ends += sum(piece.count(b"\n") for piece in outside)
        self._carriage_returns = self._carriage_returns or any(b"\r" in piece for piece in outside)
        self._quoted ^= len(pieces) % 2 == 0
        self._last = chunk[-1:]

    def upload(self, path: Path) -> Upload:
        lines = self._line_ends + (self._last not in {b"", b"\n"})
        return Upload(
            path=path,
            size_bytes=self._bytes,
            sha256=self._digest.hexdigest(),
            rows=max(0, lines - 1),
            header=self._header,
            carriage_returns=self._carriage_returns,
        )

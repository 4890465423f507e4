"""CloudZero's documents, applied to the beginning of long lists only.

A drop of 5 MB has tens of thousands of rows, and a validator of JSON schemas takes seconds for them. So the document's
law is kept for small bodies as they are, and for large ones with every list cut to its first items: it then covers the
envelope, and rows of the body's kind. All rows, of small bodies and large, are checked by the operations themselves,
which know the same rules (`cloudzero_rows`, `cloudzero_telemetry`); what they refuse is answered with 400 and names the
row.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from werkzeug.datastructures import Headers
from werkzeug.wrappers import Response

from local.standins.document import Breach, Document

if TYPE_CHECKING:
    from werkzeug.wrappers import Request

    from local.standins.document import Operation

_WHOLE_BYTES = 50_000
"""A body up to this size is judged as it is."""
_ITEMS = 50
"""How many items of a list of a larger one are judged."""


class SampledDocument(Document):
    """A document that judges large bodies by the beginning of their lists."""

    def request_breaches(self, operation: Operation, request: Request, body: bytes) -> list[Breach]:
        """Say how a request breaks the document, as far as its lists are looked at."""
        return super().request_breaches(operation, request, _sample(body))

    def response_breaches(self, request: Request, body: bytes, response: Response) -> list[str]:
        """Say how an answer breaks the document, as far as its lists are looked at."""
        whole = response.get_data()
        sample = _sample(whole)
        if sample is not whole:
            response = Response(sample, response.status_code, Headers(response.headers))  # a copy: it sets a length
        return super().response_breaches(request, body, response)


def _sample(body: bytes) -> bytes:
    if len(body) <= _WHOLE_BYTES:
        return body
    try:
        return json.dumps(_cut(json.loads(body))).encode()
    except ValueError:  # the document says what is wrong with it
        return body


def _cut(value: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
    if isinstance(value, list):
        return [_cut(item) for item in value[:_ITEMS]]
    if isinstance(value, dict):
        return {name: _cut(member) for name, member in value.items()}
    return value

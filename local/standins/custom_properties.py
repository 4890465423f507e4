"""Custom properties at the Infracost stand-in: a CSV file an organization, taken whole, and never given back."""

from __future__ import annotations

import csv
import hashlib
import io
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from werkzeug.wrappers import Response

from local.standins.standin import Call, Refusal, now

if TYPE_CHECKING:
    from collections.abc import Callable

    from local.standins.account import Account

_NO_CONTENT, _BAD_REQUEST, _TOO_LARGE = 204, 400, 413


@dataclass(frozen=True)
class Upload:
    """A file, as it came."""

    bytes: int
    sha256: str
    rows: int
    """Rows under the header; blank lines do not count."""
    emptied: bool
    """Whether it left the organization without any properties."""
    time: str = field(default_factory=now)


class CustomProperties:
    """The custom properties' operation.

    Args:
        account: Whose properties.
    """

    def __init__(self, account: Account) -> None:
        self._account = account
        self._uploads: dict[str, list[Upload]] = {}
        self._texts: dict[str, str] = {}

    def handlers(self) -> dict[str, Callable[[Call], Response]]:
        """Give the handler of each operation."""
        return {"uploadCustomProperties": self.upload}

    def forget(self) -> None:
        """Drop every file."""
        self._uploads, self._texts = {}, {}

    def holdings(self) -> dict[str, dict[str, Any]]:
        """Give the last file and the history of each organization, as `/_state` shows them."""
        nothing: dict[str, Any] = {"bytes": 0, "sha256": None, "rows": 0, "emptied": False, "time": None}
        shown = {}
        for slug in self._account.slugs():
            uploads = [asdict(upload) for upload in self._uploads.get(slug, [])]
            shown[slug] = {**(uploads or [nothing])[-1], "text": self._texts.get(slug), "uploads": uploads}
        return shown

    def upload(self, call: Call) -> Response:
        """Take a file in place of the former."""
        slug = self._account.admit_to_organization(call, write=True).slug
        content = call.request.get_data()
        limit = self._account.config.properties_limit_bytes
        if len(content) > limit:
            raise Refusal(_TOO_LARGE, f"The file has {len(content)} bytes; {limit} are the limit.")
        try:
            text = content.decode()
        except UnicodeDecodeError:
            raise Refusal(_BAD_REQUEST, "The file is not UTF-8.") from None
        rows = _rows(text)
        self._uploads.setdefault(slug, []).append(
            Upload(len(content), hashlib.sha256(content).hexdigest(), rows, emptied=rows == 0)
        )
        self._texts[slug] = text
        return Response(status=_NO_CONTENT)


def _rows(text: str) -> int:
    """Count the rows under the header; none when the newlines were lost on the way, as everything is header then."""
    if "\n" not in text:
        return 0
    try:
        return max(0, sum(map(bool, csv.reader(io.StringIO(text, newline="")))) - 1)
    except csv.Error as error:
        raise Refusal(_BAD_REQUEST, f"The file is not valid CSV: {error}.") from None

"""A strict stand-in for Infracost Cloud: price books, organizations, tagging policies, guardrails, custom properties.

In process, for tests:

    with InfracostStandIn() as server:
        httpx.get(f"{server.api_url}/enterprises/{ENTERPRISE}/price-books", headers=...)

As a process: `python -m local.standins.infracost --port N --token T ...`; it prints a line of JSON with its address
when it is ready, and ends on SIGTERM.

An area of the API is a class with handlers by operationId; `docs/openapi/infracost.yaml` names the operations, and this
module brings the two together.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from werkzeug.wrappers import Response
from werkzeug.wsgi import FileWrapper

from local.standins.account import Account, Config, Organizations, Token
from local.standins.custom_properties import CustomProperties
from local.standins.document import Document
from local.standins.guardrails import Guardrails
from local.standins.policies import Policies
from local.standins.price_books import PriceBooks
from local.standins.standin import Call, StandIn, serve_until_told
from local.standins.storage import BUCKET, Storage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from werkzeug.wrappers import Request

DOCUMENT = "infracost.yaml"
ENTERPRISE = "e0000000-0000-4000-8000-000000000001"
PRIMARY_ORGANIZATION = "a0000000-0000-4000-8000-000000000001"
AWS_ORGANIZATION = "a0000000-0000-4000-8000-000000000002"
AZURE_ORGANIZATION = "a0000000-0000-4000-8000-000000000003"
TOKEN = "standin-service-account-token"  # noqa: S105 - made up, good at the stand-in only
ORGANIZATIONS = {AWS_ORGANIZATION: "AWS prices", AZURE_ORGANIZATION: "Azure prices"}

_MOUNTS = {
    "https://api.infracost.io": "",
    "https://infracost-prod-price-books.s3.us-east-2.amazonaws.com": f"/{BUCKET}",
}
_FILE_CHUNK_BYTES = 1 << 20


class InfracostStandIn(StandIn):
    """Infracost Cloud on loopback, with one enterprise.

    Args:
        tokens: Tokens that are known; strings are orgAdmins of the primary organization.
        enterprise: The enterprise's id.
        primary_organization: The id of the organization whose admins govern the enterprise.
        organizations: Name of each organization by id; the primary one is always there. The name makes the slug.
        policies: Tagging policies at the start, by organization's slug: the attributes of each, an `id` if it matters.
        guardrails: Guardrails at the start, likewise.
        port: The port, or 0 for a free one.
        **config: The behaviour at the start, as in `/_config`.
    """

    streamed = frozenset({"uploadPriceBookFile"})

    def __init__(  # noqa: PLR0913 - all by keyword: a test names those that it cares for
        self,
        *,
        tokens: Sequence[str | Token] = (TOKEN,),
        enterprise: str = ENTERPRISE,
        primary_organization: str = PRIMARY_ORGANIZATION,
        organizations: Mapping[str, str] = ORGANIZATIONS,
        policies: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
        guardrails: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
        port: int = 0,
        **config: Any,  # noqa: ANN401 - checked by Config
    ) -> None:
        # What may be refused comes before the server, which would stay behind.
        known = [Token(token=token) if isinstance(token, str) else token for token in tokens]
        self._account = Account(
            enterprise, primary_organization, organizations, Config.model_validate({"tokens": known, **config})
        )
        self._policies = Policies(self._account, policies or {})
        self._guardrails = Guardrails(self._account, guardrails or {})
        super().__init__(Document(DOCUMENT, _MOUNTS), port)
        self._folder = tempfile.TemporaryDirectory(prefix="infracost-standin-", ignore_cleanup_errors=True)
        self._books = PriceBooks(self._account, Storage(Path(self._folder.name)), self.lock)
        self._properties = CustomProperties(self._account)
        self._handlers = {
            **self._books.handlers(),
            **Organizations(self._account, self._books).handlers(),
            **self._policies.handlers(),
            **self._guardrails.handlers(),
            **self._properties.handlers(),
        }

    @property
    def api_url(self) -> str:
        """The API's base address."""
        return f"{self.url}/v1"

    def stop(self) -> None:
        """Stop answering, and remove the uploads."""
        super().stop()
        self._folder.cleanup()

    def handlers(self) -> Mapping[str, Callable[[Call], Response]]:
        """Give the handler of each operation."""
        return self._handlers

    def authorize(self, request: Request) -> None:
        """Let known tokens pass; what they may do, each operation says."""
        with self.lock:
            self._account.token(request)

    def holdings(self) -> dict[str, Any]:
        """Give what the enterprise and its organizations have; the latter's things by slug."""
        organizations = self._account.organizations.values()
        return {
            "price_books": self._books.holdings(),
            "organizations": [each.shown() | {"activations": list(each.activations)} for each in organizations],
            "tagging_policies": self._policies.holdings(),
            "guardrails": self._guardrails.holdings(),
            "custom_properties": self._properties.holdings(),
            "dangers": [*self._policies.dangers, *self._guardrails.dangers],
        }

    def configure(self, wanted: object) -> None:
        """Change what *wanted* names, and leave the rest."""
        if not isinstance(wanted, dict):
            raise ValueError("the configuration is an object")  # noqa: TRY004 - pydantic's errors are ValueErrors too
        with self.lock:
            former = self._account.config.model_dump()
            self._account.config = Config.model_validate(former | wanted)

    def configuration(self) -> dict[str, Any]:
        """Give the behaviour; of the tokens only their roles."""
        with self.lock:
            return self._account.config.model_dump(mode="json", exclude={"tokens": {"__all__": {"token"}}})

    def forget(self) -> None:
        """Return to the start."""
        self._books.forget()
        self._account.forget()
        self._policies.forget()
        self._guardrails.forget()
        self._properties.forget()

    def control(self, request: Request) -> Response | None:
        """Answer `GET /_files/{fileId}` with the uploaded bytes."""
        head, _, key = request.path.rpartition("/")
        if request.method != "GET" or head != "/_files":
            return None
        with self.lock:
            upload = self._books.uploaded(key)
            if upload is None:
                return None
            file = upload.path.open("rb")
        headers = {"Content-Length": str(upload.size_bytes)}
        return Response(
            FileWrapper(file, _FILE_CHUNK_BYTES), 200, headers, content_type="text/csv", direct_passthrough=True
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run as a process."""
    parser = argparse.ArgumentParser(prog="python -m local.standins.infracost", description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=0, help="0 (the default) takes a free one")
    parser.add_argument(
        "--token", action="append", help="an orgAdmin token of the primary organization; may be repeated"
    )
    parser.add_argument("--enterprise", default=ENTERPRISE, help="the enterprise's id")
    parser.add_argument("--primary-org", default=PRIMARY_ORGANIZATION, help="the id of its primary organization")
    parser.add_argument("--organization", action="append", metavar="ID:NAME", help="an organization; may be repeated")
    parser.add_argument("--process-s", type=float, default=0.3, help="how long an ingestion takes")
    parser.add_argument("--url-expiry-s", type=int, default=900, help="for how long an upload address can be used")
    given = parser.parse_args(arguments)
    named = [each.partition(":") for each in given.organization or []]
    standin = InfracostStandIn(
        tokens=given.token or (TOKEN,),
        enterprise=given.enterprise,
        primary_organization=given.primary_org,
        organizations={key: name or key for key, _, name in named} if named else ORGANIZATIONS,
        port=given.port,
        process_s=given.process_s,
        url_expiry_s=given.url_expiry_s,
    )
    serve_until_told(standin, api_url=standin.api_url)


if __name__ == "__main__":
    main()

"""An OpenAPI document of ours: the addresses that it names, and whether a request or an answer obeys it."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import yaml
from openapi_core import Config, OpenAPI
from openapi_core.datatypes import RequestParameters
from openapi_core.exceptions import OpenAPIError
from openapi_core.validation.schemas import oas31_schema_validators_factory
from openapi_core.validation.schemas.factories import DialectSchemaValidatorsFactory
from werkzeug.datastructures import Headers, ImmutableMultiDict
from werkzeug.routing import Map, Rule

if TYPE_CHECKING:
    from jsonschema_path import SchemaPath
    from openapi_core.validation.schemas.validators import SchemaValidator
    from werkzeug.wrappers import Request, Response

DOCUMENTS = Path(__file__).resolve().parents[2] / "docs" / "openapi"
_METHODS = ("get", "put", "post", "delete", "patch")


@dataclass(frozen=True)
class Operation:
    """One operation of a document."""

    id: str
    method: str
    path: str
    """The path template below the stand-in's address, such as `/v1/organizations/{organizationId}`."""
    parameters: frozenset[str]
    """Names of its query parameters."""
    has_body: bool


@dataclass(frozen=True)
class Breach:
    """One way in which a request breaks the document."""

    detail: str
    pointer: str = ""
    """JSON pointer into the body; empty when the fault is elsewhere."""


@dataclass
class _Asked:
    """A request in the shape that openapi-core reads, and completes with the path's parameters."""

    host_url: str
    path: str
    method: str
    body: bytes | None
    content_type: str
    parameters: RequestParameters


@dataclass(frozen=True)
class _Answered:
    """An answer in the shape that openapi-core reads."""

    status_code: int
    content_type: str
    headers: Headers
    data: bytes | None


class Document:
    """An OpenAPI document, loaded and checked.

    Args:
        name: The document's file name.
        mounts: Where each server (scheme and host) that the document names is found below the stand-in's address.
    """

    def __init__(self, name: str, mounts: dict[str, str]) -> None:
        self.content, self._api = _load(name)
        self._host = _origin(self.content["servers"][0]["url"])
        self.operations = {operation.id: operation for operation in self._read_operations(mounts)}
        self._map = Map(
            [
                Rule(_rule(operation.path), endpoint=operation.id, methods=[operation.method])
                for operation in self.operations.values()
            ],
            strict_slashes=True,
            merge_slashes=False,
            redirect_defaults=False,
        )

    def _read_operations(self, mounts: dict[str, str]) -> list[Operation]:
        found = []
        for template, item in self.content["paths"].items():
            server = item.get("servers", self.content["servers"])[0]["url"]
            base = mounts[_origin(server)] + urlsplit(server).path.rstrip("/")
            for method in _METHODS:
                if method not in item:
                    continue
                declared = item.get("parameters", []) + item[method].get("parameters", [])
                found.append(
                    Operation(
                        id=item[method]["operationId"],
                        method=method.upper(),
                        path=base + template,
                        parameters=frozenset(
                            part["name"] for part in map(self._resolve, declared) if part["in"] == "query"
                        ),
                        has_body="requestBody" in item[method],
                    )
                )
        return found

    def _resolve(self, part: dict[str, Any]) -> dict[str, Any]:
        """Follow a reference within the document."""
        reference = part.get("$ref")
        if reference is None:
            return part
        return functools.reduce(lambda node, key: node[key], reference.removeprefix("#/").split("/"), self.content)

    def match(self, method: str, path: str) -> tuple[Operation, dict[str, str]]:
        """Find the operation at an address.

        Raises:
            werkzeug.exceptions.HTTPException: There is none (404), or not with this method (405).
        """
        endpoint, parameters = self._map.bind("").match(path, method=method)
        return self.operations[endpoint], dict(parameters)

    def request_breaches(self, operation: Operation, request: Request, body: bytes) -> list[Breach]:
        """Say how a request breaks the document; nothing when it obeys."""
        breaches = [
            Breach(f"The query parameter {name!r} is not known.")
            for name in request.args
            if name not in operation.parameters
        ]
        if body and not operation.has_body:
            breaches.append(Breach("This operation takes no request body."))
        asked = self._asked(request, body)
        for error in self._api.iter_request_errors(asked):
            breaches += _breaches(error)
        return breaches

    def response_breaches(self, request: Request, body: bytes, response: Response) -> list[str]:
        """Say how an answer breaks the document; nothing when it obeys."""
        answered = _Answered(
            status_code=response.status_code,
            content_type=response.content_type or "",
            headers=response.headers,
            data=response.get_data() or None,
        )
        errors = self._api.iter_response_errors(self._asked(request, body), answered)
        return [breach.detail for error in errors for breach in _breaches(error)]

    def _asked(self, request: Request, body: bytes) -> _Asked:
        return _Asked(
            host_url=self._host,
            path=request.path,
            method=request.method.lower(),
            body=body or None,
            content_type=request.content_type or "application/octet-stream",
            parameters=RequestParameters(
                query=ImmutableMultiDict(request.args), header=Headers(request.headers), cookie=ImmutableMultiDict()
            ),
        )


class _Remembering(DialectSchemaValidatorsFactory):
    """Makes the validator of a schema once; openapi-core makes it anew for every value, which is most of its time."""

    def __init__(self) -> None:
        model = oas31_schema_validators_factory
        super().__init__(model.schema_validator_cls, model.default_jsonschema_dialect_id, model.format_checker)
        self._made: dict[tuple[SchemaPath, tuple[tuple[str, str], ...]], SchemaValidator] = {}

    def create(self, spec: SchemaPath, schema: SchemaPath, *args: Any, **how: Any) -> SchemaValidator:  # noqa: ANN401 - passed on
        """Give the validator of a schema, used in this way."""
        key = (schema, tuple(sorted((name, repr(value)) for name, value in how.items())))
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = super().create(spec, schema, *args, **how)
        return made


@functools.cache
def _load(name: str) -> tuple[dict[str, Any], OpenAPI]:
    """Load and check a document once for the process: it takes longer than starting a server."""
    content = yaml.safe_load((DOCUMENTS / name).read_text(encoding="utf-8"))
    # What a schema does not name is not part of the contract, in a request as in an answer.
    config = Config(additional_properties_default_policy="forbid", schema_validators_factory=_Remembering())
    return content, OpenAPI.from_dict(content, config=config)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _rule(template: str) -> str:
    return template.replace("{", "<").replace("}", ">")


def _breaches(error: Exception) -> list[Breach]:
    """Unfold openapi-core's error into what is wrong at which place."""
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    for cause in causes:
        details = getattr(cause, "schema_errors", None)
        if details:
            return [Breach(each.message, "".join(f"/{step}" for step in each.absolute_path)) for each in details]
    if not isinstance(error, OpenAPIError):
        raise error
    return [Breach(str(error))]

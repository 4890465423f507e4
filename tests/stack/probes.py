"""Functions made for a test: a handler's source, run in the stack with a role and layers of the template's."""

from __future__ import annotations

import contextlib
import io
import json
import textwrap
import zipfile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from local.stack import Stack

    Probe = Callable[[dict[str, Any]], Any]


@contextlib.contextmanager
def probe(stack: Stack, source: str, *, role_of: str, layers: bool = False) -> Iterator[Probe]:
    """Make a function of *source* with the role (and the layers) of the template's function *role_of*, for a while."""
    client = stack.client("lambda")
    model = client.get_function_configuration(FunctionName=stack.resources[role_of])
    client.create_function(
        FunctionName="probe",
        Runtime=model["Runtime"],
        Role=model["Role"],
        Handler="app.lambda_handler",
        Timeout=30,
        Layers=[layer["Arn"] for layer in model["Layers"]] if layers else [],
        Code={"ZipFile": _zipped(textwrap.dedent(source))},
    )

    def invoke(event: dict[str, Any]) -> Any:  # noqa: ANN401 - what the handler returns
        answer = client.invoke(FunctionName="probe", Payload=json.dumps(event))
        result = json.load(answer["Payload"])
        assert "FunctionError" not in answer, result
        return result

    try:
        yield invoke
    finally:
        client.delete_function(FunctionName="probe")


def _zipped(source: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("app.py", source)
    return buffer.getvalue()

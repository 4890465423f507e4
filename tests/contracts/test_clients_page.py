"""docs/clients.md is true: its examples run, and its tables are those of the documents."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import pytest

from local.standins.cloudzero import KEY, CloudZeroStandIn
from local.standins.infracost import ORGANIZATIONS, PRIMARY_ORGANIZATION, TOKEN, InfracostStandIn
from tests.world.clients import DOCUMENTS, PRICES, Document, table

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "clients.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
POLICY = {"name": "Apps", "tags": [{"key": "app_id", "valueType": "LIST", "mandatory": True, "allowedValues": ["old"]}]}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_the_page_has_a_row_for_each_operation_of_each_document(document: Document) -> None:
    assert table(document) in PAGE


@pytest.mark.parametrize("contract", ["openapi", "live"])
def test_every_example_of_the_page_runs(
    contract: Literal["openapi", "live"],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One after the other, as a reader would; only the vendors' addresses are the stand-ins'."""
    (tmp_path / "infracost.token").write_text(TOKEN + "\n")
    (tmp_path / "cloudzero.key").write_text(KEY)
    (tmp_path / "prices.csv").write_bytes(PRICES)
    monkeypatch.chdir(tmp_path)
    organizations = {PRIMARY_ORGANIZATION: "acme", **ORGANIZATIONS}
    with ExitStack() as running:
        infracost = running.enter_context(
            InfracostStandIn(organizations=organizations, policies={"acme": [POLICY]}, polls_needed=1)
        )
        cloudzero = running.enter_context(CloudZeroStandIn(contract))
        names: dict[str, Any] = {}
        running.callback(lambda: [names[name].close() for name in ("infracost", "cloudzero") if name in names])
        for number, example in enumerate(EXAMPLES, 1):
            code = example.replace("https://api.infracost.io/v1", infracost.api_url)
            code = code.replace("https://api.cloudzero.com", cloudzero.api_url)
            exec(compile(code, f"example {number} of clients.md", "exec"), names)  # noqa: S102 -- the page is ours
        for vendor in (infracost, cloudzero):
            state = vendor.state()
            assert state["violations"] == []
            assert state["response_violations"] == []
    said = capsys.readouterr().out
    assert "Check the organization's slug" in said
    assert contract in said
    assert TOKEN not in said
    assert KEY not in said

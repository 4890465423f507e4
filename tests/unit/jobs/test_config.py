"""relay.yaml: what may stand there, and how a bad one is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from finops_relay.delivery.defaults import Defaults
from finops_relay.errors import ConfigRefused
from finops_relay.jobs.config import MAX_CONFIG_BYTES, BillingRules, RelayConfig, effective, parse, schema_json
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[3]
ONE = "a0000000-0000-4000-8000-000000000002"
OTHER = "a0000000-0000-4000-8000-000000000003"
DEFAULTS = Defaults("e0000000-0000-4000-8000-000000000001", "acme", ONE, OTHER)
REGENERATE = (
    "PYTHONPATH=layers/relay .venv/bin/python -c "
    "'from finops_relay.jobs.config import schema_json; print(schema_json(), end=\"\")' > docs/relay.schema.json"
)


def refused(text: str | bytes) -> ConfigRefused:
    """Return why *text* is refused."""
    with pytest.raises(ConfigRefused) as caught:
        parse(text if isinstance(text, bytes) else text.encode())
    return caught.value


def test_the_published_schema_is_the_schema() -> None:
    assert (ROOT / "docs" / "relay.schema.json").read_text() == schema_json(), f"write it anew: {REGENERATE}"


def test_every_example_that_we_publish_is_good() -> None:
    examples = [*(ROOT / "docs" / "examples").glob("relay*.yaml"), ROOT / "local" / "relay.yaml"]
    for example in examples:
        assert parse(example.read_bytes()).version == 1


@pytest.mark.parametrize("text", ["", "\n", "# only words\n", "---\n", "{}", "version: 1", "\ufeffversion: 1\r\n"])
def test_nothing_said_is_the_default(text: str) -> None:
    config = parse(text.encode())
    assert config == RelayConfig()
    assert config.price_books.azure.price_types == ("Consumption",)
    assert config.price_books.max_rejected_share == 0.01
    assert config.price_books.keep_unused is None
    assert (config.billing.months_open, config.billing.overlap, config.billing.connections) == (1, "hold", {})


def test_everything_can_be_said() -> None:
    config = parse(
        f"""
version: 1
infracost:
  enterprise_id: {ONE}
  slug: acme-corp
price_books:
  max_rejected_share: 0
  keep_unused: 3
  aws:
    organizations: [{ONE}]
    activate: false
  azure:
    organizations: []
    price_types: all
    offers: [MS-AZR-0017P]
billing:
  months_open: 24
  overlap: replace
  connections:
    {ONE}: {{months_open: 0}}
    "0123": {{overlap: hold}}
    on-prem.eu_1: {{}}
""".encode()
    )
    assert config.infracost.slug == "acme-corp"
    assert config.price_books.keep_unused == 3
    assert config.price_books.aws.organizations == (ONE,)
    assert config.price_books.azure.organizations == ()
    assert (config.price_books.azure.price_types, config.price_books.azure.offers) == ("all", ("MS-AZR-0017P",))
    assert (config.billing.months_open, config.billing.overlap) == (24, "replace")
    assert set(config.billing.connections) == {ONE, "0123", "on-prem.eu_1"}
    assert config.billing.connections[ONE].months_open == 0


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("version: 1\nprice_book: {}\n", 2, "price_book"),
        ("version: 2\n", 1, "version"),
        ("version: 1\nprice_books:\n  aws:\n    activate: perhaps\n", 4, "price_books.aws.activate"),
        ("price_books:\n  aws:\n    organizations:\n      - nonsense\n", 4, "price_books.aws.organizations"),
        ("price_books:\n  max_rejected_share: 1.5\n", 2, "max_rejected_share"),
        ("price_books:\n  max_rejected_share: -1\n", 2, "max_rejected_share"),
        ("price_books:\n  keep_unused: -1\n", 2, "keep_unused"),
        ("price_books:\n  azure:\n    offers: ['']\n", 3, "offers"),
        ("price_books:\n  aws:\n    offers: all\n", 3, "offers"),
        ("infracost:\n  slug: a/b\n", 2, "slug"),
        ("billing:\n  months: 1\n", 2, "billing.months"),
        ("billing:\n  months_open: -1\n", 2, "billing.months_open"),
        ("billing:\n  overlap: hold\n  months_open: 25\n", 3, "billing.months_open"),
        ("billing:\n  months_open: yes\n", 2, "billing.months_open"),
        ("billing:\n  months_open: '1'\n", 2, "billing.months_open"),
        ("billing:\n  overlap: no\n", 2, "billing.overlap"),
        ("billing:\n  overlap: sum\n", 2, "billing.overlap"),
        ("billing:\n  connections: [a]\n", 2, "billing.connections"),
        ("billing:\n  connections:\n    a/b: {}\n", 3, "billing.connections.a/b: "),
        (f"billing:\n  connections:\n    {'a' * 129}: {{}}\n", 3, "billing.connections"),
        ("billing:\n  connections:\n    123: {}\n", 3, "billing.connections.123: "),
        ("billing:\n  connections:\n    a:\n", 3, "billing.connections.a"),
        ("billing:\n  connections:\n    a:\n      months_open: 1.5\n", 4, "billing.connections.a.months_open"),
        ("billing:\n  connections:\n    a:\n      overlaps: hold\n", 4, "billing.connections.a.overlaps"),
        ("billing:\n  connections:\n    a: {}\n    a: {}\n", 4, "twice"),
        ("price_books: 7\n", 1, "price_books"),
        ("price_books:\n", 1, "price_books"),
        ("- 1\n", 1, "the file"),
        ("just words", 1, "the file"),
        ("1: 2\n", 1, ""),
        ("version: 1\nversion: 1\n", 2, "twice"),
        ("price_books:\n  aws: {activate: true, activate: false}\n", 2, "twice"),
        ("a: &x 1\nb: *x\n", 2, "aliases"),
        ("a: &x [1]\nb: [*x]\n", 2, "aliases"),
        ("a: [1\n", 2, "not YAML"),
        ("a: b: c\n", 1, "not YAML"),
        ("version: 1\n\tx: 1\n", 2, "not YAML"),
        ("---\na: 1\n---\nb: 1\n", 3, "not YAML"),
        ("a: !!python/object/apply:os.system ['true']\n", 1, "not YAML"),
    ],
)
def test_a_mistake_is_named_with_its_line_and_what_to_do(text: str, line: int, reason: str) -> None:
    error = refused(text)
    assert error.line == line
    assert reason in error.reason
    assert error.fix
    assert f"config/relay.yaml:{line}" in str(error)


@pytest.mark.parametrize(
    "text",
    [
        b"\xff\xfe\x00",
        b"a: \x00",
        b"a: \xc3\x28",
        b"[" * 30_000,
        b"{a: " * 10_000,
        b"- " * 30_000,
        b"a: 2026-99-99",
        b"a: " + b"9" * 10_000,
        b"a: !!int x",
        b"x" * (MAX_CONFIG_BYTES + 1),
    ],
)
def test_what_cannot_be_read_is_refused_and_no_crash(text: bytes) -> None:
    assert len(str(refused(text))) < 1000


@pytest.mark.parametrize("name", ["123", "0123", "1.5", "no", "2026-01-01"])
def test_a_connections_id_that_yaml_takes_for_something_else_is_to_be_quoted(name: str) -> None:
    assert refused(f"billing: {{connections: {{{name}: {{}}}}}}").fix == "put the name in quotes"
    assert set(parse(f"billing: {{connections: {{'{name}': {{}}}}}}".encode()).billing.connections) == {name}


@pytest.mark.parametrize("text", ["? [a, b]\n: c\n", "? {a: b}\n: c\n", "? [a]\n: 1\n? [a]\n: 2\n"])
def test_a_key_that_is_no_word_is_refused(text: str) -> None:
    refused(text)


@given(st.text(max_size=80) | st.text("ab:-?&*!|>{}[],'\"# \n\t%@<", max_size=60))
def test_whatever_stands_there_it_is_read_or_refused(text: str) -> None:
    try:
        parse(text.encode("utf-8", "surrogatepass"))
    except ConfigRefused as error:
        assert error.reason  # noqa: PT017 -- either may happen


# --- what is in force ----------------------------------------------------------------------------------------------


def test_the_templates_parameters_serve_where_the_file_says_nothing() -> None:
    found = effective(RelayConfig(), DEFAULTS)
    assert (found.enterprise_id, found.slug) == (DEFAULTS.enterprise_id, "acme")
    assert (found.aws_organizations, found.azure_organizations) == ((ONE,), (OTHER,))
    assert effective(RelayConfig(), Defaults()).aws_organizations == ()


def test_the_file_goes_over_the_templates_parameters() -> None:
    books = f"{{aws: {{organizations: [{OTHER}, {OTHER}]}}, azure: {{organizations: []}}}}"
    text = f"infracost: {{slug: other}}\nprice_books: {books}"
    found = effective(parse(text.encode()), DEFAULTS, "v7")
    assert (found.slug, found.version_id) == ("other", "v7")
    assert (found.aws_organizations, found.azure_organizations) == ((OTHER,), ())


def test_a_connection_has_the_rules_of_all_but_for_what_is_said_of_it_alone() -> None:
    text = """
billing:
  months_open: 3
  connections:
    a: {overlap: replace}
    b: {months_open: 0}
"""
    billing = effective(parse(text.encode()), Defaults()).billing
    rules = {name: billing.for_connection(name) for name in ("a", "b", "c")}
    assert {name: (each.months_open, each.overlap) for name, each in rules.items()} == {
        "a": (3, "replace"),
        "b": (0, "hold"),
        "c": (3, "hold"),
    }


def test_who_has_no_infracost_has_rules_for_billing_drops() -> None:
    found = effective(RelayConfig(), Defaults())
    assert (found.enterprise_id, found.billing.for_connection("any")) == ("", BillingRules())


@pytest.mark.parametrize("azure", [ONE, ONE.upper()])
def test_an_organization_with_books_of_both_providers_is_refused_wherever_it_is_named(azure: str) -> None:
    text = f"price_books: {{aws: {{organizations: [{ONE}]}}, azure: {{organizations: [{azure}]}}}}"
    with pytest.raises(ConfigRefused, match=f"organization {ONE} is named for AWS and for Azure"):
        effective(parse(text.encode()), Defaults())
    with pytest.raises(ConfigRefused, match="holds one book"):
        effective(RelayConfig(), Defaults("e", "s", ONE, azure))
    with pytest.raises(ConfigRefused):
        effective(parse(f"price_books: {{azure: {{organizations: [{azure}]}}}}".encode()), DEFAULTS)


def test_the_schema_refuses_what_the_reader_refuses() -> None:
    schema = json.loads(schema_json())
    assert schema["additionalProperties"] is False
    objects = [part for part in schema["$defs"].values() if part["type"] == "object"]
    assert objects
    assert all(part["additionalProperties"] is False for part in objects)

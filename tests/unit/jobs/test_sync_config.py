"""relay.yaml: what follows which source of truth, by which rules and guards; and how a bad one is refused."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from finops_relay.delivery.defaults import Defaults
from finops_relay.errors import ConfigRefused
from finops_relay.jobs.config import OwnGuards, RelayConfig, effective, parse
from finops_relay.sync.guard import Guard, Guards, Override
from finops_relay.sync.rules import Rules

SOURCES = """
sources:
  cmdb: {type: servicenow, url: "https://acme.service-now.com"}
  portal: {type: backstage, url: "https://backstage.example.com"}
  apps: {type: http_json, url: "https://apps.example.com/api"}
"""
TABLE = "servicenow: {source: cmdb, table: cmdb_ci_business_app, columns: {value: u_cost_center}}"
ENTITIES = 'backstage: {source: portal, filters: ["kind=component"], columns: {value: metadata.name}}'
ITEMS = "http_json: {source: apps, items: items, columns: {value: name}}"
PAIR = "servicenow: {source: cmdb, table: cmdb_ci_business_app, columns: {service: name, team: owned_by.name}}"


def tag(said: str, sources: str = SOURCES) -> str:
    """Return a relay.yaml that says this of a tag."""
    return f"{sources}\ntagging_policies:\n  standard:\n    tags:\n      CostCenter: {{{said}}}\n"


def refused(text: str) -> ConfigRefused:
    """Return why *text* is refused."""
    with pytest.raises(ConfigRefused) as caught:
        parse(text.encode())
    str(caught.value).encode()  # it goes into a receipt
    return caught.value


def test_nothing_said_is_the_default() -> None:
    config = parse(b"tagging_policies: {standard: {tags: {CostCenter: {}}}}")
    found = config.tagging_policies["standard"].tags["CostCenter"]
    assert found.ask is None
    assert (found.plan_only, found.adopt, found.message, found.mandatory) == (False, False, None, None)
    assert found.rules == Rules(trim=True, case="keep", pattern="", duplicates="filter")
    limits = found.guards.over(config.sync.guards)
    assert (limits.max_share_removed, limits.max_number_removed) == (0.3, 100)
    assert (limits.max_share_shrunk, limits.max_times_grown) == (0.3, 3)
    assert limits.overrides == ()
    assert config.custom_properties.max_rejected_share == 0.01


@pytest.mark.parametrize(("said", "source"), [(TABLE, "cmdb"), (ENTITIES, "portal"), (ITEMS, "apps")])
def test_a_tag_follows_one_source_of_any_kind(said: str, source: str) -> None:
    config = parse(tag(said).encode())
    ((policy, key, found),) = config.synced_tags()
    assert (policy, key) == ("standard", "CostCenter")
    assert found.ask is not None
    assert found.ask.source == source


def test_every_policy_has_its_id_its_organization_and_its_tags() -> None:
    config = parse(
        f"""{SOURCES}
tagging_policies:
  standard:
    id: 5f1c0f52-7c1e-4f7b-9d0e-3a6b8e1c2d47
    slug: other-org
    tags:
      CostCenter: {{{TABLE}}}
      kubernetes.io/name: {{mandatory: true, message: see the wiki, adopt: true, plan_only: true}}
  second: {{tags: {{CostCenter: {{{ENTITIES}}}}}}}
custom_properties:
  {PAIR}
  rules: {{team: {{case: lower}}}}
  max_rejected_share: 0
""".encode()
    )
    assert [(policy, key) for policy, key, _ in config.synced_tags()] == [
        ("standard", "CostCenter"),
        ("standard", "kubernetes.io/name"),
        ("second", "CostCenter"),
    ]
    standard = config.tagging_policies["standard"]
    assert (standard.id, standard.slug) == ("5f1c0f52-7c1e-4f7b-9d0e-3a6b8e1c2d47", "other-org")
    assert standard.tags["kubernetes.io/name"].adopt
    assert config.custom_properties.rules["team"].case == "lower"
    assert effective(config, Defaults()).relay == config


def test_the_guards_of_one_sync_differ_from_those_of_all_only_in_what_they_say() -> None:
    first, second = (
        Override(guard=Guard.DRIFT, until=datetime(2026, 12, 31, tzinfo=UTC), reason=reason)
        for reason in ("the first", "the second")
    )
    general = Guards(max_share_removed=0.5, max_number_removed=7, overrides=(second,))
    found = OwnGuards(max_share_removed=0, overrides=(first,)).over(general)
    assert (found.max_share_removed, found.max_number_removed, found.max_times_grown) == (0, 7, 3)
    assert found.overrides == (first, second)
    assert OwnGuards().over(general) == general


def test_an_override_says_which_guard_until_when_and_why() -> None:
    said = "guards: {overrides: [{guard: share_removed, until: 2026-03-31, reason: a unit was closed}]}"
    (found,) = parse(tag(said).encode()).tagging_policies["standard"].tags["CostCenter"].guards.overrides
    assert (found.guard, found.reason) == (Guard.SHARE_REMOVED, "a unit was closed")
    assert found.until == datetime(2026, 4, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (f"{TABLE}, {ENTITIES}", "several sources are named"),
        (TABLE.replace("cmdb,", "cmbd,"), "names source 'cmbd', but there is no such source"),
        (TABLE.replace("cmdb,", "portal,"), "that source is one of type backstage: name it under sources, type servic"),
        (ITEMS.replace("apps", "cmdb"), "that source is one of type servicenow"),
        (TABLE.replace("{value:", "{name: name, value:"), "name one column: the one of the values"),
        (TABLE.replace("u_cost_center", '"u cost"'), "columns.value: String should match pattern"),
        (ITEMS.replace("items: items", 'items: "a["'), "items: Value error"),
        ('rules: {pattern: "(?=a)"}', "RE2 cannot compile the expression '(?=a)'"),
        ("rules: {case: title}", "rules.case: Input should be 'keep', 'lower' or 'upper'"),
        ("rules: {trm: true}", "rules.trm: Extra inputs are not permitted"),
        ("guards: {max_share_removed: 30}", "less than or equal to 1"),
        ("guards: {max_share_removed: yes}", "Input should be a valid number"),
        ('guards: {max_share_removed: "0.5"}', "Input should be a valid number"),
        ("guards: {max_share_shrunk: on}", "Input should be a valid number"),
        ("guards: {max_number_removed: yes}", "Input should be a valid integer"),
        ("guards: {max_number_removed: -1}", "greater than or equal to 0"),
        ("guards: {max_times_grown: .inf}", "Input should be a finite number"),
        ("guards: {max_times_grown: 0.5}", "greater than or equal to 1"),
        ("guards: {overrides: [{guard: all, until: 2026-03-31, reason: why}]}", "overrides.0.guard: Input should be"),
        ("guards: {overrides: [{guard: drift, until: 9999-12-31, reason: why}]}", "write a date such as 2026-12-31"),
        ("guards: {overrides: [{guard: drift, until: 20261231, reason: why}]}", "write a date such as 2026-12-31"),
        ("guards: {overrides: [{guard: drift, until: never, reason: why}]}", "write a date such as 2026-12-31"),
        ("guards: {overrides: [{guard: drift, reason: why}]}", "overrides.0.until: Field required"),
        ("guards: {overrides: [{guard: drift, until: 2026-03-31}]}", "overrides.0.reason: Field required"),
        (f"message: {'x' * 2001}", "at most 2000 characters"),
        ("mandatory: perhaps", "mandatory: Input should be a valid boolean"),
        ("adapt: true", "adapt: Extra inputs are not permitted"),
    ],
)
def test_what_a_tag_cannot_be_told_is_refused_with_the_line(said: str, words: str) -> None:
    refusal = refused(tag(said))
    assert words in refusal.reason
    beyond = "source is" in words or "names source" in words
    assert refusal.line == (2 if beyond else 10)  # what two places make together is said of the whole, by its names


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tagging_policies: {a b: {}}", "String should match pattern"),
        ("tagging_policies: {p: {tags: {yes: {}}}}", "put the name in quotes"),
        ("tagging_policies: {p: {slug: a/b}}", "slug: String should match pattern"),
        ("tagging_policies: {p: {tags: {CostCenter: {}, CostCenter: {}}}}", "the key stands twice"),
        (
            "tagging_policies: {one: {id: x}, two: {id: x}}",
            "tagging_policies.one and tagging_policies.two are one policy",
        ),
        ("tagging_policies: {one: {id: two}, two: {}}", "tagging_policies.one and tagging_policies.two are one policy"),
        ("custom_properties: {rules: {team: {case: lower}}}", "there is no column 'team' for its rules"),
        (f"{SOURCES}\ncustom_properties: {{{TABLE}}}", "name at least two columns: the key first, then its properties"),
        (
            f"{SOURCES}\ncustom_properties: {{{PAIR}, rules: {{owner: {{}}}}}}",
            "there is no column 'owner' for its rules",
        ),
        ("custom_properties: {max_rejected_share: yes}", "Input should be a valid number"),
        ("sync: {guards: {max_share_removed: yes}}", "Input should be a valid number"),
        ("sync: {plan_only: true}", "Extra inputs are not permitted"),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, words: str) -> None:
    assert words in str(refused(text))


def test_two_policies_of_two_organizations_may_have_one_id() -> None:
    assert parse(b"tagging_policies: {one: {id: x, slug: a}, two: {id: x, slug: b}}").tagging_policies.keys() == {
        "one",
        "two",
    }


@pytest.mark.parametrize(
    "source",
    [
        'type: servicenow, url: "https://relay:geheim@acme.service-now.com"',
        'type: http_json, url: "https://apps.example.com/?token=geheim"',
        'type: http_json, url: "http://geheim.example.com"',
        'type: servicenow, url: "https://acme.service-now.com", password: geheim',
        'type: servicenow, url: "https://acme.service-now.com", secret: geheim',
        'type: ldap, url: "https://acme.example.com", token: geheim',
        'url: "https://acme.example.com", token: geheim',
        'type: servicenow, url: "https://acme.service-now.com", auth: geheim',
    ],
)
def test_a_password_that_stands_where_none_belongs_is_refused_and_never_quoted(source: str) -> None:
    """Row 29: the refusal goes into a receipt."""
    refusal = refused(f"sources: {{cmdb: {{{source}}}}}")
    assert "sources.cmdb" in refusal.reason
    assert "geheim" not in str(refusal)


@pytest.mark.parametrize("hour", ["24", "-1", "yes", '"3"', "3.5"])
def test_an_hour_is_one_of_the_day(hour: str) -> None:
    text = f'sources: {{cmdb: {{type: servicenow, url: "https://acme.service-now.com", hour_utc: {hour}}}}}'
    assert "hour_utc" in refused(text).reason


def test_a_source_that_is_wanted_by_two_is_named_once() -> None:
    text = f"{SOURCES}\ntagging_policies: {{a: {{tags: {{k: {{{TABLE}}}}}}}, b: {{tags: {{k: {{{TABLE}}}}}}}}}\n"
    config: RelayConfig = parse(f"{text}custom_properties: {{{PAIR}}}".encode())
    assert [found.ask.source for _, _, found in config.synced_tags() if found.ask] == ["cmdb", "cmdb"]
    assert config.custom_properties.ask is not None

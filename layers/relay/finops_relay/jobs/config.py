"""relay.yaml: what an operator may set beyond the template's parameters, and how a bad one is refused.

Published as `docs/relay.schema.json`; a test keeps that file true.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from finops_relay.delivery.defaults import Defaults
from finops_relay.delivery.ports import Ledger
from finops_relay.errors import ConfigRefused
from finops_relay.sources.asks import CatalogAsk, JsonAsk, TableAsk
from finops_relay.sources.settings import AnySource, SourceName
from finops_relay.sync.guard import Guards, Override
from finops_relay.sync.rules import Rules

MAX_CONFIG_BYTES = 65_536
"""The accepted text is kept in the ledger, whose items hold 400 KB."""
MAX_DEPTH = 20
"""Levels of nesting; ours has 7. PyYAML's time grows with the square of the depth: 30,000 brackets take it a minute."""
CONFIG_KEY = "config/relay.yaml"
CONFIG_NOTE = "config#active"
"""Ledger note that keeps the relay.yaml in force: its version and its text, which outlive the object."""

Uuid = Annotated[str, Field(pattern=r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$")]
Slug = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,100}$")]
ConnectionId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,128}$")]
MonthsOpen = Annotated[int, Field(ge=0, le=24, strict=True)]
"""Strict: YAML reads `yes` as true, which would be 1."""
Overlap = Literal["hold", "replace"]


class Strict(BaseModel):
    """Frozen, and an unknown key is an error: a misspelt setting must not be ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class ProviderBooks(Strict):
    """Price books of one cloud provider."""

    organizations: tuple[Uuid, ...] | None = None
    """Infracost organizations that use this provider's book; the template's parameter when left out."""
    activate: bool = True
    """False records a book as ready, and activates nothing."""


class AzureBooks(ProviderBooks):
    """Price books of Azure."""

    price_types: tuple[Annotated[str, Field(min_length=1)], ...] | Literal["all"] = ("Consumption",)
    """PriceType values to keep; a ReservedInstance price is the whole commitment, on the same meter."""
    offers: tuple[Annotated[str, Field(min_length=1)], ...] | Literal["all"] = "all"
    """OfferId values to keep."""


class PriceBooks(Strict):
    """Everything about price books."""

    aws: ProviderBooks = Field(default_factory=ProviderBooks)
    azure: AzureBooks = Field(default_factory=AzureBooks)
    max_rejected_share: Annotated[float, Field(ge=0, le=1)] = 0.01
    """A book with a larger share of bad rows is refused whole (0.01 is 1 %)."""
    keep_unused: Annotated[int, Field(ge=0, le=500)] | None = None
    """Newest unused books of ours to keep at the vendor; older ones are deleted. Left out, none ever is."""


class BillingRules(Strict):
    """How the files of a connection may replace what it holds."""

    months_open: MonthsOpen = 1
    """Earlier months, besides this one, that may still be replaced."""
    overlap: Overlap = "hold"
    """Whether a file may replace hours that a file of another key has sent, or is held."""


class ConnectionBilling(Strict):
    """What is different for one connection."""

    months_open: MonthsOpen | None = None
    overlap: Overlap | None = None


class Billing(BillingRules):
    """Everything about billing drops."""

    connections: dict[ConnectionId, ConnectionBilling] = Field(
        default_factory=dict, json_schema_extra={"additionalProperties": False}
    )
    """By the connection's id at CloudZero."""

    def for_connection(self, connection_id: str) -> BillingRules:
        """Return the rules of one connection."""
        own = self.connections.get(connection_id, ConnectionBilling())
        return BillingRules(
            months_open=self.months_open if own.months_open is None else own.months_open,
            overlap=self.overlap if own.overlap is None else own.overlap,
        )


_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
Alias = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,128}$")]
TagKey = Annotated[str, Field(min_length=1, max_length=256)]
Share = Annotated[float, Field(ge=0, le=1, strict=True)]
"""Strict, as `MonthsOpen`: `yes` would be all of it."""


class ServiceNowAsk(TableAsk):
    """What is read from ServiceNow."""

    source: SourceName


class BackstageAsk(CatalogAsk):
    """What is read from Backstage."""

    source: SourceName


class HttpJsonAsk(JsonAsk):
    """What is read from an address that answers with JSON."""

    source: SourceName


AnyAsk = ServiceNowAsk | BackstageAsk | HttpJsonAsk


class OwnGuards(Strict):
    """Limits that differ from those of all syncs; one that is left out is theirs."""

    max_share_removed: Share | None = None
    max_number_removed: Annotated[int, Field(ge=0, strict=True)] | None = None
    max_share_shrunk: Share | None = None
    max_times_grown: Annotated[float, Field(ge=1, allow_inf_nan=False, strict=True)] | None = None
    overrides: tuple[Override, ...] = ()

    def over(self, general: Guards) -> Guards:
        """Return the limits that are in force where *general* are those of all syncs."""
        own = {name: value for name, value in dict(self).items() if name != "overrides" and value is not None}
        return general.model_copy(update={**own, "overrides": (*self.overrides, *general.overrides)})


class Synced(Strict):
    """Something that follows its source of truth."""

    servicenow: ServiceNowAsk | None = None
    backstage: BackstageAsk | None = None
    http_json: HttpJsonAsk | None = None
    plan_only: bool = False
    """Whether a schedule only plans, and writes nothing."""
    guards: OwnGuards = Field(default_factory=OwnGuards)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum(ask is not None for ask in (self.servicenow, self.backstage, self.http_json)) > 1:
            msg = "several sources are named: keep one of servicenow, backstage and http_json"
            raise ValueError(msg)
        return self

    @property
    def ask(self) -> AnyAsk | None:
        """What is read, and where; None for what is only dropped as files."""
        return self.servicenow or self.backstage or self.http_json


class TagSync(Synced):
    """The allowed values of one tag."""

    rules: Rules = Field(default_factory=Rules)
    message: Annotated[str, Field(max_length=2_000)] | None = None
    """Shown to an engineer whose value is not allowed; left out, the tag keeps the one that it has."""
    mandatory: bool | None = None
    """Left out, the tag stays as it is."""
    adopt: bool = False
    """Whether the tag may be added where the policy has none, or be made a LIST, without asking."""

    @model_validator(mode="after")
    def _one_column(self) -> Self:
        if self.ask is not None and len(self.ask.columns) != 1:
            msg = "name one column: the one of the values"
            raise ValueError(msg)
        return self


class PolicyConfig(Strict):
    """A tagging policy, by the name of the folder that its files are dropped into."""

    id: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """At Infracost (the end of its address in the dashboard); the name itself when left out."""
    slug: Slug | None = None
    """Of its organization, where it is another than the stack's."""
    tags: dict[TagKey, TagSync] = Field(default_factory=dict)


class PropertiesConfig(Synced):
    """The custom properties of the organization. The first column of a source's is the key."""

    rules: dict[str, Rules] = Field(default_factory=dict)
    """By column."""
    max_rejected_share: Share = 0.01
    """A file or source with a larger share of bad rows is refused whole: what is left out loses its properties."""

    @model_validator(mode="after")
    def _some_properties(self) -> Self:
        if self.ask is not None and len(self.ask.columns) < 2:  # noqa: PLR2004 -- a key and a property
            msg = "name at least two columns: the key first, then its properties"
            raise ValueError(msg)
        unknown = sorted(set(self.rules) - set(self.ask.columns if self.ask else ()))
        if unknown:
            msg = f"there is no column {unknown[0]!r} for its rules"
            raise ValueError(msg)
        return self


class SyncDefaults(Strict):
    """What holds for every sync that does not say otherwise."""

    guards: Guards = Field(default_factory=Guards)


class InfracostConfig(Strict):
    """Who we are at Infracost; the template's parameters where left out."""

    enterprise_id: Uuid | None = None
    slug: Slug | None = None


class RelayConfig(Strict):
    """The whole of relay.yaml."""

    version: Literal[1] = 1
    infracost: InfracostConfig = Field(default_factory=InfracostConfig)
    price_books: PriceBooks = Field(default_factory=PriceBooks)
    billing: Billing = Field(default_factory=Billing)
    sources: dict[SourceName, AnySource] = Field(default_factory=dict)
    sync: SyncDefaults = Field(default_factory=SyncDefaults)
    tagging_policies: dict[Alias, PolicyConfig] = Field(default_factory=dict)
    custom_properties: PropertiesConfig = Field(default_factory=PropertiesConfig)

    @model_validator(mode="after")
    def _one_name_a_policy(self) -> Self:
        _refuse_two_names(self.tagging_policies, "")
        return self

    @model_validator(mode="after")
    def _sources_are_there(self) -> Self:
        asked = [(f"tagging_policies.{policy}.tags.{key}", tag.ask) for policy, key, tag in self.synced_tags()]
        for place, ask in [*asked, ("custom_properties", self.custom_properties.ask)]:
            if ask is None:
                continue
            kind = {ServiceNowAsk: "servicenow", BackstageAsk: "backstage", HttpJsonAsk: "http_json"}[type(ask)]
            source = self.sources.get(ask.source)
            if source is None or source.type != kind:
                there = "there is no such source" if source is None else f"that source is one of type {source.type}"
                msg = f"{place}.{kind} names source {ask.source!r}, but {there}: name it under sources, type {kind}"
                raise ValueError(msg)
        return self

    def synced_tags(self) -> Iterator[tuple[str, str, TagSync]]:
        """Yield every tag that is configured, with its policy's name and its key."""
        for policy, config in self.tagging_policies.items():
            for key, tag in config.tags.items():
                yield policy, key, tag


class Effective(Strict):
    """What is in force: relay.yaml over the template's parameters. Raises ValidationError where they contradict."""

    version_id: str = ""
    """Version of relay.yaml, empty when there is none."""
    enterprise_id: str
    slug: str
    aws_organizations: tuple[str, ...]
    azure_organizations: tuple[str, ...]
    price_books: PriceBooks
    billing: Billing
    relay: RelayConfig
    """The whole of it."""

    @model_validator(mode="after")
    def _one_book_an_organization(self) -> Self:
        _refuse_two_names(self.relay.tagging_policies, self.slug)
        both = {o.lower() for o in self.aws_organizations} & {o.lower() for o in self.azure_organizations}
        if both:
            msg = (
                f"organization {min(both)} is named for AWS and for Azure price books, but holds one book:"
                " give each provider an organization of its own"
            )
            raise ValueError(msg)
        return self


def one_spelling(policy_id: str) -> str:
    """Return a policy's id as all of us spell it: a UUID is the same in either case."""
    return policy_id.lower() if _UUID.fullmatch(policy_id) else policy_id


def _refuse_two_names(policies: Mapping[str, PolicyConfig], slug: str) -> None:
    """Refuse two configurations of one policy, of which each would undo what the other does. Raises ValueError."""
    named = dict[tuple[str, str], str]()
    ids = {one_spelling(config.id): alias for alias, config in policies.items() if config.id}
    for alias, config in policies.items():
        other = named.setdefault((config.slug or slug, one_spelling(config.id or alias)), alias)
        other = ids.get(one_spelling(alias), other) if other == alias else other
        if other != alias:
            msg = f"tagging_policies.{other} and tagging_policies.{alias} are one policy: put their tags together"
            raise ValueError(msg)


def schema_json() -> str:
    """Return the JSON Schema of relay.yaml, as published."""
    return json.dumps(RelayConfig.model_json_schema(), indent=2) + "\n"


def parse(text: bytes, file: str = CONFIG_KEY) -> RelayConfig:
    """Read relay.yaml. Raises ConfigRefused, which names line, value and fix."""
    if len(text) > MAX_CONFIG_BYTES:
        raise ConfigRefused(f"the file has {len(text):,} bytes", file=file, fix=f"keep it below {MAX_CONFIG_BYTES:,}")
    try:
        plain = text.decode("utf-8-sig")
        _refuse_tricks(plain, file)
        tree = yaml.compose(plain, Loader=yaml.SafeLoader)
        _refuse_double_keys(tree, file)
        values = yaml.safe_load(plain)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise ConfigRefused(f"not YAML: {error.problem}", file=file, line=line, fix="mend the syntax") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise ConfigRefused(f"not YAML: {type(error).__name__}", file=file, fix="write plain UTF-8 YAML") from None
    try:
        return RelayConfig.model_validate(values if values is not None else {})
    except ValidationError as error:
        raise _refused(error, tree, file) from None


def effective(config: RelayConfig, defaults: Defaults, version_id: str = "", file: str = CONFIG_KEY) -> Effective:
    """Return what is in force. Raises ConfigRefused where the parts contradict each other."""

    def organizations(named: tuple[str, ...] | None, default: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(named)) if named is not None else (default,) if default else ()

    try:
        return Effective(
            version_id=version_id,
            enterprise_id=config.infracost.enterprise_id or defaults.enterprise_id,
            slug=config.infracost.slug or defaults.slug,
            aws_organizations=organizations(config.price_books.aws.organizations, defaults.aws_organization_id),
            azure_organizations=organizations(config.price_books.azure.organizations, defaults.azure_organization_id),
            price_books=config.price_books,
            billing=config.billing,
            relay=config,
        )
    except ValidationError as error:
        raise ConfigRefused(error.errors()[0]["msg"].removeprefix("Value error, "), file=file) from None


def in_force(ledger: Ledger, defaults: Defaults) -> Effective:
    """Return what is in force now: the last relay.yaml that was accepted, over the template's parameters."""
    note = ledger.note(CONFIG_NOTE)
    if "text" not in note:
        return effective(RelayConfig(), defaults, file="template parameters")
    return effective(parse(note["text"].encode()), defaults, note["version_id"])


def _refuse_tricks(plain: str, file: str) -> None:
    """Refuse what makes a small file cost a lot of memory or time, before anything is built of it."""
    depth = 0
    for token in yaml.scan(plain, Loader=yaml.SafeLoader):
        line = token.start_mark.line + 1
        if isinstance(token, yaml.AliasToken):  # a few aliases of aliases fill any memory
            raise ConfigRefused("YAML aliases are not read", file=file, line=line, fix="write the value out")
        depth += isinstance(token, _OPENING) - isinstance(token, _CLOSING)
        if depth > MAX_DEPTH:
            raise ConfigRefused(f"nested deeper than {MAX_DEPTH} levels", file=file, line=line, fix="see the schema")


_OPENING = (
    yaml.BlockMappingStartToken,
    yaml.BlockSequenceStartToken,
    yaml.FlowMappingStartToken,
    yaml.FlowSequenceStartToken,
)
_CLOSING = (yaml.BlockEndToken, yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken)


def _refuse_double_keys(node: yaml.Node | None, file: str) -> None:
    """Refuse a mapping that says one key twice: YAML would keep the last, silently."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                line = key.start_mark.line + 1
                raise ConfigRefused("a key is a list or a mapping", file=file, line=line, fix="write a word")
            if key.value in seen:
                raise ConfigRefused(
                    "the key stands twice",
                    file=file,
                    line=key.start_mark.line + 1,
                    value=str(key.value),
                    fix="keep one",
                )
            seen.add(key.value)
            _refuse_double_keys(value, file)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_double_keys(item, file)


def _refused(error: ValidationError, tree: yaml.Node | None, file: str) -> ConfigRefused:
    """Turn pydantic's first problem into ours, with the line of the value."""
    problem = error.errors()[0]
    path = ".".join(str(step) for step in problem["loc"] if step != "[key]")
    unquoted = problem["type"] == "string_type" and problem["loc"][-1] == "[key]"  # YAML took it for a number
    found = problem.get("input", "")
    # What is wrong may be that a password stands there: in an address, as a member that a source does not have.
    shown = "" if problem["loc"][:1] == ("sources",) or isinstance(found, dict | list) else str(found)
    return ConfigRefused(
        f"{path or 'the file'}: {problem['msg']}",
        file=file,
        line=_line_of(tree, problem["loc"]),
        value=shown[:120],
        fix="put the name in quotes" if unquoted else "see docs/configuration.md for what may stand there",
    )


def _line_of(node: yaml.Node | None, path: tuple[Any, ...]) -> int | None:
    """Return the 1-based line of the deepest node along *path* that exists."""
    line = node.start_mark.line + 1 if node is not None else None
    for step in path:
        found: yaml.Node | None = None
        if isinstance(node, yaml.MappingNode):
            found = next((value for key, value in node.value if key.value == str(step)), None)
            line = next((key.start_mark.line + 1 for key, _ in node.value if key.value == str(step)), line)
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            found = node.value[step]
            line = found.start_mark.line + 1
        if found is None:
            return line
        node = found
    return line

"""``template.yaml`` as data: read with CloudFormation's short tags, its places in a checkout, and its values resolved.

Only the intrinsic functions that the project's template uses are resolved; any other is refused by name rather than
passed through as a value that looks real.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# ``Ref`` and ``Condition`` keep their name; every other short tag stands for ``Fn::<tag>``.
_PLAIN_TAGS = {"Ref", "Condition"}
_PLACEHOLDER = re.compile(r"\$\{([^!][^}]*)\}")


class TemplateError(Exception):
    """Raised when the template says something that this reader does not understand."""


class _Loader(yaml.SafeLoader):
    """A safe loader that also knows the short tags (``!Sub``, ``!GetAtt`` ...)."""


def _short_tag(loader: yaml.SafeLoader, tag: str, node: yaml.Node) -> dict[str, Any]:
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    elif isinstance(node, yaml.MappingNode):
        value = loader.construct_mapping(node, deep=True)
    else:
        raise TemplateError(f"a tag !{tag} on something that is no value")
    if tag == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {tag if tag in _PLAIN_TAGS else f"Fn::{tag}": value}


yaml.add_multi_constructor("!", _short_tag, Loader=_Loader)


def load(path: Path) -> dict[str, Any]:
    """The template at *path*, short tags written out as CloudFormation's JSON has them."""
    template: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - a SafeLoader
    return template


@dataclass(frozen=True)
class Resolver:
    """Replaces intrinsic functions by what a created stack has in their place."""

    region: str
    account: str
    stack_name: str
    parameters: Mapping[str, str]
    physical_ids: Mapping[str, str]
    types: Mapping[str, str]
    conditions: Mapping[str, Any] = field(default_factory=dict)

    def resolve(self, value: Any) -> Any:  # noqa: ANN401 - JSON in, JSON out
        """*value* with every intrinsic function replaced."""
        if isinstance(value, list):
            resolved = [self.resolve(item) for item in value]
            return [item for item in resolved if item is not _NO_VALUE]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            name, argument = next(iter(value.items()))
            if name == "Ref" or name.startswith("Fn::"):
                return self._call(name, argument)
        resolved_items = {key: self.resolve(item) for key, item in value.items()}
        return {key: item for key, item in resolved_items.items() if item is not _NO_VALUE}

    def _call(self, name: str, argument: Any) -> Any:  # noqa: ANN401 - JSON in, JSON out
        match name:
            case "Ref":
                return self._ref(argument)
            case "Fn::GetAtt":
                parts = argument.split(".", 1) if isinstance(argument, str) else argument
                return self._attribute(*parts)
            case "Fn::Sub":
                return self._sub(argument)
            case "Fn::Join":
                return argument[0].join(str(item) for item in self.resolve(argument[1]))
            case "Fn::If":
                return self.resolve(argument[1] if self.holds(argument[0]) else argument[2])
            case _:
                raise TemplateError(f"{name} is not understood here; teach it to local/template.py")

    def _ref(self, name: str) -> Any:  # noqa: ANN401 - a parameter may be a list
        pseudo = {
            "AWS::Region": self.region,
            "AWS::AccountId": self.account,
            "AWS::StackName": self.stack_name,
            "AWS::Partition": "aws",
            "AWS::URLSuffix": "amazonaws.com",
            "AWS::NoValue": _NO_VALUE,
        }
        for known in (pseudo, self.parameters, self.physical_ids):
            if name in known:
                return known[name]
        raise TemplateError(f"Ref {name}: no parameter or created resource has that name")

    def _sub(self, argument: Any) -> str:  # noqa: ANN401 - a string, or a string and its variables
        text, variables = (argument, {}) if isinstance(argument, str) else argument

        def replace(match: re.Match[str]) -> str:
            name = match[1].strip()
            if name in variables:
                return str(self.resolve(variables[name]))
            return str(self._attribute(*name.split(".", 1)) if "." in name else self._ref(name))

        return _PLACEHOLDER.sub(replace, text).replace("${!", "${")

    def _attribute(self, logical_id: str, attribute: str) -> str:
        physical_id = self._ref(logical_id)
        name = str(physical_id).rsplit("/", 1)[-1]
        here = f"{self.region}:{self.account}"
        arns = {
            "AWS::SQS::Queue": f"arn:aws:sqs:{here}:{name}",
            "AWS::S3::Bucket": f"arn:aws:s3:::{physical_id}",
            "AWS::DynamoDB::Table": f"arn:aws:dynamodb:{here}:table/{physical_id}",
            "AWS::IAM::Role": f"arn:aws:iam::{self.account}:role/{physical_id}",
            "AWS::Lambda::Function": f"arn:aws:lambda:{here}:function:{physical_id}",
            "AWS::Logs::LogGroup": f"arn:aws:logs:{here}:log-group:{physical_id}:*",
            "AWS::Events::EventBus": f"arn:aws:events:{here}:event-bus/{physical_id}",
        }
        kind = self.types.get(logical_id, "nothing")
        if attribute == "QueueName":
            return name
        if attribute == "Arn" and kind in arns:
            return arns[kind]
        raise TemplateError(
            f"GetAtt {logical_id}.{attribute} of {kind} is not understood; teach it to local/template.py"
        )

    def holds(self, condition: Any) -> bool:  # noqa: ANN401 - a name or an expression
        """Whether a condition, given by name or written out, is true."""
        if isinstance(condition, str):
            return self.holds(self.conditions[condition])
        name, argument = next(iter(condition.items()))
        match name:
            case "Condition":
                return self.holds(argument)
            case "Fn::Equals":
                left, right = (str(self.resolve(item)) for item in argument)
                return left == right
            case "Fn::Not":
                return not self.holds(argument[0])
            case "Fn::And":
                return all(self.holds(item) for item in argument)
            case "Fn::Or":
                return any(self.holds(item) for item in argument)
            case _:
                raise TemplateError(f"condition {name} is not understood; teach it to local/template.py")


_NO_VALUE = object()

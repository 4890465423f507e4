"""Guardrails at the Infracost stand-in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from local.standins.collection import Collection, Thing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from werkzeug.wrappers import Response

    from local.standins.standin import Call

_THRESHOLDS = ("increaseThreshold", "increasePercentageThreshold", "totalThreshold")


class Guardrails(Collection):
    """The guardrails' operations."""

    kind = "guardrails"
    noun = "guardrail"
    parameter = "guardrailId"
    droppable = "guardrail"
    defaults = {  # noqa: RUF012 - read only
        **dict.fromkeys(_THRESHOLDS),
        "message": "",
        "prComment": True,
        "blockPr": False,
        "webhookUrl": "",
        "filters": {"repos": {"include": [], "exclude": []}},
    }

    def handlers(self) -> dict[str, Callable[[Call], Response]]:
        """Give the handler of each operation."""
        return {
            "listGuardrails": self.list,
            "createGuardrail": self.create,
            "getGuardrail": self.get,
            "updateGuardrail": self.update,
            "deleteGuardrail": self.delete,
        }

    def shown(self, thing: Thing) -> dict[str, Any]:
        """Give a guardrail under the contract's names, or as it was seen at the live API when that is on order."""
        shown = super().shown(thing)
        if self._account.config.guardrail_spelling == "seen":
            shown["type"] = "guardrail"
            attributes = shown["attributes"]
            attributes["increasePercentThreshold"] = attributes.pop("increasePercentageThreshold")
            if attributes["scope"] == "PULL_REQUEST":
                attributes["scope"] = "REPO"
        return shown

    def dangers_in(self, attributes: Mapping[str, Any]) -> list[str]:
        """Name the lack of any threshold."""
        if any(attributes[name] is not None for name in _THRESHOLDS):
            return []
        return ["The guardrail has no threshold: it never triggers."]

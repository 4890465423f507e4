"""Tagging policies at the Infracost stand-in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from local.standins.collection import Collection, with_undocumented
from local.standins.standin import Call, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from werkzeug.wrappers import Response

_BAD_REQUEST = 400
_NEEDED = {"LIST": "allowedValues", "REGEX": "allowedRegex"}
"""What a tag of a value type must have; open in the contract. An empty list counts as there."""


class Policies(Collection):
    """The tagging policies' operations."""

    kind = "tagging-policies"
    noun = "tagging policy"
    parameter = "policyId"
    droppable = "policy"
    defaults = {"message": "", "prComment": True, "blockPr": False, "tags": [], "filters": {}}  # noqa: RUF012 - read only

    def handlers(self) -> dict[str, Callable[[Call], Response]]:
        """Give the handler of each operation."""
        return {
            "listTaggingPolicies": self.list,
            "createTaggingPolicy": self.create,
            "getTaggingPolicy": self.get,
            "updateTaggingPolicy": self.update,
            "deleteTaggingPolicy": self.delete,
        }

    def check(self, wanted: Mapping[str, Any]) -> None:
        """Refuse a tag without what its value type needs, and a second tag of the same key."""
        seen = set()
        for number, tag in enumerate(wanted.get("tags", [])):
            needed = _NEEDED.get(tag["valueType"])
            if needed is not None and tag.get(needed) is None:
                detail = f"A tag of the value type {tag['valueType']} needs {needed}."
                raise Refusal(_BAD_REQUEST, detail, f"/data/attributes/tags/{number}/{needed}")
            if tag["key"] in seen:
                detail = f"There is another tag with the key {tag['key']}."
                raise Refusal(_BAD_REQUEST, detail, f"/data/attributes/tags/{number}/key")
            seen.add(tag["key"])

    def completed(self, attributes: dict[str, Any]) -> dict[str, Any]:
        """Add what the vendor adds, to the tags as well."""
        return super().completed({**attributes, "tags": [with_undocumented(tag) for tag in attributes["tags"]]})

    def changed(self, former: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Replace the tags, or merge them by key when that is on order."""
        after = super().changed(former, wanted)
        if "tags" in wanted and self._account.config.patch_merges_tags:
            tags = {tag["key"]: tag for tag in former["tags"]}
            for tag in wanted["tags"]:
                tags[tag["key"]] = {**tags.get(tag["key"], {}), **tag}
            after["tags"] = list(tags.values())
        return after

    def dangers_in(self, attributes: Mapping[str, Any]) -> list[str]:
        """Name the lists that let no value pass."""
        end = ", which blocks every pull request" if attributes["blockPr"] else ""
        return [
            f"The tag {tag['key']} has no allowed values: every value fails{end}."
            for tag in attributes["tags"]
            if tag.get("valueType") == "LIST" and not tag.get("allowedValues")
        ]

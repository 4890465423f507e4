"""The ledger on DynamoDB: one table, one item a thing, every save conditional on the version that was read."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from finops_relay.aws.logs import logger
from finops_relay.delivery.identity import ObjectVersion, padded
from finops_relay.delivery.ledger import Delivery, Record, Target, contract_note
from finops_relay.errors import LedgerConflict

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

DAY_S = 86_400
MAX_PLAIN = 50_000
"""Characters of a record that stand in its item as they are; longer ones are packed, for an item holds 400 KB."""


class DynamoLedger:
    """The ledger.

    Items (partition key `pk`): ``delivery#{id}`` and ``target#{name}`` hold a model as JSON under `body`, with what a
    person searches for beside it; records such as ``hours#{connection}#{month}`` likewise, packed when they are long;
    ``key#{bucket}/{key}`` the highest sequencer; ``note#{name}`` small notes. Only finished deliveries expire.
    """

    def __init__(self, client: DynamoDBClient, table: str, keep_days: int, now: Callable[[], datetime]) -> None:
        self._client = client
        self._table = table
        self._keep_s = keep_days * DAY_S
        self._now = now

    def delivery(self, delivery_id: str) -> Delivery | None:
        """Return the delivery as last saved."""
        item = self._get(f"delivery#{delivery_id}")
        return Delivery.model_validate_json(item["body"]["S"]) if item else None

    def save(self, delivery: Delivery) -> Delivery:
        """Save the delivery. Raises LedgerConflict."""
        saved = delivery.but(version=delivery.version + 1)
        beside = {
            "kind": {"S": saved.kind},
            "target": {"S": saved.target},
            "outcome": {"S": saved.outcome.value},
            "stage": {"S": saved.stage},
        }
        if saved.outcome.final:
            beside["expires_at"] = {"N": str(int(self._now().timestamp()) + self._keep_s)}
        self._put(f"delivery#{saved.id}", saved.version, saved.model_dump_json(by_alias=True), beside)
        return saved

    def target(self, name: str) -> Target:
        """Return the target as last saved, or a new one."""
        item = self._get(f"target#{name}")
        return Target.model_validate_json(item["body"]["S"]) if item else Target(name=name)

    def save_target(self, target: Target) -> Target:
        """Save the target. Raises LedgerConflict."""
        saved = target.but(version=target.version + 1)
        self._put(f"target#{saved.name}", saved.version, saved.model_dump_json(by_alias=True), {})
        return saved

    def record(self, name: str) -> Record:
        """Return a record as last saved, or a new one."""
        item = self._get(name)
        if item is None:
            return Record(name=name)
        packed = item.get("packed")
        return Record.model_validate_json(zlib.decompress(packed["B"]) if packed else item["body"]["S"])

    def save_record(self, record: Record) -> Record:
        """Save a record. Raises LedgerConflict."""
        saved = record.but(version=record.version + 1)
        text = saved.model_dump_json(by_alias=True)
        packed = {"packed": {"B": zlib.compress(text.encode())}} if len(text) > MAX_PLAIN else {}
        self._put(saved.name, saved.version, "" if packed else text, packed)
        return saved

    def claim(self, source: ObjectVersion) -> bool:
        """Remember a sequencer as the highest of its key; False when a higher one was seen before."""
        if not source.sequencer:
            return True
        try:
            self._client.update_item(
                TableName=self._table,
                Key={"pk": {"S": f"key#{source.bucket}/{source.key}"}},
                UpdateExpression="SET sequencer = :new",
                ConditionExpression="attribute_not_exists(sequencer) OR sequencer <= :new",
                ExpressionAttributeValues={":new": {"S": padded(source.sequencer)}},
            )
        except ClientError as error:
            if _refused(error):
                return False
            raise
        return True

    def note(self, name: str) -> Mapping[str, str]:
        """Return a small named note."""
        item = self._get(f"note#{name}")
        found: dict[str, str] = json.loads(item["body"]["S"]) if item else {}
        return found

    def save_note(self, name: str, values: Mapping[str, str], order: str = "") -> bool:
        """Overwrite a small named note, unless it was saved with a higher *order*; say whether it was."""
        try:
            self._client.put_item(
                TableName=self._table,
                Item={"pk": {"S": f"note#{name}"}, "body": {"S": json.dumps(dict(values))}, "note_order": {"S": order}},
                ConditionExpression="attribute_not_exists(note_order) OR note_order <= :order",
                ExpressionAttributeValues={":order": {"S": order}},
            )
        except ClientError as error:
            if _refused(error):
                return False
            raise
        return True

    def _get(self, pk: str) -> dict[str, Any] | None:
        found = self._client.get_item(TableName=self._table, Key={"pk": {"S": pk}}, ConsistentRead=True)
        item: dict[str, Any] | None = found.get("Item")
        return item

    def _put(self, pk: str, version: int, body: str, beside: Mapping[str, Any]) -> None:
        """Write an item if its version is still the one before *version*; the first is 1."""
        first = version == 1
        unchanged: dict[str, Any] = {"ConditionExpression": "attribute_not_exists(pk)"}
        if not first:
            read = {":read": {"N": str(version - 1)}}
            unchanged = {"ConditionExpression": "version = :read", "ExpressionAttributeValues": read}
        try:
            self._client.put_item(
                TableName=self._table,
                Item={"pk": {"S": pk}, "version": {"N": str(version)}, "body": {"S": body}, **beside},
                **unchanged,
            )
        except ClientError as error:
            if _refused(error):
                msg = f"{pk} was saved by somebody else since version {version - 1}"
                raise LedgerConflict(msg) from error
            raise


@dataclass(frozen=True)
class ContractNotes:
    """Remembers which contract an API was found to speak: a note of the ledger, until somebody deletes it."""

    ledger: DynamoLedger

    def contract(self, api: str) -> str | None:
        """Return what was remembered of the API at the address *api*."""
        return self.ledger.note(contract_note(api)).get("contract")

    def remember_contract(self, api: str, contract: str) -> None:
        """Keep it, and say so once."""
        logger.info("the API's contract was found out and is remembered", api=api, contract=contract)
        self.ledger.save_note(contract_note(api), {"contract": contract})


def _refused(error: ClientError) -> bool:
    return error.response.get("Error", {}).get("Code") == "ConditionalCheckFailedException"

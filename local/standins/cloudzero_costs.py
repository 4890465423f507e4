"""Billing costs and dimensions at the CloudZero stand-in: rows on order, grouped and paged as each contract does."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from werkzeug.wrappers import Response

from local.standins.cloudzero_json import dump, total
from local.standins.cloudzero_paging import Cursors, numbered
from local.standins.standin import Call, Refusal, answer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from local.standins.cloudzero_account import Account, CostRow

_BAD_REQUEST, _GONE, _TOO_MANY = 400, 410, 429
_NO_VALUE = ""
"""Stands for the dimension that a row does not have."""

Groups = dict[tuple[str, ...], dict[datetime, Decimal]]
"""Cost by period, by the values of the dimensions that are grouped by."""


@dataclass(frozen=True)
class Query:
    """A question for costs, in no contract's words."""

    start: datetime
    end: datetime
    granularity: str
    group_by: tuple[str, ...]
    filters: Mapping[str, list[str]]
    cost_type: str

    def grouped(self, rows: tuple[CostRow, ...]) -> Groups:
        """Sum the rows that are asked for."""
        groups: Groups = defaultdict(dict)
        for row in rows:
            if not (self.start <= row.time < self.end and self._takes(row)):
                continue
            if self.cost_type == "usage_amount":
                amount = row.by_type.get(self.cost_type, Decimal(0))
            else:
                amount = row.by_type.get(self.cost_type, row.cost)
            group = groups[tuple(row.dimensions.get(dimension, _NO_VALUE) for dimension in self.group_by)]
            period = self.start if self.granularity == "cumulative" else _period(row.time, self.granularity)
            group[period] = total(group.get(period, Decimal(0)), amount)
        return groups

    def _takes(self, row: CostRow) -> bool:
        return all(
            (row.dimensions.get(name.removeprefix("!"), _NO_VALUE) in values) is not name.startswith("!")
            for name, values in self.filters.items()
        )


class Costs:
    """The billing operations.

    Args:
        account: Whose costs.
    """

    def __init__(self, account: Account) -> None:
        self._account = account
        self.forget()

    def handlers(self) -> dict[str, Callable[[Call], Response]]:
        """Give the handler of each operation."""
        return {
            "getBillingCosts": self.rows if self._account.live else self.series,
            "getBillingDimensions": self.dimensions,
        }

    def forget(self) -> None:
        """Forget the queries of the day."""
        self._cursors = Cursors()
        self._queries = 0
        self._bodies: set[str] = set()

    def dimensions(self, call: Call) -> Response:
        """List the dimensions."""
        del call
        known = self._account.config.dimensions
        if self._account.live:
            return answer({"dimensions": [each.model_dump(include={"id", "name"}) for each in known]})
        return answer({"data": [each.model_dump() for each in known]})

    def rows(self, call: Call) -> Response:
        """Give a page of flat rows (live)."""
        config = self._account.config
        asked = {name: call.request.args.getlist(name) for name in call.request.args if name != "cursor"}
        cursor = call.request.args.get("cursor")
        if cursor is not None:
            if config.cursors_expired:
                raise Refusal(_GONE, "The cursor has expired; ask again.")
            page, pagination = self._cursors.at(cursor, asked)
        else:
            query = self._flat(call)
            if self._queries >= config.costs_per_day:
                raise Refusal(_TOO_MANY, f"{config.costs_per_day} queries a day are the limit.")
            self._queries += 1
            rows = [
                {"usage_date": period.isoformat(), "cost": amount, **dict(zip(query.group_by, group, strict=True))}
                for group, periods in query.grouped(config.costs).items()
                for period, amount in periods.items()
            ]
            rows.sort(key=lambda row: str(row["usage_date"]))
            page, pagination = self._cursors.first(rows, config.costs_page_rows, asked)
        return Response(dump({"costs": page, "pagination": pagination}), content_type="application/json")

    def series(self, call: Call) -> Response:
        """Give a page of series (openapi)."""
        body = call.body
        query = Query(
            start=_time(body["start"]),
            end=_time(body["end"]),
            granularity=body.get("granularity", "daily"),
            group_by=self._known(body.get("group_by", [])),
            filters=self._filters(body.get("filter", {})),
            cost_type=body.get("cost_type", "real"),
        )
        digest = hashlib.sha256(json.dumps(body, sort_keys=True, default=str).encode()).hexdigest()
        if int(call.request.args.get("page", 1)) == 1:
            self._bodies.add(digest)
        elif digest not in self._bodies:
            raise Refusal(_BAD_REQUEST, "A further page is asked for with another body than the first.")
        series = [
            {
                "group": dict(zip(query.group_by, group, strict=True)),
                "cost": [{"timestamp": _zulu(period), "value": amount} for period, amount in sorted(periods.items())],
            }
            for group, periods in query.grouped(self._account.config.costs).items()
        ]
        page, pagination = numbered(series, call.request, self._account.config.costs_page_rows)
        return Response(dump({"data": page, "pagination": pagination}), content_type="application/json")

    def _flat(self, call: Call) -> Query:
        """Read a query of the live contract."""
        args = call.request.args
        try:
            filters = json.loads(args.get("filters", "{}"))
        except ValueError:
            raise Refusal(_BAD_REQUEST, "filters is not JSON.") from None
        return Query(
            start=_time(args["start_date"]),
            end=_time(args["end_date"]) if "end_date" in args else datetime.now(UTC),
            granularity=args.get("granularity", "daily"),
            group_by=self._known(args.getlist("group_by")),
            filters=self._filters(filters),
            cost_type=args.get("cost_type", "real_cost").removesuffix("_cost"),
        )

    def _known(self, dimensions: list[str]) -> tuple[str, ...]:
        known = {each.id for each in self._account.config.dimensions}
        for dimension in dimensions:
            if dimension not in known:
                raise Refusal(_BAD_REQUEST, f"There is no dimension {dimension!r}.")
        return tuple(dict.fromkeys(dimensions))

    def _filters(self, given: object) -> dict[str, list[str]]:
        if not isinstance(given, dict):
            raise Refusal(_BAD_REQUEST, "A filter is an object.")
        self._known([name.removeprefix("!") for name in given])
        filters = {name: [value] if isinstance(value, str) else value for name, value in given.items()}
        for name, values in filters.items():
            if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
                raise Refusal(_BAD_REQUEST, f"The filter {name!r} is not a list of strings.")
        return filters


def _time(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text.upper())
    except ValueError:
        raise Refusal(_BAD_REQUEST, f"{text!r} is no ISO 8601 time.") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)


def _zulu(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _period(moment: datetime, granularity: str) -> datetime:
    """Give the beginning of the period that a time is in."""
    hour = moment.replace(minute=0, second=0, microsecond=0)
    day = hour.replace(hour=0)
    return {
        "hourly": hour,
        "daily": day,
        "weekly": day - timedelta(days=day.weekday()),
        "monthly": day.replace(day=1),
        "yearly": day.replace(month=1, day=1),
    }[granularity]

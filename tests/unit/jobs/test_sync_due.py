"""Schedules: which run a tick begins, once however often ticks come, and the same one whichever begins it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from finops_relay.delivery.defaults import Defaults
from finops_relay.delivery.ledger import Delivery
from finops_relay.delivery.ports import Queue
from finops_relay.delivery.waits import Waits
from finops_relay.jobs.syncing.preparing import CATCH_UP, Around, Due, Reader, begin_due, due_at
from finops_relay.sources.settings import AnySource
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.world.billing import Asked
from tests.world.relay import DROPS, Metrics
from tests.world.schedules import Parts

EXAMPLES = settings(max_examples=150)
DAY = datetime(2026, 3, 1, tzinfo=UTC)
TICKS = st.datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1)).map(lambda when: when.replace(tzinfo=UTC))  # noqa: DTZ001 -- hypothesis takes none with a zone
HOURS = st.integers(0, 23)


@EXAMPLES
@given(tick=TICKS, hour=HOURS)
def test_a_run_is_due_from_its_hour_on_for_as_long_as_it_is_caught_up(tick: datetime, hour: int) -> None:
    """Row 25: the run's time is the scheduled one, whatever the tick's."""
    found = due_at(tick, hour)
    hours_late = (tick.hour - hour) % 24
    if hours_late < CATCH_UP / timedelta(hours=1):
        assert found is not None
        assert (found.hour, found.minute, found.second, found.microsecond) == (hour, 0, 0, 0)
        assert timedelta(0) <= tick - found < CATCH_UP
    else:
        assert found is None


@EXAMPLES
@given(hour=HOURS, missed=st.sets(st.integers(0, 71), max_size=40), minute=st.integers(0, 59))
def test_every_day_has_one_run_however_many_ticks_are_missed(hour: int, missed: set[int], minute: int) -> None:
    """Row 25: a day has none only when all ticks of three hours were missed."""
    ticks = [DAY + timedelta(hours=number, minutes=minute) for number in range(72) if number not in missed]
    runs = {found for found in (due_at(tick, hour) for tick in ticks) if found is not None}
    expected = set()
    for day in range(-1, 3):
        at = DAY + timedelta(days=day, hours=hour)
        if any(at <= tick < at + CATCH_UP for tick in ticks):
            expected.add(at)
    assert runs == expected


@dataclass
class Schedule:
    """The schedule of some syncs, on ports in memory."""

    syncs: list[Due]
    parts: Parts = field(default_factory=Parts)
    queue: Asked = field(default_factory=Asked)

    def around(self) -> Around:
        """Return what the schedule needs."""

        def no_source(name: str, config: AnySource) -> Reader:
            raise AssertionError((name, config))

        return Around(self.parts.ports(Metrics()), Defaults(), Waits(), no_source, DROPS, hour_utc=3)

    def tick(self, hour: float, kind: str = "tagging-policies", queue: Queue | None = None) -> list[Delivery]:
        """Let a tick fire, so many hours after midnight; return the runs that were sent on."""
        return begin_due(DAY + timedelta(hours=hour), self.around(), kind, self.syncs, queue or self.queue)

    def runs(self) -> set[str]:
        """Return the names of all runs that were begun."""
        found = set()
        for delivery in [self.parts.ledger.delivery(sent) for sent in self.queue.deliveries]:
            assert delivery is not None
            found.add(delivery.source.key)
        return found


def due(name: str = "standard/CostCenter", hour: int | None = None, *, plan_only: bool = False) -> Due:
    """Return a sync that the schedule runs."""
    return Due(name, "cmdb", hour, plan_only)


def test_a_run_has_the_time_that_it_was_scheduled_for_in_its_name() -> None:
    """Row 25: the run's key is its scheduled time."""
    schedule = Schedule([due()])
    (run,) = schedule.tick(3.01)
    assert run.source.key == "schedule/tagging-policies/standard/CostCenter/2026-03-01T03:00Z"
    assert (run.kind, run.stage, run.dry_run) == ("tagging-policies", "preparing", False)
    assert schedule.queue.deliveries == [run.id]


@pytest.mark.parametrize("late", [3, 3.5, 4, 5.99])
def test_a_second_tick_is_the_same_run_and_does_nothing_once_it_is_under_way(late: float) -> None:
    """Row 25: a schedule that fires twice, or late, at whatever moment."""
    schedule = Schedule([due()])
    (run,) = schedule.tick(3)
    ledger = schedule.parts.ledger
    for changes in ({"attempts": 1}, {"attempts": 0, "waits": 1}, {"stage": "queued"}, {"stage": "finished"}):
        known = ledger.delivery(run.id)
        assert known is not None
        ledger.save(known.but(**changes))
        assert schedule.tick(late) == []
    assert schedule.queue.deliveries == [run.id]


def test_a_run_whose_message_was_never_sent_is_sent_by_the_next_tick() -> None:
    """Row 25: the function died between the two; the run is the same one, and its message too."""

    class Dying:
        def send(self, delivery: Delivery, *, nonce: str) -> None:
            raise RuntimeError(delivery.id, nonce)

    schedule = Schedule([due()])
    with pytest.raises(RuntimeError):
        schedule.tick(3, queue=Dying())
    assert [run.source.key for run in schedule.tick(4)] == [
        "schedule/tagging-policies/standard/CostCenter/2026-03-01T03:00Z"
    ]
    assert len(schedule.runs()) == 1


def test_a_missed_tick_is_caught_up_and_after_three_hours_left_to_the_next_day() -> None:
    """Row 25: a run that is far too late would read the source at its busiest."""
    schedule = Schedule([due()])
    assert [schedule.tick(hour) for hour in (2, 2.99, 6, 12)] == [[], [], [], []]
    assert len(schedule.tick(5.9)) == 1
    assert len(schedule.tick(27)) == 1
    assert {name.rpartition("/")[2] for name in schedule.runs()} == {"2026-03-01T03:00Z", "2026-03-02T03:00Z"}


def test_every_sync_has_its_own_hour_and_its_own_run() -> None:
    schedule = Schedule([due("a/x"), due("a/y", 4), due("a/z", 0), due("b/x", 3, plan_only=True)])
    assert [run.source.key.split("/")[2:4] for run in schedule.tick(0)] == [["a", "z"]]
    assert [run.source.key.split("/")[2:4] for run in schedule.tick(3)] == [["a", "x"], ["b", "x"]]
    found = schedule.tick(4)
    assert [run.source.key.split("/")[2:4] for run in found if run.id not in schedule.queue.deliveries[:3]] == [
        ["a", "y"]
    ]
    assert len(schedule.runs()) == 4


def test_a_sync_that_only_plans_is_a_dry_run() -> None:
    (run,) = Schedule([due(plan_only=True)]).tick(3)
    assert run.dry_run


def test_syncs_of_two_kinds_with_one_name_are_two_runs() -> None:
    schedule = Schedule([due("properties")])
    assert schedule.tick(3, "tagging-policies")[0].id != schedule.tick(3, "custom-properties")[0].id

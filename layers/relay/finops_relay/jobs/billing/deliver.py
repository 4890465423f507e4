"""Deliver a billing drop: check, send body after body, read back, name what was refused; each step remembered.

No body that adds to what is there is sent twice, and none whose outcome is unknown: a person decides about it. Bodies
that replace are repeated (contract page, "Drops, live contract").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from typing_extensions import override

from finops_relay.cloudzero.idempotency import IdempotencyKeys
from finops_relay.delivery.ledger import MAX_REASON, Delivery, clip
from finops_relay.delivery.packer import Mode
from finops_relay.delivery.ports import Ports, Queue
from finops_relay.delivery.receipt import Outcome, Unit
from finops_relay.delivery.telling import announce
from finops_relay.delivery.waits import Looks, Waits
from finops_relay.errors import (
    AnswerNotUnderstood,
    BodyTooLarge,
    NotFound,
    OutcomeUnknown,
    RequestRefused,
    SourceGone,
    VendorError,
    VendorUnavailable,
)
from finops_relay.jobs.billing.ahead import Ahead, Loaded
from finops_relay.jobs.billing.bodies import Rewriting, costs_of, origins_key, refused_rows, unfiled
from finops_relay.jobs.billing.judging import Answer, Case, Verdict, named, overtaken, replaces, settled
from finops_relay.jobs.billing.money import rest_rejected, total, with_read_back, with_rejected, with_sent
from finops_relay.jobs.billing.reading_back import Held, difference, part_arrived
from finops_relay.jobs.billing.remembered import (
    BodyPlan,
    Manifest,
    Owner,
    Removed,
    SentHours,
    Work,
    hours_name,
    month_of,
)
from finops_relay.jobs.billing.state import manifest_of, put_manifest
from finops_relay.jobs.run import ABOUT_ROWS, IN_DOUBT, UNSETTLED, Run, at_rest
from finops_relay.jobs.steps import STEP_NEEDS_S, moved
from finops_relay.jobs.turns import leave, turns

if TYPE_CHECKING:
    from finops_relay.cloudzero.client import CloudZero  # loads httpx, which the first message does
    from finops_relay.cloudzero.records import SentRow

UNHEARD = (OutcomeUnknown, AnswerNotUnderstood, VendorUnavailable)
"""After these a body may have been taken."""
MAX_REWRITES = 200
"""Bodies made anew for one delivery; a vendor that refuses more refuses something else than rows."""
MAX_ALL_REFUSED = 20
"""Rows refused one by one while none was taken: then it is not the rows."""
MAX_REMOVED = 300
"""Rows refused by the vendor that one delivery names; all that it remembers must fit an item of the ledger (400 KB)."""


def deliver(  # noqa: PLR0913, PLR0917 -- what the handler puts together, each used once
    delivery: Delivery,
    ports: Ports,
    vendor: Callable[[], CloudZero],
    prepare_queue: Queue,
    waits: Waits,
    read_back: Looks,
    pool: Executor | None = None,
) -> Delivery:
    """Take a prepared billing drop as far as it goes now; return it when it is over, held, or somebody else's turn.

    Args:
        delivery: as the ledger has it.
        ports: everything outside.
        vendor: makes the client.
        prepare_queue: of the function that prepared it, which names the rows that the vendor refused.
        waits: after trouble.
        read_back: while what was sent is not seen yet.
        pool: loads the next body while one is being sent; None loads each when its turn comes.

    Raises:
        Wait: the next step comes later; everything is saved.
        LedgerConflict: another run is at it.
    """
    found = at_rest(ports, delivery, prepare_queue)
    if found is not None:
        return found
    work = Work.model_validate(delivery.work)
    run = _Run(
        ports=ports,
        vendor=vendor,
        prepare_queue=prepare_queue,
        waits=waits,
        delivery=delivery,
        work=work,
        read_back=read_back,
        pool=pool,
    )
    try:
        return run.going_on()
    finally:
        run.ahead.close()


@dataclass(kw_only=True)
class _Run(Run[Work]):
    """One invocation's work on one delivery."""

    read_back: Looks
    pool: Executor | None
    manifests: dict[str, Manifest] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make what loads bodies."""
        self.ahead = Ahead(self._loaded, self.pool)

    @override
    def steps(self) -> Mapping[str, Callable[[], None]]:
        return {
            "check": self._check,
            "decided": self._decided,
            "send": self._send,
            "look": self._look,
            "read": self._read,
            "name": self.name_refused,
            "finish": self._finish,
        }

    # --- remembering --------------------------------------------------------------------------------------------------

    @override
    def let_go(self) -> None:
        for unit in self.delivery.units:
            if unit.spool_key:
                self.ports.spool.release(origins_key(unit.spool_key))

    @override
    def as_held(self) -> Delivery:
        return self._with_money()

    def _with_money(self) -> Delivery:
        """Return the delivery with the money that was sent."""
        return self.delivery.but(money=with_sent(self.delivery.money, self.work.unit_costs.values()))

    @override
    def accounted(self) -> Delivery:  # with its money, and the refused rows that no file names
        return self._with_money().warn(*unfiled(self.work))

    @override
    def settle(self) -> None:
        try:
            plans = self._manifest().bodies
        except SourceGone as error:
            said = f"{UNSETTLED}: {error}"
            if any(unit.status in {"accepted", IN_DOUBT} for unit in self.delivery.units):
                self.delivery = self.delivery.warn(said)
            return
        status: dict[int, set[str]] = {}
        for unit in self.delivery.units:
            for hour in plans[unit.spool_key].hours if unit.spool_key in plans else ():
                status.setdefault(hour, set()).add(unit.status)
        touched = {hour: found for hour, found in status.items() if found & {"accepted", IN_DOUBT}}
        if not touched:
            return
        # Of an hour in several bodies, some of them taken, nobody should believe that it is there.
        accepted = frozenset(hour for hour, found in touched.items() if found <= {"accepted", "refused"})
        known = (unit for unit in self.delivery.units if unit.spool_key in plans)
        wiping = {unit.status for unit in known if plans[unit.spool_key].mode is Mode.MONTH}
        wiped, shaken = "accepted" in wiping, IN_DOUBT in wiping
        unsent = frozenset(hour for hour, found in status.items() if not found <= {"accepted", "refused", "unchanged"})
        doubtful = frozenset(touched) - accepted
        seen = self.work.seen or not self.work.live

        def now(sent: SentHours) -> SentHours:
            case = self._case(sent)
            return settled(case, accepted, doubtful, wiped=wiped, seen=seen, shaken=shaken, unsent=unsent)

        self._remember(now)

    def _remember(self, change: Callable[[SentHours], SentHours]) -> None:
        """Change the record of the month."""
        record = self.ports.ledger.record(hours_name(self.work.connection, self.work.month))
        sent = SentHours.model_validate(record.content)
        found = change(sent)
        if found != sent:
            self.ports.ledger.save_record(record.but(content=found.model_dump(mode="json")))

    def _manifest(self, key: str = "") -> Manifest:
        """Return a manifest; this delivery's own where none is named. Raises SourceGone, ShortRead."""
        key = key or self.work.manifest
        if key not in self.manifests:
            self.manifests[key] = manifest_of(self.ports, self.delivery.source.bucket, key)
        return self.manifests[key]

    def _of_owner(self, owner: Owner) -> Manifest:
        return self._manifest(owner.manifest)

    def _case(self, sent: SentHours | None = None) -> Case:
        """Return this delivery beside what was sent before it."""
        if sent is None:
            record = self.ports.ledger.record(hours_name(self.work.connection, self.work.month))
            sent = SentHours.model_validate(record.content)
        return Case(self.delivery, self.work, self._manifest(), sent, self._of_owner)

    # --- before anything is sent --------------------------------------------------------------------------------------

    def _check(self) -> None:
        """Is it this delivery's turn, and what is to become of it?"""
        if not self.delivery.dry_run and not self._has_turn():
            return
        if self.client.name != self.work.contract:
            self.end_other_contract()
            return
        case = self._case()
        verdict = case.judged()
        if self.delivery.dry_run:
            self.planned(*_plan(verdict) if verdict.answer is not Answer.SEND else ("would_deliver", self._asked()))
        elif verdict.answer is Answer.SEND:
            self._begin(verdict)
        elif verdict.answer is Answer.UNCHANGED:
            units = tuple(unit.model_copy(update={"status": "unchanged"}) for unit in self.delivery.units)
            self.delivery = self.delivery.but(units=units, rows=moved(self.delivery.rows, accepted=True))
            # A version in between that comes late must not take its place.
            self._remember(lambda sent: sent.renewed(self.work.key, self.delivery.order))
            self.end(Outcome.UNCHANGED, verdict.why)
        elif verdict.answer is Answer.HELD:
            self.hold(verdict.why)
        elif verdict.answer is Answer.SUPERSEDED:
            self.end(Outcome.SUPERSEDED, verdict.why)
        else:
            rows, money = moved(self.delivery.rows, accepted=False), rest_rejected(self.delivery.money)
            self.delivery = self.delivery.but(rows=rows, money=money)
            self.end(Outcome.REJECTED, verdict.why)

    def _has_turn(self) -> bool:
        """Take the connection; False when a newer delivery makes this one needless. Raises Wait."""
        while True:
            newer = overtaken(self.delivery, self.work, turns(self.ports, self.delivery.target).waiting)
            over = self.ports.ledger.delivery(newer) if newer else None
            if newer and (over is None or over.outcome.final):  # it was queued twice, and has ended since
                leave(self.ports, self.delivery.but(id=newer))
                continue
            if newer and not self.work.decision:
                self.end(Outcome.SUPERSEDED, f"the newer delivery {newer} replaces the same whole")
                return False
            other = self.in_the_way()
            if other is None:
                return True
            if other.outcome is Outcome.HELD and replaces(self._case(), self._other(other)):
                reason = f"the newer delivery {self.delivery.id} replaces the same whole"
                unnamed = unfiled(Work.model_validate(other.work))
                ended = self.ports.ledger.save(other.warn(*unnamed).ended(Outcome.SUPERSEDED, self.now(), reason))
                announce(self.ports, ended)
                leave(self.ports, ended)
                continue
            raise self.wait_behind(other, "connection")

    def _other(self, other: Delivery) -> Case:
        work = Work.model_validate(other.work)
        return Case(other, work, self._manifest(work.manifest), SentHours(), self._of_owner)

    def _begin(self, verdict: Verdict) -> None:
        """Leave out what the vendor holds already, and begin to send."""
        if not verdict.already:
            self.done(step="send")
            return
        others: dict[str, list[Unit]] = {}
        with self._rewriting() as rewriting:
            for unit in self.delivery.units:
                plan = self._plan(unit)
                if plan.hours <= verdict.already:
                    others[unit.spool_key] = [unit.model_copy(update={"status": "unchanged"})]
                elif plan.hours & verdict.already:
                    rows = self.client.sent_rows(self.bytes_of(unit))
                    places = [place for place, row in enumerate(rows) if row.hour not in verdict.already]
                    others[unit.spool_key] = [rewriting.body(unit, rows, places, plan.mode)]
        there = sum(self._manifest().hours[hour].rows for hour in verdict.already)
        delivery = self.delivery.but(rows=moved(self.delivery.rows, accepted=True, count=there))
        self.work = self.work.model_copy(update={"step": "send"})
        said = f"{there:,} rows were sent before, just so, and are not sent again"
        self._replaced(delivery.warn(said), others, rewriting)

    def _asked(self) -> str:
        """Ask the vendor what can be asked without sending anything; return what it says of the rows."""
        if not self.work.live:
            self.client.dimensions()  # is the key good?
            return ""
        self.client.billing_drops(self.work.connection)
        for unit in self.delivery.units:
            verdict = self.client.validate_billing_drop(self.bytes_of(unit))
            if not verdict.is_valid:
                return f"CloudZero would refuse rows of body {unit.seq}: {'; '.join(verdict.errors[:5])}"
        return ""

    # --- a person's word ----------------------------------------------------------------------------------------------

    def _decided(self) -> None:
        """Go on as a person has said about a delivery that was held."""
        doubtful = [unit for unit in self.delivery.units if unit.status == IN_DOUBT]
        taken = [unit for unit in self.delivery.units if unit.status == "accepted"]
        begun = bool(doubtful or taken)
        if not begun and not self._has_turn():
            return
        if self.work.decision == "drop":
            self._dropped(doubtful)
        elif self.work.decision == "send":
            self._sent_again(doubtful, begun=begun)
        else:
            self._arrived(doubtful, begun=begun)

    def _dropped(self, doubtful: list[Unit]) -> None:
        """End: what was not sent is not sent, and what is in doubt stays so, also in the record of the month."""
        units = tuple(
            unit.model_copy(update={"status": "dropped"}) if unit.status == "owed" else unit
            for unit in self.delivery.units
        )
        accepted = self.delivery.rows.accepted
        rows, money = moved(self.delivery.rows, accepted=False), rest_rejected(self._with_money().money)
        self.delivery = self.delivery.but(units=units, rows=rows, money=money)
        doubt = "; nobody knows what arrived of the bodies that were in doubt" if doubtful else ""
        reason = f"by a person's decision (delivery {self.work.decided_by}) nothing more is sent{doubt}"
        self.end(Outcome.PARTLY_DELIVERED if accepted else Outcome.REJECTED, reason)

    def _sent_again(self, doubtful: list[Unit], *, begun: bool) -> None:
        """Send: under `live` all from the beginning, for it replaces; under `openapi` what is in doubt and the rest."""
        delivery, work = self.delivery, self.work
        if begun and self.work.live:
            accepted = sum(unit.rows for unit in delivery.units if unit.status == "accepted")
            units = tuple(
                unit.model_copy(update={"status": "owed"}) if unit.status in {"accepted", IN_DOUBT} else unit
                for unit in delivery.units
            )
            delivery = delivery.but(units=units, rows=moved(delivery.rows, accepted=True, count=-accepted))
            work = work.model_copy(update={"unit_costs": {}})
        for unit in doubtful if begun and not self.work.live else ():
            delivery = self.with_unit(unit.model_copy(update={"status": "owed"}), delivery)
        step = "send" if begun else "check"
        self.done(delivery, **{**dict(work), "step": step, "looks": 0, "watched_s": 0.0, "idempotency_key": ""})

    def _arrived(self, doubtful: list[Unit], *, begun: bool) -> None:
        """Mark as arrived: what is in doubt, or all of a delivery of which nothing was sent."""
        decision = f"by a person's decision (delivery {self.work.decided_by})"
        delivery, costs = self.delivery, dict(self.work.unit_costs)
        units = doubtful if begun else [unit for unit in delivery.units if unit.status == "owed"]
        for unit in units:
            costs[unit.spool_key] = self._loaded(unit).costs
            delivery = self.with_unit(unit.model_copy(update={"status": "accepted"}), delivery)
            delivery = delivery.but(rows=moved(delivery.rows, accepted=True, count=unit.rows))
        said = f"the difference on reading back was accepted {decision}"
        if units:
            said = f"taken for arrived {decision}: {', '.join(f'body {unit.seq}' for unit in units[:20])}"
        owed = any(unit.status == "owed" for unit in delivery.units)
        self.done(delivery.warn(said), step="send" if owed else "name", unit_costs=costs, seen=not owed)

    # --- sending ------------------------------------------------------------------------------------------------------

    def _send(self) -> None:
        """Send the next body, unless it may have been sent already and would count twice."""
        unit = self.owed()
        if unit is None:
            self.done(step="read" if self.work.live and self.any_accepted() else "name", looks=0, watched_s=0.0)
            return
        repeatable = self.work.live and self._plan(unit).mode is not Mode.APPEND
        intent = f"send {unit.spool_key}"
        again = self.delivery.intent == intent
        if again and not repeatable:
            self._unknown(unit, "the function ended before it heard the answer")
            return
        loaded = self.ahead.take(unit)
        keys = IdempotencyKeys(self.work.idempotency_key if again else "") if self.work.live else None
        trying = unit.model_copy(update={"attempts": unit.attempts + 1})
        perhaps = {*self.work.perhaps, *(self._plan(unit).hours if again else ())}
        self.save(
            self.with_unit(trying).but(intent=intent),
            idempotency_key=keys.current if keys else "",
            perhaps=tuple(sorted(perhaps)),
        )
        self.ahead.begin(self.owed(after=unit))
        try:
            answer = self.client.create_billing_drop(self.work.connection, loaded.data, keys)
        except VendorError as error:
            self._not_sent(trying, loaded.data, keys, error, repeatable=repeatable)
            return
        accepted = trying.model_copy(
            update={"status": "accepted", "vendor_id": answer.drop_id, "request_id": answer.request_id}
        )
        costs = self.work.unit_costs | {unit.spool_key: loaded.costs}
        delivery = self.with_unit(accepted).at("first_sent", self.now())
        rows = moved(delivery.rows, accepted=True, count=unit.rows)
        left = tuple(hour for hour in self.work.perhaps if hour not in self._plan(unit).hours)
        self.done(delivery.but(rows=rows), unit_costs=costs, idempotency_key="", perhaps=left, retried="")

    def _not_sent(
        self, unit: Unit, body: bytes, keys: IdempotencyKeys | None, error: VendorError, *, repeatable: bool
    ) -> None:
        """Decide what a body that was not taken leads to. Raises VendorError when it is to wait."""
        if isinstance(error, OutcomeUnknown | AnswerNotUnderstood) and not repeatable:
            self._unknown(unit, str(error))
            return
        hours, perhaps = self._plan(unit).hours, set(self.work.perhaps)
        if keys is not None and (keys.doubted or isinstance(error, UNHEARD)):
            perhaps |= hours
        if error.retryable:
            in_doubt = keys is not None and keys.in_doubt
            # An intent stays only where the vendor may have acted.
            self.save(
                self.delivery.but(intent=self.delivery.intent if in_doubt else ""),
                idempotency_key=keys.current if keys is not None and in_doubt else "",
                perhaps=tuple(sorted(perhaps)),
            )
            raise error
        if isinstance(error, BodyTooLarge) or error.call.status in ABOUT_ROWS:  # then it was not taken before, either
            perhaps -= hours
        self.save(self.delivery.but(intent=""), idempotency_key="", perhaps=tuple(sorted(perhaps)))
        if isinstance(error, BodyTooLarge):
            self._split(unit, body, error)
        elif isinstance(error, RequestRefused) and error.call.status in ABOUT_ROWS:
            self._refused(unit, body, error)
        else:
            raise error

    def _unknown(self, unit: Unit, why: str) -> None:
        """A body that adds may have arrived: look where the contract allows it, else leave it to a person."""
        self.ports.metrics.count("VendorTrouble")
        delivery = self.doubted(unit)
        if self.work.live:
            self.save(delivery.but(intent="", reason=clip(why, MAX_REASON)), step="look", looks=0, watched_s=0.0)
            return
        where = f"s3 object {unit.spool_key} of the spool bucket" if unit.spool_key else ""
        self.hold(
            f"nobody knows whether CloudZero has taken body {unit.seq} ({unit.rows:,} rows, {where}): {why}. Compare"
            f" connection {self.work.connection}, month {self.work.month}, in CloudZero; then 'send' if it did not"
            " arrive, 'mark as arrived' if it did, 'drop' to send nothing more",
            delivery=delivery,
        )

    @override
    def doubt_unheard(self) -> None:
        perhaps = frozenset(self.work.perhaps)
        for unit in [unit for unit in self.delivery.units if unit.status == "owed"]:
            replaced = perhaps and self._plan(unit).mode is not Mode.APPEND and self._plan(unit).hours & perhaps
            if replaced or self.delivery.intent == f"send {unit.spool_key}":
                self.doubt(unit)

    def _plan(self, unit: Unit) -> BodyPlan:
        return self._manifest().bodies[unit.spool_key]

    def _loaded(self, unit: Unit) -> Loaded:
        """Return a body and its money. Raises as _bytes."""
        data = self.bytes_of(unit)
        return Loaded(data, costs_of(self.client.sent_rows(data)))

    # --- refused bodies -----------------------------------------------------------------------------------------------

    @contextmanager
    def _rewriting(self) -> Iterator[Rewriting]:
        """Make bodies anew; the manifest that has them is written at the end."""
        month, number = month_of(self.work.month), self.work.rewritten + 1
        rewriting = Rewriting(self.ports, self.client, month, self._manifest(), number)
        yield rewriting
        put_manifest(self.ports, rewriting.key, rewriting.manifest)
        self.manifests[rewriting.key] = rewriting.manifest

    def _split(self, unit: Unit, body: bytes, error: VendorError) -> None:
        """Make two bodies of one that is too large for the vendor; a row that is too large alone is refused."""
        rows = self.client.sent_rows(body)
        if len(rows) == 1:
            self._remove(unit, rows, {0: str(error)})
            return
        self._halve(unit, rows, error)

    def _halve(self, unit: Unit, rows: Sequence[SentRow], error: VendorError) -> None:
        if self.work.rewritten >= MAX_REWRITES:
            self.end(Outcome.FAILED, f"bodies are refused again and again: {error}", redrop=True)
            return
        with self._rewriting() as rewriting:
            halves = rewriting.halves(unit, rows, live=self.work.live)
        delivery = self.delivery.warn(f"a body was refused whole and is sent in parts: {error}")
        self._replaced(delivery, {unit.spool_key: halves}, rewriting)

    def _refused(self, unit: Unit, body: bytes, error: VendorError) -> None:
        """Find the rows because of which a body was refused; the others go on without them. Raises Wait."""
        rows = self.client.sent_rows(body)
        if len(rows) == 1:
            if len(self.work.removed) >= MAX_ALL_REFUSED and not self.delivery.rows.accepted:
                advice = "check CLOUDZERO_CONTRACT: the tenant may speak the other one"
                self.end(Outcome.FAILED, f"CloudZero takes no row at all: {error}; {advice}", redrop=True)
                return
            self._remove(unit, rows, {0: error.call.detail or str(error)})
            return
        if not self.work.live:  # there is nothing to ask: what is taken of the halves tells
            self._halve(unit, rows, error)
            return
        in_time = lambda: self.ports.clock.remaining_s() > STEP_NEEDS_S  # noqa: E731 -- a word for it
        refused = refused_rows(self.client, rows, month_of(self.work.month), in_time)
        if refused is None:
            self.end(Outcome.FAILED, f"more rows are refused than can be told apart: {error}", redrop=True)
        elif refused:
            self._remove(unit, rows, refused)
        elif self.work.retried != unit.spool_key:
            self.save(retried=unit.spool_key)
            why = f"body {unit.seq} was refused, though CloudZero finds nothing wrong with any row of it: {error}"
            raise self.wait(self.waits.after(self.delivery.waits), why)
        else:
            self.end(Outcome.FAILED, f"body {unit.seq} was refused for no row of it: {error}", redrop=True)

    def _remove(self, unit: Unit, rows: Sequence[SentRow], refused: dict[int, str]) -> None:
        """Go on without the rows that the vendor refused; they will be named."""
        if len(self.work.removed) + len(refused) > MAX_REMOVED:
            first = next(iter(refused.values()))
            reason = f"CloudZero refuses more than {MAX_REMOVED} rows, one of them because: {first}"
            self.end(Outcome.FAILED, reason, redrop=True)
            return
        mode = self._plan(unit).mode
        with self._rewriting() as rewriting:
            anew, removed = rewriting.without(unit, rows, refused)
            others = {unit.spool_key: anew or [unit.model_copy(update={"status": "refused"})]}
            heir = self._heir(unit, mode) if not anew else None
            if heir is not None:  # what this body would have wiped, the next one has to
                all_rows = self.client.sent_rows(self.bytes_of(heir))
                others[heir.spool_key] = [rewriting.body(heir, all_rows, range(len(all_rows)), mode)]
        counted = moved(self.delivery.rows, accepted=False, count=len(refused))
        money = with_rejected(self.delivery.money, [row.costs for row in removed])
        self._replaced(self.delivery.but(rows=counted, money=money), others, rewriting, removed)

    def _heir(self, unit: Unit, mode: Mode) -> Unit | None:
        """Return the body that has to wipe what *unit* would have wiped, now that no row of it is sent."""
        if not self.work.live or mode is Mode.APPEND:
            return None
        hours = self._plan(unit).hours
        for other in self.delivery.units:
            if other.status != "owed" or other.spool_key == unit.spool_key:
                continue
            if mode is Mode.MONTH or (self._plan(other).mode is Mode.APPEND and self._plan(other).hours & hours):
                return other
        return None

    def _replaced(
        self,
        delivery: Delivery,
        others: Mapping[str, list[Unit]],
        rewriting: Rewriting,
        removed: tuple[Removed, ...] = (),
    ) -> None:
        """Remember the bodies that take the place of others."""
        units = [new for known in delivery.units for new in others.get(known.spool_key, [known])]
        numbered = tuple(known.model_copy(update={"seq": seq}) for seq, known in enumerate(units, 1))
        self.done(
            delivery.but(units=numbered),
            manifest=rewriting.key,
            rewritten=self.work.rewritten + 1,
            removed=(*self.work.removed, *removed),
        )
        for gone in set(others) - {known.spool_key for known in numbered}:
            self._let_go(gone)

    def _let_go(self, spool_key: str) -> None:
        """Let a body expire, and the origins of its rows."""
        self.ports.spool.release(spool_key)
        self.ports.spool.release(origins_key(spool_key))

    # --- what arrived -------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Has the rest of an oversized hour arrived, whose answer was lost? Raises Wait."""
        unit = next(unit for unit in self.delivery.units if unit.status == IN_DOUBT)
        before = [self._plan(known) for known in self.delivery.units if known.status == "accepted"]
        held = self._held_hours()
        if held is None or not self._first_in(unit):
            self._look_later(*self._not_seen(unit))
            return
        costs = self.work.unit_costs | {unit.spool_key: self._loaded(unit).costs}
        # Whatever has a part of an oversized hour has nothing else.
        hour = [money for key, money in costs.items() if self._manifest().bodies[key].hours & self._plan(unit).hours]
        if part_arrived(self._plan(unit), before, total(hour), held):
            delivery = self.with_unit(unit.model_copy(update={"status": "accepted"}))
            counted = moved(delivery.rows, accepted=True, count=unit.rows)
            said = f"the answer to body {unit.seq} was lost; it was read back and has arrived"
            self.done(delivery.but(rows=counted).warn(said), step="send", unit_costs=costs, idempotency_key="")
            return
        self._look_later(*self._not_seen(unit))

    @staticmethod
    def _not_seen(unit: Unit) -> tuple[str, str]:
        why = (
            f"nobody knows whether CloudZero has taken body {unit.seq} ({unit.rows:,} rows), which adds to an hour that"
            " does not fit one body; it is not to be seen for certain"
        )
        return f"{why}: 'send' sends the whole delivery anew and replaces, 'mark as arrived' goes on", why

    def _first_in(self, unit: Unit) -> bool:
        """Return whether nothing of a body's hours was sent before: what is shown of them can only be this delivery's.

        Reads may lag: a former version that looks alike must not be taken for what was just sent.
        """
        hours = self._plan(unit).hours
        return not self.work.decisions and not any(owner.hours & hours for owner in self._case().sent.owners)

    def _read(self) -> None:
        """Read this delivery's hours back, and compare rows and money. Raises Wait while they differ."""
        held = self._held_hours()
        if held is None:
            why = "what CloudZero shows of the month cannot be understood: nobody knows whether it holds what was sent"
            self._look_later(f"{why}: compare there; 'mark as arrived' ends it, 'send' sends everything anew", why)
            return
        found = difference(self._manifest(), held, whole_month=self.work.whole_month)
        hours = self._manifest().hours
        money = with_read_back(self.delivery.money, [held[hour].costs for hour in hours if hour in held])
        self.delivery = self.delivery.but(money=with_sent(money, self.work.unit_costs.values()))
        if not found:
            self.done(self.delivery.at("read_back", self.now()), step="name", seen=True)
            return
        held_up = (
            f"what CloudZero shows is not what it took: {found}. 'send' sends the whole delivery anew and replaces,"
            " 'mark as arrived' accepts the difference, 'drop' leaves it"
        )
        self._look_later(held_up, f"what was sent is read back: {found}")

    def _held_hours(self) -> Held | None:
        """Return what the vendor shows of the month; None when that is nothing that can be understood."""
        try:
            return self.client.billing_drop_hours(self.work.connection, month_of(self.work.month))
        except NotFound:  # nothing of the month is there, or not to be seen yet
            return {}
        except AnswerNotUnderstood as error:
            self.ports.metrics.count("VendorTrouble")
            self.delivery = self.delivery.warn(str(error))
            return None

    def _look_later(self, held: str, why: str) -> None:
        """Look again later, because what is read may lag; in the end a person must decide. Raises Wait."""
        if self.work.watched_s >= self.read_back.end_s:
            self.hold(held)
            return
        raise self.look_again(self.read_back, why)

    # --- the end ------------------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        """End with the outcome that the bodies add up to."""
        rows = self.delivery.rows
        own = self._case().sent.of(self.work.key) if self.work.live and not self.work.whole_month else None
        left = own.hours - frozenset(self._manifest().hours) if own is not None else frozenset()
        if left:  # a person has decided so, or CloudZero has refused all that was to replace them
            self.delivery = self.delivery.warn(f"{named(left)} keep what the former version of this file has sent")
        if not rows.accepted:
            self.end(Outcome.REJECTED, f"CloudZero refused all {rows.rejected:,} rows; mend them and drop them back")
        elif rows.rejected:
            self.end(Outcome.PARTLY_DELIVERED, f"{rows.rejected:,} rows were rejected; mend them and drop them back")
        else:
            self.end(Outcome.DELIVERED)


def _plan(verdict: Verdict) -> tuple[str, str]:
    """Return the word of a dry run for a verdict, and why."""
    words = {
        Answer.SEND: "would_deliver",
        Answer.UNCHANGED: "unchanged",
        Answer.HELD: "would_be_held",
        Answer.SUPERSEDED: "would_be_superseded",
        Answer.REJECTED: "would_be_rejected",
    }
    return words[verdict.answer], verdict.why

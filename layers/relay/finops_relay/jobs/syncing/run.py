"""Deliver a desired state: read what is there, plan, guard, apply, read again and verify.

Everything but the write can be done again at any time, so a delivery has one step: whatever a crash left behind is
seen by reading. What we own is remembered with what we last applied, so that a change made by hand is seen too.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from typing_extensions import override

from finops_relay.delivery import commands
from finops_relay.delivery.ledger import Delivery, Target, clip
from finops_relay.delivery.receipt import Outcome
from finops_relay.delivery.telling import announce, conclude
from finops_relay.errors import ChangeNotKept, InputRefused, SourceGone
from finops_relay.jobs.opening import change_target
from finops_relay.jobs.steps import Steps, moved
from finops_relay.jobs.syncing.lease import Taken, leased
from finops_relay.jobs.syncing.remembered import (
    Kept,
    Owned,
    SyncWork,
    change_owned,
    keep_state,
    kept_state,
    owned_of,
    plan_key,
    state_key,
)
from finops_relay.sync.guard import Facts, Guard, Verdict, expired, judge
from finops_relay.sync.plan import Plan, plan
from finops_relay.sync.state import State

if TYPE_CHECKING:
    from finops_relay.infracost.client import Infracost  # loads httpx, which the first message does

MAX_SAYS = 1_000
"""Characters of what a guard says in a receipt."""
MAX_UNKEPT = 5
"""Writes that the vendor accepts and does not show, before a person is asked: it may keep them in another form."""
LOOK_AGAIN_S = 30.0
"""Longest wait for a run that has the target: most end far before their lease."""

SyncWorkT = TypeVar("SyncWorkT", bound=SyncWork)


@dataclass(kw_only=True)
class SyncRun(Steps[SyncWorkT], Generic[SyncWorkT]):
    """One invocation's work on one delivery."""

    vendor: Callable[[str], Infracost]
    found: Plan | None = None
    """The plan, once it was made."""
    blind: ClassVar[bool] = False
    """Whether the vendor cannot be asked what it holds."""

    # --- what a kind says ---------------------------------------------------------------------------------------------

    @abstractmethod
    def desired(self) -> State:
        """Return what is wanted. Raises SourceGone, ShortRead."""

    @abstractmethod
    def remote(self, applied: State | None) -> State:
        """Return what the vendor holds; *applied* where it cannot be asked. Raises VendorError."""

    @abstractmethod
    def write(self, desired: State) -> str:
        """Make the vendor hold *desired*, and see that it does; return the request's id.

        Raises VendorError, and InputRefused for what is never sent.
        """

    @abstractmethod
    def facts(self, desired: State) -> Facts:
        """Return what the guards look at beside the plan."""

    def beside(self) -> dict[str, Any]:
        """Return what stands beside ours at the vendor, as JSON: a write must leave it as it is."""
        return {}

    def lost_beside(self, kept: Mapping[str, Any]) -> list[str]:
        """Return what of it is not as it was any more, in words."""
        del kept
        return []

    def taken_over(self, desired: State, remote: State) -> State:
        """Return what is ours once a person has said that what the vendor holds is right."""
        return remote.owned(desired.settings)

    def sure(self, target: Target) -> bool:
        """Return whether the vendor can be taken at its word that there is nothing to do."""
        del target
        return True

    def compared(self, applied: State | None) -> State | None:
        """Return what was last applied, where the vendor can be asked whether somebody has changed it."""
        return applied

    def notes(self, desired: State) -> list[str]:
        """Return what a person should know, and nobody is stopped by."""
        del desired
        return []

    # --- the steps ----------------------------------------------------------------------------------------------------

    @override
    def steps(self) -> Mapping[str, Callable[[], None]]:
        return {"check": self._check, "decided": self._decided}

    @override
    def plan(self) -> list[str]:
        return self.found.lines() if self.found else []

    @override
    def again(self) -> str:
        return self.work.again or super().again()

    @override
    def for_real(self) -> str:
        return self.work.again or super().for_real()

    @override
    def mend(self) -> str:
        if not self.work.again:
            return super().mend()
        return f"correct the rejected rows at the source, then: {self.work.again}"

    def _check(self) -> None:
        """Bring the vendor to what is desired, if nobody has to be asked first."""
        if self.delivery.dry_run:
            self._go(released=False)
        else:
            self._alone(lambda: self._go(released=False))

    def _decided(self) -> None:
        """Go on as a person has said about a delivery that was held."""
        decisions = {"drop": self._dropped, "send": lambda: self._go(released=True)}
        self._alone(decisions.get(self.work.decision, self._taken_over))

    def _alone(self, story: Callable[[], None]) -> None:
        """Run *story* while nobody else is at the target, unless a newer delivery makes it needless. Raises Wait."""
        try:
            with leased(self.ports, self.delivery.target, self.delivery.id):
                if not self._superseded():
                    self._end_older()
                    story()
        except Taken as taken:
            why = f"delivery {taken.by} is at the same target"
            raise self.wait(min(LOOK_AGAIN_S, max(1.0, taken.seconds)), why) from None

    def _superseded(self) -> bool:
        """End the delivery if a newer one was prepared or applied."""
        target = self.ports.ledger.target(self.work.owned)
        for order, other in (
            (target.applied_order, target.applied_delivery),
            (target.newest_order, target.newest_delivery),
        ):
            if order > self.delivery.order and other != self.delivery.id:
                self.end(Outcome.SUPERSEDED, f"the newer delivery {other} says what is to be there instead")
                return True
        return False

    def _end_older(self) -> None:
        """End an older delivery that a person was asked about: this one replaces the same thing whole."""
        held = owned_of(self.ports.ledger.target(self.work.owned)).held
        other = self.ports.ledger.delivery(held) if held not in {"", self.delivery.id} else None
        if other is None or other.order > self.delivery.order:
            return
        if other.outcome is Outcome.HELD:
            reason = f"the newer delivery {self.delivery.id} says what is to be there instead"
            conclude(self.ports, other.ended(Outcome.SUPERSEDED, self.now(), reason))
        elif other.outcome.final:  # whoever ended it may have died before saying so
            announce(self.ports, other)
        change_owned(self.ports, self.work.owned, held="")

    # --- plan, guard, apply, verify -----------------------------------------------------------------------------------

    def _go(self, *, released: bool) -> None:
        """Plan, and do what the guards, or a person, let pass."""
        target = self.ports.ledger.target(self.work.owned)
        owned, desired = owned_of(target), self.desired()
        applied, lost = self._applied(owned)
        remote, pending = self.remote(applied), self._pending(owned)
        arrived = pending is not None and remote.owned(pending.settings).fingerprint == pending.fingerprint
        applied = pending if arrived else applied
        found = self.found = plan(remote, desired, self.compared(applied))
        gone = self.lost_beside(pending.beside) if pending is not None else []
        nothing = found.nothing and self.sure(target) and not gone
        others = f"not as before our last write: {', '.join(gone[:20])}" if gone else ""
        before = owned.rows if owned.state else None
        known = self.facts(desired).model_copy(update={"rows_before": before, "lost": lost, "others_lost": others})
        now = self.now()
        verdicts = () if nothing else judge(found, desired, known, self.work.guards, now)
        if not nothing and self.blind and pending is not None:  # nobody knows which of the two the vendor holds
            also = judge(plan(pending, desired, None), desired, known, self.work.guards, now)
            verdicts += tuple(one for one in also if one.guard not in {verdict.guard for verdict in verdicts})
        refusing = [verdict for verdict in verdicts if verdict.refuses]
        fingerprint = remote.owned(desired.settings).fingerprint
        late = self._late(fingerprint, refusing) if released else ""
        goes_on = released and not late
        if not (nothing and self.delivery.intent and self.delivery.plan):  # else the plan that was applied stays
            self._tell(found, verdicts, released_by=self.work.decided_by if goes_on else "")
        self.delivery = self.delivery.warn(*expired(self.work.guards.overrides, now), *self.notes(desired))
        if nothing:
            same = applied is not None and applied.fingerprint == desired.fingerprint
            self._nothing_to_do(desired, known=same and not owned.pending, pending=owned.pending if arrived else "")
        elif self.delivery.dry_run:
            why = "; ".join(verdict.says for verdict in refusing)
            self.planned("would_be_held" if refusing else "would_deliver", clip(why, MAX_SAYS))
        elif late:
            self._ask(late, refusing, fingerprint)
        elif refusing and not released:
            self._ask("", refusing, fingerprint)
        elif found.nothing and self.sure(target):  # what is lost beside ours, a person has let pass
            self._nothing_to_do(desired, known=False, pending=owned.pending)
        else:
            self._apply(desired, fingerprint)

    def _late(self, fingerprint: str, refusing: list[Verdict]) -> str:
        """Return why a plan that a person has released is not the one that would be applied now."""
        if fingerprint != self.work.planned:
            return "the vendor's side has changed since the plan was made that you released"
        unseen = sorted({verdict.guard.value for verdict in refusing} - set(self.work.asked))
        return f"you have released a plan to which {', '.join(unseen)} did not object yet" if unseen else ""

    def _applied(self, owned: Owned) -> tuple[State | None, str]:
        """Return what was last applied, and why it is not known if it should be."""
        if not owned.state:
            return None, ""
        try:
            return kept_state(self.ports, self.delivery.source.bucket, owned.state), ""
        except SourceGone as error:
            return None, f"what was last applied is lost ({error}): nobody can tell what was changed by hand since"

    def _pending(self, owned: Owned) -> Kept | None:
        """Return what was being written when nothing more was heard of it; None where nothing was."""
        if not owned.pending:
            return None
        try:
            return kept_state(self.ports, self.delivery.source.bucket, owned.pending)
        except SourceGone:
            return None

    def _tell(self, found: Plan, verdicts: tuple[Verdict, ...], *, released_by: str) -> None:
        """Put the plan and what the guards say into the receipt; all of it into a file where it is long."""
        said = found.shown() | {"steps": found.lines()}
        person = {"verdict": "released", "released_by": released_by} if released_by else {}
        said["guards"] = [
            {**verdict.shown(), "says": clip(verdict.says, MAX_SAYS), **(person if verdict.refuses else {})}
            for verdict in verdicts
        ]
        if not found.fits:
            text = json.dumps(found.model_dump(mode="json"), indent=1, ensure_ascii=False)
            said["whole_plan"] = self.ports.drops.put(
                plan_key(self.delivery), text.encode("utf-8", "surrogatepass"), "application/json"
            )
        self.delivery = self.delivery.but(plan=said)

    def _nothing_to_do(self, desired: State, *, known: bool, pending: str = "") -> None:
        """End: the vendor holds just this; perhaps because this very delivery has written it before it was cut off.

        Args:
            desired: what it holds.
            known: whether it is what was last applied, too.
            pending: the key of what was being written when nothing more was heard of it, and has arrived.
        """
        if self.delivery.dry_run:
            self.planned("unchanged")
            return
        own = pending == state_key(self.delivery, self.work.owned)
        wrote = own or bool(self.delivery.intent)
        if pending and not wrote:
            writer = pending.rpartition("/")[2].removesuffix(".json")
            self.delivery = self.delivery.warn(f"delivery {writer} has written this; its answer was lost")
        self._remember(desired, known=known)
        units = tuple(
            unit.model_copy(update={"status": "accepted" if wrote else "unchanged"}) for unit in self.delivery.units
        )
        self.delivery = self.delivery.but(units=units, rows=moved(self.delivery.rows, accepted=True))
        self._say("delivered" if wrote else "unchanged")
        self._finish(Outcome.DELIVERED if wrote else Outcome.UNCHANGED, "" if wrote else "nothing to do: no write")

    def _ask(self, first: str, refusing: list[Verdict], fingerprint: str) -> None:
        """Hold the delivery: a person decides about this very plan."""
        self._say("held")
        told = tuple(verdict.guard.value for verdict in refusing)
        self.work = self.work.model_copy(update={"planned": fingerprint, "asked": told, "unkept": 0})
        change_owned(self.ports, self.work.owned, held=self.delivery.id)
        said = [first] if first else []
        said += [f"{verdict.guard.value}: {verdict.says}" for verdict in refusing]
        empty = any(verdict.guard is Guard.SOURCE_EMPTY for verdict in refusing)
        self.hold("; ".join(said), self._mend_nothing() if empty else "")

    def _mend_nothing(self) -> str:
        """Return what is to be done about a source without anything: nothing is never sent, so no release helps."""
        if self.work.again:
            return f"mend the source, which has nothing; then: {self.work.again}"
        source = self.delivery.source
        return f"mend the list, which is empty; then: {commands.copy('FILE', f's3://{source.bucket}/{source.key}')}"

    def _apply(self, desired: State, fingerprint: str) -> None:
        """Write, verify, and remember what was applied. Raises VendorError."""
        self._pend(desired)
        attempts = tuple(unit.model_copy(update={"attempts": unit.attempts + 1}) for unit in self.delivery.units)
        self.save(self.delivery.but(intent="write", units=attempts))
        try:
            request_id = self.write(desired)
        except InputRefused as error:
            self._pend(None)
            self.delivery = self.delivery.but(rows=moved(self.delivery.rows, accepted=False))
            self._say("refused")
            self._finish(Outcome.REJECTED, str(error))
            return
        except ChangeNotKept as error:
            self.save(unkept=self.work.unkept + 1)
            if self.work.unkept < MAX_UNKEPT:
                raise
            self._ask(f"{MAX_UNKEPT} times written and not kept: {error}", [], fingerprint)
            return
        self._remember(desired)
        units = tuple(
            unit.model_copy(update={"status": "accepted", "request_id": request_id}) for unit in self.delivery.units
        )
        self.delivery = self.delivery.but(units=units, rows=moved(self.delivery.rows, accepted=True))
        self._say("delivered")
        self._finish(Outcome.DELIVERED)

    def _say(self, verdict: str) -> None:
        """Put the verdict into the plan that the receipt shows."""
        self.delivery = self.delivery.but(plan={**(self.delivery.plan or {}), "verdict": verdict})

    def _pend(self, state: State | None) -> None:
        """Remember what is about to be applied, before it is; None where it was not after all."""
        key = state_key(self.delivery, self.work.owned) if state is not None else ""
        self._point(lambda target: target, {"pending": key})
        if state is not None:  # only now: what nothing points to would stay for ever
            keep_state(self.ports, key, state, self.beside())

    def _remember(self, applied: State, rows: int | None = None, *, known: bool = False) -> None:
        """Remember what the vendor holds of ours from now on; *known* where that is what is remembered already.

        Where it was left as it is, *rows* are those of the source that it came from.
        """
        target = self.ports.ledger.target(self.work.owned)
        before, sent = owned_of(target), self.delivery.fingerprint
        if (
            rows is not None and not self.blind
        ):  # this delivery has sent nothing; what did is known, unless nobody heard of the last write
            sent = "" if before.pending else target.applied_fingerprint
        key = before.state
        if not known:
            key = state_key(self.delivery, self.work.owned)
            if before.pending != key:
                self._pend(applied)
            else:
                keep_state(self.ports, key, applied, {})

        def now(target: Target) -> Target:
            return target.but(
                applied_order=self.delivery.order,
                applied_delivery=self.delivery.id,
                applied_fingerprint=sent,
                applied_at=self.now() if target.applied_delivery != self.delivery.id else target.applied_at,
            )

        changes = {"state": key, "rows": self.work.rows if rows is None else rows, "pending": ""}
        self._point(now, changes | ({"held": ""} if before.held == self.delivery.id else {}))

    def _point(self, now: Callable[[Target], Target], changes: Mapping[str, object]) -> None:
        """Change what we own at the target, and remove the states that nothing points to any more."""
        before = owned_of(self.ports.ledger.target(self.work.owned))
        for key in before.former:
            self.ports.drops.remove(key)
        after = before.model_copy(update=dict(changes))
        gone = tuple(sorted({before.state, before.pending} - {after.state, after.pending, ""}))

        def pointed(target: Target) -> Target:
            said = owned_of(target).model_copy(update={**changes, "former": gone})
            return now(target).but(content=said.model_dump(mode="json"))

        change_target(self.ports, self.work.owned, pointed)
        for key in gone:
            self.ports.drops.remove(key)

    def _finish(self, outcome: Outcome, reason: str = "") -> None:
        """End, and say which rows were left out on the way."""
        rejected = self.delivery.rows.rejected
        if outcome in {Outcome.DELIVERED, Outcome.UNCHANGED} and rejected:
            said = f"{rejected:,} rows were rejected; mend them and drop them back"
            if self.work.again:
                said = f"{rejected:,} rows of the source were rejected"
            self.end(Outcome.PARTLY_DELIVERED, said)
        else:
            self.end(outcome, reason)

    @override
    def leave(self, ended: Delivery) -> None:
        """Nobody is to be asked about it any more."""
        if not ended.dry_run and owned_of(self.ports.ledger.target(self.work.owned)).held == ended.id:
            change_owned(self.ports, self.work.owned, held="")

    # --- a person's decisions -----------------------------------------------------------------------------------------

    def _dropped(self) -> None:
        """End: nothing is written."""
        self.delivery = self.delivery.but(rows=moved(self.delivery.rows, accepted=False))
        self._say("dropped")
        self.end(Outcome.REJECTED, f"by a person's decision (delivery {self.work.decided_by}) nothing was written")

    def _taken_over(self) -> None:
        """Take what the vendor holds for what we have last applied: a change by hand is no drift any more."""
        owned, desired = owned_of(self.ports.ledger.target(self.work.owned)), self.desired()
        applied, _ = self._applied(owned)
        remote = self.remote(applied)
        taken = self.taken_over(desired, remote)
        self._remember(taken, max(owned.rows, len(taken.items)))
        rows = self.delivery.rows
        left = rows.model_copy(update={"filtered": rows.filtered + rows.owed, "owed": 0})
        by = {**self.delivery.filtered_by, "left as it is": rows.owed}
        units = tuple(unit.model_copy(update={"status": "left as it is"}) for unit in self.delivery.units)
        self.delivery = self.delivery.but(rows=left, filtered_by=by, units=units)
        self._say("left as it is")
        decision = f"by a person's decision (delivery {self.work.decided_by})"
        later = "a next run that wants something else changes it without asking about this again"
        reason = f"{decision} what the vendor holds is taken for ours, and nothing was written; {later}"
        self.end(Outcome.UNCHANGED, reason)

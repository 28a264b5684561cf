"""Budget limiter: limits of money by day or month, and of batch tokens by day.

The ledger says what has been used; this router adds what it has heard since, and what is under way
at all routers (`gateway.limits.period_meter`). Near a limit, a request is held for the most that it
may cost. Without news of the ledger the router goes on with what it knows.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from gateway.errors.limits import QuotaExceeded, RateLimited, SpendUnknown
from gateway.identity.project import Project
from gateway.ledger.calendar import period_start_s
from gateway.ledger.price import PriceList
from gateway.ledger.view import AccountsView
from gateway.limits.budget_meters import apply_view, has_budget, meter_id, meters_for, set_limits
from gateway.limits.cost import Amounts, charge_of
from gateway.limits.period_meter import Charge, PeriodMeter
from gateway.limits.rate_headers import duration
from gateway.routing.reservations import Settled
from gateway.telemetry.usage import Reservation

NO_METERS: Sequence[PeriodMeter] = ()
UNKNOWN_RETRY_S = 5.0
NO_LIMIT = 1 << 62
MAX_FOUND = 16_384
"""Clients and models whose meters are remembered."""

logger = logging.getLogger(__name__)


class BudgetHold:
    """What one request has set aside of its project's budgets."""

    __slots__ = ("_is_held", "amounts", "is_sent", "meters")

    def __init__(self, meters: Sequence[PeriodMeter], amounts: Amounts) -> None:
        self.meters = meters
        self.amounts = amounts
        self.is_sent = False
        """An attempt has been sent, and its end releases the hold."""
        self._is_held = True
        for meter in meters:
            meter.hold(amounts[meter.index])

    def release(self) -> None:
        """Stop holding it."""
        if self._is_held:
            self._is_held = False
            for meter in self.meters:
                meter.release(self.amounts[meter.index])

    def record_lost(self, clock_s: float) -> None:
        """Record that nobody knows what the request took."""
        for meter in self.meters:
            meter.record_lost(self.amounts[meter.index], clock_s)


class BudgetLimiter:
    """Budgets of all projects in one router, over all its models.

    `clock`: seconds of a clock that never goes back. `time_of_day`: Unix time. `counts_cached`:
    whether prompt tokens found in an engine's cache count. `refuses_unknown`: whether requests are
    refused while it is not known what their project has spent.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        time_of_day: Callable[[], float],
        counts_cached: Callable[[], bool] = lambda: False,
        refuses_unknown: Callable[[], bool] = lambda: False,
    ) -> None:
        self.prices = PriceList()
        self._clock = clock
        self._time_of_day = time_of_day
        self._counts_cached = counts_cached
        self._refuses_unknown = refuses_unknown
        self._projects: dict[str, tuple[Project, list[PeriodMeter]]] = {}
        self._found: dict[tuple[str, str, str, bool], Sequence[PeriodMeter]] = {}
        """By project, model, key and whether it is batch, the meters of a request."""
        self._holds: dict[int, BudgetHold] = {}
        """By the id of the dispatch, holds of attempts that are not settled."""
        self._view: AccountsView | None = None
        self._ledger_ahead_s = 0.0
        """How far the ledger's clock is ahead of this router's: the ledger's begins a period."""
        self.alerts: Counter[tuple[str, str]] = Counter()
        """Alerts that were logged since they were counted last, by project and interval."""

    @property
    def meters(self) -> Iterable[PeriodMeter]:
        """All meters."""
        return [meter for _, meters in self._projects.values() for meter in meters]

    @property
    def unsettled(self) -> int:
        """How many attempts are not settled."""
        return len(self._holds)

    def used(self, meter: PeriodMeter) -> int:
        """What has been used of a meter's limit."""
        return meter.used(self._now_s(), self._clock())

    def replace(self, projects: Iterable[Project]) -> None:
        """Follow a change of the projects; what is counted stays."""
        limited = {project.id: project for project in projects if has_budget(project)}
        self._found.clear()
        for id_ in self._projects.keys() - limited.keys():
            del self._projects[id_]
        for project in limited.values():
            self._adopt(project)

    def record_view(self, view: AccountsView) -> None:
        """Follow the ledger."""
        self._view = view
        self._ledger_ahead_s = view.as_of_s - self._time_of_day()
        if view.prices != self.prices.prices:
            self.prices = PriceList(view.prices)
        apply_view(view, self.meters, counts_cached=self._counts_cached())

    def meters_of(
        self, project: Project, model: str, key: str, *, is_batch: bool
    ) -> Sequence[PeriodMeter]:
        """Meters that a request counts against."""
        found = self._found.get((project.id, model, key, is_batch))
        if found is None:
            if project.id not in self._projects and has_budget(project):
                self._adopt(project)
            found = self._of(project.id, model, key, is_batch=is_batch)
        return found

    def reserve(
        self, meters: Sequence[PeriodMeter], expected: Amounts, most: Callable[[], Amounts]
    ) -> BudgetHold:
        """Set aside what a request is expected to take; `most`: what it may take at most.

        Raises:
            QuotaExceeded: its project's money is spent.
            RateLimited: the batch tokens of its day are used up.
            SpendUnknown: nobody knows what has been spent.
        """
        for meter in meters:
            if meter.spare <= expected[meter.index]:  # none is spare before it is looked up
                return self._reserve_closely(meters, expected, most)
        return BudgetHold(meters, expected)

    def _reserve_closely(
        self, meters: Sequence[PeriodMeter], expected: Amounts, most: Callable[[], Amounts]
    ) -> BudgetHold:
        """Reserve where it has to be found out what is left; see `reserve`."""
        now_s, clock_s = self._time_of_day() + self._ledger_ahead_s, self._clock()
        has_enough = True
        for meter in meters:
            if meter.hard is None:
                meter.spare = NO_LIMIT
                continue
            if not meter.is_known and self._refuses_unknown():
                raise SpendUnknown(
                    f"What project {meter.name} has used this {meter.interval} is not known yet.",
                    UNKNOWN_RETRY_S,
                )
            left = meter.hard - meter.used(now_s, clock_s)
            if left < expected[meter.index] or meter.is_near(left, clock_s):
                has_enough = False
            meter.find_spare(left)
        if has_enough:
            return BudgetHold(meters, expected)
        return self._reserve_most(meters, expected, most, now_s, clock_s)

    def _reserve_most(
        self,
        meters: Sequence[PeriodMeter],
        expected: Amounts,
        most: Callable[[], Amounts],
        now_s: float,
        clock_s: float,
    ) -> BudgetHold:
        """Set aside the most that a request may take, if a limit is near; see `reserve`."""
        limits = [
            (meter, meter.hard, meter.used(now_s, clock_s))
            for meter in meters
            if meter.hard is not None
        ]
        amounts = expected
        if any(meter.is_near(hard - used, clock_s) for meter, hard, used in limits):
            amounts = Amounts(*map(max, amounts, most()))
        for meter, hard, used in limits:
            amount = amounts[meter.index]
            if used + amount > hard:
                raise _refusal(meter, used, amount, meter.reset_s(now_s))
        return BudgetHold(meters, amounts)

    def check_again(self, hold: BudgetHold) -> None:
        """Check a request that has waited: other routers did not know of it, and have sent theirs.

        Raises:
            RateLimited: what all routers have used meanwhile leaves no room for it.
        """
        if hold.is_sent:
            return
        now_s, clock_s = self._now_s(), self._clock()
        for meter in hold.meters:
            used = meter.used(now_s, clock_s)
            if meter.hard is not None and used > meter.hard:
                amount = hold.amounts[meter.index]
                raise _refusal(meter, used - amount, amount, meter.reset_s(now_s))

    def record_sending(self, id_: int, hold: BudgetHold) -> None:
        """Record that an attempt of this router is about to be sent; `id_`: of its dispatch."""
        self._holds[id_] = BudgetHold(hold.meters, hold.amounts) if hold.is_sent else hold
        hold.is_sent = True

    def record_refused(self, id_: int) -> None:
        """Record that an engine has done nothing for an attempt: refused it, or was not reached."""
        if hold := self._holds.pop(id_, None):
            hold.release()

    def record_ended(self, hold: BudgetHold) -> None:
        """Record that a request of this router has ended."""
        if not hold.is_sent:
            hold.release()

    def record_reserved(self, reservation: Reservation) -> None:
        """Count a request that runs from now on."""
        if not self._projects or reservation.id in self._holds or reservation.is_copy:
            return
        found = self._of(
            reservation.project,
            reservation.model,
            reservation.key,
            is_batch=reservation.is_batch,
        )
        if found:
            amounts = Amounts(reservation.cost_nano, reservation.tokens)
            self._holds[reservation.id] = BudgetHold(found, amounts)

    def record_settled(self, settled: Sequence[Settled]) -> None:
        """Count what requests took instead of what they were expected to, if it is known."""
        if not (holds := self._holds):
            return
        clock_s, counts_cached = self._clock(), self._counts_cached()
        charges: dict[PeriodMeter, list[Charge]] = {}
        for reservation, usage in settled:
            hold = holds.pop(reservation.id, None)
            if hold is None:
                continue
            hold.release()
            if usage is None:
                hold.record_lost(clock_s)
                continue
            amounts = charge_of(self.prices, usage, counts_cached=counts_cached)
            for meter in hold.meters:
                if amount := amounts[meter.index]:
                    charge = Charge(usage.epoch, usage.seq, usage.ended_s, amount)
                    charges.setdefault(meter, []).append(charge)
        self._record_charges(charges, clock_s)

    def _record_charges(
        self, charges: Mapping[PeriodMeter, Sequence[Charge]], clock_s: float
    ) -> None:
        for meter, each in charges.items():
            meter.record_charges(each, clock_s)
            if meter.alerts:
                self._alert(meter)

    def _alert(self, meter: PeriodMeter) -> None:
        """Log amounts that have been reached, each once in a period."""
        now_s = self._now_s()
        used = meter.used(now_s, self._clock()) - meter.held
        start_s = period_start_s(meter.interval, now_s)
        if start_s != meter.alerted_for_s:
            meter.alerted_for_s = start_s
            meter.alerts = dict.fromkeys(meter.alerts, False)
        for amount in [each for each, is_logged in meter.alerts.items() if not is_logged]:
            if used >= amount:
                meter.alerts[amount] = True
                self.alerts[meter.name, meter.interval] += 1
                logger.warning(
                    "project %s has spent %s this %s%s: it has reached the alert of %s",
                    *(meter.name, money(used), meter.interval, _of_key(meter), money(amount)),
                )

    def _now_s(self) -> float:
        """Time of day, by the ledger's clock as far as it is known."""
        return self._time_of_day() + self._ledger_ahead_s

    def _of(self, project: str, model: str, key: str, *, is_batch: bool) -> Sequence[PeriodMeter]:
        scope = project, model, key, is_batch
        found = self._found.get(scope)
        if found is None:
            if len(self._found) >= MAX_FOUND:
                self._found.clear()
            _, meters = self._projects.get(project, (None, NO_METERS))
            found = self._found[scope] = [
                meter
                for meter in meters
                if meter.model in {None, model}
                and meter.key in {None, key}
                and (is_batch or meter.unit == "nano")
            ]
        return found

    def _adopt(self, project: Project) -> None:
        before = self._projects.get(project.id)
        if before is not None and before[0] == project:
            return
        known = {} if before is None else {meter_id(meter): meter for meter in before[1]}
        meters = [known.get(meter_id(meter), meter) for meter in meters_for(project)]
        for meter in meters:
            set_limits(meter, project)
        self._projects[project.id] = project, meters
        self._found.clear()
        if self._view is not None:
            new = [meter for meter in meters if meter_id(meter) not in known]
            apply_view(self._view, new, counts_cached=self._counts_cached())


def money(nano: int) -> str:
    """Write an amount in the currency's unit, such as 12.50."""
    return f"{nano / 1e9:,.2f}"


def _of_key(meter: PeriodMeter) -> str:
    return "" if meter.key is None else f" with key {meter.key}"


def _refusal(meter: PeriodMeter, used: int, requested: int, reset_s: float) -> RateLimited:
    if meter.unit == "tokens":
        where = f"in project {meter.name} on batch tokens per day"
        return RateLimited(
            f"Rate limit reached {where}: Limit {meter.hard}, Used {used}, Requested {requested}."
            f" Please try again in {duration(reset_s).decode()}.",
            "tokens",
            reset_s,
        )
    return QuotaExceeded(
        f"Project {meter.name} has reached its limit of {money(meter.hard or 0)} for this"
        f" {meter.interval}{_of_key(meter)}: spent {money(used)}, and the request may cost"
        f" {requested / 1e9:.6f}. The {meter.interval} ends in {duration(reset_s).decode()}.",
        reset_s,
    )

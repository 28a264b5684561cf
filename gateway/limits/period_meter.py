"""Period meter: money or batch tokens used in this day or month, by a project or one of its keys.

Method: what the ledger says, and what this router has heard of engines since. The ledger says up to
which record of each engine it has counted; those are dropped here, so that nothing is counted
twice, or lost between the two. Requests under way are added with what they are expected to take,
and requests of which nobody could tell, for a minute: until then, the ledger has an estimate. O(1)
a request.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from gateway.ledger.calendar import Interval, period_end_s, period_start_s
from gateway.limits.window import Window

NEAR_SHARE = 0.01
"""Share of a limit below which what is left counts as little."""
MAX_CHARGES = 4096
"""Charges that are kept apart, for a ledger that is far behind."""

Unit = Literal["nano", "tokens"]
UNITS: Sequence[Unit] = ("nano", "tokens")
"""In the order of `gateway.limits.cost.Amounts`."""


class Charge(msgspec.Struct, gc=False):
    """What records of one engine took; the last of them has this number."""

    epoch: int
    """The engine's process: no two engines start in the same nanosecond."""
    seq: int
    ended_s: float
    amount: int


class PeriodMeter:
    """Use in one interval: of money, in billionths of the currency's unit, or of batch tokens.

    `project`: id of the project. `name`: its name, for messages and metrics. `model`, `key`: what
    it is for; None: all.
    """

    __slots__ = (
        *("_base", "_base_start_s", "_charges", "_end_s", "_lost", "_minute", "_recent"),
        *("_start_s", "alerted_for_s", "alerts", "hard", "held", "index", "interval", "is_known"),
        *("key", "model", "name", "project", "spare", "unit"),
    )

    def __init__(
        self,
        project: str,
        name: str,
        interval: Interval,
        unit: Unit,
        *,
        model: str | None = None,
        key: str | None = None,
    ) -> None:
        self.project = project
        self.name = name
        self.interval: Interval = interval
        self.unit: Unit = unit
        self.index = UNITS.index(unit)
        """Index of what it counts in `Amounts`."""
        self.model = model
        self.key = key
        self.hard: int | None = None
        """Limit that refuses requests."""
        self.alerts: dict[int, bool] = {}
        """Amounts that are logged once they are reached, and whether that has happened."""
        self.alerted_for_s = 0
        """Beginning of the period that they were logged for."""
        self.held = 0
        """What requests under way are expected to take."""
        self.spare = 0
        """What is left for sure, beyond what counts as near: so much may be held unasked."""
        self.is_known = False
        """Whether the ledger has said what was used before."""
        self._base = self._base_start_s = 0
        """Sum of the ledger, and the beginning of its period."""
        self._charges: list[Charge] = []
        self._recent = 0
        """Sum of the charges in this period."""
        self._start_s = self._end_s = 0
        self._minute, self._lost = Window(), Window()
        """What was charged in the last minute, and what nobody knows."""

    def used(self, now_s: float, clock_s: float) -> int:
        """What has been used in this period, with what is under way.

        `now_s`: Unix time. `clock_s`: time of a clock that never goes back.
        """
        if now_s >= self._end_s:
            self._follow(now_s)
        if self._lost.tokens:
            self._lost.expire(clock_s)
        base = self._base if self._base_start_s == self._start_s else 0
        return base + self._recent + self._lost.tokens + self.held

    def is_near(self, left: int, clock_s: float) -> bool:
        """Whether so little is left that requests are held for the most that they may take."""
        minute = self._minute
        if clock_s >= minute.expires_s:
            minute.expire(clock_s)
        return left < minute.tokens or left < NEAR_SHARE * (self.hard or 0)

    def hold(self, amount: int) -> None:
        """Count what a request is expected to take, until `release`."""
        self.held += amount
        self.spare -= amount

    def release(self, amount: int) -> None:
        """Stop counting it."""
        self.held -= amount

    def find_spare(self, left: int) -> None:
        """Find out how much may be held before anybody has to look at what is left again.

        What is released meanwhile, and what leaves the last minute, is not counted.
        """
        near = max(self._minute.tokens, int(NEAR_SHARE * (self.hard or 0)) + 1)
        self.spare = left - near if self.is_known else 0

    def record_charges(self, charges: Sequence[Charge], clock_s: float) -> None:
        """Count what engines' records come to; an engine's clock never begins a period."""
        start_s = self._start_s
        amount = sum([each.amount for each in charges])
        self._minute.add(clock_s, 0, amount)
        self.spare -= 2 * amount  # more is used, and more counts as near
        self._recent += sum([each.amount for each in charges if each.ended_s >= start_s])
        self._charges += charges
        if len(self._charges) > MAX_CHARGES:
            self._merge()

    def record_lost(self, amount: int, clock_s: float) -> None:
        """Count a request of which nobody knows what it took."""
        self.spare -= amount
        self._lost.add(clock_s, 0, amount)

    def record_ledger(self, amount: int, start_s: int, counted: Mapping[int, int]) -> None:
        """Follow the ledger: what was used in the period that began at `start_s`.

        `counted`: by the epoch of each engine, the last record that is in it.
        """
        if not self.is_known:  # they were logged before this router started
            self.alerts = {
                alert: is_logged or amount >= alert for alert, is_logged in self.alerts.items()
            }
            self.alerted_for_s = start_s
        self.is_known = True
        self.spare = 0
        self._base, self._base_start_s = amount, start_s
        self._charges = [
            charge for charge in self._charges if charge.seq > counted.get(charge.epoch, -1)
        ]
        self._sum()

    def reset_s(self, now_s: float) -> float:
        """Seconds until the period ends."""
        self._follow(now_s)
        return max(0.0, self._end_s - now_s)

    def _follow(self, now_s: float) -> None:
        if now_s >= self._end_s:
            self._start_s = period_start_s(self.interval, now_s)
            self._end_s = period_end_s(self.interval, now_s)
            self._sum()

    def _sum(self) -> None:
        start_s = self._start_s
        self._recent = sum(each.amount for each in self._charges if each.ended_s >= start_s)

    def _merge(self) -> None:
        """Join the charges of one engine and day; they are dropped together, with the last."""
        merged: dict[tuple[int, int], Charge] = {}
        for charge in self._charges:
            id_ = charge.epoch, period_start_s("day", charge.ended_s)
            if (known := merged.setdefault(id_, charge)) is not charge:
                known.seq = max(known.seq, charge.seq)
                known.amount += charge.amount
        self._charges = list(merged.values())

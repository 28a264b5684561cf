"""What there is to tell of a test: how it was set, what came of it, in all and for each model."""

import math
from collections.abc import Mapping, Sequence
from typing import Self

import msgspec

from loadtests.users.figures import Figures, Span, Spread
from loadtests.users.outcome import Outcome
from loadtests.users.shapes import users_at
from loadtests.workloads.catalogue import TRACE


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """How things stood at a time, seconds since the epoch."""

    at_s: float
    users: int
    replicas: Mapping[str, int]
    """Of each model, where the server says."""


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured: enough to do it again."""

    workload: str
    shape: str
    users: int
    run_time_s: float
    scale: float
    think_scale: float
    trace: str
    """Its file, if there is one."""
    trace_speed: float
    seed: str
    host: str
    begun_s: float
    """Since the epoch."""

    @property
    def title(self) -> str:
        """In a few words; a trace has no users."""
        if self.workload == TRACE:
            return TRACE
        return f"{self.workload}, {self.shape}, up to {self.users} users"

    def peak(self, looks: Sequence[Look], sent_until_s: float) -> Span | None:
        """When all users were there and sent; of a trace, until all of it was sent."""
        if self.workload == TRACE:
            times_s = [self.begun_s, sent_until_s]
        else:
            times_s = [look.at_s for look in looks if self._is_peak(look, sent_until_s)]
        if not times_s or times_s[-1] <= times_s[0]:
            return None
        return Span(begin_s=times_s[0] - self.begun_s, end_s=times_s[-1] - self.begun_s)

    def _is_peak(self, look: Look, sent_until_s: float) -> bool:
        since_s = min(look.at_s - self.begun_s, math.nextafter(self.run_time_s, 0))
        wanted = users_at(self.shape, since_s, self.run_time_s, self.users) or 0
        return min(look.users, wanted) >= self.users and look.at_s <= sent_until_s


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """All there is to tell of a test."""

    setting: Setting
    seconds: float
    """From the beginning to the end of the last answer."""
    peak: Span | None
    """When all users were there; of a trace, when it was sent."""
    unsent: int
    """Requests of a trace that were not due before the end."""
    late_s: Spread | None
    """How late the requests of a trace were sent."""
    total: Figures
    models: Mapping[str, Figures]
    looks: Sequence[Look]

    @classmethod
    def of(
        cls,
        setting: Setting,
        outcomes: Sequence[Outcome],
        looks: Sequence[Look],
        *,
        sent_until_s: float,
        unsent: int = 0,
    ) -> Self:
        """Work them out; sending ended then, seconds since the epoch."""
        begun_s = setting.begun_s
        end_s = max((o.due_s + o.e2e_s for o in outcomes), default=begun_s)
        whole = Span(begin_s=0.0, end_s=max(end_s - begun_s, 1e-3))
        peak = setting.peak(looks, sent_until_s)
        names = sorted({outcome.model for outcome in outcomes})
        late = (o.late_s for o in outcomes if setting.workload == TRACE)
        return cls(
            setting=setting,
            seconds=whole.seconds,
            peak=peak,
            unsent=unsent,
            late_s=Spread.of(late),
            total=Figures.of(outcomes, begun_s, whole, peak),
            models={
                name: Figures.of([o for o in outcomes if o.model == name], begun_s, whole, peak)
                for name in names
            },
            looks=looks,
        )

"""Usage of the requests at an engine: what each HTTP call with an `Origin` takes of it.

One call may be several requests of the engine, its parts: one for each prompt, or each answer. Its
record is written once the call has left and all its parts have ended, however they ended.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from gateway.engine_telemetry.device_time import DeviceTime
from gateway.engine_telemetry.recent_use import RecentUses
from gateway.engine_telemetry.usage_log import UsageLog
from gateway.telemetry.dispatch import Dispatch, Origin
from gateway.telemetry.facts import EngineFacts
from gateway.telemetry.usage import RecentUse, Reservation, UsageRecord


@dataclass(slots=True, eq=False)
class CallUsage:
    """What one call has taken so far, all its parts together; times are those of its longest part.

    A prompt that several parts share is counted once.
    """

    dispatch: Dispatch
    origin: Origin
    arrived_s: float
    """When it arrived, in Unix time."""
    running_parts: int = 0
    has_left: bool = False
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    queue_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    busy_s: float = 0.0
    """Its share of the time of the engine."""
    is_aborted: bool = False

    def add_tokens(self, prompt_tokens: int, cached_tokens: int, completion_tokens: int) -> None:
        """Add the tokens of a part."""
        self.prompt_tokens += prompt_tokens
        self.cached_tokens += cached_tokens
        self.completion_tokens += completion_tokens

    def add_times(self, queue_s: float, prefill_s: float, decode_s: float, busy_s: float) -> None:
        """Add the times of a part."""
        self.queue_s = max(self.queue_s, queue_s)
        self.prefill_s = max(self.prefill_s, prefill_s)
        self.decode_s = max(self.decode_s, decode_s)
        self.busy_s += busy_s


class UsageMeter:
    """Calls at an engine, and what of them routers have not been sent yet.

    `notify` is called when there is something to send. `wall`: the time of day.
    """

    def __init__(
        self,
        facts: EngineFacts,
        notify: Callable[[], None],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.log = UsageLog(epoch=round(wall() * 1e9))
        self.device_time = DeviceTime(facts.step_tokens)
        """Shares of the engine's time."""
        self._model = facts.model
        self._devices = facts.devices
        self._notify = notify
        self._wall = wall
        self._running: dict[CallUsage, Reservation] = {}
        self._reserved: list[Reservation] = []
        self._usage: list[UsageRecord] = []
        self._recent = RecentUses(wall)

    @property
    def running(self) -> list[Reservation]:
        """Reservations of all calls that have not ended."""
        return list(self._running.values())

    @property
    def recent(self) -> list[RecentUse]:
        """Use of the last minute by calls that have ended."""
        return self._recent.snapshot()

    def pop(self) -> tuple[list[Reservation], list[UsageRecord]]:
        """What has arrived and what has ended since the last time."""
        news = self._reserved, self._usage
        self._reserved, self._usage = [], []
        return news

    def open_call(self, dispatch: Dispatch | None) -> CallUsage | None:
        """Count a call that has arrived; None if it is nobody's."""
        if dispatch is None or dispatch.origin is None:
            return None
        origin = dispatch.origin
        call = CallUsage(dispatch, origin, self._wall())
        reservation = Reservation.of(
            dispatch.id, origin, origin.model or self._model, is_batch=dispatch.is_batch
        )
        self._running[call] = reservation
        self._reserved.append(reservation)
        self._notify()
        return call

    def close_call(self, call: CallUsage) -> None:
        """Record that a call has left the engine's server."""
        call.has_left = True
        self._end_if_over(call)

    def begin_part(self, call: CallUsage) -> None:
        """Record that the engine works on a part of a call."""
        call.running_parts += 1

    def end_part(self, call: CallUsage, *, is_aborted: bool) -> None:
        """Record that a part of a call has ended, and that all of it has been added."""
        call.running_parts -= 1
        call.is_aborted = call.is_aborted or is_aborted
        self._end_if_over(call)

    def _end_if_over(self, call: CallUsage) -> None:
        if call.running_parts or not call.has_left or self._running.pop(call, None) is None:
            return
        record = UsageRecord(
            epoch=self.log.epoch,
            seq=self.log.next_seq,
            id=call.dispatch.id,
            origin=call.origin,
            model=self._model,
            adapter="" if call.origin.model == self._model else call.origin.model,
            arrived_s=call.arrived_s,
            ended_s=self._wall(),
            prompt_tokens=call.prompt_tokens,
            cached_tokens=min(call.cached_tokens, call.prompt_tokens),
            completion_tokens=call.completion_tokens,
            queue_s=call.queue_s,
            prefill_s=call.prefill_s,
            decode_s=call.decode_s,
            device_s=call.busy_s * self._devices,
            is_aborted=call.is_aborted,
        )
        self.log.append(record)
        self._recent.add(record)
        self._usage.append(record)
        self._notify()

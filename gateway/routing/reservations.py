"""Reservations of one model: the running requests of projects, whichever router sent them.

Method: a router counts its own request from the moment it sends it. The engine repeats the
reservation to all routers with the frame that accepts the request, and settles it with the frame
that has its usage. So all routers agree but for what is younger than a frame. A reservation whose
end nobody reports (its replica has gone, or refused it) is settled without usage.

After a gap in its telemetry, an engine tells what it has served meanwhile. Requests of this router
are part of that, and counted already.
"""

import math
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import msgspec

from gateway.telemetry.update import Update
from gateway.telemetry.usage import RecentUse, Reservation, UsageRecord

CONFIRMATION_S = 1.0
"""How long after its end a request's engine may still report that it has accepted it."""
RECENT_S = 60.0
"""How far back engines remember; a replica that returns sooner is known to have been heard."""
Settled = tuple[Reservation, UsageRecord | None]
"""A request that has ended, and what it took; None: nobody knows."""
MAX_UNHEARD = 10_000
"""Requests to one replica that are remembered while it is not heard."""


class Reserved(msgspec.Struct, frozen=True, gc=False):
    """What is set aside for a request of its project's limits."""

    tokens: int
    nano: int
    """Billionths of the currency's unit."""


class ReservationListener(Protocol):
    """What follows the reservations of a model."""

    def record_reserved(self, reservation: Reservation) -> None:
        """Record a request that runs from now on."""

    def record_settled(self, settled: Sequence[Settled]) -> None:
        """Record requests that have ended, such as all of a frame."""


class RecentUseListener(Protocol):
    """What makes up for requests that it has not been told of."""

    def record_recent(
        self, uses: Sequence[RecentUse], within_s: float, own: Sequence[Reservation]
    ) -> None:
        """Record what came to an engine in the last `within_s` seconds, and has ended.

        `own`: requests that may be among them, and have been recorded, since this router sent them.
        """


class Reservations:
    """Running requests of projects, by replica. `now` is in seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._listeners: list[ReservationListener] = []
        self._recent_listeners: list[RecentUseListener] = []
        self._heard_s: dict[str, float] = {}
        """By replica, when its last frame came."""
        self._running: dict[str, dict[int, Reservation]] = {}
        """By replica, what its engine has accepted."""
        self._sent: dict[str, dict[int, Reservation]] = {}
        """By replica, what this router has sent and the engine has not reported yet."""
        self._ended: OrderedDict[int, tuple[float, str]] = OrderedDict()
        """Requests in `_sent` that have ended: until when the engine may report them, and which
        replica."""
        self._overdue_s = math.inf
        """No engine is late to report one before this time."""
        self._unheard: defaultdict[str, deque[Reservation]] = defaultdict(_some)
        """By replica, requests of this router that were settled since it was heard last."""
        self._lost: set[int] = set()
        """Running requests of this router whose replica has gone before it reported them."""
        self._followed: set[str] = set()
        """Replicas whose telemetry is followed, also while they finish what they have."""

    def add_listener(self, listener: ReservationListener) -> None:
        """Tell `listener` of everything from now on."""
        self._listeners.append(listener)

    def add_recent_listener(self, listener: RecentUseListener) -> None:
        """Tell `listener` of what came before an engine's snapshot and was not heard of."""
        self._recent_listeners.append(listener)

    def record_sent(self, replica: str, reservation: Reservation) -> None:
        """Count a request of this router that is sent to a replica."""
        self._sent.setdefault(replica, {})[reservation.id] = reservation
        for listener in self._listeners:
            listener.record_reserved(reservation)

    def is_reported(self, replica: str, id_: int) -> bool:
        """Whether a replica has reported a request of this router that has not ended."""
        return id_ not in self._sent.get(replica, ()) and id_ not in self._lost

    def record_ended(self, replica: str, id_: int) -> None:
        """Record that this router's request has ended, whatever its engine reports later."""
        now_s = self._now()
        if self._lost:
            self._lost.discard(id_)
        if id_ in self._sent.get(replica, ()):
            until_s = now_s + CONFIRMATION_S
            self._ended[id_] = until_s, replica
            self._overdue_s = min(self._overdue_s, until_s)
        if now_s >= self._overdue_s:
            self._settle_overdue(now_s)

    def record_update(self, replica: str, update: Update) -> None:
        """Follow a frame of a replica's telemetry."""
        running = self._running.setdefault(replica, {})
        now_s = self._now()
        self._record_frame(replica, update, now_s)
        settled: list[Settled] = []
        if update.is_snapshot and running:
            known = {each.id for each in update.reserved} | {each.id for each in update.usage}
            settled += [(running.pop(id_), None) for id_ in running.keys() - known]
        if update.reserved:
            self._confirm(replica, update.reserved, running)
        for usage in update.usage:
            ended = running.pop(usage.id, None)
            if ended is not None:
                settled.append((ended, usage))
        if settled:
            self._publish_settled(settled)
        if now_s >= self._overdue_s:
            self._settle_overdue(now_s)

    def is_idle(self, replica: str) -> bool:
        """Whether a replica has no request of a project, as far as this router knows."""
        return not (self._running.get(replica) or self._sent.get(replica))

    def follow(self, replica: str) -> None:
        """Keep a replica's requests until `record_left`, even if it is dropped before."""
        self._followed.add(replica)

    def record_left(self, replica: str) -> None:
        """Record that a replica that has gone tells nothing any longer."""
        self._followed.discard(replica)
        self.drop_replica(replica)

    def drop_replica(self, replica: str) -> None:
        """Settle all requests of a replica that has gone, unless it still tells how they end."""
        if replica in self._followed:
            return
        sent = self._sent.pop(replica, {}).values()
        self._lost.update(each.id for each in sent if each.id not in self._ended)
        self._unheard[replica].extend(sent)
        left = [*self._running.pop(replica, {}).values(), *sent]
        for reservation in left:
            self._ended.pop(reservation.id, None)
        if left:
            self._publish_settled([(reservation, None) for reservation in left])
        oldest_s = self._now() - RECENT_S
        self._heard_s = {name: at_s for name, at_s in self._heard_s.items() if at_s > oldest_s}
        for forgotten in self._unheard.keys() - self._heard_s.keys():
            del self._unheard[forgotten]

    def close(self) -> None:
        """Settle all requests: the model has gone."""
        self._followed.clear()
        for replica in [*self._running, *self._sent]:
            self.drop_replica(replica)

    def _record_frame(self, replica: str, update: Update, now_s: float) -> None:
        if update.recent:
            within_s = now_s - self._heard_s.get(replica, -math.inf)
            ended = [
                each for id_, each in self._sent.get(replica, {}).items() if id_ in self._ended
            ]
            running = {each.id for each in update.reserved}
            own = [*self._unheard.get(replica, ()), *ended]
            own = [each for each in own if each.id not in running]
            for listener in self._recent_listeners:
                listener.record_recent(update.recent, within_s, own)
        self._heard_s[replica] = now_s
        if self._unheard:
            self._unheard.pop(replica, None)

    def _confirm(
        self, replica: str, reserved: Iterable[Reservation], running: dict[int, Reservation]
    ) -> None:
        """Record what a replica's engine has accepted."""
        sent, ended = self._sent.get(replica, {}), self._ended
        for reservation in reserved:
            id_ = reservation.id
            if id_ in ended:
                del ended[id_]
            if sent.pop(id_, None) is None and id_ not in running:
                for listener in self._listeners:
                    listener.record_reserved(reservation)
            running[id_] = reservation

    def _settle_overdue(self, now_s: float) -> None:
        self._overdue_s = math.inf
        settled: list[Settled] = []
        while self._ended:
            id_, (until_s, replica) = next(iter(self._ended.items()))
            if until_s > now_s:
                self._overdue_s = until_s
                break
            del self._ended[id_]
            if reservation := self._sent[replica].pop(id_, None):
                self._unheard[replica].append(reservation)
                settled.append((reservation, None))
        if settled:
            self._publish_settled(settled)

    def _publish_settled(self, settled: Sequence[Settled]) -> None:
        for listener in self._listeners:
            listener.record_settled(settled)


def _some() -> deque[Reservation]:
    return deque(maxlen=MAX_UNHEARD)

"""What the time of one request went into, told to its client in `Server-Timing`."""

from collections.abc import Callable

Step = tuple[str, float, float]
"""What was done, from when and until when."""

RECEIVE = "receive"
"""Reading the request's body, as fast as it comes."""
QUEUE = "queue"
"""Waiting for an engine, be it to start the request or to be started itself."""
ROUTE = "route"
"""Admitting the request and choosing its replica, without the wait."""
CONNECT = "connect"
"""Connecting to the engine, where no connection was kept."""
ENGINE = "engine"
"""From the request sent to the head of the engine's answer."""
FIRST_EVENT = "first_event"
"""From there to the first event of a stream: engines begin to answer before they have any."""
STEPS = (RECEIVE, QUEUE, ROUTE, CONNECT, ENGINE, FIRST_EVENT)
HEADER = (
    b"receive;dur=%.2f, queue;dur=%.2f, route;dur=%.2f, connect;dur=%.2f, engine;dur=%.2f,"
    b" first_event;dur=%.2f, gateway;dur=%.2f"
)
"""The steps' milliseconds, and what the gateway itself has added, routing included."""


class Timing:
    """One request's steps, each of which may have been taken several times; all in seconds.

    `now` is a clock of any beginning.
    """

    __slots__ = ("_now", "_spent_s", "began_s", "first_s", "replied_s", "steps")

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.began_s = now()
        self._spent_s = dict.fromkeys(STEPS, 0.0)
        self.steps: list[Step] | None = None
        """All of them, where they are to be kept."""
        self.replied_s: float | None = None
        """When the answer began."""
        self.first_s: float | None = None
        """When the first event of a stream was sent."""

    def now(self) -> float:
        """The time, by the clock."""
        return self._now()

    def add(self, name: str, from_s: float, to_s: float) -> None:
        """A step was taken."""
        self._spent_s[name] += to_s - from_s
        if self.steps is not None:
            self.steps.append((name, from_s, to_s))

    def spent_s(self, name: str) -> float:
        """All the time that a step took."""
        return self._spent_s[name]

    def own_s(self) -> float:
        """What the gateway itself has added until the answer began, or until now."""
        spent = self._spent_s
        until_s = self.replied_s or self._now()
        return max(0.0, until_s - self.began_s - sum(spent.values()) + spent[ROUTE])

    def reply(self) -> tuple[bytes, bytes]:
        """The answer begins now: the header for it, in milliseconds."""
        self.replied_s = self._now()
        steps_ms = (1000 * seconds for seconds in self._spent_s.values())
        return b"server-timing", HEADER % (*steps_ms, 1000 * self.own_s())

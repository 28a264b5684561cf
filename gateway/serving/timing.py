"""What the time of one request went into, told to its client in `Server-Timing`."""

from collections.abc import Callable
from types import TracebackType
from typing import Self

from gateway.header_names import SERVER_TIMING

Step = tuple[str, float, float]
"""What was done, from when and until when."""

RECEIVE = "receive"
"""Reading the request's body, as fast as it comes."""
QUEUE = "queue"
"""Waiting for an engine: to start the request, or to be started itself."""
ROUTE = "route"
"""Making the prompt's prefix keys, admitting the request and choosing its replica."""
CONNECT = "connect"
"""Connecting to the engine, where no connection was kept."""
ENGINE = "engine"
"""From the request sent to the head of the engine's answer, or to its failure."""
FIRST_EVENT = "first_event"
"""From there to the first event of a stream: engines begin to answer before they have any."""
STEPS = (RECEIVE, QUEUE, ROUTE, CONNECT, ENGINE, FIRST_EVENT)
HEADER = (
    b"receive;dur=%.2f, queue;dur=%.2f, route;dur=%.2f, connect;dur=%.2f, engine;dur=%.2f,"
    b" first_event;dur=%.2f, gateway;dur=%.2f"
)
"""The steps' milliseconds, and what the gateway itself has added, routing included."""


class Timing:
    """One request's steps, each of which may be taken several times; all in seconds.

    `with timing.step(QUEUE): ...` is one; a step within another is taken out of that. `now` is a
    clock of any beginning.
    """

    __slots__ = (
        *("_now", "_own_s", "_since_s", "_spent_s", "_under_way"),
        *("began_s", "first_s", "replied_s", "steps"),
    )

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.began_s = self._since_s = now()
        self._spent_s = dict.fromkeys(STEPS, 0.0)
        self._under_way: list[str] = []
        self._own_s = 0.0
        self.steps: list[Step] | None = None
        """All of them, where they are to be kept."""
        self.replied_s: float | None = None
        """When the answer began."""
        self.first_s: float | None = None
        """When the first event of a stream was sent."""

    def now(self) -> float:
        """The time, by the clock."""
        return self._now()

    def step(self, name: str) -> Self:
        """Begin a step, which ends with the context or with `end`."""
        self._count()
        self._under_way.append(name)
        return self

    def end(self) -> None:
        """The step that began last has ended."""
        self._count()
        self._under_way.pop()

    def leave(self, name: str) -> None:
        """End the step of that name, if it is the one under way."""
        if self._under_way and self._under_way[-1] == name:
            self.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    def split(self, name: str, first: str, first_s: float) -> None:
        """Of the step that has just ended, the first part was a step of its own."""
        self._spent_s[name] -= first_s
        self._spent_s[first] += first_s
        if self.steps:
            _, from_s, to_s = self.steps.pop()
            self.steps += [(first, from_s, from_s + first_s), (name, from_s + first_s, to_s)]

    def spent_s(self, name: str) -> float:
        """All the time that a step took."""
        return self._spent_s[name]

    def own_s(self) -> float:
        """What the gateway itself has added until the answer began, or until now."""
        if self.replied_s is not None:
            return self._own_s
        self._count()
        spent = self._spent_s
        return max(0.0, self._since_s - self.began_s - sum(spent.values()) + spent[ROUTE])

    def reply(self) -> tuple[bytes, bytes]:
        """The answer begins now: the header for it, in milliseconds."""
        self._own_s = self.own_s()
        self.replied_s = self._since_s
        steps_ms = [1000 * seconds for seconds in self._spent_s.values()]
        return SERVER_TIMING, HEADER % (*steps_ms, 1000 * self._own_s)

    def _count(self) -> None:
        """Count the time since the last look for the step that is under way."""
        since_s, self._since_s = self._since_s, self._now()
        if self._under_way:
            name = self._under_way[-1]
            self._spent_s[name] += self._since_s - since_s
            if self.steps is not None:
                if self.steps and self.steps[-1][0] == name:
                    _, since_s, _ = self.steps.pop()  # it goes on
                self.steps.append((name, since_s, self._since_s))

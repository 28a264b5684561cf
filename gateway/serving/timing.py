"""Timing of one request by step, reported to its client in `Server-Timing`."""

from collections.abc import Callable
from types import TracebackType
from typing import Self

from gateway.asgi import Headers
from gateway.header_names import PROCESSING_MS, SERVER_TIMING

Step = tuple[str, float, float]
"""Name of a step, its beginning and its end."""

RECEIVE = "receive"
"""Reading the request's body, as fast as it arrives."""
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
"""Milliseconds of the steps, and those that the gateway itself has added, routing included."""


class Timing:
    """Steps of one request, each of which may be taken several times; all in seconds.

    `with timing.step(QUEUE): ...` is one; the time of a step within another does not count for the
    outer one. `now`: seconds, from any beginning.
    """

    __slots__ = (
        *("_now", "_overhead_s", "_since_s", "_spent_s", "_under_way"),
        *("began_s", "first_event_s", "responded_s", "steps"),
    )

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.began_s = self._since_s = now()
        self._spent_s = dict.fromkeys(STEPS, 0.0)
        self._under_way: list[str] = []
        self._overhead_s = 0.0
        self.steps: list[Step] | None = None
        """All steps, where they are recorded."""
        self.responded_s: float | None = None
        """When the response began."""
        self.first_event_s: float | None = None
        """When the first event of a stream was sent."""

    def now(self) -> float:
        """Time now, by the clock."""
        return self._now()

    def record_steps(self) -> None:
        """Record each step from now on, with its beginning and end."""
        self.steps = []

    def step(self, name: str) -> Self:
        """Begin a step, which ends with the context or with `end`."""
        self._add_elapsed()
        self._under_way.append(name)
        return self

    def end(self) -> None:
        """End the step that began last."""
        self._add_elapsed()
        self._under_way.pop()

    def end_if(self, name: str) -> None:
        """End the step that began last, if it is the one of that name."""
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
        self._add_elapsed()
        self._under_way.pop()

    def split(self, name: str, first: str, first_s: float) -> None:
        """Count the first part of the step that has just ended as a step of its own."""
        self._spent_s[name] -= first_s
        self._spent_s[first] += first_s
        if self.steps:
            _, from_s, to_s = self.steps.pop()
            self.steps += [(first, from_s, from_s + first_s), (name, from_s + first_s, to_s)]

    def mark_first_event(self) -> None:
        """The first event of the stream is sent now."""
        self.first_event_s = self._now()

    def spent_s(self, name: str) -> float:
        """Total time of a step."""
        return self._spent_s[name]

    def overhead_s(self) -> float:
        """Time that the gateway itself has added until the response began, or until now."""
        if self.responded_s is not None:
            return self._overhead_s
        self._add_elapsed()
        spent = self._spent_s
        return max(0.0, self._since_s - self.began_s - sum(spent.values()) + spent[ROUTE])

    def headers(self) -> Headers:
        """The headers for the response, which begins now."""
        self._overhead_s = self.overhead_s()
        self.responded_s = self._since_s
        steps_ms = [1000 * seconds for seconds in self._spent_s.values()]
        timing = (SERVER_TIMING, HEADER % (*steps_ms, 1000 * self._overhead_s))
        engine_ms = 1000 * self._spent_s[ENGINE]
        return [timing, (PROCESSING_MS, b"%d" % engine_ms)] if engine_ms else [timing]

    def _add_elapsed(self) -> None:
        """Add the time since the last call to the step that is under way."""
        since_s, self._since_s = self._since_s, self._now()
        if self._under_way:
            name = self._under_way[-1]
            self._spent_s[name] += self._since_s - since_s
            if self.steps is not None:
                if self.steps and self.steps[-1][0] == name:
                    _, since_s, _ = self.steps.pop()  # it goes on
                self.steps.append((name, since_s, self._since_s))

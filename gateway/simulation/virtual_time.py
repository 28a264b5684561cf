"""Virtual time for asyncio: an event loop whose clock jumps from timer to timer."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any

from gateway.simulation.timeline import Timeline


class _JumpingSelector(selectors.DefaultSelector):
    """Selector that, where a real one would wait, moves its clock instead."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready at once; otherwise let the time pass."""
        if timeout is None:
            raise RuntimeError("nothing is scheduled: the simulation would wait for ever")
        self.now_s += max(0.0, timeout)
        return super().select(0)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Event loop in virtual time, for code that uses timers and no sockets."""

    def __init__(self) -> None:
        self._clock = _JumpingSelector()
        super().__init__(self._clock)

    def time(self) -> float:
        """Return the current virtual time, in seconds."""
        return self._clock.now_s


class LoopTimeline(Timeline):
    """Timeline of the running event loop."""

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()

    def __call__(self) -> float:
        """Return the current time."""
        return self._loop.time()

    def call_at(self, time_s: float, event: Callable[[], None]) -> None:
        """Schedule an event."""
        self._loop.call_at(time_s, event)


def run_in_virtual_time(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine and all that it starts, without waiting."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(main())

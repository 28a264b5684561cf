"""Threads of vLLM's renderer, of which a request has one at a time.

vLLM 0.32 hands all prompts of a request to its threads for tokenizing at once, and the next
request's prompt waits behind them: 2,048 prompts kept others for more than a second.
"""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import Any

from deployments.engines.call import current_call


@dataclass(frozen=True, slots=True)
class _Job:
    """Work that is to be done in a thread."""

    work: Callable[[], Any]
    result: Future[Any] = field(default_factory=Future)

    def do(self) -> None:
        """Do the work, unless nobody waits for it any more."""
        if not self.result.set_running_or_notify_cancel():
            return
        try:
            self.result.set_result(self.work())
        except BaseException as error:  # noqa: BLE001 - for whoever waits, as executors do
            self.result.set_exception(error)


class FairRendering:
    """Hands work to an executor, whose method it replaces: what holds on to it is unaffected.

    Work outside of calls goes to the executor as it comes.
    """

    def __init__(self, executor: Executor) -> None:
        self._submit = executor.submit
        executor.submit = self.submit  # type: ignore[method-assign]
        self._lock = Lock()
        self._queues: dict[int, deque[_Job]] = {}
        """By call that has a thread, what else it wants done; calls are told apart by identity."""

    def submit(self, work: Callable[..., Any], /, *args: Any, **named: Any) -> Future[Any]:  # noqa: ANN401
        """Have work done in a thread, once earlier work of the same call is."""
        call = current_call()
        if call is None:
            return self._submit(work, *args, **named)
        job = _Job(partial(work, *args, **named))
        with self._lock:
            queue = self._queues.get(id(call))
            if queue is not None:
                queue.append(job)
                return job.result
            self._queues[id(call)] = deque()
        try:
            self._submit(self._do_all, call, job)
        except RuntimeError:  # the executor has been shut down
            with self._lock:
                del self._queues[id(call)]
            raise
        return job.result

    def _do_all(self, call: object, job: _Job) -> None:
        """Do a job, and put the call's next one behind the jobs of others."""
        job.do()
        with self._lock:
            queue = self._queues[id(call)]
            if not queue:
                del self._queues[id(call)]
                return
            following = queue.popleft()
        try:
            self._submit(self._do_all, call, following)
        except RuntimeError as error:  # likewise
            with self._lock:
                left = [following, *self._queues.pop(id(call))]
            for each in left:
                if each.result.set_running_or_notify_cancel():
                    each.result.set_exception(error)

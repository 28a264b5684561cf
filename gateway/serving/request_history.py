"""History of a router's requests: those that run, and the last ones that have ended.

A request ends when its client has the answer; its tokens come with its engine's telemetry, up to
some 50 ms before or after that. So a summary waits for them a while, and is then passed on to the
request log and the trace with or without. Cost: O(1) a request; 1 KB for each that is kept.
"""

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

from gateway.routing.decision import Decision
from gateway.serving.request_summary import RequestSummary
from gateway.telemetry.update import Finished

KEPT_REQUESTS = 10_000
REPORT_TIMEOUT_S = 2.0
"""How long a summary waits for its engine's report."""
EARLY_TIMEOUT_S = 600.0
"""How long a report waits for the end of its request, whose client may read slowly."""

SummaryListener = Callable[[RequestSummary], None]
ReportListener = Callable[[Finished | None], None]


class ArrivedRequest(Protocol):
    """A request that has not ended."""

    request_id: str

    def progress(self) -> dict[str, object]:
        """What is known of it so far, as JSON shows it."""


class _Awaiting(NamedTuple):
    """A summary that waits for the report of an engine."""

    until_s: float
    summary: RequestSummary
    on_report: ReportListener | None


class RequestHistory:
    """Requests of one router.

    `clock`: seconds, from any beginning. `is_heard`: whether the telemetry of a decision's replica
    arrives, so that its report is worth waiting for.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        is_heard: Callable[[Decision], bool] = lambda _: False,
        size: int = KEPT_REQUESTS,
    ) -> None:
        self._clock = clock
        self._is_heard = is_heard
        self._size = size
        self._running: set[ArrivedRequest] = set()
        self._ended: deque[RequestSummary] = deque(maxlen=size)
        self._awaiting: OrderedDict[int, _Awaiting] = OrderedDict()
        """By the ids of the last decisions, the oldest first."""
        self._early: OrderedDict[int, tuple[float, Finished]] = OrderedDict()
        """Reports that came before their requests had ended, by the ids of decisions: until when
        they are kept, the oldest first. Some are on requests that never ask for them."""
        self._listeners: list[SummaryListener] = []

    def add_listener(self, listener: SummaryListener) -> None:
        """Have `listener` called with the summary of each request, once it is complete."""
        self._listeners.append(listener)

    def record_arrived(self, request: ArrivedRequest) -> None:
        """Keep a request until `record_left`."""
        self._running.add(request)

    def record_left(self, request: ArrivedRequest) -> None:
        """Forget a request that runs no more."""
        self._running.discard(request)

    def record_ended(
        self,
        summary: RequestSummary,
        decision: Decision | None,
        on_report: ReportListener | None = None,
    ) -> None:
        """Keep a request's summary, once its engine's report has come.

        `decision`: the last one on it, if its engine may report on that. `on_report`: called with
        the report, or with None if none comes.
        """
        if self._awaiting:
            self.expire()
        if decision is None:
            self._complete(summary, None, on_report)
        elif (early := self._early.pop(decision.id, None)) is not None:
            self._complete(summary, early[1], on_report)
        elif self._is_heard(decision):
            until_s = self._clock() + REPORT_TIMEOUT_S
            self._awaiting[decision.id] = _Awaiting(until_s, summary, on_report)
        else:
            self._complete(summary, None, on_report)

    def record_refused(self, summary: RequestSummary) -> None:
        """Pass on the summary of a request that was not let in; it is not kept.

        Whoever may not enter must not drive the requests of others from the history.
        """
        for listener in self._listeners:
            listener(summary)

    def record_finished(self, decision: Decision, finished: Finished) -> None:
        """Record the report of an engine."""
        awaiting = self._awaiting.pop(decision.id, None)
        if awaiting is not None:
            self._complete(awaiting.summary, finished, awaiting.on_report)
            return
        now_s = self._clock()
        self._early[decision.id] = now_s + EARLY_TIMEOUT_S, finished
        while len(self._early) > self._size or next(iter(self._early.values()))[0] <= now_s:
            self._early.popitem(last=False)

    def expire(self) -> None:
        """Complete the summaries that have waited long enough."""
        now_s = self._clock()
        while self._awaiting:
            id_, (until_s, summary, on_report) = next(iter(self._awaiting.items()))
            if until_s > now_s:
                return
            del self._awaiting[id_]
            self._complete(summary, None, on_report)

    def close(self) -> None:
        """Complete all summaries: nobody waits for reports any more."""
        while self._awaiting:
            _, (_, summary, on_report) = self._awaiting.popitem(last=False)
            self._complete(summary, None, on_report)

    def running(self, request_id: str) -> list[dict[str, object]]:
        """The requests of that id that have not ended."""
        return [each.progress() for each in self._running if each.request_id == request_id]

    def ended(self, request_id: str) -> list[RequestSummary]:
        """The requests of that id that have ended, the newest first."""
        awaiting = [each.summary for each in reversed(self._awaiting.values())]
        return [
            summary
            for summary in (*awaiting, *reversed(self._ended))
            if summary.request_id == request_id
        ]

    def _complete(
        self, summary: RequestSummary, finished: Finished | None, on_report: ReportListener | None
    ) -> None:
        if finished is not None:
            summary = summary.with_tokens(finished)
        self._ended.append(summary)
        for listener in self._listeners:
            listener(summary)
        if on_report is not None:
            on_report(finished)

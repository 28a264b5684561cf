"""Run of one batch by one worker: its lines are sent, as many at a time as its window allows.

A worker may die at any moment, and another one goes on: results count from the moment on at
which the database has them (`ResultWriter`), and all other lines run again. So each line is in the
results once, although an engine may have answered it twice.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from gateway.batch.dispatch_window import DispatchWindow, Pace
from gateway.batch.input_check import decode_line
from gateway.batch.input_copy import InputCopy
from gateway.batch.line_caller import LineAnswer, LineCall, LineCaller
from gateway.batch.line_feed import LineFeed, LineTry
from gateway.batch.line_plan import LinePlan
from gateway.batch.line_set import LineSet
from gateway.batch.result_lines import LineUsage, answer_line, usage_of
from gateway.batch.result_writer import LineResult, ResultWriter
from gateway.batch.retries import is_fault, retry_delay_s
from gateway.batch.start_budget import StartBudget
from gateway.decaying_mean import DecayingMean
from gateway.errors.anthropic import error_body
from gateway.errors.gateway_error import GatewayError
from gateway.store.batches import BatchRow, PartKind, Superseded
from gateway.store.file_storage import StorageUnavailable

DECAY = 0.98
"""Weight of what earlier lines took, with each that ends."""
LARGE_ANSWER = 1 << 20
"""Bytes of an answer from which on the event loop would stand still too long."""
STOP_S = 5.0
"""Most time to write the last results of a run that is given up: less than its claim lasts."""
IDLE_S = 1.0
"""Most time between two looks at the clock."""
DEFECT = GatewayError("The gateway had an internal error; its log has the details.")
NO_WINDOW = DispatchWindow(0)
TOKENS_PER_BYTE = 1 / 4
"""Of prompts, about."""

logger = logging.getLogger(__name__)


class BatchRun:
    """Lines of one batch under way.

    `done`: lines that have results. `time_of_day`, `clock`: seconds since the epoch, and by a clock
    that never goes back.
    """

    def __init__(  # noqa: PLR0913 - its parts and its clocks
        self,
        row: BatchRow,
        copy: InputCopy,
        plan: LinePlan,
        done: LineSet,
        caller: LineCaller,
        writer: ResultWriter,
        *,
        time_of_day: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._row = row
        self._copy = copy
        self._plan = plan
        self._done = done
        self._caller = caller
        self._writer = writer
        self._time_of_day = time_of_day
        self._clock = clock
        self._feed = LineFeed(plan, done)
        self._window = NO_WINDOW
        self._budget = StartBudget()
        self._next: LineTry | None = None
        """A line that has been taken, and waits for room."""
        self._calls: dict[asyncio.Task[tuple[str, LineAnswer]], LineTry] = {}
        self._sequences = 0
        """Sequences of the lines under way."""
        self._changed = asyncio.Event()
        self._is_cancelled = False
        self._line_s = DecayingMean(DECAY)
        self._tokens = DecayingMean(DECAY)

    @property
    def under_way(self) -> int:
        """Lines under way."""
        return len(self._calls)

    @property
    def pace(self) -> Pace:
        """What is left to do, and in which time."""
        return Pace(
            left=len(self._plan) - len(self._done),
            time_left_s=self._row.expires_s - self._time_of_day(),
            line_s=self._line_s.value,
        )

    @property
    def tokens(self) -> float:
        """Tokens of a line's prompt and its answer, on average; 0 if unknown."""
        return self._tokens.value

    def use_window(self, window: DispatchWindow, lanes: int) -> None:
        """Have so many lines under way from now on, in so many lanes.

        A line counts as many times as it has sequences; one with more than a window alone.
        """
        self._feed.use_lanes(lanes)
        self._window = window
        self._budget.renew(window)
        if self._has_room:
            self._changed.set()

    def cancel(self) -> None:
        """Send no more lines, and give up those under way."""
        self._is_cancelled = True
        self._changed.set()

    async def run(self) -> None:
        """Send lines until all are done, the batch is cancelled, or its time is up.

        Lines that have been answered by then have results; also if this is cancelled, as far as
        they can be written within `STOP_S`.

        Raises:
            Superseded: another worker has the batch.
        """
        try:
            while not self._is_over():
                self._send_lines()
                await self._wait()
                await self._collect()
                await self._writer.flush_due()
            await self._collect()
        except asyncio.CancelledError:
            await self._write_last()
            raise
        finally:
            await self._give_up()
        await self._writer.flush()

    def _is_done(self) -> bool:
        return len(self._done) >= len(self._plan)

    def _is_over(self) -> bool:
        is_late = self._time_of_day() >= self._row.expires_s
        return self._is_cancelled or is_late or self._is_done()

    def _send_lines(self) -> None:
        window, now_s = self._window, self._clock()
        guaranteed = sum(each.is_guaranteed for each in self._calls.values())
        while self._has_room:
            line = self._next = self._next or self._feed.next(now_s)
            if line is None or not self._fits(line):
                return
            tokens = line.place.prompt_bytes * TOKENS_PER_BYTE
            line.is_guaranteed = guaranteed < window.guaranteed
            if not (line.is_guaranteed or self._budget.may_start(tokens, now_s)):
                return
            self._next = None
            self._budget.record_start(tokens, now_s)
            guaranteed += line.is_guaranteed
            line.tries += 1
            line.sent_s = now_s
            task = asyncio.create_task(self._call(line))
            task.add_done_callback(lambda _: self._changed.set())
            self._calls[task] = line
            self._sequences += line.place.sequences

    @property
    def _has_room(self) -> bool:
        return self._sequences < self._window.lines

    def _fits(self, line: LineTry) -> bool:
        return not self._calls or self._sequences + line.place.sequences <= self._window.lines

    async def _call(self, line: LineTry) -> tuple[str, LineAnswer]:
        """Have a line answered; returns its `custom_id`, too."""
        found = decode_line(await self._copy.line(line.place))
        request_id = f"{self._row.id}-{line.place.number}-{line.tries}"
        call = LineCall(
            project_id=self._row.project_id,
            path=self._row.endpoint,
            body=bytes(found.body),  # type: ignore[arg-type] # the line has been checked
            request_id=request_id,
            session=f"{self._row.id}/{line.lane}",
            is_guaranteed=line.is_guaranteed,
        )
        try:
            answer = await self._caller.call(call)
        except Exception:
            # A defect of the gateway's own, which another try may not meet.
            logger.exception("request %s failed", request_id)
            body = error_body(DEFECT, call.path, request_id.encode())
            answer = LineAnswer(status=DEFECT.status, body=body, request_id=request_id)
        return str(found.custom_id), answer

    async def _wait(self) -> None:
        """Wait until a call ends, the window changes, or it is time for something."""
        now_s = self._clock()
        times = [now_s + IDLE_S, now_s + self._row.expires_s - self._time_of_day()]
        has_room = self._next is None and self._has_room
        retry_s = self._feed.retry_s if has_room else None
        times += [s for s in (retry_s, self._writer.due_s) if s is not None]
        try:
            async with asyncio.timeout(max(0.0, min(times) - now_s)):
                await self._changed.wait()
        except TimeoutError:
            return
        self._changed.clear()

    async def _collect(self) -> None:
        """Take the results of all calls that have ended."""
        for task in [each for each in self._calls if each.done()]:
            line = self._calls.pop(task)
            self._sequences -= line.place.sequences
            self._feed.end(line)
            custom_id, answer = task.result()
            line.faults += is_fault(answer)
            delay_s = retry_delay_s(answer, line.tries, line.faults)
            if delay_s is None:
                await self._record(line, custom_id, answer)
            else:
                self._feed.try_again(line, self._clock() + delay_s)

    async def _record(self, line: LineTry, custom_id: str, answer: LineAnswer) -> None:
        is_answered = 200 <= answer.status < 300
        data, usage = await self._line(custom_id, answer)
        if is_answered:
            self._line_s.observe(self._clock() - line.sent_s)
            self._tokens.observe(usage.input_tokens + usage.output_tokens)
        self._done.add(line.place.number)
        kind: PartKind = "output" if is_answered else "error"
        await self._writer.add(LineResult(line.place.number, kind, data, usage))

    async def _line(self, custom_id: str, answer: LineAnswer) -> tuple[bytes, LineUsage]:
        """Line of the results, and what it took; a large one is made in a thread."""
        if len(answer.body) < LARGE_ANSWER:
            return _result_of(custom_id, answer)
        return await asyncio.to_thread(_result_of, custom_id, answer)

    async def _write_last(self) -> None:
        """Write what has been answered, unless that takes long or another worker has the batch."""
        try:
            async with asyncio.timeout(STOP_S):
                await self._collect()
                await self._writer.flush()
        except (TimeoutError, Superseded, StorageUnavailable):
            logger.warning("batch %s: its last results run again", self._row.id)

    async def _give_up(self) -> None:
        """Cancel the calls under way."""
        calls, self._calls, self._sequences = list(self._calls), {}, 0
        for task in calls:
            task.cancel()
        if calls:
            await asyncio.wait(calls)


def _result_of(custom_id: str, answer: LineAnswer) -> tuple[bytes, LineUsage]:
    is_answered = 200 <= answer.status < 300
    usage = usage_of(answer.body) if is_answered else LineUsage()
    return answer_line(custom_id, answer.status, answer.request_id, answer.body), usage

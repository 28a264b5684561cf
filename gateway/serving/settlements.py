"""What a router owes the ledger: attempts that it does not have yet, and how others are charged.

Engines report what each attempt took, and Accounts reads it from them. A router remembers its own
attempts only until an engine has reported them, and all reports until Accounts has them. If the
engine dies before, it hands over what it has: the engine's reports, also on attempts of other
routers, which may have died with it, and its own estimates. If Accounts is down, all of that waits,
within bounds.
"""

import asyncio
import itertools
import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence

from gateway.ledger.charging import settle
from gateway.ledger.settlement import Settlement
from gateway.ledger.view import Watermark
from gateway.metrics import SETTLEMENTS_DROPPED, SETTLEMENTS_KEPT, Recorder
from gateway.periodic import Periodic
from gateway.serving.accounts_client import AccountsClient, AccountsUnavailable
from gateway.serving.sent_attempt import SentAttempt
from gateway.telemetry.usage import UsageRecord

PERIOD_S = 1.0
DEAD_S = 3.0
"""How long after its end an attempt's engine may still report it, if it has left the fleet."""
SILENT_S = 60.0
"""The same for an engine of the fleet, whose report may have been missed."""
MAX_KEPT = 100_000
MAX_SUBMITTED = 500
SUBMIT_TIMEOUT_S = 30.0
CLOSE_TIMEOUT_S = 3.0

logger = logging.getLogger(__name__)


class Settlements:
    """Attempts of one router that the ledger needs to hear of, from `start` to `close`.

    `engines`: ids of the replicas in the fleet. `now`: seconds since the epoch.
    """

    def __init__(
        self,
        accounts: AccountsClient,
        engines: Callable[[], Collection[str]],
        recorder: Recorder,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._accounts = accounts
        self._engines = engines
        self._recorder = recorder
        self._now = now
        self._sent: dict[int, SentAttempt] = {}
        """Attempts that no engine has reported, by their dispatches."""
        self._records: dict[str, deque[UsageRecord]] = {}
        """By engine, reports that are not known to be in the ledger."""
        self._watermarks: dict[str, Watermark] = {}
        self._queue: deque[Settlement] = deque()
        self._missing_since_s: dict[str, float] = {}
        self._periodic = Periodic("settling attempts", PERIOD_S, self.sweep)
        self._submitting = asyncio.Lock()
        self._soon: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """Number of attempts that are kept."""
        return len(self._sent) + len(self._queue) + sum(map(len, self._records.values()))

    def start(self) -> None:
        """Begin to hand over."""
        self._periodic.start()

    async def close(self) -> None:
        """Hand over the rest, if Accounts answers soon; engines have what is not handed over.

        What engines that have gone can no longer tell is handed over at once.
        """
        await self._periodic.close()
        if self._soon is not None:
            self._soon.cancel()
        self._find_dead(0.0)
        self._find_unreported(0.0)
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self.submit()
        except TimeoutError:
            logger.warning("Accounts does not answer: %d settlements are lost", len(self._queue))

    def record_sent(self, attempt: SentAttempt) -> None:
        """Remember an attempt that is sent to an engine."""
        self._sent[attempt.id] = attempt

    def record_usage(self, engine: str, records: Iterable[UsageRecord]) -> None:
        """Follow what an engine reports."""
        kept = self._records.setdefault(engine, deque())
        for record in records:
            attempt = self._sent.pop(record.id, None)
            if attempt is not None and record.is_aborted:
                attempt.is_cut = True
                if attempt.is_charged:
                    self._hand_over([Settlement(id=record.id, engine=engine, is_charged=True)])
            kept.append(record)
        mark = self._watermarks.get(engine)
        if mark is not None:  # it may be ahead of a connection to the engine that is new
            self._forget(mark)

    def record_watermarks(self, watermarks: Iterable[Watermark]) -> None:
        """Forget the reports that the ledger has, and hand over those that an engine dropped."""
        for mark in watermarks:
            self._watermarks[mark.engine] = mark
            self._forget(mark)

    def _forget(self, mark: Watermark) -> None:
        records = self._records.get(mark.engine)
        if records is None:
            return
        epoch, seq, first = mark.epoch, mark.seq, mark.first
        while records:
            record = records[0]
            if record.epoch > epoch or (record.seq > seq and record.epoch == epoch):
                break
            records.popleft()
            if record.seq < first or record.epoch < epoch:
                lost = Settlement(id=record.id, engine=mark.engine, record=record)
                self._queue.append(lost)
        if not records:
            del self._records[mark.engine]

    def settle(self, attempts: Sequence[SentAttempt], *, is_complete: bool) -> None:
        """Settle the attempts of a request that has ended; see `gateway.ledger.charging`.

        That is handed over at once: if this router is killed first, nobody knows it.
        """
        last = attempts[-1]
        if last.origin.is_copy:
            return
        last.is_charged = is_complete
        if is_complete and len(attempts) == 1 and last.is_answered and not last.is_cut:
            return
        ends = [attempt.end() for attempt in attempts]
        self._hand_over(settle(ends, is_complete=is_complete))

    def _hand_over(self, settlements: Sequence[Settlement]) -> None:
        self._queue.extend(settlements)
        if self._soon is None or self._soon.done():
            self._soon = asyncio.create_task(self.submit(), name="settlements")

    async def sweep(self) -> None:
        """Find what engines no longer report, and hand it over."""
        self._find_dead()
        self._find_unreported()
        self._recorder.set(SETTLEMENTS_KEPT, (), len(self))
        await self.submit()

    async def submit(self) -> None:
        """Hand over what is due; it stays here if Accounts does not answer."""
        async with self._submitting:
            self._limit()
            while self._queue:
                some = list(itertools.islice(self._queue, MAX_SUBMITTED))
                try:
                    async with asyncio.timeout(SUBMIT_TIMEOUT_S):
                        await self._accounts.submit(some)
                except (AccountsUnavailable, TimeoutError):
                    return
                for _ in some:
                    self._queue.popleft()

    def _find_dead(self, dead_s: float = DEAD_S) -> None:
        """Hand over the reports of engines that are no longer there to be asked."""
        present, now_s = self._engines(), self._now()
        for engine in list(self._missing_since_s):
            if engine in present:
                del self._missing_since_s[engine]
        named = {attempt.engine for attempt in self._sent.values()} | self._records.keys()
        for engine in named.difference(present):
            self._missing_since_s.setdefault(engine, now_s)
        for engine in self._missing_since_s.keys() - named:
            del self._missing_since_s[engine]
        for engine in self._watermarks.keys() - present - self._records.keys():
            del self._watermarks[engine]
        for engine in self._records.keys() & self._missing_since_s.keys():
            if now_s - self._missing_since_s[engine] < dead_s:
                continue
            self._queue.extend(
                Settlement(id=record.id, engine=engine, record=record)
                for record in self._records.pop(engine)
            )

    def _find_unreported(self, dead_s: float = DEAD_S) -> None:
        """Estimate the attempts that nobody reports, if the client has got anything of them."""
        now_s = self._now()
        for attempt in list(self._sent.values()):
            if attempt.ended_s is None:
                continue
            missing_s = self._missing_since_s.get(attempt.engine)
            is_dead = missing_s is not None and now_s - max(missing_s, attempt.ended_s) >= dead_s
            if is_dead or now_s - attempt.ended_s >= SILENT_S:
                del self._sent[attempt.id]
                if attempt.has_delivered or attempt.is_answered:
                    self._queue.append(attempt.estimated())

    def _limit(self) -> None:
        """Forget the oldest reports and settlements if there are too many: engines have those."""
        dropped = 0
        while self._records and sum(map(len, self._records.values())) > MAX_KEPT:
            largest = max(self._records, key=lambda engine: len(self._records[engine]))
            self._records[largest].popleft()
            dropped += 1
        while len(self._queue) > MAX_KEPT:
            self._queue.popleft()
            dropped += 1
        if dropped:
            self._recorder.count(SETTLEMENTS_DROPPED, (), dropped)

"""Log of an engine's usage records, kept until Accounts has confirmed them."""

from collections import deque
from collections.abc import Callable

from gateway.telemetry.usage import UsagePage, UsageRecord, UsageTotals

MAX_RECORDS = 50_000
"""Most records that are kept, about 500 bytes each; older ones are dropped, and counted."""
PAGE_RECORDS = 1_000


class UsageLog:
    """Records of one engine process, numbered from 1. `epoch`: its start, in Unix nanoseconds."""

    def __init__(self, epoch: int, limit: int = MAX_RECORDS) -> None:
        self.epoch = epoch
        self.is_followed = False
        """Whether anybody has ever asked for the records."""
        self._records: deque[UsageRecord] = deque()
        self._limit = limit
        self._last_seq = self._dropped = 0
        self._prompt_tokens = self._cached_tokens = self._completion_tokens = 0
        self._listeners: list[Callable[[], None]] = []

    def __len__(self) -> int:
        """Number of records that are not confirmed."""
        return len(self._records)

    @property
    def newest(self) -> UsageRecord | None:
        """The last record, unless it is confirmed."""
        return self._records[-1] if self._records else None

    @property
    def next_seq(self) -> int:
        """Number of the next record."""
        return self._last_seq + 1

    def add_listener(self, listener: Callable[[], None]) -> None:
        """Call `listener` after every new record, and every confirmation."""
        self._listeners.append(listener)

    def append(self, record: UsageRecord) -> None:
        """Keep a record; its number is `next_seq`."""
        self._last_seq = record.seq
        self._prompt_tokens += record.prompt_tokens
        self._cached_tokens += record.cached_tokens
        self._completion_tokens += record.completion_tokens
        self._records.append(record)
        if len(self._records) > self._limit:
            self._records.popleft()
            self._dropped += 1
        self._call_listeners()

    def confirm(self, epoch: int, seq: int) -> None:
        """Forget all records up to `seq`: they are in the ledger. Other epochs mean nothing."""
        self.is_followed = True
        if epoch != self.epoch:
            return
        records = self._records
        while records and records[0].seq <= seq:
            records.popleft()
        self._call_listeners()

    def page(self) -> UsagePage:
        """The oldest records that are not confirmed, and the sums of all there ever were."""
        count = min(PAGE_RECORDS, len(self._records))
        return UsagePage(
            epoch=self.epoch,
            records=[self._records[i] for i in range(count)],
            kept=len(self._records),
            dropped=self._dropped,
            totals=UsageTotals(
                records=self._last_seq,
                prompt_tokens=self._prompt_tokens,
                cached_tokens=self._cached_tokens,
                completion_tokens=self._completion_tokens,
            ),
        )

    def _call_listeners(self) -> None:
        for listener in self._listeners:
            listener()

"""One batch in the hands of a worker, from the check of its input file to the files of results."""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable

from gateway.batch.batch_run import BatchRun
from gateway.batch.completion import (
    FILES_MISSING,
    GIVEN_UP,
    INPUT_MISSING,
    complete,
    delete_leftovers,
    fail_without_results,
    record_unanswered,
)
from gateway.batch.input_check import BatchError
from gateway.batch.input_copy import InputCopy
from gateway.batch.line_caller import LineCaller
from gateway.batch.line_plan import LinePlan
from gateway.batch.line_set import LineSet, unpack_lines
from gateway.batch.preparation import MB, Preparation, too_large
from gateway.batch.result_lines import CANCELLED, EXPIRED
from gateway.batch.result_writer import ResultWriter, folder_of
from gateway.config.batches import BatchesConfig
from gateway.store.batches import (
    BatchRow,
    EndStatus,
    begin_batch,
    begin_finalizing,
    parts_of,
    renew_claim,
)
from gateway.store.database import DatabaseUnavailable, Transaction
from gateway.store.file_storage import FileMissing
from gateway.store.project_state import ProjectState

LEASE_S = 15
"""How long a worker has a batch without a sign of life; then another one takes it over."""
RENEWAL_S = 3.0
MAX_CLAIMS = 500
"""Claims of a batch after which it is ended: hours in which every worker of it failed."""
LATE_S = 3600.0
"""Time after its deadline from which on `MAX_LATE_CLAIMS` are enough."""
MAX_LATE_CLAIMS = 50

logger = logging.getLogger(__name__)


class BatchJob:
    """A claimed batch; `row`: as it was claimed."""

    def __init__(
        self,
        state: ProjectState,
        row: BatchRow,
        caller: LineCaller,
        config: BatchesConfig,
        *,
        time_of_day: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.row = row
        self.run: BatchRun | None = None
        """Its lines under way; None before and after."""
        self._state = state
        self._caller = caller
        self._config = config
        self._time_of_day = time_of_day
        self._clock = clock
        self._has_ended = False
        """Nobody has a claim to the batch any more."""

    async def process(self) -> None:
        """Bring the batch to its end.

        Raises:
            Superseded: another worker has it.
            DatabaseUnavailable, StorageUnavailable: it goes on later, from where it stands.
        """
        renewing = asyncio.create_task(self._keep_claim(), name=f"claim {self.row.id}")
        processing = asyncio.create_task(self._process(), name=f"batch {self.row.id}")
        try:
            # The claim ends first if another worker has the batch, or the batch has ended.
            await asyncio.wait([renewing, processing], return_when=asyncio.FIRST_COMPLETED)
            await (processing if processing.done() or self._has_ended else renewing)
        finally:
            for task in (renewing, processing):
                task.cancel()
            await asyncio.wait([renewing, processing])

    async def _process(self) -> None:
        if self._is_hopeless:
            await self._fail(GIVEN_UP)
            return
        try:
            await self._process_input()
        except FileMissing:
            await self._fail(FILES_MISSING)

    @property
    def _is_hopeless(self) -> bool:
        late_s = self._time_of_day() - self.row.expires_s
        return self.row.epoch > (MAX_LATE_CLAIMS if late_s > LATE_S else MAX_CLAIMS)

    async def _process_input(self) -> None:
        # One that has been checked must be whole.
        most = math.inf if self.row.plan_key else self._config.max_file_mb * MB
        try:
            copy = await InputCopy.fetch(self._state.files, self.row.input_key, most)
        except FileMissing:
            await self._complete("failed", [INPUT_MISSING])
            return
        try:
            if await self._prepare(copy):
                await self._run_lines(copy)
        finally:
            copy.close()

    async def _prepare(self, copy: InputCopy) -> bool:
        """Check the input file and write the plan, if that is to be done; False: all is over."""
        row = self.row
        if row.plan_key:
            return True
        if row.status == "cancelling":
            await self._complete("cancelled")
            return False
        if not copy.is_whole:
            await self._complete("failed", [too_large(self._config)])
            return False

        def refusal(model: str) -> tuple[str, str] | None:
            return self._caller.refusal(row.project_id, row.endpoint, model)

        preparation = Preparation(row.endpoint, self._config, refusal)
        try:
            prepared = await preparation.read(copy.read())
            if prepared.errors:
                await self._complete("failed", prepared.errors)
                return False
            key = f"{folder_of(row.id)}/{row.epoch}.plan"
            await self._state.files.write(key, preparation.sorter.plan(), 1 << 62)
        finally:
            preparation.close()
        now_s = self._state.now_s
        self.row = await self._state.write(
            lambda c: begin_batch(
                c,
                row.id,
                row.epoch,
                now_s,
                model=prepared.model,
                total=prepared.total,
                lines=prepared.lines,
                plan_key=key,
            )
        )
        return True

    async def _run_lines(self, copy: InputCopy) -> None:
        row = self.row
        plan = LinePlan(b"".join([each async for each in self._state.files.read(row.plan_key)]))
        done = LineSet(row.lines)
        for part in await self._state.read(lambda c: parts_of(c, row.id)):
            done.update(unpack_lines(part.lines))
        writer = ResultWriter(self._state, row.id, row.epoch, self._clock)
        if row.status != "finalizing":
            self.run = BatchRun(
                *(row, copy, plan, done, self._caller, writer),
                time_of_day=self._time_of_day,
                clock=self._clock,
            )
            if row.status == "cancelling":
                self.run.cancel()
            try:
                await self.run.run()
            finally:
                self.run = None
        await self._end(copy, len(done) >= len(plan), done, writer)

    async def _end(
        self, copy: InputCopy, is_done: bool, done: LineSet, writer: ResultWriter
    ) -> None:
        row, now_s = self.row, self._state.now_s
        has_expired = not is_done and self._time_of_day() >= row.expires_s
        self.row = row = await self._state.write(
            lambda c: begin_finalizing(c, row.id, row.epoch, now_s, has_expired=has_expired)
        )
        if not is_done:
            code = CANCELLED if row.status == "cancelling" else EXPIRED
            most = int(self._config.max_line_mb * MB)
            await record_unanswered(copy.read(), done, code, writer, most)
        await self._complete(_end_status(row))

    async def _complete(self, status: EndStatus, errors: list[BatchError] | None = None) -> None:
        await complete(self._state, self.row, status, self._config, errors)
        await self._clean_up()
        logger.info("batch %s: %s", self.row.id, status)

    async def _fail(self, error: BatchError) -> None:
        """End the batch without a look at its files."""
        await fail_without_results(self._state, self.row, self._config, error)
        await self._clean_up()
        logger.error("batch %s: failed: %s", self.row.id, error.message)

    async def _clean_up(self) -> None:
        self._has_ended = True
        await delete_leftovers(self._state, self.row.id)

    def _renew(self, connection: Transaction) -> BatchRow:
        row = self.row
        return renew_claim(connection, row.id, row.epoch, self._state.now_s, LEASE_S)

    async def _keep_claim(self) -> None:
        while True:
            await asyncio.sleep(RENEWAL_S)
            with contextlib.suppress(DatabaseUnavailable):  # if it is away for longer, so are we
                found = await self._state.write(self._renew)
                if found.status == "cancelling" and self.run is not None:
                    self.run.cancel()


def _end_status(row: BatchRow) -> EndStatus:
    if row.status == "cancelling":
        return "cancelled"
    return "completed" if row.expired_s is None else "expired"

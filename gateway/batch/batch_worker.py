"""Worker of all batches: it claims them, and shares out what the engines have to spare."""

import asyncio
import contextlib
import logging
import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

from gateway.batch.batch_job import LEASE_S, BatchJob
from gateway.batch.batch_run import BatchRun
from gateway.batch.completion import delete_leftovers
from gateway.batch.dispatch_window import (
    IN_USE_S,
    DispatchWindow,
    ReplicaRoom,
    dispatch_windows,
)
from gateway.batch.line_caller import LineCaller
from gateway.batch.result_writer import FOLDER
from gateway.config.batches import BatchesConfig
from gateway.metrics import BATCH_LINES, BATCHES, NullRecorder, Recorder
from gateway.periodic import Periodic
from gateway.store.batches import (
    UNFINISHED,
    BatchRow,
    Superseded,
    claim_batch,
    count_unfinished,
    is_project_kept_waiting,
    release_claim,
    unfinished_ids,
)
from gateway.store.database import DatabaseUnavailable, Transaction
from gateway.store.file_storage import StorageUnavailable
from gateway.store.project_state import ProjectState

CLAIM_PERIOD_S = 1.0
WINDOW_PERIOD_S = 0.1
"""How often windows follow telemetry, which comes every 50 ms."""
SWEEP_PERIOD_S = 3600.0
WAKING = DispatchWindow(1)
"""Window of a batch whose model has no engine: its line asks for one."""

logger = logging.getLogger(__name__)


class ModelRooms(Protocol):
    """What is known of the replicas that answer to a model's name."""

    def __call__(self, model: str, /) -> Sequence[ReplicaRoom]:
        """Room of the healthy replicas of a model; none if it has none now."""


class BatchWorker:
    """Runs batches from `start` to `close`; `name`: tells it from other workers."""

    def __init__(  # noqa: PLR0913 - its parts and its clocks
        self,
        state: ProjectState,
        caller: LineCaller,
        rooms: ModelRooms,
        config: BatchesConfig,
        name: str,
        recorder: Recorder | None = None,
        *,
        time_of_day: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._state = state
        self._caller = caller
        self._rooms = rooms
        self._config = config
        self._name = name
        self._recorder = recorder or NullRecorder()
        self._time_of_day = time_of_day
        self._clock = clock
        self._used_s: dict[str, float] = {}
        """When each model was seen last with interactive requests."""
        self._turn = 0
        self._jobs: dict[asyncio.Task[None], BatchJob] = {}
        self._background = (
            Periodic("claiming batches", CLAIM_PERIOD_S, self.claim),
            Periodic("windows of batches", WINDOW_PERIOD_S, self.update_windows),
            Periodic("leftovers of batches", SWEEP_PERIOD_S, self.sweep),
        )

    def start(self) -> None:
        """Begin to claim batches."""
        for each in self._background:
            each.start()

    async def close(self) -> None:
        """Give up all batches; another worker goes on with them at once."""
        for each in self._background:
            await each.close()
        await self._give_up(dict(self._jobs))

    @property
    def running(self) -> int:
        """Batches whose lines run now."""
        return sum(job.run is not None for job in self._jobs.values())

    async def claim(self) -> None:
        """Take over batches that nobody has, as many as may run; each project gets a place."""
        now_s = self._state.now_s
        try:
            while await self._has_place(now_s):
                claim = partial(
                    claim_batch, worker=self._name, now_s=now_s, lease_s=LEASE_S, held=self._held
                )
                row = await self._state.write(claim)
                if row is None:
                    break
                self._begin(row)
            await self._count()
        except DatabaseUnavailable as error:
            logger.warning("the database of batches cannot be reached: %s", error)

    async def update_windows(self) -> None:
        """Share out what the engines have to spare now."""
        self._turn += 1
        by_model: defaultdict[str, list[tuple[BatchJob, BatchRun]]] = defaultdict(list)
        for job in self._jobs.values():
            if job.run is not None:
                by_model[job.row.model].append((job, job.run))
        for model, found in by_model.items():
            found.sort(key=lambda each: (each[0].row.expires_s, each[0].row.created_s))
            self._share_out(model, [run for _, run in found])

    async def sweep(self) -> None:
        """Delete what workers that died have left of batches that have ended."""
        try:
            # In this order: whatever has files by now, and has not ended, is among the rows.
            folders = {each.key.split("/")[1] for each in await self._state.files.keys(FOLDER)}
            known = await self._state.read(unfinished_ids)
            for batch_id in folders - known:
                await delete_leftovers(self._state, batch_id)
        except (DatabaseUnavailable, StorageUnavailable) as error:
            logger.warning("leftovers of batches stay for now: %s", error)

    @property
    def _held(self) -> list[str]:
        return [job.row.id for job in self._jobs.values()]

    def _begin(self, row: BatchRow) -> None:
        job = BatchJob(
            *(self._state, row, self._caller, self._config),
            time_of_day=self._time_of_day,
            clock=self._clock,
        )
        task = asyncio.create_task(self._process(job), name=f"job {row.id}")
        self._jobs[task] = job
        task.add_done_callback(self._jobs.pop)

    async def _has_place(self, now_s: int) -> bool:
        """Whether one more batch may run; one is given up for a project of which none does."""
        if len(self._jobs) < self._config.max_running:
            return True
        spare = self._spare_job()
        if spare is None:
            return False
        held = self._held
        if not await self._state.read(lambda c: is_project_kept_waiting(c, now_s, held)):
            return False
        await self._give_up(spare)
        return True

    def _spare_job(self) -> dict[asyncio.Task[None], BatchJob] | None:
        """The job with the last deadline of the project with most jobs; None if it has one."""
        counts = Counter(job.row.project_id for job in self._jobs.values())
        running = [(task, job) for task, job in self._jobs.items() if job.run is not None]
        found = max(
            running,
            key=lambda each: (counts[each[1].row.project_id], each[1].row.expires_s),
            default=None,
        )
        if found is None or counts[found[1].row.project_id] == 1:
            return None
        return dict([found])

    async def _give_up(self, jobs: Mapping[asyncio.Task[None], BatchJob]) -> None:
        """End jobs; whoever claims their batches next goes on with them at once."""
        for task in jobs:
            task.cancel()
        if jobs:
            await asyncio.wait(jobs)
        for job in jobs.values():
            with contextlib.suppress(Superseded, DatabaseUnavailable):
                await self._state.write(partial(_release, job.row))

    def _share_out(self, model: str, runs: list[BatchRun]) -> None:
        rooms, now_s = self._rooms(model), self._clock()
        if any(room.is_used for room in rooms):
            self._used_s[model] = now_s
        windows = dispatch_windows(
            rooms,
            [run.pace for run in runs],
            guaranteed_share=self._config.guaranteed_share,
            line_tokens=max(run.tokens for run in runs),
            is_used=now_s < self._used_s.get(model, -math.inf) + IN_USE_S,
            turn=self._turn,
        )
        if not rooms and self._config.wakes:
            windows[0] = WAKING
        for run, window in zip(runs, windows, strict=True):
            run.use_window(window, max(1, len(rooms)))

    async def _process(self, job: BatchJob) -> None:
        try:
            await job.process()
        except Superseded:
            logger.warning("batch %s: another worker has it", job.row.id)
        except (DatabaseUnavailable, StorageUnavailable) as error:
            logger.warning("batch %s: goes on later: %s", job.row.id, error)
        except Exception:
            # A defect of the gateway; whoever claims the batch next goes on from where it stands.
            logger.exception("batch %s failed", job.row.id)

    async def _count(self) -> None:
        counts = await self._state.read(count_unfinished)
        for status in UNFINISHED:
            self._recorder.set(BATCHES, (status,), counts.by_status.get(status, 0))
        done, waiting = counts.done, counts.total - counts.done
        under_way = sum(job.run.under_way for job in self._jobs.values() if job.run is not None)
        for state, count in (("done", done), ("under_way", under_way), ("waiting", waiting)):
            self._recorder.set(BATCH_LINES, (state,), count)


def _release(row: BatchRow, connection: Transaction) -> None:
    release_claim(connection, row.id, row.epoch)

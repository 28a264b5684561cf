"""The worker of batches runs as many as it may, and shares out what engines have to spare."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from gateway.batch.batch_worker import BatchWorker
from gateway.batch.dispatch_window import ReplicaRoom
from gateway.config.batches import BatchesConfig
from gateway.metrics import BATCHES
from gateway.store.batches import UNFINISHED, BatchRow, cancel_batch, claim_batch
from gateway.store.project_state import ProjectState
from tests.unit.batches import (
    NOW_S,
    Clock,
    FakeGateway,
    add_batch,
    ids_of,
    jsonl,
    once,
    opened,
    read_lines,
    request_line,
    shown,
)
from tests.unit.recorder import KeptRecorder

LINES = jsonl(map(request_line, range(40)))
PATIENCE_S = 20.0


@pytest.fixture
def clock() -> Clock:
    """The time of day."""
    return Clock()


@pytest.fixture
async def state(tmp_path: Path, clock: Clock) -> AsyncIterator[ProjectState]:
    """An empty state."""
    async with opened(tmp_path, clock) as found:
        yield found


class Rooms:
    """Room of one replica, which tests set."""

    def __init__(self, slots: int = 8) -> None:
        self.slots = slots
        self.gateway: FakeGateway | None = None

    def __call__(self, model: str, /) -> Sequence[ReplicaRoom]:
        """Room of a replica that has what the gateway has under way; none without slots."""
        del model
        ours = self.gateway.under_way if self.gateway else 0
        room = ReplicaRoom(
            slots=self.slots,
            sequences=ours,
            ours=ours,
            kv_tokens=0,
            free_tokens=0,
            pending_tokens=0,
        )
        return [room] if self.slots else []


def _worker(
    state: ProjectState,
    gateway: FakeGateway,
    clock: Clock,
    rooms: Rooms | None = None,
    recorder: KeptRecorder | None = None,
    **config: object,
) -> BatchWorker:
    return BatchWorker(
        state,
        gateway,
        rooms or Rooms(),
        BatchesConfig.model_validate(config),
        "w",
        recorder,
        time_of_day=clock,
    )


async def _ended(state: ProjectState, row: BatchRow) -> BatchRow:
    async with asyncio.timeout(PATIENCE_S):
        while (found := await shown(state, row)).status not in {"completed", "cancelled", "failed"}:  # noqa: ASYNC110 - a fake has no event for it
            await asyncio.sleep(0.02)
    return found


async def test_batches_run_side_by_side(
    state: ProjectState, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Together they have no more lines under way than there is room for."""
    monkeypatch.setattr("gateway.batch.batch_worker.CLAIM_PERIOD_S", 0.05)
    rows = [await add_batch(state, LINES) for _ in range(3)]
    gateway, rooms = FakeGateway(), Rooms()
    rooms.gateway = gateway
    worker = _worker(state, gateway, clock, rooms)
    worker.start()

    ended = [await _ended(state, row) for row in rows]

    await worker.close()
    assert {each.status for each in ended} == {"completed"}
    assert 1 < gateway.most <= 6


async def test_only_so_many_batches_run_at_a_time(state: ProjectState, clock: Clock) -> None:
    """The others wait."""
    for _ in range(3):
        await add_batch(state, LINES)
    worker = _worker(state, FakeGateway(), clock, max_running=2)

    await worker.claim()

    now_s = int(clock())
    free = await state.write(lambda c: claim_batch(c, "other", now_s, 15))
    await worker.close()
    assert free is not None


async def test_no_project_keeps_another_waiting(state: ProjectState, clock: Clock) -> None:
    """One that has all places gives one up; its batch goes on later."""
    rows = [await add_batch(state, LINES, project="many") for _ in range(3)]
    gateway = FakeGateway()
    gateway.is_open.clear()
    worker = _worker(state, gateway, clock, max_running=2)
    worker.start()
    async with asyncio.timeout(PATIENCE_S):
        while worker.running < 2:  # noqa: ASYNC110 - a fake has no event for it
            await asyncio.sleep(0.01)
    other = await add_batch(state, LINES, project="other")

    await worker.claim()

    assert (await shown(state, other)).epoch == 1
    gateway.is_open.set()

    ended = [await _ended(state, row) for row in (*rows, other)]

    await worker.close()
    assert {(each.status, each.completed) for each in ended} == {("completed", 40)}


async def test_a_batch_goes_on_after_an_outage(state: ProjectState, clock: Clock) -> None:
    """Its worker does not take it over from itself once its claim has run out."""
    row = await add_batch(state, LINES)
    gateway = FakeGateway()
    gateway.is_open.clear()
    worker = _worker(state, gateway, clock)
    await worker.claim()
    clock.now_s += 60

    await worker.claim()

    found = await shown(state, row)
    await worker.close()
    assert found.epoch == 1


@pytest.mark.parametrize(("wakes", "under_way"), [(True, 1), (False, 0)])
async def test_one_line_asks_for_an_engine(
    state: ProjectState, clock: Clock, *, wakes: bool, under_way: int
) -> None:
    """Of a model that has none; none does if batches may not wake models."""
    await add_batch(state, LINES)
    gateway = FakeGateway()
    gateway.is_open.clear()
    worker = _worker(state, gateway, clock, Rooms(0), wakes=wakes)
    worker.start()

    async with asyncio.timeout(PATIENCE_S):
        while not worker.running:  # noqa: ASYNC110 - a fake has no event for it
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.3)

    found = gateway.under_way
    await worker.close()
    assert found == under_way


async def test_a_worker_that_stops_hands_over_at_once(state: ProjectState, clock: Clock) -> None:
    """Another one goes on without waiting for the claim to run out."""
    row = await add_batch(state, LINES)
    stuck = FakeGateway()
    stuck.is_open.clear()
    first = _worker(state, stuck, clock)
    first.start()
    async with asyncio.timeout(PATIENCE_S):
        while not stuck.under_way:  # noqa: ASYNC110 - a fake has no event for it
            await asyncio.sleep(0.01)
    await first.close()
    second = _worker(state, FakeGateway(), clock)
    second.start()

    ended = await _ended(state, row)

    await second.close()
    assert stuck.under_way == 0
    lines = await read_lines(state, ended.output_file_id)
    assert list(ids_of(lines)) == sorted(f"line-{n}" for n in range(40))


async def test_a_cancellation_reaches_a_running_batch(
    state: ProjectState, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the time between two renewals of its claim."""
    monkeypatch.setattr("gateway.batch.batch_job.RENEWAL_S", 0.05)
    row = await add_batch(state, LINES)
    gateway = FakeGateway()
    gateway.is_open.clear()
    worker = _worker(state, gateway, clock)
    worker.start()
    async with asyncio.timeout(PATIENCE_S):
        while not gateway.under_way:  # noqa: ASYNC110 - a fake has no event for it
            await asyncio.sleep(0.01)
    await state.write(lambda c: cancel_batch(c, "", row.id, NOW_S))

    ended = await _ended(state, row)

    await worker.close()
    assert (ended.status, ended.failed) == ("cancelled", 40)


async def test_leftovers_are_deleted(state: ProjectState, clock: Clock) -> None:
    """Those of batches that have ended or never were, and no others."""
    row = await add_batch(state, LINES)
    for batch_id in (row.id, "batch_gone"):
        await state.files.write(f"batches/{batch_id}/1-1.output", once(b"x"), 9)
    worker = _worker(state, FakeGateway(), clock)

    await worker.sweep()

    assert [each.key for each in await state.files.keys("batches")] == [
        f"batches/{row.id}/1-1.output"
    ]


async def test_unfinished_batches_are_counted(state: ProjectState, clock: Clock) -> None:
    """By status."""
    for _ in range(3):
        await add_batch(state, LINES)
    recorder = KeptRecorder()
    worker = _worker(state, FakeGateway(), clock, recorder=recorder, max_running=1)

    await worker.claim()

    await worker.close()
    assert sum(recorder.gauges[BATCHES.name, (status,)] for status in UNFINISHED) == 3

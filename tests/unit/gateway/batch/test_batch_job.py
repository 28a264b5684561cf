"""A batch runs to its end: each line is in its results once, whatever happens in between."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gateway.batch.batch_job import LEASE_S
from gateway.batch.dispatch_window import DispatchWindow
from gateway.batch.line_caller import LineCall
from gateway.batch.result_lines import answer_line
from gateway.config.batches import BatchesConfig
from gateway.store.batches import Superseded, cancel_batch, parts_of
from gateway.store.files import delete_file, file, file_key
from gateway.store.project_state import ProjectState
from tests.unit.batches import (
    NOW_S,
    Clock,
    FakeGateway,
    add_batch,
    claimed,
    ids_of,
    jsonl,
    opened,
    process,
    read_lines,
    request_line,
    shown,
)

LINES = jsonl(map(request_line, range(30)))
ALL_IDS = sorted(f"line-{n}" for n in range(30))
FEW = 12


@pytest.fixture
def clock() -> Clock:
    """The time of day."""
    return Clock()


@pytest.fixture
async def state(tmp_path: Path, clock: Clock) -> AsyncIterator[ProjectState]:
    """An empty state."""
    async with opened(tmp_path, clock) as found:
        yield found


async def test_all_lines_are_answered(state: ProjectState, clock: Clock) -> None:
    """Counts, usage and the file of results say so, and nothing else is left in the storage."""
    row = await add_batch(state, LINES)
    gateway = FakeGateway()

    await process(await claimed(state, gateway, clock))

    ended = await shown(state, row)
    assert (ended.status, ended.total, ended.completed, ended.failed) == ("completed", 30, 30, 0)
    assert (ended.input_tokens, ended.cached_tokens, ended.output_tokens) == (300, 120, 90)
    assert (ended.model, ended.error_file_id) == ("m", "")
    output = await read_lines(state, ended.output_file_id)
    assert list(ids_of(output)) == ALL_IDS
    assert 1 < gateway.most <= 4
    stored = await state.read(lambda c: file(c, "", ended.output_file_id, NOW_S))
    assert (stored.purpose, stored.expires_s) == ("batch_output", NOW_S + 30 * 86_400)
    assert await state.files.keys("batches") == []
    assert await state.read(lambda c: parts_of(c, row.id)) == []


async def test_lines_with_a_common_prefix_run_one_after_the_other(
    state: ProjectState, clock: Clock
) -> None:
    """In one lane, a prompt's system message is sent once and then all that share it."""
    systems = ["a" * 600, "b" * 600, "c" * 600]
    lines = [
        request_line(n, messages=[{"role": "system", "content": systems[n % 3]}]) for n in range(30)
    ]
    await add_batch(state, jsonl(lines))
    gateway = FakeGateway()

    await process(await claimed(state, gateway, clock), DispatchWindow(1), lanes=1)

    sent = [json.loads(call.body)["messages"][0]["content"][0] for call in gateway.calls]
    assert sum(a != b for a, b in pairwise(sent)) == 2


async def test_a_line_counts_as_many_times_as_it_has_sequences(
    state: ProjectState, clock: Clock
) -> None:
    """One with more than there is room for runs alone."""
    await add_batch(state, jsonl([request_line(n, n=8 if n == 5 else 2) for n in range(12)]))
    most: list[int] = []

    def answer(call: LineCall) -> tuple[int, Mapping[str, object]]:
        most.append(gateway.under_way + 1 if b'"n": 8' in call.body else gateway.most)
        return 200, {}

    gateway = FakeGateway(answer)

    await process(await claimed(state, gateway, clock), DispatchWindow(4))

    assert gateway.most == 2
    assert len(most) == 12
    assert most[[b'"n": 8' in call.body for call in gateway.calls].index(True)] == 1


async def test_a_large_answer_does_not_stop_the_event_loop(
    state: ProjectState, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is made a line in a thread."""
    threads: set[bool] = set()

    def made(*args: Any) -> bytes:
        threads.add(threading.current_thread() is threading.main_thread())
        return answer_line(*args)

    monkeypatch.setattr("gateway.batch.batch_run.answer_line", made)
    monkeypatch.setattr("gateway.batch.batch_run.LARGE_ANSWER", 1)
    row = await add_batch(state, LINES)

    await process(await claimed(state, FakeGateway(), clock))

    assert (await shown(state, row)).completed == 30
    assert threads == {False}


async def test_a_wrong_file_fails_the_batch(state: ProjectState, clock: Clock) -> None:
    """Its errors are shown, and none of its lines runs."""
    row = await add_batch(state, LINES + b"{\n")
    gateway = FakeGateway()

    await process(await claimed(state, gateway, clock))

    ended = await shown(state, row)
    assert (ended.status, gateway.calls) == ("failed", [])
    assert ended.errors is not None
    assert [(each["code"], each["line"]) for each in ended.errors] == [("invalid_json_line", 31)]


async def test_a_batch_for_a_model_that_its_project_does_not_know_fails(
    state: ProjectState, clock: Clock
) -> None:
    """All of its lines would."""
    row = await add_batch(state, LINES)
    gateway = FakeGateway()
    gateway.refused = ("model_not_found", "no such model")

    await process(await claimed(state, gateway, clock))

    ended = await shown(state, row)
    assert ended.status == "failed"
    assert ended.errors == [
        {"code": "model_not_found", "message": "no such model", "line": None, "param": "body.model"}
    ]


async def test_a_file_that_is_too_large_fails_the_batch(state: ProjectState, clock: Clock) -> None:
    """The rest of it is not read."""
    row = await add_batch(state, LINES)
    config = BatchesConfig(max_file_mb=0.001)

    await process(await claimed(state, FakeGateway(), clock, config))

    ended = await shown(state, row)
    assert ended.errors is not None
    assert [each["code"] for each in ended.errors] == ["file_too_large"]


async def test_lines_that_are_refused_go_to_the_error_file(
    state: ProjectState, clock: Clock
) -> None:
    """With the answer of the gateway; the batch is completed all the same."""

    def answer(call: LineCall) -> tuple[int, Mapping[str, object]]:
        return (400, {"error": {"code": "x"}}) if b"question 7" in call.body else (200, {})

    row = await add_batch(state, LINES)

    await process(await claimed(state, FakeGateway(answer), clock))

    ended = await shown(state, row)
    assert (ended.status, ended.completed, ended.failed) == ("completed", 29, 1)
    (error,) = await read_lines(state, ended.error_file_id)
    assert error["custom_id"] == "line-7"
    assert error["response"] is not None


async def test_lines_wait_for_a_busy_gateway(
    state: ProjectState, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are sent again until they are answered; a fault is tried three times."""
    monkeypatch.setattr("gateway.batch.retries.MIN_DELAY_S", 0.0)
    tries: dict[bytes, int] = {}

    def answer(call: LineCall) -> tuple[int, Mapping[str, object]]:
        tries[call.body] = tries.get(call.body, 0) + 1
        if b"question 3" in call.body:
            return (200 if tries[call.body] > 5 else 429), {}
        return (500 if b"question 8" in call.body else 200), {}

    row = await add_batch(state, jsonl(map(request_line, range(10))))

    await process(await claimed(state, FakeGateway(answer), clock))

    ended = await shown(state, row)
    assert (ended.completed, ended.failed) == (9, 1)
    assert sorted(tries.values()) == [1] * 8 + [3, 6]


async def test_a_run_that_is_stopped_keeps_what_has_been_answered(
    state: ProjectState, clock: Clock
) -> None:
    """Nothing of it runs again, and nothing is paid for twice."""
    row = await add_batch(state, LINES)

    def answer(call: LineCall) -> tuple[int, Mapping[str, object]]:
        if len(gateway.calls) >= 12:
            gateway.is_open.clear()
        return 200, {}

    gateway = FakeGateway(answer)
    stopping = asyncio.create_task(process(await claimed(state, gateway, clock)))
    while gateway.is_open.is_set() or gateway.under_way < 4:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.001)
    stopping.cancel()
    await asyncio.wait([stopping])

    found = await shown(state, row)
    assert found.completed == len(gateway.calls) - 4


async def test_a_cancelled_batch_keeps_its_results(state: ProjectState, clock: Clock) -> None:
    """Lines under way are given up; all that have not run are in the error file."""
    gateway = FakeGateway()
    row = await add_batch(state, LINES)
    job = await claimed(state, gateway, clock)

    async def cancel_soon() -> None:
        while len(gateway.calls) < 12:  # noqa: ASYNC110 - a fake has no event for it
            await asyncio.sleep(0)
        gateway.is_open.clear()
        await state.write(lambda c: cancel_batch(c, "", row.id, NOW_S))
        assert job.run is not None
        job.run.cancel()

    cancelling = asyncio.create_task(cancel_soon())
    await process(job)
    await cancelling

    ended = await shown(state, row)
    assert ended.status == "cancelled"
    assert ended.total == ended.completed + ended.failed == 30
    output = await read_lines(state, ended.output_file_id)
    errors = await read_lines(state, ended.error_file_id)
    assert output
    assert list(ids_of([*output, *errors])) == ALL_IDS
    assert {json.dumps(each["error"])[:30] for each in errors} == {'{"code": "batch_cancelled", "m'}
    assert gateway.under_way == 0


async def test_a_batch_that_is_cancelled_before_it_begins_has_no_results(
    state: ProjectState, clock: Clock
) -> None:
    """Its input is not even read."""
    row = await add_batch(state, b"wrong")
    await state.write(lambda c: cancel_batch(c, "", row.id, NOW_S))

    await process(await claimed(state, FakeGateway(), clock))

    ended = await shown(state, row)
    assert (ended.status, ended.output_file_id, ended.error_file_id) == ("cancelled", "", "")


async def test_a_batch_expires(state: ProjectState, clock: Clock) -> None:
    """What has run by then stays; the rest is in the error file."""
    row = await add_batch(state, LINES, window_s=100)
    gateway = FakeGateway()

    async def let_time_pass() -> None:
        while len(gateway.calls) < 12:  # noqa: ASYNC110 - a fake has no event for it
            await asyncio.sleep(0)
        gateway.is_open.clear()
        clock.now_s += 101

    passing = asyncio.create_task(let_time_pass())
    await process(await claimed(state, gateway, clock))
    await passing

    ended = await shown(state, row)
    assert (ended.status, ended.expired_s) == ("expired", NOW_S + 101)
    errors = await read_lines(state, ended.error_file_id)
    output = await read_lines(state, ended.output_file_id)
    assert list(ids_of([*output, *errors])) == ALL_IDS
    assert all('"batch_expired"' in json.dumps(each["error"]) for each in errors)


async def test_a_batch_whose_input_is_deleted_fails(state: ProjectState, clock: Clock) -> None:
    """It says so, and does not stay forever."""
    row = await add_batch(state, LINES)
    await state.write(lambda c: delete_file(c, "", row.input_file_id, NOW_S))
    await state.files.delete(file_key(row.input_file_id))

    await process(await claimed(state, FakeGateway(), clock))

    ended = await shown(state, row)
    assert ended.errors is not None
    assert (ended.status, ended.errors[0]["code"]) == ("failed", "input_file_missing")


@pytest.mark.parametrize("suffix", [".plan", ".output"])
async def test_a_batch_whose_plan_or_results_are_gone_fails(
    state: ProjectState, clock: Clock, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    """It does not stay forever."""
    monkeypatch.setattr("gateway.batch.result_writer.MAX_AGE_S", 0.05)
    row = await add_batch(state, LINES)
    gateway = FakeGateway(lambda call: (503 if b"question 29" in call.body else 200, {}))
    dying = asyncio.create_task(process(await claimed(state, gateway, clock)))
    while (await shown(state, row)).completed < 29:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.01)
    dying.cancel()
    await asyncio.wait([dying])
    clock.now_s += LEASE_S + 1
    for stored in await state.files.keys("batches"):
        if stored.key.endswith(suffix):
            await state.files.delete(stored.key)

    await process(await claimed(state, FakeGateway(), clock))

    ended = await shown(state, row)
    assert ended.errors is not None
    assert (ended.status, ended.errors[0]["code"]) == ("failed", "files_missing")
    assert await state.files.keys("batches") == []


@pytest.mark.parametrize(("late_s", "is_over"), [(0, False), (7200, True)])
async def test_a_batch_that_no_worker_finishes_is_ended(
    state: ProjectState, clock: Clock, *, late_s: int, is_over: bool
) -> None:
    """After many claims; sooner once its time has been up for long."""
    row = await add_batch(state, LINES)
    for _ in range(60):
        await claimed(state, FakeGateway(), clock)
        clock.now_s += LEASE_S + 1
    clock.now_s = max(clock.now_s, row.expires_s + late_s if late_s else 0)

    await process(await claimed(state, FakeGateway(), clock))

    ended = await shown(state, row)
    assert ended.status == ("failed" if is_over else "completed")


async def test_the_end_of_the_claim_leaves_nothing_behind(
    state: ProjectState, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that has ended has no claim to renew; its parts are deleted all the same."""
    monkeypatch.setattr("gateway.batch.batch_job.RENEWAL_S", 0.01)
    delete = state.files.delete

    async def delete_slowly(key: str) -> None:
        await asyncio.sleep(0.1)
        await delete(key)

    monkeypatch.setattr(state.files, "delete", delete_slowly)
    await add_batch(state, LINES)

    await process(await claimed(state, FakeGateway(), clock))

    assert await state.files.keys("batches") == []


async def test_a_zombie_changes_nothing(state: ProjectState, clock: Clock) -> None:
    """A worker whose claim has run out comes back after another has done its work."""
    row = await add_batch(state, LINES)
    sleeping = FakeGateway()
    sleeping.is_open.clear()
    zombie = asyncio.create_task(process(await claimed(state, sleeping, clock, worker="zombie")))
    while sleeping.under_way < 4:  # noqa: ASYNC110 - a fake has no event for it
        await asyncio.sleep(0.001)
    clock.now_s += LEASE_S + 1

    await process(await claimed(state, FakeGateway(), clock))
    before = await shown(state, row)
    sleeping.is_open.set()
    with pytest.raises(Superseded):
        await zombie

    ended = await shown(state, row)
    assert ended == before
    assert list(ids_of(await read_lines(state, ended.output_file_id))) == ALL_IDS


class Killed(Exception):
    """The process has died."""


class Doom:
    """Counts what a process does to the outside, and kills it at one of these moments."""

    def __init__(self, at: int, *, after: bool) -> None:
        self.count = 0
        self._at = at
        self._after = after

    async def run(self, effect: Callable[[], object]) -> object:
        """Do something to the outside, or die before or after it."""
        self.count += 1
        if self.count > self._at or (self.count == self._at and not self._after):
            raise Killed
        result = await effect()  # type: ignore[misc] # it is a coroutine function
        if self.count >= self._at:
            raise Killed
        return result


def doomed(state: ProjectState, doom: Doom) -> ProjectState:
    """The same state, for a process that dies."""
    files, write = state.files, state.write

    class Storage:
        def __getattr__(self, name: str) -> object:
            if name in {"keys", "read"}:
                return getattr(files, name)
            return lambda *args: doom.run(lambda: getattr(files, name)(*args))

    found = ProjectState(state.database, Storage(), state.config, lambda: NOW_S)  # type: ignore[arg-type] # a stand-in
    found.write = lambda work: doom.run(lambda: write(work))  # type: ignore[assignment,method-assign,return-value] # as above
    return found


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a_batch_survives_a_kill_at_any_moment(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, *, after: bool
) -> None:
    """Wherever a worker dies, the next one goes on, and each line is in the results once."""
    monkeypatch.setattr("gateway.batch.result_writer.PART_LINES", 4)
    monkeypatch.setattr("gateway.batch.batch_job.RENEWAL_S", 100.0)

    def answer(call: LineCall) -> tuple[int, Mapping[str, object]]:
        return (400 if b"question 1" in call.body else 200), {}

    async with opened(tmp_path, clock) as state:
        moments = 0
        while True:
            moments += 1
            row = await add_batch(state, jsonl(map(request_line, range(FEW))))
            doom = Doom(moments, after=after)
            now_s = clock.now_s
            dying = await claimed(state, FakeGateway(answer), clock, used=doomed(state, doom))
            try:
                await process(dying)
            except Killed:
                is_over = False
            else:
                is_over = True
            clock.now_s = now_s + LEASE_S + 1
            if (await shown(state, row)).status != "completed":
                await process(await claimed(state, FakeGateway(answer), clock))

            ended = await shown(state, row)
            output = await read_lines(state, ended.output_file_id)
            errors = await read_lines(state, ended.error_file_id)
            assert list(ids_of([*output, *errors])) == sorted(f"line-{n}" for n in range(FEW)), (
                moments
            )
            assert (ended.completed, ended.failed) == (len(output), len(errors)) == (9, 3)
            if is_over:
                break
    assert moments > 8

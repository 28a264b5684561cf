"""Batches in tests: a storage in a folder of the test, and a gateway that answers as it is told."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from pathlib import Path

from gateway.batch.batch_job import LEASE_S, BatchJob
from gateway.batch.dispatch_window import DispatchWindow
from gateway.batch.line_caller import LineAnswer, LineCall
from gateway.config.batches import BatchesConfig
from gateway.config.state import StateConfig
from gateway.store.batches import BatchRow, NewBatch, batch, claim_batch, create_batch
from gateway.store.database import Database
from gateway.store.file_storage import FileStorage
from gateway.store.files import FileRow, create_file, file_key, new_file_id
from gateway.store.project_state import ProjectState

CHAT = "/v1/chat/completions"
NOW_S = 1_800_000_000
FOUR = DispatchWindow(4)
USAGE = {
    "prompt_tokens": 10,
    "completion_tokens": 3,
    "prompt_tokens_details": {"cached_tokens": 4},
}


def request_line(number: int, model: str = "m", **body: object) -> dict[str, object]:
    """A line of an input file."""
    chat = {"model": model, "messages": [{"role": "user", "content": f"question {number}"}]}
    return {
        "custom_id": f"line-{number}",
        "method": "POST",
        "url": CHAT,
        "body": chat | body,
    }


def jsonl(lines: Iterable[object]) -> bytes:
    """Lines as a file."""
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


async def once(data: bytes, size: int = 1 << 16) -> AsyncIterator[bytes]:
    """Bytes as a stream."""
    for start in range(0, len(data), size):
        yield data[start : start + size]


class Clock:
    """Time of day that a test sets."""

    def __init__(self) -> None:
        self.now_s = float(NOW_S)

    def __call__(self) -> float:
        """Seconds since the epoch."""
        return self.now_s


class FakeGateway:
    """Answers lines; `answer` makes the status and the body of an answer of a call."""

    def __init__(
        self, answer: Callable[[LineCall], tuple[int, Mapping[str, object]]] | None = None
    ) -> None:
        self.calls: list[LineCall] = []
        self.most = 0
        """Most calls at the same time."""
        self.under_way = 0
        self.refused: tuple[str, str] | None = None
        self.is_open = asyncio.Event()
        self.is_open.set()
        self._answer = answer or (lambda _: (200, {"usage": USAGE}))

    def refusal(self, project_id: str, path: str, model: str) -> tuple[str, str] | None:
        """Refuse a batch as the test says."""
        del project_id, path, model
        return self.refused

    async def call(self, call: LineCall) -> LineAnswer:
        """Answer a line once the gateway is open."""
        self.calls.append(call)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await self.is_open.wait()
            await asyncio.sleep(0)
        finally:
            self.under_way -= 1
        status, body = self._answer(call)
        encoded = json.dumps(body).encode()
        return LineAnswer(status=status, body=encoded, request_id=call.request_id)


@contextlib.asynccontextmanager
async def opened(folder: Path, clock: Callable[[], float]) -> AsyncIterator[ProjectState]:
    """State in a folder."""
    database = await Database.open(f"sqlite:///{folder}/state.db")
    state = ProjectState(database, FileStorage(str(folder / "files")), StateConfig(), clock)
    try:
        yield state
    finally:
        await state.close()


async def add_file(
    state: ProjectState, data: bytes, project: str = "", purpose: str = "batch"
) -> str:
    """Have a file exist; returns its id."""
    file_id = new_file_id()
    stored = await state.files.write(file_key(file_id), once(data), len(data))
    row = FileRow(
        id=file_id,
        project_id=project,
        purpose=purpose,
        filename="in.jsonl",
        bytes=stored.bytes,
        sha256=stored.sha256,
        created_s=state.now_s,
    )
    await state.write(lambda c: create_file(c, row))
    return file_id


async def add_batch(
    state: ProjectState, data: bytes, *, window_s: int = 86_400, project: str = ""
) -> BatchRow:
    """Create a batch of an input file."""
    file_id = await add_file(state, data, project)
    now_s = state.now_s
    new = NewBatch(
        project_id=project,
        endpoint=CHAT,
        input_file_id=file_id,
        input_key=file_key(file_id),
        completion_window="24h",
        created_s=now_s,
        expires_s=now_s + window_s,
    )
    return await state.write(lambda c: create_batch(c, new, 1000))


async def claimed(
    state: ProjectState,
    gateway: FakeGateway,
    clock: Callable[[], float],
    config: BatchesConfig | None = None,
    worker: str = "w",
    used: ProjectState | None = None,
) -> BatchJob:
    """A job of the next batch; `used`: the state as its process sees it, if not as it is."""
    now_s = int(clock())
    row = await state.write(lambda c: claim_batch(c, worker, now_s, LEASE_S))
    assert row is not None
    return BatchJob(used or state, row, gateway, config or BatchesConfig(), time_of_day=clock)


async def process(job: BatchJob, window: DispatchWindow = FOUR, lanes: int = 2) -> None:
    """Bring a batch to its end with a fixed window."""

    async def give_window() -> None:
        while True:
            if job.run is not None:
                job.run.use_window(window, lanes)
            await asyncio.sleep(0.001)

    giving = asyncio.create_task(give_window())
    try:
        await job.process()
    finally:
        giving.cancel()
        await asyncio.wait([giving])


async def shown(state: ProjectState, row: BatchRow) -> BatchRow:
    """A batch as it is now."""
    return await state.read(lambda c: batch(c, row.project_id, row.id))


async def read_lines(state: ProjectState, file_id: str) -> list[dict[str, object]]:
    """Lines of an output or error file; none without an id."""
    if not file_id:
        return []
    data = b"".join([part async for part in state.files.read(file_key(file_id))])
    return [json.loads(line) for line in data.splitlines()]


def ids_of(lines: Iterable[Mapping[str, object]]) -> Iterator[str]:
    """Ids of lines, sorted."""
    return iter(sorted(str(line["custom_id"]) for line in lines))

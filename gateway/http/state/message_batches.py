"""Anthropic's batches of messages: `/v1/messages/batches`, on the same ground as OpenAI's.

Requests come in the body, and are kept as an input file; results are those of both files of
results, in Anthropic's words.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Depends, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from gateway.batch.completion import FILES_MISSING, GIVEN_UP, INPUT_MISSING
from gateway.batch.input_check import InputCheck
from gateway.batch.input_lines import InputLine, split_lines
from gateway.batch.result_lines import CANCELLED, EXPIRED
from gateway.config.batches import BatchesConfig
from gateway.config.project_values import Text
from gateway.errors.anthropic import anthropic_body
from gateway.errors.gateway_error import ErrorDetail
from gateway.errors.request import InvalidJSON, InvalidRequest
from gateway.errors.state import BatchNotEnded
from gateway.http.query import query
from gateway.http.state.parts import CurrentProject
from gateway.ledger.calendar import DAY_S
from gateway.store.batches import (
    MESSAGES,
    BatchRow,
    NewBatch,
    batch,
    cancel_batch,
    create_batch,
    delete_batch,
    list_batches,
)
from gateway.store.database import Transaction
from gateway.store.file_storage import FileMissing
from gateway.store.files import FileRow, create_file, delete_file, file_key, new_file_id
from gateway.store.pages import Cursor
from gateway.store.project_state import ProjectState

PATH = "/v1/messages/batches"
WINDOW_S = 24 * 3600
MAX_PAGE = 1000
MAX_RESULT = 1 << 30
"""Bytes of a line of results: they are whole however long they are."""
FAULTS = frozenset({FILES_MISSING.code, GIVEN_UP.code, INPUT_MISSING.code})
"""Why batches fail that were right."""
ENDED_RESULTS = {EXPIRED: b"expired", CANCELLED: b"canceled"}


class MessageRequest(msgspec.Struct, frozen=True):
    """A request of a batch."""

    custom_id: str
    params: msgspec.Raw


class MessageBatchFields(msgspec.Struct, frozen=True):
    """Body that creates a batch."""

    requests: list[MessageRequest]


class _Line(msgspec.Struct):
    """A line of the input file."""

    custom_id: str
    method: str
    url: str
    body: msgspec.Raw


class _RequestId(msgspec.Struct):
    """What tells a line of the input file from others."""

    custom_id: str


class _LineBody(msgspec.Struct):
    body: msgspec.Raw


class _Error(msgspec.Struct):
    code: str


class _StoredResult(msgspec.Struct):
    """A line of a file of results."""

    custom_id: str
    response: _LineBody | None = None
    error: _Error | None = None


class MessageCounts(BaseModel):
    """How many requests there are, and how they ended."""

    processing: int
    succeeded: int
    errored: int
    canceled: int
    expired: int


class MessageBatch(BaseModel):
    """Anthropic's batch of messages."""

    id: str
    type: Literal["message_batch"] = "message_batch"
    processing_status: Literal["in_progress", "canceling", "ended"]
    request_counts: MessageCounts
    created_at: datetime
    expires_at: datetime
    ended_at: datetime | None
    cancel_initiated_at: datetime | None
    archived_at: None = None
    results_url: str | None
    """Relative to the address of the gateway."""

    @classmethod
    def of(cls, row: BatchRow) -> "MessageBatch":
        """A row as the API shows it."""
        has_ended = row.ended_s is not None
        return cls(
            id=row.id,
            processing_status=_status(row),
            request_counts=_counts(row),
            created_at=_moment(row.created_s),
            expires_at=_moment(row.expires_s),
            ended_at=None if row.ended_s is None else _moment(row.ended_s),
            cancel_initiated_at=None if row.cancelling_s is None else _moment(row.cancelling_s),
            results_url=f"{PATH}/{row.id}/results" if has_ended else None,
        )


class MessageBatchList(BaseModel):
    """A page of batches."""

    data: list[MessageBatch]
    has_more: bool
    first_id: str | None
    last_id: str | None


class DeletedMessageBatch(BaseModel):
    """Confirmation of a deletion."""

    id: str
    type: Literal["message_batch_deleted"] = "message_batch_deleted"


class MessageBatchQuery(BaseModel):
    """Which page of the list."""

    model_config = ConfigDict(extra="forbid")

    limit: Annotated[int, Field(ge=1, le=MAX_PAGE)] = 20
    after_id: Text | None = None
    before_id: Text | None = None

    @property
    def cursor(self) -> Cursor:
        """Place in the list."""
        return Cursor(after=self.after_id, before=self.before_id, limit=self.limit, order="desc")


def message_batches_router(state: ProjectState) -> APIRouter:
    """Routes that create, show, cancel and delete batches, and their results."""
    router = APIRouter()

    @router.post(PATH)
    async def create(request: Request, project: CurrentProject) -> MessageBatch:
        """Create a batch."""
        body = await request.body()
        data, total = await asyncio.to_thread(_input_file, body, state.config.batches)
        row = await _store(state, project, data, total)
        return MessageBatch.of(row)

    @router.get(PATH)
    async def list_all(
        project: CurrentProject,
        wanted: Annotated[MessageBatchQuery, Depends(query(MessageBatchQuery))],
    ) -> MessageBatchList:
        """List batches, the newest first."""
        page = await state.read(lambda c: list_batches(c, project, wanted.cursor, of_messages=True))
        data = [MessageBatch.of(row) for row in page.rows]
        first, last = (data[0].id, data[-1].id) if data else (None, None)
        return MessageBatchList(data=data, has_more=page.has_more, first_id=first, last_id=last)

    @router.get(f"{PATH}/{{batch_id}}")
    async def retrieve(batch_id: str, project: CurrentProject) -> MessageBatch:
        """Retrieve a batch."""
        return MessageBatch.of(
            await state.read(lambda c: batch(c, project, batch_id, of_messages=True))
        )

    @router.post(f"{PATH}/{{batch_id}}/cancel")
    async def cancel(batch_id: str, project: CurrentProject) -> MessageBatch:
        """Have a batch end with the results that it has."""
        now_s = state.now_s
        return MessageBatch.of(
            await state.write(lambda c: cancel_batch(c, project, batch_id, now_s, of_messages=True))
        )

    _add_results(router, state)
    return router


def _add_results(router: APIRouter, state: ProjectState) -> None:
    """Add the routes of what is left of batches that have ended."""

    @router.get(f"{PATH}/{{batch_id}}/results")
    async def results(batch_id: str, project: CurrentProject) -> StreamingResponse:
        """Stream the results of a batch."""
        row = await state.read(lambda c: batch(c, project, batch_id, of_messages=True))
        if row.ended_s is None:
            raise BatchNotEnded.of(batch_id)
        return StreamingResponse(_results(state, row), media_type="application/x-jsonl")

    @router.delete(f"{PATH}/{{batch_id}}")
    async def delete(batch_id: str, project: CurrentProject) -> DeletedMessageBatch:
        """Delete a batch that has ended, with its results."""
        now_s = state.now_s

        def work(connection: Transaction) -> BatchRow:
            row = delete_batch(connection, project, batch_id, now_s)
            for file_id in _files_of(row):
                with contextlib.suppress(InvalidRequest):  # it has expired
                    delete_file(connection, project, file_id, now_s)
            return row

        for file_id in _files_of(await state.write(work)):
            await state.files.delete(file_key(file_id))
        return DeletedMessageBatch(id=batch_id)


async def _store(state: ProjectState, project: str, data: bytes, total: int) -> BatchRow:
    """Keep the input file, and create the batch."""
    now_s = state.now_s
    file_id = new_file_id()

    async def once() -> AsyncIterator[bytes]:
        yield data

    stored = await state.files.write(file_key(file_id), once(), len(data))
    file = FileRow(
        id=file_id,
        project_id=project,
        purpose="batch",
        filename="requests.jsonl",
        bytes=stored.bytes,
        sha256=stored.sha256,
        created_s=now_s,
        expires_s=now_s + state.config.batches.output_days * DAY_S,
    )
    new = NewBatch(
        project_id=project,
        endpoint=MESSAGES,
        input_file_id=file_id,
        input_key=file.key,
        completion_window="24h",
        created_s=now_s,
        expires_s=now_s + WINDOW_S,
        total=total,
    )

    def work(connection: Transaction) -> BatchRow:
        create_file(connection, file, state.config.project_bytes)
        return create_batch(connection, new, state.config.batches.max_unfinished)

    try:
        return await state.write(work)
    except InvalidRequest:
        await state.files.delete(file.key)
        raise


def _input_file(body: bytes, config: BatchesConfig) -> tuple[bytes, int]:
    """The requests of a body as an input file, and their number.

    Raises:
        InvalidRequest: one of them is wrong; the message says which.
    """
    try:
        requests = msgspec.json.decode(body, type=MessageBatchFields).requests
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"requests: {error}", "requests") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise InvalidJSON("The request body is not valid JSON.") from None
    if not requests:
        raise InvalidRequest("requests: there must be at least one", "requests")
    check, lines = InputCheck(MESSAGES, config), []
    for index, each in enumerate(requests):
        line = msgspec.json.encode(_Line(each.custom_id, "POST", MESSAGES, _on_one_line(each)))
        check.check(InputLine(index + 1, 0, len(line), line))
        if check.errors:
            place = f"requests.{index}"
            raise InvalidRequest(f"{place}: {check.errors[0].message}", place)
        lines.append(line + b"\n")
    return b"".join(lines), len(lines)


def _on_one_line(request: MessageRequest) -> msgspec.Raw:
    """JSON without line breaks, which only stand between its values."""
    return msgspec.Raw(bytes(request.params).replace(b"\r", b" ").replace(b"\n", b" "))


async def _results(state: ProjectState, row: BatchRow) -> AsyncIterator[bytes]:
    """All results, in Anthropic's words; nothing of a file that has expired."""
    if not _has_files(row):
        async for line in _lines(state, row.input_key):
            yield _result_without_files(row, line)
    for file_id in filter(None, (row.output_file_id, row.error_file_id)):
        async for line in _lines(state, file_key(file_id)):
            yield _result(line, is_answered=file_id == row.output_file_id)


async def _lines(state: ProjectState, key: str) -> AsyncIterator[bytes]:
    with contextlib.suppress(FileMissing):
        lines = split_lines(state.files.read(key), MAX_RESULT)
        async with contextlib.aclosing(lines):
            async for line in lines:
                yield line.data or b""


def _result_without_files(row: BatchRow, line: bytes) -> bytes:
    """Result of a request of a batch that failed as a whole, or was cancelled before it began."""
    custom_id = msgspec.json.encode(msgspec.json.decode(line, type=_RequestId).custom_id)
    if row.status == "cancelled":
        return b'{"custom_id":%b,"result":{"type":"canceled"}}\n' % custom_id
    reason = row.errors[0] if row.errors else {}
    detail = ErrorDetail(str(reason.get("message", "")), "", None, str(reason.get("code", "")))
    status = 500 if detail.code in FAULTS else 400
    error = anthropic_body(detail, status, row.id.encode())
    return b'{"custom_id":%b,"result":{"type":"errored","error":%b}}\n' % (custom_id, error)


def _result(line: bytes, *, is_answered: bool) -> bytes:
    found = msgspec.json.decode(line, type=_StoredResult)
    custom_id = msgspec.json.encode(found.custom_id)
    if found.response is None:
        kind = ENDED_RESULTS.get(found.error.code if found.error else "", b"expired")
        return b'{"custom_id":%b,"result":{"type":"%b"}}\n' % (custom_id, kind)
    kind, name = (b"succeeded", b"message") if is_answered else (b"errored", b"error")
    body = bytes(found.response.body)
    return b'{"custom_id":%b,"result":{"type":"%b","%b":%b}}\n' % (custom_id, kind, name, body)


def _has_files(row: BatchRow) -> bool:
    """Whether a batch that has ended has results of its own."""
    return bool(row.output_file_id or row.error_file_id)


def _files_of(row: BatchRow) -> list[str]:
    return [each for each in (row.input_file_id, row.output_file_id, row.error_file_id) if each]


def _status(row: BatchRow) -> Literal["in_progress", "canceling", "ended"]:
    if row.ended_s is not None:
        return "ended"
    return "canceling" if row.status == "cancelling" else "in_progress"


def _counts(row: BatchRow) -> MessageCounts:
    """Requests are counted as they ended only once all have."""
    total = row.total
    none = MessageCounts(processing=0, succeeded=0, errored=0, canceled=0, expired=0)
    if row.ended_s is None:
        return none.model_copy(update={"processing": total})
    is_cancelled = row.status == "cancelled"
    if not _has_files(row):
        return none.model_copy(update={"canceled" if is_cancelled else "errored": total})
    missing = total - row.completed - row.failed
    return MessageCounts(
        processing=0,
        succeeded=row.completed,
        errored=row.failed - row.unanswered + (0 if is_cancelled else missing),
        canceled=row.unanswered + missing if is_cancelled else 0,
        expired=0 if is_cancelled else row.unanswered,
    )


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)

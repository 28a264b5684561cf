"""Batches: `/v1/batches`."""

import re
from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field, StringConstraints

from gateway.batch.input_check import ENDPOINTS
from gateway.errors.request import InvalidRequest
from gateway.errors.state import ObjectNotFound
from gateway.http.organization.values import ListQuery, Params
from gateway.http.query import query
from gateway.http.state.file_objects import ExpiresAfter
from gateway.http.state.parts import CurrentProject, ObjectList, listed
from gateway.store.batches import (
    BatchRow,
    BatchStatus,
    NewBatch,
    batch,
    cancel_batch,
    create_batch,
    list_batches,
)
from gateway.store.database import Transaction
from gateway.store.files import FileRow, file
from gateway.store.pages import Cursor
from gateway.store.project_state import ProjectState

MAX_PAIRS = 16
PURPOSE = "batch"
SECONDS = {"m": 60, "h": 3600}
MAX_WINDOW_S = 24 * 3600
_WINDOW = re.compile(r"([1-9][0-9]{0,3})([mh])")

Metadata = Annotated[
    dict[
        Annotated[str, StringConstraints(max_length=64)],
        Annotated[str, StringConstraints(max_length=512)],
    ],
    Field(max_length=MAX_PAIRS),
]


class BatchCreation(Params):
    """Body that creates a batch."""

    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: Metadata | None = None
    output_expires_after: ExpiresAfter | None = None


class BatchErrorObject(BaseModel):
    """What is wrong with an input file, or a line of it."""

    code: str
    line: int | None
    message: str
    param: str | None


class ErrorList(BaseModel):
    """OpenAI's list of errors."""

    object: Literal["list"] = "list"
    data: list[BatchErrorObject]


class RequestCounts(BaseModel):
    """How many requests there are, and how they ended."""

    total: int
    completed: int
    failed: int


class InputDetails(BaseModel):
    """Tokens of prompts that were cached."""

    cached_tokens: int


class OutputDetails(BaseModel):
    """Tokens of answers that were reasoning."""

    reasoning_tokens: int


class TokensOfBatch(BaseModel):
    """Tokens that a batch has taken so far."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class BatchObject(BaseModel):
    """OpenAI's batch."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    model: str | None
    errors: ErrorList | None
    input_file_id: str
    completion_window: str
    status: BatchStatus
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    usage: TokensOfBatch
    metadata: dict[str, str] | None

    @classmethod
    def of(cls, row: BatchRow) -> "BatchObject":
        """A row as the API shows it."""
        return cls(
            id=row.id,
            endpoint=row.endpoint,
            model=row.model or None,
            errors=_errors(row),
            input_file_id=row.input_file_id,
            completion_window=row.completion_window,
            status=row.status,
            output_file_id=row.output_file_id or None,
            error_file_id=row.error_file_id or None,
            created_at=row.created_s,
            in_progress_at=row.in_progress_s,
            expires_at=row.expires_s,
            finalizing_at=row.finalizing_s,
            completed_at=row.completed_s,
            failed_at=row.failed_s,
            expired_at=row.expired_s if row.status == "expired" else None,
            cancelling_at=row.cancelling_s,
            cancelled_at=row.cancelled_s,
            request_counts=RequestCounts(
                total=row.total, completed=row.completed, failed=row.failed
            ),
            usage=_usage(row),
            metadata=row.metadata,
        )


def batches_router(state: ProjectState) -> APIRouter:
    """Routes that create, show and cancel batches; `Batches` runs them."""
    router = APIRouter()

    @router.post("/v1/batches")
    async def create(body: BatchCreation, project: CurrentProject) -> BatchObject:
        """Create a batch."""
        window_s = window_seconds(body.completion_window)
        if body.endpoint not in ENDPOINTS:
            known = ", ".join(f"`{each}`" for each in ENDPOINTS)
            raise InvalidRequest(f"`endpoint` must be one of {known}.", "endpoint")
        now_s = state.now_s
        expiry = body.output_expires_after

        def work(connection: Transaction) -> BatchRow:
            found = _input(connection, project, body.input_file_id, now_s)
            new = NewBatch(
                project_id=project,
                endpoint=body.endpoint,
                input_file_id=body.input_file_id,
                input_key=found.key,
                completion_window=body.completion_window,
                created_s=now_s,
                expires_s=now_s + window_s,
                output_lifetime_s=None if expiry is None else expiry.seconds,
                metadata=body.metadata,
            )
            return create_batch(connection, new, state.config.batches.max_unfinished)

        return BatchObject.of(await state.write(work))

    @router.get("/v1/batches")
    async def list_all(
        project: CurrentProject, wanted: Annotated[ListQuery, Depends(query(ListQuery))]
    ) -> ObjectList[BatchObject]:
        """List batches, the newest first."""
        cursor = Cursor(after=wanted.after, limit=wanted.limit, order="desc")
        page = await state.read(lambda c: list_batches(c, project, cursor))
        return listed(page, BatchObject.of)

    @router.get("/v1/batches/{batch_id}")
    async def retrieve(batch_id: str, project: CurrentProject) -> BatchObject:
        """Retrieve a batch."""
        return BatchObject.of(await state.read(lambda c: batch(c, project, batch_id)))

    @router.post("/v1/batches/{batch_id}/cancel")
    async def cancel(batch_id: str, project: CurrentProject) -> BatchObject:
        """Have a batch end with the results that it has."""
        now_s = state.now_s
        row = await state.write(lambda c: cancel_batch(c, project, batch_id, now_s))
        return BatchObject.of(row)

    return router


def window_seconds(window: str) -> int:
    """Seconds of a completion window such as `24h`, `90m` or `1h`.

    Raises:
        InvalidRequest: it is none, or longer than a day.
    """
    found = _WINDOW.fullmatch(window)
    seconds = int(found[1]) * SECONDS[found[2]] if found else 0
    if not 0 < seconds <= MAX_WINDOW_S:
        raise InvalidRequest(
            "`completion_window` must be `24h`, or a shorter time in hours or minutes such as `1h`"
            " or `30m`.",
            "completion_window",
        )
    return seconds


def _input(connection: Transaction, project: str, file_id: str, now_s: int) -> FileRow:
    try:
        if not file_id.isprintable():  # PostgreSQL takes no NUL
            raise ObjectNotFound.of("File", file_id)
        found = file(connection, project, file_id, now_s)
    except ObjectNotFound:
        raise ObjectNotFound.of("File", file_id, "input_file_id") from None
    if found.purpose != PURPOSE:
        raise InvalidRequest(
            f"The file `{file_id}` has the purpose `{found.purpose}`; the input of a batch must"
            f" have the purpose `{PURPOSE}`.",
            "input_file_id",
        )
    return found


def _errors(row: BatchRow) -> ErrorList | None:
    if not row.errors:
        return None
    return ErrorList(data=[BatchErrorObject.model_validate(each) for each in row.errors])


def _usage(row: BatchRow) -> TokensOfBatch:
    return TokensOfBatch(
        input_tokens=row.input_tokens,
        input_tokens_details=InputDetails(cached_tokens=row.cached_tokens),
        output_tokens=row.output_tokens,
        output_tokens_details=OutputDetails(reasoning_tokens=row.reasoning_tokens),
        total_tokens=row.input_tokens + row.output_tokens,
    )

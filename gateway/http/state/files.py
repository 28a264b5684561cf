"""Files: `/v1/files`."""

import base64
from collections.abc import AsyncIterator
from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import APIRouter, Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.http.query import parse, query
from gateway.http.state.file_objects import (
    MAX_NAME,
    ExpiresAfter,
    FileObject,
    Purpose,
    lifetime_s,
)
from gateway.http.state.incoming import IncomingFiles, announced_bytes, form_of
from gateway.http.state.parts import CurrentProject, listed
from gateway.store import files as store
from gateway.store.file_storage import StoredFile
from gateway.store.files import FileRow
from gateway.store.pages import Cursor
from gateway.store.project_state import ProjectState

FILES = "/v1/files"
FILE = f"{FILES}/{{file_id}}"
MAX_PAGE = 10_000


class FileCreation(BaseModel):
    """Fields of the form that creates a file."""

    model_config = ConfigDict(extra="forbid")

    purpose: Purpose
    expires_after: ExpiresAfter | None = None


class FilesQuery(BaseModel):
    """Which files to list."""

    model_config = ConfigDict(extra="forbid")

    after: Annotated[str, Field(max_length=MAX_NAME)] | None = None
    limit: Annotated[int, Field(ge=1, le=MAX_PAGE)] = MAX_PAGE
    order: Literal["asc", "desc"] = "desc"
    purpose: Annotated[str, Field(max_length=MAX_NAME)] | None = None

    @property
    def cursor(self) -> Cursor:
        """Place in the list."""
        return Cursor(after=self.after, limit=self.limit, order=self.order)


class DeletedFile(BaseModel):
    """Confirmation of a deletion."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


def files_router(state: ProjectState, incoming: IncomingFiles) -> APIRouter:
    """Routes that create, list, show and delete files, and their content."""
    router = APIRouter()

    @router.post(FILES)
    async def create(request: Request, project: CurrentProject) -> FileObject:
        """Store a file."""
        config = state.config
        size = announced_bytes(request, config.max_file_bytes, "file")
        room = config.project_bytes - await state.read(lambda c: store.used_bytes(c, project))
        with incoming.expect(project, size, room):
            return FileObject.of(await _store(request, project))

    @router.get(FILES)
    async def list_all(
        project: CurrentProject, wanted: Annotated[FilesQuery, Depends(query(FilesQuery))]
    ) -> Response:
        """List files."""
        now_s = state.now_s
        body = await state.read(
            lambda c: listed(
                store.list_files(c, project, wanted.cursor, wanted.purpose, now_s), FileObject.of
            ).model_dump_json()
        )
        return Response(body, media_type="application/json")

    @router.get(FILE)
    async def retrieve(file_id: str, project: CurrentProject) -> FileObject:
        """Describe a file."""
        return FileObject.of(await _row(project, file_id))

    @router.delete(FILE)
    async def delete(file_id: str, project: CurrentProject) -> DeletedFile:
        """Delete a file."""
        now_s = state.now_s
        row = await state.write(lambda c: store.delete_file(c, project, file_id, now_s))
        await state.files.delete(row.key)
        return DeletedFile(id=row.id)

    @router.get(f"{FILE}/content")
    async def content(file_id: str, project: CurrentProject) -> Response:
        """The content of a file."""
        row = await _row(project, file_id)
        blocks = state.files.read(row.key)
        first = await anext(blocks, b"")  # what is wrong must be known before the answer begins
        return StreamingResponse(
            _joined(first, blocks), media_type="application/octet-stream", headers=_headers(row)
        )

    async def _row(project: str, file_id: str) -> FileRow:
        now_s = state.now_s
        return await state.read(lambda c: store.file(c, project, file_id, now_s))

    async def _store(request: Request, project: str) -> FileRow:
        form, file_id = form_of(request, "file"), store.new_file_id()
        key = store.file_key(file_id)
        filename, stored = await incoming.store(form, key, state.config.max_file_bytes)
        try:
            wanted = _creation(form.fields)
            row = _new_row(file_id, project, filename, stored, wanted)
            limit = state.config.project_bytes
            await state.write(lambda c: store.create_file(c, row, limit))
        except BaseException:
            await incoming.forget(key)
            raise
        return row

    def _new_row(
        file_id: str, project: str, filename: str, stored: StoredFile, wanted: FileCreation
    ) -> FileRow:
        now_s, life_s = state.now_s, lifetime_s(wanted.purpose, wanted.expires_after)
        return FileRow(
            id=file_id,
            project_id=project,
            purpose=wanted.purpose,
            filename=filename[:MAX_NAME] or "file",
            bytes=stored.bytes,
            sha256=stored.sha256,
            created_s=now_s,
            expires_s=None if life_s is None else now_s + life_s,
        )

    return router


def _creation(fields: dict[str, str]) -> FileCreation:
    """The fields of a form, `expires_after[seconds]` and the like joined."""
    try:
        return FileCreation.model_validate(parse(fields.items(), FileCreation))
    except ValidationError as error:
        found = [dict(each, loc=("body", *each["loc"])) for each in error.errors()]
        raise RequestValidationError(found) from None


async def _joined(first: bytes, blocks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for block in blocks:
        yield block


def _headers(row: FileRow) -> dict[str, str]:
    """Headers of a file's content: browsers must not take it for a page."""
    digest = base64.b64encode(bytes.fromhex(row.sha256)).decode()
    return {
        "content-length": str(row.bytes),
        "content-disposition": f"attachment; filename*=UTF-8''{quote(row.filename, safe='')}",
        "x-content-type-options": "nosniff",
        "repr-digest": f"sha-256=:{digest}:",
    }

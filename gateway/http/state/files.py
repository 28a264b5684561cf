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


class StoredFiles:
    """Files of projects: rows in the database, bytes in the storage."""

    def __init__(self, state: ProjectState, incoming: IncomingFiles) -> None:
        self._state = state
        self._incoming = incoming

    async def create(self, request: Request, project: str) -> FileRow:
        """Store the file of a form."""
        config = self._state.config
        size = announced_bytes(request, config.max_file_bytes, "file")
        used = await self._state.read(lambda c: store.used_bytes(c, project))
        with self._incoming.expect(project, size, config.project_bytes - used):
            return await self._store(request, project)

    async def page(self, project: str, wanted: FilesQuery) -> str:
        """A page of the list, as JSON; made in the database's thread, because it may be long."""
        now_s = self._state.now_s
        return await self._state.read(
            lambda c: listed(
                store.list_files(c, project, wanted.cursor, wanted.purpose, now_s), FileObject.of
            ).model_dump_json()
        )

    async def row(self, project: str, file_id: str) -> FileRow:
        """A file that exists."""
        now_s = self._state.now_s
        return await self._state.read(lambda c: store.file(c, project, file_id, now_s))

    async def delete(self, project: str, file_id: str) -> FileRow:
        """Delete a file and its bytes."""
        now_s = self._state.now_s
        row = await self._state.write(lambda c: store.delete_file(c, project, file_id, now_s))
        await self._state.delete_bytes([row.key])
        return row

    async def content(self, row: FileRow) -> AsyncIterator[bytes]:
        """Content of a file, the first block of which has been read."""
        blocks = self._state.files.read(row.key)
        first = await anext(blocks, b"")  # what is wrong must be known before the answer begins
        return _joined(first, blocks)

    async def _store(self, request: Request, project: str) -> FileRow:
        form, file_id = form_of(request, "file"), store.new_file_id()
        key, config = store.file_key(file_id), self._state.config
        filename, stored = await self._incoming.store(form, key, config.max_file_bytes)
        async with self._incoming.deleted_if_refused(key):
            row = self._new_row(file_id, project, filename, stored, _creation(form.fields))
            await self._state.write(lambda c: store.create_file(c, row, config.project_bytes))
        return row

    def _new_row(
        self, file_id: str, project: str, filename: str, stored: StoredFile, wanted: FileCreation
    ) -> FileRow:
        now_s, life_s = self._state.now_s, lifetime_s(wanted.purpose, wanted.expires_after)
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


def files_router(files: StoredFiles) -> APIRouter:
    """Routes that create, list, show and delete files, and their content."""
    router = APIRouter()

    @router.post(FILES)
    async def create(request: Request, project: CurrentProject) -> FileObject:
        """Store a file."""
        return FileObject.of(await files.create(request, project))

    @router.get(FILES)
    async def list_all(
        project: CurrentProject, wanted: Annotated[FilesQuery, Depends(query(FilesQuery))]
    ) -> Response:
        """List files."""
        return Response(await files.page(project, wanted), media_type="application/json")

    @router.get(FILE)
    async def retrieve(file_id: str, project: CurrentProject) -> FileObject:
        """Describe a file."""
        return FileObject.of(await files.row(project, file_id))

    @router.delete(FILE)
    async def delete(file_id: str, project: CurrentProject) -> DeletedFile:
        """Delete a file."""
        return DeletedFile(id=(await files.delete(project, file_id)).id)

    @router.get(f"{FILE}/content")
    async def content(file_id: str, project: CurrentProject) -> Response:
        """The content of a file."""
        row = await files.row(project, file_id)
        parts = await files.content(row)
        return StreamingResponse(
            parts, media_type="application/octet-stream", headers=_headers(row)
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

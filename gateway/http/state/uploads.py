"""Uploads of files in parts: `/v1/uploads`."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Annotated, Literal
from weakref import WeakValueDictionary

import msgspec
from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from gateway.errors.administration import UnknownParameter
from gateway.errors.request import BodyTooLarge, InvalidRequest
from gateway.http.state.file_objects import (
    MAX_NAME,
    ExpiresAfter,
    FileObject,
    Purpose,
    lifetime_s,
)
from gateway.http.state.incoming import IncomingFiles, announced_bytes, form_of
from gateway.http.state.parts import CurrentProject
from gateway.store import files
from gateway.store import uploads as store
from gateway.store.database import Transaction
from gateway.store.file_storage import ChecksumMismatch, FileMissing
from gateway.store.files import FileRow
from gateway.store.project_state import ProjectState
from gateway.store.uploads import MAX_PARTS, PartRow, UploadRow

UPLOADS = "/v1/uploads"
UPLOAD = f"{UPLOADS}/{{upload_id}}"
MAX_PART_BYTES = 64 << 20
NO_NUL = r"^[^\x00]*$"
"""Pattern of texts that any database can have."""

Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME, pattern=NO_NUL)]


class UploadCreation(BaseModel):
    """Body that begins an upload."""

    model_config = ConfigDict(extra="forbid", strict=True)

    bytes: Annotated[int, Field(ge=0)]
    filename: Name
    mime_type: Name
    purpose: Purpose
    expires_after: ExpiresAfter | None = None


class UploadCompletion(BaseModel):
    """Body that ends an upload: its parts in their order, and the MD5 of the whole."""

    model_config = ConfigDict(extra="forbid", strict=True)

    part_ids: Annotated[list[Name], Field(max_length=MAX_PARTS)]
    md5: Annotated[str, Field(max_length=64)] | None = None


class UploadObject(BaseModel):
    """OpenAI's upload."""

    id: str
    object: Literal["upload"] = "upload"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    status: str
    file: FileObject | None

    @classmethod
    def of(cls, row: UploadRow, file: FileRow | None = None) -> "UploadObject":
        """A row as the API shows it, with the file that it has made."""
        return cls(
            id=row.id,
            bytes=row.bytes,
            created_at=row.created_s,
            expires_at=row.expires_s,
            filename=row.filename,
            purpose=row.purpose,
            status=row.status,
            file=None if file is None else FileObject.of(file),
        )


class PartObject(BaseModel):
    """OpenAI's part of an upload."""

    id: str
    object: Literal["upload.part"] = "upload.part"
    created_at: int
    upload_id: str


class ProjectUploads:
    """Uploads of projects, and their parts."""

    def __init__(self, state: ProjectState, incoming: IncomingFiles) -> None:
        self._state = state
        self._incoming = incoming
        self._locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        """By project and upload: held by who ends it."""

    async def create(self, body: UploadCreation, project: str) -> UploadRow:
        """Begin an upload."""
        config, now_s = self._state.config, self._state.now_s
        if body.bytes > config.max_upload_bytes:
            raise BodyTooLarge(f"An upload may have {config.max_upload_bytes:,} bytes.", "bytes")
        row = UploadRow(
            id=store.new_upload_id(),
            project_id=project,
            purpose=body.purpose,
            filename=body.filename,
            mime_type=body.mime_type,
            bytes=body.bytes,
            created_s=now_s,
            expires_s=now_s + store.LIFETIME_S,
            file_expires_after_s=lifetime_s(body.purpose, body.expires_after),
        )
        await self._state.write(lambda c: store.create_upload(c, row, config.project_bytes))
        return row

    async def add_part(self, request: Request, upload_id: str, project: str) -> PartRow:
        """Take the part of a form."""
        size, now_s = announced_bytes(request, MAX_PART_BYTES, "data"), self._state.now_s
        limit = self._state.config.project_bytes
        left, used = await self._state.read(
            lambda c: (
                store.room_of_upload(c, project, upload_id, now_s),
                files.used_bytes(c, project),
            )
        )
        with self._incoming.expect(project, min(size, left), limit - used):
            return await self._store_part(request, upload_id, project, min(left, MAX_PART_BYTES))

    async def complete(
        self, upload_id: str, body: UploadCompletion, project: str
    ) -> tuple[UploadRow, FileRow]:
        """Make the file of an upload's parts; who asks again, even meanwhile, gets the same."""
        async with self._ending(project, upload_id):
            return await self._complete(upload_id, body, project)

    async def _complete(
        self, upload_id: str, body: UploadCompletion, project: str
    ) -> tuple[UploadRow, FileRow]:
        state, now_s = self._state, self._state.now_s
        row = await state.read(lambda c: store.upload(c, project, upload_id, now_s))
        if row.status == "completed" and row.file_id is not None:  # asked a second time
            file_id = row.file_id
            return row, await state.read(lambda c: files.file(c, project, file_id, now_s))
        limit = state.config.project_bytes
        parts, used = await state.read(
            lambda c: (_wanted(c, row, body.part_ids, now_s), files.used_bytes(c, project))
        )
        # The parts, whose place the copy takes, are still there.
        with self._incoming.expect(project, row.bytes, limit - used + row.bytes):
            made = await self._join(row, parts, body.md5)
            async with self._incoming.deleted_if_refused(made.key):
                gone = await state.write(
                    lambda c: store.complete_upload(c, row, made, now_s, limit)
                )
            await state.delete_bytes([part.key for part in gone])
        return msgspec.structs.replace(row, status="completed"), made

    async def cancel(self, upload_id: str, project: str) -> UploadRow:
        """End an upload without a file."""
        now_s = self._state.now_s

        def work(connection: Transaction) -> tuple[UploadRow, Sequence[PartRow]]:
            row = store.pending_upload(connection, project, upload_id, now_s)
            parts = store.end_upload(connection, upload_id, "cancelled")
            return msgspec.structs.replace(row, status="cancelled"), parts

        async with self._ending(project, upload_id):
            row, parts = await self._state.write(work)
            await self._state.delete_bytes([part.key for part in parts])
        return row

    def _ending(self, project: str, upload_id: str) -> asyncio.Lock:
        return self._locks.setdefault((project, upload_id), asyncio.Lock())

    async def _store_part(
        self, request: Request, upload_id: str, project: str, max_bytes: int
    ) -> PartRow:
        now_s, part_id = self._state.now_s, store.new_part_id()
        form = form_of(request, "data")
        key = store.part_key(part_id)
        _, stored = await self._incoming.store(form, key, max_bytes)
        part = PartRow(
            id=part_id,
            upload_id=upload_id,
            project_id=project,
            bytes=stored.bytes,
            created_s=now_s,
        )
        limit = self._state.config.project_bytes
        async with self._incoming.deleted_if_refused(key):
            _check_no_fields(form.fields)
            await self._state.write(lambda c: store.add_part(c, part, now_s, limit))
        return part

    async def _join(self, row: UploadRow, parts: Sequence[PartRow], md5: str | None) -> FileRow:
        file_id, now_s = files.new_file_id(), self._state.now_s
        keys = [part.key for part in parts]
        try:
            stored = await self._state.files.concatenate(files.file_key(file_id), keys, md5=md5)
        except ChecksumMismatch:
            raise InvalidRequest("The parts have another MD5 than this.", "md5") from None
        except FileMissing:
            now_s = self._state.now_s  # it may have expired meanwhile
            await self._state.read(lambda c: store.pending_upload(c, row.project_id, row.id, now_s))
            raise
        life_s = row.file_expires_after_s
        return FileRow(
            id=file_id,
            project_id=row.project_id,
            purpose=row.purpose,
            filename=row.filename,
            bytes=stored.bytes,
            sha256=stored.sha256,
            created_s=now_s,
            expires_s=None if life_s is None else now_s + life_s,
        )


def uploads_router(uploads: ProjectUploads) -> APIRouter:
    """Routes that begin uploads, take their parts, and complete or cancel them."""
    router = APIRouter()

    @router.post(UPLOADS)
    async def create(body: UploadCreation, project: CurrentProject) -> UploadObject:
        """Begin an upload."""
        return UploadObject.of(await uploads.create(body, project))

    @router.post(f"{UPLOAD}/parts")
    async def add_part(request: Request, upload_id: str, project: CurrentProject) -> PartObject:
        """Take a part."""
        part = await uploads.add_part(request, upload_id, project)
        return PartObject(id=part.id, created_at=part.created_s, upload_id=upload_id)

    @router.post(f"{UPLOAD}/complete")
    async def complete(
        upload_id: str, body: UploadCompletion, project: CurrentProject
    ) -> UploadObject:
        """Make the file of its parts."""
        return UploadObject.of(*await uploads.complete(upload_id, body, project))

    @router.post(f"{UPLOAD}/cancel")
    async def cancel(upload_id: str, project: CurrentProject) -> UploadObject:
        """End an upload without a file."""
        return UploadObject.of(await uploads.cancel(upload_id, project))

    return router


def _check_no_fields(fields: Iterable[str]) -> None:
    for name in fields:
        raise UnknownParameter(f"Unknown parameter: `{name[:MAX_NAME]}`.", name[:MAX_NAME])


def _wanted(
    connection: Transaction, row: UploadRow, part_ids: Sequence[str], now_s: int
) -> Sequence[PartRow]:
    """The parts that are to make the file, in their order.

    Raises:
        InvalidRequest: the upload has ended; or they are not its parts, or not as many bytes as
            were announced.
    """
    store.pending_upload(connection, row.project_id, row.id, now_s)
    known = {part.id: part for part in store.parts_of(connection, row.id)}
    for part_id in part_ids:
        if part_id not in known:
            raise InvalidRequest(f"The upload has no part `{part_id[:100]}`.", "part_ids")
    if len(set(part_ids)) < len(part_ids):
        raise InvalidRequest("A part is named twice.", "part_ids")
    parts = [known[part_id] for part_id in part_ids]
    came = sum(part.bytes for part in parts)
    if came != row.bytes:
        raise InvalidRequest(
            f"These parts have {came:,} bytes, and the upload was announced to have {row.bytes:,}.",
            "part_ids",
        )
    return parts

"""Files of forms on their way to the storage, within the limits of their project."""

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from fastapi import Request
from fastapi.exceptions import RequestValidationError

from gateway.errors.gateway_error import GatewayError
from gateway.errors.request import BodyTooLarge, InvalidRequest
from gateway.errors.state import StorageFull
from gateway.http.state.form import FORM_BYTES, FormReader
from gateway.serving.body import body_parts
from gateway.store.file_storage import FileTooLarge, StoredFile
from gateway.store.project_state import ProjectState


class IncomingFiles:
    """Receives files, and knows how many bytes of each project are on their way."""

    def __init__(self, state: ProjectState) -> None:
        self._state = state
        self._expected: Counter[str] = Counter()

    @contextmanager
    def expect(self, project: str, size: int, room: int) -> Iterator[None]:
        """Count bytes that come now; `room`: bytes that the project may still have.

        Announced sizes are those of whole forms, so this is for what comes at the same time:
        whoever adds a row checks the room exactly.

        Raises:
            StorageFull: together with others that come now, they are more.
        """
        if self._expected[project] + size > room + FORM_BYTES:
            raise StorageFull(
                f"The project's files may take {room:,} bytes more, and files of"
                f" {self._expected[project] + size:,} bytes are on their way."
            )
        self._expected[project] += size
        try:
            yield
        finally:
            self._expected[project] -= size
            if not self._expected[project]:
                del self._expected[project]

    async def store(self, form: FormReader, key: str, max_bytes: int) -> tuple[str, StoredFile]:
        """Write the file of a form, and read the rest of it; the file's name, and what it is.

        Raises:
            BodyTooLarge: the file is larger.
            InvalidRequest: the body is no form with a file.
            StorageUnavailable: it could not be written.
        """
        found = await form.file()
        if "\0" in found.filename:  # no such thing can be in the database
            raise InvalidRequest("The name of the file has a NUL character.", form.file_field)
        try:
            stored = await self._state.files.write(key, found.content, max_bytes)
        except FileTooLarge:
            raise file_too_large(max_bytes, form.file_field) from None
        try:
            await form.finish()
        except BaseException:
            await self._state.delete_bytes([key])
            raise
        return found.filename, stored

    @asynccontextmanager
    async def deleted_if_refused(self, key: str) -> AsyncIterator[None]:
        """Context that gives bytes their row; if that is refused, they are deleted.

        Anything else that ends it may come after the commit, whose answer was lost or has no
        reader any more: then the bytes stay, and upkeep deletes them if they have no row.
        """
        try:
            yield
        except (GatewayError, RequestValidationError):
            await self._state.delete_bytes([key])
            raise


def form_of(request: Request, file_field: str) -> FormReader:
    """The form in a request's body, whose parts come at the pace that bodies must have."""
    parts: AsyncIterator[bytes] = body_parts(request.receive)
    return FormReader(request.headers.get("content-type", ""), parts, file_field)


def announced_bytes(request: Request, max_bytes: int, file_field: str) -> int:
    """Bytes that a request's file has at most.

    Raises:
        BodyTooLarge: it is announced to be larger than `max_bytes`.
    """
    length = request.headers.get("content-length", "")
    if not length.isdigit() or len(length) > 18:
        return max_bytes
    if int(length) > max_bytes + FORM_BYTES:
        raise file_too_large(max_bytes, file_field)
    return min(int(length), max_bytes)


def file_too_large(max_bytes: int, file_field: str) -> BodyTooLarge:
    """The error for a file over a limit."""
    return BodyTooLarge(f"The file is larger than the {max_bytes:,} bytes allowed.", file_field)

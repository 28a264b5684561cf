"""Forms with one file (multipart/form-data), read as they come: the file is never in memory.

Clients send fields before the file or after it. So a form is read up to the file, then the file's
content, then the rest.
"""

from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from gateway.errors.request import InvalidRequest, MissingParameter

FORM_BYTES = 1 << 20
"""Bytes that a form may have beside its file."""
MAX_FIELDS = 32
MAX_FIELD_BYTES = 16 * 1024
NOT_A_FORM = "The request body must be multipart/form-data with a boundary."


class _Kind(Enum):
    HEADERS = auto()
    DATA = auto()
    END = auto()


class _FormEvent(NamedTuple):
    """A step of the parser: a part's headers, some of its data, or its end."""

    kind: _Kind
    data: bytes = b""
    headers: dict[bytes, bytes] | None = None


@dataclass(frozen=True, slots=True)
class FormFile:
    """The file of a form: its name, and its content, which can be read once."""

    filename: str
    content: AsyncIterator[bytes]


class FormReader:
    """Reads a form whose file is in the field `file_field`; `parts`: the request's body."""

    def __init__(self, content_type: str, parts: AsyncIterator[bytes], file_field: str) -> None:
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if kind != b"multipart/form-data" or not boundary:
            raise InvalidRequest(NOT_A_FORM)
        self._parts = parts
        self.file_field = file_field
        """Name of the field with the file."""
        self._events: deque[_FormEvent] = deque()
        self._is_whole = False
        self._count = 0
        self._other_bytes = 0
        """Bytes that have come and are content of no part: boundaries, headers, what is around."""
        self._parser = _parser(boundary, self._events, self._end)
        self.fields: dict[str, str] = {}
        """Fields that have been read, without the file."""

    async def file(self) -> FormFile:
        """Read up to the file; its content must be read before `finish`.

        Raises:
            InvalidRequest: the body is no form, or has too much beside the file.
            MissingParameter: it has no file.
        """
        filename = await self._read_fields()
        if filename is None:
            name = self.file_field
            raise MissingParameter(f"Missing required parameter: '{name}'.", name)
        return FormFile(filename, self._content())

    async def finish(self) -> None:
        """Read the rest.

        Raises:
            InvalidRequest: the body is no form, or has a second file, or too much beside it.
        """
        if await self._read_fields() is not None:
            raise InvalidRequest("The form has more than one file.", self.file_field)

    async def _read_fields(self) -> str | None:
        """Read fields up to the file, and return its name; None at the end of the form."""
        while (event := await self._next()) is not None:
            disposition = (event.headers or {}).get(b"content-disposition")
            _, options = parse_options_header(disposition)
            name = options.get(b"name", b"").decode(errors="replace")
            if name == self.file_field:
                return options.get(b"filename", b"").decode(errors="replace")
            self._count += 1  # a name may come again
            if self._count > MAX_FIELDS:
                raise InvalidRequest("The form has too many fields.")
            self.fields[name] = await self._value(name)
        return None

    async def _value(self, name: str) -> str:
        value = bytearray()
        async for part in self._content():
            value += part
            if len(value) > MAX_FIELD_BYTES:
                raise InvalidRequest("This field of the form is too long.", name[:100])
        return value.decode(errors="replace")

    async def _content(self) -> AsyncIterator[bytes]:
        """Content of the part whose headers have just been read."""
        while (event := await self._next()) is not None and event.kind is not _Kind.END:
            yield event.data

    async def _next(self) -> _FormEvent | None:
        """The next step; None at the end of the form."""
        while not self._events:
            part = await anext(self._parts, None)
            if part is None:
                if self._is_whole:
                    return None
                raise InvalidRequest("The form breaks off before its end.")
            try:
                self._parser.write(part)
            except FormParserError:
                raise InvalidRequest("The request body is not valid multipart/form-data.") from None
            self._other_bytes += len(part) - sum(len(event.data) for event in self._events)
            if self._other_bytes > FORM_BYTES:
                raise InvalidRequest("The form has too much beside its file.")
        return self._events.popleft()

    def _end(self) -> None:
        self._is_whole = True


def _parser(
    boundary: bytes, events: deque[_FormEvent], on_end: Callable[[], None]
) -> MultipartParser:
    """A parser that appends what it finds to `events`; `on_end`: called at the form's end."""
    headers: dict[bytes, bytes] = {}
    name, value = bytearray(), bytearray()

    def begin() -> None:
        headers.clear()

    def add_header() -> None:
        headers[bytes(name).lower()] = bytes(value).strip(b" \t")
        name.clear()
        value.clear()

    def add(kind: _Kind, data: bytes = b"") -> None:
        events.append(_FormEvent(kind, data, dict(headers) if kind is _Kind.HEADERS else None))

    def extend(target: bytearray, data: bytes) -> None:
        target.extend(data)

    return MultipartParser(
        boundary,
        {
            "on_part_begin": begin,
            "on_header_field": lambda data, start, end: extend(name, data[start:end]),
            "on_header_value": lambda data, start, end: extend(value, data[start:end]),
            "on_header_end": add_header,
            "on_headers_finished": lambda: add(_Kind.HEADERS),
            "on_part_data": lambda data, start, end: add(_Kind.DATA, data[start:end]),
            "on_part_end": lambda: add(_Kind.END),
            "on_end": on_end,
        },
    )

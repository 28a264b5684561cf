"""Forms are read the same however their bytes are cut."""

import itertools
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors.request import InvalidRequest
from gateway.http.state.form import MAX_FIELD_BYTES, MAX_FIELDS, FormReader

CONTENT = b"line\r\n--b\r--bound\r\n\r\n--boundary"
BLOCK = 1 << 16
TYPE = "multipart/form-data; boundary=boundary-x"


def field(name: str, value: bytes, filename: str | None = None) -> bytes:
    """A part of a form."""
    file = "" if filename is None else f'; filename="{filename}"'
    head = f'--boundary-x\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
    return head.encode() + value + b"\r\n"


FORM = (
    field("purpose", b"batch")
    + field("file", CONTENT, "a;b.txt")
    + field("expires_after[seconds]", b"3600")
    + b"--boundary-x--\r\n"
)


async def cut(form: bytes, places: list[int]) -> AsyncIterator[bytes]:
    """The form in pieces."""
    edges = [0, *sorted(places), len(form)]
    for begin, end in itertools.pairwise(edges):
        if end > begin:
            yield form[begin:end]


async def read(form: bytes, places: list[int]) -> tuple[str, bytes, dict[str, str]]:
    """Name and content of the file, and all fields, of a form that comes in pieces."""
    return await read_all(cut(form, places))


async def read_all(parts: AsyncIterator[bytes]) -> tuple[str, bytes, dict[str, str]]:
    """Name and content of the file, and all fields."""
    reader = FormReader(TYPE, parts, "file")
    file = await reader.file()
    content = b"".join([part async for part in file.content])
    await reader.finish()
    return file.filename, content, reader.fields


@given(st.lists(st.integers(0, len(FORM)), max_size=20))
async def test_any_pieces_make_the_same_form(places: list[int]) -> None:
    """Fields before the file and after it, and the file byte for byte."""
    assert await read(FORM, places) == (
        "a;b.txt",
        CONTENT,
        {"purpose": "batch", "expires_after[seconds]": "3600"},
    )


@pytest.mark.parametrize("missing", range(4, len(FORM), 7))
async def test_a_form_that_breaks_off_is_refused(missing: int) -> None:
    """Wherever it does: half a file must not pass for a whole one."""
    with pytest.raises(InvalidRequest):
        await read(FORM[:-missing], [])


@pytest.mark.parametrize(
    "form",
    [
        b"".join(field(f"f{i}", b"") for i in range(MAX_FIELDS + 1)),
        field("purpose", bytes(MAX_FIELD_BYTES + 1)),
    ],
)
async def test_a_form_has_few_small_fields(form: bytes) -> None:
    """What is beside the file is in memory."""
    with pytest.raises(InvalidRequest):
        await read(form + FORM, [])


@pytest.mark.parametrize(
    ("begin", "repeated"),
    [
        (b"", b"\r\n"),
        (b"", field("purpose", b"batch")),
        (FORM, b"x"),
        (FORM, b"\r\n"),
    ],
)
async def test_a_form_has_an_end(begin: bytes, repeated: bytes) -> None:
    """Whatever comes for ever beside the file: what is before, the same field, what is after."""

    async def endless() -> AsyncIterator[bytes]:
        yield begin
        for _ in range(100):
            yield repeated * (BLOCK // len(repeated))
        pytest.fail("it was read for too long")

    with pytest.raises(InvalidRequest):
        await read_all(endless())


@pytest.mark.parametrize("kind", ["", "application/json", "multipart/form-data"])
def test_another_type_is_refused(kind: str) -> None:
    """So is a form without a boundary."""
    with pytest.raises(InvalidRequest, match="multipart/form-data with a boundary"):
        FormReader(kind, cut(b"", []), "file")

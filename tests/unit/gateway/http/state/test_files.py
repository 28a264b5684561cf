"""Files: OpenAI's client stores, lists, reads and deletes them; each project sees its own only."""

import asyncio
import base64
import hashlib
import json
import os
from typing import Any

import openai
import pytest

from gateway.store.database import DatabaseUnavailable
from gateway.store.file_storage import StorageUnavailable
from gateway.store.files import FileRow, create_file
from gateway.store.state_upkeep import ORPHAN_S, TOMBSTONE_S, StateUpkeep
from tests.unit.gateway.http.state.stored import NOW_S, StateApi, error_of

MIB = 1 << 20
DAY_S = 86_400


async def make(api: StateApi, content: bytes = b"abc", project: str = "proj_a", **more: Any) -> str:
    """Store a file; returns its id."""
    async with api.openai(project) as client:
        made = await client.files.create(file=("a.txt", content), **{"purpose": "user_data"} | more)
    return made.id


async def test_a_file_comes_back_as_it_went(api: StateApi) -> None:
    """With all fields of OpenAI's object, its content and its checksum."""
    content = os.urandom(MIB + 5)
    async with api.openai() as client:
        made = await client.files.create(file=("ä b.jsonl", content), purpose="batch")
        shown = await client.files.retrieve(made.id)
        read = await client.files.content(made.id)

    assert made == shown
    assert made.id.startswith("file-")
    assert (made.bytes, made.filename, made.purpose) == (len(content), "ä b.jsonl", "batch")
    assert (made.created_at, made.expires_at) == (NOW_S, NOW_S + 30 * DAY_S)
    assert (made.object, made.status) == ("file", "processed")
    assert read.content == content
    digest = hashlib.sha256(content).digest()
    assert made.model_extra == {"sha256": digest.hex()}
    headers = read.response.headers
    assert headers["repr-digest"] == f"sha-256=:{base64.b64encode(digest).decode()}:"
    assert headers["content-length"] == str(len(content))
    assert headers["content-disposition"] == "attachment; filename*=UTF-8''%C3%A4%20b.jsonl"
    assert headers["x-content-type-options"] == "nosniff"


async def test_files_of_other_purposes_stay(api: StateApi) -> None:
    """Until they are deleted, or expire as they were told to."""
    async with api.openai() as client:
        forever = await client.files.create(file=b"x", purpose="user_data")
        hour = await client.files.create(
            file=b"x",
            purpose="vision",
            expires_after={"anchor": "created_at", "seconds": 3600},
        )
    assert forever.expires_at is None
    assert hour.expires_at == NOW_S + 3600


async def test_another_projects_file_does_not_exist(api: StateApi) -> None:
    """Whatever is asked of it, the answer is that for an id that never was."""
    theirs = await make(api, project="proj_b")
    async with api.http("proj_a") as http:
        for file_id in (theirs, "file-none"):
            for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/content")):
                answer = await http.request(method, f"/v1/files/{file_id}{path}")
                assert error_of(answer) == (404, "object_not_found", "id")
                assert answer.json()["error"]["message"] == f"No such File object: {file_id}"
        assert (await http.get("/v1/files")).json()["data"] == []
        after = await http.get("/v1/files", params={"after": theirs})
        assert error_of(after) == (400, "invalid_value", "after")
    async with api.openai("proj_b") as client:
        assert (await client.files.retrieve(theirs)).id == theirs


async def test_names_of_projects_may_be_of_any_text(api: StateApi) -> None:
    """The header carries them percent-encoded; nobody is authenticated if it is empty."""
    for project in ("", "größe/1", "a b"):
        file_id = await make(api, project=project)
        async with api.openai(project) as client:
            assert [file.id async for file in client.files.list()] == [file_id]


async def test_lists_go_page_by_page(each_api: StateApi) -> None:
    """Newest first by default; by purpose; a page may begin after a deleted file."""
    ids = [
        await make(each_api, purpose=purpose) for purpose in ("batch", "vision", "batch", "evals")
    ]
    async with each_api.openai() as client:
        newest = await client.files.list(limit=3)
        assert [file.id for file in newest.data] == ids[:0:-1]
        assert newest.has_more
        assert [file.id async for file in client.files.list(limit=1, order="asc")] == ids
        assert [file.id async for file in client.files.list(purpose="batch")] == [ids[2], ids[0]]
        async for file in client.files.list(limit=1):
            await client.files.delete(file.id)
        assert [file.id async for file in client.files.list()] == []
    async with each_api.http() as http:
        empty = (await http.get("/v1/files")).json()
    assert empty == {
        "object": "list",
        "data": [],
        "first_id": "",
        "last_id": "",
        "has_more": False,
    }


async def test_a_deleted_file_leaves_nothing(api: StateApi) -> None:
    """Its bytes are gone at once, and its room is free."""
    file_id = await make(api)
    async with api.openai() as client:
        deleted = await client.files.delete(file_id)
        assert (deleted.id, deleted.object, deleted.deleted) == (file_id, "file", True)
        with pytest.raises(openai.NotFoundError):
            await client.files.retrieve(file_id)
    assert await api.stored_keys() == []


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "purpose"),
        ({"purpose": "batch_output"}, "purpose"),
        ({"purpose": "nonsense"}, "purpose"),
        ({"purpose": "batch", "color": "red"}, "color"),
        ({"purpose": "batch", "expires_after[seconds]": "4000"}, "expires_after.anchor"),
        ({"purpose": "batch", "expires_after[anchor]": "created_at"}, "expires_after.seconds"),
        (
            {"purpose": "batch", "expires_after[anchor]": "now", "expires_after[seconds]": "4000"},
            "expires_after.anchor",
        ),
        *(
            (
                {
                    "purpose": "batch",
                    "expires_after[anchor]": "created_at",
                    "expires_after[seconds]": seconds,
                },
                "expires_after.seconds",
            )
            for seconds in ("3599", "2592001", "soon")
        ),
    ],
)
async def test_a_wrong_field_is_named(api: StateApi, fields: dict[str, str], param: str) -> None:
    """And nothing of the file is kept, wherever it stands in the form."""
    async with api.http() as http:
        answer = await http.post("/v1/files", data=fields, files={"file": ("a", b"abc")})
    status, _, found = error_of(answer)
    assert (status, found) == (400, param)
    assert await api.stored_keys() == []


async def test_a_file_whose_commit_was_not_heard_of_keeps_its_bytes(api: StateApi) -> None:
    """Its row is there, so its content must be."""
    write = api.state.database.write

    async def lose_answer(work: Any) -> None:
        await write(work)
        raise DatabaseUnavailable

    api.state.database.write = lose_answer  # type: ignore[method-assign,assignment]
    with pytest.raises(openai.InternalServerError) as raised:
        await make(api)
    assert raised.value.code == "state_unavailable"
    async with api.openai() as client:
        file = (await client.files.list()).data[0]
        assert (await client.files.content(file.id)).content == b"abc"


async def test_a_file_whose_request_is_cancelled_at_its_commit_keeps_its_bytes(
    api: StateApi,
) -> None:
    """The database goes on with it."""
    write, is_written = api.state.database.write, asyncio.Event()

    async def cancelled(work: Any) -> None:
        await write(work)
        is_written.set()
        await asyncio.Event().wait()

    api.state.database.write = cancelled  # type: ignore[method-assign,assignment]
    making = asyncio.create_task(make(api))
    await is_written.wait()
    making.cancel()
    await asyncio.wait([making])
    async with api.openai() as client:
        file = (await client.files.list()).data[0]
        assert (await client.files.content(file.id)).content == b"abc"


async def test_a_file_is_deleted_though_its_storage_is_away(api: StateApi) -> None:
    """Its bytes are deleted later."""
    file_id = await make(api)
    delete = api.state.files.delete

    async def fail(key: str) -> None:
        raise StorageUnavailable(key)

    api.state.files.delete = fail  # type: ignore[method-assign]
    async with api.openai() as client:
        assert (await client.files.delete(file_id)).deleted
    api.state.files.delete = delete  # type: ignore[method-assign]
    api.clock.now_s = 4e9 + ORPHAN_S
    await StateUpkeep(api.state).delete_orphans()
    assert await api.stored_keys() == []


async def test_a_form_without_a_file_is_refused(api: StateApi) -> None:
    """So is what is no form, and one that breaks off."""
    form = b'--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\nabc'
    multipart = {"content-type": "multipart/form-data; boundary=b"}
    async with api.http() as http:
        missing = await http.post("/v1/files", files={"purpose": (None, "batch")})
        assert error_of(missing) == (400, "missing_required_parameter", "file")
        no_form = await http.post("/v1/files", json={"purpose": "batch"})
        assert error_of(no_form) == (400, "invalid_value", None)
        cut = await http.post("/v1/files", content=form, headers=multipart)
        assert error_of(cut) == (400, "invalid_value", None)
        twice = await http.post("/v1/files", files=[("file", ("a", b"x")), ("file", ("b", b"y"))])
        assert error_of(twice) == (400, "invalid_value", "file")
    assert await api.stored_keys() == []


async def test_a_file_over_the_limit_is_refused(api: StateApi) -> None:
    """Before it comes if that is announced, and while it comes otherwise."""

    async def stream() -> Any:
        yield (
            b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--b\r\n'
            b'content-disposition: form-data; name="file"; filename="a"\r\n\r\n'
        )
        for _ in range(40):
            yield bytes(MIB // 16)
        yield b"\r\n--b--\r\n"

    async with api.http() as http:
        announced = await http.post("/v1/files", files={"file": ("a", bytes(4 * MIB))})
        headers = {"content-type": "multipart/form-data; boundary=b"}
        unannounced = await http.post("/v1/files", content=stream(), headers=headers)
    for answer in (announced, unannounced):
        assert error_of(answer) == (413, "body_too_large", "file")
    assert await api.stored_keys() == []


async def test_a_project_has_a_quota(each_api: StateApi) -> None:
    """Other projects do not count, and what is deleted leaves room."""
    first = await make(each_api, bytes(2 * MIB))
    await make(each_api, bytes(2 * MIB), project="proj_b")
    with pytest.raises(openai.BadRequestError) as raised:
        await make(each_api, bytes(MIB + 1))
    assert raised.value.code == "storage_quota_exceeded"
    async with each_api.openai() as client:
        await client.files.delete(first)
    await make(each_api, bytes(MIB + 1))


async def test_a_project_has_a_number_of_files(
    each_api: StateApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that were deleted do not count, nor do results of batches."""
    monkeypatch.setattr("gateway.store.files.MAX_FILES", 2)
    first, _ = await make(each_api), await make(each_api)
    with pytest.raises(openai.BadRequestError, match="has 2 files") as raised:
        await make(each_api)
    assert raised.value.code == "storage_quota_exceeded"
    await make(each_api, project="proj_b")
    async with each_api.openai() as client:
        await client.files.delete(first)
    await each_api.state.write(lambda c: create_file(c, results(1)))
    await make(each_api)


async def test_results_of_batches_do_not_count(each_api: StateApi) -> None:
    """They would otherwise keep a project from sending the next one."""
    await each_api.state.write(lambda c: create_file(c, results(3 * MIB)))
    await make(each_api, bytes(2 * MIB))


def results(size: int) -> FileRow:
    """A file as batches make it."""
    return FileRow(
        id="file-results",
        project_id="proj_a",
        purpose="batch_output",
        filename="x",
        bytes=size,
        sha256="",
        created_s=NOW_S,
    )


async def test_an_expired_file_is_gone(each_api: StateApi) -> None:
    """At once for its project, and soon after for the storage."""
    hour = {"anchor": "created_at", "seconds": 3600}
    file_id, kept = await make(each_api, expires_after=hour), await make(each_api)
    upkeep = StateUpkeep(each_api.state)
    each_api.clock.now_s += 3600
    async with each_api.openai() as client:
        with pytest.raises(openai.NotFoundError):
            await client.files.retrieve(file_id)
        assert [file.id async for file in client.files.list()] == [kept]

    await upkeep.expire()
    assert await each_api.stored_keys() == [f"files/{kept}"]
    each_api.clock.now_s += TOMBSTONE_S + 1
    await upkeep.expire()
    async with each_api.http() as http:
        after = await http.get("/v1/files", params={"after": file_id})
    assert error_of(after) == (400, "invalid_value", "after")


async def test_bytes_that_no_row_names_are_deleted(each_api: StateApi) -> None:
    """Once they are a day old; those of files stay."""
    kept = await make(each_api)
    for key in ("files/file-lost", "uploads/part_lost", "files/.draft-1-file-x"):

        async def content() -> Any:
            yield b"x"

        await each_api.state.files.write(key, content(), 10)
    upkeep = StateUpkeep(each_api.state)
    each_api.clock.now_s = 0
    await upkeep.delete_orphans()
    assert len(await each_api.stored_keys()) == 4

    each_api.clock.now_s = 4e9 + ORPHAN_S
    await upkeep.delete_orphans()
    assert await each_api.stored_keys() == [f"files/{kept}"]


async def test_a_lost_content_is_an_error_of_the_gateway(api: StateApi) -> None:
    """It is said before the answer begins."""
    file_id = await make(api)
    await api.state.files.delete(f"files/{file_id}")
    async with api.http() as http:
        answer = await http.get(f"/v1/files/{file_id}/content")
    assert error_of(answer) == (500, "internal_error", None)


async def test_a_nul_is_refused(each_api: StateApi) -> None:
    """Not every database can have it, in names or ids."""
    form = (
        b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--b\r\n'
        b'content-disposition: form-data; name="file"; filename="a\0"\r\n\r\nabc\r\n--b--\r\n'
    )
    headers = {"content-type": "multipart/form-data; boundary=b"}
    upload = {"bytes": 1, "filename": "a\0", "mime_type": "text/plain", "purpose": "batch"}
    async with each_api.http() as http:
        assert (await http.post("/v1/files", content=form, headers=headers)).status_code == 400
        assert (await http.get("/v1/files?after=%00")).status_code == 400
        assert error_of(await http.post("/v1/uploads", json=upload))[0] == 400
    assert await each_api.stored_keys() == []


async def test_hostile_paths_find_nothing(api: StateApi) -> None:
    """Neither outside of the storage nor in the database."""
    async with api.http() as http:
        for path in ("..%2f..%2fetc%2fpasswd", "%00", "a%0ab", "%ff", "a" * 3000):
            answer = await http.get(f"/v1/files/{path}")
            assert answer.status_code in {400, 404}
            assert set(json.loads(answer.content)) == {"error"}
        assert (await http.put("/v1/files")).status_code == 405

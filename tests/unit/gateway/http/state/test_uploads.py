"""Uploads: a file comes in parts, which are joined in the order that the client names."""

import asyncio
import hashlib
import os

import openai
import pytest

from gateway.store.state_upkeep import StateUpkeep
from tests.unit.gateway.http.state.stored import NOW_S, Held, StateApi, error_of

MIB = 1 << 20


async def begin(client: openai.AsyncOpenAI, size: int) -> str:
    """Begin an upload; returns its id."""
    made = await client.uploads.create(
        bytes=size, filename="a.txt", mime_type="text/plain", purpose="user_data"
    )
    return made.id


async def test_parts_become_a_file(each_api: StateApi) -> None:
    """In the order named, which is not that in which they came."""
    content = os.urandom(MIB + 10)
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    async with each_api.openai() as client:
        upload = await client.uploads.create(
            bytes=len(content),
            filename="a.jsonl",
            mime_type="application/jsonl",
            purpose="batch",
            expires_after={"anchor": "created_at", "seconds": 7200},
        )
        assert (upload.status, upload.expires_at) == ("pending", NOW_S + 3600)
        last = await client.uploads.parts.create(upload.id, data=content[MIB:])
        first = await client.uploads.parts.create(upload.id, data=content[:MIB])
        assert (first.object, first.upload_id) == ("upload.part", upload.id)
        part_ids = [first.id, last.id]

        done = await client.uploads.complete(upload.id, part_ids=part_ids, md5=md5)
        again = await client.uploads.complete(upload.id, part_ids=part_ids, md5=md5)

        assert done == again
        assert done.status == "completed"
        assert done.file is not None
        assert (done.file.bytes, done.file.filename) == (len(content), "a.jsonl")
        assert done.file.expires_at == NOW_S + 7200
        assert (await client.files.content(done.file.id)).content == content
    assert await each_api.stored_keys() == [f"files/{done.file.id}"]


async def test_the_sdk_uploads_a_file_in_chunks(api: StateApi) -> None:
    """Its own helper, which makes all the calls."""
    content = os.urandom(MIB + 3)
    async with api.openai() as client:
        done = await client.uploads.upload_file_chunked(
            file=content,
            filename="a.bin",
            bytes=len(content),
            mime_type="application/octet-stream",
            purpose="user_data",
            part_size=MIB // 2,
        )
        assert done.file is not None
        assert (await client.files.content(done.file.id)).content == content


async def test_parts_must_be_what_was_announced(api: StateApi) -> None:
    """Neither more bytes nor fewer, nor others, nor unknown ones; the upload goes on."""
    async with api.openai() as client, api.http() as http:
        upload = await begin(client, 4)
        path = f"/v1/uploads/{upload}"
        part = (await client.uploads.parts.create(upload, data=b"abc")).id
        more = await http.post(f"{path}/parts", files={"data": ("x", b"de")})
        assert error_of(more) == (413, "body_too_large", "data")
        for body, param in (
            ({"part_ids": [part]}, "part_ids"),
            ({"part_ids": [part, part]}, "part_ids"),
            ({"part_ids": ["part_x"]}, "part_ids"),
            ({"part_ids": "x"}, "part_ids"),
        ):
            answer = await http.post(f"{path}/complete", json=body)
            assert error_of(answer) == (400, "invalid_value", param)
        last = (await client.uploads.parts.create(upload, data=b"d")).id
        wrong = await http.post(
            f"{path}/complete", json={"part_ids": [part, last], "md5": "0" * 32}
        )
        assert error_of(wrong) == (400, "invalid_value", "md5")
        assert (await client.uploads.complete(upload, part_ids=[part, last])).file is not None


async def test_a_cancelled_upload_leaves_nothing(api: StateApi) -> None:
    """It takes no more parts, and cannot be completed."""
    async with api.openai() as client, api.http() as http:
        upload = await begin(client, 4)
        await client.uploads.parts.create(upload, data=b"abc")
        assert (await client.uploads.cancel(upload)).status == "cancelled"
        assert await api.stored_keys() == []
        for path, sent in (
            ("parts", {"files": {"data": ("x", b"d")}}),
            ("complete", {"json": {"part_ids": []}}),
            ("cancel", {}),
        ):
            answer = await http.post(f"/v1/uploads/{upload}/{path}", **sent)
            assert error_of(answer) == (400, "invalid_value", None)
            assert "is cancelled" in answer.json()["error"]["message"]


async def test_an_upload_expires(each_api: StateApi) -> None:
    """After an hour nothing can be done to it, and its parts are deleted."""
    async with each_api.openai() as client:
        upload = await begin(client, 4)
        await client.uploads.parts.create(upload, data=b"abc")
        each_api.clock.now_s += 3600
        with pytest.raises(openai.BadRequestError, match="is expired"):
            await client.uploads.parts.create(upload, data=b"d")
    await StateUpkeep(each_api.state).expire()
    assert await each_api.stored_keys() == []


async def test_another_projects_upload_does_not_exist(api: StateApi) -> None:
    """No part can be added to it, and it cannot be ended."""
    async with api.openai("proj_b") as client:
        upload = await begin(client, 4)
    async with api.http("proj_a") as http:
        for path, sent in (
            ("parts", {"files": {"data": ("x", b"d")}}),
            ("complete", {"json": {"part_ids": []}}),
            ("cancel", {}),
        ):
            answer = await http.post(f"/v1/uploads/{upload}/{path}", **sent)
            assert error_of(answer) == (404, "object_not_found", "id")
    assert await api.stored_keys() == []


async def test_parts_count_in_the_quota(each_api: StateApi) -> None:
    """Of files and of uploads that have not ended."""
    async with each_api.openai() as client:
        upload = await begin(client, 2 * MIB)
        await client.uploads.parts.create(upload, data=bytes(2 * MIB))
        with pytest.raises(openai.BadRequestError) as raised:
            await client.files.create(file=bytes(MIB + MIB // 2), purpose="user_data")
        assert raised.value.code == "storage_quota_exceeded"
        with pytest.raises(openai.APIStatusError) as raised_too_large:
            await begin(client, 2 * MIB + 1)
        assert raised_too_large.value.status_code == 413


async def test_parts_may_come_at_the_same_time(api: StateApi) -> None:
    """Forms are longer than their parts, which together are just what was announced."""
    async with api.openai() as client:
        upload = await begin(client, 2 * MIB)
        parts = await asyncio.gather(
            *(client.uploads.parts.create(upload, data=bytes(MIB // 2)) for _ in range(4))
        )
        done = await client.uploads.complete(upload, part_ids=[part.id for part in parts])
    assert done.file is not None
    assert done.file.bytes == 2 * MIB


async def test_parts_of_all_uploads_count_while_they_come(api: StateApi) -> None:
    """Together with each other, and with files."""
    held = Held(api.state.files.write)
    api.state.files.write = held  # type: ignore[method-assign]
    async with api.openai() as client:
        uploads = [await begin(client, 2 * MIB) for _ in range(3)]
        first, second = (
            asyncio.create_task(client.uploads.parts.create(each, data=bytes(2 * MIB)))
            for each in uploads[:2]
        )
        await held.wait_for(2)
        with pytest.raises(openai.BadRequestError, match="are on their way"):
            await client.uploads.parts.create(uploads[2], data=bytes(2 * MIB))
        with pytest.raises(openai.BadRequestError, match="are on their way"):
            await client.files.create(file=bytes(MIB), purpose="user_data")
        held.release()
        results = await asyncio.gather(first, second, return_exceptions=True)
    assert sum(isinstance(each, openai.BadRequestError) for each in results) == 1


async def test_to_complete_twice_at_once_makes_one_file(api: StateApi) -> None:
    """The second waits for the first, and gets its file: nothing is copied twice."""
    held = Held(api.state.files.concatenate)
    api.state.files.concatenate = held  # type: ignore[method-assign]
    async with api.openai() as client:
        upload = await begin(client, MIB)
        part = (await client.uploads.parts.create(upload, data=bytes(MIB))).id
        completing = [
            asyncio.create_task(client.uploads.complete(upload, part_ids=[part])) for _ in range(2)
        ]
        cancelling = asyncio.create_task(client.uploads.cancel(upload))
        await held.wait_for(1)
        await asyncio.sleep(0.05)
        held.release()
        first, second = await asyncio.gather(*completing)
        with pytest.raises(openai.BadRequestError, match="is completed"):
            await cancelling
    assert first == second
    assert held.calls == 1
    assert first.file is not None
    assert await api.stored_keys() == [f"files/{first.file.id}"]


async def test_a_copy_counts_while_it_is_made(api: StateApi) -> None:
    """Beside the parts that it is made of."""
    held = Held(api.state.files.concatenate)
    api.state.files.concatenate = held  # type: ignore[method-assign]
    async with api.openai() as client:
        upload = await begin(client, 2 * MIB)
        part = (await client.uploads.parts.create(upload, data=bytes(2 * MIB))).id
        completing = asyncio.create_task(client.uploads.complete(upload, part_ids=[part]))
        await held.wait_for(1)
        with pytest.raises(openai.BadRequestError, match="are on their way"):
            await client.files.create(file=bytes(MIB), purpose="user_data")
        held.release()
        await completing
        await client.files.create(file=bytes(MIB), purpose="user_data")


async def test_an_upload_that_expires_while_it_is_completed_is_expired(api: StateApi) -> None:
    """Its parts are gone then; nothing that was stored is lost."""
    held = Held(api.state.files.concatenate)
    api.state.files.concatenate = held  # type: ignore[method-assign]
    async with api.openai() as client:
        upload = await begin(client, 3)
        part = (await client.uploads.parts.create(upload, data=b"abc")).id
        completing = asyncio.create_task(client.uploads.complete(upload, part_ids=[part]))
        await held.wait_for(1)
        api.clock.now_s += 3600
        await StateUpkeep(api.state).expire()
        held.release()
        with pytest.raises(openai.BadRequestError, match="is expired"):
            await completing
    assert await api.stored_keys() == []


async def test_all_uploads_expire(each_api: StateApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after many that have no parts."""
    monkeypatch.setattr("gateway.store.state_upkeep.MOST_UPLOADS", 2)
    async with each_api.openai() as client:
        for _ in range(5):
            await begin(client, 4)
        upload = await begin(client, 4)
        await client.uploads.parts.create(upload, data=b"abc")
    each_api.clock.now_s += 3600
    await StateUpkeep(each_api.state).expire()
    assert await each_api.stored_keys() == []


async def test_a_project_has_few_uploads_at_a_time(
    each_api: StateApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has ended, or is another project's, does not count."""
    monkeypatch.setattr("gateway.store.uploads.MAX_PENDING", 2)
    async with each_api.openai() as client, each_api.openai("proj_b") as other:
        first, _ = await begin(client, 4), await begin(client, 4)
        with pytest.raises(openai.BadRequestError, match="2 uploads") as raised:
            await begin(client, 4)
        assert raised.value.code == "storage_quota_exceeded"
        await begin(other, 4)
        await client.uploads.cancel(first)
        await begin(client, 4)
        each_api.clock.now_s += 3600
        await begin(client, 4)

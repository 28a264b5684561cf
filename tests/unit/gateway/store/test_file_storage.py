"""Bytes of files are written whole or not at all, in a folder and in an object store."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from fsspec import register_implementation
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem

from gateway.errors.startup import ConfigError
from gateway.store.file_storage import (
    BLOCK,
    ChecksumMismatch,
    FileMissing,
    FileStorage,
    FileTooLarge,
    StorageUnavailable,
)

LIMIT = 10 * BLOCK
CONTENT = os.urandom(2 * BLOCK + 17)


class ObjectStore(MemoryFileSystem):  # type: ignore[misc] # fsspec has no types
    """fsspec's memory, in which a file exists from its commit on, as in an object store."""

    protocol = "objects"
    store: ClassVar[dict[str, Any]] = {}

    opened: ClassVar[list[dict[str, Any]]] = []
    options: ClassVar[dict[str, Any]] = {}

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        type(self).options = options

    def _open(self, path: str, mode: str = "rb", autocommit: bool = True, **more: Any) -> Any:
        self.opened.append({"mode": mode, **more})
        if mode == "wb" and not autocommit:
            return MemoryFile(self, self._strip_protocol(path))
        return super()._open(path, mode, **more)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(MemoryFileSystem._strip_protocol(path.replace("objects://", "memory://")))


register_implementation("objects", ObjectStore)


@pytest.fixture(params=["folder", "objects"])
async def storage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[FileStorage]:
    """An empty storage of each kind."""
    place = str(tmp_path / "files") if request.param == "folder" else f"objects://{tmp_path}"
    found = FileStorage(place)
    yield found
    await found.close()


async def parts_of(content: bytes, size: int = 70_000) -> AsyncIterator[bytes]:
    """Content as it comes over a network."""
    for begin in range(0, len(content), size):
        yield content[begin : begin + size]


async def broken(content: bytes) -> AsyncIterator[bytes]:
    """Content whose sender leaves."""
    yield content
    raise ConnectionResetError


async def everything(storage: FileStorage, key: str, start: int = 0) -> bytes:
    """All that a file has, from a byte on."""
    return b"".join([block async for block in storage.read(key, start)])


async def keys_of(storage: FileStorage) -> list[str]:
    """Keys of all files, also of those that are not whole."""
    return sorted(each.key for each in await storage.keys("files"))


async def test_a_file_is_read_as_it_was_written(storage: FileStorage) -> None:
    """With its size and its checksum; from any byte on."""
    stored = await storage.write("files/a", parts_of(CONTENT), LIMIT)

    assert stored.bytes == len(CONTENT)
    assert stored.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert await everything(storage, "files/a") == CONTENT
    assert await everything(storage, "files/a", 12_345) == CONTENT[12_345:]
    assert await keys_of(storage) == ["files/a"]


async def test_an_empty_file_exists(storage: FileStorage) -> None:
    """It has no blocks."""
    await storage.write("files/a", parts_of(b""), LIMIT)
    assert await everything(storage, "files/a") == b""
    assert await keys_of(storage) == ["files/a"]


async def test_what_breaks_off_leaves_nothing(storage: FileStorage) -> None:
    """Neither a file nor a draft, however far it came."""
    for size in (1, len(CONTENT)):
        with pytest.raises(ConnectionResetError):
            await storage.write("files/a", broken(CONTENT[:size]), LIMIT)
    assert await keys_of(storage) == []


async def test_a_file_over_its_limit_leaves_nothing(storage: FileStorage) -> None:
    """The limit itself is allowed."""
    await storage.write("files/a", parts_of(CONTENT), len(CONTENT))
    with pytest.raises(FileTooLarge):
        await storage.write("files/b", parts_of(CONTENT), len(CONTENT) - 1)
    assert await keys_of(storage) == ["files/a"]


async def test_a_file_is_made_of_others(storage: FileStorage) -> None:
    """In the order given, and only if their sum is the one that was announced."""
    for name, content in (("a", b"one "), ("b", CONTENT)):
        await storage.write(f"files/{name}", parts_of(content), LIMIT)
    whole = CONTENT + b"one "
    md5 = hashlib.md5(whole, usedforsecurity=False).hexdigest()

    stored = await storage.concatenate("files/c", ["files/b", "files/a"], md5=md5.upper())

    assert stored.sha256 == hashlib.sha256(whole).hexdigest()
    assert await everything(storage, "files/c") == whole
    with pytest.raises(ChecksumMismatch):
        await storage.concatenate("files/d", ["files/a", "files/b"], md5=md5)
    with pytest.raises(FileMissing):
        await storage.concatenate("files/d", ["files/a", "files/x"])
    assert await keys_of(storage) == ["files/a", "files/b", "files/c"]


async def test_a_deleted_file_is_gone(storage: FileStorage) -> None:
    """To delete it again does no harm."""
    await storage.write("files/a", parts_of(b"x"), LIMIT)
    for _ in range(2):
        await storage.delete("files/a")
    with pytest.raises(FileMissing):
        await everything(storage, "files/a")


@pytest.mark.parametrize("key", ["../a", "/a", "files/../../a", ""])
async def test_no_key_leads_out_of_the_storage(storage: FileStorage, key: str) -> None:
    """Whoever makes one up gets an error, and no file."""
    with pytest.raises(ValueError, match="is no key"):
        await storage.write(key, parts_of(b"x"), LIMIT)


async def test_files_in_a_folder_are_for_their_owner_only(tmp_path: Path) -> None:
    """So is the folder."""
    storage = FileStorage(str(tmp_path / "files"))
    await storage.write("files/a", parts_of(b"x"), LIMIT)
    found = tmp_path / "files" / "files"
    assert found.stat().st_mode & 0o777 == 0o700
    assert (found / "a").stat().st_mode & 0o777 == 0o600
    await storage.close()


def test_an_unknown_storage_is_refused() -> None:
    """The message names the field."""
    with pytest.raises(ConfigError, match=r"state\.files: "):
        FileStorage("nonsense://bucket")


async def test_a_file_is_on_the_disk_under_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder is synced after the file has its name, and so is that of each new folder."""
    synced: list[tuple[Path, bool]] = []
    fsync, place = os.fsync, tmp_path / "new" / "files"

    def record(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        synced.append((path, (place / "files" / "a").exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    storage = FileStorage(str(place))
    await storage.write("files/a", parts_of(b"x"), LIMIT)
    await storage.close()

    made = [path for path, _ in synced]
    assert made[:3] == [tmp_path, tmp_path / "new", place]
    assert made[3].name.startswith(".draft-")
    assert synced[4:] == [(place / "files", True)]


async def test_a_place_that_is_gone_cannot_be_written(
    storage: FileStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is no file that is missing, and no error of the gateway's."""

    def gone(*_: object, **__: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr("gateway.store.file_storage._make_folder", gone)
    monkeypatch.setattr(ObjectStore, "_open", gone)
    with pytest.raises(StorageUnavailable):
        await storage.write("files/a", parts_of(b"x"), LIMIT)


async def test_errors_of_an_object_stores_own_mean_that_it_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are no errors of the system, and also come when nothing else is to be done."""

    class EndpointError(Exception):
        """What a package of an object store raises."""

    def fail(*_: object, **__: object) -> None:
        raise EndpointError

    storage = FileStorage("objects://away")
    monkeypatch.setattr(MemoryFile, "discard", fail)
    with pytest.raises(ConnectionResetError):  # not what became of the attempt to discard it
        await storage.write("files/a", broken(CONTENT), LIMIT)
    for name in ("_open", "rm_file", "find"):
        monkeypatch.setattr(ObjectStore, name, fail)
    for asked in (
        storage.write("files/a", parts_of(b"x"), LIMIT),
        everything(storage, "files/a"),
        storage.delete("files/a"),
        storage.keys("files"),
    ):
        with pytest.raises(StorageUnavailable, match="EndpointError"):
            await asked
    await storage.close()


async def test_object_stores_hold_little_of_a_file_in_memory() -> None:
    """No list, nothing that is read ahead, parts of some MiB, and nothing once a file is there."""
    ObjectStore.clear_instance_cache()
    storage = FileStorage("objects://place")
    ObjectStore.opened.clear()
    await storage.write("files/a", parts_of(CONTENT), LIMIT)
    await everything(storage, "files/a")
    assert ObjectStore.options["use_listings_cache"] is False
    written, read = ObjectStore.opened
    assert written["block_size"] == 8 * BLOCK
    assert read["cache_type"] == "none"
    assert not storage._fs.transaction.files  # fsspec's own list
    await storage.close()


async def test_a_writer_that_is_cancelled_while_it_opens_leaves_nothing(tmp_path: Path) -> None:
    """Neither an open file nor a draft: the thread that opens it cannot be stopped."""
    storage = FileStorage(str(tmp_path / "files"))
    for turns in range(4):
        writing = asyncio.create_task(storage.write(f"files/{turns}", _once(b"x"), LIMIT))
        for _ in range(turns):
            await asyncio.sleep(0)
        writing.cancel()
        await asyncio.wait([writing])

    await storage.close()

    assert await asyncio.to_thread(_files_in, tmp_path) == []


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content


def _files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]

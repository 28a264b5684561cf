"""Bytes of projects' files, in a folder or an object store, by key.

All work runs in threads, a block at a time, so that memory does not grow with the size of a file
and nothing waits on the event loop. A file that was not written whole does not exist: in a folder
it is written under another name first, and an object store takes it in parts that it joins in the
end.
"""

import asyncio
import contextlib
import hashlib
import math
import os
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, ParamSpec, TypeVar

import fsspec
from fsspec.core import url_to_fs

from gateway.errors.startup import ConfigError

BLOCK = 1 << 20
"""Bytes that are read and written at a time."""
THREADS = 8
"""Files that are read or written at the same moment; others wait for a block's time."""
DRAFT = ".draft-"
"""Part of the names of files in a folder that have not been written whole."""
OBJECT_BLOCK = 8 << 20
"""Bytes of a part of an object that is being written: 10,000 of them, as S3 allows, are 80 GB."""
GONE = "the place of its files is gone"
OWNER_ONLY = 0o600
OWNER_ONLY_FOLDER = 0o700

P = ParamSpec("P")
T = TypeVar("T")


class FileTooLarge(Exception):
    """More bytes came than were allowed; nothing of them is kept."""


class FileMissing(Exception):
    """There is no file with that key."""


class ChecksumMismatch(Exception):
    """The bytes are not those that were announced; nothing of them is kept."""


class StorageUnavailable(Exception):
    """The storage cannot be used now: gone, full, read-only; nothing of a new file is kept."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that has been written whole."""

    bytes: int
    sha256: str
    """SHA-256 of its content, in hexadecimal."""


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A file as the storage lists it."""

    key: str
    modified_s: float
    """When it was written, in Unix seconds; infinite where the storage does not say."""


class FileStorage:
    """Files by keys such as `files/file-abc`; its methods are for one event loop.

    `place`: a folder, or the URL of an object store that fsspec knows.

    Raises:
        ConfigError: fsspec knows no such storage, or a package for it is missing.
    """

    def __init__(self, place: str) -> None:
        try:
            # Another process may write there, so no list is kept.
            self._fs, root = url_to_fs(place, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise ConfigError(f"state.files: {error}") from None
        self._root = root.rstrip("/")
        self._is_folder = isinstance(self._fs, fsspec.get_filesystem_class("file"))
        self._threads = ThreadPoolExecutor(THREADS, "files")

    async def write(self, key: str, parts: AsyncIterator[bytes], max_bytes: int) -> StoredFile:
        """Write a file of at most `max_bytes`; it exists once this returns.

        Raises:
            FileTooLarge: more came.
            StorageUnavailable: it could not be written.
            Exception: whatever `parts` raises.
        """
        writer = await self._open_writer(self.path(key))
        try:
            async for block in _blocks(parts):
                if writer.bytes + len(block) > max_bytes:
                    raise FileTooLarge  # noqa: TRY301 - it ends the writer, too
                await self._run_writer(writer.write, block)
            return await self._run_writer(writer.commit)
        except BaseException:
            await self._end(writer.discard)
            raise

    async def concatenate(
        self, key: str, parts: Sequence[str], *, md5: str | None = None
    ) -> StoredFile:
        """Write a file that is made of others, which stay; `md5`: of the whole, in hexadecimal.

        Raises:
            FileMissing: one of them does not exist.
            ChecksumMismatch: their bytes have another sum.
            StorageUnavailable: it could not be written.
        """
        # A sum to compare with, of no use against anybody who wants to deceive.
        digest = hashlib.md5(usedforsecurity=False)

        async def content() -> AsyncIterator[bytes]:
            for part in parts:
                async for block in self.read(part):
                    if md5 is not None:
                        digest.update(block)
                    yield block
            if md5 is not None and digest.hexdigest() != md5.lower():
                raise ChecksumMismatch

        return await self.write(key, content(), 1 << 62)

    async def read(self, key: str, start: int = 0) -> AsyncGenerator[bytes, None]:
        """The content of a file from a byte on, in blocks of at most `BLOCK` bytes.

        Raises:
            FileMissing: it does not exist.
            StorageUnavailable: it cannot be read.
        """
        path = self.path(key)
        file = await self._opened(partial(self._open, path), lambda opened: opened.close())
        try:
            if start:
                await self._run(file.seek, start)
            while block := await self._run(file.read, BLOCK):
                yield block
        finally:
            await self._end(file.close)

    async def delete(self, key: str) -> None:
        """Delete a file, if it exists.

        Raises:
            StorageUnavailable: it could not be deleted.
        """
        with contextlib.suppress(FileMissing):
            await self._run(self._fs.rm_file, self.path(key))

    async def keys(self, folder: str) -> list[StoredKey]:
        """All files below a folder such as `files`, also those that were not written whole.

        Raises:
            StorageUnavailable: they cannot be listed.
        """
        return await self._run(self._list, folder)

    async def close(self) -> None:
        """Wait for what runs."""
        await asyncio.to_thread(self._threads.shutdown)

    def path(self, key: str) -> str:
        """The path of a key in the file system.

        Raises:
            ValueError: the key would lead out of the storage.
        """
        path = PurePosixPath(key)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise ValueError(f"{key!r} is no key")
        return f"{self._root}/{path}"

    def _draft(self, path: str) -> "_Draft":
        """A new file, which exists at `path` once it is whole."""
        return _FolderDraft(path) if self._is_folder else _ObjectDraft(self._fs, path)

    def _open(self, path: str) -> Any:  # noqa: ANN401 - fsspec has no types
        # Files are read from their beginning to their end, a block at a time.
        return self._fs.open(path, "rb", cache_type="none")

    def _list(self, folder: str) -> list[StoredKey]:
        try:
            found = self._fs.find(self.path(folder), detail=True)
        except FileNotFoundError:
            return []
        return list(self._listed(found))

    def _listed(self, found: dict[str, dict[str, Any]]) -> Iterator[StoredKey]:
        for path, about in found.items():
            at: Any = about.get("mtime") or about.get("LastModified") or about.get("created")
            modified_s = at.timestamp() if hasattr(at, "timestamp") else float(at or math.inf)
            yield StoredKey(path.removeprefix(self._root).lstrip("/"), modified_s)

    async def _opened(self, open_: Callable[[], T], undo: Callable[[T], None]) -> T:
        """Open something in a thread; if nobody waits for it any more by then, undo it."""
        opening = asyncio.ensure_future(self._run(open_))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            with contextlib.suppress(FileMissing, StorageUnavailable):
                await self._run(undo, await opening)
            raise

    async def _open_writer(self, path: str) -> "_Writer":
        try:
            return await self._opened(lambda: _Writer(self._draft(path)), _Writer.discard)
        except FileMissing:
            raise StorageUnavailable(GONE) from None

    async def _run_writer(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a step of writing: if something is not found, that is not the file."""
        try:
            return await self._run(call, *args, **kwargs)
        except FileMissing:
            raise StorageUnavailable(GONE) from None

    async def _end(self, call: Callable[[], object]) -> None:
        """Let go of something, even if this is cancelled; an error matters to nobody any more."""
        with contextlib.suppress(FileMissing, StorageUnavailable):
            await asyncio.shield(self._run(call))

    async def _run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        def run() -> T:
            try:
                return call(*args, **kwargs)
            except FileNotFoundError:
                raise FileMissing from None
            except OSError as error:
                raise StorageUnavailable(error.strerror or str(error)) from None
            except Exception as error:
                if self._is_folder:
                    raise
                # Packages of object stores have errors of their own.
                raise StorageUnavailable(f"{type(error).__name__}: {error}") from None

        return await asyncio.get_running_loop().run_in_executor(self._threads, run)


class _Writer:
    """A file that is being written; for threads, one call after the other."""

    def __init__(self, draft: "_Draft") -> None:
        self._draft = draft
        self._sha256 = hashlib.sha256()
        self.bytes = 0

    def write(self, block: bytes) -> None:
        """Write the next bytes."""
        self._draft.file.write(block)
        self._sha256.update(block)
        self.bytes += len(block)

    def commit(self) -> StoredFile:
        """Make it exist."""
        self._draft.commit()
        return StoredFile(self.bytes, self._sha256.hexdigest())

    def discard(self) -> None:
        """Leave nothing of it, if it does not exist yet."""
        self._draft.discard()


class _FolderDraft:
    """A new file in a folder."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._draft = self._path.with_name(f"{DRAFT}{secrets.token_hex(4)}-{self._path.name}")
        _make_folder(self._draft.parent)
        self.file = open(self._draft, "xb", opener=_owner_only)  # noqa: SIM115 - an opener

    def commit(self) -> None:
        """Give the file its name, once its content is on the disk; the name is there, too, then."""
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        self._draft.replace(self._path)
        _sync_folder(self._path.parent)

    def discard(self) -> None:
        """Delete what has been written."""
        with contextlib.suppress(OSError):  # the disk may be full
            self.file.close()
        self._draft.unlink(missing_ok=True)


class _ObjectDraft:
    """A new object of an object store."""

    def __init__(self, fs: Any, path: str) -> None:  # noqa: ANN401 - fsspec has no types
        self.file = fs.open(path, "wb", block_size=OBJECT_BLOCK, autocommit=False)
        fs.transaction.files.clear()  # fsspec would keep it for a transaction, and there is none
        self._is_done = False

    def commit(self) -> None:
        """Have the store join the parts."""
        self.file.close()
        self.file.commit()
        self._is_done = True

    def discard(self) -> None:
        """Have the store forget the parts."""
        if not self._is_done:
            self._is_done = True
            self.file.discard()


_Draft = _FolderDraft | _ObjectDraft


def _make_folder(folder: Path) -> None:
    """Make a folder, and those that it is in; the disk knows of them then."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(OWNER_ONLY_FOLDER, exist_ok=True)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _owner_only(path: str, flags: int) -> int:
    return os.open(path, flags, OWNER_ONLY)


async def _blocks(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in blocks of about `BLOCK`: each costs a change of threads."""
    held = bytearray()
    async for part in parts:
        held += part
        if len(held) >= BLOCK:
            yield bytes(held)
            held.clear()
    if held:
        yield bytes(held)

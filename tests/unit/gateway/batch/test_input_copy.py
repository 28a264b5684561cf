"""A copy of an input file takes no more room than input files may have."""

import errno
from pathlib import Path
from typing import NoReturn

import pytest

from gateway.batch.input_copy import InputCopy
from gateway.batch.line_plan import LinePlace, LineSorter
from gateway.store.file_storage import FileStorage, StorageUnavailable
from tests.unit.batches import once


@pytest.fixture
async def storage(tmp_path: Path) -> FileStorage:
    """A storage with one file of 3 MiB."""
    found = FileStorage(str(tmp_path))
    await found.write("in", once(b"x" * (3 << 20)), 1 << 30)
    return found


async def test_a_file_is_copied_whole(storage: FileStorage) -> None:
    """If it is not too large."""
    copy = await InputCopy.fetch(storage, "in", 3 << 20)

    assert copy.is_whole
    assert b"".join([each async for each in copy.read()]) == b"x" * (3 << 20)
    copy.close()


async def test_of_a_file_that_is_too_large_little_is_copied(storage: FileStorage) -> None:
    """The rest is not even read."""
    copy = await InputCopy.fetch(storage, "in", 1 << 20)

    assert not copy.is_whole
    assert sum([len(each) async for each in copy.read()]) <= 1 << 20
    copy.close()


async def test_a_full_disk_is_a_storage_that_is_away(
    storage: FileStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch goes on once there is room."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    copy = await InputCopy.fetch(storage, "in")
    sorter = LineSorter(1)
    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    monkeypatch.setattr("os.pread", refuse)

    with pytest.raises(StorageUnavailable, match="No space left"):
        await InputCopy.fetch(storage, "in")
    with pytest.raises(StorageUnavailable, match="No space left"):
        await copy.line(LinePlace(1, 0, 1, 1))
    with pytest.raises(StorageUnavailable, match="No space left"):
        await sorter.add(b"", LinePlace(1, 0, 1, 1))
    copy.close()

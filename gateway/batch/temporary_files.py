"""Temporary files of batches, which fail like the storage of files does: try again later."""

import contextlib
import tempfile
from collections.abc import Iterator
from typing import BinaryIO

from gateway.store.file_storage import StorageUnavailable


@contextlib.contextmanager
def disk_errors() -> Iterator[None]:
    """Context of work on temporary files.

    Raises:
        StorageUnavailable: their disk is full, or cannot be used.
    """
    try:
        yield
    except OSError as error:
        raise StorageUnavailable(f"temporary files: {error.strerror or error}") from None


def temporary_file() -> BinaryIO:
    """An empty file without a name; close it in the end.

    Raises:
        StorageUnavailable: it cannot be made.
    """
    with disk_errors():
        return tempfile.TemporaryFile()

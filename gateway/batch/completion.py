"""End of a batch: lines that have not run are noted, and its results become two files."""

import logging
from collections.abc import AsyncIterable
from dataclasses import dataclass

import msgspec

from gateway.batch.input_check import BatchError, decode_line
from gateway.batch.input_lines import split_lines
from gateway.batch.line_set import LineSet
from gateway.batch.result_lines import unanswered_line
from gateway.batch.result_writer import LineResult, ResultWriter, folder_of
from gateway.config.batches import BatchesConfig
from gateway.ledger.calendar import DAY_S
from gateway.store.batches import (
    BatchPart,
    BatchRow,
    EndStatus,
    PartKind,
    end_batch,
    parts_of,
)
from gateway.store.database import Transaction
from gateway.store.file_storage import StorageUnavailable
from gateway.store.files import BATCH_OUTPUT, FileRow, create_file, file_key, new_file_id
from gateway.store.project_state import ProjectState

INPUT_MISSING = BatchError(code="input_file_missing", message="The input file was deleted.")
FILES_MISSING = BatchError(
    code="files_missing", message="Results of the batch are no longer in the gateway's storage."
)
GIVEN_UP = BatchError(code="internal_error", message="The gateway could not finish the batch.")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _ResultFile:
    id: str
    bytes: int
    sha256: str
    kind: PartKind


async def record_unanswered(
    parts: AsyncIterable[bytes], done: LineSet, code: str, writer: ResultWriter, max_line: int
) -> None:
    """Give every line of an input file that is not done a result that says why.

    Raises:
        Superseded: another worker has the batch.
    """
    async for line in split_lines(parts, max_line):
        if line.number in done or line.data is None:
            continue
        custom_id = str(decode_line(line.data).custom_id)
        data = unanswered_line(custom_id, code)
        done.add(line.number)
        await writer.add(LineResult(line.number, "error", data, has_run=False))
    await writer.flush()


async def complete(
    state: ProjectState,
    row: BatchRow,
    status: EndStatus,
    config: BatchesConfig,
    errors: list[BatchError] | None = None,
) -> None:
    """Make output and error file of all parts, and end the batch.

    Raises:
        FileMissing: a part is no longer in the storage.
        Superseded: another worker has the batch; the files that were made belong to nobody.
        DatabaseUnavailable, StorageUnavailable: try again; nothing has changed.
    """
    parts = await state.read(lambda c: parts_of(c, row.id))
    files = [
        file
        for kind in ("output", "error")
        if (file := await _concatenate(state, kind, parts)) is not None
    ]
    await _end(state, row, status, config, errors or [], files)


async def fail_without_results(
    state: ProjectState, row: BatchRow, config: BatchesConfig, error: BatchError
) -> None:
    """End a batch whose results cannot be read; the storage is not asked for anything.

    Raises:
        Superseded: another worker has the batch.
        DatabaseUnavailable: try again; nothing has changed.
    """
    await _end(state, row, "failed", config, [error], [])


async def _end(
    state: ProjectState,
    row: BatchRow,
    status: EndStatus,
    config: BatchesConfig,
    errors: list[BatchError],
    files: list[_ResultFile],
) -> None:
    now_s = state.now_s
    lifetime_s = row.output_lifetime_s or config.output_days * DAY_S
    noted = [msgspec.structs.asdict(each) for each in errors]

    def end(connection: Transaction) -> None:
        ids = {file.kind: file.id for file in files}
        end_batch(
            connection,
            row.id,
            row.epoch,
            now_s,
            status,
            output_file_id=ids.get("output", ""),
            error_file_id=ids.get("error", ""),
            errors=noted,
        )
        for file in files:
            row_of_file = FileRow(
                id=file.id,
                project_id=row.project_id,
                purpose=BATCH_OUTPUT,
                filename=f"{row.id}_{file.kind}.jsonl",
                bytes=file.bytes,
                sha256=file.sha256,
                created_s=now_s,
                expires_s=now_s + lifetime_s,
            )
            create_file(connection, row_of_file)

    await state.write(end)


async def delete_leftovers(state: ProjectState, batch_id: str) -> None:
    """Delete the plan and the parts of a batch that has ended."""
    try:
        for stored in await state.files.keys(folder_of(batch_id)):
            await state.files.delete(stored.key)
    except StorageUnavailable as error:
        logger.warning("batch %s: its parts cannot be deleted yet: %s", batch_id, error)


async def _concatenate(
    state: ProjectState, kind: PartKind, parts: list[BatchPart]
) -> _ResultFile | None:
    keys = [part.key for part in parts if part.kind == kind]
    if not keys:
        return None
    id_ = new_file_id()
    stored = await state.files.concatenate(file_key(id_), keys)
    return _ResultFile(id_, stored.bytes, stored.sha256, kind)

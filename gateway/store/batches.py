"""Batches in the database: what clients ask for, and how far the worker that has one has come.

A worker claims a batch for a while, and with every claim the batch's `epoch` grows. Whatever a
worker writes names its epoch; once another worker has claimed the batch, it is refused
(`Superseded`).
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import msgspec
import sqlalchemy as sa

from gateway.errors.state import BatchNotCancellable, BatchNotEnded, ObjectNotFound, TooManyBatches
from gateway.store.batch_tables import batch_parts, batches
from gateway.store.changes import new_id
from gateway.store.pages import Cursor, Page, page_of
from gateway.store.rows import row_of

BatchStatus = Literal[
    "validating",
    "failed",
    "in_progress",
    "finalizing",
    "completed",
    "expired",
    "cancelling",
    "cancelled",
]
EndStatus = Literal["completed", "expired", "cancelled", "failed"]
PartKind = Literal["output", "error"]
UNFINISHED: tuple[BatchStatus, ...] = ("validating", "in_progress", "finalizing", "cancelling")
MESSAGES = "/v1/messages"
"""Endpoint of the batches of Anthropic's API, which OpenAI's does not show."""
PREFIX = "batch_"
MESSAGES_PREFIX = "msgbatch_"
_IS_UNFINISHED = batches.c.status.in_(UNFINISHED)
CANCELLABLE: tuple[BatchStatus, ...] = ("validating", "in_progress", "cancelling")


class Superseded(Exception):
    """Another worker has the batch now, or it is over; nothing was written."""


class BatchRow(msgspec.Struct, frozen=True, kw_only=True):
    """A batch; times are Unix seconds."""

    id: str
    project_id: str
    status: BatchStatus
    endpoint: str
    model: str
    input_file_id: str
    input_key: str
    """Key of the input file in the file storage."""
    completion_window: str
    created_s: int
    expires_s: int
    in_progress_s: int | None
    finalizing_s: int | None
    completed_s: int | None
    failed_s: int | None
    expired_s: int | None
    cancelling_s: int | None
    cancelled_s: int | None
    output_file_id: str
    error_file_id: str
    output_lifetime_s: int | None
    """How long output and error file are kept; None: as the config has it."""
    metadata: dict[str, str] | None
    errors: list[dict[str, str | int | None]] | None
    plan_key: str
    """Key of its plan in the file storage; empty until its input file has been checked."""
    total: int
    """Requests."""
    lines: int
    """Number of the last line that has a request."""
    completed: int
    failed: int
    unanswered: int
    """Those of the failed ones that have not run."""
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int
    epoch: int

    @property
    def ended_s(self) -> int | None:
        """When it ended; None while it has not."""
        if self.status in UNFINISHED:
            return None
        return self.completed_s or self.failed_s or self.cancelled_s or self.expired_s


class NewBatch(msgspec.Struct, frozen=True, kw_only=True):
    """A batch to create."""

    project_id: str
    endpoint: str
    input_file_id: str
    input_key: str
    completion_window: str
    created_s: int
    expires_s: int
    output_lifetime_s: int | None = None
    metadata: Mapping[str, str] | None = None
    total: int = 0
    """Requests, if they have been counted."""


class BatchPart(msgspec.Struct, frozen=True, kw_only=True):
    """A file of results in the file storage."""

    key: str
    kind: PartKind
    lines: bytes
    """Numbers of the lines that it has results of, as `gateway.batch.line_set` packs them."""
    bytes: int


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """What parts add to the counts of their batch."""

    completed: int = 0
    failed: int = 0
    unanswered: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0


class BatchCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Batches of all projects that have not ended, and their requests."""

    by_status: Mapping[BatchStatus, int]
    total: int
    done: int


def create_batch(connection: sa.Connection, new: NewBatch, max_unfinished: int) -> BatchRow:
    """Create a batch that waits for a worker to check its input file.

    `max_unfinished`: batches of its project that may be unfinished, with this one.

    Raises:
        TooManyBatches: it would have more.
    """
    of_project = sa.and_(batches.c.project_id == new.project_id, _IS_UNFINISHED)
    unfinished = connection.scalar(sa.select(sa.func.count()).where(of_project)) or 0
    if unfinished >= max_unfinished:
        raise TooManyBatches.of(max_unfinished)
    prefix = MESSAGES_PREFIX if new.endpoint == MESSAGES else PREFIX
    values = msgspec.structs.asdict(new) | {"id": new_id(prefix), "status": "validating"}
    connection.execute(batches.insert().values(**values))
    return _row(connection, str(values["id"]))


def batch(
    connection: sa.Connection, project_id: str, batch_id: str, *, of_messages: bool = False
) -> BatchRow:
    """A batch of a project; `of_messages`: one of Anthropic's API, which others do not see.

    Raises:
        ObjectNotFound: the project has none with this id.
    """
    conditions = (*_visible(project_id, of_messages=of_messages), batches.c.deleted_s.is_(None))
    query = sa.select(batches).where(batches.c.id == batch_id, *conditions)
    row = connection.execute(query).first()
    if row is None:
        raise ObjectNotFound.of("Batch", batch_id)
    return row_of(row, BatchRow)


def list_batches(
    connection: sa.Connection, project_id: str, cursor: Cursor, *, of_messages: bool = False
) -> Page[BatchRow]:
    """A page of a project's batches."""
    within = _visible(project_id, of_messages=of_messages)
    is_there = batches.c.deleted_s.is_(None)
    return page_of(connection, batches, cursor, BatchRow, is_there, within=within)


def delete_batch(connection: sa.Connection, project_id: str, batch_id: str, now_s: int) -> BatchRow:
    """Forget a batch of Anthropic's API that has ended; its files are to be deleted afterwards.

    Raises:
        ObjectNotFound: the project has none with this id.
        BatchNotEnded: it has not ended.
    """
    found = batch(connection, project_id, batch_id, of_messages=True)
    if found.ended_s is None:
        raise BatchNotEnded.of(batch_id)
    update = batches.update().where(batches.c.id == batch_id)
    connection.execute(update.values(deleted_s=now_s))
    return found


def cancel_batch(
    connection: sa.Connection,
    project_id: str,
    batch_id: str,
    now_s: int,
    *,
    of_messages: bool = False,
) -> BatchRow:
    """Have a batch end; its worker keeps the results that there are.

    Raises:
        ObjectNotFound: the project has none with this id.
        BatchNotCancellable: it has ended, or its files are being written.
    """
    found = batch(connection, project_id, batch_id, of_messages=of_messages)
    if of_messages and found.status == "finalizing":
        return found  # to Anthropic's clients it is still in progress
    if found.status not in CANCELLABLE:
        raise BatchNotCancellable.of(found.status)
    if found.status != "cancelling":
        update = batches.update().where(batches.c.id == batch_id)
        connection.execute(update.values(status="cancelling", cancelling_s=now_s))
    return _row(connection, batch_id)


def claim_batch(
    connection: sa.Connection, worker: str, now_s: int, lease_s: int, held: Collection[str] = ()
) -> BatchRow | None:
    """Take over the unfinished batch that nobody has and whose turn it is, if there is one.

    The project with the fewest batches in work comes first, and then the first deadline. The batch
    is the worker's for `lease_s` seconds. `held`: ids of those that it has already: their claims
    run out, too, while it cannot reach the database.
    """
    batch_id = connection.scalar(sa.select(_waiting(now_s, held).c.id))
    if batch_id is None:
        return None
    claim = batches.update().where(batches.c.id == batch_id)
    connection.execute(
        claim.values(worker=worker, epoch=batches.c.epoch + 1, lease_until_s=now_s + lease_s)
    )
    return _row(connection, batch_id)


def is_project_kept_waiting(
    connection: sa.Connection, now_s: int, held: Collection[str] = ()
) -> bool:
    """Whether a project has batches that nobody has, and none in work; `held`: as for a claim."""
    return connection.scalar(sa.select(_waiting(now_s, held).c.in_work)) == 0


def renew_claim(
    connection: sa.Connection, batch_id: str, epoch: int, now_s: int, lease_s: int
) -> BatchRow:
    """Keep a batch for longer; returns it as it is now: it may have been cancelled.

    Raises:
        Superseded: another worker has it.
    """
    _update(connection, batch_id, epoch, lease_until_s=now_s + lease_s)
    return _row(connection, batch_id)


def release_claim(connection: sa.Connection, batch_id: str, epoch: int) -> None:
    """Give a batch up, so that another worker can go on with it at once.

    Raises:
        Superseded: another worker has it already.
    """
    _update(connection, batch_id, epoch, lease_until_s=0)


def begin_batch(  # noqa: PLR0913 - one for each column
    connection: sa.Connection,
    batch_id: str,
    epoch: int,
    now_s: int,
    *,
    model: str,
    total: int,
    lines: int,
    plan_key: str,
) -> BatchRow:
    """Record that a batch's input file is valid, and where its plan is.

    A batch that has been cancelled in the meantime stays so.

    Raises:
        Superseded: another worker has it.
    """
    _update(connection, batch_id, epoch, model=model, total=total, lines=lines, plan_key=plan_key)
    begin = batches.update().where(batches.c.id == batch_id, batches.c.status == "validating")
    connection.execute(begin.values(status="in_progress", in_progress_s=now_s))
    return _row(connection, batch_id)


def add_parts(
    connection: sa.Connection,
    batch_id: str,
    epoch: int,
    parts: Sequence[BatchPart],
    progress: Progress,
) -> None:
    """Record files with results; from then on, their lines are done.

    Nothing happens if that has been done: a worker repeats it if it did not get the answer.

    Raises:
        Superseded: another worker has the batch: the lines are its own to run.
    """
    keys = [part.key for part in parts]
    known = sa.select(sa.func.count()).where(batch_parts.c.key.in_(keys))
    if connection.scalar(known):
        return
    added = msgspec.structs.asdict(progress)
    _update(connection, batch_id, epoch, **{n: batches.c[n] + v for n, v in added.items()})
    of_batch = batch_parts.c.batch_id == batch_id
    count = connection.scalar(sa.select(sa.func.count()).select_from(batch_parts).where(of_batch))
    for number, part in enumerate(parts, start=count or 0):
        values = msgspec.structs.asdict(part) | {"batch_id": batch_id, "number": number}
        connection.execute(batch_parts.insert().values(**values))


def parts_of(connection: sa.Connection, batch_id: str) -> list[BatchPart]:
    """All files with results of a batch, in the order in which they were recorded."""
    query = sa.select(batch_parts).where(batch_parts.c.batch_id == batch_id)
    rows = connection.execute(query.order_by(batch_parts.c.number))
    return [row_of(row, BatchPart) for row in rows]


def begin_finalizing(
    connection: sa.Connection, batch_id: str, epoch: int, now_s: int, *, has_expired: bool
) -> BatchRow:
    """Record that no more lines of a batch run, and its files are being written.

    `has_expired`: because its time is up. A batch that is being cancelled stays so.

    Raises:
        Superseded: another worker has it.
    """
    values = {"finalizing_s": now_s}
    if has_expired:
        values["expired_s"] = now_s
    _update(connection, batch_id, epoch, **values)
    begin = batches.update().where(batches.c.id == batch_id, batches.c.status == "in_progress")
    connection.execute(begin.values(status="finalizing"))
    return _row(connection, batch_id)


def end_batch(  # noqa: PLR0913 - one for each column
    connection: sa.Connection,
    batch_id: str,
    epoch: int,
    now_s: int,
    status: EndStatus,
    *,
    output_file_id: str = "",
    error_file_id: str = "",
    errors: Sequence[Mapping[str, object]] = (),
) -> None:
    """Record the end of a batch, and forget its parts.

    Raises:
        Superseded: another worker has it.
    """
    values: dict[str, object] = {
        "status": status,
        f"{status}_s": now_s,
        "output_file_id": output_file_id,
        "error_file_id": error_file_id,
        "lease_until_s": 0,
    }
    if errors:
        values["errors"] = list(errors)
    _update(connection, batch_id, epoch, **values)
    connection.execute(batch_parts.delete().where(batch_parts.c.batch_id == batch_id))


def unfinished_ids(connection: sa.Connection) -> set[str]:
    """Ids of all batches that have not ended, of all projects."""
    return set(connection.scalars(sa.select(batches.c.id).where(_IS_UNFINISHED)))


def count_unfinished(connection: sa.Connection) -> BatchCounts:
    """Count all batches that have not ended, of all projects."""
    columns = (batches.c.total, batches.c.completed + batches.c.failed)
    sums = [sa.func.sum(column) for column in columns]
    query = sa.select(batches.c.status, sa.func.count(), *sums).where(_IS_UNFINISHED)
    rows = connection.execute(query.group_by(batches.c.status)).all()
    return BatchCounts(
        by_status={row[0]: row[1] for row in rows},
        total=sum(int(row[2]) for row in rows),
        done=sum(int(row[3]) for row in rows),
    )


def _waiting(now_s: int, held: Collection[str]) -> sa.Subquery:
    """The batch that nobody has and whose turn it is.

    `in_work`: batches of its project that somebody has. Cost: O(unfinished batches).
    """
    is_held = batches.c.id.in_(held)
    in_work = sa.case((sa.or_(is_held, batches.c.lease_until_s > now_s), 1), else_=0)
    unfinished = (
        sa.select(
            *(batches.c.id, batches.c.expires_s, batches.c.seq, in_work.label("is_in_work")),
            sa.func.sum(in_work).over(partition_by=batches.c.project_id).label("in_work"),
        )
        .where(_IS_UNFINISHED)
        .subquery()
    )
    columns = unfinished.c
    return (
        sa.select(columns.id, columns.in_work)
        .where(columns.is_in_work == 0)
        .order_by(columns.in_work, columns.expires_s, columns.seq)
        .limit(1)
        .subquery()
    )


def _visible(project_id: str, *, of_messages: bool) -> list[sa.ColumnElement[bool]]:
    is_of_messages = batches.c.endpoint == MESSAGES
    return [batches.c.project_id == project_id, is_of_messages if of_messages else ~is_of_messages]


def _update(connection: sa.Connection, batch_id: str, epoch: int, **values: object) -> None:
    of_worker = (batches.c.id == batch_id, batches.c.epoch == epoch)
    update = batches.update().where(*of_worker, _IS_UNFINISHED).values(**values)
    if connection.execute(update).rowcount == 0:
        raise Superseded(batch_id)


def _row(connection: sa.Connection, batch_id: str) -> BatchRow:
    query = sa.select(batches).where(batches.c.id == batch_id)
    return row_of(connection.execute(query).one(), BatchRow)

"""Batches in the database: who may change what, and when."""

from collections.abc import Callable
from functools import partial

import pytest
from sqlalchemy import Connection

from gateway.errors.request import InvalidRequest
from gateway.errors.state import BatchNotCancellable, ObjectNotFound, TooManyBatches
from gateway.store.batches import (
    BatchPart,
    BatchRow,
    NewBatch,
    Progress,
    Superseded,
    add_parts,
    batch,
    begin_batch,
    begin_finalizing,
    cancel_batch,
    claim_batch,
    count_unfinished,
    create_batch,
    end_batch,
    list_batches,
    parts_of,
    release_claim,
    renew_claim,
    unfinished_ids,
)
from gateway.store.database import Database
from gateway.store.pages import Cursor

NOW_S = 1_800_000_000
LEASE_S = 15
WRITES: list[Callable[[Connection, str, int], object]] = [
    lambda c, id_, epoch: renew_claim(c, id_, epoch, NOW_S, LEASE_S),
    release_claim,
    lambda c, id_, epoch: begin_batch(
        c, id_, epoch, NOW_S, model="m", total=3, lines=3, plan_key="p"
    ),
    lambda c, id_, epoch: add_parts(c, id_, epoch, [_part("late")], Progress(completed=1)),
    lambda c, id_, epoch: begin_finalizing(c, id_, epoch, NOW_S, has_expired=False),
    lambda c, id_, epoch: end_batch(c, id_, epoch, NOW_S, "completed"),
]


def _new(project: str = "p1", window_s: int = 86_400) -> NewBatch:
    return NewBatch(
        project_id=project,
        endpoint="/v1/chat/completions",
        input_file_id="file-1",
        input_key="files/file-1",
        completion_window="24h",
        created_s=NOW_S,
        expires_s=NOW_S + window_s,
        metadata={"a": "b"},
    )


def _part(key: str) -> BatchPart:
    return BatchPart(key=key, kind="output", lines=b"\1\0\0\0", bytes=3)


async def _created(database: Database, new: NewBatch | None = None) -> BatchRow:
    return await database.write(lambda c: create_batch(c, new or _new(), 1000))


async def _claimed(database: Database, now_s: int = NOW_S) -> BatchRow | None:
    return await database.write(lambda c: claim_batch(c, "w", now_s, LEASE_S))


async def test_another_projects_batch_does_not_exist(database: Database) -> None:
    """Neither to be seen nor to be cancelled nor in a list."""
    row = await _created(database)

    assert (await database.read(lambda c: batch(c, "p1", row.id))).metadata == {"a": "b"}
    with pytest.raises(ObjectNotFound):
        await database.read(lambda c: batch(c, "p2", row.id))
    with pytest.raises(ObjectNotFound):
        await database.write(lambda c: cancel_batch(c, "p2", row.id, NOW_S))
    assert (await database.read(lambda c: list_batches(c, "p2", Cursor()))).rows == []
    with pytest.raises(InvalidRequest):
        await database.read(lambda c: list_batches(c, "p2", Cursor(after=row.id)))


async def test_a_batch_has_one_worker_until_its_claim_runs_out(database: Database) -> None:
    """The one with the earliest deadline comes first; each claim is a new epoch."""
    later = await _created(database)
    sooner = await _created(database, _new(window_s=60))

    claims = [await _claimed(database) for _ in range(3)]
    again = await _claimed(database, NOW_S + LEASE_S)

    assert [claim and claim.id for claim in claims] == [sooner.id, later.id, None]
    assert again is not None
    assert (again.id, again.epoch) == (sooner.id, 2)


async def test_a_claim_that_is_renewed_or_given_up(database: Database) -> None:
    """It lasts longer, or ends at once."""
    row = await _created(database)
    await _claimed(database)
    await database.write(lambda c: renew_claim(c, row.id, 1, NOW_S + 10, LEASE_S))

    kept = await _claimed(database, NOW_S + LEASE_S)
    await database.write(lambda c: release_claim(c, row.id, 1))
    taken = await _claimed(database, NOW_S + LEASE_S)

    assert kept is None
    assert taken is not None


@pytest.mark.parametrize("write", WRITES)
async def test_a_worker_that_lost_its_batch_writes_nothing(
    database: Database, write: Callable[[Connection, str, int], object]
) -> None:
    """Neither after another has claimed it, nor once it has ended."""
    row = await _created(database)
    await _claimed(database)
    before = await _claimed(database, NOW_S + LEASE_S)

    with pytest.raises(Superseded):
        await database.write(lambda c: write(c, row.id, 1))

    assert await database.read(lambda c: batch(c, "p1", row.id)) == before
    assert await database.read(lambda c: parts_of(c, row.id)) == []
    await database.write(lambda c: end_batch(c, row.id, 2, NOW_S, "completed"))
    with pytest.raises(Superseded):
        await database.write(lambda c: write(c, row.id, 2))


async def test_parts_count_once(database: Database) -> None:
    """A worker that did not get the answer records them again."""
    row = await _created(database)
    await _claimed(database)
    progress = Progress(completed=2, failed=1, input_tokens=30)

    for keys in (["a", "b"], ["a", "b"], ["c"]):
        parts = [_part(key) for key in keys]
        add = partial(add_parts, batch_id=row.id, epoch=1, parts=parts, progress=progress)
        await database.write(add)

    found = await database.read(lambda c: batch(c, "p1", row.id))
    assert (found.completed, found.failed, found.input_tokens) == (4, 2, 60)
    assert [each.key for each in await database.read(lambda c: parts_of(c, row.id))] == [
        *("a", "b", "c")
    ]


async def test_a_cancelled_batch_stays_so(database: Database) -> None:
    """Also if its worker notices later; it can be cancelled twice, and not once it has ended."""
    row = await _created(database)
    await _claimed(database)

    for now_s in (NOW_S, NOW_S + 1):
        cancel = partial(cancel_batch, project_id="p1", batch_id=row.id, now_s=now_s)
        found = await database.write(cancel)
        assert (found.status, found.cancelling_s) == ("cancelling", NOW_S)
    begun = await database.write(
        lambda c: begin_batch(c, row.id, 1, NOW_S, model="m", total=1, lines=1, plan_key="p")
    )
    final = await database.write(lambda c: begin_finalizing(c, row.id, 1, NOW_S, has_expired=False))
    await database.write(lambda c: end_batch(c, row.id, 1, NOW_S, "cancelled"))

    assert (begun.status, final.status) == ("cancelling", "cancelling")
    with pytest.raises(BatchNotCancellable):
        await database.write(lambda c: cancel_batch(c, "p1", row.id, NOW_S))
    assert await database.read(unfinished_ids) == set()


async def test_the_states_of_a_batch(database: Database) -> None:
    """From its creation to its end, each with its time."""
    row = await _created(database)
    await _claimed(database)

    begun = await database.write(
        lambda c: begin_batch(c, row.id, 1, NOW_S + 1, model="m", total=9, lines=9, plan_key="p")
    )
    final = await database.write(
        lambda c: begin_finalizing(c, row.id, 1, NOW_S + 2, has_expired=True)
    )
    await database.write(
        lambda c: end_batch(
            c, row.id, 1, NOW_S + 3, "expired", output_file_id="o", error_file_id="e"
        )
    )
    ended = await database.read(lambda c: batch(c, "p1", row.id))

    assert (row.status, begun.status, final.status) == ("validating", "in_progress", "finalizing")
    assert (begun.in_progress_s, begun.total, begun.model) == (NOW_S + 1, 9, "m")
    assert (ended.status, ended.finalizing_s, ended.expired_s) == ("expired", NOW_S + 2, NOW_S + 3)
    assert (ended.output_file_id, ended.error_file_id) == ("o", "e")


async def test_a_worker_does_not_claim_what_it_has(database: Database) -> None:
    """Its claims have run out while it could not reach the database."""
    row = await _created(database)
    await _claimed(database)
    later_s = NOW_S + LEASE_S + 1

    own = await database.write(lambda c: claim_batch(c, "w", later_s, LEASE_S, [row.id]))
    other = await _claimed(database, later_s)

    assert own is None
    assert other is not None


async def test_projects_take_turns(database: Database) -> None:
    """One with many early deadlines has the second place, not all of them."""
    for _ in range(3):
        await _created(database, _new("many", 60))
    await _created(database, _new("one"))

    order = [await _claimed(database) for _ in range(4)]

    assert [row and row.project_id for row in order] == ["many", "one", "many", "many"]


async def test_a_project_has_only_so_many_unfinished_batches(database: Database) -> None:
    """Those that have ended, and those of others, do not count."""
    rows = [await database.write(lambda c: create_batch(c, _new(), 2)) for _ in range(2)]
    with pytest.raises(TooManyBatches):
        await database.write(lambda c: create_batch(c, _new(), 2))

    await database.write(lambda c: create_batch(c, _new("p2"), 2))
    await database.write(lambda c: end_batch(c, rows[0].id, 0, NOW_S, "completed"))
    await database.write(lambda c: create_batch(c, _new(), 2))


async def test_unfinished_batches_are_counted(database: Database) -> None:
    """By status, with their requests."""
    assert (await database.read(count_unfinished)).by_status == {}
    row = await _created(database)
    await _created(database)
    await _claimed(database)
    await database.write(
        lambda c: begin_batch(c, row.id, 1, NOW_S, model="m", total=9, lines=9, plan_key="p")
    )
    await database.write(lambda c: add_parts(c, row.id, 1, [_part("a")], Progress(completed=4)))

    found = await database.read(count_unfinished)

    assert found.by_status == {"validating": 1, "in_progress": 1}
    assert (found.total, found.done) == (9, 4)

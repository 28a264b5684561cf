"""Writes rows of usage, and what follows from them: sums, watermarks. All within one transaction.

Method: the transaction holds the writer's lock, so what it reads stays true. It looks up the
dispatches of a batch, and leaves out rows that are there: to write a batch again changes nothing.
`gateway.ledger.deliveries` says which rows of a dispatch stay, and which one is charged. The sums
change by exactly the rows that have been inserted, replaced or settled anew.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Table, bindparam, delete, insert, select
from sqlalchemy.dialects import postgresql, sqlite

from gateway.ledger.deliveries import charged, merged
from gateway.ledger.price import PriceList
from gateway.ledger.roll_up import changes
from gateway.ledger.row import (
    ROUTER,
    ChargeLimit,
    UsageRow,
    charge_limit_of,
    earlier_limits,
    make_row,
    signed,
)
from gateway.ledger.settlement import Settlement
from gateway.ledger.view import Watermark
from gateway.store.key_use import record_key_use
from gateway.store.tables import (
    DIMENSIONS,
    ROLL_UPS,
    SUMS,
    settlements,
    usage,
    watermarks,
)
from gateway.telemetry.usage import UsageRecord

LOOKED_UP = 500
"""Ids in one query."""


class EngineBatch(msgspec.Struct, frozen=True):
    """Records of one engine's process, in their order."""

    engine: str
    epoch: int
    records: Sequence[UsageRecord]


class Written(msgspec.Struct, frozen=True):
    """What a transaction has written."""

    rows: int = 0
    known: int = 0
    """Records whose rows were there."""
    estimated: int = 0


def write_usage(
    connection: Connection, batches: Iterable[EngineBatch], prices: PriceList, now_us: int
) -> Written:
    """Write the records of engines, and how far the ledger has them."""
    written = Written()
    for batch in batches:
        ids = [signed(record.id) for record in batch.records]
        said = earlier_limits(batch.records)
        _upsert_limits(connection, said, now_us)
        limits = _charge_limits(connection, [*ids, *said])
        rows = [
            make_row(
                batch.engine,
                record,
                limits.get(id_),
                prices,
                now_us,
                is_estimated=False,
            )
            for record, id_ in zip(batch.records, ids, strict=True)
        ]
        inserted = len(_write_rows(connection, rows, limits, said, prices))
        known = len(rows) - inserted
        written = Written(written.rows + inserted, written.known + known)
        if batch.records:
            _raise_watermark(connection, batch, now_us)
    return written


def write_settlements(
    connection: Connection, given: Sequence[Settlement], prices: PriceList, now_us: int
) -> Written:
    """Write what routers have said of attempts: their charge limits, and records that they have.

    To write a settlement again changes nothing.
    """
    said = earlier_limits(each.record for each in given if each.record is not None)
    limits = ((signed(each.id), charge_limit_of(each)) for each in given)
    said |= {id_: (ROUTER, limit) for id_, limit in limits if limit is not None}
    _upsert_limits(connection, said, now_us)
    known = _charge_limits(connection, list(said.keys() | {signed(each.id) for each in given}))
    rows = [
        make_row(
            each.engine,
            each.record,
            known.get(signed(each.id)),
            prices,
            now_us,
            is_estimated=each.is_estimated,
        )
        for each in given
        if each.record is not None
    ]
    inserted = _write_rows(connection, rows, known, said, prices)
    estimated = sum(row.is_estimated for row in inserted)
    return Written(len(inserted), len(rows) - len(inserted), estimated)


def read_watermarks(connection: Connection, since_us: int = 0) -> tuple[Watermark, ...]:
    """How far the ledger has the records of engines that it has heard of since then."""
    query = select(watermarks).where(watermarks.c.at_us >= since_us)
    return tuple(
        Watermark(engine=row.engine, epoch=row.epoch, seq=row.seq, first=row.first)
        for row in connection.execute(query)
    )


def upsert(connection: Connection, table: Table) -> Any:  # noqa: ANN401 - one of two dialects'
    """`INSERT` with `ON CONFLICT`, in the database's dialect."""
    dialect: Any = sqlite if connection.dialect.name == "sqlite" else postgresql
    return dialect.insert(table)


def _write_rows(
    connection: Connection,
    rows: Sequence[UsageRow],
    limits: Mapping[int, ChargeLimit],
    said: Collection[int],
    prices: PriceList,
) -> list[UsageRow]:
    """Write rows, and charge dispatches anew that routers have `said` something of; what is new."""
    coming: dict[int, list[UsageRow]] = defaultdict(list)
    for row in rows:
        coming[row.dispatch_id].append(row)
    known = _rows(connection, coming.keys() | said)
    removed: list[UsageRow] = []
    added: list[UsageRow] = []
    inserted: list[UsageRow] = []
    for id_ in {**coming, **known}:
        before = known.get(id_, [])
        after = merged(before, coming.get(id_, ()))
        there = {row.primary_key for row in before}
        new = [row for row in after if row.primary_key not in there]
        if not new and id_ not in said:
            continue
        if len(after) > 1 or before:
            after = charged(after, limits.get(id_), prices)
        removed += [row for row in before if row not in after]
        added += [row for row in after if row not in before]
        inserted += new
    _replace(connection, removed, added)
    record_key_use(connection, _last_uses(inserted))
    return inserted


def _replace(
    connection: Connection, removed: Sequence[UsageRow], added: Sequence[UsageRow]
) -> None:
    names = ("engine", "epoch", "seq")
    if removed:
        same = (usage.c[name] == bindparam(f"old_{name}") for name in names)
        keys = [
            {f"old_{name}": value for name, value in zip(names, row.primary_key, strict=True)}
            for row in removed
        ]
        connection.execute(delete(usage).where(*same), keys)
    if added:
        # Two dispatches of one number are a mistake of an engine: the writer rejects and counts it.
        connection.execute(insert(usage), [msgspec.structs.asdict(row) for row in added])
    _add_sums(connection, added, removed)


def _last_uses(rows: Iterable[UsageRow]) -> dict[str, int]:
    """When the last request of each key arrived, in Unix seconds."""
    found: dict[str, int] = {}
    for row in rows:
        if row.key:
            found[row.key] = max(found.get(row.key, 0), row.arrived_us // 1_000_000)
    return found


def _add_sums(
    connection: Connection, added: Collection[UsageRow], removed: Collection[UsageRow]
) -> None:
    for period_s, table in ROLL_UPS.items():
        changed = changes(added, removed, period_s)
        if not changed:
            continue
        new = upsert(connection, table)
        statement = new.on_conflict_do_update(
            index_elements=["at_s", *DIMENSIONS],
            set_={name: table.c[name] + new.excluded[name] for name in SUMS},
        )
        columns = ("at_s", *DIMENSIONS, *SUMS)
        connection.execute(
            statement,
            # In one order always, so that two writers never wait for each other.
            [dict(zip(columns, (*key, *changed[key]), strict=True)) for key in sorted(changed)],
        )


def _raise_watermark(connection: Connection, batch: EngineBatch, now_us: int) -> None:
    """Move an engine's watermark; an old page that is written again is no news."""
    first, last = batch.records[0].seq, batch.records[-1].seq
    old = connection.execute(select(watermarks).where(watermarks.c.engine == batch.engine)).first()
    if old is not None and (batch.epoch, last) <= (old.epoch, old.seq):
        return
    if old is not None and batch.epoch == old.epoch and first <= old.seq + 1:
        first = old.first
    row = {"epoch": batch.epoch, "seq": last, "at_us": now_us, "first": first}
    statement = upsert(connection, watermarks).on_conflict_do_update(
        index_elements=["engine"], set_=row
    )
    connection.execute(statement, {"engine": batch.engine, **row})


def _upsert_limits(
    connection: Connection, said: Mapping[int, tuple[int, ChargeLimit]], now_us: int
) -> None:
    """Write what attempts have said of earlier ones, or `ROUTER` has; the highest number counts."""
    if not said:
        return
    new = upsert(connection, settlements)
    names = ("is_wasted", "completion_tokens", "at_us", "attempt")
    statement = new.on_conflict_do_update(
        index_elements=["dispatch_id"],
        set_={name: new.excluded[name] for name in names},
        where=new.excluded.attempt >= settlements.c.attempt,
    )
    connection.execute(
        statement,
        [
            {
                "dispatch_id": id_,
                "is_wasted": limit.is_wasted,
                "completion_tokens": limit.completion_tokens,
                "at_us": now_us,
                "attempt": number,
            }
            for id_, (number, limit) in said.items()
        ],
    )


def _charge_limits(connection: Connection, ids: Sequence[int]) -> dict[int, ChargeLimit]:
    found: dict[int, ChargeLimit] = {}
    columns = settlements.c
    query = select(columns.dispatch_id, columns.is_wasted, columns.completion_tokens)
    for start in range(0, len(ids), LOOKED_UP):
        some = columns.dispatch_id.in_(ids[start : start + LOOKED_UP])
        for row in connection.execute(query.where(some)):
            found[row.dispatch_id] = ChargeLimit(row.is_wasted, row.completion_tokens)
    return found


def _rows(connection: Connection, wanted: Collection[int]) -> dict[int, list[UsageRow]]:
    """The rows that are there of some dispatches."""
    found: dict[int, list[UsageRow]] = defaultdict(list)
    ids = list(wanted)
    for start in range(0, len(ids), LOOKED_UP):
        some = usage.c.dispatch_id.in_(ids[start : start + LOOKED_UP])
        rows = connection.execute(select(usage).where(some))
        for row in rows.mappings():
            found[row["dispatch_id"]].append(UsageRow(**row))
    return found

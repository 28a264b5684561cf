"""The writer waits for the database, and one bad record does not hold up the others."""

import asyncio
import signal

import msgspec
import pytest
from sqlalchemy import Connection, func, select

from gateway.accounts.ledger_writer import LedgerWriter
from gateway.ledger.price import PriceList
from gateway.store.database import Database, DatabaseUnavailable
from gateway.store.tables import usage
from gateway.store.usage import EngineBatch
from gateway.telemetry.dispatch import Origin
from gateway.telemetry.usage import UsageRecord
from tests.postgres import PostgresServer
from tests.unit.accounting import all_sums
from tests.unit.databases import empty
from tests.unit.recorder import KeptRecorder


def record(seq: int, **fields: object) -> UsageRecord:
    """A record of an engine."""
    made = UsageRecord(
        epoch=1, seq=seq, id=seq, origin=Origin(project="p"), model="m", arrived_s=1.0, ended_s=2.0
    )
    return msgspec.structs.replace(made, **fields)


def count(connection: Connection) -> int:
    """Number of rows."""
    return connection.scalar(select(func.count()).select_from(usage)) or 0


async def test_a_record_that_cannot_be_written_is_rejected_alone(database: Database) -> None:
    """It is counted; the others of its batch are written."""
    recorder = KeptRecorder()
    writer = LedgerWriter(database, PriceList(), recorder, lambda: None)
    writer.start()
    records = [record(1), record(2, prompt_tokens="many"), record(3)]
    await writer.write_batch(EngineBatch("e", 1, records))
    assert await database.read(count) == 2
    assert recorder.counts["gateway_accounts_rejected", ()] == 1
    await writer.close()


async def test_a_number_that_comes_twice_is_rejected_and_counted(database: Database) -> None:
    """The sums never have more than the rows."""
    recorder = KeptRecorder()
    writer = LedgerWriter(database, PriceList(), recorder, lambda: None)
    writer.start()
    await writer.write_batch(EngineBatch("e", 1, [record(1, completion_tokens=5)]))
    await writer.write_batch(EngineBatch("e", 1, [record(1, id=77), record(2)]))
    assert recorder.counts["gateway_accounts_rejected", ()] == 1
    assert await database.read(count) == 2
    assert len(set(await database.read(all_sums))) == 1
    await writer.close()


async def test_a_restart_of_postgresql_loses_nothing(postgres: PostgresServer) -> None:
    """Who writes meanwhile waits, and what was asked for is written once."""
    database = await Database.open(postgres.url)
    await database.write(empty)
    writer = LedgerWriter(database, PriceList(), KeptRecorder(), lambda: None)
    writer.start()
    postgres.stop(signal.SIGQUIT)
    writing = asyncio.create_task(writer.write_batch(EngineBatch("e", 1, [record(1)])))
    async with asyncio.timeout(20):
        while writer.unavailable_since_s is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert not writing.done()

    await asyncio.to_thread(postgres.start)
    await writing

    assert await database.read(count) == 1
    await writer.close()
    await database.close()


async def test_a_database_that_cannot_be_written_is_no_fault_of_the_records(
    database: Database,
) -> None:
    """A missing table is the operator's to mend: nothing is rejected."""

    def fail(connection: Connection) -> None:
        connection.exec_driver_sql("INSERT INTO missing VALUES (1)")

    with pytest.raises(DatabaseUnavailable, match="missing"):
        await database.write(fail)

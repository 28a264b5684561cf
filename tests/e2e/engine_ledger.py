"""A ledger of one engine, for tests: Accounts collects what it reports, and nothing else runs."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from sqlalchemy import Connection, func, select

from gateway.accounts.keeper import LedgerKeeper, open_database
from gateway.config.accounts import AccountsConfig
from gateway.metrics import NullRecorder
from gateway.routing.fleet import Fleet, Replica, ServedModel
from gateway.store.tables import usage
from gateway.telemetry.facts import EngineFacts, ReplicaMetadata
from tests.engine_process import EngineProcess

TIMEOUT_S = 30.0
FACTS = EngineFacts(
    engine="vllm", routes=(), kv_tokens=1, block_size=1, max_sequences=1, max_model_len=1
)
COLUMNS = (
    usage.c.charged_prompt_tokens,
    usage.c.charged_cached_tokens,
    usage.c.charged_completion_tokens,
    usage.c.cost_nano,
)


@contextlib.asynccontextmanager
async def ledger_of(
    engine: EngineProcess, model: str, folder: Path, price: Mapping[str, object]
) -> AsyncIterator[LedgerKeeper]:
    """Accounts of one engine, with a price for its model."""
    config = AccountsConfig.model_validate(
        {"database": f"sqlite:///{folder / 'accounts.db'}", "prices": {model: [price]}}
    )
    fleet = Fleet()
    fleet.add(ServedModel(model, created_s=0))
    metadata = ReplicaMetadata(
        model=model, host="127.0.0.1", port=engine.port, key=engine.key, facts=FACTS
    )
    fleet.model(model).replace_replicas([Replica("engine", metadata)])
    keeper = LedgerKeeper(
        await open_database(config, {}, NullRecorder()), config, fleet, NullRecorder()
    )
    keeper.start()
    try:
        yield keeper
    finally:
        await keeper.close()


async def sums_of(keeper: LedgerKeeper, project: str, requests: int) -> tuple[int, ...]:
    """Tokens and cost of a project, once it has so many requests in the ledger."""

    def read(connection: Connection) -> tuple[int, ...]:
        query = select(func.count(), *map(func.sum, COLUMNS)).where(usage.c.project == project)
        return tuple(int(value or 0) for value in connection.execute(query).one())

    async with asyncio.timeout(TIMEOUT_S):
        while (found := await keeper.database.read(read))[0] < requests:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.1)
    assert found[0] == requests
    return found[1:]

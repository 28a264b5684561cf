"""What routers need of the ledger to go on with limits."""

from sqlalchemy import Connection, insert

from gateway.ledger.calendar import DAY_S
from gateway.ledger.view import BatchUsage
from gateway.store.database import Database
from gateway.store.routers_view import read_batch
from gateway.store.tables import DIMENSIONS, SUMS, usage_days

NOON_S = 1_800_014_400
TODAY_S = NOON_S - NOON_S % DAY_S


def day(at_s: int, tier: str, endpoint: str, tokens: int, project: str = "p") -> dict[str, object]:
    """Sums of a day."""
    names = {"project": project, "key": "k", "model": "m", "tier": tier, "endpoint": endpoint}
    sums = dict.fromkeys(SUMS, 0) | {"prompt_tokens": 2 * tokens, "cached_tokens": tokens}
    return {"at_s": at_s, **dict.fromkeys(DIMENSIONS, ""), **names, **sums}


async def test_batch_tokens_are_those_of_today_by_project_key_and_model(database: Database) -> None:
    """Other tiers, other days and requests of no project are left out."""
    rows = [
        day(TODAY_S, "flex", "/v1/completions", 10),
        day(TODAY_S, "flex", "/v1/chat/completions", 5),
        day(TODAY_S, "default", "/v1/chat/completions", 100),
        day(TODAY_S - DAY_S, "flex", "/v1/chat/completions", 1000),
        day(TODAY_S, "flex", "/v1/chat/completions", 7, project=""),
    ]

    def write(connection: Connection) -> None:
        connection.execute(insert(usage_days), rows)

    await database.write(write)
    found = await database.read(lambda connection: read_batch(connection, NOON_S))
    assert found == (
        BatchUsage(
            project="p",
            key="k",
            model="m",
            prompt_tokens=30,
            cached_tokens=15,
            completion_tokens=0,
        ),
    )

"""When keys were used last: from the ledger's rows, and from requests for the admin API."""

from functools import partial

from sqlalchemy import Connection, select

from gateway.ledger.price import PriceList
from gateway.store.admin_keys import create_admin_key, list_admin_keys
from gateway.store.api_keys import KeyParams, api_key, create_api_key
from gateway.store.changes import Actor, Change
from gateway.store.database import Database
from gateway.store.key_use import record_key_use
from gateway.store.organization import Organization
from gateway.store.pages import Cursor
from gateway.store.projects import ProjectSettings, create_project
from gateway.store.service_accounts import create_service_account
from gateway.store.tables import usage
from gateway.store.usage import EngineBatch, write_usage
from gateway.telemetry.dispatch import Origin
from gateway.telemetry.usage import UsageRecord

ACTOR = Actor(id="config")


def make_key(change: Change) -> tuple[str, str]:
    """Create a project with a key; returns their ids."""
    project = create_project(change, "p", ProjectSettings())
    account = create_service_account(change, project.id, "bot", "member")
    key, _ = create_api_key(change, project.id, account.id, KeyParams(name="k"))
    return project.id, key.id


async def test_a_request_in_the_ledger_is_a_use_of_its_key(database: Database) -> None:
    """When it arrived; a key that the database does not know changes nothing."""
    organization = Organization(database, lambda: 1000.0)
    project, key = await organization.change(ACTOR, make_key)
    records = [
        UsageRecord(
            epoch=1,
            seq=number + 1,
            id=number,
            origin=Origin(project=project, key=each),
            model="m",
            arrived_s=arrived_s,
            ended_s=arrived_s + 9,
        )
        for number, (each, arrived_s) in enumerate(((key, 5000.5), (key, 4000), ("file", 6000)))
    ]

    def write(connection: Connection) -> None:
        write_usage(connection, [EngineBatch("e", 1, records)], PriceList(), 10**10)

    await database.write(write)

    found = await database.read(lambda c: api_key(c, project, key))
    assert found.last_used_s == 5000
    assert len(await database.read(lambda c: c.scalars(select(usage.c.seq)).all())) == 3


async def test_uses_are_noted_once_a_minute(database: Database) -> None:
    """Earlier ones, and those within a minute, change nothing."""
    organization = Organization(database)
    project, key = await organization.change(ACTOR, make_key)
    noted = []
    for at_s in (1000, 1059, 1060, 10, 2000):
        await database.write(partial(record_key_use, used={key: at_s}))
        noted.append((await database.read(lambda c: api_key(c, project, key))).last_used_s)
    assert noted == [1000, 1000, 1060, 1060, 2000]


async def test_admin_keys_are_used_by_asking(database: Database) -> None:
    """Their last use is in their list."""
    organization = Organization(database, lambda: 1000.0)
    key, _ = await organization.change(ACTOR, lambda c: create_admin_key(c, "ops", None))
    await organization.record_admin_key_use(key.id)
    page = await database.read(lambda c: list_admin_keys(c, Cursor()))
    assert [each.last_used_s for each in page.rows] == [1000]

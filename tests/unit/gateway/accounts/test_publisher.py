"""What Accounts publishes to routers."""

from gateway.accounts.publisher import ViewPublisher
from gateway.ledger.price import PriceList
from gateway.store.changes import Actor
from gateway.store.database import Database
from gateway.store.organization import Organization
from gateway.store.projects import ProjectSettings, create_project


async def test_a_change_is_published_at_once_with_its_number(database: Database) -> None:
    """So that routers can wait for the change that an administrator has been told of."""
    publisher = ViewPublisher(database, PriceList(()))
    before = await publisher.publish_now()
    old = await publisher.follow("")
    await Organization(database).change(
        Actor(id="key_admin"), lambda change: create_project(change, "search", ProjectSettings())
    )
    after = await publisher.publish_now()
    new = await publisher.follow(old.version)
    assert after == new.changes == before + 1
    assert new.directory is not None
    assert [each.name for each in new.directory.projects] == ["search"]

"""What routers get of the organization, and how they notice that it has changed."""

import asyncio

import pytest
from sqlalchemy import Connection

from gateway.errors.administration import TooManyKeys
from gateway.identity.api_key import key_hash
from gateway.identity.project import AdminKey, ApiKey, Directory, Project
from gateway.store.admin_keys import create_admin_key
from gateway.store.api_keys import KeyParams, create_api_key
from gateway.store.changes import Actor, Change, directory_version
from gateway.store.database import Database
from gateway.store.directory import directory
from gateway.store.organization import Organization
from gateway.store.projects import ProjectSettings, create_project, update_project
from gateway.store.service_accounts import create_service_account

ACTOR = Actor(id="key_admin")


async def test_an_empty_database_has_an_empty_directory(database: Database) -> None:
    """Nothing has changed yet."""
    assert await database.read(directory) == Directory()
    assert await database.read(directory_version) == 0


async def test_the_directory_has_hashes_and_settings(database: Database) -> None:
    """What the admin API has made is there, ready for a router."""
    organization = Organization(database, lambda: 1000.0)
    settings = ProjectSettings(weight=2.0, models=("m",), tiers=("default",))

    def make(change: Change) -> tuple[Directory, str]:
        project = create_project(change, "search", settings)
        account = create_service_account(change, project.id, "bot", "member")
        new = KeyParams(name="k", expires_in_s=9, models=("m",))
        key, secret = create_api_key(change, project.id, account.id, new)
        admin, admin_secret = create_admin_key(change, "ops", None)
        expected = Directory(
            projects=(
                Project(
                    id=project.id, name="search", weight=2.0, models=("m",), tiers=("default",)
                ),
            ),
            keys=(
                ApiKey(
                    id=key.id,
                    project=project.id,
                    hash=key_hash(secret.encode()),
                    owner=account.id,
                    name="k",
                    models=("m",),
                    expires_s=1009.0,
                ),
            ),
            admin_keys=(AdminKey(id=admin.id, hash=key_hash(admin_secret.encode()), name="ops"),),
        )
        return expected, project.id

    expected, _ = await organization.change(ACTOR, make)

    assert await database.read(directory) == expected


async def test_the_version_grows_with_each_change_and_only_then(database: Database) -> None:
    """Routers fetch the directory when it has grown."""
    organization = Organization(database)
    settings = ProjectSettings()
    project = await organization.change(ACTOR, lambda c: create_project(c, "a", settings))
    first = await database.read(directory_version)

    await organization.change(ACTOR, lambda c: update_project(c, project.id, {"name": "a"}))
    assert await database.read(directory_version) == first
    await organization.change(ACTOR, lambda c: update_project(c, project.id, {"name": "b"}))
    assert await database.read(directory_version) == first + 1


async def test_two_writers_do_not_exceed_what_one_may(
    database: Database, database_url: str
) -> None:
    """Two processes create keys of one owner at the same time: two of eight succeed."""
    other = await Database.open(database_url)
    first, second = Organization(database), Organization(other)

    def make(change: Change) -> tuple[str, str]:
        project = create_project(change, "p", ProjectSettings())
        return project.id, create_service_account(change, project.id, "bot", "member").id

    project, account = await first.change(ACTOR, make)
    new = KeyParams(name="k")
    outcomes = await asyncio.gather(
        *(
            each.change(ACTOR, lambda c: create_api_key(c, project, account, new))
            for each in (first, second)
            for _ in range(4)
        ),
        return_exceptions=True,
    )

    refused = [each for each in outcomes if isinstance(each, BaseException)]
    assert len(refused) == 6
    assert all(isinstance(each, TooManyKeys) for each in refused)
    assert len((await database.read(directory)).keys) == 2
    await other.close()


async def test_a_change_that_fails_leaves_nothing(database: Database) -> None:
    """Neither the object nor its entry in the audit log, nor another version."""
    organization = Organization(database)

    def fail(change: Change) -> None:
        create_project(change, "p", ProjectSettings())
        raise KeyError

    with pytest.raises(KeyError):
        await organization.change(ACTOR, fail)

    def counts(connection: Connection) -> tuple[Directory, int]:
        return directory(connection), directory_version(connection)

    assert await database.read(counts) == (Directory(), 0)

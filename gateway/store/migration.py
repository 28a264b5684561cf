"""Brings a database's tables up to date with alembic; the steps are in `migrations/versions`."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from gateway.errors.startup import ConfigError

CONNECTION = "connection"
"""Attribute of alembic's configuration in which `migrations/env.py` finds the connection."""


def migrate(connection: Connection) -> None:
    """Make or change the tables, in the transaction of `connection`; nothing if they are right.

    Raises:
        ConfigError: a newer version of the gateway has changed them.
    """
    config = _config()
    version = MigrationContext.configure(connection).get_current_revision()
    known = ScriptDirectory.from_config(config)
    if version is not None and version not in {each.revision for each in known.walk_revisions()}:
        raise ConfigError(
            f"database: its tables are of version {version}, which a newer version of the"
            f" gateway has made; this one knows up to {known.get_current_head()}. Install that"
            " version again, or restore a backup from before the upgrade"
            ' (docs/operations.md, "Back up the database")'
        )
    config.attributes[CONNECTION] = connection
    command.upgrade(config, "head")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config

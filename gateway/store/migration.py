"""Brings a database's tables up to date with alembic; the steps are in `migrations/versions`."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

CONNECTION = "connection"
"""Attribute of alembic's configuration in which `migrations/env.py` finds the connection."""


def migrate(connection: Connection) -> None:
    """Make or change the tables, in the transaction of `connection`; nothing if they are right."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes[CONNECTION] = connection
    command.upgrade(config, "head")

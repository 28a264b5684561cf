"""Each test of Accounts runs on SQLite and on PostgreSQL."""

from tests.unit.databases import database, database_url, postgres

__all__ = ["database", "database_url", "postgres"]

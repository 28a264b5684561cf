"""The database of Accounts: its tables, how it is opened, and what is written and read.

The only package that imports SQLAlchemy and alembic. SQLite (in WAL mode) or PostgreSQL.
"""

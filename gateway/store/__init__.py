"""What the gateway keeps: tables of Accounts and of State, and the bytes of projects' files.

The only package that imports SQLAlchemy, alembic and fsspec. SQLite (in WAL mode) or PostgreSQL.
"""
